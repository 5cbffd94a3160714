"""A finding as files: a line chart with bands as SVG, its table as Markdown and CSV, JSON, and one HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlfeat.records import Environment
from tlfeat.text import csv_text, markdown_table, page
from tlfeat.workspace import write_json, write_text

#: Of the chart, in its own units; the page scales it.
_WIDTH, _HEIGHT, _LEFT, _TOP = 760, 420, 60, 16

_LABEL_GAP = 14  # between the names at the ends of lines, so that equal ends can be read

_MAX_TICK = 22  # letters of a name below the chart


@dataclass(frozen=True, slots=True)
class Point:
    """One measured place of a line: shares between 0 and 1 upwards; `low` and `high` bound its band."""

    x: float
    y: float
    low: float
    high: float
    text: str
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; a single point has bars in place of a band."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one axis; `x_ticks` are places and what stands there, `is_log_x` spaces them by ratio."""

    x_label: str
    x_ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]
    is_log_x: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a command found out: the words first, then the chart, the table and what its numbers mean.

    Attributes
    ----------
    name : str
        Of the files.
    title : str
    sentences : sequence of str
        The answer.
    chart : Chart
    headings, rows
        The table; `chosen_row` is set off.
    legend : sequence of str
        What the numbers include, and what not.
    records : sequence of mappings
        The same for scripts.
    about : mapping
        How it was made.
    """

    name: str
    title: str
    sentences: Sequence[str]
    chart: Chart
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[str]
    records: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any] = field(default_factory=dict)
    chosen_row: int | None = None


def percent_axis(lowest: float, highest: float) -> tuple[int, int, int]:
    """Return (bottom, top, step) in percent of an axis with round ticks, at most 20 of them, around two shares."""
    step = next(s for s in (1, 2, 5, 10, 20) if s >= 20 * (highest - lowest))
    bottom = step * math.floor(100 * lowest / step)
    return bottom, max(bottom + step, min(100, step * math.ceil(100 * highest / step))), step


def to_markdown(finding: Finding) -> str:
    """Return the words, the table and its legend."""
    return "\n".join(
        [
            f"# {finding.title}",
            "",
            *(f"{sentence}\n" for sentence in finding.sentences),
            markdown_table(finding.headings, finding.rows),
            "",
            *(f"- {sentence}" for sentence in finding.legend),
            "",
        ]
    )


def to_svg(chart: Chart) -> str:
    """Return the chart as one SVG element that stands alone, light or dark as its reader prefers."""
    every = [point for series in chart.series for point in series.points]
    bottom, top, step = percent_axis(min(p.low for p in every), max(p.high for p in every))
    right = _WIDTH - 22 - 6.4 * max(len(series.name) for series in chart.series)
    is_tilted = 7 * sum(len(name) + 1 for _, name in chart.x_ticks) > right - _LEFT  # else they stand side by side
    base = _HEIGHT - (150 if is_tilted else 52)
    places = [math.log(x) if chart.is_log_x else x for x, _ in chart.x_ticks]
    places += [math.log(p.x) if chart.is_log_x else p.x for p in every]
    first, span = min(places), (max(places) - min(places)) or 1.0

    def x_of(x: float) -> float:
        return round(_LEFT + 10 + (right - _LEFT - 20) * ((math.log(x) if chart.is_log_x else x) - first) / span, 1)

    def y_of(share: float) -> float:
        return round(base - (base - _TOP) * (100 * share - bottom) / (top - bottom), 1)

    lines = []
    for i, series in enumerate(chart.series):
        points = sorted(series.points, key=lambda p: p.x)
        band = [(x_of(p.x), y_of(p.high)) for p in points] + [(x_of(p.x), y_of(p.low)) for p in reversed(points)]
        lines.append(
            {
                "name": series.name,
                "colour": i % 8,
                "path": " ".join(f"{x_of(p.x)},{y_of(p.y)}" for p in points),
                "band": " ".join(f"{x},{y}" for x, y in band) if len(points) > 1 else "",
                "dots": [
                    (x_of(p.x), y_of(p.y), y_of(p.low), y_of(p.high), p.text, p.is_marked, len(points) == 1)
                    for p in points
                ],
                "label_x": x_of(points[-1].x) + 12,
                "label_y": y_of(points[-1].y) + 4,
            }
        )
    _push_apart(lines)
    return page(
        "chart.svg",
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        top=_TOP,
        right=round(right, 1),
        base=base,
        is_tilted=is_tilted,
        x_label=chart.x_label,
        x_ticks=[
            (x_of(x), name if len(name) <= _MAX_TICK else f"{name[: _MAX_TICK - 1]}…") for x, name in chart.x_ticks
        ],
        y_ticks=[(y_of(tick / 100), f"{tick} %") for tick in range(bottom, top + 1, step)],
        lines=lines,
        summary="; ".join(f"{s.name} ends at {100 * s.points[-1].y:.1f} %" for s in chart.series),
    )


def _push_apart(lines: list[dict[str, Any]]) -> None:
    """Move names down until none covers another."""
    lowest = -math.inf
    for line in sorted(lines, key=lambda line: float(line["label_y"])):
        lowest = line["label_y"] = max(line["label_y"], lowest + _LABEL_GAP)


def to_html(finding: Finding) -> str:
    """Return one page that needs nothing from elsewhere."""
    from markupsafe import Markup

    return page(
        "finding.html",
        finding=finding,
        title=finding.title,
        svg=Markup(to_svg(finding.chart)),  # escaped when it was made
        about=json.dumps(finding.about, indent=1),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def write_finding(finding: Finding, folder: Path) -> dict[str, Path]:
    """Write NAME.md, .csv, .json, .html and .svg into `folder` and return their paths by ending."""
    paths = {ending: folder / f"{finding.name}.{ending}" for ending in ("md", "csv", "json", "html", "svg")}
    write_text(paths["md"], to_markdown(finding))
    write_text(paths["csv"], csv_text(finding.records))
    write_json(paths["json"], document(finding))
    write_text(paths["html"], to_html(finding))
    write_text(paths["svg"], to_svg(finding.chart))
    return paths


def document(finding: Finding) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "title": finding.title,
        "sentences": list(finding.sentences),
        "lines": [dict(record) for record in finding.records],
        "legend": list(finding.legend),
        **finding.about,
    }
