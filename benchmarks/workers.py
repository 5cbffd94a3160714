"""Workers of Ray beside threads of one process, and what dealing costs the driver.

    python benchmarks/workers.py                # measure, and write docs/benchmarks/workers.md
    python benchmarks/workers.py --tables-only

Two workers of one thread and ``extract`` with two threads, on the same two cores with the same priority, in turn. A
small and a large set are embedded; what an image costs is the difference between them over the difference of their
sizes, so that starting Python, loading the network and joining count for neither.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import common
from common import Record, stage
from tlfeat.extract import ray_cluster
from tlfeat.extract.cluster import extract_on_cluster
from tlfeat.extract.plan import plan_extraction
from tlfeat.extract.shard_lists import write_lists
from tlfeat.images.lines import Line
from tlfeat.text import markdown_table

SIZES = (400, 2800)
ROUNDS = 3

#: Ray's own name for the priority of its workers.
NICENESS = "RAY_worker_niceness"

#: Lines that are listed and dealt, of made-up paths; shards that they go to.
LINES, SHARDS = 1_000_000, 256


def tables_of(images: Path, work: Path) -> list[Path]:
    """Write a CSV with the first images of each class for each size."""
    classes = sorted(p for p in images.iterdir() if p.is_dir())
    files = [sorted(folder.iterdir()) for folder in classes]
    found = []
    for size in SIZES:
        table = work / f"{size}.csv"
        with table.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(("path", "label"))
            for of_class in files:
                writer.writerows((str(path), path.parent.name) for path in of_class[: size // len(classes)])
        found.append(table)
    return found


def run_alone(table: Path, work: Path, options: Record) -> Record:
    """Embed with two threads in this process."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        job = plan_extraction(table, cache=Path(folder) / "one.h5", n_threads=2, **options)
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        report = job.run(n_threads=2, known_in=())
        wall_s, cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
    return {"n": report.n_embedded, "wall_s": wall_s, "cpu_s": cpu_s}


def run_on_ray(table: Path, work: Path, options: Record) -> Record:
    """Embed with two workers of one thread."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        job = plan_extraction(table, cache=Path(folder) / "shards", is_dealt=True, n_threads=1, **options)
        report = extract_on_cluster(job, "local", n_shards=8, n_workers=2)
    return {
        "n": report.n_embedded,
        "wall_s": report.wall_s,
        "cpu_s": report.worker_cpu_s,
        "driver_cpu_s": report.driver_cpu_s,
        "start_s": report.start_s,
    }


def made_up(n: int) -> Iterator[Line]:
    """Give lines as a folder of a million images has them."""
    return (
        Line(f"class {i % 100:03d}/part {i // 1000:05d}/image-{i:09d}.jpg", f"class {i % 100:03d}") for i in range(n)
    )


def deal(n_shards: int | None) -> Record:
    """Measure what the lists of a large set take."""
    with tempfile.TemporaryDirectory() as folder:
        before_kb, started_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        sizes = write_lists(made_up(LINES), Path(folder), n_shards, 64)
        cpu_s = time.process_time() - started_s
        list_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*.lines"))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    return {"cpu_s": cpu_s, "n_shards": len(sizes), "grown_mb": grown_kb / 1024, "bytes": list_bytes}


def measure(args: argparse.Namespace) -> Record:
    """Return the record of a whole run."""
    record: Record = {**common.conditions(), "lines": LINES, "rounds": [], "load": [common.load_average()]}
    record["dealing"] = [deal(SHARDS), deal(None)]
    os.environ[NICENESS] = "0"  # the default, 15, would measure what else the machine does
    options = common.backbone_options("v2", args.shared)
    work = args.work
    images = common.unpack("cifar10", args.shared, work) / "train"
    tables = tables_of(images, work)
    ray = ray_cluster.import_ray()
    with ray_cluster.attached("local", 50 << 20), stage("warming up"):
        assert ray.is_initialized()
        run_alone(tables[0], work, options)  # converts the network
        for number in range(ROUNDS):
            for size, table in zip(SIZES, tables, strict=True):
                with stage(f"round {number + 1}, {size} images"):
                    found = {"alone": run_alone(table, work, options), "ray": run_on_ray(table, work, options)}
                    record["rounds"].append(found)
    record["load"].append(common.load_average())
    return record


def slopes(record: Record, way: str, what: str) -> list[float]:
    """Return what an image costs in each round, in ms."""
    of_way = [each[way] for each in record["rounds"]]
    pairs = [(of_way[i], of_way[i + 1]) for i in range(0, len(of_way), 2)]
    return [1000 * (large[what] - small[what]) / (large["n"] - small["n"]) for small, large in pairs]


def tables(record: Record) -> str:
    """Return the page's tables."""
    rows = []
    for way, name in (("alone", "`extract --threads 2`"), ("ray", "`extract --ray`, 2 workers of one thread")):
        wall, cpu = slopes(record, way, "wall_s"), slopes(record, way, "cpu_s")
        rows.append((name, f"{1000 / statistics.median(wall):.0f}", spread(wall), spread(cpu)))
    ratios = {
        what: [a / r for a, r in zip(slopes(record, "alone", what), slopes(record, "ray", what), strict=True)]
        for what in ("wall_s", "cpu_s")
    }
    runs = [each["ray"] for each in record["rounds"]]
    driver = [1000 * run["driver_cpu_s"] / run["n"] for run in runs[1::2]]
    known, chosen = record["dealing"]
    n = record["lines"]
    lists = [
        (name, f"{1000 * d['cpu_s'] / n:.4f}", f"{d['grown_mb']:.0f} MB", f"{d['bytes'] / n:.0f} bytes an image")
        for name, d in (("256 shards", known), (f"number chosen afterwards: {chosen['n_shards']}", chosen))
    ]
    headings = (f"lists of {n:,} made-up images", "processor ms an image", "memory of the driver", "size of the lists")
    return "\n\n".join(
        [
            f"{common.machine_of(record)}, {record['date']}, load {record['load'][0]} before and {record['load'][-1]} "
            f"after; MobileNetV2 0.35 with ImageNet weights, CIFAR-10 images, {SIZES[0]:,} and {SIZES[1]:,} of them, "
            f"{len(runs) // 2} rounds. Medians, and the smallest and largest round in brackets. "
            f"{common.versions_of(record['environment'])}.",
            markdown_table(("", "images/s", "wall ms an image", "processor ms an image"), rows),
            f"Images/s of Ray over those of `extract`: {spread(ratios['wall_s'])}; by processor time "
            f"{spread(ratios['cpu_s'])}.",
            f"From the command to the first worker that is ready, in a cluster that runs: "
            f"{spread([run['start_s'] for run in runs])} s. The driver takes {spread(driver)} ms of processor an image "
            f"in the larger set, and {spread(slopes(record, 'ray', 'driver_cpu_s'))} ms for each image more.",
            markdown_table(headings, lists),
        ]
    )


def spread(values: Sequence[float]) -> str:
    """Return the median, and the smallest and largest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str]) -> int:
    """Measure, and write the page."""
    parser = common.parser_for("workers", __doc__)
    common.add_data(parser)
    args = common.read_arguments(parser, arguments)
    with common.work_folder(args):
        if not args.tables_only:
            common.write_records(args.json, [measure(args)])
    common.publish(args, tables(common.read_records(args.json)[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
