"""The start of the program, ``tlfeat`` or ``python -m tlfeat``: what has to be right before anything is imported."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Import the command line and run it; Ctrl-C while it is imported ends it in one line."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    _start_again_in_utf8()
    from tlfeat.cli.app import main as run

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    run()


def _start_again_in_utf8() -> None:
    """Start Python anew where names of files are not UTF-8, as under ``LC_ALL=POSIX``: caches hold them as UTF-8.

    Python goes over to UTF-8 there by itself, unless a variable forbids it.
    """
    if sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions and sys.orig_argv:
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _stop(*_: object) -> NoReturn:
    os.write(2, b"\nStopped. Nothing was begun.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
