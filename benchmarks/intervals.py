"""How often the intervals hold the truth and how often the test of difference errs, as JSON and as Markdown tables.

Exact where outcomes can be enumerated (independent images), simulated where not (groups, means over classes).

    python benchmarks/intervals.py                  # five minutes on one core
    python benchmarks/intervals.py --draws 200      # a quick look
    python benchmarks/intervals.py --tables-only    # the tables from the JSON, runs nothing
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta, binom, norm

import common
from common import Record
from tlfeat.evaluate.calibration import calibration
from tlfeat.evaluate.intervals import (
    difference_interval,
    macro_intervals,
    mcnemar,
    proportion_interval,
    wilson_interval,
)
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

NS = (50, 100, 150, 200, 300, 400, 500, 1000, 2000)
SHARES = tuple(float(p) for p in np.arange(0.5, 0.9951, 0.005).round(4))
Z = float(norm.ppf(0.975))
LOW, HIGH = 0.93, 0.97

Ends = tuple[Any, Any]


# --- one proportion, exact ----------------------------------------------------------------------------------


def wilson(n: int) -> Ends:
    """Return the ends for 0 to n of n, of the product's own function."""
    ends = [wilson_interval(k, n) for k in range(n + 1)]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def agresti_coull(n: int) -> Ends:
    """Agresti and Coull 1998."""
    p = (np.arange(n + 1) + Z * Z / 2) / (n + Z * Z)
    half = Z * np.sqrt(p * (1 - p) / (n + Z * Z))
    return p - half, p + half


def jeffreys(n: int) -> Ends:
    """Brown, Cai and DasGupta 2001, section 4.1.2."""
    k = np.arange(n + 1)
    low, high = beta.ppf(0.025, k + 0.5, n - k + 0.5), beta.ppf(0.975, k + 0.5, n - k + 0.5)
    low[0], high[-1] = 0.0, 1.0
    return low, high


def mid_p(n: int) -> Ends:
    """Clopper and Pearson's interval with half of the probability of the outcome itself, by bisection."""
    k, low, high = np.arange(n + 1), np.zeros(n + 1), np.ones(n + 1)
    for _ in range(50):
        middle = (low + high) / 2
        is_low = binom.sf(k, n, middle) + 0.5 * binom.pmf(k, n, middle) < 0.025
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    low[0] = 0.0
    return low, 1 - low[::-1]


def blaker_holds(n: int, p: float) -> Any:
    """Return for 0 to n of n whether Blaker's interval (2000) holds p."""
    k = np.arange(n + 1)
    tail = np.minimum(binom.cdf(k, n, p), binom.sf(k - 1, n, p))
    chance = binom.pmf(k, n, p)
    order = np.argsort(tail, kind="stable")
    return np.cumsum(chance[order])[np.argsort(order, kind="stable")] > 0.05


def proportions() -> list[Record]:
    """Return the coverage of every method at every n and share."""
    found = []
    for n in NS:
        ends = {f.__name__: f(n) for f in (wilson, jeffreys, mid_p, agresti_coull)}
        for p in SHARES:
            chance = binom.pmf(np.arange(n + 1), n, p)
            covers = {name: float(chance[(low <= p) & (p <= high)].sum()) for name, (low, high) in ends.items()}
            found.append({"n": n, "share": p, **covers, "blaker": float(chance[blaker_holds(n, p)].sum())})
    return found


# --- groups and means over classes, simulated ------------------------------------------------------------------


def grouped_shares(rng: Any, n_groups: int, size: str, share: float, alike: float) -> Ends:
    """Return the groups of images and the chance of each to be right: beta-binomial, `alike` within a group."""
    sizes = {"3": np.full(n_groups, 3), "8": np.full(n_groups, 8)}.get(size)
    sizes = 1 + rng.poisson(3, n_groups) if sizes is None else sizes
    chances = np.full(n_groups, share)
    if alike:
        chances = rng.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    return groups, chances[groups]


def groups(n_draws: int, rng: Any) -> list[Record]:
    """Return the coverage for an accuracy over groups, and what it would be without regard to them."""
    found = []
    for n_groups in (20, 40, 100, 200):
        for size in ("3", "8", "1 to 10"):
            for share in (0.6, 0.8, 0.9, 0.95):
                for alike in (0.0, 0.2, 0.5, 0.9):
                    held = np.zeros(2)
                    for _ in range(n_draws):
                        group, chance = grouped_shares(rng, n_groups, size, share, alike)
                        right = rng.random(len(group)) < chance
                        for j, ends in enumerate((proportion_interval(right, group), proportion_interval(right))):
                            held[j] += ends[0] <= share <= ends[1]
                    found.append(
                        {"n_groups": n_groups, "size": size, "share": share, "alike": alike}
                        | {"coverage": held[0] / n_draws, "without": held[1] / n_draws}
                    )
    return found


CLASS_SIZES = {
    "2 of 250": [250] * 2,
    "400 and 100": [400, 100],
    "200, 200 and 30": [200, 200, 30],
    "10 of 40": [40] * 10,
    "300 and 9 of 20": [300] + [20] * 9,
    "20 of 10": [10] * 20,
}


def class_means(n_draws: int, rng: Any) -> list[Record]:
    """Return the coverage for balanced accuracy and macro F1, without groups and with groups of five."""
    found = []
    for name, sizes in CLASS_SIZES.items():
        k = len(sizes)
        true = np.repeat(np.arange(k), sizes)
        group = np.concatenate([np.arange(size) // 5 + 1000 * c for c, size in enumerate(sizes)])
        for recall in ("0.7", "0.9", "0.97", "0.6 to 0.99"):
            recalls = np.linspace(0.6, 0.99, k) if "to" in recall else np.full(k, float(recall))
            confusion = np.zeros((k, k))
            for c in range(k):
                others = np.delete(np.arange(k), c)
                confusion[c, others] = (1 - recalls[c]) * rng.dirichlet(np.full(k - 1, 0.5))
            np.fill_diagonal(confusion, recalls)
            counts = confusion * np.array(sizes)[:, None]
            f1 = np.mean(2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1)))
            cumulated = confusion.cumsum(axis=1)
            for is_grouped in (False, True):
                held = np.zeros(2)
                for _ in range(n_draws):
                    draw = rng.random(len(true))
                    if is_grouped:  # two thirds of the images answer as the first one of their group does
                        first = np.unique_inverse(group).inverse_indices
                        draw = np.where(rng.random(len(true)) < 2 / 3, rng.random(first.max() + 1)[first], draw)
                    predicted = np.minimum((draw[:, None] >= cumulated[true]).sum(axis=1), k - 1)
                    ends = macro_intervals(true, predicted, k, group if is_grouped else None)
                    for j, value in enumerate((recalls.mean(), f1)):
                        held[j] += ends[j][0] <= value <= ends[j][1]
                balanced, macro = held / n_draws
                found.append(
                    {"sizes": name, "recall": recall, "is_grouped": is_grouped}
                    | {"balanced_accuracy": balanced, "macro_f1": macro}
                )
    return found


# --- differences ------------------------------------------------------------------------------------------------


def pair(only_one: int, only_other: int, n: int) -> tuple[Any, Any, Any]:
    """Return true, one and other with so many images right by only one of the two."""
    one, other = np.ones(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    other[:only_one] = 0
    one[only_one : only_one + only_other] = 0
    return np.ones(n, dtype=np.int64), one, other


def differences() -> list[Record]:
    """Return the coverage of the product's interval and of Wald's, enumerated."""
    shares = (0.005, 0.01, 0.02, 0.05, 0.1)
    found = []
    for n in (50, 100, 200, 500):
        ends: dict[tuple[int, int], tuple[float, float]] = {}
        for a, b in [(a, b) for a in shares for b in shares if b <= a]:
            held = wald = 0.0
            for differing in range(int(binom.ppf(1 - 1e-7, n, a + b)) + 1):
                for ones in range(differing + 1):
                    chance = binom.pmf(differing, n, a + b) * binom.pmf(ones, differing, a / (a + b))
                    if chance < 1e-9:
                        continue
                    key = (ones, differing - ones)
                    if key not in ends:
                        ends[key] = difference_interval(*pair(*key, n))
                    d = (2 * ones - differing) / n
                    half = Z * np.sqrt(max(differing / n - d * d, 0) / n)
                    held += chance * (ends[key][0] <= a - b <= ends[key][1])
                    wald += chance * (d - half <= a - b <= d + half)
            found.append({"n": n, "only_one": a, "only_other": b, "coverage": float(held), "wald": float(wald)})
    return found


def levels() -> list[Record]:
    """Return how often equal candidates are called different at p < 0.05, exact test and mid-p, enumerated."""
    differing = np.arange(0, 1200)
    rejects: dict[str, list[float]] = {"exact": [0.0], "mid_p": [0.0]}
    for d in differing[1:].tolist():
        chance = binom.pmf(np.arange(d + 1), d, 0.5)
        tail = np.cumsum(chance)[: d // 2 + 1]  # the lower half; the upper half mirrors it
        for name, p in (("exact", 2 * tail), ("mid_p", 2 * tail - chance[: d // 2 + 1])):
            n_low = int(np.sum(p[: (d + 1) // 2] < 0.05))
            rejects[name].append(2 * float(chance[:n_low].sum()))
    check = [mcnemar(*pair(k, 40 - k, 60)) < 0.05 for k in range(41)]
    if abs(binom.pmf(np.flatnonzero(check), 40, 0.5).sum() - rejects["mid_p"][40]) > 1e-12:
        raise SystemExit("the enumeration is not that of tlfeat.evaluate.intervals.mcnemar")
    return [
        {"n": n, "differing": share}
        | {name: float(binom.pmf(differing, n, share) @ np.array(values)) for name, values in rejects.items()}
        for n in (50, 100, 200, 500, 1000, 2000)
        for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    ]


def grouped_pairs(n_draws: int, rng: Any) -> list[Record]:
    """Return level and coverage for two candidates over groups, with regard to the groups and without."""
    found = []
    for n_groups in (30, 100, 300):
        for share in (0.7, 0.9):
            for alike in (0.0, 0.5, 0.9):
                called = np.zeros(2)
                held = np.zeros(2)
                for _ in range(n_draws):
                    group = np.repeat(np.arange(n_groups), 1 + rng.poisson(3, n_groups))
                    common = rng.normal(size=n_groups)[group]  # how hard the plant is, for both
                    right = []
                    for _ in range(2):
                        own = np.sqrt(alike) * rng.normal(size=n_groups)[group]
                        own += np.sqrt(1 - alike) * rng.normal(size=len(group))
                        right.append(((common + own) / np.sqrt(2) < norm.ppf(share)).astype(np.int64))
                    true = np.ones(len(group), dtype=np.int64)
                    for j, given in enumerate((group, None)):
                        called[j] += mcnemar(true, *right, given) < 0.05
                        low, high = difference_interval(true, right[0], right[1], given)
                        held[j] += low <= 0 <= high
                found.append(
                    {"n_groups": n_groups, "share": share, "alike": alike}
                    | {"level": called[0] / n_draws, "level_without": called[1] / n_draws}
                    | {"coverage": held[0] / n_draws, "coverage_without": held[1] / n_draws}
                )
    return found


def calibrations(n_draws: int, rng: Any) -> list[Record]:
    """Return how often the ECE of perfect probabilities lies above the bound that it is printed with."""
    found = []
    for n in (100, 500, 2000):
        for sharpness in (0.3, 2.0):
            above, ece = 0, 0.0
            n_runs = min(n_draws, 500)
            for _ in range(n_runs):
                probabilities = rng.dirichlet(np.full(5, 1 / (5 * sharpness)), n)
                true = (rng.random(n)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, 4)
                measured = calibration(probabilities, true)
                above += measured.ece > measured.ece_upper
                ece += measured.ece / n_runs
            found.append({"n": n, "sharpness": sharpness, "above": above / n_runs, "ece": ece})
    return found


# --- the tables -------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], low: float = LOW, high: float = HIGH) -> tuple[str, str]:
    """Return the share of values within the limits, and the range."""
    inside = np.mean([(low <= v <= high) for v in values])
    return f"{100 * inside:.0f} %", f"{100 * min(values):.1f} to {100 * max(values):.1f} %"


def tables(found: Record) -> str:
    """Return the tables of docs/benchmarks/intervals.md."""
    return "\n\n".join(
        [
            *proportion_tables(found["proportions"]),
            *group_tables(found["groups"], found["n_draws"]),
            *class_mean_tables(found["class_means"]),
            *difference_tables(found["differences"]),
            level_text(found["levels"]),
            *pair_tables(found["grouped_pairs"]),
            "Expected calibration error of perfect probabilities: above the printed bound in "
            + spread([r["above"] for r in found["calibrations"]])[1]
            + " (wanted: 5 %), "
            + ", ".join(f"{100 * r['ece']:.1f} % with {r['n']:,} images" for r in found["calibrations"][::2])
            + " on average.",
        ]
    )


def proportion_tables(found: Sequence[Record]) -> list[str]:
    """Return the coverage of each method for one accuracy."""
    methods = ("wilson", "jeffreys", "mid_p", "agresti_coull", "blaker")
    rows = [
        (m.replace("_", " "), *spread([r[m] for r in found]), *spread([r[m] for r in found if r["n"] >= 300]))
        for m in methods
    ]
    return [
        f"One accuracy, exact: n from {NS[0]} to {NS[-1]:,}, true share from 0.5 to 0.995 in steps of 0.005.",
        markdown_table(("method", "settings with 93 to 97 %", "range", "n >= 300", "range"), rows),
    ]


def group_tables(found: Sequence[Record], n_draws: int) -> list[str]:
    """Return the coverage for one accuracy over groups."""
    by: Callable[[Record], bool]
    rows = []
    for title, by in (
        ("all", lambda r: True),
        ("at least 5 groups' worth of mistakes", lambda r: r["n_groups"] * (1 - r["share"]) >= 5),
        ("fewer", lambda r: r["n_groups"] * (1 - r["share"]) < 5),
    ):
        chosen = [r for r in found if by(r)]
        rows.append(
            (title, str(len(chosen)), *spread([r["coverage"] for r in chosen]), *spread([r["without"] for r in chosen]))
        )
    return [
        "One accuracy over groups (20 to 200 groups of 3, 8 or 1 to 10 images, correlation within a group 0 to 0.9, "
        f"true share 0.6 to 0.95), {n_draws:,} draws each.",
        markdown_table(("settings", "number", "93 to 97 %", "range", "groups ignored", "range"), rows),
    ]


def class_mean_tables(found: Sequence[Record]) -> list[str]:
    """Return the coverage for balanced accuracy and macro F1."""
    rows = []
    for is_grouped in (False, True):
        for name in CLASS_SIZES:
            chosen = [r for r in found if r["sizes"] == name and r["is_grouped"] == is_grouped]
            ranges = [spread([r[mean] for r in chosen])[1] for mean in ("balanced_accuracy", "macro_f1")]
            rows.append((name, "groups of five" if is_grouped else "none", *ranges))
    return [
        "Means over classes: range over recalls of 0.7, 0.9, 0.97 and of 0.6 to 0.99.",
        markdown_table(("test images of a class", "groups", "balanced accuracy", "macro F1"), rows),
    ]


def difference_tables(found: Sequence[Record]) -> list[str]:
    """Return the coverage for the difference of two accuracies."""
    many = [r for r in found if r["n"] * (r["only_one"] + r["only_other"]) >= 5]
    few = [r for r in found if r["n"] * (r["only_one"] + r["only_other"]) < 5]
    rows = [
        (name, *spread([r["coverage"] for r in rs]), *spread([r["wald"] for r in rs]))
        for name, rs in (("5 and more", many), ("fewer", few))
    ]
    return [
        "Difference of two accuracies on the same images, exact: n from 50 to 500; one of the two right alone in "
        "0.5 to 10 % of the images.",
        markdown_table(("images expected to differ", "Tango: 93 to 97 %", "range", "Wald: 93 to 97 %", "range"), rows),
    ]


def level_text(found: Sequence[Record]) -> str:
    """Return how often equal candidates are called different."""
    often = [r for r in found if r["n"] * r["differing"] >= 10]
    return (
        "Level of the test at p < 0.05 (equal candidates called different), exact: n from 50 to 2,000, 1 to 40 % "
        f"of the images differing. Mid-p: {spread([r['mid_p'] for r in found])[1]}, the exact test: "
        f"{spread([r['exact'] for r in found])[1]}; over the settings where at least 10 images are expected "
        f"to differ on average {100 * np.mean([r['mid_p'] for r in often]):.1f} and "
        f"{100 * np.mean([r['exact'] for r in often]):.1f} %."
    )


def pair_tables(found: Sequence[Record]) -> list[str]:
    """Return level and coverage for two candidates over groups: the range over all settings."""
    rows = [
        (alike, *(spread([r[k] for r in found if str(r["alike"]) == alike])[1] for k in keys))
        for keys in [("level", "level_without", "coverage", "coverage_without")]
        for alike in dict.fromkeys(str(r["alike"]) for r in found)
    ]
    return [
        "Two equally good candidates over 30, 100 and 300 groups of 1 to 10 images, 70 and 90 % right: range.",
        markdown_table(("alike", "level", "groups ignored", "coverage", "groups ignored"), rows),
    ]


def main(arguments: Sequence[str]) -> int:
    """Run everything and write the JSON, and the tables."""
    parser = common.parser_for("intervals", __doc__)
    parser.add_argument("--draws", type=int, default=2000)
    args = common.read_arguments(parser, arguments)
    if not args.tables_only:
        rng = np.random.default_rng(0)
        found: Record = {
            "command": "python " + " ".join(["benchmarks/intervals.py", *arguments]),
            **common.conditions(),
            "n_draws": args.draws,
        }
        for name, measure in (("proportions", proportions), ("differences", differences), ("levels", levels)):
            common.say(name)
            found[name] = measure()
        for name, draw in (
            ("groups", groups),
            ("class_means", class_means),
            ("grouped_pairs", grouped_pairs),
            ("calibrations", calibrations),
        ):
            common.say(name)
            found[name] = draw(args.draws, rng)
        write_json(args.json, found)
    text = tables(read_json(args.json))
    common.publish(args, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
