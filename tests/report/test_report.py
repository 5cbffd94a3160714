"""Every number in a table stands under its own heading: the three scores, their intervals, seconds, sizes."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from made_results import a_result, lined_up
from tlfeat.records import Leaks
from tlfeat.report.comparison import result_text, table_rows, to_csv, to_markdown

FIRST = a_result(
    "svm",
    accuracy=0.8125,
    balanced_accuracy=0.75,
    macro_f1=0.7,
    extract_s=300.0,
    search_s=20.0,
    fit_s=1.5,
    reject_s=0.25,
    predict_s_per_image=0.002,
)
FIRST = replace(FIRST, model_bytes=1_234_567)
SECOND = replace(a_result("knn", accuracy=0.5, macro_f1=0.9, search_s=1.0, fit_s=0.5), model_bytes=4321)


def test_each_score_is_printed_with_its_own_interval() -> None:
    lines = [line.strip() for line in result_text(FIRST).splitlines()]
    assert "accuracy           81.2 %  (95 % interval 11.0 to 91.0)" in lines
    assert "balanced accuracy  75.0 %  (95 % interval 12.0 to 92.0)" in lines
    assert "macro F1           0.700  (95 % interval 0.130 to 0.930)" in lines


def test_the_times_of_a_command_add_up_to_its_wall_time() -> None:
    timing = replace(FIRST.timing, leaks_s=3.0, search_s=20.0, fit_s=5.0, reject_s=2.0)
    text = result_text(replace(FIRST, timing=timing), 41.0)
    assert "leaks 3.0 s" in text
    assert "rest 11.0 s (starting Python, reading, scoring, saving)" in text
    assert "whole command      41.0 s" in text
    assert "rest" not in result_text(FIRST)


def test_times_numbers_of_images_and_the_split_are_printed_under_their_names() -> None:
    text = result_text(FIRST)
    assert "test images        5 (15 training images; split seeded, seed 7)" in text
    (times,) = (line for line in text.splitlines() if "times" in line)
    assert re.findall(r"(\w+) ([\d.]+ \w+) \(", times) == [
        ("extract", "5.0 min"),
        ("search", "20.0 s"),
        ("reject", "250 ms"),
        ("fit", "1.5 s"),
        ("predict", "2.0 ms"),
    ]
    assert [line.split() for line in text.splitlines()[-2:]] == [["a", "1", "1"], ["b", "2", "1"]]


def test_the_table_has_the_interval_of_the_accuracy_beside_the_accuracy() -> None:
    headings, rows = table_rows(lined_up(FIRST, SECOND))
    assert dict(zip(headings, rows[0], strict=True)) == {
        "model": "svm",
        "accuracy": "81.2 %",
        "95 % interval": "11.0 to 91.0",
        "macro F1": "0.700",
        "fit": "21.5 s",
        "image": "500 ms",
        "size": "1.2 MB",
        "against the best": "best",
    }
    second = dict(zip(headings, rows[1], strict=True))
    assert (second["accuracy"], second["macro F1"], second["image"], second["size"]) == (
        "50.0 %",
        "0.900",
        "1.5 s",
        "4 kB",
    )
    assert second["against the best"] == "-1.0 points (-2.0 to +0.5), within noise"
    _, three = table_rows(lined_up(FIRST, SECOND, SECOND))
    assert three[2][-1] == "-2.0 points (-4.0 to +1.0), worse, p = 0.12"


def test_the_accuracy_without_leaks_has_an_interval_of_its_own() -> None:
    leaks = Leaks([{"test": "x", "learned": "y", "kind": "near", "similarity": 0.95}], 4, 0.625, (0.14, 0.94))
    result = replace(FIRST, leaks=leaks)
    assert "without leaks      62.5 %  (95 % interval 14.0 to 94.0, 4 test images)" in result_text(result)
    headings, rows = table_rows(lined_up(result, replace(SECOND, leaks=None)))
    assert dict(zip(headings, rows[0], strict=True))["without leaks"] == "62.5 %"
    assert dict(zip(headings, rows[1], strict=True))["without leaks"] == "–"


def test_every_score_and_both_ends_of_its_interval_are_in_the_csv() -> None:
    (line, _) = csv.DictReader(io.StringIO(to_csv(lined_up(FIRST, SECOND))))
    found = {
        name: float(value)
        for name, value in line.items()
        if re.match(r"(balanced_)?accuracy|macro|ci95", name) and value
    }
    assert found == {
        "accuracy": 0.8125,
        "ci95_low": 0.11,
        "ci95_high": 0.91,
        "balanced_accuracy": 0.75,
        "balanced_accuracy_ci95_low": 0.12,
        "balanced_accuracy_ci95_high": 0.92,
        "macro_f1": 0.7,
        "macro_f1_ci95_low": 0.13,
        "macro_f1_ci95_high": 0.93,
    }


@pytest.mark.parametrize("name", ["svm", "a|b"])
def test_the_markdown_table_has_the_same_cells(name: str) -> None:
    comparison = lined_up(replace(FIRST, candidate=name), SECOND)
    _, rows = table_rows(comparison)
    lines = [line for line in to_markdown(comparison).splitlines() if line.startswith("| ")]
    cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[1:] == [list(row) for row in rows]
