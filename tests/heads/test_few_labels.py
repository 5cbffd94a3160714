"""The head of few labels: fitted, held out and saved like every other, and better by what looks alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from made_data import key_of, make_table
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import Data, open_data
from tlfeat.evaluate.split import Split, make_split
from tlfeat.heads import few_labels
from tlfeat.heads.fit import fit_head, predict_probabilities
from tlfeat.heads.learner import LinearModel, fit
from tlfeat.heads.saved import load_head
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.heads.table import find_head, spread_head
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.unlabelled import read_unlabelled
from tlfeat.types import Labels, Rows

FINGERPRINT = {"backbone": "test", "dtype": "float32"}


def some_of(n_classes: int, n: int, seed: int = 0) -> tuple[Rows, Labels]:
    """Rows of classes whose means lie apart, in 40 columns."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    rows = 0.18 * rng.standard_normal((n, 40)).astype(np.float32)
    rows[np.arange(n), labels] += 1
    return rows, labels


def labelled(n_classes: int, n: int) -> tuple[Rows, Split]:
    """Rows and their split: three in four train."""
    rows, labels = some_of(n_classes, n)
    splits = ["test" if i % 4 == 3 else "train" for i in range(n)]
    split = make_split(make_table([f"class {label}" for label in labels], splits=splits))
    number = {key_of(i): i for i in range(n)}
    return rows[[number[key] for key in split.keys]], split


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_saved_head_is_that_of_the_labelling(n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (rows, split), (others, _) = labelled(n_classes, 24), some_of(n_classes, 300, seed=1)
    at = split.where("train", "val")
    made: list[tuple[LinearModel, Rows]] = []

    def remembered(graph: Graph, places: Labels, labels: Labels, k: int) -> LinearModel:
        made.append((fit_spread(graph, places, labels, k), graph.rows[places]))
        return made[-1][0]

    monkeypatch.setattr(few_labels, "fit_spread", remembered)
    fitted = fit_head(spread_head(others), rows[at], split, at, seed=3)
    head, taken = made[-1]
    assert len(made) == 6 and np.array_equal(taken, rows[at])  # five folds, and all
    np.testing.assert_allclose(predict_probabilities(fitted.head, rows), head.probabilities(rows), atol=2e-5)
    assert fitted.chosen["unlabelled"] == 300 and fitted.temperature == 1
    assert fitted.held_out is not None
    held_once: list[int] = []
    for fold_head, learned in made[:-1]:
        held = [i for i, row in enumerate(rows[at]) if not (row == learned).all(axis=1).any()]
        held_once += held
        np.testing.assert_allclose(fitted.held_out[held], fold_head.probabilities(rows[at][held]), atol=2e-5)
    assert sorted(held_once) == list(range(len(at)))


def test_it_is_better_than_one_of_labels_alone() -> None:
    (rows, split), (others, true) = labelled(3, 18), some_of(3, 500, seed=1)
    at = split.where("train", "val")
    head = fit_head(spread_head(others[:300]), rows[at], split, at).head
    found = predict_probabilities(head, others[300:]).argmax(axis=1) == true[300:]
    alone = fit(rows[at], split.labels[at], 3).scores(others[300:]).argmax(axis=1) == true[300:]
    assert found.mean() > alone.mean() + 0.05


def written(path: Path, n_labelled: int, *, first: int = 0, width: int = 40, layer: str = "avg_pool") -> Path:
    """Write a cache of 200 images, of which the first have a label, and of these every fourth tests."""
    rows, labels = some_of(2, 300, seed=2)
    at = list(range(first, first + 200))
    named = [f"class {labels[i]}" if i < n_labelled else "" for i in at]
    splits = [("test" if i % 4 == 3 else "train") if i < n_labelled else "" for i in at]
    keys = [key_of(i) for i in at]
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve({layer: width}, 200)
        cache.append({layer: rows[at, :width]}, keys)
        cache.write_table(make_table(named, keys=keys, splits=splits))
    return path


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return written(tmp_path / "few.h5", 40)


def unlabelled_of(data: Data, other: Path) -> Rows:
    with open_cache(other) as cache:
        return read_unlabelled(cache, data, ["avg_pool"]).rows


def test_images_of_the_cache_without_a_label_are_learned_from(few: Path, tmp_path: Path) -> None:
    with open_data(few, seed=0) as data:
        result = fit_sklearn(data, "spread").result
        again = fit_sklearn(data, "spread")
        assert again.is_reused and again.result.model == result.model
        with open_cache(written(tmp_path / "more.h5", 0, first=100)) as more:
            other = fit_sklearn(data, "spread", unlabelled=more).result
    assert result.chosen["unlabelled"] == 160 and other.chosen["unlabelled"] == 200
    assert result.model != other.model
    assert result.split.n_test == 10 and result.score.accuracy > 0.8
    assert load_head(Path(result.model)).predict_proba(some_of(2, 5)[0]).shape == (5, 2)


def test_no_test_image_is_among_them(few: Path, tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.h5", 0)  # the same 200 images, without a label
    with open_data(few, seed=0) as data:
        found = unlabelled_of(data, whole)
        known = data.cache.read("avg_pool", data.split.keys)
    assert len(found) == 160 and len(known) == 40
    assert not {row.tobytes() for row in found} & {row.tobytes() for row in known}


def test_at_most_as_many_as_the_graph_holds_are_drawn_by_the_seed(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlfeat.models.unlabelled.N_IN_GRAPH", 30)
    drawn = []
    for seed in (1, 2, 1):
        with open_data(few, seed=seed) as data:
            drawn.append(unlabelled_of(data, few))
    assert len(drawn[0]) == 30
    assert np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], drawn[1])


def test_what_cannot_be_learned_from_is_said(few: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with create_cache(other, {**FINGERPRINT, "backbone": "other"}, {}) as cache:
        cache.reserve({"avg_pool": 40}, 1)
        cache.write_table(make_table([""]))
    with open_data(few, seed=0) as data:
        with pytest.raises(DataError, match=r"other\.h5 was not extracted as .*few\.h5.*--unlabelled"):
            unlabelled_of(data, other)
        with pytest.raises(DataError, match="has no layer avg_pool"):
            unlabelled_of(data, written(tmp_path / "layer.h5", 0, layer="norm"))
        only = replace(data, split=replace(data.split, keys=[key_of(i) for i in range(300)]))
        with pytest.raises(DataError, match=r"every image of .* has a label: spread learns.*logreg"):
            unlabelled_of(only, few)


def test_what_a_head_does_not_take_is_said_and_not_passed_over(few: Path) -> None:
    with open_data(few, seed=0) as data, open_cache(few) as more:
        with pytest.raises(UsageError, match="the search of spread sets its own"):
            fit_sklearn(data, "spread", parameters={"C": 3})
        with pytest.raises(UsageError, match="--unlabelled is for --model spread: ridge"):
            fit_sklearn(data, "ridge", unlabelled=more)


def test_it_has_no_parameters_to_set() -> None:
    with pytest.raises(UsageError, match="the search of spread sets its own"):
        find_head("spread", {"C": 3})
    with pytest.raises(UsageError, match="only fit-sklearn and label fit it"):
        find_head("spread")
