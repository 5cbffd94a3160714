"""The comparison as its readers see it: intervals that allow for groups, differences, calibration, in every form."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.intervals import difference_interval, mcnemar, proportion_interval
from tlfeat.extract.plan import plan_extraction
from tlfeat.records import Result
from tlfeat.report.comparison import result_text, table_rows, to_csv, write_tables
from tlfeat.report.page import to_html
from tlfeat.studies.compare import Comparison, compare_candidates
from tlfeat.workspace import read_json, write_json


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of two classes, four of each plant."""
    monkeypatch.chdir(tmp_path)
    make_photos(n=40)
    lines = [f"photos/{name}/{i}.png,{name},{name}{i // 4}" for name in ("cat", "dog") for i in range(40)]
    Path("t.csv").write_text("\n".join(["path,label,group", *lines]))
    return plan_extraction(Path("t.csv"), backbone="pixels").run().cache


def compared(cache: Path) -> tuple[Comparison, np.ndarray]:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("svm", "knn"), keras_modes=(), has_pixels=False)
        return found, data.split.groups[data.split.where("test")]


def test_intervals_differences_and_p_values_allow_for_groups(cache: Path) -> None:
    found, groups = compared(cache)
    assert len(set(groups.tolist())) < len(groups)
    best, other = (np.array(line.result.predicted) for line in found.lines)
    true = np.array(found.lines[0].result.true)
    for line in found.lines:
        right = np.array(line.result.predicted) == true
        assert line.result.score.ci95 == proportion_interval(right, groups)
    line = found.lines[1]
    assert line.difference == pytest.approx(np.mean(other == true) - np.mean(best == true))
    assert line.difference_ci95 == difference_interval(true, other, best, groups)
    assert line.p_value == mcnemar(true, other, best, groups)


def page_of(cache: Path, found: Comparison) -> str:
    with open_data(cache, seed=0) as data:
        return to_html(found, data)


def test_every_form_of_the_report_has_the_difference_and_the_calibration(cache: Path, tmp_path: Path) -> None:
    found, _ = compared(cache)
    _, rows = table_rows(found)
    assert rows[0][-1] == "best"
    assert re.match(r"[+-]\d+\.\d points \([+-]\d+\.\d to [+-]\d+\.\d\), (within noise|worse, p = )", rows[1][-1])
    (_, line) = csv.DictReader(io.StringIO(to_csv(found)))
    assert (
        float(line["difference_ci95_low"]) <= float(line["difference_to_best"]) <= float(line["difference_ci95_high"])
    )
    assert {"ci95_low", "macro_f1_ci95_high", "ece", "ece_upper", "log_loss"} <= set(line)
    records = json.loads(write_tables(found, tmp_path / "report")["json"].read_text())
    assert records[0]["calibration"]["table"] and records[0]["per_class"][0]["recall_ci95"]
    assert records[1]["difference_ci95"] == list(found.lines[1].difference_ci95)
    page = page_of(cache, found)
    assert "Reliability of the probabilities</h2>" in page and "Each class of" in page
    n_bins = sum(len(record["calibration"]["table"]) for record in records)
    assert page.count('class="reach"') == 2 * 3 * len(found.lines) + n_bins  # for wide and for narrow screens
    text = result_text(found.lines[0].result)
    assert "calibration        ECE" in text and "with --reject" in text and text.count("95 % interval") == 3


def test_a_result_of_an_older_version_is_reused_and_shown_without_what_it_lacks(cache: Path) -> None:
    found, _ = compared(cache)
    for line in found.lines:
        path = Path(line.result.model) / "result.json"
        older = read_json(path)
        del older["coverage"], older["timing"]["reject_s"]
        for name in ("balanced_accuracy_ci95", "macro_f1_ci95", "calibration"):
            del older["score"][name]
        for entry in older["score"]["per_class"]:
            del entry["recall_ci95"], entry["precision_ci95"]
        write_json(path, older)
    again, _ = compared(cache)
    assert all(line.is_reused for line in again.lines)
    assert "calibration" not in result_text(again.lines[0].result)
    assert "Reliability of the probabilities" not in page_of(cache, again)
    assert "accuracy" in to_csv(again)


def test_older_and_newer_results_stand_in_one_csv(cache: Path) -> None:
    found, _ = compared(cache)
    first, second = found.lines
    older = replace(first.result, score=replace(first.result.score, calibration=None, macro_f1_ci95=None))
    mixed = replace(found, lines=[replace(first, result=older), second])
    one, other = csv.DictReader(io.StringIO(to_csv(mixed)))
    assert not one["ece"] and float(other["ece"]) >= 0


def test_a_result_round_trips_through_json(cache: Path) -> None:
    result = compared(cache)[0].lines[0].result
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))).coverage == result.coverage


def test_domains_are_counted_in_every_result_and_anew_where_they_have_changed(cache: Path) -> None:
    found, _ = compared(cache)
    assert [line.result.by_domain for line in found.lines] == [[], []]
    with open_cache(cache, writable=True) as opened:
        table = opened.table
        domains = ["Süd" if key < "8" else "Nord" for key in table.keys]
        opened.write_table(replace(table, images=replace(table.images, domains=domains)))
    again, groups = compared(cache)
    assert all(line.is_reused for line in again.lines)
    for line in again.lines:
        right = np.array(line.result.predicted) == np.array(line.result.true)
        in_south = np.array([key < "8" for key in line.result.test_keys])
        north, south = line.result.by_domain
        assert (north["domain"], north["n"], south["n"]) == ("Nord", (~in_south).sum(), in_south.sum())
        assert south["accuracy"] == pytest.approx(right[in_south].mean())
        assert south["ci95"] == list(proportion_interval(right[in_south], groups[in_south]))
    assert "Accuracy by domain</h2>" in page_of(cache, again) and "Accuracy by domain</h2>" not in page_of(cache, found)
    text = result_text(again.lines[0].result)
    assert "by domain          Nord  " in text
    with open_data(cache, seed=0) as data:
        fresh = compare_candidates(data, heads=("svm", "knn"), keras_modes=(), has_pixels=False, is_fresh=True)
    assert [line.result.by_domain for line in fresh.lines] == [line.result.by_domain for line in again.lines]
