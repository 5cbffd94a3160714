"""Splits, scores, intervals and tests of difference, against arithmetic, published values and other libraries."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from made_data import key_of, make_table
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.intervals import wilson_interval
from tlfeat.evaluate.leaks import LeakedImages, with_leaked
from tlfeat.evaluate.scores import confused_pairs, guessing_sentence, score
from tlfeat.evaluate.split import Split, folds, make_split
from tlfeat.images.image_set import ImageTable
from tlfeat.records import Score
from tlfeat.types import Labels


def shuffled(table: ImageTable, seed: int) -> ImageTable:
    order = random.Random(seed).sample(range(len(table.keys)), len(table.keys))
    images = table.images
    return make_table(
        [images.labels[i] for i in order],
        keys=[table.keys[i] for i in order],
        splits=[images.splits[i] for i in order],
        groups=[images.groups[i] for i in order],
        paths=[images.paths[i] for i in order],
        status=[table.status[i] for i in order],
    )


def roles_by_key(split: Split) -> dict[str, str]:
    return dict(zip(split.keys, split.roles, strict=True))


def labels_of(split: Split, role: str) -> Counter[str]:
    return Counter(split.classes[split.labels[i]] for i in split.where(role))


# --- make_split -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_test_share_within_one_image(seed: int) -> None:
    n_images = {"ant": 7, "bee": 20, "cat": 53, "dog": 200, "eel": 2}
    split = make_split(make_table([label for label, n in n_images.items() for _ in range(n)]), seed=seed)
    tested = labels_of(split, "test")
    for label, n in n_images.items():
        assert abs(tested[label] - 0.2 * n) <= 1, label
    assert split.info.n_train + split.info.n_val + split.info.n_test == len(split.keys) == 282


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.9])
def test_the_test_fraction_is_kept_in_every_class(fraction: float) -> None:
    split = make_split(make_table(["cat"] * 100 + ["dog"] * 60), test_fraction=fraction)
    assert labels_of(split, "test") == {"cat": round(100 * fraction), "dog": round(60 * fraction)}
    assert split.info.test_fraction == fraction


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_test_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="expected between 0 and 1"):
        make_split(make_table(["cat", "dog"] * 5), test_fraction=fraction)


def test_validation_is_15_percent_of_what_is_not_test() -> None:
    split = make_split(make_table(["cat"] * 100 + ["dog"] * 100))
    assert (split.info.n_test, split.info.n_val, split.info.n_train) == (40, 24, 136)
    assert labels_of(split, "val") == {"cat": 12, "dog": 12}


def test_duplicate_files_stay_on_one_side_of_the_split() -> None:
    keys = [key_of(i // 3) for i in range(60)]  # every picture lies there three times
    split = make_split(make_table(["cat"] * 30 + ["dog"] * 30, keys=keys))
    roles = defaultdict(set)
    for key, role in zip(split.keys, split.roles, strict=True):
        roles[key].add(role)
    assert all(len(found) == 1 for found in roles.values())
    assert Counter(len(found) for found in roles.values()) == {1: 20}
    assert labels_of(split, "test") == {"cat": 6, "dog": 6}


def test_images_of_one_user_group_stay_on_one_side_of_the_split() -> None:
    groups = [f"plant {i // 4}" for i in range(80)]
    split = make_split(make_table(["cat"] * 40 + ["dog"] * 40, groups=groups))
    group_of = {key_of(i): groups[i] for i in range(80)}
    roles = defaultdict(set)
    for key, role in zip(split.keys, split.roles, strict=True):
        roles[group_of[key]].add(role)
    assert all(len(found) == 1 for found in roles.values())
    assert labels_of(split, "test") == {"cat": 8, "dog": 8}


def test_copies_tie_user_groups_together() -> None:
    # plant 0 and plant 1 share a picture, so that all four images hang together
    table = make_table(
        ["cat"] * 12 + ["dog"] * 8,
        keys=[key_of(0), key_of(1), key_of(1), key_of(3), *(key_of(i) for i in range(4, 20))],
        groups=["plant 0", "plant 0", "plant 1", "plant 1", *[""] * 16],
    )
    split = make_split(table)
    tied = {int(split.groups[i]) for i, key in enumerate(split.keys) if key in {key_of(0), key_of(1), key_of(3)}}
    assert len(tied) == 1
    assert len(set(split.groups.tolist())) == 17


def test_a_group_named_like_a_key_ties_nothing() -> None:
    table = make_table(["cat"] * 5 + ["dog"] * 5, groups=[key_of(9), *[""] * 9])
    assert len(set(make_split(table).groups.tolist())) == 10


@pytest.mark.parametrize("seed", range(5))
def test_the_split_does_not_depend_on_the_order_of_the_images(seed: int) -> None:
    table = make_table(["cat"] * 25 + ["dog"] * 15, groups=[f"g{i // 2}" for i in range(40)])
    one, other = make_split(table), make_split(shuffled(table, seed))
    assert roles_by_key(one) == roles_by_key(other)
    assert one.info.digest == other.info.digest


def test_the_split_does_not_depend_on_file_names() -> None:
    labels = ["cat"] * 25 + ["dog"] * 15
    one = make_split(make_table(labels))
    other = make_split(make_table(labels, paths=[f"renamed/{99 - i}.jpg" for i in range(40)]))
    assert roles_by_key(one) == roles_by_key(other)
    assert one.info.digest == other.info.digest


def test_file_names_decide_nothing_even_where_copies_have_two_labels() -> None:
    keys = [key_of(i // 2) for i in range(40)]  # every picture once as a cat and once as a dog
    labels = ["cat", "dog"] * 20
    one = make_split(make_table(labels, keys=keys, paths=[f"{i:02}.png" for i in range(40)]))
    other = make_split(make_table(labels, keys=keys, paths=[f"{39 - i:02}.png" for i in range(40)]))
    assert roles_by_key(one) == roles_by_key(other)
    assert one.info.digest == other.info.digest


def test_the_same_seed_gives_the_same_digest_and_another_seed_another() -> None:
    table = make_table(["cat"] * 30 + ["dog"] * 30)
    assert make_split(table, seed=1).info.digest == make_split(table, seed=1).info.digest
    digests = {make_split(table, seed=seed).info.digest for seed in range(10)}
    assert len(digests) == 10


def test_the_digest_changes_with_a_label() -> None:
    splits = ["train"] * 6 + ["test"] * 6
    one = make_split(make_table(["cat", "dog"] * 6, splits=splits))
    other = make_split(make_table(["cat", "dog"] * 5 + ["dog", "cat"], splits=splits))
    assert one.info.digest != other.info.digest


def test_given_splits_are_respected() -> None:
    splits = ["train", "val", "test"] * 10
    table = make_table(["cat"] * 15 + ["dog"] * 15, splits=splits)
    split = make_split(table, seed=7)
    assert roles_by_key(split) == {key_of(i): role for i, role in enumerate(splits)}
    assert (split.info.origin, split.info.test_fraction) == ("given", None)
    assert split.notes == []


def test_validation_is_drawn_from_training_where_only_test_is_given() -> None:
    splits = (["train"] * 20 + ["test"] * 5) * 2
    split = make_split(make_table(["cat"] * 25 + ["dog"] * 25, splits=splits))
    given = {key_of(i): role for i, role in enumerate(splits)}
    assert {key for key, role in roles_by_key(split).items() if role == "test"} == {
        key for key, role in given.items() if role == "test"
    }
    assert labels_of(split, "val") == {"cat": 3, "dog": 3}
    assert split.info.origin == "given"


def train_and_val() -> ImageTable:
    return make_table(["cat"] * 27 + ["dog"] * 26, splits=["train"] * 20 + ["val"] * 7 + ["train"] * 20 + ["val"] * 6)


@pytest.mark.parametrize("seed", [0, 5])
def test_validation_images_are_the_test_set_where_none_is_given(seed: int) -> None:
    table = train_and_val()
    split = make_split(table, seed=seed)
    given = {key_of(i): role for i, role in enumerate(table.images.splits)}
    assert {key for key, role in roles_by_key(split).items() if role == "test"} == {
        key for key, role in given.items() if role == "val"
    }
    assert labels_of(split, "val") == {"cat": 3, "dog": 3}  # for early stopping, from the training images
    assert (split.info.origin, split.info.test_fraction, split.info.n_test) == ("given", None, 13)
    assert not split.is_val_given  # heads choose in folds
    assert split.notes == [
        "there is no test folder: the 13 images of val are the test set and take no part in any choice (--test-split "
        "none draws a test set from train instead)"
    ]


def test_validation_images_are_the_test_set_where_those_of_the_test_have_no_label() -> None:
    splits = ["train"] * 10 + ["val"] * 4 + ["test"] * 3
    table = make_table((["cat", "dog"] * 7) + [""] * 3, splits=splits)
    split = make_split(table)
    assert labels_of(split, "test") == {"cat": 2, "dog": 2}
    assert split.notes[0] == "3 images have no label and take no part"


def test_a_test_set_is_drawn_from_the_training_images_where_that_is_asked_for() -> None:
    table = train_and_val()
    split = make_split(table, seed=3, test_fraction=0.1, test_split="none")
    roles = roles_by_key(split)
    assert all((roles[key_of(i)] == "val") == (role == "val") for i, role in enumerate(table.images.splits))
    assert labels_of(split, "test") == {"cat": 2, "dog": 2}
    assert (split.info.origin, split.info.test_split, split.is_val_given) == ("seeded", "none", True)
    assert split.notes == ["no test split is given: a test set is drawn from the training images"]


def test_one_can_test_on_the_validation_images_beside_a_test_set() -> None:
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 6
    table = make_table(["cat", "dog"] * 11, splits=splits)
    split = make_split(table, test_split="Validation")
    assert set(split.keys) == {key_of(i) for i in range(16)}
    assert {split.keys[i] for i in split.where("test")} == {key_of(i) for i in range(12, 16)}
    assert split.notes == ["6 images of the split test take no part (--test-split Validation)"]
    assert make_split(table).info.digest != split.info.digest


@pytest.mark.parametrize("name", ["train", "test", "holdout"])
def test_a_test_split_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"--test-split {name}: .* There is: val; none draws"):
        make_split(train_and_val(), test_split=name)


def test_a_copy_of_a_given_validation_image_is_not_drawn_for_testing() -> None:
    # ten of twenty training pictures of each class are copies of validation pictures
    keys = [key_of((label, i % 20)) for label in ("cat", "dog") for i in range(30)]
    splits = (["train"] * 20 + ["val"] * 10) * 2
    for seed in range(5):
        table = make_table(["cat"] * 30 + ["dog"] * 30, keys=keys, splits=splits)
        split = make_split(table, seed=seed, test_split="none")
        tested = {split.keys[i] for i in split.where("test")}
        assert tested
        assert not tested & {split.keys[i] for i in split.where("train", "val")}
        assert not any("flattered" in note for note in split.notes)


def test_images_without_a_split_are_for_training_where_others_have_one() -> None:
    table = make_table(["cat", "dog"] * 6, splits=["test"] * 4 + ["val"] * 2 + [""] * 6)
    assert Counter(make_split(table).roles) == {"test": 4, "val": 2, "train": 6}


def test_a_class_with_one_image_is_left_out_with_a_note() -> None:
    split = make_split(make_table(["cat"] * 5 + ["dog"] * 5 + ["yeti"]))
    assert split.classes == ["cat", "dog"]
    assert len(split.keys) == 10
    assert split.notes == ["class 'yeti' is left out: 1 image and none of them for test"]


def test_a_class_of_copies_of_one_image_is_left_out_too() -> None:
    split = make_split(
        make_table(
            ["cat"] * 5 + ["dog"] * 5 + ["yeti"] * 4, keys=[*(key_of(i) for i in range(10)), *[key_of("yeti")] * 4]
        )
    )
    assert split.classes == ["cat", "dog"]
    assert split.notes == ["class 'yeti' is left out: 4 images and none of them for test"]


def test_a_class_that_is_only_in_the_given_test_set_is_left_out() -> None:
    labels = ["cat", "dog"] * 4 + ["yeti"] * 2
    split = make_split(make_table(labels, splits=["train"] * 4 + ["test"] * 6))
    assert split.classes == ["cat", "dog"]
    assert split.notes == ["class 'yeti' is left out: 2 images and none of them for training"]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["cat"] * 10, r"cat \(10\)"),
        (["cat"] * 10 + ["dog"], r"cat \(10\), dog \(1\)"),
        (["cat", "dog"], r"cat \(1\), dog \(1\)"),
        ([f"c{i:05}" for i in range(9, 2000)], r"c00009 \(1\), c00010 \(1\), .* c00018 \(1\) and 1,981 more"),
        ([""] * 5, "none"),
        ([], "none"),
    ],
    ids=["one-class", "one-class-and-one-image", "one-image-each", "thousands", "no-labels", "no-images"],
)
def test_fewer_than_two_usable_classes_are_refused_with_what_was_found(labels: list[str], found: str) -> None:
    with pytest.raises(DataError, match=rf"At least two classes with two different images each .* found: {found}\."):
        make_split(make_table(labels))


def test_unlabelled_images_take_no_part_and_are_counted() -> None:
    split = make_split(make_table(["cat"] * 5 + ["dog"] * 5 + [""] * 3))
    assert len(split.keys) == 10
    assert split.notes == ["3 images have no label and take no part"]


def test_failed_images_take_no_part() -> None:
    table = make_table(["cat"] * 6 + ["dog"] * 6, status=["failed", *["ok"] * 11])
    split = make_split(table)
    assert len(split.keys) == 11
    assert key_of(0) not in split.keys


def test_pending_images_are_refused_with_the_command_that_goes_on() -> None:
    table = make_table(["cat"] * 6 + ["dog"] * 6, status=["pending"] * 4 + ["ok"] * 8)
    with pytest.raises(DataError, match=r"4 of 12 images are not embedded yet. Run the same tlfeat extract again"):
        make_split(table)


def test_groups_across_given_splits_are_reported_and_copies_are_left_to_the_leaks() -> None:
    table = make_table(
        ["cat", "dog"] * 6,
        keys=[key_of(0), key_of(1), *(key_of(i) for i in range(2, 10)), key_of(0), key_of(1)],
        groups=["", "", "a", "b", "c", "", "a", "b", "c", "d", "", ""],
        splits=["train"] * 6 + ["test"] * 6,
    )
    assert make_split(table).notes == ["3 groups both in the given test set and in training: scores are flattered"]


def test_one_picture_under_two_labels_is_reported() -> None:
    table = make_table(
        ["cat"] * 6 + ["dog"] * 6, keys=[*(key_of(i) for i in range(6)), *(key_of(i) for i in range(5, 11))]
    )
    assert make_split(table).notes == ["1 picture under two labels: at least one of them is wrong"]


def test_two_images_of_two_classes_are_enough() -> None:
    split = make_split(make_table(["cat", "cat", "dog", "dog"]))
    assert Counter(split.roles) == {"train": 2, "test": 2}
    assert labels_of(split, "train") == labels_of(split, "test") == {"cat": 1, "dog": 1}


def test_where_gives_the_positions_of_the_named_roles() -> None:
    split = make_split(make_table(["cat"] * 20 + ["dog"] * 20))
    train, val, test = split.where("train"), split.where("val"), split.where("test")
    assert sorted([*train, *val, *test]) == list(range(40))
    assert split.where("train", "val").tolist() == sorted([*train, *val])
    assert split.where().tolist() == []


@given(
    drawn=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.sampled_from(["", "", "g1", "g2", "g3"])), max_size=60
    ),
    seed=st.integers(0, 1000),
    fraction=st.floats(0.05, 0.95),
)
@settings(max_examples=300, deadline=None)
def test_no_group_is_on_two_sides_and_nothing_is_lost(
    drawn: list[tuple[str, int, str]], seed: int, fraction: float
) -> None:
    # a core of single pictures makes sure that there is always something to split
    lines = [*drawn, *((label, f"{label}{i}", "") for label in "ab" for i in range(8))]
    labels = [label for label, _, _ in lines]
    table = make_table(
        labels, keys=[key_of(picture) for _, picture, _ in lines], groups=[group for _, _, group in lines]
    )
    split = make_split(table, seed=seed, test_fraction=fraction)
    sides = defaultdict(set)
    for group, role in zip(split.groups.tolist(), split.roles, strict=True):
        sides[group].add(role)
    assert all(len(roles) == 1 for roles in sides.values())
    user_sides = defaultdict(set)
    group_of = dict(zip(table.images.paths, table.images.groups, strict=True))
    for path, role in zip(split.paths, split.roles, strict=True):
        user_sides[group_of[path] or path].add(role)
    assert all(len(roles) == 1 for roles in user_sides.values())
    assert {"train", "test"} <= set(split.roles)
    left_out = set(labels) - set(split.classes)
    assert sorted(split.paths) == sorted(
        path for path, label in zip(table.images.paths, labels, strict=True) if label not in left_out
    )
    assert len(left_out) == sum("is left out" in note for note in split.notes)
    assert (split.info.n_train, split.info.n_val, split.info.n_test) == tuple(
        split.roles.count(role) for role in ("train", "val", "test")
    )
    by_path = dict(zip(table.images.paths, labels, strict=True))
    assert [split.classes[i] for i in split.labels] == [by_path[path] for path in split.paths]
    for label in split.classes:  # every class can be learned and tested
        assert labels_of(split, "test")[label]
        assert labels_of(split, "train")[label] + labels_of(split, "val")[label]


@given(n=st.lists(st.integers(5, 60), min_size=2, max_size=5), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_all_three_roles_are_used_in_every_class_of_single_images(n: list[int], seed: int) -> None:
    split = make_split(make_table([f"class {k}" for k, n_images in enumerate(n) for _ in range(n_images)]), seed=seed)
    for role in ("train", "val", "test"):
        assert set(labels_of(split, role)) == set(split.classes)


# --- folds ----------------------------------------------------------------------------------------------------


def test_folds_keep_groups_together_and_test_every_position_once() -> None:
    split = make_split(make_table(["cat"] * 60 + ["dog"] * 60, groups=[f"g{i // 3}" for i in range(120)]))
    positions = split.where("train", "val")
    found = folds(split, positions, n_folds=5, seed=0)
    assert len(found) == 5
    groups = split.groups[positions]
    for train, test in found:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(positions)))
    assert sorted(i for _, test in found for i in test) == list(range(len(positions)))


def test_folds_of_single_images_are_stratified() -> None:
    split = make_split(make_table(["cat"] * 50 + ["dog"] * 100))
    positions = split.where("train", "val")
    labels = split.labels[positions]
    for _, test in folds(split, positions, n_folds=4, seed=0):
        assert Counter(labels[test].tolist()) == {0: 10, 1: 20}


def test_there_are_no_more_folds_than_groups_in_the_rarest_class() -> None:
    table = make_table(
        ["cat"] * 30 + ["dog"] * 12, groups=[*(f"c{i}" for i in range(30)), *(f"d{i // 4}" for i in range(12))]
    )
    split = make_split(table)
    positions = split.where("train", "val")
    n_dog_groups = len(set(split.groups[positions][split.labels[positions] == 1].tolist()))
    assert n_dog_groups == 2
    assert len(folds(split, positions, n_folds=5, seed=0)) == 2


def test_a_class_of_one_group_gives_no_folds() -> None:
    split = make_split(make_table(["cat"] * 10 + ["dog"] * 2))
    assert folds(split, split.where("train", "val"), n_folds=5, seed=0) == []


def test_folds_are_the_same_for_the_same_seed() -> None:
    split = make_split(make_table(["cat"] * 30 + ["dog"] * 30))
    positions = split.where("train")
    one, same, other = (
        [test.tolist() for _, test in folds(split, positions, n_folds=3, seed=seed)] for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


# --- score ----------------------------------------------------------------------------------------------------


def numbers(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


def test_scores_by_hand() -> None:
    # true a a a a b b c; predicted a a a b b a b
    found = score(numbers(0, 0, 0, 0, 1, 1, 2), numbers(0, 0, 0, 1, 1, 0, 1), ["a", "b", "c"])
    assert found.accuracy == 4 / 7
    assert found.confusion == [[3, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert found.macro_f1 == pytest.approx((3 / 4 + 2 / 5 + 0) / 3)  # c is never predicted: F1 is 0
    assert found.per_class[1] == {
        "class": "b",
        "precision": pytest.approx(1 / 3),
        "precision_ci95": list(wilson_interval(1, 3)),
        "recall": pytest.approx(1 / 2),
        "recall_ci95": list(wilson_interval(1, 2)),
        "f1": pytest.approx(2 / 5),
        "n": 2,
    }
    assert found.per_class[2]["precision_ci95"] is None  # never predicted
    assert found.ci95 == wilson_interval(4, 7)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_scores_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = numbers(*(t for t, _ in pairs)), numbers(*(p for _, p in pairs))
    found = score(true, predicted, ["a", "b", "c", "d"])
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found.macro_f1 == pytest.approx(
        metrics.f1_score(true, predicted, labels=range(4), average="macro", zero_division=0)
    )
    assert found.balanced_accuracy == pytest.approx(
        metrics.recall_score(true, predicted, labels=range(4), average="macro", zero_division=0)
    )
    assert found.confusion == metrics.confusion_matrix(true, predicted, labels=range(4)).tolist()
    assert sum(entry["n"] for entry in found.per_class) == len(pairs)


def test_balanced_accuracy_agrees_with_scikit_learn_where_every_class_is_tested() -> None:
    true, predicted = numbers(0, 0, 0, 1, 2, 2), numbers(0, 1, 0, 1, 2, 0)
    expected = metrics.balanced_accuracy_score(true, predicted)
    assert score(true, predicted, ["a", "b", "c"]).balanced_accuracy == pytest.approx(expected)


def test_a_perfect_candidate_scores_1() -> None:
    found = score(numbers(0, 1, 2), numbers(0, 1, 2), ["a", "b", "c"])
    assert (found.accuracy, found.balanced_accuracy, found.macro_f1) == (1.0, 1.0, 1.0)


def test_a_score_round_trips_through_its_record() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = score(numbers(0, 1, 1), numbers(0, 1, 0), ["a", "b"], probabilities=probabilities)
    assert found.calibration is not None
    assert Score.from_dict(json.loads(json.dumps(found.to_dict()))).calibration == found.calibration
    assert Score.from_dict(found.to_dict()) == found


def test_a_score_of_an_older_version_is_read_without_what_it_did_not_have() -> None:
    found = score(numbers(0, 1, 1), numbers(0, 1, 0), ["a", "b"]).to_dict()
    for name in ("balanced_accuracy_ci95", "macro_f1_ci95", "calibration"):
        del found[name]
    older = Score.from_dict(found)
    assert older.calibration is None and older.macro_f1_ci95 is None


def test_every_interval_of_a_score_is_wider_where_images_come_in_like_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    true = groups % 3
    predicted = np.where(np.repeat(rng.random(60) < 0.8, 5), true, (true + 1) % 3)
    alone = score(true, predicted, ["a", "b", "c"])
    grouped = score(true, predicted, ["a", "b", "c"], groups=groups)

    def width(ends: Sequence[float] | None) -> float:
        assert ends is not None
        return ends[1] - ends[0]

    for name in ("ci95", "balanced_accuracy_ci95", "macro_f1_ci95"):
        assert width(getattr(grouped, name)) > 1.5 * width(getattr(alone, name)), name
    for one, other in zip(grouped.per_class, alone.per_class, strict=True):
        assert width(one["recall_ci95"]) > 1.5 * width(other["recall_ci95"])
        assert width(one["precision_ci95"]) > 1.5 * width(other["precision_ci95"])
    assert grouped.accuracy == alone.accuracy


def test_the_digest_of_a_split_changes_with_the_groups_that_intervals_depend_on() -> None:
    def digest(groups: Sequence[str] | None) -> str:
        table = make_table(["a", "a", "b", "b"] * 2, splits=["train"] * 4 + ["test"] * 4, groups=groups)
        return make_split(table).info.digest

    assert digest(["", "", "", "", "p", "p", "q", "q"]) != digest(["", "", "", "", "p", "q", "r", "s"])
    assert digest(None) == digest([""] * 8)


# --- confusions -----------------------------------------------------------------------------------------------


def test_confused_pairs_are_the_most_frequent_first_without_the_right_ones() -> None:
    true = numbers(*[0] * 10, *[1] * 5, *[2] * 3)
    predicted = numbers(*[0] * 7, *[1] * 3, *[0] * 4, 1, *[2] * 2, 0)
    found = score(true, predicted, ["a", "b", "c"])
    assert confused_pairs(found, ["a", "b", "c"]) == [
        {"true": "b", "predicted": "a", "n": 4},
        {"true": "a", "predicted": "b", "n": 3},
        {"true": "c", "predicted": "a", "n": 1},
    ]
    assert len(confused_pairs(found, ["a", "b", "c"], n=2)) == 2


def test_without_a_confusion_there_are_no_pairs() -> None:
    assert confused_pairs(score(numbers(0, 1), numbers(0, 1), ["a", "b"]), ["a", "b"]) == []


def test_all_pairs_together_are_all_mistakes() -> None:
    true, predicted = (numbers(*values) for values in zip(*itertools.product(range(4), range(4)), strict=True))
    pairs = confused_pairs(score(true, predicted, list("abcd")), list("abcd"), n=100)
    assert sum(pair["n"] for pair in pairs) == 12


def test_a_group_on_both_sides_of_a_given_split_is_said() -> None:
    table = make_table(
        labels=["a", "a", "b", "b"], splits=["train", "test", "train", "test"], groups=["p1", "p1", "p2", "p3"]
    )
    assert make_split(table).notes == ["1 group both in the given test set and in training: scores are flattered"]


# --- groups of the test images -------------------------------------------------------------------------------


def with_test_groups(*groups: str) -> Split:
    n_test = len(groups)
    labels, splits = ["cat", "dog"] * (6 + n_test // 2), ["train"] * 12 + ["test"] * n_test
    return make_split(make_table(labels, splits=splits, groups=[f"p{i // 3}" for i in range(12)] + list(groups)))


def test_a_test_set_of_one_group_has_the_interval_of_its_images_and_a_sentence() -> None:
    """By groups it would be 0.16 to 0.997: one group, right or wrong."""
    split = with_test_groups(*["sketch"] * 40)
    every = np.ones(40, dtype=bool)
    assert split.test_groups(every) is None
    (note,) = split.notes
    assert note.startswith(
        "all test images are of one group (sketch): the intervals hold for more images of that group"
    )
    true = split.labels[split.where("test")]
    predicted = np.where(np.arange(40) < 33, true, 1 - true)
    assert score(true, predicted, split.classes, groups=split.test_groups(every)).ci95 == wilson_interval(33, 40)
    assert with_leaked(LeakedImages([], []), split, true, predicted).ci95_with == wilson_interval(33, 40)


def test_a_test_set_of_two_groups_has_the_interval_of_groups() -> None:
    split = with_test_groups(*["sketch"] * 30, *["photo"] * 10)
    groups = split.test_groups(np.ones(40, dtype=bool))
    assert groups is not None and len(np.unique(groups)) == 2
    assert split.notes == []
    assert split.test_groups(groups == np.bincount(groups).argmax()) is None  # the sketches alone


def test_a_test_set_without_groups_has_no_sentence() -> None:
    split = make_split(make_table(["cat", "dog"] * 8, splits=["train"] * 12 + ["test"] * 4))
    assert split.notes == []
    assert split.test_groups(np.ones(4, dtype=bool)) is not None


# --- no better than guessing ---------------------------------------------------------------------------------


def scored(*right_of: tuple[int, int]) -> Score:
    """For each class: so many images, so many of them right, the others named the next class."""
    true = np.concatenate([np.full(n, c) for c, (n, _) in enumerate(right_of)])
    predicted = np.concatenate(
        [np.where(np.arange(n) < k, c, (c + 1) % len(right_of)) for c, (n, k) in enumerate(right_of)]
    )
    return score(true, predicted, ["ants", "bees"])


def test_a_candidate_that_names_one_class_is_said_to_have_learned_nothing() -> None:
    assert guessing_sentence(scored((70, 0), (83, 83)), ["ants", "bees"], name="keras-scratch") == (
        "keras-scratch did not learn: it named all 153 test images 'bees'"
    )


def test_a_candidate_within_the_noise_of_the_most_frequent_class_is_not_shown_to_have_learned() -> None:
    said = guessing_sentence(scored((70, 20), (83, 70)), ["ants", "bees"], name="svm")
    assert said.startswith("svm is not shown to have learned: naming every test image 'bees' is right in 54.2 %, it in")
    assert "58.8 % (95 % interval" in said
    assert guessing_sentence(scored((70, 60), (83, 70)), ["ants", "bees"], name="svm") == ""


# --- domains --------------------------------------------------------------------------------------------------


def test_domains_come_along_and_change_neither_roles_nor_digest() -> None:
    labels = ["cat", "dog"] * 40
    domains = [("photo", "", "Haus Süd")[i % 3] for i in range(80)]
    plain, split = (make_split(make_table(labels, domains=of), seed=3) for of in (None, domains))
    assert plain.domains == [""] * 80
    assert (split.roles, split.info, split.notes) == (plain.roles, plain.info, plain.notes)
    of_key = {key_of(i): domain for i, domain in enumerate(domains)}
    assert split.domains == [of_key[key] for key in split.keys]


def test_a_picture_in_two_domains_is_said() -> None:
    keys = [key_of(i // 2 if i < 6 else i) for i in range(40)]
    domains = ["x", "y"] * 20
    notes = make_split(make_table(["cat"] * 20 + ["dog"] * 20, keys=keys, domains=domains)).notes
    assert notes == ["3 pictures in two domains or more: what is learned in one is known in the other"]
