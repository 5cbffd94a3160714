"""The head that learns while somebody labels."""

from __future__ import annotations

import numpy as np
import pytest

from tlfeat.errors import ModelError
from tlfeat.heads.learner import C, LinearModel, fit
from tlfeat.types import Labels, Rows


def some_rows(n: int = 90, n_classes: int = 3, *, seed: int = 0) -> tuple[Rows, Labels]:
    """Rows of 12 columns and unequal lengths, in directions that the classes can nearly be told by."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    rows = rng.standard_normal((n, 12)).astype(np.float32) + 1
    rows[np.arange(n), labels] += 2.5
    return rows * rng.uniform(0.1, 10, (n, 1)).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_those_of_logistic_regression_on_rows_of_length_1(n_classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = some_rows(n_classes=n_classes)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = LogisticRegression(C=C, tol=1e-6, max_iter=10_000).fit(units, labels).predict_proba(units)
    found = fit(rows, labels, n_classes).probabilities(rows)
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.abs(found - expected).max() < 0.02


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_start_leads_to_the_same_head(n_classes: int) -> None:
    rows, labels = some_rows(n_classes=n_classes)
    start = fit(rows[:80], labels[:80], n_classes)
    found = fit(rows, labels, n_classes, start=start)
    assert np.abs(found.probabilities(rows) - fit(rows, labels, n_classes).probabilities(rows)).max() < 0.02


def test_a_class_without_a_label_has_probability_0_and_may_come_later() -> None:
    rows, labels = some_rows(n_classes=3)
    two = fit(rows[labels < 2], labels[labels < 2], 2)
    three = fit(rows, labels, 5, start=two)
    chances = three.probabilities(rows)
    assert chances.shape == (90, 5)
    assert not chances[:, 3:].any()
    assert (chances[:, :3].argmax(axis=1) == labels).mean() > 0.8
    again = fit(rows[labels != 1], labels[labels != 1], 5, start=three)  # an answer may be taken back
    assert not again.probabilities(rows)[:, 1].any()


def test_one_class_alone_has_probability_1() -> None:
    rows, _ = some_rows()
    alone = fit(rows[:4], np.full(4, 1), 3)
    assert (alone.probabilities(rows) == [0, 1, 0]).all()
    assert fit(rows[:1], np.array([0]), 1).probabilities(rows).tolist() == [[1.0]] * 90


def test_without_a_label_there_is_nothing_to_learn() -> None:
    with pytest.raises(ModelError, match="no label"):
        fit(np.empty((0, 3), np.float32), np.empty(0, np.int64), 2)


def test_a_row_of_zeros_is_no_trouble_and_rows_are_not_changed() -> None:
    rows, labels = some_rows()
    rows[3] = 0
    before = rows.copy()
    model = fit(rows, labels, 3)
    assert isinstance(model, LinearModel)
    assert np.isfinite(model.probabilities(rows)).all()
    assert np.array_equal(rows, before)
