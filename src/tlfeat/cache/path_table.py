"""The path table: path to content key, label, split, group, domain and status; one entry an image, replaced whole.

::

    /images/  path key label split group status error size mtime_ns, in version 3 domain

Works on an h5py file. Transactions, the disk and errors of HDF5 are the business of `store.Cache`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tlfeat.cache.checks import (
    DOMAINS_VERSION,
    NUMBER_COLUMNS,
    PATH_TABLES,
    attribute,
    document,
    is_complete,
    text_columns,
)
from tlfeat.errors import CacheDamaged, CacheError
from tlfeat.files import kept_inside
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.open_store import recorded_store
from tlfeat.images.urls import is_url

#: Lines in one chunk.
_CHUNK_LINES = 8192

_MAX_ERROR = 300

_STATUS = {"ok", "failed", "pending"}

_KEY = re.compile("([0-9a-f]{64})?")


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
    # version 1 was written as /images_new first, and a writer may have died before it was renamed
    name = next((name for name in reversed(PATH_TABLES) if name in file and is_complete(file[name])), None)
    if name is None:
        raise CacheError(f"{path} has no table of images. Run tlfeat extract again.")
    group = file[name]
    text = {column: _read_text(group[column]) for column in text_columns(file)}
    numbers = {column: array("q", group[column][:].tobytes()) for column in NUMBER_COLUMNS}
    if not set(text["status"]) <= _STATUS or not all(map(_KEY.fullmatch, text["key"])):
        raise CacheDamaged(f"{path} is damaged: its table of images holds what is no key or status.")
    source = document(path, file, "source")
    images = ImageSet(
        root=Path(source.get("root", "")),
        source=Path(source.get("source", "")),
        paths=[kept_inside(path) for path in text["path"]],
        labels=text["label"],
        splits=text["split"],
        groups=text["group"],
        holds=str(source.get("holds", "images")),
        domains=text.get("domain", []),
        store=recorded_store(str(source["store"])) if "store" in source else None,
        url=str(source["source"]) if is_url(str(source.get("source", ""))) else "",
    )
    return ImageTable(images, text["key"], text["status"], text["error"], numbers["size"], numbers["mtime_ns"])


def write_path_table(file: h5py.File, table: ImageTable) -> None:
    """Replace the path table of an open file, which gets version 3 where there are domains, and keeps it.

    Raises
    ------
    CacheError
        There are domains, and the file is of version 1: its rows have other checksums than those of version 3.
    """
    images = table.images
    if any(images.domains):
        if attribute(file, "format_version") == 1:
            raise CacheError(
                "This cache is of format 1, which has no room for domains. Name another file with --cache: rows are "
                "copied from this one where both lie in one folder."
            )
        file.attrs["format_version"] = DOMAINS_VERSION
    texts = text_columns(file)
    columns: dict[str, Sequence[str] | Sequence[int]] = {
        "path": images.paths,
        "key": table.keys,
        "label": images.labels,
        "split": images.splits,
        "group": images.groups,
        "status": table.status,
        "error": [error[:_MAX_ERROR] for error in table.errors],
        "size": table.sizes,
        "mtime_ns": table.mtimes_ns,
    }
    if "domain" in texts:
        columns["domain"] = images.domains
    drop_path_table(file)
    group = file.create_group(PATH_TABLES[0])
    for name, values in columns.items():
        column = group.create_dataset(
            name,
            (len(images),),
            _text_type(values) if name in texts else np.int64,
            chunks=(min(max(len(images), 1), _CHUNK_LINES),),
            maxshape=None if len(images) else (None,),  # HDF5 has no fixed length below that of a chunk
            compression="gzip",  # paths share their beginnings: 60,000 of them take 1 MB, not 6
            compression_opts=1,
            fletcher32=True,
        )
        for start in range(0, len(images), _CHUNK_LINES):  # block by block: no second copy of the table
            block: Any = values[start : start + _CHUNK_LINES]
            if name in texts:
                block = np.array([_encoded(value) for value in block])
            column[start : start + _CHUNK_LINES] = block
    group.attrs["is_complete"] = True


def drop_path_table(file: h5py.File) -> int:
    """Remove the path table, under either of its names; return how many there were."""
    return sum(file.pop(name, None) is not None for name in PATH_TABLES)


def _encoded(text: Any) -> bytes:
    return bytes(text.encode("utf-8", "surrogateescape"))


def _text_type(values: Sequence[Any]) -> str:
    return f"S{max((len(_encoded(value)) for value in values), default=0) or 1}"


def _read_text(dataset: h5py.Dataset) -> list[str]:
    strings: dict[bytes, str] = {}  # equal labels become one string
    found: list[str] = []
    step = max(dataset.chunks[0], _CHUNK_LINES)  # block by block: in the file every value is as wide as the widest
    for start in range(0, len(dataset), step):
        values = dataset[start : start + step].tolist()
        found += [strings.setdefault(value, value.decode("utf-8", "surrogateescape")) for value in values]
    return found
