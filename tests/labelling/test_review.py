"""Predictions of new pictures become questions: groups of what is like no class, then the least sure first."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import MakePhotos
from tlfeat.cache.store import open_cache
from tlfeat.errors import ModelError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.labelling.questions import Choice, Other, Question
from tlfeat.labelling.review import MAX_GROUPS, load_reviewed, review, review_questions, unknown_groups
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model, Prediction
from tlfeat.types import Labels, Rows


def said(probability: float, refused: str = "", error: str = "") -> Prediction:
    top = [("cat", probability), ("dog", 1 - probability)]
    return Prediction("p", "unknown" if refused else "cat", probability, top, error, refused)


def clouds(sizes: list[int], seed: int = 0) -> tuple[Rows, Labels]:
    """Rows near one direction for each size, shuffled, and which it is."""
    rng = np.random.default_rng(seed)
    near = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = rng.normal(size=(len(sizes), 32))[near] * 3 + rng.normal(size=(len(near), 32)) * 0.3
    return rows.astype(np.float32), near


# --- questions ----------------------------------------------------------------------------------------------


def test_the_least_sure_prediction_is_asked_first_and_unknown_before_it() -> None:
    predictions = [said(0.9), said(0.6), said(0, error="no image"), said(0.8, "unlike"), said(0.7, "unlike")]
    questions = review_questions(predictions, [10, 11, 12, 13, 14])
    assert [q.number for q in questions] == [14, 13, 11, 10]


def test_a_prediction_is_a_suggestion_and_unknown_is_none() -> None:
    sure, unknown = review_questions([said(0.75), said(0.8, "unlike the training images")], [4, 5])[::-1]
    assert sure == Question(4, "prediction", suggestion="cat", probability=0.75, top=[("cat", 0.75), ("dog", 0.25)])
    assert (unknown.suggestion, unknown.probability, unknown.top[0]) == ("", None, ("cat", 0.8))
    assert unknown.text == "unknown: unlike the training images"


# --- groups -------------------------------------------------------------------------------------------------


def test_pictures_that_are_alike_come_into_one_group_the_largest_first() -> None:
    rows, near = clouds([12, 5, 3])
    before = rows.copy()
    groups = unknown_groups(rows)
    assert [set(near[group]) for group in groups[:2]] != [{0}, {0}]
    assert all(len(set(near[group])) == 1 for group in groups)
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    assert np.array_equal(rows, before)


def test_the_most_typical_of_a_group_stands_first() -> None:
    rows, _ = clouds([40, 40])
    spread = [rows[group] / np.linalg.norm(rows[group], axis=1, keepdims=True) for group in unknown_groups(rows)]
    for directions in spread:
        far = np.linalg.norm(directions - directions.mean(axis=0), axis=1)
        assert far[0] < np.median(far) < far[-1]


@pytest.mark.parametrize(("n", "least", "most"), [(0, 0, 0), (3, 0, 0), (4, 1, 2), (9, 1, 2), (400, 2, MAX_GROUPS)])
def test_there_are_2_to_8_groups_and_none_of_a_few_pictures(n: int, least: int, most: int) -> None:
    groups = unknown_groups(np.random.default_rng(0).normal(size=(n, 12)).astype(np.float32))
    assert least <= len(groups) <= most
    assert all(len(group) > 1 for group in groups)


def test_a_picture_like_no_other_is_no_group() -> None:
    rows, near = clouds([5, 1])
    assert [set(near[group]) for group in unknown_groups(rows)] == [{0}]


def test_equal_rows_are_one_group() -> None:
    assert unknown_groups(np.ones((6, 4), np.float32)) == [[0, 1, 2, 3, 4, 5]]


def test_groups_are_the_same_for_a_seed() -> None:
    rows, _ = clouds([9, 9, 9])
    assert unknown_groups(rows, seed=3) == unknown_groups(rows, seed=3)


def test_one_key_makes_a_group_a_new_class() -> None:
    rows, near = clouds([30, 8])
    predictions = [said(0.9) if j == 0 and i % 2 else said(0.5, "unlike") for i, j in enumerate(near)]
    numbers = [100 + i for i in range(38)]
    found = review(predictions, numbers, rows, ["cat", "dog", "group 2"])
    first = found.questions[0]
    assert first.numbers == found.groups[0]
    assert (first.why, first.suggestion) == ("group", "")
    assert first.text == f"{len(first.numbers)} pictures that are like none of your classes, and like each other"
    assert first.others == [Other(number, "") for number in first.together]
    assert first.choices == [
        Choice("w", "all of these are a new class, group 1", "label", "group 1"),
        Choice("c", "look at them together", "cluster", cluster=0),
        Choice("k", "ask of each", "keep"),
    ]
    assert [q.choices[0].label for q in found.questions[1 : len(found.groups)]][:2] == ["group 3", "group 4"]
    unknown = {number for number, one in zip(numbers, predictions, strict=True) if one.refused}
    assert {number for group in found.groups for number in group} <= unknown
    assert sorted(q.number for q in found.questions[len(found.groups) :]) == numbers


def test_a_question_shows_24_of_a_group_and_answers_all() -> None:
    found = review([said(0.5, "unlike")] * 100, range(100), clouds([90, 10])[0], [])
    assert sum(len(q.numbers) for q in found.questions[: len(found.groups)]) > 90
    for question, group in zip(found.questions, found.groups, strict=False):
        assert question.numbers == group
        assert len(question.others) == min(len(group), 24) - 1


# --- the model ----------------------------------------------------------------------------------------------


@pytest.fixture
def model(make_photos: MakePhotos) -> Path:
    with open_data(plan_extraction(make_photos(n=40), backbone="pixels").run().cache, seed=0) as data:
        folder = fit_sklearn(data, "logreg").result.model
    assert folder is not None
    return Path(folder)


def test_rows_are_predicted_as_their_pictures_are(model: Path) -> None:
    loaded, notes = load_reviewed(model)
    assert notes == []
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::16] = 255
    Image.fromarray(stripes).save("photos/cat/stripes.png")
    job = plan_extraction("photos", backbone="pixels")
    with open_cache(job.run().cache) as cache:
        rows = cache.read(loaded.layer, cache.table.keys)
    names = [job.images.file(i).as_posix() for i in range(len(job.images))]
    by_rows = loaded.predict_rows(rows, names, n_top=2)
    assert any(one.refused for one in by_rows)
    for one, other in zip(by_rows, loaded.predict(names, n_top=2), strict=True):
        assert (one.path, one.label, one.refused) == (other.path, other.label, other.refused)
        assert one.top == [(label, pytest.approx(q)) for label, q in other.top]
        assert len(one.top) == 2


def test_a_head_that_knows_no_unknown_is_used_with_a_note(model: Path) -> None:
    (model / "reject.npz").unlink()
    loaded, (note,) = load_reviewed(model)
    assert loaded.coverage is None
    assert note.startswith("no picture will be called unknown: ")


def test_a_network_is_refused_and_a_damaged_model_stays_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def network(self: Model, *_: object, **__: object) -> None:
        self.network = object()

    damaged = Path(shutil.copytree(model, "damaged"))
    (damaged / "head.skops").write_bytes(b"")
    with pytest.raises(ModelError):
        load_reviewed(damaged)
    monkeypatch.setattr(Model, "__init__", network)
    with pytest.raises(UsageError, match="wants a model of tlfeat fit-sklearn"):
        load_reviewed(model)
