"""Maps of rows from several domains to one target, with scikit-learn's API; closed forms from sums over rows.

``fit`` learns from rows of all domains and knows which one is the target; labels are never used. ``transform`` brings
rows of any of these domains to where the target's rows lie, so that a classifier fitted on the others answers there.
Every map is affine, knows a domain by its sums alone, and reads rows a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from tlfeat.adapt.moments import moments_of, power_of, principal_axes
from tlfeat.errors import DataError, UsageError
from tlfeat.heads.blocks import blocks_of
from tlfeat.heads.columns import columns_of, sums_by_group
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource

#: Directions in which covariances are matched; with more, the noise in them costs more than they bring
#: (docs/benchmarks/adaptation.md).
N_COMPONENTS = 20

#: Of the subspace method, which leaves all other directions out.
N_DIRECTIONS = 100


class DomainMap(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What all maps share: the moments of each domain, and which one is the target.

    Attributes
    ----------
    domains_ : list of str
    target_ : str
    shift_, scale_ : arrays of shape (n_domains, width)
        ``(x - shift) / scale`` has mean 0 and deviation 1 in every column of a domain.
    n_features_in_, n_columns_ : int
        Columns of the rows before and after.
    """

    domains_: list[str]
    target_: str
    shift_: Floats
    scale_: Floats
    n_features_in_: int
    n_columns_: int

    def fit(self, X: RowSource, y: Any = None, *, domains: npt.ArrayLike, target: str) -> Self:
        """Learn where each domain lies.

        Parameters
        ----------
        X : float array or another RowSource, of shape (n_images, width)
            Rows of all domains, the target's too.
        y : ignored
        domains : array of str, shape (n_images,)
        target : str
            One of them.

        Raises
        ------
        UsageError
            There is no such target, or no other domain.
        DataError
            Fewer than two rows on either side.
        """
        rows, (names, numbers) = _as_rows(X), np.unique(np.asarray(domains, dtype=str), return_inverse=True)
        if len(numbers) != rows.shape[0]:
            raise UsageError(f"{rows.shape[0]:,} rows and {len(numbers):,} domains.")
        _check_domains(names.tolist(), np.bincount(numbers), target)
        self.domains_, self.target_, self.n_features_in_ = names.tolist(), str(target), rows.shape[1]
        self.n_columns_ = rows.shape[1]
        self._place(*sums_by_group(rows, numbers.astype(np.int64), len(names)))
        standard = MappedRows(rows, numbers.astype(np.int64), self._standardised, rows.shape[1])
        self._fit_map(standard, numbers == self.domains_.index(self.target_))
        return self

    def transform(self, X: RowSource, domains: npt.ArrayLike | None = None) -> Rows:
        """Return rows where the target's lie, float32 of shape (n_images, n_columns_).

        Parameters
        ----------
        X : float array or another RowSource, of shape (n_images, width)
        domains : str or array of str of shape (n_images,), optional
            Where the rows come from; the target by default.
        """
        mapped = self.mapped(X, domains)
        blocks = [mapped[block] for block in blocks_of(mapped.shape[0])]
        return np.concatenate(blocks) if blocks else np.empty(mapped.shape, np.float32)

    def mapped(self, X: RowSource, domains: npt.ArrayLike | None = None) -> MappedRows:
        """Return what `transform` returns as rows that are mapped when a block of them is read."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        rows = _as_rows(X)
        if rows.shape[1] != self.n_features_in_:
            raise UsageError(f"The map was fitted on {self.n_features_in_:,} columns, received {rows.shape[1]:,}.")
        asked = np.broadcast_to(np.asarray(self.target_ if domains is None else domains, dtype=str), (rows.shape[0],))
        unknown = sorted(set(np.unique(asked).tolist()) - set(self.domains_))
        if unknown:
            raise UsageError(f"No domain '{unknown[0]}'. Known: {', '.join(self.domains_)}.")
        numbers = np.searchsorted(np.array(self.domains_), asked).astype(np.int64)
        return MappedRows(rows, numbers, self._to_target, self.n_columns_)

    def target_steps(self) -> list[tuple[str, Any]]:
        """Return what `transform` does to rows of the target, as fitted transformers of scikit-learn."""
        target = self.domains_.index(self.target_)
        return [("adapt_standardise", fitted_scaler(self.shift_[target], self.scale_[target]))]

    def _place(self, origin: Floats, n: Floats, sums: Floats, squares: Floats) -> None:
        """Give every domain its own mean and deviations."""
        columns = [columns_of(origin, n[d], sums[d], squares[d], "each") for d in range(len(n))]
        self.shift_ = np.array([c.shift for c in columns])
        self.scale_ = np.array([c.scale for c in columns])

    def _fit_map(self, standard: RowSource, is_target: Bools) -> None:
        """Learn what is needed beside the moments of columns, from standardised rows."""

    def _map(self, standard: Rows, is_target: bool) -> Rows:
        """Bring standardised rows to the target's."""
        return standard

    def _standardised(self, x: Rows, numbers: Labels) -> Rows:
        found = np.empty(x.shape, np.float32)
        for domain in np.unique(numbers).tolist():
            inside = numbers == domain
            shift, scale = self.shift_[domain].astype(np.float32), self.scale_[domain].astype(np.float32)
            found[inside] = (x[inside] - shift) / scale
        return found

    def _to_target(self, x: Rows, numbers: Labels) -> Rows:
        standard, found = self._standardised(x, numbers), np.empty((len(x), self.n_columns_), np.float32)
        is_target = numbers == self.domains_.index(self.target_)
        for side in (False, True):
            inside = is_target == side
            if inside.any():
                found[inside] = self._map(standard[inside], side)
        return found


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Rows that are mapped when a block of them is read.

    Attributes
    ----------
    rows : RowSource of shape (n_images, width)
    numbers : int array of shape (n_images,)
        Of their domains.
    block_map : callable
        Takes rows (m, width) and their numbers (m,); returns (m, n_columns).
    n_columns : int
    """

    rows: RowSource
    numbers: Labels
    block_map: Callable[[Rows, Labels], Rows]
    n_columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0], self.n_columns

    def __getitem__(self, block: slice, /) -> Rows:
        return self.block_map(self.rows[block], self.numbers[block])


class PooledStandardiser(DomainMap):
    """No adaptation: one mean and deviation of each column for all sources, which the target gets, too."""

    def _place(self, origin: Floats, n: Floats, sums: Floats, squares: Floats) -> None:
        is_source = np.array([name != self.target_ for name in self.domains_])
        pooled = columns_of(origin, n[is_source].sum(), sums[is_source].sum(0), squares[is_source].sum(0), "each")
        self.shift_ = np.tile(pooled.shift, (len(n), 1))
        self.scale_ = np.tile(pooled.scale, (len(n), 1))


class DomainStandardiser(DomainMap):
    """Every domain gets mean 0 and deviation 1 in every column, by its own rows.

    What batch normalisation with the statistics of each domain does, in the last layer: Li et al. 2016,
    arXiv:1603.04779.
    """


class _CovarianceMap(DomainMap):
    """Standardised rows whose covariance within a few directions becomes the target's.

    The directions are the principal components of the standardised rows of all domains; what lies outside them stays
    as it is. All sources together have one covariance.

    Parameters
    ----------
    n_components : int, default=20
        Directions in which covariances are matched.
    shrinkage : float, optional
        See `Moments.covariance`.
    """

    def __init__(self, n_components: int = N_COMPONENTS, shrinkage: float | None = None) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage

    def _fit_map(self, standard: RowSource, is_target: Bools) -> None:
        every = np.ones(len(is_target), bool)
        self.components_ = principal_axes(standard, every, self.n_components)
        source, target = (moments_of(standard, side, self.components_) for side in (~is_target, is_target))
        turn = self._turn(source.covariance(self.shrinkage), target.covariance(self.shrinkage))
        self.turn_ = turn - np.eye(len(turn))  # what is added to the part of a row within the directions

    def _turn(self, source: Floats, target: Floats) -> Floats:
        """Return the matrix (k, k) that rows of covariance `source` are multiplied by from the right."""
        raise NotImplementedError

    def _map(self, standard: Rows, is_target: bool) -> Rows:
        if is_target:
            return standard
        axes, turn = self.components_.astype(np.float32), self.turn_.astype(np.float32)
        return np.asarray(standard + (standard @ axes.T) @ turn @ axes, dtype=np.float32)


class Coral(_CovarianceMap):
    """Correlation alignment: source rows are whitened and get the target's covariance.

    Sun, Feng and Saenko 2016, "Return of frustratingly easy domain adaptation", AAAI.
    """

    def _turn(self, source: Floats, target: Floats) -> Floats:
        return power_of(source, -0.5) @ power_of(target, 0.5)


class LinearTransport(_CovarianceMap):
    """Optimal transport between normal distributions: the linear map that moves source rows least.

    Of all maps to the target's covariance the symmetric one: Flamary, Lounici and Ferrari 2019, arXiv:1905.10155.
    """

    def _turn(self, source: Floats, target: Floats) -> Floats:
        half, inverse = power_of(source, 0.5), power_of(source, -0.5)
        return inverse @ power_of(half @ target @ half, 0.5) @ inverse


class SubspaceAlignment(DomainMap):
    """Source rows in their own principal components, turned to those of the target; the rest is left out.

    Fernando, Habrard, Sebban and Tuytelaars 2013, "Unsupervised visual domain adaptation using subspace alignment",
    ICCV.

    Parameters
    ----------
    n_components : int, default=100
        At most as many as either side has images less one.
    """

    def __init__(self, n_components: int = N_DIRECTIONS) -> None:
        self.n_components = n_components

    def _fit_map(self, standard: RowSource, is_target: Bools) -> None:
        n = min(self.n_components, int(is_target.sum()) - 1, int((~is_target).sum()) - 1)
        self.components_ = principal_axes(standard, is_target, n)
        source = principal_axes(standard, ~is_target, n)
        self.source_components_ = (source.T @ (source @ self.components_.T)).T
        self.n_columns_ = len(self.components_)

    def _map(self, standard: Rows, is_target: bool) -> Rows:
        axes = self.components_ if is_target else self.source_components_
        return np.asarray(standard @ axes.T.astype(np.float32), dtype=np.float32)

    def target_steps(self) -> list[tuple[str, Any]]:
        from sklearn.decomposition import PCA

        n, width = self.components_.shape
        projection = PCA(n)
        learned = {"components_": self.components_, "mean_": np.zeros(width), "n_components_": n}
        for name, value in {**learned, "n_features_in_": width, "explained_variance_": np.ones(n)}.items():
            setattr(projection, name, value)
        return [*super().target_steps(), ("adapt_project", projection)]


def fitted_scaler(shift: Floats, scale: Floats) -> Any:
    """Return a fitted ``StandardScaler`` with this mean and these deviations."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = shift, scale, scale**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(shift), 1
    return scaler


def _as_rows(rows: Any) -> RowSource:
    """Return rows as they are where they are a RowSource, else as a float32 array of two dimensions."""
    if hasattr(rows, "shape") and len(rows.shape) == 2 and getattr(rows, "dtype", np.float32) == np.float32:
        return rows  # type: ignore[no-any-return]
    found = np.asarray(rows, dtype=np.float32)
    if found.ndim != 2:
        raise UsageError(f"Rows have two dimensions, received shape {found.shape}.")
    return found


def _check_domains(names: list[str], counts: Labels, target: str) -> None:
    known = ", ".join(names)
    if target not in names:
        raise UsageError(f"No rows of the target '{target}'. Domains: {known}.")
    if len(names) < 2:
        raise UsageError(f"Rows of one domain only ({known}): there is nothing to adapt from.")
    n_target = int(counts[names.index(target)])
    if min(n_target, int(counts.sum()) - n_target) < 2:
        raise DataError(f"At least two rows of the target and two of other domains are needed, received {known}.")
