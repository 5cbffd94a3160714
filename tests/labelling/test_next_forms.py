"""What to label next, written down: a table, a CSV to be filled in, tasks for Label Studio."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conftest import MakePhotos
from made_data import as_json, tlfeat
from tlfeat.errors import DataError, UsageError
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.labelling.next import NextPicture, NextPictures, read_labels
from tlfeat.labelling.next_forms import (
    check_format,
    interface_lines,
    to_csv,
    to_document,
    to_label_studio,
    to_text,
)

NAMES = ["photos/a 1.png", "photos/b,2.png"]

FOUND = NextPictures(
    [NextPicture(1, "b,2.png", "random"), NextPicture(0, "a 1.png", "unsure", "cat", 0.93)], ["<dog>", "cat"], 5, ["x"]
)


class Bucket:
    """As much of a store as is needed here."""

    def __init__(self, url: str) -> None:
        self.url = url


def images(url: str | None = None) -> ImageSet:
    found = ImageSet(
        Path("/data/my photos"), Path("/data/my photos"), ["a 1.png", "b,2.png"], [""] * 2, [""] * 2, [""] * 2
    )
    return found if url is None else replace(found, store=Bucket(url))  # type: ignore[arg-type]


def test_a_table_has_a_line_a_picture() -> None:
    assert to_text(FOUND, NAMES).splitlines() == [
        "picture         why     suggestion  probability",
        "-----------------------------------------------",
        "photos/b,2.png  random",
        "photos/a 1.png  unsure  cat              93.0 %",
    ]


def test_a_document_has_all_of_it() -> None:
    assert json.loads(json.dumps(to_document(FOUND, NAMES))) == {
        "pictures": [
            {"path": "photos/b,2.png", "why": "random", "suggestion": "", "probability": None},
            {"path": "photos/a 1.png", "why": "unsure", "suggestion": "cat", "probability": 0.93},
        ],
        "classes": ["<dog>", "cat"],
        "n_labelled": 5,
        "notes": ["x"],
    }


def test_a_csv_is_filled_in_and_read_again() -> None:
    text = to_csv(FOUND, NAMES)
    assert text == (
        'path,label,how,suggestion,probability\n"photos/b,2.png",,random,,\nphotos/a 1.png,,unsure,cat,0.9300\n'
    )
    Path("next.csv").write_text(text)
    assert read_labels(Path("next.csv")) == {}
    Path("next.csv").write_text(text.replace(",,random", ",dog,random"))
    (answer,) = read_labels(Path("next.csv")).values()
    assert (answer.path, answer.label, answer.is_random) == ("photos/b,2.png", "dog", True)


# --- Label Studio -------------------------------------------------------------------------------------------


def test_tasks_name_files_below_the_root_and_have_suggestions_as_predictions() -> None:
    random, unsure = to_label_studio(FOUND, NAMES, images())
    assert random == {
        "data": {
            "image": "/data/local-files/?d=my%20photos/b%2C2.png",
            "path": "photos/b,2.png",
            "how": "random",
        },
        "predictions": [],
    }
    assert unsure["predictions"] == [
        {
            "model_version": "tlfeat",
            "score": 0.93,
            "result": [
                {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}},
            ],
        }
    ]


def test_tasks_name_the_addresses_of_a_bucket() -> None:
    assert to_label_studio(FOUND, NAMES, images("s3://mine/photos"))[1]["data"]["image"] == "s3://mine/photos/a 1.png"
    assert len(interface_lines(FOUND, images("s3://mine/photos"))) == 1


@pytest.mark.parametrize("url", ["file:///data/photos.zip", ""], ids=["an archive", "several places"])
def test_what_label_studio_cannot_show_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="unpack it, or take --format csv"):
        to_label_studio(FOUND, NAMES, images(url))


def test_the_interface_has_the_tags_of_the_predictions_and_all_classes() -> None:
    interface, files = interface_lines(FOUND, images())
    view = ElementTree.fromstring(interface.partition(": ")[2])
    picture, choices = view
    assert (picture.tag, picture.attrib) == ("Image", {"name": "image", "value": "$image"})
    assert (choices.tag, choices.attrib["name"], choices.attrib["toName"]) == ("Choices", "label", "image")
    assert [choice.attrib["value"] for choice in choices] == ["<dog>", "cat"]
    assert "DOCUMENT_ROOT=/data," in files
    assert "/data/my photos" in files


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="csv"):
        check_format("cvs")


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(make_photos: MakePhotos, tmp_path: Path) -> Path:
    make_photos(n=10)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    return tmp_path


def test_the_command_prints_a_table_and_writes_a_csv(embedded: Path) -> None:
    run = tlfeat("next", "-n", "5", "--labels", "labels.csv", "--output", "next.csv", cwd=embedded)
    lines = run.stdout.splitlines()
    assert len(lines) == 7
    assert "note: labels.csv is not there yet" in run.stderr
    assert "Written: next.csv" in run.stderr
    written = (embedded / "next.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in written[1:]] == [line.split()[0] for line in lines[2:]]
    assert all((embedded / line.split()[0]).exists() for line in lines[2:])


def test_the_loop_of_the_command_ends_when_all_is_labelled(embedded: Path) -> None:
    labels = embedded / "labels.csv"
    labels.write_text("path,label,how\n")
    for _ in range(3):
        run = tlfeat("next", "-n", "8", "--labels", "labels.csv", "--format", "csv", cwd=embedded)
        rows = [line.split(",") for line in run.stdout.splitlines()[1:] if line]
        labels.write_text(
            labels.read_text() + "".join(f"{path},{path.split('/')[1]},{how}\n" for path, _, how, *_ in rows)
        )
    assert len(labels.read_text().splitlines()) == 21
    end = tlfeat("next", "--labels", "labels.csv", cwd=embedded)
    assert "every picture has an answer" in end.stderr
    assert as_json("next", "--labels", "labels.csv", cwd=embedded)["pictures"] == []


def test_the_csv_is_what_extract_takes(embedded: Path) -> None:
    tlfeat("next", "-n", "5", "--output", "next.csv", cwd=embedded)
    assert len(load_images(embedded / "next.csv")) == 5


def test_tasks_are_printed_as_json_with_what_to_tell_label_studio(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tlfeat("next", "-n", "4", "--format", "label-studio", cwd=embedded)
    tasks = json.loads(run.stdout)
    assert len(tasks) == 4
    assert re.fullmatch(r"/data/local-files/\?d=photos/(cat|dog)/\d+\.png", tasks[0]["data"]["image"])
    monkeypatch.setenv("COLUMNS", "40")  # no line of a file is broken
    assert tlfeat("next", "-n", "4", "--format", "label-studio", cwd=embedded).stdout == run.stdout
    assert "Labelling interface: <View>" in run.stderr.replace("\n", " ")


def test_a_format_that_is_none_is_told_before_anything_is_read(tmp_path: Path) -> None:
    run = tlfeat("next", "--format", "coco", cwd=tmp_path, expect=2)
    assert "No format 'coco'" in run.stderr
