"""What grows with the number of images: joining and opening shards, heads on shards, cost an image over set sizes.

    python benchmarks/scale.py                   all parts
    python benchmarks/scale.py --parts join      64 shards of a million rows: keys drawn by lot, rows of 2 columns
    python benchmarks/scale.py --parts heads     heads on 10 shards and on one cache of real images: the same digits?
    python benchmarks/scale.py --parts line      extract of 1,000 to 60,000 photographs, processor time and memory
    python benchmarks/scale.py --tables-only

The photographs of ``line`` are those of potato and cats_dogs again and again, with a number written behind the end of
the JPEG: other bytes, so other content keys, and the same pixels.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import common
from common import Record
from tlfeat.cache.store import create_cache
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.shards import Shard
from tlfeat.workspace import read_json, write_json

PARTS = ("join", "heads", "line")

FINGERPRINT = {"backbone": "synthetic", "dtype": "float16"}

#: Runs in a process of its own, so that memory is that of this step alone; the last line of what it prints is JSON.
STEP = """
import json, resource, sys, time
from pathlib import Path
started_s, cpu_s = time.perf_counter(), time.process_time()
{code}
print(json.dumps({{
    "wall_s": time.perf_counter() - started_s,
    "cpu_s": time.process_time() - cpu_s,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    **found,
}}))
"""

JOIN = """
from tlfeat.cache.shard_join import join_shards
started_s, cpu_s = time.perf_counter(), time.process_time()
found = {"n_rows": join_shards(sys.argv[1]).layers["pooled"]}
"""

OPEN = """
from tlfeat.cache.store import open_cache
started_s, cpu_s = time.perf_counter(), time.process_time()
with open_cache(sys.argv[1]) as cache:
    found = {"n_rows": cache.layers["pooled"][0]}
"""

READ = """
from tlfeat.cache.store import open_cache
with open_cache(sys.argv[1]) as cache:
    started_s, cpu_s = time.perf_counter(), time.process_time()
    known = cache.known("pooled")
    found = {"n_keys": len(known), "keys_s": time.perf_counter() - started_s}
    table = cache.table
    found |= {"n_images": len(table.keys), "table_s": time.perf_counter() - started_s - found["keys_s"]}
    keys = [table.keys[i] for i in range(0, len(table.keys), 1 + len(table.keys) // 100_000)]
    begun_s = time.perf_counter()
    found |= {"n_read": len(cache.read("pooled", keys)), "read_s": time.perf_counter() - begun_s}
"""


def step(code: str, *arguments: object, cwd: Path | None = None) -> Record:
    """Run a step and return what it printed: wall and processor seconds, peak memory, and what it found."""
    ran = subprocess.run(
        [sys.executable, "-c", STEP.format(code=code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    if ran.returncode:
        raise SystemExit(ran.stderr)
    found: Record = json.loads(ran.stdout.splitlines()[-1])
    return found


# --- shards that are joined -----------------------------------------------------------------------------------


def write_shards(folder: Path, n_shards: int, n_rows: int) -> None:
    """Write shards that differ in their keys alone; `cache join` and readers look at no checksum."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = folder / Shard(1, n_shards).file_name
    keys = rng.integers(0, 256, (n_rows, 32), dtype=np.uint8)
    words = [key.tobytes().hex() for key in keys]
    images = ImageSet(
        Path("/data"),
        Path("/data"),
        [f"{'cat' if i % 2 else 'dog'}/{i:08d}.jpg" for i in range(n_rows)],
        ["cat" if i % 2 else "dog" for i in range(n_rows)],
        [""] * n_rows,
        [""] * n_rows,
    )
    with create_cache(first, FINGERPRINT, {"root": "/data", "source": "/data"}) as cache:
        for start in range(0, n_rows, 100_000):
            block = slice(start, start + 100_000)
            cache.append({"pooled": rng.standard_normal((len(words[block]), 2)).astype(np.float32)}, words[block])
        cache.write_table(ImageTable(images, words, ["ok"] * n_rows, [""] * n_rows, [22_000] * n_rows, [1] * n_rows))
    for number in range(2, n_shards + 1):
        other = folder / Shard(number, n_shards).file_name
        shutil.copyfile(first, other)
        keys = rng.integers(0, 256, (n_rows, 32), dtype=np.uint8)
        with h5py.File(other, "r+") as file:
            file["layers/pooled/keys"][:n_rows] = keys
            column = file["images/key"]
            for start in range(0, n_rows, 100_000):
                found = [key.tobytes().hex().encode() for key in keys[start : start + 100_000]]
                column[start : start + len(found)] = np.array(found)


def measure_join(args: Any) -> Record:
    folder = args.work / f"shards-{args.shards}-{args.rows}"
    if not folder.exists():
        with common.stage(f"writing {args.shards} shards of {args.rows:,} rows"):
            write_shards(folder, args.shards, args.rows)
    record: Record = {"n_shards": args.shards, "n_rows": args.rows, "load": common.load_average()}
    for name, code in (("join", JOIN), ("open", OPEN), ("read", READ)):
        with common.stage(name):
            record[name] = step(code, folder)
    return record


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("scale", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", type=common.chosen_from(PARTS), default=PARTS)
    parser.add_argument("--shards", type=common.positive, default=64, help="of join")
    parser.add_argument("--rows", type=common.positive, default=1_000_000, help="of each shard of join")
    args = common.read_arguments(parser)
    document = read_json(args.json) if args.json.exists() else {}
    if not args.tables_only:
        with common.work_folder(args):
            for name in args.parts:
                with common.stage(name):
                    document[name] = {**common.conditions(), **globals()[f"measure_{name}"](args)}
                write_json(args.json, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
