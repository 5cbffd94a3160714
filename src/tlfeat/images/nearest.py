"""The nearest images by cosine similarity of their rows; the same answer with any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlfeat.images.decode import n_cores
from tlfeat.types import Rows

#: Of 1,800 changed copies in three data sets the original was among the five nearest for 99.4 %.
N_NEIGHBOURS = 5

#: Multiply-adds for which every image is compared with every other; beyond that only within cells.
_MAX_MULTIPLY_ADDS = 2 * 10**12

#: Cells that are searched for each image where not all are: of 191 leaks in cifar10, 8 find 172 and 4 find 149.
_N_PROBES = 8

_BLOCK = 1024

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest images by rows.

    Attributes
    ----------
    positions : int array of shape (n_asking, N_NEIGHBOURS)
        Nearest first; -1 where there are fewer.
    cosines : float32 array of the same shape
        Of the rows.
    is_whole : bool
        Whether all were compared with all.
    """

    positions: Positions
    cosines: Rows
    is_whole: bool


def nearest_images(rows: Rows, asking: Positions, answering: Positions, *, is_centred: bool = True) -> Nearest:
    """Find the `N_NEIGHBOURS` nearest of `answering` for each of `asking`, itself left out.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width)
        Used up: centred and scaled in place.
    asking, answering : int arrays
        Positions in `rows`.
    is_centred : bool, default=True
        Take away the mean of all rows first: it hides what two images share.
    """
    if is_centred:
        rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # norm() would square them all into a second array
    rows /= np.maximum(lengths, np.float32(1e-12))[:, None]
    n_multiply_adds = len(asking) * len(answering) * rows.shape[1]
    is_whole = n_multiply_adds <= _MAX_MULTIPLY_ADDS
    from threadpoolctl import threadpool_limits

    # one BLAS thread for each block: the bits of a product depend on how many threads share it
    with threadpool_limits(limits=1), ThreadPoolExecutor(n_cores()) as pool:
        if is_whole:
            positions, cosines = _nearest(rows, asking, answering, N_NEIGHBOURS, pool)
        else:
            positions, cosines = _nearest_in_cells(rows, asking, answering, pool)
    return Nearest(positions, cosines, is_whole)


def _nearest(
    rows: Rows, asking: Positions, answering: Positions, k: int, pool: ThreadPoolExecutor
) -> tuple[Positions, Rows]:
    """Return the `k` nearest of `answering` for each of `asking`, and their cosines; -1 where there are fewer."""

    def nearest_of_block(start: int) -> tuple[Positions, Rows]:
        block = asking[start : start + _BLOCK]
        best = np.full((len(block), k), -1, np.int64)
        cosines = np.full((len(block), k), -2, np.float32)
        for at in range(0, len(answering), 8 * _BLOCK):
            others = answering[at : at + 8 * _BLOCK]
            products = rows[block] @ rows[others].T  # (block, others)
            products[block[:, None] == others] = -2  # itself
            m = min(k, len(others))
            top = np.argpartition(-products, m - 1, axis=1)[:, :m]
            cosines = np.hstack([cosines, np.take_along_axis(products, top, axis=1)])
            best = np.hstack([best, others[top]])
            order = np.lexsort((best, -cosines))[:, :k]
            best, cosines = np.take_along_axis(best, order, axis=1), np.take_along_axis(cosines, order, axis=1)
        best[cosines <= -2] = -1
        return best, cosines

    blocks = list(pool.map(nearest_of_block, range(0, len(asking), _BLOCK)))
    return np.concatenate([b for b, _ in blocks]), np.concatenate([c for _, c in blocks])


def _nearest_in_cells(
    rows: Rows, asking: Positions, answering: Positions, pool: ThreadPoolExecutor
) -> tuple[Positions, Rows]:
    """Do as `_nearest`, but look only in the cells around some images (Sivic and Zisserman 2003; inverted file).

    Every image lies in the cell of its nearest centre and asks in the cells of its `_N_PROBES` nearest. Centres are
    images in even steps: their order by content key is as good as drawn by chance, and always the same.
    """
    n_cells = int(np.sqrt(len(answering)))
    centres = answering[:: len(answering) // n_cells]
    cell_of = np.full(len(rows), -1, np.int64)
    cell_of[answering] = _nearest(rows, answering, centres, 1, pool)[0][:, 0]
    cell_of[centres] = centres
    probes = np.full((len(rows), _N_PROBES + 1), -1, np.int64)
    probes[asking, :_N_PROBES] = _nearest(rows, asking, centres, _N_PROBES, pool)[0]
    probes[centres, _N_PROBES] = centres
    inside = {int(cell): answering[cell_of[answering] == cell] for cell in centres}
    best = np.full((len(rows), N_NEIGHBOURS), -1, np.int64)
    cosines = np.full((len(rows), N_NEIGHBOURS), -2, np.float32)
    askers_by_cell: dict[int, list[int]] = {}
    for i in asking.tolist():
        for cell in probes[i].tolist():
            askers_by_cell.setdefault(cell, []).append(i)
    for cell, others in inside.items():
        askers = np.array(sorted(set(askers_by_cell.get(cell, []))), np.int64)
        if len(askers) and len(others):
            found, near = _nearest(rows, askers, others, N_NEIGHBOURS, pool)
            both, all_cosines = np.hstack([best[askers], found]), np.hstack([cosines[askers], near])
            order = np.lexsort((both, -all_cosines))[:, :N_NEIGHBOURS]
            best[askers] = np.take_along_axis(both, order, axis=1)
            cosines[askers] = np.take_along_axis(all_cosines, order, axis=1)
    return best[asking], cosines[asking]
