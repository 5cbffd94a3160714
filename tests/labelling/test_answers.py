"""The CSV of answers: on the disk after each, one line a picture, and it survives hands, kills and full disks."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from children import exit_code_of_child
from conftest import MakePhotos
from tlfeat.errors import DataError
from tlfeat.images.load import load_images
from tlfeat.labelling.answers import Answer, answered, checked_label, open_answers

CAT = Answer("a/1.jpg", "cat", "2026-01-02T03:04:05Z", "random")
DOG = Answer("a/2.jpg", "dog, the", "2026-01-02T03:04:06Z", "unsure")
NONE = Answer("b/3.jpg", "", "2026-01-02T03:04:07Z", "typical, unknown")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def put(file: Path, *answers: Answer) -> None:
    with open_answers(file) as opened:
        for answer in answers:
            opened.put({answer.path: answer})


def test_answers_come_back_in_their_order(file: Path) -> None:
    put(file, CAT, DOG, NONE)
    assert file.read_text().splitlines()[:3] == [
        "path,label,time,how",
        "a/1.jpg,cat,2026-01-02T03:04:05Z,random",
        'a/2.jpg,"dog, the",2026-01-02T03:04:06Z,unsure',
    ]
    with open_answers(file) as opened:
        assert list(opened.answers.values()) == [CAT, DOG, NONE]
        assert not opened.notes


def test_an_answer_is_appended_and_synced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(file, CAT)
    before, synced = file.stat().st_ino, []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    put(file, DOG)
    assert file.stat().st_ino == before
    assert synced == [file.stat().st_size]


def test_one_line_a_picture(file: Path) -> None:
    put(file, CAT, DOG)
    with open_answers(file) as opened:
        opened.put({CAT.path: Answer(CAT.path, "newt", "t", "random, was cat")})
        opened.put({DOG.path: None})
    assert file.read_text() == 'path,label,time,how\na/1.jpg,newt,t,"random, was cat"\n'


def test_many_at_once_are_one_write(file: Path) -> None:
    put(file, CAT)
    with open_answers(file) as opened:
        opened.put({DOG.path: DOG, NONE.path: NONE})
        assert list(opened.answers) == [CAT.path, DOG.path, NONE.path]
    with open_answers(file) as opened:
        assert list(opened.answers.values()) == [CAT, DOG, NONE]


def test_a_second_window_is_refused(file: Path) -> None:
    with (
        open_answers(file),
        pytest.raises(DataError, match=r"Another tlfeat label has .*labels\.csv open"),
        open_answers(file),
    ):
        pass
    with open_answers(file):  # it was given back, and nothing is left over
        pass
    assert [path.name for path in file.parent.iterdir()] == []


def test_a_killed_one_leaves_its_answers_and_no_lock(file: Path) -> None:
    def answer_and_die() -> None:
        with open_answers(file) as opened:
            opened.put({CAT.path: CAT})
            opened.put({DOG.path: DOG})
            os._exit(9)

    assert exit_code_of_child(answer_and_die) == 9
    with open_answers(file) as opened:
        assert list(opened.answers.values()) == [CAT, DOG]


def test_a_hand_in_the_middle_is_heard(file: Path) -> None:
    with open_answers(file) as opened:
        opened.put({CAT.path: CAT})
        file.write_text("path,label,time,how\na/1.jpg,lynx,,\nc/9.jpg,dog,,\n")
        opened.put({DOG.path: DOG})
        assert [answer.label for answer in opened.answers.values()] == ["lynx", "dog", "dog, the"]
        file.unlink()
        opened.put({NONE.path: NONE})  # and who removes it loses nothing
    with open_answers(file) as opened:
        assert len(opened.answers) == 4


def test_what_excel_made_of_it_is_read_and_written_as_before(file: Path) -> None:
    file.write_bytes("\ufeffpath;label;time;how\r\na/1.jpg;K\u00e4fer;;\r\na/1.jpg;Wanze;;\r\n".encode())
    with open_answers(file) as opened:
        assert [answer.label for answer in opened.answers.values()] == ["Wanze"]
        assert re.search("a/1.jpg is there twice; the last line counts", opened.notes[0])
        opened.put({DOG.path: DOG})
    assert file.read_bytes().startswith(b"path,label,time,how\na/1.jpg,Wanze,,\na/2.jpg,")


def test_a_line_cut_off_is_asked_again(file: Path) -> None:
    put(file, CAT)
    with file.open("a") as out:
        out.write("a/2.jpg,do")
    with open_answers(file) as opened:
        assert list(opened.answers.values()) == [CAT]
        assert "the last line is not whole and was left out: a/2.jpg, do" in opened.notes[0]
        opened.put({NONE.path: NONE})
    assert file.read_text().splitlines()[1:] == [
        "a/1.jpg,cat,2026-01-02T03:04:05Z,random",
        'b/3.jpg,,2026-01-02T03:04:07Z,"typical, unknown"',
    ]


def test_a_full_disk_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(file, CAT)
    before = file.read_bytes()
    with open_answers(file) as opened:
        with monkeypatch.context() as patch:

            def full(handle: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, "fsync", full)
            with pytest.raises(DataError, match="No space left on device"):
                opened.put({DOG.path: DOG})
            with pytest.raises(DataError, match="No space left on device"):
                opened.put({CAT.path: None})
        assert file.read_bytes() == before
        assert list(opened.answers.values()) == [CAT]
        opened.put({DOG.path: DOG})
    with open_answers(file) as opened:
        assert list(opened.answers.values()) == [CAT, DOG]


def test_columns_that_would_be_lost_are_refused(file: Path) -> None:
    file.write_text("path,label,split,note\na/1.jpg,cat,train,blurred\n")
    with pytest.raises(DataError, match=r"further columns \(split, note\).*--labels"), open_answers(file):
        pass


@pytest.mark.parametrize("column", ["path,label\na/1.jpg,cat\n", ""])
def test_a_plain_table_or_an_empty_file_is_gone_on_with(file: Path, column: str) -> None:
    file.write_text(column)
    with open_answers(file) as opened:
        opened.put({DOG.path: DOG})
    assert file.read_text().splitlines()[0] == "path,label,time,how"
    assert len(file.read_text().splitlines()) == (3 if column else 2)


def test_what_an_answer_says_of_itself() -> None:
    assert CAT.is_random and CAT.is_answer and not CAT.is_bad
    assert NONE.is_answer and not NONE.is_random and not NONE.is_bad
    assert Answer("x", "", "", "random, bad, was cat").is_bad
    assert not Answer("x", "", "", "").is_answer
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answered("x", "cat", "grid").time)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "x" * 501])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(DataError):
        checked_label(name)


def test_extract_takes_the_file(make_photos: MakePhotos, tmp_path: Path) -> None:
    folder = make_photos(3)
    paths = [f"{folder.name}/{path}" for path in load_images(folder).paths]
    file = folder.parent / "labels.csv"
    put(file, Answer(paths[0], "cat", "t", "random"), Answer(paths[3], "", "t", "unsure, unknown"))
    images = load_images(file)
    assert list(images.paths) == [paths[0], paths[3]]
    assert list(images.labels) == ["cat", ""]
