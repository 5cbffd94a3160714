"""Which rows, which parameters: every head tries its settings on images held out and keeps what holds.

A setting is a way of taking the rows (`ROW_CHOICES`, and which layers), a weighting of the classes and the head's own
parameters. All folds and settings of one way share passes, decompositions or neighbours (`Family.explore`); ways are
compared on a coarse grid first, on at most `COARSE_ROWS` images, and only the best one gets the whole grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

import numpy as np

from tlfeat.blocks import View
from tlfeat.linear import MAX_COVARIANCE
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource

Values = Mapping[str, Any]

#: Losses below this are equal: where classes lie far apart the loss would choose no penalty at all.
_AS_GOOD_AS_NONE = 0.01

#: Images at most for the coarse comparison of ways to take the rows.
COARSE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class RowChoice:
    """One way of taking the rows: what is done to each row, then to the columns.

    Attributes
    ----------
    mapping : str
        One of `blocks.MAPPINGS`.
    scaling : str
        Columns are centred and brought to deviation 1: ``each``, in ``common``, or ``whiten`` (rotated to principal
        components of equal deviation, shrunk by their mean variance).
    """

    mapping: str
    scaling: str


ROW_CHOICES: dict[str, RowChoice] = {
    "standardised": RowChoice("raw", "each"),
    "raw": RowChoice("raw", "common"),
    "l2": RowChoice("l2", "common"),
    "root": RowChoice("root", "common"),
    "root-l2": RowChoice("root-l2", "common"),
    "whitened": RowChoice("raw", "whiten"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What there is to learn from.

    Attributes
    ----------
    rows : RowSource of shape (n_images, width)
        Of all layers side by side.
    labels : int array of shape (n_images,)
    n_classes : int
    fold_of : int array of shape (n_images,)
        In which fold an image is held out; -1 in none.
    seed : int
    """

    rows: RowSource
    labels: Labels
    n_classes: int
    fold_of: Labels
    seed: int

    @property
    def n_folds(self) -> int:
        return int(self.fold_of.max(initial=-1)) + 1

    @property
    def class_weights(self) -> Rows:
        """One weight an image, by which every class counts the same and the mean is 1."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return (len(self.labels) / (self.n_classes * counts))[self.labels].astype(np.float32)

    @property
    def is_uneven(self) -> bool:
        """Whether the largest class is more than 1.5 times the smallest."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return bool(counts.max() > 1.5 * counts.min())

    def weights(self, balance: bool) -> Rows:
        """What each image counts in a fit."""
        return self.class_weights if balance else np.ones(len(self.labels), np.float32)

    def subset(self, n: int) -> Labels:
        """Positions of `n` images with every class and fold in proportion; all of them where there are no more."""
        if n >= len(self.labels):
            return np.arange(len(self.labels))
        kind = self.labels * (self.n_folds + 1) + self.fold_of + 1
        drawn = np.random.default_rng(self.seed).permutation(len(kind))
        drawn = drawn[np.argsort(kind[drawn], kind="stable")]
        return np.sort(drawn[np.linspace(0, len(kind), n, endpoint=False).astype(np.int64)])

    def part(self, positions: Labels) -> Problem:
        """The problem of some of the images."""
        rows = View(self.rows, (0, self.rows.shape[1])).take(positions).rows
        return Problem(rows, self.labels[positions], self.n_classes, self.fold_of[positions], self.seed)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a head is fitted.

    Attributes
    ----------
    rows : str
        One of `ROW_CHOICES`.
    columns : (int, int)
        Of the layer or layers taken.
    is_balanced : bool
        Whether every class counts the same in the fit.
    values : mapping of parameter to value
    """

    rows: str
    columns: tuple[int, int]
    is_balanced: bool
    values: Values

    def view(self, problem: Problem) -> View:
        """The rows as this setting takes them."""
        return View(problem.rows, self.columns, ROW_CHOICES[self.rows].mapping)

    @property
    def scaling(self) -> str:
        return ROW_CHOICES[self.rows].scaling


@dataclass(frozen=True, slots=True)
class Explored:
    """What some values did on images held out.

    Attributes
    ----------
    values : list of mappings
    right : bool array of shape (n_values, n_images)
    loss : array of shape (n_values,)
        Weighted mean; infinite for a value that some fold did not reach.
    scores : callable
        The number of a value to scores (n_images, n_classes), NaN for images never held out.
    start : callable
        The number of a value to what `Family.fit` may start from.
    """

    values: Sequence[Values]
    right: Bools
    loss: Floats
    scores: Callable[[int], Floats]
    start: Callable[[int], Any] = lambda _: None


class Head(Protocol):
    """A fitted head: everything `predict` needs, in plain arrays."""

    classes_: Labels
    n_features_in_: int
    temperature: float

    def scores(self, rows: RowSource) -> Floats:
        """Return scores of shape (n_images, n_classes); the largest is the class."""

    def predict_proba(self, rows: RowSource) -> Floats:
        """Return probabilities of shape (n_images, n_classes)."""

    def predict(self, rows: RowSource) -> Labels:
        """Return the most probable class of each image."""


class Family(Protocol):
    """How heads of one kind are explored and fitted."""

    @property
    def row_choices(self) -> tuple[str, ...]:
        """Ways of taking the rows, each one of `ROW_CHOICES`."""

    @property
    def max_rows(self) -> int:
        """Images to explore on at most; of more, so many are drawn."""

    def grid(self, n_learned: int) -> Sequence[Values]:
        """All values that can be fitted on so many images, in the order in which they are walked."""

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        """Those by which ways of taking the rows are compared."""

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
        """Try `values` on every fold."""

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Head:
        """Fit on all images."""


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
