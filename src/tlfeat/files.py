"""The one way to open a file that somebody named: in a table, a cache, a model.json, an option.

Whoever wrote the name may have written that of a device that never ends, of a pipe that nobody writes to, or of a link
to a file of the user's.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
from pathlib import Path

from tlfeat.errors import ModelError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

#: A file of weights, a network or a head.
MAX_MODEL_BYTES = 16 << 30

#: What an archive may hold however small it is, and its members of JSON at most; times its own size beyond that.
_SMALL_BYTES, _MOST_PACKED = 16 << 20, 4

#: Of a file that grows while it is read, this much more is read at once.
_GROWS_BYTES = 1 << 20

#: Opening a named pipe waits until somebody writes to it, without this.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)


def open_regular(path: Path, *, max_bytes: int | None = None, within: Path | None = None) -> io.BufferedReader:
    """Open a regular file for reading, without waiting.

    Parameters
    ----------
    path : Path
        Links are followed.
    max_bytes : int, optional
        A larger file is refused unread.
    within : Path, optional
        A folder that links must not lead out of.

    Raises
    ------
    OSError
        It cannot be read, is no regular file, is too large, or lies elsewhere; `strerror` says which.
    """
    return os.fdopen(_open(path, max_bytes, within)[0], "rb")


def read_regular(path: Path, *, max_bytes: int, within: Path | None = None) -> bytes:
    """Return the bytes of a regular file; an `OSError` as of `open_regular`."""
    handle, n_expected = _open(path, max_bytes, within)
    try:  # without a file object, which for a small picture takes as long as reading it
        content = more = os.read(handle, n_expected + 1)
        while more and len(content) <= max_bytes:  # to its end: it may be growing
            more = os.read(handle, max(n_expected + 1 - len(content), 0) or _GROWS_BYTES)
            content += more
    finally:
        os.close(handle)
    if len(content) > max_bytes:
        raise _refused(path, errno.EFBIG, f"too large: the limit is {_size(max_bytes)}")
    return content


def _open(path: Path, max_bytes: int | None, within: Path | None) -> tuple[int, int]:
    """Return the handle of a regular file and its size in bytes."""
    check_regular(path, max_bytes=max_bytes, within=within)  # before it is opened: opening a device may do something
    handle = os.open(path, _FLAGS)
    try:
        about = os.fstat(handle)
        _check(path, about, max_bytes)  # and what was opened: it may be another by now
    except BaseException:
        os.close(handle)
        raise
    return handle, about.st_size


def check_regular(path: Path, *, max_bytes: int | None = None, within: Path | None = None) -> None:
    """Raise the `OSError` that `open_regular` would, for a file that a library opens by its name."""
    _check(path, path.stat(), max_bytes)
    if within is not None and not path.resolve().is_relative_to(within.resolve()):
        raise _refused(path, errno.ELOOP, f"it is a link that leads out of {within}")


def check_archive(path: Path) -> None:
    """Raise an `OSError` for a zip archive whose members declare more than tlfeat and Keras ever write.

    Both store what they save as it is; an archive of somebody who packed it tighter may be a quarter of its content.
    A reader gets no more than what is declared.

    Raises
    ------
    OSError
        Its `strerror` says how large it would be.
    zipfile.BadZipFile
        It is no archive, or damaged.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    refuse_unfolding(path, sum(member.file_size for member in members))
    for member in members:
        if member.filename.endswith(".json") and member.file_size > _SMALL_BYTES:
            raise _refused(path, errno.EFBIG, f"its {member.filename} is {_size(member.file_size)}")


def refuse_unfolding(path: Path, n_bytes: int, what: str = "") -> None:
    """Raise an `OSError` where a file declares `n_bytes`, many times its own size."""
    if n_bytes > _SMALL_BYTES + _MOST_PACKED * path.stat().st_size:
        raise _refused(path, errno.EFBIG, f"it holds {what}{_size(n_bytes)} in {_size(path.stat().st_size)}")


def check_saved(path: Path) -> None:
    """Raise `ModelError` for a file of a saved model that a library is to read, and that is not what tlfeat writes.

    It is a regular file in the folder of the model, and no archive that unfolds to many times its size.
    """
    try:
        check_regular(path, max_bytes=MAX_MODEL_BYTES, within=path.parent)
        if path.suffix != ".joblib":
            check_archive(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be used: {error.strerror or error}.") from error
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def kept_inside(path: str) -> str:
    """Return a relative path that does not lead out of the folder that it counts from.

    One that would is returned as a path to nothing, with ``(..)`` in place of ``..``.
    """
    if ".." not in path or os.path.isabs(path) or not n_levels_out(path):  # noqa: PTH117  strings: once for every image
        return path
    return "/".join("(..)" if part == ".." else part for part in _parts(path))


def n_levels_out(path: str) -> int:
    """Return how many folders a relative path climbs above the one that it counts from."""
    depth = lowest = 0
    for part in _parts(path):
        depth += -1 if part == ".." else part not in ("", ".")
        lowest = min(lowest, depth)
    return -lowest


def _parts(path: str) -> list[str]:
    return (path.replace(os.sep, "/") if os.sep != "/" else path).split("/")


def _check(path: Path, about: os.stat_result, max_bytes: int | None) -> None:
    if stat.S_ISDIR(about.st_mode):
        raise _refused(path, errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(about.st_mode):
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
        raise _refused(path, errno.EINVAL, f"it is {kind}, not a file")
    if max_bytes is not None and about.st_size > max_bytes:
        raise _refused(path, errno.EFBIG, f"too large: {_size(about.st_size)}, the limit is {_size(max_bytes)}")


def _refused(path: Path, number: int, why: str) -> OSError:
    return OSError(number, why, str(path))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
