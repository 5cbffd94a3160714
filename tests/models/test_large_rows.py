"""Rows near the largest float32: a head is fitted, or the user is told why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlfeat.errors import DataError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.transfer import import_rows
from tlfeat.heads.table import HEADS
from tlfeat.models.fit_sklearn import fit_sklearn


def large_rows(scale: float) -> Path:
    rng = np.random.default_rng(5)
    rows = rng.uniform(-0.5, 0.5, (40, 6))
    rows[::2] += 0.4
    np.save("rows.npy", (rows * scale).astype(np.float32))
    Path("t.csv").write_text("label\n" + "cat\ndog\n" * 20, encoding="utf-8")
    import_rows(Path("rows.npy"), Path("t.csv"), Path("c.h5"), name="mine")
    return Path("c.h5")


@pytest.mark.parametrize("head", [head.name for head in HEADS])
def test_rows_whose_squares_are_no_float32_are_refused_in_words(head: str) -> None:
    with (
        open_data(large_rows(3e38), seed=3) as data,
        pytest.raises(DataError, match=r"too large for a head: their squares are beyond float32.*Divide them"),
    ):
        fit_sklearn(data, head)


@pytest.mark.parametrize("head", [head.name for head in HEADS])
def test_rows_whose_squares_are_float32_are_fitted(head: str) -> None:
    with open_data(large_rows(1e17), seed=3) as data:
        assert fit_sklearn(data, head).result.score.accuracy > 0.5
