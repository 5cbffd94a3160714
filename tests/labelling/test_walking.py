"""Walking through questions: an answer holds for all pictures of one, and what was answered is not asked again."""

from __future__ import annotations

from tlfeat.labelling.answers import Answer
from tlfeat.labelling.questions import Question
from tlfeat.labelling.session import Facts
from tlfeat.labelling.walking import Walking


def test_a_question_stays_until_all_of_its_pictures_are_answered() -> None:
    one, several = Question(3, "outlier"), Question(5, "conflict", together=[6, 7])
    assert several.numbers == [5, 6, 7]
    for done, left in (({3, 5, 6}, several), ({5, 6, 7}, one)):
        walking = Walking("fix", [one, several], 9)
        facts = Facts(
            [], {number: Answer("", "cat", how="fix") for number in done} | {8: Answer("", "cat", how="folder")}
        )
        assert walking.next(facts, done) == left
        assert walking.state(facts)["n_left"] == 1
        walking.pass_over(left)
        assert walking.next(facts, done) is None and walking.state(facts)["n_left"] == 0
