"""Processor time of `tlfeat extract` on the same images as files, in archives and in tables, as JSON and as a table.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/archives.py                    # ten minutes on 2 cores
    python benchmarks/archives.py --tables-only      # the table from the JSON, runs nothing

Every run is a whole command in a new process with a new cache; the kinds of sources take turns. Processor time is that
of the process and its threads, user and system, divided by the images. A second run of the same command is measured
too: it reads nothing but the list of images. Rows of every kind are compared with those of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import common
from common import Record
from tlfeat.cache.store import open_cache
from tlfeat.images.decode import read_picture
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.text import markdown_table

DATA = "potato"

#: Name of a command in the tables to its options; "pixels" embeds by resizing alone, so that reading weighs most.
COMMANDS = {"MobileNetV2 0.35": "v2", "no network (`pixels`)": "pixels"}

ROWS_PER_GROUP = 100  # as Hugging Face `datasets` writes images


def write_zip(images: ImageSet, path: Path, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method, strict_timestamps=False) as archive:
        for i, name in enumerate(images.paths):
            archive.write(images.file(i), name)


def write_tar(images: ImageSet, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for i, name in enumerate(images.paths):
            archive.add(images.file(i), name)


def table_of(images: ImageSet) -> object:
    """Return a table as `datasets` has it: structs of bytes and path, numbers of classes, and their names."""
    import pyarrow as pa

    cells = [{"bytes": images.file(i).read_bytes(), "path": path} for i, path in enumerate(images.paths)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    numbers = [images.classes.index(label) for label in images.labels]
    table = pa.table({"image": pa.array(cells, kind), "label": numbers})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": images.classes}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(images: ImageSet, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table_of(images), path, row_group_size=ROWS_PER_GROUP)


def write_arrow(images: ImageSet, path: Path) -> None:
    import pyarrow as pa

    table = table_of(images)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:  # type: ignore[attr-defined]
        writer.write_table(table, max_chunksize=ROWS_PER_GROUP)


#: Kind to name of the file and its writer.
KINDS: dict[str, tuple[str, Callable[[ImageSet, Path], None]]] = {
    "zip, stored": ("stored.zip", write_zip),
    "zip, deflated": ("deflated.zip", lambda images, path: write_zip(images, path, zipfile.ZIP_DEFLATED)),
    "tar": ("photos.tar", write_tar),
    "Parquet": ("photos.parquet", write_parquet),
    "Arrow": ("photos.arrow", write_arrow),
}


def run(source: Path, command: str, args: argparse.Namespace, cache: Path) -> float:
    """Return the processor seconds of one command."""
    options = ["--backbone", "pixels"]
    if command == "v2":
        options = ["--backbone", "mobilenet_v2_0.35", "--weights", str(common.weights_v2(args.shared))]
    words = [sys.executable, "-m", "tlfeat", "extract", str(source), "--cache", str(cache), *options]
    with subprocess.Popen(words, cwd=args.work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def rows_by_key(path: Path) -> dict[str, bytes]:
    """Return the row of each content key, as bytes."""
    with open_cache(path) as cache:
        layer = next(iter(cache.layers))
        keys = sorted(set(cache.table.keys))
        return {key: row.tobytes() for key, row in zip(keys, np.asarray(cache.read(layer, keys)), strict=True)}


def reading_ms(sources: dict[str, Path]) -> dict[str, float]:
    """Return the processor milliseconds of reading one image of each kind, in one thread: the least of five passes."""
    sets = {kind: load_images(source) for kind, source in sources.items()}
    found: dict[str, list[float]] = {kind: [] for kind in sets}
    for _ in range(5):
        for kind, images in sets.items():
            started_s = time.process_time()
            for i in range(len(images)):
                read_picture(images.content(i))
            found[kind].append(1000 * (time.process_time() - started_s) / len(images))
    return {kind: min(passes) for kind, passes in found.items()}


def measure(name: str, sources: dict[str, Path], n_images: int, args: argparse.Namespace) -> Record:
    """Run one command on every kind in turns."""
    first: dict[str, list[float]] = {kind: [] for kind in sources}
    again: dict[str, list[float]] = {kind: [] for kind in sources}
    equal = {}
    expected: dict[str, bytes] = {}
    _remove_cache(args)
    run(sources["files"], COMMANDS[name], args, args.work / "new.h5")  # the network is converted once
    for repeat in range(args.repeats):
        kinds = list(sources)[repeat % len(sources) :] + list(sources)[: repeat % len(sources)]
        for kind in sorted(kinds, key=lambda kind: kind != "files") if not repeat else kinds:
            cache = args.work / "new.h5"
            _remove_cache(args)
            first[kind].append(run(sources[kind], COMMANDS[name], args, cache))
            again[kind].append(run(sources[kind], COMMANDS[name], args, cache))
            if not repeat:
                rows = rows_by_key(cache)
                expected = expected or rows
                equal[kind] = rows == expected
            common.say(f"{name}, {kind}: {1000 * first[kind][-1] / n_images:.2f} ms an image")
    return {
        "name": name,
        "n_images": n_images,
        "first_s": first,
        "again_s": again,
        "is_equal": equal,
        "reading_ms": reading_ms(sources),
        **common.conditions(),
        "load": common.load_average(),
    }


def _remove_cache(args: argparse.Namespace) -> None:
    for old in args.work.glob("new.h5*"):
        old.unlink()


def tables(records: list[Record]) -> str:
    """Return the tables of the page."""
    parts = []
    for record in records:
        n = record["n_images"]
        files = statistics.median(record["first_s"]["files"])
        rows = []
        for kind, first in record["first_s"].items():
            ms = [1000 * s / n for s in sorted(first)]
            ratios = [one / other for one, other in zip(first, record["first_s"]["files"], strict=True)]
            rows.append(
                (
                    kind,
                    f"{statistics.median(ms):.2f} ({ms[0]:.2f} to {ms[-1]:.2f})",
                    f"{statistics.median(first) / files:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{record['reading_ms'][kind]:.3f}",
                    f"{statistics.median(record['again_s'][kind]):.1f} s",
                    "yes" if record["is_equal"][kind] else "NO",
                )
            )
        headings = [
            "images in",
            "processor ms an image",
            "times files",
            "reading alone, ms",
            "second run",
            "rows equal to the bit",
        ]
        parts.append(
            f"{record['name']}, {n:,} images of 256x256, {len(record['first_s']['files'])} runs of each: median "
            f"(smallest to largest)\n\n{markdown_table(headings, rows)}"
        )
    last = records[-1]
    parts.append(f"{last['date']}, {common.machine_of(last)}; {common.versions_of(last['environment'])}.")
    return "\n\n".join(parts)


def main() -> None:
    """Measure what was asked for, and write the tables."""
    parser = common.parser_for("archives", __doc__)
    common.add_data(parser)
    parser.add_argument("--repeats", type=common.positive, default=2, help="runs of each kind")
    parser.add_argument("--every", type=common.positive, default=3, help="take every so many images of the set")
    help_text = f"which commands to measure again, of {','.join(COMMANDS.values())}; default: all"
    parser.add_argument("--commands", type=common.chosen_from(tuple(COMMANDS.values())), help=help_text)
    args = common.read_arguments(parser)
    if not args.tables_only:
        with common.work_folder(args):
            images = load_images(common.unpack(DATA, args.shared, args.work))
            images = images.at(range(0, len(images), args.every))
            sources = {"files": args.work / "photos"}
            for i, name in enumerate(images.paths):
                (sources["files"] / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(images.file(i), sources["files"] / name)
            for kind, (name, write) in KINDS.items():
                sources[kind] = args.work / name
                write(images, sources[kind])
            known = {record["name"]: record for record in common.read_records(args.json)}
            wanted = args.commands or COMMANDS.values()
            for name in (name for name, command in COMMANDS.items() if command in wanted):
                known[name] = measure(name, sources, len(images), args)
                common.write_records(args.json, [known[name] for name in COMMANDS if name in known])
    common.publish(args, tables(common.read_records(args.json)))


if __name__ == "__main__":
    main()
