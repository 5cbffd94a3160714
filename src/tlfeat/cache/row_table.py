"""The row table: content key to row, one table a layer, only ever appended to.

::

    /layers/LAYER/  rows (n, width)   keys (n, 32)   crc32 (n)   n_rows

Works on an h5py group. Transactions, the disk and the file's name are the business of `store.Cache`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.cache.key_index import KEY_BYTES, KeyIndex
from tlfeat.types import Rows

#: A chunk of rows has at most this many, and as few as keep it inside HDF5's chunk cache of 1 MiB.
_CHUNK_ROWS, _CHUNK_BYTES = 64, 1 << 20

#: Keys and checksums are small; larger chunks keep their index short.
CHUNK_KEYS = 1024

#: Read at once: few wide rows that lie far apart do not make the whole file be read.
_BLOCK_BYTES = 16 << 20

#: The datasets with one entry a row.
_COLUMNS = ("rows", "keys", "crc32")

#: Rows as they are stored: float32 or float16.
Stored = npt.NDArray[np.floating[Any]]


class RowTable:
    """The rows of one layer, which may not have been begun.

    Parameters
    ----------
    layers : h5py.Group
        The group ``/layers``.
    layer : str
    version : int
        Of the file format: in version 1 a checksum covers the row alone, and room was reserved beyond the rows.
    guard : callable
        Gives a context manager; HDF5 is touched inside it only. It maps errors, and holds Ctrl-C back.
    alike : callable, optional
        Gives other layers' tables: where they have the same keys, memory is shared with them.
    """

    def __init__(
        self,
        layers: h5py.Group,
        layer: str,
        version: int,
        guard: Callable[[], AbstractContextManager[None]],
        alike: Callable[[], Iterable[RowTable]] = tuple,
    ) -> None:
        self.layer = layer
        self._layers = layers
        self._version = version
        self._guard = guard
        self._alike = alike
        self._n_rows: int | None = None
        self._known: KeyIndex | None = None
        self._waiting: list[tuple[Stored, npt.NDArray[np.uint8]]] = []

    @property
    def is_begun(self) -> bool:
        """Whether the file has this layer."""
        if self._n_rows is not None:
            return True
        with self._guard():
            return self.layer in list(self._layers)

    @property
    def n_rows(self) -> int:
        """The number of valid rows, those that wait included."""
        if self._n_rows is None:
            with self._guard():
                group = self._layers[self.layer]
                # the lengths are smaller in a damaged file only
                self._n_rows = min(int(group["n_rows"][()]), *(len(group[name]) for name in _COLUMNS))
        return self._n_rows

    @property
    def n_beyond(self) -> int:
        """Rows in the file beyond the recorded number, where the format has none."""
        with self._guard():
            n_there = max(len(self._layers[self.layer][name]) for name in _COLUMNS)
        return 0 if self._version == 1 else n_there - self.n_rows

    @property
    def width(self) -> int:
        """The number of columns."""
        with self._guard():
            return int(self._layers[self.layer]["rows"].shape[1])

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored, and can be damaged, together."""
        with self._guard():
            return int(self._layers[self.layer]["rows"].chunks[0])

    @property
    def known(self) -> KeyIndex:
        """Content key to row number of every valid row; the same index grows with the table."""
        if self._known is None:
            found = KeyIndex()
            if self.is_begun:
                alike = [other._known for other in self._alike() if other._known is not None]
                found = KeyIndex.read(self.n_rows, self.keys, alike)
            self._known = found
        return self._known

    def begin(self, width: int, row_type: str, *, is_compressed: bool) -> None:
        """Create the empty table of a layer that the file does not have."""
        dtype = np.dtype(row_type)
        n_chunk = min(max(_CHUNK_BYTES // (width * dtype.itemsize), 1), _CHUNK_ROWS)
        filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if is_compressed else {}
        with self._guard():
            group = self._layers.create_group(self.layer)
            group.create_dataset("rows", (0, width), dtype, maxshape=(None, width), chunks=(n_chunk, width), **filters)
            group.create_dataset("keys", (0, 32), "u1", maxshape=(None, 32), chunks=(CHUNK_KEYS, 32))
            group.create_dataset("crc32", (0,), "<u4", maxshape=(None,), chunks=(CHUNK_KEYS,))
            group.create_dataset("n_rows", data=np.uint64(0))
        self._n_rows = 0

    def fresh(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the keys that have no row yet; of equal keys the first."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        known = self.known
        return sorted(i for key, i in first.items() if key not in known)

    def append(self, rows: Stored, keys: Sequence[str]) -> None:
        """Add rows under keys that have none; they wait in memory until `write`."""
        start, known = self.n_rows, self.known
        digests = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, KEY_BYTES)
        known.append(digests)
        self._n_rows = start + len(rows)
        self._waiting.append((rows, digests))

    @property
    def is_waiting(self) -> bool:
        """Whether something was appended since the last `write`."""
        return bool(self._waiting)

    def write(self) -> None:
        """Hand HDF5 what waits, in one piece: a call costs it as much as ten rows."""
        if not self._waiting:
            return
        rows, digests = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        stop = self.n_rows
        start = stop - len(rows)
        checksums = [self.checksum(row, key) for row, key in zip(rows, digests, strict=True)]
        with self._guard():
            group = self._layers[self.layer]
            for name, values in zip(_COLUMNS, (rows, digests, checksums), strict=True):
                if stop > group[name].shape[0]:
                    group[name].resize(stop, axis=0)
                group[name][start:stop] = values
            group["n_rows"][()] = stop
        self._waiting = []

    def checksum(self, row: Stored, key: npt.NDArray[np.uint8]) -> int:
        """Return the CRC-32 of the key and the row; in version 1, of the row alone."""
        return zlib.crc32(row.data, 0 if self._version == 1 else zlib.crc32(key.data))

    def read(self, keys: Sequence[str]) -> Rows:
        """Return the rows of `keys` in their order, float32 of shape (len(keys), width); each key must be known."""
        numbers = self.known.numbers(keys)
        if (numbers < 0).any():
            raise KeyError(keys[int(np.argmin(numbers))])
        return self.numbered(numbers)

    def numbered(self, numbers: npt.NDArray[np.int64]) -> Rows:
        """Return the rows of these numbers in their order, float32 of shape (len(numbers), width)."""
        order = np.argsort(numbers, kind="stable")
        with self._guard():
            dataset = self._layers[self.layer]["rows"]
            rows = np.empty((len(numbers), dataset.shape[1]), dtype=np.float32)
            n_block = min(max(_BLOCK_BYTES // (dataset.shape[1] * dataset.dtype.itemsize), 1), 4096)
            blocks = numbers[order] // n_block
            for chosen in np.split(order, np.flatnonzero(np.diff(blocks)) + 1):  # no second copy of all rows
                if len(chosen):
                    first, last = numbers[chosen[0]], numbers[chosen[-1]]
                    rows[chosen] = dataset[first : last + 1][numbers[chosen] - first]
        return rows

    def read_sound(self, keys: Sequence[str]) -> tuple[Stored, npt.NDArray[np.bool_]]:
        """Return the rows of `keys` as they are stored, and whether each is as it was written."""
        with self._guard():
            row_type = self._layers[self.layer]["rows"].dtype
        rows = np.ascontiguousarray(self.read(keys), dtype=row_type)
        digests, checksums = self.keys_and_checksums(0, self.n_rows)
        numbers = self.known.numbers(keys)
        fits = [self.checksum(row, digests[n]) == checksums[n] for row, n in zip(rows, numbers, strict=True)]
        return rows, np.array(fits, dtype=np.bool_) & np.isfinite(rows).all(axis=1)

    def stored(self, start: int, stop: int) -> Stored:
        """Return the rows from number `start` to `stop` as they are stored."""
        with self._guard():
            found: Stored = self._layers[self.layer]["rows"][start:stop]
            return found

    def keys_and_checksums(self, start: int, stop: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
        """Return the keys, (n, 32), and the checksums, (n,), of rows from number `start` to `stop`."""
        with self._guard():
            group = self._layers[self.layer]
            return group["keys"][start:stop], group["crc32"][start:stop]

    def keys(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Return the keys of rows from number `start` to `stop`, of all by default, (n, 32)."""
        stop = self.n_rows if stop is None else stop
        with self._guard():
            return np.ascontiguousarray(self._layers[self.layer]["keys"][start:stop])

    def drop(self, numbers: Sequence[int]) -> None:
        """Remove rows, and whatever lies beyond the recorded number; the last rows move to where they were.

        Parameters
        ----------
        numbers : sequence of int
            In order.
        """
        dropped, n = set(numbers), self.n_rows
        n_kept = n - len(numbers)
        last_kept = (number for number in range(n - 1, -1, -1) if number not in dropped)
        with self._guard():
            group = self._layers[self.layer]
            _empty_unreadable_chunks(group["rows"], numbers)
            for hole in (number for number in numbers if number < n_kept):
                moved = next(last_kept)
                for name in _COLUMNS:
                    group[name][hole] = group[name][moved]
            for name in _COLUMNS:
                group[name].resize(n_kept, axis=0)
            group["n_rows"][()] = n_kept
        self._n_rows, self._known = n_kept, None


def digest_of(keys: npt.NDArray[np.uint8]) -> str:
    """Return the sha256 of keys, (n, 32), as 64 hexadecimal digits."""
    return hashlib.sha256(keys.data).hexdigest()


def complete_chunks(layers: h5py.Group) -> list[tuple[int, int]]:
    """Return where rows that fill their chunk lie in the file, start and end: nothing that is appended changes them."""
    found: list[tuple[int, int]] = []
    for layer in layers:
        rows, n_rows = layers[layer]["rows"], int(layers[layer]["n_rows"][()])

        def note(chunk: Any, last: int = n_rows - rows.chunks[0]) -> None:
            if chunk.chunk_offset[0] <= last:
                found.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

        rows.id.chunk_iter(note)
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _empty_unreadable_chunks(rows: h5py.Dataset, numbers: Sequence[int]) -> None:
    """A compressed chunk that cannot be read cannot be changed, only replaced."""
    if not rows.compression:
        return
    for start in sorted({number - number % rows.chunks[0] for number in numbers}):
        try:
            _ = rows[start]
        except OSError:
            zeros = zlib.compress(bytes(rows.dtype.itemsize * int(np.prod(rows.chunks))))
            rows.id.write_direct_chunk((start, 0), zeros)
