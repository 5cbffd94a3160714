"""Bytes of images that lie far away: many reads under way at once, given in order, in bounded memory.

The threads here do nothing but wait for a network, so that those that decode and embed never do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

#: Bytes that are read or on their way and that nobody has decoded yet.
MAX_BYTES = 256 << 20

#: Images that may wait behind a slow one, times the reads under way.
_MOST_WAITING = 4

#: Where a size is not known beforehand.
_USUAL_BYTES = 1 << 20

#: What is decoded: a file, or what gives the bytes of one (and may raise a `BadImage`).
Picture = Path | Callable[[], bytes]


class _Held:
    """Bytes that are read or on their way; threads that decode give them back."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._n, self._changed = max_bytes, 0, threading.Condition()

    def take(self, n: int, *, may_wait: bool) -> bool:
        """Take room for `n` bytes, and say whether there was; one image has room always."""
        with self._changed:
            while self._n and self._n + n > self._max_bytes:
                if not may_wait:
                    return False
                self._changed.wait(1.0)
            self._n += n
            return True

    def give(self, n: int) -> None:
        with self._changed:
            self._n -= n
            self._changed.notify_all()


def read_ahead(
    files: Iterable[tuple[int, Picture]],
    n_reads: int,
    *,
    size_of: Callable[[int], int] = lambda i: 0,
    max_bytes: int = MAX_BYTES,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> Generator[tuple[int, Picture], None, None]:
    """Give files in order, each as a function that has its bytes, or raises what reading it raised.

    Parameters
    ----------
    files : iterable of (number, path or function)
        A path is given as it is.
    n_reads : int
        Reads under way at once, each in a thread of its own.
    size_of : callable
        Bytes of image `i`, 0 where that is not known.
    max_bytes : int
        A larger image is read alone.
    on_wait : callable
        Told how many seconds the caller waited for an image.
    """
    tasks: SimpleQueue[tuple[Callable[[], bytes], Future[bytes]] | None] = SimpleQueue()
    threads: list[threading.Thread] = []
    waiting: deque[tuple[int, Path | Future[bytes], int]] = deque()
    held, coming = _Held(max_bytes), iter(files)
    following = next(coming, None)
    try:
        while following is not None or waiting:
            while following is not None and len(waiting) < _MOST_WAITING * n_reads:
                i, picture = following
                n_bytes = (size_of(i) or _USUAL_BYTES) if callable(picture) else 0
                if not held.take(n_bytes, may_wait=not waiting):
                    break
                if callable(picture):
                    future: Future[bytes] = Future()
                    tasks.put((picture, future))
                    waiting.append((i, future, n_bytes))
                    if len(threads) < n_reads:
                        threads.append(threading.Thread(target=_work, args=(tasks,), name="read", daemon=True))
                        threads[-1].start()
                else:
                    waiting.append((i, picture, 0))
                following = next(coming, None)
            i, read, n_bytes = waiting.popleft()
            if isinstance(read, Path):
                yield i, read
                continue
            if not read.done():
                started_s = time.perf_counter()
                read.exception()  # waits
                on_wait(time.perf_counter() - started_s)
            yield i, _given(read, held, n_bytes)
            del read  # its bytes are the decoder's now
    finally:  # threads in the middle of a read end with it; nobody waits for them, and neither does the process
        for _, read, _ in waiting:
            if isinstance(read, Future):
                read.cancel()
        for _ in threads:
            tasks.put(None)


def _given(read: Future[bytes], held: _Held, n_bytes: int) -> Callable[[], bytes]:
    def take() -> bytes:
        held.give(n_bytes)
        return read.result()

    return take


def _work(tasks: SimpleQueue[tuple[Callable[[], bytes], Future[bytes]] | None]) -> None:
    while (task := tasks.get()) is not None:
        picture, future = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(picture())
        except BaseException as error:
            future.set_exception(error)
        del task, picture, future
