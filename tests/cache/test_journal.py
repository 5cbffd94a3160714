"""The journal: whatever is cut off when, the file is as some commit left it, and no commit that returned is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tlfeat.cache.journal
from children import KILLED, exit_code_of_child, killed
from tlfeat.cache.journal import JournalledFile
from tlfeat.cache.store import create_cache, open_cache

quick = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20_000), st.binary(min_size=1, max_size=6000)),
        st.tuples(st.just("truncate"), st.integers(0, 25_000)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("reopen")),
    ),
    max_size=12,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk" / "file"
    path.parent.mkdir()
    path.write_bytes(b"before" * 1000)
    return path


@quick
@given(done=steps, first=st.binary(max_size=9000), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_after_a_power_cut_the_file_is_as_the_last_commit_left_it(
    power_cuts: ModuleType,
    file: Path,
    tmp_path: Path,
    done: list[tuple[Any, ...]],
    first: bytes,
    share: float,
    seed: int,
) -> None:
    file.write_bytes(first)
    file.with_name("file.journal").unlink(missing_ok=True)
    story = power_cuts.journal_story(file, done)
    rng = random.Random(seed)
    for n_ops in (round(share * len(story.disk.ops)), len(story.disk.ops)):
        power_cuts.check_journal_cut(story, n_ops, rng, tmp_path)


@pytest.mark.sample("0")
@pytest.mark.parametrize("seed", range(6))
def test_after_a_power_cut_a_cache_holds_every_row_that_was_committed(
    power_cuts: ModuleType, tmp_path: Path, seed: int
) -> None:
    assert power_cuts.power_cut(2 * seed, tmp_path, n_cuts=10)["rows as committed"] == 10


@pytest.mark.sample("file", "journal")
@pytest.mark.parametrize("lying", [("file", "c.h5"), (".journal",), ("",)], ids=["file", "journal", "folder"])
def test_the_power_cuts_find_an_fsync_that_is_missing(
    power_cuts: ModuleType, tmp_path: Path, lying: tuple[str, ...]
) -> None:
    with pytest.raises(power_cuts.Violation):
        for seed in range(20):
            power_cuts.power_cut(seed, tmp_path, lying)


def test_nothing_is_on_the_disk_before_commit_and_nothing_stays_beside_the_file(file: Path) -> None:
    before = file.read_bytes()
    with JournalledFile(file, is_writable=True) as opened:
        opened.write(b"after")
        assert opened.seek(0) == 0
        assert opened.read(8) == b"aftere" + before[6:8]
        assert file.read_bytes() == before
        opened.commit()
        assert file.read_bytes() == b"after" + before[5:]
        opened.write(b"never")
        opened.discard()
        opened.seek(0)
        assert opened.read() == b"after" + before[5:]
    assert [path.name for path in file.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["posix_fallocate", "write", "fsync"])
@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_a_commit_that_fails_is_done_wholly_or_not_at_all(
    power_cuts: ModuleType, file: Path, call: str, n_before: int
) -> None:
    before = file.read_bytes()
    after = before[:3000] + b"x" * 20_000
    disk = power_cuts.Disk(file.parent)
    sound = getattr(disk, call)
    n_left = n_before

    def until_full(*args: Any) -> Any:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return sound(*args)

    with disk.recorded():
        opened = JournalledFile(file, is_writable=True)
        opened.seek(3000)
        opened.write(b"x" * 20_000)
        setattr(disk, call, until_full)
        try:
            opened.commit()
            is_done = True
        except OSError:
            is_done = False
        setattr(disk, call, sound)
        opened.close()
    with JournalledFile(file) as again:
        found = again.read()
    assert found == after if is_done else found in (before, after)


def test_a_journal_that_is_not_whole_or_not_this_file_s_is_not_applied(file: Path, power_cuts: ModuleType) -> None:
    before = file.read_bytes()
    journal = file.with_name("file.journal")
    whole = _journal_of_a_killed_writer(file)
    for damaged in (whole[:-1], whole[:40], b"", b"x" * 100, whole[:50] + b"x" + whole[51:]):
        journal.write_bytes(damaged)
        with JournalledFile(file) as opened:
            assert opened.read() == before
    journal.write_bytes(whole)
    file.write_bytes(b"another file")
    with JournalledFile(file, is_writable=True) as opened:
        assert opened.read() == b"another file"
    assert not journal.exists()


def test_a_reader_sees_what_a_killed_writer_committed_and_writes_nothing(file: Path) -> None:
    before = file.read_bytes()
    journal = file.with_name("file.journal")
    journal.write_bytes(_journal_of_a_killed_writer(file))
    with JournalledFile(file) as opened:
        assert opened.read() == before + b"more" * 10_000
    assert file.read_bytes() == before
    assert journal.exists()
    with JournalledFile(file, is_writable=True):
        assert file.read_bytes() == before + b"more" * 10_000
    assert not journal.exists()


def _journal_of_a_killed_writer(file: Path) -> bytes:
    """Return what is in the journal at the moment when the file begins to change."""
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    found = b""
    with pytest.MonkeyPatch.context() as patch, JournalledFile(copy, is_writable=True) as opened:
        apply = JournalledFile._apply

        def keep(self: JournalledFile) -> None:
            nonlocal found
            found = self.journal_path.read_bytes()
            apply(self)

        patch.setattr(JournalledFile, "_apply", keep)
        opened.seek(0, os.SEEK_END)
        opened.write(b"more" * 10_000)
        opened.commit()
    copy.unlink()
    return found


# --- whose journal it is --------------------------------------------------------------------------------------


def _killed_while_writing(file: Path, n_pages: int, changes: list[tuple[int, bytes]]) -> bytes:
    """Commit `changes` to a file by a writer that is killed after `n_pages` pages; return what it would have become."""
    handles = []
    with pytest.MonkeyPatch.context() as patch:
        opened = JournalledFile(file, is_writable=True)

        def dies(self: JournalledFile) -> None:
            for number, page in list(self._pages.items())[:n_pages]:
                start = number * 4096
                os.pwrite(self._file, page[: max(self._size - start, 0)], start)
            handles.extend([self._file, self._journal])
            raise KeyboardInterrupt

        patch.setattr(JournalledFile, "_apply", dies)
        for at, data in changes:
            opened.seek(at)
            opened.write(data)
        opened.seek(0)
        becomes = opened.read()
        with pytest.raises(KeyboardInterrupt):
            opened.commit()
    for handle in handles:
        os.close(handle)
    opened._file = opened._journal = -1
    assert file.with_name("file.journal").stat().st_size > 4096
    return becomes


CHANGES = [(5000, b"count 7"), (20_000, b"row" * 3000), (40_960, b"more" * 5000)]


@pytest.mark.parametrize("n_pages", range(9))
def test_the_journal_of_a_killed_writer_is_applied_to_its_file_however_far_it_came(file: Path, n_pages: int) -> None:
    file.write_bytes(random.Random(1).randbytes(41_000))
    becomes = _killed_while_writing(file, n_pages, CHANGES)
    with JournalledFile(file) as reader:
        assert reader.read() == becomes
    with JournalledFile(file, is_writable=True) as writer:
        assert writer.read() == becomes
        assert writer.set_aside is None
    assert file.read_bytes() == becomes


def _with_byte(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("n_pages", [0, 4])
@pytest.mark.parametrize(
    "other",
    [
        lambda before: _with_byte(before, 5003),
        lambda before: _with_byte(before, 28_000),
        lambda before: _with_byte(before, 1),
        lambda before: before[:-4096],
        lambda before: before + bytes(50_000),
        lambda before: random.Random(2).randbytes(len(before)),
    ],
    ids=["another count", "another row", "another head", "shorter", "longer", "another file"],
)
def test_the_journal_of_a_killed_writer_is_not_applied_to_what_was_copied_over_its_file(
    file: Path, other: Any, n_pages: int
) -> None:
    before = random.Random(1).randbytes(41_000)
    file.write_bytes(before)
    _killed_while_writing(file, n_pages, CHANGES)
    journal = file.with_name("file.journal")
    held = journal.read_bytes()
    restored = other(before)
    file.write_bytes(restored)
    with JournalledFile(file) as reader:
        assert reader.read() == restored
    assert journal.read_bytes() == held
    with JournalledFile(file, is_writable=True) as writer:
        assert writer.read() == restored
        aside = writer.set_aside
        writer.seek(10)
        writer.write(b"goes on")
        writer.commit()
    assert file.read_bytes() == restored[:10] + b"goes on" + restored[17:]
    assert aside is not None
    assert aside.read_bytes() == held
    assert not journal.exists()


def test_what_is_no_journal_is_set_aside_and_a_link_is_not_written_through(file: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"of the user" * 1000)
    file.with_name("file.journal").symlink_to(precious)
    with JournalledFile(file, is_writable=True) as opened:
        opened.write(b"after")
        opened.commit()
    assert precious.read_bytes() == b"of the user" * 1000
    file.with_name("file.journal").write_text("a journal of my own")
    with JournalledFile(file, is_writable=True) as opened:
        assert opened.set_aside == file.with_name("file.journal.set-aside-2")
        assert opened.set_aside.read_text() == "a journal of my own"
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "file",
        "file.journal.set-aside",
        "file.journal.set-aside-2",
    ]


def _journal_of_version_1(size: int, pages: dict[int, bytes]) -> bytes:
    content = struct.pack("<16sQQ", b"tlfeat journal 1", size, len(pages)) + struct.pack(f"<{len(pages)}Q", *pages)
    content += b"".join(pages.values())
    return content + hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    ("size", "later_s", "is_applied"),
    [(9000, 2, True), (9000, -2, True), (8000, 0, False), (9000, 100, False), (9000, -3600, False)],
    ids=["killed", "killed before", "another size", "copied over later", "an old backup"],
)
def test_a_journal_of_an_earlier_version_is_applied_where_file_and_journal_were_left_together(
    file: Path, size: int, later_s: float, is_applied: bool
) -> None:
    file.write_bytes(bytes(size))
    journal = file.with_name("file.journal")
    journal.write_bytes(_journal_of_version_1(9000, {1: b"x" * 4096}))
    os.utime(journal, (1e9, 1e9))
    os.utime(file, (1e9 + later_s, 1e9 + later_s))
    expected = bytes(4096) + b"x" * 4096 + bytes(9000 - 8192) if is_applied else bytes(size)
    with JournalledFile(file) as reader:
        assert reader.read() == expected
    with JournalledFile(file, is_writable=True) as writer:
        assert writer.read() == expected
    assert file.with_name("file.journal.set-aside").exists() == (not is_applied)


def test_a_backup_that_was_copied_over_a_cache_keeps_its_rows(
    power_cuts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, backup = tmp_path / "c.h5", tmp_path / "backup.h5"
    rows, keys = power_cuts.some_rows(300, width=40)
    with create_cache(path, {"dtype": "float32"}, {}) as cache:
        cache.append({"a": rows[:200]}, keys[:200])
        cache.write_table(power_cuts.some_table(keys[:200]))
    backup.write_bytes(path.read_bytes())
    with open_cache(path, writable=True) as cache:
        cache.append({"a": rows[200:250]}, keys[200:250])
        cache.write_table(power_cuts.some_table(keys[:250]))

    def die_before_it_is_applied() -> None:
        monkeypatch.setattr(JournalledFile, "_apply", killed)
        with open_cache(path, writable=True) as cache:
            cache.append({"a": rows[250:]}, keys[250:])
            cache.commit()

    assert exit_code_of_child(die_before_it_is_applied) == KILLED
    assert path.with_name("c.h5.journal").stat().st_size > 4096
    path.write_bytes(backup.read_bytes())
    for is_writable in (False, True):
        with open_cache(path, writable=is_writable) as cache:
            assert cache.verify() == []
            assert cache.n_rows("a") == 200
            assert np.array_equal(cache.read("a", keys[:200]), rows[:200])


def test_reading_that_fails_is_told_by_commit_and_never_raised_into_hdf5(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with JournalledFile(file, is_writable=True) as opened:
        monkeypatch.setattr(tlfeat.cache.journal.os, "read", broken)  # type: ignore[attr-defined]
        assert opened.read(4) == bytes(4)
        opened.write(b"x")
        with pytest.raises(OSError, match="Input/output"):
            opened.commit()
        monkeypatch.undo()
        opened.discard()
    assert file.read_bytes() == b"before" * 1000


def test_two_writers_and_a_reader_beside_a_writer_exclude_each_other(file: Path) -> None:
    with JournalledFile(file, is_writable=True):
        for is_writable in (False, True):
            with pytest.raises(BlockingIOError):
                JournalledFile(file, is_writable=is_writable)
    with JournalledFile(file), JournalledFile(file), pytest.raises(BlockingIOError):
        JournalledFile(file, is_writable=True)
    JournalledFile(file, is_writable=True).close()
