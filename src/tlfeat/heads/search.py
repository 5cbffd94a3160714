"""Which rows, which parameters: every head tries its settings on images held out and keeps what holds.

A setting is a way of taking the rows (`ROW_CHOICES`, and which layers), a weighting of the classes and the head's own
parameters. All folds and settings of one way share passes, decompositions or neighbours (`Family.explore`); ways are
compared on a coarse grid first, on at most `COARSE_ROWS` images, and only the best one gets the whole grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.family import ROW_CHOICES, Explored, Family, Problem, Setting, Values
from tlfeat.types import Floats, Labels, Rows

#: Losses below this are equal: where classes lie far apart the loss would choose no penalty at all.
_AS_GOOD_AS_NONE = 0.01

#: Images at most for the coarse comparison of ways to take the rows.
COARSE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a search chose.

    Attributes
    ----------
    setting : Setting
    criterion : float
        Accuracy, balanced where classes are uneven, over the images held out, under the chosen setting.
    scores : array of shape (n_images, n_classes)
        Held-out scores; NaN where an image was in no fold or not drawn.
    start : object
    n_settings : int
        Tried in all.
    """

    setting: Setting
    criterion: float
    scores: Floats
    start: Any
    n_settings: int


@dataclass(slots=True)
class _Trials:
    """Settings side by side on the same held-out images."""

    weights: Rows
    entries: list[tuple[Setting, Explored, int]] = field(default_factory=list)

    def add(self, setting: Setting, explored: Explored) -> None:
        for i, values in enumerate(explored.values):
            if np.isfinite(explored.loss[i]):  # else some fold did not get so far
                at = Setting(setting.rows, setting.columns, setting.is_balanced, values)
                self.entries.append((at, explored, i))

    def best(self) -> tuple[int, float]:
        """Return the entry of the lowest loss among those that the best accuracy cannot be told from.

        Accuracy on a thousand images moves by tenths of points for no reason, the loss much less. So the accuracy
        decides what is worse by more than one standard error of the paired difference, and the loss among the rest (the
        one-standard-error rule of Breiman et al. 1984, section 3.4.3, on paired differences).
        """
        rights = [explored.right[i] for _, explored, i in self.entries]
        weights = self.weights.astype(np.float64) / self.weights.sum(dtype=np.float64)
        criterion = np.array([weights[right].sum() for right in rights])
        top = rights[int(criterion.argmax())]
        # the variance of a weighted mean of paired differences of 0 and 1
        errors = np.array([np.sqrt((weights[top ^ right] ** 2).sum()) for right in rights])
        losses = np.maximum([explored.loss[i] for _, explored, i in self.entries], _AS_GOOD_AS_NONE)
        near = criterion >= criterion.max() - errors
        best = int(np.where(near, losses, np.inf).argmin())
        return best, float(criterion[best])


def search(problem: Problem, family: Family, layers: Sequence[tuple[int, int]]) -> Found:
    """Choose the setting of a head on images held out.

    Parameters
    ----------
    problem : Problem
        With at least one fold.
    family : Family
    layers : sequence of (int, int)
        Columns that may be taken.
    """
    some, _ = _drawn(problem, min(COARSE_ROWS, family.max_rows))
    grid = family.grid(_n_learned(some))
    ways = [
        Setting(rows, columns, is_balanced, {})
        for columns, rows, is_balanced in product(
            layers, family.row_choices, (False, True) if problem.is_uneven else (False,)
        )
        # a rotation of many columns takes their number cubed
        if ROW_CHOICES[rows].scaling != "whiten" or columns[1] - columns[0] <= MAX_COVARIANCE
    ]
    n_settings = 0
    if len(ways) > 1:
        coarse = _Trials(_held_weights(some))
        for way in ways:
            coarse.add(way, family.explore(some, way, family.coarse(grid), coarse.weights))
        n_settings = len(coarse.entries)
        chosen = coarse.entries[coarse.best()[0]][0]
        ways = [Setting(chosen.rows, chosen.columns, chosen.is_balanced, {})]
    return hold_out(problem, family, ways[0], grid, n_settings)


def hold_out(problem: Problem, family: Family, setting: Setting, values: Sequence[Values], n_before: int = 0) -> Found:
    """Choose among values for one way of taking the rows; with one value, only its held-out scores are new."""
    part, positions = _drawn(problem, family.max_rows)
    trials = _Trials(_held_weights(part))
    trials.add(setting, family.explore(part, setting, values, trials.weights))
    best, criterion = trials.best()
    chosen, explored, i = trials.entries[best]
    scores = np.full((len(problem.labels), problem.n_classes), np.nan)
    scores[positions] = explored.scores(i)
    return Found(chosen, criterion, scores, explored.start(i), n_before + len(trials.entries))


def _drawn(problem: Problem, n: int) -> tuple[Problem, Labels]:
    """The problem of at most `n` images, and their positions."""
    positions = problem.subset(n)
    return problem if len(positions) == len(problem.labels) else problem.part(positions), positions


def _held_weights(problem: Problem) -> Rows:
    weights = problem.weights(problem.is_uneven).copy()
    weights[problem.fold_of < 0] = 0
    return weights


def _n_learned(problem: Problem) -> int:
    """Images that are left to learn from when the largest fold is held out."""
    return len(problem.labels) - int(np.bincount(problem.fold_of[problem.fold_of >= 0]).max())
