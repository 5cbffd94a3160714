"""What kinds of heads share: the problem, a setting, what a search on held-out images found, and a fitted head.

A family is one kind of head before it is fitted, a `FittedHead` is one afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from tlfeat.evaluate.calibration import best_temperature, log_loss, softmax
from tlfeat.heads.blocks import MAPPINGS, View, blocks_of, in_threads
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource


class FittedHead:
    """The base of every fitted head: plain arrays that give scores, probabilities and classes for new rows.

    Attributes
    ----------
    mapping : str
        What is done to each row first: one of `blocks.MAPPINGS`.
    classes_ : int array of shape (n_classes,)
    n_features_in_ : int
        Columns of the rows that it takes.
    temperature : float
        Scores are divided by it before the softmax.
    """

    def __init__(self, mapping: str, n_classes: int, width: int) -> None:
        self.mapping = mapping
        self.classes_: Labels = np.arange(n_classes)
        self.n_features_in_ = width
        self.temperature = 1.0

    def check(self) -> None:
        """Raise ValueError unless the parts, which may come from a stranger's file, fit together."""
        for name, shape in {"classes_": (len(self.classes_),), **self._shapes()}.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} is not an array of {shape} finite numbers")
        numbers = [getattr(self, name) for name in ("temperature", "k", "sharpness", "gamma") if hasattr(self, name)]
        if self.mapping not in MAPPINGS or not all(isinstance(n, int | float) and n > 0 for n in numbers):
            raise ValueError("a mapping or a number that no head has")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays and the shapes that they must have."""
        raise NotImplementedError

    def scores(self, rows: RowSource) -> Floats:
        """Return scores of shape (n_images, n_classes); the largest is the class."""
        blocks = blocks_of(rows.shape[0])
        if not blocks:
            return np.empty((0, len(self.classes_)))
        return np.concatenate(in_threads(lambda block: self._scores(MAPPINGS[self.mapping](rows[block])), blocks))

    def _scores(self, x: Rows) -> Floats:
        raise NotImplementedError

    def predict_proba(self, rows: RowSource) -> Floats:
        """Return probabilities of shape (n_images, n_classes)."""
        return softmax(self.scores(rows), self.temperature)

    def predict(self, rows: RowSource) -> Labels:
        """Return the most probable class of each image."""
        best: Labels = self.scores(rows).argmax(axis=1)
        return best


def class_scores(z: Floats | Rows) -> Floats:
    """Return one score a class; the single column of two classes becomes -z/2 and z/2, whose softmax is the sigmoid."""
    return np.asarray(np.concatenate([-z / 2, z / 2], axis=1) if z.shape[1] == 1 else z, dtype=np.float64)


Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowChoice:
    """One preprocessing of the rows: what is done to each row, then to the columns.

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


#: Images at most for the coarse comparison of preprocessings.
COARSE_ROWS = 10_000

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
    """The training images.

    Attributes
    ----------
    rows : RowSource of shape (n_images, width)
        Of all layers side by side.
    labels : int array of shape (n_images,)
    n_classes : int
    fold_of : int array of shape (n_images,)
        In which fold an image is held out; -1 in none.
    seed : int
    on_fit : callable
        Called by `Family.explore` when one value was fitted on one fold, from any thread.
    """

    rows: RowSource
    labels: Labels
    n_classes: int
    fold_of: Labels
    seed: int
    on_fit: Callable[[], None] = lambda: None

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
        return replace(self, rows=rows, labels=self.labels[positions], fold_of=self.fold_of[positions])


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
        """The chosen columns, each row mapped; the columns are not yet scaled."""
        return View(problem.rows, self.columns, ROW_CHOICES[self.rows].mapping)

    @property
    def scaling(self) -> str:
        return ROW_CHOICES[self.rows].scaling


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What some parameter values gave on held-out images, by cross-validation.

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


def held_out_from_scores(
    problem: Problem, values: Sequence[Values], scores: Callable[[int], Floats], criterion_weights: Rows
) -> HeldOut:
    """Compare scores, made for one value at a time, by their log loss at the temperature that suits each best."""
    held = np.flatnonzero(problem.fold_of >= 0)
    labels, weights = problem.labels[held], criterion_weights[held]
    right = np.zeros((len(values), len(problem.labels)), bool)
    losses = np.zeros(len(values))
    for i in range(len(values)):
        found = scores(i)[held]
        right[i, held] = found.argmax(axis=1) == labels
        losses[i] = log_loss(found, labels, weights, best_temperature(found, labels))
    return HeldOut(values, right, losses, scores)


class Family(Protocol):
    """One kind of head: how its parameters are tried on held-out images, and how it is fitted."""

    @property
    def row_choices(self) -> tuple[str, ...]:
        """Preprocessings to try, each one of `ROW_CHOICES`."""

    @property
    def coarse_rows(self) -> int:
        """Images to compare preprocessings on at most."""

    @property
    def max_rows(self) -> int:
        """Images to search on at most; of more, so many are drawn."""

    def grid(self, n_learned: int) -> Sequence[Values]:
        """All values that can be fitted on so many images, in the order in which they are walked."""

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        """Those by which preprocessings are compared."""

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        """Fit every one of `values` on every fold, and test it on the images held out."""

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> FittedHead:
        """Fit on all images."""
