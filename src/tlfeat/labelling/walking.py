"""Questions that are known from the beginning, asked one after another: what an audit doubts, or predictions."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from tlfeat.labelling.answers import Answer
from tlfeat.labelling.questions import Question
from tlfeat.labelling.session import Facts


@dataclass(slots=True)
class Walking:
    """Asks a list of questions in their order; an `Asker`.

    Attributes
    ----------
    mode : str
        "fix" or "review": what answers have for how they came about.
    questions : sequence of Question
    n_pictures : int
        Of the set; all are embedded.
    groups : sequence of collection of int
        Pictures that are shown together, by the `cluster` of a choice.
    """

    mode: str
    questions: Sequence[Question]
    n_pictures: int
    groups: Sequence[Collection[int]] = ()
    _passed: set[int] = field(default_factory=set)  # places of questions that ask for nothing any more

    @property
    def is_written(self) -> bool:
        """Whether "keep" is an answer of the picture; else the question is only passed over."""
        return self.mode == "fix"

    def next(self, facts: Facts, taken: Set[int]) -> Question | None:
        """Return the first question with a picture that is not taken."""
        for place, question in enumerate(self.questions):
            if place not in self._passed and any(number not in taken for number in question.numbers):
                return question
        return None

    def pass_over(self, question: Question) -> None:
        """Ask this question no more."""
        self._passed |= {place for place, other in enumerate(self.questions) if other == question}

    def dressed(self, question: Question, facts: Facts) -> Question:
        """Return the question with the label that its picture has by now."""
        answer = facts.answers.get(question.number)
        return replace(question, label=answer.label) if answer and answer.label else question

    def is_answered(self, answer: Answer) -> bool:
        """Whether it was answered here, and not only known from the folder."""
        return answer.source == self.mode

    def why_nothing(self) -> str:
        """Say that all is done."""
        return "There is nothing more to look at." if self.questions else "There is nothing to look at: no doubts."

    def heard(self, facts: Facts) -> None:
        """Nothing is learned here."""

    def state(self, facts: Facts) -> dict[str, Any]:
        """Return how many questions are left."""
        done = {number for number, answer in facts.answers.items() if self.is_answered(answer)}
        n_left = sum(
            place not in self._passed and not set(question.numbers) <= done
            for place, question in enumerate(self.questions)
        )
        return {
            "n_embedded": self.n_pictures,
            "n_skipped": 0,
            "extracting": "",
            "extraction_error": "",
            "n_left": n_left,
            "estimate": None,
            "is_until_reached": False,
        }

    def grid(self, facts: Facts, taken: Container[int], wanted: dict[str, str]) -> dict[str, Any]:
        """Return the pictures of a group, or those that were predicted to be of a class, the surest first."""
        if wanted.get("cluster", "").isdecimal() and int(wanted["cluster"]) < len(self.groups):
            numbers = [number for number in self.groups[int(wanted["cluster"])] if number not in taken]
            return {"label": "", "items": [{"number": number, "probability": None} for number in numbers]}
        label = wanted.get("label", "")
        found = [q for q in self.questions if q.suggestion == label and q.number not in taken and not q.together]
        found.sort(key=lambda question: -(question.probability or 0))
        return {"label": label, "items": [{"number": q.number, "probability": q.probability} for q in found[:24]]}

    def map(self, facts: Facts) -> dict[str, Any]:
        """There is none here."""
        return {"points": [], "note": "The map belongs to tlfeat label without --fix and --predict."}
