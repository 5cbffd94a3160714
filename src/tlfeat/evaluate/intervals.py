"""Intervals and tests of difference of scores that were counted on test images, groups of images included.

``benchmarks/intervals.py`` measures how often the intervals hold the truth and how often the test errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tlfeat.errors import ModelError
from tlfeat.types import Labels

Interval = tuple[float, float]

_Z = 1.959963984540054  # normal quantile at 0.975

#: Images a class, all answered as the average image is, that are added before the spread of a mean over classes is
#: estimated: a class of ten without a mistake is no class without spread.
_PRIOR_IMAGES = 5

#: Groups, all of one outcome, that are added before a design effect is estimated from few mistakes.
_PRIOR_GROUPS = 0.25


def wilson_interval(n_right: float, n: float) -> Interval:
    """Return the 95 % score interval of a proportion.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22; recommended
    by Brown, Cai and DasGupta 2001, Statistical Science 16(2), section 5. Counts need not be whole: see
    `proportion_interval`.

    Notes
    -----
    Of Wilson, Jeffreys, mid-P, Agresti-Coull and Blaker it covers 93 to 97 % over the widest range of n from 50 to
    2,000 and true shares from 0.5 to 0.995: everywhere from n = 300 on. Below, near 1, no method can: there are too
    few possible counts (``benchmarks/intervals.py``, exact).
    """
    if n <= 0:
        raise ModelError("There are no test images to score.")
    p = n_right / n
    centre = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * math.sqrt(max(0.0, p * (1 - p) / n + _Z * _Z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def design_effect(deviations: npt.NDArray[np.float64], groups: Labels | None, *, n_means: int = 1) -> float:
    """Return by how much groups increase the variance of a mean, at least 1; 1 without groups.

    The ratio estimator's variance with groups over that without: Rao and Scott 1992, Biometrics 48(2), equation 2.
    It is unsteady where few groups hold a mistake, so a quarter of a group of like outcomes is added to it
    (``_PRIOR_GROUPS``, chosen by simulation).

    Parameters
    ----------
    deviations : float array of shape (n_images,)
        What each image adds to n times the score, less the mean; for an accuracy 1 or 0 less the accuracy.
    groups : int array of shape (n_images,), optional
        Images with the same number are not independent of each other.
    n_means : int, default=1
        How many means the deviations were taken from: one, or one a class.
    """
    if groups is None:
        return 1.0
    codes, sizes = np.unique_inverse(groups).inverse_indices, np.unique_counts(groups).counts
    n, n_groups = len(deviations), len(sizes)
    if n_groups == n:
        return 1.0
    if n_groups == 1:
        return float(n)
    alike = float(np.sum(sizes.astype(np.float64) ** 2)) / n  # the effect if all images of a group have one outcome
    added = _PRIOR_GROUPS * alike * 0.25  # 0.25: the variance of an even outcome
    grouped = n_groups / max(n_groups - n_means, 1) * float(np.sum(np.bincount(codes, weights=deviations) ** 2))
    return max(1.0, (grouped + added * alike) / (float(np.sum(deviations**2)) + added))


def proportion_interval(right: npt.ArrayLike, groups: Labels | None = None) -> Interval:
    """Return the 95 % interval of a share of images that may come in groups.

    Wilson's interval with the counts divided by the design effect (Rao and Scott 1992; compared with others for
    correlated proportions by Saha, Miller and Wang 2016, International Journal of Biostatistics 12(2)).

    Parameters
    ----------
    right : bool array of shape (n_images,)
    groups : int array of shape (n_images,), optional

    Raises
    ------
    ModelError
        There is no image.
    """
    outcomes = np.asarray(right, dtype=np.float64)
    if not len(outcomes):
        raise ModelError("There are no test images to score.")
    effect = design_effect(outcomes - outcomes.mean(), groups)
    return wilson_interval(float(outcomes.sum()) / effect, len(outcomes) / effect)


def macro_intervals(
    true: Labels, predicted: Labels, n_classes: int, groups: Labels | None = None
) -> tuple[Interval, Interval]:
    """Return the 95 % intervals of balanced accuracy and of macro F1.

    The delta method gives the variance of either mean over classes, the number of images of each class being fixed
    (for macro F1: Takahashi et al. 2022, Applied Intelligence 52, section 3.2); Wilson's interval then takes the number
    of images at which a plain proportion would have that variance. So it stays within 0 and 1 and has a width
    where there is no mistake.

    Parameters
    ----------
    true, predicted : int arrays of shape (n_images,)
        Positions of classes, below `n_classes`.
    n_classes : int
    groups : int array of shape (n_images,), optional
    """
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (true, predicted), 1.0)
    n, n_of = len(true), confusion.sum(axis=1)
    accuracy = float(np.trace(confusion)) / n
    usual = np.full((n_classes, n_classes), (1 - accuracy) / max(n_classes - 1, 1))
    np.fill_diagonal(usual, accuracy)
    smooth = (confusion + _PRIOR_IMAGES * usual) * (n_of / (n_of + _PRIOR_IMAGES))[:, None]
    tested = n_of > 0
    n_plain = n_classes**2 / float(np.sum(1 / n_of[tested]))  # if all classes had the same recall
    found = []
    for effects in (_recall_effects, _f1_effects):
        value, _ = effects(confusion)
        smooth_value, effect = effects(smooth)
        mean_of = np.divide(np.sum(smooth * effect, axis=1), n_of, where=tested, out=np.zeros(n_classes))
        variance = float(np.sum(smooth * (effect - mean_of[:, None]) ** 2))
        spread = smooth_value * (1 - smooth_value)
        n_equal = spread / variance if spread > 0 and variance > 0 else n_plain
        deviations = n * (effect - mean_of[:, None])[true, predicted]
        n_equal /= design_effect(deviations, groups, n_means=int(tested.sum()))
        found.append(wilson_interval(value * n_equal, n_equal))
    return found[0], found[1]


def _recall_effects(confusion: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return balanced accuracy, and what one more image of each cell of the confusion matrix would change it by."""
    n_of, n_classes = confusion.sum(axis=1), len(confusion)
    weights = np.divide(1.0, n_of * n_classes, where=n_of > 0, out=np.zeros(n_classes))
    value = float(np.sum(np.diag(confusion) * weights))
    return value, np.diag(weights)


def _f1_effects(confusion: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return macro F1, and what one more image of each cell of the confusion matrix would change it by."""
    n_classes = len(confusion)
    n_named = confusion.sum(axis=0) + confusion.sum(axis=1)  # F1 is 2 tp over this
    per_image = np.divide(1.0, n_named, where=n_named > 0, out=np.zeros(n_classes))
    f1 = 2 * np.diag(confusion) * per_image
    loss = f1 * per_image
    effect = 2 * np.diag(per_image) - loss[:, None] - loss[None, :]
    return float(f1.mean()), effect / n_classes


def mcnemar(true: Labels, one: Labels, other: Labels, groups: Labels | None = None) -> float:
    """Return the two-sided mid-p-value of "both are wrong equally often", from the same test images.

    The test of McNemar 1947, Psychometrika 12: of the images that exactly one of the two gets right, the
    share of the first is binomial with 1/2. Chosen by Dietterich 1998, Neural Computation 10(7), for
    comparing two classifiers that were trained once. Of what was observed half of the probability counts (mid-p:
    Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91): the exact test calls equal candidates
    different in far less than 5 %, and this one in no more than 5 % either (``benchmarks/intervals.py``). Images
    that both get wrong do not count, however they do.

    With groups the sign of the difference is drawn for whole groups: the exact distribution of the sum under all
    sign flips (Fisher 1935, The Design of Experiments, section 21). With one image a group that is McNemar's test.

    Parameters
    ----------
    true, one, other : int arrays of shape (n_images,)
    groups : int array of shape (n_images,), optional
    """
    from scipy.stats import binom

    sums = (one == true).astype(np.int64) - (other == true)
    if groups is not None:
        sums = np.bincount(np.unique_inverse(groups).inverse_indices, weights=sums).astype(np.int64)
    sizes, counts = np.unique_counts(np.abs(sums[sums != 0]))
    if not len(sizes):
        return 1.0
    chances = np.ones(1)  # of each sum of the differences in favour of the first
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(size * count + 1)
        spaced[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, spaced)
    distance = np.abs(2 * np.arange(len(chances)) - (len(chances) - 1))
    observed = abs(int(sums.sum()))
    return float(min(1.0, chances[distance > observed].sum() + chances[distance == observed].sum() / 2))


def difference_interval(true: Labels, one: Labels, other: Labels, groups: Labels | None = None) -> Interval:
    """Return the 95 % interval of the accuracy of `one` less that of `other`, on the same test images.

    The score interval of Tango 1998, Statistics in Medicine 17(8); with groups, counts are divided by the design
    effect of the differences.

    Parameters
    ----------
    true, one, other : int arrays of shape (n_images,)
    groups : int array of shape (n_images,), optional
    """
    from scipy.optimize import brentq

    if not len(true):
        raise ModelError("There are no test images to score.")
    differences = (one == true).astype(np.float64) - (other == true)
    effect = design_effect(differences - differences.mean(), groups)
    n = len(true) / effect
    only_one, only_other = float(np.sum(differences > 0)) / effect, float(np.sum(differences < 0)) / effect
    estimate = (only_one - only_other) / n

    def distance(delta: float) -> float:
        # the share that only the other gets right, most likely if the difference were delta
        b = -only_one - only_other + (2 * n - only_one + only_other) * delta
        c = -only_other * delta * (1 - delta)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        spread = math.sqrt(max(0.0, n * (2 * share + delta * (1 - delta))))
        return (only_one - only_other - n * delta) / spread if spread else 0.0

    tiny = 1e-9  # at the very ends, and at an estimate without spread, the distance is 0 / 0
    low = -1.0 if estimate <= -1 + tiny else float(brentq(lambda d: distance(d) - _Z, -1 + tiny, estimate - tiny))
    high = 1.0 if estimate >= 1 - tiny else float(brentq(lambda d: distance(d) + _Z, estimate + tiny, 1 - tiny))
    return low, high


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % t-interval of the mean of independent draws, within 0 and 1; the mean itself for one draw."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, mean
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
