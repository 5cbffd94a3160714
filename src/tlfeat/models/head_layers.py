"""A fitted head as native Keras layers: what `predict` computes in numpy, in a graph that other runtimes take.

Nothing here needs tlfeat when the network is loaded again: only layers and operations that Keras itself has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.network import import_keras
from tlfeat.errors import ModelError
from tlfeat.heads.family import FittedHead
from tlfeat.heads.kernel import KernelHead
from tlfeat.heads.linear import LinearHead
from tlfeat.heads.neighbours import NeighbourHead

#: Name of the output.
PROBABILITIES = "probabilities"

#: ONNX and TFLite end at 2 GB a file, and the backbone wants its part of it.
MAX_BYTES = 1_000_000_000

Array = npt.NDArray[Any]


def add_head(head: Any, rows: Any) -> Any:
    """Return the symbolic probabilities, float32 of shape (n, n_classes), that a head gives to `rows`.

    Parameters
    ----------
    head : FittedHead
        Any of the table in ``heads``. A linear head becomes one Dense layer with its temperature in the coefficients.
    rows : KerasTensor of shape (n, width)

    Raises
    ------
    ModelError
        A head of an older version, or one that holds too many rows for one file.
    """
    if not isinstance(head, FittedHead):
        raise ModelError(
            f"The head is a {type(head).__name__} that an older tlfeat fitted and cannot be exported. "
            f"Fit it again with tlfeat fit-sklearn, in seconds, or go on with tlfeat predict, which takes it."
        )
    if isinstance(head, LinearHead):
        return _linear(head, _mapped(rows, head.mapping))
    known = head.rows if isinstance(head, KernelHead | NeighbourHead) else np.empty(0)
    if known.nbytes > MAX_BYTES:
        raise ModelError(
            f"The head holds {len(known):,} known rows, {known.nbytes / 1e9:.1f} GB, more than one file can take "
            f"({MAX_BYTES / 1e9:.0f} GB). Fit a linear head (logreg, linear-svm, ridge, lda), or go on with tlfeat "
            f"predict."
        )
    if isinstance(head, KernelHead):
        return _kernel(head, _mapped(rows, head.mapping))
    if isinstance(head, NeighbourHead):
        return _neighbours(head, _mapped(rows, head.mapping))
    raise ModelError(f"A {type(head).__name__} cannot be exported. tlfeat predict takes it.")


def _mapped(x: Any, mapping: str) -> Any:
    """What ``blocks.MAPPINGS`` does to each row."""
    ops = import_keras().ops
    if mapping in ("root", "root-l2"):
        x = ops.sign(x) * ops.sqrt(ops.abs(x))
    if mapping in ("l2", "root-l2"):
        x = _over_length(x, ops.mean(ops.square(x), axis=-1, keepdims=True))
    return x


def _over_length(x: Any, squares: Any) -> Any:
    """Divide rows by the root of `squares`; a row of zeros stays one."""
    ops = import_keras().ops
    return x / ops.sqrt(ops.where(squares > 0, squares, ops.ones_like(squares)))


def _dense(x: Any, kernel: Array, bias: Array | None = None, **options: Any) -> Any:
    """A Dense layer with given weights; `kernel` has shape (width, units)."""
    layer = import_keras().layers.Dense(kernel.shape[1], use_bias=bias is not None, **options)
    y = layer(x)
    layer.set_weights([w.astype(np.float32) for w in (kernel, bias) if w is not None])
    return y


def _two_sided(kernel: Array, bias: Array) -> tuple[Array, Array]:
    """As ``family.class_scores``: one score for two classes becomes one each."""
    if kernel.shape[1] > 1:
        return kernel, bias
    sides = np.array([[-0.5, 0.5]])
    return kernel @ sides, bias @ sides


def _probabilities_by_dense(x: Any, kernel: Array, bias: Array, temperature: float) -> Any:
    kernel, bias = _two_sided(kernel.astype(np.float64), np.asarray(bias, dtype=np.float64))
    return _dense(x, kernel / temperature, bias / temperature, activation="softmax", name=PROBABILITIES)


def _linear(head: LinearHead, x: Any) -> Any:
    return _probabilities_by_dense(x, head.coef, head.intercept, head.temperature)


def _softmax(scores: Any, temperature: float) -> Any:
    return import_keras().layers.Softmax(name=PROBABILITIES)(scores / temperature)


def _centred(x: Any, shift: Array, scale: Array) -> Any:
    return import_keras().layers.Normalization(mean=shift, variance=np.square(scale))(x)


def _kernel(head: KernelHead, x: Any) -> Any:
    """Support vectors as the weights of one Dense layer, dual coefficients as those of the next."""
    keras = import_keras()
    ops, n = keras.ops, len(head.classes_)
    x = _centred(x, head.shift, head.scale)
    rows = head.rows.astype(np.float64)
    distances = _dense(x, -2 * rows.T, np.square(rows).sum(axis=1)) + ops.sum(ops.square(x), axis=-1, keepdims=True)
    kernel = ops.exp(-head.gamma * ops.relu(distances))  # (n, n_support)
    if n == 2:
        return _probabilities_by_dense(kernel, head.coef.T, head.intercept, head.temperature)
    pairs = _dense(kernel, head.coef.T, head.intercept)  # (n, n_pairs)
    # a pair that is not below 0 is a vote for its first class, else for its second: as scikit-learn's SVC counts
    firsts, seconds = np.triu_indices(n, 1)
    signs = np.eye(n)[firsts] - np.eye(n)[seconds]  # (n_pairs, n_classes)
    votes = _dense(ops.cast(pairs >= 0, "float32"), signs, np.bincount(seconds, minlength=n))
    margins = _dense(pairs, signs)
    return _softmax(votes + margins / (3 * (ops.abs(margins) + 1)), head.temperature)


def _neighbours(head: NeighbourHead, x: Any) -> Any:
    """Known rows as the weights of a Dense layer, what each votes for as an Embedding."""
    keras = import_keras()
    ops, n = keras.ops, len(head.classes_)
    x = _centred(x, head.shift, np.ones_like(head.shift))
    x = _over_length(x, ops.sum(ops.square(x), axis=-1, keepdims=True))
    similar, at = ops.top_k(_dense(x, head.rows.T), head.k)  # (n, k), the nearest first
    votes = keras.layers.Embedding(len(head.rows), n)
    votes_for = votes(at)  # (n, k, n_classes)
    votes.set_weights([(np.eye(n)[head.labels] * head.votes[head.labels][:, None]).astype(np.float32)])
    weights = ops.exp((similar - similar[:, :1]) / head.sharpness)
    shares = ops.sum(weights[:, :, None] * votes_for, axis=1)
    shares = shares / ops.sum(shares, axis=-1, keepdims=True)
    return _softmax(ops.log(shares + 1e-3 / n), head.temperature)
