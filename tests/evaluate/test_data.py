"""The leaks of a split are found once, said before any score, and the score is given without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import MakePhotos
from made_data import as_json, photo, tlfeat, write_leaky
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.evaluate import copies
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.images.duplicates import find_duplicates
from tlfeat.images.image_set import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Leaks, Result


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    return write_leaky(tmp_path / "leaky")


def test_leaks_are_said_by_every_fit_and_the_score_is_given_without_them(leaky: Path, tmp_path: Path) -> None:
    tlfeat("extract", str(leaky), "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("fit-sklearn", "--model", "knn", cwd=tmp_path)
    said = "LEAK: 20 of 40 test images (50.0 %) show a picture of the training images (0 exact, 20 changed a little)"
    assert f"warning: {said}" in run.stderr
    assert said in run.stdout
    assert "without leaks" in run.stdout
    again = as_json("fit-sklearn", "--model", "knn", cwd=tmp_path)
    assert again["is_reused"]
    assert again["accuracy"] >= 0.6 > again["accuracy_without_leaks"]  # noise, half of it learned by heart
    assert again["leaks"]["n_test"] == 20
    assert {(i["test"].split("/")[-1].split(".")[0], i["kind"]) for i in again["leaks"]["images"]} == {
        (f"copy{i}", "near") for i in range(10)
    }

    run = tlfeat("compare", "--heads", "knn,logreg", "--keras", "none", cwd=tmp_path)
    assert f"warning: {said}" in run.stderr
    assert "without leaks" in run.stdout.splitlines()[0]
    (report,) = (tmp_path / "cache" / "reports").glob("*/comparison.md")
    for ending in ("md", "html"):
        text = report.with_suffix(f".{ending}").read_text()
        assert said in text
        assert "without leaks" in text
    documents = json.loads(report.with_suffix(".json").read_text())
    assert [d["n_leaks"] for d in documents] == [20] * 3  # the pixel baseline is scored without the same images
    header, *_ = report.with_suffix(".csv").read_text().splitlines()
    assert {"n_leaks", "accuracy_without_leaks"} <= set(header.split(","))


def test_nothing_is_said_of_leaks_where_there_are_none(make_photos: MakePhotos, tmp_path: Path) -> None:
    make_photos(n=12)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("compare", "--heads", "logreg", "--keras", "none", cwd=tmp_path)
    assert "leak" not in (run.stdout + run.stderr).lower()


def test_a_result_of_an_older_version_gets_its_leaks_when_it_is_shown_again(leaky: Path) -> None:
    extract_rows(load_images(leaky), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        folder = Path(fit_sklearn(data, "svm").result.model)
        saved = json.loads((folder / "result.json").read_text())
        assert len(saved.pop("leaks")["images"]) == 20
        (folder / "result.json").write_text(json.dumps(saved))
        assert Result.from_dict(saved).leaks is None
        again = fit_sklearn(data, "svm")
    assert again.is_reused
    assert isinstance(again.result.leaks, Leaks)
    assert len(again.result.leaks.images) == 20


def test_leaks_are_looked_for_once_for_all_candidates(leaky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    looked = find_duplicates
    monkeypatch.setattr(copies, "find_duplicates", lambda *a, **k: calls.append(1) or looked(*a, **k))
    extract_rows(load_images(leaky), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        fit_sklearn(data, "svm")
        fit_sklearn(data, "knn")
    assert calls == [1]


def test_where_every_test_image_was_learned_from_there_is_no_score_without_leaks(tmp_path: Path) -> None:
    for c, name in enumerate(("a", "b")):
        for split in ("train", "test"):
            (tmp_path / "all" / split / name).mkdir(parents=True)
            for i in range(8):
                photo(100 * c + i).save(tmp_path / "all" / split / name / f"{i}.png")
    extract_rows(load_images(tmp_path / "all"), PixelEncoder(), Path("a.h5"))
    with open_data(Path("a.h5"), seed=0) as data:
        found = fit_sklearn(data, "svm").result.leaks
    assert found is not None
    assert (len(found.images), found.n_test, found.accuracy, found.ci95) == (16, 0, None, None)
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
