"""What a Result shows in a notebook and elsewhere: its own numbers, and no name becomes markup."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from made_results import a_result
from tlfeat.errors import UsageError
from tlfeat.models.saved import Outcome
from tlfeat.notebook import html_picture, html_table, plot_text, spread
from tlfeat.records import Result

pytestmark = pytest.mark.usefixtures("no_window")


@pytest.fixture
def result() -> Result:
    made = a_result("svm", accuracy=0.4375, search_s=3.0, fit_s=1.5)
    return replace(made, classes=["<i>a</i>", "b"], chosen={"C": 0.012345678}, model="cache/models/x/svm-1")


def test_a_result_is_a_few_lines(result: Result) -> None:
    text = repr(result)
    assert text.splitlines()[0] == "svm on avg_pool of b"
    assert "43.8 % (11.0 to 91.0)" in text and "C 0.01235" in text and "4.5 s" in text
    assert "15 training, 5 test" in text and "cache/models/x/svm-1" in text
    assert len(text) < 600


def test_a_result_in_a_notebook_has_its_confusion_matrix_and_no_name_becomes_markup(result: Result) -> None:
    shown = result._repr_html_()
    assert "43.8 % (11.0 to 91.0)" in shown
    assert "<i>" not in shown and "&lt;i&gt;a&lt;/i&gt;" in shown
    assert '<td style="text-align:right">2</td>' in shown
    assert Outcome(result, is_reused=True)._repr_html_() == shown
    many = replace(result, classes=[f"c{i}" for i in range(30)])
    assert "true" not in many._repr_html_()


def test_a_frame_has_a_line_a_test_image(result: Result) -> None:
    frame = result.frame()
    assert frame["path"].tolist() == result.test_paths and frame["key"].tolist() == result.test_keys
    assert frame["true"].tolist() == ["<i>a</i>"] * 2 + ["b"] * 3
    assert frame["predicted"].tolist() == ["<i>a</i>", "b", "<i>a</i>", "<i>a</i>", "b"]
    assert frame["is_right"].tolist() == [True, False, False, False, True]
    assert frame["probability"].tolist() == result.certainty


def test_the_plot_is_the_confusion_matrix_on_the_axes_that_are_given(result: Result) -> None:
    import matplotlib.pyplot as pyplot

    _, ax = pyplot.subplots()
    assert result.plot(ax) is ax
    assert {tuple(map(int, text.get_position())): text.get_text() for text in ax.texts} == {
        (0, 0): "1",
        (1, 0): "1",
        (0, 1): "2",
        (1, 1): "1",
    }
    assert ax.images[0].get_array().tolist() == [[0.5, 0.5], [2 / 3, 1 / 3]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["<i>a</i>", "b"]
    own = result.plot()
    assert own is not ax
    own.figure.canvas.draw()


def test_a_dollar_sign_begins_no_formula() -> None:
    assert plot_text("$5 and $6") == r"\$5 and \$6"


def test_without_matplotlib_one_line_says_how_to_get_it(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(UsageError, match=r"plot\(\) needs matplotlib, .*: pip install 'tlfeat\[notebook\]'"):
        result.plot()


def test_html_of_a_table_escapes_headings_cells_sentences_and_pictures() -> None:
    found = html_table(("<b>",), [(html_picture(b"x", '"<b>'),), ("<b>",), (1234,)], above=["<b>"])
    assert "<b>" not in found and found.count("&lt;b&gt;") == 4 and 'alt="&quot;&lt;b&gt;"' in found
    assert ">1,234<" in found
    assert html_picture(b"", "a") == ""


def test_some_rows_are_spread_over_all() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(100, 4) == [0, 25, 50, 75]
