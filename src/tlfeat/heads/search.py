"""Which preprocessing, which parameters: every head tries its settings on held-out images and keeps the best.

A setting is a preprocessing of the rows (`ROW_CHOICES`, and which layers), a weighting of the classes and the head's
own parameters. All folds and values of one preprocessing share passes, decompositions or neighbours (`Family.explore`).
Preprocessings are compared on a coarse grid first, on at most `Family.coarse_rows` images; only the best gets the
whole grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from threading import Lock
from typing import Any

import numpy as np

from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.family import ROW_CHOICES, Family, HeldOut, Problem, Setting, Values
from tlfeat.types import Floats, Labels, Rows

#: Losses below this are equal: where classes lie far apart the loss would choose no penalty at all.
_AS_GOOD_AS_NONE = 0.01


@dataclass(frozen=True, slots=True)
class SearchResult:
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
    entries: list[tuple[Setting, HeldOut, int]] = field(default_factory=list)

    def add(self, setting: Setting, held_out: HeldOut) -> None:
        for i, values in enumerate(held_out.values):
            if np.isfinite(held_out.loss[i]):  # else some fold did not get so far
                at = Setting(setting.rows, setting.columns, setting.is_balanced, values)
                self.entries.append((at, held_out, i))

    def best(self) -> tuple[int, float]:
        """Return the entry of the lowest loss among those that the best accuracy cannot be told from.

        Accuracy on a thousand images moves by tenths of points for no reason, the loss much less. So the accuracy
        decides what is worse by more than one standard error of the paired difference, and the loss among the rest (the
        one-standard-error rule of Breiman et al. 1984, section 3.4.3, on paired differences).
        """
        rights = [held_out.right[i] for _, held_out, i in self.entries]
        weights = self.weights.astype(np.float64) / self.weights.sum(dtype=np.float64)
        criterion = np.array([weights[right].sum() for right in rights])
        top = rights[int(criterion.argmax())]
        # the variance of a weighted mean of paired differences of 0 and 1
        errors = np.array([np.sqrt((weights[top ^ right] ** 2).sum()) for right in rights])
        losses = np.maximum([held_out.loss[i] for _, held_out, i in self.entries], _AS_GOOD_AS_NONE)
        near = criterion >= criterion.max() - errors
        best = int(np.where(near, losses, np.inf).argmin())
        return best, float(criterion[best])


class _Steps:
    """Counts fits on folds, from any thread."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total = on_progress, total
        self._done = 0
        self._lock = Lock()

    def __call__(self) -> None:
        with self._lock:
            self._done = min(self._done + 1, self._total)
            self._on_progress(self._done, self._total)

    def to(self, done: int) -> None:
        """Count what did not have to be fitted."""
        self._done = done - 1
        self()


def search(
    problem: Problem,
    family: Family,
    layers: Sequence[tuple[int, int]],
    weightings: Sequence[bool],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SearchResult:
    """Choose the setting of a head on images held out.

    Parameters
    ----------
    problem : Problem
        With at least one fold.
    family : Family
    layers : sequence of (int, int)
        Columns that may be taken.
    weightings : sequence of bool
        Whether every class may count the same.
    on_progress : callable, optional
        Told fits that are done, and all of them.
    """
    some, _ = _drawn(problem, min(family.coarse_rows, family.max_rows))
    grid = family.grid(_n_learned(some))
    preprocessings = [
        Setting(rows, columns, is_balanced, {})
        for columns, rows, is_balanced in product(layers, family.row_choices, weightings)
        # a rotation of many columns takes their number cubed
        if ROW_CHOICES[rows].scaling != "whiten" or columns[1] - columns[0] <= MAX_COVARIANCE
    ]
    coarse_grid = family.coarse(grid)
    n_coarse = len(preprocessings) * len(coarse_grid) if len(preprocessings) > 1 else 0
    steps = _Steps(on_progress, (n_coarse + len(grid)) * problem.n_folds)
    some, problem = replace(some, on_fit=steps), replace(problem, on_fit=steps)
    best, n_settings = preprocessings[0], 0
    if n_coarse:
        coarse = _Trials(_held_weights(some))
        for number, setting in enumerate(preprocessings, start=1):
            coarse.add(setting, family.explore(some, setting, coarse_grid, coarse.weights))
            steps.to(number * len(coarse_grid) * problem.n_folds)
        n_settings = len(coarse.entries)
        best = coarse.entries[coarse.best()[0]][0]
    found = hold_out(problem, family, best, grid, n_settings)
    steps.to((n_coarse + len(grid)) * problem.n_folds)
    return found


def hold_out(
    problem: Problem, family: Family, setting: Setting, values: Sequence[Values], n_before: int = 0
) -> SearchResult:
    """Choose among values for one preprocessing; with one value, only its held-out scores are new.

    Parameters
    ----------
    setting : Setting
        Its own values are not looked at.
    n_before : int, default=0
        Settings tried before, for `SearchResult.n_settings`.
    """
    part, positions = _drawn(problem, family.max_rows)
    trials = _Trials(_held_weights(part))
    trials.add(setting, family.explore(part, setting, values, trials.weights))
    best, criterion = trials.best()
    chosen, held_out, i = trials.entries[best]
    scores = np.full((len(problem.labels), problem.n_classes), np.nan)
    scores[positions] = held_out.scores(i)
    return SearchResult(chosen, criterion, scores, held_out.start(i), n_before + len(trials.entries))


def _drawn(problem: Problem, n: int) -> tuple[Problem, Labels]:
    """The problem of at most `n` images, and their positions."""
    positions = problem.subset(n)
    return problem if len(positions) == len(problem.labels) else problem.part(positions), positions


def _held_weights(problem: Problem) -> Rows:
    weights = problem.weights(problem.is_uneven).copy()
    weights[problem.fold_of < 0] = 0
    return weights


def _n_learned(problem: Problem) -> int:
    """Training images that are left when the largest fold is held out."""
    return len(problem.labels) - int(np.bincount(problem.fold_of[problem.fold_of >= 0]).max())
