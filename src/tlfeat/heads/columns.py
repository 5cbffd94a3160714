"""Columns of the rows: means, scales and covariances, from one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlfeat.errors import DataError
from tlfeat.heads.blocks import View, add_up, blocks_of
from tlfeat.types import Floats, Labels, Rows, RowSource

TOO_LARGE = (
    "The rows of this layer are too large for a head: their squares are beyond float32, which ends at 3e38. "
    "Divide them by their largest value and run tlfeat cache import again, or take another layer."
)


def columns_by_fold(view: View, fold_of: Labels, n_folds: int, scaling: str) -> tuple[list[Columns], Columns]:
    """Return the map of the columns that each fold's fit may know, and that of all images.

    A rotation is computed from all of them: it knows no label, but the rows of images held out.
    """
    origin, n, sums, squares = sums_by_group(view, np.where(fold_of < 0, n_folds, fold_of), n_folds + 1)
    kind = "each" if scaling == "each" else "common"
    of_all = columns_of(origin, n.sum(), sums.sum(axis=0), squares.sum(axis=0), kind)
    if scaling == "whiten":
        of_all = whitened(of_all, covariance(view, of_all))
        return [of_all] * n_folds, of_all
    folds = [
        columns_of(origin, n.sum() - n[f], sums.sum(axis=0) - sums[f], squares.sum(axis=0) - squares[f], kind)
        for f in range(n_folds)
    ]
    return folds, of_all


#: Above this many columns the covariance is not decomposed: d^3 operations and d^2 values.
MAX_COVARIANCE = 4096

#: Lanes where each holds width x width sums.
WIDE_LANES = 4


@dataclass(frozen=True, slots=True)
class Columns:
    """An affine map of the columns, ``(x - shift) / scale @ rotation``, of images that a fit may see.

    Attributes
    ----------
    shift, scale : arrays of shape (width,)
    rotation : array of shape (width, n_columns), optional
    variances : array of shape (n_columns,), optional
        Of the rotated columns before they are brought to deviation 1.
    """

    shift: Floats
    scale: Floats
    rotation: Rows | None = None
    variances: Floats | None = None

    def scaled(self, x: Rows) -> Rows:
        """Centre and scale rows (m, width); for those who need them so, and in blocks."""
        return np.asarray((x - self.shift.astype(np.float32)) / self.scale.astype(np.float32), dtype=np.float32)

    def all_scaled(self, view: RowSource) -> Rows:
        """Centre and scale all rows into memory."""
        rows = np.empty(view.shape, np.float32)
        for block in blocks_of(len(rows)):
            rows[block] = self.scaled(view[block])
        return rows

    def to_rows(self, coef: Rows, intercept: Floats) -> tuple[Rows, Floats]:
        """Turn coefficients for mapped columns into those for the columns as they are."""
        turned = coef if self.rotation is None else self.rotation @ coef
        scaled = (turned / self.scale[:, None]).astype(np.float32)
        return scaled, intercept - self.shift @ scaled

    def gradient(self, of_rows: Rows, of_intercept: Floats) -> Rows:
        """Turn a gradient in coefficients of the columns as they are into one for mapped columns."""
        scaled = ((of_rows - np.outer(self.shift, of_intercept)) / self.scale[:, None]).astype(np.float32)
        return scaled if self.rotation is None else self.rotation.T @ scaled


def sums_by_group(view: RowSource, group_of: Labels, n_groups: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what means and deviations are made of, for each group of images.

    Parameters
    ----------
    view : RowSource of shape (n_images, width)
    group_of : int array of shape (n_images,)
        From 0 to ``n_groups - 1``.

    Returns
    -------
    origin : array of shape (width,)
        What was taken from the rows before they were squared, so that large means cost no digits.
    n : array of shape (n_groups,)
    sums, squares : arrays of shape (n_groups, width)
        Of the rows less the origin.

    Raises
    ------
    DataError
        The squares of the rows are beyond float32.
    """
    origin: Floats = np.asarray(view[blocks_of(view.shape[0])[0]].mean(axis=0, dtype=np.float64))

    def work(blocks: list[slice]) -> list[Floats]:
        sums: Floats = np.zeros((n_groups, view.shape[1]))
        squares: Floats = np.zeros((n_groups, view.shape[1]))
        for block in blocks:
            with np.errstate(over="ignore", invalid="ignore"):
                x = view[block] - origin.astype(np.float32)
                members = (group_of[block] == np.arange(n_groups)[:, None]).astype(np.float32)
                sums += members @ x
                np.multiply(x, x, out=x)
                squares += members @ x
        return [sums, squares]

    sums, squares = add_up(view.shape[0], work)
    if not np.isfinite(squares).all():
        raise DataError(TOO_LARGE)
    n = np.bincount(group_of, minlength=n_groups).astype(np.float64)
    return origin.astype(np.float32).astype(np.float64), n, sums, squares


def columns_of(origin: Floats, n: float, sums: Floats, squares: Floats, scaling: str) -> Columns:
    """Return the map that centres columns and brings them to deviation 1, ``each`` or in ``common``.

    A constant column is only centred; it then is 0 whatever the scale.
    """
    mean = sums / n
    variance = np.maximum(squares / n - mean**2, 0)
    # what rounding makes of a constant: float32 squares of values up to the largest
    variance[variance <= 1e-6 * np.maximum(mean**2, 1e-6 * squares.max() / n)] = 0
    if scaling == "common":
        variance = np.full_like(variance, variance.mean())
    return Columns(origin + mean, np.where(variance > 0, np.sqrt(variance), 1))


def whitened(columns: Columns, covariance: Rows) -> Columns:
    """Return the map to the principal components that vary at least as much as a column does on average.

    Those below would be noise, blown up to deviation 1 (the rule of Kaiser 1960, Educational and Psychological
    Measurement 20).
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = np.flatnonzero(values >= values.mean())[::-1]
    variances = np.maximum(values[kept].astype(np.float64), 1e-6)
    rotation: Rows = (vectors[:, kept] / np.sqrt(variances)).astype(np.float32)
    return Columns(columns.shift, columns.scale, rotation, variances)


def covariance(view: RowSource, columns: Columns) -> Rows:
    """Return the second moments of the mapped columns, (width, width), without rotating; of every row given."""

    def work(blocks: list[slice]) -> list[Rows]:
        total: Rows = np.zeros((view.shape[1], view.shape[1]), np.float32)
        for block in blocks:
            x = columns.scaled(view[block])
            total += x.T @ x
        return [total]

    total: Rows = add_up(view.shape[0], work, WIDE_LANES)[0]
    total /= np.float32(view.shape[0])
    return total


def covariance_times(view: RowSource, columns: Columns, basis: Rows) -> Rows:
    """Return the second moments of the mapped columns, without rotating, times `basis` (width, n)."""
    of_rows, offset = columns.to_rows(basis, np.zeros(basis.shape[1]))

    def work(blocks: list[slice]) -> list[Rows]:
        total: Rows = np.zeros((view.shape[1], basis.shape[1]), np.float32)
        of_ones: Rows = np.zeros((basis.shape[1],), np.float32)
        for block in blocks:
            x = view[block]
            inside = x @ of_rows + offset.astype(np.float32)
            total += x.T @ inside
            of_ones += inside.sum(axis=0)
        return [total, of_ones]

    total, of_ones = add_up(view.shape[0], work)
    return columns.gradient(total, of_ones) / np.float32(view.shape[0])
