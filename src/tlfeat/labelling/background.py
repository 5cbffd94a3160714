"""Extraction in a process of its own while a person labels: in a random order, and it ends with the one who asked.

So whatever is embedded at any time is a random sample, and the page shares neither memory nor Python's lock with it.
"""

from __future__ import annotations

import _thread
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlfeat.errors import Interrupted, TlfeatError

#: A line for each of these seconds at most says how far it is.
_SAY_EVERY_S = 0.5

#: How long an extraction that was told to stop may take for its last commit; and one that has not embedded yet.
_PATIENCE_S, _LITTLE_PATIENCE_S = 20.0, 1.0

#: Answers come first: the person waits for the page, and nobody for the last picture.
_NICE = 5

#: What a new Python process runs: its path for imports comes as a pickle from the one that started it.
_START = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from tlfeat.labelling.background import extract_as_told
extract_as_told()
"""


@dataclass(slots=True)
class Extraction:
    """An extraction in another process, as far as it has come.

    Attributes
    ----------
    data : Path
    options : mapping
        Those of `plan_extraction`.
    seed : int
        Of the random order.
    cache : Path, optional
        None until it is known which file it is.
    n_done, n_todo : int
        Pictures that this run looked at, of all that it has to.
    doing : str
        In words; "" after it has ended.
    error : str
        Why it ended early.
    """

    data: Path
    options: Mapping[str, Any]
    seed: int = 0
    cache: Path | None = None
    n_done: int = 0
    n_todo: int = 0
    doing: str = "starting"
    error: str = ""
    is_over: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _reader: threading.Thread | None = field(default=None, repr=False)

    def begin(self) -> None:
        """Start to embed, in the order of the seed."""
        process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdin is not None
        told = (os.fspath(self.data), dict(self.options), self.seed)
        process.stdin.write(pickle.dumps(sys.path) + pickle.dumps(told))
        process.stdin.flush()  # and it stays open: where this process is gone, the other one notices
        self._process = process
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):
                self._hear(json.loads(line))
        code = self._process.wait()
        self._process.stdout.close()
        if code and not self.error:
            self.error = f"extraction ended with code {code}"
        self.is_over, self.doing = True, ""

    def _hear(self, said: Any) -> None:
        if "cache" in said:
            self.cache = Path(said["cache"])
        if "doing" in said:
            self.doing, self.n_done, self.n_todo = said["doing"], said["n_done"], said["n_todo"]
        self.error = said.get("error", self.error)

    def stop(self) -> None:
        """End it; what is embedded is kept."""
        if self._process is None or self._process.stdin is None or self._reader is None:
            return
        with suppress(OSError):  # it has ended by itself
            self._process.stdin.close()
        self._reader.join(_PATIENCE_S if self.n_done else _LITTLE_PATIENCE_S)
        if self._process.poll() is None:
            self._process.kill()
            self._reader.join()


def extract_as_told() -> None:
    """Be that other process: standard input says what to embed, a line of JSON says how far it is."""
    from tlfeat.extract.plan import plan_extraction
    from tlfeat.labelling.order import embedding_order
    from tlfeat.system import notice_interrupts

    notice_interrupts()
    data, options, seed = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    try:
        job = plan_extraction(data, **options)
        _say(cache=str(job.cache_path.resolve()))
        job = replace(job, images=job.images.at(embedding_order(job.images.paths, seed=seed).tolist()))
        job.run(on_progress=_progress())
    except (Interrupted, KeyboardInterrupt):
        pass
    except TlfeatError as error:
        _say(error=str(error))
    os._exit(0)  # a thread that waits for standard input would hold the process back


def _end_with_the_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    _thread.interrupt_main()
    time.sleep(_PATIENCE_S)  # making a network cannot be interrupted, and nothing of it is kept
    os._exit(1)


def _say(**words: Any) -> None:
    with suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(words).encode() + b"\n")


def _progress() -> Callable[[str, int, int], None]:
    said_s = 0.0

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s > _SAY_EVERY_S or done == total:
            said_s = time.monotonic()
            _say(doing=stage, n_done=done, n_todo=total)

    return on_progress
