"""What is asked about a picture: one record for every mode of ``tlfeat label``.

A picture is named by its number, its place in the set, never by its path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Keys of `Choice`: keep what is there; a group as a new class; the label of the left picture and of the right one; a
#: group picture by picture. No class has one of them.
KEEP_KEY, GROUP_KEY, SIDE_KEYS, OPEN_KEY = "k", "w", (",", "."), "c"


@dataclass(frozen=True, slots=True)
class Other:
    """A picture that is shown beside the one in question, and the words below it."""

    number: int
    caption: str


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer that only this question has.

    Attributes
    ----------
    key : str
        "" where there is none: then it is a button alone.
    name : str
        What the button says.
    kind : str
        "label", "unknown", "bad"; "keep", which leaves every label of the question as it is; or "cluster", which opens
        the pictures of a group.
    label : str
        Of the kind "label".
    cluster : int
        Of the kind "cluster": the place of the group.
    """

    key: str
    name: str
    kind: str
    label: str = ""
    cluster: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A picture, why it is asked about, and what is known and supposed of it.

    Attributes
    ----------
    number : int
        Its place in the paths of the set.
    why : str
        "random", "typical", "unsure", or in words.
    suggestion : str
        The label that one key accepts, "" for none.
    probability : float, optional
        Of the suggestion.
    top : list of (label, probability)
        The most probable labels, falling.
    others : list of Other
        Shown beside it.
    label : str
        What it is called now, "" for nothing.
    text : str
        The question in words, where it is more than "what is this?".
    choices : list of Choice
    together : list of int
        Further pictures that the answer holds for.
    """

    number: int
    why: str
    suggestion: str = ""
    probability: float | None = None
    top: list[tuple[str, float]] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    label: str = ""
    text: str = ""
    choices: list[Choice] = field(default_factory=list)
    together: list[int] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """All pictures that the answer holds for."""
        return [self.number, *self.together]
