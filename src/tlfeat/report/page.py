"""A comparison as one interactive page that needs nothing from elsewhere, and shows the pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.cache.contents import choose_layers, picture_files
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.calibration import calibration_text
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.scores import confused_pairs
from tlfeat.evaluate.split import Split
from tlfeat.images.thumbnails import COLUMNS, ROWS, Sheets, make_sheets
from tlfeat.records import Environment, Result, layers_of
from tlfeat.report import commands as provenance
from tlfeat.report.charts import Plot, accuracy_seconds, learning_curves, per_class_rows, reliability, style_of, to_svg
from tlfeat.report.comparison import coverage_text, legend, table_rows, write_tables
from tlfeat.report.embedding_map import KINDS, EmbeddingMap, make_map
from tlfeat.studies.compare import Comparison
from tlfeat.studies.tradeoff import COSTS, seconds_of
from tlfeat.text import one_line, page, percent, seconds
from tlfeat.types import Labels, OnProgress, silent
from tlfeat.workspace import write_text

#: Pictures get what the rest of the page leaves of this, and at least a tenth of it.
PAGE_BYTES = 4_500_000

#: Test images that the page knows one by one, mistakes first; the matrices count all.
MAX_TESTS = 2000

#: Tables of classes beyond this many lines are left to comparison.json.
_MAX_CLASS_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Images:
    """The images that the page knows: those of the map, then test images that are not on it.

    Attributes
    ----------
    at : int array of shape (n,)
        Positions in the split.
    tests : int array of shape (n_tests,)
        Places among the test images of the split whose pictures are there.
    """

    at: Labels
    tests: Labels


def choose_images(split: Split, results: Sequence[Result], on_map: Labels, *, max_tests: int = MAX_TESTS) -> Images:
    """Return the images of the map and as many test images as allowed: mistakes of any candidate, surest first."""
    test_at = split.where("test")
    worst = np.full(len(test_at), -1.0)
    for result in results:
        is_wrong = np.array(result.predicted) != np.array(result.true)
        worst = np.maximum(worst, np.where(is_wrong, np.array(result.certainty), -1.0))
    tests = np.sort(np.argsort(-worst, kind="stable")[:max_tests])
    known = set(on_map.tolist())
    more = [int(i) for i in test_at[tests] if int(i) not in known]
    return Images(np.array([*on_map.tolist(), *more], dtype=np.int64), tests.astype(np.int64))


def to_html(
    comparison: Comparison,
    data: Data,
    found_map: EmbeddingMap | None = None,
    *,
    n_bytes: int = PAGE_BYTES,
    on_progress: OnProgress = silent,
) -> str:
    """Return the page; every text in it is escaped, and only its own script may run.

    Parameters
    ----------
    comparison : Comparison
    data : Data
        The open cache and split of the comparison.
    found_map : EmbeddingMap, optional
        None leaves the map out.
    n_bytes : int, default=4500000
        What the page may take; pictures get smaller and coarser until it does.
    """
    from markupsafe import Markup

    results = [line.result for line in comparison.lines]
    on_map = found_map.at if found_map else np.zeros(0, dtype=np.int64)
    images = choose_images(data.split, results, on_map)
    document = _document(comparison, data.split, images, found_map)
    values = _values(comparison, data, found_map)
    n_text = len(_in_script(document)) + len(page("report.html", **values, sheets=[], data="", script="", hash=""))
    sheets = _sheets(data, images, max(n_bytes - n_text - 20_000, n_bytes // 10), on_progress)
    document["pictures"] = [size or reason for size, reason in zip(sheets.sizes, sheets.reasons, strict=True)]
    document["sheets"] = {"side": sheets.side, "columns": COLUMNS, "rows": ROWS}
    script = package_files("tlfeat.report").joinpath("templates/report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page(
        "report.html",
        **values,
        sheets=[Markup(uri) for uri in sheets.uris],
        data=Markup(_in_script(document)),
        script=Markup(script),
        hash=Markup(digest),
    )


def _in_script(document: object) -> str:
    """Return JSON that cannot end the ``<script>`` element it stands in, nor begin a comment there."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _document(comparison: Comparison, split: Split, images: Images, found_map: EmbeddingMap | None) -> dict[str, Any]:
    """Return what the script wants to know; positions instead of names, whole numbers instead of fractions."""
    place = {int(i): k for k, i in enumerate(images.at)}
    test_at = split.where("test")
    roles = ["train", "val", "test"]
    return {
        "classes": [one_line(name) for name in split.classes],
        "roles": ["learned from", "validation", "test"],
        "paths": [one_line(split.paths[i]) for i in images.at],
        "labels": split.labels[images.at].tolist(),
        "role": [roles.index(split.roles[i]) for i in images.at],
        "tests": [place[int(i)] for i in test_at[images.tests]],
        "nTests": len(test_at),
        "candidates": [
            {
                "name": one_line(line.name),
                "style": style_of(line.result),
                "confusion": line.result.score.confusion,
                "predicted": np.array(line.result.predicted)[images.tests].tolist(),
                "certainty": np.rint(10_000 * np.array(line.result.certainty)[images.tests]).astype(int).tolist(),
            }
            for line in comparison.lines
        ],
        "maps": [{"kind": kind, "points": _whole(points).ravel().tolist()} for kind, points in found_map.points.items()]
        if found_map
        else [],
    }


def _whole(points: Any) -> Any:
    """Return places as whole numbers from 0 to 1000, the same scale along both axes, the picture in the middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    return np.rint(500 + 1000 * (points - (low + high) / 2) / span).astype(int)  # (n, 2)


def _sheets(data: Data, images: Images, n_bytes: int, on_progress: OnProgress) -> Sheets:
    split = data.split
    files = picture_files(data.cache, [split.paths[i] for i in images.at])
    keys = [split.keys[i] for i in images.at]
    return make_sheets(files or [None] * len(keys), keys, n_bytes=n_bytes, on_progress=on_progress)


def _values(comparison: Comparison, data: Data, found_map: EmbeddingMap | None) -> dict[str, Any]:
    """Return what the template wants besides the pictures."""
    from markupsafe import Markup

    def drawn(plot: Plot) -> Markup:
        return Markup(to_svg(plot))  # escaped when it was made

    headings, rows = table_rows(comparison)
    results = [line.result for line in comparison.lines]
    best = results[0]
    costs = [cost for cost in COSTS if any(seconds_of(result, cost) is not None for result in results)]
    is_long = len(results) * len(comparison.classes) > _MAX_CLASS_ROWS
    return {
        "title": f"tlfeat: {one_line(comparison.cache.stem)}",
        "comparison": comparison,
        "headings": headings,
        "rows": rows,
        "legend": legend(comparison),
        "best": best,
        "pairs": confused_pairs(best.score, best.classes),
        "mistakes": _mistakes(best)[:20],
        "costs": [(cost, COSTS[cost], drawn(accuracy_seconds(comparison.lines, cost))) for cost in costs],
        "curves": [
            (
                line.name,
                line.result.chosen.get("best_epoch"),
                [(plot.title, drawn(plot)) for plot in learning_curves(line.result)],
            )
            for line in comparison.lines
            if line.result.history.get("loss") or line.result.history.get("accuracy")
        ],
        "details": [
            {
                "name": line.name,
                "classes": per_class_rows(line.result) if line.result is best or not is_long else [],
                "calibration": line.result.score.calibration and calibration_text(line.result.score.calibration),
                "reliability": line.result.score.calibration
                and drawn(reliability(line.result.score.calibration, style_of(line.result))),
                "table": line.result.score.calibration.table if line.result.score.calibration else [],
            }
            for line in comparison.lines
        ],
        "map": found_map
        and {
            "layer": found_map.layer,
            "kinds": [(kind, KINDS[kind]) for kind in found_map.points],
            "n": len(found_map.at),
            "n_images": found_map.n_images,
            "explained": [percent(share) for share in found_map.explained],
        },
        "commands": provenance.commands(data.cache, results),
        "made": [
            (line.name, _indented(line.result.settings), _indented(line.result.chosen), coverage_text(line.result))
            for line in comparison.lines
        ],
        "seed": data.seed,
        "environment": _indented(Environment.current().to_dict()),
        "environments": _environments(comparison),
        "fingerprint": _indented(data.cache.fingerprint),
        "percent": percent,
        "seconds": seconds,
        "ends": lambda interval: " to ".join(f"{100 * end:.1f}" for end in interval) if interval else "–",
    }


def _indented(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, default=str)


def _environments(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what the candidates were fitted with, one entry for all that were fitted alike."""
    names: dict[str, list[str]] = {}
    for line in comparison.lines:
        names.setdefault(_indented(line.result.environment.to_dict()), []).append(line.name)
    return [(", ".join(fitted), environment) for environment, fitted in names.items()]


def _mistakes(result: Result) -> list[tuple[float, str, str, str]]:
    """Return (probability, path, true, predicted) of the mistakes, surest first."""
    columns = zip(result.certainty, result.test_paths, result.true, result.predicted, strict=True)
    wrong = [
        (p, path, result.classes[true], result.classes[named]) for p, path, true, named in columns if true != named
    ]
    return sorted(wrong, reverse=True)


def map_layer(comparison: Comparison, data: Data, layer: str | None) -> str:
    """Return the layer of the map: the named one, else that of the best head whose rows the cache holds."""
    if layer is None:
        of_heads = (part for line in comparison.lines for part in layers_of(line.result.layer))
        layer = next((name for name in of_heads if name in data.cache.layers), None)
    return choose_layers(data.cache, layer)[0]


def check_places(html: Path | None, plots: Path | None) -> None:
    """Raise a `UsageError` for places that cannot be written to, before hours of training and not after."""
    if html and html.is_dir():
        raise UsageError(f"--html wants a file, and {html} is a folder. Name one in it: {html / 'comparison.html'}")
    if plots and plots.exists() and not plots.is_dir():
        raise UsageError(f"--plots wants a folder, and {plots} is a file.")


def write_reports(
    comparison: Comparison,
    data: Data,
    folder: Path,
    *,
    html: Path | None = None,
    layer: str | None = None,
    maps: Sequence[str] = ("pca", "tsne"),
    plots: Path | None = None,
    on_progress: OnProgress = silent,
) -> dict[str, Path]:
    """Write comparison.md, .csv, .json and .html into `folder` and return their paths by ending.

    Parameters
    ----------
    html : Path, optional
        Where the page goes instead.
    layer : str, optional
        Whose rows the map shows; by default that of the best head.
    maps : sequence of str
        Kinds of map; none for no map.
    plots : Path, optional
        A folder for the charts as PNG and SVG files.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    try:
        return _write(comparison, data, folder, html or folder / "comparison.html", layer, maps, plots, on_progress)
    except OSError as error:
        raise DataError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error


def _write(
    comparison: Comparison,
    data: Data,
    folder: Path,
    html: Path,
    layer: str | None,
    maps: Sequence[str],
    plots: Path | None,
    on_progress: OnProgress,
) -> dict[str, Path]:
    found_map = None
    if maps:
        kept = workspace.report_dir(data.stem) / "maps"
        found_map = make_map(
            data.cache, data.split, map_layer(comparison, data, layer), maps, seed=data.seed, kept=kept,
            on_progress=on_progress,
        )  # fmt: skip
    paths = write_tables(comparison, folder)
    paths["html"] = html
    write_text(paths["html"], to_html(comparison, data, found_map, on_progress=on_progress))
    if plots:
        from tlfeat.report.plots import write_plots

        write_plots(comparison, plots, found_map=found_map, split=data.split)
        paths["plots"] = plots
    return paths
