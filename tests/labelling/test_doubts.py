"""What an audit doubts becomes questions, each picture in one; the answers stand in a table of all pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from made_data import photo
from tlfeat.cache.store import open_cache
from tlfeat.extract.plan import plan_extraction
from tlfeat.labelling.answers import Answer, answered
from tlfeat.labelling.doubts import all_labels, doubts_of, notes_of
from tlfeat.labelling.questions import Choice, Question
from tlfeat.studies.audit import audit
from tlfeat.studies.findings import Audit, Finding, Group


def audit_with(findings: list[Finding], groups: list[Group], notes: list[str] | None = None) -> Audit:
    return Audit(Path("a.h5"), None, "pixels", 9, {}, groups, findings, notes or [])


def found(kind: str, path: str, label: str = "cat", score: float = 1.0, **more: str) -> Finding:
    return Finding(kind, path, label, "train", score, f"said of {path}", **more)  # type: ignore[arg-type]


def group(paths: str, labels: list[str], splits: list[str] | None = None) -> Group:
    return Group(1, list(paths), labels, splits or ["train"] * len(paths), "the same bytes")


# --- one question a picture ---------------------------------------------------------------------------------


def test_the_surest_is_asked_first_and_no_picture_twice() -> None:
    findings = [
        found("duplicate", "a", score=0.97),
        found("duplicate", "b", score=0.97),
        found("label", "a", suggestion="dog", score=0.1),
        found("label", "c", suggestion="dog", score=0.2),
        found("outlier", "c", score=9),
        found("outlier", "d", score=4),
        found("outlier", "e", score=5),
        found("conflict", "f", score=0.98),
        found("conflict", "g", label="dog", score=0.98),
    ]
    groups = [group("ab", ["cat", "cat"]), group("fg", ["cat", "dog"])]
    questions = doubts_of(audit_with(findings, groups), list("abcdefg"))
    assert [(q.why, q.numbers) for q in questions] == [
        ("two labels", [5, 6]),
        ("probably wrong label", [0, 1]),
        ("probably wrong label", [2]),
        ("outlier", [4]),
        ("outlier", [3]),
    ]


def test_a_doubted_label_may_be_kept_and_its_suggestion_accepted() -> None:
    (question,) = doubts_of(audit_with([found("label", "b", suggestion="dog", score=0.2)], []), ["a", "b"])
    assert question == Question(
        1,
        "probably wrong label",
        suggestion="dog",
        label="cat",
        text="said of b: which is right?",
        choices=[Choice("k", "keep cat", "keep")],
    )


def test_copies_with_the_same_doubted_label_share_the_answer() -> None:
    findings = [found("label", path, suggestion="dog") for path in "ba"] + [found("duplicate", path) for path in "abc"]
    (question, copy) = doubts_of(audit_with(findings, [group("abc", ["cat", "cat", ""])]), list("abc"))
    assert question.numbers == [1, 0]
    assert [(other.number, other.caption) for other in question.others] == [(0, "cat")]
    assert (copy.why, copy.numbers) == ("copy of a picture", [2])


# --- one picture under two labels ---------------------------------------------------------------------------


def conflict(labels: list[str], *more: Finding) -> Question:
    paths = "abcdefgh"[: len(labels)]
    findings = [found("conflict", path, label) for path, label in zip(paths, labels, strict=True) if label]
    questions = doubts_of(audit_with([*findings, *more], [group(paths, labels)]), list(paths))
    assert questions[0].why == "two labels"
    return questions[0]


def test_one_picture_under_two_labels_is_shown_side_by_side_and_has_one_answer() -> None:
    question = conflict(["cat", "dog"])
    assert (question.number, question.label) == (0, "cat")
    assert [(other.number, other.caption) for other in question.others] == [(1, "dog")]
    assert question.numbers == [0, 1]
    assert question.choices == [
        Choice(",", "cat", "label", "cat"),
        Choice(".", "dog", "label", "dog"),
        Choice("k", "keep all labels", "keep"),
    ]
    assert question.text == "one picture under 2 labels, cat and dog (the same bytes): which is right?"
    assert question.suggestion == ""


def test_the_label_of_most_copies_is_suggested_unless_heads_name_another() -> None:
    assert conflict(["cat", "dog", "dog"]).suggestion == "dog"
    assert conflict(["cat", "dog", "dog"], found("label", "b", "dog", suggestion="cat")).suggestion == "cat"
    assert conflict(["cat", "dog"], found("label", "a", suggestion="newt")).suggestion == ""


def test_many_labels_stand_side_by_side_and_copies_without_a_label_do_not() -> None:
    question = conflict(["cat", "cat", "dog", "", "eel"])
    assert question.numbers == [0, 2, 4, 1]
    assert [choice.key for choice in question.choices] == [",", ".", "", "k"]
    assert "3 labels, cat, dog and eel" in question.text


# --- copies and outliers ------------------------------------------------------------------------------------


def test_of_copies_one_stays_unasked_and_it_is_no_test_image() -> None:
    findings = [found("duplicate", path) for path in "abc"]
    groups = [group("abc", ["cat"] * 3, ["test", "train", "val"])]
    questions = doubts_of(audit_with([found("leak", "a"), *findings], groups), list("abc"))
    assert [(q.why, q.number) for q in questions] == [("test image seen in training", 0), ("copy of a picture", 2)]
    assert [[other.number for other in q.others] for q in questions] == [[1], [1]]
    assert questions[0].text.startswith("a test image that training has seen: the same picture as b (the same bytes)")
    assert questions[0].choices == [Choice("k", "keep cat", "keep")]
    assert questions[0].suggestion == ""


def test_what_is_like_an_original_is_said_of_it_alone() -> None:
    groups = [group("abc", ["cat"] * 3)]
    findings = [found("duplicate", "b", other="a"), found("duplicate", "c", other="b")]
    one, other = doubts_of(audit_with(findings, groups), list("abc"))
    assert "the same picture as a (said of b)" in one.text
    assert "the same picture as a (the same bytes)" in other.text


def test_an_outlier_without_a_label_may_be_kept() -> None:
    (question,) = doubts_of(audit_with([found("outlier", "a", label="")], []), ["a"])
    assert question.choices == [Choice("k", "keep", "keep")]
    assert question.text == "said of a: keep it, or leave it out as bad?"


def test_copies_of_an_outlier_that_were_asked_about_are_not_asked_again() -> None:
    findings = [found("duplicate", "a"), found("duplicate", "b"), found("outlier", "a", score=8)]
    questions = doubts_of(audit_with(findings, [group("ab", ["cat", "cat"])]), ["a", "b"])
    assert [q.numbers for q in questions] == [[1], [0]]


def test_pictures_that_have_gone_are_not_asked_about() -> None:
    findings = [found("conflict", "a"), found("conflict", "b", "dog"), found("outlier", "c")]
    groups = [group("ab", ["cat", "dog"])]
    assert doubts_of(audit_with(findings, groups), ["a", "d"]) == []
    copies = [found("duplicate", path) for path in "abc"]
    questions = doubts_of(audit_with(copies, [group("abc", ["cat"] * 3)]), ["c", "b"])
    assert [(q.number, q.others[0].number) for q in questions] == [(0, 1)]


def test_what_is_said_of_the_whole_set_is_a_note() -> None:
    findings = [found("imbalance", ""), found("outlier", "a")]
    whole = audit_with(findings, [], ["not looked for"])
    assert notes_of(whole) == ["not looked for", "said of "]
    assert len(doubts_of(whole, ["a"])) == 1


# --- the labels after the answers ---------------------------------------------------------------------------


def test_the_table_has_all_pictures_with_old_or_new_labels() -> None:
    old = Answer("b", "cat", how="folder")
    answers = {
        "b": answered("b", "dog", "fix", before=old),
        "c": answered("c", "", "fix", "bad", before=replace(old, path="c")),
        "gone": Answer("gone", "cat"),
    }
    lines = all_labels(["a", "b", "c", "d"], ["cat", "cat", "cat", ""], answers)
    assert [(path, line.path, line.label, line.how) for path, line in lines.items()] == [
        ("a", "a", "cat", "folder"),
        ("b", "b", "dog", "fix, was cat"),
        ("c", "c", "", "fix, bad, was cat"),
        ("d", "d", "", "folder"),
    ]
    assert not lines["d"].is_answer


# --- a real audit -------------------------------------------------------------------------------------------


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """Reddish and bluish pictures: one in the wrong folder, one in both, one twice."""
    root = tmp_path / "doubtful"
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (root / name).mkdir(parents=True)
        for i in range(40):
            image = photo(100 * (name == "red") + i)
            Image.blend(image, Image.new("RGB", image.size, colour), 0.6).save(root / name / f"{i}.png")
    shutil.move(root / "red" / "0.png", root / "blue" / "wrong.png")
    shutil.copy(root / "red" / "1.png", root / "blue" / "both.png")
    shutil.copy(root / "red" / "2.png", root / "red" / "twice.png")
    return root


def test_every_planted_fault_is_one_question(doubtful: Path) -> None:
    job = plan_extraction(doubtful, backbone="pixels")
    with open_cache(job.run().cache) as cache:
        questions = doubts_of(audit(cache), job.images.paths)
    said = [(q.why, sorted(job.images.paths[i] for i in q.numbers), q.suggestion) for q in questions]
    assert [each for each in said if each[0] != "outlier"] == [
        ("two labels", ["blue/both.png", "red/1.png"], "red"),
        ("probably wrong label", ["blue/wrong.png"], "red"),
        ("copy of a picture", ["red/twice.png"], ""),
    ]
