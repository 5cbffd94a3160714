"""One candidate from a cache to a saved model and its Result; an equal one that exists is reused.

A saved model is a folder: ``head.skops`` (or ``head.joblib``, ``model.keras``), ``reject.npz`` (beside a head: when to
answer "unknown"), ``model.json`` (how to rebuild what feeds it) and ``result.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.contents import StoredRows, choose_layers, read_rows
from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.leaks import find_leaks
from tlfeat.evaluate.split import Split, folds
from tlfeat.extract.extract import extract_rows
from tlfeat.heads.blocks import View
from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.fit import N_FOLDS, Fit, fit_head, predict_probabilities
from tlfeat.heads.reject import Rejector, coverage_table, fit_rejector, save_rejector
from tlfeat.heads.saved import save_head
from tlfeat.heads.search import COARSE_ROWS
from tlfeat.heads.table import Head, find_head
from tlfeat.memory import available_memory
from tlfeat.models.saved import SIDE_BY_SIDE, Outcome, known_result, make_result, model_folder, save_outcome
from tlfeat.records import Timing
from tlfeat.types import Labels, OnProgress, RowSource, silent


def _beside_rows(width: int) -> int:
    """Bytes that a search takes beside the rows: libraries, the images of the coarse comparison, sums of each lane."""
    return 300_000_000 + 2 * COARSE_ROWS * width * 4 + 16 * min(width, MAX_COVARIANCE) ** 2 * 4


def _rows_to_learn(
    cache: Cache, layers: list[str], split: Split, learn_at: Labels, head: Head
) -> tuple[RowSource, Labels]:
    """Return rows in memory or, where they do not fit, in the file, and the positions that they belong to.

    Raises
    ------
    DataError
        They do not fit, and the head cannot read them a block at a time.
    """
    stored = StoredRows(cache, layers, [split.keys[i] for i in learn_at])
    n, width = stored.shape
    beside, free = _beside_rows(width), available_memory()
    needed = int(n * width * 4 * (1.25 + head.n_copies)) + beside
    if needed <= free:
        return read_rows(cache, layers, stored.keys), learn_at
    if head.n_copies:
        raise DataError(
            f"{head.name} needs about {needed / 1e9:.1f} GB of memory for {n:,} rows of {width:,} columns; "
            f"{free / 1e9:.1f} GB are free. logreg, linear-svm, ridge and lda read rows from the file block by block."
        )
    if beside > free:
        raise DataError(
            f"{head.name} needs about {beside / 1e9:.1f} GB of memory for {width:,} columns even where it reads the "
            f"rows from the file; {free / 1e9:.1f} GB are free. Take a layer with fewer columns."
        )
    known = cache.known(layers[0])
    in_file_order = np.array(sorted(learn_at.tolist(), key=lambda i: known.get(split.keys[i], 0)), dtype=np.int64)
    return StoredRows(cache, layers, [split.keys[i] for i in in_file_order]), in_file_order


def fit_sklearn(
    data: Data,
    head: str,
    *,
    layer: Sequence[str] | str | None = None,
    is_searched: bool = True,
    file_format: str = "skops",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Fit one head on the cached rows of one layer, test it, save it.

    Parameters
    ----------
    data : Data
    head : str
        A name of the table in ``heads``.
    layer : str or sequence of str, optional
        `avg_pool` by default, or the only layer there is. Of several the search takes one, or all side by side.
    is_searched : bool, default=True
        Choose hyper-parameters by cross-validation.
    file_format : str, default="skops"
        Or "joblib".
    is_fresh : bool, default=False
        Fit again even if an equal Result exists.
    """
    entry = find_head(head)
    layers = choose_layers(data.cache, layer)
    settings = {
        "model": head,
        "layer": SIDE_BY_SIDE.join(layers),
        "seed": data.seed,
        "is_searched": is_searched,
        "file_format": file_format,
        "grid": repr(entry.family),
    }
    return _fit_rows(head, entry, layers, data, data.cache, settings, is_fresh, on_progress)


def fit_pixel_baseline(
    data: Data, *, head: str = "logreg", is_fresh: bool = False, on_progress: OnProgress = silent
) -> Outcome:
    """Fit a head on the raw pixels of the same images: what the backbone has to beat.

    The small pictures get a cache of their own, made from the same folder when it is not there yet.
    """
    entry = find_head(head)
    settings = {"model": f"pixels+{head}", "layer": "pixels", "seed": data.seed, "is_searched": True}
    settings["grid"] = repr(entry.family)
    with open_pixels(data, on_progress=on_progress) as cache:
        return _fit_rows(f"pixels+{head}", entry, ["pixels"], data, cache, settings, is_fresh, on_progress)


@contextmanager
def open_pixels(data: Data, *, on_progress: OnProgress = silent) -> Iterator[Cache]:
    """Open the cache of the raw pixels of the same images, bringing it up to date before."""
    path = workspace.baseline_cache_path(data.cache.path)
    if data.cache.source.get("encoder", {}).get("backbone") == "imported":
        raise DataError("the rows were imported: there are no images to take pixels from")
    origin = {"encoder": {"backbone": "pixels"}}
    report = extract_rows(data.cache.table.images, PixelEncoder(), path, on_progress=on_progress, origin=origin)
    gone = {name for name, _ in report.failures}.intersection(data.split.paths)
    if gone:
        raise DataError(f"{len(gone):,} images cannot be read any more; the first: {': '.join(report.failures[0])}")
    with open_cache(path) as cache:
        yield cache


def _fit_rejector(rows: RowSource, fitted: Fit, split: Split, learn_at: Labels, seed: int) -> Rejector | None:
    """Fit on the rows that the head takes, of at most 10,000 images."""
    some = np.unique(np.linspace(0, len(learn_at) - 1, min(len(learn_at), 10_000)).astype(np.int64))
    taken = View(rows, fitted.columns).take(some)[slice(None)]
    held_out = None if fitted.held_out is None else fitted.held_out[some]
    return fit_rejector(taken, folds(split, learn_at[some], n_folds=N_FOLDS, seed=seed), held_out)


def _fit_rows(
    candidate: str,
    head: Head,
    layers: list[str],
    data: Data,
    cache: Cache,
    settings: dict[str, Any],
    is_fresh: bool,
    on_progress: OnProgress,
) -> Outcome:
    split = data.split
    find_leaks(data.cache, split, on_progress=on_progress)  # first, so that its rows and those of the fit never meet
    folder = model_folder(data, candidate, settings["layer"], settings, cache.fingerprint)
    if not is_fresh and (known := known_result(folder, data)) is not None:
        return Outcome(known, is_reused=True)
    learn_at, test_at = split.where("train", "val"), split.where("test")
    on_progress(f"fitting {candidate}", 0, 0)
    rows, learn_at = _rows_to_learn(cache, layers, split, learn_at, head)
    fitted = fit_head(
        head.name,
        rows,
        split,
        learn_at,
        layers={layer: cache.layers[layer][1] for layer in layers},
        seed=data.seed,
        is_searched=settings["is_searched"],
    )
    started_s = time.perf_counter()
    rejector = _fit_rejector(rows, fitted, split, learn_at, data.seed)
    reject_s = time.perf_counter() - started_s
    del rows
    test_rows: RowSource = StoredRows(cache, fitted.layers, [split.keys[i] for i in test_at])
    if np.prod(test_rows.shape) * 4 + _beside_rows(test_rows.shape[1]) < available_memory():
        test_rows = read_rows(
            cache, fitted.layers, [split.keys[i] for i in test_at]
        )  # the reading is no part of the time
    started_s = time.perf_counter()
    probabilities = predict_probabilities(fitted.head, test_rows)
    predict_s = time.perf_counter() - started_s
    timing = cache.timing
    n_embedded = timing["n_embedded"]
    source = cache.source.get("encoder", {})
    result = make_result(
        candidate,
        "head",
        data,
        cache,
        SIDE_BY_SIDE.join(fitted.layers),
        settings,
        fitted.chosen,
        probabilities,
        Timing(
            extract_s=timing["extract_s"] if n_embedded else None,
            extract_s_per_image=timing["embed_s"] / n_embedded if n_embedded else None,
            search_s=fitted.search_s,
            fit_s=fitted.fit_s,
            reject_s=reject_s,
            predict_s_per_image=predict_s / len(test_at),
        ),
        notes=fitted.notes,
        coverage=coverage_table(rejector, test_rows, probabilities, split.labels[test_at]) if rejector else [],
    )
    if fitted.held_out is not None:
        held = np.isfinite(fitted.held_out[:, 0])
        is_right = fitted.held_out.argmax(axis=1) == split.labels[learn_at]
        result = replace(result, held_out_accuracy=float(np.mean(is_right[held])))

    def save_model(to: Path) -> None:
        save_head(fitted.head, to, file_format=settings.get("file_format", "skops"))
        if rejector:
            save_rejector(rejector, to)

    return Outcome(save_outcome(folder, result, source, data.cache.path, save_model), is_reused=False)
