"""The command ``fit-sklearn`` beside a plain scikit-learn script, start to prompt, on the embeddings of real images.

    python benchmarks/search.py --caches a.h5 b.h5          # both parts
    python benchmarks/search.py times --caches a.h5 --rounds 5
    python benchmarks/search.py --tables-only               # the tables of what was measured

times: processes of their own, in turn: the script loads the rows, standardises, fits ``LogisticRegression`` and scores;
the command does so too, and searches, looks for leaks, fits the rejector and saves. Each head has a round of its own.

accuracy: on test images, mean over seeds; where a split is given another is drawn for each seed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

HEADS = ("logreg", "linear-svm", "ridge", "lda", "svm", "knn")

#: What somebody without tlfeat writes. Its arguments: the cache, and the split as an .npz file.
SCRIPT = """
import sys
import h5py, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
split = np.load(sys.argv[2])
with h5py.File(sys.argv[1]) as file:
    x = file["layers/avg_pool/rows"][:]
x, y, is_test = x[split["at"]], split["labels"], split["is_test"]
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(x[~is_test], y[~is_test])
print(model.score(x[is_test], y[is_test]))
"""


# --- times --------------------------------------------------------------------------------------------------


def measure_times(caches: list[Path], heads: list[str], n_rounds: int, save: Callable[[Record], None]) -> None:
    """Run script and command in turn, round by round."""
    with tempfile.TemporaryDirectory(prefix="tlfeat-benchmark-") as work:
        for cache in caches:
            here = Path(work) / cache.name
            shutil.copy(cache, here)
            split = write_split(here)
            for n, head in ((n, head) for n in range(n_rounds) for head in heads):
                script_s, script_cpu_s, _ = timed([sys.executable, "-c", SCRIPT, str(here), str(split)], work)
                words = ["fit-sklearn", "--cache", str(here), "--model", head, "--fresh", "--json", "-q"]
                command_s, cpu_s, output = timed([sys.executable, "-m", "tlfeat", *words], work)
                said = json.loads(output)
                parts = {part: said[part] for part in ("leaks_s", "search_s", "fit_s", "reject_s", "command_s")}
                both = {"script_s": script_s, "script_cpu_s": script_cpu_s, "wall_s": command_s, "cpu_s": cpu_s}
                save({"set": cache.stem, "head": head, "round": n, **both, **parts, "load": common.load_average()})
                common.say(f"{cache.stem} {head}: {command_s:.1f} s, the script {script_s:.1f} s")


def timed(words: list[str], work: str) -> tuple[float, float, str]:
    """Return wall and processor seconds of a process, and what it printed."""
    before, started_s = os.times(), time.perf_counter()
    run = subprocess.run(words, cwd=work, check=True, capture_output=True, text=True)
    wall_s, after = time.perf_counter() - started_s, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, cpu_s, run.stdout


def write_split(cache: Path) -> Path:
    """Write the split of seed 0 for the script."""
    from tlfeat.evaluate.data import open_data

    path = cache.with_suffix(".npz")
    with open_data(cache, seed=0) as data:
        at = data.cache.known("avg_pool")
        split = data.split
        is_test = np.array([role == "test" for role in split.roles])
        np.savez(path, at=np.array([at[key] for key in split.keys]), labels=split.labels, is_test=is_test)
    return path


# --- accuracy -----------------------------------------------------------------------------------------------


def measure_accuracy(caches: list[Path], heads: list[str], n_seeds: int, save: Callable[[Record], None]) -> None:
    """Fit every head with both searches, and the plain script's model."""
    from tlfeat.cache.store import open_cache
    from tlfeat.evaluate.split import make_split
    from tlfeat.heads.fit import fit_head, predict_probabilities

    for cache, seed in ((cache, seed) for cache in caches for seed in range(n_seeds)):
        with open_cache(cache) as opened:
            images = opened.table.images
            table = replace(opened.table, images=replace(images, splits=[""] * len(images.splits)))
            split = make_split(table, seed=seed)
            rows = opened.read("avg_pool", split.keys)
        at, test_at = split.where("train", "val"), split.where("test")
        record: Record = {"set": cache.stem, "seed": seed, "plain": plain_accuracy(rows, split.labels, at, test_at)}
        for head in heads:
            for effort in ("quick", "thorough"):
                fitted = fit_head(head, rows[at], split, at, seed=seed, effort=effort)
                right = predict_probabilities(fitted.head, rows[test_at]).argmax(axis=1) == split.labels[test_at]
                found = {"accuracy": float(right.mean()), "search_s": fitted.search_s, "chosen": fitted.chosen}
                record[f"{head} {effort}"] = found
        save(record)
        common.say(f"{cache.stem}, seed {seed}")


def plain_accuracy(rows: Any, labels: Any, at: Any, test_at: Any) -> float:
    """Return what the script prints."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(rows[at], labels[at])
    return float(model.score(rows[test_at], labels[test_at]))


# --- tables -------------------------------------------------------------------------------------------------


def times_table(runs: list[Record]) -> str:
    """Return medians over rounds, and the median of the ratios within a round."""
    rows = []
    for key in dict.fromkeys((run["set"], run["head"]) for run in runs):
        mine = [run for run in runs if (run["set"], run["head"]) == key]

        def middle(of: Callable[[Record], float], mine: list[Record] = mine) -> str:
            return f"{statistics.median(map(of, mine)):.1f}"

        rows.append(
            (
                *(*key, str(len(mine)), middle(lambda r: r["script_s"]), middle(lambda r: r["wall_s"])),
                *(middle(lambda r: r["leaks_s"]), middle(lambda r: r["search_s"] + r["fit_s"])),
                middle(lambda r: r["wall_s"] / r["script_s"]),
                middle(lambda r: (r["wall_s"] - r["leaks_s"]) / r["script_s"]),
                f"{statistics.median(r['cpu_s'] / r['script_cpu_s'] for r in mine):.1f}",
            )
        )
    headings = ("set", "head", "rounds", "script, s", "command, s", "of it leaks", "of it search and fit")
    return markdown_table((*headings, "ratio", "ratio without leaks", "ratio of processor seconds"), rows)


def accuracy_table(runs: list[Record]) -> str:
    """Return mean accuracies over the seeds."""
    rows = []
    for name in dict.fromkeys(run["set"] for run in runs):
        mine = [run for run in runs if run["set"] == name]
        plain = f"{100 * statistics.mean(run['plain'] for run in mine):.1f} %"
        for head in [key.removesuffix(" quick") for key in mine[0] if key.endswith(" quick")]:
            quick, thorough = ([run[f"{head} {effort}"] for run in mine] for effort in ("quick", "thorough"))
            cells = [f"{100 * statistics.mean(f['accuracy'] for f in found):.1f} %" for found in (quick, thorough)]
            seconds = [f"{statistics.median(f['search_s'] for f in found):.1f}" for found in (quick, thorough)]
            rows.append((name, head, str(len(mine)), *cells, plain, *seconds))
    return markdown_table(("set", "head", "seeds", "quick", "thorough", "script", "quick, s", "thorough, s"), rows)


def tables(document: Record) -> str:
    """Return both parts of docs/benchmarks/search.md."""
    parts = (("Wall seconds, start to prompt", "times", times_table), ("Accuracy", "accuracy", accuracy_table))
    return "\n\n".join(f"## {title}\n\n{show(document[part])}" for title, part, show in parts if document[part])


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("search", __doc__)
    parser.add_argument("parts", nargs="*", choices=["times", "accuracy", []], default=[])
    parser.add_argument("--caches", type=Path, nargs="*", default=[], help="caches with avg_pool")
    parser.add_argument("--heads", type=common.chosen_from(HEADS), default=HEADS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    args = common.read_arguments(parser)
    document = read_json(args.json) if args.json.exists() else {"times": [], "accuracy": []}
    if not args.tables_only:
        document |= common.conditions()
        measures = {"times": (measure_times, args.rounds), "accuracy": (measure_accuracy, args.seeds)}
        for part in args.parts or list(measures):

            def save(run: Record, part: str = part) -> None:
                document[part].append(run)
                write_json(args.json, document)

            measure, n = measures[part]
            measure([path.resolve() for path in args.caches], list(args.heads), n, save)
    common.publish(args, tables(document))


if __name__ == "__main__":
    main()
