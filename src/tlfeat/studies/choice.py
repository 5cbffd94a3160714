"""Which backbone, which layer, which head: all of them on the same images and the same split, and what each costs.

The training images choose, by cross-validation; the test images only say how good the choice is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import Origin, holds_texts
from tlfeat.errors import DataError, Interrupted, KnownError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.together import Together
from tlfeat.models.fit_sklearn import fit_pixel_baseline, fit_sklearn, open_pixels
from tlfeat.records import SplitInfo
from tlfeat.studies.contenders import Against, Contender, Rows, all_layers, contender_of
from tlfeat.studies.sweep import standard_error
from tlfeat.studies.tradeoff import frontier
from tlfeat.types import OnProgress, silent

#: A cost below this share of another one is cheaper; clocks of a shared machine differ by a few percent.
_CHEAPER = 0.95


@dataclass(frozen=True, slots=True)
class Choice:
    """Every contender, the cheapest backbone first.

    Attributes
    ----------
    data : str
        A short name of the images.
    chosen, cheaper, economical : int or None
        Of `contenders`: the highest held-out accuracy; the next cheaper one on the frontier; the cheapest within one
        standard error. None where there is none, or none but the chosen one.
    """

    data: str
    caches: list[Path]
    split: SplitInfo
    n_common: int
    contenders: list[Contender]
    chosen: int | None
    cheaper: int | None
    economical: int | None
    skipped: list[tuple[str, str]]
    notes: list[str]


def compare_backbones(
    together: Together,
    rows: Sequence[Rows],
    *,
    heads: Sequence[str],
    has_pixels: bool = True,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Choice:
    """Fit every head on every layer of every cache, and on all layers of a cache side by side; choose one.

    Parameters
    ----------
    together : Together
    rows : sequence of Rows
        See `rows_of`.
    heads : sequence of str
        See ``heads.table``.
    has_pixels : bool, default=True
        Include the raw pixels of the images of the first cache.
    is_fresh : bool, default=False
        Reuse no Result of an earlier command.

    Notes
    -----
    The chosen one has the most held-out training images right, of equal ones it is the cheapest; test images have no
    part in it. So neither its test accuracy nor the test of a difference to it is flattered by the choice. The
    held-out accuracy is, a little: parameters were chosen on the same folds, and it is the highest of many.
    A head that is given several layers may find that one of them alone is best: it is that contender again, and not
    listed twice.
    """
    found, skipped = _fit_all(_runs(together, rows, heads, has_pixels, is_fresh, on_progress))
    first = together.data[0]
    info = first.split.info
    held_out, costs = [one.held_out for one in found], [one.cost.cpu_ms if one.cost else None for one in found]
    chosen = choose(held_out, costs, [one.row_bytes for one in found])
    ahead = frontier(
        [(cost if held is not None else None, held or 0.0) for cost, held in zip(costs, held_out, strict=True)]
    )
    found = [replace(one, is_ahead=is_ahead) for one, is_ahead in zip(found, ahead, strict=True)]
    cheaper, economical = _cheaper_ones(found, chosen, info.n_train + info.n_val)
    images = first.cache.table.images
    return Choice(
        images.name or first.cache.stem,
        [data.cache.path for data in together.data],
        info,
        together.n_common,
        _against(found, chosen, first),
        chosen,
        cheaper,
        economical,
        skipped,
        [
            *together.notes,
            *filter(None, [leak_sentence(found[0].result.leaks)]),
            *_note_of_processors(found),
            *dict.fromkeys(note for one in found for note in one.result.notes),
        ],
    )


def _fit_all(runs: Sequence[tuple[str, Callable[[], Contender]]]) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Return the contenders, and those that could not run with the reason: the others are not lost."""
    found: list[Contender] = []
    skipped: list[tuple[str, str]] = []
    for name, run in runs:
        try:
            found.append(run())
        except Interrupted:
            raise
        except KnownError as error:
            skipped.append((name, str(error)))
    if not found:
        raise DataError("No candidate could run. " + " ".join(f"{name}: {why}" for name, why in skipped))
    return _listed(found), skipped


def _runs(
    together: Together,
    rows: Sequence[Rows],
    heads: Sequence[str],
    has_pixels: bool,
    is_fresh: bool,
    on_progress: OnProgress,
) -> list[tuple[str, Callable[[], Contender]]]:
    """Return the name of each contender with what fits it."""
    options: dict[str, Any] = {"is_fresh": is_fresh, "on_progress": on_progress}

    def options_of(name: str) -> dict[str, Any]:
        return {**options, "on_progress": lambda what, done, total: on_progress(f"{name}: {what}", done, total)}

    runs: list[tuple[str, Callable[[], Contender]]] = []
    if has_pixels and not holds_texts(together.data[0].cache):
        runs.append(("pixels", partial(_fit_pixels, together.data[0], options)))
    for of_cache in rows:
        sets = [[layer] for layer in of_cache.layers]
        if len(sets) > 1:
            sets.append(sorted(of_cache.layers))  # in an order of names alone, so that a Result is found again
        for layers in sets:
            what = layers[0] if len(layers) == 1 else all_layers(len(layers))
            at = f"{of_cache.name} at {what}"
            runs += [(f"{at} with {head}", partial(_fit, of_cache, layers, head, options_of(at))) for head in heads]
    return runs


def _fit(rows: Rows, layers: Sequence[str], head: str, options: Mapping[str, Any]) -> Contender:
    outcome = fit_sklearn(rows.data, head, layer=layers, **options)
    if outcome.is_reused and outcome.result.held_out_accuracy is None:  # of a version that did not hold out
        outcome = fit_sklearn(rows.data, head, layer=layers, **{**options, "is_fresh": True})
    return contender_of(rows.data.cache, rows.name, outcome, len(rows.layers), rows.shares)


def _fit_pixels(data: Data, options: Mapping[str, Any]) -> Contender:
    outcome = fit_pixel_baseline(data, **options)
    with open_pixels(data) as cache:
        return contender_of(cache, str(Origin.PIXELS), outcome, 1, {})


def _listed(found: Sequence[Contender]) -> list[Contender]:
    """Return the contenders without those that are another one again, the cheapest backbone first."""
    once: dict[tuple[Path, tuple[str, ...], str], Contender] = {}
    for one in found:
        once.setdefault((one.cache, tuple(one.layers), one.result.candidate), one)
    dearest: dict[Path, float] = {}
    for one in once.values():
        cost_ms = one.cost.cpu_ms if one.cost else math.inf
        dearest[one.cache] = max(dearest.get(one.cache, 0.0), cost_ms)
    return sorted(once.values(), key=lambda one: dearest[one.cache])


def choose(
    held_out: Sequence[float | None], costs: Sequence[float | None], row_bytes: Sequence[int] | None = None
) -> int | None:
    """Return the place of the highest held-out accuracy, of equal ones the cheapest, of these the smallest rows.

    None where nothing was held out. A cost that is not known counts as higher than any.
    """
    known = [
        (-held, cost if cost is not None else math.inf, row_bytes[i] if row_bytes else 0, i)
        for i, (held, cost) in enumerate(zip(held_out, costs, strict=True))
        if held is not None
    ]
    return min(known)[-1] if known else None


def _cheaper_ones(found: Sequence[Contender], chosen: int | None, n_images: int) -> tuple[int | None, int | None]:
    """Return the next cheaper contender on the frontier, and the cheapest within one standard error of the chosen."""
    if chosen is None or (best := found[chosen]).cost is None or best.held_out is None:
        return None, None
    limit_ms, floor = _CHEAPER * best.cost.cpu_ms, best.held_out - standard_error(best.held_out, n_images)
    below = [
        (one.cost.cpu_ms, -(one.held_out or 0.0), i)
        for i, one in enumerate(found)
        if one.is_ahead and one.cost is not None and one.cost.cpu_ms <= limit_ms
    ]
    if not below:
        return None, None
    near = [entry for entry in below if -entry[1] >= floor]
    return max(below, key=lambda entry: (entry[0], -entry[1], -entry[2]))[2], min(near)[2] if near else None


def _against(found: Sequence[Contender], chosen: int | None, data: Data) -> list[Contender]:
    """Return the contenders with their difference to the chosen one on the test images."""
    if chosen is None:
        return list(found)
    is_scored = data.scored_tests()
    groups = data.split.test_groups(is_scored)
    best = found[chosen].result
    true, of_best = np.array(best.true)[is_scored], np.array(best.predicted)[is_scored]
    others = [i for i in range(len(found)) if i != chosen]
    predicted = {i: np.array(found[i].result.predicted)[is_scored] for i in others}
    p_values = holm([mcnemar(true, predicted[i], of_best, groups) for i in others])
    told = list(found)
    for i, p in zip(others, p_values, strict=True):
        difference = found[i].result.score.accuracy - best.score.accuracy
        against = Against(p, difference, difference_interval(true, predicted[i], of_best, groups))
        told[i] = replace(found[i], against=against)
    return told


def _note_of_processors(found: Sequence[Contender]) -> list[str]:
    """Say where times do not compare."""
    on = {one.backbone: one.cost.processor for one in found if one.cost}
    if len(set(on.values())) < 2:
        return []
    return [
        "processor times were measured on different processors and do not compare: "
        + ", ".join(f"{name} on {processor}" for name, processor in on.items())
    ]
