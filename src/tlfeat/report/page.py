"""A comparison as one interactive page that needs nothing from elsewhere, and shows the pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.cache.contents import TEXT_GONE, choose_layers, holds_texts, picture_files, snippets
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.domains import NO_DOMAIN
from tlfeat.evaluate.split import Split
from tlfeat.images.thumbnails import COLUMNS, ROWS, Sheets, make_sheets
from tlfeat.records import Result, layers_of
from tlfeat.report.charts import SHAPES
from tlfeat.report.comparison import write_tables
from tlfeat.report.drawings import class_look, map_places
from tlfeat.report.embedding_map import EmbeddingMap, make_map
from tlfeat.report.folding import fold_sweep
from tlfeat.report.plots import write_plots
from tlfeat.report.sections import sections
from tlfeat.studies.compare import Comparison
from tlfeat.text import one_line, page, percent
from tlfeat.types import Labels, OnProgress, silent
from tlfeat.workspace import write_text

#: Pictures get what the rest of the page leaves of this, and at least a tenth of it.
PAGE_BYTES = 4_500_000

#: Test images that the page knows one by one, mistakes first; the matrices count all.
MAX_TESTS = 2000

#: Mistakes that the first screen shows.
_N_FIRST = 8


@dataclass(frozen=True, slots=True)
class Images:
    """The images that the page knows: those of the map, then test images that are not on it.

    Attributes
    ----------
    at : int array of shape (n,)
        Positions in the split.
    tests : int array of shape (n_tests,)
        Places among the test images of the split whose pictures are there; no leaks.
    """

    at: Labels
    tests: Labels


def choose_images(data: Data, results: Sequence[Result], on_map: Labels, *, max_tests: int = MAX_TESTS) -> Images:
    """Return the images of the map and as many test images as allowed: mistakes of any candidate, surest first."""
    test_at, scored = data.split.where("test"), np.flatnonzero(data.scored_tests())
    worst = np.full(len(scored), -1.0)
    for result in results:
        is_wrong = np.array(result.predicted)[scored] != np.array(result.true)[scored]
        worst = np.maximum(worst, np.where(is_wrong, np.array(result.certainty)[scored], -1.0))
    tests = np.sort(scored[np.argsort(-worst, kind="stable")[:max_tests]])
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

    lines, folded = fold_sweep(comparison.lines)
    comparison = replace(comparison, lines=lines)
    on_map = found_map.at if found_map else np.zeros(0, dtype=np.int64)
    images = choose_images(data, [line.result for line in lines], on_map)
    document = _document(comparison, data.split, images, found_map, data.cache.table.images.holds)
    values = {**sections(comparison, data, found_map, folded), "has_texts": holds_texts(data.cache)}
    bare = page(__package__, "report.html", **values, first=[], sheets=[], data="", script="", hash="")
    n_text = len(_in_script(document)) + len(bare)
    sheets = _sheets(data, images, max(n_bytes - n_text - 20_000, n_bytes // 10), on_progress)
    document["pictures"] = [size or reason for size, reason in zip(sheets.sizes, sheets.reasons, strict=True)]
    document["sheets"] = {"side": sheets.side, "columns": COLUMNS, "rows": ROWS}
    script = package_files(__package__).joinpath("templates/report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page(
        __package__,
        "report.html",
        **values,
        first=_first_mistakes(lines[0].result, data, images, sheets),
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


def _document(
    comparison: Comparison, split: Split, images: Images, found_map: EmbeddingMap | None, holds: str
) -> dict[str, Any]:
    """Return what the script wants to know; positions instead of names, whole numbers instead of fractions."""
    place = {int(i): k for k, i in enumerate(images.at)}
    test_at = split.where("test")
    roles = ["train", "val", "test"]
    domains = sorted(set(split.domains))
    place_of_domain = {name: i for i, name in enumerate(domains)}
    shapes = list(SHAPES)
    return {
        "noun": holds.removesuffix("s"),
        "classes": [one_line(name) for name in split.classes],
        "roles": ["training", "validation", "test"],
        "domains": [one_line(name) or NO_DOMAIN for name in domains] if any(domains) else [],
        "domain": [place_of_domain[split.domains[i]] for i in images.at] if any(domains) else [],
        "paths": [one_line(split.paths[i]) for i in images.at],
        "labels": split.labels[images.at].tolist(),
        "role": [roles.index(split.roles[i]) for i in images.at],
        "tests": [place[int(i)] for i in test_at[images.tests]],
        "nTests": comparison.lines[0].result.score.n_images,
        "candidates": [
            {
                "name": one_line(line.name),
                "confusion": line.result.score.confusion,
                "predicted": np.array(line.result.predicted)[images.tests].tolist(),
                "certainty": np.rint(1e6 * np.array(line.result.certainty)[images.tests]).astype(int).tolist(),
            }
            for line in comparison.lines
        ],
        "maps": [
            {"kind": kind, "points": map_places(points).ravel().tolist()}
            for kind, points in (found_map.points if found_map else {}).items()
        ],
        "shapes": [*SHAPES.values()],
        "looks": [
            (colour, shapes.index(shape))
            for colour, shape in map(class_look, range(max(len(split.classes), len(domains))))
        ],
    }


def _sheets(data: Data, images: Images, n_bytes: int, on_progress: OnProgress) -> Sheets:
    split = data.split
    if holds_texts(data.cache):  # the beginnings of texts stand where pictures would
        known = snippets(data.cache, [split.keys[i] for i in images.at])
        return Sheets(0, [], [None] * len(images.at), [known.get(split.keys[i], TEXT_GONE) for i in images.at])
    files = picture_files(data.cache, [split.paths[i] for i in images.at])
    keys = [split.keys[i] for i in images.at]
    return make_sheets(files or [None] * len(keys), keys, n_bytes=n_bytes, on_progress=on_progress)


def _first_mistakes(result: Result, data: Data, images: Images, sheets: Sheets) -> list[dict[str, Any]]:
    """Return the most certain mistakes with the place of each among the pictures and, where it has one, its style."""
    split, place = data.split, {int(i): k for k, i in enumerate(images.at)}
    test_at = split.where("test")
    wrong = [test for test in images.tests.tolist() if result.predicted[test] != result.true[test]]
    wrong.sort(key=lambda test: -result.certainty[test])
    found = []
    for test in wrong[:_N_FIRST]:
        at = place[int(test_at[test])]
        sheet, spot = divmod(at, COLUMNS * ROWS)
        x, y = -sheets.side * (spot % COLUMNS), -sheets.side * (spot // COLUMNS)
        size = sheets.sizes[at]
        found.append(
            {
                "at": at,
                "path": one_line(result.test_paths[test]),
                "true": result.classes[result.true[test]],
                "predicted": result.classes[result.predicted[test]],
                "certainty": percent(result.certainty[test]),
                "sheet": sheet,
                "style": size and f"width:{size[0]}px;height:{size[1]}px;background-position:{x}px {y}px",
                "reason": sheets.reasons[at],
            }
        )
    return found


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
    found_map = None
    try:
        if maps:
            found_map = make_map(
                data.cache, data.split, map_layer(comparison, data, layer), maps,
                seed=data.seed, kept=workspace.report_dir(data.cache.path) / "maps", on_progress=on_progress,
            )  # fmt: skip
        paths = {**write_tables(comparison, folder), "html": html or folder / "comparison.html"}
        write_text(paths["html"], to_html(comparison, data, found_map, on_progress=on_progress))
        if plots:
            write_plots(comparison, plots, found_map=found_map, split=data.split)
            paths["plots"] = plots
    except OSError as error:
        raise DataError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error
    return paths
