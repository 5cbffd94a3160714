"""Every number in a table stands under its own heading: the three scores, their intervals, seconds, sizes."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import Any

import pytest

from made_results import a_result, lined_up
from tlfeat.records import Leaks
from tlfeat.report.comparison import domain_table, legend, result_text, table_rows, terminal_text, to_csv, to_markdown
from tlfeat.text import percent, wrapped

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
        ("fit", "1.5 s"),
        ("reject", "250 ms"),
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
    assert second["against the best"] == "-1.0 points (-2.0 to +0.5), within noise, no better than guessing"
    _, three = table_rows(lined_up(FIRST, SECOND, SECOND))
    assert three[2][-1] == "-2.0 points (-4.0 to +1.0), worse, p = 0.12, no better than guessing"


def test_the_accuracy_with_leaks_is_a_footnote() -> None:
    leaks = Leaks(
        [{"test": "x", "learned": "y", "kind": "near", "similarity": 0.95}], 4, 0.8125, None, 0.875, (0.14, 0.94)
    )
    result, other = replace(FIRST, leaks=leaks), replace(SECOND, leaks=replace(leaks, accuracy_with=0.625))
    text = result_text(result)
    assert "accuracy           81.2 %" in text
    assert "LEAK: 1 of 5 test images (20.0 %)" in text and "with them the accuracy would be 87.5 %" in text
    found = lined_up(result, other)
    headings, rows = table_rows(found)
    assert dict(zip(headings, rows[0], strict=True))["accuracy"] == "81.2 %"
    last = legend(found)[-1]
    assert last.startswith("Leaks: 1 test image of ") and last.endswith(
        f"With them: {found.lines[0].name} 87.5 %, {found.lines[1].name} 62.5 %."
    )
    assert not any("Leaks" in sentence for sentence in legend(lined_up(FIRST, SECOND)))


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


def test_the_markdown_report_and_its_csv_are_text_whatever_names_hold() -> None:
    comparison = lined_up(replace(FIRST, candidate="<script>a</script>", notes=["<img src=x>"]), SECOND)
    found = replace(comparison, classes=["<b>cat", "![d](http://far.away)"], skipped=[("=x", "<i>why</i>")])
    text = to_markdown(found)
    assert not re.search(r"<[a-z/]", text) and "](" not in text
    assert "# " in text and "&lt;b>cat" in text and "- not run: =x: &lt;i>why&lt;/i>" in text
    (line, _) = csv.DictReader(io.StringIO(to_csv(lined_up(replace(FIRST, candidate="=1+1"), SECOND))))
    assert line["name"] == "'=1+1"


# --- in the width of a terminal ------------------------------------------------------------------------------


def widest(text: str) -> int:
    return max(map(len, text.split("\n")))


def test_the_table_has_the_width_of_the_terminal() -> None:
    found = lined_up(FIRST, SECOND)
    whole = terminal_text(found).split("\n\n")[0]
    assert "macro F1" in whole and "points (" in whole
    narrower = terminal_text(found, widest(whole) - 1).split("\n\n")[0]
    assert "macro F1" in narrower and "-1.0, within noise" in narrower and "points (" not in narrower
    for width in (60, 70, 80, 100):
        table = terminal_text(found, width).split("\n\n")[0]
        assert widest(table) <= width
        assert all(
            line.result.candidate in table and percent(line.result.score.accuracy) in table for line in found.lines
        )
    assert "macro F1" not in terminal_text(found, 70).split("\n\n")[0]


def test_what_does_not_fit_any_more_becomes_a_block_of_lines_for_each_model() -> None:
    text = terminal_text(lined_up(FIRST, SECOND), 42).split("\n\n")[0]
    assert text.split("\n")[:3] == [FIRST.candidate, "  accuracy          81.2 %", "  95 % interval     11.0 to 91.0"]
    assert widest(text) <= 42


def test_three_lines_of_notes_stand_below_the_table_and_leaks_are_counted_in_them() -> None:
    found = lined_up(FIRST, SECOND)
    notes = terminal_text(found).split("\n\n")[1].split("\n")
    assert len(notes) == 3
    assert notes[0].startswith(f"{FIRST.score.n_images:,} test images, ")
    images = [{"test": "x", "learned": "y", "kind": "near", "similarity": 0.95}]
    leaky = replace(FIRST, leaks=Leaks(images, 4, 0.8, None, 0.9))
    n_test = FIRST.score.n_images + 3
    found = lined_up(*(replace(r, split=replace(r.split, n_test=n_test)) for r in (leaky, SECOND)))
    assert "test images (3 leaks left out), " in terminal_text(found)


def test_a_confusion_matrix_that_is_too_wide_becomes_the_pairs_most_confused() -> None:
    assert "true \\ predicted" in result_text(FIRST)
    assert "true \\ predicted" not in result_text(FIRST, width=12)
    right = replace(FIRST, score=replace(FIRST.score, confusion=[[5, 0], [0, 4]]))
    assert result_text(right, width=12).endswith("\n\nNo test image was given a wrong class.")


def test_lines_break_between_words_and_never_before_a_percent_sign() -> None:
    text = "SHIFT: held-out training images are right in 65.8 %, test images in 45.7 %\n  short"
    found = wrapped(text, 50).split("\n")
    assert found == ["SHIFT: held-out training images are right in", "  65.8 %, test images in 45.7 %", "  short"]
    assert wrapped(text, None) == text
    assert wrapped("cache/" + "x" * 60, 50) == "cache/" + "x" * 60


# --- domains --------------------------------------------------------------------------------------------------


def by_domain(**accuracies: float) -> list[dict[str, Any]]:
    return [{"domain": name, "n": 7, "accuracy": a, "ci95": [a - 0.125, a]} for name, a in accuracies.items()]


def test_accuracies_by_domain_stand_under_their_headings_and_in_every_form() -> None:
    first = replace(FIRST, by_domain=by_domain(photo=0.75, sketch=0.5))
    found = lined_up(first, replace(SECOND, by_domain=by_domain(photo=0.25, sketch=0.625)))
    headings, rows = domain_table(found.lines) or ((), [])
    assert dict(zip(headings, rows[1], strict=True)) == {
        "domain": "sketch",
        "test images": "7",
        "svm": "50.0 %",
        "95 % interval": "37.5 to 50.0",
        "lowest of all": "50.0 %",
        "highest of all": "62.5 %",
    }
    assert "sketch            7  50.0 %   37.5 to 50.0         50.0 %          62.5 %" in terminal_text(found)
    assert "| sketch | 7 | 50.0 % |" in to_markdown(found)
    assert found.lines[1].to_record()["by_domain"] == by_domain(photo=0.25, sketch=0.625)
    lines = result_text(first).splitlines()
    assert "  by domain          photo   75.0 %  (7 test images, 95 % interval 62.5 to 75.0)" in lines
    assert "                     sketch  50.0 %  (7 test images, 95 % interval 37.5 to 50.0)" in lines


def test_one_domain_or_none_has_no_table() -> None:
    assert domain_table(lined_up(FIRST, SECOND).lines) is None
    found = lined_up(replace(FIRST, by_domain=by_domain(photo=0.75)))
    assert domain_table(found.lines) is None
    assert "photo" not in terminal_text(found) + result_text(found.lines[0].result)
