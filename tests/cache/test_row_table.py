"""The row table of one layer, on a group of any HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest

from made_data import some_rows
from tlfeat.cache.row_table import RowTable


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[h5py.Group]:
    with h5py.File(tmp_path / "any.h5", "w") as file:
        yield file.create_group("anywhere")


def test_rows_wait_until_they_are_written_and_are_known_at_once(layers: h5py.Group) -> None:
    rows, keys = some_rows(70)
    table = RowTable(layers, "x", 2, nullcontext)
    known = table.known
    assert (table.is_begun, known) == (False, {})
    table.begin(6, "<f4", is_compressed=False)
    table.append(rows[:50], keys[:50])
    table.append(rows[50:], keys[50:])
    assert (table.n_rows, table.is_waiting, layers["x/n_rows"][()]) == (70, True, 0)
    assert known == {key: i for i, key in enumerate(keys)}
    table.write()
    assert (table.is_waiting, layers["x/n_rows"][()]) == (False, 70)
    again = RowTable(layers, "x", 2, nullcontext)
    assert again.known == known
    assert again.read(keys[::-3]).tobytes() == rows[::-3].tobytes()


def test_the_checksum_covers_the_key_but_for_version_1(layers: h5py.Group) -> None:
    row, key = np.arange(6, dtype=np.float32), np.arange(32, dtype=np.uint8)
    sums = [
        RowTable(layers, "x", version, nullcontext).checksum(row, k)
        for version in (1, 2)
        for k in (key, key[::-1].copy())
    ]
    assert sums[0] == sums[1] != sums[2] != sums[3]


@pytest.mark.parametrize(
    "dropped", [[0, 3, 68, 69], [69], list(range(70)), []], ids=["both ends", "last", "all", "none"]
)
def test_dropped_rows_are_gone_and_the_others_keep_their_keys(layers: h5py.Group, dropped: list[int]) -> None:
    rows, keys = some_rows(70)
    table = RowTable(layers, "x", 2, nullcontext)
    table.begin(6, "<f4", is_compressed=True)
    table.append(rows, keys)
    table.write()
    table.drop(dropped)
    kept = [i for i in range(70) if i not in dropped]
    assert set(table.known) == {keys[i] for i in kept}
    assert table.n_rows == len(kept) == len(layers["x/rows"])
    assert table.read([keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
