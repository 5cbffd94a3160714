"""Heads beside plain scikit-learn calls: fit, search and predict seconds, memory, accuracy; and what the search gains.

    python benchmarks/heads.py                      # both parts; two hours on two cores
    python benchmarks/heads.py speed --sizes 2000   # some minutes
    python benchmarks/heads.py gains                # the sets of TLFEAT_SHARED
    python benchmarks/heads.py --tables-only        # the tables of what was measured

speed: rows like those of a pooled layer (rectified, correlated, of overlapping classes), made from a seed. Every run is
a process of its own; contenders alternate, round by round, and ratios are taken within a round. Seconds are wall
seconds of the call alone, processor seconds beside them; memory is the highest of the process less what it had with the
rows loaded, in sizes of the rows.

gains: the accuracy on test images of the default, of every fixed setting, and of the search.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

WIDTH = 1280
SIZES = (2_000, 50_000, 500_000)
N_CLASSES = (10, 100)
N_FOLDS = 5
SEED = 0

#: A run that takes longer is stopped and stands in the table as that.
TIMEOUT_S = 180


# --- rows ---------------------------------------------------------------------------------------------------


def make_rows(n: int, n_classes: int, seed: int) -> tuple[Any, Any]:
    """Return rows (n, 1280) and labels; classes and columns are those of `SEED`, images those of `seed`."""
    fixed, rng = np.random.default_rng(SEED), np.random.default_rng([seed, n, n_classes])
    rank = 200
    mixing = fixed.normal(0, 1, (rank, WIDTH)).astype(np.float32)
    mixing *= np.arange(1, rank + 1, dtype=np.float32)[:, None] ** -0.5
    centres = fixed.normal(0, 0.28, (n_classes, rank)).astype(np.float32)
    labels = rng.integers(0, n_classes, n)
    rows = np.empty((n, WIDTH), np.float32)
    for start in range(0, n, 10_000):
        some = labels[start : start + 10_000]
        hidden = centres[some] + rng.standard_normal((len(some), rank), dtype=np.float32)
        block = hidden @ mixing + 0.5 * rng.standard_normal((len(some), WIDTH), dtype=np.float32)
        rows[start : start + 10_000] = np.maximum(block, 0)
    return rows, labels


# --- contenders: each returns (fit seconds, predictions of the test rows, predict seconds, what else to say) ---


def plain(make: Callable[[], Any]) -> Callable[..., Any]:
    """A scikit-learn estimator as a user would call it."""

    def run(x: Any, y: Any, x_test: Any) -> tuple[float, Any, float, dict[str, Any]]:
        estimator = make()
        started_s = time.perf_counter()
        estimator.fit(x, y)
        fitted_s = time.perf_counter()
        predicted = estimator.predict(x_test)
        return fitted_s - started_s, predicted, time.perf_counter() - fitted_s, {}

    return run


def scaled(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def logistic(**options: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000, **options)


def grid_search() -> Any:
    from sklearn.model_selection import GridSearchCV

    from tlfeat.heads.table import C_PATH

    return GridSearchCV(scaled(logistic()), {"logisticregression__C": C_PATH}, cv=N_FOLDS)


def linear_svc() -> Any:
    from sklearn.svm import LinearSVC

    return scaled(LinearSVC(C=0.001))


def svc() -> Any:
    from sklearn.svm import SVC

    return scaled(SVC(C=10.0))


def svc_search() -> Any:
    from sklearn.model_selection import GridSearchCV

    grid = {"svc__C": (1.0, 10.0, 100.0), "svc__gamma": [g / WIDTH for g in (0.25, 1.0, 4.0)]}
    return GridSearchCV(svc(), grid, cv=N_FOLDS)


def ridge() -> Any:
    from sklearn.linear_model import RidgeClassifier

    return scaled(RidgeClassifier(alpha=1000.0))


def discriminant() -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return scaled(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1))


def neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(10, metric="cosine", weights="distance")


def ours(name: str, *, search: str) -> Callable[..., Any]:
    """A head of tlfeat: its fit alone, the search of one way of taking the rows, or the whole search."""

    def run(x: Any, y: Any, x_test: Any) -> tuple[float, Any, float, dict[str, Any]]:
        from tlfeat.heads.blocks import steady_threads
        from tlfeat.heads.family import Problem, Setting
        from tlfeat.heads.fit import predict_probabilities
        from tlfeat.heads.search import hold_out
        from tlfeat.heads.search import search as search_all
        from tlfeat.heads.table import find_head

        head = find_head(name)
        n_classes = int(y.max()) + 1
        problem = Problem(x, y, n_classes, np.random.default_rng(SEED).permutation(len(y)) % N_FOLDS, SEED)
        setting = Setting(head.rows, (0, x.shape[1]), False, head.default)
        start, said = None, {}
        started_s = time.perf_counter()
        with steady_threads():
            if search == "one way":
                found = hold_out(problem, head.family, setting, head.family.grid(len(y) * 4 // 5))
            elif search == "whole":
                found = search_all(problem, head.family, [(0, x.shape[1])])
            if search != "none":
                setting, start = found.setting, found.start
                said = {"n_settings": found.n_settings, "rows": setting.rows, **setting.values}
            fitted = head.family.fit(problem, setting, start)
        fitted_s = time.perf_counter()
        predicted = predict_probabilities(fitted, x_test).argmax(axis=1)
        return fitted_s - started_s, predicted, time.perf_counter() - fitted_s, said

    return run


#: Name to (contender, largest number of rows and of classes that it is run on).
CONTENDERS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "logreg: scikit-learn, raw rows": (plain(lambda: logistic(C=0.01)), 50_000, 10),
    "logreg: scikit-learn, standardised": (plain(lambda: scaled(logistic(C=0.01))), 50_000, 100),
    "logreg: tlfeat, the same setting": (ours("logreg", search="none"), 500_000, 100),
    "logreg: scikit-learn, grid of 45 C": (plain(grid_search), 2_000, 10),
    "logreg: tlfeat, 45 C, 5 folds": (ours("logreg", search="one way"), 500_000, 10),
    "logreg: tlfeat, whole search": (ours("logreg", search="whole"), 500_000, 10),
    "linear-svm: scikit-learn LinearSVC": (plain(linear_svc), 50_000, 10),
    "linear-svm: tlfeat, the same setting": (ours("linear-svm", search="none"), 500_000, 100),
    "linear-svm: tlfeat, whole search": (ours("linear-svm", search="whole"), 50_000, 10),
    "ridge: scikit-learn": (plain(ridge), 500_000, 100),
    "ridge: tlfeat, the same setting": (ours("ridge", search="none"), 500_000, 100),
    "ridge: tlfeat, whole search": (ours("ridge", search="whole"), 50_000, 10),
    "lda: scikit-learn": (plain(discriminant), 50_000, 100),
    "lda: tlfeat, the same setting": (ours("lda", search="none"), 500_000, 100),
    "lda: tlfeat, whole search": (ours("lda", search="whole"), 50_000, 10),
    "knn: scikit-learn": (plain(neighbours), 50_000, 10),
    "knn: tlfeat, k and T given": (ours("knn", search="none"), 50_000, 10),
    "knn: tlfeat, whole search": (ours("knn", search="whole"), 50_000, 10),
    "svm: scikit-learn": (plain(svc), 2_000, 100),
    "svm: tlfeat, the same setting": (ours("svm", search="none"), 2_000, 100),
    "svm: scikit-learn, grid of 9": (plain(svc_search), 2_000, 10),
    "svm: tlfeat, whole search": (ours("svm", search="whole"), 2_000, 100),
}

#: Ratios that the table gives: of the first contender's seconds to the second's.
RATIOS = (
    ("logreg: scikit-learn, standardised", "logreg: tlfeat, the same setting"),
    ("logreg: scikit-learn, raw rows", "logreg: tlfeat, the same setting"),
    ("logreg: tlfeat, 45 C, 5 folds", "logreg: scikit-learn, standardised"),
    ("logreg: tlfeat, whole search", "logreg: scikit-learn, standardised"),
    ("logreg: scikit-learn, grid of 45 C", "logreg: tlfeat, 45 C, 5 folds"),
    ("linear-svm: scikit-learn LinearSVC", "linear-svm: tlfeat, the same setting"),
    ("linear-svm: tlfeat, the same setting", "logreg: tlfeat, the same setting"),
    ("ridge: scikit-learn", "ridge: tlfeat, the same setting"),
    ("lda: scikit-learn", "lda: tlfeat, the same setting"),
    ("knn: scikit-learn", "knn: tlfeat, k and T given"),
    ("svm: scikit-learn", "svm: tlfeat, the same setting"),
    ("svm: scikit-learn, grid of 9", "svm: tlfeat, whole search"),
)


def run_one(name: str, folder: Path) -> dict[str, Any]:
    """Run one contender in this process on the rows in `folder`."""
    # what is imported late is no part of the call
    import scipy.optimize  # noqa: F401
    import sklearn.linear_model
    import sklearn.model_selection
    import sklearn.svm  # noqa: F401

    x, y = np.load(folder / "rows.npy"), np.load(folder / "labels.npy")
    x_test, y_test = np.load(folder / "test_rows.npy"), np.load(folder / "test_labels.npy")
    before = _memory("VmRSS")
    cpu_s = time.process_time()
    fit_s, predicted, predict_s, said = CONTENDERS[name][0](x, y, x_test)
    cpu_s = time.process_time() - cpu_s
    return {
        "fit_s": fit_s,
        "cpu_s": cpu_s,
        "predict_s": predict_s,
        "memory_in_rows": max(0.0, (_memory("VmHWM") - before) / x.nbytes),
        "accuracy": float(np.mean(predicted == y_test)),
        "said": said,
    }


def _memory(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def measure_speed(
    sizes: Sequence[int], n_classes: Sequence[int], n_rounds: int, only: str, save: Callable[[Any], None]
) -> None:
    """Run all contenders whose name starts with `only` in alternation; `save` takes each run."""
    for n, k in product(sizes, n_classes):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            folder = Path(name)
            for prefix, count, seed in (("", n, 1), ("test_", min(max(n // 5, 5_000), 20_000), 2)):
                rows, labels = make_rows(count, k, seed)
                np.save(folder / f"{prefix}rows.npy", rows)
                np.save(folder / f"{prefix}labels.npy", labels)
                del rows
            for round_ in range(n_rounds if n <= 50_000 else 1):
                for contender, (_, most_rows, most_classes) in CONTENDERS.items():
                    is_grid = "grid" in contender  # hundreds of fits: once is enough
                    if n > most_rows or k > most_classes or (is_grid and round_) or not contender.startswith(only):
                        continue
                    found = run_in_child(contender, folder, TIMEOUT_S if n <= 50_000 else 4 * TIMEOUT_S)
                    run = {"n": n, "n_classes": k, "round": round_, "name": contender, **found}
                    told = ("n", "n_classes", "name", "fit_s", "cpu_s", "accuracy", "error")
                    print({key: run.get(key) for key in told}, flush=True)
                    save(run)


def run_in_child(contender: str, folder: Path, timeout_s: float) -> dict[str, Any]:
    """Run one contender in a process of its own and return what it measured, or how it failed."""
    command = [sys.executable, __file__, "--one", contender, "--folder", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {timeout_s} s"}
    if done.returncode:
        return {"error": done.stderr[-300:]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- what the search gains ----------------------------------------------------------------------------------


def measure_gains(caches: Sequence[Path], n_seeds: int, save: Callable[[Any], None]) -> None:
    """For each cache and split: accuracy of every fixed setting, of the default and of the search, for each head.

    A cache is made with: tlfeat extract DATA --backbone ... --layer avg_pool --cache FILE
    """
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.table import HEADS

    for path in caches:
        for seed in range(n_seeds):
            with open_data(path, seed=seed) as data:
                split = data.split
                if seed and split.info.origin == "given":
                    break  # the same test images: no new split
                at, test_at = split.where("train", "val"), split.where("test")
                rows = data.cache.read("avg_pool", [split.keys[i] for i in at])
                test_rows = data.cache.read("avg_pool", [split.keys[i] for i in test_at])
            for head in HEADS:
                found = gain(head, rows, split, at, test_rows, split.labels[test_at], seed)
                run = {"set": path.stem, "seed": seed, "head": head.name, **found}
                shares = [run[key].count("1") / len(test_at) for key in ("default", "searched")]
                print(path.stem, seed, head.name, *shares, run["chosen"], flush=True)
                save(run)


def gain(head: Any, rows: Any, split: Any, at: Any, test_rows: Any, test_labels: Any, seed: int) -> dict[str, Any]:
    """Return what one head gets right ("1") of the test images by default, searched, and with each fixed setting."""
    from tlfeat.heads.blocks import steady_threads
    from tlfeat.heads.family import Problem, Setting
    from tlfeat.heads.fit import fit_head, predict_probabilities

    def marks(fitted: Any) -> str:
        right = predict_probabilities(fitted, test_rows).argmax(axis=1) == test_labels
        return "".join("01"[int(hit)] for hit in right)

    labels = split.labels[at]
    found = fit_head(head.name, rows, split, at, seed=seed)
    default = fit_head(head.name, rows, split, at, seed=seed, is_searched=False)
    fixed = {}
    problem = Problem(rows, labels, len(split.classes), np.full(len(labels), -1), seed)
    with steady_threads():
        grid = list(head.family.grid(len(labels)))
        # of the long paths every fourth value of the middle: a factor of 10
        for way, values in product(head.family.row_choices, grid[8:33:4] if len(grid) > 18 else grid[::2]):
            fitted = head.family.fit(problem, Setting(way, (0, rows.shape[1]), False, values))
            name = f"{way}, " + ", ".join(f"{key} {value:g}" for key, value in values.items())
            fixed[name] = marks(fitted).count("1") / len(test_labels)
    return {
        "chosen": found.chosen,
        "search_s": found.search_s,
        "searched": marks(found.head),
        "default": marks(default.head),
        "fixed": fixed,
    }


# --- tables -------------------------------------------------------------------------------------------------


def speed_tables(runs: Sequence[Record]) -> str:
    """Return the contenders and the ratios of their seconds, a column for each number of rows and classes."""
    here = {
        (n, k): [run for run in runs if (run["n"], run["n_classes"]) == (n, k)]
        for n, k in product(SIZES, N_CLASSES)
        if any((run["n"], run["n_classes"]) == (n, k) for run in runs)
    }
    headings = []
    for (n, k), of in here.items():
        n_rounds = max(run["round"] for run in of) + 1
        headings.append(f"{n:,} rows, {k} classes, {n_rounds} round{'s' * (n_rounds > 1)}")
    contenders = [(name, *(contender_cell(of, name) for of in here.values())) for name in CONTENDERS]
    ratios = [(f"{one} / {other}", *(ratio_cell(of, one, other) for of in here.values())) for one, other in RATIOS]
    return "\n\n".join(
        [
            markdown_table(("seconds, memory over rows, accuracy", *headings), contenders),
            markdown_table(("ratio of seconds within a round", *headings), ratios),
        ]
    )


def contender_cell(runs: Sequence[Record], name: str) -> str:
    """Return the medians of one contender, or how it failed."""
    mine = [run for run in runs if run["name"] == name]
    done = [run for run in mine if "fit_s" in run]
    if not done:
        return mine[0]["error"].splitlines()[-1][:60] if mine else "–"
    seconds, memory, accuracy = (
        statistics.median(values)
        for values in ([_seconds(r) for r in done], *([r[k] for r in done] for k in ("memory_in_rows", "accuracy")))
    )
    return f"{seconds:.3g} s, {memory:.1f}, {100 * accuracy:.1f} %"


def ratio_cell(runs: Sequence[Record], one: str, other: str) -> str:
    """Return median and range of a ratio over the rounds that have both contenders."""
    seconds = {(run["round"], run["name"]): _seconds(run) for run in runs if "fit_s" in run}
    rounds = sorted({run["round"] for run in runs})
    found = [seconds[n, one] / seconds[n, other] for n in rounds if (n, one) in seconds and (n, other) in seconds]
    if not found:
        return "–"
    three = (statistics.median(found), min(found), max(found))
    middle, low, high = (f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in three)
    return f"{middle} ({low} to {high})"


def _seconds(run: Record) -> float:
    """Of the fit; for neighbours, which fit nothing, with the predictions."""
    return float(run["fit_s"] + (run["predict_s"] if run["name"].startswith("knn") else 0))


def gain_tables(runs: Sequence[Record]) -> str:
    """Return for each head and set the accuracy of the default, of the search and of the best fixed settings."""
    rows = []
    for head in dict.fromkeys(run["head"] for run in runs):
        rows += gain_rows(head, [run for run in runs if run["head"] == head])
    headings = ("head", "set (splits)", "default", "search", "rows it chose", "best fixed setting for all sets")
    return markdown_table((*headings, "best fixed setting for this set"), rows)


def gain_rows(head: str, runs: Sequence[Record]) -> list[tuple[str, ...]]:
    """Return those of one head."""
    sets = list(dict.fromkeys(run["set"] for run in runs))
    settings = [name for name in runs[0]["fixed"] if all(name in run["fixed"] for run in runs)]
    by_set = {
        name: {s: np.mean([run["fixed"][name] for run in runs if run["set"] == s]) for s in sets} for name in settings
    }
    best = max(settings, key=lambda name: np.mean(list(by_set[name].values())))
    rows = []
    for s in sets:
        here = [run for run in runs if run["set"] == s]
        top = max(settings, key=lambda name: by_set[name][s])
        rows.append(
            (
                *(head, f"{s} ({len(here)})", _with_interval(here, "default"), _with_interval(here, "searched")),
                "; ".join(dict.fromkeys(run["chosen"]["rows"] for run in here)),
                f"{100 * by_set[best][s]:.1f} %" + (f" ({best})" if s == sets[0] else ""),
                f"{100 * by_set[top][s]:.1f} %",
            )
        )
    return rows


def _with_interval(runs: Sequence[Record], key: str) -> str:
    """Return the share right over all splits; splits of one set share images: the interval is that of one split."""
    from tlfeat.evaluate.intervals import wilson_interval

    n_right, n = sum(run[key].count("1") for run in runs), sum(len(run[key]) for run in runs)
    low, high = wilson_interval(n_right / len(runs), n / len(runs))
    return f"{100 * n_right / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def tables(document: Record) -> str:
    """Return both parts of docs/benchmarks/heads.md."""
    parts = (("What the search gains", "gains", gain_tables), ("Seconds, memory and quality", "speed", speed_tables))
    return "\n\n".join(f"## {title}\n\n{show(document[part])}" for title, part, show in parts if document[part])


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("heads", __doc__)
    parser.add_argument("parts", nargs="*", choices=["speed", "gains", []], default=[])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--classes", type=int, nargs="+", default=N_CLASSES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="for speed: contenders whose name starts so")
    parser.add_argument("--caches", type=Path, nargs="*", default=[], help="for gains: caches with avg_pool")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--result", type=Path, dest="json", help="the same as --json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = common.read_arguments(parser)
    if args.one:
        print(json.dumps(run_one(args.one, args.folder)))
        return
    document = read_json(args.json) if args.json.exists() else {"speed": [], "gains": []}
    if not args.tables_only:
        measure(document, args)
    text = tables(document)
    common.publish(args, text)


def measure(document: Record, args: argparse.Namespace) -> None:
    """Run the parts asked for; their runs take the place of earlier ones of the same kind."""
    document |= common.conditions()
    parts = args.parts or ["speed", "gains"]

    def saver(part: str) -> Callable[[Any], None]:
        def save(run: Any) -> None:
            document[part].append(run)
            write_json(args.json, document)

        return save

    if "speed" in parts:
        document["speed"] = [
            run
            for run in document["speed"]
            if run["n"] not in args.sizes
            or run["n_classes"] not in args.classes
            or not run["name"].startswith(args.only)
        ]
        measure_speed(args.sizes, args.classes, args.rounds, args.only, saver("speed"))
    if "gains" in parts:
        names = {path.stem for path in args.caches}
        document["gains"] = [run for run in document["gains"] if run["set"] not in names]
        measure_gains(args.caches, args.seeds, saver("gains"))


if __name__ == "__main__":
    main()
