"""A chart is described once, in the units of its data; one function draws it as SVG, for pages and for files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from tlfeat.text import page

#: Width of a letter and height of a line of text, in units of the chart (CSS pixels).
_LETTER, _LINE = 7, 16

#: Letters of a tick, and of a name beside a mark; longer ones end in an ellipsis, or are left out.
_MAX_TICK, MAX_NAME = 22, 28

#: Signs of about 7 units around (0, 0); with the colours "c0" to "c7" they tell 64 classes apart.
SHAPES = {
    "circle": "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z",
    "square": "M-6.2-6.2h12.4v12.4h-12.4z",
    "triangle": "M0-8l7.5 13h-15z",
    "diamond": "M0-8.8l7 8.8l-7 8.8l-7-8.8z",
    "plus": "M-2.4-7.5h4.8v5.1h5.1v4.8h-5.1v5.1h-4.8v-5.1h-5.1v-4.8h5.1z",
    "triangle-down": "M0 8l7.5-13h-15z",
    "cross": "M-7-3.6L-3.6-7L0-3.4L3.6-7L7-3.6L3.4 0L7 3.6L3.6 7L0 3.4L-3.6 7L-7 3.6L-3.4 0z",
    "star": "M0-8.5L2.4-2.8L8.2-2.6L3.7 1.1L5.2 7L0 3.7L-5.2 7L-3.7 1.1L-8.2-2.6L-2.4-2.8z",
}

#: Where the name of a mark may stand, the best place first: right (1) or left (-1) of it, and how far down.
_PLACES_BESIDE = [(side, dy) for side in (1, -1) for dy in (4, -9, 17)] + [
    (side, dy) for dy in (-22, 30, -35, 43, 56, 69) for side in (1, -1)
]

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis measures, its ticks as (value, text), and the values at its ends."""

    label: str
    ticks: Sequence[tuple[float, str]]
    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return how far along the axis a value lies: 0 at its low end, 1 at its high end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point.

    Attributes
    ----------
    says : str
        The sentence that it stands for: shown when pointed at, read by a screen reader.
    colour : str
        "c0" to "c7" of ``colours.css``.
    shape : str
        One of `SHAPES`.
    low, high : float, optional
        Ends of its interval, along the y axis.
    name : str
        Written beside it where there is room.
    """

    x: float
    y: float
    says: str = ""
    colour: str = "c0"
    shape: str = "circle"
    low: float | None = None
    high: float | None = None
    name: str = ""
    is_filled: bool = True
    is_ringed: bool = False


@dataclass(frozen=True, slots=True)
class Polyline:
    """A line through (x, y); `band` is (x, low, high) along it, `name` stands at its right end.

    `style` is a colour, with "dashed" or not, or one of "frontier", "diagonal" and "chosen" of ``chart.css``.
    """

    points: Sequence[tuple[float, float]]
    style: str
    name: str = ""
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle that says something: seen when pointed at, or filled to a `share` of its colour."""

    x: tuple[float, float]
    y: tuple[float, float]
    says: str
    share: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """What a sign stands for, below the chart."""

    text: str
    colour: str
    shape: str = "circle"
    style: str = ""  # of the line through it


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart; `mark_size` is a share of the size of `SHAPES`."""

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark] = ()
    lines: Sequence[Polyline] = ()
    areas: Sequence[Area] = ()
    keys: Sequence[Key] = ()
    width: float = 460
    height: float = 320
    is_square: bool = False
    mark_size: float = 0.6


def percent_axis(label: str, shares: Iterable[float]) -> Axis:
    """Return an axis around shares, with at most 20 round ticks in percent."""
    shares = list(shares)
    lowest, highest = min(shares), max(shares)
    step = next(s for s in (1, 2, 5, 10, 20) if s >= 20 * (highest - lowest))
    bottom = step * math.floor(100 * lowest / step)
    top = max(bottom + step, min(100, step * math.ceil(100 * highest / step)))
    return Axis(label, [(tick / 100, f"{tick} %") for tick in range(bottom, top + 1, step)], bottom / 100, top / 100)


def number_axis(label: str, values: Iterable[float], text: Callable[[float], str] = "{:.4g}".format) -> Axis:
    """Return an axis around numbers, with at most eight round ticks."""
    values = list(values)
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * factor for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (unit * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]
    return Axis(label, [(tick, text(tick)) for tick in ticks], ticks[0], ticks[-1])


def tick_axis(label: str, ticks: Sequence[tuple[float, str]], *, is_log: bool = False) -> Axis:
    """Return an axis with these ticks, and a little room on both sides of them."""
    low, high = min(tick for tick, _ in ticks), max(tick for tick, _ in ticks)
    if is_log:
        room = max((high / low) ** 0.02, 1.02)
        return Axis(label, ticks, low / room, high * room, is_log=True)
    room = 0.02 * (high - low) or 0.5
    return Axis(label, ticks, low - room, high + room)


def series(name: str, place: int, marks: Sequence[Mark]) -> tuple[Polyline, list[Mark]]:
    """Return a named line through marks, and the marks in its colour.

    The intervals of the marks become the band of the line; a single mark keeps its own.
    """
    colour = f"c{place % 8}"
    marks = sorted(marks, key=lambda mark: mark.x)
    bounds = [(m.x, m.low, m.high) for m in marks if m.low is not None and m.high is not None]
    band = bounds if len(marks) > 1 else []
    line = Polyline([(m.x, m.y) for m in marks], colour, name, band)
    coloured = [replace(mark, colour=colour) for mark in marks]
    return line, [replace(mark, low=None, high=None) for mark in coloured] if band else coloured


def to_svg(chart: Chart) -> str:
    """Return the chart as one SVG element for a page that holds ``colours.css`` and ``chart.css``."""
    return _drawn([chart], style="", heading="")


def to_svg_file(charts: Sequence[Chart], heading: str = "") -> str:
    """Return charts side by side as one SVG that stands alone, on white paper."""
    style = files(__package__).joinpath("templates/chart.css").read_text(encoding="utf-8")
    colours = files(__package__).joinpath("templates/colours.css").read_text(encoding="utf-8")
    light: dict[str, str] = {}
    for name, colour in re.findall(r"--(\w+): (#\w+)", colours):
        light.setdefault(name, colour)  # the dark ones come second
    return _drawn(charts, style=re.sub(r"var\(--(\w+)\)", lambda found: light[found[1]], style), heading=heading)


def _drawn(charts: Sequence[Chart], *, style: str, heading: str) -> str:
    panels, x, bottom, top = [], 0.0, 0.0, 1.5 * _LINE if heading else 0.0
    for chart in charts:
        layout = _Layout(chart)
        panels.append({"x": x, "chart": chart, "layout": layout, **layout.drawn()})
        x, bottom = x + layout.width, max(bottom, layout.height)
    x = max(x, 8 * len(heading) + 8)
    return page(
        __package__, "chart.svg",
        panels=panels, title=" and ".join(chart.title for chart in charts), width=round(x, 1),
        height=round(top + bottom, 1), top=top, heading=heading, style=style, shapes=SHAPES,
    )  # fmt: skip


class _Layout:
    """Where things of a chart lie, in its own units from the top left."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        ends = [_LETTER * len(line.name) + 14 for line in chart.lines if line.name]
        self.left = 14 + _LETTER * max((min(len(text), _MAX_TICK) for _, text in chart.y.ticks), default=0)
        self.top = 24.0 if chart.y.label else 12.0
        last = min(30, _LETTER * len(chart.x.ticks[-1][1]) / 2) + 4 if chart.x.ticks else 14
        right = chart.width - max([last, *ends])
        widest = max((min(len(text), _MAX_TICK) for _, text in chart.x.ticks), default=0)
        self.is_tilted = len(chart.x.ticks) * _LETTER * (widest + 1) > right - self.left
        below = (0.75 * _LETTER * widest + 12 if self.is_tilted else 20) + (20 if chart.x.label else 0)
        base = chart.height - below
        if chart.is_square:
            side = min(right - self.left, base - self.top)
            right, base = self.left + side, self.top + side
        self.right, self.base = round(right, 1), round(base, 1)
        self.base_label = round(base + below - 6, 1)
        self.has_grid = all(area.share is None for area in chart.areas)
        self.keys = self._keys(self.base + below + 4)
        n_lines = len({y for _, y, *_ in self.keys})
        self.width = self.right + last if chart.is_square and not chart.keys else chart.width
        self.height = round(self.base + below + n_lines * _LINE + 4 * bool(n_lines), 1)

    def x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * self.chart.x.share(value), 1)

    def y(self, value: float) -> float:
        return round(self.base - (self.base - self.top) * self.chart.y.share(value), 1)

    def drawn(self) -> dict[str, Any]:
        """Return what the template draws."""
        chart = self.chart
        return {
            "x_ticks": [(self.x(value), _short(text)) for value, text in chart.x.ticks],
            "y_ticks": [(self.y(value), _short(text)) for value, text in chart.y.ticks],
            "lines": [(line, self._path(line.points), self._band(line)) for line in chart.lines],
            "line_names": self._line_names(),
            "marks": [(mark, self.x(mark.x), self.y(mark.y), self._interval(mark)) for mark in chart.marks],
            "names": self.names(),
            "areas": [(area, *self._rectangle(area)) for area in chart.areas],
            "signs": self.keys,
        }

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def _band(self, line: Polyline) -> str:
        """Return the outline of a band: along its upper edge, and back along the lower one."""
        upper, lower = ([(x, end[i]) for x, *end in line.band] for i in (1, 0))
        return self._path([*upper, *reversed(lower)])

    def _interval(self, mark: Mark) -> tuple[float, float] | None:
        return None if mark.low is None or mark.high is None else (self.y(mark.low), self.y(mark.high))

    def _rectangle(self, area: Area) -> Box:
        """Return left, top, width and height."""
        (left, right), (low, high) = map(self.x, area.x), map(self.y, area.y)
        return left, high, round(right - left, 1), round(low - high, 1)

    def _line_names(self) -> list[tuple[float, float, Polyline]]:
        """Return the names at the ends of lines, moved down until none covers another."""
        named = [line for line in self.chart.lines if line.name]
        found, lowest = [], -math.inf
        for line in sorted(named, key=lambda line: self.y(line.points[-1][1])):
            x, y = line.points[-1]
            lowest = max(self.y(y) + 4, lowest + 14)
            found.append((round(self.x(x) + 10, 1), round(lowest, 1), line))
        return found

    def names(self) -> list[tuple[float, float, str, str, Box | None]]:
        """Return (x, y, anchor, name, line from the mark to it) of the names of marks.

        Each gets the first free place beside its mark, filled marks first; where there is none, a table has to do.
        """
        named = [mark for mark in self.chart.marks if mark.name and len(mark.name) <= MAX_NAME]
        around = self.chart.marks if named else []
        taken = [_around(self.x(mark.x), self.y(mark.y)) for mark in around]
        taken += [
            (self.x(mark.x) - 1, ends[1], self.x(mark.x) + 1, ends[0])
            for mark in around
            if (ends := self._interval(mark)) is not None
        ]
        found = []
        for mark in sorted(named, key=lambda mark: (not mark.is_filled, mark.x)):
            x, y, width = self.x(mark.x), self.y(mark.y), _LETTER * len(mark.name)
            for side, dy in _PLACES_BESIDE:
                near, far = x + 9 * side, x + (9 + width) * side
                box = (min(near, far), y + dy - 10, max(near, far), y + dy + 3)
                if self._is_free(box, taken):
                    taken.append(box)
                    leader = (x, y, round(near, 1), round(y + dy - 4, 1)) if abs(dy) > 17 else None
                    anchor = "start" if side > 0 else "end"
                    found.append((round(near, 1), round(y + dy, 1), anchor, mark.name, leader))
                    break
        return found

    def _is_free(self, box: Box, taken: Iterable[Box]) -> bool:
        left, top, right, bottom = box
        is_inside = left >= self.left + 2 and right <= self.chart.width and top >= self.top - 10 and bottom <= self.base
        return is_inside and not any(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in taken)

    def _keys(self, top: float) -> list[tuple[float, float, str, Key]]:
        """Return the keys in lines of text from `top` downwards."""
        found: list[tuple[float, float, str, Key]] = []
        x, y = 14.0, top + 8
        for key in self.chart.keys:
            text = _short(key.text)
            width = 36 + _LETTER * len(text)
            if found and x + width > self.chart.width:
                x, y = 14.0, y + _LINE
            found.append((round(x, 1), round(y, 1), text, key))
            x += width
        return found


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TICK else f"{text[: _MAX_TICK - 1]}…"


def _around(x: float, y: float) -> Box:
    return x - 6, y - 6, x + 6, y + 6
