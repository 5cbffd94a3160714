"""The same contract for every head of the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.errors import DataError, ModelError, UsageError
from tlfeat.evaluate.calibration import best_temperature, softmax
from tlfeat.evaluate.split import Split, make_split
from tlfeat.heads import fit
from tlfeat.heads.fit import fit_head, predict_probabilities
from tlfeat.heads.pipelines import classifier_of
from tlfeat.heads.saved import load_head, save_head
from tlfeat.heads.table import HEADS
from tlfeat.images.image_set import ImageSet, ImageTable, content_key
from tlfeat.types import Rows

NAMES = [head.name for head in HEADS]
WIDTH = 12


@pytest.fixture(scope="module")
def problem() -> tuple[Rows, Split]:
    """Three classes whose means lie 3 standard deviations apart: a sound head gets nearly all of them right."""
    rng = np.random.default_rng(0)
    labels = [f"class {i % 3}" for i in range(150)]
    rows = rng.normal(0, 1, (150, WIDTH)).astype(np.float32)
    for i in range(150):
        rows[i, i % 3] += 3
    by_key = {content_key(row.tobytes()): row for row in rows}
    images = ImageSet(Path("/d"), Path("/d"), [str(i) for i in range(150)], labels, [""] * 150, [""] * 150)
    table = ImageTable(images, list(by_key), ["ok"] * 150, [""] * 150, [1] * 150, [1] * 150)
    split = make_split(table)
    return np.stack([by_key[key] for key in split.keys]), split


@pytest.fixture(autouse=True)
def rows_are_left_alone(problem: tuple[Rows, Split]) -> Iterator[None]:
    before = problem[0].copy()
    yield
    assert np.array_equal(problem[0], before)


@pytest.mark.parametrize("name", NAMES)
def test_head_learns_gives_probabilities_and_is_the_same_each_time(name: str, problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    learn_at, test_at = split.where("train", "val"), split.where("test")
    fitted = fit_head(name, rows[learn_at], split, learn_at)
    probabilities = predict_probabilities(fitted.head, rows[test_at])
    assert probabilities.shape == (len(test_at), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities >= 0).all()
    assert np.mean(probabilities.argmax(axis=1) == split.labels[test_at]) >= 0.85
    again = fit_head(name, rows[learn_at], split, learn_at)
    assert again.chosen == fitted.chosen
    assert predict_probabilities(again.head, rows[test_at]).tobytes() == probabilities.tobytes()


def test_an_image_is_held_out_from_the_same_others_whatever_order_the_rows_come_in(problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    at = split.where("train", "val")
    order = np.random.default_rng(5).permutation(len(at))
    one = fit_head("lda", rows[at], split, at, seed=2, is_searched=False).held_out
    other = fit_head("lda", rows[at[order]], split, at[order], seed=2, is_searched=False).held_out
    assert one is not None and other is not None
    np.testing.assert_allclose(other, one[order], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_head_of_two_classes_is_loaded_again(name: str, problem: tuple[Rows, Split], tmp_path: Path) -> None:
    rows, split = problem
    at = np.flatnonzero(split.labels < 2)
    fitted = fit_head(name, rows[at], split, at, is_searched=False)
    save_head(fitted.head, tmp_path)
    loaded = load_head(tmp_path)
    assert loaded.predict_proba(rows[at]).tobytes() == fitted.head.predict_proba(rows[at]).tobytes()
    assert loaded.classes_.tolist() == ["class 0", "class 1"]


@pytest.mark.parametrize("file_format", ["skops", "joblib"])
@pytest.mark.parametrize("name", NAMES)
def test_saved_head_answers_as_before(name: str, file_format: str, problem: tuple[Rows, Split], tmp_path: Path) -> None:
    rows, split = problem
    learn_at = split.where("train", "val")
    fitted = fit_head(name, rows[learn_at], split, learn_at, is_searched=False)
    save_head(fitted.head, tmp_path, file_format=file_format)
    loaded = load_head(tmp_path, is_trusted=file_format == "joblib")
    expected = predict_probabilities(fitted.head, rows)
    assert predict_probabilities(loaded, rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_search_never_sees_a_test_image(name: str, problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    learn_at = split.where("train", "val")
    one = fit_head(name, rows[learn_at], split, learn_at)
    poisoned = rows.copy()
    poisoned[split.where("test")] = 1e6
    other = fit_head(name, poisoned[learn_at], split, learn_at)
    assert other.chosen == one.chosen


@pytest.mark.parametrize("name", NAMES)
def test_a_class_with_one_training_image_is_fitted_with_defaults_and_said(
    name: str, problem: tuple[Rows, Split]
) -> None:
    rows, split = problem
    learn_at = split.where("train", "val")
    lone = learn_at[split.labels[learn_at] == 2][:1]
    few = np.sort(np.concatenate([learn_at[split.labels[learn_at] != 2], lone]))
    fitted = fit_head(name, rows[few], split, few)
    assert fitted.search_s == 0
    assert "one training image" in fitted.notes[0]
    assert predict_probabilities(fitted.head, rows).shape == (150, 3)


@pytest.mark.parametrize("name", NAMES)
def test_constant_columns_do_no_harm(name: str, problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    learn_at, test_at = split.where("train", "val"), split.where("test")
    padded = np.concatenate([rows, np.full((150, 3), 7, np.float32)], axis=1)
    fitted = fit_head(name, padded[learn_at], split, learn_at, is_searched=False)
    predicted = predict_probabilities(fitted.head, padded[test_at]).argmax(axis=1)
    assert np.mean(predicted == split.labels[test_at]) >= 0.85


def test_rows_that_are_not_finite_are_refused(problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    learn_at = split.where("train", "val")
    broken = rows[learn_at].copy()
    broken[3, 3] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_head("logreg", broken, split, learn_at)


def test_rows_of_another_width_are_refused(problem: tuple[Rows, Split]) -> None:
    rows, split = problem
    learn_at = split.where("train", "val")
    fitted = fit_head("ridge", rows[learn_at], split, learn_at, is_searched=False)
    with pytest.raises(ModelError, match="fitted on 12 columns, received 11"):
        predict_probabilities(fitted.head, rows[:, :11])


def test_lda_refuses_rows_whose_covariance_would_not_fit(problem: tuple[Rows, Split]) -> None:
    _, split = problem
    learn_at = split.where("train", "val")
    with pytest.raises(DataError, match=r"at most 4,096 columns .* Take ridge"):
        fit_head("lda", np.zeros((len(learn_at), 5000), np.float32), split, learn_at)


def test_an_unknown_head_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'linear-svm'"):
        fit_head("linearsvm", np.zeros((1, 1), np.float32), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_held_out_probabilities_are_at_the_temperature_that_calibrates(
    name: str, problem: tuple[Rows, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of the search, kept beside it, at the head's temperature are the probabilities."""
    kept = []
    search = fit.search

    def watched(*arguments: Any) -> Any:
        kept.append(search(*arguments))
        return kept[-1]

    monkeypatch.setattr(fit, "search", watched)
    rows, split = problem
    learn_at = split.where("train", "val")
    fitted = fit_head(name, rows[learn_at], split, learn_at, seed=3)
    (found,), temperature = kept, classifier_of(fitted.head)[1]
    assert fitted.held_out is not None
    np.testing.assert_allclose(fitted.held_out, softmax(found.scores, temperature), rtol=1e-9)
    np.testing.assert_allclose(fitted.held_out.sum(axis=1), 1)
    if name == "logreg":
        assert temperature == 1
    else:
        assert temperature == pytest.approx(best_temperature(found.scores, split.labels[learn_at]))
        assert abs(np.log(temperature)) > 0.05, "at a temperature of 1 the test shows nothing"
