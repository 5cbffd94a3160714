"""Distances and neighbours of rows."""

from __future__ import annotations

import numpy as np

from tlfeat.types import Labels, Rows


def squared_distances(a: Rows, b: Rows) -> Rows:
    found: Rows = a @ b.T
    found *= -2
    found += np.einsum("ij,ij->i", a, a)[:, None]
    found += np.einsum("ij,ij->i", b, b)
    return np.maximum(found, 0, out=found)


def nearest(queries: Rows, known: Rows, k: int) -> tuple[Rows, Labels]:
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
