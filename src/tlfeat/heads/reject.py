"""When to answer "unknown": a picture unlike all training images, or one that could be of several classes.

How far a row lies from the nearest training rows tells pictures of another kind; the probability of the named class
tells pictures between classes. Neither does the other's work: the probability refuses a tenth to a fifth of the
pictures of other sets (``benchmarks/reject.py``). Both thresholds are chosen on images that were neither among those
rows nor seen by the head, so that a stated share of known pictures is answered.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.errors import ModelError, UsageError
from tlfeat.types import Labels, Probabilities, Rows, RowSource

#: Share of known pictures that is answered, unless asked otherwise.
COVERAGE = 0.95

LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.5, 0.999

#: Coverages for which thresholds are kept; between two of them they are interpolated.
_KEPT = tuple(float(c) for c in np.append(np.arange(0.5, 0.9975, 0.005), 0.999).round(4))

#: 32 to 128 told strangers apart equally well, and all columns did; the fewer, the smaller the file.
_N_COMPONENTS = 64

#: More rows than this add time, not accuracy, to so few components.
_MAX_ROWS = 10_000

#: With 64 components half a megabyte; 500 rows told strangers apart as well.
_MAX_KEPT = 2_000

_NEAREST = 10

#: Rows at once, so that their distances take 16 MB.
_CHUNK = 2_000

_MAX_FILE_BYTES = 64_000_000

UNLIKE = "unlike the training images"

UNCERTAIN = "too uncertain between classes"


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

    def distances(self, rows: RowSource) -> npt.NDArray[np.float64]:
        """Return the squared distance of each direction from its tenth nearest known one, shape (n_images,).

        Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", ICML, section 3, where rows have
        length 1 too. Outside of the components known rows count as 0: what a row has there is the Q statistic of
        Jackson and Mudholkar 1979, Technometrics 21(3), and is added.
        """
        n = rows.shape[0]
        found = np.empty(n)
        k = min(_NEAREST, len(self.inside)) - 1
        own = np.sum(self.inside**2, axis=1)
        for start in range(0, n, _CHUNK):
            directions = _directions(rows[start : start + _CHUNK]) - self.mean
            inside = directions @ self.components.T
            # squares of what is inside cancel: |a - b|^2 + |outside|^2 = |direction|^2 - 2 a b + |b|^2
            apart = own - 2 * inside @ self.inside.T
            nearest = np.partition(apart, k, axis=1)[:, k]
            found[start : start + _CHUNK] = np.sum(directions**2, axis=1) + nearest
        return np.maximum(found, 0.0)


def fit_known_rows(rows: Rows) -> KnownRows:
    """Return the components of rows of shape (n_images, width), and at most 2,000 of the rows, evenly taken."""
    from sklearn.utils.extmath import randomized_svd

    directions = _directions(_evenly(rows, _MAX_ROWS))
    mean = directions.mean(axis=0)
    n_components = max(1, min(_N_COMPONENTS, rows.shape[1] // 4, len(rows) // 4))
    _, _, components = randomized_svd(directions - mean, n_components, n_iter=2, random_state=0)
    components = components.astype(np.float32)
    return KnownRows(mean, components, (_directions(_evenly(rows, _MAX_KEPT)) - mean) @ components.T)


def _evenly(rows: Rows, n: int) -> Rows:
    return rows if len(rows) <= n else rows[np.linspace(0, len(rows) - 1, n).astype(np.int64)]


def _directions(rows: Rows) -> Rows:
    rows = rows.astype(np.float32, copy=False)
    found: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return found


@dataclass(frozen=True, slots=True)
class Rejector:
    """The training rows, and the thresholds for each coverage.

    Attributes
    ----------
    known_rows : KnownRows
    coverages, max_distances, min_probabilities : float64 arrays of shape (n_coverages,)
        Of known pictures the share ``coverages[i]`` is at most so far from the others and at least so probable.
    """

    known_rows: KnownRows
    coverages: npt.NDArray[np.float64]
    max_distances: npt.NDArray[np.float64]
    min_probabilities: npt.NDArray[np.float64]

    def reasons(self, rows: RowSource, probabilities: Probabilities, *, coverage: float = COVERAGE) -> list[str]:
        """Return for each image why it is not answered, "" for one that is.

        Parameters
        ----------
        rows : float32 array of shape (n_images, width)
        probabilities : float array of shape (n_images, n_classes)
        coverage : float, default=0.95
            Share of known pictures that is answered, 0.5 to 0.999; 1 refuses nothing.
        """
        return self.reasons_at(self.known_rows.distances(rows), probabilities, coverage)

    def reasons_at(
        self, distances: npt.NDArray[np.float64], probabilities: Probabilities, coverage: float
    ) -> list[str]:
        """The same, of images whose distances are known."""
        check_coverage(coverage)
        if coverage == 1:
            return [""] * len(distances)
        furthest = float(np.interp(coverage, self.coverages, self.max_distances))
        least = float(np.interp(coverage, self.coverages, self.min_probabilities))
        is_unlike = distances > furthest
        is_uncertain = probabilities.max(axis=1) < least
        return [UNLIKE if a else UNCERTAIN if b else "" for a, b in zip(is_unlike, is_uncertain, strict=True)]


def check_coverage(coverage: float) -> None:
    """Raise `UsageError` unless thresholds exist for this coverage."""
    if coverage != 1 and not LOWEST_COVERAGE <= coverage <= HIGHEST_COVERAGE:
        raise UsageError(
            f"The coverage is {coverage:g}, expected {LOWEST_COVERAGE:g} to {HIGHEST_COVERAGE:g}: the share of known "
            f"pictures that is answered."
        )


def fit_rejector(rows: Rows, folds: Sequence[tuple[Labels, Labels]], held_out: Probabilities | None) -> Rejector | None:
    """Return all rows with thresholds from held-out images, or None without folds.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width)
        Of the training images. Not modified.
    folds : list of (int array, int array)
        Training positions and held-out positions; every image is held out once. The distance of an image is
        taken to others only: from itself it would be too small, and too many new pictures would be refused.
    held_out : float array of shape (n_images, n_classes) or None
        Probabilities of heads that had not seen the image; None leaves the probability out.

    Notes
    -----
    Both thresholds leave the same share of held-out images outside, as large as the coverage allows. The rank is that
    of split conformal prediction (Vovk et al. 2005): as many in n + 1, not in n.
    """
    if not folds:
        return None
    from threadpoolctl import threadpool_limits

    distances = np.zeros(len(rows))
    with threadpool_limits(1):  # so few components: more threads take 5 to 10 times as long on two cores
        for learn_at, held_at in folds:
            distances[held_at] = fit_known_rows(rows[learn_at]).distances(rows[held_at])
        known_rows = fit_known_rows(rows)
    certainty = np.zeros(len(rows)) if held_out is None else held_out.max(axis=1)
    held = np.concatenate([held_at for _, held_at in folds])  # all, or the user's validation images
    held = held[np.isfinite(certainty[held])]
    distances, certainty, n = distances[held], certainty[held], len(held)
    # the share of images that are as extreme, by either measure; equal values share the larger one
    of_distance = 1 - np.searchsorted(np.sort(distances), distances, side="left") / n
    of_certainty = np.searchsorted(np.sort(certainty), certainty, side="right") / n
    from_common = np.sort(np.minimum(of_distance, of_certainty))[::-1]
    ranks = np.minimum(np.ceil(np.array(_KEPT) * (n + 1)).astype(np.int64), n)
    levels = from_common[ranks - 1]
    return Rejector(
        known_rows=known_rows,
        coverages=np.array(_KEPT),
        max_distances=np.array([distances[of_distance >= level].max() for level in levels]),
        min_probabilities=np.array([certainty[of_certainty >= level].min() for level in levels]),
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How accurate the answers are if a share of known pictures is answered; measured on test images.

    Attributes
    ----------
    asked : float
        The coverage that the thresholds were chosen for.
    answered : float
        Share of the test images that got an answer.
    accuracy : float or None
        Of those answers.
    """

    asked: float
    answered: float
    accuracy: float | None


def coverage_table(
    rejector: Rejector, rows: RowSource, probabilities: Probabilities, true: Labels
) -> list[dict[str, Any]]:
    """Return a `Coverage` as a dict for 100, 99, 95, 90 and 80 % of known pictures.

    Coverage against accuracy: El-Yaniv and Wiener 2010, JMLR 11, section 2; Geifman and El-Yaniv 2017, NeurIPS.
    """
    right = probabilities.argmax(axis=1) == true
    distances = rejector.known_rows.distances(rows)
    found = []
    for asked in (1.0, 0.99, 0.95, 0.9, 0.8):
        is_answered = np.array([not why for why in rejector.reasons_at(distances, probabilities, asked)])
        accuracy = float(right[is_answered].mean()) if is_answered.any() else None
        found.append(asdict(Coverage(asked, float(is_answered.mean()), accuracy)))
    return found


# --- save and load ------------------------------------------------------------------------------------------

FILE_NAME = "reject.npz"

#: Array to its dtype and number of dimensions.
_ARRAYS = {
    "mean": (np.float32, 1),
    "components": (np.float32, 2),
    "inside": (np.float32, 2),
    "coverages": (np.float64, 1),
    "max_distances": (np.float64, 1),
    "min_probabilities": (np.float64, 1),
}


def save_rejector(rejector: Rejector, folder: Path) -> Path:
    """Write ``reject.npz``, plain arrays, into `folder` and return the file."""
    path = folder / FILE_NAME
    known = rejector.known_rows
    np.savez(
        path,
        mean=known.mean,
        components=known.components,
        inside=known.inside,
        coverages=rejector.coverages,
        max_distances=rejector.max_distances,
        min_probabilities=rejector.min_probabilities,
    )
    return path


def load_rejector(folder: Path) -> Rejector:
    """Load ``reject.npz``; it holds arrays of numbers only and runs no code.

    Raises
    ------
    ModelError
        Not there, damaged, or not arrays that belong together.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise ModelError(
            f"{folder} cannot say 'unknown': {FILE_NAME} is missing. A head of an older tlfeat gets it with "
            f"tlfeat fit-sklearn --fresh; networks of fit-keras, and heads with one image of a class, have none."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > _MAX_FILE_BYTES:
            raise ModelError(f"{path} is damaged: it would take {n_bytes:,} bytes.")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
    except ModelError:
        raise
    except Exception as error:  # a damaged archive fails anywhere: zipfile, zlib, numpy
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    for name, (dtype, n_dimensions) in _ARRAYS.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != n_dimensions or not np.isfinite(array).all():
            raise ModelError(f"{path} is damaged: {name} is {array.dtype} of shape {array.shape}.")
    (n_components, width), n_kept = arrays["components"].shape, len(arrays["coverages"])
    fits = (
        arrays["mean"].shape == (width,)
        and arrays["inside"].shape[1] == n_components
        and all(len(arrays[name]) == n_kept for name in ("max_distances", "min_probabilities"))
    )
    if not fits or not n_kept or not len(arrays["inside"]) or not (np.diff(arrays["coverages"]) > 0).all():
        raise ModelError(f"{path} is damaged: its arrays do not belong together.")
    return Rejector(
        KnownRows(arrays["mean"], arrays["components"], arrays["inside"]),
        arrays["coverages"],
        arrays["max_distances"],
        arrays["min_probabilities"],
    )
