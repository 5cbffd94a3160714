"""When to answer "unknown": a picture unlike all training images, or one that could be of several classes.

How far a row lies from the nearest training rows tells pictures of another kind; the probability of the named class
tells pictures between classes. Neither does the other's work: the probability refuses a tenth to a fifth of the
pictures of other sets. Among few and varied training images a drawing is near to everything; it is told by lying
nearer to a drawing (``benchmarks/reject.py``). All thresholds are chosen on images that were neither among those rows
nor seen by the head, so that a stated share of known pictures is answered.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.errors import ModelError, UsageError
from tlfeat.files import check_regular
from tlfeat.heads.known_rows import (
    NEAREST,
    Drawings,
    KnownRows,
    count_components,
    directions_of,
    find_basis,
    known_rows_within,
)
from tlfeat.types import Floats, Labels, Probabilities, Rows, RowSource

#: Share of known pictures that is answered, unless asked otherwise.
COVERAGE = 0.95

LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.5, 0.999

#: Coverages for which thresholds are kept; between two of them they are interpolated.
_KEPT = tuple(float(c) for c in np.append(np.arange(0.5, 0.9975, 0.005), 0.999).round(4))

#: What likeness to drawings may refuse of known pictures: this part of what the distance may. With equal parts
#: photographs of other things are refused less often (``benchmarks/reject.py``).
_PART_OF_DRAWINGS = 0.25

#: Of reference images; with a smaller share refused there is a warning.
_ENOUGH = 0.8

_MAX_FILE_BYTES = 64_000_000

UNLIKE = "unlike the training images"

UNCERTAIN = "too uncertain between classes"


@dataclass(frozen=True, slots=True)
class Rejector:
    """The training rows, and the thresholds for each coverage.

    Attributes
    ----------
    known_rows : KnownRows
    coverages, max_distances, min_probabilities : float64 arrays of shape (n_coverages,)
        Of known pictures the share ``coverages[i]`` is at most so far from the others and at least so probable.
    drawings : Drawings or None
        None in files of tlfeat 0.1, and where the cache has no reference images.
    """

    known_rows: KnownRows
    coverages: Floats
    max_distances: Floats
    min_probabilities: Floats
    drawings: Drawings | None = None

    def reasons(self, rows: RowSource, probabilities: Probabilities, *, coverage: float = COVERAGE) -> list[str]:
        """Return for each image why it is not answered, "" for one that is.

        Parameters
        ----------
        rows : float32 array of shape (n_images, width)
        probabilities : float array of shape (n_images, n_classes)
        coverage : float, default=0.95
            Share of known pictures that is answered, 0.5 to 0.999; 1 refuses nothing.
        """
        return self.reasons_at([coverage], rows, probabilities)[0]

    def reasons_at(self, coverages: Sequence[float], rows: RowSource, probabilities: Probabilities) -> list[list[str]]:
        """The same at several coverages."""
        distances = self.known_rows.distances(rows)
        nearness = self.drawings.nearness(rows, distances) if self.drawings else distances
        certainty = probabilities.max(axis=1)

        def limit(coverage: float, limits: Floats) -> float:
            return float(np.interp(coverage, self.coverages, limits))

        found = []
        for coverage in coverages:
            check_coverage(coverage)
            if coverage == 1:
                found.append([""] * len(distances))
                continue
            is_unlike = distances > limit(coverage, self.max_distances)
            if self.drawings:
                is_unlike |= nearness > limit(coverage, self.drawings.max_nearness)
            is_uncertain = certainty < limit(coverage, self.min_probabilities)
            found.append(
                [UNLIKE if a else UNCERTAIN if b else "" for a, b in zip(is_unlike, is_uncertain, strict=True)]
            )
        return found


def check_coverage(coverage: float) -> None:
    """Raise `UsageError` unless thresholds exist for this coverage."""
    if coverage != 1 and not LOWEST_COVERAGE <= coverage <= HIGHEST_COVERAGE:
        raise UsageError(
            f"The coverage is {coverage:g}, expected {LOWEST_COVERAGE:g} to {HIGHEST_COVERAGE:g}: the share of known "
            f"pictures that is answered."
        )


def fit_rejector(
    rows: Rows,
    folds: Sequence[tuple[Labels, Labels]],
    held_out: Probabilities | None,
    drawings: Rows | None = None,
) -> Rejector | None:
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
    drawings : float32 array of shape (n_drawings, width), optional
        Rows of pictures that are not known.

    Notes
    -----
    Thresholds of distance and probability leave the same share of held-out images outside, as large as the coverage
    allows. The rank is that of split conformal prediction (Vovk et al. 2005): as many in n + 1, not in n.
    """
    if not folds:
        return None
    from threadpoolctl import threadpool_limits

    distances = np.zeros(len(rows))
    with threadpool_limits(1):  # so few components: more threads take 5 to 10 times as long on two cores
        directions = directions_of(rows)
        basis, coordinates = find_basis(directions)
        n_components = count_components(directions)
        known_rows = known_rows_within(directions, basis, coordinates, n_components)
        for learn_at, held_at in folds:
            others = known_rows_within(directions[learn_at], basis, coordinates[learn_at], n_components)
            # among four fifths of the rows the eighth nearest is as far as the tenth among all
            nearest = max(1, round(NEAREST * len(others.inside) / len(known_rows.inside)))
            distances[held_at] = others.distances(directions[held_at], nearest)
    certainty = np.zeros(len(rows)) if held_out is None else held_out.max(axis=1)
    held = np.concatenate([held_at for _, held_at in folds])  # all, or the user's validation images
    held = held[np.isfinite(certainty[held])]
    measures = [distances[held], -certainty[held]]
    among = None if drawings is None else Drawings(directions_of(drawings), np.empty(0))
    if among:
        measures.append(among.nearness(directions[held], distances[held]))
    limits = _limits(measures, [1, 1, _PART_OF_DRAWINGS])
    return Rejector(
        known_rows=known_rows,
        coverages=np.array(_KEPT),
        max_distances=limits[0],
        min_probabilities=-limits[1],
        drawings=replace(among, max_nearness=limits[2]) if among else None,
    )


def _limits(measures: Sequence[Floats], parts: Sequence[float]) -> list[Floats]:
    """Return for each measure, of shape (n_images,), what known pictures have at most at each coverage of `_KEPT`.

    Of the images that are left outside, measures are responsible in proportion to `parts`.
    """
    n = len(measures[0])
    # the share of images that are as extreme; equal values share the larger one
    shares = [
        (1 - np.searchsorted(np.sort(values), values, side="left") / n) / part
        for values, part in zip(measures, parts, strict=False)
    ]
    from_common = np.sort(np.min(shares, axis=0))[::-1]
    ranks = np.minimum(np.ceil(np.array(_KEPT) * (n + 1)).astype(np.int64), n)
    levels = np.minimum(from_common[ranks - 1], 1)
    return [
        np.array([values[share >= level].max() for level in levels])
        for values, share in zip(measures, shares, strict=True)
    ]


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
    rejector: Rejector,
    rows: RowSource,
    probabilities: Probabilities,
    true: Labels,
    is_scored: npt.NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """Return a `Coverage` as a dict for 100, 99, 95, 90 and 80 % of known pictures, of the test images that count.

    Coverage against accuracy: El-Yaniv and Wiener 2010, JMLR 11, section 2; Geifman and El-Yaniv 2017, NeurIPS.
    """
    counts = np.ones(len(true), dtype=bool) if is_scored is None else is_scored
    right = (probabilities.argmax(axis=1) == true)[counts]
    every = (1.0, 0.99, 0.95, 0.9, 0.8)
    found = []
    for asked, reasons in zip(every, rejector.reasons_at(every, rows, probabilities), strict=True):
        is_answered = np.array([not why for why in reasons])[counts]
        accuracy = float(right[is_answered].mean()) if is_answered.any() else None
        found.append(asdict(Coverage(asked, float(is_answered.mean()), accuracy)))
    return found


def refused_share(rejector: Rejector, rows: RowSource, probabilities: Probabilities) -> dict[str, Any]:
    """Return how many images there are and what share of them is refused at the default coverage."""
    reasons = rejector.reasons(rows, probabilities)
    return {"n": len(reasons), "refused": float(np.mean([bool(why) for why in reasons]))}


def reference_text(reference: Mapping[str, Any]) -> str:
    """Return what a model refuses of reference images; "" where that is not known."""
    shares = [f"{100 * found['refused']:.0f} % of {found['n']} {kind}" for kind, found in reference.items()]
    return f"refuses {' and '.join(shares)} of other things" if shares else ""


def reference_warning(reference: Mapping[str, Any]) -> str:
    """Return a sentence if a model refuses few of some kind of reference images, else ""."""
    kind = min(reference, key=lambda kind: float(reference[kind]["refused"]), default="")
    if not kind or reference[kind]["refused"] >= _ENOUGH:
        return ""
    share = f"{100 * reference[kind]['refused']:.0f} % of {reference[kind]['n']}"
    return (
        f"with --reject this model refuses {share} {kind} of other things: a picture of something else will often get "
        f"one of your labels"
    )


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

#: Since tlfeat 0.2, both or neither; an older tlfeat passes over them.
_OF_DRAWINGS = {"drawings": (np.float32, 2), "max_nearness": (np.float64, 1)}


def save_rejector(rejector: Rejector, folder: Path) -> Path:
    """Write ``reject.npz``, plain arrays, into `folder` and return the file."""
    path = folder / FILE_NAME
    known, drawings = rejector.known_rows, rejector.drawings
    arrays: dict[str, Any] = {
        "mean": known.mean,
        "components": known.components,
        "inside": known.inside,
        "coverages": rejector.coverages,
        "max_distances": rejector.max_distances,
        "min_probabilities": rejector.min_probabilities,
    }
    if drawings:
        arrays |= {"drawings": drawings.directions, "max_nearness": drawings.max_nearness}
    np.savez(path, **arrays)
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
        check_regular(path, max_bytes=_MAX_FILE_BYTES, within=folder)
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > _MAX_FILE_BYTES:
            raise ModelError(f"{path} is damaged: it would take {n_bytes:,} bytes.")
        with np.load(path, allow_pickle=False) as archive:
            expected = _ARRAYS | (_OF_DRAWINGS if _OF_DRAWINGS.keys() & set(archive.files) else {})
            arrays = {name: archive[name] for name in expected}
    except ModelError:
        raise
    except Exception as error:  # a damaged archive fails anywhere: zipfile, zlib, numpy
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    for name, (dtype, n_dimensions) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != n_dimensions or not np.isfinite(array).all():
            raise ModelError(f"{path} is damaged: {name} is {array.dtype} of shape {array.shape}.")
    (n_components, width), n_kept = arrays["components"].shape, len(arrays["coverages"])
    fits = (
        arrays["mean"].shape == (width,)
        and arrays["inside"].shape[1] == n_components
        and all(len(arrays[name]) == n_kept for name in expected if name.startswith(("max_", "min_")))
        and ("drawings" not in arrays or (len(arrays["drawings"]) > 0 and arrays["drawings"].shape[1] == width))
    )
    if not fits or not n_kept or not len(arrays["inside"]) or not (np.diff(arrays["coverages"]) > 0).all():
        raise ModelError(f"{path} is damaged: its arrays do not belong together.")
    return Rejector(
        KnownRows(arrays["mean"], arrays["components"], arrays["inside"]),
        arrays["coverages"],
        arrays["max_distances"],
        arrays["min_probabilities"],
        Drawings(arrays["drawings"], arrays["max_nearness"]) if "drawings" in arrays else None,
    )
