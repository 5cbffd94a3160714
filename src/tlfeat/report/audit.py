"""An audit as text: terminal table, CSV, JSON and one self-contained HTML page with pictures."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files as package_files
from pathlib import Path

from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.records import Environment
from tlfeat.studies.findings import KINDS, Audit, Finding, Group, to_document
from tlfeat.text import aligned, counted, csv_cell, page
from tlfeat.texts.read import snippet
from tlfeat.workspace import write_forms

#: Findings or groups of one kind that the terminal shows; all of them are in audit.csv and audit.json.
_MAX_LINES = 10

#: Images of one group that the terminal and the page show.
_MAX_MEMBERS = 6

#: Findings or groups of one kind with their pictures in the page, of 4 kB each.
_MAX_PICTURES = 60

_THUMBNAIL_SIDE = 128

#: Characters of a text beside a finding in the terminal.
_SHORT = 40

#: How far each kind can be trusted: measured by benchmarks/audit.py, conditions in docs/benchmarks/audit.md.
_COPIES = "exact ones are certain; changed ones: 6 false alarms in 10,000 pictures"

TRUST = {
    "leak": _COPIES,
    "conflict": _COPIES,
    "duplicate": _COPIES,
    "label": "look at each",
    "outlier": "look at each: 0.2 to 0.5 % of ordinary sets are listed",
    "imbalance": "counted",
}

#: Doubted labels that were counted apart, and that the page shows.
N_SUREST = 20


@dataclass(frozen=True, slots=True)
class _Band:
    """Sets on which heads did about as well, and percentages of doubted labels that were wrong there."""

    low: float
    agreement: str
    surest: int
    listed: int
    surest_of_few: int
    listed_of_few: int


#: Of planted wrong labels: the table of docs/benchmarks/audit.md.
_BANDS = (
    _Band(0.9, "91 to 96", 100, 82, 64, 52),
    _Band(0.8, "82 to 88", 91, 74, 30, 16),
    _Band(0.0, "61 to 78", 67, 28, 15, 5),
)

#: Of copies where there were no pictures to look at.
_COPIES_BY_ROWS = "exact ones are certain; of changed ones rows alone found 164 of 250, with no false alarm"

#: Of copies of texts: of 500 planted and of 8,000 docstrings, docs/benchmarks/text.md.
_COPIES_OF_TEXTS = "exact ones are certain; changed ones have most of their characters in common: look at each"

_HEADINGS = {
    "leak": ("test image", "training image", "how"),
    "conflict": ("group", "images", "how"),
    "duplicate": ("group", "images", "how"),
    "label": ("image", "label", "probably", "why"),
    "outlier": ("image", "label", "why"),
    "imbalance": ("what",),
}


def to_text(found: Audit) -> str:
    """Return what ``tlfeat audit`` prints: a line a kind, then the surest findings of each."""
    table = [(found.title(kind), len(found.of_kind(kind)), _trust(found, kind)) for kind in KINDS]
    blocks = [
        f"{counted(found.n_images, found.noun)} in {counted(len(found.n_by_class), 'class', 'classes')}: "
        + ", ".join(f"{name} {n:,}" for name, n in found.n_by_class.items()),
        aligned(("looked for", "found"), [(found.title(kind), _n_found(found, kind)) for kind in KINDS]),
        "\n".join(
            f"{'Copies' if sure.startswith('exact') else what.capitalize()}: {sure}." for what, sure in _measured(table)
        ),
    ]
    for kind in KINDS:
        rows: list[tuple[str, ...]] = [_line(group) for group in found.groups_of(kind)]
        rows = rows or [_cells(finding, found.snippets) for finding in found.of_kind(kind)]
        if rows:
            more = f"\n... and {len(rows) - _MAX_LINES:,} more" if len(rows) > _MAX_LINES else ""
            headings = _headings(found, kind)
            lines = aligned(headings, rows[:_MAX_LINES], n_left=len(headings))
            blocks.append(f"{found.title(kind).capitalize()}\n{lines}{more}")
    return "\n\n".join(blocks)


def _n_found(found: Audit, kind: str) -> str:
    n, n_groups = len(found.of_kind(kind)), len(found.groups_of(kind))
    return f"{n:,} in {counted(n_groups, 'group')}" if n_groups else f"{n:,}"


def _line(group: Group) -> tuple[str, ...]:
    shown = [_named(*image) for image in zip(group.paths, group.labels, group.splits, strict=True)][:_MAX_MEMBERS]
    n_more = len(group.paths) - len(shown)
    return str(group.number), "  ".join(shown) + (f"  and {n_more:,} more" if n_more else ""), group.detail


def _trust(found: Audit, kind: str) -> str:
    if kind == "label" and found.agreement is not None:
        return f"{TRUST[kind]}. {label_trust(found.agreement)}"
    if TRUST[kind] == _COPIES and found.holds == "texts":
        return _COPIES_OF_TEXTS
    return _COPIES_BY_ROWS if TRUST[kind] == _COPIES and found.home is None else TRUST[kind]


def label_trust(agreement: float) -> str:
    """Return how many of the doubted labels were wrong where heads did as well as `agreement`, a share, says."""
    band = next(band for band in _BANDS if agreement >= band.low)
    return (
        f"A head that had not seen them agrees with {100 * agreement:.0f} % of the labels here. On sets where it "
        f"agreed with {band.agreement} %, of the {N_SUREST} surest {band.surest} % were wrong if 5 % of the labels "
        f"were, and {band.surest_of_few} % if 1 % were; of all listed {band.listed} % and {band.listed_of_few} %"
    )


def _measured(table: list[tuple[str, int, str]]) -> list[tuple[str, str]]:
    """Return what was measured of the kinds that were found, each sentence once."""
    return list({sure: (what, sure) for what, n, sure in table if n and sure != TRUST["imbalance"]}.values())


def _headings(found: Audit, kind: str) -> tuple[str, ...]:
    """Return the headings of a kind of findings; of one text, its beginning stands last."""
    if found.holds != "texts":
        return _HEADINGS[kind]
    named = tuple(name.replace("image", "text") for name in _HEADINGS[kind])
    return (*named, "beginning") if kind in ("label", "outlier") and found.snippets else named


def _cells(finding: Finding, snippets: Mapping[str, str]) -> tuple[str, ...]:
    beginning = (snippet(snippets.get(finding.path, ""), _SHORT),) if snippets else ()
    if finding.kind == "leak":
        one = _named(finding.path, finding.label, finding.split)
        return one, _named(finding.other, finding.other_label, finding.other_split), finding.detail
    if finding.kind == "label":
        return finding.path, finding.label, finding.suggestion, finding.detail, *beginning
    if finding.kind == "outlier":
        return finding.path, finding.label, finding.detail, *beginning
    return (finding.detail,)


def _named(path: str, label: str, split: str) -> str:
    return f"{path} ({', '.join(filter(None, [label, split]))})"


def to_csv(found: Audit) -> str:
    """Return one line a finding, all columns of `Finding`: of copies one an image."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=[f.name for f in fields(Finding)])
    writer.writeheader()
    for finding in found.findings:
        writer.writerow({name: csv_cell(value) for name, value in finding.to_dict().items()})
    return out.getvalue()


def to_html(found: Audit) -> str:
    """Return one page that needs nothing from elsewhere: pictures are small JPEGs in it, every text is escaped.

    Its only script, where labels are doubted, keeps the answers to "is this label right?".
    """
    from markupsafe import Markup

    pictures: dict[str, str] = {}
    sections = []
    for kind in KINDS:
        groups = found.groups_of(kind)[:_MAX_PICTURES]
        findings = [] if groups else found.of_kind(kind)[: N_SUREST if kind == "label" else _MAX_PICTURES]
        shown = {path for group in groups for path in group.paths[:_MAX_MEMBERS]}
        shown |= {path for finding in findings for path in (finding.path, finding.other) if path}
        pictures |= {path: _thumbnail(found, path) for path in sorted(shown - set(pictures))}
        n = len(found.groups_of(kind)) or len(found.of_kind(kind))
        sections.append((kind, found.title(kind), _trust(found, kind), _n_found(found, kind), n, findings, groups))
    script = package_files(__package__).joinpath("templates/audit.js").read_text(encoding="utf-8")
    script = script if found.of_kind("label") else ""
    return page(
        __package__,
        "audit.html",
        title=f"tlfeat audit: {found.cache.stem}",
        audit=found,
        sections=sections,
        pictures=pictures,
        beginnings={path: found.snippets.get(path, "") for path in pictures},
        named=_named,
        max_members=_MAX_MEMBERS,
        script=Markup(script),
        hash=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def _thumbnail(found: Audit, path: str) -> str:
    """Return a small picture as a data URI, "" where there is none, or another than was embedded."""
    if found.holds == "texts":
        return ""
    jpeg = known_thumbnail(found.home, path, found.key_of.get(path), _THUMBNAIL_SIDE)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else ""


def write_reports(found: Audit, folder: Path) -> dict[str, Path]:
    """Write audit.csv, .json and .html into `folder` and return their paths by ending."""
    return write_forms(folder, "audit", csv=to_csv(found), json=to_document(found), html=to_html(found))
