"""A cache file as untrusted input: is it one, is what it declares there, and what went wrong in words.

Everything is checked before a row is read: plain datasets only, no links and no storage elsewhere, declared sizes
backed by stored bytes. See docs/cache-format.md.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from tlfeat.errors import CacheError, CacheLocked
from tlfeat.journal import FULL

FORMAT = "tlfeat-cache"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)

#: The dtype of rows on the disk, by the dtype that the fingerprint names.
ROW_TYPES = {"float32": "<f4", "float16": "<f2"}

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

TEXT_COLUMNS = ("path", "key", "label", "split", "group", "status", "error")
NUMBER_COLUMNS = ("size", "mtime_ns")


def check_structure(path: Path, file: h5py.File) -> None:
    """Treat the file as untrusted: plain datasets only, declared sizes backed by stored bytes."""
    with h5_errors(path):
        if attribute(file, "format") != FORMAT:
            raise CacheError(f"{path} is an HDF5 file but not a tlfeat cache.")
        version = file.attrs.get("format_version")
        if version not in READABLE_VERSIONS:
            known = " and ".join(map(str, READABLE_VERSIONS))
            raise CacheError(f"{path} has cache format {version}; this tlfeat reads {known}. Update tlfeat.")
        if not isinstance(_hard(path, file, "layers"), h5py.Group):
            raise CacheError(f"{path}: /layers is not a group.")
        for layer in file["layers"]:
            group = _hard(path, file["layers"], layer)
            if not isinstance(group, h5py.Group):
                raise CacheError(f"{path}: /layers/{layer} is not a group.")
            rows = _plain(path, group, "rows", "f", 2)
            keys = _plain(path, group, "keys", "u", 2)
            sums = _plain(path, group, "crc32", "u", 1)
            n_rows = _plain(path, group, "n_rows", "u", 0)
            if int(n_rows[()]) > min(rows.shape[0], keys.shape[0], sums.shape[0]) or keys.shape[1] != 32:
                raise CacheError(f"{path}: layer '{layer}' declares more rows than it stores.")
            for dataset in (rows, keys, sums):
                _check_stored(path, dataset)
        for table in ("images", "images_new"):
            if table in file and file[table].attrs.get("is_complete", False):
                group = _hard(path, file, table)
                lengths = set()
                for name in TEXT_COLUMNS + NUMBER_COLUMNS:
                    column = _plain(path, group, name, "S" if name in TEXT_COLUMNS else "i", 1)
                    lengths.add(column.shape[0])
                    _check_stored(path, column)
                if len(lengths) != 1:
                    raise CacheError(f"{path}: the columns of /{table} differ in length.")


def attribute(file: h5py.File, name: str) -> Any:
    """Return a root attribute, text of either of HDF5's kinds as a string; None where it is not there."""
    value = file.attrs.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _hard(path: Path, group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise CacheError(f"{path}: {group.name}/{name} is missing or a link to elsewhere.")
    return group[name]


def _plain(path: Path, group: h5py.Group, name: str, kind: str, n_dims: int) -> h5py.Dataset:
    dataset = _hard(path, group, name)
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype.kind != kind
        or dataset.ndim != n_dims
        or dataset.is_virtual
        or dataset.external
    ):
        raise CacheError(f"{path}: {group.name}/{name} is not the plain {n_dims}-d dataset that is expected.")
    return dataset


def _check_stored(path: Path, dataset: h5py.Dataset) -> None:
    # deflate shrinks at most 1,032 times: more than that declared is not there
    shrunk = 1100 if dataset.compression == "gzip" else 1
    if dataset.size * dataset.dtype.itemsize > shrunk * dataset.id.get_storage_size():
        raise CacheError(f"{path}: {dataset.name} declares more than it stores.")


@contextlib.contextmanager
def h5_errors(path: Path) -> Iterator[None]:
    """Map what h5py raises to `CacheError`; its messages name neither the file nor a way out."""
    try:
        yield
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
        raise CacheError(f"{path} is damaged or cut off: {_first_line(error)}.") from error
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CacheError(f"{path} is damaged: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip("'\"")
