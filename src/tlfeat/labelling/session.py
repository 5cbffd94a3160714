"""One labelling: what is asked, what was answered, what can be taken back. Any thread may call it.

It knows nothing of HTTP, and not how a question is chosen: that is for an `Asker`, one for each mode.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Container, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tlfeat.errors import DataError
from tlfeat.labelling.answers import Answer, AnswerFile, answered, checked_label
from tlfeat.labelling.pictures import Pictures
from tlfeat.labelling.questions import Question
from tlfeat.text import one_line

#: Of classes, in their order; the letters of other keys of the page are left out.
CLASS_KEYS = "123456789abdefijlopqrstvyz"

#: Answered pictures that the page may go back to.
_N_HISTORY = 200


class Conflict(DataError):
    """An answer to a question that is open no more: another window has answered it, or its picture has gone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the pictures at one moment.

    Attributes
    ----------
    classes : list of str
    answers : dict of int to Answer
        By the number of the picture.
    """

    classes: list[str]
    answers: dict[int, Answer]


class Asker(Protocol):
    """Decides what is asked next."""

    mode: str

    @property
    def is_written(self) -> bool:
        """Whether "keep" is written down as an answer; else it only passes a question over."""

    def pass_over(self, question: Question) -> None:
        """Ask this question no more."""

    def next(self, facts: Facts, taken: Set[int]) -> Question | None:
        """Return a question about a picture that is not taken."""

    def dressed(self, question: Question, facts: Facts) -> Question:
        """Return a question with what is supposed by now."""

    def is_answered(self, answer: Answer) -> bool:
        """Whether a picture with this answer need not be asked about."""

    def why_nothing(self) -> str:
        """Say why there is no question; "" only while one may still come."""

    def heard(self, facts: Facts) -> None:
        """Take notice of other answers than before."""

    def state(self, facts: Facts) -> dict[str, Any]:
        """Return what the page shows beside the counts."""

    def grid(self, facts: Facts, taken: Container[int], wanted: dict[str, str]) -> dict[str, Any]:
        """Return pictures that are likely of one class, or of one cluster."""

    def map(self, facts: Facts) -> dict[str, Any]:
        """Return points of pictures."""


@dataclass(slots=True)
class _Step:
    """What one answer changed, to take it back."""

    id: int
    question: Question
    before: dict[str, Answer | None]


@dataclass(slots=True)
class Session:
    """One labelling.

    Attributes
    ----------
    pictures : Pictures
    file : AnswerFile
        Open.
    asker : Asker
    classes : list of str
        In the order of their keys.
    """

    pictures: Pictures
    file: AnswerFile
    asker: Asker
    classes: list[str] = field(default_factory=list)
    until: float | None = None
    notes: list[str] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _open: dict[int, Question] = field(default_factory=dict)  # handed out one after another, the current one first
    _looked: dict[int, Question] = field(default_factory=dict)  # that the person went back to
    _steps: list[_Step] = field(default_factory=list)
    _last: dict[int, tuple[int, str, str]] = field(default_factory=dict)  # of closed questions: number, kind, label
    _n_ids: int = 0
    _answers: dict[int, Answer] = field(default_factory=dict)
    _answers_of: dict[str, Answer] | None = None

    def __post_init__(self) -> None:
        self._learn_classes()
        for number, answer in self.facts().answers.items():
            if self.asker.is_answered(answer) and self.asker.mode != "fix":  # there each has a label to go back to
                question = Question(number, answer.source, label=answer.label)
                self._steps.append(_Step(self._new_id(), question, {answer.path: None}))
        self.asker.heard(self.facts())

    def _new_id(self) -> int:
        self._n_ids += 1
        return self._n_ids

    def _learn_classes(self) -> None:
        known = set(self.classes)
        for answer in self.file.answers.values():
            if answer.label and answer.label not in known:
                self.classes.append(answer.label)
                known.add(answer.label)

    def facts(self) -> Facts:
        """Return what is known now."""
        with self._lock:
            if self._answers_of is not self.file.answers:  # a new one after every change
                found = ((self.pictures.number(path), answer) for path, answer in self.file.answers.items())
                self._answers = {n: answer for n, answer in found if n is not None and answer.is_answer}
                self._answers_of = self.file.answers
            return Facts([*self.classes], self._answers)

    # --- questions --------------------------------------------------------------------------------------

    def question(self, after: int | None = None) -> dict[str, Any]:
        """Return the current question, or the one after that with the id `after`."""
        with self._lock:
            found = next((i for i in self._open if after is None or i > after), None)
            if found is None:
                facts = self.facts()
                new = self.asker.next(facts, self._taken_by_answers().union(*(q.numbers for q in self._open.values())))
                if new is None:
                    return {"question": None, "why": self.asker.why_nothing()}
                found = self._new_id()
                self._open[found] = new
            return {"question": self._shown(found, self._open[found])}

    def question_of(self, number: int) -> dict[str, Any]:
        """Return a question about one picture, whatever was said of it."""
        with self._lock:
            if not 0 <= number < len(self.pictures):
                raise Conflict("There is no such picture.")
            answer = self.facts().answers.get(number)
            why = answer.source if answer else next((q.why for q in self._open.values() if q.number == number), "map")
            label = answer.label or answer.kind if answer else ""
            new = self._new_id()
            self._looked[new] = Question(number, why, label=label)
            return {"question": self._shown(new, self._looked[new])}

    def _shown(self, question_id: int, question: Question) -> dict[str, Any]:
        dressed = self.asker.dressed(question, self.facts())
        paths = self.pictures.images.paths
        others = [{**asdict(other), "path": one_line(paths[other.number])} for other in dressed.others]
        return {**asdict(dressed), "id": question_id, "path": one_line(paths[question.number]), "others": others}

    # --- answers ----------------------------------------------------------------------------------------

    def answer(self, question_id: int, number: int, kind: str, label: str = "") -> dict[str, Any]:
        """Take an answer, which is on the disk afterwards, and return the state and the next question.

        Parameters
        ----------
        question_id, number : int
            As the question had them.
        kind : str
            "label", "unknown", "bad" or "keep".
        label : str
            Of the kind "label"; a new one is a new class.

        Raises
        ------
        Conflict
            The question is open no more, unless by this very answer.
        DataError
            The answer is none, or cannot be written: it is not taken, and may be given again.
        """
        with self._lock:
            if kind not in ("label", "unknown", "bad", "keep"):
                raise DataError("An answer is a label, unknown, bad or keep.")
            label = checked_label(label) if kind == "label" else ""
            if self._last.get(question_id) != (number, kind, label):
                question = self._open.get(question_id) or self._looked.get(question_id)
                if question is None or question.number != number:
                    raise Conflict("That question is open no more; here is the current one.")
                if kind == "keep" and not self.asker.is_written:
                    self.asker.pass_over(question)
                    self._open.pop(question_id, None)
                else:
                    self._write(question_id, question, question.numbers, kind, label)
                self._last[question_id] = (number, kind, label)
            return self.after()

    def answer_all(self, label: str, numbers: Sequence[int], how: str = "grid") -> dict[str, Any]:
        """Give many pictures one label, in one step."""
        with self._lock:
            label, known = checked_label(label), self._taken_by_answers()
            wanted = [number for number in dict.fromkeys(numbers) if number not in known]
            if any(not 0 <= number < len(self.pictures) for number in wanted):
                raise Conflict("There is no such picture.")
            if wanted:
                question = Question(wanted[0], how, together=wanted[1:])
                self._write(self._new_id(), question, wanted, "label", label)
            return self.after()

    def _taken_by_answers(self) -> set[int]:
        return {number for number, answer in self.facts().answers.items() if self.asker.is_answered(answer)}

    def _write(self, question_id: int, question: Question, numbers: Sequence[int], kind: str, label: str) -> None:
        self.file.read()
        changes: dict[str, Answer | None] = {}
        before: dict[str, Answer | None] = {}
        how = question.why if self.asker.mode == "label" else self.asker.mode
        for path in map(self.pictures.in_csv, numbers):
            old = self.file.answers.get(path)
            said = (old.label if old else "") if kind == "keep" else label
            changes[path] = answered(path, said, how, "label" if kind == "keep" else kind, old)
            before[path] = old
        self.file.put(changes)
        self._steps.append(_Step(question_id, question, before))
        self._looked.pop(question_id, None)
        self._open.pop(question_id, None)
        done = set(numbers)
        self._open = {i: other for i, other in self._open.items() if not done >= set(other.numbers)}
        self._tell()

    def undo(self) -> dict[str, Any]:
        """Take the last answer back; its question is the current one again."""
        with self._lock:
            if self._steps:
                step = self._steps[-1]
                self.file.put(step.before)
                self._steps.pop()
                self._last.pop(step.id, None)
                self._open = dict(sorted({**self._open, step.id: step.question}.items()))
                if len(step.question.numbers) > 1 and step.question.why == "grid":
                    del self._open[step.id]  # its pictures were in no question of their own
                self._tell()
            return self.after()

    def add_class(self, name: str) -> dict[str, Any]:
        """Add a class and return the state."""
        with self._lock:
            if (name := checked_label(name)) not in self.classes:
                self.classes.append(name)
            return self.state()

    def _tell(self) -> None:
        self._learn_classes()
        self.asker.heard(self.facts())

    # --- what the page shows ----------------------------------------------------------------------------

    def after(self) -> dict[str, Any]:
        """Return the state and the current question."""
        return {"state": self.state(), **self.question()}

    def state(self) -> dict[str, Any]:
        """Return the counts, the classes with their keys, and what the asker has to say."""
        with self._lock:
            self.file.read()
            self._learn_classes()
            facts = self.facts()
            kinds = Counter(answer.kind for answer in facts.answers.values())
            counts = Counter(answer.label for answer in facts.answers.values())
            keys = [*CLASS_KEYS, *[""] * len(self.classes)]
            return {
                "mode": self.asker.mode,
                "folder": one_line(self.pictures.images.name),
                "csv": one_line(str(self.pictures.csv)),
                "classes": [
                    {"name": name, "key": key, "n": counts[name]} for name, key in zip(self.classes, keys, strict=False)
                ],
                "n_pictures": len(self.pictures),
                "n_labelled": kinds["label"],
                "n_unknown": kinds["unknown"],
                "n_bad": kinds["bad"],
                "can_undo": bool(self._steps),
                "notes": [*self.notes, *self.file.notes],
                "until": self.until,
                **self.asker.state(facts),
            }

    def history(self) -> dict[str, Any]:
        """Return the pictures that were answered, the latest last."""
        with self._lock:
            numbers = dict.fromkeys(step.question.number for step in reversed(self._steps))
            return {"numbers": [*numbers][:_N_HISTORY][::-1]}

    def grid(self, wanted: dict[str, str]) -> dict[str, Any]:
        """Return likely pictures of one class or cluster, as `Asker.grid`."""
        with self._lock:
            facts = self.facts()
            taken = self._taken_by_answers()
        found = self.asker.grid(facts, taken, wanted)
        for item in found["items"]:
            item["path"] = one_line(self.pictures.images.paths[item["number"]])
        return found

    def map(self) -> dict[str, Any]:
        """Return the points of `Asker.map`."""
        return self.asker.map(self.facts())
