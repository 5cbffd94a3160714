"""``tlfeat label --fix`` and ``--predict``: what is walked through, and that folders stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from conftest import MakePhotos, picture
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.labelling.answers import Answer, open_answers, read_answers
from tlfeat.labelling.start import Wanted
from tlfeat.labelling.start_walking import Voice, open_fixing, open_reviewing
from tlfeat.models.fit_sklearn import fit_sklearn

PIXELS = {"backbone": "pixels"}

VOICE = Voice(lambda *words: " ".join(map(str, words)))


def written(csv: str = "photos-labels.csv") -> dict[str, tuple[str, str]]:
    return {path.removeprefix("photos/"): (a.label, a.how) for path, a in read_answers(Path(csv))[0].items()}


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def doubtful(make_photos: MakePhotos) -> Path:
    """Photos with one picture under two labels and a copy of another one."""
    folder = make_photos(12)
    (folder / "dog" / "copy.png").write_bytes((folder / "cat" / "3.png").read_bytes())
    (folder / "dog" / "twin.png").write_bytes((folder / "dog" / "5.png").read_bytes())
    return folder


def test_doubts_are_answered_one_by_one_and_the_folder_stays(doubtful: Path) -> None:
    before = listing(doubtful)
    with open_fixing(Wanted(str(doubtful), options=PIXELS), VOICE) as server:
        session = server.session
        assert len(written()) == 26 and {how for _, how in written().values()} == {"folder"}
        question = session.question()["question"]
        assert question["path"] == "cat/3.png" and question["others"][0]["path"] == "dog/copy.png"
        reply = session.answer(question["id"], question["number"], "label", "cat")
        assert written()["cat/3.png"] == ("cat", "fix") and written()["dog/copy.png"] == ("cat", "fix, was dog")
        copies = reply["question"]
        while copies["why"] != "copy of a picture":
            copies = session.answer(copies["id"], copies["number"], "keep")["question"]
        session.answer(copies["id"], copies["number"], "bad")
        name = copies["path"]
        assert written()[name] == ("", "fix, bad, was dog")
        session.undo()
        assert written()[name] == ("dog", "folder")
        session.answer(copies["id"], copies["number"], "bad")
        while (left := session.question()["question"]) is not None:
            session.answer(left["id"], left["number"], "keep")
        assert session.state()["n_left"] == 0
        found = server.finish()
        assert found["error"] == "" and "kept for that" in found["lines"][0]
    assert listing(doubtful) == before
    with open_fixing(Wanted(str(doubtful), options=PIXELS), VOICE) as server:
        left = server.session.question()
        # what has a label again may be doubted anew, but what was answered is not
        assert left["question"] is None or written()[left["question"]["path"]][1] == "folder"
    csv = plan_extraction("photos-labels.csv", backbone="pixels")
    assert len(csv.images) == 26 and sorted(set(csv.images.labels)) == ["", "cat", "dog"]


def test_answers_of_a_labelling_are_what_is_fixed(make_photos: MakePhotos) -> None:
    folder = make_photos(12)
    with open_answers(Path("photos-labels.csv")) as file:
        names = [f"photos/{c}/{i}.png" for c in ("cat", "dog") for i in range(12)]
        file.put({name: Answer(name, "owl" if "cat" in name else "newt", "t", "unsure") for name in names})
    with open_fixing(Wanted(str(folder), options=PIXELS), VOICE) as server:
        assert [c["name"] for c in server.session.state()["classes"]] == ["newt", "owl"]
    assert set(written().values()) == {("owl", "unsure"), ("newt", "unsure")}


def test_a_picture_that_a_hand_wrote_twice_is_asked_about_once(doubtful: Path) -> None:
    with open_fixing(Wanted(str(doubtful), options=PIXELS), VOICE) as server:
        n_left = server.session.state()["n_left"]
    with Path("photos-labels.csv").open("a") as file:
        file.write("photos/cat/3.png,cat,,folder\n")
    with open_fixing(Wanted(str(doubtful), options=PIXELS), VOICE) as server:
        question = server.session.question()["question"]
        assert question["path"] == "cat/3.png" and question["others"][0]["path"] == "dog/copy.png"
        assert server.session.state()["n_left"] == n_left


def test_without_a_label_there_is_nothing_to_fix(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    for i in range(3):
        picture(i).save(tmp_path / "loose" / f"{i}.png")
    with (
        pytest.raises(DataError, match="no labels to look through"),
        open_fixing(Wanted("loose", options=PIXELS), VOICE),
    ):
        pass


@pytest.fixture
def model(make_photos: MakePhotos) -> Path:
    job = plan_extraction(make_photos(30), backbone="pixels")
    with open_data(job.run().cache, seed=0) as data:
        return Path(fit_sklearn(data, "logreg").result.model).resolve()


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Six pictures like those that the model has learned, and five white ones."""
    folder = tmp_path / "new"
    folder.mkdir()
    for i in range(6):
        tint = Image.new("RGB", picture(0).size, (255, 0, 0) if i % 2 else (0, 0, 255))
        Image.blend(picture(500 + i), tint, 0.3).save(folder / f"{('cat', 'dog')[i % 2]}-{i}.png")
    for i in range(5):
        Image.new("RGB", (16, 12), (255 - i, 255, 255)).save(folder / f"white-{i}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_predictions_are_looked_through_least_sure_first(model: Path, new: Path) -> None:
    with open_reviewing(Wanted(str(new)), model, VOICE) as server:
        session = server.session
        assert [c["name"] for c in session.state()["classes"]] == ["cat", "dog"]
        shares, n = [], 0
        while (question := session.question()["question"]) is not None:
            if question["why"] == "group":
                session.answer(question["id"], question["number"], "keep")
                assert not Path("new-labels.csv").exists()  # only passed over
            elif question["suggestion"]:
                shares.append(question["probability"])
                session.answer(question["id"], question["number"], "label", question["suggestion"])
                n += 1
            else:
                session.answer(question["id"], question["number"], "unknown")
                n += 1
        assert n == 11 and shares == sorted(shares)
        found = server.finish()
        assert f"the model was right about {len(shares)}" in found["lines"][0]
    assert {how for _, how in written("new-labels.csv").values()} <= {"review", "review, unknown"}
    with open_reviewing(Wanted(str(new)), model, VOICE) as server:
        assert not any(
            q.why != "group" for q in [server.session.asker.next(server.session.facts(), _all_of(server))] if q
        )


def _all_of(server: object) -> set[int]:
    return set(server.session.facts().answers)  # type: ignore[attr-defined]


def test_a_group_of_unknown_pictures_becomes_a_class_with_one_key(model: Path, new: Path) -> None:
    with open_reviewing(Wanted(str(new)), model, VOICE) as server:
        session = server.session
        question = session.question()["question"]
        assert question["why"] == "group"
        new_class = next(choice for choice in question["choices"] if choice["key"] == "w")
        shown = {question["path"], *(other["path"] for other in question["others"])}
        session.answer(question["id"], question["number"], new_class["kind"], new_class["label"])
        labels = {path.removeprefix("new/"): label for path, (label, _) in written("new-labels.csv").items()}
        assert labels == dict.fromkeys(shown, new_class["label"])
        assert new_class["label"] in [c["name"] for c in session.state()["classes"]]
        items = session.grid({"cluster": "0"})["items"]
        assert items == []  # they have their label


def test_a_network_cannot_be_reviewed(tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        network = object()
        coverage = None

    monkeypatch.setattr("tlfeat.labelling.review.Model", lambda *_, **__: Network())
    with pytest.raises(UsageError, match="fit-keras"), open_reviewing(Wanted(str(new)), tmp_path, VOICE):
        pass
