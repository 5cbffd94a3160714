"""Damaged caches: small files changed at random places, and whether reading them ends well or in a `TlfeatError`.

Every mutant follows from its seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import resource
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from power_cuts import Violation, emptied, some_rows, some_table
from tlfeat.cache.checks import in_child
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.errors import CacheDamaged, CacheError, TlfeatError

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"

#: What opening, verifying and reading one damaged file of some 100 KB may take, of processor time and memory.
MUTANT_S, MUTANT_BYTES = 15, 1 << 30

#: Repairing one that hangs HDF5 waits for that twice, longer each time.
REPAIR_S = 250

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
    paths = sorted(GOLDEN.glob("cache-v*.h5"))
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
    with emptied(work / "mutant") as folder:
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
