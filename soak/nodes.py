"""Nodes, workers and drivers of a Ray cluster are killed at random times; no row may be lost. Linux.

    python soak/nodes.py              # 10 minutes
    python soak/nodes.py --minutes 60

A cluster of two nodes runs on this machine, and a command embeds pictures that take a while each. One of three things
is killed at random times by SIGKILL: a worker, all processes of a node, or the driver, which is then started again.
What must hold at the end of every try: each picture has one row, equal to the bit to that of one undisturbed process,
and ``cache verify`` finds nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cache import make_photos
from pages import add_places, publish
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.records import Environment
from tlfeat.system import processor_name
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

N_PHOTOS, N_SHARDS, MOST_KILLS = 240, 6, 3

#: The driver, in a process of its own: an encoder that takes its time and writes down which processes are workers.
DRIVER = """
import os, sys, time
from pathlib import Path
import numpy as np
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.extract.cluster import extract_on_cluster
from tlfeat.extract.plan import ExtractionJob, plan_extraction

class Slow(PixelEncoder):
    batch_size = 4
    def __init__(self, pids):
        super().__init__()
        self.pids = pids
    def encode(self, pixels):
        (self.pids / str(os.getpid())).touch()
        time.sleep(0.25)
        return super().encode(pixels)

photos, shards, pids, address, n_shards = sys.argv[1:]
job = plan_extraction(photos, backbone="pixels", cache=shards, is_dealt=True)
job = ExtractionJob(job.images, Slow(Path(pids)), job.origin, job.cache_path)
report = extract_on_cluster(job, address, n_shards=int(n_shards))
print(report.n_deaths, report.n_embedded, report.n_known)
"""

KINDS = ("worker", "node", "driver")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Any]:
    """Give a cluster of a head and a node, one processor each."""
    os.environ |= {"RAY_TMPDIR": str(folder), "TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    import ray.cluster_utils

    started = ray.cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        started.add_node(num_cpus=1, include_dashboard=False)
        yield started
    finally:
        started.shutdown()


def rows_of(cache: Path) -> dict[str, bytes]:
    """Return the rows of a cache by the paths of their images."""
    with open_cache(cache) as opened:
        table = opened.table.without("failed")
        rows = opened.read("pixels", list(table.keys))
        return {path: row.tobytes() for path, row in zip(table.images.paths, rows, strict=True)}


def start(work: Path, address: str) -> subprocess.Popen[str]:
    """Start the driver."""
    words = [str(work / "photos"), str(work / "shards"), str(work / "pids"), address, str(N_SHARDS)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill(kind: str, driver: subprocess.Popen[str], running: Any, work: Path, rng: random.Random) -> bool:
    """Kill something of this kind; whether there was any."""
    if kind == "driver":
        driver.kill()
        driver.wait()
    elif kind == "node":
        running.remove_node(next(iter(running.worker_nodes)), allow_graceful=False)
        running.add_node(num_cpus=1, include_dashboard=False)
    else:
        pids = [int(path.name) for path in (work / "pids").iterdir()]
        rng.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False
    return True


def attempt(kind: str, running: Any, work: Path, expected: dict[str, bytes], rng: random.Random) -> Counter[str]:
    """Embed all, while something is killed up to three times, and look at what is there; the counts of the table."""
    shutil.rmtree(work / "shards", ignore_errors=True)
    shutil.rmtree(work / "pids", ignore_errors=True)
    (work / "pids").mkdir()
    found: Counter[str] = Counter(tries=1)
    driver = start(work, running.address)
    while driver.poll() is None and found["kills"] < MOST_KILLS:
        if not any((work / "pids").iterdir()):
            time.sleep(0.05)
            continue
        time.sleep(rng.uniform(0, 4))
        if driver.poll() is None:
            found["kills"] += kill(kind, driver, running, work, rng)
            for pid in (work / "pids").iterdir():
                pid.unlink()
            if kind == "driver":
                driver = start(work, running.address)
    out, err = driver.communicate(timeout=600)
    if driver.returncode:
        print(err[-2000:], file=sys.stderr)
        found["failed"] += 1
        return found
    n_deaths, n_embedded, n_known = map(int, out.split())
    found["dealt again"] += n_deaths
    found["rows that were there already"] += n_known if kind == "driver" else 0
    found["rows embedded"] += n_embedded
    got = rows_of(work / "shards")
    found["rows lost"] += len(expected.keys() - got.keys())
    found["rows that differ"] += sum(got.get(path, row) != row for path, row in expected.items())
    with open_cache(work / "shards") as joined:
        found["caches not sound"] += bool(joined.verify())
    return found


def tables(record: dict[str, Any]) -> str:
    """Return the table of a record."""
    columns = (*("tries", "kills", "dealt again", "rows lost", "rows that differ"), "caches not sound", "failed")
    rows = [(kind, *(f"{counts.get(name, 0):,}" for name in columns)) for kind, counts in record["kinds"].items()]
    about = (
        f"A cluster of two nodes on one machine ({record['cpu']}), {N_PHOTOS} pictures in {N_SHARDS} shards, "
        f"seed {record['seed']}: `python soak/nodes.py --minutes {record['minutes']:.0f}`."
    )
    return f"{about}\n\n{markdown_table(('killed', *columns), rows)}"


def main(arguments: Sequence[str]) -> int:
    """Kill for a while, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    add_places(parser, "soak_nodes")
    args = parser.parse_args(arguments)
    if args.tables_only:
        publish(args, tables(read_json(args.json)))
        return 0
    rng = random.Random(args.seed)
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    folder = Path(tempfile.mkdtemp(prefix="tln"))
    try:
        with cluster(folder / "r") as running:
            work = folder / "work"
            work.mkdir()
            make_photos(work / "photos", N_PHOTOS)
            extract_rows(load_images(work / "photos"), PixelEncoder(), work / "one" / "one.h5")
            expected = rows_of(work / "one" / "one.h5")
            until_s = time.monotonic() + 60 * args.minutes
            while time.monotonic() < until_s:
                for kind in KINDS:
                    kinds[kind] += attempt(kind, running, work, expected, rng)
                    print(kind, dict(kinds[kind]), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    environment = Environment.current().to_dict()
    write_json(
        args.json,
        {
            "cpu": processor_name(),
            "minutes": args.minutes,
            "seed": args.seed,
            "kinds": kinds,
            "environment": environment,
        },
    )
    publish(args, tables(read_json(args.json)))
    return any(counts[name] for counts in kinds.values() for name in ("failed", "rows lost", "rows that differ"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
