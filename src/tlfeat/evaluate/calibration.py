"""How far probabilities can be believed, and the one number that makes them more believable."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tlfeat.errors import ModelError
from tlfeat.evaluate.intervals import wilson_interval
from tlfeat.records import Calibration
from tlfeat.text import percent
from tlfeat.types import Labels, Probabilities

#: Bins of the reliability table (Guo et al. 2017 take 15), fewer where a bin would hold less than 20 images.
_MAX_BINS, _IMAGES_A_BIN = 15, 20

#: A probability of 0 for the true class would make the log loss infinite; scikit-learn clips at the same value.
_SMALLEST = float(np.finfo(np.float64).eps)

_N_DRAWS = 1000


def calibration(probabilities: Probabilities, true: Labels) -> Calibration:
    """Return the reliability table of the named class, expected calibration error, Brier score and log loss.

    Parameters
    ----------
    probabilities : float array of shape (n_images, n_classes)
        Of test images; rows sum to 1.
    true : int array of shape (n_images,)

    Notes
    -----
    The expected calibration error (ECE) is the mean over bins of |share that is right - mean probability|, weighted
    by images: Naeini, Cooper and Hauskrecht 2015, AAAI, equation 1; Guo et al. 2017, ICML, equation 3. Bins hold
    equally many images, which biases it less than bins of equal width (Nixon et al. 2019, CVPR workshops). It is
    still biased upwards: perfect probabilities get more than 0. So `ece_expected` and `ece_upper` say what
    probabilities that are exactly right would get on as many images, mean and 95 % quantile of 1,000 seeded draws of
    the outcomes (Bröcker and Smith 2007, Weather and Forecasting 22(3)). An ECE below `ece_upper` is no evidence of
    miscalibration. The Brier score is the sum over classes, 0 to 2 (Brier 1950); log loss is in nats.
    """
    if not len(true):
        raise ModelError("There are no test images to score.")
    certainty = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == true).astype(np.float64)
    n_bins = max(1, min(_MAX_BINS, len(true) // _IMAGES_A_BIN))
    edges = np.unique(np.quantile(certainty, np.arange(1, n_bins) / n_bins))
    bins = np.searchsorted(edges, certainty, side="left")  # equal probabilities stay in one bin
    sizes = np.bincount(bins, minlength=len(edges) + 1).astype(np.float64)
    sums = np.bincount(bins, weights=certainty, minlength=len(sizes))

    def error(outcomes: Probabilities) -> float:
        return float(np.abs(np.bincount(bins, weights=outcomes, minlength=len(sizes)) - sums).sum() / len(true))

    rng = np.random.default_rng(0)
    perfect = [error((rng.random(len(true)) < certainty).astype(np.float64)) for _ in range(_N_DRAWS)]
    n_right = np.bincount(bins, weights=right, minlength=len(sizes))
    table = [
        {
            "n": int(sizes[b]),
            "probability": float(sums[b] / sizes[b]),
            "right": float(n_right[b] / sizes[b]),
            "right_ci95": list(wilson_interval(float(n_right[b]), float(sizes[b]))),
        }
        for b in np.flatnonzero(sizes).tolist()
    ]
    of_true = probabilities[np.arange(len(true)), true]
    return Calibration(
        ece=error(right),
        ece_expected=float(np.mean(perfect)),
        ece_upper=float(np.quantile(perfect, 0.95)),
        brier=float(np.mean(np.sum(probabilities**2, axis=1) - 2 * of_true + 1)),
        log_loss=float(-np.mean(np.log(np.maximum(of_true, _SMALLEST)))),
        table=table,
    )


def softmax(scores: npt.NDArray[np.float64], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes)."""
    z = scores / temperature
    z = np.exp(z - z.max(axis=1, keepdims=True))
    z /= z.sum(axis=1, keepdims=True)
    return np.asarray(z, dtype=np.float64)


def log_loss(scores: Probabilities, labels: Labels, weights: npt.NDArray[np.float32], temperature: float) -> float:
    """Return the weighted mean of the negative log probability of the true class."""
    z = scores / temperature
    z = z - z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]
    return float(losses @ weights / weights.sum(dtype=np.float64))


def best_temperature(scores: Probabilities, labels: Labels) -> float:
    """Return the temperature by which scores become probabilities of the lowest log loss.

    Guo et al. 2017, "On calibration of modern neural networks", ICML, section 4.2. It changes no prediction.
    """
    from scipy.optimize import minimize_scalar

    spread = float(np.std(scores)) or 1.0
    ones = np.ones(len(labels), np.float32)
    found = minimize_scalar(
        lambda power: log_loss(scores, labels, ones, spread * np.exp(power)), bounds=(-3, 4), method="bounded"
    )
    return spread * float(np.exp(found.x))


def calibration_text(found: Calibration) -> str:
    """Return the sentence about how far the probabilities can be believed."""
    return (
        f"ECE {percent(found.ece)} (perfect probabilities: {percent(found.ece_expected)}, up to "
        f"{percent(found.ece_upper)}), log loss {abs(found.log_loss):.3f}, Brier score {found.brier:.3f}"
    )
