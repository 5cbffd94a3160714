"""k nearest neighbours by cosine, with equal votes or votes that weigh by nearness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import blocks_of, in_threads
from tlfeat.heads.columns import Columns, columns_by_fold
from tlfeat.heads.distances import nearest
from tlfeat.heads.earlier import NeighbourHead as NeighbourHead
from tlfeat.heads.family import (
    COARSE_ROWS,
    SMALLEST_SHARE,
    Fitted,
    HeldOut,
    Problem,
    Setting,
    Values,
    held_out_from_scores,
)
from tlfeat.heads.known_rows import directions_of
from tlfeat.heads.pipelines import nearest_neighbours, steps_of
from tlfeat.types import Floats, Labels, Rows


def vote(similar: Rows, labels: Labels, n_classes: int, k: int, weights: str) -> Floats:
    """Return the log of the share of votes of each class, (n_images, n_classes), of the k nearest known rows.

    Parameters
    ----------
    similar : array of shape (n_images, at least k)
        Cosines of the neighbours, the nearest first.
    labels : int array of the same shape
    weights : str
        ``uniform``, or ``distance``: each votes with 1 / (1 - cosine), and those at no distance alone. As
        scikit-learn's ``KNeighborsClassifier``.
    """
    similar, labels = similar[:, :k], labels[:, :k]
    votes = np.ones(similar.shape)
    if weights == "distance":
        distances = np.maximum(1 - similar.astype(np.float64), 0)
        is_same = distances == 0
        with np.errstate(divide="ignore"):
            votes = np.where(is_same.any(axis=1)[:, None], is_same, 1 / distances)
    shares: Floats = np.zeros((len(similar), n_classes))
    np.add.at(shares, (np.arange(len(similar))[:, None], labels), votes)
    shares /= shares.sum(axis=1, keepdims=True)
    logs: Floats = np.log(shares + SMALLEST_SHARE)
    return logs


@dataclass(frozen=True, slots=True)
class Neighbours:
    """k nearest neighbours by cosine; the neighbours of every image outside its fold are found once for all values.

    As scikit-learn's ``KNeighborsClassifier(n_neighbors, metric="cosine", weights=...)`` on centred rows. Votes of
    exp(cosine / T), as of Wu et al. 2018 (arXiv:1805.01978), would need a function that no saved head of scikit-learn
    can hold; what that costs, and brings, stands in docs/benchmarks/search.md.

    Attributes
    ----------
    ks : tuple of int
    """

    ks: tuple[int, ...]
    row_choices: tuple[str, ...] = ("raw", "root")
    max_rows: int = 50_000
    coarse_rows: int = COARSE_ROWS
    weighs_classes: bool = False

    def grid(self, n_learned: int) -> Sequence[Values]:
        ks = sorted({min(k, n_learned) for k in self.ks})
        return [{"n_neighbors": k, "weights": weights} for weights in ("distance", "uniform") for k in ks]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        n = len(problem.labels)
        fewest = n - int(np.bincount(problem.fold_of[problem.fold_of >= 0]).max())
        k = min(max(int(v["n_neighbors"]) for v in values), fewest)
        rows = self._centred(problem, setting)[0]
        for block in blocks_of(n):
            rows[block] = directions_of(rows[block])
        similar = np.full((n, k), -1, np.float32)
        labels = np.zeros((n, k), np.int64)
        for fold in range(problem.n_folds):
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            known = rows[learned]
            for block, found in zip(
                blocks_of(len(held)),
                in_threads(lambda b: nearest(rows[held[b]], known, k), blocks_of(len(held))),  # noqa: B023
                strict=True,
            ):
                similar[held[block]], labels[held[block]] = found[0], problem.labels[learned[found[1]]]

        def scores(i: int) -> Floats:
            found = vote(similar, labels, problem.n_classes, int(values[i]["n_neighbors"]), values[i]["weights"])
            found[problem.fold_of < 0] = np.nan
            for _ in range(problem.n_folds):
                problem.on_fit()
            return found

        return held_out_from_scores(problem, values, scores, criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        rows, columns = self._centred(problem, setting)
        values = {**setting.values, "n_neighbors": min(int(setting.values["n_neighbors"]), len(rows))}
        classifier = nearest_neighbours(**values, rows=rows, labels=problem.labels, problem=problem)
        return Fitted(steps_of(setting, problem, columns), classifier, values)

    def _centred(self, problem: Problem, setting: Setting) -> tuple[Rows, Columns]:
        view = setting.view(problem)
        _, columns = columns_by_fold(view, problem.fold_of, problem.n_folds, "common")
        shift = columns.shift.astype(np.float32)
        rows = np.empty(view.shape, np.float32)
        for block in blocks_of(len(rows)):
            rows[block] = view[block] - shift
        return rows, columns
