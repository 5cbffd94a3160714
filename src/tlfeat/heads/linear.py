"""Linear heads: logistic regression, linear support vector machine and ridge, along their penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import View, blocks_of, in_threads
from tlfeat.heads.columns import MAX_COVARIANCE, columns_by_fold
from tlfeat.heads.earlier import LinearHead as LinearHead
from tlfeat.heads.family import COARSE_ROWS, Fitted, HeldOut, Problem, Setting, Values, class_scores
from tlfeat.heads.lbfgs import Effort
from tlfeat.heads.losses import LOSSES, Loss, weighted_squared_hinge
from tlfeat.heads.penalty_paths import Metric, PenaltyPath, Solution, fit_paths, least_squares
from tlfeat.heads.pipelines import linear_classifier, rounded, steps_of, unit_of
from tlfeat.types import Floats, Rows

#: A search only has to tell settings apart; the head that is kept is solved further.
_SEARCH = Effort(tolerance=1e-3, max_evaluations=40)

_FINAL = Effort(tolerance=1e-6, max_evaluations=300)

#: Under strong penalties little moves, and trying them costs little: a loss just above the lowest is not yet worse.
_CLEARLY_WORSE = 1.1


@dataclass(frozen=True, slots=True)
class Penalised:
    """Linear heads of a smooth loss with an L2 penalty; see ``penalty_paths.fit_paths``.

    They are these of scikit-learn:

    - "logistic" with "C", the logreg head: ``LogisticRegression(C)``
    - "squared hinge" with "C", the linear-svm head: ``LinearSVC(C)``
    - "squared" with "alpha", the ridge head: ``RidgeClassifier(alpha)``

    Attributes
    ----------
    loss : str
        One of `losses.LOSSES`.
    parameter : str
        "C", the inverse of the penalty beside the sum of the losses, or "alpha", that penalty.
    path : tuple of float
        Values from the strongest penalty to the weakest.
    patience : int
        A path ends when so many values were clearly worse in loss and no better in accuracy, and none better in
        between.
    """

    loss: str
    parameter: str
    path: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "raw", "l2", "root", "root-l2", "whitened")
    max_rows: int = 2**62
    patience: int = 6
    coarse_rows: int = COARSE_ROWS
    weighs_classes: bool = True

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{self.parameter: value} for value in self.path]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[::4]

    def _penalty(self, values: Values, total: float) -> float:
        value = float(values[self.parameter])
        return 1 / (value * total) if self.parameter == "C" else value / total

    def _weighted_loss(self, problem: Problem, setting: Setting) -> tuple[Loss, Rows]:
        """The loss, and what each image counts in it."""
        if self.loss == "squared hinge" and setting.is_balanced and problem.n_classes > 2:
            return weighted_squared_hinge(problem.class_weights), problem.weights(False)
        return LOSSES[self.loss], problem.weights(setting.is_balanced)

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        view, (loss, weights) = setting.view(problem).mapped(), self._weighted_loss(problem, setting)
        columns, of_all = columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
        paths = []
        for fold in range(problem.n_folds):
            learned = np.where(problem.fold_of == fold, np.float32(0), weights)
            total = float(learned.sum(dtype=np.float64))
            paths.append(PenaltyPath(learned, columns[fold], [self._penalty(v, total) for v in values]))

        def on_solution(solution: Solution) -> bool:
            problem.on_fit()
            return trials.add(solution)

        trials = _PathTrials(problem, self.loss, len(values), criterion_weights, self.patience)
        fit_paths(
            view,
            problem.labels,
            problem.n_classes,
            loss,
            paths,
            Metric.of(view, of_all),
            effort=_SEARCH,
            fold_of=problem.fold_of,
            on_solution=on_solution,
        )

        def scores(i: int) -> Floats:
            return held_scores(
                view, problem, [path.columns.to_rows(*s) for path, s in zip(paths, trials.of(i), strict=True)]
            )

        def start(i: int) -> tuple[Rows, Floats]:
            coefs, intercepts = zip(*trials.of(i), strict=True)
            return np.asarray(np.mean(coefs, axis=0, dtype=np.float32)), np.asarray(np.mean(intercepts, axis=0))

        return HeldOut(values, trials.right, trials.losses.sum(axis=1) / criterion_weights.sum(), scores, start)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        view, (loss, weights) = setting.view(problem).mapped(), self._weighted_loss(problem, setting)
        _, columns = columns_by_fold(view, np.full(len(problem.labels), -1), 0, setting.scaling)
        unit, total = unit_of(setting, columns), float(weights.sum(dtype=np.float64))
        # the penalty is on coefficients of columns of deviation 1, scikit-learn's on those of columns as they are
        to_unit = unit**2 if self.parameter == "C" else unit**-2
        value = rounded(float(setting.values[self.parameter]) / to_unit)
        penalty, (n, width) = self._penalty({self.parameter: value * to_unit}, total), view.shape
        is_small = columns.rotation is None and width <= min(2 * n, MAX_COVARIANCE) and n < 8 * width
        if self.loss == "squared" and is_small:
            coef, intercept = least_squares(view, problem.labels, problem.n_classes, weights, columns, penalty)
        else:
            found: list[Solution] = []

            def on_solution(solution: Solution) -> bool:
                found.append(solution)
                return False

            path, metric = PenaltyPath(weights, columns, [penalty], start), Metric.of(view, columns)
            fit_paths(
                view, problem.labels, problem.n_classes, loss, [path], metric, effort=_FINAL, on_solution=on_solution
            )
            coef, intercept = found[0].coef, found[0].intercept
        coef = (coef / unit).astype(np.float32)
        classifier = linear_classifier(self.loss, value, problem, setting, coef, intercept, unit)
        return Fitted(steps_of(setting, problem, columns), classifier, {self.parameter: value})


class _PathTrials:
    """What the solutions along the path of each fold give on the images held out from it.

    Attributes
    ----------
    right : bool array of shape (n_values, n_images)
    losses : array of shape (n_values, n_folds)
        Weighted sums; infinite where the path ended before.
    """

    def __init__(self, problem: Problem, loss: str, n_values: int, criterion_weights: Rows, patience: int) -> None:
        self.right = np.zeros((n_values, len(problem.labels)), bool)
        self.losses = np.full((n_values, problem.n_folds), np.inf)
        self._labels, self._weights, self._loss = problem.labels, criterion_weights, LOSSES[loss]
        self._patience = patience
        self._solutions: dict[tuple[int, int], tuple[Rows, Floats]] = {}
        self._lowest = np.full(problem.n_folds, np.inf)
        self._highest = np.full(problem.n_folds, -1.0)
        self._n_worse = [0] * problem.n_folds

    def add(self, solution: Solution) -> bool:
        """Take a solution; False where the path of its fold need not go on."""
        fold, i, held = solution.path, solution.penalty, solution.held
        self._solutions[fold, i] = solution.coef, solution.intercept
        labels, weights = self._labels[held], self._weights[held]
        is_right = class_scores(solution.scores).argmax(axis=1) == labels
        self.right[i, held] = is_right
        z = solution.scores.astype(np.float64)[:, None]  # (n_held, 1, k), overwritten
        loss = self._loss.scale * float(self._loss.of(z, labels, weights[:, None])[0])
        accuracy = float(is_right @ weights)
        self.losses[i, fold] = loss
        if loss < self._lowest[fold] or accuracy > self._highest[fold]:
            self._n_worse[fold] = 0
        elif loss > _CLEARLY_WORSE * self._lowest[fold]:
            self._n_worse[fold] += 1
        self._lowest[fold] = min(self._lowest[fold], loss)
        self._highest[fold] = max(self._highest[fold], accuracy)
        return self._n_worse[fold] < self._patience

    def of(self, i: int) -> list[tuple[Rows, Floats]]:
        """Coefficients and intercepts of a value in every fold, for mapped columns."""
        return [self._solutions[fold, i] for fold in range(self.losses.shape[1])]


def held_scores(view: View, problem: Problem, folds: Sequence[tuple[Rows, Floats]]) -> Floats:
    """Scores (n_images, n_classes) of each image under the coefficients of its fold; NaN for images of no fold."""
    scores = np.full((len(problem.labels), problem.n_classes), np.nan)

    def fill(block: slice) -> None:
        x = view[block]
        for fold, (coef, intercept) in enumerate(folds):
            held = problem.fold_of[block] == fold
            scores[block][held] = class_scores(x[held] @ coef + intercept)

    in_threads(fill, blocks_of(len(scores)))
    return scores
