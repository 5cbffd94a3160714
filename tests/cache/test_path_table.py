"""The path table, in any HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from made_data import make_table, some_rows, table_of
from tlfeat.cache.path_table import drop_path_table, read_path_table, write_path_table
from tlfeat.errors import CacheDamaged, CacheError


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
