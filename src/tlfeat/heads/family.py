"""What kinds of heads share: the problem, a setting, and what a search on held-out images found.

A family is one kind of head before it is fitted; afterwards it is a pipeline of scikit-learn (``pipelines``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tlfeat.evaluate.calibration import best_temperature, log_loss
from tlfeat.heads.blocks import View
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource


def class_scores(z: Floats | Rows) -> Floats:
    """Return one score a class; the single column of two classes becomes -z/2 and z/2, whose softmax is the sigmoid."""
    return np.asarray(np.concatenate([-z / 2, z / 2], axis=1) if z.shape[1] == 1 else z, dtype=np.float64)


def against_the_rest(pairs: Floats, n_classes: int) -> Floats:
    """One score a class from those of pairs: its votes, and a little of its margins (as scikit-learn's SVC does)."""
    from sklearn.utils.multiclass import _ovr_decision_function

    if n_classes == 2:
        return class_scores(pairs)
    return np.asarray(_ovr_decision_function(pairs < 0, -pairs, n_classes), dtype=np.float64)


#: Added to probabilities and shares of votes before their logarithm, as scikit-learn's temperature scaling does.
SMALLEST_SHARE = 1e-12


def of_all_classes(scores: Floats, classes: Labels, n_classes: int) -> Floats:
    """Return scores of some classes as those of all: what was not there to learn from is never the answer."""
    found: Floats = np.full((len(scores), n_classes), scores.min() - 1)
    found[:, classes] = scores
    return found


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
        components of equal deviation; those that vary less than a column does on average are left out).
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
    is_signed : bool
        Whether any row has a negative value.
    names : sequence of str
        Of the classes; else they are called 0, 1, 2, ...
    on_fit : callable
        Called by `Family.explore` when one value was fitted on one fold, from any thread.
    image_weights : float array of shape (n_images,), optional
        What each image counts beside the weight of its class, in the fits of linear heads.
    """

    rows: RowSource
    labels: Labels
    n_classes: int
    fold_of: Labels
    seed: int
    is_signed: bool = True
    names: Sequence[str] = ()
    on_fit: Callable[[], None] = lambda: None
    image_weights: Rows | None = None

    @property
    def classes(self) -> npt.NDArray[Any]:
        """What the fitted head calls the classes, of shape (n_classes,)."""
        return np.array(self.names) if self.names else np.arange(self.n_classes)

    @property
    def n_folds(self) -> int:
        return int(self.fold_of.max(initial=-1)) + 1

    @property
    def class_weights(self) -> Floats:
        """One weight a class, by which every class counts the same and the mean over images is 1."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return np.asarray(len(self.labels) / (self.n_classes * counts))

    @property
    def is_uneven(self) -> bool:
        """Whether the largest class is more than 1.5 times the smallest."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return bool(counts.max() > 1.5 * counts.min())

    def weights(self, balance: bool) -> Rows:
        """What each image counts in a fit."""
        of_class = self.class_weights[self.labels] if balance else np.ones(len(self.labels))
        return (of_class if self.image_weights is None else of_class * self.image_weights).astype(np.float32)

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
        weights = None if self.image_weights is None else self.image_weights[positions]
        labels, fold_of = self.labels[positions], self.fold_of[positions]
        return replace(self, rows=rows, labels=labels, fold_of=fold_of, image_weights=weights)


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
        return View(problem.rows, self.columns, self.mapping(problem))

    def mapping(self, problem: Problem) -> str:
        """Name of what is done to each row, one of `blocks.MAPPINGS`."""
        mapping = ROW_CHOICES[self.rows].mapping
        return f"signed {mapping}" if problem.is_signed and mapping.startswith("root") else mapping

    def class_weights(self, problem: Problem) -> Floats | None:
        """What a class counts in the fit; None where they are taken as they are."""
        return problem.class_weights if self.is_balanced else None

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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted classifier, not yet calibrated.

    Attributes
    ----------
    steps : list of (name, transformer)
        How rows are taken: fitted transformers of scikit-learn.
    classifier : object
        A fitted classifier of scikit-learn.
    values : mapping of parameter to value
        In scikit-learn's names and units.
    notes : list of str
        What the user should know.
    """

    steps: list[tuple[str, Any]]
    classifier: Any
    values: Values
    notes: list[str] = field(default_factory=list)


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

    @property
    def weighs_classes(self) -> bool:
        """Whether classes that are uneven can count the same in a fit."""

    def grid(self, n_learned: int) -> Sequence[Values]:
        """All values that can be fitted on so many images, in the order in which they are walked."""

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        """Those by which preprocessings are compared."""

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        """Fit every one of `values` on every fold, and test it on the images held out."""

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        """Fit on all images."""
