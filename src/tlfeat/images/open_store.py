"""What a user names becomes a `Store`: by its scheme, or its ending. Nothing is read, and nothing heavy imported.

::

    s3:// gs:// az:// http(s):// memory://     `remote`
    file:                                      an archive or a table of bytes (`packed`)
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from tlfeat.images.folders import image_suffixes
from tlfeat.images.stores import Store, StoredImage
from tlfeat.images.urls import checked_url, is_url
from tlfeat.types import StrPath


def is_store(source: StrPath) -> bool:
    """Whether what a user named is no folder of images and no table of files."""
    return is_url(os.fspath(source))  # archives and tables of bytes: or an ending


def open_store(url: str) -> Store:
    """Return the store of a URL, as it is recorded in a cache.

    Raises
    ------
    UsageError
        An unknown scheme, a URL that holds a password, or a package is missing; the message says which.
    """
    if url.startswith("file:"):
        from tlfeat.images.packed import archive_store

        return archive_store(url)
    from tlfeat.images.remote import RemoteStore

    return RemoteStore(checked_url(url))


def is_one_image(url: str) -> bool:
    """Whether a URL names an image, by its ending, and no folder or table of them."""
    return PurePosixPath(url.partition("?")[0]).suffix.lower() in image_suffixes()


def one_image(url: str) -> StoredImage:
    """Return the image of a URL."""
    base, _, name = checked_url(url).rpartition("/")
    return StoredImage(open_store(f"{base}/" if base.endswith(":/") else base), name)


def named_image(named: StrPath) -> Path | StoredImage:
    """Return the image that a user named: a file, a URL, or a path into an archive. Nothing of it is read.

    Raises
    ------
    DataError
        A path into a table that is damaged or has several columns of images.
    UsageError
        A URL that cannot be taken.
    """
    if is_store(named):
        return one_image(os.fspath(named))
    path = Path(named)
    if not path.exists():
        from tlfeat.images.packed_paths import packed_image

        return packed_image(path.as_posix()) or path
    return path


def recorded_store(url: str) -> Store:
    """Return the store that a cache names; one that cannot be opened gives no image, and says why."""
    from tlfeat.errors import UsageError
    from tlfeat.images.stores import SEVERAL_PLACES, ClosedStore

    if not url:
        return ClosedStore("", SEVERAL_PLACES)
    try:
        return open_store(url)
    except UsageError as error:
        return ClosedStore(url="", why=str(error))
