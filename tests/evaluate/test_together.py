"""Several caches of the same images: one split on what all have, and a refusal where they contradict each other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MakePhotos
from made_data import write_leaky
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate import data, leaks
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.evaluate.together import Together, open_together
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.transfer import import_rows
from tlfeat.images.load import load_images


def cache_of(photos: Path, name: str, side_px: int = 4) -> Path:
    path = photos.parent / f"{name}.h5"
    return extract_rows(load_images(photos), PixelEncoder((side_px, side_px)), path).cache


def opened(*paths: Path, **options: object) -> Together:
    with open_together(paths, seed=3, **options) as found:  # type: ignore[arg-type]
        return found


def test_the_same_images_in_another_folder_get_the_split_of_the_first_and_keep_their_paths(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos = make_photos(n=9)
    moved = tmp_path / "moved"
    for label in ("cat", "dog"):
        (moved / label).mkdir(parents=True)
        for i in range(9):
            shutil.copy(photos / label / f"{i}.png", moved / label / f"new{i}.png")
    one, other = cache_of(photos, "one"), cache_of(moved, "other", 6)
    found = opened(one, other)
    first, second = (data.split for data in found.data)
    assert (found.n_common, found.notes) == (18, [])
    assert (first.keys, first.roles, first.info) == (second.keys, second.roles, second.info)
    assert [path.replace("/", "/new") for path in first.paths] == second.paths
    with open_data(one, seed=3) as alone:
        # so that results of each cache alone are those of the comparison
        assert (alone.split.keys, alone.split.paths, alone.split.info) == (first.keys, first.paths, first.info)


def test_what_one_cache_lacks_is_left_out_and_said(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=10)
    one = cache_of(photos, "one")
    (photos / "cat" / "3.png").unlink()
    (photos / "dog" / "8.png").unlink()
    other = cache_of(photos, "other")
    found = opened(one, other)
    assert found.n_common == len(found.data[0].split.keys) == 18
    assert found.notes == [f"2 pictures of {one} are not in every cache and left out"]
    assert "cat/3.png" not in found.data[0].split.paths
    assert opened(other, one).data[0].split.info == found.data[0].split.info


def test_a_cache_named_twice_counts_once(make_photos: MakePhotos) -> None:
    one = cache_of(make_photos(n=6), "one")
    assert len(opened(one, one.parent / ".." / one.parent.name / "one.h5").data) == 1


def test_caches_without_a_common_image_are_refused(make_photos: MakePhotos) -> None:
    one = cache_of(make_photos(n=6), "one")
    other = cache_of(make_photos(n=6, classes=("a", "b", "cow"), folder="others") / "cow", "other")
    with pytest.raises(DataError, match=r"No image is in all of these caches .*one.h5 12, .*other.h5 6.*same files"):
        opened(one, other)


def test_imported_rows_are_told_to_have_no_images(make_photos: MakePhotos, tmp_path: Path) -> None:
    one = cache_of(make_photos(n=6), "one")
    np.save(tmp_path / "rows.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "rows.csv").write_text("path,label\na,cat\nb,dog\nc,cat\nd,dog\n")
    import_rows(tmp_path / "rows.npy", tmp_path / "rows.csv", tmp_path / "imported.h5", name="text")
    with pytest.raises(DataError, match=r"The rows of .*imported.h5 were imported, without images"):
        opened(one, tmp_path / "imported.h5")


def test_labels_that_differ_are_refused_and_missing_ones_are_not(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=6)
    one = cache_of(photos, "one")
    (photos / "dog" / "5.png").rename(photos / "cat" / "50.png")
    with pytest.raises(DataError, match=r"1 image of 12 common ones has another label in .*other.h5.*'dog' .*'cat'"):
        opened(one, cache_of(photos, "other"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        shutil.copy(file, flat / f"{i}.png")
    assert opened(one, cache_of(flat, "unlabelled")).data[1].split.classes == ["cat", "dog"]


def test_another_split_in_the_second_cache_is_said(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=6)
    one = cache_of(photos, "one")
    given = tmp_path / "given"
    shutil.copytree(photos, given / "train")
    (given / "test" / "cat").mkdir(parents=True)
    (given / "test" / "dog").mkdir()
    for label in ("cat", "dog"):
        (given / "train" / label / "0.png").rename(given / "test" / label / "0.png")
    other = cache_of(given, "other")
    found = opened(one, other)
    assert found.notes == [f"12 images with another split or group in {other}: those of {one} count"]
    assert found.data[1].split.info.origin == "seeded"
    assert opened(other, one).data[1].split.info.n_test == 2


def test_the_leaks_of_the_first_cache_count_in_every_one_by_the_paths_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_leaky(tmp_path / "leaky")
    moved = tmp_path / "moved"
    for file in photos.rglob("*.*"):
        to = moved / file.relative_to(photos).with_name(f"new{file.name}")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    asked = []

    def find_leaks(cache: Cache, *rest: Any, **options: Any) -> LeakedImages:
        asked.append(cache.stem)
        return leaks.find_leaks(cache, *rest, **options)

    monkeypatch.setattr(data, "find_leaks", find_leaks)
    with open_together([cache_of(photos, "one", 16), cache_of(moved, "other", 3)], seed=0) as found:
        first, second = found.data
        assert 0 < sum(second.scored_tests()) < len(second.scored_tests())
        assert second.scored_tests().tolist() == first.scored_tests().tolist()
        shown = [Path(image["test"]).name for image in first.leaks().images]
        assert [Path(image["test"]).name for image in second.leaks().images] == [f"new{name}" for name in shown]
    assert asked == ["one"]  # another network may find other copies


def test_domains_are_those_of_the_first_cache(make_photos: MakePhotos) -> None:
    photos = make_photos(n=6)
    one, other = cache_of(photos, "one"), cache_of(photos, "other", 6)
    for path, name in ((one, "x"), (other, "y")):
        with open_cache(path, writable=True) as cache:
            table = cache.table
            cache.write_table(replace(table, images=replace(table.images, domains=[name] * 12)))
    found = opened(one, other)
    assert found.notes == [f"12 images with another split, group or domain in {other}: those of {one} count"]
    assert [data.split.domains for data in found.data] == [["x"] * 12] * 2
    (photos / "cat" / "3.png").unlink()
    other = extract_rows(load_images(photos), PixelEncoder((6, 6)), other).cache
    assert opened(one, other).data[0].split.domains == ["x"] * 11
