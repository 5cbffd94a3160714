"""A head that learns label by label: logistic regression on rows of length 1, fitted again after each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlfeat.errors import ModelError
from tlfeat.heads.blocks import View, steady_threads
from tlfeat.heads.columns import columns_by_fold
from tlfeat.heads.lbfgs import Effort
from tlfeat.heads.losses import LOSSES
from tlfeat.heads.penalty_paths import PenaltyPath, Solution, fit_paths, n_columns
from tlfeat.types import Floats, Labels, Rows

#: C of ``LogisticRegression`` for rows of length 1. From 10 labels to 400 within 2.5 points of the best that was tried;
#: standardised rows are no better and need statistics of the pool (``benchmarks/label.py``, penalty).
C = 100.0

#: A fit that ends early goes on after the next answer.
_EFFORT = Effort(tolerance=1e-4, max_evaluations=100)


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Logistic regression of the direction of a row; its length does not count.

    Attributes
    ----------
    coef : float32 array of shape (width, n_classes)
    intercept : float64 array of shape (n_classes,)
        Minus infinity for a class that had no label.
    """

    coef: Rows
    intercept: Floats

    def scores(self, rows: Rows) -> Rows:
        """Return the scores of rows (n, width) before the softmax, float32 of shape (n, n_classes)."""
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        scores: Rows = rows @ self.coef
        scores /= np.where(lengths > 0, lengths, np.float32(1))[:, None]
        scores += self.intercept.astype(np.float32)
        return scores

    def probabilities(self, rows: Rows) -> Rows:
        """Return probabilities of rows (n, width), float32 of shape (n, n_classes); 0 for a class without a label."""
        scores = self.scores(rows)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores


def fit(
    rows: Rows, labels: Labels, n_classes: int, *, weights: Rows | None = None, start: LinearModel | None = None
) -> LinearModel:
    """Return the head of all labels so far.

    Parameters
    ----------
    rows : float32 array of shape (n, width)
        As the backbone gives them. Not modified.
    labels : int array of shape (n,)
        From 0 to ``n_classes - 1``. One class alone gets probability 1.
    n_classes : int
    weights : float32 array of shape (n,), optional
        Of the labels; 1 each by default.
    start : LinearModel, optional
        Fitted to nearly the same labels, for as many classes or fewer: the fit then takes a tenth of the time.

    Raises
    ------
    ModelError
        There is no label.
    """
    if not len(labels):
        raise ModelError("There is no label to learn from.")
    known, codes = np.unique(labels, return_inverse=True)
    coef = np.zeros((rows.shape[1], n_classes), np.float32)
    intercept = np.full(n_classes, -np.inf)
    intercept[known] = 0.0
    if len(known) > 1:
        first = None if start is None else _of_classes(start, known)
        with steady_threads():  # BLAS's own threads make a fit five times slower
            coef[:, known], intercept[known] = _solve(rows, codes.astype(np.int64), len(known), weights, first)
    return LinearModel(coef, intercept)


def _of_classes(start: LinearModel, known: Labels) -> tuple[Rows, Floats]:
    """Return coefficients and intercepts of the classes that have labels; zeros for those that are new."""
    coef, intercept = np.zeros((len(start.coef), len(known)), np.float32), np.zeros(len(known))
    old = np.flatnonzero(known < len(start.intercept))
    coef[:, old] = start.coef[:, known[old]]
    intercept[old] = start.intercept[known[old]]
    intercept[~np.isfinite(intercept)] = 0.0
    return coef, intercept


def _solve(
    rows: Rows, codes: Labels, k: int, weights: Rows | None, start: tuple[Rows, Floats] | None
) -> tuple[Rows, Floats]:
    """Return coefficients (width, k) and intercepts (k,) for rows of length 1."""
    n, width = rows.shape
    view = View(rows, (0, width), "l2").mapped()
    # the solver moves coefficients of columns that are centred and of deviation 1; the penalty is on those of unit rows
    _, columns = columns_by_fold(view, np.full(n, -1), 0, "common")
    unit = float(columns.scale[0])
    if start is not None:
        coef, intercept = start
        intercept = intercept + columns.shift @ coef
        if n_columns(k) == 1:
            coef, intercept = coef[:, 1:] - coef[:, :1], intercept[1:] - intercept[:1]
        start = coef * np.float32(unit), intercept
    weights = np.ones(n, np.float32) if weights is None else weights
    path = PenaltyPath(weights, columns, [1 / (C * float(weights.sum()) * unit**2)], start)
    found: list[Solution] = []

    def on_solution(solution: Solution) -> bool:
        found.append(solution)
        return False

    fit_paths(view, codes, k, LOSSES["logistic"], [path], None, effort=_EFFORT, on_solution=on_solution)
    coef, intercept = columns.to_rows(found[0].coef, found[0].intercept)
    if n_columns(k) == 1:  # of the second class against the first
        return np.concatenate([-coef / 2, coef / 2], axis=1), np.concatenate([-intercept / 2, intercept / 2])
    return coef, intercept
