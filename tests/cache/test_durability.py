"""What is renamed or linked into place is on the disk before it has its name, and locked while it gets it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tlfeat.cache.journal
from children import KILLED, exit_code_of_child, killed
from made_data import FINGERPRINT
from tlfeat.cache.journal import JournalledFile
from tlfeat.cache.store import create_cache
from tlfeat.errors import CacheError
from tlfeat.finetune.epochs import State
from tlfeat.workspace import write_folder, write_text, written_together


class SyncedFiles:
    """Remembers, by inode, what a file held when it was last synced, and which folders were synced after what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[int, bytes] = {}
        self.named: list[str] = []  # "name" for each name that was given, "folder" for each folder that was synced
        fsync, link, replace = os.fsync, os.link, Path.replace

        def noted_fsync(handle: int) -> None:
            fsync(handle)
            path = Path(f"/proc/self/fd/{handle}").resolve()
            if path.is_dir():
                self.named.append("folder")
            else:
                self.contents[os.fstat(handle).st_ino] = path.read_bytes()

        def noted_link(source: Path, to: Path) -> None:
            self._check(Path(source))
            link(source, to)

        def noted_replace(source: Path, to: Path) -> Path:
            self._check(source)
            return replace(source, to)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "link", noted_link)
        monkeypatch.setattr(Path, "replace", noted_replace)

    def _check(self, file: Path) -> None:
        self.named.append("name")
        assert self.contents.get(file.stat().st_ino) == file.read_bytes(), f"{file.name} has a name before its bytes"


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="which file a descriptor is: Linux")


@needs_proc
@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_new_cache_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compressed: bool
) -> None:
    synced = SyncedFiles(monkeypatch)
    with create_cache(tmp_path / "c.h5", FINGERPRINT, {"root": "/data"}, is_compressed=is_compressed):
        assert synced.named == ["name", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.h5"]


def test_a_new_cache_is_locked_from_the_moment_when_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlfeat.cache.journal, "_LOCK_PATIENCE_S", 0)
    link, n_refused = os.link, 0

    def linked(source: Path, to: Path) -> None:
        nonlocal n_refused
        link(source, to)
        for is_writable in (False, True):
            with pytest.raises(BlockingIOError):
                JournalledFile(to, is_writable=is_writable)
            n_refused += 1

    monkeypatch.setattr(os, "link", linked)
    create_cache(tmp_path / "c.h5", FINGERPRINT, {}).close()
    assert n_refused == 2


@needs_proc
def test_the_state_of_training_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = SyncedFiles(monkeypatch)
    state = State(phase=1, history={"loss": [0.5]}, current=[np.arange(5000.0)], best=[np.ones(3)])
    state.save(tmp_path / "states" / "s.npz")
    state.history["loss"].append(0.25)
    state.save(tmp_path / "states" / "s.npz")
    assert synced.named == ["name", "folder"] * 2
    assert State.load(tmp_path / "states" / "s.npz").history == {"loss": [0.5, 0.25]}


@needs_proc
def test_a_report_or_record_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = SyncedFiles(monkeypatch)
    write_text(tmp_path / "a" / "result.json", "{}\n" * 10_000)
    assert synced.named == ["name", "folder"]


@needs_proc
def test_a_folder_is_on_the_disk_with_all_its_files_and_their_names_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, bytes | list[str]] = {}
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").resolve()
        is_folder = path.is_dir()
        synced[str(path)] = sorted(each.name for each in path.iterdir()) if is_folder else path.read_bytes()

    def noted_replace(source: Path, to: Path) -> Path:
        if to.name == "svm-1":
            for path in (source, *source.rglob("*")):
                now = sorted(each.name for each in path.iterdir()) if path.is_dir() else path.read_bytes()
                assert synced.get(str(path)) == now, f"{path.name} has a name before it is on the disk"
        return replace(source, to)

    def fill(folder: Path) -> None:
        (folder / "head.skops").write_bytes(b"head" * 1000)
        (folder / "parts").mkdir()
        (folder / "parts" / "a.bin").write_bytes(b"a" * 9)
        write_text(folder / "result.json", "{}")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_folder(tmp_path / "models" / "svm-1", fill)
    assert synced[str(tmp_path / "models")] == ["svm-1"]


@pytest.mark.parametrize("n_steps", range(9))
def test_a_folder_that_is_replaced_by_a_writer_that_is_killed_is_there_whole_or_not_at_all(
    tmp_path: Path, n_steps: int
) -> None:
    folder = tmp_path / "svm-1"
    write_folder(folder, lambda to: [(to / name).write_text("old") for name in ("a", "b", "c")])
    n_done = 0

    def until_killed(event: str, _: object) -> None:
        nonlocal n_done
        n_done += event in ("os.remove", "os.rename", "os.rmdir")
        if n_done > n_steps:
            killed()

    def write() -> None:
        sys.addaudithook(until_killed)
        write_folder(folder, lambda to: [(to / name).write_text("new") for name in ("a", "b", "c")])

    assert exit_code_of_child(write) in (KILLED, 0)
    found = {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}
    assert found in ({}, dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new"))
    assert found or n_steps == 3  # between the two renames
    write_folder(folder, lambda to: (to / "a").write_text("again"))
    assert [path.read_text() for path in folder.iterdir()] == ["again"]


def test_a_folder_that_cannot_get_its_name_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "svm-1"
    write_folder(folder, lambda to: (to / "a").write_text("old"))
    replace = Path.replace

    def full(source: Path, to: Path) -> Path:
        if source.name.endswith(".tmp") and "before" not in source.name:
            raise OSError(errno.EIO, "Input/output error")
        return replace(source, to)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CacheError, match=r"Cannot write .*svm-1: Input/output error"):
        write_folder(folder, lambda to: (to / "a").write_text("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["svm-1"]
    assert (folder / "a").read_text() == "old"


@needs_proc
def test_of_files_written_together_the_one_that_stands_for_all_gets_its_name_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = SyncedFiles(monkeypatch)
    named, replace = [], Path.replace

    def noted(source: Path, to: Path) -> Path:
        named.append(to.name)
        return replace(source, to)

    monkeypatch.setattr(Path, "replace", noted)
    with written_together(tmp_path / "n" / "m.xml") as new:
        for name in ("m.bin", "m.xml", "z.json"):  # names before and after that of the file
            new.with_name(name).write_text(f"what {name} holds\n" * 1000)
    assert named == ["m.bin", "z.json", "m.xml"]
    assert synced.named == ["name", "name", "name", "folder"]
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == ["m.bin", "m.xml", "z.json"]


@needs_proc
def test_the_journal_is_empty_on_the_disk_before_it_loses_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came back after a power cut would be applied to whatever has the file's name by then."""
    synced = SyncedFiles(monkeypatch)
    unlink, held = Path.unlink, []

    def noted(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            held.append(synced.contents[path.stat().st_ino])
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    (tmp_path / "file").write_bytes(b"before")
    with JournalledFile(tmp_path / "file", is_writable=True) as opened:
        opened.write(b"after")
        opened.commit()
    assert held == [b""]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- power cuts after every operation of a short story --------------------------------------------------------

SHORT_STORY: list[tuple[Any, ...]] = [
    ("write", 3, b"one" * 300),
    ("commit",),
    ("write", 4000, b"two" * 2000),  # three pages, one of them in part, and the file grows
    ("commit",),
    ("truncate", 5000),
    ("write", 0, b"three"),
    ("commit",),
]


def cut_after_every_operation(power_cuts: ModuleType, folder: Path, *, n_draws: int = 6) -> int:
    """Tell the story, cut the power after each of its operations several times, and count the cuts."""
    file = folder / "disk" / "file"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"before" * 1000)
    story = power_cuts.journal_story(file, SHORT_STORY)
    n_cuts = 0
    for n_ops, draw in itertools.product(range(len(story.disk.ops) + 1), range(n_draws)):
        power_cuts.check_journal_cut(story, n_ops, random.Random(f"{n_ops} {draw}"), folder)
        n_cuts += 1
    return n_cuts


def test_a_power_cut_after_any_operation_of_a_short_story_loses_nothing(power_cuts: ModuleType, tmp_path: Path) -> None:
    assert cut_after_every_operation(power_cuts, tmp_path) > 100


def test_cuts_after_every_operation_find_a_journal_that_is_emptied_too_early(
    power_cuts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fsync of the file is there, but comes after the journal was emptied."""
    apply = JournalledFile._apply

    def too_early(self: JournalledFile) -> None:
        os_ = tlfeat.cache.journal.os  # type: ignore[attr-defined]
        sync, late = os_.fsync, []
        os_.fsync = late.append
        try:
            apply(self)
        finally:
            os_.fsync = sync
        for handle in late:
            os_.fsync(handle)

    monkeypatch.setattr(JournalledFile, "_apply", too_early)
    with pytest.raises(power_cuts.Violation):
        cut_after_every_operation(power_cuts, tmp_path)
