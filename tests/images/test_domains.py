"""Domains of folders and tables: where they are found, what is said of them, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlfeat.errors import DataError, UsageError
from tlfeat.images.domains import domain_notes, domains_text
from tlfeat.images.image_set import ImageSet, ImageTable, only
from tlfeat.images.load import load_images
from tlfeat.texts.text_set import load_texts


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- folders --------------------------------------------------------------------------------------------------


def test_first_folders_are_domains_and_those_below_classes(tmp_path: Path) -> None:
    touch(tmp_path, "Klinik Süd/cat/a.png", "Klinik Süd/dog/deep/b.png", "art/dog/c.png")
    images = load_images(tmp_path, domains=True)
    assert images.paths == ["Klinik Süd/cat/a.png", "Klinik Süd/dog/deep/b.png", "art/dog/c.png"]
    assert images.labels == ["cat", "dog", "dog"]
    assert images.domains == ["Klinik Süd", "Klinik Süd", "art"]
    assert images.splits == [""] * 3
    assert images.notes == ["1 domain with fewer than two classes: art", "1 class in one domain only: cat"]


def test_images_beside_the_domains_and_beside_their_classes_are_kept_without_domain_or_label(tmp_path: Path) -> None:
    touch(tmp_path, "loose.png", "x/loose.png", "x/cat/a.png", "y/cat/b.png", "readme.txt", ".hidden/z.png")
    images = load_images(tmp_path, domains=True)
    assert images.paths == ["loose.png", "x/cat/a.png", "x/loose.png", "y/cat/b.png"]
    assert images.domains == ["", "x", "x", "y"]
    assert images.labels == ["", "cat", "", "cat"]
    assert dict(images.passed_over) == {".txt": 1, "hidden": 1}
    assert "1 of 4 images have no domain" in images.notes


def test_split_folders_lie_above_the_domains_or_below_them(tmp_path: Path) -> None:
    touch(tmp_path / "a", "train/x/cat/1.png", "train/y/dog/2.png", "test/x/dog/3.png", "test/y/cat/4.png")
    touch(tmp_path / "b", "x/train/cat/1.png", "x/Test/dog/3.png", "y/train/dog/2.png", "y/Test/cat/4.png")
    found = {}
    for name in ("a", "b"):
        images = load_images(tmp_path / name, domains=True)
        found[name] = sorted(zip(images.domains, images.splits, images.labels, strict=True))
    assert found["a"] == found["b"]
    assert found["a"] == [("x", "test", "dog"), ("x", "train", "cat"), ("y", "test", "cat"), ("y", "train", "dog")]


def test_classes_that_differ_between_splits_are_refused_for_all_domains_together(tmp_path: Path) -> None:
    touch(tmp_path, "x/train/cat/1.png", "x/test/kitten/3.png", "y/train/cat/2.png", "y/test/cat/4.png")
    with pytest.raises(DataError, match="Classes differ between splits"):
        load_images(tmp_path, domains=True)


def test_labels_may_come_from_names_below_folders_of_domains(tmp_path: Path) -> None:
    images = load_images(touch(tmp_path, "x/cat_1.png", "y/dog_2.png"), domains=True, label_from="name")
    assert (images.domains, images.labels) == (["x", "y"], ["cat", "dog"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x/1.png", "y/2.png"], r"lie directly in its folders \(x, y\).*leave --domains out"),
        (["1.png", "2.png"], "all images of .* lie directly in it"),
    ],
    ids=["one level", "none"],
)
def test_folders_without_two_levels_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(DataError, match=f"DOMAIN/CLASS/.*{words}"):
        load_images(touch(tmp_path, *names), domains=True)


def test_domains_of_folders_are_no_option_of_tables_nor_the_column_one_of_folders(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "path,label\na.png,cat\n")
    with pytest.raises(UsageError, match=r"t\.csv is a table.*--domain-column NAME"):
        load_images(source, domains=True)
    with pytest.raises(UsageError, match="--domain-column is for tables"):
        load_images(tmp_path, domain_column="site")


def test_a_folder_that_looks_like_domains_is_told_of_the_option(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{d}/{c}/1.png" for d in ("art", "photo") for c in ("cat", "cow", "dog")))
    (note,) = load_images(tmp_path).notes
    assert note.startswith("the classes are art, photo, and the same folders (cat, cow, dog) lie in all of them")
    assert note.endswith("add --domains")
    touch(tmp_path, "other/pig/1.png")
    assert load_images(tmp_path).notes == []  # no longer the same folders in all


# --- tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_the_column_domain_is_read_and_may_be_half_empty(tmp_path: Path, ending: str) -> None:
    text = "path,label,Domain\na.png,cat, Haus Süd \nb.png,dog,\nc.png,dog,x\n"
    images = load_images(table(tmp_path / f"t{ending}", text.replace(",", "\t") if ending == ".tsv" else text))
    assert images.domains == ["Haus Süd", "", "x"]
    assert images.notes[0] == "1 of 3 images have no domain"


def test_another_column_is_named_and_a_likely_one_is_proposed_but_not_taken(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "path,label,Camera\na.png,cat,1\nb.png,cat,2\n")
    images = load_images(source)
    assert images.domains == ["", ""]
    assert images.notes == ["t.csv: if 'Camera' says where the images come from, add --domain-column Camera"]
    images = load_images(source, domain_column="camera")
    assert (images.domains, images.notes) == (["1", "2"], [])
    with pytest.raises(DataError, match=r"no column 'camra' \(--domain-column\)\. Did you mean 'Camera'"):
        load_images(source, domain_column="camra")


def test_texts_have_domains_too(tmp_path: Path) -> None:
    source = table(tmp_path / "t.jsonl", '{"text": "a b", "label": "x", "shop": "s"}\n{"text": "c", "label": "y"}\n')
    texts = load_texts(source, domain_column="shop")
    assert (texts.domains, texts.notes[0]) == (["s", ""], "1 of 2 texts have no domain")
    touch(tmp_path, "f/x/one/1.txt", "f/y/one/2.txt")
    assert load_texts(tmp_path / "f", domains=True).domains == ["x", "y"]
    with pytest.raises(UsageError, match="is a table"):
        load_texts(source, domains=True)


# --- the set --------------------------------------------------------------------------------------------------


def test_a_part_of_a_set_keeps_the_domains_of_its_images() -> None:
    images = ImageSet(Path("/"), Path("/"), list("abc"), list("xyx"), [""] * 3, [""] * 3, domains=list("pqr"))
    assert only(images, ["x"]).domains == ["p", "r"]
    whole = ImageTable(images, [""] * 3, ["failed", "ok", "ok"], [""] * 3, [0] * 3, [0] * 3)
    assert whole.without("failed").images.domains == ["q", "r"]
    with pytest.raises(ValueError, match="3 paths and 2 domains"):
        ImageSet(Path("/"), Path("/"), list("abc"), list("xyx"), [""] * 3, [""] * 3, domains=["p", "q"])


def test_what_is_said_of_domains_is_short_for_500_of_them() -> None:
    names = [f"camera {i}" for i in range(500)]
    assert domains_text(names) == ", 500 domains (camera 0, camera 1, camera 10, camera 100, camera 101 and 495 more)"
    assert domains_text(["", ""]) == ""
    assert domain_notes(names, [f"c{i}" for i in range(500)]) == [
        "no class is in two domains: are the domains the classes?"
    ]
    assert domain_notes(["x", "x", "y", "z"], ["cat", "dog", "dog", ""]) == [
        "2 domains with fewer than two classes: y, z",
        "1 class in one domain only: cat",
    ]
    assert domain_notes(["x", "x"], ["cat", "dog"]) == [
        "there is only one domain, so nothing can be compared between domains"
    ]
