"""The leaks of a split are found once, said before any score, and count in none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos
from made_data import as_json, photo, tlfeat, write_leaky
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.evaluate import copies
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.scores import score
from tlfeat.extract.extract import extract_rows
from tlfeat.images.duplicates import find_duplicates
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Leaks


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    return write_leaky(tmp_path / "leaky")


def test_leaks_are_said_by_every_fit_and_count_in_no_score(leaky: Path, tmp_path: Path) -> None:
    tlfeat("extract", str(leaky), "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("fit-sklearn", "--model", "ridge", cwd=tmp_path)
    said = "LEAK: 20 of 40 test images (50.0 %) show a picture of the training images (0 exact, 20 changed a little)"
    assert f"warning: {said}" in run.stderr
    assert said in run.stdout
    again = as_json("fit-sklearn", "--model", "ridge", cwd=tmp_path)
    assert again["is_reused"]
    assert again["accuracy"] < 0.6 <= again["accuracy_with_leaks"]  # noise, half of it learned by heart
    assert f"accuracy           {100 * again['accuracy']:.1f} %  (95 % interval" in run.stdout
    assert (again["leaks"]["n_test"], again["n_scored"], again["n_test"]) == (20, 20, 40)
    assert sum(map(sum, again["confusion"])) == 20
    assert {(i["test"].split("/")[-1].split(".")[0], i["kind"]) for i in again["leaks"]["images"]} == {
        (f"copy{i}", "near") for i in range(10)
    }

    run = tlfeat("compare", "--heads", "ridge,logreg", "--keras", "none", cwd=tmp_path)
    assert f"warning: {said}" in run.stderr
    footnote = (
        "Leaks: 20 test images of 40 show a picture of the training images and are left out of every number here."
    )
    (report,) = (tmp_path / "cache" / "reports").glob("*/comparison.md")
    for ending in ("md", "html"):
        text = re.sub("<[^>]+>", "", report.with_suffix(f".{ending}").read_text())  # words open their explanation
        assert said in text
        assert footnote in text
        assert "20 test images, used for nothing else" in text
    documents = json.loads(report.with_suffix(".json").read_text())
    assert [d["n_leaks"] for d in documents] == [20] * 3  # the pixel baseline is scored without the same images
    (ridge,) = (d for d in documents if d["model"] == "ridge")
    assert (ridge["accuracy"], ridge["accuracy_with_leaks"]) == (again["accuracy"], again["accuracy_with_leaks"])
    assert [d["accuracy"] for d in documents] == sorted((d["accuracy"] for d in documents), reverse=True)
    header, *_ = report.with_suffix(".csv").read_text().splitlines()
    assert {"n_leaks", "accuracy_with_leaks"} <= set(header.split(","))


def test_nothing_is_said_of_leaks_where_there_are_none(make_photos: MakePhotos, tmp_path: Path) -> None:
    make_photos(n=12)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("compare", "--heads", "logreg", "--keras", "none", cwd=tmp_path)
    assert "leak" not in (run.stdout + run.stderr).lower()


@pytest.mark.parametrize("knew", ["of none", "of all", "of others"])
def test_a_result_of_an_older_version_is_scored_without_its_leaks_when_it_is_shown_again(
    leaky: Path, knew: str
) -> None:
    extract_rows(load_images(leaky), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        fresh = fit_sklearn(data, "knn").result
        folder = Path(fresh.model)
        saved = json.loads((folder / "result.json").read_text())
        found = saved.pop("leaks")
        if knew == "of all":  # an older version scored them
            saved["leaks"] = {"images": found["images"], "n_test": 20, "accuracy": 0.4, "ci95": [0.1, 0.9], "notes": []}
        if knew == "of others":
            saved["leaks"] = {**found, "images": [{**found["images"][0], "test": "test/a/gone.png"}]}
        all_test = score(np.array(fresh.true), np.array(fresh.predicted), fresh.classes)
        saved["score"] = all_test.to_dict()
        (folder / "result.json").write_text(json.dumps(saved))
        again = fit_sklearn(data, "knn")
    assert again.is_reused
    assert isinstance(again.result.leaks, Leaks)
    assert len(again.result.leaks.images) == 20
    assert again.result.leaks.accuracy_with == all_test.accuracy != fresh.score.accuracy
    assert again.result.score == replace(fresh.score, calibration=None)


def test_a_result_is_shown_again_as_it_was(leaky: Path) -> None:
    extract_rows(load_images(leaky), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        fresh = fit_sklearn(data, "ridge").result
        again = fit_sklearn(data, "ridge")
    assert again.is_reused
    assert (again.result.score.accuracy, again.result.score.n_images) == (fresh.score.accuracy, 20)
    assert again.result.score.calibration is not None


def test_leaks_are_looked_for_once_for_all_candidates(leaky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    looked = find_duplicates
    monkeypatch.setattr(copies, "find_duplicates", lambda *a, **k: calls.append(1) or looked(*a, **k))
    extract_rows(load_images(leaky), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        fit_sklearn(data, "svm")
        fit_sklearn(data, "knn")
    assert calls == [1]


def test_where_every_test_image_was_learned_from_that_is_found(tmp_path: Path) -> None:
    for c, name in enumerate(("a", "b")):
        for split in ("train", "test"):
            (tmp_path / "all" / split / name).mkdir(parents=True)
            for i in range(8):
                photo(100 * c + i).save(tmp_path / "all" / split / name / f"{i}.png")
    extract_rows(load_images(tmp_path / "all"), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        found = fit_sklearn(data, "svm").result.leaks
    assert found is not None
    assert (len(found.images), found.n_test) == (16, 0)
    assert {image["kind"] for image in found.images} == {"bytes"}


def test_each_split_has_its_own_leaks(tmp_path: Path) -> None:
    for c, name in enumerate(("a", "b")):
        (tmp_path / "twice" / name).mkdir(parents=True)
        for i in range(20):
            for ending in ("png", "bmp"):
                photo(1000 * c + i).save(tmp_path / "twice" / name / f"{i}.{ending}")
    extract_rows(load_images(tmp_path / "twice"), PixelEncoder(), Path("a.h5"))
    found = []
    for seed in (3, 4):
        with open_data(Path("a.h5"), seed=seed) as data:
            test_paths = {data.split.paths[i] for i in data.split.where("test")}
            found.append({image["test"] for image in data.leaks().images})
            assert found[-1] <= test_paths
    assert found[0] != found[1]
    assert all(found)
