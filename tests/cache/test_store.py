"""The cache: append, read, untrusted files, locks, full disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from made_data import FINGERPRINT, some_rows, table_of
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.cli.app import app
from tlfeat.errors import CacheError

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("cache-v*.h5"))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "c.h5"
    rows, keys = some_rows(200)
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve({"pooled": 6}, 200)
        for start in range(0, 200, 50):
            cache.append({"pooled": rows[start : start + 50]}, keys[start : start + 50])
        cache.write_table(table_of(keys))
    return path


def test_rows_come_back_to_the_bit_in_any_order(filled: Path) -> None:
    rows, keys = some_rows(200)
    order = np.random.default_rng(1).permutation(200)
    with open_cache(filled) as cache:
        back = cache.read("pooled", [keys[i] for i in order])
        twice = cache.read("pooled", [keys[3], keys[3]])
    assert back.dtype == np.float32
    assert back.tobytes() == rows[order].tobytes()
    assert twice.tobytes() == rows[[3, 3]].tobytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# --- damage and strangers ---------------------------------------------------------------------------------


def test_verify_names_the_row_whose_bit_flipped(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        file["layers/pooled/rows"][7, 2] += np.float32(1e-6)
    with open_cache(filled) as cache:
        assert cache.verify() == ["layer 'pooled', row 7: the checksum does not fit"]


def test_verify_says_which_images_have_no_row(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        file["layers/pooled/n_rows"][()] = 190
    with open_cache(filled) as cache:
        assert cache.verify() == [
            "layer 'pooled': 10 rows beyond the number that is recorded",
            "layer 'pooled': 10 images have no row; run tlfeat extract again",
        ]


def _flip(file: h5py.File) -> None:
    file["layers/pooled/rows"][7:11, 2] += np.float32(1e-6)
    file["layers/pooled/keys"][199, 0] ^= 1


def _not_finite(file: h5py.File) -> None:
    row = np.full(6, np.nan, np.float32)
    file["layers/pooled/rows"][3] = row
    file["layers/pooled/crc32"][3] = zlib.crc32(row.tobytes(), zlib.crc32(file["layers/pooled/keys"][3].tobytes()))


def _same_twice(file: h5py.File) -> None:
    for name in ("rows", "keys", "crc32"):
        file["layers/pooled"][name][9] = file["layers/pooled"][name][4]


def _torn_tail(file: h5py.File) -> None:
    file["layers/pooled/n_rows"][()] = 190


def _strangers(file: h5py.File) -> None:
    file["notes"] = [1, 2, 3]
    file["layers/pooled/more"] = 1
    file.attrs["author"] = "someone"
    file["layers/pooled/rows"].attrs["unit"] = "m"


def _table_gone(file: h5py.File) -> None:
    del file["images/key"]
    file["images"].create_dataset("key", data=np.array([b"no key"] * 200), chunks=(200,))


@pytest.mark.parametrize(
    ("harm", "said", "n_kept"),
    [
        (_flip, ["layer 'pooled', rows 7 to 10, 199 (5 rows): the checksum does not fit"], 195),
        (_not_finite, ["layer 'pooled', row 3: not all values are finite"], 199),
        (_same_twice, ["layer 'pooled', row 9: the same key stands there before"], 199),
        (_torn_tail, ["layer 'pooled': 10 rows beyond the number that is recorded"], 190),
        (
            _strangers,
            [
                f"{name} is nothing that tlfeat has written"
                for name in ("/@author", "/notes", "/layers/pooled/more", "/layers/pooled/rows/@unit")
            ],
            200,
        ),
        (_table_gone, ["FILE is damaged: its table of images holds what is no key or status."], 200),
    ],
)
def test_repair_drops_what_verify_finds_and_keeps_the_rest(
    filled: Path, harm: Callable[[h5py.File], None], said: list[str], n_kept: int
) -> None:
    rows, keys = some_rows(200)
    said = [line.replace("FILE", str(filled)) for line in said]
    with h5py.File(filled, "r+") as file:
        harm(file)
    with open_cache(filled) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == said
    assert repair_cache(filled) == said
    with open_cache(filled, writable=True) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == []
        kept = [i for i, key in enumerate(keys) if key in cache.known("pooled")]
        assert len(kept) == n_kept == cache.n_rows("pooled")
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        cache.append({"pooled": rows}, keys)
        cache.write_table(table_of(keys))
        assert cache.verify() == []
    assert repair_cache(filled) == []


def test_a_compressed_chunk_that_cannot_be_read_costs_its_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    rows, keys = some_rows(200)
    with create_cache(path, FINGERPRINT, {}, is_compressed=True) as cache:
        cache.append({"pooled": rows}, keys)
        cache.write_table(table_of(keys))
    with h5py.File(path) as file:
        chunk = file["layers/pooled/rows"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 20 : chunk.byte_offset + 40] = b"x" * 20
    path.write_bytes(data)
    said = ["layer 'pooled', rows 64 to 127 (64 rows): cannot be read"]
    with open_cache(path) as cache:
        assert [problem for problem in cache.verify() if "extract again" not in problem] == said
    assert repair_cache(path) == said
    with open_cache(path) as cache:
        kept = [i for i in range(200) if not 64 <= i < 128]
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        assert cache.verify() == ["layer 'pooled': 64 images have no row; run tlfeat extract again"]


def test_what_cannot_be_opened_is_salvaged_and_kept_aside(filled: Path) -> None:
    rows, keys = some_rows(200)
    with h5py.File(filled, "r+") as file:
        file["layers"]["linked"] = h5py.ExternalLink("/etc/passwd", "/")
        file["layers/pooled/rows"][5] = 0
    damaged = filled.read_bytes()
    with pytest.raises(CacheError, match="link to elsewhere"):
        open_cache(filled)
    dropped = repair_cache(filled)
    assert "It is kept as c.h5.damaged." in dropped[0]
    assert any(line == "layer 'pooled', row 5: the checksum does not fit" for line in dropped)
    assert filled.with_name("c.h5.damaged").read_bytes() == damaged
    assert sorted(p.name for p in filled.parent.iterdir()) == ["c.h5", "c.h5.damaged"]
    with open_cache(filled) as cache:
        kept = [i for i in range(200) if i != 5]
        assert cache.read("pooled", [keys[i] for i in kept]).tobytes() == rows[kept].tobytes()
        assert cache.verify() == ["layer 'pooled': 1 images have no row; run tlfeat extract again"]


def test_where_nothing_can_be_kept_the_message_says_so_and_the_file_stays(filled: Path) -> None:
    filled.write_bytes(b"x" * 1000)
    with pytest.raises(CacheError, match="Nothing in it can be kept: delete it and run tlfeat extract again"):
        repair_cache(filled)
    assert [(p.name, p.read_bytes()) for p in filled.parent.iterdir()] == [("c.h5", b"x" * 1000)]


def test_repairing_what_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="No cache at"):
        repair_cache(tmp_path / "gone.h5")
    with pytest.raises(CacheError, match="not a file at all"):
        repair_cache(tmp_path)


def test_verify_on_the_command_line_repairs_when_asked(filled: Path) -> None:
    with h5py.File(filled, "r+") as file:
        _flip(file)
    runner = CliRunner()
    found = runner.invoke(app, ["cache", "verify", "--cache", str(filled)])
    assert (found.exit_code, "rows 7 to 10, 199 (5 rows): the checksum" in found.stdout) == (3, True)
    repaired = runner.invoke(app, ["cache", "verify", "--repair", "--cache", str(filled), "--json"])
    assert repaired.exit_code == 0
    said = json.loads(repaired.stdout)
    assert (said["n_rows"], said["dropped"]) == (195, found.stdout.splitlines()[:1])
    assert runner.invoke(app, ["cache", "verify", "--cache", str(filled)]).exit_code == 3  # five images have no row


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.2, 0.5, 0.9, 0.999], ids=str)
def test_a_cut_off_cache_is_a_clear_error(filled: Path, kept: float) -> None:
    data = filled.read_bytes()
    filled.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(CacheError, match=r"damaged|not an HDF5 file"), open_cache(filled) as cache:
        cache.verify()


def _external_link(file: h5py.File) -> None:
    del file["layers"]["pooled"]["rows"]
    file["layers"]["pooled"]["rows"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft_link(file: h5py.File) -> None:
    file["layers"]["other"] = h5py.SoftLink("/layers/pooled")


def _external_storage(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset(
        "rows", (200, 6), dtype="<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    )


def _virtual(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    layout = h5py.VirtualLayout((200, 6), dtype="<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (200, 6))
    file["layers/pooled"].create_virtual_dataset("rows", layout)


def _huge(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset("rows", (10**9, 1280), dtype="<f4", chunks=(64, 1280))
    file["layers/pooled/n_rows"][()] = 10**9


def _too_many(file: h5py.File) -> None:
    file["layers/pooled/n_rows"][()] = 10**6


def _bomb(file: h5py.File) -> None:
    del file["images/path"]
    file["images"].create_dataset("path", (10**9,), dtype="S4000", chunks=(1000,), compression="gzip")


def _tiny_chunks(file: h5py.File) -> None:
    del file["images/path"]
    path = file["images"].create_dataset("path", (200,), dtype="S90000", chunks=(100,), compression="gzip")
    for start in (0, 100):
        path.id.write_direct_chunk((start,), zlib.compress(b"x"))


def _nameless_filter(file: h5py.File) -> None:
    del file["images/label"]
    file["images"].create_dataset("label", data=np.array([b"a"] * 200), chunks=(200,), compression="lzf")


def _text_rows(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset("rows", data=np.array([["a"] * 6] * 200, dtype="S1"))


def _other_version(file: h5py.File) -> None:
    file.attrs["format_version"] = 99


@pytest.mark.parametrize(
    "harm",
    [
        _external_link,
        _soft_link,
        _external_storage,
        _virtual,
        _huge,
        _too_many,
        _bomb,
        _tiny_chunks,
        _nameless_filter,
        _text_rows,
        _other_version,
    ],
    ids=lambda harm: harm.__name__.strip("_"),
)
def test_a_stranger_s_file_is_refused_before_anything_is_read(filled: Path, harm: object) -> None:
    with h5py.File(filled, "r+") as file:
        harm(file)  # type: ignore[operator]
    with pytest.raises(CacheError, match=str(filled.name)):
        open_cache(filled)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), n=st.integers(1, 40))
def test_mutated_bytes_end_in_a_listed_problem_or_a_clear_error(filled: Path, at: float, byte: int, n: int) -> None:
    data = bytearray(filled.read_bytes())
    start = int(at * len(data))
    data[start : start + n] = bytes([byte]) * len(data[start : start + n])
    mutant = filled.with_name("mutant.h5")
    mutant.write_bytes(data)
    try:
        with open_cache(mutant) as cache:
            cache.verify()
    except CacheError as error:
        assert str(mutant) in str(error)


def test_a_journal_of_a_file_that_was_deleted_is_not_applied_to_the_next(filled: Path) -> None:
    journal = filled.with_name("c.h5.journal")
    filled.rename(filled.with_name("old.h5"))
    journal.write_bytes(b"of the old one")
    create_cache(filled, FINGERPRINT, {}).close()
    assert not journal.exists()


def test_something_else_in_hdf5_is_not_taken_for_a_cache(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="not a tlfeat cache"):
        open_cache(tmp_path / "weights.h5")


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


def test_a_reader_beside_a_writer_is_told_to_wait(filled: Path) -> None:
    with open_cache(filled, writable=True):
        reader = in_another_process("open_cache(path)", filled)
    assert "CacheLocked" in reader.stderr


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
        monkeypatch.setattr("tlfeat.cache.store.shutil.disk_usage", lambda path: usage._replace(free=5_000_000))
        with pytest.raises(CacheError, match="disk is full"):
            cache.reserve({"pooled": 6}, 1_000_000)
    assert filled.read_bytes() == before


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
