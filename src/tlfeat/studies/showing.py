"""How a comparison shows itself in Python: a table as text or HTML, a frame, a chart.

`compare` imports this module, so that `Comparison` and its lines are Any here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tlfeat.notebook import html_table, import_pandas, import_pyplot, plot_text
from tlfeat.studies.tradeoff import seconds_of
from tlfeat.text import aligned, interval_text, percent, seconds

_HEADINGS = ("model", "accuracy", "95 % interval", "macro F1", "fit", "image", "against the best")


def comparison_text(found: Any) -> str:
    """Return the table of a comparison, best first, and what was left out."""
    return "\n".join([_summary(found), "", aligned(_HEADINGS, _rows(found)), *_left_out(found)])


def comparison_html(found: Any) -> str:
    """Return the same as HTML."""
    return html_table(_HEADINGS, _rows(found), above=[_summary(found), *_left_out(found)])


def comparison_frame(found: Any) -> Any:
    """Return a pandas DataFrame of one line a candidate; an interval becomes two columns."""
    pandas = import_pandas("frame()")
    records = []
    for line in found.lines:
        flat: dict[str, Any] = {"name": line.name}
        for name, value in line.to_record().items():
            if name.endswith("ci95"):
                flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
            elif not isinstance(value, list | tuple | dict):
                flat[name] = value
        records.append(flat)
    return pandas.DataFrame(records)


def plot_comparison(found: Any, ax: Any = None) -> Any:
    """Draw accuracy and 95 % interval of each candidate, the best on top and a line at it; return the axes."""
    pyplot = import_pyplot("plot()")
    lines = found.lines[::-1]
    accuracies = np.array([100 * line.result.score.accuracy for line in lines])
    ends = np.array([[100 * end for end in line.result.score.ci95] for line in lines])  # (n, 2)
    if ax is None:
        ax = pyplot.subplots(figsize=(9, 1.2 + 0.35 * len(lines)), layout="constrained")[1]
    at = np.arange(len(lines))
    is_as_good = np.array([line.is_within_noise for line in lines])
    for chosen, colour, label in ((is_as_good, "C0", "best, or within noise of it"), (~is_as_good, "C7", "worse")):
        if chosen.any():
            reach = np.abs(ends[chosen] - accuracies[chosen, None]).T  # (2, n)
            ax.errorbar(accuracies[chosen], at[chosen], xerr=reach, fmt="o", color=colour, capsize=3, label=label)
    ax.axvline(accuracies[-1], color="C0", linewidth=0.8, linestyle=":")
    ax.margins(y=0.12)
    ax.set_yticks(at, [plot_text(line.name) for line in lines])
    ax.set_xlabel("accuracy on test images, %, with its 95 % interval")
    ax.set_title(plot_text(f"{found.backbone}, {found.cache.stem}"))
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return ax


def _summary(found: Any) -> str:
    n, split = found.lines[0].result.score.n_images, found.split
    return (
        f"{len(found.lines)} models on {found.cache.name}: {n:,} test images, {split.n_train + split.n_val:,} training "
        f"images, {len(found.classes)} classes"
    )


def _left_out(found: Any) -> list[str]:
    return [f"not run: {name}: {why}" for name, why in found.skipped] + [f"note: {note}" for note in found.notes]


def _rows(found: Any) -> list[tuple[str, ...]]:
    return [_cells(line, is_best=i == 0) for i, line in enumerate(found.lines)]


def difference_text(line: Any) -> str:
    """Return how far a candidate is from the best, in percentage points with the interval."""
    difference, low, high = (f"{100 * share:+.1f}" for share in (line.difference, *line.difference_ci95))
    return f"{difference} points ({low} to {high})"


def _cells(line: Any, *, is_best: bool) -> tuple[str, ...]:
    result = line.result
    verdict = f"{difference_text(line)}, {'within noise' if line.is_within_noise else 'worse'}"
    return (
        line.name,
        percent(result.score.accuracy),
        interval_text(result.score.ci95),
        f"{result.score.macro_f1:.3f}",
        seconds(seconds_of(result, "choosing and fitting")),
        seconds(line.image_s),
        "best" if is_best else verdict,
    )
