"""Keras, KerasHub and OpenVINO, imported late and quiet: naming a network or finding its weights needs none."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tlfeat.errors import UsageError
from tlfeat.records import distribution_version
from tlfeat.system import was_interrupted

#: The first with all networks of `hub_catalog`.
_LEAST_HUB = (0, 32)

_HUB_ADVICE = "Install it with: pip install 'tlfeat[hub]'"


def import_keras() -> Any:
    """Import Keras on TensorFlow, quiet, with oneDNN on (worth 1.8 times on AMD, where it is off by default)."""
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # TensorFlow 2.21 greets on file descriptor 2 before it has read its log level
    with silent_stderr(), uncollected("keras"):
        import keras
    # "5 out of the last 7 calls triggered tf.function retracing" when several networks train in one process
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras


@contextlib.contextmanager
def uncollected(package: str) -> Iterator[None]:
    """Leave what a large package makes while it is first imported out of this and every later garbage collection.

    TensorFlow makes 400,000 objects that stay: collections take a fifth of its import, and Keras collects whenever a
    network is built, for 0.2 s. What was garbage before is collected first; what was alive is freed as ever, unless it
    refers to itself.
    """
    if package in sys.modules:  # networks that are alive by now have to be freed
        yield
        return
    is_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_enabled:
            gc.enable()


def import_openvino() -> Any:
    """Import OpenVINO without its usage statistics.

    By itself it posts some at every import, and writes an identity below the home folder. Where the package that does
    so cannot be imported, OpenVINO goes without. The user's settings stay as they are, and so does what is imported
    already.
    """
    with contextlib.nullcontext() if "openvino" in sys.modules else without_telemetry():
        return importlib.import_module("openvino")


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Make the package that posts usage statistics one that cannot be imported, unless it is there already."""
    telemetry = "openvino_telemetry"
    if telemetry in sys.modules:
        yield
        return
    sys.modules[telemetry] = None  # type: ignore[assignment]  # what Python takes for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[telemetry]


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


def need_hub() -> None:
    """Raise `UsageError` where KerasHub is absent or too old, without importing it: it brings TensorFlow."""
    if importlib.util.find_spec("keras_hub") is None:
        raise UsageError(f"keras_hub is needed for this network. {_HUB_ADVICE}.")
    version = distribution_version("keras-hub")
    if _release(version) < _LEAST_HUB:
        raise UsageError(f"KerasHub {version} is too old for this network. {_HUB_ADVICE}.")


def import_hub(part: str = "keras_hub") -> Any:
    """Import KerasHub or what comes with it; a `UsageError` says how to get it."""
    if part == "keras_hub":
        need_hub()
    if part.startswith("keras"):
        import_keras()  # on TensorFlow and quietly, which KerasHub would not be
    try:
        found = importlib.import_module(part)
    except ModuleNotFoundError as error:
        if part.startswith("keras_hub.src"):
            raise UsageError(f"This KerasHub has no {part}: {_HUB_ADVICE.replace('it', '0.32', 1)}.") from error
        raise UsageError(f"{part.partition('.')[0]} is needed for this network. {_HUB_ADVICE}.") from error
    return found


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
