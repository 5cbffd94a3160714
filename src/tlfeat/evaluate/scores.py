"""The only place where a metric of test images is put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.evaluate.calibration import calibration
from tlfeat.evaluate.intervals import macro_intervals, proportion_interval
from tlfeat.records import Score
from tlfeat.text import interval_text, percent
from tlfeat.types import Labels, Probabilities


def score(
    true: Labels,
    predicted: Labels,
    classes: Sequence[str],
    *,
    groups: Labels | None = None,
    probabilities: Probabilities | None = None,
) -> Score:
    """Return every test-set score of one candidate.

    Parameters
    ----------
    true, predicted : int arrays of shape (n_images,)
        Positions in `classes`.
    groups : int array of shape (n_images,), optional
        Images with the same number are not independent (`Split.groups`); intervals allow for it.
    probabilities : float array of shape (n_images, n_classes), optional
        For `Score.calibration`.

    Notes
    -----
    Macro F1 is the plain mean of the classes' F1; a class that is never predicted has F1 0. Balanced accuracy
    is the mean recall over classes. A class that is never predicted has no interval of its precision.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=0)
    right = true == predicted

    def interval(chosen: npt.NDArray[np.bool_]) -> list[float] | None:
        if not chosen.any():
            return None
        return list(proportion_interval(right[chosen], None if groups is None else groups[chosen]))

    accuracy_ci95 = proportion_interval(right, groups)
    balanced_ci95, macro_ci95 = macro_intervals(true, predicted, len(classes), groups)
    return Score(
        accuracy=int(right.sum()) / len(true),
        ci95=accuracy_ci95,
        balanced_accuracy=float(np.mean(recall)),
        macro_f1=float(np.mean(f1)),
        confusion=confusion_matrix(true, predicted, labels=numbers).tolist(),
        per_class=[
            {
                "class": name,
                "precision": float(precision[i]),
                "precision_ci95": interval(predicted == i),
                "recall": float(recall[i]),
                "recall_ci95": interval(true == i),
                "f1": float(f1[i]),
                "n": int(support[i]),
            }
            for i, name in enumerate(classes)
        ],
        balanced_accuracy_ci95=balanced_ci95,
        macro_f1_ci95=macro_ci95,
        calibration=None if probabilities is None else calibration(probabilities, true),
    )


def guessing_sentence(found: Score, classes: Sequence[str], *, name: str) -> str:
    """Say that a candidate is no better than naming the most frequent class; "" for one that is."""
    confusion = np.array(found.confusion)
    n, of_class, named = int(confusion.sum()), confusion.sum(axis=1), confusion.sum(axis=0)
    if (named > 0).sum() == 1 and (of_class > 0).sum() > 1:
        return f"{name} did not learn: it named all {n:,} test images '{classes[int(named.argmax())]}'"
    if found.ci95[0] > of_class.max() / n:
        return ""
    return (
        f"{name} is not shown to have learned: naming every test image '{classes[int(of_class.argmax())]}' is right in "
        f"{percent(float(of_class.max() / n))}, it in {percent(found.accuracy)} (95 % interval "
        f"{interval_text(found.ci95)})"
    )


def confused_pairs(found: Score, classes: Sequence[str], *, n: int = 5) -> list[dict[str, Any]]:
    """Return the most frequent confusions: true class, predicted class, how often."""
    pairs = [
        {"true": classes[i], "predicted": classes[j], "n": count}
        for i, row in enumerate(found.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -int(str(pair["n"])))[:n]
