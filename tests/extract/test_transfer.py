"""Rows out of a cache for other tools, and into one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from children import KILLED, exit_code_of_child, killed
from made_data import FINGERPRINT, some_rows, table_of
from tlfeat import workspace
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheError, DataError, UsageError
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


@pytest.fixture
def to_import(tmp_path: Path) -> tuple[Path, Path]:
    rows, _ = some_rows(20)
    np.save(tmp_path / "r.npy", rows)
    (tmp_path / "t.csv").write_text("label\n" + "cat\ndog\n" * 10)
    return tmp_path / "r.npy", tmp_path / "t.csv"


@pytest.mark.parametrize("method", ["append", "write_table", "close"])
def test_an_import_that_is_killed_leaves_no_cache_and_can_be_run_again(
    to_import: tuple[Path, Path], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path("cache/text.h5")

    def die_within() -> None:
        monkeypatch.setattr(CacheFile, method, killed)
        import_rows(*to_import, cache, name="speech")

    assert exit_code_of_child(die_within) == KILLED
    with pytest.raises(CacheError, match="No cache under"):
        workspace.newest_cache()
    assert import_rows(*to_import, cache, name="speech") == 20
    assert workspace.newest_cache() == cache
    with open_cache(cache) as opened:
        assert opened.verify() == []


def test_an_import_does_not_replace_what_has_the_name_by_then(
    to_import: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache, write_table = tmp_path / "c.h5", CacheFile.write_table

    def slowly(self: CacheFile, *values: Any) -> None:
        write_table(self, *values)
        cache.write_text("of another process")

    monkeypatch.setattr(CacheFile, "write_table", slowly)
    with pytest.raises(UsageError, match=r"c\.h5 exists already"):
        import_rows(*to_import, cache, name="speech")
    assert cache.read_text() == "of another process"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "r.npy", "t.csv"]


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_an_export_that_fails_leaves_what_was_there(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, keys = some_rows(5)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"a": rows}, keys)
        cache.write_table(table_of(keys))
    to = tmp_path / f"rows{suffix}"
    to.write_text("of yesterday")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"Cannot write .*No space left"):
        export_rows(tmp_path / "c.h5", to)
    assert to.read_text() == "of yesterday"


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_domains_go_out_and_come_in(ending: str, tmp_path: Path) -> None:
    rows, _ = some_rows(4)
    (tmp_path / "t.csv").write_text("label,domain\na,Haus Süd\nb,\na,x\nb,x\n", encoding="utf-8")
    np.save(tmp_path / "rows.npy", rows)
    import_rows(tmp_path / "rows.npy", tmp_path / "t.csv", tmp_path / "c.h5", name="mine")
    with open_cache(tmp_path / "c.h5") as cache:
        assert cache.table.images.domains == ["Haus Süd", "", "x", "x"]
    file = tmp_path / f"out.{ending}"
    export_rows(tmp_path / "c.h5", file)
    if ending == "npz":
        assert np.load(file)["domain"].tolist() == ["Haus Süd", "", "x", "x"]
    else:
        with file.open(newline="", encoding="utf-8") as opened:
            lines = list(csv.DictReader(opened))
        assert [line["domain"] for line in lines] == ["Haus Süd", "", "x", "x"]
        assert list(lines[0])[:7] == ["path", "label", "split", "group", "key", "domain", "e0"]
