"""Leaks are said before any score; an audit finds what is wrong with a set, shows it, and changes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import MakePhotos
from made_data import as_json, photo, tlfeat, write_leaky
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.copies import find_copies
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.studies import doubted_labels
from tlfeat.studies.audit import audit
from tlfeat.studies.findings import Audit


def audited(photos: Path, **options: float) -> Audit:
    extract_rows(load_images(photos), PixelEncoder(), Path("a.h5"))
    with open_cache(Path("a.h5")) as cache:
        return audit(cache, **options)  # type: ignore[arg-type]


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    return write_leaky(tmp_path / "leaky")


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


def test_every_label_is_looked_at_where_validation_images_are_given(easy: Path, tmp_path: Path) -> None:
    for name, other in (("red", "blue"), ("blue", "red")):
        for i, split in ((0, "train"), (1, "val"), (2, "test")):
            shutil.move(easy / name / f"{i}.png", easy / other / f"wrong-{split}.png")
    for file in sorted(easy.glob("*/*.png")):
        split = file.stem.partition("-")[2] or ("train", "val", "test")[int(file.stem) % 3]
        (tmp_path / "given" / split / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.move(file, tmp_path / "given" / split / file.parent.name / file.name)
    found = audited(tmp_path / "given")
    assert {(f.path, f.suggestion) for f in found.of_kind("label")} == {
        (f"{split}/{other}/wrong-{split}.png", name)
        for name, other in (("red", "blue"), ("blue", "red"))
        for split in ("train", "val", "test")
    }
    assert found.agreement == pytest.approx(74 / 80)


def test_no_copy_vouches_for_a_wrong_label(easy: Path) -> None:
    """Copies of one picture with one wrong label are held out together: their probabilities come from one head."""
    for c in range(4):
        Image.open(easy / "red" / "0.png").save(easy / "blue" / f"wrong{c}.png", compress_level=c)
    extract_rows(load_images(easy), PixelEncoder(), Path("a.h5"))
    with open_cache(Path("a.h5")) as cache:
        split = make_split(cache.table)
        groups = doubted_labels._joined(split, find_copies(cache))
    of_copies = {
        group for group, path in zip(groups, split.paths, strict=True) if "wrong" in path or path == "red/0.png"
    }
    assert len(of_copies) == 1
    assert len(set(split.groups)) == len(split.groups) == 84
    assert len(set(groups)) == 80


def test_one_picture_under_two_labels_is_a_conflict_and_copies_across_the_split_are_leaks(leaky: Path) -> None:
    shutil.copy(leaky / "train" / "a" / "20.png", leaky / "train" / "b" / "twice.png")
    found = audited(leaky)
    one, other = found.of_kind("conflict")
    assert (one.path, one.other, one.label) == (other.other, other.path, "a")
    assert {one.path, other.path} == {"train/a/20.png", "train/b/twice.png"}
    assert one.detail == "the same bytes"
    (group,) = found.groups_of("conflict")
    assert (group.number, group.paths) == (one.group, ["train/a/20.png", "train/b/twice.png"])
    assert len(found.of_kind("leak")) == 20
    assert {(f.split, f.other_split in ("train", "val")) for f in found.of_kind("leak")} == {("test", True)}
    assert len(found.of_kind("duplicate")) == 42
    assert len(found.groups) == 21
    assert {f.path for f in found.of_kind("duplicate")} == {path for group in found.groups for path in group.paths}


def test_leaks_of_an_audit_are_those_of_a_fit_image_by_image(leaky: Path) -> None:
    """A second copy of a leaked test image is one more leaked test image."""
    for i in range(4):
        shutil.copy(leaky / "test" / "a" / f"copy{i}.jpg", leaky / "test" / "a" / f"again{i}.jpg")
        Image.open(leaky / "test" / "a" / f"copy{i}.jpg").save(leaky / "test" / "a" / f"third{i}.bmp")
    found = audited(leaky, seed=2)
    with open_data(Path("a.h5"), seed=2) as data:
        leaks = data.leaks().images
    assert len(leaks) == 28
    assert {(f.path, f.other, f.score) for f in found.of_kind("leak")} == {
        (leak["test"], leak["learned"], leak["similarity"]) for leak in leaks
    }
    assert sorted(len(group.paths) for group in found.groups) == [2] * 16 + [4] * 4


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
    for k in range(6):  # copies of it are no company
        shutil.copy(tmp_path / "p" / "a" / "0.png", tmp_path / "p" / "a" / f"copy{k}.png")
    assert audited(tmp_path / "p").of_kind("outlier") == found.of_kind("outlier")
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
    assert re.search(r"test images seen in training +20\n", run.stdout)
    assert re.search(r"copies of a picture +40 in 20 groups\n", run.stdout)
    lines = run.stdout.partition("\nCopies of a picture\n")[2].splitlines()[2:]
    assert "test/a/copy0.jpg (a, test)  train/a/0.png (a, train)" in lines[0]
    assert lines[10] == "... and 10 more"
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
    copies = [f for f in document["findings"] if f["kind"] == "duplicate"]
    assert [(copy["path"], copy["other"]) for copy in copies] == [("text40", "text59"), ("text59", "text40")]
    assert document["groups"][0]["paths"] == ["text40", "text59"]
    assert "<img" not in (tmp_path / "out" / "audit.html").read_text()


def test_an_audit_of_a_set_whose_pictures_are_gone_works_on_its_rows(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=12)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    shutil.rmtree(photos)
    shutil.rmtree(tmp_path / "cache" / "copies")  # what extract found
    assert "there are no pictures to look at" in tlfeat("audit", cwd=tmp_path).stderr
