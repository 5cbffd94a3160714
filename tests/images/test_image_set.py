"""Folders and tables become image sets: the three layouts, odd names, and what is refused with which words."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from conftest import without_rights
from tlfeat.errors import DataError, UsageError
from tlfeat.images.classes import parse_class_map
from tlfeat.images.image_set import content_key
from tlfeat.images.load import load_images
from tlfeat.images.tables import MAX_LABEL_LENGTH

ODD_NAMES = {
    "spaces": "a b  c.png",
    "leading-space": " a.png",
    "single-quote": "it's.png",
    "double-quote": 'say "hi".png',
    "comma": "a,b.png",
    "newline": "a\nb.png",
    "carriage-return": "a\rb.png",
    "tab": "a\tb.png",
    "umlaut": "Käse.png",
    "combining": "Ka\u0308se.png",
    "chinese": "猫.png",
    "emoji": "🐈.png",
    "backslash": "a\\b.png",
    "percent": "%s %(x)s {y}.png",
    "markup": "<script>.png",
    "invalid-utf8": os.fsdecode(b"\xff\xfe-latin.png"),
    "upper-case-ending": "A.PNG",
    "two-dots": "a.b..png",
}


def paint(path: Path, value: int = 0) -> Path:
    """Write a small picture; its folder is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return path


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- class folders --------------------------------------------------------------------------------------------


def test_class_folders_give_labels_and_no_splits(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.jpg", "dog/a.png"):
        paint(tmp_path / name)
    images = load_images(tmp_path)
    assert images.paths == ["cat/a.jpg", "dog/a.png", "dog/b.png"]
    assert images.labels == ["cat", "dog", "dog"]
    assert images.splits == ["", "", ""]
    assert images.groups == ["", "", ""]
    assert images.classes == ["cat", "dog"]
    assert len(images) == 3
    assert images.name == tmp_path.name
    assert images.file(0) == tmp_path / "cat" / "a.jpg"


def test_images_deeper_in_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "2024" / "may" / "a.png")
    images = load_images(tmp_path)
    assert (images.paths, images.labels) == (["cat/2024/may/a.png"], ["cat"])


def test_images_beside_the_class_folders_have_no_label(tmp_path: Path) -> None:
    paint(tmp_path / "loose.png")
    paint(tmp_path / "cat" / "a.png")
    images = load_images(tmp_path)
    assert dict(zip(images.paths, images.labels, strict=True)) == {"loose.png": "", "cat/a.png": "cat"}
    assert images.classes == ["cat"]


def test_hidden_files_and_other_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    paint(tmp_path / "cat" / ".hidden.png")
    paint(tmp_path / ".thumbnails" / "a.png")
    paint(tmp_path / ".thumbnails" / "b.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / "movie.mp4").write_bytes(b"x")
    (tmp_path / "cat" / "no ending").write_bytes(b"x")
    images = load_images(tmp_path)
    assert images.paths == ["cat/a.png"]
    assert images.n_passed_over == 5  # a hidden folder counts once, whatever is in it


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "jpe", "jfif", "Png", "webp", "bmp", "dib", "tif", "TIFF", "gif"])
def test_endings_of_images_are_known_in_any_case(tmp_path: Path, ending: str) -> None:
    paint(tmp_path / "cat" / f"a.{ending}")
    assert load_images(tmp_path).paths == [f"cat/a.{ending}"]


def test_order_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = [f"cat/{i}.png" for i in (3, 10, 1, 2)]
    for name in names:
        paint(tmp_path / "one" / name)
    for name in reversed(names):
        paint(tmp_path / "two" / name)
    assert load_images(tmp_path / "one").paths == load_images(tmp_path / "two").paths == sorted(names)


# --- split folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAIN", "VALIDATION", "TEST"),
        ("training", "validation", "testing"),
    ],
    ids=["lower", "capitalised", "upper", "long"],
)
def test_split_folders_are_known_by_any_of_their_names(tmp_path: Path, train: str, val: str, test: str) -> None:
    for folder in (train, val, test):
        paint(tmp_path / folder / "cat" / "a.png")
        paint(tmp_path / folder / "dog" / "a.png")
    images = load_images(tmp_path)
    assert images.classes == ["cat", "dog"]
    roles = dict(zip(images.paths, images.splits, strict=True))
    assert {path.partition("/")[0]: role for path, role in roles.items()} == {train: "train", val: "val", test: "test"}


def test_train_and_test_without_val_are_split_folders(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    paint(tmp_path / "test" / "cat" / "b.png")
    assert load_images(tmp_path).splits == ["test", "train"]


def test_train_is_a_class_name_among_other_classes(tmp_path: Path) -> None:
    for vehicle in ("bus", "car", "train"):
        paint(tmp_path / vehicle / "a.png")
    images = load_images(tmp_path)
    assert images.classes == ["bus", "car", "train"]
    assert images.splits == ["", "", ""]


def test_train_beside_an_empty_folder_is_still_a_split(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    (tmp_path / "logs").mkdir()
    images = load_images(tmp_path)
    assert (images.labels, images.splits) == (["cat"], ["train"])


def test_split_folders_beside_class_folders_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "test/cat/a.png", "cat/a.png"):
        paint(tmp_path / name)
    with pytest.raises(DataError, match=r"split folders \(test, train\) and beside them .*\(cat\)\. Move those away"):
        load_images(tmp_path)


def test_classes_that_differ_between_splits_are_listed_on_both_sides(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/a.png", "test/cats/a.png", "test/dog/a.png"):
        paint(tmp_path / name)
    with pytest.raises(
        DataError, match=r"Only in test: 'cats'; only in train: 'cat'. Map them with --class-map cats=cat"
    ):
        load_images(tmp_path)


def test_class_map_repairs_classes_that_differ_between_splits(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/a.png", "test/cats/a.png", "test/dog/a.png"):
        paint(tmp_path / name)
    images = load_images(tmp_path, class_map={"cats": "cat"})
    assert images.classes == ["cat", "dog"]
    assert dict(zip(images.paths, images.labels, strict=True))["test/cats/a.png"] == "cat"


def test_the_class_map_that_the_message_proposes_works(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/a.png", "test/cats/a.png", "test/dog/a.png"):
        paint(tmp_path / name)
    with pytest.raises(DataError) as caught:
        load_images(tmp_path)
    proposed = str(caught.value).split("--class-map ")[1].split()[0]
    assert len(load_images(tmp_path, class_map=parse_class_map([proposed])).classes) == 2


def test_an_empty_class_folder_counts_as_there(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/a.png", "test/cat/a.png"):
        paint(tmp_path / name)
    with pytest.raises(DataError, match=r"only in train: 'dog'.*add the missing folder \(it may be empty\)"):
        load_images(tmp_path)
    (tmp_path / "test" / "dog").mkdir()
    assert load_images(tmp_path).classes == ["cat", "dog"]


def test_class_map_joins_two_classes(tmp_path: Path) -> None:
    for name in ("cat", "kitten", "dog"):
        paint(tmp_path / name / "a.png")
    assert load_images(tmp_path, class_map={"kitten": "cat"}).labels == ["cat", "dog", "cat"]


def test_class_map_of_an_unknown_class_lists_the_known_ones(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match=r"classes that are not there: cta\. There are: cat\."):
        load_images(tmp_path, class_map={"cta": "dog"})


@pytest.mark.parametrize("pair", ["cats", "=cat", "cats=", "="])
def test_class_map_without_two_names_is_a_usage_error(pair: str) -> None:
    with pytest.raises(UsageError, match="Example: --class-map cats=cat"):
        parse_class_map([pair])


def test_class_map_splits_at_the_first_equals_sign() -> None:
    assert parse_class_map(["a=b=c", "x=y"]) == {"a": "b=c", "x": "y"}


# --- what is not there, links, permissions --------------------------------------------------------------------


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"No images in .* \(left out: 1 \.txt\)\. Expected \.avif, \.bmp"):
        load_images(tmp_path)


def test_a_path_that_does_not_exist_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_images(Path("photos"))
    assert f"photos does not exist (looked in {tmp_path})" in str(caught.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is neither a folder nor a \.csv or \.tsv table"):
        load_images(paint(tmp_path / "a.png"))


def test_a_symlink_in_a_circle_ends_and_each_image_is_found_once(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    images = load_images(tmp_path)
    assert images.paths == ["cat/a.png"]
    assert len(images.notes) == 1
    assert "symbolic link in a circle, not followed" in images.notes[0]


def test_a_symlink_to_itself_is_passed_over(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "self").symlink_to("self")
    images = load_images(tmp_path)
    assert (images.paths, images.n_passed_over) == (["cat/a.png"], 1)


def test_symlinked_class_folders_are_followed(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    images = load_images(tmp_path / "data")
    assert (images.paths, images.labels) == (["cat/a.png"], ["cat"])


def test_folders_that_link_to_each_other_are_not_walked_in_every_order(tmp_path: Path) -> None:
    names = "abcdefg"  # of seven there are 13,699 orders
    for name in names:
        paint(tmp_path / name / "1.png")
        for other in set(names) - {name}:
            (tmp_path / name / other).symlink_to(tmp_path / other, target_is_directory=True)
    images = load_images(tmp_path)
    assert {f"{name}/1.png" for name in names} <= set(images.paths)
    assert {f"{name}/{other}/1.png" for name in names for other in set(names) - {name}} <= set(images.paths)
    assert len(images.paths) <= 7 + 7 * 6 + 7  # folders, the links in each, and below a link each folder once
    assert any("that another link led to, not followed" in note for note in images.notes)


def test_two_links_to_one_folder_are_both_followed(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "a.png")
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert load_images(tmp_path / "data").paths == ["test/cat/a.png", "train/cat/a.png"]


def test_a_symlink_to_a_missing_image_is_listed_so_that_decoding_says_why(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert load_images(tmp_path).paths == ["cat/a.png", "cat/gone.png"]


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "cat" / "a.png")
    (tmp_path / "cat").chmod(0)

    def load() -> None:
        with pytest.raises(DataError, match=r"Cannot read the folder .*cat: Permission denied"):
            load_images(tmp_path)

    try:
        without_rights(load)
    finally:
        (tmp_path / "cat").chmod(0o700)


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_odd_file_names_survive_in_folders(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "cat" / name)
    images = load_images(tmp_path)
    assert images.paths == [f"cat/{name}"]
    assert images.file(0).is_file()


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_odd_class_names_survive(tmp_path: Path, name: str) -> None:
    paint(tmp_path / name / "a.png")
    images = load_images(tmp_path)
    assert images.labels == [normalize("NFC", name)]
    assert images.file(0).is_file()


# --- tables ---------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t"), ("CSV", ","), ("TSV", "\t")])
def test_a_table_gives_paths_labels_splits_and_groups(tmp_path: Path, ending: str, mark: str) -> None:
    lines = ["path,label,split,group", "a.png,cat,train,p1", "b.png,dog,TEST,p2", "c.png,dog,valid,", "d.png,,,"]
    images = load_images(table(tmp_path / f"t.{ending}", "\n".join(lines).replace(",", mark)))
    assert images.paths == ["a.png", "b.png", "c.png", "d.png"]
    assert images.labels == ["cat", "dog", "dog", ""]
    assert images.splits == ["train", "test", "val", ""]
    assert images.groups == ["p1", "p2", "", ""]
    assert images.root == tmp_path
    assert images.name == "t"


def test_split_and_group_are_optional_and_other_columns_ignored(tmp_path: Path) -> None:
    images = load_images(table(tmp_path / "t.csv", "id,Label ,PATH,notes\n7,cat,a.png,x\n"))
    assert (images.paths, images.labels, images.splits, images.groups) == (["a.png"], ["cat"], [""], [""])


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    images = load_images(table(tmp_path / "t.csv", b"\xef\xbb\xbfpath,label\r\na.png,cat\r\n"))
    assert (images.paths, images.labels) == (["a.png"], ["cat"])


def test_relative_paths_are_found_from_the_folder_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "data" / "photos" / "a.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    table(tmp_path / "data" / "t.csv", "path,label\nphotos/a.png,cat\n")
    assert load_images(Path("../data/t.csv")).file(0).is_file()


def test_absolute_paths_in_a_table_stay_absolute(tmp_path: Path) -> None:
    path = paint(tmp_path / "far" / "a.png")
    images = load_images(table(tmp_path / "t.csv", f"path,label\n{path},cat\n"))
    assert images.file(0) == path


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_odd_file_names_survive_in_quoted_cells(tmp_path: Path, name: str) -> None:
    paint(tmp_path / name)
    images = load_images(table(tmp_path / "t.csv", b"path,label\n" + os.fsencode(quoted(name)) + b",cat\n"))
    assert images.paths == [name]
    assert images.file(0).is_file()


@example(name="a", label="\uf900")  # a character that NFC replaces
@given(
    name=st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=40),
    label=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
)
def test_any_text_in_a_quoted_cell_round_trips(tmp_path_factory: pytest.TempPathFactory, name: str, label: str) -> None:
    folder = tmp_path_factory.mktemp("table")
    images = load_images(table(folder / "t.csv", f"path,label\n{quoted(name)},{quoted(label)}\n"))
    assert (images.paths, images.labels) == ([name], [unicodedata.normalize("NFC", label).strip()])


def test_class_map_renames_labels_of_a_table(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "path,label\na.png,cats\nb.png,dog\n")
    assert load_images(source, class_map={"cats": "cat"}).labels == ["cat", "dog"]


REFUSED_TABLES = {
    "without-path": ("name,label\na.png,cat\n", r"lacks the column path .*received: name, label"),
    "without-label": (
        "path,kind\na.png,cat\n",
        r"lacks the column label .*received: path, kind\. .*--label-column NAME\.",
    ),
    "without-both": ("a.png\n", r"lacks the column path and label .*received: a\.png"),
    "no-lines": ("", "received: an empty file"),
    "only-headings": ("path,label\n", "No images in"),
    "colons": ("path:label\na.png:cat\n", r"received: path:label"),
    "wrong-split": ("path,label,split\na.png,cat,train\nb.png,cat,dev\n", r"row 3: split is 'dev', expected train"),
    "empty-path": ("path,label\na.png,cat\n,dog\n", r"row 3: the path is empty"),
    "quote-left-open": ('path,label\n"a.png,cat\n', "cannot be read as a table: unexpected end of data"),
    "giant-cell": (f'path,label\n"{"x" * 200_000}",cat\n', "cannot be read as a table: field larger than"),
    "long-label": (f"path,label\na.png,{'x' * (MAX_LABEL_LENGTH + 1)}\n", r"row 2: a label or group is longer"),
    "long-domain": (f"path,label,domain\na.png,cat,{'x' * (MAX_LABEL_LENGTH + 1)}\n", r"row 2: a domain is longer"),
    "null-byte": ("path,label\na\0b.png,cat\n", r"row 2: .*NUL"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED_TABLES.values(), ids=REFUSED_TABLES)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(table(tmp_path / "t.csv", text))


def test_a_table_in_utf16_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the column path and label"):
        load_images(table(tmp_path / "t.csv", "path,label\na.png,cat\n".encode("utf-16")))


# --- content keys ---------------------------------------------------------------------------------------------


def test_the_content_key_is_the_sha256_of_the_bytes() -> None:
    # FIPS 180-4, the example "abc"
    assert content_key(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_content_keys_are_equal_exactly_where_the_bytes_are(one: bytes, other: bytes) -> None:
    assert (content_key(one) == content_key(other)) == (one == other)


def test_a_named_pipe_is_passed_over_because_reading_it_would_wait_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a" / "real.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    images = load_images(tmp_path)
    assert (images.paths, images.n_passed_over) == (["a/real.png"], 1)
