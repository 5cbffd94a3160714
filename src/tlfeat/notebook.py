"""What a notebook shows: tables as HTML, small pictures in them, and the packages that only notebooks need."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from tlfeat.errors import UsageError
from tlfeat.text import one_line

_INSTALL = "pip install 'tlfeat[notebook]'"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def import_pandas(what: str) -> Any:
    """Return pandas; a `UsageError` says that `what` needs it."""
    try:
        import pandas
    except ImportError as error:
        raise UsageError(f"{what} needs pandas, which is not installed: {_INSTALL}") from error
    return pandas


def import_pyplot(what: str) -> Any:
    """Return matplotlib's pyplot; a `UsageError` says that `what` needs it."""
    try:
        import matplotlib.pyplot as pyplot
    except ImportError as error:
        raise UsageError(f"{what} needs matplotlib, which is not installed: {_INSTALL}") from error
    return pyplot


def html_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], *, above: Sequence[str] = ()) -> str:
    """Return sentences and a table as HTML; every text is escaped but `Html`, and numbers stand to the right."""
    head = "".join(f"<th>{_escaped(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    sentences = "".join(f"<p>{_escaped(sentence)}</p>" for sentence in above)
    return f"<div>{sentences}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def html_picture(jpeg: bytes, alt: str) -> Html:
    """Return a small JPEG as an image that needs no file; "" for no bytes."""
    if not jpeg:
        return Html("")
    source = base64.b64encode(jpeg).decode()
    return Html(f'<img src="data:image/jpeg;base64,{source}" alt="{_escaped(alt)}">')


def _cell(value: Any) -> str:
    align = "right" if isinstance(value, int | float) else "left"
    return f'<td style="text-align:{align}">{_escaped(value)}</td>'


def _escaped(value: Any) -> str:
    if isinstance(value, Html):
        return str(value)
    return html.escape(f"{value:,}" if isinstance(value, int) else one_line(str(value)))


def spread(n: int, n_shown: int) -> list[int]:
    """Return at most `n_shown` of the first `n` whole numbers, in even steps, for a table that shows some rows."""
    return list(range(n)) if n <= n_shown else [i * n // n_shown for i in range(n_shown)]
