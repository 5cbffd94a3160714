"""Reliability, expected calibration error and temperature, against arithmetic, scikit-learn and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from tlfeat.errors import ModelError
from tlfeat.evaluate.calibration import best_temperature, calibration, softmax
from tlfeat.types import Labels, Probabilities


def drawn(n: int, n_classes: int = 4, *, temperature: float = 1.0, seed: int = 0) -> tuple[Probabilities, Labels]:
    """Return probabilities and outcomes drawn from them; the probabilities then get a temperature of their own."""
    rng = np.random.default_rng(seed)
    exact = rng.dirichlet(np.full(n_classes, 0.5), n)
    true = (rng.random(n)[:, None] >= exact.cumsum(axis=1)).sum(axis=1).clip(0, n_classes - 1)
    return softmax(np.log(exact), temperature), true


def test_the_reliability_table_by_hand() -> None:
    # 40 images are two bins: 20 named with 0.6, half of them right; 20 with 0.9, all right
    probabilities = np.array([[0.6, 0.4]] * 20 + [[0.1, 0.9]] * 20)
    found = calibration(probabilities, np.array([0, 1] * 10 + [1] * 20))
    assert [(b["n"], b["probability"], b["right"]) for b in found.table] == [
        (20, pytest.approx(0.6), 0.5),
        (20, pytest.approx(0.9), 1.0),
    ]
    assert found.ece == pytest.approx((0.1 + 0.1) / 2)
    assert found.brier == pytest.approx((10 * 2 * 0.4**2 + 10 * 2 * 0.6**2 + 20 * 2 * 0.1**2) / 40)
    assert found.log_loss == pytest.approx(-(10 * np.log(0.6) + 10 * np.log(0.4) + 20 * np.log(0.9)) / 40)


def test_brier_and_log_loss_agree_with_scikit_learn() -> None:
    probabilities, true = drawn(300)
    found = calibration(probabilities, true)
    assert found.log_loss == pytest.approx(metrics.log_loss(true, probabilities))
    assert found.brier == pytest.approx(metrics.brier_score_loss(true, probabilities, scale_by_half=False))


def test_bins_hold_equally_many_images_and_equal_probabilities_stay_together() -> None:
    probabilities, true = drawn(600)
    assert {b["n"] for b in calibration(probabilities, true).table} == {40}
    certain = np.tile([1.0, 0.0], (600, 1))
    assert len(calibration(certain, np.zeros(600, dtype=np.int64)).table) == 1


def test_perfect_probabilities_stay_below_the_bound_and_flattering_ones_do_not() -> None:
    """The bound is meant to be passed by 5 % of perfect classifiers."""
    above = sum(c.ece > c.ece_upper for c in (calibration(*drawn(300, seed=s)) for s in range(60)))
    assert above <= 8
    found = calibration(*drawn(300, temperature=0.4))
    assert found.ece > 2 * found.ece_upper


def test_the_bound_of_perfect_probabilities_is_their_95_percent_quantile() -> None:
    """Where all are named with 0.7, the error is that of one share of 2,000, whose distribution is known."""
    probabilities = np.tile([0.3, 0.7], (2000, 1))
    found = calibration(probabilities, (np.arange(2000) % 10 < 7).astype(np.int64))
    deviation = np.sqrt(0.7 * 0.3 / 2000)
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.ece_expected == pytest.approx(np.sqrt(2 / np.pi) * deviation, rel=0.08)
    assert found.ece_upper == pytest.approx(1.96 * deviation, rel=0.08)  # its 90 % quantile: 16 % less


def test_a_probability_of_0_for_the_truth_is_no_infinite_loss() -> None:
    assert np.isfinite(calibration(np.array([[1.0, 0.0]]), np.array([1])).log_loss)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_probabilities_is_found_and_taken_back(temperature: float) -> None:
    probabilities, true = drawn(4000, temperature=1 / temperature)
    found = best_temperature(np.log(probabilities), true)
    assert found == pytest.approx(temperature, rel=0.1)
    after = softmax(np.log(probabilities), found)
    assert (after.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert after.sum(axis=1) == pytest.approx(1)
    assert calibration(after, true).log_loss <= calibration(probabilities, true).log_loss


def test_a_temperature_has_bounds_where_no_least_loss_exists() -> None:
    scores = np.tile([2.0, -2.0], (50, 1))
    assert 0.05 * 2 < best_temperature(scores, np.zeros(50, dtype=np.int64)) < 0.15
    assert 100 < best_temperature(scores, np.ones(50, dtype=np.int64)) < 2 * np.exp(4) + 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ModelError, match="no "):
        calibration(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
