"""The cache: append, read, golden files, locks, full disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_data import FINGERPRINT, filled_cache, some_rows, table_of
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.errors import CacheError

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("cache-v*.h5"))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return filled_cache(tmp_path / "c.h5")


def test_rows_come_back_to_the_bit_in_any_order(filled: Path) -> None:
    rows, keys = some_rows(200)
    order = np.random.default_rng(1).permutation(200)
    with open_cache(filled) as cache:
        back = cache.read("pooled", [keys[i] for i in order])
        twice = cache.read("pooled", [keys[3], keys[3]])
    assert back.dtype == np.float32
    assert back.tobytes() == rows[order].tobytes()
    assert twice.tobytes() == rows[[3, 3]].tobytes()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=8), reserved=st.integers(0, 300))
def test_any_sequence_of_appends_reads_back_equal(tmp_path: Path, sizes: list[int], reserved: int) -> None:
    path = tmp_path / "h.h5"
    path.unlink(missing_ok=True)
    rows, keys = some_rows(sum(sizes))
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve({"x": 6}, reserved)
        start = 0
        for n in sizes:
            cache.append({"x": rows[start : start + n]}, keys[start : start + n])
            start += n
        assert cache.read("x", keys).tobytes() == rows.tobytes()
    with open_cache(path) as cache:
        assert cache.layers == {"x": (len(rows), 6)}
        assert cache.read("x", keys).tobytes() == rows.tobytes()


def test_a_key_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    rows, keys = some_rows(3)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"x": rows[[0, 1, 1]]}, [keys[0], keys[1], keys[1]])
        cache.append({"x": rows}, keys)
        assert cache.n_rows("x") == 3
        assert cache.verify()[0].endswith("Run tlfeat extract again.")  # only the table is missing
        assert cache.read("x", keys).tobytes() == rows.tobytes()


def test_asking_for_a_row_that_is_not_there_says_what_to_do(filled: Path) -> None:
    with open_cache(filled) as cache, pytest.raises(CacheError, match="1 of 1 images have no row"):
        cache.read("pooled", ["00" * 32])


@pytest.mark.parametrize(
    "name",
    ["a b.png", 'it\'s "quoted".png', "new\nline.png", "zażółć/図.png", os.fsdecode(b"latin-\xe9.png"), "x" * 4000],
    ids=["space", "quotes", "newline", "unicode", "not-utf8", "long"],
)
def test_any_file_name_survives_the_table(tmp_path: Path, name: str) -> None:
    _, keys = some_rows(1)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.write_table(table_of(keys, [name]))
    with open_cache(tmp_path / "c.h5") as cache:
        assert cache.table.images.paths == [name]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_every_way_of_storing_rows_reads_back_what_it_stored(tmp_path: Path, dtype: str, is_compressed: bool) -> None:
    rows, keys = some_rows(300)
    rows = np.round(rows)  # compresses
    sizes = {}
    for compress in {False, is_compressed}:
        path = tmp_path / f"{compress}.h5"
        with create_cache(path, {**FINGERPRINT, "dtype": dtype}, {}, is_compressed=compress) as cache:
            stored = cache.stored(rows)
            cache.append({"x": rows[:100], "y": rows[:100]}, keys[:100])
            cache.append({"x": stored[100:]}, keys[100:])
        with open_cache(path) as cache:
            back = cache.read("x", keys)
            assert [problem for problem in cache.verify() if "no table" not in problem] == []
        assert stored.dtype == dtype
        assert (back.dtype, back.tobytes()) == (np.float32, stored.astype(np.float32).tobytes())
        sizes[compress] = path.stat().st_size
    assert sizes[False] > 400 * 6 * np.dtype(dtype).itemsize
    if is_compressed:
        assert sizes[True] < sizes[False] - 200 * 6 * np.dtype(dtype).itemsize


def test_a_value_too_large_for_float16_is_refused_and_the_batch_with_it(tmp_path: Path) -> None:
    rows, keys = some_rows(4)
    rows[2, 1] = 1e5
    with create_cache(tmp_path / "c.h5", {**FINGERPRINT, "dtype": "float16"}, {}) as cache:
        assert np.isfinite(cache.stored(rows)).all(axis=1).tolist() == [True, True, False, True]
        with pytest.raises(CacheError, match="not finite as float16"):
            cache.append({"x": rows}, keys)
        cache.append({"x": rows[:2]}, keys[:2])
        assert cache.layers == {"x": (2, 6)}


def test_a_dtype_that_no_cache_stores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="float32 or float16, not as int8"):
        create_cache(tmp_path / "c.h5", {"dtype": "int8"}, {})


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_the_golden_file_of_every_format_reads_as_it_was_written(golden: Path) -> None:
    rows, keys = some_rows(5)
    with open_cache(golden) as cache:
        assert cache.fingerprint == FINGERPRINT
        assert cache.layers == {"pooled": (5, 6)}
        assert cache.table.images.paths == [f"a/{i}.png" for i in range(5)]
        assert list(cache.table.sizes) == [1] * 5
        assert cache.read("pooled", keys).tobytes() == rows.tobytes()
        assert cache.verify() == []


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_the_golden_file_of_every_format_goes_on(golden: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(golden, tmp_path))
    rows, keys = some_rows(90)
    with open_cache(path, writable=True) as cache:
        version = cache.describe()["format_version"]
        cache.append({"pooled": rows, "new": rows[:, :2]}, keys)
        cache.write_table(table_of(keys))
    with open_cache(path) as cache:
        assert cache.describe()["format_version"] == version
        assert cache.layers == {"new": (90, 2), "pooled": (90, 6)}
        assert cache.read("pooled", keys).tobytes() == rows.tobytes()
        assert cache.verify() == []


def test_a_journal_of_a_file_that_was_deleted_is_not_applied_to_the_next(filled: Path) -> None:
    journal = filled.with_name("c.h5.journal")
    filled.rename(filled.with_name("old.h5"))
    journal.write_bytes(b"of the old one")
    create_cache(filled, FINGERPRINT, {}).close()
    assert not journal.exists()


# --- several processes, full disks ------------------------------------------------------------------------


def in_another_process(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    before = (
        "import os, sys; from pathlib import Path; "
        "from tlfeat.cache.store import open_cache; path = Path(sys.argv[1]); "
    )
    return subprocess.run([sys.executable, "-c", before + code, str(path)], capture_output=True, text=True)


def test_a_second_writer_gets_a_clear_message_and_harms_nothing(filled: Path) -> None:
    rows, keys = some_rows(10, seed=9)
    with open_cache(filled, writable=True) as cache:
        second = in_another_process("open_cache(path, writable=True)", filled)
        assert "CacheLocked" in second.stderr and "another process" in second.stderr
        cache.append({"pooled": rows}, keys)
    with open_cache(filled) as cache:
        assert cache.n_rows("pooled") == 210


def test_the_lock_ends_with_its_process(filled: Path) -> None:
    assert in_another_process("cache = open_cache(path, writable=True); os._exit(9)", filled).returncode == 9
    with open_cache(filled, writable=True) as cache:
        assert cache.n_rows("pooled") == 200


def test_a_disk_with_too_little_room_is_seen_before_anything_is_written(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(filled.parent)
    before = filled.read_bytes()
    with open_cache(filled, writable=True) as cache:
        monkeypatch.setattr("tlfeat.cache.cache_file.shutil.disk_usage", lambda path: usage._replace(free=5_000_000))
        with pytest.raises(CacheError, match="disk is full"):
            cache.reserve({"pooled": 6}, 1_000_000)
    assert filled.read_bytes() == before


def test_rows_that_wait_need_room_in_the_journal_and_in_the_file(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, keys = some_rows(2000, 1000)  # 8 MB
    monkeypatch.setattr("tlfeat.cache.cache_file._COMMIT_S", 3600.0)
    free = shutil.disk_usage(filled.parent)
    with open_cache(filled, writable=True) as cache:
        cache.append({"wide": rows[:1500]}, keys[:1500])
        spare, new, waiting = 4 << 20, rows[1500:].nbytes, rows[:1500].nbytes
        room = {"free": spare + new + 2 * waiting - 1}
        monkeypatch.setattr("tlfeat.cache.cache_file.shutil.disk_usage", lambda path: free._replace(**room))
        with pytest.raises(CacheError, match="disk is full"):
            cache.append({"wide": rows[1500:]}, keys[1500:])
        room["free"] += 1
        cache.append({"wide": rows[1500:]}, keys[1500:])
    with open_cache(filled) as cache:
        assert cache.read("wide", keys).tobytes() == rows.tobytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_loses_no_acknowledged_row(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        _fill_until_full(small)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _fill_until_full(small: Path) -> None:
    path, width, n = small / "c.h5", 1000, 16
    n_acknowledged = 0
    cache: Cache
    with create_cache(path, FINGERPRINT, {}) as cache, pytest.raises(CacheError, match="disk is full"):
        for batch in range(1000):
            rows, keys = some_rows(n, width, seed=batch)
            if batch == 40:  # someone else fills the disk while we write
                free = shutil.disk_usage(small).free
                (small / "other").write_bytes(b"x" * max(free - 4_300_000, 0))
            cache.append({"x": rows}, keys)
            cache.commit()
            n_acknowledged += n
    assert n_acknowledged > 500
    with open_cache(path, writable=True) as cache:
        assert cache.n_rows("x") == n_acknowledged
        (small / "other").unlink(missing_ok=True)
        rows, keys = some_rows(n, width, seed=5000)
        cache.append({"x": rows}, keys)
        _, first_keys = some_rows(n, width, seed=0)
        assert cache.read("x", first_keys).tobytes() == some_rows(n, width, seed=0)[0].tobytes()
        assert cache.verify() == [f"{path} has no table of images. Run tlfeat extract again."]
