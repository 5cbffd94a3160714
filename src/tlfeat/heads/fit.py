"""Fit one head of the table: search, final fit, held-out probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.calibration import best_temperature, softmax
from tlfeat.evaluate.split import Split, folds
from tlfeat.heads.blocks import blocks_of, in_threads, steady_threads
from tlfeat.heads.columns import TOO_LARGE
from tlfeat.heads.earlier import EarlierHead
from tlfeat.heads.family import Family, Fitted, Problem, Setting
from tlfeat.heads.pipelines import calibrated, classifier_of, probabilities_of
from tlfeat.heads.search import SearchResult, hold_out, search
from tlfeat.heads.table import Head, check_effort, find_head
from tlfeat.records import side_by_side
from tlfeat.types import Floats, Labels, OnProgress, Rows, RowSource, silent

N_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head with what the search chose and how long each part took (wall seconds).

    Attributes
    ----------
    head : sklearn.pipeline.Pipeline
        Takes rows of the chosen layer or layers; gives probabilities, and names of classes.
    layers : list of str
        The layers whose rows, side by side, it takes.
    columns : (int, int)
        Where they stand in the rows that were given.
    classes : int array of shape (n_classes,)
        The numbers, in the split, of the classes of its probabilities.
    held_out : array of shape (n_images, n_classes), optional
        The probabilities that each image got from a head that had not seen it; NaN for images that were in no fold.
        None where a class has one image only.
    setting : Setting
        How the rows were taken, and the parameters.
    temperature : float
        Of the probabilities; 1 for a head whose loss is the log loss.
    """

    head: Any
    layers: list[str]
    columns: tuple[int, int]
    classes: Labels
    chosen: dict[str, Any]
    search_s: float
    fit_s: float
    notes: list[str]
    setting: Setting
    held_out: Floats | None = None
    temperature: float = 1.0


def fit_head(
    name: str | Head,
    rows: RowSource,
    split: Split,
    positions: Labels,
    *,
    layers: Mapping[str, int] | None = None,
    seed: int = 0,
    is_searched: bool = True,
    effort: str = "quick",
    n_threads: int | None = None,
    on_progress: OnProgress = silent,
) -> Fit:
    """Choose rows and parameters on images held out, then fit on all given images.

    Parameters
    ----------
    name : str or Head
        A head of the table, or what `table.find_head` returned.
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
    effort : str, default="quick"
        Or "thorough": tries every way of taking rows, and many more values.
    n_threads : int, optional
        One a core by default. The result is the same to the last digit.
    on_progress : callable, optional
        Told how many fits on folds are done, and of how many; a search may end before all of them.

    Raises
    ------
    DataError
        The rows hold values that are not finite, or more columns than the head can take.
    """
    entry = find_head(name) if isinstance(name, str) else name
    check_effort(effort)
    width = rows.shape[1]
    if width > entry.max_width:
        raise DataError(
            f"{entry.name} takes at most {entry.max_width:,} columns (its memory grows with their square), received "
            f"{width:,}. Take ridge or logreg, or a pooled layer."
        )
    columns_of = _columns_of(dict(layers or {"": width}))
    family = entry.family(effort if is_searched else "thorough")
    with steady_threads(n_threads):
        problem = _problem_of(rows, split, positions, seed)
        is_balanced = problem.is_uneven and family.weighs_classes
        setting = Setting(entry.rows, (0, width), is_balanced, values=entry.default)
        started_s = time.perf_counter()
        if not problem.n_folds:
            found = None
        elif is_searched:
            found = _search(
                problem, family, list(columns_of.values()), effort, partial(on_progress, f"fitting {entry.name}")
            )
        else:
            found = hold_out(problem, family, setting, [entry.default])
        searched_s = time.perf_counter()
        if found:
            setting = found.setting
        fitted = family.fit(problem, setting, found.start if found else None)
        fit_s = time.perf_counter() - searched_s
    temperature = _temperature(entry, found, problem)
    head = _pipeline(fitted, entry, temperature)
    held_out = softmax(found.scores, temperature) if found else None
    taken = [layer for layer, columns in columns_of.items() if setting.columns in (columns, (0, width))]
    chosen = _chosen(fitted, setting, family, found, problem)
    if len(columns_of) > 1:
        chosen["layer"] = side_by_side(taken)
    search_s = searched_s - started_s if found else 0.0
    notes = fitted.notes + _notes(entry.name, found, problem)
    classes = np.unique(split.labels[positions])
    return Fit(head, taken, setting.columns, classes, chosen, search_s, fit_s, notes, setting, held_out, temperature)


def refit(
    name: str | Head,
    rows: RowSource,
    labels: Labels,
    names: Sequence[str],
    like: Fit,
    *,
    seed: int = 0,
    image_weights: Rows | None = None,
) -> Any:
    """Fit the same head on other images, with the rows, parameters and temperature of an earlier fit; no search.

    Parameters
    ----------
    name : str or Head
    rows : RowSource of shape (n_images, width)
    labels : int array of shape (n_images,)
        Positions in `names`, each of which has an image.
    names : sequence of str
        Of the classes.
    like : Fit
    image_weights : float array of shape (n_images,), optional
        See `Problem.image_weights`.

    Returns
    -------
    sklearn.pipeline.Pipeline
    """
    entry = find_head(name) if isinstance(name, str) else name
    with steady_threads():
        nowhere = np.full(len(labels), -1, dtype=np.int64)
        problem = Problem(rows, labels, len(names), nowhere, seed, _is_signed(rows), names, image_weights=image_weights)
        is_balanced = problem.is_uneven and entry.thorough.weighs_classes
        setting = replace(like.setting, columns=(0, rows.shape[1]), is_balanced=is_balanced)
        fitted = entry.thorough.fit(problem, setting)
    return _pipeline(fitted, entry, like.temperature)


def _is_signed(rows: RowSource) -> bool:
    """Return whether rows, which have to be finite and no larger than float32 can square, have a negative value."""
    ends = in_threads(lambda block: (rows[block].min(), rows[block].max()), blocks_of(rows.shape[0]))
    lowest, highest = (float(pick([end[i] for end in ends])) for i, pick in enumerate((np.min, np.max)))
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
    if max(-lowest, highest) ** 2 * rows.shape[1] > float(np.finfo(np.float32).max):
        raise DataError(TOO_LARGE)
    return lowest < 0


def _search(
    problem: Problem,
    family: Family,
    layers: list[tuple[int, int]],
    effort: str,
    on_progress: Callable[[int, int], None],
) -> SearchResult:
    """Try each layer, and all side by side; classes that are uneven are weighed equally, or as the search says."""
    together = [(0, problem.rows.shape[1])] if len(layers) > 1 else []
    can_weigh = problem.is_uneven and family.weighs_classes
    weightings = (False, True) if effort == "thorough" and can_weigh else (can_weigh,)
    return search(problem, family, layers + together, weightings, on_progress)


def _columns_of(layers: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """First column and the one after the last of each layer, side by side."""
    ends = np.cumsum(list(layers.values())).tolist()
    return {layer: (end - width, end) for (layer, width), end in zip(layers.items(), ends, strict=True)}


def _problem_of(rows: RowSource, split: Split, positions: Labels, seed: int) -> Problem:
    """Return the problem of the classes that are there, with labels that count them."""
    labels = split.labels[positions]
    present = np.unique(labels)
    fold_of = np.full(len(labels), -1, dtype=np.int64)
    order = np.argsort(positions)  # whatever order the rows come in, an image is in the same fold
    for fold, (_, held) in enumerate(folds(split, positions[order], n_folds=N_FOLDS, seed=seed)):
        fold_of[order[held]] = fold
    names = [split.classes[i] for i in present]
    numbers = np.searchsorted(present, labels)
    return Problem(rows, numbers, len(present), fold_of, seed, is_signed=_is_signed(rows), names=names)


def _temperature(entry: Head, found: SearchResult | None, problem: Problem) -> float:
    """Return the temperature that suits the held-out scores; 1 where the head's own loss is the log loss."""
    if entry.is_calibrated or not found:
        return 1.0
    held = np.isfinite(found.scores[:, 0])
    return best_temperature(found.scores[held], problem.labels[held])


def _pipeline(fitted: Fitted, entry: Head, temperature: float) -> Any:
    from sklearn.pipeline import Pipeline

    classifier = fitted.classifier if entry.is_calibrated else calibrated(fitted.classifier, temperature)
    return Pipeline([*fitted.steps, (entry.step, classifier)])


def _chosen(
    fitted: Fitted, setting: Setting, family: Family, found: SearchResult | None, problem: Problem
) -> dict[str, Any]:
    chosen: dict[str, Any] = {**fitted.values, "rows": setting.rows}
    if problem.is_uneven and family.weighs_classes:
        chosen["classes"] = "weighed equally" if setting.is_balanced else "as they are"
    if found:
        chosen["cv_score"] = found.criterion
    return chosen


def _notes(name: str, found: SearchResult | None, problem: Problem) -> list[str]:
    if found is None:
        return ["a class has one training image: no search, no calibration, default parameters"]
    n_held = np.isfinite(found.scores[:, 0]).sum()
    if n_held < (problem.fold_of >= 0).sum():
        n = len(problem.labels)
        return [f"parameters were chosen on {n_held:,} of {n:,} images: {name} is slow on more"]
    return []


def predict_probabilities(head: Any, rows: RowSource) -> Floats:
    """Return probabilities of shape (n_images, n_classes) in float64; rows sum to 1.

    Raises
    ------
    ModelError
        The head was fitted on rows of another width, or cannot take these.
    """
    width = getattr(head, "n_features_in_", rows.shape[1])
    if width != rows.shape[1]:
        raise ModelError(
            f"The head was fitted on {width} columns, received {rows.shape[1]}: another layer or backbone."
        )
    with steady_threads():
        if isinstance(head, EarlierHead):
            return np.asarray(head.predict_proba(rows), dtype=np.float64)
        blocks = blocks_of(rows.shape[0])
        if not blocks:
            return np.empty((0, len(head.classes_)))
        if not type(classifier_of(head)[0]).__module__.startswith("sklearn."):
            blocks = [slice(0, rows.shape[0])]  # what it does in threads is not known
        try:
            return np.concatenate(in_threads(lambda block: probabilities_of(head, rows[block]), blocks))
        except ValueError as error:  # of scikit-learn, about values that the classifier cannot take
            raise ModelError(f"The head cannot take these rows: {error}") from error
