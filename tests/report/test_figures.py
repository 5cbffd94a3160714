"""Charts and pages of a finding: whatever a name holds is text in them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tlfeat.report.charts import Chart, Mark, percent_axis, series, tick_axis, to_svg
from tlfeat.report.finding import Finding, to_html
from tlfeat.text import page

HOSTILE = ["<script>alert(1)</script>", "a & b", "</svg><p>", "\"quoted\" 'name'", "]]>"]


def chart_of(name: str) -> Chart:
    marks = [Mark(x, 0.5 + x / 10, f"{name} at {x}", low=0.4 + x / 10, high=0.6 + x / 10) for x in (1, 2)]
    line, drawn = series(name, 0, marks)
    other, beside = series("other", 1, marks[:1])
    ticks = tick_axis(f"axis {name}", [(1, name), (2, "two")])
    return Chart(name, ticks, percent_axis("accuracy", [0.4, 0.9]), [*drawn, *beside], [line, other])


def finding_of(name: str) -> Finding:
    return Finding(
        "sweep", name, [f"sentence {name}"], chart_of(name), ["h", name], [["1", name]], [name], [], {"made": name}
    )


def texts_of(svg: str) -> str:
    return "".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_a_chart_are_text_and_nothing_else(name: str) -> None:
    harmless = ElementTree.fromstring(to_svg(chart_of("x" * len(name))))
    found = ElementTree.fromstring(to_svg(chart_of(name)))
    assert [element.tag for element in found.iter()] == [element.tag for element in harmless.iter()]
    shown = name if len(name) <= 22 else f"{name[:21]}…"
    words = "".join(found.itertext())
    assert words.count(name) >= 3  # the axis, the line, its points
    assert shown in words


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_the_page_of_a_finding_are_text_and_nothing_else(name: str) -> None:
    harmless, found = to_html(finding_of("harmless")), to_html(finding_of(name))
    for mark in ("<script", "<p>", "</svg>", "<"):
        assert found.count(mark) == harmless.count(mark), mark


def test_a_value_that_a_template_wants_and_does_not_get_is_an_error() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        page("tlfeat.report", "finding.html", finding=replace(finding_of("x"), title="t"))
