"""Another mix of classes: the shares that are most likely, and heads that know them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from made_data import make_table
from made_domains import CLASSES, domain_rows
from tlfeat.adapt.priors import bias_corrected, em_priors, with_offsets
from tlfeat.errors import DataError
from tlfeat.evaluate.calibration import softmax
from tlfeat.evaluate.split import Split, make_split
from tlfeat.heads.fit import Fit, fit_head
from tlfeat.types import Floats, Labels, Rows


def overlapping(n: int, shares: list[float], seed: int) -> tuple[Floats, Labels]:
    """Return probabilities under even shares for images of overlapping classes in these shares, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), n, p=shares)
    scores = 1.5 * np.eye(len(shares))[labels] + rng.normal(size=(n, len(shares)))
    return softmax(1.5 * scores, 1.0), labels


@pytest.mark.parametrize("source", [[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])
def test_the_shares_of_em_are_those_of_the_highest_likelihood(source: list[float]) -> None:
    probabilities, labels = overlapping(700, [0.55, 0.1, 0.25, 0.1], seed=4)
    probabilities = probabilities * source / (probabilities * source).sum(axis=1, keepdims=True)
    ratio = probabilities / np.array(source)

    def unlikely(free: Floats) -> float:
        return -float(np.log(ratio @ softmax(np.append(free, 0.0)[None], 1.0)[0]).mean())

    free = minimize(unlikely, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    found = em_priors(probabilities, np.array(source))
    np.testing.assert_allclose(found, softmax(np.append(free, 0.0)[None], 1.0)[0], atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(found - np.bincount(labels) / 700).max() < 0.06 < np.abs(found - source).max()


def test_shares_of_the_source_stay_where_the_target_has_them_too() -> None:
    probabilities, labels = overlapping(3000, [0.5, 0.3, 0.2], seed=2)
    source = np.bincount(labels) / 3000
    under = probabilities * source / (probabilities * source).sum(axis=1, keepdims=True)
    assert np.abs(em_priors(under, source) - source).max() < 0.03


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_bias_correction_is_the_maximum_of_the_likelihood(n_classes: int) -> None:
    """One class is named too often and all of it is too sure: both are found, as a plain optimiser finds them."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, n_classes, 500)
    logs = 2 * rng.normal(size=(500, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    logs[:, 1] += 1.3
    held_out = softmax(logs, 1.0)

    def loss(parameters: Floats) -> float:
        moved = parameters[0] * np.log(held_out) + np.append(parameters[1:], 0.0)
        return -float(np.log(softmax(moved, 1.0)[np.arange(500), labels]).mean())

    best = minimize(loss, np.append(1.0, np.zeros(n_classes - 1)), method="BFGS", options={"gtol": 1e-8})
    factor, offsets = bias_corrected(held_out, labels)
    assert loss(np.append(factor, offsets[:-1] - offsets[-1])) == pytest.approx(best.fun, abs=1e-8)
    assert factor == pytest.approx(best.x[0], abs=1e-4)
    np.testing.assert_allclose(offsets[:-1] - offsets[-1], best.x[1:], atol=1e-3)
    assert offsets.sum() == pytest.approx(0, abs=1e-12)
    assert offsets.argmin() == 1 and factor < 0.8


def fitted(name: str, n_classes: int) -> tuple[Fit, Rows]:
    shares = (0.4, 0.3, 0.3) if n_classes == 3 else (0.6, 0.4, 0.0)
    rows, labels = domain_rows(120, domain=0, width=6, shares=shares, strength=0.4)
    split = split_of(labels)
    at = split.where("train", "val")
    return fit_head(name, rows[at], split, at, is_searched=False, seed=2), rows


def split_of(labels: Labels) -> Split:
    """Return a split whose images stand in the order of the rows."""
    keys = [f"{i:064x}" for i in range(len(labels))]
    return make_split(make_table([CLASSES[label] for label in labels], keys=keys, paths=keys))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["logreg", "linear-svm", "ridge", "lda"])
def test_a_head_with_offsets_has_its_log_probabilities_multiplied_and_moved(name: str, n_classes: int) -> None:
    fit, rows = fitted(name, n_classes)
    factor, offsets = 0.7, np.array([0.9, -1.4, 0.5])[:n_classes]
    before = fit.head.predict_proba(rows)
    moved = with_offsets(fit.head, factor, offsets)
    expected = softmax(factor * np.log(before) + offsets, 1.0)
    np.testing.assert_allclose(moved.predict_proba(rows), expected, atol=1e-6)
    assert np.abs(expected - before).max() > 0.1
    assert np.array_equal(fit.head.predict_proba(rows), before)  # the head that was given is as it was
    assert moved.classes_.tolist() == fit.head.classes_.tolist()


@pytest.mark.parametrize("name", ["svm", "knn"])
def test_heads_that_are_not_linear_are_refused_in_one_line(name: str) -> None:
    fit, _ = fitted(name, 3)
    with pytest.raises(DataError, match="linear heads only: logreg, linear-svm, ridge, lda"):
        with_offsets(fit.head, 1.0, np.zeros(3))


def test_the_shares_of_a_target_are_told_to_the_head() -> None:
    """Few of the second class in the target: the corrected head names fewer images so, and is right more often."""
    import tlfeat.adapt.methods as methods
    from made_domains import made_task
    from tlfeat.adapt.methods import probabilities_of

    shares = (0.05, 0.15, 0.8)
    task, hidden = made_task(200, 300, far=0.0, shares=shares, strength=0.45)
    fitter = methods.Fitter(task)
    none, prior = (fitter.fit(method) for method in methods.find_methods("prior"))
    assert prior.priors is not None and none.priors is None
    assert np.abs(prior.priors - np.bincount(hidden, minlength=3) / 300).max() < 0.1
    right: dict[str, Any] = {
        one.method.name: (probabilities_of(one.head, task.target, CLASSES).argmax(axis=1) == hidden).mean()
        for one in (none, prior)
    }
    assert right["prior"] > right["none"] + 0.04
