"""A head from a cache to a saved model and its Result; an equal one that exists is reused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.contents import Origin, StoredRows, choose_layers, encoder_name, in_file_order, origin, read_rows
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import Split, folds
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.reference import ReferenceRows, read_reference
from tlfeat.heads.any_estimator import is_dotted
from tlfeat.heads.blocks import View
from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.family import COARSE_ROWS
from tlfeat.heads.fit import N_FOLDS, Fit, fit_head, predict_probabilities
from tlfeat.heads.reject import Rejector, coverage_table, fit_rejector, refused_share, save_rejector
from tlfeat.heads.saved import save_head, untrusted_types
from tlfeat.heads.shift import HeldOut, some_rows, tell_apart
from tlfeat.heads.table import SPREAD, Head, check_effort, check_head, find_head, search_settings, spread_head
from tlfeat.memory import available_memory
from tlfeat.models.saved import Fitted, Outcome, known_result, model_folder, write_model
from tlfeat.models.unlabelled import read_unlabelled
from tlfeat.records import Timing, side_by_side
from tlfeat.types import Labels, OnProgress, Rows, RowSource, silent


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A head of the table, the rows that it takes, and what was asked for."""

    name: str
    head: Head
    cache: Cache
    layers: list[str]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Learned:
    """What the training and validation images gave; times in wall seconds."""

    head: Fit
    rejector: Rejector | None
    reference: ReferenceRows | None
    reject_s: float
    held_out: HeldOut | None
    sample: Rows | None  # some of the rows, where test images may be of another kind


def fit_sklearn(
    data: Data,
    head: str,
    *,
    layer: Sequence[str] | str | None = None,
    is_searched: bool = True,
    effort: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    unlabelled: Cache | None = None,
    file_format: str = "skops",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Fit one head on the cached rows of one layer, test it, save it.

    Parameters
    ----------
    data : Data
    head : str
        A name of ``heads.table``, "spread", or a classifier of any package as ``package.module:Class``.
    layer : str or sequence of str, optional
        `avg_pool` by default, or the only layer there is. Of several the search takes one, or all side by side.
    is_searched : bool, default=True
        Choose hyper-parameters by cross-validation.
    effort : str, default="quick"
        How much that search tries; "thorough" takes many times as long.
    parameters, grid : mappings, optional
        Of such a classifier: parameters with their value, and with the values to compare.
    unlabelled : Cache, optional
        Of images that labels spread to, for the head "spread"; by default those of `data` that have no label.
    file_format : str, default="skops"
        Or "joblib".
    is_fresh : bool, default=False
        Fit again even if an equal Result exists.
    """
    check_head(head, parameters, grid, has_unlabelled=unlabelled is not None)
    check_effort(effort)
    layers = choose_layers(data.cache, layer)
    found = read_unlabelled(unlabelled or data.cache, data, layers) if head == SPREAD else None
    entry = find_head(head, parameters, grid) if found is None else spread_head(found.rows)
    settings = {
        "model": head,
        "layer": side_by_side(layers),
        "seed": data.seed,
        "is_searched": is_searched,
        "file_format": file_format,
        **search_settings(effort, is_searched=is_searched),
        **({"unlabelled": found.digest} if found else {}),
        **({"parameters": dict(parameters)} if parameters else {}),
        **({"grid": {name: list(values) for name, values in grid.items()}} if grid else {}),
    }
    return _fit(_Candidate(head, entry, data.cache, layers, settings), data, is_fresh, on_progress)


def fit_pixel_baseline(
    data: Data,
    *,
    head: str = "logreg",
    effort: str = "quick",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Fit a head on the raw pixels of the same images: what the backbone has to beat.

    The small pictures get a cache of their own, made from the same folder when it is not there yet.
    """
    entry = find_head(head)
    name = f"pixels+{head}"
    settings = {
        "model": name,
        "layer": "pixels",
        "seed": data.seed,
        "is_searched": True,
        **search_settings(effort),
    }
    with open_pixels(data, on_progress=on_progress) as cache:
        return _fit(_Candidate(name, entry, cache, ["pixels"], settings), data, is_fresh, on_progress)


@contextmanager
def open_pixels(data: Data, *, on_progress: OnProgress = silent) -> Iterator[Cache]:
    """Open the cache of the raw pixels of the same images, bringing it up to date before."""
    path = workspace.baseline_cache_path(data.cache.path)
    if origin(data.cache) is Origin.IMPORTED:
        raise DataError("the rows were imported: there are no images to take pixels from")
    source = {"encoder": {"backbone": Origin.PIXELS}}
    report = extract_rows(data.cache.table.images, PixelEncoder(), path, on_progress=on_progress, origin=source)
    gone = {name for name, _ in report.failures}.intersection(data.split.paths)
    if gone:
        raise DataError(f"{len(gone):,} images cannot be read any more; the first: {', '.join(report.failures[0])}")
    with open_cache(path) as cache:
        yield cache


def _fit(candidate: _Candidate, data: Data, is_fresh: bool, on_progress: OnProgress) -> Outcome:
    started_s = time.perf_counter()
    leaks = data.leaks(on_progress)
    leaks_s = time.perf_counter() - started_s
    folder = model_folder(data, candidate.name, candidate.settings, candidate.cache.fingerprint)
    if not is_fresh and (known := known_result(folder, data.split, leaks)) is not None:
        return Outcome(known, is_reused=True)
    on_progress(f"fitting {candidate.name}", 0, 0)
    learned = _learn(candidate, data, on_progress)
    fitted = _test(candidate, data, learned, leaks_s)
    file_format, notes = _format_of(candidate, learned.head.head)
    fitted = replace(fitted, notes=[*fitted.notes, *notes])

    def save(to: Path) -> None:
        save_head(learned.head.head, to, file_format=file_format)
        if learned.rejector:
            save_rejector(learned.rejector, to)

    return Outcome(write_model(folder, fitted, data, leaks, save), is_reused=False)


def _format_of(candidate: _Candidate, head: Any) -> tuple[str, list[str]]:
    """Return how a head is saved, and what to know before it is loaded: not every class is one that skops trusts."""
    file_format = candidate.settings.get("file_format", "skops")
    if not is_dotted(candidate.head.name) or file_format == "joblib":
        return file_format, []
    types = untrusted_types(head)
    if types is None:
        return "joblib", ["skops cannot hold it: it was saved with joblib, and predict loads it with --trust only"]
    return file_format, [f"predict loads it with --trust only: it holds {', '.join(types[:3])}"] if types else []


def _learn(candidate: _Candidate, data: Data, on_progress: OnProgress) -> _Learned:
    """Fit on the training and validation images; their rows are not held any more afterwards."""
    split, cache = data.split, candidate.cache
    rows, learn_at = _rows_to_learn(cache, candidate.layers, split, split.where("train", "val"), candidate.head)
    fitted = fit_head(
        candidate.head,
        rows,
        split,
        learn_at,
        layers={layer: cache.layers[layer][1] for layer in candidate.layers},
        seed=data.seed,
        is_searched=candidate.settings["is_searched"],
        effort=candidate.settings.get("effort", "thorough"),
        on_progress=on_progress,
    )
    reference = read_reference(cache.path, cache.fingerprint, fitted.layers)
    started_s = time.perf_counter()
    rejector = _fit_rejector(rows, fitted, split, learn_at, data.seed, reference)
    reject_s = time.perf_counter() - started_s
    # a drawn test set has images of the same kind as the training images
    sample = some_rows(View(rows, fitted.columns), seed=data.seed) if split.info.origin == "given" else None
    return _Learned(fitted, rejector, reference, reject_s, _held_out(fitted, split, learn_at), sample)


def _held_out(fitted: Fit, split: Split, learn_at: Labels) -> HeldOut | None:
    if fitted.held_out is None:
        return None
    is_held = np.isfinite(fitted.held_out[:, 0])
    is_right = fitted.held_out.argmax(axis=1) == split.labels[learn_at]
    return HeldOut(is_right[is_held], split.groups[learn_at][is_held])


def _test(candidate: _Candidate, data: Data, learned: _Learned, leaks_s: float) -> Fitted:
    """Return what the head answers for the test images; reading their rows is no part of the time."""
    cache, split, head = candidate.cache, data.split, learned.head
    test_at = split.where("test")
    rows = _rows_to_test(cache, head.layers, [split.keys[i] for i in test_at])
    started_s = time.perf_counter()
    probabilities = predict_probabilities(head.head, rows)
    predict_s = time.perf_counter() - started_s
    rejector, reference, embedding = learned.rejector, learned.reference, cache.timing
    n_embedded = embedding["n_embedded"]
    return Fitted(
        candidate=candidate.name,
        kind="head",
        backbone=encoder_name(cache),
        layer=side_by_side(head.layers),
        settings=candidate.settings,
        fingerprint=cache.fingerprint,
        encoder=cache.source.get("encoder", {}),
        chosen=head.chosen,
        probabilities=probabilities,
        timing=Timing(
            extract_s=embedding["extract_s"] if n_embedded else None,
            extract_s_per_image=embedding["embed_s"] / n_embedded if n_embedded else None,
            leaks_s=leaks_s,
            search_s=head.search_s,
            fit_s=head.fit_s,
            reject_s=learned.reject_s,
            predict_s_per_image=predict_s / len(test_at),
        ),
        notes=head.notes,
        coverage=coverage_table(rejector, rows, probabilities, split.labels[test_at], data.scored_tests())
        if rejector
        else [],
        held_out=learned.held_out,
        auc=None if learned.sample is None else tell_apart(learned.sample, some_rows(rows, seed=split.info.seed)),
        reference=refused_reference(rejector, reference, head.head) if rejector and reference else {},
    )


def refused_reference(rejector: Rejector, reference: ReferenceRows, head: Any) -> dict[str, Any]:
    """Return what is refused of drawings that the rejector has not seen, and of photographs."""
    kinds = {"drawings": reference.drawings, "photographs": reference.photographs}
    return {kind: refused_share(rejector, rows, predict_probabilities(head, rows)) for kind, rows in kinds.items()}


def _fit_rejector(
    rows: RowSource, fitted: Fit, split: Split, learn_at: Labels, seed: int, reference: ReferenceRows | None
) -> Rejector | None:
    """Fit on the rows that the head takes, of at most 10,000 images."""
    some = np.unique(np.linspace(0, len(learn_at) - 1, min(len(learn_at), 10_000)).astype(np.int64))
    taken = View(rows, fitted.columns).take(some)[slice(None)]
    held_out = None if fitted.held_out is None else fitted.held_out[some]
    known_drawings = reference.known if reference else None
    return fit_rejector(taken, folds(split, learn_at[some], n_folds=N_FOLDS, seed=seed), held_out, known_drawings)


def _beside_rows(width: int) -> int:
    """Bytes that a search takes beside the rows: libraries, the images of the coarse comparison, sums of each lane."""
    return 300_000_000 + 2 * COARSE_ROWS * width * 4 + 16 * min(width, MAX_COVARIANCE) ** 2 * 4


def _rows_to_learn(
    cache: Cache, layers: list[str], split: Split, learn_at: Labels, head: Head
) -> tuple[RowSource, Labels]:
    """Return the rows in memory or, where they do not fit, in the file, and the positions that they belong to.

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
    order = in_file_order(cache, layers[0], stored.keys)
    return StoredRows(cache, layers, [stored.keys[i] for i in order]), learn_at[order]


def _rows_to_test(cache: Cache, layers: list[str], keys: list[str]) -> RowSource:
    """Return rows in memory or, where they do not fit, in the file."""
    stored = StoredRows(cache, layers, keys)
    if np.prod(stored.shape) * 4 + _beside_rows(stored.shape[1]) < available_memory():
        return read_rows(cache, layers, keys)
    return stored
