"""The path table, in any HDF5 file."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from made_data import FINGERPRINT, filled_cache, make_table, some_rows, table_of
from tlfeat.cache.path_table import drop_path_table, read_path_table, write_path_table
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheDamaged, CacheError

pytestmark = pytest.mark.whole


def test_a_table_reads_as_it_was_written_and_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "any.h5"
    table = make_table(
        ["cat", "dog", "Ziege ä"],
        splits=["train", "", "test"],
        groups=["g", "", "h"],
        status=["ok", "pending", "failed"],
    )
    table.errors[2] = "x" * 1000
    with h5py.File(path, "w") as file:
        write_path_table(file, table_of(some_rows(9)[1]))
        write_path_table(file, table)
        found = read_path_table(path, file)
        assert drop_path_table(file) == 1
        with pytest.raises(CacheError, match=r"any\.h5 has no table of images"):
            read_path_table(path, file)
    assert (found.images.paths, found.images.labels) == (table.images.paths, table.images.labels)
    assert (found.images.splits, found.images.groups) == (table.images.splits, table.images.groups)
    assert (found.keys, found.status, found.errors) == (table.keys, table.status, ["", "", "x" * 300])


@pytest.mark.parametrize("column", ["key", "status"])
def test_what_is_no_key_or_status_is_damage(column: str, tmp_path: Path) -> None:
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        write_path_table(file, table_of(some_rows(2)[1]))
        file["images"][column][1] = b"zz"
        with pytest.raises(CacheDamaged, match="no key or status"):
            read_path_table(path, file)


@pytest.mark.sample("many lines")
@pytest.mark.parametrize(
    ("column", "width", "n_lines"),
    [("path", 30_000, 20_000), ("error", 50_000, 12_000), ("status", 2, 4_000_000)],
    ids=["wide paths", "wide errors", "many lines"],
)
def test_a_table_that_would_unfold_to_many_times_its_file_is_refused_before_it_is_read(
    column: str, width: int, n_lines: int, tmp_path: Path
) -> None:
    path = filled_cache(tmp_path / "c.h5")
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        group = file["images"]
        for name in list(group):
            kind = group[name].dtype if group[name].dtype.kind == "i" else f"S{width if name == column else 2}"
            del group[name]
            fill = np.bytes_("ok" if name == "status" else "") if kind != "int64" else 0
            made = group.create_dataset(
                name, (n_lines,), kind, chunks=(8192,), compression="gzip", fletcher32=True, fillvalue=fill
            )
            for start in range(0, n_lines, 8192):
                made[start : start + 8192] = fill
    assert path.stat().st_size < 8e6
    with pytest.raises(CacheDamaged, match=r"its table of images would take [\d,]+ MB, the limit"):
        open_cache(path)


def test_a_table_with_one_long_error_is_read_in_blocks(tmp_path: Path) -> None:
    """Every error is stored as wide as the longest: 300 times 40,000 bytes, of which a few are there."""
    n = 40_000
    _, keys = some_rows(n, width=1)
    table = table_of(keys, [f"{i}.png" for i in range(n)])
    errors = ["", "x" * 300] + [""] * (n - 2)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.write_table(replace(table, errors=errors))
    with open_cache(tmp_path / "c.h5") as cache:
        tracemalloc.start()
        try:
            assert cache.table.errors == errors
            assert tracemalloc.get_traced_memory()[1] < 28e6
        finally:
            tracemalloc.stop()


# --- domains --------------------------------------------------------------------------------------------------


def with_domains(path: Path) -> Path:
    with open_cache(filled_cache(path), writable=True) as cache:
        table = cache.table
        domains = ["Haus Süd", "", "photo", "x"] * 50
        cache.write_table(replace(table, images=replace(table.images, domains=domains)))
    return path


def test_domains_are_kept_in_a_file_of_format_3_and_others_stay_of_format_2(tmp_path: Path) -> None:
    with open_cache(filled_cache(tmp_path / "without.h5")) as cache:
        assert (cache.describe()["format_version"], cache.describe()["images"]["domains"]) == (2, {})
        assert cache.table.images.domains == [""] * 200
    with open_cache(with_domains(tmp_path / "c.h5")) as cache:
        assert cache.table.images.domains[:5] == ["Haus Süd", "", "photo", "x", "Haus Süd"]
        about = cache.describe()
        assert (about["format_version"], about["images"]["domains"]) == (3, {"Haus Süd": 50, "photo": 50, "x": 50})
        assert cache.verify() == []


def test_a_file_without_domains_again_stays_of_format_3(tmp_path: Path) -> None:
    keys = some_rows(200)[1]
    with open_cache(with_domains(tmp_path / "c.h5"), writable=True) as cache:
        cache.write_table(table_of(keys))
    with open_cache(tmp_path / "c.h5") as cache:
        assert (cache.describe()["format_version"], cache.table.images.domains) == (3, [""] * 200)
        assert cache.verify() == []


def test_a_file_of_format_1_takes_no_domains_and_stays_as_it_was(tmp_path: Path) -> None:
    path = Path(shutil.copy(Path(__file__).parents[1] / "golden" / "cache-v1.h5", tmp_path))
    with open_cache(path, writable=True) as cache:
        table = replace(cache.table, images=replace(cache.table.images, domains=["x"] * 5))
        with pytest.raises(CacheError, match=r"format 1, which has no room for domains.*--cache"):
            cache.write_table(table)
    with open_cache(path) as cache:
        assert (cache.describe()["format_version"], cache.table.images.domains) == (1, [""] * 5)
        assert cache.verify() == []


def test_domains_in_a_file_of_format_2_are_not_read_and_reported(tmp_path: Path) -> None:
    path = with_domains(tmp_path / "c.h5")
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        file.attrs["format_version"] = 2
    with open_cache(path) as cache:
        assert cache.table.images.domains == [""] * 200
        assert any("/images/domain" in problem for problem in cache.verify())


def test_a_file_of_format_3_without_its_domains_is_damaged(tmp_path: Path) -> None:
    path = with_domains(tmp_path / "c.h5")
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        del file["images"]["domain"]
    with pytest.raises(CacheDamaged, match="domain is missing"):
        open_cache(path)


def test_a_repair_keeps_domains(tmp_path: Path) -> None:
    path = with_domains(tmp_path / "c.h5")
    rows, keys = some_rows(200)
    with open_cache(path, writable=True) as cache:
        cache.append({"new": rows[:, :2]}, keys)
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        del file["layers"]["new"]["crc32"]  # it does not open: all that is sound goes to another file
    assert repair_cache(path)
    with open_cache(path) as cache:
        assert cache.layers == {"pooled": (200, 6)}
        assert cache.table.images.domains[:3] == ["Haus Süd", "", "photo"]
