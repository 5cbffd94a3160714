"""Labelling with the head in the loop: labels to a wanted accuracy, the estimate from random pictures, and times.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/label.py                                   # everything; 40 minutes on two cores
    python benchmarks/label.py --parts labels --sets cats_dogs   # one part of it; the others keep their figures
    python benchmarks/label.py --parts labels --rules tlfeat     # so do the other rules
    python benchmarks/label.py --tables-only                     # the tables from the JSON, runs nothing

Answers are simulated: they are the labels of the sets. Each seed draws other test pictures, another order and another
reserve. Parts: `penalty`, accuracy of heads of few random labels; `spread`, of those that also learn from what these
labels spread to; `labels`, how many each rule needs; `estimate`, how
often its intervals hold the truth, and what stops too early; `speed`, processor time of a refit and of a choice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import common
import label_rules
from common import Record
from label_rules import RULES, Pictures, draw, is_of_reserve, label
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads import learner
from tlfeat.heads.blocks import MAPPINGS
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.images.load import load_images
from tlfeat.labelling.choose import OPEN, choose
from tlfeat.labelling.estimate import Estimate, estimate
from tlfeat.text import markdown_table

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
CIFAR_PER_CLASS = 500
#: So many pictures of a set are drawn at most.
MOST_PICTURES = 3_000
PARTS = ("penalty", "spread", "labels", "estimate", "speed")

#: Shares of the accuracy of all labels that are waited for, and the labels after which nobody waits any longer.
LEVELS, MOST = (0.90, 0.95), 600
#: Held out in `labels` and `penalty`; in `estimate` more, so that the truth is known better.
HELD_OUT, HELD_OUT_FOR_TRUTH = 0.3, 0.6
#: Labels at which the estimate is compared with the truth.
LOOKS = (50, 100, 200, 300)
UNTIL = (0.70, 0.80, 0.85, 0.90, 0.925, 0.95)
FEW = (10, 20, 50, 100, 200, 400)
PENALTIES = {"length 1": (10.0, 100.0, 1000.0), "standardised": (0.001, 0.01, 0.1)}
AIMS = {"ratio": 0.6, "worst": 1.1, "coverage": (0.93, 0.97)}

Save = Callable[[str, Record], None]


# --- rows ---------------------------------------------------------------------------------------------------


def rows_of(name: str, backbone: str, args: argparse.Namespace) -> Path:
    """Embed a set, and return the file of its rows, labels, groups and names."""
    found = args.work / f"{name}-{backbone}.npz"
    if not found.exists():
        source = common.unpack(name, args.shared, args.work)
        if name == "cifar10":
            source, _ = common.write_sample(load_images(source), CIFAR_PER_CLASS, args.work / "cifar10-sample")
        cache = args.work / f"{name}-{backbone}.h5"
        with common.stage(f"embedding {name} by {common.BACKBONES[backbone]}"):
            plan_extraction(source, cache=cache, **common.backbone_options(backbone, args.shared)).run(known_in=())
        with open_data(cache, seed=0) as data:
            np.savez(found, **label_rules.read_set(data))
    return found


def pictures_of(file: Path, seed: int, held_out: float) -> Pictures:
    with np.load(file) as found:
        return draw(dict(found), seed, held_out, MOST_PICTURES)


def each_seed(work: Callable[[int], Any], args: argparse.Namespace, *, most: int | None = None) -> list[Any]:
    """Return what `work` returns for every seed, in processes of one thread."""
    with ProcessPoolExecutor(args.processes, get_context("spawn"), _one_thread) as pool:
        return list(pool.map(work, range(min(args.seeds, most or args.seeds))))


def _one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


# --- penalty ------------------------------------------------------------------------------------------------


def penalty_of(seed: int, file: Path) -> dict[str, list[float]]:
    """Return the accuracy at each number of random labels, for scalings and penalties."""
    from sklearn.linear_model import LogisticRegression

    pictures = pictures_of(file, seed, HELD_OUT)
    mean, spread = pictures.rows.mean(axis=0), pictures.rows.std(axis=0)
    scaled = {
        "length 1": MAPPINGS["l2"],
        "standardised": lambda rows: (rows - mean) / np.where(spread > 1e-6, spread, 1),
    }
    found = {}
    for scaling, penalties in PENALTIES.items():
        rows, test_rows = scaled[scaling](pictures.rows), scaled[scaling](pictures.test_rows)
        for c in penalties:
            heads = [LogisticRegression(C=c, max_iter=1000).fit(rows[:n], pictures.labels[:n]) for n in FEW]
            found[f"{scaling}, C = {c:g}"] = [float(head.score(test_rows, pictures.test_labels)) for head in heads]
    return found


def measure_penalty(file: Path, args: argparse.Namespace) -> Record:
    """Average accuracies over the seeds; five are enough."""
    found = each_seed(partial(penalty_of, file=file), args, most=5)
    return {
        "seeds": len(found),
        "accuracy": {way: np.mean([one[way] for one in found], axis=0).tolist() for way in found[0]},
    }


# --- spread -------------------------------------------------------------------------------------------------


def spread_of(seed: int, file: Path) -> dict[str, list[list[float]]]:
    """Return the accuracy and the log loss at each number of random labels, of the labels alone and as they spread."""
    pictures = pictures_of(file, seed, HELD_OUT)
    graph, k = Graph(pictures.rows), pictures.n_classes
    found: dict[str, list[list[float]]] = {"labels alone": [], "labels spread": []}
    for n in FEW:
        places, labels = np.arange(n), pictures.labels[:n]
        heads = learner.fit(pictures.rows[:n], labels, k), fit_spread(graph, places, labels, k)
        for line, head in zip(found.values(), heads, strict=True):
            chances = head.probabilities(pictures.test_rows)[np.arange(len(pictures.test_labels)), pictures.test_labels]
            line.append([pictures.accuracy(head), float(-np.log(np.maximum(chances, 1e-6)).mean())])
    return found


def measure_spread(file: Path, args: argparse.Namespace) -> Record:
    """Average over the seeds, with the standard error of the difference of the accuracies."""
    found = each_seed(partial(spread_of, file=file), args)
    means = {way: np.mean([one[way] for one in found], axis=0).tolist() for way in found[0]}
    gains = np.array([np.subtract(one["labels spread"], one["labels alone"])[:, 0] for one in found])
    return {"means": means, "error": (gains.std(axis=0, ddof=1) / np.sqrt(len(gains))).tolist()}


# --- labels -------------------------------------------------------------------------------------------------


def reached(numbers: Sequence[int], accuracies: Sequence[float], level: float) -> float | None:
    """Return the labels at which the line through the accuracies first comes to a level that the next head has, too."""
    for i, n in enumerate(numbers[:-1]):
        if min(accuracies[i : i + 2]) >= level:
            if not i or accuracies[i - 1] >= level:
                return n
            share = (level - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            return numbers[i - 1] + share * (n - numbers[i - 1])
    return None


def labels_of(seed: int, file: Path, rules: Sequence[str]) -> Record:
    """Return how many labels each rule needs to each level."""
    pictures = pictures_of(file, seed, HELD_OUT)
    of_all = pictures.accuracy(learner.fit(pictures.rows, pictures.labels, pictures.n_classes))
    needed = {}
    for name in rules:
        numbers, accuracies = list[int](), list[float]()
        for asked, head in label(pictures, name, MOST, seed=seed):
            numbers.append(len(asked))
            accuracies.append(pictures.accuracy(head))
            if min(accuracies[-2:]) >= LEVELS[-1] * of_all and len(accuracies) > 1:
                break
        needed[name] = [reached(numbers, accuracies, level * of_all) for level in LEVELS]
    return {"of_all": of_all, "n": len(pictures.labels), "needed": needed}


def measure_labels(file: Path, args: argparse.Namespace) -> Record:
    """Label by each of the rules that are asked for, with every seed."""
    found = each_seed(partial(labels_of, file=file, rules=args.rules), args)
    return {
        "n": found[0]["n"],
        "of_all": statistics.mean(one["of_all"] for one in found),
        "needed": {name: [one["needed"][name] for one in found] for name in args.rules},
    }


# --- the estimate -------------------------------------------------------------------------------------------


def estimates_of(seed: int, file: Path) -> Record:
    """Label as tlfeat does and compare each estimate with the accuracy on the pictures held out."""
    pictures = pictures_of(file, seed, HELD_OUT_FOR_TRUTH)
    line = list[tuple[int, Estimate, float]]()
    before, only_chosen = None, {}
    graph = Graph(pictures.rows)
    for asked, head in label(pictures, "tlfeat", LOOKS[-1], seed=seed, batch=5):
        labels = pictures.labels[asked]
        is_random, is_look = is_of_reserve(asked, pictures), len(asked) in LOOKS
        before = estimate(graph, asked, labels, is_random, pictures.n_classes, before=before, has_doubling=is_look)
        if before is not None:
            line.append((len(asked), before, pictures.accuracy(head)))
        if is_look:
            simple = fit_spread(graph, asked[~is_random], labels[~is_random], pictures.n_classes)
            right = simple.scores(pictures.rows[asked[is_random]]).argmax(axis=1) == labels[is_random]
            only_chosen[len(asked)] = int(right.sum()), pictures.accuracy(simple)
    truth = {n: accuracy for n, _, accuracy in line}
    looks = [[n, one.n, one.right, *one.interval, accuracy, *only_chosen[n]] for n, one, accuracy in line if n in LOOKS]
    doubling = [
        [n, one.doubling, *one.doubling_interval, truth[2 * n] - accuracy]
        for n, one, accuracy in line
        if one.doubling_interval is not None and 2 * n in truth
    ]
    stops = {name: [stop_of(line, until, rule) for until in UNTIL] for name, rule in STOPS.items()}
    return {"looks": looks, "doubling": doubling, "stops": stops}


def stop_of(line: list[tuple[int, Estimate, float]], until: float, rule: Callable[..., bool]) -> list[float] | None:
    """Return the labels and the accuracy at which a rule first stops, None where it does not."""
    for i, (n, one, accuracy) in enumerate(line):
        if rule(one, line[i - 1][1] if i else None, until):
            return [n, accuracy]
    return None


def _low(one: Estimate | None, z: float) -> float:
    """Return the lower end of Wilson's interval for another quantile."""
    if one is None:
        return 0.0
    p, n = one.accuracy, one.n
    return float((p + z * z / (2 * n) - z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)) / (1 + z * z / n))


#: When `--until` might stop: the present interval and the one before, and the share that is wanted.
STOPS: dict[str, Callable[[Estimate, Estimate | None, float], bool]] = {
    "95 % interval, once": lambda now, before, until: now.interval[0] >= until,
    "95 % interval, twice in a row": lambda now, before, until: min(_low(now, 1.96), _low(before, 1.96)) >= until,
    "99 % interval, once": lambda now, before, until: _low(now, 2.576) >= until,
    "99.9 % interval, once": lambda now, before, until: _low(now, 3.291) >= until,
}


def measure_estimate(file: Path, args: argparse.Namespace) -> Record:
    """Collect the looks, the forecasts and the stops of every seed."""
    found = each_seed(partial(estimates_of, file=file), args)
    joined: Record = {what: [row for one in found for row in one[what]] for what in ("looks", "doubling")}
    return joined | {"stops": {name: [one["stops"][name] for one in found] for name in STOPS}}


# --- speed --------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Return the median seconds of the clock and of the processor."""
    wall_s, cpu_s = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        wall_s.append(time.perf_counter() - started[0])
        cpu_s.append(time.process_time() - started[1])
    return [statistics.median(wall_s), statistics.median(cpu_s)]


def measure_speed(file: Path, args: argparse.Namespace) -> Record:
    """Time a refit, a choice and an estimate at 1,000 and 10,000 labels, in a pool of 20,000 rows of 10 classes."""
    with np.load(file) as found:
        rows, labels = found["rows"], found["labels"]
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(rows), 20_000)  # rows that are there more than once are moved a little
    pool = rows[places] + 0.3 * rows.std(axis=0) * rng.standard_normal((20_000, rows.shape[1]), np.float32)
    of_pool, k = labels[places], int(labels.max()) + 1
    graph, times = Graph(pool), dict[str, dict[str, list[float]]]()
    for n in (1_000, 10_000):
        known = np.where(np.arange(20_000) < n, of_pool, OPEN)
        places, fewer = np.arange(n), np.arange(n - 5)
        start = fit_spread(graph, fewer, of_pool[: n - 5], k)
        is_random = places % 5 == 4
        before = estimate(graph, fewer, of_pool[: n - 5], is_random[: n - 5], k)
        chances = start.probabilities(pool)
        works: dict[str, Callable[[], Any]] = {
            "refit after five more answers": partial(fit_spread, graph, places, of_pool[:n], k, start=start),
            "first fit (a second run)": partial(fit_spread, graph, places, of_pool[:n], k),
            "probabilities of the pool": partial(start.probabilities, pool),
            "choice of five": partial(choose, pool, known, chances, 5, n_classes=k),
            "estimate after five more answers": partial(
                estimate, graph, places, of_pool[:n], is_random, k, before=before
            ),
        }
        times[str(n)] = {what: timed(work, 5) for what, work in works.items()}
    nothing = np.full(20_000, OPEN)
    times["0"] = {
        "graph of the pool": timed(partial(Graph, pool), 5),
        "choice of five": timed(partial(choose, pool, nothing, None, 5, n_classes=k), 5),
    }
    return {"shape": list(pool.shape), "n_classes": k, "times": times}


def with_earlier(record: Record, records: list[Record]) -> Record:
    """Return a record of `labels` with the rules that were measured before, with as many seeds, and not again now."""
    same = [one for one in records if all(one[what] == record[what] for what in ("part", "name", "seeds"))]
    known = {rule: needed for one in [*same, record] for rule, needed in one["needed"].items()}
    return record | {"needed": {rule: known[rule] for rule in RULES if rule in known}}


MEASURE = {
    "penalty": measure_penalty,
    "spread": measure_spread,
    "labels": measure_labels,
    "estimate": measure_estimate,
    "speed": measure_speed,
}


# --- tables -------------------------------------------------------------------------------------------------


def ratio_interval(ours: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of means with its 95 % interval, by a bootstrap over seeds."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(ours), (2000, len(ours)))
    ratios = np.asarray(ours)[draws].mean(axis=1) / np.asarray(base)[draws].mean(axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return statistics.mean(ours) / statistics.mean(base), float(low), float(high)


def needed(record: Record, rule: str, level: int) -> list[float]:
    """Return the labels that a rule needed with each seed; `MOST` where it did not get there."""
    return [one[level] or MOST for one in record["needed"][rule]]


def penalty_table(records: list[Record]) -> str:
    ways = list(records[0]["accuracy"])
    mean = {way: np.mean([record["accuracy"][way] for record in records], axis=0) for way in ways}
    rows = [(way, *(f"{100 * accuracy:.1f} %" for accuracy in mean[way])) for way in ways]
    return markdown_table(["rows and penalty", *(f"{n} labels" for n in FEW)], rows)


def spread_table(records: list[Record]) -> str:
    """Return accuracies with and without what labels spread to, what that brings, and the log losses."""
    rows = []
    for record in records:
        alone, spread = (np.array(record["means"][way]) for way in ("labels alone", "labels spread"))
        gains = zip(alone, spread, record["error"], strict=True)
        cells = [
            f"{100 * a[0]:.1f} → {100 * b[0]:.1f} % ({100 * (b - a)[0]:+.1f} ± {196 * e:.1f})" for a, b, e in gains
        ]
        rows.append((record["name"], "accuracy", *cells))
        rows.append(("", "log loss", *(f"{a[1]:.2f} → {b[1]:.2f}" for a, b in zip(alone, spread, strict=True))))
    return markdown_table(["set and network", "", *(f"{n} labels" for n in FEW)], rows)


def labels_table(records: list[Record]) -> str:
    """Return the mean number of labels of every rule, and the ratio to random, for each set and over all."""
    parts = []
    for level, share in enumerate(LEVELS):
        rules = list(records[0]["needed"])
        rows, ratios = [], dict[str, list[float]]()
        for record in records:
            cells = []
            for rule in rules:
                if rule not in record["needed"]:
                    cells.append("–")
                    continue
                ours, base = needed(record, rule, level), needed(record, "random", level)
                n_missed = sum(one[level] is None for one in record["needed"][rule])
                text = f"{'≥ ' if n_missed else ''}{statistics.mean(ours):.0f}"
                is_known = min(statistics.median(ours), statistics.median(base)) < MOST
                if rule != "random" and is_known:
                    ratio, low, high = ratio_interval(ours, base)
                    ratios.setdefault(rule, []).append(ratio)
                    text += f": {ratio:.2f} ({low:.2f} to {high:.2f})"
                cells.append(text)
            rows.append((record["name"], f"{100 * record['of_all']:.1f} %", *cells))
        means = [
            f"{statistics.mean(ratios[rule]):.2f}, at most {max(ratios[rule]):.2f}" if rule in ratios else "–"
            for rule in rules
        ]
        rows.append(("mean of the ratios", "", *means))
        parts.append(
            f"Labels to {share:.0%} of the accuracy of all labels:\n\n"
            + markdown_table(["set and network", "of all labels", *rules], rows)
        )
    return "\n\n".join(parts)


def estimate_table(records: list[Record]) -> str:
    """Return coverage at each look, what stops too early, and the forecasts."""
    rows: list[tuple[str, ...]] = []
    for n in LOOKS:
        looks = [look for record in records for look in record["looks"] if look[0] == n]
        covered = [low <= truth <= high for _, _, _, low, high, truth, _, _ in looks]
        bias = [right / m - truth for _, m, right, _, _, truth, _, _ in looks]
        of_chosen = [right / m - truth for _, m, _, _, _, _, right, truth in looks]
        rows.append((str(n), str(looks[0][1]), str(len(looks)), f"{100 * np.mean(covered):.1f} %",
                     f"{100 * np.mean(bias):+.1f}", f"{100 * np.mean(of_chosen):+.1f}"))  # fmt: skip
    covered = [low <= truth <= high for record in records for _, _, _, low, high, truth, _, _ in record["looks"]]
    rows.append(("all", "", str(len(covered)), f"{100 * np.mean(covered):.1f} %", "", ""))
    headings = ["labels", "of them random", "runs", "interval holds the truth", "estimate less truth, points",
                "of the head of the chosen labels alone"]  # fmt: skip
    parts = [markdown_table(headings, rows), stops_table(records)]
    forecasts = [one for record in records for one in record["doubling"]]
    held = [low <= gain <= high for _, _, low, high, gain in forecasts]
    error = [abs(forecast - gain) for _, forecast, _, _, gain in forecasts]
    parts.append(
        f"What twice the labels bring, forecast at {' and '.join(str(n) for n in sorted({f[0] for f in forecasts}))} "
        f"labels: the interval held it in {np.mean(held):.0%} of {len(forecasts)}, the median error was "
        f"{100 * statistics.median(error):.1f} points."
    )
    return "\n\n".join(parts)


def stops_table(records: list[Record]) -> str:
    """Return for each rule of stopping how often it stopped, and how often the head was not as good as was wanted."""
    rows = []
    for name in STOPS:
        pairs = [
            (until, stop)
            for record in records
            for run in record["stops"][name]
            for until, stop in zip(UNTIL, run, strict=True)
        ]
        stopped = [(until, stop) for until, stop in pairs if stop]
        below = [accuracy < until for until, (_, accuracy) in stopped]
        clearly = [accuracy < until - 0.01 for until, (_, accuracy) in stopped]
        mean = statistics.mean(n for _, (n, _) in stopped)
        rows.append((name, f"{len(stopped)} of {len(pairs)}", f"{mean:.0f}", f"{100 * np.mean(below):.1f} %",
                     f"{100 * np.mean(clearly):.1f} %"))  # fmt: skip
    wanted = ", ".join(f"{100 * until:g}" for until in UNTIL)
    headings = [f"rule (until {wanted} %)", "stopped", "after labels, mean", "accuracy was below", "by over a point"]
    return markdown_table(headings, rows)


def speed_table(records: list[Record]) -> str:
    rows = [
        (n, what, f"{1000 * wall_s:.0f} ms", f"{1000 * cpu_s:.0f} ms")
        for record in records
        for n, works in record["times"].items()
        for what, (wall_s, cpu_s) in works.items()
    ]
    return markdown_table(["labels", "what", "time", "processor time"], rows)


TABLES = {
    "penalty": penalty_table,
    "spread": spread_table,
    "labels": labels_table,
    "estimate": estimate_table,
    "speed": speed_table,
}


def taken(records: list[Record]) -> str:
    """Return the machine of the last record, and the load under which all were taken."""
    last, loads = records[-1], [record["load"] for record in records]
    conditions = f"{last['date']}, {common.machine_of(last)}, load average {min(loads)} to {max(loads)}; "
    return f"{conditions}{last['seeds']} seeds; {common.versions_of(last['environment'])}."


def tables(records: list[Record]) -> str:
    """Return the tables of the page, each with its conditions."""
    return common.tables_of_parts(records, TABLES, taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the figures, write the page."""
    parser = common.parser_for("label", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--backbones", nargs="+", choices=list(common.BACKBONES), default=list(common.BACKBONES))
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--seeds", type=common.positive, default=20)
    parser.add_argument("--processes", type=common.positive, default=2)
    args = common.read_arguments(parser, arguments)
    records = common.read_records(args.json)
    if not args.tables_only:
        with common.work_folder(args):
            for part in args.parts:
                for name, backbone in [(name, backbone) for name in args.sets for backbone in args.backbones]:
                    if part == "speed" and (name, backbone) != ("cifar10", "v2"):
                        continue
                    record = {"part": part, "name": f"{name}, {common.BACKBONES[backbone]}", "seeds": args.seeds}
                    file = rows_of(name, backbone, args)
                    with common.stage(f"{part} of {record['name']}"):
                        record |= MEASURE[part](file, args) | common.conditions() | {"load": common.load_average()}
                    if part == "labels":
                        record = with_earlier(record, records)
                    records = common.with_record(records, record)
                    common.write_records(args.json, records)
    common.publish(args, tables(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
