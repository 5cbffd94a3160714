"""The head of few labels and many images without one: held out, fitted and saved like every other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.columns import columns_by_fold
from tlfeat.heads.family import Fitted, HeldOut, Problem, Setting, Values, held_out_from_scores, of_all_classes
from tlfeat.heads.learner import C
from tlfeat.heads.pipelines import linear_classifier, steps_of, unit_of
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.types import Labels, Rows


@dataclass(frozen=True, slots=True)
class Spreading:
    """Logistic regression of labels and of what they spread to. Nothing is searched.

    Attributes
    ----------
    unlabelled : float32 array of shape (n_unlabelled, width)
        Rows that labels spread to; none of a test image.
    """

    unlabelled: Rows
    row_choices: tuple[str, ...] = ("l2",)
    max_rows: int = 10_000
    coarse_rows: int = 1_000
    weighs_classes: bool = False

    def grid(self, n_learned: int) -> Sequence[Values]:
        return ({"C": C},)

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        graph, places = self._graph_of(problem, setting)
        scores = np.full((len(places), problem.n_classes), np.nan)
        for fold in range(problem.n_folds):
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            labels = problem.labels[learned]
            found = fit_spread(graph, places[learned], labels, problem.n_classes).scores(graph.rows[places[held]])
            known = np.unique(labels)
            scores[held] = of_all_classes(found[:, known].astype(np.float64), known, problem.n_classes)
            problem.on_fit()
        return held_out_from_scores(problem, values, lambda _: scores, criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        graph, places = self._graph_of(problem, setting)
        _, columns = columns_by_fold(setting.view(problem), problem.fold_of, problem.n_folds, setting.scaling)
        head = fit_spread(graph, places, problem.labels, problem.n_classes)
        coef, intercept = head.coef, head.intercept + columns.shift @ head.coef
        if problem.n_classes == 2:
            coef, intercept = coef[:, 1:] - coef[:, :1], intercept[1:] - intercept[:1]
        unit = unit_of(setting, columns)
        classifier = linear_classifier("logistic", C, problem, setting, coef, intercept, unit)
        return Fitted(steps_of(setting, problem, columns), classifier, {"C": C, "unlabelled": len(self.unlabelled)})

    def _graph_of(self, problem: Problem, setting: Setting) -> tuple[Graph, Labels]:
        """Return the graph of all rows in random order, and where the labelled ones are in it."""
        columns = slice(*setting.columns)
        rows = np.concatenate([problem.rows[slice(0, len(problem.labels))][:, columns], self.unlabelled[:, columns]])
        order = np.random.default_rng(problem.seed).permutation(len(rows))
        return Graph(rows[order]), np.argsort(order)[: len(problem.labels)]
