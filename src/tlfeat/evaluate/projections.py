"""Rows larger than memory in few columns: neighbours by cosine stay neighbours in most cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlfeat.cache.contents import StoredRows, in_file_order
from tlfeat.cache.reader import Cache
from tlfeat.types import OnProgress, Rows, silent

#: Of the neighbours with a cosine of 0.8 or more, where changed copies are, all of 158 in three sets were among the
#: five nearest by 256 columns (156 by 128); of all nearest ones 83 to 92 % (benchmarks/scale.py).
N_COLUMNS = 256

#: Rows that are read at a time.
_BLOCK = 1024


def projected_rows(cache: Cache, layer: str, keys: Sequence[str], *, on_progress: OnProgress = silent) -> Rows:
    """Return the rows of one layer times a random matrix, the same one always (Johnson and Lindenstrauss 1984).

    Parameters
    ----------
    cache : Cache
        Its rows are read once, in the order of the file.
    layer : str
    keys : sequence of str

    Returns
    -------
    float32 array of shape (len(keys), N_COLUMNS)
        In the order of `keys`.
    """
    width = cache.layers[layer][1]
    matrix = np.random.default_rng(0).standard_normal((width, N_COLUMNS), dtype=np.float32)
    order = in_file_order(cache, layer, keys)
    rows = StoredRows(cache, [layer], [keys[i] for i in order])
    found: Rows = np.empty((len(keys), N_COLUMNS), np.float32)
    for start in range(0, len(keys), _BLOCK):
        on_progress("reading rows", start, len(keys))
        found[order[start : start + _BLOCK]] = rows[start : start + _BLOCK] @ matrix
    return found
