"""Paths of a table that lead into archives and tables of bytes: ``photos.zip/cat/1.jpg``, ``data.parquet:17``.

``audit --write`` writes them and ``extract`` takes them, so that a list of images need not unpack anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tlfeat.errors import DataError
from tlfeat.images.archives import Archives
from tlfeat.images.byte_store import ARROW_SUFFIXES, PARQUET_SUFFIXES, ByteTable
from tlfeat.images.byte_tables import image_column
from tlfeat.images.stores import Store, StoredImage

_INTO_ARCHIVE = re.compile(r"\.(?:zip|tar)(?=/.)", re.IGNORECASE)
_ROW = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(PARQUET_SUFFIXES | ARROW_SUFFIXES)))})(?=:[0-9]+\Z)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class PackedPaths:
    """What the paths of a table are in one store; `root` is the archive, or the folder around all."""

    store: Store
    root: Path
    paths: list[str]


def packed_file(path: str, is_file: Callable[[str], bool]) -> str:
    """Return the archive or the table of bytes that a path leads into, "" where it leads into none."""
    ends = (found.end() for pattern in (_INTO_ARCHIVE, _ROW) for found in pattern.finditer(path))
    return next((path[:end] for end in ends if is_file(path[:end])), "")


def packed_paths(folder: Path, paths: Sequence[str], source: Path) -> PackedPaths | None:
    """Return the store of the paths of a table, None where they are those of files.

    Parameters
    ----------
    folder : Path
        From which paths count.
    paths : sequence of str
    source : Path
        The table, for messages.

    Raises
    ------
    DataError
        Some paths lead into archives and others do not, or into archives and tables of bytes.
    """

    @cache
    def is_file(path: str) -> bool:
        return (folder / path).is_file()

    first = next((file for path in paths if (file := packed_file(path, is_file))), "")
    if not first:
        return None
    is_rows = _is_table(first)
    inside = []
    for number, path in enumerate(paths, start=2):
        file = packed_file(path, is_file)
        if not file or _is_table(file) != is_rows:
            kind = "a table of images" if is_rows else "an archive"
            raise DataError(
                f"{source}, row {number}: '{path}' does not lead into {kind} that is there, and other rows do "
                f"({first}). A table holds the one or the other."
            )
        inside.append((os.path.abspath(folder / file), path[len(file) + 1 :]))  # noqa: PTH100  links stay
    files = sorted({file for file, _ in inside})
    if not is_rows and len(files) == 1:
        return PackedPaths(Archives(Path(files[0])), Path(files[0]), [name for _, name in inside])
    root = Path(os.path.commonpath([Path(file).parent for file in files]))
    names = {file: Path(file).relative_to(root).as_posix() for file in files}
    store: Store = ByteTable(root, image_column(Path(files[0]))) if is_rows else Archives(root)
    return PackedPaths(store, root, [f"{names[file]}{':' if is_rows else '/'}{name}" for file, name in inside])


def packed_image(named: str) -> StoredImage | None:
    """Return the image that a path into an archive or a table of bytes names, None where it leads into none."""
    file = packed_file(named, os.path.isfile)
    if not file:
        return None
    path, inside = Path(file).absolute(), named[len(file) + 1 :]
    if _is_table(file):
        return StoredImage(ByteTable(path, image_column(path)), f"{path.name}:{inside}", named)
    return StoredImage(Archives(path), inside, named)


def paths_into(store: Store, paths: Sequence[str], folder: Path) -> list[str]:
    """Return the paths by which a table in `folder` names images of an archive or a table of bytes.

    Raises
    ------
    DataError
        The images lie in another column than the one that would be read.
    """
    if isinstance(store, ByteTable):
        for file in sorted({store.file_of(path) for path in paths}):
            check_usual_column(file, store.column)
        above = store.folder
    else:
        assert isinstance(store, Archives)
        above = store.source
    start = (above.relative_to(folder) if above.is_relative_to(folder) else above).as_posix()
    return list(paths) if start == "." else [f"{start.rstrip('/')}/{path}" for path in paths]


def check_usual_column(file: Path, column: str) -> None:
    """Raise `DataError` where images of a table of bytes lie in another column than `extract` takes by itself."""
    with suppress(DataError):  # several columns, of which none is the usual one
        if image_column(file) == column:
            return
    raise DataError(
        f"No table for tlfeat extract: a .csv cannot say that the images are in the column '{column}' of {file.name}, "
        f"which has several columns of images."
    )


def _is_table(file: str) -> bool:
    return Path(file).suffix.lower() in PARQUET_SUFFIXES | ARROW_SUFFIXES
