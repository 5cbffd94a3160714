"""Questions: their keys."""

from __future__ import annotations

from tlfeat.labelling.questions import GROUP_KEY, KEEP_KEY, OPEN_KEY, SIDE_KEYS

#: What the page does by itself.
KEYS_OF_THE_PAGE = {*"123456789uxgmhn? ", "Escape", "Backspace", "ArrowLeft", "ArrowRight"}


def test_no_choice_has_a_key_of_the_page() -> None:
    keys = [KEEP_KEY, GROUP_KEY, OPEN_KEY, *SIDE_KEYS]
    assert len(set(keys)) == 5
    assert KEYS_OF_THE_PAGE.isdisjoint(keys)
