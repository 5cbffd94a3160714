"""There and back again: the choice without a label of the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from made_domains import CLASSES, made_task
from tlfeat.adapt import circular
from tlfeat.adapt.circular import circular_accuracy
from tlfeat.adapt.methods import Adapted, Fitter, find_methods
from tlfeat.types import Labels, Rows


class Says:
    """A head that gives each row the class of its first column."""

    classes_ = np.array(["ash", "birch", "elm"])
    n_features_in_ = 12

    def __init__(self, answers: Labels) -> None:
        self.answers = answers

    def predict_proba(self, rows: Rows) -> Rows:
        return np.eye(3)[self.answers[: len(rows)]]


def back(answers: Labels, method: str = "standardise") -> float:
    task, _ = made_task(120, 90)
    fitter = Fitter(task, "ridge")
    adapted = fitter.fit(find_methods(method)[-1])
    return circular_accuracy(fitter, replace(adapted, head=Says(answers)))


def test_true_names_come_back_right_and_wrong_ones_do_not() -> None:
    _, hidden = made_task(120, 90)
    wrong = np.random.default_rng(4).permutation(hidden)
    assert back(hidden) > 0.8
    assert back(wrong) < 0.6
    assert back((hidden + 1) % 3) < 0.15  # each class under another's name


def test_one_name_for_all_is_worth_nothing() -> None:
    assert back(np.full(90, 2)) == 0.0


def test_it_is_the_mean_over_sources_and_not_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of 20 images counts as much as one of 100; one of a single image is left out."""
    task, hidden = made_task(120, 90)
    domains = np.repeat(["few", "many", "one"], [20, 99, 1])
    task = replace(task, domains=domains)
    seen: list[tuple[str, float]] = []
    original = Fitter.fit

    def watched(self: Fitter, method, *rest):  # type: ignore[no-untyped-def]
        adapted: Adapted = original(self, method, *rest)
        if self.task.target_name != "scan":
            known = self.task.target
            own = task.labels[domains == self.task.target_name]
            named = [CLASSES.index(name) for name in adapted.head.predict(known)]
            seen.append((self.task.target_name, float((np.array(named) == own).mean())))
            assert self.task.source.shape == (90, 12) and set(self.task.domains) == {"scan"}
        return adapted

    fitter = Fitter(task, "ridge")
    adapted = fitter.fit(find_methods("none")[0])
    monkeypatch.setattr(Fitter, "fit", watched)
    found = circular_accuracy(fitter, replace(adapted, head=Says(np.where(np.arange(90) < 60, hidden, 0))))
    assert [name for name, _ in seen] == ["few", "many"]
    assert found == pytest.approx(np.mean([share for _, share in seen]))
    assert len({share for _, share in seen}) == 2


def test_the_way_back_searches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfeat.adapt import methods

    task, _ = made_task(120, 90)
    fitter = Fitter(task, "ridge")
    adapted = fitter.fit(find_methods("standardise+self")[1])
    monkeypatch.setattr(methods, "fit_head", lambda *_, **__: pytest.fail("it was searched"))
    assert circular_accuracy(fitter, adapted) > 0.8


def test_of_many_images_so_many_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circular, "MAX_IMAGES", 40)
    drawn = circular._some(np.arange(100, 200), 3)
    assert len(set(drawn.tolist())) == 40 and drawn.tolist() == sorted(drawn.tolist())
    assert drawn.min() >= 100 and drawn.tolist() != circular._some(np.arange(100, 200), 4).tolist()
    assert circular._some(np.arange(40), 3).tolist() == list(range(40))
    task, _ = made_task(120, 90)
    fitter = Fitter(task, "ridge")
    sizes: list[tuple[int, int]] = []
    original = Fitter.__init__

    def watched(self: Fitter, task, *rest):  # type: ignore[no-untyped-def]
        sizes.append((task.source.shape[0], task.target.shape[0]))
        original(self, task, *rest)

    monkeypatch.setattr(Fitter, "__init__", watched)
    adapted = fitter.fit(find_methods("standardise")[1])
    assert circular_accuracy(fitter, adapted) > 0.7
    assert sizes == [(40, 40), (40, 40)]
