"""Questions: an answer holds for all pictures of one, and what was answered is not asked again."""

from __future__ import annotations

from tlfeat.labelling.questions import GROUP_KEY, KEEP_KEY, OPEN_KEY, SIDE_KEYS, Question, unanswered

#: What the page does by itself.
KEYS_OF_THE_PAGE = {*"123456789uxgmhn? ", "Escape", "Backspace", "ArrowLeft", "ArrowRight"}


def test_no_choice_has_a_key_of_the_page() -> None:
    keys = [KEEP_KEY, GROUP_KEY, OPEN_KEY, *SIDE_KEYS]
    assert len(set(keys)) == 5
    assert KEYS_OF_THE_PAGE.isdisjoint(keys)


def test_a_question_stays_until_all_of_its_pictures_are_answered() -> None:
    one, several = Question(3, "outlier"), Question(5, "conflict", together=[6, 7])
    assert several.numbers == [5, 6, 7]
    assert unanswered([one, several], {3, 5, 6}) == [several]
    assert unanswered([one, several], {5, 6, 7}) == [one]
