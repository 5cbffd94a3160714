"""The start of the program, ``tlfeat`` or ``python -m tlfeat``: Ctrl-C while it is imported ends it in one line."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> None:
    """Import the command line and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    from tlfeat.cli.app import main as run

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    run()


def _stop(*_: object) -> NoReturn:
    os.write(2, b"\nStopped. Nothing was begun.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
