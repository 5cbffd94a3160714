"""Whether test images are of another kind than training images, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_data import as_json, tlfeat
from tlfeat.evaluate.intervals import proportion_interval
from tlfeat.heads.shift import HeldOut, measure_shift, shift_sentence, some_rows, tell_apart
from tlfeat.records import Shift
from tlfeat.types import Rows


def rows_around(mean: float, n: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(n, 40)).astype(np.float32)
    rows[:, :5] += mean
    return rows


def test_rows_of_one_kind_are_not_told_apart_and_others_are() -> None:
    learned = rows_around(0, 700, seed=1)
    same = tell_apart(learned, rows_around(0, 90, seed=2))
    moved = tell_apart(learned, rows_around(0.7, 90, seed=3))
    far = tell_apart(learned, rows_around(3, 90, seed=4))
    assert 0.35 < same < 0.65 < 0.75 < moved < far <= 1
    assert far > 0.99


def test_constant_columns_and_single_rows_do_not_break_it() -> None:
    learned = rows_around(0, 30, seed=1)
    learned[:, 7] = 2.5
    other = rows_around(4, 20, seed=2)
    other[:, 7] = 2.5
    assert tell_apart(learned, other) > 0.95
    assert tell_apart(learned, other[:1]) == 0.5


def test_some_rows_are_at_most_500_different_ones_and_seeded() -> None:
    rows = np.arange(1400, dtype=np.float32).reshape(700, 2)
    drawn = some_rows(rows, seed=3)
    assert drawn.shape == (500, 2) and len(np.unique(drawn[:, 0])) == 500
    assert np.array_equal(drawn, some_rows(rows, seed=3)) and not np.array_equal(drawn, some_rows(rows, seed=4))
    assert sorted(some_rows(rows[:30], seed=3)[:, 0].tolist()) == rows[:30, 0].tolist()


def test_the_interval_of_the_difference_is_newcombe_s() -> None:
    """Method 10 on 56 of 70 and 48 of 80: Newcombe 1998, table II, example (a)."""
    held_out = HeldOut(np.arange(70) < 56, np.arange(70))
    found = measure_shift(held_out, 0.7, 48 / 80, proportion_interval(np.arange(80) < 48))
    assert (found.auc, found.held_out) == (0.7, 0.8)
    assert (found.difference, *found.difference_ci95) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_groups_make_the_interval_wider() -> None:
    right, test_ci95 = np.arange(70) < 56, proportion_interval(np.arange(80) < 48)
    alone = measure_shift(HeldOut(right, np.arange(70)), 0.7, 0.6, test_ci95).difference_ci95
    grouped = measure_shift(HeldOut(right, np.arange(70) // 10), 0.7, 0.6, test_ci95).difference_ci95
    assert grouped[0] < alone[0] < alone[1] < grouped[1]
    by_images = measure_shift(HeldOut(right, np.arange(70) // 10), 0.7, 0.6, test_ci95, by_groups=False)
    assert by_images.difference_ci95 == alone


SHIFTED = Shift(auc=0.97, held_out=0.869, difference=0.388, difference_ci95=(0.351, 0.424))


def test_a_drop_beyond_chance_is_said() -> None:
    said = shift_sentence(SHIFTED)
    assert said.startswith(
        "SHIFT: held-out training images are right in 86.9 %, test images in 48.1 %, 38.8 points fewer (95 % interval "
        "35.1 to 42.4); a head tells training from test images (AUC 0.97), so they are of another kind."
    )
    assert "look at the labels of the test images" in shift_sentence(replace(SHIFTED, auc=0.55))


@pytest.mark.parametrize("low", [-0.05, 0.01, 0.02])
def test_a_drop_within_chance_is_not_said(low: float) -> None:
    assert shift_sentence(replace(SHIFTED, difference=0.05, difference_ci95=(low, 0.1))) == ""
    assert shift_sentence(None) == ""


def test_a_fit_says_a_shift_of_a_given_test_set(tmp_path: Path) -> None:
    """Colours tell the classes apart in training; in the test set half of the images have the other one's colour."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 24), ("test", 30)):
        for c, label in enumerate(("red", "blue")):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for i in range(n):
                colour = c if split == "train" or i % 2 else 1 - c
                pixels = rng.integers(0, 90, (24, 20, 3), dtype=np.uint8)
                pixels[..., 2 * colour] += 120
                pixels[..., 1] += 60 * (split == "test")
                Image.fromarray(pixels).save(tmp_path / "set" / split / label / f"{i}.png")
    tlfeat("extract", "set", "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("fit-sklearn", "--model", "ridge", cwd=tmp_path)
    said = "SHIFT: held-out training images are right in 100.0 %, test images in 50.0 %, 50.0 points fewer"
    assert f"warning: {said}" in run.stderr
    found = as_json("fit-sklearn", "--model", "ridge", cwd=tmp_path)["shift"]
    assert (found["held_out"], found["difference"]) == (1.0, 0.5)
    assert found["auc"] > 0.95
    run = tlfeat("compare", "--heads", "ridge,lda", "--keras", "none", cwd=tmp_path)
    assert run.stderr.count("SHIFT:") == 1
    again = as_json("fit-sklearn", "--model", "ridge", "--fresh", "--test-split", "none", cwd=tmp_path)
    assert again["shift"] is None  # drawn from the training images
