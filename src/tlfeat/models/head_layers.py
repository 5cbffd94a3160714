"""A fitted head as native Keras layers: what ``predict_proba`` computes, in a graph that other runtimes take.

Nothing here needs tlfeat when the network is loaded again: only layers and operations that Keras itself has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.network import import_keras
from tlfeat.errors import ModelError
from tlfeat.heads.earlier import EarlierHead
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
    head : sklearn.pipeline.Pipeline
        Any that ``fit-sklearn`` makes of the table in ``heads``. A linear classifier becomes one Dense layer with its
        temperature in the coefficients.
    rows : KerasTensor of shape (n, width)

    Raises
    ------
    ModelError
        A head of an older version or of another estimator, or one that holds too many rows for one file.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if isinstance(head, EarlierHead) or not hasattr(head, "steps"):
        raise ModelError(
            f"The head is a {type(head).__name__} that an older tlfeat fitted and cannot be exported. "
            f"Fit it again with tlfeat fit-sklearn, in seconds, or go on with tlfeat predict, which takes it."
        )
    (classifier, temperature), x = classifier_of(head), rows
    if hasattr(classifier, "coef_") and not isinstance(classifier, SVC):
        return _linear(classifier, temperature, _taken(head, x))
    if not isinstance(classifier, SVC | KNeighborsClassifier):
        raise ModelError(f"A {type(classifier).__name__} cannot be exported. tlfeat predict takes it.")
    known = classifier.support_vectors_ if isinstance(classifier, SVC) else classifier._fit_X
    if 4 * known.size > MAX_BYTES:
        raise ModelError(
            f"The head holds {len(known):,} known rows, {4 * known.size / 1e9:.1f} GB, more than one file can take "
            f"({MAX_BYTES / 1e9:.0f} GB). Fit a linear head (logreg, linear-svm, ridge, lda), or go on with tlfeat "
            f"predict."
        )
    of_kind = _kernel if isinstance(classifier, SVC) else _neighbours
    return of_kind(classifier, temperature, _taken(head, x))


def _taken(head: Any, x: Any) -> Any:
    """What the transformers of a pipeline do to rows; see ``heads.pipelines.steps_of``."""
    ops, keras = import_keras().ops, import_keras()
    for name, step in head.steps[:-1]:
        if name == "root":
            x = ops.sqrt(x) if step.func is np.sqrt else ops.sign(x) * ops.power(ops.abs(x), 1 / 3)
        elif name == "unit":
            x = _over_length(x)
        elif name == "whiten":
            turn = step.components_.T / np.sqrt(step.explained_variance_)
            x = _dense(x, turn, -step.mean_ @ turn)
        elif name in ("standardise", "centre"):
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


def _kernel(machine: Any, temperature: float, x: Any) -> Any:
    """Support vectors as the weights of one Dense layer, dual coefficients as those of the next."""
    ops, n = import_keras().ops, len(machine.classes_)
    rows, coef = machine.support_vectors_, dual_of_pairs(machine)
    distances = _dense(x, -2 * rows.T, np.square(rows).sum(axis=1)) + ops.sum(ops.square(x), axis=-1, keepdims=True)
    kernel = ops.exp(-machine._gamma * ops.relu(distances))  # (n, n_support)
    if n == 2:
        return _by_dense(kernel, coef.T, machine.intercept_, temperature, 1)
    pairs = _dense(kernel, coef.T, machine.intercept_)  # (n, n_pairs)
    # a pair that is not below 0 is a vote for its first class, else for its second: as scikit-learn's SVC counts
    firsts, seconds = np.triu_indices(n, 1)
    signs = np.eye(n)[firsts] - np.eye(n)[seconds]  # (n_pairs, n_classes)
    votes = _dense(ops.cast(pairs >= 0, "float32"), signs, np.bincount(seconds, minlength=n))
    margins = _dense(pairs, signs)
    return _softmax(votes + margins / (3 * (ops.abs(margins) + 1)), temperature)


def _neighbours(classifier: Any, temperature: float, x: Any) -> Any:
    """Known rows as the weights of a Dense layer, what each votes for as an Embedding."""
    keras = import_keras()
    ops, n = keras.ops, len(classifier.classes_)
    known = classifier._fit_X / np.maximum(np.linalg.norm(classifier._fit_X, axis=1, keepdims=True), 1e-12)
    similar, at = ops.top_k(_dense(_over_length(x), known.T), classifier.n_neighbors)  # (n, k), the nearest first
    votes = keras.layers.Embedding(len(known), n)
    votes_for = votes(at)  # (n, k, n_classes)
    votes.set_weights([np.eye(n)[classifier._y].astype(np.float32)])
    if classifier.weights == "distance":
        distances = ops.relu(1 - similar)
        is_same = ops.cast(distances <= 0, "float32")
        some = ops.max(is_same, axis=-1, keepdims=True)  # those at no distance vote alone
        weights = some * is_same + (1 - some) / ops.maximum(distances, 1e-9)
        votes_for = weights[:, :, None] * votes_for
    shares = ops.sum(votes_for, axis=1)
    shares = shares / ops.sum(shares, axis=-1, keepdims=True)
    return _softmax(ops.log(shares + 1e-12), temperature)
