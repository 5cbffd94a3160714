"""One labelling: every answer is on the disk, goes to the picture that was shown, and can be taken back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import MakePhotos
from made_labelling import InOrder
from tlfeat.errors import DataError
from tlfeat.images.load import load_images
from tlfeat.labelling.answers import open_answers, read_answers
from tlfeat.labelling.pictures import Pictures
from tlfeat.labelling.session import Conflict, Session


@pytest.fixture
def pictures(make_photos: MakePhotos, tmp_path: Path) -> Pictures:
    return Pictures(load_images(make_photos(4)), tmp_path / "labels.csv")


@pytest.fixture
def session(pictures: Pictures) -> Iterator[Session]:
    with open_answers(pictures.csv) as file:
        yield Session(pictures, file, InOrder(8))


def give(session: Session, question: dict[str, Any], label: str, kind: str = "label") -> dict[str, Any]:
    return session.answer(question["id"], question["number"], kind, label)


def written(session: Session) -> dict[str, tuple[str, str]]:
    return {path: (a.label, a.how) for path, a in read_answers(session.pictures.csv)[0].items()}


def test_an_answer_is_on_the_disk_and_the_next_question_comes_with_it(session: Session) -> None:
    first = session.question()["question"]
    assert session.question()["question"]["id"] == first["id"]
    reply = give(session, first, "cat")
    assert written(session) == {"photos/cat/0.png": ("cat", "random")}
    assert reply["question"]["number"] == 1 and reply["question"]["path"] == "cat/1.png"
    assert reply["state"]["classes"] == [{"name": "cat", "key": "1", "n": 1}]
    assert reply["state"]["n_labelled"] == 1 and reply["state"]["can_undo"]


def test_what_was_handed_out_ahead_stays_the_next_one(session: Session) -> None:
    first = session.question()["question"]
    ahead = session.question(after=first["id"])["question"]
    assert ahead["number"] == 1
    assert give(session, first, "cat")["question"]["id"] == ahead["id"]
    assert give(session, ahead, "dog")["question"]["number"] == 2


def test_an_answer_names_what_was_shown(session: Session) -> None:
    first = session.question()["question"]
    with pytest.raises(Conflict):
        session.answer(first["id"], first["number"] + 1, "label", "cat")
    with pytest.raises(Conflict):
        session.answer(99, 0, "label", "cat")
    with pytest.raises(DataError, match="needs a name"):
        give(session, first, " ")
    with pytest.raises(DataError, match="unknown, bad or keep"):
        give(session, first, "", "perhaps")
    assert not session.file.answers
    give(session, first, "cat")
    assert give(session, first, "cat")["question"]["number"] == 1  # the reply was lost and it was sent again
    with pytest.raises(Conflict):
        give(session, first, "dog")  # another window
    assert written(session) == {"photos/cat/0.png": ("cat", "random")}


def test_unknown_and_bad_have_no_label(session: Session) -> None:
    give(session, session.question()["question"], "", "unknown")
    reply = give(session, session.question()["question"], "", "bad")
    assert written(session) == {
        "photos/cat/0.png": ("", "random, unknown"),
        "photos/cat/1.png": ("", "unsure, bad"),
    }
    assert (reply["state"]["n_unknown"], reply["state"]["n_bad"], reply["state"]["n_labelled"]) == (1, 1, 0)


def test_undo_takes_back_one_by_one_and_asks_again(session: Session) -> None:
    questions = [session.question()["question"]]
    for label in ("cat", "dog", "cat"):
        questions.append(give(session, questions[-1], label)["question"])
    for i in (2, 1, 0):
        reply = session.undo()
        assert reply["question"]["number"] == i and reply["question"]["id"] == questions[i]["id"]
        assert len(written(session)) == i
    assert not session.undo()["state"]["can_undo"]
    assert give(session, questions[0], "newt")["question"]["number"] == 1


def test_a_second_run_goes_on_and_can_undo(pictures: Pictures) -> None:
    with open_answers(pictures.csv) as file:
        one = Session(pictures, file, InOrder(8))
        for label in ("cat", "dog", "cat"):
            give(one, one.question()["question"], label)
    with open_answers(pictures.csv) as file:
        other = Session(pictures, file, InOrder(8))
        assert other.question()["question"]["number"] == 3
        assert [c["name"] for c in other.state()["classes"]] == ["cat", "dog"]
        assert other.history() == {"numbers": [0, 1, 2]}
        assert other.undo()["question"]["number"] == 2


def test_going_back_changes_one_line_and_keeps_how_it_was_come_by(session: Session) -> None:
    for label in ("cat", "dog"):
        give(session, session.question()["question"], label)
    back = session.question_of(0)["question"]
    assert back["label"] == "cat" and back["why"] == "random"
    assert give(session, back, "dog")["question"]["number"] == 2
    assert written(session)["photos/cat/0.png"] == ("dog", "random, was cat")
    session.undo()
    assert written(session)["photos/cat/0.png"] == ("cat", "random")
    with pytest.raises(Conflict):
        session.question_of(8)


def test_a_grid_is_one_step_and_skips_what_is_known(session: Session) -> None:
    first = session.question()["question"]
    ahead = session.question(after=first["id"])["question"]
    give(session, first, "cat")
    reply = session.answer_all("cat", [0, 1, 3, 3])
    assert reply["question"]["number"] == 2  # what was handed out ahead was answered in the grid
    assert written(session) == {
        "photos/cat/0.png": ("cat", "random"),
        "photos/cat/1.png": ("cat", "grid"),
        "photos/cat/3.png": ("cat", "grid"),
    }
    with pytest.raises(Conflict):
        give(session, ahead, "dog")
    session.undo()
    assert list(written(session)) == ["photos/cat/0.png"]
    with pytest.raises(Conflict):
        session.answer_all("cat", [1, 8])
    assert session.grid({"label": "dog"})["items"] == [{"number": 3, "probability": 0.5, "path": "cat/3.png"}]


def test_one_answer_for_pictures_that_belong_together(pictures: Pictures) -> None:
    with open_answers(pictures.csv) as file:
        session = Session(pictures, file, InOrder(8, together=[6, 7]))
        give(session, session.question()["question"], "cat")
        assert sorted(written(session)) == ["photos/cat/0.png", "photos/dog/2.png", "photos/dog/3.png"]
        session.undo()
        assert not written(session)


def test_classes_are_made_on_the_way(session: Session) -> None:
    names = [f"class {i}" for i in range(40)]
    for name in [*names, "class 3"]:
        session.add_class(name)
    classes = session.state()["classes"]
    assert [c["name"] for c in classes] == names
    keys = [c["key"] for c in classes if c["key"]]
    assert keys[:10] == [*"123456789a"] and len(set(keys)) == len(keys) < 40
    assert not set(keys) & set("uxgmhnkwc")  # keys of the page, and of choices
    with pytest.raises(DataError):
        session.add_class("\n")


def test_all_answered_is_said(session: Session) -> None:
    for _ in range(8):
        reply = give(session, session.question()["question"], "cat")
    assert reply["question"] is None and reply["why"] == "all done"


def test_a_hand_in_the_file_is_heard(session: Session) -> None:
    give(session, session.question()["question"], "cat")
    with session.pictures.csv.open("a") as file:
        file.write("photos/cat/1.png,newt,,\n")
    assert [c["name"] for c in session.state()["classes"]] == ["cat", "newt"]
    ahead = session.question()["question"]
    assert ahead["number"] == 1 or ahead["number"] == 2  # what was handed out before stays open
    assert session.question(after=ahead["id"])["question"]["number"] == ahead["number"] + 1


def test_what_cannot_be_written_is_no_answer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = session.question()["question"]
    with monkeypatch.context() as patch:

        def full(changes: object) -> None:
            raise DataError("the disk is full")

        patch.setattr(type(session.file), "put", lambda self, changes: full(changes))
        with pytest.raises(DataError, match="disk is full"):
            give(session, first, "cat")
    assert session.question()["question"]["id"] == first["id"]
    assert not session.state()["can_undo"]
    give(session, first, "cat")
    assert written(session)


def test_many_threads_lose_no_answer(session: Session) -> None:
    failed: list[Exception] = []
    taken: list[str] = []

    def label_two(who: int) -> None:
        for turn in range(2):
            while True:
                question, label = session.question()["question"], f"of {who}, {turn}"  # of no other thread
                try:
                    give(session, question, label)
                    taken.append(label)
                    break
                except Conflict:
                    continue
                except Exception as error:
                    failed.append(error)
                    return

    threads = [threading.Thread(target=label_two, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(label for label, _ in written(session).values()) == sorted(taken)
    assert len(taken) == 8


def test_the_asker_hears_of_every_change(pictures: Pictures) -> None:
    asker = InOrder(8)
    with open_answers(pictures.csv) as file:
        session = Session(pictures, file, asker)
        give(session, session.question()["question"], "cat")
        session.answer_all("dog", [4, 5])
        session.undo()
    assert asker.heard_of == [0, 1, 3, 1]
