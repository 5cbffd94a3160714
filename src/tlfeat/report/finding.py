"""A finding as files: its chart as SVG, its table as Markdown and CSV, JSON, and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlfeat.records import Environment
from tlfeat.report.charts import Chart, to_svg, to_svg_file
from tlfeat.studies.curve import Curve
from tlfeat.studies.sweep import Sweep
from tlfeat.text import csv_text, in_markdown, markdown_table, page
from tlfeat.workspace import write_forms

if TYPE_CHECKING:  # these import scikit-learn
    from tlfeat.studies.adapt import Adaptation
    from tlfeat.studies.leave_one_out import LeaveOneOut


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
    droppable : sequence of str
        Headings of columns that a narrow terminal leaves out, the first first.
    n_left : int, default=1
        Columns of words, which stand at the left of their column in a terminal.
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
    droppable: Sequence[str] = ()
    n_left: int = 1


def about(study: Curve | Sweep | Adaptation, **more: Any) -> dict[str, Any]:
    """Return how a study was made, for ``Finding.about``; `more` is what only this one has."""
    return {
        "cache": str(study.cache),
        "backbone": study.backbone,
        **more,
        "split": study.split.to_dict(),
        "skipped": [list(pair) for pair in study.skipped],
        "environment": Environment.current().to_dict(),
    }


def remarks(study: Curve | Sweep | Adaptation | LeaveOneOut, missing: str) -> list[str]:
    """Return what a study could not do, and its notes; `missing` is "not run", or what else befell the skipped ones."""
    return [*(f"{missing}: {name}: {why}" for name, why in study.skipped), *(f"note: {note}" for note in study.notes)]


def points(share: float) -> str:
    """Return a difference in percentage points with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def p_text(p: float | None) -> str:
    """Return a p-value as it is written."""
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def to_markdown(finding: Finding) -> str:
    """Return the words, the table and its legend."""
    return "\n".join(
        [
            f"# {in_markdown(finding.title)}",
            "",
            *(f"{in_markdown(sentence)}\n" for sentence in finding.sentences),
            markdown_table(finding.headings, finding.rows),
            "",
            *(f"- {in_markdown(sentence)}" for sentence in finding.legend),
            "",
        ]
    )


def to_html(finding: Finding) -> str:
    """Return one page that needs nothing from elsewhere."""
    from markupsafe import Markup

    return page(
        __package__,
        "finding.html",
        finding=finding,
        title=finding.title,
        svg=Markup(to_svg(finding.chart)),  # escaped when it was made
        about=json.dumps(finding.about, indent=1),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def write_finding(finding: Finding, folder: Path) -> dict[str, Path]:
    """Write NAME.md, .csv, .json, .html and .svg into `folder` and return their paths by ending."""
    return write_forms(
        folder,
        finding.name,
        md=to_markdown(finding),
        csv=csv_text(finding.records),
        json=document(finding),
        html=to_html(finding),
        svg=to_svg_file([finding.chart]),
    )


def document(finding: Finding) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "title": finding.title,
        "sentences": list(finding.sentences),
        "lines": [dict(record) for record in finding.records],
        "legend": list(finding.legend),
        **finding.about,
    }
