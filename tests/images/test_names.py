"""One name in two spellings is one name: accents in the letters (NFC) or apart (NFD), a slash or a backslash."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unicodedata import normalize

import pytest

from conftest import picture
from tlfeat.images.load import load_images

FORMS = {form: normalize(form, "chaton-é") for form in ("NFC", "NFD")}

NFC, NFD = FORMS.values()

either = pytest.mark.parametrize("stored", FORMS.values(), ids=FORMS)

asked_in_either = pytest.mark.parametrize("asked", FORMS.values(), ids=FORMS)

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="on macOS both spellings are one file already")


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(0).save(path)


def test_class_folders_in_two_spellings_are_one_class(tmp_path: Path) -> None:
    for split, name in (("train", NFC), ("test", NFD)):
        paint(tmp_path / split / name / "1.png")
        paint(tmp_path / split / "dog" / "1.png")
    images = load_images(tmp_path)
    assert images.classes == [NFC, "dog"]
    assert all((images.root / path).exists() for path in images.paths)


@asked_in_either
@either
def test_classes_are_chosen_and_renamed_in_either_spelling(tmp_path: Path, asked: str, stored: str) -> None:
    paint(tmp_path / stored / "1.png")
    paint(tmp_path / "dog" / "1.png")
    assert load_images(tmp_path, classes=[asked]).labels == [NFC]
    assert load_images(tmp_path, class_map={asked: "cat"}).classes == ["cat", "dog"]


@asked_in_either
@either
def test_files_and_labels_of_a_table_are_found_in_either_spelling(tmp_path: Path, asked: str, stored: str) -> None:
    paint(tmp_path / stored / f"{stored}.png")
    paint(tmp_path / "b.png")
    text = f"path,label,group\n{asked}/{asked}.png,{asked},{stored}\nb.png,{stored},{asked}\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    images = load_images(tmp_path / "t.csv")
    assert [images.file(i).exists() for i in range(2)] == [True, True]
    assert (images.labels, images.groups) == ([NFC] * 2, [NFC] * 2)


@asked_in_either
@either
def test_files_are_found_by_name_in_either_spelling(tmp_path: Path, asked: str, stored: str) -> None:
    for folder in (stored, "other"):
        paint(tmp_path / "deep" / folder / f"{stored}.png")
    (tmp_path / "t.csv").write_text(f"path,label\n{asked}/{asked},x\n", encoding="utf-8")
    assert load_images(tmp_path / "t.csv").paths == [f"deep/{stored}/{stored}.png"]


def test_paths_of_a_table_have_slashes_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "cat" / "1.png")
    (tmp_path / r"cat\1.png").touch()  # Windows finds the same file by both
    (tmp_path / "t.csv").write_text("path,label\n" + r"cat\1.png,cat", encoding="utf-8")
    assert load_images(tmp_path / "t.csv").paths == [r"cat\1.png"]
    monkeypatch.setattr(os, "sep", "\\")
    images = load_images(tmp_path / "t.csv")
    assert (images.paths, images.notes) == (["cat/1.png"], [])
