"""Support vector machines with radial basis functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import in_threads
from tlfeat.heads.columns import Columns, columns_by_fold
from tlfeat.heads.distances import squared_distances
from tlfeat.heads.earlier import KernelHead as KernelHead
from tlfeat.heads.family import (
    COARSE_ROWS,
    Fitted,
    HeldOut,
    Problem,
    Setting,
    Values,
    against_the_rest,
    held_out_from_scores,
    of_all_classes,
)
from tlfeat.heads.pipelines import dual_of_pairs, rounded, steps_of, support_vector_machine, unit_of
from tlfeat.types import Labels, Rows


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
    weighs_classes: bool = True

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{"C": c, "gamma": gamma} for gamma in self.gammas for c in self.cs]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return [{"C": self.cs[len(self.cs) // 2], "gamma": 1.0}]

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        rows, _ = self._mapped(problem, setting)
        distances = squared_distances(rows, rows)
        scores = np.full((len(values), len(rows), problem.n_classes), np.nan)

        def try_one(job: tuple[int, int]) -> None:
            i, fold = job
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            gamma = float(values[i]["gamma"]) / rows.shape[1]
            machine = _machine(problem, setting, float(values[i]["C"]), distances, learned, gamma)
            kernel = np.exp(-gamma * distances[np.ix_(held, learned[machine.support_])])
            found = against_the_rest(kernel @ dual_of_pairs(machine).T + machine.intercept_, len(machine.classes_))
            scores[i, held] = of_all_classes(found, machine.classes_, problem.n_classes)
            problem.on_fit()

        in_threads(try_one, [(i, fold) for i in range(len(values)) for fold in range(problem.n_folds)])
        return held_out_from_scores(problem, values, lambda i: scores[i], criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        rows, columns = self._mapped(problem, setting)
        unit, c = unit_of(setting, columns), float(setting.values["C"])
        # gamma is for distances of rows as `steps_of` gives them
        gamma = rounded(float(setting.values["gamma"]) / rows.shape[1] / unit**2)
        if len(rows) <= self.max_rows:
            distances = squared_distances(rows, rows)
            machine = _machine(problem, setting, c, distances, np.arange(len(rows)), gamma * unit**2)
        else:
            machine = _fast_svc(problem, setting, c, gamma * unit**2).fit(rows, problem.labels)
        classifier = support_vector_machine(c, gamma, problem, setting, machine, rows, unit)
        return Fitted(steps_of(setting, problem, columns), classifier, {"C": c, "gamma": gamma})

    def _mapped(self, problem: Problem, setting: Setting) -> tuple[Rows, Columns]:
        view = setting.view(problem)
        _, columns = columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
        return columns.all_scaled(view), columns


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
