"""What kinds of heads share: what a fitted head is, the columns of each fold, how held-out scores are judged.

A fitted head is plain arrays; it does to new rows what its setting says and gives scores and probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tlfeat.blocks import MAPPINGS, View, blocks_of, in_threads
from tlfeat.evaluate.calibration import best_temperature, log_loss, softmax
from tlfeat.linear import Columns, columns_of, covariance, sums_by_group
from tlfeat.search import Explored, Problem, Values
from tlfeat.types import Floats, Labels, Rows, RowSource


class PlainHead:
    """What every fitted head has."""

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


def two_sided(z: Floats | Rows) -> Floats:
    """One score for two classes becomes one each, whose softmax is the sigmoid."""
    return np.asarray(np.concatenate([-z / 2, z / 2], axis=1) if z.shape[1] == 1 else z, dtype=np.float64)


def columns_by_fold(view: View, fold_of: Labels, n_folds: int, scaling: str) -> tuple[list[Columns], Columns]:
    """Return the map of the columns that each fold's fit may know, and that of all images.

    A rotation is computed from all of them: it knows no label, but the rows of images held out.
    """
    origin, n, sums, squares = sums_by_group(view, np.where(fold_of < 0, n_folds, fold_of), n_folds + 1)
    kind = "each" if scaling == "each" else "common"
    of_all = columns_of(origin, n.sum(), sums.sum(axis=0), squares.sum(axis=0), kind)
    if scaling == "whiten":
        values, vectors = np.linalg.eigh(covariance(view, of_all))
        of_all = Columns(
            of_all.shift, of_all.scale, vectors / np.sqrt(np.maximum(values, 0) + max(values.mean(), 1e-6))
        )
        return [of_all] * n_folds, of_all
    folds = [
        columns_of(origin, n.sum() - n[f], sums.sum(axis=0) - sums[f], squares.sum(axis=0) - squares[f], kind)
        for f in range(n_folds)
    ]
    return folds, of_all


def judged(
    problem: Problem, values: Sequence[Values], scores: Callable[[int], Floats], criterion_weights: Rows
) -> Explored:
    """Judge held-out scores, made for one value at a time, by their log loss at their best temperature."""
    held = np.flatnonzero(problem.fold_of >= 0)
    labels, weights = problem.labels[held], criterion_weights[held]
    right = np.zeros((len(values), len(problem.labels)), bool)
    losses = np.zeros(len(values))
    for i in range(len(values)):
        found = scores(i)[held]
        right[i, held] = found.argmax(axis=1) == labels
        losses[i] = log_loss(found, labels, weights, best_temperature(found, labels))
    return Explored(values, right, losses, scores)
