"""The answers of docs/faq.md that a small folder can show."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT, CountingEncoder, MakePhotos
from tlfeat.backbones.catalog import BACKBONES
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.split import Split, make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.heads.table import HEADS, SPREAD
from tlfeat.images import folders
from tlfeat.images.classes import renamed
from tlfeat.images.folders import IMAGE_SUFFIXES, left_out_text
from tlfeat.images.labels import MIN_NUMBERS, MIN_NUMERIC, MIN_SEVERAL, labeller
from tlfeat.images.load import load_images
from tlfeat.images.tables import COLUMN_NAMES

FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")


def split_of(folder: Path, encoder: CountingEncoder, cache: str = "cache.h5") -> Split:
    extract_rows(load_images(folder), encoder, Path(cache))
    with open_cache(Path(cache)) as opened:
        return make_split(opened.table, seed=3)


def test_val_is_the_test_set_where_there_is_no_test_folder(make_photos: MakePhotos, encoder: CountingEncoder) -> None:
    make_photos(n=20, folder="photos/train")
    for path in [f"photos/train/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]:
        to = Path(path.replace("train", "val"))
        to.parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)
    split = split_of(Path("photos"), encoder)
    assert not split.is_val_given
    assert Counter(split.roles) == {"train": 28, "val": 4, "test": 8}  # 15 % of 16, of each class
    assert all(path.startswith("val/") == (role == "test") for path, role in zip(split.paths, split.roles, strict=True))
    assert "15 % of the training images" in FAQ


def test_heic_files_without_the_package_are_left_out_and_named(
    make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "find_spec", lambda name: None)
    folder = make_photos(n=3)
    (folder / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    images = load_images(folder)
    assert (len(images), left_out_text(images.passed_over)) == (6, "left out: 1 .heic")
    for suffix in ("jpg", "png", "webp", "bmp", "tiff", "gif", "avif"):
        assert f".{suffix}" in IMAGE_SUFFIXES
        assert re.search(suffix.replace("jpg", "jpeg"), FAQ, flags=re.IGNORECASE)


def test_images_without_a_label_take_no_part_and_folders_below_a_class_do_not_matter(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    folder = make_photos(n=6)
    (folder / "cat" / "2023").mkdir()
    (folder / "cat" / "4.png").rename(folder / "cat" / "2023" / "4.png")
    (folder / "dog" / "5.png").rename(folder / "loose.png")
    split = split_of(folder, encoder)
    assert len(split.paths) == 11
    assert "loose.png" not in split.paths
    assert split.classes[split.labels[split.paths.index("cat/2023/4.png")]] == "cat"
    assert split.notes == ["1 images have no label and take no part"]


def test_a_moved_folder_is_recognised_by_the_bytes_of_its_images(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    folder = make_photos(n=6)
    before = split_of(folder, encoder)
    moved = folder.rename(folder.parent / "elsewhere")
    with open_cache(Path("cache.h5")) as cache:  # fitting needs the cache alone
        assert make_split(cache.table, seed=3).info == before.info
    assert split_of(moved, encoder).info == before.info
    assert encoder.n_encoded == 12


def test_the_table_of_heads_and_the_number_of_backbones_are_those_of_the_code() -> None:
    table = FAQ.partition("## Which head?")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", table, flags=re.MULTILINE)) == {*(head.name for head in HEADS), SPREAD}
    assert f"all {len(BACKBONES)} " in FAQ
    assert f"The {len(BACKBONES)} networks" in (ROOT / "README.md").read_text(encoding="utf-8").replace("the ", "The ")


def test_the_names_of_columns_and_the_thresholds_are_those_of_the_code() -> None:
    answer = FAQ.partition("## My CSV has other columns")[2].partition("\n## ")[0]
    for role in ("path", "label"):
        for name in COLUMN_NAMES[role]:
            assert f"`{name}`" in answer
    refused = FAQ.partition("## My images have several labels")[2].partition("\n## ")[0]
    assert f"{100 * MIN_SEVERAL:.0f} %" in refused
    assert f"{100 * MIN_NUMERIC:.0f} % of the labels are numbers, more than {MIN_NUMBERS} different" in refused


def test_the_examples_of_labels_from_names_hold() -> None:
    for how, path, label in (
        ("name", "cat.0.jpg", "cat"),
        ("name", "american_bulldog_10.jpg", "american_bulldog"),
        ("parent", "patient7/2023/benign/1.png", "benign"),
        ("_(benign|malignant)_", "x_malignant_3.png", "malignant"),
    ):
        assert labeller(how)(path, path) == label
        assert how.replace("|", "\\|") in FAQ
    assert renamed(["adenocarcinoma_left.lower.lobe_T2"], {"(.*?)_.*": r"\1"}).popitem()[1] == "adenocarcinoma"
