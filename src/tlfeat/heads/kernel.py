"""Support vector machines with radial basis functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import blocks_of, in_threads
from tlfeat.heads.columns import Columns, columns_by_fold
from tlfeat.heads.family import (
    COARSE_ROWS,
    FittedHead,
    HeldOut,
    Problem,
    Setting,
    Values,
    class_scores,
    held_out_from_scores,
)
from tlfeat.types import Floats, Labels, Rows


class KernelHead(FittedHead):
    """A support vector machine with radial basis functions, one against one: a fitted ``SVC`` of scikit-learn.

    Attributes
    ----------
    shift, scale : float32 arrays of shape (width,)
    rows : float32 array of shape (n_support, width)
        The support vectors, mapped, centred and scaled.
    gamma : float
    coef : array of shape (n_pairs, n_support)
        The dual coefficients of each pair of classes.
    intercept : array of shape (n_pairs,)
    """

    def __init__(
        self,
        mapping: str,
        n_classes: int,
        columns: Columns,
        rows: Rows,
        gamma: float,
        coef: Floats,
        intercept: Floats,
    ) -> None:
        super().__init__(mapping, n_classes, rows.shape[1])
        self.shift, self.scale = columns.shift.astype(np.float32), columns.scale.astype(np.float32)
        self.rows, self.gamma, self.coef, self.intercept = rows, gamma, coef, intercept

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n, width, n_classes = len(self.rows), self.n_features_in_, len(self.classes_)
        n_pairs = n_classes * (n_classes - 1) // 2
        return {"shift": (width,), "scale": (width,), "rows": (n, width), "coef": (n_pairs, n), "intercept": (n_pairs,)}

    def _scores(self, x: Rows) -> Floats:
        kernel = np.exp(-self.gamma * _squared_distances((x - self.shift) / self.scale, self.rows))
        return _against_the_rest(kernel @ self.coef.T + self.intercept, len(self.classes_))


def _squared_distances(a: Rows, b: Rows) -> Rows:
    found: Rows = a @ b.T
    found *= -2
    found += np.einsum("ij,ij->i", a, a)[:, None]
    found += np.einsum("ij,ij->i", b, b)
    return np.maximum(found, 0, out=found)


def _against_the_rest(pairs: Floats, n_classes: int) -> Floats:
    """One score a class from those of pairs: its votes, and a little of its margins (as scikit-learn's SVC does)."""
    from sklearn.utils.multiclass import _ovr_decision_function

    if n_classes == 2:
        return class_scores(pairs)
    return np.asarray(_ovr_decision_function(pairs < 0, -pairs, n_classes), dtype=np.float64)


def _dual_of_pairs(machine: Any) -> Floats:
    """Spread libsvm's dual coefficients, (n_classes - 1, n_support), over the pairs of classes."""
    n_support, k = machine.n_support_, len(machine.classes_)
    ends = np.concatenate([[0], np.cumsum(n_support)])
    rows = []
    for i in range(k):
        for j in range(i + 1, k):
            row = np.zeros(ends[-1])
            row[ends[i] : ends[i + 1]] = machine.dual_coef_[j - 1, ends[i] : ends[i + 1]]
            row[ends[j] : ends[j + 1]] = machine.dual_coef_[i, ends[j] : ends[j + 1]]
            rows.append(row)
    return np.array(rows)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Support vector machines; distances between all rows are computed once for all folds and values.

    As scikit-learn's ``SVC(kernel="rbf")``, by which they are fitted.

    Attributes
    ----------
    cs : tuple of float
    gammas : tuple of float
        Times ``1 / (width * variance)``, which is scikit-learn's ``gamma="scale"``.
    """

    cs: tuple[float, ...]
    gammas: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "raw", "root", "root-l2")
    max_rows: int = 4_000
    coarse_rows: int = COARSE_ROWS

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{"C": c, "gamma": gamma} for gamma in self.gammas for c in self.cs]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return [{"C": self.cs[len(self.cs) // 2], "gamma": 1.0}]

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        rows, _ = self._mapped(problem, setting)
        distances = _squared_distances(rows, rows)
        scores = np.full((len(values), len(rows), problem.n_classes), np.nan)

        def try_one(job: tuple[int, int]) -> None:
            i, fold = job
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            gamma = float(values[i]["gamma"]) / rows.shape[1]
            machine = _machine(problem, setting, float(values[i]["C"]), distances, learned, gamma)
            kernel = np.exp(-gamma * distances[np.ix_(held, learned[machine.support_])])
            found = _against_the_rest(kernel @ _dual_of_pairs(machine).T + machine.intercept_, len(machine.classes_))
            # a class that the fold did not have is never its answer
            scores[i, held] = found.min() - 1
            scores[i, held[:, None], machine.classes_] = found
            problem.on_fit()

        in_threads(try_one, [(i, fold) for i in range(len(values)) for fold in range(problem.n_folds)])
        return held_out_from_scores(problem, values, lambda i: scores[i], criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> KernelHead:
        rows, columns = self._mapped(problem, setting)
        c, gamma = float(setting.values["C"]), float(setting.values["gamma"]) / rows.shape[1]
        if len(rows) <= self.max_rows:
            distances = _squared_distances(rows, rows)
            machine = _machine(problem, setting, c, distances, np.arange(len(rows)), gamma)
        else:
            machine = _fast_svc(problem, setting, c, gamma).fit(rows, problem.labels)
        return KernelHead(
            setting.view(problem).mapping,
            problem.n_classes,
            columns,
            rows[machine.support_],
            gamma,
            _dual_of_pairs(machine),
            machine.intercept_,
        )

    def _mapped(self, problem: Problem, setting: Setting) -> tuple[Rows, Columns]:
        view = setting.view(problem)
        _, columns = columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
        rows = np.empty(view.shape, np.float32)
        for block in blocks_of(len(rows)):
            rows[block] = columns.scaled(view[block])
        return rows, columns


def _machine(problem: Problem, setting: Setting, c: float, distances: Rows, learned: Labels, gamma: float) -> Any:
    """Fit libsvm on distances: its own kernel takes most of its time on rows as wide as embeddings."""
    kernel = np.exp(-gamma * distances[np.ix_(learned, learned)])
    return _svc(problem, setting, c, kernel="precomputed").fit(kernel, problem.labels[learned])


def _svc(problem: Problem, setting: Setting, c: float, **options: Any) -> Any:
    from sklearn.svm import SVC

    weight = "balanced" if setting.is_balanced else None
    return SVC(C=c, class_weight=weight, cache_size=500, random_state=problem.seed, **options)


def _fast_svc(problem: Problem, setting: Setting, c: float, gamma: float) -> Any:
    """scikit-learn-intelex where it is installed: nine times faster on 10,000 rows, the same predictions."""
    try:
        from sklearnex.svm import SVC
    except ImportError:
        return _svc(problem, setting, c, kernel="rbf", gamma=gamma)
    weight = "balanced" if setting.is_balanced else None
    return SVC(C=c, class_weight=weight, kernel="rbf", gamma=gamma, random_state=problem.seed)
