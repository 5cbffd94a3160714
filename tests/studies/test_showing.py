"""A comparison in Python: the table, the frame and the chart have the numbers of its lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_results import a_result, lined_up
from tlfeat.studies.compare import Comparison

pytestmark = pytest.mark.usefixtures("no_window")


@pytest.fixture
def comparison() -> Comparison:
    found = lined_up(
        a_result("svm", accuracy=0.75, search_s=2.0, fit_s=1.0),
        a_result("<b>ridge</b>", accuracy=0.6875, fit_s=0.5),
        a_result("knn", accuracy=0.25, fit_s=0.25),
    )
    return replace(found, skipped=[("keras-frozen", "no images")], notes=["a leak"])


def test_text_and_html_have_a_line_a_candidate_and_what_was_left_out(comparison: Comparison) -> None:
    text, shown = repr(comparison), comparison._repr_html_()
    lines = text.splitlines()
    assert lines[0] == "3 models on c.h5: 5 test images, 15 training images, 2 classes"
    assert [line.split()[0] for line in lines[4:7]] == ["svm", "<b>ridge</b>", "knn"]
    assert lines[4].endswith("best") and lines[5].endswith("-1.0 points (-2.0 to +0.5), within noise")
    assert lines[6].endswith("-2.0 points (-4.0 to +1.0), worse")
    for said in ("not run: keras-frozen: no images", "note: a leak", "75.0 %", "11.0 to 91.0", "3.0 s"):
        assert said in text and said in shown
    assert "<b>" not in shown and "&lt;b&gt;ridge" in shown


def test_a_frame_has_plain_numbers_and_two_columns_an_interval(comparison: Comparison) -> None:
    frame = comparison.frame()
    assert frame["name"].tolist() == ["svm", "<b>ridge</b>", "knn"]
    assert frame["accuracy"].tolist() == [0.75, 0.6875, 0.25]
    assert frame["ci95_low"].tolist() == [0.11] * 3 and frame["macro_f1_ci95_high"].tolist() == [0.93] * 3
    assert frame["difference_ci95_low"].tolist() == [0.0, -0.02, -0.04]
    assert frame["is_within_noise_of_best"].tolist() == [True, True, False]
    assert not any(frame[name].map(lambda value: isinstance(value, list | dict)).any() for name in frame)


def test_the_plot_has_the_best_on_top_and_every_interval(comparison: Comparison) -> None:
    import matplotlib.pyplot as pyplot

    _, ax = pyplot.subplots()
    assert comparison.plot(ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["knn", "<b>ridge</b>", "svm"]
    good, worse = ax.containers
    assert good[0].get_xydata().tolist() == [[68.75, 1], [75, 2]] and worse[0].get_xydata().tolist() == [[25, 0]]
    assert [segment[:, 0].tolist() for segment in worse[2][0].get_segments()] == [pytest.approx([11, 91])]
    comparison.plot().figure.canvas.draw()
