"""The charts of a comparison, described: accuracy against seconds, learning curves, reliability, confusions, map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlfeat.heads.any_estimator import short_name
from tlfeat.records import BASELINE_LAYERS, Calibration, Result
from tlfeat.report.charts import MAX_NAME, SHAPES, Area, Axis, Chart, Key, Mark, Polyline, number_axis, percent_axis
from tlfeat.report.embedding_map import KINDS, EmbeddingMap
from tlfeat.studies.compare import Line
from tlfeat.studies.tradeoff import frontier, seconds_of
from tlfeat.text import interval_text, one_line, percent, seconds
from tlfeat.types import Labels

#: Colour and shape of a candidate, by `style_of`.
_STYLES = {"head": ("c0", "circle"), "keras": ("c1", "square"), "pixels": ("c4", "triangle")}

#: Classes beyond which a confusion matrix has no numbers in its cells, and beyond which not every one is named.
_MAX_NUMBERS, _MAX_NAMES = 20, 80

#: Classes beyond which signs repeat, so that a map has no key.
_MAX_KEYS = 64

#: What ``Result.history`` records of an epoch, as it is told.
_RECORDED = {
    "loss": "loss",
    "val_loss": "validation loss",
    "accuracy": "accuracy",
    "val_accuracy": "validation accuracy",
    "learning_rate": "learning rate",
    "epoch_s": "took",
}


def style_of(result: Result) -> str:
    """Return what a candidate is drawn as: "head", "pixels" or "keras"."""
    return "pixels" if result.layer in BASELINE_LAYERS else result.kind


def accuracy_seconds(lines: Sequence[Line], cost: str) -> Chart:
    """Place every candidate whose time is known: seconds (by ratio) to the right, accuracy upwards.

    Parameters
    ----------
    lines : sequence of Line
        At least one whose seconds are known.
    cost : str
        One of ``tradeoff.COSTS``.
    """
    costs = [seconds_of(line.result, cost) for line in lines]
    is_ahead = frontier(list(zip(costs, [line.result.score.accuracy for line in lines], strict=True)))
    timed = [
        (line, _candidate(line, max(cost_s, 1e-4), is_ahead=ahead))
        for line, cost_s, ahead in zip(lines, costs, is_ahead, strict=True)
        if cost_s is not None
    ]
    marks = [mark for _, mark in timed]
    powers = [math.log10(mark.x) for mark in marks]
    first, last = math.floor(min(powers)), math.floor(max(powers)) + 1
    ticks = [(10.0**power, _power(power)) for power in range(first, last + 1)]
    return Chart(
        f"Accuracy against seconds, {cost}",
        Axis(f"seconds, {cost}", ticks, 10.0**first, 10.0**last, is_log=True),
        percent_axis("accuracy on test images", [end for line, _ in timed for end in line.result.score.ci95]),
        marks,
        [Polyline(_stairs(sorted((mark.x, mark.y) for mark in marks if mark.is_filled)), "frontier")],
    )  # fmt: skip


def _candidate(line: Line, cost_s: float, *, is_ahead: bool) -> Mark:
    """Return the mark of a candidate; beside it stands its name, without the settings where it is long."""
    score = line.result.score
    says = f"{line.name}: {percent(score.accuracy)} (95 % interval {interval_text(score.ci95)}), {seconds(cost_s)}"
    colour, shape = _STYLES[style_of(line.result)]
    return Mark(
        cost_s, score.accuracy, f"{says}, on the frontier" if is_ahead else says, colour, shape, *score.ci95,
        name=line.name if len(line.name) <= MAX_NAME else short_name(line.result.candidate), is_filled=is_ahead,
    )  # fmt: skip


def _power(power: int) -> str:
    return f"{10 ** (power + 3):,} ms" if power < -1 else f"{10.0**power:,g} s" if power < 3 else f"{10**power:,} s"


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the line along a frontier: what the best accuracy within so many seconds is."""
    path: list[tuple[float, float]] = []
    for x, y in points:
        path += [(x, path[-1][1]), (x, y)] if path else [(x, y)]
    return path


def learning_curves(result: Result) -> list[Chart]:
    """Return loss and accuracy by epoch, of training and validation images; none where nothing was recorded."""
    return [chart for name in ("loss", "accuracy") if (chart := _learning_curve(result, name))]


def _learning_curve(result: Result, name: str) -> Chart | None:
    keys = [Key("training images", "c0", "circle", "c0 dashed"), Key("validation images", "c1", "square", "c1")]
    best = result.chosen.get("best_epoch")
    curves = [
        [(epoch, float(value)) for epoch, value in enumerate(result.history.get(recorded, []), start=1)]
        for recorded in (name, f"val_{name}")
    ]
    n_epochs = max(map(len, curves))
    curves = [[(epoch, value) for epoch, value in curve if math.isfinite(value)] for curve in curves]
    values = [value for curve in curves for _, value in curve]
    if not values:
        return None
    y = number_axis(name, values, "{:.4g}".format if name == "loss" else lambda value: f"{100 * value:.4g} %")
    every = max(1, -(-n_epochs // 10))
    ticks = [(epoch, str(epoch)) for epoch in range(every, n_epochs + 1, every)]
    return Chart(
        f"{name.capitalize()} by epoch",
        Axis("epoch", ticks, 0.5, n_epochs + 0.5),
        y,
        [
            Mark(epoch, value, "", key.colour, key.shape, is_filled=epoch == best)
            for key, curve in zip(keys, curves, strict=True)
            for epoch, value in curve
        ],
        [
            *(Polyline(curve, key.style) for key, curve in zip(keys, curves, strict=True)),
            *([Polyline([(best, y.low), (best, y.high)], "chosen")] if best else []),
        ],
        [
            Area((epoch - 0.5, epoch + 0.5), (y.low, y.high), _epoch_says(result.history, epoch, is_best=epoch == best))
            for epoch in range(1, n_epochs + 1)
        ],
        keys,
    )


def _epoch_says(history: dict[str, list[float]], epoch: int, *, is_best: bool) -> str:
    told = []
    for name, title in _RECORDED.items():
        values = history.get(name, [])
        if epoch <= len(values):
            value = values[epoch - 1]
            text = percent(value) if "accuracy" in name else seconds(value) if name == "epoch_s" else f"{value:.4g}"
            told.append(f"{title} {text}")
    return f"Epoch {epoch}{' (chosen)' if is_best else ''}: {', '.join(told)}"


def reliability(found: Calibration, style: str) -> Chart:
    """Place every bin of the reliability table: its mean probability to the right, the share that is right upwards."""
    colour, shape = _STYLES[style]
    ticks = [(share, f"{100 * share:.0f} %") for share in (0, 0.25, 0.5, 0.75, 1)]
    marks = [
        Mark(
            row["probability"],
            row["right"],
            f"{row['n']:,} images with a mean probability of {percent(row['probability'])}: "
            f"{percent(row['right'])} right (95 % interval {interval_text(row['right_ci95'])})",
            colour,
            shape,
            *row["right_ci95"],
        )
        for row in found.table
    ]
    return Chart(
        "Share that is right against probability",
        Axis("probability of the predicted class", ticks, 0, 1),
        Axis("share that is right", ticks, 0, 1),
        marks,
        [Polyline([(0, 0), (1, 1)], "diagonal")],
        is_square=True,
    )


def confusion_matrix(result: Result) -> Chart:
    """Return the confusion matrix: a row a true class, a column a predicted one, dark where much of the class is."""
    names, n = [one_line(name) for name in result.classes], len(result.classes)
    counts: Any = np.array(result.score.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    every = -(-n // _MAX_NAMES)
    side = min(900, 200 + 34 * n)
    return Chart(
        "Confusion matrix",
        Axis("predicted class", [(i, names[i]) for i in range(0, n, every)], -0.5, n - 0.5),
        Axis("true class", [(-i, names[i]) for i in range(0, n, every)], 0.5 - n, 0.5),
        areas=[
            Area(
                (j - 0.5, j + 0.5),
                (-i - 0.5, -i + 0.5),
                f"{counts[i, j]:,} of class {names[i]} predicted as {names[j]}",
                float(shares[i, j]),
                f"{counts[i, j]}" if n <= _MAX_NUMBERS else "",
            )
            for i, j in np.argwhere(counts).tolist()
        ],
        width=side,
        height=side,
        is_square=True,
    )


def class_look(place: int) -> tuple[str, str]:
    """Return colour and shape of a class on a map; 64 classes differ."""
    return f"c{place % 8}", list(SHAPES)[(place + place // 8) % 8]


def map_places(points: Any) -> Any:
    """Return places as whole numbers from 0 to 1000, the same scale along both axes, the picture in the middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    return np.rint(500 + 1000 * (points - (low + high) / 2) / span).astype(int)  # (n, 2)


def embedding_map(found: EmbeddingMap, kind: str, labels: Labels, classes: Sequence[str]) -> Chart:
    """Place the images of a map, coloured by class; `labels` are those of its images."""
    looks = [class_look(label) for label in range(len(classes))]
    x_label, y_label = (
        (f"{name} component ({percent(share)} of the variance)" if kind == "pca" else "")
        for name, share in zip(("first", "second"), found.explained, strict=True)
    )
    places = zip(map_places(found.points[kind]).tolist(), labels.tolist(), strict=True)
    keys = [Key(one_line(name), *look) for name, look in zip(classes, looks, strict=True)]
    return Chart(
        f"{KINDS[kind]} of {one_line(found.layer)}, {len(labels):,} images",
        Axis(x_label, (), -20, 1020),
        Axis(y_label, (), -20, 1020),
        [Mark(float(x), float(y), "", *looks[label]) for (x, y), label in places],
        keys=keys if len(keys) <= _MAX_KEYS else (),
        width=480,
        height=480,
        is_square=True,
        mark_size=0.4,
    )
