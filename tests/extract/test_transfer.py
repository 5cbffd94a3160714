"""Rows out of a cache for other tools, and into one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from made_data import FINGERPRINT, some_rows, table_of
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.extract.transfer import export_rows, import_rows


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_exported_rows_are_imported_again_to_the_bit(ending: str, tmp_path: Path) -> None:
    rows, keys = some_rows(40)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"pooled": rows}, keys)
        cache.write_table(table_of(keys))
    file = tmp_path / f"out.{ending}"
    assert export_rows(tmp_path / "c.h5", file) == (40, 6)
    if ending == "csv":
        with file.open(newline="") as opened:
            lines = list(csv.reader(opened))
        assert lines[0] == ["path", "label", "split", "group", "key", *(f"e{j}" for j in range(6))]
        assert [line[4] for line in lines[1:]] == keys
        file = tmp_path / "rows.npy"
        np.save(file, np.array([line[5:] for line in lines[1:]], np.float32))
    (tmp_path / "table.csv").write_text("label\n" + "a\nb\n" * 20)
    assert import_rows(file, tmp_path / "table.csv", tmp_path / "again.h5", name="mine") == 40
    with open_cache(tmp_path / "again.h5") as cache:
        assert cache.read("rows", keys).tobytes() == rows.tobytes()  # the keys are those of the rows' bytes


def test_no_cell_of_exported_text_is_a_formula_to_a_spreadsheet_and_numbers_stay_numbers(tmp_path: Path) -> None:
    rows, keys = some_rows(2)
    table = table_of(keys, ["=1+1.png", "-a.png"])
    table.images.labels[:] = ["+cmd|' /C calc'!A0", "-1"]
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"pooled": -np.abs(rows)}, keys)
        cache.write_table(table)
    export_rows(tmp_path / "c.h5", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as opened:
        _, *lines = csv.reader(opened)
    assert [line[:2] for line in lines] == [["'=1+1.png", "'+cmd|' /C calc'!A0"], ["'-a.png", "-1"]]
    assert np.array([line[5:] for line in lines], np.float32).tobytes() == (-np.abs(rows)).tobytes()
