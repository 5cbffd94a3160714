"""A list of names becomes the same images as a folder with the same files."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tlfeat.errors import DataError, TlfeatError
from tlfeat.images.image_set import ImageSet, from_folder
from tlfeat.images.labels import labeller
from tlfeat.images.listing import ODD_NAME, ListedTree, from_listing

TREES = {
    "classes": ("dog/b.png", "cat/a.jpg", "dog/a.PNG", "loose.png", "cat/notes.txt", "dog/2024/may/a.jpeg"),
    "order of names with dots": ("a.b/1.png", "a/2.png", "a.png", "a-b/3.png", "a/b.png", "a/b/c.png", "A/1.png"),
    "splits": ("train/cat/1.png", "Valid/cat/2.png", "test/dog/3.png", "train/dog/4.png", "README.md", "Valid/dog/"),
    "an empty class folder": ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/"),
    "a class called train": ("train/1.png", "bus/2.png"),
    "splits and another folder": ("train/cat/1.png", "val/cat/2.png", "old/3.png"),
    "other classes in a split": ("train/cat/1.png", "val/feline/2.png"),
    "hidden": (".git/a.png", ".git/b/c.png", "cat/.x/1.png", "cat/.x/2.png", "cat/.y.png", "cat/1.png", ".z"),
    "domains": ("photo/cat/1.png", "sketch/dog/2.png", "photo/dog/3.png", "loose.png", "sketch/cat/4.png", ".h/x.png"),
    "domains above splits": ("photo/train/cat/1.png", "photo/test/cat/2.png", "sketch/cat/3.png"),
    "splits above domains": ("train/photo/cat/1.png", "test/sketch/cat/2.png", "train/sketch/cat/5.png"),
    "odd words": ("K\u00e4se/1.png", "Ka\u0308se/2.png", " a/b c.png", "x\ny/1.png", "noending/file", "\u732b/1.gif"),
    "nothing": ("a.txt",),
}


class StoreOfNothing:
    url, n_ahead = "memory://photos", 32

    def read(self, path: str) -> bytes:
        raise AssertionError(path)

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        raise AssertionError(paths)


@pytest.mark.parametrize("label_from", [None, "parent"])
@pytest.mark.parametrize("has_domains", [False, True], ids=["plain", "with domains"])
@pytest.mark.parametrize("names", TREES.values(), ids=TREES)
def test_names_become_the_images_of_a_folder_with_the_same_files(
    names: Sequence[str], has_domains: bool, label_from: str | None, tmp_path: Path
) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    label_of = labeller(label_from) if label_from else None

    def outcome(of_folder: bool) -> ImageSet | str:
        shuffled = random.Random(1).sample(names, len(names))
        try:
            if of_folder:
                return from_folder(tmp_path, {"cat": "kitten"}, ["kitten", "dog"], label_of, has_domains=has_domains)
            found = from_listing(
                shuffled, StoreOfNothing(), {"cat": "kitten"}, ["kitten", "dog"], label_of, has_domains=has_domains
            )
            return replace(found, root=tmp_path, source=tmp_path)
        except TlfeatError as error:
            return str(error).replace(str(tmp_path), StoreOfNothing.url)

    assert outcome(of_folder=False) == outcome(of_folder=True)


def test_names_that_no_folder_could_have_are_passed_over_and_counted() -> None:
    names = ["../up.png", "cat/../../x.png", "/abs.png", "cat//twice.png", "cat/./1.png", "cat/2.png", "a\0b.png"]
    images = from_listing(names, StoreOfNothing(), {}, [], None)
    assert (images.paths, dict(images.passed_over)) == (["cat/2.png"], {ODD_NAME: 6})


def test_a_file_and_a_folder_may_have_one_name_and_a_name_that_is_listed_twice_counts_once() -> None:
    images = from_listing(["a.png", "a.png/b.png", "a.png", "a.png/"], StoreOfNothing(), {}, [], None)
    assert (images.paths, images.labels) == (["a.png", "a.png/b.png"], ["", "a.png"])


def test_messages_name_the_url_and_the_images_lie_in_the_store() -> None:
    store = StoreOfNothing()
    with pytest.raises(DataError, match="memory://photos/d has split folders"):
        from_listing(["d/train/a/1.png", "d/val/a/1.png", "d/x/1.png"], store, {}, [], None, has_domains=True)
    assert from_listing(["cat/1.png"], store, {}, [], None).store is store


def test_folders_of_a_long_list_are_found_without_going_through_it() -> None:
    tree = ListedTree((f"{i % 20}/{i}.png" for i in range(200_000)), "memory://")
    started_s = time.process_time()
    assert len(tree.folders("")) == 20
    assert time.process_time() - started_s < 0.02
