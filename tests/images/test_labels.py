"""Labels from names of files, images without one, and labels that are no classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlfeat.errors import DataError, UsageError
from tlfeat.images.image_set import ImageSet
from tlfeat.images.labels import MIN_NUMBERS, advise
from tlfeat.images.load import load_images


def write(folder: Path, *names: str) -> Path:
    """Make empty files with these names; nothing here decodes any."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def by_path(images: ImageSet) -> dict[str, str]:
    return dict(zip(images.paths, images.labels, strict=True))


# --- labels from file names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("cat.123.jpg", "cat"),
        ("dog_12.png", "dog"),
        ("american_bulldog_10.jpg", "american_bulldog"),
        ("Golden Retriever (3).jpg", "Golden Retriever"),
        ("Käse-07.jpg", "Käse"),
        ("cat12_3.jpg", "cat"),
        ("background.jpg", "background"),
        ("IMG_2034.jpg", "IMG"),
        ("00012.jpg", ""),
        ("_7.jpg", ""),
    ],
)
def test_the_label_by_name_is_the_file_name_up_to_its_first_digit(tmp_path: Path, name: str, label: str) -> None:
    write(tmp_path, f"some/folder/{name}")
    assert load_images(tmp_path, label_from="name").labels == [label]


def test_the_label_by_parent_is_the_folder_right_above_the_image(tmp_path: Path) -> None:
    write(tmp_path, "all/2023/cat/1.jpg", "all/dog/p7/2.jpg", "loose.jpg")
    assert by_path(load_images(tmp_path, label_from="parent")) == {
        "all/2023/cat/1.jpg": "cat",
        "all/dog/p7/2.jpg": "p7",
        "loose.jpg": "",
    }


def test_the_folder_of_a_split_is_no_label(tmp_path: Path) -> None:
    write(tmp_path, "train/a/cat/1.jpg", "train/b/dog/2.jpg", "train/3.jpg", "test/cat/4.jpg", "test/dog/5.jpg")
    images = load_images(tmp_path, label_from="parent")
    assert by_path(images)["train/3.jpg"] == ""
    assert images.classes == ["cat", "dog"]
    assert images.splits == ["test", "test", "train", "train", "train"]


def test_the_group_of_a_pattern_is_searched_in_the_whole_path(tmp_path: Path) -> None:
    write(tmp_path, "train/p1/x_benign_1.jpg", "train/p2/x_malignant_2.jpg", "test/p3/x_benign_9.jpg", "test/p3/o.jpg")
    images = load_images(tmp_path, label_from=r"p\d/x_([a-z]+)_")
    assert images.labels == ["", "benign", "benign", "malignant"]
    assert load_images(tmp_path, label_from=r"^(train|test)/").classes == ["test", "train"]


def test_a_test_folder_without_classes_in_its_names_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test/1.jpg", "test/2.jpg")
    images = load_images(tmp_path, label_from="name")
    assert images.labels == ["", "", "cat", "dog"]


def test_splits_whose_labels_by_name_differ_are_refused_as_class_folders_are(tmp_path: Path) -> None:
    write(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test/cats.0.jpg", "test/dog.1.jpg")
    with pytest.raises(DataError, match=r"Only in test: 'cats'; only in train: 'cat'\. .*--class-map cats=cat"):
        load_images(tmp_path, label_from="name")


@pytest.mark.parametrize(
    ("how", "message"),
    [("(", "regular expression; '\\(' is none"), (r"\d+", "has 0 groups"), ("(a)(b)", "has 2 groups")],
)
def test_a_label_from_that_gives_no_label_is_refused(tmp_path: Path, how: str, message: str) -> None:
    write(tmp_path, "a.jpg")
    with pytest.raises(UsageError, match=message):
        load_images(tmp_path, label_from=how)


def test_labels_of_a_table_can_come_from_its_paths(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\nx/cat/1.jpg\nx/dog/2.jpg\n")
    assert load_images(tmp_path / "t.csv", label_from="parent").labels == ["cat", "dog"]


# --- images without a label, or with one class ----------------------------------------------------------------


def test_images_without_a_label_are_counted_and_listed(tmp_path: Path) -> None:
    write(tmp_path, "cat.1.jpg", "dog.1.jpg", "0001.jpg", "0002.jpg")
    notes = load_images(tmp_path, label_from="name").notes
    assert notes == ["2 of 4 images have no label by --label-from name and take no part in fitting: 0001.jpg, 0002.jpg"]


def test_empty_labels_of_a_table_are_counted_and_listed(tmp_path: Path) -> None:
    lines = ["path,label", "a.jpg,cat", "b.jpg,dog", *(f"{i}.jpg," for i in range(7))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (note,) = load_images(tmp_path / "t.csv").notes
    assert note.startswith("7 of 9 images have no label and take no part in fitting: 0.jpg, 1.jpg")
    assert note.endswith("4.jpg, ...")


def test_two_classes_need_no_advice() -> None:
    assert advise(["a/1.jpg", "b/1.jpg"], ["a", "b"]).why == ""


@pytest.mark.parametrize(
    ("paths", "way", "words"),
    [
        ([f"{c}.{i}.jpg" for c in ("cat", "dog") for i in range(4)], "name", "begin with cat (4), dog (4)"),
        ([f"train/{c}_{i}.jpg" for c in ("cat", "dog") for i in range(3)], "name", "begin with cat (3), dog (3)"),
        (
            [f"all/{c}/{i}.jpg" for c in ("cat", "dog") for i in range(5)],
            "parent",
            "right above the images are cat (5)",
        ),
        ([f"IMG_{i}.jpg" for i in range(8)], "", "a folder of its own"),
        ([f"{c}_{i}.jpg" for c in ("IMG", "DSC") for i in range(8)], "", "a folder of its own"),
        ([f"ab{i}cd{i}.jpg" for i in range(4)] + [f"ef{i}ab.jpg" for i in range(4)], "", "a folder of its own"),
        ([f"photo of {'abcdefgh'[i]}{i}.jpg" for i in range(8)], "", "a folder of its own"),
        ([f"{s}/{i}.jpg" for s in ("train", "test") for i in range(8)], "", "a folder of its own"),
    ],
    ids=["flat", "flat-in-splits", "one-folder-above", "camera", "two-cameras", "hashes", "all-different", "splits"],
)
def test_what_is_proposed_for_images_without_labels(paths: list[str], way: str, words: str) -> None:
    found = advise(paths, [""] * len(paths))
    assert found.label_from == way
    assert found.why.startswith("no image has a label: without two classes nothing can be fitted")
    assert words in found.why


def test_a_single_class_is_named() -> None:
    paths = [f"all/{c}/{i}.jpg" for c in ("cat", "dog") for i in range(3)]
    found = advise(paths, ["all"] * 6)
    assert found.why.startswith("the only label is 'all'")
    assert found.label_from == "parent"


def test_patient_folders_with_the_same_folders_in_them_give_a_hint(tmp_path: Path) -> None:
    write(tmp_path, *(f"p{i}/{name}/1.jpg" for i in range(3) for name in ("sick", "well")))
    (note,) = load_images(tmp_path).notes
    assert note.startswith("the 3 classes are the first folders, and the folders right above the images are sick, well")
    assert note.endswith("add --label-from parent")
    assert load_images(tmp_path, label_from="parent").notes == []


@pytest.mark.parametrize(
    "names",
    [
        [f"{c}/{year}/1.jpg" for c in ("cat", "dog", "cow") for year in (2023, 2024)],
        [f"{c}/{part}/1.jpg" for c in ("cat", "dog") for part in ("a", "b")],
        ["cat/1.jpg", "dog/1.jpg", "cow/1.jpg"],
        [f"{c}/{c}{part}/1.jpg" for c in ("cat", "dog", "cow") for part in ("a", "b")],
    ],
    ids=["years", "as-many-parts-as-classes", "plain", "parts-of-their-own"],
)
def test_class_folders_with_folders_in_them_give_none(tmp_path: Path, names: list[str]) -> None:
    assert load_images(write(tmp_path, *names)).notes == []


def test_folders_that_look_like_splits_are_not_taken_for_classes_in_silence(tmp_path: Path) -> None:
    write(tmp_path, "train/cat.1.jpg", "test1/1.jpg")
    assert load_images(tmp_path).notes == [
        "the classes are called test1, train: if they are splits, rename the folders to train, val and test"
    ]
    write(tmp_path, "testimony/1.jpg")
    assert load_images(tmp_path).notes == []


# --- labels that are no classes -------------------------------------------------------------------------------


def table(folder: Path, labels: list[str]) -> Path:
    lines = [f'{i}.jpg,"{label}"' for i, label in enumerate(labels)]
    (folder / "t.csv").write_text("\n".join(["path,label", *lines]))
    return folder / "t.csv"


SEVERAL = {
    "bar": ["cat", "dog", "cat|dog", "dog"] * 5,
    "semicolon": ["a;b", "b;c", "a;c", "a"] * 3,
    "comma": ["sofa, chair", "chair", "chair, sofa", "table, chair", "sofa, table"] * 3,
    "sorted": ["a|b", "b|c", "a|c"] * 3,
}


@pytest.mark.parametrize("labels", SEVERAL.values(), ids=SEVERAL)
def test_several_labels_in_one_are_refused_with_their_number(tmp_path: Path, labels: list[str]) -> None:
    n = sum(not label.isalpha() for label in labels)
    with pytest.raises(
        DataError, match=rf"t\.csv: {n} of {len(labels)} images have several labels, such as .*one label"
    ):
        load_images(table(tmp_path, labels))


ORDINARY = {
    "one-bar-once": ["cat", "dog"] * 5 + ["cat|dog"],
    "names-with-commas": ["Pepper, bell", "Pepper, chili", "Corn (maize), healthy"] * 4,
    "two-parts-at-fixed-places": ["Tomato|healthy", "Tomato|blight", "Potato|healthy", "Potato|blight"] * 4,
    "head-word-alone": ["dog", "dog, small", "dog, large"] * 4,
    "digits": [str(i % 10) for i in range(40)],
    "196-cars": [str(i % 196) for i in range(784)],
    "whole-numbers-as-floats": [f"{i % 12}.0" for i in range(48)],
    "three-doses": ["0.5", "1.0", "2.5"] * 10,
    "few-names": ["ash", "elm"],
    "names-and-a-number": [f"{i}.5" for i in range(12)] + ["ash"] * 20,
}


@pytest.mark.parametrize("labels", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_names_of_classes_are_no_several_labels_and_no_numbers(tmp_path: Path, labels: list[str]) -> None:
    assert load_images(table(tmp_path, labels)).labels == labels


def test_a_few_combinations_are_named_and_stay_classes(tmp_path: Path) -> None:
    images = load_images(table(tmp_path, ["cat", "dog"] * 30 + ["cat|dog"] * 2))
    assert images.notes == [
        "t.csv: 2 of 62 images have several labels, such as 'cat|dog': each combination is a class of its own"
    ]
    assert "cat|dog" in images.classes


def test_combinations_that_are_named_or_left_out_are_no_longer_refused(tmp_path: Path) -> None:
    source = table(tmp_path, SEVERAL["bar"])
    assert load_images(source, class_map={"cat|dog": "both"}).classes == ["both", "cat", "dog"]
    assert load_images(source, classes=["cat", "dog"]).classes == ["cat", "dog"]


NUMBERS = {
    "fractions": [f"{i * 0.37:.2f}" for i in range(1, 31)],
    "fractions-that-come-back": [f"{i % 15}.5" for i in range(60)],
    "decimal-commas": [f"{i},7" for i in range(30)],
    "whole-numbers-mostly-different": [str(i) for i in range(25)],
    "negative": [f"-{i}.25" for i in range(20)],
}


@pytest.mark.parametrize("labels", NUMBERS.values(), ids=NUMBERS)
def test_measurements_are_refused_with_what_to_do(tmp_path: Path, labels: list[str]) -> None:
    assert len(set(labels)) > MIN_NUMBERS
    expected = rf"the labels are {len(set(labels))} different numbers in {len(labels)} images, .*classes, not numbers"
    with pytest.raises(DataError, match=expected):
        load_images(table(tmp_path, labels))


def test_class_folders_may_have_any_name(tmp_path: Path) -> None:
    names = ["a|b", "a", "b", *(f"{i}.5" for i in range(12))]
    write(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert load_images(tmp_path).classes == sorted(names)
