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
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from tlfeat.adapt.moments import columns_by_domain, finite, moments_of, power_of, principal_axes
from tlfeat.errors import DataError, UsageError
from tlfeat.heads.blocks import blocks_of, in_threads, steady_threads
from tlfeat.types import Bools, Floats, Labels, Rows, RowSource

#: Directions in which covariances are matched; with more, the noise in them costs more than they bring
#: (docs/benchmarks/adaptation.md).
N_COMPONENTS = 20

#: Of the subspace method, which leaves all other directions out.
N_DIRECTIONS = 100


class DomainMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
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
            A domain has one row only, or a row holds NaN or infinity.
        """
        rows = _as_rows(X)
        names, numbers = np.unique(_domains_of(domains, rows.shape[0]), return_inverse=True)
        _check_domains(names.tolist(), np.bincount(numbers, minlength=1), str(target))
        self.domains_, self.target_ = names.tolist(), str(target)
        self.n_features_in_ = self.n_columns_ = rows.shape[1]
        with steady_threads():
            self._place(*columns_by_domain(rows, numbers, len(names)))
            standard = MappedRows(rows, numbers, self._standardised, rows.shape[1])
            self._fit_map(standard, numbers == self.domains_.index(self.target_))
        return self

    def fit_transform(self, X: RowSource, y: Any = None, *, domains: npt.ArrayLike, target: str) -> Rows:
        """Fit, and return these rows where the target's lie, each from its own domain."""
        return self.fit(X, y, domains=domains, target=target).transform(X, domains)

    def transform(self, X: RowSource, domains: npt.ArrayLike | None = None) -> Rows:
        """Return rows where the target's lie, float32 of shape (n_images, n_columns_).

        Parameters
        ----------
        X : float array or another RowSource, of shape (n_images, width)
        domains : str or array of str of shape (n_images,), optional
            Where the rows come from; the target by default.
        """
        mapped = self.mapped(X, domains)
        found = np.empty(mapped.shape, np.float32)
        with steady_threads():
            in_threads(lambda block: found.__setitem__(block, mapped[block]), blocks_of(len(found)))
        return found

    def mapped(self, X: RowSource, domains: npt.ArrayLike | None = None) -> MappedRows:
        """Return what `transform` returns as rows that are mapped when a block of them is read."""
        check_is_fitted(self)
        rows = _as_rows(X)
        if rows.shape[1] != self.n_features_in_:
            raise UsageError(f"The map was fitted on {self.n_features_in_:,} columns, received {rows.shape[1]:,}.")
        asked = _domains_of(self.target_ if domains is None else domains, rows.shape[0])
        unknown = sorted(set(asked.tolist()) - set(self.domains_))
        if unknown:
            raise UsageError(f"No domain '{unknown[0]}'. Known: {', '.join(self.domains_)}.")
        numbers = np.searchsorted(np.array(self.domains_), asked).astype(np.int64)
        return MappedRows(rows, numbers, self._to_target, self.n_columns_)

    def target_steps(self) -> list[tuple[str, Any]]:
        """Return what `transform` does to rows of the target, as fitted transformers of scikit-learn."""
        target = self.domains_.index(self.target_)
        return [("adapt_standardise", fitted_scaler(self.shift_[target], self.scale_[target]))]

    @property
    def _n_features_out(self) -> int:
        """For the names of columns in a DataFrame of `set_output`."""
        return self.n_columns_

    def _place(self, n: Floats, means: Floats, variances: Floats) -> None:
        """Give every domain its own mean and deviations; a constant column is only centred."""
        self.shift_, self.scale_ = means, np.where(variances > 0, np.sqrt(variances), 1)

    def _fit_map(self, standard: RowSource, is_target: Bools) -> None:
        """Learn what is needed beside the moments of columns, from standardised rows."""

    def _map(self, standard: Rows, is_target: bool) -> Rows:
        """Bring standardised rows to the target's."""
        return standard

    def _standardised(self, x: Rows, numbers: Labels) -> Rows:
        found = np.empty(x.shape, np.float32)
        for domain in np.unique(numbers).tolist():
            inside = numbers == domain
            found[inside] = (x[inside] - self.shift_[domain]) / self.scale_[domain]
        return found

    def _to_target(self, x: Rows, numbers: Labels) -> Rows:
        standard, found = self._standardised(finite(x), numbers), np.empty((len(x), self.n_columns_), np.float32)
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

    def _place(self, n: Floats, means: Floats, variances: Floats) -> None:
        n_sources = n * [name != self.target_ for name in self.domains_]
        weights = n_sources / n_sources.sum()
        mean = weights @ means
        variance = weights @ (variances + (means - mean) ** 2)
        super()._place(n, *(np.tile(each, (len(n), 1)) for each in (mean, variance)))


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
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise UsageError(f"shrinkage is 0 to 1, received {self.shrinkage}.")
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
    is_table = hasattr(rows, "__array__") and getattr(rows, "dtype", None) != np.float32
    if hasattr(rows, "shape") and len(rows.shape) == 2 and not is_table and not issparse(rows):
        return rows  # type: ignore[no-any-return]
    try:
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and said to be
            found = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Rows are a table of numbers, not sparse, received {type(rows).__name__}.") from error
    if found.ndim != 2:
        raise UsageError(f"Rows have two dimensions, received shape {found.shape}.")
    return found


def _domains_of(domains: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.str_]:
    """Return the domain of each row; one name is that of all."""
    found = np.asarray(domains, dtype=str)
    if found.shape not in ((), (n_rows,)):
        raise UsageError(f"A domain for each of {n_rows:,} rows is needed, received shape {found.shape}.")
    return np.broadcast_to(found, (n_rows,))


def _check_domains(names: list[str], counts: Labels, target: str) -> None:
    known = ", ".join(names)
    if target not in names:
        raise UsageError(f"No rows of the target '{target}'. Domains: {known or 'none'}.")
    if len(names) < 2:
        raise UsageError(f"Rows of one domain only ({known}): there is nothing to adapt from.")
    if counts.min() < 2:
        raise DataError(f"Domain '{names[int(counts.argmin())]}' has one row: every domain needs at least two.")
