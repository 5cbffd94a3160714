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
from label_tables import FEW, LEVELS, LOOKS, MOST, UNTIL, tables
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads import learner
from tlfeat.heads.blocks import MAPPINGS
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.images.load import load_images
from tlfeat.labelling.choose import OPEN, choose
from tlfeat.labelling.estimate import Estimate, estimate

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
CIFAR_PER_CLASS = 500
#: So many pictures of a set are drawn at most.
MOST_PICTURES = 3_000
PARTS = ("penalty", "spread", "labels", "estimate", "speed")

#: Held out in `labels` and `penalty`; in `estimate` more, so that the truth is known better.
HELD_OUT, HELD_OUT_FOR_TRUTH = 0.3, 0.6
PENALTIES = {"length 1": (10.0, 100.0, 1000.0), "standardised": (0.001, 0.01, 0.1)}

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
    """Return the accuracy and the log loss at each number of random labels, of the labels alone and as they spread.

    Beside them stands the accuracy of scikit-learn's ``LabelSpreading`` with its kernel of neighbours.
    """
    from sklearn.semi_supervised import LabelSpreading

    pictures = pictures_of(file, seed, HELD_OUT)
    graph, k = Graph(pictures.rows), pictures.n_classes
    rows, test_rows = MAPPINGS["l2"](pictures.rows), MAPPINGS["l2"](pictures.test_rows)
    found: dict[str, list[list[float]]] = {"labels alone": [], "labels spread": [], "LabelSpreading": []}
    for n in FEW:
        given = np.where(np.arange(len(rows)) < n, pictures.labels, -1)
        theirs = LabelSpreading(kernel="knn").fit(rows, given)
        found["LabelSpreading"].append([float(theirs.score(test_rows, pictures.test_labels))])
        places, labels = np.arange(n), pictures.labels[:n]
        heads = learner.fit(pictures.rows[:n], labels, k), fit_spread(graph, places, labels, k)
        for line, head in zip((found["labels alone"], found["labels spread"]), heads, strict=True):
            chances = head.probabilities(pictures.test_rows)[np.arange(len(pictures.test_labels)), pictures.test_labels]
            line.append([pictures.accuracy(head), float(-np.log(np.maximum(chances, 1e-6)).mean())])
    return found


def measure_spread(file: Path, args: argparse.Namespace) -> Record:
    """Average over the seeds, with the standard error of the difference of the accuracies."""
    found = each_seed(partial(spread_of, file=file), args)
    means = {way: np.mean([one[way] for one in found], axis=0).tolist() for way in found[0]}
    alone, spread = (np.array([one[way] for one in found]) for way in ("labels alone", "labels spread"))
    gains = (spread - alone)[:, :, 0]
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
        if one.doubling_interval is not None and n in LOOKS and 2 * n in truth
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
