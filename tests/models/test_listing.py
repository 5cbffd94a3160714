"""The saved models of a cache: the newest split first, the best first; and the one that is taken without a name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conftest import MakePhotos
from made_results import a_result
from tlfeat import workspace
from tlfeat.cli.app import app
from tlfeat.errors import ModelError
from tlfeat.models import export
from tlfeat.models.listing import find_model, saved_models
from tlfeat.workspace import write_json

CACHE = Path("cache/x.h5")


def keep(name: str, candidate: str, accuracy: float, *, split: str = "s1", age_s: float = 0, cache: str = "") -> Path:
    """Write the folder of a model that was saved so long ago."""
    folder = workspace.models_dir(CACHE) / name
    result = a_result(candidate, accuracy=accuracy)
    write_json(folder / "result.json", replace(result, split=replace(result.split, digest=split)).to_dict())
    (folder / "head.skops").write_bytes(bytes(result.model_bytes))
    about: dict[str, Any] = {"format": "tlfeat-model", "format_version": 1, "kind": "head", "layer": "avg_pool"}
    write_json(folder / "model.json", {**about, "classes": ["a"], "fingerprint": {}, "encoder": {}, "cache": cache})
    then = 1_700_000_000 - age_s
    os.utime(folder / "result.json", (then, then))
    return folder


@pytest.fixture
def kept() -> None:
    keep("svm-avg_pool-1", "svm", 0.7, age_s=10)
    keep("knn-avg_pool-2", "knn", 0.9, age_s=20)
    keep("lda-avg_pool-3", "lda", 0.99, split="s0", age_s=30)
    keep("svm-avg_pool-4", "svm", 0.8, age_s=40)


@pytest.mark.usefixtures("kept")
def test_the_newest_split_stands_first_and_in_it_the_best() -> None:
    names = [model.name for model in saved_models(CACHE)]
    assert names == ["knn-avg_pool-2", "svm-avg_pool-4", "svm-avg_pool-1", "lda-avg_pool-3"]


@pytest.mark.usefixtures("kept")
def test_a_folder_without_a_model_or_with_a_damaged_one_is_not_listed() -> None:
    (workspace.models_dir(CACHE) / "knn-avg_pool-2" / "model.json").unlink()
    (workspace.models_dir(CACHE) / "svm-avg_pool-4" / "result.json").write_text("{")
    assert [model.name for model in saved_models(CACHE)] == ["svm-avg_pool-1", "lda-avg_pool-3"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "knn-avg_pool-2"),
        ("lda-avg_pool-3", "lda-avg_pool-3"),
        ("svm-avg_pool-1", "svm-avg_pool-1"),
        ("svm", "svm-avg_pool-4"),
        ("lda", "lda-avg_pool-3"),
    ],
)
def test_a_model_is_found_by_the_name_of_its_folder_or_of_its_head(name: str | None, found: str) -> None:
    assert find_model(name, CACHE).name == found


@pytest.mark.usefixtures("kept")
def test_a_name_that_is_not_there_is_an_error_that_says_what_is() -> None:
    with pytest.raises(ModelError, match=r"No model 'ridg' .*x\.h5.*tlfeat models --cache cache.x\.h5"):
        find_model("ridg", CACHE)
    with pytest.raises(ModelError, match=r"No model was fitted on .*y\.h5.*tlfeat fit-sklearn --cache cache.y\.h5"):
        find_model(None, Path("cache/y.h5"))


def test_of_another_cache_of_the_same_name_nothing_is_listed(tmp_path: Path) -> None:
    keep("svm-avg_pool-1", "svm", 0.7, cache=str(tmp_path / "elsewhere" / "x.h5"))
    keep("knn-avg_pool-2", "knn", 0.9, cache=str(tmp_path / "cache" / "x.h5"))
    (tmp_path / "elsewhere").mkdir()
    assert [model.name for model in saved_models(tmp_path / "elsewhere" / "x.h5")] == ["svm-avg_pool-1"]


# --- commands -------------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def fitted(make_photos: MakePhotos) -> dict[str, str]:
    """Photos with their cache and two heads, of which the first is said to be the better one; name to folder."""
    photos = make_photos(n=9)
    run("extract", photos, "--backbone", "pixels", "--cache", "cache/mine.h5")
    folders = {}
    for head, accuracy in (("lda", 0.875), ("knn", 0.5)):
        folders[head] = json.loads(run("fit-sklearn", "--model", head, "--no-search", "--json").stdout)["path"]
        file = Path(folders[head]) / "result.json"
        result = workspace.read_json(file)
        write_json(file, {**result, "score": {**result["score"], "accuracy": accuracy}})
    return folders


def test_models_are_listed_with_what_tells_them_apart(fitted: dict[str, str]) -> None:
    ran = run("models")
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "layer", "accuracy"]
    assert lines[2].startswith(Path(fitted["lda"]).name) and "87.5 %" in lines[2] and fitted["lda"] in lines[2]
    assert lines[3].startswith(Path(fitted["knn"]).name) and "50.0 %" in lines[3]
    documents = json.loads(run("models", "--json", "--cache", "cache/mine.h5").stdout)
    assert [d["folder"] for d in documents] == [fitted["lda"], fitted["knn"]]
    assert [d["accuracy"] for d in documents] == [0.875, 0.5]
    assert {"name", "layer", "ci95", "seed", "split", "model_bytes", "age_s"} <= set(documents[0])


def test_predict_without_a_model_takes_the_best_and_says_which(fitted: dict[str, str]) -> None:
    ran = run("predict", "photos/cat/0.png", "photos/dog")
    assert ran.exit_code == 0, ran.output
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("Model: ")]
    assert Path(fitted["lda"]).name in line and "87.5 %" in line and "cache/mine.h5" in line
    assert len(ran.stdout.splitlines()) == 2 + 10
    assert run("predict", "photos").stdout.count("photos/") == 18


@pytest.mark.sample("words0", "words2")
@pytest.mark.parametrize("words", [["--model", "knn"], ["--model", "FOLDER"], ["knn"], ["NAME"], ["FOLDER"]])
def test_predict_takes_a_model_by_name_or_folder(words: list[str], fitted: dict[str, str]) -> None:
    spoken = {"NAME": Path(fitted["knn"]).name, "FOLDER": fitted["knn"]}
    ran = run("predict", *(spoken.get(word, word) for word in words), "photos/cat/0.png", "--json")
    assert ran.exit_code == 0, ran.output
    (one,) = json.loads(ran.stdout)
    assert one["path"] == "photos/cat/0.png"
    shutil.rmtree(fitted["knn"])
    assert run("predict", *(spoken.get(word, word) for word in words), "photos/cat/0.png").exit_code == 3


def test_predict_says_what_is_missing(fitted: dict[str, str]) -> None:
    assert "No image was named" in run("predict", fitted["lda"]).stderr
    assert "gone does not exist" in run("predict", "gone").stderr
    assert "gone.png does not exist" in run("predict", "gone.png", "photos/cat/0.png").stderr
    assert "There is no model in cache/models/mine" in run("predict", "cache/models/mine", "photos/cat/0.png").stderr
    assert "There is no model in far/away" in run("predict", "far/away", "photos/cat/0.png").stderr
    assert "No model 'ldaa'" in run("predict", "ldaa", "photos/cat/0.png").stderr


def test_export_without_a_model_takes_the_best(fitted: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Path] = []

    def stopped(folder: Path, *_: object, **__: object) -> None:
        taken.append(folder)
        raise ModelError("not here")

    monkeypatch.setattr(export, "export_model", stopped)
    for words in ([], ["knn"], [fitted["knn"]]):
        assert "error: not here" in run("export", *words, "--to", "onnx").stderr
    assert taken == [Path(fitted["lda"]), Path(fitted["knn"]), Path(fitted["knn"])]
