"""What a method may know: labelled rows of one or several sources, and rows of the target without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlfeat.heads.blocks import View
from tlfeat.types import Labels, Rows, RowSource


@dataclass(frozen=True, slots=True)
class Task:
    """One adaptation.

    Attributes
    ----------
    source : RowSource of shape (n_source, width)
    labels : int array of shape (n_source,)
        Positions in `classes`.
    domains : array of str, shape (n_source,)
    target : RowSource of shape (n_adapt, width)
        Without labels.
    target_name : str
    classes : list of str
    groups : int array of shape (n_source,)
        Images with the same number stay in one fold.
    seed : int
    is_signed : bool
        Whether any row has a negative value.
    """

    source: RowSource
    labels: Labels
    domains: npt.NDArray[np.str_]
    target: RowSource
    target_name: str
    classes: list[str]
    groups: Labels
    seed: int = 0
    is_signed: bool = False

    @property
    def mapping(self) -> str:
        """What is done to each row before its domain is looked at, one of `blocks.MAPPINGS`."""
        return "signed root-l2" if self.is_signed else "root-l2"

    @property
    def all_domains(self) -> npt.NDArray[np.str_]:
        """Of the source's rows, then of the target's."""
        return np.concatenate([self.domains, np.repeat(self.target_name, self.target.shape[0])])

    def mapped_by_row(self, rows: RowSource) -> View:
        """Return rows as the maps of domains take them."""
        return View(rows, (0, rows.shape[1]), self.mapping)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Rows of two sources, one above the other, read a block at a time."""

    above: RowSource
    below: RowSource

    @property
    def shape(self) -> tuple[int, int]:
        return self.above.shape[0] + self.below.shape[0], self.above.shape[1]

    def __getitem__(self, block: slice, /) -> Rows:
        start, stop, _ = block.indices(self.shape[0])
        n = self.above.shape[0]
        parts = []
        if start < n:
            parts.append(self.above[start : min(stop, n)])
        if stop > n:
            parts.append(self.below[max(start, n) - n : stop - n])
        return np.concatenate(parts) if len(parts) != 1 else parts[0]
