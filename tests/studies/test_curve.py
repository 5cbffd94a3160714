"""How much data: fair draws, labels saved by hand, and nothing fitted twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import MakePhotos
from made_data import make_table
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cli.app import app
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.intervals import mean_interval
from tlfeat.evaluate.split import Split, draw_per_class, make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.heads.fit import fit_head
from tlfeat.images.load import load_images
from tlfeat.report.charts import to_svg
from tlfeat.report.curve import curve_finding, keras_hint, saving_text
from tlfeat.report.finding import write_finding
from tlfeat.studies import curve as curving
from tlfeat.studies.curve import Curve, learning_curve, parse_counts
from tlfeat.studies.savings import Saving, labels_needed, labels_saved, savings
from tlfeat.types import Labels


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of 24 pictures of each of two classes, 48 columns wide, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return extract_rows(load_images(make_photos(n=24)), PixelEncoder((4, 4)), tmp_path / "c.h5").cache


def run_curve(cache: Path, **options: Any) -> Curve:
    with open_data(cache, seed=0) as data:
        return learning_curve(data, **{"counts": (1, 2, 5, 0), "n_draws": 3, "has_pixels": False, **options})


def grouped_split() -> Split:
    """Return 3 classes of 40 images; those of class "c" are 10 groups of 4 (a plant photographed four times)."""
    labels = ["a"] * 40 + ["b"] * 40 + ["c"] * 40
    groups = [""] * 80 + [f"plant {i // 4}" for i in range(40)]
    return make_split(make_table(labels, groups=groups))


def n_of(split: Split, at: Labels) -> dict[str, int]:
    return {split.classes[label]: n for label, n in Counter(split.labels[at].tolist()).items()}


# --- draws ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", range(5))
def test_draws_are_stratified_nested_and_seeded(draw: int) -> None:
    split = make_split(make_table(["a"] * 50 + ["b"] * 30 + ["c"] * 10))
    learn_at = split.where("train", "val")
    before: set[int] = set()
    for n in (1, 2, 5, 10, 20, 50):
        at = draw_per_class(split, learn_at, n, seed=7, draw=draw)
        assert n_of(split, at) == {"a": min(n, 40), "b": min(n, 24), "c": min(n, 8)}  # of fewer, all there are
        assert before < set(at.tolist()) <= set(learn_at.tolist())
        assert at.tolist() == draw_per_class(split, learn_at, n, seed=7, draw=draw).tolist()
        before = set(at.tolist())
    others = [draw_per_class(split, learn_at, 5, seed=s, draw=d).tolist() for s, d in ((7, draw + 1), (8, draw))]
    assert draw_per_class(split, learn_at, 5, seed=7, draw=draw).tolist() not in others


@pytest.mark.parametrize("n", [1, 3, 5, 7, 12])
def test_draws_keep_groups_whole(n: int) -> None:
    split = grouped_split()
    learn_at = split.where("train", "val")
    at = draw_per_class(split, learn_at, n, seed=0, draw=0)
    inside, everywhere = Counter(split.groups[at].tolist()), Counter(split.groups[learn_at].tolist())
    assert all(inside[group] == everywhere[group] for group in inside)
    assert n_of(split, at) == {"a": n, "b": n, "c": max(4, 4 * round(n / 4))}  # whole plants, nearest to n images


def test_no_test_image_is_ever_learned_from(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    original = fit_head

    def watching(name: str, rows: Any, split: Split, positions: Labels, **options: Any) -> Any:
        seen.update(positions.tolist())
        assert {split.roles[i] for i in positions} <= {"train", "val"}
        return original(name, rows, split, positions, **options)

    monkeypatch.setattr(curving, "fit_head", watching)
    with open_data(cache, seed=0) as data:
        learning_curve(data, heads=("lda", "knn"), counts=(2, 0), n_draws=2, has_pixels=False)
        assert seen == set(data.split.where("train", "val").tolist())


@pytest.mark.parametrize(("count", "n_val"), [(1, 0), (5, 0), (10, 2), (20, 3)])
def test_networks_stop_early_on_some_of_the_drawn_images_and_see_no_other(count: int, n_val: int) -> None:
    split = make_split(make_table(["a"] * 50 + ["b"] * 50))
    at = draw_per_class(split, split.where("train", "val"), count, seed=0, draw=1)
    drawn = curving._for_keras(split, at, count, seed=0, draw=1)
    assert set(drawn.where("train", "val").tolist()) == set(at.tolist())
    assert n_of(drawn, drawn.where("train")) == {"a": count - n_val, "b": count - n_val}
    assert drawn.where("test").tolist() == split.where("test").tolist()
    assert curving._for_keras(split, at, 0, seed=0, draw=0) is split


# --- numbers --------------------------------------------------------------------------------------------------


def test_the_band_is_the_t_interval_of_the_mean() -> None:
    # mean 0.8, standard deviation 0.1, 4 draws: 3.182 * 0.1 / 2
    assert mean_interval([0.7, 0.8, 0.9, 0.8]) == pytest.approx((0.8 - 0.1299, 0.8 + 0.1299), abs=1e-4)
    assert mean_interval([0.9]) == (0.9, 0.9)
    assert mean_interval([1.0, 0.9])[1] == 1.0


def test_labels_needed_are_straight_in_the_logarithm() -> None:
    line = [(10.0, 0.6), (1000.0, 0.8)]
    assert labels_needed(line, 0.7) == pytest.approx(100)
    assert labels_needed(line, 0.5) == 10
    assert labels_needed(line, 0.8) == pytest.approx(1000)
    assert labels_needed(line, 0.81) == np.inf


def test_labels_saved_are_those_found_by_hand() -> None:
    head = [(2, 0.70), (20, 0.90), (200, 0.95)]
    scratch = [(2, 0.50), (20, 0.50), (200, 0.80)]
    saved = labels_saved("logreg", head, "keras-scratch", scratch)
    assert (saved.thrifty, saved.accuracy, saved.is_first, saved.is_never) == ("logreg", 0.80, False, False)
    assert saved.thrifty_labels == pytest.approx(np.sqrt(2 * 20))  # half way from 70 to 90 %
    assert saved.other_labels == 200
    assert labels_saved("keras-scratch", scratch, "logreg", head) == saved  # whichever is named first
    names = {"logreg": "logreg on avg_pool", "keras-scratch": "from scratch"}
    assert saving_text(saved, 2, names) == (
        "logreg on avg_pool reaches with 3.2 images a class (6 labels) what from scratch reaches with 100 images a "
        "class (200 labels), 80.0 %: 32 times fewer labels."
    )


def test_an_accuracy_that_is_never_reached_makes_more_than_so_many_times() -> None:
    saved = labels_saved("logreg", [(2, 0.85), (200, 0.95)], "pixels", [(2, 0.5), (200, 0.6)])
    assert (saved.is_never, saved.thrifty_labels, saved.other_labels) == (True, 2, 200)
    assert saving_text(saved, 2, {}) == (
        "logreg has 85.0 % with 1 image a class (2 labels), which pixels does not reach with 100 images a class "
        "(200 labels): more than 100 times fewer labels."
    )


def test_equal_curves_and_differences_within_noise_are_called_so() -> None:
    line = [(2.0, 0.5), (20.0, 0.9)]
    assert "about as many labels for 90.0 %: 10 images a class (20 labels)" in saving_text(
        labels_saved("a", line, "b", line), 2, {}
    )
    noisy = Saving("a", "b", 0.9, 10, 20, interval=(0.5, 8))
    assert saving_text(noisy, 2, {}) == (
        "a and b need as many labels for 90.0 % within noise: 5 images a class (10 labels)."
    )
    clear = Saving("a", "b", 0.9, 10, 20, interval=(1.5, 8))
    assert saving_text(clear, 2, {}).endswith("2 times fewer labels (95 % interval 1.5 to 8).")


def test_a_dip_in_the_mean_does_not_count_as_unlearning() -> None:
    saved = labels_saved("a", [(2, 0.6), (4, 0.5), (8, 0.9)], "b", [(2, 0.5), (4, 0.5), (8, 0.55)])
    assert saved.thrifty_labels == 2  # 60 and 50 % become 55 % each
    assert saved.is_first


@pytest.mark.parametrize(
    ("text", "counts"), [("1,2,all", [1, 2, 0]), ("all,50,5,5", [5, 50, 0]), ("10", [10]), (" 3 , all ", [3, 0])]
)
def test_counts_are_read_in_order(text: str, counts: list[int]) -> None:
    assert parse_counts(text) == counts


@pytest.mark.parametrize("text", ["", "0", "-1", "1,two", "1.5", ",", "²"])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--counts wants numbers of images a class"):
        parse_counts(text)


# --- a curve --------------------------------------------------------------------------------------------------


def test_a_curve_has_every_count_and_all_images_once(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = extract_rows(load_images(make_photos(n=24)), PixelEncoder(), tmp_path / "c.h5").cache
    found = run_curve(cache, heads=("logreg", "knn"), has_pixels=True, n_draws=2)
    assert list(found.lines) == ["logreg", "knn", "pixels+logreg"]
    for line in found.lines.values():
        assert [(place.count, place.n_labels, len(place.trials)) for place in line] == [
            (1, 2, 2),
            (2, 4, 2),
            (5, 10, 2),
            (0, 38, 1),
        ]
    # the rows are the pixels here: both candidates are the same head on the same images
    assert [p.accuracies for p in found.lines["logreg"]] == [p.accuracies for p in found.lines["pixels+logreg"]]
    low, high = savings(found)[1].interval or (0, 0)
    assert (low, high) == (1, 1)


def test_the_last_point_is_what_fit_sklearn_finds(cache: Path) -> None:
    from tlfeat.models.fit_sklearn import fit_sklearn

    with open_data(cache, seed=0) as data:
        whole = fit_sklearn(data, "logreg").result.score.accuracy
    assert run_curve(cache, heads=("logreg",)).lines["logreg"][-1].accuracies == [whole]


def test_the_seconds_of_a_draw_are_those_of_choosing_and_of_fitting(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curving, "fit_head", lambda *a, **o: replace(fit_head(*a, **o), search_s=4.0, fit_s=0.5))
    found = run_curve(cache, heads=("lda",), counts=(2, 5), n_draws=1)
    assert [trial.fit_s for place in found.lines["lda"] for trial in place.trials] == [4.5, 4.5]


Counting = Callable[..., Any]


@pytest.fixture
def n_fitted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the fits, and stops the one numbered "stop at" as Ctrl-C would."""
    counted: Counter[str] = Counter()
    original = fit_head

    def counting(*args: Any, **options: Any) -> Any:
        if counted["stop at"] and counted["fits"] + 1 >= counted["stop at"]:
            raise KeyboardInterrupt
        counted["fits"] += 1
        return original(*args, **options)

    monkeypatch.setattr(curving, "fit_head", counting)
    return counted


def test_a_stopped_curve_goes_on_where_it_was_and_ends_the_same(cache: Path, n_fitted: Counter[str]) -> None:
    n_fitted["stop at"] = 6
    with pytest.raises(KeyboardInterrupt):
        run_curve(cache, heads=("lda",))
    assert n_fitted["fits"] == 5
    n_fitted["stop at"] = 0
    resumed = run_curve(cache, heads=("lda",))
    assert n_fitted["fits"] == 10  # 3 draws of 3 counts, and all
    assert resumed.n_reused == 5
    again = run_curve(cache, heads=("lda",))
    assert n_fitted["fits"] == 10
    fresh = run_curve(cache, heads=("lda",), is_fresh=True)
    assert n_fitted["fits"] == 20
    accuracies = [[p.accuracies for p in c.lines["lda"]] for c in (resumed, again, fresh)]
    assert accuracies[0] == accuracies[1] == accuracies[2]


def test_more_draws_and_another_seed_fit_only_what_is_new(cache: Path, n_fitted: Counter[str]) -> None:
    run_curve(cache, heads=("lda",))
    run_curve(cache, heads=("lda",), n_draws=4)
    assert n_fitted["fits"] == 13
    with open_data(cache, seed=1) as data:
        learning_curve(data, heads=("lda",), counts=(1,), n_draws=1, has_pixels=False)
    assert n_fitted["fits"] == 14


def test_a_damaged_trial_is_fitted_again(cache: Path, n_fitted: Counter[str]) -> None:
    run_curve(cache, heads=("lda",))
    files = sorted(Path("cache/curves").rglob("*.json"))
    assert len(files) == 10
    files[0].write_text("{")
    files[1].write_text("{}")
    files[2].write_text("[]")
    run_curve(cache, heads=("lda",))
    assert n_fitted["fits"] == 13


def test_a_head_that_cannot_learn_from_so_few_is_left_out_there_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fit_head

    def fussy(name: str, rows: Any, *args: Any, **options: Any) -> Any:
        if name == "knn" and len(rows) < 3:
            raise DataError("too few")
        return original(name, rows, *args, **options)

    monkeypatch.setattr(curving, "fit_head", fussy)
    found = run_curve(cache, heads=("lda", "knn"))
    assert [place.count for place in found.lines["knn"]] == [2, 5, 0]
    assert found.skipped == [("knn on 1 a class", "too few")]
    rows = curve_finding(found).rows
    assert rows[0][3] == "–"
    assert rows[1][3] != "–"


def test_the_report_has_bands_words_and_every_count(cache: Path, tmp_path: Path) -> None:
    found = curve_finding(run_curve(cache, heads=("lda", "knn")))
    paths = write_finding(found, tmp_path / "report")
    assert to_svg(found.chart).count('class="band c') == 2
    text = paths["md"].read_text()
    assert all(f"| {count} |" in text for count in ("1", "2", "5", "all"))
    assert "t-interval" in text
    assert found.sentences[0].startswith("Twice the labels (")
    assert "labels" in found.sentences[1]
    assert [one["candidate"] for one in json.loads(paths["json"].read_text())["doubling"]]
    assert json.loads(paths["json"].read_text())["labels_saved"][0]["other_labels"] > 0
    assert len(paths["csv"].read_text().splitlines()) == 9


def test_bad_input_is_answered(cache: Path, make_photos: MakePhotos, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No layer 'avg_pol' in this cache"):
        run_curve(cache, layer="avg_pol")
    with pytest.raises(UsageError, match="The largest class has 19 training images; 50, 100 a class are more"):
        run_curve(cache, counts=(50, 100))
    with pytest.raises(UsageError, match="No Keras candidate 'finetuned' in a curve"):
        run_curve(cache, keras_modes=("finetuned",))
    with pytest.raises(UsageError, match="at least 1"):
        run_curve(cache, n_draws=0)
    with pytest.raises(DataError, match="no candidate"):
        run_curve(cache, heads=())
    with pytest.raises(DataError, match="not made by a Keras backbone"):
        run_curve(cache, heads=(), keras_modes=("frozen",))
    single = extract_rows(load_images(make_photos(classes=("cat",), folder="one")), PixelEncoder(), tmp_path / "one.h5")
    with pytest.raises(DataError, match="At least two classes"):
        run_curve(single.cache)


def test_counts_beyond_the_data_become_all_and_are_said(cache: Path) -> None:
    found = run_curve(cache, heads=("lda",), counts=(5, 19, 50))
    assert found.counts == [5, 0]
    assert found.notes == ["19, 50 images a class: no class has more than 19, this is all"]


def test_classes_of_different_sizes_are_said(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=24)
    for i in range(12, 24):
        (photos / "dog" / f"{i}.png").unlink()
    path = extract_rows(load_images(photos), PixelEncoder((4, 4)), tmp_path / "c.h5").cache
    found = run_curve(path, heads=("lda",), counts=(5, 15, 0))
    assert [place.n_labels for place in found.lines["lda"]] == [10, 25, 29]  # of dogs there are 10 to learn from
    assert found.notes == ["all are 10 to 19 images a class, in proportions that balanced draws do not have"]


def test_the_command_prints_one_document_and_says_what_comes_next(cache: Path) -> None:
    run = CliRunner().invoke(app, ["curve", "--cache", str(cache), "--draws", "2", "--counts", "1,5,all", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert {line["model"] for line in found["lines"]} == {"logreg", "knn", "pixels+logreg"}
    assert found["labels_saved"]
    bad = CliRunner().invoke(app, ["curve", "--cache", str(cache), "--counts", "some"])
    assert (bad.exit_code, "--counts wants" in bad.stderr) == (2, True)


@pytest.mark.keras
def test_networks_learn_on_the_same_draws_and_are_kept(
    small_cache: Path, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.finetune import train as finetune

    options: dict[str, Any] = {
        "heads": ("lda",),
        "keras_modes": ("frozen",),
        "keras_options": {"epochs": 1},
        "counts": (1, 2, 0),
        "keras_counts": (2, 0),
        "n_draws": 2,
        "n_keras_draws": 1,
    }
    found = run_curve(small_cache, **options)
    assert [(place.count, place.n_labels) for place in found.lines["keras-frozen"]] == [(2, 6), (0, 48)]
    assert [row[3] == "–" for row in curve_finding(found).rows] == [True, False, False]
    monkeypatch.setattr(finetune, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert run_curve(small_cache, **options).lines.keys() == found.lines.keys()
    with open_data(small_cache, seed=0) as data:
        assert "--keras frozen,scratch adds networks, 2 draws" in keras_hint(data, [1, 0], 2)
