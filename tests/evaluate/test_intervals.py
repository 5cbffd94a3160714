"""Intervals and tests of difference against published values, other libraries, enumeration and small simulations.

The large simulations are those of ``benchmarks/intervals.py``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tlfeat.errors import ModelError
from tlfeat.evaluate.intervals import (
    design_effect,
    difference_interval,
    holm,
    macro_intervals,
    mcnemar,
    proportion_interval,
    wilson_interval,
)
from tlfeat.types import Labels


def numbers(*values: int) -> Labels:
    return np.array(values, dtype=np.int64)


# --- Wilson's interval ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
    ids=["8-of-10", "81-of-263", "15-of-148", "0-of-20", "1-of-29"],
)
def test_the_interval_has_the_published_values(n_right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(n_right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_the_interval_of_none_and_of_all_ends_at_0_and_at_1(n: int) -> None:
    z2 = 1.959963984540054**2
    assert wilson_interval(0, n) == pytest.approx((0.0, z2 / (n + z2)), abs=1e-12)
    assert wilson_interval(n, n) == pytest.approx((n / (n + z2), 1.0), abs=1e-12)
    assert wilson_interval(0, n)[0] >= 0.0
    assert wilson_interval(n, n)[1] <= 1.0


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_agrees_with_scipy_and_holds_the_share(counts: tuple[int, int]) -> None:
    n_right, n = counts
    low, high = wilson_interval(n_right, n)
    expected = binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert low - 1e-12 <= n_right / n <= high + 1e-12
    mirrored = wilson_interval(n - n_right, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99])
def test_the_interval_covers_the_truth_in_93_to_97_percent(p: float) -> None:
    """Exact: the binomial probabilities of all counts whose interval holds p; near 1 it takes 300 images."""
    for n in range(100 if p <= 0.9 else 300, 601, 20):
        covering = [k for k in range(n + 1) if wilson_interval(k, n)[0] <= p <= wilson_interval(k, n)[1]]
        assert 0.93 <= binom.pmf(covering, n, p).sum() <= 0.97, n


def test_an_interval_of_no_images_is_refused() -> None:
    none = numbers()
    for refused in (
        lambda: wilson_interval(0, 0),
        lambda: proportion_interval(none),
        lambda: difference_interval(none, none, none),
    ):
        with pytest.raises(ModelError, match="no test images"):
            refused()


# --- groups ---------------------------------------------------------------------------------------------------


def test_without_groups_and_with_groups_of_one_an_accuracy_has_wilsons_interval() -> None:
    right = np.arange(50) < 40
    assert proportion_interval(right) == wilson_interval(40, 50)
    assert proportion_interval(right, np.arange(50)) == wilson_interval(40, 50)


def test_groups_of_like_outcomes_count_as_one_image_each() -> None:
    outcomes = np.arange(200) % 4 != 0
    groups = np.repeat(np.arange(200), 6)
    low, high = proportion_interval(np.repeat(outcomes, 6), groups)
    assert (low, high) == pytest.approx(wilson_interval(150, 200), abs=0.002)


def test_the_design_effect_by_hand() -> None:
    # groups of 2, outcomes 1 1 | 1 0 | 0 0 | 1 1, mean 5/8: sums of the deviations 3/4, -1/4, -5/4, 3/4
    deviations = np.array([1, 1, 1, 0, 0, 0, 1, 1]) - 5 / 8
    grouped, added = 4 / 3 * (9 + 1 + 25 + 9) / 16, 0.25 * 2 * 0.25
    expected = (grouped + 2 * added) / (8 * 5 / 8 * 3 / 8 + added)
    assert design_effect(deviations, np.repeat(np.arange(4), 2)) == pytest.approx(expected)


def test_a_design_effect_is_at_least_1_and_all_images_in_one_group_are_one() -> None:
    rng = np.random.default_rng(0)
    unlike = np.tile([0.5, -0.5], 30)
    assert design_effect(unlike, np.repeat(np.arange(30), 2)) == 1.0
    assert design_effect(rng.normal(size=9), np.zeros(9, dtype=np.int64)) == 9.0


def test_without_a_mistake_groups_make_the_interval_as_wide_as_that_of_so_many_images() -> None:
    groups = np.repeat(np.arange(20), 5)
    assert proportion_interval(np.ones(100), groups) == pytest.approx(wilson_interval(20, 20))


def in_groups(rng: np.random.Generator, n_groups: int, share: float, alike: float) -> tuple[Labels, Labels]:
    """Return groups of 1 to 10 images and which of them are right: beta-binomial."""
    chances = rng.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, n_groups)
    groups = np.repeat(np.arange(n_groups), 1 + rng.poisson(3, n_groups))
    return groups, (rng.random(len(groups)) < chances[groups]).astype(np.int64)


@pytest.mark.parametrize(("n_groups", "share", "alike"), [(60, 0.8, 0.5), (150, 0.9, 0.2), (100, 0.7, 0.9)])
def test_the_interval_over_groups_covers_the_truth_in_93_to_97_percent(
    n_groups: int, share: float, alike: float
) -> None:
    rng = np.random.default_rng(1)
    held = without = 0
    for _ in range(1500):
        groups, right = in_groups(rng, n_groups, share, alike)
        low, high = proportion_interval(right, groups)
        held += low <= share <= high
        low, high = proportion_interval(right)
        without += low <= share <= high
    assert 0.93 <= held / 1500 <= 0.97
    assert without / 1500 < 0.92  # images of one group are not so many images


# --- means over classes ---------------------------------------------------------------------------------------


def test_the_intervals_of_means_over_classes_cover_the_truth_in_93_to_97_percent() -> None:
    rng = np.random.default_rng(2)
    sizes, confusion = [200, 60, 60], np.array([[0.95, 0.05, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
    counts = confusion * np.array(sizes)[:, None]
    f1 = np.mean(2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1)))
    truths, held = (np.diag(confusion).mean(), f1), np.zeros(2)
    true = np.repeat(np.arange(3), sizes)
    for _ in range(1500):
        predicted = (rng.random(len(true))[:, None] >= confusion.cumsum(axis=1)[true]).sum(axis=1).clip(0, 2)
        held += [
            low <= truth <= high for truth, (low, high) in zip(truths, macro_intervals(true, predicted, 3), strict=True)
        ]
    assert (held / 1500 >= 0.93).all() and (held / 1500 <= 0.97).all(), held / 1500


def test_the_intervals_of_means_over_classes_hold_over_groups_too() -> None:
    """Four groups of five a class: with one mean taken from each, the variance would be a quarter too low."""
    rng = np.random.default_rng(4)
    true, groups = np.repeat(np.arange(10), 20), np.repeat(np.arange(40), 5)
    held = 0
    for _ in range(800):
        right = np.where(rng.random(200) < 2 / 3, rng.random(40)[groups], rng.random(200)) < 0.8
        predicted = np.where(right, true, (true + 1) % 10)
        (low, high), _ = macro_intervals(true, predicted, 10, groups)
        held += low <= 0.8 <= high
    assert 0.93 <= held / 800 <= 0.975


def test_means_over_classes_have_a_width_where_all_is_right_and_hold_what_was_measured() -> None:
    true = np.repeat(np.arange(3), 20)
    for low, high in macro_intervals(true, true, 3):
        assert low < 0.95 and high == pytest.approx(1)
    one_class = macro_intervals(numbers(0, 0, 0, 0), numbers(0, 0, 0, 1), 3)  # two classes are not tested at all
    assert all(0 <= low < high <= 1 for low, high in one_class)


def test_with_classes_of_one_size_and_one_recall_balanced_accuracy_has_the_interval_of_accuracy() -> None:
    true = np.repeat(np.arange(4), 50)
    predicted = np.where(np.arange(200) % 50 < 40, true, (true + 1) % 4)
    assert macro_intervals(true, predicted, 4)[0] == pytest.approx(wilson_interval(160, 200), abs=1e-9)


# --- McNemar and Holm -----------------------------------------------------------------------------------------


def outcomes(only_one: int, only_other: int, both: int = 3, neither: int = 2) -> tuple[Labels, Labels, Labels]:
    """Return true, one and other, such that so many images are right by only one of the two."""
    one = numbers(*([1] * only_one + [0] * only_other + [1] * both + [0] * neither))
    other = numbers(*([0] * only_one + [1] * only_other + [1] * both + [0] * neither))
    return np.ones(len(one), dtype=np.int64), one, other


@pytest.mark.parametrize(
    ("only_one", "only_other", "p"),
    [
        (0, 5, 1 / 2**5),
        (1, 5, (2 * 1 + 6) / 2**6),
        (2, 8, (2 * (1 + 10) + 45) / 2**10),
        (1, 7, 0.0391),  # the airway data of Fagerland, Lydersen and Laake 2013: 0.039
        (1, 1, 3 / 4),
        (0, 1, 1 / 2),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_one: int, only_other: int, p: float) -> None:
    assert mcnemar(*outcomes(only_one, only_other)) == pytest.approx(p, abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_mcnemar_agrees_with_the_binomial_test_and_is_symmetric(only_one: int, only_other: int) -> None:
    true, one, other = outcomes(only_one, only_other)
    p = mcnemar(true, one, other)
    n = only_one + only_other
    exact = binomtest(only_one, n, 0.5).pvalue if n else 1.0
    own = binom.pmf(only_one, n, 0.5) * (1 if only_one != only_other else 0.5) if n else 0.0
    assert p == pytest.approx(exact - own)  # of what was observed, either way round, half counts
    assert p == pytest.approx(mcnemar(true, other, one))
    assert p == pytest.approx(mcnemar(true, one, other, np.arange(len(true))))


def test_mcnemar_is_1_where_the_candidates_agree() -> None:
    true, one, _ = outcomes(5, 3)
    assert mcnemar(true, one, one) == 1.0


def test_mcnemar_ignores_images_that_both_get_wrong_in_different_ways() -> None:
    assert mcnemar(numbers(0, 0, 0), numbers(1, 1, 1), numbers(2, 2, 2)) == 1.0


@cache
def errors_of_mcnemar() -> npt.NDArray[np.float64]:
    """Return how often equal candidates are called different if 0 to 89 images differ."""
    return np.array(
        [
            sum(binom.pmf(k, d, 0.5) for k in range(d + 1) if d and mcnemar(*outcomes(k, d - k, 0, 0)) < 0.05)
            for d in range(90)
        ]
    )


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.5])
def test_mcnemar_calls_equal_candidates_different_in_at_most_5_percent(share: float) -> None:
    """Exact: of n images a binomial number differs, and of these the first gets binomial(differing, 1/2)."""
    for n in (50, 100, 150):
        level = binom.pmf(np.arange(90), n, share) @ errors_of_mcnemar()
        assert level <= 0.05, n
    if share >= 0.1:
        assert level > 0.035  # and it is a test that can reject: the exact one has 2.4 to 3.6 % here


def test_over_groups_the_signs_of_whole_groups_are_drawn() -> None:
    # differences of the groups: +3, +2, -1; of the 8 signs these sums are at least 4 away from 0: 6, 4, -4, -6
    true = np.ones(6, dtype=np.int64)
    one, other = numbers(1, 1, 1, 1, 1, 0), numbers(0, 0, 0, 0, 0, 1)
    groups = numbers(0, 0, 0, 1, 1, 2)
    assert mcnemar(true, one, other, groups) == pytest.approx(2 / 8 + 2 / 8 / 2)


def test_over_groups_equal_candidates_are_called_different_in_5_percent_and_more_if_groups_are_ignored() -> None:
    rng = np.random.default_rng(3)
    called = np.zeros(2)
    held = 0
    for _ in range(1000):
        groups, one = in_groups(rng, 80, 0.8, 0.6)
        other = (rng.random(len(groups)) < rng.beta(0.8 / 1.5, 0.2 / 1.5, 80)[groups]).astype(np.int64)
        true = np.ones(len(groups), dtype=np.int64)
        called += [mcnemar(true, one, other, given) < 0.05 for given in (groups, None)]
        low, high = difference_interval(true, one, other, groups)
        held += low <= 0 <= high
    assert called[0] / 1000 <= 0.065  # 5 % and two standard errors
    assert called[1] / 1000 > 0.1
    assert 0.93 <= held / 1000 <= 0.97


# --- the difference of two accuracies -------------------------------------------------------------------------


@pytest.mark.parametrize(("only_one", "only_other", "n"), [(12, 8, 100), (9, 3, 44), (1, 0, 30), (0, 0, 50)])
def test_the_ends_of_the_difference_are_where_tangos_statistic_is_the_normal_quantile(
    only_one: int, only_other: int, n: int
) -> None:
    """The share that only the other gets right is found by maximising the likelihood, not by Tango's formula."""
    from scipy.optimize import minimize_scalar

    for delta in difference_interval(*outcomes(only_one, only_other, n - only_one - only_other, 0)):
        least = max(0.0, -delta)

        def loss(share: float, delta: float = delta) -> float:
            cells = np.array([share + delta, share, 1 - 2 * share - delta])
            counts = np.array([only_one, only_other, n - only_one - only_other])
            return -float(np.sum(counts * np.log(np.maximum(cells, 1e-300))))

        share = minimize_scalar(loss, bounds=(least, (1 - delta) / 2), method="bounded", options={"xatol": 1e-12}).x
        spread = np.sqrt(n * (2 * share + delta * (1 - delta)))
        assert abs(only_one - only_other - n * delta) / spread == pytest.approx(1.959964, abs=2e-3)


def test_the_difference_is_mirrored_if_the_candidates_change_places_and_holds_what_was_measured() -> None:
    true, one, other = outcomes(12, 5, 40, 3)
    low, high = difference_interval(true, one, other)
    assert low < (12 - 5) / 60 < high
    assert difference_interval(true, other, one) == pytest.approx((-high, -low))


def test_a_difference_of_everything_ends_at_1() -> None:
    low, high = difference_interval(*outcomes(30, 0, 0, 0))
    assert high == 1.0 and 0.7 < low < 1
    low, high = difference_interval(*outcomes(0, 30, 0, 0))
    assert low == -1.0 and -1 < high < -0.7


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (0.1, 0.05), (0.2, 0.05)])
def test_the_interval_of_the_difference_covers_the_truth_in_93_to_97_percent(a: float, b: float) -> None:
    """Exact: all numbers of images that only one of the two gets right, of 100."""
    held = 0.0
    for differing in range(int(binom.ppf(1 - 1e-5, 100, a + b)) + 1):
        for ones in range(differing + 1):
            chance = binom.pmf(differing, 100, a + b) * binom.pmf(ones, differing, a / (a + b))
            if chance > 1e-7:
                low, high = difference_interval(*outcomes(ones, differing - ones, 100 - differing, 0))
                held += chance * (low <= a - b <= high)
    assert 0.93 <= held <= 0.97


# --- Holm -----------------------------------------------------------------------------------------------------


def test_holm_has_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [([], []), ([0.2], [0.2]), ([0.9, 0.8], [1.0, 1.0]), ([0.02, 0.02], [0.04, 0.04])],
    ids=["none", "one", "capped-at-1", "ties"],
)
def test_holm_at_the_edges(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_exactly_what_its_stepwise_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if (len(p_values) - rank) * p_values[i] > 0.05:  # Holm 1979, section 3: stop at the first that is not small
            break
        rejected.add(i)
    assert {i for i, p in enumerate(adjusted) if p <= 0.05} == rejected
    assert all(raw <= p <= 1 for raw, p in zip(p_values, adjusted, strict=True))
