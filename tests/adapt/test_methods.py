"""Methods of adaptation on made domains: what each brings, what none may cost, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from made_domains import CLASSES, made_task
from tlfeat.adapt.circular import circular_accuracy
from tlfeat.adapt.methods import METHODS, Fitter, Method, evenness, find_methods, probabilities_of, surest
from tlfeat.adapt.task import Stacked, Task
from tlfeat.errors import UsageError
from tlfeat.heads.saved import load_head, save_head
from tlfeat.heads.table import find_head
from tlfeat.types import Labels, Probabilities

NAMES = [method.name for method in METHODS]


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def accuracies(task: Task, hidden: Labels, head: str = "ridge") -> tuple[dict[str, float], dict[str, float]]:
    """Return the accuracy of every method on the target, and there and back."""
    fitter = Fitter(task, head)
    found, back = {}, {}
    for method in METHODS:
        adapted = fitter.fit(method)
        found[method.name] = accuracy(probabilities_of(adapted.head, task.target, CLASSES), hidden)
        back[method.name] = circular_accuracy(fitter, adapted)
    return found, back


def test_where_a_domain_is_shifted_and_scaled_its_own_statistics_win_by_far_and_are_chosen() -> None:
    found, back = accuracies(*made_task())
    assert found["none"] < 0.65
    for name in ("standardise", "standardise+self", "standardise+self-share"):
        assert found[name] > found["none"] + 0.2 and back[name] > back["none"] + 0.2, name
    assert found["standardise+self"] > found["standardise"]
    choosable = [method.name for method in METHODS if method.is_choosable]
    assert found[max(choosable, key=lambda name: back[name])] > found["none"] + 0.2


def test_where_domains_are_alike_no_method_costs_more_than_noise() -> None:
    found, back = accuracies(*made_task(far=0.0))
    assert found["none"] > 0.9 and back["none"] > 0.9
    assert min(found.values()) > found["none"] - 0.05


def test_what_matches_covariances_is_never_chosen() -> None:
    assert {method.name for method in METHODS if not method.is_choosable} == {"coral", "linear-ot", "subspace"}


def test_the_same_task_is_adapted_to_the_same_bits() -> None:
    task, _ = made_task(80, 60)
    method = find_methods("standardise+self")[1]
    one, other = (Fitter(task, "ridge").fit(method).head.predict_proba(task.target) for _ in range(2))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_that_was_adapted_takes_rows_as_they_are_and_loads_without_trust(name: str, tmp_path: Path) -> None:
    task, _ = made_task(80, 60)
    (method,) = [each for each in METHODS if each.name == name]
    head = Fitter(task, "ridge").fit(method).head
    assert head.n_features_in_ == task.target.shape[1]
    save_head(head, tmp_path)
    assert np.array_equal(load_head(tmp_path).predict_proba(task.target), head.predict_proba(task.target))


@pytest.mark.parametrize("head", ["lda", "knn"])
def test_other_heads_are_adapted_too(head: str) -> None:
    task, hidden = made_task(120, 90)
    fitter = Fitter(task, find_head(head))
    none, standardised = (fitter.fit(method).head.predict_proba(task.target) for method in find_methods("standardise"))
    assert accuracy(standardised, hidden) > accuracy(none, hidden) + 0.15


def test_rows_without_negative_values_get_their_square_root() -> None:
    task, _ = made_task(120, 90)
    source, target = (np.square(rows).astype(np.float32) for rows in (task.source, task.target))
    squared = replace(task, source=source, target=target, is_signed=False)
    assert (squared.mapping, task.mapping) == ("root-l2", "signed root-l2")
    head = Fitter(squared).fit(find_methods("standardise")[1]).head
    step = head.named_steps["adapt_root"]
    np.testing.assert_array_equal(step.transform(squared.target), np.sqrt(squared.target))
    mapped = head[:2].transform(squared.target)
    np.testing.assert_allclose(mapped, squared.mapped_by_row(squared.target)[0:90], rtol=1e-5)


def test_of_many_blocks_the_same_is_found_whatever_the_order_of_the_rows() -> None:
    """More than two blocks of 1,024 rows on a side."""
    task, hidden = made_task(2300, 2100, far=0.6)
    method = find_methods("standardise")[1]
    head = Fitter(task, "ridge").fit(method).head
    order = np.random.default_rng(2).permutation(2100)
    shuffled = Fitter(replace(task, target=task.target[order]), "ridge").fit(method).head
    np.testing.assert_allclose(shuffled.predict_proba(task.target), head.predict_proba(task.target), atol=1e-4)
    assert accuracy(head.predict_proba(task.target), hidden) > 0.85


def test_classes_that_nothing_was_learned_of_are_never_named() -> None:
    task, _ = made_task(120, 90)
    kept = task.labels != 1
    less = replace(
        task,
        source=task.source[kept],
        labels=task.labels[kept],
        domains=task.domains[kept],
        groups=task.groups[kept],
    )
    for method in (find_methods("standardise+self-share")[1], find_methods("prior")[1]):
        adapted = Fitter(less, "ridge").fit(method)
        assert adapted.head.classes_.tolist() == ["ash", "elm"]
        assert (probabilities_of(adapted.head, task.target, CLASSES)[:, 1] == 0).all()
        assert adapted.priors is None or adapted.priors[1] == 0


# --- choosing images to train on ------------------------------------------------------------------------------

ANSWERS = np.array(
    [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.8, 0.0]]
)


def test_of_each_class_an_equal_part_takes_part_at_most() -> None:
    at, named = surest(ANSWERS, 0.75, "equal")  # 0.75 of 6 images, a third of it a class: 1.5, so 2 at most
    assert at.tolist() == [0, 2, 5] and named.tolist() == [0, 0, 1]
    at, named = surest(ANSWERS, 0.5, "equal")
    assert at.tolist() == [0, 5] and named.tolist() == [0, 1]


def test_of_each_class_the_same_share_takes_part() -> None:
    at, named = surest(ANSWERS, 0.5, "share")  # of 5 images 3, of 1 image 1, of none 0
    assert at.tolist() == [0, 2, 3, 5] and named.tolist() == [0, 0, 0, 1]
    at, named = surest(ANSWERS, 1.0, "share")
    assert at.tolist() == [0, 1, 2, 3, 4, 5] and named.tolist() == [0, 0, 0, 0, 0, 1]


def test_self_training_takes_more_in_each_round_and_all_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfeat.adapt import methods

    seen: list[tuple[int, float, float]] = []
    original = methods.refit

    def watched(name, rows, labels, names, like, *, seed=0, image_weights=None):  # type: ignore[no-untyped-def]
        seen.append((len(rows), float(image_weights[0]), float(image_weights[-1])))
        return original(name, rows, labels, names, like, seed=seed, image_weights=image_weights)

    monkeypatch.setattr(methods, "refit", watched)
    task, _ = made_task(120, 80)
    Fitter(task, "ridge").fit(find_methods("standardise+self-share")[1])
    n_new = [n - 120 for n, _, _ in seen]
    assert len(n_new) == 4 and n_new == sorted(n_new) and n_new[0] < 25 and n_new[-1] == 80
    assert {(one, new) for _, one, new in seen} == {(1.0, 1.5)}  # all of the target counts as much as the source


# --- names, and labels after all ------------------------------------------------------------------------------


def test_methods_come_in_the_order_of_the_table_with_none_among_them() -> None:
    assert [method.name for method in find_methods(" self, coral")] == ["none", "coral", "self"]
    assert [method.name for method in find_methods("all")] == NAMES
    assert [method.name for method in find_methods("none")] == ["none"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("standardize", "No method 'standardize'. .*standardise"), (" ,", "--methods wants names such as all, or none, ")],
)
def test_other_names_are_refused_with_the_nearest(asked: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_methods(asked)


def test_labels_of_the_target_count_as_much_as_the_sources() -> None:
    task, hidden = made_task(120, 90)
    fitter = Fitter(task)
    at = np.concatenate([np.flatnonzero(hidden == label)[:5] for label in range(3)])
    head = fitter.fit_with_labels(Method("none"), at, hidden[at])
    none = fitter.source_head()
    better = accuracy(head.predict_proba(task.target), hidden)
    assert better > accuracy(none.predict_proba(task.target), hidden) + 0.15
    known = fitter._known(fitter._of_map(None, lambda *_: None), at, hidden[at])
    assert known.weights[:120].sum() == known.weights[120:].sum() == 120


def test_images_whose_labels_are_known_are_not_named_by_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfeat.adapt import methods

    seen: list[int] = []
    original = methods.surest

    def watched(probabilities: Probabilities, share: float, quota: str) -> tuple[Labels, Labels]:
        seen.append(len(probabilities))
        return original(probabilities, share, quota)

    monkeypatch.setattr(methods, "surest", watched)
    task, hidden = made_task(120, 90)
    at = np.array([3, 40, 41, 77, 80, 9])
    Fitter(task, "ridge").fit_with_labels(find_methods("standardise+self")[1], at, hidden[at])
    assert seen == [84] * 4


# --- rows one above the other ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [slice(0, 3), slice(2, 6), slice(4, 9), slice(5, 5), slice(8, 20), slice(None)])
def test_stacked_rows_are_read_as_if_they_were_one(block: slice) -> None:
    rows = np.arange(18, dtype=np.float32).reshape(9, 2)
    stacked = Stacked(rows[:4], rows[4:])
    assert stacked.shape == (9, 2)
    np.testing.assert_array_equal(stacked[block], rows[block])


def test_evenness_is_one_for_equal_shares_and_counts_classes_that_are_missing() -> None:
    assert evenness(np.full(4, 0.25)) == pytest.approx(1)
    assert evenness(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)
    assert evenness(np.array([0.0, 1.0])) == pytest.approx(0)


def test_what_a_head_names_is_counted_over_all_classes() -> None:
    task, _ = made_task()
    adapted = Fitter(task, "ridge").fit(find_methods("standardise+self-share")[1])
    answers = adapted.head.predict(task.target[slice(0, task.target.shape[0])])
    assert adapted.named.tolist() == [float(np.mean(answers == name)) for name in CLASSES]
