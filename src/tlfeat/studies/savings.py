"""How many labels one candidate saves another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tlfeat.records import Record
from tlfeat.studies.curve import Curve
from tlfeat.studies.trials import Place

N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Saving(Record):
    """How many labels two candidates need for the same accuracy.

    Attributes
    ----------
    accuracy : float
        That both reach; that `thrifty` alone reaches, where `is_never`.
    thrifty_labels, other_labels : float
        In all classes together; interpolated in the logarithm on monotone mean curves.
    is_first : bool
        Whether `thrifty` has it with the fewest labels that were tried: it may need fewer.
    is_never : bool
        Whether `other` does not reach it with all its labels: it needs more.
    interval : tuple of float, optional
        95 % interval of `times_fewer`; see `savings`.
    """

    thrifty: str
    other: str
    accuracy: float
    thrifty_labels: float
    other_labels: float
    is_first: bool = False
    is_never: bool = False
    interval: tuple[float, float] | None = None

    @property
    def times_fewer(self) -> float:
        """Labels of the other per label of the thrifty one."""
        return self.other_labels / self.thrifty_labels


def labels_saved(
    one: str, ones: Sequence[tuple[float, float]], other: str, others: Sequence[tuple[float, float]]
) -> Saving:
    """Compare two curves of (labels, mean accuracy) at the highest accuracy that both reach.

    Where the worse one does not reach, with all labels, what the better one has with its fewest, that stands instead.
    Means are made monotone by isotonic regression before: more labels never count as worse.
    """
    one_curve, other_curve = _monotone(ones), _monotone(others)
    level = min(one_curve[-1][1], other_curve[-1][1])
    needed = [
        (labels_needed(one_curve, level), one, one_curve),
        (labels_needed(other_curve, level), other, other_curve),
    ]
    (n_few, thrifty, few), (n_many, wasteful, many) = sorted(needed, key=lambda entry: entry[0])
    if few[0][1] > many[-1][1]:
        return Saving(thrifty, wasteful, few[0][1], few[0][0], many[-1][0], is_never=True)
    return Saving(thrifty, wasteful, level, n_few, n_many, is_first=n_few == few[0][0])


def _monotone(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    from scipy.optimize import isotonic_regression

    ordered = sorted(curve)
    means = isotonic_regression([mean for _, mean in ordered]).x
    return [(n, float(mean)) for (n, _), mean in zip(ordered, means, strict=True)]


def labels_needed(curve: Sequence[tuple[float, float]], accuracy: float) -> float:
    """Return where a monotone curve of (labels, accuracy) reaches `accuracy`, straight in the logarithm of labels.

    The first number of labels, where that is enough; infinity, where all are not.
    """
    before = curve[0]
    if before[1] >= accuracy:
        return before[0]
    for after in curve[1:]:
        if after[1] >= accuracy:
            share = (accuracy - before[1]) / (after[1] - before[1])
            return float(before[0] * (after[0] / before[0]) ** share)
        before = after
    return math.inf


def savings(curve: Curve) -> list[Saving]:
    """Return the first candidate compared with each of the others.

    Notes
    -----
    The interval is a percentile bootstrap over draws (whole curves of them, as they are nested) and test images, the
    same resampled ones for both candidates; Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    It holds no more than the draws and test images do: with one or two draws, next to nothing of their spread.
    """
    first, *others = curve.lines
    found = []
    for other in others:
        ones, more = curve.lines[first], curve.lines[other]
        saved = labels_saved(first, means_of(ones), other, means_of(more))
        rng = np.random.default_rng(curve.split.seed)
        ratios = []
        for _ in range(N_RESAMPLES):
            images = rng.multinomial(curve.n_test, np.full(curve.n_test, 1 / curve.n_test))
            draws = rng.random(max(curve.n_draws, curve.n_keras_draws))
            again = labels_saved(first, means_of(ones, images, draws), other, means_of(more, images, draws))
            ratios.append(again.times_fewer if again.thrifty == saved.thrifty else 1 / again.times_fewer)
        low, high = np.percentile(ratios, [2.5, 97.5])
        found.append(replace(saved, interval=(float(low), float(high))))
    return found


def means_of(
    line: Sequence[Place], images: npt.NDArray[np.int64] | None = None, draws: npt.NDArray[np.float64] | None = None
) -> list[tuple[float, float]]:
    """Return (labels, mean accuracy); of resampled test images (how often each) and draws (from 0 to 1) if given."""
    if images is None or draws is None:
        return [(place.n_labels, place.mean) for place in line]
    found = []
    for place in line:
        n = len(place.trials)
        chosen = place.right[(draws[:n] * n).astype(np.int64)]
        found.append((place.n_labels, float((chosen @ images).mean() / images.sum())))
    return found
