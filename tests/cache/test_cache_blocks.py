"""Rows are read block by block: no row is lost where two blocks meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_data import FINGERPRINT, some_rows
from tlfeat.cache import row_table
from tlfeat.cache.store import create_cache


@pytest.mark.parametrize("n", [4095, 4096, 4097, 8193])
def test_every_row_of_every_block_of_4096_is_read(tmp_path: Path, n: int) -> None:
    rows, keys = some_rows(n, width=3)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"x": rows}, keys)
        assert cache.read("x", keys).tobytes() == rows.tobytes()
        assert cache.read("x", keys[::-1]).tobytes() == rows[::-1].tobytes()
        at_the_seams = [i for i in (0, 4094, 4095, 4096, 8191, 8192) if i < n]
        assert cache.read("x", [keys[i] for i in at_the_seams]).tobytes() == rows[at_the_seams].tobytes()


@pytest.mark.parametrize(("dtype", "width"), [("float32", 5), ("float16", 10)])
def test_every_row_of_every_block_of_so_many_bytes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, width: int
) -> None:
    rows, keys = some_rows(50, width)
    rows = rows.astype(dtype).astype(np.float32)
    with create_cache(tmp_path / "c.h5", {**FINGERPRINT, "dtype": dtype}, {}) as cache:
        cache.append({"x": rows}, keys)
        for block_bytes in (1, 20, 7 * 20 + 1, 49 * 20, 50 * 20, 51 * 20):  # a row is 20 bytes
            monkeypatch.setattr(row_table, "_BLOCK_BYTES", block_bytes)
            order = np.random.default_rng(block_bytes).permutation(50)
            assert cache.read("x", [keys[i] for i in order]).tobytes() == rows[order].tobytes(), block_bytes
