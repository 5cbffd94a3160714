"""Second moments of rows along a few directions: sums that add up over blocks and over shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlfeat.errors import DataError, UsageError
from tlfeat.heads.blocks import add_up, blocks_of
from tlfeat.heads.columns import MAX_COVARIANCE, WIDE_LANES
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the projected rows of some images; those of two shards add up to those of both.

    Attributes
    ----------
    n : int
    total : array of shape (k,)
    products : array of shape (k, k)
        Of the rows with themselves.
    fourth : float
        Sum over rows and pairs of columns of the products of their squares.
    """

    n: int
    total: Floats
    products: Floats
    fourth: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n,
            self.total + other.total,
            self.products + other.products,
            self.fourth + other.fourth,
        )

    @property
    def mean(self) -> Floats:
        return np.asarray(self.total / self.n)

    def covariance(self, shrinkage: float | None) -> Floats:
        """Return the covariance, shrunk towards a multiple of the identity.

        Parameters
        ----------
        shrinkage : float, optional
            0 to 1; by default that of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
            covariance matrices", Journal of Multivariate Analysis 88. It takes rows of mean 0, as they are where they
            were centred before.
        """
        k = len(self.total)
        empirical = self.products / self.n - np.outer(self.mean, self.mean)
        if shrinkage is None:
            shrinkage = self._ledoit_wolf(empirical)
        return np.asarray((1 - shrinkage) * empirical + shrinkage * np.trace(empirical) / k * np.eye(k))

    def _ledoit_wolf(self, empirical: Floats) -> float:
        k, mu = len(self.total), float(np.trace(empirical)) / len(self.total)
        squares = float((empirical**2).sum())
        beta = (self.fourth / self.n - squares) / (k * self.n)
        delta = (squares - k * mu**2) / k
        return 1.0 if delta <= 0 else float(np.clip(beta / delta, 0, 1))


def columns_by_domain(rows: RowSource, numbers: Labels, n_domains: int) -> tuple[Floats, Floats, Floats]:
    """Return how many rows each domain has, (n_domains,), and means and variances of its columns, (n_domains, width).

    Summed in float64, as one domain can lie far from the others. A variance that is the rounding of float32 is 0.

    Raises
    ------
    DataError
        A row holds NaN or infinity.
    """
    origin: Floats = np.asarray(finite(rows[blocks_of(rows.shape[0])[0]]).mean(axis=0, dtype=np.float64))

    def work(blocks: list[slice]) -> list[Floats]:
        sums, squares = (np.zeros((n_domains, rows.shape[1])) for _ in range(2))
        for block in blocks:
            x = finite(rows[block]) - origin
            members = (numbers[block] == np.arange(n_domains)[:, None]).astype(np.float64)
            sums += members @ x
            squares += members @ np.square(x, out=x)
        return [sums, squares]

    sums, squares = add_up(rows.shape[0], work)
    n = np.bincount(numbers, minlength=n_domains).astype(np.float64)
    mean = sums / n[:, None]
    variances = squares / n[:, None] - mean**2
    variances[variances <= 1e-12 * np.maximum(mean**2, (origin + mean) ** 2)] = 0
    return n, origin + mean, variances


def finite(x: Rows) -> Rows:
    """Return rows that are numbers throughout, or raise DataError."""
    if not np.isfinite(x).all():
        raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
    return x


def principal_axes(rows: RowSource, is_taken: Bools, n: int) -> Floats:
    """Return the `n` directions, at most one a column, along which these rows vary most, of shape (n, width).

    Rows are not centred: standardised ones are.
    """
    from scipy.linalg import eigh

    width = rows.shape[1]
    if n < 1:
        raise UsageError(f"At least one component is needed, received {n}.")
    if width > MAX_COVARIANCE:
        raise DataError(
            f"Covariances of {width:,} columns are beyond {MAX_COVARIANCE:,}: take a pooled layer, or the methods "
            f"that standardise columns."
        )

    def work(blocks: list[slice]) -> list[Floats]:
        total: Floats = np.zeros((width, width))
        for block in blocks:
            x = rows[block][is_taken[block]]
            total += x.T @ x
        return [total]

    products = add_up(rows.shape[0], work, WIDE_LANES)[0]
    n = min(n, width)
    _, vectors = eigh(products, subset_by_index=[width - n, width - 1])
    return np.asarray(vectors[:, ::-1].T, dtype=np.float64)


def moments_of(rows: RowSource, is_taken: Bools, axes: Floats) -> Moments:
    """Return the moments of some rows along these directions, (n, width)."""
    k = len(axes)

    def work(blocks: list[slice]) -> list[Floats]:
        total, products, fourth = np.zeros(k), np.zeros((k, k)), np.zeros(1)
        for block in blocks:
            x = rows[block][is_taken[block]] @ axes.T
            total += x.sum(axis=0)
            products += x.T @ x
            fourth += np.square(np.square(x).sum(axis=1)).sum()
        return [total, products, fourth]

    total, products, fourth = add_up(rows.shape[0], work)
    return Moments(int(is_taken.sum()), total, products, float(fourth[0]))


def power_of(symmetric: Floats, power: float) -> Floats:
    """Return a power of a positive matrix; directions that hardly vary count as varying a little."""
    values, vectors = np.linalg.eigh(symmetric)
    values = np.maximum(values, 1e-12 * max(float(values.max()), 1e-12))
    return np.asarray((vectors * values**power) @ vectors.T)
