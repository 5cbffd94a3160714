"""Leaks are said before any score; an audit finds what is wrong with a set, shows it, and changes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import MakePhotos
from made_data import as_json, photo, tlfeat
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.evaluate import leaks
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.duplicates import find_duplicates
from tlfeat.images.image_set import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Leaks, Result
from tlfeat.studies import audit as auditing
from tlfeat.studies.audit import Audit, audit


@pytest.fixture(autouse=True)
def _work_in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(leaks, "_found", {})
    yield


def audited(photos: Path, **options: float) -> Audit:
    extract_rows(load_images(photos), PixelEncoder(), Path("a.h5"))
    with open_cache(Path("a.h5")) as cache:
        return audit(cache, **options)  # type: ignore[arg-type]


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Pictures of pure noise under two labels, half of the test images re-encoded from training."""
    root = tmp_path / "leaky"
    for c, name in enumerate(("a", "b")):
        for split, first, n in (("train", 0, 24), ("test", 500, 10)):
            (root / split / name).mkdir(parents=True)
            for i in range(first, first + n):
                photo(1000 * c + i).save(root / split / name / f"{i}.png")
        for i in range(10):
            photo(1000 * c + i).save(root / "test" / name / f"copy{i}.jpg", quality=70)
    return root


# --- leaks before any score ---------------------------------------------------------------------------------


def test_leaks_are_said_by_every_fit_and_the_score_is_given_without_them(leaky: Path, tmp_path: Path) -> None:
    tlfeat("extract", str(leaky), "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("fit-sklearn", "--model", "knn", cwd=tmp_path)
    said = "LEAK: 20 of 40 test images (50.0 %) show a picture that was learned from (0 exact, 20 changed a little)"
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

    run = tlfeat("compare", "--heads", "knn,svm", "--keras", "none", cwd=tmp_path)
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
    run = tlfeat("compare", "--heads", "knn", "--keras", "none", cwd=tmp_path)
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
    monkeypatch.setattr(leaks, "find_duplicates", lambda *a, **k: calls.append(1) or looked(*a, **k))
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


# --- the audit ----------------------------------------------------------------------------------------------


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    """Reddish and bluish pictures."""
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "easy" / name).mkdir(parents=True)
        for i in range(40):
            image = photo(100 * (name == "red") + i)
            Image.blend(image, Image.new("RGB", image.size, colour), 0.6).save(tmp_path / "easy" / name / f"{i}.png")
    return tmp_path / "easy"


def test_wrong_labels_that_were_planted_are_found(easy: Path) -> None:
    for i in range(3):
        shutil.move(easy / "red" / f"{i}.png", easy / "blue" / f"wrong{i}.png")
    found = audited(easy).of_kind("label")
    assert {(f.path, f.suggestion) for f in found} == {(f"blue/wrong{i}.png", "red") for i in range(3)}


def test_no_copy_vouches_for_a_wrong_label(easy: Path) -> None:
    """Copies of one picture with one wrong label are held out together: their probabilities come from one head."""
    for c in range(4):
        Image.open(easy / "red" / "0.png").save(easy / "blue" / f"wrong{c}.png", compress_level=c)
    extract_rows(load_images(easy), PixelEncoder(), Path("a.h5"))
    with open_cache(Path("a.h5")) as cache:
        split = make_split(cache.table)
        images = auditing._Images(split.paths, ["x"] * len(split.keys), split.keys, split.roles)
        files = [easy / path for path in split.paths]
        copies = find_duplicates(cache.read("pixels", split.keys), split.keys, files)
        groups = auditing._joined(split, images, copies)
    of_copies = {
        group for group, path in zip(groups, split.paths, strict=True) if "wrong" in path or path == "red/0.png"
    }
    assert len(of_copies) == 1
    assert len(set(split.groups)) == len(split.groups) == 84
    assert len(set(groups)) == 80


def test_one_picture_under_two_labels_is_a_conflict_and_copies_across_the_split_are_leaks(leaky: Path) -> None:
    shutil.copy(leaky / "train" / "a" / "20.png", leaky / "train" / "b" / "twice.png")
    found = audited(leaky)
    (conflict,) = found.of_kind("conflict")
    assert {conflict.path, conflict.other} == {"train/a/20.png", "train/b/twice.png"}
    assert conflict.detail == "the same bytes"
    assert len(found.of_kind("leak")) == 20
    assert {(f.split, f.other_split in ("train", "val")) for f in found.of_kind("leak")} == {("test", True)}
    assert len(found.of_kind("duplicate")) == 21


def test_a_picture_of_another_kind_is_an_outlier(tmp_path: Path) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 64)[None, :, None] * np.ones((64, 1, 3))
    for i in range(40):
        noisy = np.clip(ramp + rng.normal(0, 20, (64, 64, 3)), 0, 255)
        Image.fromarray((noisy if i else 255 - noisy).astype(np.uint8)).save(tmp_path / "p" / "a" / f"{i}.png")
    found = audited(tmp_path / "p")
    assert found.of_kind("outlier")[0].path == "a/0.png"
    assert len(found.of_kind("outlier")) <= 2
    assert any("wrong labels were not looked for" in note for note in found.notes)  # there is one class


def test_imbalance_says_what_the_largest_class_alone_would_reach(make_photos: MakePhotos) -> None:
    photos = make_photos(n=30, classes=("cat",))
    make_photos(n=10, classes=("dog",))
    (finding,) = audited(photos).of_kind("imbalance")
    assert finding.score == 3
    assert "right for 75.0 %" in finding.detail


def test_the_command_writes_every_finding_changes_nothing_and_exits_0(leaky: Path, tmp_path: Path) -> None:
    tlfeat("extract", str(leaky), "--backbone", "pixels", "-q", cwd=tmp_path)
    (cache,) = (tmp_path / "cache").glob("*.h5")
    before = hashlib.sha256(cache.read_bytes()).hexdigest(), sorted(os.walk(leaky))
    run = tlfeat("audit", "--output", "out", cwd=tmp_path)
    assert (hashlib.sha256(cache.read_bytes()).hexdigest(), sorted(os.walk(leaky))) == before
    assert "test images that were learned from     20" in run.stdout
    document = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert document["n_by_kind"]["leak"] == 20
    assert document == as_json("audit", cwd=tmp_path)
    with (tmp_path / "out" / "audit.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(document["findings"])
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 40
    assert len(page) < 5_000_000


def test_the_page_escapes_nasty_names_and_forbids_scripts(tmp_path: Path) -> None:
    nasty = '"><script>alert(1)<'
    for name in (nasty, "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(6):
            photo(i).save(tmp_path / "p" / name / f"<img src=x onerror=alert({i})>.png")
    tlfeat("extract", "p", "--backbone", "pixels", "-q", cwd=tmp_path)
    tlfeat("audit", "--output", "out", cwd=tmp_path)
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_imported_rows_are_audited_without_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 12)).astype(np.float32)
    rows[:30] += 3
    rows[59] = rows[40] * 1.001  # a near copy
    np.save(tmp_path / "rows.npy", rows)
    lines = [f"{'x' if i < 30 else 'y'},text{i}" for i in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["label,path", *lines]) + "\n")
    (tmp_path / "text40").write_text("no picture")
    tlfeat("cache", "import", "rows.npy", "table.csv", cwd=tmp_path)
    run = tlfeat("audit", "--output", "out", cwd=tmp_path)
    assert "there are no pictures to look at" in run.stderr
    document = json.loads((tmp_path / "out" / "audit.json").read_text())
    (copy,) = [f for f in document["findings"] if f["kind"] == "duplicate"]
    assert {copy["path"], copy["other"]} == {"text40", "text59"}
    assert "<img" not in (tmp_path / "out" / "audit.html").read_text()


def test_an_audit_of_a_set_whose_pictures_are_gone_works_on_its_rows(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=12)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    shutil.rmtree(photos)
    assert "there are no pictures to look at" in tlfeat("audit", cwd=tmp_path).stderr
