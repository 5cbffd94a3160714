"""Fit one head of the table: search, final fit, held-out probabilities."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.calibration import best_temperature, softmax
from tlfeat.evaluate.split import Split, folds
from tlfeat.heads.blocks import blocks_of, in_threads, steady_threads
from tlfeat.heads.family import Problem, Setting
from tlfeat.heads.search import Found, hold_out, search
from tlfeat.heads.table import find_head
from tlfeat.records import side_by_side
from tlfeat.types import Floats, Labels, RowSource

N_FOLDS = 5


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A fitted head with what the search chose and how long each part took (wall seconds).

    Attributes
    ----------
    pipeline : search.Head
        Takes rows of the chosen layer or layers; gives scores, probabilities and labels.
    layers : list of str
        The layers whose rows, side by side, it takes.
    columns : (int, int)
        Where they stand in the rows that were given.
    held_out : array of shape (n_images, n_classes), optional
        The probabilities that each image got from a head that had not seen it; NaN for images that were in no fold.
        None where a class has one image only.
    """

    pipeline: Any
    layers: list[str]
    columns: tuple[int, int]
    chosen: dict[str, Any]
    search_s: float
    fit_s: float
    notes: list[str]
    held_out: Floats | None = None


def fit_head(
    name: str,
    rows: RowSource,
    split: Split,
    positions: Labels,
    *,
    layers: Mapping[str, int] | None = None,
    seed: int = 0,
    is_searched: bool = True,
    n_threads: int | None = None,
) -> FittedHead:
    """Choose rows and parameters on images held out, then fit on all given images.

    Parameters
    ----------
    name : str
        A head of the table.
    rows : float32 array, or another RowSource, of shape (n_images, width)
        The rows of ``positions`` only. Not modified and, but for svm and knn, not copied.
    split : Split
    positions : int array of shape (n_images,)
        Training and validation images within the split; groups stay in one fold.
    layers : mapping of str to int, optional
        Layers whose rows stand side by side, with their widths. Each alone and all together are choices of the search.
    seed : int, default=0
    is_searched : bool, default=True
        False takes the table's default rows and parameters.
    n_threads : int, optional
        One a core by default. The result is the same to the last digit.

    Raises
    ------
    DataError
        The rows hold values that are not finite, or more columns than the head can take.
    """
    head = find_head(name)
    n, width = rows.shape
    layers = dict(layers or {"": width})
    if width > head.max_width:
        raise DataError(
            f"{name} takes at most {head.max_width:,} columns (its memory grows with their square), received "
            f"{width:,}. Take ridge or logreg, or a pooled layer."
        )
    labels = split.labels[positions]
    present = np.unique(labels)
    fold_of = np.full(n, -1, dtype=np.int64)
    order = np.argsort(positions)  # whatever order the rows come in, an image is in the same fold
    for fold, (_, held) in enumerate(folds(split, positions[order], n_folds=N_FOLDS, seed=seed)):
        fold_of[order[held]] = fold
    problem = Problem(rows, np.searchsorted(present, labels), len(present), fold_of, seed)
    notes = []
    found: Found | None = None
    with steady_threads(n_threads):
        if not all(in_threads(lambda block: bool(np.isfinite(rows[block]).all()), blocks_of(n))):
            raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
        ends = np.cumsum(list(layers.values())).tolist()
        every = [(end - n_columns, end) for end, n_columns in zip(ends, layers.values(), strict=True)]
        if len(every) > 1:
            every.append((0, width))
        setting = Setting(head.rows, every[-1], is_balanced=problem.is_uneven, values=head.default)
        started_s = time.perf_counter()
        if not problem.n_folds:
            notes.append("a class has one training image: no search, no calibration, default parameters")
        elif is_searched:
            found = search(problem, head.family, every)
            setting = found.setting
        else:
            found = hold_out(problem, head.family, setting, [head.default])
        search_s = time.perf_counter() - started_s if found else 0.0
        started_s = time.perf_counter()
        fitted: Any = head.family.fit(problem, setting, found.start if found else None)
        fit_s = time.perf_counter() - started_s
    chosen = {**setting.values, "rows": setting.rows}
    if problem.is_uneven:
        chosen["classes"] = "weighed equally" if setting.is_balanced else "as they are"
    held_out = None
    if found is not None:
        held = np.isfinite(found.scores[:, 0])
        if name != "logreg":  # its loss is the one that calibrates
            fitted.temperature = best_temperature(found.scores[held], problem.labels[held])
        held_out = softmax(found.scores, fitted.temperature)
        chosen["cv_score"] = found.criterion
        if held.sum() < (problem.fold_of >= 0).sum():
            notes.append(f"parameters were chosen on {held.sum():,} of {n:,} images: {name} is slow on more")
    taken = [layer for layer, columns in zip(layers, every, strict=False) if setting.columns in (columns, (0, width))]
    if len(every) > 1:
        chosen["layer"] = side_by_side(taken)
    fitted.classes_ = present
    return FittedHead(fitted, taken, setting.columns, chosen, search_s, fit_s, notes, held_out)


def predict_probabilities(pipeline: Any, rows: RowSource) -> Floats:
    """Return probabilities of shape (n_images, n_classes); rows sum to 1.

    Raises
    ------
    ModelError
        The head was fitted on rows of another width.
    """
    width = getattr(pipeline, "n_features_in_", rows.shape[1])
    if width != rows.shape[1]:
        raise ModelError(
            f"The head was fitted on {width} columns, received {rows.shape[1]}: another layer or backbone."
        )
    with steady_threads():
        return np.asarray(pipeline.predict_proba(rows), dtype=np.float64)
