"""What twice the labels would bring: against power laws whose doubling is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.records import SplitInfo
from tlfeat.report.curve import doubling_text
from tlfeat.studies.curve import Curve
from tlfeat.studies.doubling import Doubling, doublings, gain_of_doubling
from tlfeat.studies.trials import Place, Trial


@pytest.mark.parametrize(("power", "last"), [(0.3, 320), (0.5, 320), (0.5, 40)])
def test_of_a_power_law_the_gain_is_what_the_law_says(power: float, last: int) -> None:
    points = [(n, 1 - 0.8 * n**-power) for n in (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0) if n <= last]
    expected = 0.8 * last**-power * (1 - 2**-power)
    assert gain_of_doubling(points, n_test=1000) == pytest.approx(expected, rel=1e-9)


def test_only_the_last_four_points_count() -> None:
    flat = [(10.0, 0.9), (20.0, 0.9), (40.0, 0.9), (80.0, 0.9)]
    assert gain_of_doubling([(1.0, 0.5), (5.0, 0.7), *flat], 1000) == pytest.approx(0, abs=1e-9)
    assert gain_of_doubling([(5.0, 0.7), *flat[1:]], 1000) > 0.005


def test_a_curve_that_falls_promises_no_loss_and_one_without_a_mistake_no_more() -> None:
    assert gain_of_doubling([(10.0, 0.9), (20.0, 0.88), (40.0, 0.86)], 1000) == 0
    assert 0 <= gain_of_doubling([(10.0, 1.0), (20.0, 1.0), (40.0, 1.0)], 200) < 1e-9


def curve_of(n_draws: int, **errors: list[float]) -> Curve:
    """Draws whose test images are wrong with these chances at 10, 20, 40, 80 labels."""
    rng = np.random.default_rng(0)
    lines: dict[str, list[Place]] = {}
    for name, chances in errors.items():
        lines[name] = []
        for n_labels, chance in zip((10, 20, 40, 80), chances, strict=False):
            drawn = rng.random((n_draws, 600)) >= chance
            marks: list[Any] = ["".join("01"[int(right)] for right in draw) for draw in drawn]
            trials = [Trial(name, n_labels // 2, i, n_labels, mark, 0.1) for i, mark in enumerate(marks)]
            lines[name].append(Place(n_labels // 2, n_labels, trials))
    split = SplitInfo("d", "given", 3, 80, 0, 600)
    return Curve(Path("c.h5"), "b", "l", ["x", "y"], split, n_draws, 1, [5, 10, 20, 40], lines, 0, [], [])


def test_the_interval_holds_the_gain_of_the_law_and_gets_narrower_with_draws() -> None:
    errors = [0.8 * n**-0.5 for n in (10, 20, 40, 80)]
    true_gain = errors[-1] * (1 - 2**-0.5)
    (few,), (many,) = (doublings(curve_of(n, svm=errors)) for n in (2, 12))
    for found in (few, many):
        assert found.interval[0] < true_gain < found.interval[1]
        assert found.interval[0] <= found.gain <= found.interval[1]
    assert (many.candidate, many.n_labels) == ("svm", 80)
    misfit = (few.gain, many.gain)  # half of it at either end
    few_width, many_width = (
        one.interval[1] - one.interval[0] - gain for one, gain in zip((few, many), misfit, strict=True)
    )
    assert 0 < many_width < 0.8 * few_width


def test_the_most_accurate_candidate_comes_first_and_two_points_say_nothing() -> None:
    found = doublings(curve_of(3, knn=[0.5, 0.4, 0.35, 0.3], svm=[0.4, 0.3, 0.25, 0.2], lda=[0.2, 0.1]))
    assert [one.candidate for one in found] == ["svm", "knn"]


def test_the_forecast_in_words() -> None:
    forecast = Doubling("svm", 850, 0.9612, 0.0063, (0.0011, 0.0098))
    assert doubling_text(forecast, {"svm": "svm on avg_pool"}) == (
        "Twice the labels (1,700 in place of 850) would bring svm on avg_pool from 96.1 % to about 96.8 %: +0.6 points "
        "(95 % interval +0.1 to +1.0)."
    )
    nothing = Doubling("svm", 850, 0.9612, 0.0003, (0.0, 0.002))
    assert doubling_text(nothing, {}).endswith("+0.2). More images like these are not worth labelling.")
