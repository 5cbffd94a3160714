"""Numbers, tables and pages as text."""

from __future__ import annotations

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


#: With these a cell begins that spreadsheets compute instead of showing it; OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

#: What begins HTML in Markdown (CommonMark 0.31, 6.5 and 6.6), and what makes words in brackets a link or a picture.
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|\]\(")


def printable(text: str) -> str:
    """Return text that any terminal can show: no control characters but newline and tab, no lone surrogates."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """Return a file name or label on one line, whatever is in it."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def composed(name: str) -> str:
    """Return a name with accents in the letters (NFC); macOS parts them (NFD), and both look the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def wrapped(text: str, width: int | None) -> str:
    """Break lines longer than `width` between words, what follows two columns further in; None breaks nothing."""
    if width is None:
        return text
    return "\n".join(_wrapped_line(line, width) if len(line) > width else line for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())] + "  "
    found = textwrap.fill(
        line.replace(" %", "\u00a0%"),  # which does not break
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return found.replace("\u00a0%", " %")


def aligned(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    n_left: int = 1,
    width: int | None = None,
    droppable: Sequence[str] = (),
) -> str:
    """Return a plain table: the first `n_left` columns to the left, the others to the right.

    Parameters
    ----------
    headings, rows : sequences
    n_left : int, default=1
    width : int, optional
        Of the terminal. What does not fit loses its `droppable` columns one by one, the first first; what still does
        not fit becomes a block of lines for each row.
    droppable : sequence of str
        Headings.
    """
    table = _columns(headings, rows, n_left)
    if width is None or _width_of(table) <= width:
        return table
    kept = list(range(len(headings)))
    for name in droppable:
        kept.remove(headings.index(name))
        n = sum(j < n_left for j in kept)
        table = _columns([headings[j] for j in kept], [[row[j] for j in kept] for row in rows], n)
        if _width_of(table) <= width:
            return table
    return _stacked(headings, rows, width)


def _width_of(text: str) -> int:
    return max(map(len, text.split("\n")))


def _stacked(headings: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Return each row as lines: its first cell, then a heading and its cell on each line."""
    wide = max(map(len, headings[1:]), default=0)
    blocks = []
    for first, *others in rows:
        cells = zip(headings[1:], others, strict=True)
        lines = [f"  {heading.ljust(wide)}  {one_line(str(cell))}" for heading, cell in cells]
        blocks.append(wrapped("\n".join([one_line(str(first)), *lines]), width))
    return "\n".join(blocks)


def _columns(headings: Sequence[str], rows: Sequence[Sequence[Any]], n_left: int) -> str:
    cells = [[one_line(str(cell)) for cell in row] for row in [headings, *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(headings))]
    lines = [
        "  ".join(
            cell.ljust(w) if j < n_left else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0].rstrip()), *lines[1:]])


def value_text(value: object) -> str:
    """Return a value for a table: a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


#: Our own words for what a cache holds; not where they are part of a path, an option or a quoted name.
_OF_IMAGES = re.compile(r"(?<![\w/.\-'\"=])(image|picture|Image|Picture|IMAGE)(s?)(?![\w/\-'\"=]|\.\w)(  )?")

_OF_TEXTS = {"image": "text", "picture": "text", "Image": "Text", "Picture": "Text", "IMAGE": "TEXT"}

#: Of a template: what is no text of the page.
_NO_TEXT = re.compile(r"(\{% block style %\}.*?\{% endblock %\}|\{%.*?%\}|\{\{.*?\}\}|<[^>]*>)", re.DOTALL)


def in_words_of(holds: str, text: str) -> str:
    """Return a sentence that was written for images in the words for what is there: "texts"; columns stay in line."""
    return text if holds == "images" else _OF_IMAGES.sub(_of_texts, text)


def _of_texts(found: re.Match[str]) -> str:
    word = _OF_TEXTS[found[1]] + found[2]
    return f"{word:<{len(found[0])}}" if found[3] else word


def words_for(holds: str, names: Sequence[str]) -> str:
    """Return for what `in_words_of` shall write sentences that hold these names of the user's: it would change some."""
    return "images" if any(_OF_IMAGES.search(name) for name in names) else holds


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return "1 image" or "1,200 images"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


@cache
def _templates(package: str, *, is_markdown: bool, holds: str) -> jinja2.Environment:
    import jinja2

    def of_texts(source: str) -> str:
        parts = _NO_TEXT.split(source)
        return "".join(in_words_of(holds, part) if i % 2 == 0 else part for i, part in enumerate(parts))

    class _Loader(jinja2.PackageLoader):
        def get_source(self, *arguments: Any) -> Any:
            source, *more = super().get_source(*arguments)
            return (source if holds == "images" else of_texts(source), *more)

    return jinja2.Environment(
        finalize=_markdown_value if is_markdown else None,
        autoescape=jinja2.select_autoescape(("html", "svg")),
        undefined=jinja2.StrictUndefined,
        loader=_Loader(package),
        trim_blocks=True,
    )


def page(package: str, template: str, **values: Any) -> str:
    """Fill a template of a package's folder ``templates``.

    Every text in HTML and SVG is escaped, in Markdown it is `in_markdown`, and nothing may be left out. With a value
    `holds` of "texts" the words of the template are those for texts.
    """
    templates = _templates(package, is_markdown=template.endswith(".md"), holds=values.get("holds", "images"))
    return templates.get_template(template).render(**values)


def csv_cell(value: Any) -> Any:
    """Return a value as it can stand in a CSV: text that a spreadsheet would take for a formula begins with ``'``."""
    is_formula = isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a record, plain numbers, without the nested fields; an interval becomes two columns."""
    flat = [
        {
            name: value
            for name, value in (
                {**r, "ci95_low": r["ci95"][0], "ci95_high": r["ci95"][1]} if r.get("ci95") else r
            ).items()
            if not isinstance(value, list | tuple | dict)
        }
        for r in records
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(dict.fromkeys(name for r in flat for name in r)))
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in record.items()} for record in flat)
    return out.getvalue()


def in_markdown(text: str) -> str:
    """Return a text on one line in which Markdown finds no HTML, and no link or picture of somewhere else."""
    return _MARKUP.sub(lambda found: "&lt;" if found[0] == "<" else "]\\(", one_line(text))


def _markdown_value(value: Any) -> Any:
    """What a template puts in: of a text each line by itself, as whole tables are among them."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(in_markdown, value.split("\n")))


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; no bar or line break within a cell ends it, and cells are `in_markdown`."""
    cells = [[in_markdown(cell).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(headings), *lines[1:]])


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def interval_text(ends: Sequence[float] | None) -> str:
    """Return the ends of an interval of shares, in percent without its sign: "80.1 to 95.3"."""
    return " to ".join(f"{100 * end:.1f}" for end in ends) if ends else "–"


def seconds(value: float | None) -> str:
    """Return a duration with a unit that keeps two or three digits."""
    if value is None:
        return "–"
    if value < 0.001:
        return f"{1e6 * value:.0f} µs"
    if value < 1:
        return f"{1e3 * value:.1f} ms" if value < 0.1 else f"{1e3 * value:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def size(n_bytes: int) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten)."""
    if n_bytes < 1e6:
        return f"{n_bytes / 1e3:.0f} kB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"
