"""What twice as many labels would bring, from the last points of a learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlfeat.records import Record
from tlfeat.studies.curve import Curve
from tlfeat.studies.savings import N_RESAMPLES, means_of

#: A power law holds over a few doublings, not from the first image on.
_N_POINTS = 4

_FEWEST_POINTS = 3

#: Share of the forecast that is added to either end of its interval, because curves are no power laws: the bootstrap
#: alone held what came in 61 % of 18 forecasts, with this in 94 % (benchmarks/doubling.py).
MISFIT = 0.5


@dataclass(frozen=True, slots=True)
class Doubling(Record):
    """The forecast for one candidate.

    Attributes
    ----------
    candidate : str
    n_labels : float
        Of the last point; the forecast is for twice as many.
    accuracy : float
        There, measured.
    gain : float
        What is added to it, a share.
    interval : tuple of float
        95 % interval of the gain; see `doublings`.
    """

    candidate: str
    n_labels: float
    accuracy: float
    gain: float
    interval: tuple[float, float]


def gain_of_doubling(points: Sequence[tuple[float, float]], n_test: int) -> float:
    """Return the accuracy that twice the labels of the last point would add.

    The error falls as a power of the number of labels (Hestness et al. 2017, arXiv:1712.00409; for few images a class
    Mahmood et al. 2022, "How much more data do I need?", CVPR): a straight line through the last points in logarithms,
    never rising.

    Parameters
    ----------
    points : sequence of (labels, accuracy)
        In ascending order, at least two.
    n_test : int
        Half a mistake among so many images stands for none.
    """
    last = points[-_N_POINTS:]
    labels = np.log([n for n, _ in last])
    errors = np.log([max(1 - accuracy, 0.5 / n_test) for _, accuracy in last])
    slope, level = np.polyfit(labels - labels[-1], errors, 1)
    return float(np.exp(level) * (1 - 2 ** min(slope, 0.0)))


def doublings(curve: Curve) -> list[Doubling]:
    """Return the forecast for every candidate with at least three points, the most accurate candidate first.

    Notes
    -----
    The interval is a percentile bootstrap over draws and test images, as in ``savings``, with half of the gain added at
    either end. ``benchmarks/doubling.py`` measures how often it holds what twice the labels do bring.
    """
    found = []
    for name, line in curve.lines.items():
        if len(line) < _FEWEST_POINTS:
            continue
        rng = np.random.default_rng(curve.split.seed)
        gains = []
        for _ in range(N_RESAMPLES):
            images = rng.multinomial(curve.n_test, np.full(curve.n_test, 1 / curve.n_test))
            draws = rng.random(max(curve.n_draws, curve.n_keras_draws))
            gains.append(gain_of_doubling(means_of(line, images, draws), curve.n_test))
        low, high = np.percentile(gains, [2.5, 97.5])
        gain = gain_of_doubling(means_of(line), curve.n_test)
        interval = float(low) - MISFIT * gain, float(high) + MISFIT * gain
        found.append(Doubling(name, line[-1].n_labels, line[-1].mean, gain, interval))
    return sorted(found, key=lambda one: -one.accuracy)
