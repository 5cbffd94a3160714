"""The losses of linear heads, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.types import Floats, Labels, Rows


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss of scores z and a class.

    Attributes
    ----------
    of : callable
        Takes scores (m, n_fits, k), float32 or float64, labels (m,) and weights (m, n_fits); returns the weighted sums
        (n_fits,) and overwrites the scores with the weighted derivatives.
    curvature : float
        A typical second derivative, where the metric starts.
    scale : float
        Times the loss it is the criterion of a search.
    """

    of: Callable[[Any, Labels, Rows], Floats]
    curvature: float
    scale: float = 1.0


def _logistic(z: Rows, labels: Labels, weights: Rows) -> Floats:
    """Cross-entropy: of the sigmoid for one column (two classes), else of the softmax."""
    if z.shape[2] == 1:
        sign = np.where(labels == 1, -1, 1).astype(np.float32)[:, None, None]
        z *= sign
        e = np.exp(-np.abs(z))
        losses = np.maximum(z, 0) + np.log1p(e)
        np.divide(np.where(z >= 0, 1, e), 1 + e, out=z)
        z *= sign
        z *= weights[:, :, None]
        return _weighted(losses[:, :, 0], weights)
    at = np.arange(len(z))
    z -= z.max(axis=2, keepdims=True)
    own = z[at, :, labels]
    np.exp(z, out=z)
    total = z.sum(axis=2)
    losses = np.log(total) - own
    z *= (weights / total)[:, :, None]
    z[at, :, labels] -= weights
    return _weighted(losses, weights)


def _weighted(losses: Rows, weights: Rows) -> Floats:
    sums: Floats = np.einsum("ip,ip->p", losses, weights, dtype=np.float64)
    return sums


def signed_targets(labels: Labels, k: int) -> Rows:
    """+1 for the class and -1 for the others, of shape (m, 1, k)."""
    if k == 1:
        return np.where(labels == 1, 1, -1).astype(np.float32)[:, None, None]
    targets = np.full((len(labels), 1, k), -1, np.float32)
    targets[np.arange(len(labels)), 0, labels] = 1
    return targets


def _squared_hinge(z: Rows, labels: Labels, weights: Rows) -> Floats:
    """The squared hinge of every class against the rest, as in LinearSVC."""
    targets = signed_targets(labels, z.shape[2])
    z *= -targets
    z += 1
    np.maximum(z, 0, out=z)
    losses = np.einsum("ipk,ipk->ip", z, z)
    z *= -2 * targets
    z *= weights[:, :, None]
    return _weighted(losses, weights)


def weighted_squared_hinge(class_weights: Floats) -> Loss:
    """Return the squared hinge where of each class against the rest only the class itself weighs more.

    As ``LinearSVC(class_weight=...)`` has it for more than two classes.
    """

    def of(z: Rows, labels: Labels, weights: Rows) -> Floats:
        targets = signed_targets(labels, z.shape[2])
        own = np.where(targets > 0, class_weights.astype(np.float32), np.float32(1))
        z *= -targets
        z += 1
        np.maximum(z, 0, out=z)
        losses = np.einsum("ipk,ipk,ipk->ip", z, z, np.broadcast_to(own, z.shape))
        z *= -2 * targets * own
        z *= weights[:, :, None]
        return _weighted(losses, weights)

    return Loss(of, LOSSES["squared hinge"].curvature)


def _squared(z: Rows, labels: Labels, weights: Rows) -> Floats:
    """Half the squared distance to +1 or -1, as in RidgeClassifier."""
    z -= signed_targets(labels, z.shape[2])
    losses = 0.5 * np.einsum("ipk,ipk->ip", z, z)
    z *= weights[:, :, None]
    return _weighted(losses, weights)


LOSSES = {
    "logistic": Loss(_logistic, 0.2),
    "squared hinge": Loss(_squared_hinge, 1.0),
    "squared": Loss(_squared, 1.0, scale=2.0),  # its search compares squared distances
}
