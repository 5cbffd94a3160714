"""What accuracy costs: the frontier, and when extraction has paid for itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_results import a_result
from tlfeat.studies.tradeoff import BreakEven, break_even, break_evens, frontier, seconds_of

SECONDS = st.floats(0, 1e5)


def test_on_the_frontier_is_what_no_other_one_beats() -> None:
    assert frontier([(1, 0.8), (2, 0.9), (3, 0.85), (0.5, 0.8)]) == [False, True, False, True]


def test_equal_ones_are_on_the_frontier_together_and_one_without_seconds_is_not() -> None:
    assert frontier([(1, 0.9), (1, 0.9), (1, 0.8), (None, 1.0)]) == [True, True, False, False]


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1))
def test_whatever_is_not_on_the_frontier_is_beaten_by_one_that_is(points: list[tuple[float, float]]) -> None:
    ahead = frontier(points)
    front = [point for point, is_ahead in zip(points, ahead, strict=True) if is_ahead]
    assert front
    for (s, accuracy), is_ahead in zip(points, ahead, strict=True):
        assert is_ahead or any(t <= s and a >= accuracy for t, a in front)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param((10, 1, 4, 50), 1, id="at once"),
        pytest.param((100, 1, 0, 11), 11, id="after ten fits the extraction is only just made up for"),
        pytest.param((99.9, 1, 0, 11), 10, id="a little cheaper, one fit earlier"),
        pytest.param((10, 5, 0, 5), None, id="fits as slow as training never make it up"),
        pytest.param((10, 6, 0, 5), None, id="slower ones neither"),
        pytest.param((1, 6, 9, 5), None, id="ahead at first, but not for good"),
        pytest.param((1, 5, 4, 5), 1, id="ahead from the start, and it stays so"),
        pytest.param((None, 1, 4, 50), None, id="extraction not timed"),
        pytest.param((10, None, 4, 50), None, id="head not timed"),
        pytest.param((10, 1, None, 50), 1, id="decoding while training"),
        pytest.param((10, 1, 4, None), None, id="training not timed"),
        pytest.param((0, 0, 0, 1), 1, id="free"),
    ],
)
def test_extraction_has_paid_after_so_many_trainings(times: tuple[Any, ...], expected: int | None) -> None:
    assert break_even(*times) == expected


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_from_the_break_even_on_extraction_is_cheaper_and_before_it_is_not(
    extract_s: float, head_s: float, decode_s: float, keras_s: float
) -> None:
    n = break_even(extract_s, head_s, decode_s, keras_s)
    slack = 1e-6 * (1 + extract_s + decode_s)
    if n is None:
        assert keras_s - head_s <= 0
    else:
        assert extract_s + n * head_s < decode_s + n * keras_s + slack * n
        if n > 1:
            assert extract_s + (n - 1) * head_s >= decode_s + (n - 1) * keras_s - slack * n


def test_seconds_count_what_they_say() -> None:
    head = a_result("logreg", extract_s=100.0, search_s=10.0, fit_s=1.0)
    network = a_result("keras-frozen", kind="keras", decode_s=5.0, fit_s=50.0)
    assert [seconds_of(head, cost) for cost in ("choosing and fitting", "from image files", "the last fit alone")] == [
        11.0,
        111.0,
        1.0,
    ]
    assert [seconds_of(network, cost) for cost in ("choosing and fitting", "from image files")] == [55.0, 55.0]
    to_its_cut = a_result("keras-frozen", kind="keras", extract_s=7.0, fit_s=50.0)
    assert [seconds_of(to_its_cut, cost) for cost in ("choosing and fitting", "from image files")] == [50.0, 57.0]
    assert seconds_of(a_result("knn", fit_s=1.0), "from image files") is None
    assert seconds_of(a_result("knn"), "choosing and fitting") is None


def test_each_network_is_held_against_the_best_head_with_a_timed_extraction() -> None:
    results = [
        a_result("svm", accuracy=0.9, fit_s=1.0),  # extraction not timed
        a_result("pixels+logreg", accuracy=0.9, layer="pixels", extract_s=1.0, fit_s=1.0),
        a_result("knn", accuracy=0.7, extract_s=30.0, fit_s=1.0),
        a_result("logreg", accuracy=0.8, extract_s=30.0, search_s=1.0, fit_s=1.0),
        a_result("keras-frozen", kind="keras", accuracy=0.8, fit_s=12.0),
        a_result("keras-scratch", kind="keras", accuracy=0.5, decode_s=5.0, fit_s=300.0),
        a_result("keras-finetuned", kind="keras", accuracy=0.5, extract_s=25.0, fit_s=4.0),
    ]
    assert break_evens(results) == [BreakEven(3, 4, 4), BreakEven(3, 5, 1), BreakEven(3, 6, 3)]
    assert break_evens(results[:2] + results[4:]) == []
