"""Heads that were saved before heads became pipelines of scikit-learn: arrays that load and answer as they did.

Nothing makes them any more; skops and pickle fill their attributes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tlfeat.evaluate.calibration import softmax
from tlfeat.heads.blocks import blocks_of, in_threads
from tlfeat.heads.distances import nearest, squared_distances
from tlfeat.heads.family import against_the_rest, class_scores
from tlfeat.heads.known_rows import directions_of
from tlfeat.types import Floats, Labels, Rows, RowSource


def _by_length(x: Rows) -> Rows:
    """Each row scaled to length sqrt(width)."""
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64) / x.shape[1])
    return x / np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]


def _root(x: Rows) -> Rows:
    """The signed square root."""
    root: Rows = np.sqrt(np.abs(x))
    return np.copysign(root, x, out=root)


#: What is done to each row by itself.
_MAPPINGS: dict[str, Callable[[Rows], Rows]] = {
    "raw": lambda x: x,
    "l2": _by_length,
    "root": _root,
    "root-l2": lambda x: _by_length(_root(x)),
}


class EarlierHead:
    """What these heads share: scores of mapped rows, and probabilities by a temperature.

    Attributes
    ----------
    mapping : str
        One of `_MAPPINGS`.
    classes_ : int array of shape (n_classes,)
    n_features_in_ : int
        Columns of the rows that it takes.
    temperature : float
        Scores are divided by it before the softmax.
    """

    mapping: str
    classes_: Labels
    n_features_in_: int
    temperature: float

    def check(self) -> None:
        """Raise ValueError unless the parts, which may come from a stranger's file, fit together."""
        for name, shape in {"classes_": (len(self.classes_),), **self._shapes()}.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} is not an array of {shape} finite numbers")
        numbers = [getattr(self, name) for name in ("temperature", "k", "sharpness", "gamma") if hasattr(self, name)]
        if self.mapping not in _MAPPINGS or not all(isinstance(n, int | float) and n > 0 for n in numbers):
            raise ValueError("a mapping or a number that no head has")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays and the shapes that they must have."""
        raise NotImplementedError

    def scores(self, rows: RowSource) -> Floats:
        """Return scores of shape (n_images, n_classes); the largest is the class."""
        blocks = blocks_of(rows.shape[0])
        if not blocks:
            return np.empty((0, len(self.classes_)))
        return np.concatenate(in_threads(lambda block: self._scores(_MAPPINGS[self.mapping](rows[block])), blocks))

    def _scores(self, x: Rows) -> Floats:
        raise NotImplementedError

    def predict_proba(self, rows: RowSource) -> Floats:
        """Return probabilities of shape (n_images, n_classes)."""
        return softmax(self.scores(rows), self.temperature)

    def predict(self, rows: RowSource) -> Labels:
        """Return the number of the most probable class of each image."""
        best: Labels = self.scores(rows).argmax(axis=1)
        return best


class LinearHead(EarlierHead):
    """Scores ``mapping(x) @ coef + intercept``; centring and scaling are in the coefficients.

    Attributes
    ----------
    coef : float32 array of shape (width, n_classes), or (width, 1) for two classes
        Discriminant analysis has a column for each of two classes as well.
    intercept : array of shape (n_classes,), or (1,)
    """

    coef: Rows
    intercept: Floats

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n_classes = len(self.classes_)
        one_for_two = n_classes == 2 and np.shape(self.coef)[1:] == (1,)
        k = 1 if one_for_two else n_classes
        return {"coef": (self.n_features_in_, k), "intercept": (k,)}

    def _scores(self, x: Rows) -> Floats:
        return class_scores(x @ self.coef + self.intercept)


class KernelHead(EarlierHead):
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

    shift: Rows
    scale: Rows
    rows: Rows
    gamma: float
    coef: Floats
    intercept: Floats

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n, width, n_classes = len(self.rows), self.n_features_in_, len(self.classes_)
        n_pairs = n_classes * (n_classes - 1) // 2
        return {"shift": (width,), "scale": (width,), "rows": (n, width), "coef": (n_pairs, n), "intercept": (n_pairs,)}

    def _scores(self, x: Rows) -> Floats:
        kernel = np.exp(-self.gamma * squared_distances((x - self.shift) / self.scale, self.rows))
        return against_the_rest(kernel @ self.coef.T + self.intercept, len(self.classes_))


class NeighbourHead(EarlierHead):
    """Votes exp(cosine / T) of the nearest known rows (Wu et al. 2018, arXiv:1805.01978, section 3.4).

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
        The temperature T of the votes.
    """

    shift: Rows
    rows: Rows
    labels: Labels
    votes: Rows
    k: int
    sharpness: float

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n, width = len(self.rows), self.n_features_in_
        return {"shift": (width,), "rows": (n, width), "labels": (n,), "votes": (len(self.classes_),)}

    def _scores(self, x: Rows) -> Floats:
        """Return the log of the share of votes; one vote in a thousand is spread over all classes."""
        similar, at = nearest(directions_of(x - self.shift), self.rows, self.k)
        labels, n_classes = self.labels[at], len(self.classes_)
        weights = np.exp((similar - similar[:, :1]) / self.sharpness) * self.votes[labels]
        shares: Floats = np.zeros((len(similar), n_classes))
        np.add.at(shares, (np.arange(len(similar))[:, None], labels), weights)
        shares /= shares.sum(axis=1, keepdims=True)
        logs: Floats = np.log(shares + 1e-3 / n_classes)
        return logs
