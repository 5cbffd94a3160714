"""Readers beside a writer: each sees a state that was committed, to the bit, and neither waits long for the other."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

import tlfeat.cache.cache_file
import tlfeat.cache.hdf5_file
import tlfeat.cache.journal
import windows
from children import KILLED, exit_code_of_child, killed, running_child
from made_data import FINGERPRINT, filled_cache, some_rows, table_of
from tlfeat import system
from tlfeat.cache.journal import JournalledFile, journal_of
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheError, CacheLocked
from tlfeat.evaluate.data import open_data

pytestmark = pytest.mark.whole

N, STEP = 300, 7


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return filled_cache(tmp_path / "c.h5")


@contextmanager
def writing_in_a_loop(path: Path, *, is_compressed: bool) -> Iterator[None]:
    """Commit a few rows and a table of them together, again and again, in another process."""
    rows, keys = some_rows(N)
    with create_cache(path, FINGERPRINT, {}, is_compressed=is_compressed) as cache:
        cache.append({"pooled": rows[:STEP]}, keys[:STEP])
        cache.write_table(table_of(keys[:STEP]))
    ready, told = os.pipe()

    def write() -> None:
        tlfeat.cache.cache_file._COMMIT_S = 1e9
        with open_cache(path, writable=True) as cache:
            for start in range(STEP, N, STEP):
                stop = min(start + STEP, N)
                cache.append({"pooled": rows[start:stop]}, keys[start:stop])
                cache.write_table(table_of(keys[:stop]))
                if start == STEP:
                    os.write(told, b"!")
            signal.pause()

    try:
        with running_child(write):
            assert os.read(ready, 1) == b"!"
            yield
    finally:
        os.close(ready)
        os.close(told)


@pytest.mark.sample("True")
@pytest.mark.parametrize("is_compressed", [False, True])
def test_what_a_reader_sees_beside_a_writer_that_commits_in_a_loop_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compressed: bool
) -> None:
    monkeypatch.setattr(tlfeat.cache.journal, "_LOCK_PATIENCE_S", 0)
    path = tmp_path / "c.h5"
    rows, keys = some_rows(N)
    seen = []
    with writing_in_a_loop(path, is_compressed=is_compressed):
        deadline_s = time.monotonic() + 20
        while (not seen or seen[-1] < N) and time.monotonic() < deadline_s:
            with open_cache(path) as cache:
                n = cache.table.count("ok")
                time.sleep(random.Random(n).uniform(0, 0.02))  # the writer goes on
                assert cache.n_rows("pooled") == n
                assert cache.table.keys == keys[:n]
                assert cache.read("pooled", keys[:n]).tobytes() == rows[:n].tobytes()
                assert cache.verify() == []
                seen.append(n)
    assert all(n % STEP == 0 or n == N for n in seen)
    assert seen[-1] == N
    assert len(set(seen)) > 3


def test_a_reader_beside_a_writer_changes_nothing_and_says_how_many_images_it_reads(filled: Path) -> None:
    rows, keys = some_rows(230)
    with open_cache(filled, writable=True) as writer:
        before = filled.read_bytes()
        with open_cache(filled) as cache:
            assert cache.notes == ["extract is still writing this cache: 200 images are read"]
            writer.append({"pooled": rows[200:]}, keys[200:])
            writer.write_table(table_of(keys[:230]))
            after = filled.read_bytes()
            assert cache.n_rows("pooled") == 200
            assert cache.read("pooled", keys[:200]).tobytes() == rows[:200].tobytes()
        assert filled.read_bytes() == after != before
        with open_cache(filled) as cache:
            assert cache.notes == ["extract is still writing this cache: 230 images are read"]
    with open_cache(filled) as cache:
        assert cache.notes == []
    assert [path.name for path in filled.parent.iterdir()] == ["c.h5"]


def test_images_that_are_not_done_are_not_there_for_a_reader_beside_a_writer(filled: Path) -> None:
    """Else fits would be turned away, as they are where an `extract` was stopped."""
    _, keys = some_rows(200)
    table = table_of(keys)
    table.status[3:9] = ["pending"] * 6
    table.images.labels[:100] = ["b"] * 100
    with open_cache(filled, writable=True) as writer:
        writer.write_table(table)
        with open_data(filled, seed=1) as data:
            assert data.cache.notes == ["extract is still writing this cache: 194 images are read"]
            assert sorted(data.split.keys) == sorted(keys[:3] + keys[9:])
    with open_cache(filled) as cache:
        assert cache.table.count("pending") == 6


def test_rows_that_fill_their_chunk_are_not_copied_for_a_reader_beside_a_writer(tmp_path: Path) -> None:
    rows, keys = some_rows(3000, 500)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {}) as writer:
        writer.append({"pooled": rows}, keys)
        writer.commit()
        with open_cache(tmp_path / "c.h5") as cache:
            n_held = cache._file._journal.n_dirty_bytes
            assert cache.read("pooled", keys).tobytes() == rows.tobytes()
    assert rows.nbytes == 6_000_000
    assert n_held < 600_000


def test_rows_that_a_repair_moves_are_not_read_as_others(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlfeat.cache.journal, "_LOCK_PATIENCE_S", 0)
    with h5py.File(filled, "r+") as content:
        content["layers/pooled/rows"][7, 2] += 1
    _, keys = some_rows(200)
    with open_cache(filled, writable=True) as writer:
        cache = open_cache(filled)
        writer.close()
    with cache:
        assert len(repair_cache(filled)) == 1
        with pytest.raises(CacheError, match="rows changed while they were read"):
            cache.read("pooled", keys)


@pytest.mark.parametrize("kind", ["h5py", "earlier tlfeat", "folder that cannot be locked"])
def test_beside_a_writer_that_takes_no_turns_a_reader_is_told_to_wait(
    filled: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tlfeat.cache.journal, "_LOCK_PATIENCE_S", 0)
    if kind == "h5py":
        writer = h5py.File(filled, "r+")
        journal_of(filled).touch()
    elif kind == "earlier tlfeat":
        with monkeypatch.context() as patch:
            patch.setattr(JournalledFile, "_let_readers_in", lambda self: None)
            writer = open_cache(filled, writable=True)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(system, "turn", lambda *_, **__: contextlib.nullcontext(False))
            writer = open_cache(filled, writable=True)
            writer.append({"pooled": some_rows(210)[0][200:]}, some_rows(210)[1][200:])
            writer.commit()
    with writer, pytest.raises(CacheLocked, match="in use by another process"):
        open_cache(filled)


def test_a_writer_waits_for_the_turn_of_a_reader_and_no_longer_than_its_patience(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, keys = some_rows(210)
    with open_cache(filled, writable=True) as writer:
        monkeypatch.setattr(tlfeat.cache.journal, "_WRITER_PATIENCE_S", 0.2)
        with system.turn(filled, 0, is_writer=False) as is_turn:
            assert is_turn
            started_s = time.monotonic()
            writer.append({"pooled": rows[200:]}, keys[200:])
            writer.commit()
            assert 0.2 <= time.monotonic() - started_s < 2


def test_a_reader_waits_for_a_writer_that_has_begun_and_not_let_it_in_yet(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlfeat.cache.journal, "_LOCK_PATIENCE_S", 0)
    locked = iter([False, True])  # asked before the reader tries, and after
    monkeypatch.setattr(tlfeat.cache.hdf5_file, "is_locked", lambda _: next(locked))
    with open_cache(filled, writable=True), open_cache(filled) as cache:
        assert cache.n_rows("pooled") == 200


def test_a_reader_that_was_stopped_in_its_turn_gives_up_what_it_saw(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlfeat.cache.hdf5_file, "READER_S", 0.0)
    with open_cache(filled, writable=True), pytest.raises(CacheLocked):
        open_cache(filled)


def test_the_journal_of_a_killed_writer_is_read_as_applied_beside_its_child(filled: Path) -> None:
    """The child holds the writer's locks for as long as it lives."""
    rows, keys = some_rows(230)
    ready, told = os.pipe()

    def leave_a_child() -> None:
        with open_cache(filled, writable=True) as cache:
            JournalledFile._apply = lambda self: None  # type: ignore[method-assign]
            cache.append({"pooled": rows[200:]}, keys[200:])
            cache.commit()
            if child := os.fork():
                os.write(told, child.to_bytes(4, "little"))
                killed()
            signal.pause()

    assert exit_code_of_child(leave_a_child) == KILLED
    child = int.from_bytes(os.read(ready, 4), "little")
    try:
        before = filled.read_bytes()
        with open_cache(filled) as cache:
            assert cache.n_rows("pooled") == 230
            assert cache.read("pooled", keys).tobytes() == rows.tobytes()
        assert filled.read_bytes() == before
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(ready)
        os.close(told)


READ = """
import sys
from pathlib import Path
from tlfeat.cache.store import open_cache
with open_cache(Path(sys.argv[1])) as cache:
    print(cache.notes, cache.n_rows("pooled"), cache.verify())
"""

WRITE = """
import sys
from pathlib import Path
from tlfeat.cache.store import open_cache
with open_cache(Path(sys.argv[1]), writable=True):
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is made to look like Windows")
def test_a_reader_is_let_in_beside_a_writer_on_windows(filled: Path, tmp_path: Path) -> None:
    env = windows.environment(tmp_path)
    run = [sys.executable, "-c"]
    with subprocess.Popen(
        [*run, WRITE, str(filled)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        read = subprocess.run([*run, READ, str(filled)], env=env, capture_output=True, text=True, check=False)
        writer.communicate("\n")
    assert read.stdout == "['extract is still writing this cache: 200 images are read'] 200 []\n", read.stderr
    assert writer.returncode == 0
    assert not journal_of(filled).exists()
