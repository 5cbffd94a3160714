"""Which pictures are asked next."""

from __future__ import annotations

import numpy as np

from tlfeat.labelling.choose import ASKED, CLUSTERS, OPEN, Choice, choose, clusters
from tlfeat.types import Labels, Rows


def groups(n_groups: int, n_each: int = 20, *, seed: int = 0) -> tuple[Rows, Labels]:
    """Rows in tight groups, of unequal lengths, and the group of each."""
    rng = np.random.default_rng(seed)
    group_of = rng.permutation(np.repeat(np.arange(n_groups), n_each))
    rows = 10 * np.eye(n_groups, 16)[group_of] + rng.standard_normal((len(group_of), 16))
    return (rows * rng.uniform(0.5, 2, (len(rows), 1))).astype(np.float32), group_of


def test_first_the_most_typical_of_every_cluster() -> None:
    rows, group_of = groups(6)
    chosen = choose(rows, np.full(120, OPEN), None, 6, n_classes=2)
    assert [choice.why for choice in chosen] == ["typical"] * 6
    assert sorted(group_of[[choice.place for choice in chosen]]) == [0, 1, 2, 3, 4, 5]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for choice in chosen:
        members = np.flatnonzero(group_of == group_of[choice.place])
        distances = np.linalg.norm(units[members] - units[members].mean(axis=0), axis=1)
        assert members[distances.argmin()] == choice.place


def test_a_cluster_in_which_something_was_asked_is_passed_over() -> None:
    rows, group_of = groups(6)
    labels = np.full(120, OPEN)
    labels[np.flatnonzero(group_of == 4)[0]] = 1
    labels[np.flatnonzero(group_of == 2)[0]] = ASKED
    chosen = choose(rows, labels, None, 4, n_classes=2)
    assert sorted(group_of[[choice.place for choice in chosen]]) == [0, 1, 3, 5]


def test_then_those_whose_two_best_classes_are_nearest() -> None:
    rows, group_of = groups(3)
    labels = np.where(np.arange(60) < 40, group_of, OPEN)
    margins = np.linspace(0.9, 0.1, 60)
    probabilities = np.stack([(1 + margins) / 2, (1 - margins) / 2, np.zeros(60)], axis=1).astype(np.float32)
    labels[57] = ASKED
    assert choose(rows, labels, probabilities, 4, n_classes=1) == [
        Choice(place, "unsure") for place in (59, 58, 56, 55)
    ]


def test_nothing_is_asked_twice_and_the_pool_has_an_end() -> None:
    rows, _ = groups(5, 4)
    labels = np.full(20, OPEN)
    probabilities = np.full((20, 2), 0.5, np.float32)
    asked: list[int] = []
    while chosen := choose(rows, labels, probabilities, 3, n_classes=2):
        asked += [choice.place for choice in chosen]
        labels[[choice.place for choice in chosen]] = ASKED
    assert sorted(asked) == list(range(20))


def test_small_pools() -> None:
    row = np.ones((1, 4), np.float32)
    assert choose(row, np.array([OPEN]), None, 5, n_classes=2) == [Choice(0, "typical")]
    assert choose(row, np.array([ASKED]), None, 5, n_classes=2) == []
    assert choose(row[:0], np.empty(0, np.int64), None, 5, n_classes=2) == []
    same = np.ones((9, 4), np.float32)  # copies of one picture
    assert len(choose(same, np.full(9, OPEN), None, 3, n_classes=2)) == 3
    blank = np.zeros((9, 4), np.float32)
    assert len(choose(blank, np.full(9, OPEN), np.ones((9, 1), np.float32), 3, n_classes=1)) == 3


def test_the_seed_decides_and_rows_stay_as_they_are() -> None:
    rows, _ = groups(8)
    before = rows.copy()
    labels = np.full(160, OPEN)
    assert choose(rows, labels, None, 9, n_classes=3, seed=1) == choose(rows, labels, None, 9, n_classes=3, seed=1)
    assert np.array_equal(rows, before)


def test_clusters_are_of_directions() -> None:
    rows, group_of = groups(4)
    cluster_of, distances = clusters(rows, 4, seed=3)
    assert len({(int(a), int(b)) for a, b in zip(group_of, cluster_of, strict=True)}) == 4
    assert np.allclose(clusters(5 * rows, 4, seed=3)[1], distances, atol=1e-5)
    assert CLUSTERS == 3
