"""Content key to row number in about 37 bytes a row, where a dictionary of texts takes 250.

Keys lie in row order in segments that never change: an array of 32 bytes a key, the row numbers in order of key (4
bytes), and where each beginning of a key starts among them (half a byte). What was appended last is in a dictionary,
until there is enough of it for a segment. So threads may ask while one appends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.columns import Keys
from tlfeat.memory import give_back_memory

#: Of a content key, a sha256.
KEY_BYTES = 32

#: Keys in the dictionary at most: with so few it is faster than a segment, and 15 MB do not matter.
_MAX_RECENT = 1 << 16

#: Rows of a segment at most: sorting them needs 12 bytes a row more for a moment, and every segment is searched.
_SEGMENT_ROWS = 1 << 22

#: Keys in a stretch that is searched by halves, on average.
_PER_BUCKET = 8

#: Rows whose keys are read at a time.
_READ_ROWS = 1 << 14

#: Rows of (n, 32) bytes, one a key.
Digests = npt.NDArray[np.uint8]

Numbers = npt.NDArray[np.int64]


class KeyIndex(Mapping[str, int]):
    """Content key, 64 hexadecimal digits, to row number; of a key that is there twice (damage) the last row."""

    def __init__(self) -> None:
        self._segments: tuple[_Segment, ...] = ()
        self._recent: dict[bytes, int] = {}
        self._tail = bytearray()  # the digests in `_recent`, in row order
        self._n_rows = 0
        self._n_keys = 0

    @classmethod
    def read(cls, n_rows: int, keys: Callable[[int, int], Digests], like: Iterable[KeyIndex] = ()) -> KeyIndex:
        """Return the index of a file's keys.

        Parameters
        ----------
        n_rows : int
        keys : callable
            Gives the keys of rows from one number to another, (n, 32).
        like : iterable of KeyIndex
            Those of other layers: one with the same keys in the same order shares its memory.
        """
        for other in like:
            if other._n_rows == n_rows and other._is(keys):
                return other._copy()
        index = cls()
        for start in range(0, n_rows, _SEGMENT_ROWS):
            stop = min(start + _SEGMENT_ROWS, n_rows)
            digests = np.empty((stop - start, KEY_BYTES), np.uint8)
            for low in range(start, stop, _READ_ROWS):
                high = min(low + _READ_ROWS, stop)
                digests[low - start : high - start] = keys(low, high)
            index.append(digests)
            if len(digests) > _MAX_RECENT:
                give_back_memory()  # what sorting needed
        return index

    @classmethod
    def of_parts(cls, parts: Iterable[Digests], n_keys: int) -> KeyIndex:
        """Return the index of the keys of several files, one after the other, of which `n_keys` differ."""
        index = cls()
        for digests in parts:
            index.append(digests)
            if len(digests) > _MAX_RECENT:
                give_back_memory()
        index._n_keys = n_keys
        return index

    def _is(self, keys: Callable[[int, int], Digests]) -> bool:
        """Whether these are the keys of every row, in order."""
        return all(np.array_equal(held, keys(start, start + len(held))) for start, held in self._in_row_order())

    def _copy(self) -> KeyIndex:
        new = KeyIndex()
        new._segments, new._recent, new._tail = self._segments, dict(self._recent), bytearray(self._tail)
        new._n_rows, new._n_keys = self._n_rows, self._n_keys
        return new

    def append(self, digests: Digests) -> None:
        """Add the keys of the rows that follow."""
        if len(digests) > _MAX_RECENT:
            self._close_tail()
            self._add(_Segment(self._n_rows, digests))
        else:
            data = digests.tobytes()
            split = [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]
            n_before = len(self._recent)
            self._recent.update(zip(split, range(self._n_rows, self._n_rows + len(split)), strict=True))
            self._n_keys += len(self._recent) - n_before
            self._tail += data
        self._n_rows += len(digests)
        if len(self._tail) > _MAX_RECENT * KEY_BYTES:
            self._close_tail()

    def _close_tail(self) -> None:
        """Make a segment of what is in the dictionary, and one of the last ones while they are of a size."""
        if not self._tail:
            return
        digests = np.frombuffer(bytes(self._tail), np.uint8).reshape(-1, KEY_BYTES)
        self._n_keys -= len(self._recent)
        self._add(_Segment(self._n_rows - len(digests), digests))
        self._recent, self._tail = {}, bytearray()  # after the segment is there: a thread may ask in between

    def _add(self, new: _Segment) -> None:
        self._n_keys += new.n_keys
        kept = list(self._segments)
        while kept and len(kept[-1].digests) <= len(new.digests) <= _SEGMENT_ROWS - len(kept[-1].digests):
            last = kept.pop()
            self._n_keys -= last.n_keys + new.n_keys
            new = _Segment(last.first, np.concatenate([last.digests, new.digests]))
            self._n_keys += new.n_keys
        self._segments = (*kept, new)

    # --- one key ------------------------------------------------------------------------------------------

    def _find(self, key: object) -> int:
        """Return the row of a key, or -1."""
        try:
            digest = bytes.fromhex(key)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            return -1
        found = self._recent.get(digest)  # before the segments: see `_close_tail`
        if found is not None:
            return found
        if len(digest) == KEY_BYTES:
            for segment in reversed(self._segments):
                if (row := segment.find(digest)) >= 0:
                    return row
        return -1

    def __getitem__(self, key: str) -> int:
        row = self._find(key)
        if row < 0:
            raise KeyError(key)
        return row

    def get(self, key: str, default: Any = None) -> Any:
        """Return the row of a key, or `default`."""
        row = self._find(key)
        return default if row < 0 else row

    def __contains__(self, key: object) -> bool:
        return self._find(key) >= 0

    def __len__(self) -> int:
        return self._n_keys

    def __iter__(self) -> Iterator[str]:
        for start, digests in self._in_row_order():
            for row, digest in enumerate(digests, start):
                key = digest.tobytes().hex()
                if len(self) == self._n_rows or self._find(key) == row:  # of a key that is there twice the last
                    yield key

    def _in_row_order(self) -> Iterator[tuple[int, Digests]]:
        for segment in self._segments:
            for at in range(0, len(segment.digests), _READ_ROWS):
                yield segment.first + at, segment.digests[at : at + _READ_ROWS]
        tail = np.frombuffer(bytes(self._tail), np.uint8).reshape(-1, KEY_BYTES)
        if len(tail):
            yield self._n_rows - len(tail), tail

    def __repr__(self) -> str:
        return f"<{len(self):,} keys>"

    # --- many keys ----------------------------------------------------------------------------------------

    def numbers(self, keys: Sequence[str]) -> Numbers:
        """Return the row of each key, -1 where there is none."""
        try:
            joined = bytes.fromhex("".join(keys))
        except ValueError:
            joined = b""
        if len(joined) != KEY_BYTES * len(keys) or any(len(key) != 2 * KEY_BYTES for key in keys):
            return np.array([self._find(key) for key in keys], np.int64)
        return self.rows_of(np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES))

    def has_block(self, keys: Keys, number: int) -> npt.NDArray[np.bool_]:
        """Return which lines of a block of a column have a key with a row."""
        digests, is_there = keys.digests(number)
        return is_there & (self.rows_of(digests) >= 0)

    def rows_of(self, digests: Digests) -> Numbers:
        """Return the row of each key, -1 where there is none.

        Parameters
        ----------
        digests : uint8 array of shape (n, 32)
        """
        found = np.full(len(digests), -1, np.int64)
        if self._recent:
            recent, data = self._recent, digests.tobytes()
            found[:] = [recent.get(data[at : at + KEY_BYTES], -1) for at in range(0, len(data), KEY_BYTES)]
        for segment in reversed(self._segments):
            missing = np.flatnonzero(found < 0)
            if not len(missing):
                break
            found[missing] = segment.find_all(np.ascontiguousarray(digests[missing]))
        return found


class _Segment:
    """Keys of rows that follow one another, and their order; nothing in it changes."""

    def __init__(self, first: int, digests: Digests) -> None:
        self.first = first
        self.digests = np.ascontiguousarray(digests)
        self._bytes: memoryview = self.digests.reshape(-1).data
        self._texts = self.digests.view(f"S{KEY_BYTES}")[:, 0]
        n = len(digests)
        # the first four bytes of a key, then its row: sorted in place, without a second array of row numbers
        packed = self.digests[:, :4].copy().view(">u4")[:, 0].astype(np.uint64)
        packed <<= np.uint64(32)
        packed |= np.arange(n, dtype=np.uint64)
        packed.sort()
        self._order = packed.astype(np.uint32)
        packed >>= np.uint64(32)
        self.n_keys = n - self._sort_equal_beginnings(packed)
        n_bits = min(max((n // _PER_BUCKET).bit_length(), 1), 31)
        self._shift = 32 - n_bits
        bounds = np.arange((1 << n_bits) + 1, dtype=np.uint64) << np.uint64(self._shift)
        self._starts = np.searchsorted(packed, bounds).astype(np.uint32)

    def _sort_equal_beginnings(self, beginnings: npt.NDArray[np.uint64]) -> int:
        """Order keys that begin alike by what follows, and equal ones by row; return how many have an equal before."""
        is_equal = np.flatnonzero(beginnings[1:] == beginnings[:-1])
        if not len(is_equal):
            return 0
        places = np.union1d(is_equal, is_equal + 1)
        rows = self._order[places]
        rows = rows[np.argsort(self._texts[rows], kind="stable")]
        self._order[places] = rows
        return int((self._texts[self._order[is_equal]] == self._texts[self._order[is_equal + 1]]).sum())

    def find(self, digest: bytes) -> int:
        """Return the last row of a key, or -1."""
        bucket = int.from_bytes(digest[:4], "big") >> self._shift
        low, high = self._starts[bucket : bucket + 2].tolist()
        first, order, data = low, self._order, self._bytes
        while low < high:  # to the first key that is larger
            middle = (low + high) // 2
            at = KEY_BYTES * int(order[middle])
            if bytes(data[at : at + KEY_BYTES]) > digest:
                high = middle
            else:
                low = middle + 1
        if low == first:
            return -1
        row = int(order[low - 1])
        return self.first + row if data[KEY_BYTES * row : KEY_BYTES * (row + 1)] == digest else -1

    def find_all(self, digests: Digests) -> Numbers:
        """Return the last row of each key, or -1."""
        wanted = digests.view(f"S{KEY_BYTES}")[:, 0]
        buckets = (digests[:, :4].copy().view(">u4")[:, 0].astype(np.uint32) >> np.uint32(self._shift)).astype(np.int64)
        first, high = self._starts[buckets].astype(np.int64), self._starts[buckets + 1].astype(np.int64)
        low = first.copy()
        left = np.flatnonzero(low < high)
        while len(left):
            middle = (low[left] + high[left]) // 2
            is_larger = self._texts[self._order[middle]] > wanted[left]
            high[left[is_larger]] = middle[is_larger]
            low[left[~is_larger]] = middle[~is_larger] + 1
            left = left[low[left] < high[left]]
        found = np.full(len(digests), -1, np.int64)
        at = np.flatnonzero(low > first)
        rows = self._order[low[at] - 1].astype(np.int64)
        is_there = self._texts[rows] == wanted[at]
        found[at[is_there]] = rows[is_there] + self.first
        return found
