"""Linear heads: many fits at once over the same rows, each a smooth convex loss with an L2 penalty.

The fits of all folds walk their penalties from strong to weak side by side: one pass over the rows gives the loss and
gradient of every one of them, so that five folds cost little more than one, and each penalty starts from its
neighbour's solution. The method is L-BFGS (Nocedal 1980; Liu and Nocedal 1989) with one decomposition of the
covariance, shared by all folds and penalties, as the metric: at 50,000 x 1,280 it takes a quarter of the passes.

Centring and scaling columns never touches the rows: they are folded into the coefficients (`Columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.heads.blocks import View, add_up
from tlfeat.heads.columns import MAX_COVARIANCE, WIDE_LANES, Columns, covariance
from tlfeat.heads.losses import LOSSES, Loss, signed_targets
from tlfeat.types import Floats, Labels, Rows

#: Curvature pairs that L-BFGS keeps.
_MEMORY = 10

#: Rows that the shared metric is computed from; it decides the speed, never the solution.
_METRIC_ROWS = 8192


@dataclass(slots=True)
class Fit:
    """One fit among those that share the passes: its images, its columns and its way along the penalties.

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
    """One penalty of one fit, solved.

    Attributes
    ----------
    fit, penalty : int
        Their numbers.
    coef, intercept
        For mapped columns.
    held : int array of shape (n_held,)
        Images held out from the fit.
    scores : float32 array of shape (n_held, k)
        Theirs.
    """

    fit: int
    penalty: int
    coef: Rows
    intercept: Floats
    held: Labels
    scores: Rows


@dataclass(frozen=True, slots=True)
class Effort:
    """How far a penalty is solved.

    Attributes
    ----------
    tolerance : float
        Until the quadratic model promises less than this share of the loss (or of 0.01).
    max_rounds : int
        Evaluations; then the best point so far is taken.
    """

    tolerance: float
    max_rounds: int


@dataclass(frozen=True, slots=True)
class Metric:
    """Eigenvectors and eigenvalues of the covariance of mapped columns."""

    vectors: Rows
    values: Rows

    @classmethod
    def of(cls, view: View, columns: Columns) -> Metric | None:
        """Decompose the covariance of a sample of the rows; None where that costs more than it saves."""
        n, width = view.shape
        if columns.rotation is not None or width > MAX_COVARIANCE or n < 8 * width:
            return None
        sample = view.take(np.arange(0, n, max(1, n // _METRIC_ROWS)))
        values, vectors = np.linalg.eigh(covariance(sample, columns))
        return cls(vectors, np.maximum(values, 0))


@dataclass(slots=True)
class _Walk:
    """Where one fit is on its way: a state machine that asks for the loss and gradient at one point a round."""

    fit: Fit
    total: float
    coef: Rows
    intercept: Floats
    at: int = 0
    n_rounds: int = 0
    loss: float = np.inf
    gradient: Rows = field(default_factory=lambda: np.empty(0, np.float32))
    of_intercept: Floats = field(default_factory=lambda: np.empty(0))
    pairs: list[tuple[Rows, Floats, Rows, Floats, float]] = field(default_factory=list)
    way: tuple[Rows, Floats] | None = None
    slope: float = 0.0
    step: float = 1.0
    scores: Rows = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def penalty(self) -> float:
        return self.fit.penalties[self.at]

    def point(self) -> tuple[Rows, Floats]:
        """Where the loss is wanted next."""
        if self.way is None:
            return self.coef, self.intercept
        return self.coef + np.float32(self.step) * self.way[0], self.intercept + self.step * self.way[1]


def n_columns(n_classes: int) -> int:
    """Return the columns of coefficients: one for two classes, else one a class."""
    return 1 if n_classes == 2 else n_classes


def fit_paths(
    view: View,
    labels: Labels,
    n_classes: int,
    loss_name: str,
    fits: Sequence[Fit],
    metric: Metric | None,
    *,
    effort: Effort,
    fold_of: Labels | None = None,
    on_solution: Callable[[Solution], bool],
) -> None:
    """Solve every penalty of every fit, strong to weak, all fits side by side.

    Parameters
    ----------
    view : View of shape (n_images, width)
    labels : int array of shape (n_images,)
    n_classes : int
        Two classes take one column of coefficients, more take one each.
    loss_name : str
        One of `LOSSES`.
    fits : sequence of Fit
    metric : Metric, optional
    effort : Effort
    fold_of : int array of shape (n_images,), optional
        The number of the fit that an image is held out from, -1 for none: a pass gives its scores, too.
    on_solution : callable
        Takes a `Solution`; False ends the path of that fit.
    """
    loss = LOSSES[loss_name]
    k = n_columns(n_classes)
    held = [np.flatnonzero(fold_of == p) if fold_of is not None else np.empty(0, np.int64) for p in range(len(fits))]
    walks = {}
    for p, fit in enumerate(fits):
        width = view.shape[1] if fit.columns.rotation is None else fit.columns.rotation.shape[1]
        coef, intercept = fit.start or (np.zeros((width, k), np.float32), np.zeros(k))
        walks[p] = _Walk(fit, float(fit.weights.sum(dtype=np.float64)), coef, intercept)
    while walks:
        points = [walk.point() for walk in walks.values()]
        of_rows = [walk.fit.columns.to_rows(*point) for walk, point in zip(walks.values(), points, strict=True)]
        weights = np.stack([walk.fit.weights for walk in walks.values()], axis=1)
        scored = np.empty((view.shape[0], k), np.float32) if fold_of is not None else None
        of_fold = np.zeros(len(fits) + 1, np.int64)  # the column of a fit that still walks; the last entry is for -1
        of_fold[list(walks)] = np.arange(len(walks))
        column_of = of_fold[fold_of] if fold_of is not None else np.empty(0, np.int64)
        losses, gradients, of_intercepts = _evaluate(view, labels, loss, weights, of_rows, scored, column_of)
        ended = []
        for j, (p, walk) in enumerate(walks.items()):
            coef, intercept = points[j]
            found = losses[j] / walk.total + 0.5 * walk.penalty * float(np.vdot(coef, coef))
            gradient = walk.fit.columns.gradient(gradients[j], of_intercepts[j]) / np.float32(walk.total)
            gradient += np.float32(walk.penalty) * coef
            is_taken = _advance(walk, coef, intercept, found, gradient, of_intercepts[j] / walk.total)
            if is_taken and scored is not None:
                walk.scores = scored[held[p]]
            while _is_solved(walk, metric, loss.curvature, effort):
                solution = Solution(p, walk.at, walk.coef, walk.intercept, held[p], walk.scores)
                if not on_solution(solution) or walk.at + 1 == len(walk.fit.penalties):
                    ended.append(p)
                    break
                _to_next_penalty(walk)
        for p in ended:
            del walks[p]


def _evaluate(
    view: View,
    labels: Labels,
    loss: Loss,
    weights: Rows,
    of_rows: list[tuple[Rows, Floats]],
    scored: Rows | None,
    column_of: Labels,
) -> tuple[Floats, list[Rows], list[Floats]]:
    """Weighted sums of the loss and its gradients for every fit, in one pass over the rows.

    `scored` receives the scores of each image under the fit that ``column_of`` names.
    """
    n_fits, (width, k) = len(of_rows), of_rows[0][0].shape
    coef = np.concatenate([c for c, _ in of_rows], axis=1)
    intercept = np.concatenate([i for _, i in of_rows]).astype(np.float32)

    def work(blocks: list[slice]) -> list[npt.NDArray[np.floating[Any]]]:
        losses, of_intercept = np.zeros(n_fits), np.zeros(n_fits * k)
        gradient = np.zeros((width, n_fits * k), np.float32)
        for block in blocks:
            x = view[block]
            z = x @ coef
            z += intercept
            of_fits = z.reshape(-1, n_fits, k)
            if scored is not None:
                scored[block] = of_fits[np.arange(len(z)), column_of[block]]
            losses += loss.of(of_fits, labels[block], weights[block])
            gradient += x.T @ z
            of_intercept += z.sum(axis=0, dtype=np.float64)
        return [losses, gradient, of_intercept]

    losses, gradient, of_intercept = add_up(view.shape[0], work)
    return (
        losses,
        [gradient[:, p * k : (p + 1) * k] for p in range(n_fits)],
        list(of_intercept.reshape(n_fits, k)),
    )


def _advance(walk: _Walk, coef: Rows, intercept: Floats, loss: float, gradient: Rows, of_intercept: Floats) -> bool:
    """Take the point if the loss fell enough (Armijo), else shorten the step to the lowest point of a parabola."""
    walk.n_rounds += 1
    if walk.way is not None:
        # float32 sums are right to about 1e-7 of the loss: less than that is no rise
        if not loss <= walk.loss + 1e-4 * walk.step * walk.slope + 1e-6 * abs(walk.loss):
            rise = loss - walk.loss - walk.slope * walk.step
            lowest = -walk.slope * walk.step**2 / (2 * rise) if np.isfinite(rise) else 0.0
            walk.step = min(max(lowest, 0.1 * walk.step), 0.5 * walk.step)
            return False
        moved, turned = (
            (coef - walk.coef, intercept - walk.intercept),
            (
                gradient - walk.gradient,
                of_intercept - walk.of_intercept,
            ),
        )
        product = _dot(*moved, *turned)
        if product > 1e-12:
            walk.pairs = [*walk.pairs[1 - _MEMORY :], (*moved, *turned, product)]
    walk.coef, walk.intercept, walk.loss = coef, intercept, loss
    walk.gradient, walk.of_intercept, walk.way = gradient, of_intercept, None
    return True


def _is_solved(walk: _Walk, metric: Metric | None, curvature: float, effort: Effort) -> bool:
    """Give the walk its next direction; True if none is worth going."""
    if walk.way is not None:  # the step was too long and is shorter now
        return walk.step < 1e-4 or walk.n_rounds >= effort.max_rounds
    walk.way = _direction(walk, metric, curvature)
    walk.slope = _dot(*walk.way, walk.gradient, walk.of_intercept)
    if walk.slope >= 0 and walk.pairs:
        walk.pairs = []
        walk.way = _direction(walk, metric, curvature)
        walk.slope = _dot(*walk.way, walk.gradient, walk.of_intercept)
    walk.step = 1.0
    # half the slope is what a quadratic model promises
    return -0.5 * walk.slope <= effort.tolerance * max(walk.loss, 0.01) or walk.n_rounds >= effort.max_rounds


def _to_next_penalty(walk: _Walk) -> None:
    """Loss, gradient and curvature under the next penalty follow from those under this one, without a pass."""
    before = walk.penalty
    walk.at += 1
    less = walk.penalty - before
    walk.loss += 0.5 * less * float(np.vdot(walk.coef, walk.coef))
    walk.gradient = walk.gradient + np.float32(less) * walk.coef
    pairs = [
        (s, si, y + np.float32(less) * s, yi, product + less * float(np.vdot(s, s)))
        for s, si, y, yi, product in walk.pairs
    ]
    walk.pairs = [pair for pair in pairs if pair[-1] > 1e-12]
    walk.way, walk.n_rounds = None, 0


def _direction(walk: _Walk, metric: Metric | None, curvature: float) -> tuple[Rows, Floats]:
    """The two-loop recursion of L-BFGS, Nocedal and Wright 2006, algorithm 7.4, with the metric as first Hessian."""

    def apply(x: Rows, xi: Floats) -> tuple[Rows, Floats]:
        if metric is None:
            return x / np.float32(curvature + walk.penalty), xi / curvature
        damped = (curvature * metric.values + walk.penalty).astype(np.float32)[:, None]
        return metric.vectors @ ((metric.vectors.T @ x) / damped), xi / curvature

    q, qi = walk.gradient.copy(), walk.of_intercept.copy()
    shares = []
    for s, si, y, yi, product in reversed(walk.pairs):
        share = _dot(s, si, q, qi) / product
        q -= np.float32(share) * y
        qi -= share * yi
        shares.append(share)
    q, qi = apply(q, qi)
    if walk.pairs:
        _, _, y, yi, product = walk.pairs[-1]
        scale = product / _dot(y, yi, *apply(y, yi))
        q, qi = q * np.float32(scale), qi * scale
    for (s, si, y, yi, product), share in zip(walk.pairs, reversed(shares), strict=True):
        back = share - _dot(y, yi, q, qi) / product
        q += np.float32(back) * s
        qi += back * si
    return -q, -qi


def _dot(x: Rows, xi: Floats, y: Rows, yi: Floats) -> float:
    return float(np.vdot(x, y)) + float(xi @ yi)


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
