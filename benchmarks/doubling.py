"""Does the forecast of ``tlfeat curve`` hold? From the first points of a curve, what do twice the labels bring?

Every curve is cut after each of its points: the forecast from the points so far against the next one, which has twice
the labels. Logistic regression on embeddings of MobileNetV2 0.35, several seeds (of the split and of the draws). Needs
the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/doubling.py                # 10 minutes
    python benchmarks/doubling.py --tables-only
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace

import numpy as np

import common
from common import Record
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.load import load_images
from tlfeat.studies.curve import Curve, learning_curve
from tlfeat.studies.doubling import doublings
from tlfeat.text import markdown_table, percent

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
COUNTS = [5, 10, 20, 40, 80, 160, 320]
N_DRAWS = 5
N_SEEDS = 3

#: Training images a class of cifar10.
N_CIFAR = 400


def cut_after(curve: Curve, n_points: int) -> Curve:
    """Return the curve as it would be with fewer labels."""
    return replace(curve, lines={name: line[:n_points] for name, line in curve.lines.items()})


def forecasts(curve: Curve) -> list[Record]:
    """Return each forecast beside what came of it."""
    (line,) = curve.lines.values()
    found = []
    for n_points in range(3, len(line)):
        now, then = line[n_points - 1], line[n_points]
        if abs(then.n_labels / now.n_labels - 2) > 0.05:  # a class with fewer images
            continue
        (forecast,) = doublings(cut_after(curve, n_points))
        found.append(
            {
                "count": now.count,
                "accuracy": now.mean,
                "gain": forecast.gain,
                "interval": list(forecast.interval),
                "came": then.mean - now.mean,
                "last_gain": now.mean - line[n_points - 2].mean,
            }
        )
    return found


def run_set(name: str, args: argparse.Namespace) -> Record:
    """Return the forecasts on one data set, by seed."""
    data = common.unpack(name, args.shared, args.work)
    if name == "cifar10":
        data, _ = common.write_sample(load_images(data), N_CIFAR, data)
    place = args.work / "runs" / name
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(place):
        with common.stage(f"{name}: extraction"):
            cache = plan_extraction(data, **common.backbone_options("v2", args.shared)).run().cache
        found = []
        for seed in range(N_SEEDS):
            with common.stage(f"{name}: seed {seed}"), open_data(cache, seed=seed) as opened:
                most = np.bincount(opened.split.labels[opened.split.where("train", "val")]).max()
                counts = [count for count in COUNTS if count < most]
                curve = learning_curve(opened, heads=("logreg",), has_pixels=False, counts=counts, n_draws=N_DRAWS)
                found += [{"seed": seed, **one} for one in forecasts(curve)]
    return {"set": name, **common.conditions(), "is_complete": True, "forecasts": found}


def row(name: str, chosen: list[Record]) -> tuple[str, ...]:
    """Return the line of one data set."""
    came = np.array([one["came"] for one in chosen])
    accuracies = [100 * one["accuracy"] for one in chosen]
    gains, naive = (np.array([one[key] for one in chosen]) for key in ("gain", "last_gain"))
    inside = np.mean([one["interval"][0] <= one["came"] <= one["interval"][1] for one in chosen])
    return (
        name,
        str(len(chosen)),
        f"{min(accuracies):.0f} to {max(accuracies):.0f} %",
        f"{100 * came.mean():+.1f}",
        f"{100 * gains.mean():+.1f}",
        f"{100 * np.abs(came - gains).mean():.1f}",
        f"{100 * np.abs(came - naive).mean():.1f}",
        percent(float(inside)),
    )


def tables(records: list[Record]) -> str:
    """Return the page's table."""
    headings = (
        "set",
        "forecasts",
        "accuracy before",
        "came, points",
        "forecast, points",
        "mean error",
        "error of 'as much as the last doubling'",
        "inside the 95 % interval",
    )
    rows = [row(record["set"], record["forecasts"]) for record in records]
    rows.append(row("all", [one for record in records for one in record["forecasts"]]))
    first = records[0]
    made = f"{first['date']}, {common.machine_of(first)}; {common.versions_of(first['environment'])}"
    counts = ", ".join(map(str, COUNTS))
    return (
        f"{markdown_table(headings, rows)}\n\n{made}. {N_DRAWS} draws, {N_SEEDS} seeds; {counts} images a class, as "
        f"far as there are so many."
    )


def main() -> None:
    """Measure, or write the tables of what was measured."""
    parser = common.parser_for("doubling", __doc__)
    common.add_data(parser)
    parser.add_argument("--sets", type=common.chosen_from(SETS), default=SETS, help="comma-separated data sets")
    args = common.read_arguments(parser)
    if not args.tables_only:
        with common.work_folder(args):
            common.write_records(args.json, [run_set(name, args) for name in args.sets])
    common.publish(args, tables(common.read_records(args.json)))


if __name__ == "__main__":
    main()
