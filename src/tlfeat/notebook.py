"""What a notebook shows: tables as HTML, small pictures in them, and the packages that only notebooks need.

`records` imports this module, so that a `Result` is Any here.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from tlfeat.errors import UsageError
from tlfeat.text import interval_text, one_line, percent, seconds, value_text

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
    first = rows[0] if rows else headings
    head = "".join(_cell(heading, "th", below) for heading, below in zip(headings, first, strict=True))
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    sentences = "".join(f"<p>{_escaped(sentence)}</p>" for sentence in above)
    return f"<div>{sentences}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def html_picture(jpeg: bytes, alt: str) -> Html:
    """Return a small JPEG as an image that needs no file; "" for no bytes."""
    if not jpeg:
        return Html("")
    source = base64.b64encode(jpeg).decode()
    return Html(f'<img src="data:image/jpeg;base64,{source}" alt="{_escaped(alt)}">')


def html_text(beginning: str) -> Html:
    """Return the beginning of a text as it stands where an image has its picture; "" for none."""
    return Html(f"<blockquote>{_escaped(beginning)}</blockquote>" if beginning else "")


def _cell(value: Any, tag: str = "td", like: Any = None) -> str:
    """Return a cell; a number, and a heading above one, stands to the right."""
    align = "right" if isinstance(value if like is None else like, int | float) else "left"
    return f'<{tag} style="text-align:{align}">{_escaped(value)}</{tag}>'


def _escaped(value: Any) -> str:
    if isinstance(value, Html):
        return str(value)
    return html.escape(f"{value:,}" if isinstance(value, int) else one_line(str(value)))


def spread(n: int, n_shown: int) -> list[int]:
    """Return at most `n_shown` of the first `n` whole numbers, in even steps, for a table that shows some rows."""
    return list(range(n)) if n <= n_shown else [i * n // n_shown for i in range(n_shown)]


#: A wider confusion matrix says nothing in numbers.
_MAX_CLASSES = 20


def result_text(result: Any) -> str:
    """Return a Result as a few lines."""
    facts = _facts(result)
    width = max(len(name) for name, _ in facts)
    return "\n".join([_title(result), *(f"  {name.ljust(width)}  {one_line(value)}" for name, value in facts)])


def result_html(result: Any) -> str:
    """Return a Result as a table, with its confusion matrix where that is small."""
    found = html_table((_title(result), ""), _facts(result))
    if len(result.classes) > _MAX_CLASSES:
        return found
    rows = [(name, *counts) for name, counts in zip(result.classes, result.score.confusion, strict=True)]
    return found + html_table(("true \\ predicted", *result.classes), rows)


def result_frame(result: Any) -> Any:
    """Return a pandas DataFrame of one line a test image."""
    pandas = import_pandas("frame()")
    true = [result.classes[c] for c in result.true]
    predicted = [result.classes[c] for c in result.predicted]
    columns = {
        "path": result.test_paths,
        "true": true,
        "predicted": predicted,
        "probability": result.certainty,
        "is_right": [one == other for one, other in zip(true, predicted, strict=True)],
        "key": result.test_keys,
    }
    return pandas.DataFrame(columns)


def plot_confusion(result: Any, ax: Any = None) -> Any:
    """Draw the confusion matrix, its colours as shares of each true class, and return the axes."""
    pyplot = import_pyplot("plot()")
    import numpy as np

    counts = np.array(result.score.confusion)
    names = [plot_text(name) for name in result.classes]
    if ax is None:
        side = 2.2 + 0.45 * min(len(names), 2 * _MAX_CLASSES)
        ax = pyplot.subplots(figsize=(side + 0.8, side), layout="constrained")[1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    is_short = max(map(len, names)) <= 3
    turned = {} if is_short else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(names)), names, **turned)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true", title=plot_text(f"{result.candidate}: {_accuracy(result)}"))
    if len(names) <= _MAX_CLASSES:
        for i, j in np.argwhere(counts > 0).tolist():
            colour = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color=colour)
    return ax


def plot_text(text: str) -> str:
    """Return text as matplotlib shows it: a dollar sign begins no formula."""
    return one_line(text).replace("$", r"\$")


def _title(result: Any) -> str:
    return f"{result.candidate}{f' on {result.layer}' if result.layer else ''} of {result.backbone}"


def _accuracy(result: Any) -> str:
    return f"{percent(result.score.accuracy)} ({interval_text(result.score.ci95)})"


def _facts(result: Any) -> list[tuple[str, str]]:
    """Return name and value of what matters most."""
    found, timing = result.score, result.timing
    n_trained = result.split.n_train + result.split.n_val
    chosen = ", ".join(f"{name} {value_text(value)}" for name, value in result.chosen.items())
    facts = [
        ("accuracy (95 % interval)", _accuracy(result)),
        ("balanced accuracy", percent(found.balanced_accuracy)),
        ("macro F1", f"{found.macro_f1:.3f}"),
        ("images", f"{n_trained:,} training, {found.n_images:,} test"),
        ("chosen", chosen),
        ("choosing and fitting", seconds((timing.search_s or 0.0) + timing.fit_s) if timing.fit_s is not None else ""),
        ("saved in", result.model),
        ("notes", "; ".join(result.notes)),
    ]
    return [(name, value) for name, value in facts if value]
