"""An asker for tests of labelling that needs no rows."""

from __future__ import annotations

from collections.abc import Container, Set
from typing import Any

from tlfeat.labelling.answers import Answer
from tlfeat.labelling.questions import Question
from tlfeat.labelling.session import Facts


class InOrder:
    """Asks for one picture after another; supposes "dog" of each."""

    mode = "label"
    is_written = True

    def __init__(self, n: int, together: list[int] | None = None) -> None:
        self.n, self.together, self.heard_of = n, together or [], list[int]()

    def next(self, facts: Facts, taken: Set[int]) -> Question | None:
        free = [number for number in range(self.n) if number not in taken]
        return Question(free[0], "random" if free[0] % 5 == 0 else "unsure", together=self.together) if free else None

    def dressed(self, question: Question, facts: Facts) -> Question:
        return question

    def pass_over(self, question: Question) -> None:
        pass

    def is_answered(self, answer: Answer) -> bool:
        return answer.is_answer

    def why_nothing(self) -> str:
        return "all done"

    def heard(self, facts: Facts) -> None:
        self.heard_of.append(len(facts.answers))

    def state(self, facts: Facts) -> dict[str, Any]:
        return {}

    def grid(self, facts: Facts, taken: Container[int], wanted: dict[str, str]) -> dict[str, Any]:
        return {"label": wanted["label"], "items": [{"number": 3, "probability": 0.5}]}

    def map(self, facts: Facts) -> dict[str, Any]:
        return {"points": [], "note": ""}
