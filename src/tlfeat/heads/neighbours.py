"""k nearest neighbours by cosine, with votes that weigh by similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.heads.blocks import blocks_of, in_threads
from tlfeat.heads.columns import columns_by_fold
from tlfeat.heads.family import COARSE_ROWS, FittedHead, HeldOut, Problem, Setting, Values, held_out_from_scores
from tlfeat.types import Floats, Labels, Rows


class NeighbourHead(FittedHead):
    """Cosine votes of the nearest known rows: a fitted ``KNeighborsClassifier`` of scikit-learn, see `Neighbours`.

    Attributes
    ----------
    shift : float32 array of shape (width,)
        Taken from a row before its cosines.
    rows : float32 array of shape (n_known, width)
        Of length 1.
    labels : int array of shape (n_known,)
    votes : float32 array of shape (n_classes,)
        What the vote of an image of each class counts.
    k : int
    sharpness : float
        The temperature T of the votes exp(similarity / T).
    """

    def __init__(
        self,
        mapping: str,
        n_classes: int,
        shift: Rows,
        rows: Rows,
        labels: Labels,
        votes: Rows,
        k: int,
        sharpness: float,
    ) -> None:
        super().__init__(mapping, n_classes, rows.shape[1])
        self.shift, self.rows, self.labels, self.votes = shift, rows, labels, votes
        self.k, self.sharpness = k, sharpness

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n, width = len(self.rows), self.n_features_in_
        return {"shift": (width,), "rows": (n, width), "labels": (n,), "votes": (len(self.classes_),)}

    def _scores(self, x: Rows) -> Floats:
        similar, at = _nearest(_unit(x - self.shift), self.rows, self.k)
        return vote(similar, self.labels[at], self.votes, len(self.classes_), self.k, self.sharpness)


def _unit(x: Rows) -> Rows:
    lengths: Rows = np.sqrt(np.einsum("ij,ij->i", x, x))
    lengths[lengths == 0] = 1
    return x / lengths[:, None]


def _nearest(queries: Rows, known: Rows, k: int) -> tuple[Rows, Labels]:
    """Return similarities and positions of the k nearest known rows of each query, the nearest first."""
    similar: Rows = np.empty((len(queries), 0), np.float32)
    at = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(known), 8192):
        part = queries @ known[start : start + 8192].T
        few = min(k, part.shape[1])
        near = np.argpartition(-part, few - 1, axis=1)[:, :few]
        similar = np.concatenate([similar, np.take_along_axis(part, near, axis=1)], axis=1)
        at = np.concatenate([at, near + start], axis=1)
        # ties go to the earlier row, so that blocks decide nothing
        order = np.lexsort((at, -similar), axis=1)[:, :k]
        similar, at = np.take_along_axis(similar, order, axis=1), np.take_along_axis(at, order, axis=1)
    return similar, at


def vote(similar: Rows, labels: Labels, votes: Rows, n_classes: int, k: int, sharpness: float) -> Floats:
    """Return the log of the share of votes of each class, (n_images, n_classes).

    Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", arXiv:1805.01978,
    section 3.4: each of the k nearest votes with exp(similarity / T) for its class. One vote in a thousand is spread
    over all classes, so that no probability is 0.
    """
    similar, labels = similar[:, :k], labels[:, :k]
    weights = np.exp((similar - similar[:, :1]) / sharpness) * votes[labels]
    shares: Floats = np.zeros((len(similar), n_classes))
    np.add.at(shares, (np.arange(len(similar))[:, None], labels), weights)
    shares /= shares.sum(axis=1, keepdims=True)
    logs: Floats = np.log(shares + 1e-3 / n_classes)
    return logs


@dataclass(frozen=True, slots=True)
class Neighbours:
    """k nearest neighbours by cosine; the neighbours of every image outside its fold are found once for all values.

    As scikit-learn's ``KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp(-d / T))`` on centred rows,
    but for the one vote in a thousand that goes to all classes.

    Attributes
    ----------
    ks : tuple of int
    sharpnesses : tuple of float
        Temperatures T of the votes.
    """

    ks: tuple[int, ...]
    sharpnesses: tuple[float, ...]
    row_choices: tuple[str, ...] = ("raw", "root")
    max_rows: int = 50_000
    coarse_rows: int = COARSE_ROWS

    def grid(self, n_learned: int) -> Sequence[Values]:
        ks = sorted({min(k, n_learned) for k in self.ks})
        return [{"k": k, "T": sharpness} for sharpness in self.sharpnesses for k in ks]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        n = len(problem.labels)
        fewest = n - int(np.bincount(problem.fold_of[problem.fold_of >= 0]).max())
        k = min(max(int(v["k"]) for v in values), fewest)
        rows, _ = self._known(problem, setting)
        similar = np.full((n, k), -1, np.float32)
        labels = np.zeros((n, k), np.int64)
        for fold in range(problem.n_folds):
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            known = rows[learned]
            for block, found in zip(
                blocks_of(len(held)),
                in_threads(lambda b: _nearest(rows[held[b]], known, k), blocks_of(len(held))),  # noqa: B023
                strict=True,
            ):
                similar[held[block]], labels[held[block]] = found[0], problem.labels[learned[found[1]]]
        votes = _class_votes(problem, setting)

        def scores(i: int) -> Floats:
            found = vote(similar, labels, votes, problem.n_classes, int(values[i]["k"]), float(values[i]["T"]))
            found[problem.fold_of < 0] = np.nan
            for _ in range(problem.n_folds):
                problem.on_fit()
            return found

        return held_out_from_scores(problem, values, scores, criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> NeighbourHead:
        rows, shift = self._known(problem, setting)
        k = min(int(setting.values["k"]), len(rows))
        votes = _class_votes(problem, setting)
        mapping = setting.view(problem).mapping
        return NeighbourHead(
            mapping, problem.n_classes, shift, rows, problem.labels, votes, k, float(setting.values["T"])
        )

    def _known(self, problem: Problem, setting: Setting) -> tuple[Rows, Rows]:
        """All rows, centred and of length 1, and what was taken from them."""
        view = setting.view(problem)
        _, columns = columns_by_fold(view, problem.fold_of, problem.n_folds, "common")
        shift = columns.shift.astype(np.float32)
        rows = np.empty(view.shape, np.float32)
        for block in blocks_of(len(rows)):
            rows[block] = _unit(view[block] - shift)
        return rows, shift


def _class_votes(problem: Problem, setting: Setting) -> Rows:
    counts = np.bincount(problem.labels, minlength=problem.n_classes)
    return (1 / counts if setting.is_balanced else np.ones(len(counts))).astype(np.float32)
