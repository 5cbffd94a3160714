"""Rows as a head sees them, a block at a time, and sums over blocks that are the same at any number of threads.

Nothing here copies more than a block: a row is mapped when it is read. Each block is one BLAS call in one thread;
blocks are dealt out to a fixed number of lanes whose sums are added in order, so the number of threads changes the time
and not one digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.types import Rows, RowSource

#: One block of 1,280 columns takes 5 MB; a matrix product of this height runs at full speed.
BLOCK_ROWS = 1024

#: So many rows may be copied.
FEW_ROWS = 10_000

#: More lanes than cores, so that cores of unequal speed finish together; each holds sums of its own.
N_LANES = 16

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("_pool", default=None)


def _by_length(x: Rows) -> Rows:
    """Each row scaled to length 1; a row of zeros stays one."""
    lengths: Rows = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)).astype(np.float32)
    lengths[lengths == 0] = 1
    return x / lengths[:, None]


#: What may be done to each row by itself. By a root few large values no longer outweigh the many; the square root is
#: for rows without negative values, as most layers give them, the cube root for others.
MAPPINGS: dict[str, Callable[[Rows], Rows]] = {
    "raw": lambda x: x,
    "l2": _by_length,  # as for cosine similarity
    "root": np.sqrt,  # power normalisation: Perronnin, Sanchez and Mensink 2010, ECCV
    "root-l2": lambda x: _by_length(np.sqrt(x)),  # both, as there
    "signed root": np.cbrt,
    "signed root-l2": lambda x: _by_length(np.cbrt(x)),
}


@dataclass(frozen=True, slots=True)
class View:
    """Some columns of the rows, mapped row by row when a block is read.

    Attributes
    ----------
    rows : RowSource
        Of shape (n_images, width).
    columns : (int, int)
        First column and the one after the last.
    mapping : str
        One of `MAPPINGS`.
    """

    rows: RowSource
    columns: tuple[int, int]
    mapping: str = "raw"

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0], self.columns[1] - self.columns[0]

    def __getitem__(self, block: slice, /) -> Rows:
        return MAPPINGS[self.mapping](self.rows[block][:, slice(*self.columns)])

    def mapped(self) -> View:
        """The same rows, mapped once and for all where there are few: a fit reads them dozens of times."""
        if self.mapping == "raw" or self.shape[0] > FEW_ROWS:
            return self
        rows = np.concatenate([self[block] for block in blocks_of(self.shape[0])])
        return View(rows, (0, rows.shape[1]))

    def take(self, positions: npt.NDArray[np.int64]) -> View:
        """The same view of some of the images (a copy of their rows)."""
        if isinstance(self.rows, np.ndarray):
            return View(self.rows[positions], self.columns, self.mapping)
        found = np.empty((len(positions), self.rows.shape[1]), np.float32)
        for block in blocks_of(self.rows.shape[0]):
            inside = np.flatnonzero((positions >= block.start) & (positions < block.stop))
            found[inside] = self.rows[block][positions[inside] - block.start]
        return View(found, self.columns, self.mapping)


def blocks_of(n: int) -> list[slice]:
    """Cut `n` rows into blocks of `BLOCK_ROWS`; the last one may be smaller."""
    return [slice(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS)]


@contextmanager
def steady_threads(n_threads: int | None = None) -> Iterator[None]:
    """Compute blocks in `n_threads` threads (one a core by default), each with one BLAS thread.

    BLAS's own threads change sums in the last digits with their number, and at 2,000 rows they make the same fit 2 to 4
    times slower. Inside of another one without a number, the threads are those of the other.
    """
    if n_threads is None and _pool.get() is not None:
        yield
        return
    from joblib import cpu_count
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1), ThreadPoolExecutor(n_threads or cpu_count()) as pool:
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return ``work(item)`` of each item, in order; in the threads of `steady_threads` where there are any."""
    pool = _pool.get()
    if pool is None or len(items) < 2:
        return [work(item) for item in items]
    return list(pool.map(work, items))


def add_up(n: int, work: Callable[[list[slice]], list[Any]], n_lanes: int = N_LANES) -> list[Any]:
    """Sum what `work` returns for the blocks of `n` rows.

    Parameters
    ----------
    n : int
    work : callable
        Takes the blocks of one lane and returns a list of arrays, its own sums over them. They are added in place.
    n_lanes : int, default=16
        Fewer where the sums are large.
    """
    blocks = blocks_of(n)
    first, *others = in_threads(work, [blocks[lane::n_lanes] for lane in range(min(n_lanes, len(blocks)))])
    for sums in others:
        for total, part in zip(first, sums, strict=True):
            total += part
    return list(first)
