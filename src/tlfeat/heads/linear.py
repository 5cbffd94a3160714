"""Linear heads: logistic regression, linear SVM and ridge along their penalties, and discriminant analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import View, blocks_of, in_threads
from tlfeat.heads.columns import MAX_COVARIANCE, columns_by_fold
from tlfeat.heads.family import Explored, PlainHead, Problem, Setting, Values, two_sided
from tlfeat.heads.lbfgs import Effort, Fit, Metric, Solution, fit_paths, least_squares, n_columns
from tlfeat.types import Floats, Labels, Rows

#: A search only has to tell settings apart; the head that is kept is solved further.
_SEARCH = Effort(tolerance=1e-3, max_rounds=40)

_FINAL = Effort(tolerance=1e-5, max_rounds=200)

#: A path ends when so many values were clearly worse in loss and no better in accuracy, and none better in between.
_PATIENCE = 6

_CLEARLY_WORSE = 1.1


class LinearHead(PlainHead):
    """Scores ``mapping(x) @ coef + intercept``; centring and scaling are in the coefficients.

    Attributes
    ----------
    coef : float32 array of shape (width, n_classes), or (width, 1) for two classes
        Discriminant analysis has a column for each of two classes as well.
    intercept : array of shape (n_classes,), or (1,)
    """

    def __init__(self, mapping: str, n_classes: int, coef: Rows, intercept: Floats) -> None:
        super().__init__(mapping, n_classes, len(coef))
        self.coef = coef
        self.intercept = intercept

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n_classes = len(self.classes_)
        k = n_classes if np.shape(self.coef)[1:] == (n_classes,) else n_columns(n_classes)
        return {"coef": (self.n_features_in_, k), "intercept": (k,)}

    def _scores(self, x: Rows) -> Floats:
        return two_sided(x @ self.coef + self.intercept)


@dataclass(frozen=True, slots=True)
class Penalised:
    """Linear heads of a smooth loss with an L2 penalty; see ``linear.fit_paths``.

    Attributes
    ----------
    loss : str
        One of `linear.LOSSES`.
    parameter : str
        "C", the inverse of the penalty beside the sum of the losses, or "alpha", that penalty.
    path : tuple of float
        Values from the strongest penalty to the weakest.
    """

    loss: str
    parameter: str
    path: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "raw", "l2", "root", "root-l2", "whitened")
    max_rows: int = 2**62

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{self.parameter: value} for value in self.path]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[::4]

    def _penalty(self, values: Values, total: float) -> float:
        value = float(values[self.parameter])
        return 1 / (value * total) if self.parameter == "C" else value / total

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
        view, weights = setting.view(problem), problem.weights(setting.is_balanced)
        fold_of, n_folds, n = problem.fold_of, problem.n_folds, len(problem.labels)
        columns, of_all = columns_by_fold(view, fold_of, n_folds, setting.scaling)
        fits = []
        for fold in range(n_folds):
            learned = np.where(fold_of == fold, np.float32(0), weights)
            total = float(learned.sum(dtype=np.float64))
            fits.append(Fit(learned, columns[fold], [self._penalty(v, total) for v in values]))
        right = np.zeros((len(values), n), bool)
        losses = np.full((len(values), n_folds), np.inf)
        solutions: dict[tuple[int, int], tuple[Rows, Floats]] = {}
        best = [(np.inf, -1.0, 0)] * n_folds

        def on_solution(found: Solution) -> bool:
            fold, i, scores = found.fit, found.penalty, two_sided(found.scores)
            solutions[fold, i] = found.coef, found.intercept
            labels, counted = problem.labels[found.held], criterion_weights[found.held]
            is_right = scores.argmax(axis=1) == labels
            right[i, found.held] = is_right
            losses[i, fold] = self._loss(scores, labels) @ counted
            accuracy = float(is_right @ counted)
            lowest, highest, n_worse = best[fold]
            if losses[i, fold] < lowest or accuracy > highest:
                n_worse = 0
            elif (
                losses[i, fold] > _CLEARLY_WORSE * lowest
            ):  # under strong penalties little moves, and that costs little
                n_worse += 1
            best[fold] = min(lowest, losses[i, fold]), max(highest, accuracy), n_worse
            return n_worse < _PATIENCE

        fit_paths(
            view,
            problem.labels,
            problem.n_classes,
            self.loss,
            fits,
            Metric.of(view, of_all),
            effort=_SEARCH,
            fold_of=fold_of,
            on_solution=on_solution,
        )

        def scores(i: int) -> Floats:
            folds = [fits[fold].columns.to_rows(*solutions[fold, i]) for fold in range(n_folds)]
            return held_scores(view, problem, folds)

        def start(i: int) -> tuple[Rows, Floats]:
            found = [solutions[fold, i] for fold in range(n_folds)]
            coef = np.asarray(np.mean([coef for coef, _ in found], axis=0, dtype=np.float32))
            return coef, np.asarray(np.mean([intercept for _, intercept in found], axis=0))

        return Explored(values, right, losses.sum(axis=1) / criterion_weights.sum(), scores, start)

    def _loss(self, scores: Floats, labels: Labels) -> Floats:
        """The head's own loss of each image, at scores of one column a class."""
        own = np.arange(len(labels)), labels
        if self.loss == "logistic":
            top = scores.max(axis=1)
            losses: Floats = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[own]
            return losses
        if scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
            margins = np.where(labels[:, None] == 1, scores, -scores)
        else:
            margins = -scores
            margins[own] *= -1
        missing = 1 - margins
        if self.loss == "squared hinge":
            missing = np.maximum(missing, 0)
        squares: Floats = (missing**2).sum(axis=1)
        return squares

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> LinearHead:
        view, weights = setting.view(problem), problem.weights(setting.is_balanced)
        _, columns = columns_by_fold(view, np.full(len(problem.labels), -1), 0, setting.scaling)
        total = float(weights.sum(dtype=np.float64))
        penalty, metric = self._penalty(setting.values, total), Metric.of(view, columns)
        n, width = view.shape
        if (
            self.loss == "squared"
            and metric is None
            and columns.rotation is None
            and width <= min(2 * n, MAX_COVARIANCE)
        ):
            solution = least_squares(view, problem.labels, problem.n_classes, weights, columns, penalty)
            return LinearHead(view.mapping, problem.n_classes, *columns.to_rows(*solution))
        found: list[tuple[Rows, Floats]] = []

        def on_solution(solution: Solution) -> bool:
            found.append(columns.to_rows(solution.coef, solution.intercept))
            return False

        fit = Fit(weights, columns, [penalty], start)
        fit_paths(
            view, problem.labels, problem.n_classes, self.loss, [fit], metric, effort=_FINAL, on_solution=on_solution
        )
        return LinearHead(view.mapping, problem.n_classes, *found[0])


def held_scores(view: View, problem: Problem, folds: Sequence[tuple[Rows, Floats]]) -> Floats:
    """Scores (n_images, n_classes) of each image under the coefficients of its fold; NaN for images of no fold."""
    scores = np.full((len(problem.labels), problem.n_classes), np.nan)

    def fill(block: slice) -> None:
        x = view[block]
        for fold, (coef, intercept) in enumerate(folds):
            held = problem.fold_of[block] == fold
            scores[block][held] = two_sided(x[held] @ coef + intercept)

    in_threads(fill, blocks_of(len(scores)))
    return scores
