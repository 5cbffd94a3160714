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
from tlfeat.records import Result
from tlfeat.text import markdown_table
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


# --- heads on shards ------------------------------------------------------------------------------------------

HEADS = ("logreg", "ridge", "lda", "linear-svm", "svm", "knn")
STREAMED = ("logreg", "ridge", "lda", "linear-svm")


def measure_heads(args: Any) -> Record:
    """Fit every head on one cache and on ten shards of the same images; streamed from the files, too."""
    import tlfeat.models.fit_sklearn as fitting
    from tlfeat.cache.shard_join import join_shards
    from tlfeat.evaluate.data import open_data
    from tlfeat.extract.plan import plan_extraction
    from tlfeat.models.saved import Outcome

    record: Record = {"set": args.set, "seeds": args.seeds, "heads": []}
    photos = common.unpack(args.set, args.shared, args.work)
    options = common.backbone_options("v2", args.shared)
    one, shards = args.work / f"{args.set}.h5", args.work / f"{args.set}.shards"
    with common.stage("extracting"):
        record["n_images"] = plan_extraction(photos, cache=one, **options).run().n_images
        for number in range(1, 11):
            job = plan_extraction(photos, cache=shards, shard=f"{number}/10", **options)
            job.run(known_in=[])
        join_shards(shards)

    def fit(cache: Path, head: str, seed: int) -> Outcome:
        with open_data(cache, seed=seed) as data:
            return fitting.fit_sklearn(data, head, is_fresh=True)

    room = fitting.available_memory
    for name, is_streamed in [*((name, False) for name in HEADS), *((name, True) for name in STREAMED)]:
        if is_streamed:  # no more than what a search takes beside the rows
            fitting.available_memory = lambda: fitting._beside_rows(1280) + 1
        try:
            pairs = [[fit(cache, name, seed).result for cache in (one, shards)] for seed in range(args.seeds)]
        finally:
            fitting.available_memory = room
        certainties = [[np.array(result.certainty) for result in pair] for pair in pairs]
        line = {
            "head": name,
            "is_streamed": is_streamed,
            "n_equal": sum(_digits(pair[0]) == _digits(pair[1]) for pair in pairs),
            "n_same_answers": sum(pair[0].predicted == pair[1].predicted for pair in pairs),
            "accuracy": [float(np.mean([pair[k].score.accuracy for pair in pairs])) for k in (0, 1)],
            "largest_difference": max(float(np.abs(one - other).max()) for one, other in certainties),
        }
        record["heads"].append(line)
        common.say(str(line))
    return record


def _digits(result: Result) -> Any:
    """Return everything that a head answers, and what was chosen for it."""
    return result.chosen, result.score, result.predicted, result.certainty


# --- the straight line ----------------------------------------------------------------------------------------

EXTRACT = """
from tlfeat.extract.plan import plan_extraction
job = plan_extraction(sys.argv[1], cache=sys.argv[2], backbone=sys.argv[3], weights=sys.argv[4])
report = job.run(known_in=[])
found = {"n_embedded": report.n_embedded, "n_failed": len(report.failures), "embed_cpu_s": report.profile.cpu_s,
         "embed_wall_s": report.profile.wall_s}
"""


def write_photographs(folder: Path, sources: list[Path], n: int) -> None:
    """Write `n` photographs into class folders, each with other bytes."""
    contents = [path.read_bytes() for path in sources]
    for i in range(n):
        place = folder / f"class{i % 10}" / f"{i // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:08d}.jpg").write_bytes(contents[i % len(contents)] + b"%d" % i)


def measure_line(args: Any) -> Record:
    """Extract sets of several sizes, each in a process of its own, then again, unchanged."""
    sources = []
    for name in ("potato", "cats_dogs"):
        found = sorted(common.unpack(name, args.shared, args.work).rglob("*.jp*g"))
        sources += found[:: max(1, len(found) // 1000)][:1000]
    record: Record = {"sizes": [], "n_sources": len(sources)}
    record["source_bytes"] = int(np.mean([path.stat().st_size for path in sources]))
    options = common.backbone_options("v2", args.shared)
    for n in args.sizes:
        folder, cache = args.work / f"line-{n}", args.work / f"line-{n}.h5"
        if not folder.exists():
            with common.stage(f"writing {n:,} photographs"):
                write_photographs(folder, sources, n)
        cache.unlink(missing_ok=True)
        line: Record = {"n": n, "load": common.load_average()}
        for step_name in ("first", "again"):
            with common.stage(f"{n:,} photographs, {step_name}"):
                line[step_name] = step(EXTRACT, folder, cache, options["backbone"], options["weights"], cwd=args.work)
        line["bytes"] = cache.stat().st_size
        record["sizes"].append(line)
        shutil.rmtree(folder)
        cache.unlink()
    return record


# --- tables ---------------------------------------------------------------------------------------------------

#: What 100 million images are taken to be, and list prices on demand in dollars (Amazon, us-east-1, a c7i.2xlarge with
#: four cores), as they were known in 2025: look them up.
N_IMAGES, N_NODES, CORES_OF_NODE, IMAGE_BYTES = 100_000_000, 64, 4, 22_000
NODE_HOUR, GET_1000, LIST_1000, GB_MONTH = 0.357, 0.0004, 0.005, 0.023

#: Bytes of a row: 1,280 columns as float16, with key and checksum.
ROW_BYTES = 2 * 1280 + 36

#: Milliseconds of processor that an image costs more from a bucket: docs/benchmarks/remote.md.
REMOTE_MS = 1.6


def tables(document: Record) -> str:
    """Return the tables of the parts that were measured."""
    found = [globals()[f"table_{name}"](document[name]) for name in PARTS if name in document]
    if "line" in document:
        found.append(table_projection(document["line"]["sizes"][-1]))
    return "\n\n".join(found)


def _conditions(record: Record) -> str:
    return f"{record['date']}, {common.machine_of(record)}; {common.versions_of(record['environment'])}."


def table_join(record: Record) -> str:
    n = record["n_shards"] * record["n_rows"]
    lines = [
        (what, f"{record[name]['wall_s']:.1f}", f"{record[name]['cpu_s']:.1f}", f"{record[name]['peak_mb']:,.0f}")
        for name, what in (
            ("join", "`cache join`"),
            ("open", "open the cache"),
            ("read", "read all keys and the path table, and 100,000 rows"),
        )
    ]
    return (
        f"{record['n_shards']} shards of {record['n_rows']:,} rows, {n:,} in all, load {record['load']} at the start:"
        "\n\n"
        f"{markdown_table(('', 's', 's of processor, without child processes', 'peak MB'), lines)}\n\n"
        f"Of the last: keys {record['read']['keys_s']:.0f} s, path table {record['read']['table_s']:.0f} s, rows "
        f"{record['read']['read_s']:.0f} s. {_conditions(record)}"
    )


def table_heads(record: Record) -> str:
    lines = [
        (
            line["head"],
            "block by block" if line["is_streamed"] else "in memory",
            f"{line['n_equal']} of {record['seeds']}",
            f"{line['n_same_answers']} of {record['seeds']}",
            f"{line['largest_difference']:.0e}" if line["largest_difference"] else "0",
            f"{100 * line['accuracy'][0]:.1f} / {100 * line['accuracy'][1]:.1f} %",
        )
        for line in record["heads"]
    ]
    headings = ("head", "rows", "all digits equal", "answers equal", "largest difference of a probability", "accuracy")
    return (
        f"One cache against ten shards of the same {record['n_images']:,} images ({record['set']}, {record['seeds']} "
        f"seeds):\n\n{markdown_table(headings, lines)}\n\n{_conditions(record)}"
    )


def table_line(record: Record) -> str:
    lines = []
    for line in record["sizes"]:
        n, first, again = line["n"], line["first"], line["again"]
        lines.append(
            (
                f"{n:,}",
                f"{1000 * first['embed_cpu_s'] / n:.2f}",
                f"{1000 * first['cpu_s'] / n:.2f}",
                f"{first['peak_mb']:,.0f}",
                f"{1e6 * again['cpu_s'] / n:.0f}",
                f"{again['peak_mb']:,.0f}",
                f"{line['bytes'] / n:,.0f}",
                f"{line['load']}",
            )
        )
    headings = (
        "images",
        "ms of processor an image, from the first file to the last row",
        "whole command",
        "peak MB",
        "again, unchanged: µs an image",
        "peak MB",
        "bytes of the cache an image",
        "load",
    )
    return (
        f"`extract`, MobileNetV2 0.35 with ImageNet weights, photographs of {record['source_bytes'] / 1000:.0f} kB on "
        f"average:\n\n{markdown_table(headings, lines)}\n\n{_conditions(record)}"
    )


def table_projection(line: Record) -> str:
    """Return what 100 million images would take, from the largest set of `line`."""
    ms = 1000 * line["first"]["embed_cpu_s"] / line["n"] + REMOTE_MS
    core_hours = N_IMAGES * ms / 3.6e6
    hours = core_hours / (N_NODES * CORES_OF_NODE)
    rows_gb, images_gb = N_IMAGES * ROW_BYTES / 1e9, N_IMAGES * IMAGE_BYTES / 1e9
    gets, lists = N_IMAGES / 1000 * GET_1000, N_IMAGES / 1000 / 1000 * LIST_1000
    lines = [
        ("read, decode, embed", f"{ms:.1f} ms of processor an image", f"{core_hours:,.0f} core-hours"),
        (
            f"on {N_NODES} nodes of {CORES_OF_NODE} cores",
            "",
            f"{hours:.1f} hours, {hours * N_NODES * NODE_HOUR:,.0f} $",
        ),
        ("requests", f"{GET_1000} $ for 1,000 reads, {LIST_1000} $ for 1,000 lists", f"{gets + lists:,.0f} $"),
        ("images", f"{IMAGE_BYTES / 1000:.0f} kB each", f"{images_gb:,.0f} GB, {images_gb * GB_MONTH:,.0f} $ a month"),
        ("rows, float16", f"{ROW_BYTES:,} bytes each", f"{rows_gb:,.0f} GB, {rows_gb * GB_MONTH:,.0f} $ a month"),
    ]
    return (
        f"{N_IMAGES:,} images in a bucket, by calculation:\n\n{markdown_table(('what', 'each', 'in all'), lines)}\n\n"
        f"List prices on demand of one cloud, as they were known in 2025: {NODE_HOUR} $ an hour for a node of "
        f"{CORES_OF_NODE} cores, {GB_MONTH} $ for a GB and month."
    )


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("scale", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", type=common.chosen_from(PARTS), default=PARTS)
    parser.add_argument("--shards", type=common.positive, default=64, help="of join")
    parser.add_argument("--set", default="cats_dogs", help="of heads")
    parser.add_argument("--seeds", type=common.positive, default=3, help="of heads")
    parser.add_argument("--sizes", type=common.positive, nargs="*", default=[1_000, 10_000, 60_000], help="of line")
    parser.add_argument("--rows", type=common.positive, default=1_000_000, help="of each shard of join")
    args = common.read_arguments(parser)
    document = read_json(args.json) if args.json.exists() else {}
    if not args.tables_only:
        with common.work_folder(args):
            for name in args.parts:
                with common.stage(name):
                    document[name] = {**common.conditions(), **globals()[f"measure_{name}"](args)}
                write_json(args.json, document)
    common.publish(args, tables(document))


if __name__ == "__main__":
    main()
