"""Accuracy from pictures that were asked at random."""

from __future__ import annotations

import numpy as np
import pytest

from tlfeat.evaluate.intervals import wilson_interval
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.labelling.estimate import Estimate, estimate, is_reached
from tlfeat.types import Bools, Labels, Rows


def answered(n: int = 200, *, seed: int = 0, noise: float = 1.0) -> tuple[Rows, Labels, Bools]:
    """Answers in their order, every fifth asked at random."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    rows = noise * rng.standard_normal((n, 8)).astype(np.float32)
    rows[np.arange(n), labels] += 2
    return rows, labels, np.arange(n) % 5 == 4


def of_answers(rows: Rows, labels: Labels, is_random: Bools) -> Estimate | None:
    return estimate(Graph(rows), np.arange(len(rows)), labels, is_random, 2)


def test_each_random_picture_is_predicted_by_a_head_of_all_other_labels() -> None:
    rows, labels, is_random = answered()
    graph = Graph(rows)
    found = estimate(graph, np.arange(200), labels, is_random, 2)
    assert found is not None
    random, right = np.flatnonzero(is_random), 0
    for fold in range(5):
        held = random[fold::5]
        learned = np.setdiff1d(np.arange(200), held)
        scores = fit_spread(graph, learned, labels[learned], 2).scores(rows[held])
        right += int((scores.argmax(axis=1) == labels[held]).sum())
    assert (found.n, found.right) == (40, right)
    assert found.accuracy == right / 40
    assert found.interval == wilson_interval(right, 40)


def test_labels_that_say_nothing_give_an_accuracy_of_chance() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((300, 400)).astype(np.float32)  # wide enough to learn every label by heart
    labels = rng.integers(0, 2, 300)
    graph, before = Graph(rows), None
    for n in (100, 200, 300):
        before = estimate(graph, np.arange(n), labels[:n], np.arange(n) % 2 == 0, 2, before=before)
    assert before is not None
    assert 0.35 < before.accuracy < 0.65  # a start that had seen the picture would be right


def test_a_start_gives_the_same_estimate() -> None:
    rows, labels, is_random = answered()
    graph, places = Graph(rows), np.arange(200)
    before = estimate(graph, places[:150], labels[:150], is_random[:150], 2)
    fresh = estimate(graph, places, labels, is_random, 2)
    found = estimate(graph, places, labels, is_random, 2, before=before)
    assert fresh is not None
    assert found is not None
    assert abs(found.right - fresh.right) <= 1


def test_without_random_pictures_nothing_is_said() -> None:
    rows, labels, is_random = answered(10)
    graph, places = Graph(rows), np.arange(10)
    assert estimate(graph, places, labels, np.zeros(10, bool), 2) is None
    assert estimate(graph, places[4:5], labels[4:5], is_random[4:5], 2) is None
    one = estimate(graph, places[:5], labels[:5], is_random[:5], 2)
    assert one is not None
    assert (one.n, one.doubling) == (1, None)


def test_twice_the_labels_bring_more_where_the_curve_still_rises() -> None:
    steep, flat = (of_answers(*answered(400, noise=noise)) for noise in (1.6, 0.2))
    assert steep is not None
    assert flat is not None
    assert steep.doubling is not None
    assert steep.doubling_interval is not None
    assert steep.doubling_interval[0] <= steep.doubling <= steep.doubling_interval[1]
    assert flat.doubling == pytest.approx(0, abs=0.01)


def test_what_twice_the_labels_bring_is_kept_where_it_is_not_asked_for() -> None:
    rows, labels, is_random = answered(noise=1.6)
    graph, places = Graph(rows), np.arange(200)
    first = estimate(graph, places[:190], labels[:190], is_random[:190], 2)
    assert first is not None and first.doubling is not None
    kept = estimate(graph, places, labels, is_random, 2, before=first, has_doubling=False)
    assert kept is not None and kept.n == first.n + 2
    assert (kept.doubling, kept.doubling_interval) == (first.doubling, first.doubling_interval)
    assert kept.heads[:10] == first.heads[:10] and len(kept.heads) == 15
    anew = estimate(graph, places, labels, is_random, 2, before=kept)
    assert anew is not None and anew.doubling != first.doubling


def test_until_is_reached_when_the_lower_end_is_there() -> None:
    found = Estimate(100, 97, 0.97, wilson_interval(97, 100))
    assert is_reached(found, found.interval[0] - 0.01)
    assert not is_reached(found, found.interval[0] + 0.01)
    assert not is_reached(None, 0.1)
