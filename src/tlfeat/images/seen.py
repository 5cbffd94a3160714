"""What a bucket or a server is asked, and what one listing says of objects: size and stamp, 24 bytes each."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

#: Name, size in bytes (-1 where it is not told) and stamp (0 where nothing is known).
Entry = tuple[str, int, int]


class Remote(Protocol):
    """A bucket or a server, by path below the URL of its store.

    Attributes
    ----------
    lists_stamps : bool
        Whether `entries` tells sizes and stamps; else `entry` is asked for those of the images.
    """

    @property
    def lists_stamps(self) -> bool: ...

    def entries(self) -> Iterator[Entry]:
        """List all objects below the URL; a `DataError` says why that cannot be."""
        ...

    def entry(self, path: str) -> Entry:
        """Ask for size and stamp of one object; (path, 0, 0) where nothing is known."""
        ...

    def fetch(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """Read one object once, with the stamp that came with it, or 0; `BadImage`, or `Passing`."""
        ...


def stamp_of(*marks: object) -> int:
    """Return a number of 63 bits, never 0, that changes with what is given."""
    digest = hashlib.blake2b("\0".join(map(str, marks)).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


class Seen:
    """Sizes and stamps of many names."""

    def __init__(self) -> None:
        self._hashes, self._sizes, self._stamps = array("q"), array("q"), array("q")
        self._sorted: tuple[np.ndarray, ...] | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def names_of(self, entries: Iterable[Entry]) -> Iterator[str]:
        """Note entries as they come, and give their names on."""
        for name, size, stamp in entries:
            self._hashes.append(hash(name))
            self._sizes.append(size)
            self._stamps.append(stamp)
            yield name

    def get(self, name: str) -> tuple[int, int]:
        """Return size and stamp, (-1, 0) where the listing had no such name."""
        hashes, sizes, stamps, is_twice = self._in_order()
        wanted = hash(name)
        at = int(np.searchsorted(hashes, wanted))
        if at == len(hashes) or hashes[at] != wanted or is_twice[at]:
            return -1, 0
        return int(sizes[at]), int(stamps[at])

    def _in_order(self) -> tuple[np.ndarray, ...]:
        """Return the columns by hash; of two names with one hash nothing is known."""
        if self._sorted is None:
            columns = [np.frombuffer(column, dtype=np.int64) for column in (self._hashes, self._sizes, self._stamps)]
            order = np.argsort(columns[0], kind="stable")
            hashes, sizes, stamps = (column[order] for column in columns)
            same = hashes[1:] == hashes[:-1]
            is_twice = np.concatenate([[False], same]) | np.concatenate([same, [False]])
            self._sorted = hashes, sizes, stamps, is_twice[: len(hashes)]
        return self._sorted
