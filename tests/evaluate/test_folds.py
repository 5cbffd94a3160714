"""Folds and the columns of each: what is held out is never looked at."""

from __future__ import annotations

import numpy as np
import pytest

from made_data import make_table
from tlfeat.evaluate.split import folds, make_split
from tlfeat.heads.blocks import View
from tlfeat.heads.columns import columns_by_fold


def test_validation_images_that_are_given_are_the_one_fold() -> None:
    labels = ["cat", "dog"] * 12
    split = make_split(make_table(labels, splits=["train"] * 12 + ["val"] * 6 + ["test"] * 6))
    positions = split.where("train", "val")
    ((learned, held),) = folds(split, positions, n_folds=5, seed=0)
    assert {split.roles[i] for i in positions[held]} == {"val"}
    assert {split.roles[i] for i in positions[learned]} == {"train"}
    assert (len(learned), len(held)) == (12, 6)


def test_where_a_class_has_only_validation_images_they_are_no_fold() -> None:
    """The head of that fold would not know the class that it is judged on."""
    labels = ["cat", "dog"] * 6 + ["cat", "dog", "newt"] * 4 + ["cat", "dog", "newt"] * 2
    splits = ["train"] * 12 + ["val"] * 12 + ["test"] * 6
    split = make_split(make_table(labels, splits=splits))
    assert split.is_val_given
    assert split.classes == ["cat", "dog", "newt"]
    positions = split.where("train", "val")
    found = folds(split, positions, n_folds=3, seed=0)
    assert len(found) == 3
    for learned, held in found:
        assert set(split.labels[positions[learned]]) == {0, 1, 2}
        assert len(held) == len(positions) / 3
    assert sorted(i for _, held in found for i in held) == list(range(len(positions)))


@pytest.mark.parametrize("scaling", ["each", "common"])
def test_the_columns_of_a_fold_are_those_of_the_images_that_are_not_in_it(scaling: str) -> None:
    """The rows of fold 1 lie elsewhere and are wider: who looks at them shows it."""
    rng = np.random.default_rng(0)
    fold_of = np.repeat([0, 1, 2, -1], [40, 30, 20, 10])  # the last ten are in no fold: every fit has them
    rows = rng.normal(1, 2, (100, 5)).astype(np.float32)
    rows[fold_of == 1] = rows[fold_of == 1] * 4 + 30
    found, of_all = columns_by_fold(View(rows, (0, 5)), fold_of, 3, scaling)
    assert len(found) == 3
    for columns, seen in [*((found[f], rows[fold_of != f]) for f in range(3)), (of_all, rows)]:
        seen = seen.astype(np.float64)
        spread = seen.std(axis=0) if scaling == "each" else np.sqrt(seen.var(axis=0).mean())
        np.testing.assert_allclose(columns.shift, seen.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(columns.scale, np.broadcast_to(spread, 5), rtol=1e-4)
