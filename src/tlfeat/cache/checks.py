"""A cache file as untrusted input: is it one, is what it declares there, and what went wrong in words.

Everything is checked before a row is read: plain datasets only, no links and no storage elsewhere, declared sizes
backed by stored bytes. HDF5 itself hangs or crashes on some damaged files, so the first look at one is taken in a
child process (`in_child`). See docs/cache-format.md.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from h5py._objects import phil

from tlfeat import errors
from tlfeat.cache.chunks import Chunks
from tlfeat.cache.journal import FULL
from tlfeat.cache.spawn import answer_of_process
from tlfeat.documents import OF_CACHE, misfit
from tlfeat.errors import CacheDamaged, CacheError, CacheLocked, KnownError
from tlfeat.types import ROW_TYPES

try:
    import resource
    import select
except ImportError:  # Windows, where there is no fork either
    pass

FORMAT = "tlfeat-cache"

FORMAT_VERSION = 2

#: Of a file whose path table has domains, which version 2 did not know.
DOMAINS_VERSION = 3

READABLE_VERSIONS = (1, 2, 3)

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

ROOT_ATTRIBUTES = ("format", "format_version", "fingerprint", "environment", "source", "timing", "compression")

#: The path table, and the name under which a long one, and in version 1 any, is written before it is complete.
PATH_TABLES = ("images", "images_new")

LAYER_DATASETS = ("rows", "keys", "crc32", "n_rows")

TEXT_COLUMNS = ("path", "key", "label", "split", "group", "status", "error")

NUMBER_COLUMNS = ("size", "mtime_ns")

#: What the path table may take unpacked: this, and times the bytes of the file. A line takes `_LINE_BYTES` in lists,
#: beside its text, which is as wide as the widest of its column; a run that was killed at once leaves a file with
#: nothing but the table of a million images, 90 MB in 5 MB.
_TABLE_BYTES, _TABLE_TIMES, _LINE_BYTES = 256_000_000, 16, 100

_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)

#: Processor time and memory that `in_child` gives: these, and a second for every 100 MB and two bytes for every byte
#: of the file.
_CHILD_S, _CHILD_BYTES = 10.0, 1 << 30

#: Times the processor time that may pass: other work on the machine does not make a file look damaged.
_WALL = 3


def check_structure(path: Path, file: h5py.File, *, has_rows: bool = True) -> None:
    """Treat the file as untrusted: plain datasets only, declared sizes backed by stored bytes.

    Without `has_rows` those of the rows, which are most of it, are left out: for who reads none.
    """
    with h5_errors(path):
        if attribute(file, "format") != FORMAT:
            raise CacheError(f"{path} is an HDF5 file but not a tlfeat cache.")
        version = attribute(file, "format_version")
        if not isinstance(version, (int, np.integer)) or version not in READABLE_VERSIONS:
            *others, newest = map(str, READABLE_VERSIONS)
            known = f"{', '.join(others)} and {newest}"
            raise CacheError(f"{path} has cache format {version}; this tlfeat reads {known}. Update tlfeat.")
        for name in ROOT_ATTRIBUTES[2:]:
            attribute(file, name)
        row_type = ROW_TYPES.get(document(path, file, "fingerprint").get("dtype", "float32"))
        if row_type is None:
            raise CacheDamaged(f"{path}: the fingerprint's dtype is none of {', '.join(ROW_TYPES)}.")
        if not isinstance(_hard(path, file, "layers"), h5py.Group):
            raise CacheDamaged(f"{path}: /layers is not a group.")
        stored = Chunks(path, file)
        for layer in file["layers"]:
            rows, keys, sums, n_rows = layer_datasets(path, file, layer, row_type)
            if int(n_rows[()]) > min(len(rows), len(keys), len(sums)):
                raise CacheDamaged(f"{path}: layer '{layer}' declares more rows than it stores.")
            if has_rows:
                stored.check(rows, _FILTERS[:2])
            for dataset in (keys, sums):  # never packed: what they declare is there
                stored.check(dataset, ())
        for table in PATH_TABLES:
            if table in file and is_complete(_hard(path, file, table)):
                group = file[table]
                columns = [_plain(path, group, name, "S", 1) for name in text_columns(file)]
                columns += [_plain(path, group, name, "<i8", 1) for name in NUMBER_COLUMNS]
                for column in columns:
                    stored.check(column, _FILTERS)
                if len({len(column) for column in columns}) != 1:
                    raise CacheDamaged(f"{path}: the columns of /{table} differ in length.")
                _check_table_size(path, file, columns)


def text_columns(file: h5py.File) -> tuple[str, ...]:
    """Return the columns of text that the path table of a file of its version has."""
    return (*TEXT_COLUMNS, "domain") if attribute(file, "format_version") == DOMAINS_VERSION else TEXT_COLUMNS


def _check_table_size(path: Path, file: h5py.File, columns: list[h5py.Dataset]) -> None:
    """Raise where a path table would take much more memory than tables of such files do."""
    n_bytes = len(columns[0]) * _LINE_BYTES
    n_bytes += sum(max(len(column), column.chunks[0]) * column.dtype.itemsize for column in columns)
    most = _TABLE_BYTES + _TABLE_TIMES * file.id.get_filesize()
    if n_bytes > most:
        raise CacheDamaged(
            f"{path}: its table of images would take {n_bytes / 1e6:,.0f} MB, the limit for a file of its size is "
            f"{most / 1e6:,.0f} MB."
        )


def layer_datasets(path: Path, file: h5py.File, layer: str, row_type: str) -> list[h5py.Dataset]:
    """Return `LAYER_DATASETS` of a layer, if they are what they should be."""
    group = _hard(path, file["layers"], layer)
    if not isinstance(group, h5py.Group):
        raise CacheDamaged(f"{path}: /layers/{layer} is not a group.")
    found = [
        _plain(path, group, name, dtype, n_dims)
        for name, dtype, n_dims in zip(LAYER_DATASETS, (row_type, "u1", "<u4", "<u8"), (2, 2, 1, 0), strict=True)
    ]
    if found[1].shape[1] != 32:
        raise CacheDamaged(f"{path}: keys of layer '{layer}' are no sha256.")
    return found


def foreign_names(file: h5py.File) -> list[str]:
    """Return the objects and attributes (after ``@``) that no tlfeat has written."""
    found = [f"/@{name}" for name in file.attrs if name not in ROOT_ATTRIBUTES]
    found += [f"/{name}" for name in file if name not in ("layers", *PATH_TABLES)]
    inside = [(f"layers/{layer}", LAYER_DATASETS, ()) for layer in file["layers"]]
    tables = []
    for name in filter(file.__contains__, PATH_TABLES):  # one that a killed writer left may be the first with domains
        texts = text_columns(file) if is_complete(file[name]) else (*TEXT_COLUMNS, "domain")
        tables.append((name, texts + NUMBER_COLUMNS, ("is_complete",)))
    for place, names, attributes in [("layers", None, ()), *inside, *tables]:
        group = file[place]
        found += [f"/{place}/@{name}" for name in group.attrs if name not in attributes]
        found += [f"/{place}/{name}" for name in group if names is not None and name not in names]
        found += [f"/{place}/{name}/@{a}" for name in names or () if name in group for a in group[name].attrs]
    return found


def attribute(file: h5py.File, name: str) -> Any:
    """Return a root attribute, text of either of HDF5's kinds as a string; None where it is not there."""
    value = file.attrs.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def document(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    """Return a root attribute that holds a JSON object; empty where it is not there."""
    with h5_errors(path):
        text = attribute(file, name)
    try:
        found = {} if text is None else json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise CacheDamaged(f"{path}: the attribute '{name}' is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise CacheDamaged(f"{path}: the attribute '{name}' is not a JSON object.")
    if wrong := misfit(found, OF_CACHE.get(name, dict[str, Any]), name):
        raise CacheDamaged(f"{path}: a document is damaged: {wrong}.")
    return found


def is_complete(table: h5py.Group) -> bool:
    """Whether a path table was written to its end."""
    return bool(np.all(table.attrs.get("is_complete", False)))


def _hard(path: Path, group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise CacheDamaged(f"{path}: {group.name}/{name} is missing or a link to elsewhere.")
    return group[name]


def _plain(path: Path, group: h5py.Group, name: str, dtype: str, n_dims: int) -> h5py.Dataset:
    dataset = _hard(path, group, name)
    if (
        not isinstance(dataset, h5py.Dataset)
        or (dataset.dtype.kind != "S" if dtype == "S" else dataset.dtype != np.dtype(dtype))
        or dataset.ndim != n_dims
        or 0 in dataset.shape[1:]
        or (n_dims > 0 and dataset.chunks is None)
        or dataset.is_virtual
        or dataset.external
    ):
        raise CacheDamaged(f"{path}: {group.name}/{name} is not the plain {n_dims}-d dataset that is expected.")
    return dataset


def in_child(
    path: Path, work: Callable[[], Any], elsewhere: Callable[[], Any] | None = None, *, patience: float = 1.0
) -> Any:
    """Return what `work` returns (JSON values), run in a child process with limits on time and memory.

    Parameters
    ----------
    path : Path
        The file that is read, for messages and limits.
    work : callable
        Touches nothing but the file: other threads do not exist in the child.
    elsewhere : callable, optional
        The same for a system without fork, where another Python process does it: can be pickled, and opens the file
        itself. There is no limit on memory then.
    patience : float, default=1
        Times the usual time limit.

    Raises
    ------
    CacheError
        What `work` raised, or that the child crashed, hung or wanted too much memory.
    """
    about = path.stat()
    n_bytes = min(about.st_size, 512 * getattr(about, "st_blocks", about.st_size))  # holes count for nothing
    limit_s = patience * (_CHILD_S + n_bytes / 1e8)
    if not hasattr(os, "fork"):
        return _result(path, answer_of_process(_said, path, elsewhere or work, _WALL * limit_s))
    receive, send = os.pipe()
    try:
        with phil, warnings.catch_warnings():  # h5py's own lock: no other thread holds it in the child
            warnings.simplefilter("ignore", DeprecationWarning)  # with threads a process may fork to do only this
            pid = os.fork()
    except OSError:  # too many processes, or too little memory for another
        os.close(receive)
        os.close(send)
        return work()
    if pid == 0:
        _answer(send, path, work, limit_s, _CHILD_BYTES + 2 * n_bytes)
    os.close(send)
    status = 0
    try:
        answer = _receive(receive, _WALL * limit_s)
    finally:
        os.close(receive)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
    is_stopped = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    return _result(path, None if is_stopped else answer)


def _result(path: Path, answer: bytes | None) -> Any:
    """Return what the child's work returned, or raise what it raised; None is an answer that did not come in time."""
    if answer is None:
        raise CacheDamaged(f"{path} is damaged: reading it hangs the HDF5 library.")
    try:
        said = json.loads(answer)
    except ValueError:
        raise CacheDamaged(f"{path} is damaged: reading it crashes the HDF5 library.") from None
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return said["result"]


def _said(path: Path, work: Callable[[], Any]) -> bytes:
    """Do the work and return its result, or the known error that it raised, as JSON."""
    said: dict[str, Any]
    try:
        with h5_errors(path):
            said = {"result": work()}
    except KnownError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    return json.dumps(said).encode()


def _answer(send: int, path: Path, work: Callable[[], Any], limit_s: float, n_bytes: int) -> NoReturn:
    try:
        gc.disable()  # no finalizer of anything but this
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 1))
            n_pages = int(Path("/proc/self/statm").read_text().split()[0])
            n_bytes += n_pages * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
        answer = _said(path, work)
        while answer:
            answer = answer[os.write(send, answer) :]
    finally:
        os._exit(0)


def _receive(pipe: int, limit_s: float) -> bytes | None:
    """Return all that comes through the pipe; None where it has not ended in time."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    deadline_s = time.monotonic() + limit_s
    parts: list[bytes] = []
    while True:
        if not poll.poll(max(deadline_s - time.monotonic(), 0) * 1000):
            return None
        part = os.read(pipe, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


@contextlib.contextmanager
def h5_errors(path: Path) -> Iterator[None]:
    """Map what h5py raises to `CacheError`; its messages name neither the file nor a way out."""
    try:
        yield
    except KnownError:
        raise
    except BlockingIOError as error:
        raise CacheLocked(
            f"{path} is in use by another process (one that writes, or one that reads while this one would write). "
            f"Wait until that has ended, or name another --cache."
        ) from error
    except PermissionError as error:
        raise CacheError(f"{path} cannot be opened: permission denied.") from error
    except OSError as error:
        if error.errno in FULL or "No space left" in str(error):
            raise CacheError(
                f"The disk is full while writing {path}. Everything committed so far is kept; make room and "
                f"run the same command again."
            ) from error
        if error.errno == errno.EROFS or "Read-only" in str(error):
            raise CacheError(f"{path} lies on a read-only file system.") from error
        raise CacheDamaged(f"{path} is damaged or cut off: {_first_line(error)}.") from error
    except (RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, SystemError) as error:
        raise CacheDamaged(f"{path} is damaged: {_first_line(error)}.") from error
    except MemoryError as error:
        raise CacheDamaged(f"{path} is damaged: reading it takes more memory than there is.") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip("'\"")
