"""The random order: of the paths alone, and every beginning of it a fair sample."""

from __future__ import annotations

import numpy as np

from tlfeat.labelling.order import POOL, embedding_order, in_turns, pool_and_reserve, random_order

PATHS = [f"class{i % 3}/picture {i}.jpg" for i in range(3_000)]


def test_the_order_is_of_paths_and_seed() -> None:
    order = random_order(PATHS, seed=3)
    assert sorted(order.tolist()) == list(range(3_000))
    assert np.array_equal(order, random_order(PATHS, seed=3))
    assert not np.array_equal(order, random_order(PATHS, seed=4))
    turned = random_order(PATHS[::-1], seed=3)
    assert [PATHS[i] for i in order] == [PATHS[::-1][i] for i in turned]


def test_more_pictures_leave_the_others_in_their_order() -> None:
    known = [i for i in random_order([*PATHS, "new.jpg", "n\udce9w.jpg"]).tolist() if i < 3_000]
    assert known == random_order(PATHS).tolist()


def test_every_beginning_is_a_fair_sample() -> None:
    means = [random_order(PATHS, seed=seed)[:300].mean() for seed in range(40)]
    assert abs(np.mean(means) - 1499.5) < 4 * 866 / np.sqrt(300 * 40)


def test_no_question_is_chosen_of_the_reserve() -> None:
    order = random_order(PATHS)
    pool, reserve = pool_and_reserve(order, pool=1_001)
    assert len(reserve) == 201
    assert np.array_equal(np.concatenate([reserve, pool]), order[:1_001])
    assert [len(part) for part in pool_and_reserve(order)] == [2_400, 600]
    assert [len(part) for part in pool_and_reserve(order[:1])] == [0, 1]


def test_of_every_beginning_a_fifth_measures() -> None:
    choosable, reserve = pool_and_reserve(random_order(PATHS), pool=1_003)
    order = in_turns(choosable, reserve)
    is_reserved = np.isin(order, reserve)
    assert sorted(order) == sorted([*choosable, *reserve])
    assert [int(is_reserved[:n].sum()) for n in (1, 5, 6, 500, 1_003)] == [1, 1, 2, 100, 201]
    assert np.array_equal(order[is_reserved], reserve) and np.array_equal(order[~is_reserved], choosable)
    assert in_turns(choosable[:2], reserve[:4]).tolist() == [reserve[0], *choosable[:2], *reserve[1:4]]


def test_rows_are_wanted_in_that_order_and_all_of_them() -> None:
    paths = [f"{i}.jpg" for i in range(POOL + 100)]
    order, random = embedding_order(paths, seed=2), random_order(paths, seed=2)
    assert np.array_equal(order[:POOL], in_turns(*pool_and_reserve(random)))
    assert np.array_equal(order[POOL:], random[POOL:])
