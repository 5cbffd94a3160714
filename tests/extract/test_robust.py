"""Everything that goes wrong around a cache: kills, Ctrl-C, full and read-only disks, clocks, strangers' files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

import tlfeat.cache.journal
import tlfeat.images.decode
from conftest import CountingEncoder, MakePhotos, picture, without_rights
from made_data import FINGERPRINT, some_rows, table_of
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.checks import in_child
from tlfeat.cache.journal import JournalledFile
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheDamaged, CacheError, CacheLocked
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images

pytestmark = pytest.mark.whole

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def photos(make_photos: MakePhotos) -> Path:
    return make_photos(n=12)


@pytest.fixture
def undisturbed(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    extract_rows(load_images(photos), PixelEncoder((8, 8)), tmp_path / "undisturbed.h5")
    return rows_by_path(tmp_path / "undisturbed.h5")


def rows_by_path(path: Path) -> dict[str, bytes]:
    """Return every image's row, of a cache that must be sound."""
    with open_cache(path) as cache:
        assert cache.verify() == []
        table = cache.table
        rows = cache.read("pixels", table.keys)
    return {name: row.tobytes() for name, row in zip(table.images.paths, rows, strict=True)}


def damage(path: Path) -> list[str]:
    """Return what `verify` finds beside images that `extract` has not come to."""
    with open_cache(path) as cache:
        return [problem for problem in cache.verify() if "extract again" not in problem]


# --- the campaigns, in small ----------------------------------------------------------------------------------


def test_a_writer_that_is_killed_six_times_loses_no_committed_row_and_ends_with_the_same_bits(
    soak: ModuleType, tmp_path: Path
) -> None:
    photos = soak.make_photos(tmp_path / "photos", 120)
    outcomes = soak.kill(0, photos, tmp_path, n_times=6)
    assert outcomes["killed"] >= 3


def test_damaged_caches_end_in_listed_problems_or_a_clear_error(damage: ModuleType, tmp_path: Path) -> None:
    """The first of the 10,000 of ``soak/cache.py``."""
    seeds = damage.make_seeds(tmp_path)
    outcomes = sum((damage.mutant(seed, seeds, tmp_path) for seed in range(12)), damage.Counter())
    assert outcomes["error: refused"] > 5
    assert outcomes["sound"] > 2  # a byte that means nothing
    assert outcomes["repair: salvaged"] + outcomes["repair: rows dropped"] > 0


# --- a process that may crash ---------------------------------------------------------------------------------


@pytest.mark.sample("crash", "loop", "memory", "error")
@needs_fork
@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "crashes the HDF5 library"),
        (lambda: time.sleep(60), "hangs the HDF5 library"),
        (lambda: sum(iter(int, 1)), "hangs the HDF5 library"),
        (lambda: len(bytearray(1 << 40)), "takes more memory than there is"),
        (lambda: int("x"), "is damaged: invalid literal"),
    ],
    ids=["crash", "wait", "loop", "memory", "error"],
)
def test_what_goes_wrong_in_the_child_is_an_error_in_the_parent(
    tmp_path: Path, work: Callable[[], object], message: str
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    started_s = time.monotonic()
    with pytest.raises(CacheDamaged, match=message):
        in_child(tmp_path / "f", work, patience=0.1)
    assert time.monotonic() - started_s < 10


@needs_fork
def test_what_the_child_says_arrives_whole_and_with_its_kind(tmp_path: Path) -> None:
    def locked() -> None:
        raise CacheLocked("in use")

    (tmp_path / "f").write_bytes(b"x")
    assert in_child(tmp_path / "f", lambda: ["é" * 200_000]) == ["é" * 200_000]
    with pytest.raises(CacheLocked, match="in use"):
        in_child(tmp_path / "f", locked)


def test_where_no_child_can_be_had_a_sound_file_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    create_cache(tmp_path / "c.h5", FINGERPRINT, {}).close()
    for change in (lambda: monkeypatch.setattr(os, "fork", refused), lambda: monkeypatch.delattr(os, "fork")):
        change()
        with open_cache(tmp_path / "c.h5") as cache:
            assert cache.layers == {}


def test_a_sound_file_opens_while_other_threads_use_hdf5(tmp_path: Path) -> None:
    rows, keys = some_rows(100)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"x": rows}, keys)
    is_done = threading.Event()

    def busy(i: int) -> None:
        with h5py.File(tmp_path / f"{i}.h5", "w", driver="core", backing_store=False) as file:
            while not is_done.is_set():
                file.require_dataset("x", (1000,), "f4")[:] = 1

    threads = [threading.Thread(target=busy, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            with open_cache(tmp_path / "c.h5") as cache:
                assert cache.n_rows("x") == 100
    finally:
        is_done.set()
        for thread in threads:
            thread.join()


# --- stopped --------------------------------------------------------------------------------------------------


INTERRUPTED_COMMIT = """
import signal, sys
from pathlib import Path
import numpy as np
from tlfeat.cache.store import create_cache
from tlfeat.cache.journal import JournalledFile
signal.signal(signal.SIGINT, signal.default_int_handler)
apply = JournalledFile._apply
def interrupted(self):
    signal.raise_signal(signal.SIGINT)
    apply(self)
with create_cache(Path(sys.argv[1]), {"dtype": "float32"}, {}) as cache:
    cache.append({"x": np.arange(300, dtype=np.float32).reshape(50, 6)}, [f"{i:064x}" for i in range(50)])
    JournalledFile._apply = interrupted
    try:
        cache.commit()
    except KeyboardInterrupt:
        print("interrupted", cache.n_rows("x"))
    JournalledFile._apply = apply
"""


def test_ctrl_c_in_the_middle_of_a_commit_comes_after_it(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    run = subprocess.run([sys.executable, "-c", INTERRUPTED_COMMIT, path], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["interrupted", "50"]
    with open_cache(path) as cache:
        rows = cache.read("x", [f"{i:064x}" for i in range(50)])
    assert rows.tobytes() == np.arange(300, dtype=np.float32).tobytes()


@pytest.mark.sample("0.0")
@pytest.mark.parametrize("wait_s", [0.0, 0.05])
def test_ctrl_c_twice_stops_and_loses_nothing(
    soak: ModuleType, photos: Path, tmp_path: Path, undisturbed: dict[str, bytes], wait_s: float
) -> None:
    path = tmp_path / "c.h5"
    slow = soak.WRITER.replace("0.01", "0.1")
    writer = subprocess.Popen(
        [sys.executable, "-c", slow, str(photos), str(path), "0", "0", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(4)]  # ready, the table, the source or a batch, a batch
    for _ in range(2):
        writer.send_signal(signal.SIGINT)
        time.sleep(wait_s)
    out, _ = writer.communicate(timeout=30)
    assert writer.returncode != 0
    n_acknowledged = max(int(n) for n in said[1:] + out.split())
    assert damage(path) == []
    with open_cache(path) as cache:
        assert cache.n_rows("pixels") >= n_acknowledged > 0
    extract_rows(load_images(photos), PixelEncoder((8, 8)), path)
    assert rows_by_path(path) == undisturbed


def test_an_exception_in_a_decoding_thread_ends_the_run_and_loses_nothing(
    photos: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tlfeat.images.decode.read_file

    def failing(path: Path) -> bytes:
        if path.name == "7.png":
            raise RuntimeError("a bug in a decoder")
        return read(path)

    path = tmp_path / "c.h5"
    monkeypatch.setattr(tlfeat.images.decode, "read_file", failing)
    with pytest.raises(RuntimeError, match="a bug in a decoder"):
        extract_rows(load_images(photos), CountingEncoder(batch_size=2), path)
    monkeypatch.undo()
    if path.exists():
        assert damage(path) == []
    extract_rows(load_images(photos), CountingEncoder(), path)
    assert rows_by_path(path) == undisturbed


# --- disks ----------------------------------------------------------------------------------------------------


@pytest.mark.sample("posix_fallocate-0", "write-3", "fsync-7")
@pytest.mark.parametrize(
    ("call", "n_before"),
    [
        ("write", 0),
        ("write", 3),
        ("write", 20),
        ("posix_fallocate", 0),
        ("posix_fallocate", 1),
        ("fsync", 0),
        ("fsync", 7),
    ],
)
def test_a_disk_that_fills_up_or_fails_under_extract_loses_no_committed_row(
    photos: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    n_before: int,
) -> None:
    path = tmp_path / "c.h5"
    real, n_left = getattr(os, call), n_before

    def full(*args: object) -> object:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    class Os:
        def __getattr__(self, name: str) -> object:
            return full if name == call else getattr(os, name)

    monkeypatch.setattr("tlfeat.cache.cache_file._COMMIT_S", 0)
    monkeypatch.setattr(tlfeat.cache.journal, "os", Os())
    with pytest.raises(CacheError, match="disk is full"):
        extract_rows(load_images(photos), CountingEncoder(batch_size=4), path)
    monkeypatch.undo()
    if path.exists():
        assert damage(path) == []
    extract_rows(load_images(photos), CountingEncoder(), path)
    assert rows_by_path(path) == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_limit_on_the_size_of_files_is_met_like_a_full_disk(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        from tlfeat.cache.store import create_cache
        from made_data import FINGERPRINT, some_rows
        with create_cache(Path(sys.argv[1]), FINGERPRINT, {}) as cache:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
            for seed in range(100):
                rows, keys = some_rows(32, 100, seed)
                cache.append({"x": rows}, keys)
                cache.commit()
                print(cache.n_rows("x"), flush=True)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "c.h5")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert "The disk is full while writing" in ran.stderr
    n_acknowledged = int(ran.stdout.split()[-1])
    with open_cache(tmp_path / "c.h5") as cache:
        assert 0 < n_acknowledged == cache.n_rows("x") < 3200
        for seed in range(n_acknowledged // 32):
            rows, keys = some_rows(32, 100, seed)
            assert cache.read("x", keys).tobytes() == rows.tobytes()


@contextlib.contextmanager
def read_only_disk(at: Path, files: list[Path]) -> Iterator[None]:
    at.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(at)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        for file in files:
            shutil.copy(file, at)
        subprocess.run(["mount", "-o", "remount,ro", str(at)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a file system")
def test_on_a_read_only_disk_a_cache_is_read_with_its_journal_and_writing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, journal = tmp_path / "c.h5", tmp_path / "c.h5.journal"
    rows, keys = some_rows(50)
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.append({"x": rows[:20]}, keys[:20])
        cache.commit()
        cache.append({"x": rows[20:]}, keys[20:])
        monkeypatch.setattr(JournalledFile, "_apply", lambda self: None)  # killed once the journal is written
        cache.commit()
        copies = [Path(shutil.copy(file, tmp_path / file.name.replace("c.", "d."))) for file in (path, journal)]
        monkeypatch.undo()
    with read_only_disk(tmp_path / "ro", copies):
        with open_cache(tmp_path / "ro" / "d.h5") as cache:
            assert cache.read("x", keys).tobytes() == rows.tobytes()
        with pytest.raises(CacheError, match="read-only file system"):
            open_cache(tmp_path / "ro" / "d.h5", writable=True)
        with pytest.raises(CacheError, match="read-only file system"):
            create_cache(tmp_path / "ro" / "new.h5", FINGERPRINT, {})


def test_a_cache_that_may_not_be_written_is_read_and_writing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    create_cache(path, FINGERPRINT, {}).close()
    path.chmod(0o444)

    def open_it() -> None:
        open_cache(path).close()
        with pytest.raises(CacheError, match="permission denied"):
            open_cache(path, writable=True)

    without_rights(open_it)


# --- others beside us -----------------------------------------------------------------------------------------


def test_locks_hold_against_plain_h5py_in_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    code = "import h5py, sys; file = h5py.File(sys.argv[1], sys.argv[2]); print('opened'); sys.stdin.read()"

    def other(mode: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(path), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def opens(mode: str) -> bool:
        with other(mode) as process:
            return "opened" in process.communicate("")[0]

    with create_cache(path, FINGERPRINT, {}):
        assert [opens("r"), opens("r+")] == [False, False]
    with open_cache(path):
        assert [opens("r"), opens("r+")] == [True, False]
    for mode, is_readable in (("r", True), ("r+", False)):
        with other(mode) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "opened\n"
            for is_writable in (False, True):
                if is_readable and not is_writable:
                    open_cache(path).close()
                else:
                    with pytest.raises(CacheLocked):
                        open_cache(path, writable=is_writable)
            process.communicate("")


@pytest.mark.sample("-86400")
@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
def test_a_clock_that_jumps_costs_a_look_at_the_files_and_never_a_wrong_row(
    photos: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    path, now_ns = tmp_path / "c.h5", time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump_s * 10**9)
    assert extract_rows(load_images(photos), CountingEncoder(), path).n_embedded == 24
    monkeypatch.undo()
    assert extract_rows(load_images(photos), CountingEncoder(), path).n_embedded == 0
    assert rows_by_path(path) == undisturbed
    picture(77).save(photos / "cat" / "3.png")
    assert extract_rows(load_images(photos), CountingEncoder(), path).n_embedded == 1
    changed = rows_by_path(path)
    assert [name for name in changed if changed[name] != undisturbed[name]] == ["cat/3.png"]


def test_a_file_that_changes_while_it_is_read_gets_the_row_of_what_was_read_and_then_its_own(
    photos: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file, read = tmp_path / "c.h5", photos / "dog" / "5.png", tlfeat.images.decode.read_file
    was = file.read_bytes()

    def then_changed(path: Path) -> bytes:
        data = read(path)
        if path == file:
            picture(78).save(file)
        return data

    monkeypatch.setattr(tlfeat.images.decode, "read_file", then_changed)
    extract_rows(load_images(photos), CountingEncoder(), path)
    assert rows_by_path(path) == undisturbed
    monkeypatch.undo()
    assert extract_rows(load_images(photos), CountingEncoder(), path).n_embedded == 1
    assert rows_by_path(path)["dog/5.png"] != undisturbed["dog/5.png"]
    file.write_bytes(was)
    assert extract_rows(load_images(photos), CountingEncoder(), path).n_embedded == 0
    assert rows_by_path(path) == undisturbed


def test_a_change_that_fails_leaves_the_cache_as_it_was_and_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, keys = some_rows(60)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as cache:
        cache.append({"x": rows[:20]}, keys[:20])
        cache.write_table(table_of(keys[:20]))
        cache.append({"x": rows[20:40]}, keys[20:40])
        with monkeypatch.context() as patch:
            patch.setattr("tlfeat.cache.row_table.RowTable.checksum", lambda *_: 1 / 0)
            cache.append({"x": rows[40:], "y": rows[40:]}, keys[40:])
            with pytest.raises(CacheError, match="division by zero"):
                cache.commit()
        assert cache.layers == {"x": (20, 6)}
        cache.append({"x": rows}, keys)
        assert cache.layers == {"x": (60, 6)}
    with open_cache(tmp_path / "c.h5") as cache:
        assert np.array_equal(cache.read("x", keys), rows)
        assert cache.verify() == []
