"""Work in a forked child that ends whatever happens: it neither goes on as a second run of the tests, nor hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator

#: Exit code of a child that a test killed where it meant to, see `killed`.
KILLED = 77


def killed(*_: object, **__: object) -> None:
    """End the process at once, as a kill does; stands in for the function within which that happens."""
    os._exit(KILLED)


def exit_code_of_child(work: Callable[[], object], *, limit_s: float = 120.0) -> int:
    """Return how a forked child that runs `work` ends: 0, its own code, 1 where it raised, -9 after `limit_s`.

    What it raises is printed.
    """
    with running_child(work) as pid:
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
    return -signal.SIGKILL


@contextlib.contextmanager
def running_child(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in a forked child, whose number this gives; it is killed at the end of the block."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has ended, and was waited for
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
