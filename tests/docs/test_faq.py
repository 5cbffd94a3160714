"""The answers of docs/faq.md that a small folder can show."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from conftest import ROOT, CountingEncoder, MakePhotos
from tlfeat.backbones.catalog import BACKBONES
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.split import Split, make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.heads.table import HEADS
from tlfeat.images.folders import IMAGE_SUFFIXES
from tlfeat.images.image_set import load_images

FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")


def split_of(folder: Path, encoder: CountingEncoder, cache: str = "cache.h5") -> Split:
    extract_rows(load_images(folder), encoder, Path(cache))
    with open_cache(Path(cache)) as opened:
        return make_split(opened.table, seed=3)


def test_train_and_val_alone_give_a_test_set_from_train(make_photos: MakePhotos, encoder: CountingEncoder) -> None:
    make_photos(n=20, folder="photos/train")
    for path in [f"photos/train/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]:
        to = Path(path.replace("train", "val"))
        to.parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)
    split = split_of(Path("photos"), encoder)
    assert split.is_val_given
    assert Counter(split.roles) == {"train": 26, "val": 8, "test": 6}  # 20 % of 16, of each class
    assert all(path.startswith("val/") == (role == "val") for path, role in zip(split.paths, split.roles, strict=True))
    assert "20 % of each class" in FAQ


def test_heic_files_are_passed_over_and_counted(make_photos: MakePhotos) -> None:
    folder = make_photos(n=3)
    (folder / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    images = load_images(folder)
    assert (len(images), images.n_passed_over) == (6, 1)
    for suffix in ("jpg", "png", "webp", "bmp", "tiff", "gif"):
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
    assert set(re.findall(r"^\| `([\w-]+)`", FAQ, flags=re.MULTILINE)) == {head.name for head in HEADS}
    assert f"all {len(BACKBONES)} " in FAQ
    assert f"The {len(BACKBONES)} networks" in (ROOT / "README.md").read_text(encoding="utf-8").replace("the ", "The ")
