"""The kinds of heads: how each explores its settings on all folds at once, and what it is when fitted.

A fitted head is plain arrays; it does to new rows what its setting says and gives scores and probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.blocks import MAPPINGS, Floats, RowSource, View, blocks_of, in_threads
from tlfeat.calibration import best_temperature, log_loss, softmax
from tlfeat.encoder import Rows
from tlfeat.evaluate import Labels
from tlfeat.linear import (
    MAX_COVARIANCE,
    Columns,
    Effort,
    Fit,
    Metric,
    Solution,
    columns_of,
    covariance,
    discriminants,
    fit_paths,
    least_squares,
    n_columns,
    scatters,
    sums_by_group,
)
from tlfeat.search import Explored, Problem, Setting, Values

#: A search only has to tell settings apart; the head that is kept is solved further.
_SEARCH = Effort(tolerance=1e-3, max_rounds=40)
_FINAL = Effort(tolerance=1e-6, max_rounds=1000)

#: A path ends when so many values were clearly worse in loss and no better in accuracy, and none better in between.
_PATIENCE = 6
_CLEARLY_WORSE = 1.1


class _Fitted:
    """What every fitted head has."""

    def __init__(self, mapping: str, n_classes: int, width: int) -> None:
        self.mapping = mapping
        self.classes_: Labels = np.arange(n_classes)
        self.n_features_in_ = width
        self.temperature = 1.0

    def check(self) -> None:
        """Raise ValueError unless the parts, which may come from a stranger's file, fit together."""
        for name, shape in {"classes_": (len(self.classes_),), **self._shapes()}.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} is not an array of {shape} finite numbers")
        numbers = [getattr(self, name) for name in ("temperature", "k", "sharpness", "gamma") if hasattr(self, name)]
        if self.mapping not in MAPPINGS or not all(isinstance(n, int | float) and n > 0 for n in numbers):
            raise ValueError("a mapping or a number that no head has")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays and the shapes that they must have."""
        raise NotImplementedError

    def scores(self, rows: RowSource) -> Floats:
        """Return scores of shape (n_images, n_classes); the largest is the class."""
        blocks = blocks_of(rows.shape[0])
        if not blocks:
            return np.empty((0, len(self.classes_)))
        return np.concatenate(in_threads(lambda block: self._scores(MAPPINGS[self.mapping](rows[block])), blocks))

    def _scores(self, x: Rows) -> Floats:
        raise NotImplementedError

    def predict_proba(self, rows: RowSource) -> Floats:
        """Return probabilities of shape (n_images, n_classes)."""
        return softmax(self.scores(rows), self.temperature)

    def predict(self, rows: RowSource) -> Labels:
        """Return the most probable class of each image."""
        best: Labels = self.scores(rows).argmax(axis=1)
        return best


class LinearHead(_Fitted):
    """Scores ``mapping(x) @ coef + intercept``; centring and scaling are in the coefficients.

    Attributes
    ----------
    coef : float32 array of shape (width, n_classes), or (width, 1) for two classes
    intercept : array of shape (n_classes,), or (1,)
    """

    def __init__(self, mapping: str, n_classes: int, coef: Rows, intercept: Floats) -> None:
        super().__init__(mapping, n_classes, len(coef))
        self.coef = coef
        self.intercept = intercept

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        k = n_columns(len(self.classes_))
        return {"coef": (self.n_features_in_, k), "intercept": (k,)}

    def _scores(self, x: Rows) -> Floats:
        return _two_sided(x @ self.coef + self.intercept)


def _two_sided(z: Floats | Rows) -> Floats:
    """One score for two classes becomes one each, whose softmax is the sigmoid."""
    return np.asarray(np.concatenate([-z / 2, z / 2], axis=1) if z.shape[1] == 1 else z, dtype=np.float64)


# --- linear heads -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Penalised:
    """Linear heads of a smooth loss with an L2 penalty; see ``linear.fit_paths``.

    Attributes
    ----------
    loss : str
        One of `linear.LOSSES`.
    parameter : str
        "C", the inverse of the penalty beside the sum of the losses, or "alpha", that penalty.
    path : tuple of float
        Values from the strongest penalty to the weakest.
    """

    loss: str
    parameter: str
    path: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "raw", "l2", "root", "root-l2", "whitened")
    max_rows: int = 2**62

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{self.parameter: value} for value in self.path]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[::4]

    def _penalty(self, values: Values, total: float) -> float:
        value = float(values[self.parameter])
        return 1 / (value * total) if self.parameter == "C" else value / total

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
        view, weights = setting.view(problem), problem.weights(setting.is_balanced)
        fold_of, n_folds, n = problem.fold_of, problem.n_folds, len(problem.labels)
        columns, of_all = _columns_by_fold(view, fold_of, n_folds, setting.scaling)
        fits = []
        for fold in range(n_folds):
            learned = np.where(fold_of == fold, np.float32(0), weights)
            total = float(learned.sum(dtype=np.float64))
            fits.append(Fit(learned, columns[fold], [self._penalty(v, total) for v in values]))
        right = np.zeros((len(values), n), bool)
        losses = np.full((len(values), n_folds), np.inf)
        solutions: dict[tuple[int, int], tuple[Rows, Floats]] = {}
        best = [(np.inf, -1.0, 0)] * n_folds

        def on_solution(found: Solution) -> bool:
            fold, i, scores = found.fit, found.penalty, _two_sided(found.scores)
            solutions[fold, i] = found.coef, found.intercept
            labels, counted = problem.labels[found.held], criterion_weights[found.held]
            is_right = scores.argmax(axis=1) == labels
            right[i, found.held] = is_right
            losses[i, fold] = self._loss(scores, labels) @ counted
            accuracy = float(is_right @ counted)
            lowest, highest, n_worse = best[fold]
            if losses[i, fold] < lowest or accuracy > highest:
                n_worse = 0
            elif (
                losses[i, fold] > _CLEARLY_WORSE * lowest
            ):  # under strong penalties little moves, and that costs little
                n_worse += 1
            best[fold] = min(lowest, losses[i, fold]), max(highest, accuracy), n_worse
            return n_worse < _PATIENCE

        fit_paths(
            view,
            problem.labels,
            problem.n_classes,
            self.loss,
            fits,
            Metric.of(view, of_all),
            effort=_SEARCH,
            fold_of=fold_of,
            on_solution=on_solution,
        )

        def scores(i: int) -> Floats:
            folds = [fits[fold].columns.to_rows(*solutions[fold, i]) for fold in range(n_folds)]
            return _held_scores(view, problem, folds)

        def start(i: int) -> tuple[Rows, Floats]:
            found = [solutions[fold, i] for fold in range(n_folds)]
            coef = np.asarray(np.mean([coef for coef, _ in found], axis=0, dtype=np.float32))
            return coef, np.asarray(np.mean([intercept for _, intercept in found], axis=0))

        return Explored(values, right, losses.sum(axis=1) / criterion_weights.sum(), scores, start)

    def _loss(self, scores: Floats, labels: Labels) -> Floats:
        """The head's own loss of each image, at scores of one column a class."""
        own = np.arange(len(labels)), labels
        if self.loss == "logistic":
            top = scores.max(axis=1)
            losses: Floats = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[own]
            return losses
        if scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
            margins = np.where(labels[:, None] == 1, scores, -scores)
        else:
            margins = -scores
            margins[own] *= -1
        missing = 1 - margins
        if self.loss == "squared hinge":
            missing = np.maximum(missing, 0)
        squares: Floats = (missing**2).sum(axis=1)
        return squares

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> LinearHead:
        view, weights = setting.view(problem), problem.weights(setting.is_balanced)
        _, columns = _columns_by_fold(view, np.full(len(problem.labels), -1), 0, setting.scaling)
        total = float(weights.sum(dtype=np.float64))
        penalty, metric = self._penalty(setting.values, total), Metric.of(view, columns)
        n, width = view.shape
        if (
            self.loss == "squared"
            and metric is None
            and columns.rotation is None
            and width <= min(2 * n, MAX_COVARIANCE)
        ):
            solution = least_squares(view, problem.labels, problem.n_classes, weights, columns, penalty)
            return LinearHead(view.mapping, problem.n_classes, *columns.to_rows(*solution))
        found: list[tuple[Rows, Floats]] = []

        def on_solution(solution: Solution) -> bool:
            found.append(columns.to_rows(solution.coef, solution.intercept))
            return False

        fit = Fit(weights, columns, [penalty], start)
        fit_paths(
            view, problem.labels, problem.n_classes, self.loss, [fit], metric, effort=_FINAL, on_solution=on_solution
        )
        return LinearHead(view.mapping, problem.n_classes, *found[0])


def _held_scores(view: View, problem: Problem, folds: Sequence[tuple[Rows, Floats]]) -> Floats:
    """Scores (n_images, n_classes) of each image under the coefficients of its fold; NaN for images of no fold."""
    scores = np.full((len(problem.labels), problem.n_classes), np.nan)

    def fill(block: slice) -> None:
        x = view[block]
        for fold, (coef, intercept) in enumerate(folds):
            held = problem.fold_of[block] == fold
            scores[block][held] = _two_sided(x[held] @ coef + intercept)

    in_threads(fill, blocks_of(len(scores)))
    return scores


def _columns_by_fold(view: View, fold_of: Labels, n_folds: int, scaling: str) -> tuple[list[Columns], Columns]:
    """Return the map of the columns that each fold's fit may know, and that of all images.

    A rotation is computed from all of them: it knows no label, but the rows of images held out.
    """
    origin, n, sums, squares = sums_by_group(view, np.where(fold_of < 0, n_folds, fold_of), n_folds + 1)
    kind = "each" if scaling == "each" else "common"
    of_all = columns_of(origin, n.sum(), sums.sum(axis=0), squares.sum(axis=0), kind)
    if scaling == "whiten":
        values, vectors = np.linalg.eigh(covariance(view, of_all))
        of_all = Columns(
            of_all.shift, of_all.scale, vectors / np.sqrt(np.maximum(values, 0) + max(values.mean(), 1e-6))
        )
        return [of_all] * n_folds, of_all
    folds = [
        columns_of(origin, n.sum() - n[f], sums.sum(axis=0) - sums[f], squares.sum(axis=0) - squares[f], kind)
        for f in range(n_folds)
    ]
    return folds, of_all


@dataclass(frozen=True, slots=True)
class Discriminant:
    """Linear discriminant analysis with shrunk covariance; see ``linear.discriminants``."""

    shrinkages: tuple[float, ...]
    row_choices: tuple[str, ...] = ("standardised", "root")
    max_rows: int = 2**62

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{"shrinkage": value} for value in self.shrinkages]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[::2]

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
        view = setting.view(problem)
        columns, counts, sums, squares = self._moments(problem, setting)
        total = squares.sum(axis=0)

        solutions = [
            [
                columns.to_rows(*solution)
                for solution in discriminants(
                    counts.sum(axis=0) - counts[fold],
                    sums.sum(axis=0) - sums[fold],
                    total - squares[fold],
                    [float(v["shrinkage"]) for v in values],
                    is_balanced=setting.is_balanced,
                )
            ]
            for fold in range(problem.n_folds)
        ]

        def scores(i: int) -> Floats:
            return _held_scores(view, problem, [of_fold[i] for of_fold in solutions])

        return judged(problem, values, scores, criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> LinearHead:
        columns, counts, sums, squares = self._moments(problem, setting)
        found = discriminants(
            counts.sum(axis=0),
            sums.sum(axis=0),
            squares.sum(axis=0),
            [float(setting.values["shrinkage"])],
            is_balanced=setting.is_balanced,
        )
        mapping = setting.view(problem).mapping
        return LinearHead(mapping, problem.n_classes, *columns.to_rows(*next(found)))

    def _moments(self, problem: Problem, setting: Setting) -> tuple[Columns, Floats, Floats, Rows]:
        """Counts, sums and scatter of the classes in each fold (the last one: images of no fold)."""
        view, k, n_folds = setting.view(problem), problem.n_classes, problem.n_folds
        fold_of = np.where(problem.fold_of < 0, n_folds, problem.fold_of)
        _, columns = _columns_by_fold(view, problem.fold_of, n_folds, setting.scaling)
        origin, counts, sums, _ = sums_by_group(view, fold_of * k + problem.labels, (n_folds + 1) * k)
        centred = (sums - counts[:, None] * (columns.shift - origin)) / columns.scale
        squares = scatters(view, columns, fold_of, n_folds)
        return columns, counts.reshape(-1, k), centred.reshape(n_folds + 1, k, -1), squares


def judged(
    problem: Problem, values: Sequence[Values], scores: Callable[[int], Floats], criterion_weights: Rows
) -> Explored:
    """Judge held-out scores, made for one value at a time, by their log loss at their best temperature."""
    held = np.flatnonzero(problem.fold_of >= 0)
    labels, weights = problem.labels[held], criterion_weights[held]
    right = np.zeros((len(values), len(problem.labels)), bool)
    losses = np.zeros(len(values))
    for i in range(len(values)):
        found = scores(i)[held]
        right[i, held] = found.argmax(axis=1) == labels
        losses[i] = log_loss(found, labels, weights, best_temperature(found, labels))
    return Explored(values, right, losses, scores)


# --- neighbours ---------------------------------------------------------------------------------------------


class NeighbourHead(_Fitted):
    """Cosine votes of the nearest known rows.

    Attributes
    ----------
    rows : float32 array of shape (n_known, width)
        Of length 1.
    labels : int array of shape (n_known,)
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
    """k nearest neighbours by cosine; the neighbours of every image outside its fold are found once for all values."""

    ks: tuple[int, ...]
    sharpnesses: tuple[float, ...]
    row_choices: tuple[str, ...] = ("raw", "root")
    max_rows: int = 50_000

    def grid(self, n_learned: int) -> Sequence[Values]:
        ks = sorted({min(k, n_learned) for k in self.ks})
        return [{"k": k, "T": sharpness} for sharpness in self.sharpnesses for k in ks]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
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
            return found

        return judged(problem, values, scores, criterion_weights)

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
        _, columns = _columns_by_fold(view, problem.fold_of, problem.n_folds, "common")
        shift = columns.shift.astype(np.float32)
        rows = np.empty(view.shape, np.float32)
        for block in blocks_of(len(rows)):
            rows[block] = _unit(view[block] - shift)
        return rows, shift


def _class_votes(problem: Problem, setting: Setting) -> Rows:
    counts = np.bincount(problem.labels, minlength=problem.n_classes)
    return (1 / counts if setting.is_balanced else np.ones(len(counts))).astype(np.float32)


# --- kernels ------------------------------------------------------------------------------------------------


class KernelHead(_Fitted):
    """A support vector machine with radial basis functions, one against one.

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
        return _two_sided(pairs)
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
    """Support vector machines; distances between all rows are computed once for all folds and values."""

    cs: tuple[float, ...]
    gammas: tuple[float, ...]  # times 1 / (width x variance)
    row_choices: tuple[str, ...] = ("standardised", "raw", "root", "root-l2")
    max_rows: int = 4_000

    def grid(self, n_learned: int) -> Sequence[Values]:
        return [{"C": c, "gamma": gamma} for gamma in self.gammas for c in self.cs]

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return [{"C": self.cs[len(self.cs) // 2], "gamma": 1.0}]

    def explore(
        self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows
    ) -> Explored:
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

        in_threads(try_one, [(i, fold) for i in range(len(values)) for fold in range(problem.n_folds)])
        return judged(problem, values, lambda i: scores[i], criterion_weights)

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
        _, columns = _columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
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
