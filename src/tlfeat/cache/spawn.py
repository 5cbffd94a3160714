"""Work in another Python process, for a system that has no fork.

Not by `multiprocessing`, which runs the caller's own file again: a user's script that calls tlfeat need not be written
for that.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What a new Python process runs: its path for imports, then the work, come as pickles from the one that started it.
_START = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
answer, path, work = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(answer(path, work))
"""


def answer_of_process(
    answer: Callable[[Path, Callable[[], Any]], bytes], path: Path, work: Callable[[], Any], limit_s: float
) -> bytes | None:
    """Return what ``answer(path, work)`` gives in a new process: only its beginning where that crashed.

    Parameters
    ----------
    answer, path, work
        Can be pickled.
    limit_s : float
        Wall seconds; None is returned where they have passed. There is no limit on memory.
    """
    words = pickle.dumps(sys.path) + pickle.dumps((answer, path, work))
    try:
        run = subprocess.run(
            [sys.executable, "-c", _START],
            input=words,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_s,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Ctrl-C is for the one that waits
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError:  # no program to start (Python within another program), or no memory for it
        return answer(path, work)
    return run.stdout
