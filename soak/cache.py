"""Whether a cache survives: killed writers, power cuts and damaged files, as many as asked for, as JSON and a table.

    python soak/cache.py                                            # the figures of docs/benchmarks.md
    python soak/cache.py --kills 5 --power-cuts 50 --mutants 100    # a look
    python soak/cache.py --kills 0 --power-cuts 0 --mutants 500 --seed 7

Every case follows from its seed, and the JSON names those that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tlfeat.journal
from tlfeat.cache import Cache, ImageTable, create_cache, open_cache, repair_cache
from tlfeat.cachefile import in_child
from tlfeat.encoder import PixelEncoder, Rows
from tlfeat.errors import CacheDamaged, CacheError, TlfeatError
from tlfeat.extract import extract_rows
from tlfeat.images import ImageSet, content_key, load_images
from tlfeat.journal import JournalledFile
from tlfeat.records import Environment, write_json

ROOT = Path(__file__).resolve().parents[1]
SECTOR_BYTES = 512

#: What opening, verifying and reading one damaged file of some 100 KB may take, of processor time and memory.
MUTANT_S, MUTANT_BYTES = 15, 1 << 30

#: Repairing one that hangs HDF5 waits for that twice, longer each time.
REPAIR_S = 250


class Violation(AssertionError):
    """The cache did not survive."""


# --- power cuts ---------------------------------------------------------------------------------------------


class Disk:
    """The operating system as `tlfeat.journal` sees it, recorded, so that a power cut can be drawn afterwards.

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
        tlfeat.journal.os, before = self, tlfeat.journal.os  # type: ignore[assignment, attr-defined]
        try:
            yield
        finally:
            tlfeat.journal.os = before  # type: ignore[attr-defined]

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
    with _emptied(work / "cut") as cut, _emptied(work / "again") as again:
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


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


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
    with _emptied(work / "cut") as cut:
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
    with _emptied(work / "story") as folder:
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


# --- killed writers -----------------------------------------------------------------------------------------

#: Runs until it is killed; prints how many rows each commit that returned had made permanent.
WRITER = """
import os, sys, time
from pathlib import Path
from tlfeat import cache
from tlfeat.encoder import PixelEncoder
from tlfeat.extract import extract_rows
from tlfeat.images import load_images

class Slow(PixelEncoder):
    batch_size = 4
    def encode(self, pixels):
        time.sleep(0.01)
        return super().encode(pixels)

commit = cache.Cache.commit
def commit_and_tell(self):
    n = {name: n for name, (n, _) in self.layers.items()}.get("pixels", 0)
    commit(self)
    os.write(1, b"%d\\n" % n)
cache.Cache.commit = commit_and_tell
cache._COMMIT_S = float(sys.argv[3])
print("ready", flush=True)
extract_rows(load_images(Path(sys.argv[1])), Slow((8, 8)), Path(sys.argv[2]), is_compressed=sys.argv[4] == "1")
"""


def make_photos(folder: Path, n: int) -> Path:
    """Write `n` small pictures of two classes, an hour old."""
    then = time.time() - 3600
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        os.utime(path, (then, then))
    return folder


def rows_by_path(cache: Cache) -> dict[str, bytes]:
    """Return every image's row."""
    table = cache.table
    rows = cache.read("pixels", table.keys)
    return {path: row.tobytes() for path, row in zip(table.images.paths, rows, strict=True)}


def kill(seed: int, photos: Path, work: Path, n_times: int = 1) -> Counter[str]:
    """Kill an `extract` at a random moment, `n_times` in a row, and finish it: nothing committed is lost."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    is_compressed = rng.random() < 0.5
    with _emptied(work / "kill") as folder:
        path = folder / "c.h5"
        n_acknowledged = 0
        for _ in range(n_times):
            commit_s = rng.choice([0, 0, 0.02, 1])
            arguments = [str(photos), str(path), str(commit_s), str(int(is_compressed))]
            with subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                writer.stdout.readline()
                said = [writer.stdout.readline() for _ in range(0 if commit_s else rng.randint(0, 6))]
                time.sleep(rng.uniform(0, 0.2 if commit_s else 0.03))
                writer.send_signal(signal.SIGKILL)
                said += writer.stdout.read().split()
            outcomes["killed" if writer.returncode == -signal.SIGKILL else "ended before it was killed"] += 1
            n_acknowledged = max([n_acknowledged, *(int(n) for n in said if n.strip())])
            if (folder / "c.h5.journal").exists():
                outcomes["of them with a journal left"] += 1
            if not path.exists():
                continue
            with open_cache(path) as cache:
                problems = [problem for problem in cache.verify() if "extract again" not in problem]
                n_rows = cache.n_rows("pixels") if "pixels" in cache.layers else 0
            if problems or n_rows < n_acknowledged:
                raise Violation(f"{problems or n_rows} of {n_acknowledged} acknowledged")
        whole = folder / "whole.h5"
        for to in (path, whole):
            extract_rows(load_images(photos), PixelEncoder((8, 8)), to, is_compressed=is_compressed)
        with open_cache(path) as cache, open_cache(whole) as undisturbed:
            if cache.verify() or rows_by_path(cache) != rows_by_path(undisturbed):
                raise Violation("the finished cache is not that of an undisturbed run")
    return outcomes


# --- damaged files ------------------------------------------------------------------------------------------

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


#: Content key to row, for each layer.
Held = dict[str, dict[str, bytes]]


def held_by(cache: Cache) -> Held:
    """Return every row of every layer."""
    held = {}
    for layer in cache.layers:
        keys = list(cache.known(layer))
        rows = cache.read(layer, keys)
        held[layer] = {key: row.tobytes() for key, row in zip(keys, rows, strict=True)}
    return held


def make_seeds(folder: Path) -> list[tuple[bytes, Held]]:
    """Return sound caches and what they hold: of both formats, compressed, float16, with two layers."""
    paths = sorted((ROOT / "tests" / "golden").glob("cache-v*.h5"))
    for dtype, is_compressed in (("float32", True), ("float16", False), ("float16", True)):
        path = folder / f"seed-{dtype}-{is_compressed}.h5"
        rows, keys = some_rows(150)
        with create_cache(path, {"dtype": dtype}, {"root": "/data"}, is_compressed=is_compressed) as cache:
            cache.append({"a": rows, "b": rows[:, :3]}, keys)
            cache.write_table(some_table(keys))
        paths.append(path)
    seeds = []
    for path in paths:
        with open_cache(path) as cache:
            seeds.append((path.read_bytes(), held_by(cache)))
    return seeds


def _structure(data: bytes) -> list[int]:
    """Where HDF5's own headers and indexes begin: most bytes of a file are rows, and less interesting."""
    marks = (b"OHDR", b"OCHK", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"FRHP", b"BTHD", b"\x89HDF")
    return [found.start() for found in re.finditer(b"|".join(marks), data)]


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Damage a file in one to four ways, most of them where HDF5's own structures are."""
    out = bytearray(data)
    places = _structure(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        n = len(out)
        if n < 16:
            break
        near = rng.choice(places) + rng.randrange(300) if places and rng.random() < 0.8 else rng.randrange(n)
        at = min(near, n - 9)
        kind = rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice([1, 2, 4, 8])
            out[at : at + size] = (rng.choice(INTERESTING) % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 3 and rng.random() < 0.3:
            del out[rng.randrange(n) :]
        elif kind == 4:
            length, other = rng.choice([4, 8, 64, 512]), rng.randrange(n)
            out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
        elif kind == 5:
            source, length = rng.choice(others), rng.choice([8, 64, 512, 4096])
            start = rng.randrange(len(source))
            out[at : at + length] = source[start : start + length]
        else:
            length = rng.choice([1, 8, 40])
            out[at : at + length] = bytes([rng.choice([0, 0xFF, rng.randrange(256)])]) * length
    _seal(out, rng)
    return bytes(out)


def _seal(out: bytearray, rng: random.Random) -> None:
    """Half the time make checksums of headers right again, so that HDF5 goes on to what they hold."""
    if rng.random() < 0.5:
        if out[8] == 2:
            out[44:48] = lookup3(bytes(out[:44])).to_bytes(4, "little")
        for at in [found.start() for found in re.finditer(b"OHDR", out)]:
            with contextlib.suppress(IndexError):
                flags, size_at = out[at + 5], at + 6
                size_at += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
                width = 1 << (flags & 3)
                end = size_at + width + int.from_bytes(out[size_at : size_at + width], "little")
                if end + 4 <= len(out):
                    out[end : end + 4] = lookup3(bytes(out[at:end])).to_bytes(4, "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash, which HDF5 uses for its metadata."""
    mask = 0xFFFFFFFF

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    for at in range(0, len(data), 12):
        block = data[at : at + 12].ljust(12, b"\0")
        a, b, c = ((x + int.from_bytes(block[4 * i : 4 * i + 4], "little")) & mask for i, x in enumerate((a, b, c)))
        if at + 12 < len(data):
            for k in (4, 6, 8, 16, 19, 4):
                a, b, c = b, (c + b) & mask, ((a - c) & mask) ^ rot(c, k)
        else:
            for k in (14, 11, 25, 16, 4, 14, 24):
                a, b, c = b, ((c ^ b) - rot(b, k)) & mask, a
            c = b
    return c


def mutant(seed: int, seeds: Sequence[tuple[bytes, Held]], work: Path) -> Counter[str]:
    """Damage one cache; opening, verifying, reading and repairing it end well or in a `TlfeatError`."""
    rng = random.Random(seed)
    data, held = rng.choice(seeds)
    with _emptied(work / "mutant") as folder:
        path = folder / "c.h5"
        path.write_bytes(mutate(data, [data for data, _ in seeds], rng))
        if rng.random() < 0.1:
            path.with_name("c.h5.journal").write_bytes(some_journal(path.read_bytes(), rng))
        outcome = _outcome(path, lambda: _use(path, held))
        outcomes = Counter({outcome: 1})
        if seed % 5 == 0 and outcome != "sound":
            outcomes["repair: " + _outcome(path, lambda: _use_repaired(path), REPAIR_S)] += 1
    return outcomes


def some_journal(data: bytes, rng: random.Random) -> bytes:
    """Return a journal of one to three damaged pages for a file; some are not whole, some do not belong to it."""
    n = rng.randint(1, 3)
    numbers = [rng.choice([rng.randrange(len(data) // 4096 + 2), rng.choice(INTERESTING)]) for _ in range(n)]
    pages = [mutate(data[4096 * (i % 8) :][:4096].ljust(4096, b"\0"), [data], rng).ljust(4096)[:4096] for i in numbers]
    size = rng.choice([len(data), len(data), rng.choice(INTERESTING)])
    content = struct.pack(f"<16sQQ{n}Q", b"tlfeat journal 1", size, n, *numbers) + b"".join(pages)
    return content + hashlib.sha256(content).digest()[: rng.choice([32, 32, 31])]


def _outcome(path: Path, work: Callable[[], str], limit_s: float = MUTANT_S) -> str:
    try:
        outcome = str(in_child(path, work, patience=limit_s / 10))
    except CacheDamaged as error:  # not what `work` said: it crashed, hung or took too much memory
        raise Violation(str(error)) from error
    if outcome.startswith("VIOLATION"):
        raise Violation(outcome)
    return outcome


def _use(path: Path, held: Held) -> str:
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with open_cache(path) as cache:
            problems = cache.verify()
            for layer, rows in held_by(cache).items():
                if not problems and any(held.get(layer, {}).get(key, row) != row for key, row in rows.items()):
                    return "VIOLATION: rows changed and verify finds nothing"
            with contextlib.suppress(CacheError):
                cache.describe()
        outcome = "problems listed" if problems else "sound"
    except TlfeatError as error:
        kinds = {"crashes": "error: crashes HDF5", "hangs": "error: hangs HDF5", "more memory": "error: memory"}
        outcome = next((kind for word, kind in kinds.items() if word in str(error)), "error: refused")
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before)
    return outcome if peak < MUTANT_BYTES else f"VIOLATION: {peak} bytes"


def _use_repaired(path: Path) -> str:
    try:
        dropped = repair_cache(path)
    except TlfeatError:
        return "nothing to keep"
    with open_cache(path) as cache:
        problems = [problem for problem in cache.verify() if "extract again" not in problem]
    if problems:
        return f"VIOLATION: after a repair: {problems}"
    return "salvaged" if any("is kept as" in line for line in dropped) else "rows dropped"


# --- all of it ----------------------------------------------------------------------------------------------


def campaign(
    name: str, n: int, first: int, case: Callable[[int], Counter[str]], save: Callable[[dict[str, Any]], None]
) -> None:
    """Run `n` cases and count what came of them; save that every half minute and at the end."""
    outcomes: Counter[str] = Counter()
    failures = []
    started_s = saved_s = time.monotonic()
    for n_done, seed in enumerate(range(first, first + n), start=1):
        try:
            outcomes += case(seed)
        except Violation as violation:
            outcomes["VIOLATIONS"] += 1
            failures.append({"seed": seed, "violation": str(violation)[:500]})
            print(f"{name}, seed {seed}: {violation}", flush=True)
        if n_done == n or time.monotonic() - saved_s > 30:
            saved_s = time.monotonic()
            save(
                {
                    "n_cases": n_done,
                    "first_seed": first,
                    "outcomes": dict(outcomes.most_common()),
                    "violations": failures,
                    "wall_s": round(saved_s - started_s, 1),
                }
            )


def main() -> None:
    """Run the campaigns that are asked for; those left out keep their figures in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--power-cuts", type=int, default=2000)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "soak_cache.json")
    options = parser.parse_args()
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {"campaigns": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = make_photos(work / "photos", 120)
        seeds = make_seeds(work)
        for name, n, case in (
            ("power cuts", options.power_cuts // 20, lambda seed: power_cut(seed, work)),
            ("kills", options.kills, lambda seed: kill(seed, photos, work)),
            ("mutants", options.mutants, lambda seed: mutant(seed, seeds, work)),
        ):

            def save(found: dict[str, Any], name: str = name) -> None:
                known["campaigns"][name] = found
                known["environment"] = Environment.current().to_dict()
                write_json(options.json, known)

            campaign(name, n, options.seed, case, save)
    print("\n| campaign | outcome | cases |\n|---|---|---|")
    for name, found in known["campaigns"].items():
        for outcome, count in found["outcomes"].items():
            print(f"| {name} | {outcome} | {count:,} |")
    if any(found["violations"] for found in known["campaigns"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
