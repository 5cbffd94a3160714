"""An adaptation chooses without labels of the target, tests once, and says what came of it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_data import make_table
from made_domains import CLASSES, domain_table, write_cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import UsageError
from tlfeat.evaluate.domain_split import DomainSplit, make_domain_split
from tlfeat.evaluate.intervals import difference_interval, mcnemar, proportion_interval
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.images.image_set import ImageTable
from tlfeat.models import adapted_rows
from tlfeat.report.adaptation import adaptation_finding, sentences
from tlfeat.studies import adapt as study
from tlfeat.studies.adapt import Adaptation, adapt
from tlfeat.types import Rows

NO_LEAKS = LeakedImages([], [])

#: One of each kind, so that a run takes half a second.
SOME = "standardise,linear-ot,prior,standardise+self"


def run(path: Path, *, seed: int = 2, **options: Any) -> tuple[Adaptation, DomainSplit]:
    with open_cache(path) as cache:
        found = make_domain_split(cache.table, ["film", "phone"], "scan", seed=seed)
        options = {"head": "ridge", "methods": SOME, "leaks": NO_LEAKS, **options}
        return adapt(cache, found, **options), found


def relabelled(table: ImageTable, keys: Sequence[str], *, seed: int = 4) -> ImageTable:
    """Return the table with the labels of these images given to others of them."""
    at = [i for i, key in enumerate(table.keys) if key in set(keys)]
    moved = random.Random(seed).sample([table.images.labels[i] for i in at], len(at))
    labels = list(table.images.labels)
    for i, label in zip(at, moved, strict=True):
        labels[i] = label
    assert labels != table.images.labels
    return replace(table, images=replace(table.images, labels=labels))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, ImageTable]:
    rows, table = domain_table(60)
    return write_cache(tmp_path_factory.mktemp("made") / "c.h5", rows, table), rows, table


@pytest.fixture(scope="module")
def first(made: tuple[Path, Rows, ImageTable]) -> tuple[Adaptation, DomainSplit]:
    return run(made[0])


def answers(found: Adaptation, rows: Rows) -> Any:
    assert found.adapted is not None
    return found.adapted.head.predict_proba(rows)


def test_labels_of_what_is_adapted_to_change_no_choice_no_score_and_no_bit_of_the_head(
    made: tuple[Path, Rows, ImageTable], first: tuple[Adaptation, DomainSplit], tmp_path: Path
) -> None:
    _, rows, table = made
    before, split = first
    after, _ = run(write_cache(tmp_path / "c.h5", rows, relabelled(table, split.adapt.keys)))
    assert [line.circular for line in after.lines] == [line.circular for line in before.lines]
    assert after.chosen == before.chosen > 0
    assert [line.right.tolist() for line in after.lines] == [line.right.tolist() for line in before.lines]
    assert after.priors == before.priors
    np.testing.assert_array_equal(answers(after, rows), answers(before, rows))


def test_labels_of_test_images_choose_nothing(
    made: tuple[Path, Rows, ImageTable], first: tuple[Adaptation, DomainSplit], tmp_path: Path
) -> None:
    _, rows, table = made
    before, split = first
    tests = {split.split.keys[i] for i in split.split.where("test")}
    after_it = dict(zip(CLASSES, [*CLASSES[1:], CLASSES[0]], strict=True))  # so that the best is the worst by the test
    labels = [
        after_it[label] if key in tests else label for key, label in zip(table.keys, table.images.labels, strict=True)
    ]
    turned = replace(table, images=replace(table.images, labels=labels))
    after, _ = run(write_cache(tmp_path / "c.h5", rows, turned))
    assert after.best != after.chosen
    assert [line.circular for line in after.lines] == [line.circular for line in before.lines]
    assert after.chosen == before.chosen
    np.testing.assert_array_equal(answers(after, rows), answers(before, rows))
    assert after.lines[after.chosen].accuracy < before.lines[before.chosen].accuracy


def test_rows_of_test_images_are_not_looked_at_before_the_test(
    made: tuple[Path, Rows, ImageTable], first: tuple[Adaptation, DomainSplit], tmp_path: Path
) -> None:
    _, rows, table = made
    before, split = first
    tests = {split.split.keys[i] for i in split.split.where("test")}
    other = np.where([[key in tests] for key in table.keys], np.float32(7), rows)
    after, _ = run(write_cache(tmp_path / "c.h5", other, table))
    np.testing.assert_array_equal(answers(after, rows), answers(before, rows))
    assert after.chosen == before.chosen


def test_the_chosen_method_is_the_best_there_and_back_of_those_that_may_be(
    first: tuple[Adaptation, DomainSplit],
) -> None:
    found, _ = first
    choosable = [line for line in found.lines if line.method.is_choosable]
    assert found.lines[found.chosen].circular == max(line.circular for line in choosable)
    assert found.lines[found.best].accuracy == max(line.accuracy for line in found.lines)
    names = [line.method.name for line in found.lines]
    assert names == ["none", "standardise", "linear-ot", "prior", "standardise+self"]
    assert found.lines[found.chosen].difference > 0.2 and found.helped == "yes"


def test_what_may_not_be_chosen_is_not_though_it_comes_back_best(
    made: tuple[Path, Rows, ImageTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.studies import adapt as study

    score = {"none": 0.5, "coral": 0.9, "standardise": 0.6}
    monkeypatch.setattr(study, "circular_accuracy", lambda _, adapted: score[adapted.method.name])
    found, _ = run(made[0], methods="standardise,coral")
    assert found.lines[found.chosen].method.name == "standardise"


def test_each_line_has_its_difference_interval_and_p_value(first: tuple[Adaptation, DomainSplit]) -> None:
    found, _ = first
    none, line = found.lines[0], found.lines[1]
    true = np.ones(found.n_test, dtype=np.int64)
    sides = true, line.right.astype(np.int64), none.right.astype(np.int64)
    assert line.accuracy == line.right.mean() and line.ci95 == proportion_interval(line.right)
    assert line.difference == pytest.approx(line.right.mean() - none.right.mean())
    assert line.difference_ci95 == difference_interval(*sides)
    assert line.p_alone == mcnemar(*sides) <= line.p_value
    assert (none.difference, none.p_alone, none.p_value, none.difference_ci95) == (0.0, 1.0, 1.0, (0.0, 0.0))
    alone = sorted(each.p_alone for each in found.lines[1:])
    assert min(each.p_value for each in found.lines[1:]) == pytest.approx(min(1, 4 * alone[0]))


def test_leaks_count_in_no_score_and_are_said(
    made: tuple[Path, Rows, ImageTable], first: tuple[Adaptation, DomainSplit]
) -> None:
    before, split = first
    tests = split.split.where("test")
    right = before.lines[1].right
    leaked = [split.split.paths[tests[i]] for i in np.flatnonzero(right)[:6]]
    images = [{"test": path, "learned": "a/1.png", "kind": "bytes", "similarity": 1.0} for path in leaked]
    found, _ = run(made[0], leaks=LeakedImages(images, ["texts were not compared"]), methods="standardise")
    assert found.n_test == before.n_test - 6
    assert found.lines[1].right.sum() == right.sum() - 6
    assert "texts were not compared" in found.notes
    said = " ".join(adaptation_finding(found).legend)
    assert "LEAK: 6 test images show a picture of the sources or one that is adapted to, and count in no score" in said
    assert "LEAK" not in " ".join(adaptation_finding(before).legend)


def test_a_method_that_can_not_run_is_skipped_with_its_reason(made: tuple[Path, Rows, ImageTable]) -> None:
    found, _ = run(made[0], head="knn", methods="prior")
    assert [line.method.name for line in found.lines] == ["none"] and found.chosen == 0
    assert found.skipped == [
        ("prior", "shares of classes are corrected in linear heads only: logreg, linear-svm, ridge, lda")
    ]
    assert "not run: prior: shares of classes" in " ".join(adaptation_finding(found).legend)
    assert "No method promised more" in " ".join(sentences(found))


def test_self_training_beyond_memory_is_skipped_and_the_rest_runs(
    made: tuple[Path, Rows, ImageTable], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(adapted_rows, "available_memory", lambda: 900)
    found, _ = run(made[0], methods="standardise,self")
    assert [line.method.name for line in found.lines] == ["none", "standardise"]
    assert found.skipped[0][0] == "self" and "holds all rows in memory" in found.skipped[0][1]


def test_rows_that_are_read_from_the_file_give_the_same_as_rows_in_memory(
    made: tuple[Path, Rows, ImageTable], first: tuple[Adaptation, DomainSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.cache.contents import StoredRows

    monkeypatch.setattr(adapted_rows, "available_memory", lambda: 900)
    found, _ = run(made[0], methods="standardise")
    assert found.prepared is not None and isinstance(found.prepared.task.source, StoredRows)
    before = [(line.accuracy, line.circular) for line in first[0].lines[:2]]
    assert [(line.accuracy, line.circular) for line in found.lines] == before


def test_a_target_of_five_images_and_more_columns_than_images_runs_with_a_note(tmp_path: Path) -> None:
    rows, table = domain_table(20)
    kept = range(45)
    wide = np.concatenate([rows, np.abs(rows), np.square(rows), rows - 1], axis=1)  # 48 columns
    path = write_cache(tmp_path / "c.h5", wide[kept], domain_part(table, kept))
    found, _ = run(path, methods="all")
    assert not found.skipped and len(found.lines) == 9
    assert any("to adapt to: few" in note for note in found.notes)


def domain_part(table: ImageTable, at: Sequence[int]) -> ImageTable:
    """Return some images of a table."""
    images = table.images
    return make_table(
        [images.labels[i] for i in at],
        keys=[table.keys[i] for i in at],
        paths=[images.paths[i] for i in at],
        domains=[images.domains[i] for i in at],
    )


def test_one_image_of_a_class_is_said(tmp_path: Path) -> None:
    rows, table = domain_table(30)
    at = [i for i, label in enumerate(table.images.labels) if label != "elm" or table.images.domains[i] == "scan"]
    lone = next(i for i, label in enumerate(table.images.labels) if label == "elm")
    at = sorted([*at, lone])
    found, _ = run(write_cache(tmp_path / "c.h5", rows[at], domain_part(table, at)), methods="standardise,prior")
    assert "a class has one training image: no search, no calibration, default parameters" in found.notes
    assert len(found.lines) + len(found.skipped) == 3


def test_classes_that_the_target_lacks_are_said_and_everything_runs(tmp_path: Path) -> None:
    rows, table = domain_table(30)
    of = zip(table.images.labels, table.images.domains, strict=True)
    at = [i for i, (label, domain) in enumerate(of) if label != "elm" or domain != "scan"]
    found, _ = run(write_cache(tmp_path / "c.h5", rows[at], domain_part(table, at)))
    assert "scan has no image of elm: methods that expect every class may go wrong there" in found.notes
    assert len(found.lines) == 5 and found.classes == CLASSES


def test_other_heads_methods_and_layers_are_refused_by_name(made: tuple[Path, Rows, ImageTable]) -> None:
    for options, said in (
        ({"head": "logregg"}, "No head 'logregg'"),
        ({"methods": "corral"}, "No method 'corral'"),
        ({"layer": "pooledd"}, "No layer 'pooledd'"),
    ):
        with pytest.raises(UsageError, match=said):
            run(made[0], **options)


# --- what is said ---------------------------------------------------------------------------------------------


def test_the_answer_names_the_chosen_method_the_sources_alone_and_the_best_in_hindsight(
    first: tuple[Adaptation, DomainSplit],
) -> None:
    found, _ = first
    said = " ".join(sentences(found))
    line = found.lines[found.chosen]
    assert said.startswith(f"From film, phone to scan: {line.method.name}, chosen without a label of scan, is right on")
    assert f"ridge of the sources alone on {100 * found.lines[0].accuracy:.1f} %" in said
    assert "Adapting helped (+" in said
    other = next(i for i in range(len(found.lines)) if i != found.chosen)
    assert "Best in hindsight is" in " ".join(sentences(replace(found, best=other)))
    assert "nobody could have chosen it" in " ".join(sentences(replace(found, best=other)))


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (0.2, 0.01, "Adapting helped"),
        (-0.2, 0.01, "Adapting did not help: it made things worse"),
        (0.2, 0.06, "Adapting did not help for certain"),
    ],
)
def test_did_not_help_is_a_result(
    first: tuple[Adaptation, DomainSplit], difference: float, p: float, said: str
) -> None:
    found, _ = first
    line = replace(found.lines[found.chosen], difference=difference, p_alone=p)
    lines = [line if i == found.chosen else each for i, each in enumerate(found.lines)]
    assert said in " ".join(sentences(replace(found, lines=lines)))


def test_the_document_has_every_method_and_how_it_was_chosen(first: tuple[Adaptation, DomainSplit]) -> None:
    found, _ = first
    made = adaptation_finding(found)
    json.dumps([made.records, made.about])
    assert [record["method"] for record in made.records if record["is_chosen"]] == [made.about["chosen"]]
    assert [record["method"] for record in made.records if record["is_best_in_hindsight"]] == [
        made.about["best_in_hindsight"]
    ]
    assert made.rows[found.chosen][0].endswith(" *")
    assert made.about["split"]["digest"] == found.split.digest
    assert sum(made.about["estimated_priors"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "shares", "chosen"),
    [
        ("standardise+self", [0.6, 0.3, 0.1], "standardise+self-share"),
        ("standardise+self", [0.4, 0.3, 0.3], "standardise+self"),
        ("standardise", [0.6, 0.3, 0.1], "standardise"),
    ],
)
def test_as_many_of_each_class_gives_way_where_the_target_seems_to_have_another_mix(
    made: tuple[Path, Rows, ImageTable], monkeypatch: pytest.MonkeyPatch, first: str, shares: list[float], chosen: str
) -> None:
    monkeypatch.setattr(study, "circular_accuracy", lambda _, adapted: 0.9 if adapted.method.name == first else 0.5)
    fit = study.Fitter.fit
    monkeypatch.setattr(study.Fitter, "fit", lambda *a: replace(fit(*a), named=np.array(shares)))
    found, _ = run(made[0], methods="standardise,standardise+self,standardise+self-share")
    assert found.lines[found.chosen].method.name == chosen
    assert found.adapted is not None and found.adapted.method.name == chosen
