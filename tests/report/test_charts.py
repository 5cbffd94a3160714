"""One description of a chart: where its marks lie, what they say, and the same text in a page, a file and a picture."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import resvg_py
from PIL import Image

from made_results import a_result
from tlfeat.report.charts import (
    Axis,
    Chart,
    Key,
    Mark,
    number_axis,
    percent_axis,
    series,
    tick_axis,
    to_svg,
    to_svg_file,
)
from tlfeat.report.drawings import class_look, confusion_matrix
from tlfeat.report.plots import to_png


def a_chart(**changes: Any) -> Chart:
    values: dict[str, Any] = {
        "title": "Accuracy against <seconds>",
        "x": Axis("seconds & more", [(0.1, "0.1 s"), (1, "1 s"), (10, "10 s")], 0.1, 10, is_log=True),
        "y": percent_axis("accuracy", [0.61, 0.79]),
        "marks": [Mark(1, 0.7, "a: 70 % <b>", low=0.65, high=0.75, name="a", colour="c1", shape="square")],
        "keys": [Key("training", "c0"), Key("validation", "c1")],
    }
    return Chart(**{**values, **changes})


def test_a_logarithmic_axis_spaces_by_ratio_and_a_linear_one_by_difference() -> None:
    assert Axis("", (), 0.1, 10, is_log=True).share(1) == pytest.approx(0.5)
    assert Axis("", (), 2, 10).share(4) == 0.25


@pytest.mark.parametrize(
    ("shares", "ends", "n_ticks"),
    [([0.61, 0.79], (0.6, 0.8), 5), ([0.9, 0.9], (0.9, 0.91), 2), ([0.0, 1.0], (0, 1), 6), ([0.995, 1], (0.99, 1), 2)],
)  # fmt: skip
def test_an_axis_of_percent_has_round_ticks_around_its_shares(
    shares: list[float], ends: tuple[float, float], n_ticks: int
) -> None:
    axis = percent_axis("accuracy", shares)
    assert (axis.low, axis.high, len(axis.ticks)) == (*ends, n_ticks)


@pytest.mark.parametrize("values", [[0.4, 0.9], [3, 3], [0, 0], [1e-7, 5e-7], [-2.0, 1500.0]])
def test_an_axis_of_numbers_takes_all_of_them_in_with_at_most_eight_ticks(values: list[float]) -> None:
    axis = number_axis("loss", values)
    assert axis.low <= min(values) and max(values) <= axis.high and 2 <= len(axis.ticks) <= 8


def test_a_line_of_several_marks_has_a_band_and_a_single_mark_its_interval() -> None:
    marks = [Mark(2, 0.8, low=0.7, high=0.9), Mark(1, 0.5, low=0.4, high=0.6)]
    line, drawn = series("knn", 9, marks)
    assert line.band == [(1, 0.4, 0.6), (2, 0.7, 0.9)] and line.style == "c1"
    assert [(m.x, m.low, m.colour) for m in drawn] == [(1, None, "c1"), (2, None, "c1")]
    line, drawn = series("knn", 0, marks[:1])
    assert not line.band and drawn[0].low == 0.7


def test_a_chart_says_each_sentence_once_and_escapes_it() -> None:
    svg = to_svg(a_chart())
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "Accuracy against <seconds>" and "<b>" not in svg
    (mark,) = (g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == "mark c1 filled")
    assert mark.get("role") == "img" and mark[0].tag.endswith("title") and mark[0].text == "a: 70 % <b>"
    assert svg.count("a: 70 %") == 1


def test_a_mark_lies_where_the_ticks_of_its_values_lie() -> None:
    svg = to_svg(a_chart(marks=[Mark(0.1, 0.6), Mark(10, 0.8)]))
    places = [tuple(map(float, found)) for found in re.findall(r'd="M-7 0a7.*?translate\((\S+) (\S+)\)', svg)][:2]
    ticks = {
        text: (float(x), float(y)) for x, y, text in re.findall(r'<text x="(\S+)" y="(\S+)" \S+>(.*?)</text>', svg)
    }
    assert (places[0][0], places[1][0]) == (ticks["0.1 s"][0], ticks["10 s"][0])
    assert (places[0][1], places[1][1]) == (ticks["60 %"][1] - 4, ticks["80 %"][1] - 4)


def test_many_long_ticks_are_tilted_and_few_are_not() -> None:
    few, many = ([(i, "block_3_expand_relu") for i in range(n)] for n in (2, 12))
    assert "rotate(-45)" not in to_svg(a_chart(x=tick_axis("layer", few)))
    assert to_svg(a_chart(x=tick_axis("layer", many))).count("rotate(-45)") == 12


def test_names_at_the_ends_of_equal_lines_do_not_cover_each_other() -> None:
    lines = [series(name, i, [Mark(0.1, 0.6), Mark(1, 0.7)])[0] for i, name in enumerate(["one", "two", "three"])]
    heights = sorted(float(y) for y in re.findall(r'class="end.*?y="(\S+)"', to_svg(a_chart(lines=lines))))
    assert len(heights) == 3 and np.diff(heights).min() >= 14


def test_a_file_stands_alone_in_plain_colours_that_every_reader_of_svg_knows() -> None:
    svg = to_svg_file([a_chart(), a_chart(title="Loss")], "two charts")
    root = ET.fromstring(svg)
    assert "var(" not in svg and "@media" not in svg and "#0b6e99" in svg
    assert float(root.get("width", "0")) == 2 * 460 and root.get("aria-label") == "Accuracy against <seconds> and Loss"
    assert "<style" not in to_svg(a_chart())


def test_a_confusion_matrix_has_a_cell_for_each_pair_that_occurs() -> None:
    result = a_result("svm")
    chart = confusion_matrix(replace(result, score=replace(result.score, confusion=[[3, 1], [0, 5]])))
    assert [(area.says, area.share) for area in chart.areas] == [
        ("3 of class a predicted as a", 0.75),
        ("1 of class a predicted as b", 0.25),
        ("5 of class b predicted as b", 1),
    ]
    assert chart.areas[1].x == (0.5, 1.5)
    assert chart.areas[2].y == (-1.5, -0.5)


def test_sixty_four_classes_look_different() -> None:
    assert len({class_look(c) for c in range(64)}) == 64


# --- pictures -------------------------------------------------------------------------------------------------


def dark(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as image:
        return int((np.asarray(image.convert("L")) < 128).sum())


def of_text(text: str) -> str:
    return to_svg_file([Chart(title="", x=Axis("", (), 0, 1), y=Axis("", (), 0, 1))], text)


@pytest.mark.sample(r"\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac")
@pytest.mark.parametrize("text", ["accuracy", "Übergröße", "µ ± – ×", "Ελληνικά", "Кошка", "é ñ ł ş ő"])
def test_text_is_seen_in_a_picture_on_a_machine_without_fonts(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = resvg_py.svg_to_bytes
    monkeypatch.setattr(
        resvg_py, "svg_to_bytes", lambda **options: draw(**{**options, "skip_system_fonts": True})
    )  # fmt: skip
    unknown = to_png(of_text("猫"))
    letters = [to_png(of_text(letter)) for letter in text if letter != " "]
    assert all(dark(letter) > 20 and letter != unknown for letter in letters)
    assert dark(to_png(of_text(text))) > 100


def test_the_fonts_of_the_machine_are_looked_for_only_where_ours_has_no_such_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    draw = resvg_py.svg_to_bytes

    def noting(**options: Any) -> Any:
        asked.append(options["skip_system_fonts"])
        return draw(**options)

    monkeypatch.setattr(resvg_py, "svg_to_bytes", noting)
    for text in ("Кошка ± 1", "猫"):
        to_png(of_text(text))
    assert asked == [True, False]
