"""The charts of a comparison as SVG, light or dark; every mark carries the sentence that it stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlfeat.records import Calibration, Result
from tlfeat.report.finding import percent_axis
from tlfeat.studies.compare import Line
from tlfeat.studies.tradeoff import frontier, seconds_of
from tlfeat.text import page, percent, seconds

#: Of a chart, in its own units; narrow, so that it can be read on a telephone.
_WIDTH, _HEIGHT = 460, 320

_LEFT, _RIGHT, _TOP, _BASE = 54, 446, 14, 268

_LETTER, _LINE = 6.3, 13  # of a name in the chart

#: Letters of a name in the chart; of a longer one only the candidate is shown there.
_MAX_NAME = 28

#: What a shape stands for besides the colour.
SHAPES = {"head": "circle", "pixels": "triangle", "keras": "square"}


@dataclass(slots=True)
class Mark:
    """A measured point: where it lies, its interval, what it says.

    `label` is where its name found room, `leader` the end of a line to it where that is not beside the point.
    """

    x: float
    y: float
    says: str
    style: str = ""
    shape: str = "circle"
    low: float | None = None
    high: float | None = None
    name: str = ""
    is_filled: bool = True
    label: tuple[float, float] | None = None
    leader: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart in its own units: ticks are (place, text), lines (style, points), columns (left, width, says)."""

    title: str
    x_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark] = ()
    lines: Sequence[tuple[str, str]] = ()
    columns: Sequence[tuple[float, float, str]] = ()
    keys: Sequence[tuple[str, str]] = ()
    right: float = _RIGHT


def to_svg(plot: Plot) -> str:
    """Return the chart as one SVG element; every text in it is escaped."""
    frame = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "top": _TOP, "base": _BASE}
    return page("plot.svg", plot=plot, **frame)


def style_of(result: Result) -> str:
    """Return what a candidate is drawn as: "head", "pixels" or "keras"."""
    return "pixels" if result.layer == "pixels" else result.kind


def accuracy_seconds(lines: Sequence[Line], cost: str) -> Plot:
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
    shown = [
        (line, max(cost_s, 1e-4), ahead)
        for line, cost_s, ahead in zip(lines, costs, is_ahead, strict=True)
        if cost_s is not None
    ]
    powers = [math.log10(cost_s) for _, cost_s, _ in shown]
    left, right = math.floor(min(powers)), math.floor(max(powers)) + 1
    intervals = [line.result.score.ci95 for line, _, _ in shown]
    bottom, top, step = percent_axis(min(low for low, _ in intervals), max(high for _, high in intervals))

    def x_of(cost_s: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (math.log10(cost_s) - left) / (right - left), 1)

    def y_of(share: float) -> float:
        return round(_BASE - (_BASE - _TOP) * (100 * share - bottom) / (top - bottom), 1)

    marks = []
    for (line, cost_s, ahead), (low, high) in zip(shown, intervals, strict=True):
        result = line.result
        marks.append(
            Mark(
                x_of(cost_s),
                y_of(result.score.accuracy),
                f"{line.name}: {percent(result.score.accuracy)} (95 % interval {100 * low:.1f} to {100 * high:.1f}), "
                f"{seconds(cost_s)}{', on the frontier' if ahead else ''}",
                style_of(result),
                SHAPES[style_of(result)],
                y_of(low),
                y_of(high),
                line.name if len(line.name) <= _MAX_NAME else result.candidate,
                ahead,
            )
        )
    _name(marks)
    front = sorted((mark.x, mark.y) for mark in marks if mark.is_filled)
    return Plot(
        f"Accuracy against seconds, {cost}",
        f"seconds, {cost}",
        [(x_of(10.0**power), _power(power)) for power in range(left, right + 1)],
        [(y_of(tick / 100), f"{tick} %") for tick in range(bottom, top + 1, step)],
        marks,
        [("front", _stairs(front))],
    )


def _power(power: int) -> str:
    return f"{10 ** (power + 3):,} ms" if power < -1 else f"{10.0**power:,g} s" if power < 3 else f"{10**power:,} s"


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    """Return the line along a frontier: what the best accuracy within so many seconds is."""
    path: list[tuple[float, float]] = []
    for x, y in points:
        path += [(x, path[-1][1]), (x, y)] if path else [(x, y)]
    return " ".join(f"{x},{y}" for x, y in path)


def _name(marks: Sequence[Mark]) -> None:
    """Give each mark's name the first free place beside it; where there is none, the table has to do."""
    taken = [(mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6) for mark in marks]
    taken += [(m.x - 1, m.high, m.x + 1, m.low) for m in marks if m.low is not None and m.high is not None]
    for mark in sorted(marks, key=lambda mark: (not mark.is_filled, mark.x)):
        width = _LETTER * len(mark.name)
        for dx, dy in [(9, 4), (9, -9), (9, 17), (-9 - width, 4), (-9 - width, -9), (-9 - width, 17)] + [
            (side, dy) for dy in (-22, 30, -35, 43, 56, 69) for side in (9, -9 - width)
        ]:
            x, y = mark.x + dx, mark.y + dy
            box = (x, y - 10, x + width, y + 3)
            is_inside = x >= _LEFT + 2 and x + width <= _WIDTH and _TOP <= y <= _BASE - 4
            if is_inside and not any(
                box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
            ):
                mark.label = (round(x, 1), round(y, 1))
                if abs(dy) > 17:
                    mark.leader = (round(x if dx > 0 else x + width, 1), round(y - 4, 1))
                taken.append(box)
                break


def learning_curves(result: Result) -> list[Plot]:
    """Return loss and accuracy against epochs, of training and validation images; none where nothing was recorded."""
    best = result.chosen.get("best_epoch")
    plots = []
    for what, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        curves = {
            style: [float(value) for value in result.history.get(name, [])]
            for style, name in (("learn", what), ("held", f"val_{what}"))
        }
        values = [value for curve in curves.values() for value in curve if math.isfinite(value)]
        if not values:
            continue
        n_epochs = max(map(len, curves.values()))
        ticks = _round_ticks(min(values), max(values))
        per_epoch = (_RIGHT - _LEFT) / n_epochs

        def x_of(epoch: float, per_epoch: float = per_epoch) -> float:
            return round(_LEFT + per_epoch * (epoch - 0.5), 1)

        def y_of(value: float, ticks: list[float] = ticks) -> float:
            return round(_BASE - (_BASE - _TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

        marks = [
            Mark(
                x_of(epoch),
                y_of(value),
                "",
                style,
                {"learn": "circle", "held": "square"}[style],
                is_filled=epoch == best,
            )
            for style, curve in curves.items()
            for epoch, value in enumerate(curve, start=1)
            if math.isfinite(value)
        ]
        every = max(1, -(-n_epochs // 10))
        lines = [(style, " ".join(f"{m.x},{m.y}" for m in marks if m.style == style)) for style in curves]
        plots.append(
            Plot(
                f"{title} by epoch",
                "epoch",
                [(x_of(epoch), str(epoch)) for epoch in range(every if every > 1 else 1, n_epochs + 1, every)],
                [(y_of(tick), f"{100 * tick:.4g} %" if what == "accuracy" else f"{tick:.4g}") for tick in ticks],
                marks,
                [*lines, *([("chosen", f"{x_of(best)},{_TOP} {x_of(best)},{_BASE}")] if best else [])],
                [
                    (
                        round(_LEFT + per_epoch * epoch, 1),
                        round(per_epoch, 1),
                        _epoch_says(result.history, epoch, is_best=epoch + 1 == best),
                    )
                    for epoch in range(n_epochs)
                ],
                [("learn", "training images"), ("held", "validation images")],
            )
        )
    return plots


def _epoch_says(history: dict[str, list[float]], epoch: int, *, is_best: bool) -> str:
    names = {
        "loss": "loss",
        "val_loss": "validation loss",
        "accuracy": "accuracy",
        "val_accuracy": "validation accuracy",
        "learning_rate": "learning rate",
        "epoch_s": "took",
    }
    told = []
    for name, title in names.items():
        values = history.get(name, [])
        if epoch < len(values):
            value = values[epoch]
            text = percent(value) if "accuracy" in name else seconds(value) if name == "epoch_s" else f"{value:.4g}"
            told.append(f"{title} {text}")
    return f"Epoch {epoch + 1}{' (chosen)' if is_best else ''}: {', '.join(told)}"


def _round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers, at most eight, that take in two."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * factor for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (unit * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]


def reliability(found: Calibration, style: str) -> Plot:
    """Place every bin of the reliability table: its mean probability to the right, the share that is right upwards."""

    def x_of(share: float) -> float:
        return round(_LEFT + (_BASE - _TOP) * share, 1)

    def y_of(share: float) -> float:
        return round(_BASE - (_BASE - _TOP) * share, 1)

    marks = [
        Mark(
            x_of(row["probability"]),
            y_of(row["right"]),
            f"{row['n']:,} images named with a probability of {percent(row['probability'])} on average: "
            f"{percent(row['right'])} right (95 % interval {' to '.join(f'{100 * e:.1f}' for e in row['right_ci95'])})",
            style,
            SHAPES[style],
            y_of(row["right_ci95"][0]),
            y_of(row["right_ci95"][1]),
        )
        for row in found.table
    ]
    shares = (0, 0.25, 0.5, 0.75, 1)
    return Plot(
        "Share that is right against probability",
        "probability",
        [(x_of(share), f"{100 * share:.0f} %") for share in shares],
        [(y_of(share), f"{100 * share:.0f} %") for share in shares],
        marks,
        [("diagonal", f"{x_of(0)},{y_of(0)} {x_of(1)},{y_of(1)}")],
        right=x_of(1),
    )


def per_class_rows(result: Result) -> list[tuple[str, ...]]:
    """Return the cells of the table of classes."""

    def ends(interval: Any) -> str:
        return " to ".join(f"{100 * end:.1f}" for end in interval) if interval else "–"

    return [
        (
            c["class"],
            f"{c['n']:,}",
            percent(c["recall"]),
            ends(c.get("recall_ci95")),
            percent(c["precision"]),
            ends(c.get("precision_ci95")),
            f"{c['f1']:.3f}",
        )
        for c in result.score.per_class
    ]
