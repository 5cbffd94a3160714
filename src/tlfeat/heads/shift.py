"""Whether test images are of another kind than training images: another camera, another place, another style.

Cross-validation on the training images then promises more than holds for the test images, and for pictures like them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlfeat.evaluate.intervals import Interval, proportion_interval
from tlfeat.heads.blocks import View
from tlfeat.records import Shift
from tlfeat.types import Floats, Labels, Rows, RowSource

#: Rows of either side at most: more change the AUC in its third digit only.
_MAX_ROWS = 500

#: Of ridge regression on standardised rows, whose kernel has values of order 1.
_PENALTY = 1.0

#: Held-out accuracy is a little too high, as parameters were chosen on it: less than this is no shift.
_LEAST_DROP = 0.02

_TELLS_APART = 0.8


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Training images that heads were tried on which had not seen them.

    Attributes
    ----------
    right : bool array of shape (n_held,)
        Whether the answer was right.
    groups : int array of shape (n_held,)
    """

    right: npt.NDArray[np.bool_]
    groups: Labels

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def some_rows(rows: RowSource, *, seed: int) -> Rows:
    """Return at most 500 rows, drawn with `seed`, in a random order."""
    n, width = rows.shape
    chosen = np.random.default_rng(seed).permutation(n)[:_MAX_ROWS]
    return View(rows, (0, width)).take(chosen)[slice(None)]


def tell_apart(learned: Rows, tested: Rows) -> float:
    """Return how well a head tells test from training rows, as area under the ROC curve: 0.5 not at all, 1 always.

    Half of the rows teach it and the other half tests it, both ways. Ben-David et al. 2010, "A theory of learning from
    different domains", Machine Learning 79: the better this head, the less accuracy on one says of the other.

    Parameters
    ----------
    learned, tested : float32 arrays of shape (n_learned, width) and (n_tested, width)
        In a random order; see `some_rows`.
    """
    from sklearn.metrics import roc_auc_score

    sides = (learned, tested)
    if min(map(len, sides)) < 2:
        return 0.5
    is_tested = np.repeat([False, True], [len(side) for side in sides])
    half = np.concatenate([np.arange(len(side)) % 2 for side in sides])
    rows = np.concatenate(sides)
    found = [roc_auc_score(is_tested[held], _ridge_scores(rows, is_tested, held)) for held in (half == 0, half == 1)]
    return float(np.mean(found))


def _ridge_scores(rows: Rows, is_one: npt.NDArray[np.bool_], is_held: npt.NDArray[np.bool_]) -> Floats:
    """Scores of the rows held out, by ridge regression on the others in its dual form: fewer rows than columns."""
    known = rows[~is_held]
    mean, scale = known.mean(axis=0), known.std(axis=0)
    known, held = ((part - mean) / np.where(scale > 0, scale, 1) for part in (known, rows[is_held]))
    kernel = known @ known.T / rows.shape[1] + _PENALTY * np.eye(len(known))
    target = is_one[~is_held] - is_one[~is_held].mean()
    return np.asarray(held @ known.T @ np.linalg.solve(kernel, target), dtype=np.float64)


def measure_shift(
    held_out: HeldOut, auc: float, test_accuracy: float, test_ci95: Interval, *, by_groups: bool = True
) -> Shift:
    """Return held-out less test accuracy with its 95 % interval.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17,
    method 10: from the intervals of both, which allow for groups. Where the test images are all of one group there is
    nothing to allow for on that side, so nothing is on the other (`by_groups`): these images against those.
    """
    share, (low, high) = held_out.accuracy, proportion_interval(held_out.right, held_out.groups if by_groups else None)
    difference, (test_low, test_high) = share - test_accuracy, test_ci95
    ci95 = (
        difference - math.hypot(share - low, test_high - test_accuracy),
        difference + math.hypot(high - share, test_accuracy - test_low),
    )
    return Shift(auc, share, difference, ci95)


def shift_sentence(shift: Shift | None) -> str:
    """Return a warning where test images are right less often than held-out training images, "" elsewhere."""
    if shift is None or shift.difference_ci95[0] <= _LEAST_DROP:
        return ""
    low, high = shift.difference_ci95
    apart = (
        f"a head tells training from test images (AUC {shift.auc:.2f}), so they are of another kind"
        if shift.auc >= _TELLS_APART
        else f"their rows look alike (AUC {shift.auc:.2f}), so look at the labels of the test images"
    )
    return (
        f"SHIFT: held-out training images are right in {100 * shift.held_out:.1f} %, test images in "
        f"{100 * (shift.held_out - shift.difference):.1f} %, {100 * shift.difference:.1f} points fewer (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f}); {apart}. Expect the test accuracy, not the held-out one, of new images "
        f"like these."
    )
