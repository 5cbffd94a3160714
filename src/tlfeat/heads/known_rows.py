"""How far rows lie from known ones, and from drawings: what ``reject`` sets its thresholds on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlfeat.types import Floats, Rows, RowSource

#: 32 to 128 told strangers apart equally well, and all columns did; the fewer, the smaller the file.
_N_COMPONENTS = 64

#: Within so many directions the components of every fold are looked for.
_N_BASIS = 128

#: More rows than this add time, not accuracy, to so few components.
_MAX_ROWS = 10_000

#: With 64 components half a megabyte; 500 rows told strangers apart as well.
_MAX_KEPT = 2_000

NEAREST = 10

#: Rows at once, so that their distances take 16 MB.
_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The directions of known rows, in a few principal components of theirs.

    Attributes
    ----------
    mean : float32 array of shape (width,)
    components : float32 array of shape (n_components, width)
        Orthonormal.
    inside : float32 array of shape (n_kept, n_components)
        Known rows within the components.
    """

    mean: Rows
    components: Rows
    inside: Rows

    def distances(self, rows: RowSource, nearest: int = NEAREST) -> Floats:
        """Return the squared distance of each direction from its tenth nearest known one, shape (n_images,).

        Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", ICML, section 3, where rows have
        length 1 too. Outside of the components known rows count as 0: what a row has there is the Q statistic of
        Jackson and Mudholkar 1979, Technometrics 21(3), and is added.
        """
        n = rows.shape[0]
        found = np.empty(n)
        k = min(nearest, len(self.inside)) - 1
        own = np.sum(self.inside**2, axis=1)
        for start in range(0, n, _CHUNK):
            directions = directions_of(rows[start : start + _CHUNK]) - self.mean
            inside = directions @ self.components.T
            # squares of what is inside cancel: |a - b|^2 + |outside|^2 = |direction|^2 - 2 a b + |b|^2
            apart = own - 2 * inside @ self.inside.T
            found[start : start + _CHUNK] = np.sum(directions**2, axis=1) + np.partition(apart, k, axis=1)[:, k]
        return np.maximum(found, 0.0)


def fit_known_rows(rows: Rows) -> KnownRows:
    """Return the components of rows of shape (n_images, width), and at most 2,000 of the rows, evenly taken."""
    directions = directions_of(_evenly(rows, _MAX_ROWS))
    return known_rows_within(directions, *find_basis(directions), count_components(directions))


def find_basis(directions: Rows) -> tuple[Rows, Rows]:
    """Return orthonormal columns near which all directions lie, (width, n_basis), and the directions within them.

    Found once for all folds: each then takes its components within it, in milliseconds. Halko, Martinsson and Tropp
    2011, SIAM Review 53(2), algorithm 4.4, with one pass of subspace iteration. A few rows it holds entirely.
    """
    from scipy.linalg import qr

    n_basis = min(_N_BASIS, *directions.shape)
    found = np.random.default_rng(0).normal(size=(len(directions), n_basis)).astype(np.float32)
    for _ in range(2):
        basis: Rows = qr(directions.T @ found, mode="economic", overwrite_a=True, check_finite=False)[0]
        found = directions @ basis
    return basis, found


def count_components(directions: Rows) -> int:
    """Return how many components so many rows of such a width get."""
    n_rows, width = directions.shape
    return max(1, min(_N_COMPONENTS, int(width) // 4, int(n_rows) // 4))


def known_rows_within(directions: Rows, basis: Rows, coordinates: Rows, n_components: int) -> KnownRows:
    """Return the components of directions whose coordinates within `basis` are known."""
    from scipy.linalg import eigh

    mean = directions.mean(axis=0)
    coordinates = coordinates - mean @ basis
    axes = eigh(coordinates.T @ coordinates, check_finite=False)[1][:, ::-1][:, :n_components]
    return KnownRows(mean, np.ascontiguousarray((basis @ axes).T), _evenly(coordinates, _MAX_KEPT) @ axes)


def _evenly(rows: Rows, n: int) -> Rows:
    return rows if len(rows) <= n else rows[np.linspace(0, len(rows) - 1, n).astype(np.int64)]


def directions_of(rows: Rows) -> Rows:
    """Return rows of length 1; a row of zeros stays one."""
    rows = rows.astype(np.float32, copy=False)
    found: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return found


@dataclass(frozen=True, slots=True)
class Drawings:
    """The directions of drawings, which are no known pictures.

    Attributes
    ----------
    directions : float32 array of shape (n_drawings, width)
    max_nearness : float64 array of shape (n_coverages,)
        How much nearer to the nearest drawing than to known rows a known picture is, at most.
    """

    directions: Rows
    max_nearness: Floats

    def nearness(self, rows: RowSource, distances: Floats) -> Floats:
        """Return distance from known rows less distance from the nearest drawing, both squared, shape (n_images,)."""
        blocks = [rows[start : start + _CHUNK] for start in range(0, rows.shape[0], _CHUNK)]
        likeness = [(directions_of(block) @ self.directions.T).max(axis=1) for block in blocks]
        found: Floats = distances - 2 + 2 * np.concatenate(likeness) if blocks else distances
        return found
