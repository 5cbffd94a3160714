"""A fitted head as native Keras layers: what ``predict_proba`` computes, in a graph that other runtimes take.

Nothing here needs tlfeat when the network is loaded again: only layers and operations that Keras itself has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.errors import ModelError
from tlfeat.heads.earlier import EarlierHead, KernelHead, LinearHead, NeighbourHead
from tlfeat.heads.family import SMALLEST_SHARE
from tlfeat.heads.known_rows import directions_of
from tlfeat.heads.pipelines import classifier_of, dual_of_pairs

#: Name of the output.
PROBABILITIES = "probabilities"

#: ONNX and TFLite end at 2 GB a file, and the backbone wants its part of it.
MAX_BYTES = 1_000_000_000

Array = npt.NDArray[Any]


def add_head(head: Any, rows: Any) -> Any:
    """Return the symbolic probabilities, float32 of shape (n, n_classes), that a head gives to `rows`.

    Parameters
    ----------
    head : sklearn.pipeline.Pipeline or EarlierHead
        Any that ``fit-sklearn`` makes of the table in ``heads``, or made before. A linear classifier becomes one Dense
        layer with its temperature in the coefficients.
    rows : KerasTensor of shape (n, width)

    Raises
    ------
    ModelError
        A head of an older version or of another estimator, or one that holds too many rows for one file.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if isinstance(head, EarlierHead):
        return _earlier(head, rows)
    if not hasattr(head, "steps"):
        raise ModelError(
            f"The head is a {type(head).__name__} that an older tlfeat fitted and cannot be exported. "
            f"Fit it again with tlfeat fit-sklearn, in seconds, or go on with tlfeat predict, which takes it."
        )
    (classifier, temperature), x = classifier_of(head), rows
    if hasattr(classifier, "coef_") and not isinstance(classifier, SVC):
        return _linear(classifier, temperature, _taken(head, x))
    if not isinstance(classifier, SVC | KNeighborsClassifier):
        raise ModelError(f"A {type(classifier).__name__} cannot be exported. tlfeat predict takes it.")
    if isinstance(classifier, KNeighborsClassifier):
        return _neighbours(classifier, temperature, _taken(head, x))
    rows, coef = classifier.support_vectors_, dual_of_pairs(classifier)
    kernel = _kernel(_taken(head, x), rows, classifier._gamma)
    return _by_pairs(kernel, coef, classifier.intercept_, len(classifier.classes_), temperature, 1)


def _taken(head: Any, x: Any) -> Any:
    """What the transformers of a pipeline do to rows; see ``heads.pipelines.steps_of`` and ``adapt.domain_maps``."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

    ops, keras = import_keras().ops, import_keras()
    for _, step in head.steps[:-1]:
        if isinstance(step, FunctionTransformer) and step.func in (np.sqrt, np.cbrt):
            x = ops.sqrt(x) if step.func is np.sqrt else ops.sign(x) * ops.power(ops.abs(x), 1 / 3)
        elif isinstance(step, Normalizer):
            x = _over_length(x)
        elif isinstance(step, PCA):
            turn = step.components_.T / (np.sqrt(step.explained_variance_) if step.whiten else 1.0)
            x = _dense(x, turn, -step.mean_ @ turn)
        elif isinstance(step, StandardScaler):
            scale = np.ones(len(step.mean_)) if step.scale_ is None else step.scale_
            x = keras.layers.Normalization(mean=step.mean_, variance=np.square(scale))(x)
        else:
            raise ModelError(f"The head begins with a {type(step).__name__} that cannot be exported.")
    return x


def _over_length(x: Any) -> Any:
    """Rows of length 1; a row of zeros stays one."""
    ops = import_keras().ops
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x / ops.sqrt(ops.where(squares > 0, squares, ops.ones_like(squares)))


def _dense(x: Any, kernel: Array, bias: Array | None = None, **options: Any) -> Any:
    """A Dense layer with given weights; `kernel` has shape (width, units)."""
    layer = import_keras().layers.Dense(kernel.shape[1], use_bias=bias is not None, **options)
    y = layer(x)
    layer.set_weights([w.astype(np.float32) for w in (kernel, bias) if w is not None])
    return y


def _linear(classifier: Any, temperature: float, x: Any) -> Any:
    # LogisticRegression has its own probabilities: of s and 0 for one score s, others of s and -s
    coef = np.atleast_2d(classifier.coef_).T
    return _by_dense(x, coef, classifier.intercept_, temperature, 0.5 if _is_logistic(classifier) else 1)


def _is_logistic(classifier: Any) -> bool:
    from sklearn.linear_model import LogisticRegression

    return isinstance(classifier, LogisticRegression)


def _by_dense(x: Any, kernel: Array, bias: Array, temperature: float, side: float) -> Any:
    """Probabilities of scores; one score s for two classes becomes -s and s, times `side`."""
    kernel, bias = kernel.astype(np.float64), np.asarray(bias, dtype=np.float64)
    if kernel.shape[1] == 1:
        sides = side * np.array([[-1.0, 1.0]])
        kernel, bias = kernel @ sides, bias @ sides
    return _dense(x, kernel / temperature, bias / temperature, activation="softmax", name=PROBABILITIES)


def _softmax(scores: Any, temperature: float) -> Any:
    return import_keras().layers.Softmax(name=PROBABILITIES)(scores / temperature)


def _check_size(known: Array) -> None:
    if 4 * known.size > MAX_BYTES:
        raise ModelError(
            f"The head holds {len(known):,} known rows, {4 * known.size / 1e9:.1f} GB, more than one file can take "
            f"({MAX_BYTES / 1e9:.0f} GB). Fit a linear head (logreg, linear-svm, ridge, lda), or go on with tlfeat "
            f"predict."
        )


def _kernel(x: Any, rows: Array, gamma: float) -> Any:
    """Radial basis functions around the support vectors, which are the weights of one Dense layer."""
    _check_size(rows)
    ops, rows = import_keras().ops, rows.astype(np.float64)
    distances = _dense(x, -2 * rows.T, np.square(rows).sum(axis=1)) + ops.sum(ops.square(x), axis=-1, keepdims=True)
    return ops.exp(-gamma * ops.relu(distances))  # (n, n_support)


def _by_pairs(kernel: Any, coef: Array, intercept: Array, n: int, temperature: float, side: float) -> Any:
    """Probabilities of `n` classes by the dual coefficients of their pairs, of shape (n_pairs, n_support)."""
    ops = import_keras().ops
    if n == 2:
        return _by_dense(kernel, coef.T, intercept, temperature, side)
    pairs = _dense(kernel, coef.T, intercept)  # (n, n_pairs)
    # a pair that is not below 0 is a vote for its first class, else for its second: as scikit-learn's SVC counts
    firsts, seconds = np.triu_indices(n, 1)
    signs = np.eye(n)[firsts] - np.eye(n)[seconds]  # (n_pairs, n_classes)
    votes = _dense(ops.cast(pairs >= 0, "float32"), signs, np.bincount(seconds, minlength=n))
    margins = _dense(pairs, signs)
    return _softmax(votes + margins / (3 * (ops.abs(margins) + 1)), temperature)


def _nearest(x: Any, known: Array, k: int, votes: Array) -> tuple[Any, Any]:
    """Cosines (n, k) of the nearest known rows, which have length 1, and what they vote for, (n, k, n_classes)."""
    _check_size(known)
    keras = import_keras()
    similar, at = keras.ops.top_k(_dense(_over_length(x), known.T), k)
    votes_for = keras.layers.Embedding(*votes.shape)
    found = votes_for(at)
    votes_for.set_weights([votes.astype(np.float32)])
    return similar, found


def _by_votes(weights: Any, votes_for: Any, smallest: float, temperature: float) -> Any:
    """Probabilities by shares of the votes, each of which counts its weight."""
    ops = import_keras().ops
    shares = ops.sum(weights[:, :, None] * votes_for, axis=1)
    return _softmax(ops.log(shares / ops.sum(shares, axis=-1, keepdims=True) + smallest), temperature)


def _neighbours(classifier: Any, temperature: float, x: Any) -> Any:
    """Known rows as the weights of a Dense layer, what each votes for as an Embedding."""
    ops, n = import_keras().ops, len(classifier.classes_)
    similar, votes_for = _nearest(x, directions_of(classifier._fit_X), classifier.n_neighbors, np.eye(n)[classifier._y])
    weights = ops.ones_like(similar)
    if classifier.weights == "distance":
        distances = ops.relu(1 - similar)
        is_same = ops.cast(distances <= 0, "float32")
        some = ops.max(is_same, axis=-1, keepdims=True)  # those at no distance vote alone
        weights = some * is_same + (1 - some) / ops.maximum(distances, 1e-9)
    return _by_votes(weights, votes_for, SMALLEST_SHARE, temperature)


def _earlier(head: EarlierHead, x: Any) -> Any:
    """The same of heads that were saved before they became pipelines."""
    ops, n = import_keras().ops, len(head.classes_)
    if head.mapping.startswith("root"):
        x = ops.sign(x) * ops.sqrt(ops.abs(x))
    if head.mapping.endswith("l2"):
        x = _over_length(x) * np.sqrt(head.n_features_in_)
    if isinstance(head, LinearHead):
        return _by_dense(x, head.coef, head.intercept, head.temperature, 0.5)
    if isinstance(head, KernelHead):
        kernel = _kernel((x - head.shift) / head.scale, head.rows, head.gamma)
        return _by_pairs(kernel, head.coef, head.intercept, n, head.temperature, 0.5)
    if not isinstance(head, NeighbourHead):
        raise ModelError(f"A {type(head).__name__} cannot be exported. tlfeat predict takes it.")
    votes = np.eye(n)[head.labels] * head.votes[head.labels][:, None]
    similar, votes_for = _nearest(x - head.shift, head.rows, head.k, votes)
    return _by_votes(ops.exp((similar - similar[:, :1]) / head.sharpness), votes_for, 1e-3 / n, head.temperature)
