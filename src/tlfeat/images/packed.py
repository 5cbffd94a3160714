"""The one door to images that are packed in files: archives, and tables with a column of bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from tlfeat.errors import UsageError
from tlfeat.images.archives import ARCHIVE_SUFFIXES, Archives, archives_below, check_no_packed, from_archives
from tlfeat.images.byte_store import ByteTable
from tlfeat.images.byte_tables import TABLE_SUFFIXES, from_byte_table, has_tables, is_saved_dataset
from tlfeat.images.domains import check_no_domain_folders
from tlfeat.images.image_set import ImageSet
from tlfeat.images.stores import Store, StoredImage

PACKED_SUFFIXES = ARCHIVE_SUFFIXES | TABLE_SUFFIXES


def is_packed(source: Path) -> bool:
    """Whether it is an archive, a table of bytes, or a folder that `datasets` saved.

    Raises
    ------
    DataError
        An archive that can be read only from its beginning.
    """
    if source.is_dir():
        return is_saved_dataset(source)
    check_no_packed(source)
    return source.suffix.lower() in PACKED_SUFFIXES


def holds_packed(passed_over: Mapping[str, int]) -> bool:
    """Whether there are archives or tables among the files of a folder that are no images."""
    return not PACKED_SUFFIXES.isdisjoint(passed_over)


def stored_images(source: Path, images: ImageSet) -> list[StoredImage]:
    """Return the images of what a user named, each with its name from there: ``photos.zip/cat/1.jpg``."""
    above = source.parent if source.suffix.lower() in TABLE_SUFFIXES else source
    assert images.store is not None
    return [StoredImage(images.store, path, (above / path).as_posix()) for path in images.paths]


def archive_store(url: str) -> Store:
    """Return the store of a ``file:`` URL. Nothing is read.

    Raises
    ------
    UsageError
        It names no file of this machine.
    """
    parts = urlsplit(url)
    source = Path(url2pathname(parts.path))
    if parts.scheme != "file" or parts.netloc or not source.is_absolute() or "\0" in parts.path:
        raise UsageError(f"'{url}' names no archive and no table of this machine.")
    return ByteTable(source, unquote(parts.fragment)) if parts.fragment else Archives(source)


def from_packed(
    source: Path,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    asked: Mapping[str, str | None],
    *,
    has_domains: bool = False,
) -> ImageSet:
    """Return the images of an archive or a table of bytes, or of those below a folder.

    Parameters
    ----------
    source : Path
        Absolute.
    class_map, classes, label_of, has_domains
        As of `image_set.from_folder`.
    asked : mapping of role to name of column
        Of a table.

    Raises
    ------
    DataError
        What is there cannot be used.
    UsageError
        An option that is for the other kind.
    """
    is_table = source.suffix.lower() in TABLE_SUFFIXES
    if source.is_dir():
        is_table = is_saved_dataset(source) or (has_tables(source) and not archives_below(source))
    if is_table:
        check_no_domain_folders(source, domains=has_domains)
        return from_byte_table(source, class_map, label_of, asked)
    if named := [role for role, name in asked.items() if name]:
        raise UsageError(f"--{named[0]}-column is for tables; {source.name} is an archive.")
    return from_archives(source, class_map, classes, label_of, has_domains=has_domains)
