"""A folder of .txt files or a table of texts becomes a set, and what is something else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tlfeat.errors import BadImage, DataError, TlfeatError, UsageError
from tlfeat.images.image_set import ImageSet, content_key
from tlfeat.texts.read import keyed_text, read_text, snippet
from tlfeat.texts.text_set import load_texts, looks_like_texts


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts_of(found: ImageSet) -> list[str]:
    pairs = [keyed_text(found.content(i)) for i in range(len(found))]
    return [pair[1] if pair else "" for pair in pairs]


def test_a_table_gives_texts_labels_splits_and_groups(tmp_path: Path) -> None:
    table = written(
        tmp_path / "mail.csv", '\ufeffID;Body;Category;Split;group\n1;"two\nlines; ü";ham;TRAIN;a\n2;win;spam;valid;b\n'
    )
    found = load_texts(table)
    assert found.holds == "texts"
    assert texts_of(found) == ["two\nlines; ü", "win"]
    assert (found.labels, found.splits, found.groups) == (["ham", "spam"], ["train", "val"], ["a", "b"])
    assert found.paths == ["mail.csv:2", "mail.csv:3"]
    assert found.notes == [
        "mail.csv: texts from 'Body', labels from 'Category' (others: --text-column, --label-column)"
    ]


def test_columns_can_be_named_and_classes_renamed_and_chosen(tmp_path: Path) -> None:
    table = written(tmp_path / "t.tsv", "text\tsubject\tstars\nno\tone\tgood\nno\ttwo\tbad\nno\tthree\tugly\n")
    found = load_texts(
        table, text_column="subject", label_column="stars", class_map={"good": "yes"}, classes=["yes", "ugly"]
    )
    assert (texts_of(found), found.labels) == (["one", "three"], ["yes", "ugly"])
    assert found.notes[-1] == "1 text of other classes left out (--classes)"


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".parquet"])
def test_a_file_of_records_reads_as_the_same_table(ending: str, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "first", "label": 1, "split": "train", "more": [1]},
        {"text": "second", "label": 0, "split": "test", "more": []},
        {"text": None, "label": 1, "split": "test", "more": None},
    ]
    file = tmp_path / f"t{ending}"
    if ending == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), file)
    else:
        file.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    found = load_texts(file)
    assert found.contents == ["first", "second", ""]
    assert (found.labels, found.splits) == (["1", "0", "1"], ["train", "test", "test"])
    assert found.paths[0] == f"t{ending}:1"


def test_a_folder_of_txt_has_the_layouts_of_images(tmp_path: Path) -> None:
    for path in ("train/ham/1.txt", "train/spam/2.TXT", "test/ham/3.txt", "test/spam/4.txt", "test/spam/notes.md"):
        written(tmp_path / path, f"text of {path}")
    found = load_texts(tmp_path)
    assert found.paths == ["test/ham/3.txt", "test/spam/4.txt", "train/ham/1.txt", "train/spam/2.TXT"]
    assert found.labels == ["ham", "spam", "ham", "spam"]
    assert found.splits == ["test", "test", "train", "train"]
    assert found.passed_over == {".md": 1}
    assert texts_of(found)[0] == "text of test/ham/3.txt"


def test_the_key_is_the_sha256_of_the_text_wherever_it_stands(tmp_path: Path) -> None:
    text = "naïve 中文"
    table = load_texts(written(tmp_path / "t.csv", f"text,label\n{text},a\n"))
    folder = load_texts(written(tmp_path / "f" / "a" / "1.txt", text).parents[1])
    keys = [found and found[0] for found in (keyed_text(table.content(0)), keyed_text(folder.content(0)))]
    assert keys == [content_key(text.encode())] * 2


def test_a_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    long = "word " * 200_000
    assert texts_of(load_texts(written(tmp_path / "t.csv", f"text,label\n{long},a\nb,b\n"))) == [long, "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("body text,label\nx,a\n", "lacks the column text .* received: body text, label. .*--text-column NAME"),
        ("text,kind\nx,a\n", "lacks the column label .*--label-column NAME"),
        ("text,label,split\nx,a,dev\n", "row 2: split is 'dev'"),
        ("text,label,path\nx,a,1.jpg\n", "texts ..text.. and files ..path... For the texts add --text-column text"),
        ("path,label\n1.jpg,a\n", "names files ..path.. and has no column of texts"),
        ("text,label\n", "No texts in"),
        ("", "an empty file"),
    ],
)
def test_a_table_that_is_none_of_texts_says_what_to_do(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TlfeatError, match=message):
        load_texts(written(tmp_path / "t.csv", content))


def test_the_column_of_texts_may_stand_beside_files_when_it_is_named(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", "path,text,label\n1.jpg,hello,a\n")
    assert texts_of(load_texts(table, text_column="text")) == ["hello"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"text": "a", "label": "b"}\n{"text"', "line 2: it is no JSON"),
        ("t.jsonl", "[1]\n", "line 1: expected an object, received list"),
        ("t.jsonl", '{"txt": "a"}\n', "lacks the column text and label"),
        ("t.parquet", "PAR1", "damaged or no Parquet file"),
        ("t.xlsx", "", r"neither a folder nor a table \(.csv"),
    ],
)
def test_a_file_that_is_damaged_or_unknown_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message):
        load_texts(written(tmp_path / name, content))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.txt", "a/1.jpg", "b/2.png"], "holds 1 text and 2 images. Put each kind into a folder of its own"),
        (["a/1.jpg"], "holds images, and this backbone embeds texts"),
        (["a/1.md"], r"No texts in .* \(left out: 1 .md\)"),
    ],
)
def test_a_folder_of_images_or_of_both_is_refused(files: list[str], message: str, tmp_path: Path) -> None:
    for path in files:
        written(tmp_path / path, "x")
    with pytest.raises(TlfeatError, match=message):
        load_texts(tmp_path)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = written(tmp_path / "f" / "t.csv", "text,label\nx,a\n")
    with pytest.raises(UsageError, match="--label-from takes labels from names of files"):
        load_texts(table, label_from="name")
    with pytest.raises(UsageError, match="--text-column and --label-column are for tables"):
        load_texts(table.parent, text_column="x")
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_texts(tmp_path / "nowhere")


def test_texts_are_told_from_images_by_names_and_headings(tmp_path: Path) -> None:
    written(tmp_path / "texts" / "a" / "1.txt", "x")
    written(tmp_path / "both" / "a" / "1.txt", "x")
    written(tmp_path / "both" / "a" / "1.jpg", "x")
    tables = {"text,label\n": True, "path,label\n": False, "path,text,label\n": False}
    assert looks_like_texts(tmp_path / "texts")
    assert not looks_like_texts(tmp_path / "both")
    assert [looks_like_texts(written(tmp_path / "t.csv", header)) for header in tables] == list(tables.values())
    assert looks_like_texts(tmp_path / "t.jsonl")


def test_a_text_of_a_data_set_in_one_file_is_too_long() -> None:
    with pytest.raises(BadImage, match=r"too long: 17\.0 MB, the limit is 16\.8 MB"):
        read_text(b"a" * 17_000_000)
    assert read_text("\ufeffafter a mark".encode()) == "after a mark"


def test_a_snippet_is_one_line_of_the_beginning() -> None:
    assert snippet("two\n  lines\t<b>") == "two lines <b>"
    assert snippet("word " * 100, 20) == "word word word word…"
    assert len(snippet("x" * 500)) == 120
