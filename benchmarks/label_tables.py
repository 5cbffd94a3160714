"""Tables of the page of `label.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

import common
from common import Record
from tlfeat.text import markdown_table

#: Shares of the accuracy of all labels that are waited for, and the labels after which nobody waits any longer.
LEVELS, MOST = (0.90, 0.95), 600
#: Labels at which the estimate is compared with the truth.
LOOKS = (50, 100, 200, 300)
UNTIL = (0.70, 0.80, 0.85, 0.90, 0.925, 0.95)
FEW = (10, 20, 50, 100, 200, 400)


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
        theirs = (f"{100 * accuracy:.1f} %" for (accuracy,) in record["means"]["LabelSpreading"])
        rows.append(("", "scikit-learn's LabelSpreading", *theirs))
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
    for name in records[0]["stops"]:
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


def tables(records: list[Record]) -> str:
    """Return the tables of the page, each with its conditions."""
    return common.tables_of_parts(records, TABLES, lambda last: f"{last['seeds']} seeds")
