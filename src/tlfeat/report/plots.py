"""The charts of a comparison as SVG and PNG files for papers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.errors import DataError
from tlfeat.evaluate.split import Split
from tlfeat.records import Result
from tlfeat.report.charts import accuracy_seconds
from tlfeat.report.embedding_map import KINDS, EmbeddingMap
from tlfeat.studies.compare import Comparison, Line
from tlfeat.studies.tradeoff import seconds_of
from tlfeat.text import one_line, percent

#: Dots an inch of the PNG files: what journals ask of line art with text.
_DPI = 300

#: Told apart by most who do not see all colours, and in print (Okabe and Ito 2008); with another sign each.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F6A00")

_SIGNS = "os^DPvX*"

_SIGN_OF = {"pixels": ("^", "#55555F"), "head": ("o", _COLOURS[0]), "keras": ("s", _COLOURS[1])}

#: The time that the chart for papers shows.
_COST = "choosing and fitting"

#: Classes beyond which a matrix has no numbers in its cells.
_MAX_NUMBERS = 20


def write_plots(
    comparison: Comparison, folder: Path, *, found_map: EmbeddingMap | None = None, split: Split | None = None
) -> list[Path]:
    """Write every chart of a comparison into `folder` and return the paths.

    accuracy-seconds, learning-curves-NAME, confusion-NAME, reliability-NAME and map-KIND, each as .svg and .png.

    Parameters
    ----------
    found_map, split : EmbeddingMap and Split, optional
        What the map shows; left out without both.
    """
    names = [line.name for line in comparison.lines]
    written: list[Path] = []
    if any(seconds_of(line.result, _COST) is not None for line in comparison.lines):
        written += _write(folder, "accuracy-seconds", (6.0, 4.2), partial(_accuracy_seconds, lines=comparison.lines))
    for name, file_name, line in zip(names, file_names(names), comparison.lines, strict=True):
        drawn: dict[str, Any] = {"result": line.result, "name": name}
        side = min(12.0, 2.6 + 0.45 * len(line.result.classes))
        written += _write_curves(line.result, folder, name, file_name)
        written += _write(folder, f"confusion-{file_name}", (side + 0.8, side), partial(_confusion, **drawn))
        if line.result.score.calibration:
            written += _write(folder, f"reliability-{file_name}", (4.0, 4.0), partial(_reliability, **drawn))
    if found_map and split:
        for kind in found_map.points:
            drawing = partial(_map, found_map=found_map, split=split, kind=kind)
            written += _write(folder, f"map-{kind}", (6.0, 5.4), drawing)
    return written


def learning_curves(result: Result, folder: Path) -> list[Path]:
    """Write loss and accuracy by epoch as learning-curves-CANDIDATE.svg and .png into `folder`; return the paths.

    Parameters
    ----------
    result : Result
        Of a network; nothing is written for one without a history.
    folder : Path
        Made where it is not there.

    Raises
    ------
    DataError
        The folder cannot be written to.
    """
    return _write_curves(result, folder, result.candidate, file_names([result.candidate])[0])


def _write_curves(result: Result, folder: Path, name: str, file_name: str) -> list[Path]:
    panels = [what for what in ("loss", "accuracy") if result.history.get(what)]
    if not panels:
        return []
    drawing = partial(_curves, result=result, name=name, panels=panels)
    return _write(folder, f"learning-curves-{file_name}", (3.6 * len(panels), 3.2), drawing)


def file_names(names: Sequence[str]) -> list[str]:
    """Return names that any file system takes, no two of them equal."""
    found: list[str] = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-.")[:80] or "candidate"
        found.append(safe if safe not in found else f"{safe}-{len(found)}")
    return found


def _text(text: str) -> str:
    """Return a name as matplotlib shall show it: on one line, and a dollar is no formula."""
    return one_line(text).replace("$", r"\$")


def _write(folder: Path, name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> list[Path]:
    """Draw on a figure of its own and write it twice; the SVG has no date, so that equal charts are equal files."""
    import matplotlib
    from matplotlib.figure import Figure

    paths = [folder / f"{name}.{ending}" for ending in ("svg", "png")]
    style: Any = {"svg.hashsalt": "tlfeat", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a class name in a script the font has not
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                aside = path.with_name(f".{path.name}.tmp")
                is_svg = path.suffix == ".svg"
                figure.savefig(aside, format=path.suffix[1:], dpi=_DPI, metadata={"Date": None} if is_svg else None)
                aside.replace(path)
        except OSError as error:
            raise DataError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    return paths


def _accuracy_seconds(figure: Any, lines: Sequence[Line]) -> None:
    """Draw the chart of the page, in its units: its names have found their places already."""
    plot = accuracy_seconds(lines, _COST)
    axes = figure.add_subplot()
    for mark in plot.marks:
        sign, colour = _SIGN_OF[mark.style]
        if mark.low is not None and mark.high is not None:
            axes.vlines(mark.x, mark.low, mark.high, color=colour)
        axes.plot(mark.x, mark.y, sign, color=colour, markerfacecolor=colour if mark.is_filled else "white")
        if mark.leader:
            axes.plot([mark.x, mark.leader[0]], [mark.y, mark.leader[1]], color="grey", linewidth=0.6, zorder=1)
        if mark.label:
            axes.text(*mark.label, _text(mark.name), fontsize=8)
    axes.set_xticks([x for x, _ in plot.x_ticks], [text for _, text in plot.x_ticks])
    axes.set_yticks([y for y, _ in plot.y_ticks], [text for _, text in plot.y_ticks])
    axes.set(xlim=(plot.x_ticks[0][0], plot.x_ticks[-1][0]), ylim=(plot.y_ticks[0][0], plot.y_ticks[-1][0] - 4))
    axes.set(xlabel=f"seconds, {_COST}", ylabel="accuracy on test images")
    axes.set_title("Bars: 95 % intervals. Filled: none is both faster and more accurate", fontsize=8, loc="left")
    axes.grid(alpha=0.3)


def _curves(figure: Any, result: Result, name: str, panels: Sequence[str]) -> None:
    best = result.chosen.get("best_epoch")
    for axes, what in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        scale = 100 if what == "accuracy" else 1
        for recorded, title, style, colour in (
            (what, "training", "--", _COLOURS[0]),
            (f"val_{what}", "validation", "-", _COLOURS[1]),
        ):
            values = scale * np.array(result.history.get(recorded, []), dtype=float)
            axes.plot(np.arange(1, len(values) + 1), values, style, color=colour, label=title, marker=".")
        if best:
            axes.axvline(best, color="black", linestyle=":", linewidth=1, label=f"chosen: epoch {best}")
        axes.set(xlabel="epoch", ylabel="accuracy, %" if what == "accuracy" else "loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle(_text(name), fontsize=9)


def _confusion(figure: Any, result: Result, name: str) -> None:
    axes = figure.add_subplot()
    counts = np.array(result.score.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_text(title if len(title) <= 18 else f"{title[:17]}…") for title in result.classes]
    size = 8 if len(names) <= _MAX_NUMBERS else max(2, 160 / len(names))
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    if len(names) <= _MAX_NUMBERS:
        for i, j in np.argwhere(counts):
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8,
                      color="white" if shares[i, j] > 0.55 else "black")  # fmt: skip
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{_text(name)}: {percent(result.score.accuracy)}", fontsize=9)
    figure.colorbar(shown, ax=axes, label="share of the true class", shrink=0.8)


def _reliability(figure: Any, result: Result, name: str) -> None:
    axes = figure.add_subplot(aspect="equal")
    table = result.score.calibration.table if result.score.calibration else []
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for row in table:
        low, high = row["right_ci95"]
        below, above = max(0.0, row["right"] - low), max(0.0, high - row["right"])
        axes.errorbar(row["probability"], row["right"], yerr=[[below], [above]], fmt="o", color=_COLOURS[0], capsize=2)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability", ylabel="share that is right")
    ece = result.score.calibration.ece if result.score.calibration else 0.0
    axes.set_title(f"{_text(name)}: ECE {percent(ece)}", fontsize=9)
    axes.grid(alpha=0.3)


def _map(figure: Any, found_map: EmbeddingMap, split: Split, kind: str) -> None:
    axes = figure.add_subplot(aspect="equal")
    points, labels = found_map.points[kind], split.labels[found_map.at]
    for c, name in enumerate(split.classes):
        of_class = points[labels == c]
        axes.scatter(
            *of_class.T, s=7, linewidths=0, color=_COLOURS[c % 8], marker=_SIGNS[(c + c // 8) % 8], label=_text(name)
        )
    if kind == "pca":
        x, y = (percent(share) for share in found_map.explained)
        axes.set(xlabel=f"first component ({x} of the variance)", ylabel=f"second component ({y})")
    else:
        axes.set(xticks=[], yticks=[])
    axes.set_title(f"{KINDS[kind]} of {_text(found_map.layer)}, {len(points):,} images", fontsize=9)
    if len(split.classes) <= 40:
        axes.legend(
            fontsize=6, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(split.classes) // 21
        )
