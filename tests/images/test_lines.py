"""The lines of a folder, one by one, are the images that the whole listing has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tlfeat.errors import DataError
from tlfeat.images.folders import FolderTree
from tlfeat.images.labels import labeller
from tlfeat.images.lines import Line, TreeLines
from tlfeat.images.load import load_images


def made(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def lines_below(root: Path, label_from: str | None = None, *, domains: bool = False) -> TreeLines:
    label_of = labeller(label_from) if label_from else None
    return TreeLines(FolderTree(root, is_ordered=False), label_of, has_domains=domains)


LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "classes": (("cat/2.png", "cat/sub/1.jpg", "dog/1.png", "0.png", "dog/notes.txt", "dog/.hidden/3.png"), {}),
    "splits": (("train/cat/1.png", "val/cats/1.png", "test/cat/2.png"), {"class_map": {"cats": "cat"}}),
    "domains": (("home/cat/1.png", "work/cat/1.png", "work/dog/1.png", "work/train/cat/3.png"), {"domains": True}),
    "some classes": (("cat/1.png", "dog/1.png", "elk/1.png"), {"classes": ["elk", "cat"]}),
    "names": (("cat.1.png", "dog.1.png", "x/dog.2.png"), {"label_from": "name"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lines_are_those_of_the_whole_listing(layout: str, tmp_path: Path) -> None:
    paths, options = LAYOUTS[layout]
    root = made(tmp_path / "photos", *paths)
    lines = lines_below(root, options.get("label_from"), domains=options.get("domains", False))
    given = list(lines)
    names = lines.names(options.get("class_map", {}), options.get("classes", []))
    found = [line._replace(label=name) for line in given if (name := names.label_of(line.label)) is not None]
    whole = load_images(root, **options)
    columns = (whole.paths, whole.labels, whole.splits, whole.groups, whole.domains)
    assert sorted(found) == sorted(Line(*each) for each in zip(*columns, strict=True))
    assert names.n_images == len(whole) > 0


@pytest.mark.parametrize(
    ("paths", "options"),
    [
        (("notes.txt",), {}),
        (("train/cat/1.png", "val/cats/1.png"), {}),
        (("cat/1.png", "dog/1.png"), {"classes": ["elk"]}),
        (("cat/1.png", "dog/1.png"), {"class_map": {"elk": "cat"}}),
        (("1.png", "2.png"), {"domains": True}),
    ],
    ids=["nothing", "splits that differ", "unknown class", "unknown name", "no domains"],
)
def test_what_the_whole_listing_refuses_is_refused_after_the_last_line(
    paths: tuple[str, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    root = made(tmp_path / "photos", *paths)
    with pytest.raises(DataError) as refused:
        load_images(root, **options)
    lines = lines_below(root, domains=options.get("domains", False))
    assert list(lines) or not options
    with pytest.raises(DataError, match=re.escape(str(refused.value))):
        lines.names(options.get("class_map", {}), options.get("classes", []))


def test_notes_name_images_without_a_label_or_a_domain(tmp_path: Path) -> None:
    lines = lines_below(made(tmp_path / "photos", "0.png", "a/cat/1.png", "b/cat/1.png"), domains=True)
    list(lines)
    assert lines.notes()[:2] == [
        "1 of 3 images have no label and take no part in fitting: 0.png",
        "1 of 3 images have no domain",
    ]
