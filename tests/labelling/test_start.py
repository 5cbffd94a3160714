"""`tlfeat label` from a folder to a head: what is known before, what is asked, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import MakePhotos, write_photos
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.extract.plan import plan_extraction
from tlfeat.labelling.answers import read_answers
from tlfeat.labelling.finish import fit_answers
from tlfeat.labelling.server import Server
from tlfeat.labelling.start import Wanted, open_labelling
from tlfeat.models.saved import read_result

PIXELS = {"backbone": "pixels"}


@pytest.fixture(autouse=True)
def without_a_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is opened here, so nothing waits for its first picture."""
    monkeypatch.setattr("tlfeat.labelling.start.HEAD_START_S", 0.0)


def command_line(*words: object) -> str:
    return " ".join(["tlfeat", *map(str, words)])


def wait_for(is_so: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def loose(folder: Path) -> Path:
    """Put all pictures of class folders into one folder, with the class in their names."""
    for file in sorted(folder.glob("*/*.png")):
        file.rename(folder / f"{file.parent.name}-{file.name}")
    for inside in folder.iterdir():
        if inside.is_dir():
            inside.rmdir()
    return folder


def label(server: Server, n: int) -> dict[str, Any]:
    """Answer n questions by the names of the files."""
    session = server.session
    reply = session.question()
    for _ in range(n):
        question = reply["question"]
        reply = session.answer(question["id"], question["number"], "label", question["path"].partition("-")[0])
    return reply


def test_from_a_folder_to_a_head(make_photos: MakePhotos) -> None:
    folder = loose(make_photos(45))
    with open_labelling(Wanted(str(folder), classes=["dog", "cat"], options=PIXELS), command_line) as server:
        assert [c["name"] for c in server.session.state()["classes"]] == ["dog", "cat"]
        wait_for(lambda: server.session.state()["n_embedded"] == 90)
        label(server, 60)
        wait_for(lambda: server.session.state()["estimate"])
        found = server.finish()
    assert found["error"] == ""
    assert "Tested on 12 pictures that were drawn at random" in found["lines"][0]
    model = Path(found["commands"][0].split()[3])
    result = read_result(model)
    answers, notes, _ = read_answers(Path("photos-labels.csv"))
    drawn = {path for path, answer in answers.items() if answer.is_random}
    assert not notes and len(answers) == 60 and len(drawn) == 12
    assert {f"photos/{Path(path).name}" for path in result.test_paths} == drawn
    assert result.split.n_train + result.split.n_val == 48
    assert found["accuracy"] == result.score.accuracy > 0.6
    assert (result.candidate, result.chosen["unlabelled"]) == ("spread", 30)
    assert found["lines"][0].endswith("It also learned from 30 pictures without a label that look like those.")
    assert [path.name for path in Path().iterdir() if path.name.startswith(".photos")] == []


def test_typical_pictures_are_found_although_only_the_first_rows_are_clustered(
    make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlfeat.labelling.choose._CLUSTERED", 15)
    folder = loose(make_photos(45))
    plan_extraction(folder, **PIXELS).run()  # the cache has them in the order of their names
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        wait_for(lambda: server.session.state()["n_embedded"] == 90)
        wait_for(lambda: server.session.asker.learned.chosen)
        label(server, 8)
        answers = server.session.facts().answers.values()
    assert [answer.source for answer in answers].count("typical") >= 4
    assert {answer.label for answer in answers if answer.source == "typical"} == {"cat", "dog"}


def test_done_does_without_rows_that_are_not_there_yet(make_photos: MakePhotos) -> None:
    lines = [f"{path.relative_to(Path.cwd()).as_posix()},{path.parent.name}" for path in make_photos(9).glob("*/*.png")]
    Path("few.csv").write_text("\n".join(["path,label", *lines]))
    found = fit_answers(Path("few.csv"), PIXELS, command_line, others=Path("not-yet.h5"))
    assert found["error"] == ""
    assert read_result(Path(found["commands"][0].split()[3])).candidate == "logreg"


def test_a_second_run_goes_on(make_photos: MakePhotos) -> None:
    folder = loose(make_photos(10))
    for n_before in (0, 7):
        with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
            assert server.session.state()["n_labelled"] == n_before
            label(server, 7)
    answers = read_answers(Path("photos-labels.csv"))[0]
    assert len(answers) == 14
    assert [answer.is_random for answer in answers.values()] == [i % 5 == 0 for i in range(14)]


def test_what_lies_in_class_folders_teaches_and_the_rest_is_asked(make_photos: MakePhotos) -> None:
    folder = make_photos(12)
    for i in range(8):
        (folder / "dog" / f"{i}.png").rename(folder / f"dog-{i}.png")
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        state = server.session.state()
        assert [(c["name"], c["n"]) for c in state["classes"]] == [("cat", 12), ("dog", 4)]
        assert "16 pictures in class folders have their labels from there" in state["notes"]
        reply = label(server, 8)
        assert reply["question"] is None
        assert reply["state"]["n_labelled"] == 24
    sources = [answer.source for answer in read_answers(Path("photos-labels.csv"))[0].values()]
    assert sources.count("folder") == 16 and sources.count("random") == 2


def test_folders_alone_give_names_and_every_picture_is_asked(make_photos: MakePhotos) -> None:
    folder = make_photos(4)
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        state = server.session.state()
        assert [(c["name"], c["n"]) for c in state["classes"]] == [("cat", 0), ("dog", 0)]
        assert "--fix" in state["notes"][0] and state["n_left"] == 8
    with open_labelling(Wanted(str(folder), classes=["owl"], options=PIXELS), command_line) as server:
        assert [c["name"] for c in server.session.state()["classes"]] == ["owl"]


def test_pictures_that_have_gone_and_those_that_cannot_be_read(make_photos: MakePhotos) -> None:
    folder = loose(make_photos(6))
    (folder / "dog-5.png").write_bytes(b"no picture")
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        label(server, 4)
    answered = list(read_answers(Path("photos-labels.csv"))[0])
    Path(answered[0]).unlink()
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        note = f"photos-labels.csv has 1 answer about pictures that have gone, such as {answered[0]}"
        assert note in server.session.state()["notes"]
        wait_for(lambda: server.session.state()["n_embedded"] + server.session.state()["n_skipped"] == 11)
        assert server.session.state()["n_skipped"] == 1
        label(server, 3)
    assert list(read_answers(Path("photos-labels.csv"))[0])[:4] == answered  # its line stays
    for file in folder.glob("*.png"):
        file.unlink()
    write_photos(folder, 2)
    with (
        pytest.raises(DataError, match="holds answers about other pictures"),
        open_labelling(Wanted(str(folder), options=PIXELS), command_line),
    ):
        pass


def test_extraction_waits_for_the_first_picture(make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlfeat.labelling.start.HEAD_START_S", 60.0)
    begun: list[bool] = []
    monkeypatch.setattr("tlfeat.labelling.background.Extraction.begin", lambda extraction: begun.append(True))
    folder = loose(make_photos(6))
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        label(server, 2)
        time.sleep(0.1)
        assert not begun
        server.has_shown.set()
        wait_for(lambda: begun)
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line):
        pass
    assert len(begun) == 1  # and it does not begin at the end


def test_why_pictures_are_not_embedded_is_said(make_photos: MakePhotos) -> None:
    folder = loose(make_photos(3))
    with open_labelling(Wanted(str(folder), options={"backbone": "nonesuch"}), command_line) as server:
        assert server.session.state()["extracting"] == "starting"  # so that the page asks again
        wait_for(lambda: server.session.state()["extraction_error"])
        assert "nonesuch" in server.session.state()["extraction_error"]
        label(server, 3)  # labels are kept all the same
    assert len(read_answers(Path("photos-labels.csv"))[0]) == 3


def test_too_little_for_a_head_is_said(make_photos: MakePhotos) -> None:
    folder = loose(make_photos(6))
    with open_labelling(Wanted(str(folder), options=PIXELS), command_line) as server:
        question = server.session.question()["question"]
        server.session.answer(question["id"], question["number"], "label", "cat")
        found = server.finish()
    assert "two classes" in found["error"].lower() and found["accuracy"] is None


def test_a_csv_elsewhere_leads_to_the_same_pictures(make_photos: MakePhotos, tmp_path: Path) -> None:
    folder = loose(make_photos(6))
    csv = tmp_path / "answers" / "mine.csv"
    with open_labelling(Wanted(str(folder), csv, options=PIXELS), command_line) as server:
        label(server, 5)
    assert all(path.startswith("../photos/") for path in read_answers(csv)[0])
    report = plan_extraction(csv, backbone="pixels").run()
    with open_cache(report.cache) as cache:
        assert cache.table.count("ok") == 5
    with open_labelling(Wanted(str(folder), csv, options=PIXELS), command_line) as server:
        assert server.session.state()["n_labelled"] == 5


def test_images_that_are_no_files_are_refused(make_photos: MakePhotos, tmp_path: Path) -> None:
    import shutil

    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", make_photos(3))
    with pytest.raises(UsageError, match="unpack"), open_labelling(Wanted(packed, options=PIXELS), command_line):
        pass
    with pytest.raises(DataError, match="does not exist"), open_labelling(Wanted("nowhere"), command_line):
        pass
