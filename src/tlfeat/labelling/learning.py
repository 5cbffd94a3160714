"""The head learns while a person labels: refitted in a thread after every answer, and swapped in when it is there."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlfeat.heads.blocks import steady_threads
from tlfeat.heads.learner import LinearModel
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.labelling.answers import Answer
from tlfeat.labelling.background import Extraction
from tlfeat.labelling.choose import ASKED, choose, codes_of
from tlfeat.labelling.order import is_random_turn
from tlfeat.labelling.pool import NOTHING, Look, Pool
from tlfeat.labelling.questions import Question
from tlfeat.labelling.session import Facts
from tlfeat.types import Labels

if TYPE_CHECKING:  # what measures comes when there is something to measure: the first picture does not wait for it
    from tlfeat.labelling.estimate import Estimate
    from tlfeat.labelling.label_map import LabelMap

#: Questions that are chosen in one go, spread over the pictures.
N_AHEAD = 10

#: After so many more random pictures it is said anew what twice the labels would bring: that takes long.
_DOUBLING_EVERY = 5

#: Pictures of a grid.
N_GRID = 24


@dataclass(frozen=True, slots=True)
class Learned:
    """What was made of the answers at one moment.

    Attributes
    ----------
    look : Look
        The rows that were there.
    classes : list of str
    model : LinearModel, optional
        None before the first label.
    probabilities : float array of shape (len(look), n_classes)
    place_of : dict of int to int
        Number of a picture to its place in `look`.
    chosen : list of Question
        What to ask next, the best first.
    estimate : Estimate, optional
        None before the first random picture has a label and a row.
    labels : int64 array of shape (len(look),)
        Classes; below 0 what `choose` has for pictures without one.
    drawn : list of (int, str)
        Random pictures and their labels, of which `estimate` was made.
    chooser : LinearModel, optional
        The head that chooses: it learned from no random picture.
    graph : Graph, optional
        Of the first rows; None before there are any.
    """

    look: Look = NOTHING
    classes: list[str] = field(default_factory=list)
    model: LinearModel | None = None
    probabilities: npt.NDArray[np.floating[Any]] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    place_of: dict[int, int] = field(default_factory=dict)
    chosen: list[Question] = field(default_factory=list)
    estimate: Estimate | None = None
    labels: Labels = field(default_factory=lambda: np.zeros(0, np.int64))
    drawn: list[tuple[int, str]] = field(default_factory=list)
    chooser: LinearModel | None = None
    graph: Graph | None = None

    def top(self, number: int, n: int = 3) -> list[tuple[str, float]]:
        """Return the most probable classes of a picture; none where there is nothing to go by."""
        place = self.place_of.get(number)
        if place is None or self.model is None:
            return []
        chances = self.probabilities[place]
        best = np.argsort(-chances, kind="stable")[:n].tolist()
        return [(self.classes[k], round(float(chances[k]), 4)) for k in best if chances[k] > 0]


class Learning:
    """Asks what is typical, then what is unsure, and every fifth time at random; an `Asker`.

    Parameters
    ----------
    pool : Pool
    choosable, reserve : sequence of int
        Numbers of the pictures that are chosen among, and of those that are drawn at random, in order.
    extraction : Extraction, optional
    until : float, optional
        Share of pictures to be right, at the lower end of the interval.
    """

    mode = "label"
    is_written = True

    def __init__(
        self,
        pool: Pool,
        choosable: Sequence[int],
        reserve: Sequence[int],
        *,
        extraction: Extraction | None = None,
        until: float | None = None,
        seed: int = 0,
    ) -> None:
        self.pool, self.choosable, self.reserve = pool, list(choosable), list(reserve)
        self.extraction, self.until, self.seed = extraction, until, seed
        self.learned = Learned()
        self._reserved = frozenset(self.reserve)
        self._askable = self._reserved | frozenset(self.choosable)
        self._facts: Facts | None = None
        self._news = threading.Condition()
        self._has_news = self._is_ended = False
        self._map: LabelMap | None = None
        self._thread = threading.Thread(target=self._learn_on, name="learning", daemon=True)
        self._thread.start()

    # --- in its own thread ------------------------------------------------------------------------------

    def heard(self, facts: Facts) -> None:
        """Take notice of answers."""
        with self._news:
            self._facts, self._has_news = facts, True
            self._news.notify()

    def more_rows(self) -> None:
        """Take notice of rows that have come."""
        with self._news:
            self._has_news = True
            self._news.notify()

    def end(self) -> None:
        """Stop learning."""
        with self._news:
            self._is_ended = True
            self._news.notify()
        self._thread.join()

    def _learn_on(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._has_news or self._is_ended)
                if self._is_ended:
                    return
                self._has_news, facts = False, self._facts
            if facts is not None:
                with steady_threads():  # BLAS's own would take the processor from the page
                    self.learned = self.learn(facts)

    def learn(self, facts: Facts) -> Learned:
        """Return what the answers tell by now; the last state is where it starts."""
        look, before = self.pool.look, self.learned
        if not len(look):
            return before
        place_of = before.place_of
        if before.look is not look:
            place_of = {number: place for place, number in enumerate(look.numbers.tolist())}
        class_of = {name: k for k, name in enumerate(facts.classes)}
        coded = {number: class_of.get(answer.label, ASKED) for number, answer in facts.answers.items()}
        drawn = {number for number, answer in facts.answers.items() if answer.is_random}
        labels, unheard = codes_of(look.numbers.tolist(), look.keys, coded, self._reserved | drawn)
        known = np.flatnonzero(labels >= 0)
        n_classes, graph = len(facts.classes), _graph_of(look, before.graph)
        model, chances = None, np.zeros((len(look), n_classes), np.float32)
        if len(known):
            model = fit_spread(graph, known, labels[known], n_classes, start=before.model)
            chances = model.probabilities(look.rows)
        found = replace(
            before,
            look=look,
            classes=facts.classes,
            model=model,
            probabilities=chances,
            place_of=place_of,
            labels=labels,
            graph=graph,
        )
        self.learned = found  # suggestions first: the rest takes longer
        return self._chosen(self._estimated(found, facts, graph), unheard, graph)

    def _estimated(self, found: Learned, facts: Facts, graph: Graph) -> Learned:
        """Return it with the accuracy, measured anew where other random pictures have answers, or other answers."""
        labelled = [(n, answer) for n, answer in facts.answers.items() if answer.label and n in found.place_of]
        drawn = [(number, answer.label) for number, answer in labelled if answer.is_random]
        if drawn == found.drawn:
            return found
        from tlfeat.labelling.estimate import estimate

        before = found.estimate if drawn[: len(found.drawn)] == found.drawn else None
        places = np.array([found.place_of[number] for number, _ in labelled], np.int64)  # in the order of the answers
        is_random = np.array([answer.is_random for _, answer in labelled], bool)
        is_due = before is None or before.doubling is None or len(drawn) % _DOUBLING_EVERY == 0
        labels, k = found.labels[places], len(found.classes)
        measured = estimate(graph, places, labels, is_random, k, before=before, has_doubling=is_due)
        return replace(found, estimate=measured, drawn=drawn)

    def _chosen(self, found: Learned, labels: Labels, graph: Graph) -> Learned:
        """Return it with what is asked next, by a head of these labels: those that measure are not among them."""
        known, chooser, chances = np.flatnonzero(labels >= 0), None, None
        if len(known):
            chooser = fit_spread(graph, known, labels[known], len(found.classes), start=found.chooser)
            chances = chooser.probabilities(found.look.rows)
        n_classes = max(len(found.classes), 2)
        choices = choose(found.look.rows, labels, chances, N_AHEAD, n_classes=n_classes, seed=self.seed)
        chosen = [Question(int(found.look.numbers[choice.place]), choice.why) for choice in choices]
        return replace(found, chosen=chosen, chooser=chooser)

    # --- asked by the session ---------------------------------------------------------------------------

    def next(self, facts: Facts, taken: Set[int]) -> Question | None:
        """Return the next question: every fifth at random, the others as chosen, in any order before there are rows."""
        free = self.pool.failures
        asked = [answer for answer in facts.answers.values() if answer.source in ("random", "typical", "unsure", "any")]
        opened = taken - facts.answers.keys()
        n_random = sum(answer.is_random for answer in asked) + len(opened & self._reserved)
        drawn = next((n for n in self.reserve if n not in taken and n not in free), None)
        if drawn is not None and is_random_turn(n_random, len(asked) + len(opened)):
            return Question(drawn, "random")
        chosen = next((q for q in self.learned.chosen if q.number not in taken), None)
        if chosen is not None:
            return chosen
        left = next((n for n in self.choosable if n not in taken and n not in free), None)
        if left is not None:
            return Question(left, "any")
        return None if drawn is None else Question(drawn, "random")

    def dressed(self, question: Question, facts: Facts) -> Question:
        """Return a question with a suggestion; one that measures has none, which would only be agreed to."""
        if question.why == "random":
            return question
        top = self.learned.top(question.number)
        if not top:
            return question
        return replace(question, top=top, suggestion=top[0][0], probability=top[0][1])

    def is_answered(self, answer: Answer) -> bool:
        """Every answer is one."""
        return answer.is_answer

    def pass_over(self, question: Question) -> None:
        """Every question is answered here."""

    def why_nothing(self) -> str:
        """Say that all is done."""
        return "Every picture that can be asked about has an answer."

    def state(self, facts: Facts) -> dict[str, Any]:
        """Return how far extraction is, and how good the head."""
        found, extraction = self.learned.estimate, self.extraction
        n_left = len(self._askable - facts.answers.keys() - self.pool.failures.keys())
        doing = ""
        if extraction is not None and not extraction.is_over:
            doing = extraction.doing
            if extraction.n_todo:
                doing += f" {extraction.n_done:,} of {extraction.n_todo:,}"
        return {
            "n_embedded": len(self.pool.look),
            "n_skipped": len(self.pool.failures),
            "extracting": doing,
            "extraction_error": extraction.error if extraction is not None else "",
            "n_left": n_left,
            "estimate": found and _in_json(found),
            "is_until_reached": self._is_reached(found),
        }

    def _is_reached(self, found: Estimate | None) -> bool:
        if found is None or self.until is None:
            return False
        from tlfeat.labelling.estimate import is_reached

        return is_reached(found, self.until)

    def grid(self, facts: Facts, taken: Container[int], wanted: dict[str, str]) -> dict[str, Any]:
        """Return the surest pictures of a class that nothing was said of; none that measures."""
        label, found = wanted.get("label", ""), self.learned
        items = []
        if label in found.classes and found.model is not None:
            k = found.classes.index(label)
            chances = found.probabilities[:, k]
            best = found.probabilities.argmax(axis=1) == k
            for place in np.argsort(-chances, kind="stable").tolist():
                number = int(found.look.numbers[place])
                if best[place] and number not in taken and number not in self._reserved:
                    items.append({"number": number, "probability": round(float(chances[place]), 4)})
                if len(items) == N_GRID:
                    break
        return {"label": label, "items": items}

    def map(self, facts: Facts) -> dict[str, Any]:
        """Return the points of the pictures that do not measure, what they are and what they are supposed to be."""
        found = self.learned
        shown = [i for i, n in enumerate(found.look.numbers.tolist()) if n not in self._reserved]
        from tlfeat.labelling.label_map import LabelMap

        self._map = self._map or LabelMap()
        points, note = self._map.points(found.look, shown)
        for point in points:
            answer, top = facts.answers.get(point["number"]), found.top(point["number"], 1)
            point["label"] = answer.label if answer else ""
            point["supposed"], point["probability"] = top[0] if top else ("", None)
        return {"points": points, "note": note}


def _graph_of(look: Look, before: Graph | None) -> Graph:
    """Return the graph of the rows that are there; the one before, unless a larger one is due."""
    if before is None or not before.is_enough_for(len(look)):
        return Graph(look.rows)
    before.rows = look.rows
    return before


def _in_json(found: Estimate) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        return None if value is None else [round(float(v), 4) for v in value] if isinstance(value, tuple) else value

    values: dict[str, Any] = {
        "n": int(found.n),
        "right": int(found.right),
        "accuracy": float(found.accuracy),
        "interval": rounded(found.interval),
        "doubling": found.doubling,
        "doubling_interval": rounded(found.doubling_interval),
    }
    return values
