"""Front coding: of each text what it does not share with the one before, as dictionaries and file lists are stored."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

#: Every so many texts are whole: so many pieces are put together at most to read one.
WHOLE_EVERY = 16

#: Bytes that are packed at once, of texts as wide as the widest.
_PACK_BYTES = 4 << 20

Coded = tuple[bytes, npt.NDArray[Any], npt.NDArray[Any]]


def front_coded(encoded: list[bytes]) -> Coded:
    """Return the ends of texts in one, how many bytes each shares with the one before, and how long each end is."""
    width = max(max(map(len, encoded)), 1)
    step = max(_PACK_BYTES // width // WHOLE_EVERY * WHOLE_EVERY, WHOLE_EVERY)
    parts = [_some(encoded[start : start + step]) for start in range(0, len(encoded), step)]
    shared, lengths = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    return b"".join(part[0] for part in parts), shared, lengths


def _some(encoded: list[bytes]) -> Coded:
    n_bytes = np.array([len(each) for each in encoded])
    width = max(int(n_bytes.max()), 1)
    letters = np.array(encoded, f"S{width}").view(np.uint8).reshape(-1, width)  # (n, width)
    differs = letters[1:] != letters[:-1]
    shared = np.zeros(len(encoded), np.int64)
    shared[1:] = np.where(differs.any(axis=1), differs.argmax(axis=1), width)
    shared[1:] = np.minimum(shared[1:], np.minimum(n_bytes[1:], n_bytes[:-1]))
    shared[::WHOLE_EVERY] = 0
    columns = np.arange(width)
    is_kept = (columns >= shared[:, None]) & (columns < n_bytes[:, None])
    return letters[is_kept].tobytes(), shared, n_bytes - shared


def narrow(values: npt.NDArray[Any]) -> Any:
    """Return whole numbers in the least memory, each quickly read as an int."""
    for kind, dtype, most in (("B", np.uint8, 0xFF), ("H", np.uint16, 0xFFFF), ("I", np.uint32, 0xFFFFFFFF)):
        if not len(values) or values.max() <= most:
            data = values.astype(dtype).tobytes()
            return data if kind == "B" else array(kind, data)
    raise ValueError("a block of more than 4 GB of text")


def wide(narrow: bytes | array[int]) -> npt.NDArray[np.int64]:
    """Return what `narrow` was given."""
    dtype = np.uint8 if isinstance(narrow, bytes) else narrow.typecode
    return np.frombuffer(narrow, dtype).astype(np.int64)
