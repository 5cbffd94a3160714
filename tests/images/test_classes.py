"""Classes renamed by patterns, chosen, and matched between splits."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tlfeat.errors import DataError, UsageError
from tlfeat.images.classes import classes_text, parse_class_map, parse_classes, renamed
from tlfeat.images.load import load_images

CHEST = {
    "adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib": "adenocarcinoma",
    "large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa": "large.cell.carcinoma",
    "normal": "normal",
    "squamous.cell.carcinoma_left.hilum_T1_N2_M0_IIIa": "squamous.cell.carcinoma",
}


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def chest(folder: Path) -> Path:
    write(folder, *(f"{split}/{name}/1.png" for split in ("train", "valid") for name in CHEST))
    return write(folder, *(f"test/{name}/1.png" for name in CHEST.values()))


# --- patterns -------------------------------------------------------------------------------------------------


def test_a_pattern_renames_every_class_that_it_matches_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/1.png" for name in ("cat_big", "cat_small", "dog_big", "fish")))
    images = load_images(tmp_path, class_map=parse_class_map([r"(.*?)_.*=\1"]))
    assert images.labels == ["cat", "cat", "dog", "fish"]


def test_a_name_that_is_there_is_no_pattern_and_goes_first() -> None:
    names = ["cat (1)", "cat 1", "a.b", "axb"]
    assert renamed(names, {"cat (1)": "one", "a.b": "two", "a.*": "rest"}) == {
        "cat (1)": "one",
        "cat 1": "cat 1",
        "a.b": "two",
        "axb": "rest",
    }


def test_of_two_patterns_the_first_counts() -> None:
    assert renamed(["ab"], {"a.": "first", ".b": "second"}) == {"ab": "first"}


def test_an_image_without_a_label_gets_none_from_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, "loose.png", "cat/1.png")
    assert load_images(tmp_path, class_map={".*": "all"}).labels == ["all", ""]


@pytest.mark.parametrize(
    ("pair", "message"),
    [(r"(c.*)=\2", "cannot be filled in"), (r"(x?)c.*=\1", "leaves no name for the class 'cat'")],
)
def test_a_pattern_whose_new_name_makes_no_sense_is_refused(tmp_path: Path, pair: str, message: str) -> None:
    write(tmp_path, "cat/1.png")
    with pytest.raises(UsageError, match=message):
        load_images(tmp_path, class_map=parse_class_map([pair]))


@pytest.mark.parametrize("old", ["dog.*", "*", "c("])
def test_a_pattern_that_matches_nothing_lists_the_classes(tmp_path: Path, old: str) -> None:
    write(tmp_path, "cat/1.png", "cow/1.png")
    with pytest.raises(DataError, match=r"not there: .*There are: cat, cow"):
        load_images(tmp_path, class_map={old: "x"})


def test_an_equals_sign_within_a_look_ahead_is_part_of_the_pattern() -> None:
    assert parse_class_map([r"(.*)(?=_x)_x=\1"]) == {r"(.*)(?=_x)_x": r"\1"}


# --- classes that differ between splits -----------------------------------------------------------------------


def test_long_and_short_names_of_a_chest_scan_are_matched_by_one_pattern(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images(chest(tmp_path))
    assert caught.value.add == ("--class-map", r"(.*?)_.*=\1")
    assert r"Map them with --class-map '(.*?)_.*=\1'" in str(caught.value)
    images = load_images(tmp_path, class_map=parse_class_map(caught.value.add[1:]))
    assert images.classes == sorted(CHEST.values())


def test_pairs_are_proposed_where_no_pattern_does(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/Dog/1.png", "train/a_b/1.png")
    write(tmp_path, "test/cats/1.png", "test/dog/1.png", "test/a_b/1.png")
    with pytest.raises(DataError) as caught:
        load_images(tmp_path)
    assert caught.value.add == ("--class-map", "cats=cat", "--class-map", "dog=Dog")
    assert load_images(tmp_path, class_map=parse_class_map(caught.value.add[1::2])).classes == ["Dog", "a_b", "cat"]
    words = shlex.split(str(caught.value).partition("Map them with ")[2].partition(" (may")[0])
    assert tuple(words) == caught.value.add


def test_a_pattern_that_would_rename_a_class_that_fits_is_not_proposed(tmp_path: Path) -> None:
    write(tmp_path, "train/cat_x/1.png", "train/dog_x/1.png", "train/a_b/1.png")
    write(tmp_path, "test/cat/1.png", "test/dog/1.png", "test/a_b/1.png")
    with pytest.raises(DataError) as caught:
        load_images(tmp_path)
    assert caught.value.add[1::2] == ("cat_x=cat", "dog_x=dog")


@pytest.mark.parametrize(
    ("train", "test"),
    [(("cat", "dog"), ("cats", "catfish", "dog")), (("cat", "dog"), ("cat",)), (("cat", "dog"), ("cat", "wolf"))],
    ids=["two-that-begin-alike", "one-is-missing", "nothing-in-common"],
)
def test_nothing_is_proposed_where_names_do_not_match_one_to_one(
    tmp_path: Path, train: tuple[str, ...], test: tuple[str, ...]
) -> None:
    write(tmp_path, *(f"train/{name}/1.png" for name in train), *(f"test/{name}/1.png" for name in test))
    with pytest.raises(DataError, match="Map them with --class-map OLD=NEW") as caught:
        load_images(tmp_path)
    assert caught.value.add == ()


def test_an_empty_class_folder_can_be_renamed(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/dog/1.png")
    (tmp_path / "test" / "cats").mkdir()
    assert load_images(tmp_path, class_map={"cats": "cat"}).classes == ["cat", "dog"]


# --- some of the classes --------------------------------------------------------------------------------------


def test_only_the_chosen_classes_are_taken_as_they_are_called_after_renaming(tmp_path: Path) -> None:
    write(tmp_path, "cats/1.png", "dog/1.png", "dog/2.png", "cow/1.png", "loose.png")
    images = load_images(tmp_path, class_map={"cats": "cat"}, classes=["dog", "cat"])
    assert images.paths == ["cats/1.png", "dog/1.png", "dog/2.png"]
    assert images.labels == ["cat", "dog", "dog"]
    assert images.notes == ["2 images of other classes left out (--classes)"]


def test_splits_may_differ_in_classes_that_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/cow/1.png", "test/cat/1.png", "test/dog/1.png")
    images = load_images(tmp_path, classes=["cat", "dog"])
    assert (images.classes, images.splits) == (["cat", "dog"], ["test", "test", "train", "train"])


def test_a_chosen_class_that_is_not_there_has_the_nearest_named(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(DataError, match=r"no class 'dgo'\. Did you mean 'dog'"):
        load_images(tmp_path, classes=["cat", "dgo"])


@pytest.mark.parametrize("names", [["a"], ["a", "b c"], ["Pepper, bell", 'say "x"', "b"]])
def test_names_of_classes_go_through_the_text_of_an_option(names: list[str]) -> None:
    assert parse_classes(classes_text(names)) == names


@pytest.mark.parametrize("text", ["", " ", ","])
def test_no_names_at_all_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="wants names of classes"):
        parse_classes(text)
