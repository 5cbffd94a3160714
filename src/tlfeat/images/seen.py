"""What one listing says of objects, 24 bytes each: size and stamp by the hash of the name."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

#: Name, size in bytes (-1 where it is not told) and stamp (0 where nothing is known).
Entry = tuple[str, int, int]


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
