"""Linux that refuses what Windows refuses, so that tests find it without a Windows machine.

`environment` gives the variables with which a Python process starts as such a machine, and all that it starts:

- a file that this process has open, or mapped into memory, is neither removed, renamed nor replaced; a folder with an
  open file in it is not renamed;
- ``os.rename`` replaces nothing, ``os.replace`` no folder; ``os.open`` opens no folder;
- ``os.fsync`` takes no file that was opened for reading only;
- names with ``: * ? " < > |``, a dot or a space at the end, and names of devices are refused;
- tlfeat finds no ``fcntl``, ``resource`` and the like, and not those parts of ``os``, ``signal``, ``select`` and
  ``time`` that are POSIX only; other packages see Linux, as they were built for it;
- standard output and error are cp1252; ``kernel32`` has the locks and the processes that tlfeat asks it for.

What it cannot show: a file system that takes ``A`` and ``a`` for one name, drive letters, and the limits on a path.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

MISSING_MODULES = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"})

MISSING = {
    "os": frozenset(
        [
            "fork",
            "forkpty",
            "killpg",
            "getpgid",
            "setsid",
            "posix_fallocate",
            "posix_fadvise",
            "statvfs",
            "fstatvfs",
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "pread",
            "pwrite",
            "preadv",
            "pwritev",
            "fdatasync",
            "sync",
            "sysconf",
            "mkfifo",
            "mknod",
            "chown",
            "lchown",
            "fchown",
            "fchmod",
            "sched_getaffinity",
            "getloadavg",
            "nice",
            "uname",
            "wait",
            "wait3",
            "wait4",
            "WIFSIGNALED",
            "WTERMSIG",
            "WIFEXITED",
            "O_NONBLOCK",
            "O_NOFOLLOW",
            "O_CLOEXEC",
            "O_DIRECTORY",
            "O_TMPFILE",
            "copy_file_range",
            "sendfile",
            "memfd_create",
            "register_at_fork",
            "getxattr",
            "setxattr",
        ]
    ),
    "signal": frozenset(
        [
            "SIGKILL",
            "SIGALRM",
            "SIGHUP",
            "SIGXCPU",
            "SIGXFSZ",
            "SIGUSR1",
            "SIGUSR2",
            "SIGCHLD",
            "SIGPIPE",
            "SIGQUIT",
            "SIGTSTP",
            "SIGCONT",
            "SIGSTOP",
            "pthread_sigmask",
            "pthread_kill",
            "sigwait",
            "setitimer",
            "alarm",
            "pause",
        ]
    ),
    "select": frozenset({"poll", "epoll", "kqueue"}),
    "time": frozenset({"clock_gettime", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "tzset"}),
}

_BAD_NAME = re.compile(r'.*[:*?"<>|\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.IGNORECASE)

_LOCK_VIOLATION = 33


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a process that runs as on Windows; `folder` is for a file that its start reads."""
    (folder / "sitecustomize.py").write_text("import windows\n\nwindows.install()\n", encoding="utf-8")
    source = Path(__file__).parents[1] / "src"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (folder, Path(__file__).parent, source))),
        "PYTHONIOENCODING": "cp1252",
    }


class _Without(ModuleType):
    """A module as Windows has it."""

    def __init__(self, real: ModuleType, **other: Any) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(other)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        if name in MISSING[self.__name__]:
            raise AttributeError(f"Windows has no {self.__name__}.{name}")
        return getattr(self.__dict__["_real"], name)


def install() -> None:
    """Make this process one of Windows."""
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, _refusing(getattr(os, name), _refuse_in_use))
    os.rename = _refusing(os.rename, _refuse_in_use, _refuse_existing)
    os.replace = _refusing(os.replace, _refuse_in_use, _refuse_folder)
    os.mkdir = _refusing(os.mkdir, _refuse_name)
    os.open = _refusing(os.open, _refuse_name, _refuse_opening_a_folder)
    os.fsync = _refusing(os.fsync, _refuse_read_only)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # type: ignore[assignment, misc]
    ctypes.WinDLL = lambda name, **_: _KERNEL32  # type: ignore[assignment, misc, attr-defined]
    ctypes.get_last_error = lambda: _KERNEL32.last_error  # type: ignore[attr-defined]
    _hide()


def _hide() -> None:
    msvcrt = ModuleType("msvcrt")  # only for tlfeat: the standard library takes it for a sign of Windows
    msvcrt.get_osfhandle = lambda handle: handle  # type: ignore[attr-defined]
    seen = {
        "msvcrt": msvcrt,
        "os": _Without(os, name="nt", kill=_kill),
        **{name: _Without(__import__(name)) for name in ("signal", "select", "time")},
    }
    real_import = builtins.__import__

    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and str((globals or {}).get("__name__", "")).partition(".")[0] == "tlfeat":
            if name in MISSING_MODULES:
                raise ModuleNotFoundError(f"Windows has no module {name}", name=name)
            if name in seen:
                return seen[name]
        return real_import(name, globals, locals, fromlist, level)

    builtins.__import__ = find


def _kill(pid: int, number: int) -> None:
    raise AssertionError(f"os.kill({pid}, {number}) ends a process of Windows, whatever the number")


def _refusing(real: Callable[..., Any], *refuse: Callable[..., None]) -> Callable[..., Any]:
    def checked(*args: Any, **named: Any) -> Any:
        for each in refuse:
            each(*args)
        return real(*args, **named)

    return checked


def _refuse_in_use(*paths: Any, **_: Any) -> None:
    for path in paths[:2]:
        if isinstance(path, int) or not os.path.lexists(path):
            continue
        below = os.path.realpath(path) + os.sep if os.path.isdir(path) else None
        same = os.stat(path) if os.path.exists(path) else None
        for used in set(_used_files()):  # a library is mapped in several pieces
            is_below = below is not None and used.startswith(below)
            if is_below or (same is not None and os.path.exists(used) and os.path.samestat(os.stat(used), same)):
                raise PermissionError(errno.EACCES, "in use by this process", os.fspath(path))


def _used_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # that of the list itself
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            _, _, path = line.rstrip("\n").partition(" /")
            if path:
                yield f"/{path}"


def _refuse_existing(_: Any, to: Any, *__: Any) -> None:
    if os.path.lexists(to):
        raise FileExistsError(errno.EEXIST, "there is one of this name", os.fspath(to))
    _refuse_name(to)


def _refuse_folder(_: Any, to: Any, *__: Any) -> None:
    if os.path.isdir(to):
        raise PermissionError(errno.EACCES, "a folder is not replaced", os.fspath(to))
    _refuse_name(to)


def _refuse_name(path: Any, *_: Any) -> None:
    if not isinstance(path, int) and _BAD_NAME.fullmatch(os.path.basename(os.fsdecode(path))):
        raise OSError(errno.EINVAL, "Windows has no such names", os.fspath(path))


def _refuse_opening_a_folder(path: Any, *_: Any) -> None:
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(errno.EACCES, "a folder is not opened", os.fspath(path))


def _refuse_read_only(handle: Any) -> None:
    number = handle if isinstance(handle, int) else handle.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "opened for reading only")


class _Kernel32:
    """Locks of byte ranges that belong to an open file, as Linux has them too, and asking for a process."""

    last_error = 0

    def LockFileEx(self, file: Any, flags: int, _: int, n_low: int, n_high: int, where: Any) -> int:
        kind = fcntl.F_WRLCK if flags & 2 else fcntl.F_RDLCK
        return self._lock(file, kind, n_low + (n_high << 32), where)

    def UnlockFileEx(self, file: Any, _: int, n_low: int, n_high: int, where: Any) -> int:
        return self._lock(file, fcntl.F_UNLCK, n_low + (n_high << 32), where)

    def _lock(self, file: Any, kind: int, n_bytes: int, where: Any) -> int:
        overlapped = where._obj
        start = overlapped.Offset + (overlapped.OffsetHigh << 32)
        handle = int(file.value)
        if kind == fcntl.F_WRLCK and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise AssertionError("Linux cannot show an exclusive lock of what is open for reading")
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, n_bytes, 0))
        except BlockingIOError:
            self.last_error = _LOCK_VIOLATION
            return 0
        return 1

    def OpenProcess(self, _: int, __: int, pid: int) -> int:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self.last_error = 87  # ERROR_INVALID_PARAMETER: there is none
            return 0
        return 7

    def WaitForSingleObject(self, _: Any, __: int) -> int:
        return 0x102  # WAIT_TIMEOUT: it has not ended

    def CloseHandle(self, _: Any) -> int:
        return 1


_KERNEL32 = _Kernel32()
