"""How much memory does an image take in the process that drives ``extract``, and in one that reads a cache?

Synthetic caches (rows of three columns, paths such as ``class_00012/image_000012345.jpg``) of images that are not
there: sizes and time stamps come from a function. Every step runs in a process of its own; its memory is the most that
it had beyond what it had after the imports.

    python benchmarks/memory.py                            # 1 and 10 million images, half an hour
    python benchmarks/memory.py --images 30_000_000 --add  # one more size; needs 4 GB of memory
    python benchmarks/memory.py --tables-only
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import common
from common import Record
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.blocks import BLOCK_LINES
from tlfeat.cache import path_table
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.columns import Codes, Collected, Keys, Numbers
from tlfeat.extract import recognise
from tlfeat.extract.extract import extract_rows
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.text import markdown_table

#: Images that are new in the step "append".
N_NEW = 1000

#: Images of a class.
N_CLASS = 1000

#: Rows that are written to the synthetic cache at a time.
N_AT_ONCE = 1 << 17

ENCODER = PixelEncoder((1, 1))

STEPS = {
    "scan": "`extract` of an unchanged set",
    "append": f"`extract` of {N_NEW:,} more",
    "reader": "open a cache, read the path table and the keys",
    "rows": "the same, and read every row block by block",
    "info": "`cache info`",
    "verify": "`cache verify`",
}


class Made:
    """A store of pictures that exist when they are read: a pixel of a colour of its own each."""

    url, n_ahead = "made:", 0

    def read(self, path: str) -> bytes:
        """Return a PNG file."""
        number = int(path[-13:-4])
        data = io.BytesIO()
        colour = number & 255, number >> 8 & 255, number >> 16 & 255
        Image.new("RGB", (8, 8), colour).save(data, "png")
        return data.getvalue()

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return sizes and time stamps that belong to the paths."""
        numbers = np.array([int(path[-13:-4]) for path in paths])
        return list(zip(sizes_of(numbers).tolist(), mtimes_of(numbers).tolist(), strict=True))


def sizes_of(numbers: np.ndarray) -> np.ndarray:
    """Return as many bytes as photographs have."""
    return 5_000 + numbers * 7_919 % 55_000


def mtimes_of(numbers: np.ndarray) -> np.ndarray:
    """Return time stamps of eleven days, in no order."""
    return 1_700_000_000_000_000_000 + numbers * 982_451_653_000_001 % 10**15


def stamps(images: ImageSet, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Take the place of `recognise._stamps`."""
    assert images.store is not None
    sizes, mtimes_ns = zip(*images.store.stamps(paths), strict=True)
    return np.array(sizes), np.array(mtimes_ns)


def listing(n: int) -> ImageSet:
    """Return the images as a listing of a folder does."""
    paths, labels = Collected(is_path=True), Collected()
    for i in range(n):
        label = f"class_{i // N_CLASS:05d}"
        paths.append(f"{label}/image_{i:09d}.jpg")
        labels.append(label)
    nothing = Codes.filled("", n)
    return ImageSet(Path("/made"), Path("/made"), paths.column(), labels.column(), nothing, nothing, store=Made())


def make(path: Path, n: int) -> None:
    """Write a cache of `n` images with random keys."""
    rng = np.random.default_rng(17)
    keys, sizes, mtimes_ns = Keys(), Numbers(), Numbers()
    with create_cache(path, ENCODER.fingerprint, {"root": Made.url, "source": "/made", "store": Made.url}) as cache:
        cache.reserve({"pixels": 3}, n)
        for start in range(0, n, N_AT_ONCE):
            m = min(N_AT_ONCE, n - start)
            digests = rng.integers(0, 256, (m, 32), dtype=np.uint8)
            rows = np.zeros((m, 3), np.float32)
            table = cache.row_table("pixels")
            sums = [table.checksum(row, digest) for row, digest in zip(rows, digests, strict=True)]
            with cache.changing() as file:
                for name, values in (("rows", rows), ("keys", digests), ("crc32", sums)):
                    column = file["layers/pixels"][name]
                    column.resize(start + m, axis=0)
                    column[start:] = values
                file["layers/pixels/n_rows"][()] = start + m
            cache.commit()
            keys.extend_packed(digests, np.ones(m, np.bool_))
        for start in range(0, n, BLOCK_LINES):
            numbers = np.arange(start, min(start + BLOCK_LINES, n))
            sizes.extend_array(sizes_of(numbers))
            mtimes_ns.extend_array(mtimes_of(numbers))
        table = ImageTable(listing(n), keys, Codes.filled("ok", n), Codes.filled("", n), sizes, mtimes_ns)
        cache.write_table(table)


def memory_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_step(step: str, path: Path, n: int) -> Record:
    """Do one step in this process, and return what it took."""
    before = memory_bytes()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    held = do_step(step, path, n)
    found = {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "held_bytes": memory_bytes() - before,
        "most_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    }
    del held
    return found


def do_step(step: str, path: Path, n: int) -> Any:
    """Return what the step still holds."""
    path_table.recorded_store = lambda _: Made()
    if step in ("scan", "append"):
        recognise._stamps = stamps
        images = listing(n + N_NEW * (step == "append"))
        return images, extract_rows(images, ENCODER, path)
    cache = open_cache(path)
    if step == "info":
        return cache, cache.describe()["images"]["status"]
    if step == "verify":
        assert cache.verify() == []
        return cache
    table, known = cache.table, cache.known("pixels")
    if step == "rows":
        for start in range(0, n, BLOCK_LINES):
            cache.read("pixels", table.keys[start : start + BLOCK_LINES])
    return cache, table, known


def measure(n: int, steps: Sequence[str], work: Path) -> Record:
    """Return what each step takes with `n` images."""
    path = work / "made.h5"
    with common.stage(f"a cache of {n:,} images"):
        subprocess.run([sys.executable, __file__, "--make", str(path), "--images", str(n)], check=True)
    record: Record = {"n_images": n, **common.conditions(), "cache_bytes": path.stat().st_size, "steps": {}}
    for step in steps:
        with common.stage(f"{n:,} images: {step}"):
            command = [sys.executable, __file__, "--step", step, "--make", str(path), "--images", str(n)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        record["steps"][step] = json.loads(said)
        common.say(f"{record['steps'][step]}")
    path.unlink()
    return record


def tables(records: list[Record]) -> str:
    """Return the page's table."""
    rows = []
    for step, about in STEPS.items():
        for record in records:
            if found := record["steps"].get(step):
                n = record["n_images"]
                rows.append(
                    (
                        about,
                        f"{n / 1e6:g} million",
                        f"{found['most_bytes'] / n:.0f}",
                        f"{found['held_bytes'] / n:.0f}",
                        f"{found['cpu_s']:.1f}",
                        f"{1e6 * found['cpu_s'] / n:.1f}",
                    )
                )
    headings = ("step", "images", "most, bytes an image", "in the end", "processor, s", "µs an image")
    first = records[0]
    made = f"{first['date']}, {common.machine_of(first)}; {common.versions_of(first['environment'])}"
    return f"{markdown_table(headings, rows)}\n\n{made}."


def main() -> None:
    """Measure, or write the tables of what was measured."""
    parser = common.parser_for("memory", __doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--add", action="store_true", help="beside the sizes that were measured before")
    parser.add_argument("--folder", type=Path, help="a folder with 100 bytes an image free; default: a temporary one")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = common.read_arguments(parser)
    if args.step:
        print(json.dumps(run_step(args.step, args.make, args.images[0])))
        return
    if args.make:
        make(args.make, args.images[0])
        return
    if not args.tables_only:
        with tempfile.TemporaryDirectory(prefix="tlfeat-benchmark-", dir=args.folder) as folder:
            records = [measure(n, args.steps, Path(folder)) for n in args.images]
        if args.add:
            kept = [old for old in common.read_records(args.json) if old["n_images"] not in args.images]
            records = sorted([*kept, *records], key=lambda record: record["n_images"])
        common.write_records(args.json, records)
    common.publish(args, tables(common.read_records(args.json)))


if __name__ == "__main__":
    main()
