"""Whether a cache survives: killed writers, power cuts and damaged files, as many as asked for, as JSON and a table.

    python soak/cache.py                                            # the figures of docs/benchmarks/soak.md
    python soak/cache.py --kills 5 --power-cuts 50 --mutants 100    # a look
    python soak/cache.py --kills 0 --power-cuts 0 --mutants 500 --seed 7

Every case follows from its seed, and the JSON names those that failed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from damage import make_seeds, mutant
from pages import add_places, publish
from power_cuts import Violation, emptied, power_cut
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import Cache, open_cache
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.records import Environment
from tlfeat.text import markdown_table
from tlfeat.workspace import write_json

# --- killed writers -----------------------------------------------------------------------------------------

#: Runs until it is killed; prints how many rows each commit that returned had made permanent.
WRITER = """
import os, sys, time
from pathlib import Path
from tlfeat.cache import store as cache
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.extract.extract import extract_rows
from tlfeat.text import markdown_table
from tlfeat.images.load import load_images

class Slow(PixelEncoder):
    batch_size = int(sys.argv[5])
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


def make_many(folder: Path, n: int) -> Path:
    """Write `n` different pictures of two classes in a tenth of the time that PNG takes, an hour old."""
    rng, then = np.random.default_rng(0), time.time() - 3600
    head = io.BytesIO()
    Image.new("RGB", (8, 8)).save(head, "bmp")
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head.getvalue()[:54] + rng.bytes(8 * 8 * 3))
        os.utime(path, (then, then))
    return folder


def rows_by_path(cache: Cache) -> dict[str, bytes]:
    """Return every image's row."""
    table = cache.table
    rows = cache.read("pixels", table.keys)
    return {path: row.tobytes() for path, row in zip(table.images.paths, rows, strict=True)}


def kill(
    seed: int, photos: Path, work: Path, n_times: int = 1, *, batch_size: int = 4, longest_s: float = 0
) -> Counter[str]:
    """Kill an `extract` at a random moment, `n_times` in a row, and finish it: nothing committed is lost.

    `longest_s` is the longest time until a kill, where a run of few images is no matter of moments.
    """
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    is_compressed = rng.random() < 0.5
    with emptied(work / "kill") as folder:
        path = folder / "c.h5"
        n_acknowledged = 0
        for _ in range(n_times):
            commit_s = rng.choice([0.02, 1] if longest_s else [0, 0, 0.02, 1])
            arguments = [str(photos), str(path), str(commit_s), str(int(is_compressed)), str(batch_size)]
            with subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                writer.stdout.readline()
                said = [writer.stdout.readline() for _ in range(0 if commit_s else rng.randint(0, 6))]
                time.sleep(rng.uniform(0, longest_s or (0.2 if commit_s else 0.03)))
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


def tables(campaigns: dict[str, Any]) -> str:
    """Return what came of all cases."""
    rows = [
        (name, outcome, f"{count:,}")
        for name, found in campaigns.items()
        for outcome, count in found["outcomes"].items()
    ]
    return markdown_table(("campaign", "outcome", "cases"), rows)


def run_all(options: argparse.Namespace, known: dict[str, Any]) -> None:
    """Run the campaigns that are asked for and put their figures among the known ones."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = make_photos(work / "photos", 120)
        seeds = make_seeds(work)
        for name, n, case in (
            ("power cuts", options.power_cuts // 20, lambda seed: power_cut(seed, work)),
            ("kills", options.kills, lambda seed: kill(seed, photos, work)),
            ("mutants", options.mutants, lambda seed: mutant(seed, seeds, work)),
            (
                f"kills among {options.images:,} images",
                options.many,
                lambda seed: kill(
                    seed,
                    make_many(work / "many", options.images),
                    work,
                    5,
                    batch_size=256,
                    longest_s=options.images / 4e3,
                ),
            ),
        ):

            def save(found: dict[str, Any], name: str = name) -> None:
                known["campaigns"][name] = found
                known["environment"] = Environment.current().to_dict()
                write_json(options.json, known)

            campaign(name, n, options.seed, case, save)


def main() -> None:
    """Run the campaigns that are asked for; those left out keep their figures in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--power-cuts", type=int, default=2000)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=4, help="runs among --images that are killed five times each")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    add_places(parser, "soak_cache")
    options = parser.parse_args()
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {"campaigns": {}}
    if not options.tables_only:
        run_all(options, known)
    publish(options, tables(known["campaigns"]))
    if any(found["violations"] for found in known["campaigns"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
