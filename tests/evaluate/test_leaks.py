"""Test images that were learned from: one entry each, the surest, for the split at hand; and the score without them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from made_data import make_table, photo
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.intervals import proportion_interval
from tlfeat.evaluate.leaks import LeakedImages, find_leaks, leak_sentence, scored_tests, with_leaked
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images


def test_of_an_exact_and_a_changed_copy_the_exact_one_is_told(tmp_path: Path) -> None:
    for c, name in enumerate("ab"):
        for split, first, n in (("train", 0, 8), ("test", 500, 4)):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(first, first + n):
                photo(1000 * c + i).save(folder / f"{i}.png")
    # in the order of paths the changed copy comes first, and in another set last
    train, test = tmp_path / "set" / "train" / "a", tmp_path / "set" / "test" / "a"
    for i, changed in ((500, "0-changed.jpg"), (501, "z-changed.jpg")):
        shutil.copy(test / f"{i}.png", train / f"copy{i}.png")
        photo(i).save(train / changed, quality=70)
    path = extract_rows(load_images(tmp_path / "set"), PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(path) as cache:
        found = find_leaks(cache, make_split(cache.table)).images
    assert sorted((leak["test"], leak["learned"], leak["kind"], leak["similarity"]) for leak in found) == [
        ("test/a/500.png", "train/a/copy500.png", "bytes", 1.0),
        ("test/a/501.png", "train/a/copy501.png", "bytes", 1.0),
    ]


def test_exact_is_every_test_image_whose_bytes_are_among_the_training_images(tmp_path: Path) -> None:
    """Whichever is met first: the training images hold each picture a second time with one pixel a grey level off."""
    for c, name in enumerate("ab"):
        for split in ("train", "test"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
        train, test = (tmp_path / "set" / split / name for split in ("train", "test"))
        for i in range(9):
            image = photo(1000 * c + i)
            image.save(train / f"{i}.png")
            off = image.copy()
            off.putpixel((5, 5), tuple(value + 1 for value in image.getpixel((5, 5))))
            off.save(train / f"off{i}.png")
            if i < 7:
                shutil.copy(train / f"{i}.png", test / f"{i}.png")
            if i in (3, 7, 8):  # exact too, though no file has these bytes
                off.save(test / f"off{i}.bmp")
    path = extract_rows(load_images(tmp_path / "set"), PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(path) as cache:
        found = find_leaks(cache, make_split(cache.table)).images
    exact = {leak["test"]: (leak["learned"], leak["kind"]) for leak in found}
    assert exact == {
        f"test/{name}/{file}": (f"train/{name}/{learned}", kind)
        for name in "ab"
        for file, learned, kind in (
            *((f"{i}.png", f"{i}.png", "bytes") for i in range(7)),
            *((f"off{i}.bmp", f"off{i}.png", "pixels") for i in (3, 7, 8)),
        )
    }


def test_a_copy_of_a_leak_is_a_leak(tmp_path: Path) -> None:
    """Of every picture a training image, a test image cropped at its right, and of that one cropped again."""
    for c, name in enumerate("ab"):
        for split in ("train", "test"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
        for i in range(8):
            image = photo(1000 * c + i, (240, 200))
            image.save(tmp_path / "set" / "train" / name / f"{i}.png")
            for n, (width, height) in enumerate(((222, 185), (206, 172))):
                image.crop((0, 0, width, height)).save(tmp_path / "set" / "test" / name / f"{i}-{n}.png")
    path = extract_rows(load_images(tmp_path / "set"), PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(path) as cache:
        found = find_leaks(cache, make_split(cache.table)).images
    assert len(found) == 32
    assert {(leak["test"], leak["learned"]) for leak in found} == {
        (f"test/{name}/{i}-{n}.png", f"train/{name}/{i}.png") for name in "ab" for i in range(8) for n in range(2)
    }


def test_two_splits_of_one_cache_in_one_process_have_leaks_of_their_own(tmp_path: Path) -> None:
    for c, name in enumerate("ab"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            photo(1000 * c + i).save(tmp_path / "set" / name / f"{i}.png")
            photo(1000 * c + i).save(tmp_path / "set" / name / f"copy{i}.jpg", quality=70)
    path = extract_rows(load_images(tmp_path / "set"), PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(path) as cache:
        for seed in (0, 1):
            split = make_split(cache.table, seed=seed)
            tests = {split.paths[i] for i in split.where("test")}
            found = {leak["test"]: leak["learned"] for leak in find_leaks(cache, split).images}
            others = {path: _other(path) for path in tests if _other(path) not in tests}
            assert found == others, f"seed {seed}"
            assert len(found) >= 4


def _other(path: str) -> str:
    """The path of the other copy of a picture."""
    folder, _, name = path.rpartition("/")
    number = name.partition(".")[0]
    return f"{folder}/{number.removeprefix('copy')}.png" if "copy" in number else f"{folder}/copy{number}.jpg"


def test_leaks_do_not_count_and_what_they_would_have_made_is_known() -> None:
    """Twelve test images, four of each plant; two are leaks. Answers are right for whole plants."""
    n = 48
    split = make_split(
        make_table(
            ["cat", "dog"] * (n // 2),
            splits=["train"] * 36 + ["test"] * 12,
            groups=[f"plant {i // 4}" for i in range(n)],
        )
    )
    test_at = split.where("test")
    true, groups = split.labels[test_at], split.groups[test_at]
    right = groups != groups[0]
    predicted = np.where(right, true, 1 - true)
    leaked = np.flatnonzero(right)[[0, 3]]
    images = [{"test": split.paths[i], "learned": "x", "kind": "near", "similarity": 0.95} for i in test_at[leaked]]
    found = LeakedImages(images, ["a note"])
    assert np.flatnonzero(~scored_tests(found, split)).tolist() == leaked.tolist()
    kept = with_leaked(found, split, true, predicted)
    assert (kept.n_test, kept.accuracy, kept.accuracy_with, kept.notes) == (10, 6 / 10, 8 / 12, ["a note"])
    others = np.setdiff1d(np.arange(12), leaked)
    assert kept.ci95 == proportion_interval(right[others], groups[others])
    assert kept.ci95_with == proportion_interval(right, groups)
    assert "with them the accuracy would be 66.7 %" in leak_sentence(kept)
    assert "2 of 12 test images (16.7 %)" in leak_sentence(kept)
    assert "is flattered" in leak_sentence(replace(kept, accuracy_with=None))  # of an older version


def test_where_all_test_images_are_leaks_all_count() -> None:
    split = make_split(make_table(["cat", "dog"] * 6, splits=["train"] * 8 + ["test"] * 4))
    images = [{"test": split.paths[i], "learned": "x", "kind": "bytes"} for i in split.where("test")]
    found = LeakedImages(images, [])
    true = split.labels[split.where("test")]
    assert scored_tests(found, split).tolist() == [True] * 4
    assert "every one of 4 test images" in leak_sentence(with_leaked(found, split, true, true))
