"""What the system does: locks of files, whether a process lives, Ctrl-C, its processor, text on the standard streams.

It differs between Linux, macOS and Windows.

Locks are a few lines here and no package: `filelock` and `msvcrt.locking` know no lock that readers share, and
`portalocker` knows it on Windows only with pywin32.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    resource = None  # type: ignore[assignment]

#: Files that a process has open beside those of a cache.
_OWN_FILES = 512

#: Windows locks bytes, and what is locked cannot be read by others: this one lies behind the end of any file.
_LOCKED_BYTE = 1 << 62

#: The one of `turn`.
_TURN_BYTE = _LOCKED_BYTE + 1

#: Between two looks at a lock that another one holds.
_LOOK_EVERY_S = 0.002

_FAIL_AT_ONCE, _EXCLUSIVE = 1, 2  # LOCKFILE_FAIL_IMMEDIATELY and LOCKFILE_EXCLUSIVE_LOCK

_LOCK_VIOLATION, _IO_PENDING, _ACCESS_DENIED = 33, 997, 5

_SYNCHRONIZE, _WAIT_TIMEOUT = 0x100000, 0x102


class _Overlapped(ctypes.Structure):
    _fields_ = [
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", ctypes.c_uint32),
        ("OffsetHigh", ctypes.c_uint32),
        ("hEvent", ctypes.c_void_p),
    ]


def allow_open_files(n: int) -> None:
    """Let this process have `n` files open beside its own few, as far as the system lets it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + _OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def processor_name() -> str:
    """Return what the processor calls itself, as far as the system says it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(filter(None, named), platform.machine())
    except OSError:  # macOS and Windows
        return platform.processor() or platform.machine()


def lock(handle: int, *, is_exclusive: bool) -> bool:
    """Lock an open file against other processes and other handles, until `unlock` or until it is closed.

    Parameters
    ----------
    handle : int
    is_exclusive : bool
        Nobody else may lock it; else others may share the lock.

    Returns
    -------
    bool
        False on a file system without locks, which locks nothing.

    Raises
    ------
    BlockingIOError
        Another one holds a lock that does not go with this one.

    Notes
    -----
    On Linux and macOS it is the lock that HDF5 takes itself, so that each notices the other.
    """
    return _lock(handle, _LOCKED_BYTE, is_exclusive=is_exclusive)


def unlock(handle: int) -> None:
    """Give a lock up, also where children have the handle too; nothing where there is none."""
    _unlock(handle, _LOCKED_BYTE)


def lock_within(handle: int, patience_s: float, *, is_exclusive: bool) -> bool:
    """`lock`, after waiting for another one who holds it, but not longer than that."""
    return _lock_within(handle, _LOCKED_BYTE, patience_s, is_exclusive=is_exclusive)


@contextlib.contextmanager
def turn(path: Path, patience_s: float, *, is_writer: bool) -> Iterator[bool]:
    """Take a turn at a file whose `lock` the writer holds: in that of a reader the writer waits, and the reverse.

    Parameters
    ----------
    path : Path
    patience_s : float
        How long to wait for one's turn.
    is_writer : bool

    Yields
    ------
    bool
        Whether it is one's turn; not where others took too long, or nothing can be locked.

    Notes
    -----
    On Linux and macOS a file has one lock only, so it is that of the folder, which writers of several files share; on
    Windows, where no folder is opened, it is another byte of the file, which its readers share.
    """
    with contextlib.ExitStack() as held:
        is_turn = False
        with contextlib.suppress(OSError):
            flags = (os.O_RDONLY if fcntl or not is_writer else os.O_RDWR) | getattr(os, "O_BINARY", 0)
            handle = os.open(path.parent if fcntl else path, flags)
            held.callback(os.close, handle)
            is_turn = _lock_within(handle, _TURN_BYTE, patience_s, is_exclusive=is_writer is (fcntl is None))
            held.callback(_unlock, handle, _TURN_BYTE)
        yield is_turn


def is_locked(path: Path) -> bool:
    """Whether somebody holds the exclusive `lock` of a file; false where it is not there."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        if lock(handle, is_exclusive=False):
            unlock(handle)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock_within(handle: int, byte: int, patience_s: float, *, is_exclusive: bool) -> bool:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return _lock(handle, byte, is_exclusive=is_exclusive)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_EVERY_S)


def _lock(handle: int, byte: int, *, is_exclusive: bool) -> bool:
    if fcntl is None:
        return _lock_on_windows(handle, byte, is_exclusive=is_exclusive)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if is_exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _unlock(handle: int, byte: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
    else:
        _kernel32().UnlockFileEx(_os_handle(handle), 0, 1, 0, ctypes.byref(_place(byte)))


def _lock_on_windows(handle: int, byte: int, *, is_exclusive: bool) -> bool:
    kernel32, place = _kernel32(), _place(byte)
    flags = _FAIL_AT_ONCE | (_EXCLUSIVE if is_exclusive else 0)
    if kernel32.LockFileEx(_os_handle(handle), flags, 0, 1, 0, ctypes.byref(place)):
        return True
    if ctypes.get_last_error() in (_LOCK_VIOLATION, _IO_PENDING):  # type: ignore[attr-defined]
        raise BlockingIOError("another process has it locked")
    return False


def _place(byte: int) -> _Overlapped:
    return _Overlapped(Offset=byte & 0xFFFFFFFF, OffsetHigh=byte >> 32)


def _os_handle(handle: int) -> ctypes.c_void_p:
    import msvcrt

    return ctypes.c_void_p(msvcrt.get_osfhandle(handle))  # type: ignore[attr-defined]


def _kernel32() -> Any:
    return ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]


def is_running(pid: int) -> bool:
    """Whether there is a process of this number on this machine; true where it cannot be known."""
    if os.name == "nt":  # where os.kill ends it
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def _is_running_on_windows(pid: int) -> bool:
    kernel32 = _kernel32()
    kernel32.OpenProcess.restype = ctypes.c_void_p
    found = kernel32.OpenProcess(_SYNCHRONIZE, False, pid)
    if not found:
        return bool(ctypes.get_last_error() == _ACCESS_DENIED)  # type: ignore[attr-defined]
    found = ctypes.c_void_p(found)
    try:
        return bool(kernel32.WaitForSingleObject(found, 0) == _WAIT_TIMEOUT)
    finally:
        kernel32.CloseHandle(found)


def speak_utf8() -> None:
    """Write UTF-8 to standard output and error, whatever the system's own encoding is.

    A pipe on Windows is cp1252, and ASCII under ``LC_ALL=POSIX``: neither has the letters of all names, nor the lines
    of our own tables. A terminal of Windows takes UTF-8 already.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding = str(getattr(stream, "encoding", "") or "").lower().replace("-", "").replace("_", "")
        if encoding != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


#: When Ctrl-C came first, of `time.monotonic`.
_interrupted_s: list[float] = []

#: A hand that presses twice means one stop.
_PRESSED_AGAIN_S = 1.0


def notice_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as always, and be remembered; where it was switched off it stays so.

    One that comes in the middle of a finalizer, where Python prints and forgets it, comes again. A second one, a second
    later or more, ends the process at once: what was committed is kept, and nothing that hangs can keep it alive.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    printed = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _interrupted_s.clear()
            _thread.interrupt_main()
        else:
            printed(unraisable)

    sys.unraisablehook = again
    signal.signal(signal.SIGINT, _note)


def _note(number: int, frame: FrameType | None) -> None:
    now_s = time.monotonic()
    if not _interrupted_s:
        _interrupted_s.append(now_s)
        signal.default_int_handler(number, frame)
    if now_s - _interrupted_s[0] >= _PRESSED_AGAIN_S:
        os.write(2, b"\nStopped at once.\n")
        os._exit(130)


def was_interrupted() -> bool:
    """Whether Ctrl-C came since `notice_interrupts`."""
    return bool(_interrupted_s)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: HDF5 does not survive an exception in the middle of a callback."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[Any] = []
    signal.signal(signal.SIGINT, lambda *received: held.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])
