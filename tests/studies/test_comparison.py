"""How Results are lined up: by accuracy, against the best, adjusted for their number, with the seconds of an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from made_data import make_table
from made_results import a_result
from tlfeat.cache.store import Cache
from tlfeat.errors import TlfeatError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.evaluate.split import make_split
from tlfeat.models.saved import Outcome
from tlfeat.records import Result, Timing
from tlfeat.studies.compare import _image_s, _line_up


@pytest.fixture
def data() -> Data:
    """A hundred test images, so that the order of accuracies is that of the numbers of mistakes; no cache behind it."""
    split = make_split(make_table(["cat", "dog"] * 100), test_fraction=0.5)
    assert split.info.n_test == 100
    made = Data(cast(Cache, SimpleNamespace(path=Path("c.h5"))), split, seed=0)
    made._leaks = LeakedImages([], [])
    return made


def result_of(data: Data, candidate: str, wrong: range, *, macro_f1: float = 0.5) -> Result:
    """A Result whose predictions are right but for the test images in `wrong`."""
    true = data.split.labels[data.split.where("test")]
    predicted = true.copy()
    predicted[list(wrong)] = 1 - predicted[list(wrong)]
    accuracy = 1 - len(wrong) / len(true)
    made = a_result(candidate, accuracy=accuracy, macro_f1=macro_f1)
    return replace(made, split=data.split.info, true=true.tolist(), predicted=predicted.tolist())


def test_the_best_is_the_one_with_the_highest_accuracy_whatever_its_macro_f1(data: Data) -> None:
    results = [
        result_of(data, "svm", range(0, 20), macro_f1=0.9),
        result_of(data, "knn", range(0, 10), macro_f1=0.1),
        result_of(data, "lda", range(0, 15), macro_f1=0.5),
    ]
    lines = _line_up(data, [Outcome(r, is_reused=r.candidate == "lda") for r in results], []).lines
    assert [line.name for line in lines] == ["knn", "lda", "svm"]
    assert [line.is_reused for line in lines] == [False, True, False]
    assert [line.difference for line in lines] == pytest.approx([0, -0.05, -0.1])


def test_p_values_are_those_of_the_mid_p_test_times_holm_s_numbers(data: Data) -> None:
    """By hand: n images on which the better one alone is right give a mid-p of 2 (2^-n - 2^-n / 2) = 2^-n."""
    results = [
        result_of(data, "svm", range(0, 10)),  # the best, with 10 mistakes
        result_of(data, "knn", range(0, 14)),  # 4 more: 2^-4
        result_of(data, "lda", range(0, 16)),  # 6 more: 2^-6
        result_of(data, "ridge", range(0, 20)),  # 10 more: 2^-10
    ]
    lines = _line_up(data, [Outcome(r, is_reused=False) for r in results], []).lines
    assert [line.p_value for line in lines] == pytest.approx([1, 2**-4, 2 * 2**-6, 3 * 2**-10])
    assert [line.is_within_noise for line in lines] == [True, True, False, False]
    for line, n_more in zip(lines, (0, 4, 6, 10), strict=True):
        low, high = line.difference_ci95
        assert line.difference == pytest.approx(-n_more / 100)
        assert low <= line.difference <= high
    assert lines[0].difference_ci95 == (0.0, 0.0)
    assert np.all(np.diff([line.difference_ci95[0] for line in lines]) < 0)


def test_results_of_two_splits_are_not_lined_up(data: Data) -> None:
    one, other = result_of(data, "svm", range(3)), result_of(data, "knn", range(4))
    other = replace(other, split=replace(other.split, digest="another"))
    with pytest.raises(TlfeatError, match="different splits"):
        _line_up(data, [Outcome(one, is_reused=False), Outcome(other, is_reused=False)], [])


@pytest.mark.parametrize(
    ("kind", "timing", "expected"),
    [
        pytest.param("head", {"extract_s_per_image": 2.0, "predict_s_per_image": 1.0}, 3.0, id="network and head"),
        pytest.param("head", {"extract_s_per_image": 2.0}, None, id="head not timed"),
        pytest.param("head", {"predict_s_per_image": 1.0}, None, id="network not timed"),
        pytest.param("keras", {"extract_s_per_image": 2.0, "predict_s_per_image": 1.0}, 1.0, id="measured together"),
    ],
)
def test_the_seconds_of_an_image_are_those_from_file_to_probabilities(
    kind: str, timing: dict[str, float], expected: float | None
) -> None:
    everything = {"extract_s": 11.0, "decode_s": 13.0, "search_s": 17.0, "fit_s": 19.0, "reject_s": 23.0, **timing}
    assert _image_s(replace(a_result("x", kind=kind), timing=Timing(**everything))) == expected
