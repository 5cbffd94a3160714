"""Power cuts: what may be on the disk when the power fails at any moment, and whether a cache survives that.

Random from a seed: a story is what was done to one file, a cut is one moment of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import tlfeat.cache.journal
import tlfeat.workspace
from tlfeat.cache.journal import JournalledFile
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheError
from tlfeat.images.image_set import ImageSet, ImageTable, content_key
from tlfeat.types import Rows

SECTOR_BYTES = 512


class Violation(AssertionError):
    """The cache did not survive."""


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """An empty folder for the length of a ``with`` block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


# --- the disk -----------------------------------------------------------------------------------------------


class Disk:
    """The operating system as `tlfeat.cache.journal` sees it, recorded, so that a power cut can be drawn afterwards.

    Writes and truncations reach the disk with the next fsync of their file; names with that of their folder. Until
    then any part of them may have, in sectors of 512 bytes.

    Parameters
    ----------
    folder : Path
        Its files are what is on the disk at the beginning.
    lying : tuple of str
        Endings of names whose fsync does nothing; "" for the folder's own.
    """

    def __init__(self, folder: Path, lying: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.lying = lying
        self.names = {path.name: number for number, path in enumerate(sorted(folder.iterdir()))}
        self.first_names = dict(self.names)
        self.first = {number: (folder / name).read_bytes() for name, number in self.names.items()}
        self.n_files = len(self.names)
        self.opened: dict[int, str] = {}
        self.ops: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        modules = (tlfeat.cache.journal, tlfeat.workspace)  # the second for `sync_folder`
        for module in modules:
            module.os = self  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for module in modules:
                module.os = os  # type: ignore[attr-defined]

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        handle = os.open(path, flags, mode)
        name = "" if path == self.folder else path.name
        self.opened[handle] = name
        if name and name not in self.names:
            self.names[name], self.n_files = self.n_files, self.n_files + 1
            self.ops.append(("name", name, self.names[name]))
        return handle

    def close(self, handle: int) -> None:
        os.close(handle)
        del self.opened[handle]
        for name in [name for name in self.names if not (self.folder / name).exists()]:
            del self.names[name]
            self.ops.append(("name", name, None))

    def write(self, handle: int, data: Any) -> int:
        at = os.lseek(handle, 0, os.SEEK_CUR)
        self.ops.append(("write", self.names[self.opened[handle]], at, bytes(data)))
        return os.write(handle, data)

    def ftruncate(self, handle: int, size: int) -> None:
        self.ops.append(("truncate", self.names[self.opened[handle]], size))
        os.ftruncate(handle, size)

    def posix_fallocate(self, handle: int, at: int, n: int) -> None:
        self.ops.append(("extend", self.names[self.opened[handle]], at + n))
        os.posix_fallocate(handle, at, n)

    def fsync(self, handle: int) -> None:
        name = self.opened[handle]
        if not any(name.endswith(end) if end else not name for end in self.lying):
            self.ops.append(("fsync", self.names[name] if name else None))

    def after_cut(self, n_ops: int, rng: random.Random, to: Path) -> None:
        """Write into folder `to` what may be on the disk if power failed after `n_ops` operations."""
        names, contents = dict(self.first_names), {n: bytearray(data) for n, data in self.first.items()}
        waiting: dict[int | None, list[tuple[Any, ...]]] = {}
        for op in self.ops[:n_ops]:
            if op[0] == "fsync":
                for late in waiting.pop(op[1], []):
                    _do(late, names, contents)
            else:
                waiting.setdefault(None if op[0] == "name" else op[1], []).append(op)
        for ops in waiting.values():
            share = rng.choice([0, 0.1, 0.5, 0.9, 1])  # of this file's, mostly all or nothing
            for part in (part for op in ops for part in _sectors(op)):
                if rng.random() < share:
                    _do(part, names, contents)
        for name, number in names.items():
            (to / name).write_bytes(contents.get(number, b""))


def _sectors(op: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if op[0] != "write":
        return [op]
    _, number, at, data = op
    cuts = [0, *range(-at % SECTOR_BYTES or SECTOR_BYTES, len(data), SECTOR_BYTES), len(data)]
    return [("write", number, at + a, data[a:b]) for a, b in pairwise(cuts)]


def _do(op: tuple[Any, ...], names: dict[str, int], contents: dict[int, bytearray]) -> None:
    kind, number = op[:2]
    if kind == "name":
        if op[2] is None:
            names.pop(number, None)
        else:
            names[number] = op[2]
        return
    content = contents.setdefault(number, bytearray())
    if kind == "write":
        content.extend(bytes(max(op[2] - len(content), 0)))
        content[op[2] : op[2] + len(op[3])] = op[3]
    else:
        content.extend(bytes(max(op[2] - len(content), 0)))
        if kind == "truncate":
            del content[op[2] :]


# --- stories and their cuts ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Story:
    """What was done to a file, and what `n_ops` were done when each commit began and ended."""

    disk: Disk
    commits: list[tuple[int, int, Any]] = field(default_factory=list)  # (begun, returned, state)

    @contextlib.contextmanager
    def commit(self, state: Any) -> Iterator[None]:
        begun = len(self.disk.ops)
        yield
        self.commits.append((begun, len(self.disk.ops), state))

    def possible(self, n_ops: int) -> list[Any]:
        """The states that a file may be in after a power cut: the last that was committed, or the one under way."""
        acknowledged = max(i for i, (_, returned, _) in enumerate(self.commits) if returned <= n_ops)
        return [state for begun, _, state in self.commits[acknowledged:] if begun <= n_ops]


def journal_story(path: Path, steps: Sequence[tuple[Any, ...]], lying: tuple[str, ...] = ()) -> Story:
    """Do `steps` to a file: ("write", at, data), ("truncate", size), ("commit",) or ("reopen",)."""
    disk = Disk(path.parent, lying)
    story = Story(disk)
    model = bytearray(path.read_bytes())
    with disk.recorded():
        story.commits.append((0, 0, bytes(model)))
        file = JournalledFile(path, is_writable=True)
        for kind, *values in steps:
            if kind == "write":
                at, data = values
                file.seek(at)
                file.write(data)
                model.extend(bytes(max(at - len(model), 0)))
                model[at : at + len(data)] = data
            elif kind == "truncate":
                file.truncate(values[0])
                model = model[: values[0]].ljust(values[0], b"\0")
            elif kind == "commit":
                with story.commit(bytes(model)):
                    file.commit()
            else:
                file.close()
                file = JournalledFile(path, is_writable=True)
                model = bytearray(story.commits[-1][2])
            if file.seek(0) or file.read() != model:
                raise Violation("what was written does not read back")
        file.close()
    if path.read_bytes() != story.commits[-1][2]:
        raise Violation("the file is not what was committed last")
    return story


def check_journal_cut(story: Story, n_ops: int, rng: random.Random, work: Path) -> None:
    """Draw a power cut, recover, perhaps lose power in that again, and compare with what was committed."""
    possible = story.possible(n_ops)
    with emptied(work / "cut") as cut, emptied(work / "again") as again:
        story.disk.after_cut(n_ops, rng, cut)
        _compare(cut / "file", possible)
        disk = Disk(cut, story.disk.lying)
        with disk.recorded(), JournalledFile(cut / "file", is_writable=True):
            pass
        disk.after_cut(rng.randint(0, len(disk.ops)), rng, again)
        _compare(again / "file", possible)
        with JournalledFile(again / "file", is_writable=True):
            pass
        if (again / "file.journal").exists():
            raise Violation("the journal stays behind")
        _compare(again / "file", possible)


def _compare(path: Path, possible: list[bytes]) -> None:
    with JournalledFile(path) as file:
        content = file.read()
    # room that was reserved for a commit which never was one reads as zeros
    if not any(content[: len(state)] == state and not any(content[len(state) :]) for state in possible):
        raise Violation("the file is in no state that was committed")


def random_steps(rng: random.Random, n: int) -> list[tuple[Any, ...]]:
    """Draw steps for `journal_story`."""
    steps: list[tuple[Any, ...]] = []
    for _ in range(n):
        kind = rng.choices(["write", "truncate", "commit", "reopen"], [6, 1, 4, 1])[0]
        size = rng.choice([1, 100, 4096, 5000, 20_000])
        values = {
            "write": lambda: (rng.randrange(40_000), rng.randbytes(size)),  # noqa: B023
            "truncate": lambda: (rng.randrange(50_000),),
        }
        steps.append((kind, *values.get(kind, tuple)()))
    return steps


def some_rows(n: int, width: int = 6, seed: int = 0) -> tuple[Rows, list[str]]:
    """Rows and keys that follow from the seed."""
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return rows, [content_key(row.tobytes()) for row in rows]


def some_table(keys: Sequence[str]) -> ImageTable:
    """A path table of those keys."""
    n = len(keys)
    images = ImageSet(Path("/data"), Path("/data"), [f"a/{i}.png" for i in range(n)], ["a"] * n, [""] * n, [""] * n)
    return ImageTable(images, list(keys), ["ok"] * n, [""] * n, [1] * n, [2] * n)


def cache_story(folder: Path, rng: random.Random, lying: tuple[str, ...] = ()) -> tuple[Story, Rows, list[str]]:
    """Append, write tables and commit at random; a state is the number of rows in each layer."""
    rows, keys = some_rows(300, seed=rng.randrange(1000))
    path = folder / "c.h5"
    create_cache(path, {"dtype": "float32"}, {}, is_compressed=rng.random() < 0.5).close()
    story = Story(Disk(folder, lying))
    story.commits.append((0, 0, (0, 0)))
    n_a = n_b = 0
    with story.disk.recorded(), open_cache(path, writable=True) as cache:
        for _ in range(rng.randint(3, 10)):
            n_new = rng.randint(1, 40)
            batch, batch_keys = rows[n_a : n_a + n_new], keys[n_a : n_a + n_new]
            cache.append({"a": batch}, batch_keys)
            n_a = min(n_a + n_new, len(keys))
            if rng.random() < 0.3:
                cache.append({"b": rows[:n_a, :2]}, keys[:n_a])
                n_b = n_a
            choice = rng.random()
            if choice < 0.6:
                with story.commit((n_a, n_b)):
                    if choice < 0.2:
                        cache.write_table(some_table(keys[:n_a]))
                    cache.commit()
        with story.commit((n_a, n_b)):
            cache.close()
    return story, rows, keys


def check_cache_cut(story: Story, rows: Rows, keys: list[str], n_ops: int, rng: random.Random, work: Path) -> None:
    """Draw a power cut: the cache opens, is sound, and holds what was committed to the bit."""
    possible = story.possible(n_ops)
    with emptied(work / "cut") as cut:
        story.disk.after_cut(n_ops, rng, cut)
        for is_writable in (False, True):
            try:
                with open_cache(cut / "c.h5", writable=is_writable) as cache:
                    problems = [p for p in cache.verify() if "extract again" not in p]
                    held = {name: cache.n_rows(name) for name in cache.layers}
                    state = held.get("a", 0), held.get("b", 0)
                    if problems or state not in possible:
                        raise Violation(f"{problems or state}, not one of {possible}")
                    for name, n in held.items():
                        if not np.array_equal(cache.read(name, keys[:n]), rows[:n, : cache.layers[name][1]]):
                            raise Violation("rows changed")
            except CacheError as error:
                raise Violation(str(error)) from error


def power_cut(seed: int, work: Path, lying: tuple[str, ...] = (), n_cuts: int = 20) -> Counter[str]:
    """Make one story from the seed and cut the power in it `n_cuts` times."""
    rng = random.Random(seed)
    with emptied(work / "story") as folder:
        if seed % 2:
            (folder / "file").write_bytes(rng.randbytes(rng.choice([0, 100, 4096, 30_000])))
            story = journal_story(folder / "file", random_steps(rng, rng.randint(1, 25)), lying)
            check: Callable[[int], None] = lambda n_ops: check_journal_cut(story, n_ops, rng, work)  # noqa: E731
        else:
            story, rows, keys = cache_story(folder, rng, lying)
            check = lambda n_ops: check_cache_cut(story, rows, keys, n_ops, rng, work)  # noqa: E731
        for _ in range(n_cuts):
            check(rng.randint(0, len(story.disk.ops)))
    return Counter({"bytes as committed" if seed % 2 else "rows as committed": n_cuts})
