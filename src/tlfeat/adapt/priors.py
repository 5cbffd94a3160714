"""Another mix of classes in the target: how many there are of each, and probabilities that know it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tlfeat.errors import DataError
from tlfeat.heads.pipelines import classifier_of
from tlfeat.types import Floats, Labels, Probabilities

#: Steps of the expectation maximisation end where no share moves by more than this.
_TOLERANCE, _MAX_STEPS = 1e-10, 10_000

_SMALLEST = 1e-12


def em_priors(probabilities: Probabilities, source_priors: Floats) -> Floats:
    """Return the shares of the classes among unlabelled images that make their probabilities most likely.

    Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 14. What an image of a class looks like is taken to be as in the source.

    Parameters
    ----------
    probabilities : array of shape (n_images, n_classes)
        Calibrated, under the source's shares.
    source_priors : array of shape (n_classes,)

    Returns
    -------
    array of shape (n_classes,)
        They sum to 1.
    """
    ratio = np.maximum(probabilities, _SMALLEST) / source_priors
    shares = np.array(source_priors, dtype=np.float64)
    for _ in range(_MAX_STEPS):
        joint = ratio * shares
        new = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - shares).max() < _TOLERANCE:
            return np.asarray(new)
        shares = new
    return shares


def bias_corrected(held_out: Probabilities, true: Labels) -> tuple[float, Floats]:
    """Return the factor and the offsets of log-probabilities that suit held-out images best.

    Alexandari, Kundaje and Shrikumar 2020, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label
    shift adaptation", ICML: one temperature, and one offset a class.
    """
    from scipy.optimize import minimize

    logs, n_classes = np.log(np.maximum(held_out, _SMALLEST)), held_out.shape[1]
    is_true = np.eye(n_classes)[true]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scores = parameters[0] * logs + parameters[1:]
        scores = scores - scores.max(axis=1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        off = (np.exp(log_p) - is_true) / len(logs)
        return float(-log_p[is_true > 0].mean()), np.concatenate([[(off * logs).sum()], off.sum(axis=0)])

    start = np.concatenate([[1.0], np.zeros(n_classes)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return float(found[0]), np.asarray(found[1:] - found[1:].mean())


def with_offsets(head: Any, factor: float, offsets: Floats) -> Any:
    """Return a linear head whose log-probabilities are multiplied and moved, as another head of the same kind.

    Raises
    ------
    DataError
        Its probabilities come from no linear classifier.
    """
    head = copy.deepcopy(head)
    classifier, temperature = classifier_of(head)
    if not (hasattr(classifier, "coef_") and hasattr(classifier, "intercept_")) or hasattr(classifier, "dual_coef_"):
        raise DataError("shares of classes are corrected in linear heads only: logreg, linear-svm, ridge, lda")
    moved = offsets * temperature
    if len(offsets) == 2:  # one score s: logits 0 and s of the log loss, -s and s of a temperature
        moved = np.array([(offsets[1] - offsets[0]) * (1.0 if _is_logistic(classifier) else temperature / 2)])
    coef = np.asarray(classifier.coef_, dtype=np.float64) * factor
    classifier.coef_ = coef.astype(classifier.coef_.dtype)
    classifier.intercept_ = np.asarray(classifier.intercept_, dtype=np.float64) * factor + moved
    return head


def _is_logistic(classifier: Any) -> bool:
    return type(classifier).__name__ == "LogisticRegression"
