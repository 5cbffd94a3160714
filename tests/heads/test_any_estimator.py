"""Any classifier of an installed package is a head: the same folds, the same report, one line where it cannot be."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from conftest import MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cli.parameters import parse_grid, parse_parameters
from tlfeat.errors import DataError, ModelError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.heads.fit import fit_head, predict_probabilities
from tlfeat.heads.pipelines import classifier_of
from tlfeat.heads.saved import load_head
from tlfeat.heads.table import find_head
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Result
from tlfeat.report.commands import commands
from tlfeat.studies.compare import compare_candidates
from tlfeat.workspace import read_json

#: What `Watching` was fitted on: rows, labels, and its own parameters.
SEEN: list[tuple[Any, Any, dict[str, Any]]] = []


class Watching(ClassifierMixin, BaseEstimator):
    """Nearest mean of a class, with a parameter that makes it worse, and one that makes it fail."""

    def __init__(
        self, noise: float = 0.0, power: int = 1, fails: bool = False, random_state: int | None = None
    ) -> None:
        self.noise, self.power, self.fails, self.random_state = noise, power, fails, random_state

    def fit(self, rows: Any, labels: Any) -> Watching:
        SEEN.append((rows, labels, self.get_params()))
        if self.fails:
            raise RuntimeError("no luck\nat line 3")
        self.classes_ = np.unique(labels)
        means = np.stack([rows[labels == c].mean(axis=0) for c in self.classes_])
        self.means_ = means + self.noise * np.random.default_rng(self.random_state).normal(size=means.shape)
        return self

    def predict_proba(self, rows: Any) -> Any:
        distances = np.square(rows[:, None] - self.means_).sum(axis=2)
        shares = np.exp(-self.power * (distances - distances.min(axis=1, keepdims=True)))
        return shares / shares.sum(axis=1, keepdims=True)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of an installed package with the class."""
    found = types.ModuleType("their_package.models")
    Watching.__module__ = "their_package.models"
    found.Watching = Watching  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package.models", found)
    SEEN.clear()
    return "their_package.models:Watching"


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path) -> Path:
    return extract_rows(
        load_images(make_photos(n=40, classes=("ant", "bee", "cat"))), PixelEncoder(), tmp_path / "c.h5"
    ).cache


def test_the_search_gives_it_folds_of_its_own_rows_and_takes_the_better_parameter(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:
        outcome = fit_sklearn(data, module, parameters={"power": 2}, grid={"noise": [50.0, 0.25]})
        at = data.split.where("train", "val")
    assert len(SEEN) == 2 * 5 + 1
    assert {rows.dtype for rows, _, _ in SEEN} == {np.dtype(np.float32)}
    assert {p["random_state"] for _, _, p in SEEN} == {4}
    assert {p["power"] for _, _, p in SEEN} == {2}
    sizes = [len(rows) for rows, _, _ in SEEN]
    assert sizes[-1] == len(at)
    assert sum(len(at) - n for n in sizes[:-1]) == 2 * len(at), "every image is held out once for each value"
    for rows, _, _ in SEEN:
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
    chosen = outcome.result.chosen
    assert (chosen["noise"], chosen["power"], chosen["rows"]) == (0.25, 2, "standardised")
    assert outcome.result.candidate == module


def test_what_predict_says_is_what_the_class_says_at_a_temperature(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:
        at, keys = data.split.where("train", "val"), data.split.keys
        rows = data.cache.read("pixels", keys)
        head = fit_head(find_head(module, {"power": 3}), rows[at], data.split, at).head
    classifier, temperature = classifier_of(head)
    plain = clone(classifier).fit(head[:-1].transform(rows[at]), data.split.labels[at])
    logits = np.log(plain.predict_proba(head[:-1].transform(rows)) + 1e-12) / temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert abs(np.log(temperature)) > 0.1
    np.testing.assert_allclose(predict_probabilities(head, rows), expected, atol=1e-6)


def test_a_class_of_ones_own_is_loaded_with_trust_only_and_that_is_said(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:
        result = fit_sklearn(data, module).result
    folder = Path(result.model)
    assert any("--trust" in note and "their_package.models.Watching" in note for note in result.notes)
    with pytest.raises(ModelError, match=r"types that no head of tlfeat has: their_package.* add --trust"):
        load_head(folder)
    assert isinstance(classifier_of(load_head(folder, is_trusted=True))[0], Watching)
    assert ":" not in folder.name


def test_what_skops_cannot_hold_is_saved_with_joblib(module: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watching, "__reduce__", lambda self: (_made_again, (self.get_params(), vars(self).copy())))
    monkeypatch.setattr("skops.io.dumps", lambda head: 1 / 0)
    with open_data(cache, seed=4) as data:
        result = fit_sklearn(data, module).result
    assert [path.name for path in Path(result.model).glob("head.*")] == ["head.joblib"]
    assert any("joblib" in note and "--trust" in note for note in result.notes)
    assert isinstance(classifier_of(load_head(Path(result.model), is_trusted=True))[0], Watching)


def _made_again(parameters: dict[str, Any], state: dict[str, Any]) -> Watching:
    made = Watching(**parameters)
    vars(made).update(state)
    return made


def test_an_equal_fit_is_reused_and_another_parameter_is_another_fit(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:

        def fitted(**options: Any) -> bool:
            return fit_sklearn(data, module, **options).is_reused

        assert [fitted(), fitted(), fitted(parameters={"noise": 0.5}), fitted(grid={"noise": [0.5]})] == [
            False,
            True,
            False,
            False,
        ]


def test_compare_takes_it_beside_a_head_of_the_table(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:
        found = compare_candidates(data, heads=("ridge", module), keras_modes=(), has_pixels=False)
        again = commands(data.cache, [line.result for line in found.lines])
    assert {line.result.candidate for line in found.lines} == {"ridge", module}
    assert {line.name for line in found.lines} == {"ridge", "Watching"}
    assert any(f"--model {module}" in command for command in again)


def test_the_command_that_makes_it_again_names_its_parameters(module: str, cache: Path) -> None:
    with open_data(cache, seed=4) as data:
        result = fit_sklearn(data, module, parameters={"power": 2}, grid={"noise": [0.5, 0.0]}).result
        (words,) = [c for c in commands(data.cache, [result]) if "fit-sklearn" in c]
    assert "--param power=2 --grid noise=0.5,0.0" in words
    stored = Result.from_dict(read_json(Path(result.model) / "result.json"))
    assert stored.settings["grid"] == {"noise": [0.5, 0.0]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere.models:Watching", {}, r"no module nowhere .* pip install nowhere"),
        ("sklearn.nowhere:SVC", {}, r"^There is no module sklearn.nowhere for --model sklearn.nowhere:SVC.$"),
        ("sklearn.svm:LinearSVM", {}, r"sklearn.svm has no class 'LinearSVM'. Did you mean 'LinearSVC'"),
        ("sklearn.svm:SVC", {"parameters": {"gama": 1}}, "no parameter 'gama'. Did you mean 'gamma'"),
        ("sklearn.svm:SVC", {"grid": {"gama": [1]}}, "no parameter 'gama'"),
        ("sklearn.svm:SVC", {"parameters": {"C": 1}, "grid": {"C": [1]}}, "C is given by --param and by --grid"),
        ("sklearn.svm:SVC", {"grid": {"C": []}}, "--grid C names no value"),
        ("sklearn.cluster:KMeans", {}, "KMeans is no classifier"),
        ("svm", {"parameters": {"C": 1}}, "the search of svm sets its own"),
    ],
)
def test_a_class_or_parameter_that_is_not_there_is_one_line(name: str, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_head(name, **options)


def test_a_fit_that_fails_is_one_line_with_the_class_in_it(module: str, cache: Path) -> None:
    with (
        open_data(cache, seed=4) as data,
        pytest.raises(DataError, match=rf"^{module} could not be fitted: RuntimeError: no luck$"),
    ):
        fit_sklearn(data, module, parameters={"fails": True})


def test_parameters_are_values_of_python() -> None:
    texts = ["C=0.5", "n=3", "shrinking=false", "weights=none", "kernel=rbf", "sizes=(64, 32)", "name=a=b"]
    assert parse_parameters(texts) == {
        "C": 0.5,
        "n": 3,
        "shrinking": False,
        "weights": None,
        "kernel": "rbf",
        "sizes": (64, 32),
        "name": "a=b",
    }
    assert parse_grid(["sizes=(64,),(64, 32)", "C=1,1e3"]) == {"sizes": [(64,), (64, 32)], "C": [1, 1000.0]}
    for texts, message in ((["C"], "'C' is not of the form"), (["C=1", "C=2"], "--param C is given twice")):
        with pytest.raises(UsageError, match=message):
            parse_parameters(texts)
