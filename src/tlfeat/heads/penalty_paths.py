"""Many fits at once over the same rows, each a smooth convex loss with an L2 penalty, along their penalties.

The fits of all folds walk their penalties from strong to weak side by side: one pass over the rows gives the loss and
gradient of every one of them, so that five folds cost little more than one, and each penalty starts from its
neighbour's solution. The solver is L-BFGS with one decomposition of the covariance, shared by all folds and penalties,
as the first Hessian: at 50,000 x 1,280 it takes a quarter of the passes.

Centring and scaling columns never touches the rows: they are folded into the coefficients (`Columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.heads.blocks import View, add_up
from tlfeat.heads.columns import WIDE_LANES, Columns, covariance_times
from tlfeat.heads.lbfgs import Effort, InverseHessian, Lbfgs, Vector
from tlfeat.heads.losses import Loss, signed_targets
from tlfeat.types import Floats, Labels, Rows

#: Rows that the shared metric is computed from; it decides the speed, never the solution.
_METRIC_ROWS = 4096

#: Eigenvectors of the metric: with 128 a fit of real rows takes a third of the passes, with 256 hardly fewer.
_METRIC_VECTORS = 128


@dataclass(frozen=True, slots=True)
class PenaltyPath:
    """One fit among those that share the passes: its images, its columns and its penalties.

    Attributes
    ----------
    weights : float32 array of shape (n_images,)
        0 for images that it may not see.
    columns : Columns
    penalties : sequence of float
        Of half the squared length of the coefficients, beside the weighted mean of the loss; strong to weak.
    start : (coefficients, intercept), optional
        For mapped columns.
    """

    weights: Rows
    columns: Columns
    penalties: Sequence[float]
    start: tuple[Rows, Floats] | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """One penalty of one path, solved.

    Attributes
    ----------
    path, penalty : int
        Their numbers.
    coef, intercept
        For mapped columns.
    held : int array of shape (n_held,)
        Images held out from the fit.
    scores : float32 array of shape (n_held, k)
        Theirs.
    """

    path: int
    penalty: int
    coef: Rows
    intercept: Floats
    held: Labels
    scores: Rows


@dataclass(frozen=True, slots=True)
class Metric:
    """The covariance of mapped columns, near enough: its first eigenvectors, and one value for all the rest.

    Attributes
    ----------
    vectors : float32 array of shape (width, n)
        Orthonormal.
    values : float32 array of shape (n,)
        Their eigenvalues.
    rest : float
        The mean of the others.
    """

    vectors: Rows
    values: Rows
    rest: float

    @classmethod
    def of(cls, view: View, columns: Columns) -> Metric | None:
        """Decompose the covariance of a sample of the rows; None for rotated columns, whose covariance is simple.

        The rows of real images have some hundred directions that vary much. These are found by subspace iteration
        from a random start (Halko, Martinsson and Tropp 2011, SIAM Review 53, algorithm 4.4): a fraction of the whole.
        """
        n, width = view.shape
        if columns.rotation is not None:
            return None
        sample = view.take(np.arange(0, n, max(1, n // _METRIC_ROWS)))
        n_vectors = min(_METRIC_VECTORS, width, n)
        basis: Rows = np.random.default_rng(0).standard_normal((width, n_vectors), dtype=np.float32)
        for _ in range(2):
            basis = np.linalg.qr(covariance_times(sample, columns, np.linalg.qr(basis)[0]))[0]
        product = covariance_times(sample, columns, basis)
        values, turn = np.linalg.eigh(basis.T @ product)
        # the variances of all columns have a mean of 1
        rest = max(width - float(values.sum()), 0.0) / max(width - n_vectors, 1)
        return cls(basis @ turn, np.maximum(values, 0), rest)

    def solve(self, coef: Rows, curvature: float, penalty: float) -> Rows:
        """Multiply with the inverse of curvature times the covariance plus the penalty."""
        outside = np.float32(1 / (curvature * self.rest + penalty))
        inside = (1 / (curvature * self.values + penalty)).astype(np.float32) - outside
        found: Rows = self.vectors @ (inside[:, None] * (self.vectors.T @ coef))
        found += outside * coef
        return found


def _inverse_hessian(metric: Metric | None, curvature: float, penalty: float) -> InverseHessian:
    """The inverse of curvature times the covariance plus the penalty; without a metric, of their scale alone."""

    def multiply(v: Vector) -> Vector:
        if metric is None:
            return Vector(v.coef / np.float32(curvature + penalty), v.intercept / curvature)
        return Vector(metric.solve(v.coef, curvature, penalty), v.intercept / curvature)

    return multiply


@dataclass(slots=True)
class _Walk:
    """Where one path is.

    Attributes
    ----------
    path : PenaltyPath
    total : float
        The sum of its weights.
    solver : Lbfgs
    held : int array of shape (n_held,)
    at : int
        The number of the penalty that is being solved.
    scores : float32 array of shape (n_held, k)
        Of the images held out, at ``solver.x``.
    """

    path: PenaltyPath
    total: float
    solver: Lbfgs
    held: Labels
    at: int = 0
    scores: Rows = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def penalty(self) -> float:
        return self.path.penalties[self.at]

    def evaluated(self, trial: Vector, sums: _Sums, scored: Rows | None) -> None:
        """Give the solver the penalised mean of what one pass has summed up."""
        coef = trial.coef
        f = sums.loss / self.total + 0.5 * self.penalty * float(np.vdot(coef, coef))
        gradient = self.path.columns.gradient(sums.gradient, sums.of_intercept) / np.float32(self.total)
        gradient += np.float32(self.penalty) * coef
        if self.solver.evaluated(trial, f, Vector(gradient, sums.of_intercept / self.total)) and scored is not None:
            self.scores = scored[self.held]

    def is_solved(self, metric: Metric | None, curvature: float, effort: Effort) -> bool:
        return self.solver.is_solved(_inverse_hessian(metric, curvature, self.penalty), effort)

    def solution(self, number: int) -> Solution:
        return Solution(number, self.at, self.solver.x.coef, self.solver.x.intercept, self.held, self.scores)

    def is_last(self) -> bool:
        return self.at + 1 == len(self.path.penalties)

    def to_next_penalty(self) -> None:
        before = self.penalty
        self.at += 1
        self.solver.add_penalty(self.penalty - before)


def n_columns(n_classes: int) -> int:
    """Return the columns of coefficients: one for two classes, else one a class."""
    return 1 if n_classes == 2 else n_classes


def fit_paths(
    view: View,
    labels: Labels,
    n_classes: int,
    loss: Loss,
    paths: Sequence[PenaltyPath],
    metric: Metric | None,
    *,
    effort: Effort,
    fold_of: Labels | None = None,
    on_solution: Callable[[Solution], bool],
) -> None:
    """Solve every penalty of every path, strong to weak, all paths side by side.

    Parameters
    ----------
    view : View of shape (n_images, width)
    labels : int array of shape (n_images,)
    n_classes : int
        Two classes take one column of coefficients, more take one each.
    loss : Loss
    paths : sequence of PenaltyPath
    metric : Metric, optional
    effort : Effort
    fold_of : int array of shape (n_images,), optional
        The number of the path that an image is held out from, -1 for none: a pass gives its scores, too.
    on_solution : callable
        Takes a `Solution`; False ends its path.
    """
    k = n_columns(n_classes)
    walks = {number: _begin(path, number, view, k, fold_of) for number, path in enumerate(paths)}
    while walks:
        trials = {number: walk.solver.trial() for number, walk in walks.items()}
        of_rows = [walk.path.columns.to_rows(trials[p].coef, trials[p].intercept) for p, walk in walks.items()]
        weights = np.stack([walk.path.weights for walk in walks.values()], axis=1)
        scored, column_of = None, np.empty(0, np.int64)
        if fold_of is not None:
            scored = np.empty((view.shape[0], k), np.float32)
            of_fold = np.zeros(len(paths) + 1, np.int64)  # the column of a path that still walks; the last is for -1
            of_fold[list(walks)] = np.arange(len(walks))
            column_of = of_fold[fold_of]
        sums = _evaluate(view, labels, loss, weights, of_rows, scored, column_of)
        ended = []
        for number, sums_of_path in zip(walks, sums, strict=True):
            walk = walks[number]
            walk.evaluated(trials[number], sums_of_path, scored)
            while walk.is_solved(metric, loss.curvature, effort):
                if not on_solution(walk.solution(number)) or walk.is_last():
                    ended.append(number)
                    break
                walk.to_next_penalty()
        for number in ended:
            del walks[number]


def _begin(path: PenaltyPath, number: int, view: View, k: int, fold_of: Labels | None) -> _Walk:
    width = view.shape[1] if path.columns.rotation is None else path.columns.rotation.shape[1]
    coef, intercept = path.start or (np.zeros((width, k), np.float32), np.zeros(k))
    held = np.flatnonzero(fold_of == number) if fold_of is not None else np.empty(0, np.int64)
    return _Walk(path, float(path.weights.sum(dtype=np.float64)), Lbfgs(Vector(coef, intercept)), held)


@dataclass(frozen=True, slots=True)
class _Sums:
    """What one pass sums up for one path: weighted loss, and its gradient in coefficients of the rows as they are."""

    loss: float
    gradient: Rows
    of_intercept: Floats


def _evaluate(
    view: View,
    labels: Labels,
    loss: Loss,
    weights: Rows,
    of_rows: list[tuple[Rows, Floats]],
    scored: Rows | None,
    column_of: Labels,
) -> list[_Sums]:
    """Weighted sums of the loss and its gradients for every path, in one pass over the rows.

    `scored` receives the scores of each image under the path that ``column_of`` names.
    """
    n_paths, (width, k) = len(of_rows), of_rows[0][0].shape
    coef = np.concatenate([c for c, _ in of_rows], axis=1)
    intercept = np.concatenate([i for _, i in of_rows]).astype(np.float32)

    def work(blocks: list[slice]) -> list[npt.NDArray[np.floating[Any]]]:
        losses, of_intercept = np.zeros(n_paths), np.zeros(n_paths * k)
        gradient = np.zeros((width, n_paths * k), np.float32)
        for block in blocks:
            x = view[block]
            z = x @ coef
            z += intercept
            of_paths = z.reshape(-1, n_paths, k)
            if scored is not None:
                scored[block] = of_paths[np.arange(len(z)), column_of[block]]
            losses += loss.of(of_paths, labels[block], weights[block])
            gradient += x.T @ z
            of_intercept += z.sum(axis=0, dtype=np.float64)
        return [losses, gradient, of_intercept]

    losses, gradient, of_intercept = add_up(view.shape[0], work)
    parts = (slice(p * k, (p + 1) * k) for p in range(n_paths))
    return [_Sums(losses[p], gradient[:, part], of_intercept[part]) for p, part in enumerate(parts)]


def least_squares(
    view: View, labels: Labels, n_classes: int, weights: Rows, columns: Columns, penalty: float
) -> tuple[Rows, Floats]:
    """Return the solution of the squared loss for mapped columns by its normal equations, in one pass over the rows.

    The penalty is as in `fit_paths`. For some thousand rows that is the faster way: (width^2 n + width^3) operations.
    """
    total, k = float(weights.sum(dtype=np.float64)), n_columns(n_classes)

    def work(blocks: list[slice]) -> list[Rows]:
        outer: Rows = np.zeros((view.shape[1] + 1, view.shape[1] + 1), np.float32)
        onto: Rows = np.zeros((view.shape[1] + 1, k), np.float32)
        for block in blocks:
            x = np.concatenate([columns.scaled(view[block]), np.ones((len(weights[block]), 1), np.float32)], axis=1)
            x *= np.sqrt(weights[block])[:, None]
            outer += x.T @ x
            onto += x.T @ (signed_targets(labels[block], k)[:, 0] * np.sqrt(weights[block])[:, None])
        return [outer, onto]

    outer, onto = (sums.astype(np.float64) / total for sums in add_up(view.shape[0], work, WIDE_LANES))
    # the intercept, the last row and column, is not penalised
    outer[np.arange(view.shape[1]), np.arange(view.shape[1])] += penalty
    solution = np.linalg.solve(outer, onto)
    return solution[:-1].astype(np.float32), solution[-1]
