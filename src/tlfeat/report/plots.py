"""Charts as SVG and PNG files for papers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from tlfeat.errors import DataError
from tlfeat.evaluate.split import Split
from tlfeat.records import Result
from tlfeat.report import drawings
from tlfeat.report.charts import Chart, to_svg_file
from tlfeat.report.embedding_map import EmbeddingMap
from tlfeat.studies.compare import Comparison
from tlfeat.studies.tradeoff import seconds_of
from tlfeat.text import one_line, percent
from tlfeat.workspace import written_aside

#: Dots an inch of the PNG files: what journals ask of line art with text. A unit of a chart is a CSS pixel, 1/96 inch.
_DPI = 300

#: Letters that the font of the package has not; a font of the machine is looked for only for these.
_OTHER_LETTERS = re.compile("[^\x00-\u045f\u2010-\u2265]")

#: The time that the chart for papers shows.
_COST = "choosing and fitting"


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
    written: list[Path] = []
    if any(seconds_of(line.result, _COST) is not None for line in comparison.lines):
        heading = "Bars: 95 % intervals. Filled: none is both faster and more accurate"
        written += write_charts(
            folder, "accuracy-seconds", [drawings.accuracy_seconds(comparison.lines, _COST)], heading
        )
    names = [one_line(line.name) for line in comparison.lines]
    for name, file_name, line in zip(names, file_names(names), comparison.lines, strict=True):
        found = line.result.score
        written += _write_curves(line.result, folder, name, file_name)
        heading = f"{name}: {percent(found.accuracy)}. Colour: share of the true class"
        written += write_charts(folder, f"confusion-{file_name}", [drawings.confusion_matrix(line.result)], heading)
        if found.calibration:
            chart = drawings.reliability(found.calibration, drawings.style_of(line.result))
            heading = f"{name}: calibration error {percent(found.calibration.ece)}"
            written += write_charts(folder, f"reliability-{file_name}", [chart], heading)
    if found_map and split:
        for kind in found_map.points:
            chart = drawings.embedding_map(found_map, kind, split.labels[found_map.at], split.classes)
            written += write_charts(folder, f"map-{kind}", [chart], chart.title)
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
    charts = drawings.learning_curves(result)
    return write_charts(folder, f"learning-curves-{file_name}", charts, name) if charts else []


def file_names(names: Sequence[str]) -> list[str]:
    """Return names that any file system takes, no two of them equal."""
    found: list[str] = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-.")[:80] or "candidate"
        found.append(safe if safe not in found else f"{safe}-{len(found)}")
    return found


def write_charts(folder: Path, name: str, charts: Sequence[Chart], heading: str) -> list[Path]:
    """Write charts side by side as NAME.svg and NAME.png into `folder`, made where it is not there; return the paths.

    Raises
    ------
    DataError
        The folder cannot be written to.
    """
    svg = to_svg_file(charts, heading)
    paths = []
    try:
        for ending, written in (("svg", svg.encode()), ("png", to_png(svg))):
            path = folder / f"{name}.{ending}"
            with written_aside(path) as aside:
                aside.write_bytes(written)
            paths.append(path)
    except OSError as error:
        raise DataError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    return paths


def to_png(svg: str) -> bytes:
    """Return an SVG file of ours as PNG at print resolution, its text in the font of the package."""
    import resvg_py
    from PIL import Image

    with as_file(files(__package__).joinpath("font/DejaVuSans.ttf")) as font:
        drawn = resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=_DPI / 96,
            font_files=[str(font)],
            font_family="DejaVu Sans",
            skip_system_fonts=_OTHER_LETTERS.search(svg) is None,
        )
    out = io.BytesIO()
    with Image.open(io.BytesIO(drawn)) as image:
        image.convert("RGB").save(out, "PNG", dpi=(_DPI, _DPI))
    return out.getvalue()
