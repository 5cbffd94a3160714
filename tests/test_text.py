"""Numbers, tables and pages as text: what others' programs make of it."""

from __future__ import annotations

import csv
import io

import pytest

from tlfeat.text import csv_cell, csv_text, in_markdown, markdown_table


@pytest.mark.parametrize(
    "text",
    ["=HYPERLINK(A1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1+1", "-", "+"],
)
def test_text_that_a_spreadsheet_would_compute_stays_text(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+2.5", "-1.5e-07", "-.5", "cat", "", "a=b", "'", -3, -0.25, None])
def test_numbers_and_plain_words_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) == value


def test_a_table_of_records_has_no_formulas() -> None:
    found = list(csv.DictReader(io.StringIO(csv_text([{"layer": "=1+1", "gain": -0.5, "seed": "-3"}]))))
    assert found == [{"layer": "'=1+1", "gain": "-0.5", "seed": "-3"}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("<!-- hidden -->", "&lt;!-- hidden -->"),
        ("![x](http://far.away/x.png)", "![x]\\(http://far.away/x.png)"),
        ("p < 0.001, a<3", "p < 0.001, a<3"),
        ("two\nlines", "two\\nlines"),
        ("[cat]", "[cat]"),
    ],
)
def test_names_are_text_in_markdown(text: str, shown: str) -> None:
    assert in_markdown(text) == shown
    assert in_markdown(shown) == shown


def test_a_line_break_or_a_bar_ends_no_cell_of_a_table() -> None:
    table = markdown_table(("class", "n"), [("a\n# b\r\u2028|c", "3"), ("<b>", "4")])
    assert table.splitlines() == ["| class | n |", "|---|---|", "| a\\n# b\\r\\u2028\\|c | 3 |", "| &lt;b> | 4 |"]
