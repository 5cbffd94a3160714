"""Linear discriminant analysis: all shrinkages from one pass over the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import View, blocks_of, in_threads
from tlfeat.heads.columns import Columns, columns_by_fold, sums_by_group
from tlfeat.heads.family import COARSE_ROWS, Fitted, HeldOut, Problem, Setting, Values, held_out_from_scores
from tlfeat.heads.linear import held_scores
from tlfeat.heads.pipelines import discriminant_analysis, steps_of, unit_of
from tlfeat.types import Floats, Labels, Rows


def discriminants(
    counts: Floats, sums: Floats, scatter: Rows, shrinkages: Sequence[float], *, class_weights: Floats | None = None
) -> Iterator[tuple[Rows, Floats]]:
    """Give coefficients (width, n_classes) and intercepts of linear discriminant analysis for each shrinkage.

    Gaussian classes with one covariance (Fisher 1936), shrunk towards a multiple of the identity (Friedman 1989,
    JASA 84).

    Parameters
    ----------
    counts : array of shape (n_classes,)
    sums : array of shape (n_classes, width)
    scatter : array of shape (width, width)
        Sum of the outer products of all rows, about the same origin as `sums`, each times the weight of its class.
    shrinkages : sequence of float
        In (0, 1].
    class_weights : array of shape (n_classes,), optional
        By which the classes are taken to be equally frequent.
    """
    means = sums / np.maximum(counts, 1)[:, None]  # a class that a fold lacks lies at 0 and is never its answer
    priors = priors_of(counts, is_balanced=class_weights is not None)
    weighed = counts if class_weights is None else counts * class_weights
    within = (scatter - (means * weighed[:, None]).T @ means) / weighed.sum()
    within = within.astype(np.float32)
    # the least is what rounding leaves of classes of one image each
    spread = max(float(np.trace(within)), 1e-5 * float(np.trace(scatter)) / counts.sum(), 1e-12) / len(within)
    priors = np.where(counts > 0, priors, 1e-100)
    for shrinkage in shrinkages:
        damped = np.float32(1 - shrinkage) * within
        damped[np.diag_indices(len(damped))] += np.float32(shrinkage * spread)
        coef = _solve(damped, means.T.astype(np.float32))
        intercept = np.log(priors) - 0.5 * np.einsum("kd,dk->k", means, coef)
        yield np.asarray(coef, dtype=np.float32), intercept


def priors_of(counts: Floats, *, is_balanced: bool) -> Floats:
    """Return how frequent the classes are, or are taken to be."""
    shares: Floats = np.full(len(counts), 1 / len(counts)) if is_balanced else counts / counts.sum()
    return shares


def _solve(matrix: Rows, to: Rows) -> Rows:
    from scipy.linalg import cho_factor, cho_solve

    try:
        found = cho_solve(cho_factor(matrix, check_finite=False), to, check_finite=False)
    except np.linalg.LinAlgError:  # rounding, where classes have an image each
        found = np.linalg.solve(matrix, to)
    return np.asarray(found, dtype=np.float32)


def scatters(view: View, columns: Columns, weights: Rows, fold_of: Labels, n_folds: int) -> Rows:
    """Return for each fold (the last one: images of no fold) the weighted sum of outer products of its mapped rows.

    Of shape (n_folds + 1, width, width), float32: at 4,096 columns 400 MB for five folds.
    """
    width = view.shape[1]

    def of(fold: int) -> Rows:
        total = np.zeros((width, width), np.float32)
        for block in blocks_of(view.shape[0]):
            mine = fold_of[block] == fold
            if mine.any():
                x = columns.scaled(view[block][mine])
                total += x.T @ (x * weights[block][mine, None])
        return total

    return np.stack(in_threads(of, range(n_folds + 1)))


@dataclass(frozen=True, slots=True)
class Discriminant:
    """Linear discriminant analysis with shrunk covariance, for the lda head; see `discriminants`.

    As scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)``.
    """

    shrinkages: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "root")
    max_rows: int = 2**62
    coarse_rows: int = COARSE_ROWS
    weighs_classes: bool = True

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{"shrinkage": value} for value in self.shrinkages]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[::2]

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        view, weights = setting.view(problem), setting.class_weights(problem)
        columns, counts, sums, squares = self._moments(problem, setting)
        total = squares.sum(axis=0)

        def solve(fold: int) -> list[tuple[Rows, Floats]]:
            found = []
            for solution in discriminants(
                counts.sum(axis=0) - counts[fold],
                sums.sum(axis=0) - sums[fold],
                total - squares[fold],
                [float(v["shrinkage"]) for v in values],
                class_weights=weights,
            ):
                found.append(columns.to_rows(*solution))
                problem.on_fit()
            return found

        solutions = in_threads(solve, range(problem.n_folds))

        def scores(i: int) -> Floats:
            return held_scores(view, problem, [of_fold[i] for of_fold in solutions])

        return held_out_from_scores(problem, values, scores, criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        columns, counts, sums, squares = self._moments(problem, setting)
        counts, sums, unit = counts.sum(axis=0), sums.sum(axis=0), unit_of(setting, columns)
        shrinkage = float(setting.values["shrinkage"])
        weights = setting.class_weights(problem)
        coef, intercept = next(discriminants(counts, sums, squares.sum(axis=0), [shrinkage], class_weights=weights))
        if problem.n_classes == 2:
            coef, intercept = np.diff(coef, axis=1), np.diff(intercept)
        means, coef = unit * sums / counts[:, None], (coef / unit).astype(np.float32)
        priors = priors_of(counts, is_balanced=setting.is_balanced)
        classifier = discriminant_analysis(shrinkage, problem, setting, means, priors, coef, intercept)
        return Fitted(steps_of(setting, problem, columns), classifier, {"shrinkage": shrinkage})

    def _moments(self, problem: Problem, setting: Setting) -> tuple[Columns, Floats, Floats, Rows]:
        """Counts, sums and scatter of the classes in each fold (the last one: images of no fold)."""
        view, k, n_folds = setting.view(problem), problem.n_classes, problem.n_folds
        fold_of = np.where(problem.fold_of < 0, n_folds, problem.fold_of)
        _, columns = columns_by_fold(view, problem.fold_of, n_folds, setting.scaling)
        origin, counts, sums, _ = sums_by_group(view, fold_of * k + problem.labels, (n_folds + 1) * k)
        centred = (sums - counts[:, None] * (columns.shift - origin)) / columns.scale
        squares = scatters(view, columns, problem.weights(setting.is_balanced), fold_of, n_folds)
        return columns, counts.reshape(-1, k), centred.reshape(n_folds + 1, k, -1), squares
