"""Heads beside plain scikit-learn calls: fit, search and predict seconds, memory, accuracy; and what the search gains.

    python benchmarks/heads.py                      # both parts; two hours on two cores
    python benchmarks/heads.py speed --sizes 2000   # some minutes
    python benchmarks/heads.py gains                # the sets of TLFEAT_SHARED
    python benchmarks/heads.py --tables-only        # the tables of what was measured

speed: rows like those of a pooled layer (rectified, correlated, of overlapping classes), made from a seed. Every run is
a process of its own; contenders alternate, round by round, and ratios are taken within a round. Seconds are wall
seconds of the call alone, processor seconds beside them; memory is the highest of the process less what it had with the
rows loaded, in sizes of the rows.

gains: the accuracy on test images that chose nothing of the default, of every fixed setting, and of the search.
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

from tlfeat.records import Environment
from tlfeat.workspace import read_json, write_json

RESULT = Path(__file__).parent / "results" / "heads.json"
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
            timeout_s = TIMEOUT_S if n <= 50_000 else 4 * TIMEOUT_S
            for round_ in range(n_rounds if n <= 50_000 else 1):
                for contender, (_, most_rows, most_classes) in CONTENDERS.items():
                    is_grid = "grid" in contender  # hundreds of fits: once is enough
                    if n > most_rows or k > most_classes or (is_grid and round_) or not contender.startswith(only):
                        continue
                    command = [sys.executable, __file__, "--one", contender, "--folder", str(folder)]
                    try:
                        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
                        found = (
                            json.loads(done.stdout.splitlines()[-1])
                            if done.returncode == 0
                            else {"error": done.stderr[-300:]}
                        )
                    except subprocess.TimeoutExpired:
                        found = {"error": f"more than {timeout_s} s"}
                    run = {"n": n, "n_classes": k, "round": round_, "name": contender, **found}
                    print(
                        {
                            key: run.get(key)
                            for key in ("n", "n_classes", "name", "fit_s", "cpu_s", "accuracy", "error")
                        },
                        flush=True,
                    )
                    save(run)


# --- what the search gains ----------------------------------------------------------------------------------


def measure_gains(caches: Sequence[Path], n_seeds: int, save: Callable[[Any], None]) -> None:
    """For each cache and split: accuracy of every fixed setting, of the default and of the search, for each head.

    A cache is made with: tlfeat extract DATA --backbone ... --layer avg_pool --cache FILE
    """
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.blocks import steady_threads
    from tlfeat.heads.family import Problem, Setting
    from tlfeat.heads.fit import fit_head, predict_probabilities
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
            labels, test_labels = split.labels[at], split.labels[test_at]
            n_classes = len(split.classes)

            def marks(head: Any, rows: Any = test_rows, labels: Any = test_labels) -> str:
                right = predict_probabilities(head, rows).argmax(axis=1) == labels
                return "".join("01"[int(hit)] for hit in right)

            for head in HEADS:
                found = fit_head(head.name, rows, split, at, seed=seed)
                default = fit_head(head.name, rows, split, at, seed=seed, is_searched=False)
                run = {
                    "set": path.stem,
                    "seed": seed,
                    "head": head.name,
                    "chosen": found.chosen,
                    "search_s": found.search_s,
                    "searched": marks(found.head),
                    "default": marks(default.head),
                    "fixed": {},
                }
                problem = Problem(rows, labels, n_classes, np.full(len(labels), -1), seed)
                with steady_threads():
                    grid = list(head.family.grid(len(labels)))
                    # of the long paths every fourth value of the middle: a factor of 10
                    for way, values in product(head.family.row_choices, grid[8:33:4] if len(grid) > 18 else grid[::2]):
                        setting = Setting(way, (0, rows.shape[1]), False, values)
                        fitted = head.family.fit(problem, setting)
                        name = f"{way}, " + ", ".join(f"{key} {value:g}" for key, value in values.items())
                        run["fixed"][name] = marks(fitted).count("1") / len(test_labels)
                print(
                    path.stem,
                    seed,
                    head.name,
                    run["default"].count("1") / len(test_labels),
                    run["searched"].count("1") / len(test_labels),
                    found.chosen,
                    flush=True,
                )
                save(run)


# --- tables -------------------------------------------------------------------------------------------------


def speed_tables(runs: Sequence[dict[str, Any]]) -> str:
    lines = []
    for n, k in product(SIZES, N_CLASSES):
        here = [run for run in runs if (run["n"], run["n_classes"]) == (n, k)]
        if not here:
            continue
        n_rounds = max(run["round"] for run in here) + 1
        lines += [
            "",
            f"#### {n:,} rows, {k} classes ({n_rounds} round{'s' * (n_rounds > 1)})",
            "",
            "| | seconds | processor s | predict s | memory / rows | accuracy | chosen |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in CONTENDERS:
            mine = [run for run in here if run["name"] == name]
            done = [run for run in mine if "fit_s" in run]
            if done:
                middle = {
                    key: statistics.median(run[key] for run in done)
                    for key in ("fit_s", "cpu_s", "predict_s", "memory_in_rows", "accuracy")
                }
                said = done[0]["said"]
                chosen = ", ".join(f"{key} {_short(said[key])}" for key in said if key != "n_settings")
                lines.append(
                    f"| {name} | {middle['fit_s']:.3g} | {middle['cpu_s']:.3g} | {middle['predict_s']:.2g} | "
                    f"{middle['memory_in_rows']:.2f} | {100 * middle['accuracy']:.1f} % | {chosen} |"
                )
            elif mine:
                lines.append(f"| {name} | {mine[0]['error'].splitlines()[-1][:60]} | | | | | |")
        lines += ["", "| ratio of seconds | median | lowest | highest |", "|---|---|---|---|"]
        for one, other in RATIOS:
            ratios = [
                _seconds(a) / _seconds(b)
                for a in here
                for b in here
                if a["round"] == b["round"]
                and a["name"] == one
                and b["name"] == other
                and "fit_s" in a
                and "fit_s" in b
            ]
            if ratios:
                lines.append(
                    f"| {one} / {other} | {statistics.median(ratios):.2g} | {min(ratios):.2g} | {max(ratios):.2g} |"
                )
    return "\n".join(lines)


def _seconds(run: dict[str, Any]) -> float:
    """Of the fit; for neighbours, which fit nothing, with the predictions."""
    return float(run["fit_s"] + (run["predict_s"] if run["name"].startswith("knn") else 0))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def gain_tables(runs: Sequence[dict[str, Any]]) -> str:
    from tlfeat.evaluate.intervals import wilson_interval

    sets = list(dict.fromkeys(run["set"] for run in runs))
    lines = []
    for head in dict.fromkeys(run["head"] for run in runs):
        mine = [run for run in runs if run["head"] == head]
        settings = [name for name in mine[0]["fixed"] if all(name in run["fixed"] for run in mine)]
        by_set = {
            name: {s: np.mean([run["fixed"][name] for run in mine if run["set"] == s]) for s in sets}
            for name in settings
        }
        best = max(settings, key=lambda name: np.mean(list(by_set[name].values())))
        lines += [
            "",
            f"#### {head}",
            "",
            f"| | default | best fixed for all sets ({best}) | best fixed of the set, by test images | found | rows |",
            "|---|---|---|---|---|---|",
        ]
        for s in sets:
            here = [run for run in mine if run["set"] == s]
            cells = []
            for key in ("default", "searched"):
                n_right, n = sum(run[key].count("1") for run in here), sum(len(run[key]) for run in here)
                # splits of one set share images: the interval is that of one split
                low, high = wilson_interval(n_right / len(here), n / len(here))
                cells.append(f"{100 * n_right / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
            top = max(settings, key=lambda name: by_set[name][s])
            chosen = "; ".join(dict.fromkeys(run["chosen"]["rows"] for run in here))
            lines.append(
                f"| {s} ({len(here)} split{'s' * (len(here) > 1)}) | {cells[0]} | {100 * by_set[best][s]:.1f} % | "
                f"{100 * by_set[top][s]:.1f} % ({top}) | {cells[1]} | {chosen} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["speed", "gains", []], default=[])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--classes", type=int, nargs="+", default=N_CLASSES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="for speed: contenders whose name starts so")
    parser.add_argument("--caches", type=Path, nargs="*", default=[], help="for gains: caches with avg_pool")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one, arguments.folder)))
        return
    document = read_json(arguments.result) if arguments.result.exists() else {"speed": [], "gains": []}
    parts = arguments.parts or ["speed", "gains"]
    if not arguments.tables_only:
        document["environment"] = Environment.current().to_dict()

        def saver(part: str) -> Callable[[Any], None]:
            def save(run: Any) -> None:
                document[part].append(run)
                write_json(arguments.result, document)

            return save

        if "speed" in parts:
            document["speed"] = [
                run
                for run in document["speed"]
                if run["n"] not in arguments.sizes
                or run["n_classes"] not in arguments.classes
                or not run["name"].startswith(arguments.only)
            ]
            measure_speed(arguments.sizes, arguments.classes, arguments.rounds, arguments.only, saver("speed"))
        if "gains" in parts:
            names = {path.stem for path in arguments.caches}
            document["gains"] = [run for run in document["gains"] if run["set"] not in names]
            measure_gains(arguments.caches, arguments.seeds, saver("gains"))
    if document["speed"]:
        print(speed_tables(document["speed"]))
    if document["gains"]:
        print(gain_tables(document["gains"]))


if __name__ == "__main__":
    main()
