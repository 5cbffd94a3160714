"""The path table: path to content key, label, split, group, domain and status; one entry an image.

::

    /images/  path key label split group status error size mtime_ns, in version 3 domain

A table is changed block by block, and appended to, where the images are those that were there, or these and more
behind them; otherwise it is replaced whole. Works on an h5py file. Transactions, the disk and errors of HDF5 are the
business of `store.Cache`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.blocks import BLOCK_LINES, Column
from tlfeat.cache.checks import (
    DOMAINS_VERSION,
    NUMBER_COLUMNS,
    PATH_TABLES,
    attribute,
    document,
    is_complete,
    text_columns,
)
from tlfeat.columns import Codes, Collected, Keys, Numbers, Paths, as_codes
from tlfeat.errors import CacheDamaged, CacheError
from tlfeat.files import kept_inside
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.open_store import recorded_store
from tlfeat.images.urls import is_url

#: Lines in one chunk: those of a block in memory.
_CHUNK_LINES = BLOCK_LINES

#: A table of at most so many lines is replaced in one commit: about 13 MB.
_ONE_COMMIT_LINES = 32 * _CHUNK_LINES

_MAX_ERROR = 300

_STATUS = {"ok", "failed", "pending"}

#: What the image is called and what is said of it: a table in which any of it changed is replaced.
_LASTING = ("path", "label", "split", "group", "domain")

#: Value of each hexadecimal digit; 255 of what is none.
_DIGITS = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def read_path_table(path: Path, file: h5py.File) -> ImageTable:
    """Return the path table of an open file; `path` is for messages.

    Raises
    ------
    CacheError
        There is none: the first ``extract`` never got to write one.
    CacheDamaged
        A key or a status is none.

    Notes
    -----
    A relative path that leads out of the root leads nowhere (`files.kept_inside`). tlfeat 0.1 wrote such paths, from
    tables that hold them; the same ``extract`` mends that.
    """
    name = _complete_table(file)
    if name is None:
        raise CacheError(f"{path} has no table of images. Run tlfeat extract again.")
    group = file[name]
    text = {column: _read_text(group[column], column) for column in text_columns(file) if column != "key"}
    keys, status = _read_keys(group["key"]), text["status"]
    if keys is None or not isinstance(status, Codes) or not status.distinct <= _STATUS:
        raise CacheDamaged(f"{path} is damaged: its table of images holds what is no key or status.")
    source = document(path, file, "source")
    images = ImageSet(
        root=Path(source.get("root", "")),
        source=Path(source.get("source", "")),
        paths=text["path"],
        labels=text["label"],
        splits=text["split"],
        groups=text["group"],
        holds=str(source.get("holds", "images")),
        domains=text.get("domain", []),
        store=recorded_store(str(source["store"])) if "store" in source else None,
        url=str(source["source"]) if is_url(str(source.get("source", ""))) else "",
    )
    sizes, mtimes_ns = (_read_numbers(group[column]) for column in NUMBER_COLUMNS)
    return ImageTable(images, keys, status, as_codes(text["error"]), sizes, mtimes_ns)


def count_status(file: h5py.File) -> Counter[str] | None:
    """Return how many images have which status, without reading anything else; None where there is no path table."""
    name = _complete_table(file)
    if name is None:
        return None
    found: Counter[str] = Counter()
    column = file[name]["status"]
    width = column.dtype.itemsize
    known = {word[0]: word.decode() for word in (b"ok", b"failed", b"pending")}  # no two begin alike
    for start in range(0, len(column), 64 * _CHUNK_LINES):
        firsts = np.ascontiguousarray(column[start : start + 64 * _CHUNK_LINES]).view(np.uint8)[::width]
        counts = np.bincount(firsts, minlength=256)
        found.update({word: int(counts[first]) for first, word in known.items() if counts[first]})
    return found


def _complete_table(file: h5py.File) -> str | None:
    """Return the name of the table that counts: one that was to replace another, before it was renamed, comes first."""
    return next((name for name in reversed(PATH_TABLES) if name in file and is_complete(file[name])), None)


def path_table_pieces(file: h5py.File, table: ImageTable, before: ImageTable | None) -> Iterator[None]:
    """Write the path table of an open file piece by piece; after each piece the file can be committed.

    The file gets version 3 where there are domains, and keeps it. Whatever pieces are committed, every line that is
    read is one of the table before or one of this one.

    Parameters
    ----------
    file : h5py.File
    table, before : ImageTable
        What is to be there, and what is there, if that is known; of packed columns (`ImageTable.packed`).

    Raises
    ------
    CacheError
        There are domains, and the file is of version 1: its rows have other checksums than those of version 3.
    """
    texts = text_columns(file)
    if any(_texts_of(table.images.domains)) and "domain" not in texts:
        texts = (*texts, "domain")
        if attribute(file, "format_version") == 1:
            raise CacheError(
                "This cache is of format 1, which has no room for domains. Name another file with --cache: rows are "
                "copied from this one where both lie in one folder."
            )
    name = _complete_table(file)
    other = PATH_TABLES[0] if name == PATH_TABLES[1] else PATH_TABLES[1]
    file.pop(other, None)  # a writer was killed before it was complete
    new = _columns(table, texts)
    if name is not None and before is not None and _can_be_changed(file[name], new, before):
        is_done = yield from _changed(file[name], new, _columns(before, texts))
        if is_done:
            return
    if len(table.images) <= _ONE_COMMIT_LINES:
        drop_path_table(file)  # its place is free for the new one
        other = PATH_TABLES[0]
        for _ in _created(file, other, new):
            pass
    else:
        yield from _created(file, other, new)
        if name is not None:
            del file[name]
    if "domain" in texts:
        file.attrs["format_version"] = DOMAINS_VERSION
    if other != PATH_TABLES[0]:
        file.move(other, PATH_TABLES[0])
    file[PATH_TABLES[0]].attrs["is_complete"] = True
    yield


def write_path_table(file: h5py.File, table: ImageTable) -> None:
    """Replace the path table of an open file; see `path_table_pieces`."""
    for _ in path_table_pieces(file, table.packed(), None):
        pass


def _columns(table: ImageTable, texts: Sequence[str]) -> dict[str, Column[Any]]:
    images = table.images
    columns: dict[str, Any] = {
        "path": images.paths,
        "key": table.keys,
        "label": images.labels,
        "split": images.splits,
        "group": images.groups,
        "status": table.status,
        "error": table.errors,
        "size": table.sizes,
        "mtime_ns": table.mtimes_ns,
    }
    return columns | ({"domain": images.domains} if "domain" in texts else {})


def _can_be_changed(group: h5py.Group, new: Mapping[str, Column[Any]], before: ImageTable) -> bool:
    """Whether the table in the file is that of the images before, and these are the same or the same and more."""
    n, n_before = len(new["path"]), len(before.images)
    if not _CHUNK_LINES <= n_before <= n or set(group) != new.keys():
        return False
    if any(
        len(dataset) != n_before or dataset.chunks != (_CHUNK_LINES,) or (n > n_before and dataset.maxshape != (None,))
        for dataset in group.values()
    ):
        return False
    old = _columns(before, list(new))
    return all(_begins_with(new[name], old[name]) for name in _LASTING if name in new)


def _begins_with(new: Column[Any], old: Column[Any]) -> bool:
    n_whole = len(old) // _CHUNK_LINES
    start = n_whole * _CHUNK_LINES
    return all(new.has_block(old, b) for b in range(n_whole)) and new[start : len(old)] == old[start:]


def _changed(
    group: h5py.Group, new: Mapping[str, Column[Any]], old: Mapping[str, Column[Any]]
) -> Generator[None, None, bool]:
    """Write the blocks that differ; return whether all texts had room."""
    n, n_before = len(new["path"]), len(old["path"])
    for number, start in enumerate(range(0, n, _CHUNK_LINES)):
        stop = min(start + _CHUNK_LINES, n)
        changed = [name for name in new if stop > n_before or not new[name].has_block(old[name], number)]
        blocks = {name: _block(new[name], name, start, stop) for name in changed}
        if any(block.dtype.itemsize > group[name].dtype.itemsize for name, block in blocks.items()):
            return False
        for name, block in blocks.items():
            if stop > len(group[name]):
                group[name].resize(stop, axis=0)
            group[name][start:stop] = block
        if blocks:
            yield
    return True


def _created(file: h5py.File, table: str, new: Mapping[str, Column[Any]]) -> Iterator[None]:
    """Write a table that is not complete yet."""
    group, n = file.create_group(table), len(new["path"])
    for name, column in new.items():
        group.create_dataset(
            name,
            (n,),
            np.int64 if isinstance(column, Numbers) else f"S{_width(column, name)}",
            chunks=(min(max(n, 1), _CHUNK_LINES),),
            maxshape=(None,) if not 0 < n < _CHUNK_LINES else None,  # HDF5 has no fixed length below that of a chunk
            compression="gzip",  # paths share their beginnings: 60,000 of them take 1 MB, not 6
            compression_opts=1,
            fletcher32=True,
        )
    for start in range(0, n, _CHUNK_LINES):  # block by block: no second copy of the table
        stop = min(start + _CHUNK_LINES, n)
        for name, column in new.items():
            group[name][start:stop] = _block(column, name, start, stop)
        yield


def drop_path_table(file: h5py.File) -> int:
    """Remove the path table, under either of its names; return how many there were."""
    return sum(file.pop(name, None) is not None for name in PATH_TABLES)


def _block(column: Column[Any], name: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Return lines as they are stored; of an error the beginning."""
    if isinstance(column, Numbers):
        return column.numbers(start // _CHUNK_LINES)
    number = start // _CHUNK_LINES
    if isinstance(column, Keys):
        digests, is_there = column.digests(number)
        digits = np.frombuffer(digests.tobytes().hex().encode(), "S64")
        return np.where(is_there, digits, b"") if is_there.any() else np.full(stop - start, b"", "S1")
    most = _MAX_ERROR if name == "error" else None
    if isinstance(column, Codes):
        texts, at = column.coded(number)
        return np.array([_encoded(text[:most]) for text in texts])[at]
    return np.array([_encoded(text[:most]) for text in column[start:stop]])


def _width(column: Column[Any], name: str) -> int:
    """Return the bytes of the longest text, 1 at least."""
    if isinstance(column, Keys):
        return 64 if column.has_any else 1
    if isinstance(column, Paths) and name != "error":
        return column.most_bytes or 1
    most = _MAX_ERROR if name == "error" else None
    return max((len(_encoded(text[:most])) for text in _texts_of(column)), default=0) or 1


def _texts_of(column: Iterable[str]) -> Iterable[str]:
    """Return what is in a column: different texts once where that is known without reading it."""
    return column.distinct if isinstance(column, Codes) else column


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _starts(dataset: h5py.Dataset) -> range:
    """Return where to read from block by block: in the file every value is as wide as the widest."""
    return range(0, len(dataset), -(-max(dataset.chunks[0], 1) // BLOCK_LINES) * BLOCK_LINES)


def _read_text(dataset: h5py.Dataset, name: str) -> Paths | Codes:
    found = Collected(is_path=name == "path")
    starts = _starts(dataset)
    strings: dict[bytes, str] = {}  # equal labels become one string
    for start in starts:
        values = dataset[start : start + starts.step].tolist()
        if name == "path":
            found.extend(kept_inside(value.decode("utf-8", "surrogateescape")) for value in values)
            continue
        for value in set(values) - strings.keys():
            strings[value] = value.decode("utf-8", "surrogateescape")
        found.extend(map(strings.__getitem__, values))
        if len(strings) > _CHUNK_LINES:
            strings.clear()
    return found.column()


def _read_keys(dataset: h5py.Dataset) -> Keys | None:
    """Return the content keys; None where one is no 64 hexadecimal digits."""
    found, starts = Keys(), _starts(dataset)
    for start in starts:
        stored = dataset[start : start + starts.step]
        texts = stored.astype("S64")
        letters = np.frombuffer(texts.tobytes(), np.uint8).reshape(-1, 64)
        is_there = np.asarray(letters.any(axis=1))
        digits = _DIGITS[letters]
        digits[~is_there] = 0
        if (digits > 15).any() or (stored.dtype.itemsize > 64 and (texts != stored).any()):
            return None
        found.extend_packed(np.uint8(16) * digits[:, ::2] + digits[:, 1::2], is_there)
    return found


def _read_numbers(dataset: h5py.Dataset) -> Numbers:
    found, starts = Numbers(), _starts(dataset)
    for start in starts:
        found.extend_array(dataset[start : start + starts.step])
    return found
