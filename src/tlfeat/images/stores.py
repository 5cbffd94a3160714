"""Where images lie that are no files of a folder: a bucket, a server, an archive, a table with a column of bytes.

A store is known by its URL. Its paths are those of an `ImageSet`, and what it reads has the same content key as a file
with the same bytes: rows do not depend on where an image lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tlfeat.errors import BadImage
from tlfeat.images.urls import below

#: Why no image of a cache is read that was joined from a store and another place.
SEVERAL_PLACES = "its cache was joined from several places, one of which is no folder"


class Store(Protocol):
    """Images by path. Making one reads nothing; every method may be called from several threads.

    Attributes
    ----------
    url : str
        By which it is opened again; caches record it, so it holds no password, key or signature.
    n_ahead : int
        Reads that are best under way at once, since each waits for a network; 0 where reading is as fast as from a
        disk.
    """

    @property
    def url(self) -> str: ...
    @property
    def n_ahead(self) -> int: ...

    def read(self, path: str) -> bytes:
        """Return the bytes of one image.

        Raises
        ------
        BadImage
            They cannot be had; the message says why. What passes by itself (a server that is busy, a body cut short)
            was tried again.
        """
        ...

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return size and stamp of each image, without reading any: (0, 0) where nothing is known.

        The stamp is a number of 63 bits that changes with the content: of an ETag, a generation, a checksum, or size
        and time.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of a store as what is taken in place of a file: called, it gives its bytes."""

    store: Store
    path: str
    shown: str = ""  # what it is called, where that is not its URL

    @property
    def name(self) -> str:
        """Where it lies, in words."""
        return self.shown or below(self.store.url, self.path)

    def __call__(self) -> bytes:
        return self.store.read(self.path)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ClosedStore:
    """A store that cannot be opened here: every image says why."""

    url: str
    why: str
    n_ahead: int = 0

    def read(self, path: str) -> bytes:
        """Raise `BadImage`."""
        raise BadImage(self.why)

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return that nothing is known."""
        return [(0, 0)] * len(paths)


def common_store(places: Mapping[str, Store | None]) -> Store | None:
    """Return the store of images that lie in these places (None: a folder); of several none is read any more."""
    stores = [store for store in places.values() if store is not None]
    if not stores:
        return None
    return stores[0] if len(places) == 1 else ClosedStore("", SEVERAL_PLACES)
