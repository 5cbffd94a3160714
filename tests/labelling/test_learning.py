"""What is asked while a head learns: chosen pictures, and every fifth at random, which alone measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from tlfeat.labelling.answers import Answer
from tlfeat.labelling.learning import N_GRID, Learning
from tlfeat.labelling.order import pool_and_reserve, random_order
from tlfeat.labelling.pool import Pool
from tlfeat.labelling.questions import Question
from tlfeat.labelling.session import Facts

N, WIDTH = 300, 24

CLASSES = ["cat", "dog", "newt"]


def made_rows(seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Rows of three classes that overlap a little, and their labels."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, N)
    centres = 2.2 * rng.standard_normal((3, WIDTH))
    rows = (centres[codes] + rng.standard_normal((N, WIDTH)) * 1.6 + 4).astype(np.float32)
    return rows, [CLASSES[c] for c in codes]


@dataclass
class Labelled:
    """A labelling without a page: who is asked answers at once."""

    learning: Learning
    truth: list[str]
    answers: dict[int, Answer] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        return Facts(CLASSES, dict(self.answers))

    def label(self, n: int) -> None:
        for _ in range(n):
            question = self.learning.next(self.facts, self.answers.keys())
            assert question is not None
            self.asked.append(self.learning.dressed(question, self.facts))
            number = question.number
            assert number not in self.answers
            self.answers[number] = Answer(str(number), self.truth[number], "t", question.why)
            self.learning.learned = self.learning.learn(self.facts)

    def heard(self) -> None:
        self.learning.heard(self.facts)


@pytest.fixture
def made() -> Iterator[Labelled]:
    rows, truth = made_rows()
    paths = [f"{i}.jpg" for i in range(N)]
    choosable, reserve = (part.tolist() for part in pool_and_reserve(random_order(paths)))
    pool = Pool(paths, [*reserve, *choosable])
    pool._append([(number, f"key {number}") for number in pool.wanted], rows[pool.wanted])
    learning = Learning(pool, choosable, reserve, until=0.6)
    yield Labelled(learning, truth)
    learning.end()


def wait_for(is_so: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_every_fifth_is_the_next_of_the_reserve(made: Labelled) -> None:
    made.label(40)
    drawn = [question.number for question in made.asked if question.why == "random"]
    assert [i for i, question in enumerate(made.asked) if question.why == "random"] == list(range(0, 40, 5))
    assert drawn == made.learning.reserve[:8]
    others = {question.number for question in made.asked} - set(drawn)
    assert others <= set(made.learning.choosable)


def test_a_second_run_draws_on_where_the_first_stopped(made: Labelled) -> None:
    made.label(13)
    again = Learning(made.learning.pool, made.learning.choosable, made.learning.reserve)
    again.learned = again.learn(made.facts)
    whys = []
    for _ in range(4):
        question = again.next(made.facts, made.answers.keys())
        assert question is not None
        whys.append((question.why, question.number))
        made.answers[question.number] = Answer("", "cat", "t", question.why)
    again.end()
    assert [why == "random" for why, _ in whys] == [False, False, True, False]
    assert whys[2][1] == made.learning.reserve[3]


def test_typical_first_and_then_unsure(made: Labelled) -> None:
    made.label(60)
    whys = [question.why for question in made.asked if question.why != "random"]
    assert whys[0] == "typical" and whys[-1] == "unsure"
    learned = made.learning.learned
    assert learned.chooser is not None
    chances = learned.chooser.probabilities(learned.look.rows)
    margins = np.diff(np.sort(chances, axis=1)[:, -2:], axis=1)[:, 0]
    left = [n for n in made.learning.choosable if n not in made.answers]
    least = sorted(left, key=lambda number: margins[learned.place_of[number]])
    assert [question.number for question in learned.chosen[:4]] == least[:4]


def test_suggestions_become_right_and_none_is_made_where_it_would_bias(made: Labelled) -> None:
    made.label(60)
    assert all(not question.suggestion and not question.top for question in made.asked if question.why == "random")
    left = [n for n in made.learning.choosable if n not in made.answers]
    shown = [made.learning.dressed(Question(n, "unsure"), made.facts) for n in left]
    assert np.mean([question.suggestion == made.truth[question.number] for question in shown]) > 0.9
    one = shown[0]
    assert one.top[0] == (one.suggestion, one.probability) and len(one.top) == 3
    assert sum(share for _, share in one.top) == pytest.approx(1, abs=1e-3)


def test_the_estimate_is_of_random_pictures_alone(made: Labelled) -> None:
    made.label(61)
    found = made.learning.state(made.facts)["estimate"]
    assert found["n"] == 13
    assert found["interval"][0] < found["accuracy"] <= 1 and found["right"] == round(13 * found["accuracy"])
    assert made.learning.state(made.facts)["is_until_reached"] == (found["interval"][0] >= 0.6)
    before = made.learning.learned.estimate
    made.label(1)
    assert made.learning.learned.estimate is before  # no random picture more: nothing to measure
    wrong = {n: Answer(a.path, "newt" if a.label == "cat" else "cat", "t", a.how) for n, a in made.answers.items()}
    lied = Facts(CLASSES, {n: wrong[n] if a.is_random else a for n, a in made.answers.items()})
    measured = made.learning.learn(lied).estimate
    assert measured is not None and measured.right < found["right"]


def test_what_measures_does_not_decide_what_is_asked(made: Labelled) -> None:
    made.label(61)
    fresh = type(made.learning.learned)()
    whole, other = made.facts, {n: a for n, a in made.answers.items() if not a.is_random}
    lied = {n: Answer(a.path, "newt", "t", a.how) if a.is_random else a for n, a in made.answers.items()}
    found = []
    for answers in (whole.answers, lied, other):
        made.learning.learned = fresh
        found.append(made.learning.learn(Facts(CLASSES, answers)))
    chosen = [[(question.number, question.why) for question in one.chosen] for one in found]
    assert chosen[0] == chosen[1] == chosen[2]
    assert np.abs(found[0].probabilities - found[1].probabilities).max() > 0.1  # suggestions do learn


def test_what_was_answered_without_a_label_is_not_asked_again(made: Labelled) -> None:
    made.label(2)
    number = made.asked[1].number
    made.answers[number] = Answer("", "", "t", "typical, unknown")
    made.label(50)
    assert number not in [question.number for question in made.asked[2:]]
    state = made.learning.state(made.facts)
    assert state["n_left"] == N - 52


def test_the_grid_has_the_surest_and_none_that_measures(made: Labelled) -> None:
    made.label(60)
    grid = made.learning.grid(made.facts, made.answers.keys(), {"label": "dog"})
    shares = [item["probability"] for item in grid["items"]]
    assert len(shares) == N_GRID and shares == sorted(shares, reverse=True) and shares[-1] > 0.4
    numbers = {item["number"] for item in grid["items"]}
    assert not numbers & (set(made.learning.reserve) | made.answers.keys())
    assert np.mean([made.truth[n] == "dog" for n in numbers]) > 0.9
    assert made.learning.grid(made.facts, (), {"label": "yeti"})["items"] == []


def test_a_copy_of_what_measures_is_not_asked_about(made: Labelled) -> None:
    pool, learning = made.learning.pool, made.learning
    twin = learning.choosable[0]
    pool.look.keys[pool.wanted.index(twin)] = f"key {learning.reserve[50]}"
    made.label(240 - 1)
    assert twin not in made.answers


def test_before_there_are_rows_pictures_are_asked_in_their_order() -> None:
    learning = Learning(Pool([str(i) for i in range(20)], list(range(20))), list(range(4, 20)), [0, 1, 2, 3])
    made = Labelled(learning, ["cat"] * 20)
    learning.pool.failures[5] = "no picture"
    made.label(7)
    assert [(q.why, q.number) for q in made.asked] == [
        ("random", 0), ("any", 4), ("any", 6), ("any", 7), ("any", 8), ("random", 1), ("any", 9),
    ]  # fmt: skip
    made.label(12)
    assert learning.next(made.facts, made.answers.keys()) is None
    assert learning.why_nothing()
    learning.end()


def test_one_class_alone_and_a_class_without_a_label(made: Labelled) -> None:
    made.truth[:] = ["dog"] * N
    made.label(12)
    assert made.learning.learned.probabilities[:, 1] == pytest.approx(1)
    question = made.learning.dressed(Question(made.learning.choosable[-1], "unsure"), made.facts)
    assert question.top == [("dog", 1.0)]


def test_it_learns_in_its_own_thread(made: Labelled) -> None:
    made.label(20)
    made.learning.learned = type(made.learning.learned)()
    made.heard()
    wait_for(lambda: made.learning.learned.chosen)
    model = made.learning.learned.model
    made.learning.more_rows()
    wait_for(lambda: made.learning.learned.model is not model)


def test_the_map_shows_what_is_known_and_supposed(made: Labelled) -> None:
    made.label(30)
    points = made.learning.map(made.facts)["points"]
    assert {point["number"] for point in points} == set(made.learning.choosable)
    known = [point for point in points if point["label"]]
    assert {point["number"] for point in known} == made.answers.keys() - set(made.learning.reserve)
    assert all(0 <= point["x"] <= 1 and 0 <= point["y"] <= 1 and point["supposed"] in CLASSES for point in points)
