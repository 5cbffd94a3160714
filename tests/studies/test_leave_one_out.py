"""Every domain as the target in turn: kept on disk, and its differences by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from made_domains import domain_table, write_cache
from tlfeat import workspace
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.copies import Copies
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar
from tlfeat.report.leave_one_out import leave_one_out_finding, sentences, verdict
from tlfeat.studies import leave_one_out as study
from tlfeat.studies.leave_one_out import BEST, CHOSEN, LeaveOneOut, Round, _groups, leave_one_out, rows_of

METHODS = "standardise,coral"


def run(path: Path, **options: Any) -> LeaveOneOut:
    with open_cache(path) as cache:
        return leave_one_out(cache, **{"head": "ridge", "methods": METHODS, "seed": 4, "n_seeds": 1, **options})


def never(_: object, found: Any, **__: object) -> Any:
    raise AssertionError(f"computed again: {found.target} with seed {found.split.info.seed}")


@pytest.fixture(autouse=True)
def _kept_in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(study, "find_copies", lambda _: Copies([], [], []))


def test_a_second_run_computes_nothing_and_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_cache(tmp_path / "c.h5", *domain_table(24))
    first = run(path)
    assert (first.targets, first.n_reused, first.n_seeds) == (["film", "phone", "scan"], 0, 1)
    assert [row.name for row in first.rows] == ["none", "standardise", "coral", CHOSEN, BEST]
    assert sum(first.times_chosen.values()) == 3 and "coral" not in first.times_chosen
    monkeypatch.setattr(study, "adapt", never)
    again = run(path)
    assert again.n_reused == 3 and again.rows == first.rows and again.notes == first.notes
    for changed, said in (
        ({"is_fresh": True}, "film with seed 4"),
        ({"n_seeds": 2}, "film with seed 5"),
        ({"head": "lda"}, "film with seed 4"),
        ({"methods": "standardise"}, "film with seed 4"),
    ):
        with pytest.raises(AssertionError, match=said):
            run(path, **changed)
    files = sorted((workspace.CACHE_DIR / "adaptations" / "c").glob("*.json"))
    assert len(files) == 3
    files[0].write_text("{", encoding="utf-8")
    with pytest.raises(AssertionError, match="computed again"):
        run(path)


def test_every_domain_is_the_target_with_each_seed_and_one_that_can_not_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, table = domain_table(24)
    domains = ["tiny" if i in (0, 1) else name for i, name in enumerate(table.images.domains)]
    table = replace(table, images=replace(table.images, domains=domains))
    seen: list[tuple[list[str], str, int]] = []

    def adapted(_: object, found: Any, **__: object) -> Any:
        seen.append((found.sources, found.target, found.split.info.seed))
        return SimpleNamespace(skipped=[("prior", "it cannot")])

    monkeypatch.setattr(study, "adapt", adapted)
    monkeypatch.setattr(study, "round_of", lambda _, seed, target: replace(ROUNDS[0], target=target, seed=seed))
    found = run(write_cache(tmp_path / "c.h5", rows, table), n_seeds=2)
    assert found.targets == ["film", "phone", "scan"]
    assert dict(found.skipped)["tiny"].startswith("tiny has 2 images: at least 4 are needed")
    assert dict(found.skipped)["prior on scan"] == "it cannot"
    assert [(target, seed) for _, target, seed in seen] == [
        (target, seed) for target in ("film", "phone", "scan") for seed in (4, 5)
    ]
    assert seen[2][0] == ["film", "scan", "tiny"]


def test_where_no_domain_can_be_a_target_it_is_one_clear_error(tmp_path: Path) -> None:
    rows, table = domain_table(2)
    with pytest.raises(DataError, match="No domain can be a target"):
        run(write_cache(tmp_path / "c.h5", rows, table), n_seeds=1)


# --- the table, by hand ---------------------------------------------------------------------------------------


def one_round(target: str, seed: int, chosen: str, keys: Sequence[str], **right: str) -> Round:
    return Round(target, seed, list(keys), list(range(len(keys))), right, dict.fromkeys(right, 0.5), chosen, [])


ROUNDS = [
    one_round("ct", 0, "a", "pqrs", none="1000", a="1110", b="1111"),
    one_round("ct", 1, "b", "rstu", none="1100", a="0110", b="1000"),
    one_round("mri", 0, "a", "vwxy", none="0000", a="1011", b="0001"),
]


def test_rows_are_means_over_splits_and_then_over_targets() -> None:
    rows = {row.name: row for row in rows_of(ROUNDS, ["ct", "mri"])}
    assert rows["none"].by_target == [0.375, 0.0] and rows["none"].mean == 0.1875
    assert rows["a"].by_target == [0.625, 0.75]
    assert rows[CHOSEN].by_target == [(0.75 + 0.25) / 2, 0.75]
    assert rows[BEST].by_target == [(1.0 + 0.5) / 2, 0.75]
    assert rows["a"].differences == [0.25, 0.75]
    assert rows["a"].difference == pytest.approx((0.5 + 0.0 + 0.75) / 3)
    assert rows[BEST].p_value is None and rows[BEST].difference_ci95 is None and rows["none"].p_value is None


def test_intervals_and_p_values_count_an_image_of_two_splits_once() -> None:
    """Images r and s test in both splits of the first target."""
    rows = {row.name: row for row in rows_of(ROUNDS, ["ct", "mri"])}
    a, none = (np.array([int(mark) for one in ROUNDS for mark in one.right[name]]) for name in ("a", "none"))
    groups, true = np.array([0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9]), np.ones(12, dtype=np.int64)
    assert rows["a"].difference_ci95 == difference_interval(true, a, none, groups)
    alone = [mcnemar(true, np.array([int(m) for r in ROUNDS for m in r.right[n]]), none, groups) for n in "ab"]
    assert [rows["a"].p_value, rows["b"].p_value] == holm(alone)
    chosen = np.array([int(mark) for one in ROUNDS for mark in one.right[one.chosen]])
    assert rows[CHOSEN].p_value == mcnemar(true, chosen, none, groups)  # as it is: nobody picked it by the test
    assert rows["a"].p_by_target[1] == mcnemar(true[:4], a[8:], none[8:], np.arange(4))


def test_what_hangs_together_over_splits_has_one_number() -> None:
    one = replace(ROUNDS[0], groups=[0, 0, 1, 2])  # p and q are one group
    assert _groups([one, ROUNDS[1]]).tolist() == [0, 0, 1, 2, 1, 2, 3, 4]
    other = replace(ROUNDS[1], groups=[0, 1, 1, 2])  # and s and t: s is in both splits
    assert _groups([one, other]).tolist() == [0, 0, 1, 2, 1, 2, 2, 3]


def test_a_method_that_failed_in_one_split_has_no_row() -> None:
    right = {name: marks for name, marks in ROUNDS[2].right.items() if name != "b"}
    rows = [row.name for row in rows_of([*ROUNDS[:2], replace(ROUNDS[2], right=right)], ["ct", "mri"])]
    assert rows == ["none", "a", CHOSEN, BEST]


def test_the_table_says_what_helped_and_what_did_not() -> None:
    rows = rows_of(ROUNDS, ["ct", "mri"])
    found = LeaveOneOut(
        Path("c.h5"), "net", ["pooled"], "ridge", ["ct", "mri"], 2, rows, {"a": 2, "b": 1}, 0, [("x", "why")], ["n"]
    )
    said = " ".join(sentences(found))
    assert "Mean of 2 targets, 2 splits of each: 62.5 % with the method chosen without labels" in said
    assert "18.8 % with ridge of the sources alone" in said and "Chosen: a 2 times, b 1 time." in said
    assert "Best in hindsight, the highest of all methods in each split: 75.0 %, 12.5 points more" in said
    row = next(row for row in rows if row.name == CHOSEN)
    assert verdict(replace(row, p_value=0.04)) == "Adapting helped"
    assert verdict(replace(row, p_value=0.06)).startswith("Adapting did not help for certain")
    assert verdict(replace(row, p_value=0.01, difference=-0.1)) == "Adapting did not help: it made things worse"
    made = leave_one_out_finding(found)
    assert made.headings[:4] == ("method", "ct", "mri", "mean") and made.rows[3][0] == "chosen *"
    assert made.records[3]["accuracy_by_target"] == {"ct": 0.5, "mri": 0.75}
    assert "not run: x: why" in made.legend and "note: n" in made.legend
