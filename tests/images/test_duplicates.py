"""Copies of a picture are found whatever was done to them, and no look-alike is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from made_data import photo
from tlfeat.images import duplicates, nearest
from tlfeat.images.duplicates import Pair, connected, find_duplicates
from tlfeat.images.image_set import content_key
from tlfeat.types import Rows

N_PHOTOS = 30


CHANGES: dict[str, tuple[str, str, Callable[[Image.Image], Image.Image]]] = {
    "same file": ("bytes", "png", lambda image: image),
    "other format": ("pixels", "bmp", lambda image: image),
    "jpeg": ("near", "jpg", lambda image: image),
    "smaller": ("near", "png", lambda image: image.resize((77, 64))),
    "cropped": ("near", "png", lambda image: image.crop((3, 1, 94, 77))),
    "brighter": ("near", "png", lambda image: ImageEnhance.Brightness(image).enhance(1.2)),
    "mirrored": ("near", "png", ImageOps.mirror),
}


class Photos:
    """Photos in a folder, with rows in which a copy lies near its original and so do some look-alikes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.rows: list[Rows] = []
        self.rng = np.random.default_rng(7)

    def add(self, image: Image.Image, name: str, *, near: int | None = None) -> int:
        path = self.folder / name
        image.save(path, quality=60) if path.suffix == ".jpg" else image.save(path)
        noise = self.rng.normal(size=16).astype(np.float32)
        self.rows.append(noise if near is None else self.rows[near] + 0.1 * noise)
        self.files.append(path)
        return len(self.files) - 1

    @property
    def keys(self) -> list[str]:
        return [content_key(path.read_bytes()) for path in self.files]

    def found(self, **options: object) -> duplicates.Duplicates:
        return find_duplicates(np.stack(self.rows), self.keys, self.files, **options)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    made = Photos(tmp_path)
    for i in range(N_PHOTOS):
        made.add(photo(i), f"{i}.png", near=i - 1 if i % 3 else None)  # threes of look-alikes by rows
    return made


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_none_is_invented(photos: Photos, change: str) -> None:
    kind, ending, make = CHANGES[change]
    copies = {photos.add(make(photo(i)), f"copy{i}.{ending}", near=i): i for i in (0, 7, 20)}
    assert {(p.one, p.other, p.kind) for p in photos.found().pairs} == {(i, c, kind) for c, i in copies.items()}


def test_no_copies_are_found_where_there_are_none(photos: Photos) -> None:
    assert photos.found() == duplicates.Duplicates([], [])


def test_pictures_of_one_scene_are_no_copies(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    for i in range(12):
        photos.add(Image.blend(photo(1000), photo(i), 0.4), f"{i}.png", near=0 if i else None)
    assert photos.found().pairs == []


def test_pictures_without_outlines_are_copies_only_if_they_are_equal(photos: Photos) -> None:
    faint = Image.new("RGB", (20, 20), (121, 121, 121))  # a grey level more, as a scanner or a JPEG leaves
    one = photos.add(Image.new("RGB", (64, 64), (90, 90, 90)), "grey.png")
    for n, grey in enumerate((120, 119)):
        light = Image.new("RGB", (64, 64), (grey, grey, grey))
        light.paste(faint, (9, 9))
        photos.add(light.resize((64 - n, 64)), f"light{n}.png", near=one)
    other = photos.add(Image.new("RGB", (64, 64), (90, 90, 90)), "grey.bmp", near=one)
    assert [(p.one, p.other) for p in photos.found().pairs] == [(one, other)]


def test_tiny_pictures_are_copies_only_if_their_pixels_are_equal(photos: Photos) -> None:
    one = photos.add(photo(99, (12, 12)), "tiny.png")
    photos.add(ImageEnhance.Brightness(photo(99, (12, 12))).enhance(1.1), "brighter.png", near=one)
    same = photos.add(photo(99, (12, 12)), "tiny.bmp", near=one)
    assert [(p.one, p.other, p.kind) for p in photos.found().pairs] == [(one, same, "pixels")]


def test_a_group_of_more_copies_than_neighbours_meets_its_next_one(photos: Photos) -> None:
    """Two times seven copies of one picture; the rows of seven lie so close that nobody asks for the other seven."""
    far = photos.add(photo(4), "far.png", near=4)
    photos.rows[far] = photos.rows[4] + 0.4 * photos.rng.normal(size=16).astype(np.float32)
    for base in (4, far):
        for i in range(6):
            at = photos.add(photo(4), f"{base}-{i}.png", near=base)
            photos.rows[at] = photos.rows[base] + 0.01 * photos.rng.normal(size=16).astype(np.float32)
    keys = [path.name for path in photos.files]  # as if their bytes differed
    found = find_duplicates(np.stack(photos.rows), keys, photos.files)
    groups = connected(len(keys), [(pair.one, pair.other) for pair in found.pairs])
    assert [i for i, group in enumerate(groups) if group == 4] == [4, *range(far, far + 13)]


def test_images_hang_together_through_others() -> None:
    assert connected(7, [(5, 3), (6, 0), (3, 6)]) == [0, 1, 2, 0, 4, 0, 0]


def test_a_picture_that_is_cropped_at_one_corner_is_found(photos: Photos) -> None:
    """Of the width 222 of 240 are left, all at one side: laid over each other whole, coarse outlines do not meet."""
    one = photos.add(photo(11, (240, 200)), "whole.png")
    copy = photos.add(photo(11, (240, 200)).crop((0, 0, 222, 185)), "cropped.png", near=one)
    assert (one, copy) in [(pair.one, pair.other) for pair in photos.found().pairs]


def test_the_answer_does_not_depend_on_threads_or_blocks(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(0, 20, 2):
        photos.add(photo(i), f"copy{i}.jpg", near=i)
    answers = []
    for n_threads, block in ((1, 1024), (4, 1024), (3, 2)):
        monkeypatch.setattr(nearest, "n_cores", lambda n=n_threads: n)
        monkeypatch.setattr(nearest, "_BLOCK", block)
        answers.append(photos.found())
    assert len(answers[0].pairs) == 10
    assert answers[0] == answers[1] == answers[2]


def test_a_large_set_is_searched_in_cells_and_says_so(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = photos.add(photo(8), "copy.jpg", near=8)
    monkeypatch.setattr(nearest, "_MAX_MULTIPLY_ADDS", 0)
    found = photos.found()
    assert [(p.one, p.other) for p in found.pairs] == [(8, copy)]
    assert "too many to compare each with each" in found.notes[0]


def test_with_few_pairs_allowed_exact_copies_are_found_all_the_same(photos: Photos) -> None:
    photos.add(photo(9), "changed.jpg", near=9)
    copy = photos.add(photo(8), "copy.png")
    found = photos.found(max_pairs=0)
    assert found.pairs == [Pair(8, copy, "bytes", 1.0)]
    assert "exact copies among all" in found.notes[0]


def test_without_files_only_rows_that_are_very_similar_are_copies(photos: Photos) -> None:
    rows = np.random.default_rng(0).normal(size=(N_PHOTOS, 16)).astype(np.float32)
    keys = [*photos.keys, "a", photos.keys[9]]
    found = find_duplicates(np.stack([*rows, rows[2] * 1.01, rows[9]]), keys, None)
    assert [(p.one, p.other, p.kind) for p in found.pairs] == [(2, N_PHOTOS, "rows"), (9, N_PHOTOS + 1, "bytes")]
    assert "there are no pictures to look at" in found.notes[0]


def test_a_picture_that_is_gone_is_said_and_the_others_are_compared(photos: Photos) -> None:
    copy = photos.add(photo(8), "copy.jpg", near=8)
    keys = photos.keys
    photos.files[0].unlink()
    found = find_duplicates(np.stack(photos.rows), keys, photos.files)
    assert [(p.one, p.other) for p in found.pairs] == [(8, copy)]
    assert found.notes == ["1 picture could not be read again and not be compared"]


def test_the_rows_are_not_changed(photos: Photos) -> None:
    rows = np.stack(photos.rows)
    before = rows.copy()
    find_duplicates(rows, photos.keys, photos.files)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize(("share", "is_copy"), [(0.21, True), (0.25, False), (0.27, False)])
def test_a_copy_is_what_correlates_by_more_than_0_91(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, is_copy: bool
) -> None:
    """Two pictures of one scene, with a share of their own: of 0.21 they correlate by 0.92, of 0.25 by 0.88."""
    photos = Photos(tmp_path)
    for i in (1, 2):
        photos.add(Image.blend(photo(1000), photo(i), share), f"{i}.png", near=0 if i == 2 else None)
    found = [(p.one, p.other, p.kind) for p in photos.found().pairs]
    assert found == ([(0, 1, "near")] if is_copy else [])
    monkeypatch.setattr(duplicates, "SAME_PICTURE", 0.5)
    (pair,) = photos.found().pairs
    assert (0.915 < pair.similarity < 0.94) if is_copy else (0.85 < pair.similarity < 0.9)
