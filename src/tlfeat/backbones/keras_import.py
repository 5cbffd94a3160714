"""Keras is imported on TensorFlow, and quietly."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tlfeat.system import was_interrupted


def import_keras() -> Any:
    """Import Keras on TensorFlow, quiet, with oneDNN on (worth 1.8 times on AMD, where it is off by default)."""
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with silent_stderr():  # TensorFlow 2.21 greets on file descriptor 2 before it has read its log level
        import keras
    # "5 out of the last 7 calls triggered tf.function retracing" when several networks train in one process
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hold back what native code writes to stderr; it is shown after all if the body raises, but for Ctrl-C."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(kept, b"" if was_interrupted() else held_back.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
