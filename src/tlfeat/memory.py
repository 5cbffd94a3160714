"""How much memory this process may still take, and giving back what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

#: Where nothing is known.
_UNKNOWN = 2**62


def available_memory() -> int:
    """Return the bytes that may still be taken: the least of the machine's, the container's and the process's limit."""
    return max(0, min([*_of_machine(), *_of_container(), *_of_process()], default=_UNKNOWN))


def give_back_memory() -> None:
    """Give the system the memory that was freed between what is still held: glibc keeps it otherwise."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        ctypes.CDLL(None).malloc_trim(0)


def _of_machine() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_container() -> Iterator[int]:
    # control groups, version 2 and 1; a limit of "max" or beyond any machine is none
    root = Path("/sys/fs/cgroup")
    for limit, usage in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        found = [line for path in (limit, usage) for line in _lines(path)]
        if len(found) == 2 and found[0].isdecimal() and int(found[0]) < 2**60:
            yield int(found[0]) - int(found[1])


def _of_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows has neither limits nor /proc
        return
    used = {line.split(":")[0]: line.split()[1] for line in _lines(Path("/proc/self/status")) if line.startswith("Vm")}
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY and name in used:
            yield soft - int(used[name]) * 1024


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
