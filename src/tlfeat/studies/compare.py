"""Runs or reuses the candidates on one split and lines their Results up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.cache.contents import holds_texts
from tlfeat.errors import DataError, Interrupted, KnownError, ModelError, TlfeatError, UsageError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.scores import guessing_sentence
from tlfeat.finetune.recipes import Recipe, find_recipe
from tlfeat.finetune.settings import TrainSettings
from tlfeat.heads.any_estimator import short_name
from tlfeat.heads.shift import shift_sentence
from tlfeat.heads.table import HEADS, find_head
from tlfeat.models.fit_keras import fit_keras, other_backbone
from tlfeat.models.fit_sklearn import fit_pixel_baseline, fit_sklearn
from tlfeat.models.fit_words import fit_words_baseline
from tlfeat.models.saved import Outcome, model_folders, read_result, with_leaks
from tlfeat.records import (
    BASELINE_LAYERS,
    PIXELS_BASELINE,
    WORDS_BASELINE,
    Result,
    SplitInfo,
    is_baseline,
    record,
)
from tlfeat.studies.showing import comparison_frame, comparison_html, comparison_text, plot_comparison
from tlfeat.types import OnProgress, silent

#: Below this the difference to the best candidate is called real, after Holm's correction.
SIGNIFICANCE = 0.05

ALL_HEADS = tuple(head.name for head in HEADS)

ALL_KERAS = ("frozen", "finetuned", "scratch")


@dataclass(frozen=True, slots=True)
class Line:
    """One candidate in the comparison.

    Attributes
    ----------
    result : Result
    is_reused : bool
        Whether it was fitted by an earlier command.
    p_value : float
        McNemar's mid-p test against the best candidate (sign flips of whole groups, where there are groups),
        Holm-adjusted; 1 for the best itself.
    is_within_noise : bool
        Whether the test cannot tell it from the best.
    image_s : float
        Wall seconds from one image file to its probabilities, in a batch.
    difference : float
        Accuracy less that of the best candidate, a share.
    difference_ci95 : (float, float)
        Its 95 % interval on the same test images (not adjusted for the number of candidates).
    name : str
        The candidate, with the settings that tell it from others of the same name.
    """

    result: Result
    is_reused: bool
    p_value: float
    is_within_noise: bool
    image_s: float | None
    difference: float
    difference_ci95: tuple[float, float]
    name: str

    def to_record(self) -> dict[str, Any]:
        """Return one flat record for scripts; `fit-sklearn --json` gives the same keys."""
        return {
            **record(self.result),
            "name": self.name,
            "p_value_vs_best": self.p_value,
            "is_within_noise_of_best": self.is_within_noise,
            "difference_to_best": self.difference,
            "difference_ci95": list(self.difference_ci95),
            "image_s": self.image_s,
            "is_reused": self.is_reused,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates on one split, best accuracy first, and those that could not run with the reason."""

    cache: Path
    backbone: str
    classes: list[str]
    split: SplitInfo
    lines: list[Line]
    skipped: list[tuple[str, str]]
    notes: list[str]

    def __repr__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)

    def frame(self) -> Any:
        """Return a pandas DataFrame of one line a candidate, best first: the plain numbers of `Line.to_record`."""
        return comparison_frame(self)

    def plot(self, ax: Any = None) -> Any:
        """Draw accuracies and their intervals with matplotlib, on `ax` where one is given; return the axes."""
        return plot_comparison(self, ax)


def compare_candidates(
    data: Data,
    *,
    layer: str | None = None,
    heads: Sequence[str] = ALL_HEADS,
    keras_modes: Sequence[str] = ALL_KERAS,
    keras_options: dict[str, Any] | None = None,
    recipes: Sequence[str] = (),
    has_pixels: bool = True,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Comparison:
    """Run every candidate that has no equal Result yet and compare all on the same test images.

    Parameters
    ----------
    data : Data
        The cache and the one split.
    layer : str, optional
        For the heads.
    heads, keras_modes : sequences of str
        Candidates; see ``heads.HEADS`` and ``recipes.MODES``.
    keras_options : dict, optional
        Fields of ``recipes.TrainSettings`` for all Keras candidates.
    recipes : sequence of str
        Of ``recipes.RECIPES``, each with the backbone's own preprocessing and as written, on the backbone of the cache.
    has_pixels : bool, default=True
        Include the humble baseline: raw pixels, or TF-IDF of texts.
    is_fresh : bool, default=False
        Reuse nothing.

    Notes
    -----
    A candidate that cannot run is listed with its reason; the others are not lost. The p-values treat the
    candidate with the highest test accuracy as the reference. It was chosen on the same images, which flatters it: of
    k equally good candidates whose accuracies vary independently with a standard error of s, the highest is expected
    above the truth by s times the expected maximum of k normal values (1.2 s for 5, 1.5 s for 10); mistakes that
    candidates share make it less. The others fall behind by as much, and neither the p-values nor the intervals of the
    difference allow for that. Only images on which no candidate was chosen would tell.
    """
    recipes_run = [find_recipe(name) for name in recipes]
    runs = _head_runs(data, heads, layer, has_pixels, is_fresh, on_progress)
    for settings in _keras_settings(data.seed, keras_modes, keras_options or {}, recipes_run):
        run = partial(fit_keras, data, settings, is_fresh=is_fresh, on_progress=on_progress)
        runs.append((settings.name, run))
    if not runs:
        raise UsageError("Nothing to compare: every candidate was left out.")
    outcomes, skipped = [], []
    for name, fit in runs:
        try:
            outcomes.append(fit())
        except Interrupted:
            raise
        except KnownError as error:  # images or weights that are gone: the others need not wait for them
            skipped.append((name, str(error)))
    if not outcomes:
        raise DataError("No candidate could run. " + " ".join(f"{name}: {why}" for name, why in skipped))
    others = [note for note in (other_backbone(data, recipe) for recipe in recipes_run) if note]
    return _line_up(data, outcomes, skipped, others)


def _head_runs(
    data: Data,
    heads: Sequence[str],
    layer: str | None,
    has_pixels: bool,
    is_fresh: bool,
    on_progress: OnProgress,
) -> list[tuple[str, Callable[[], Outcome]]]:
    """Return the name of each candidate with what fits it."""
    runs: list[tuple[str, Callable[[], Outcome]]] = []
    if has_pixels and holds_texts(data.cache):
        runs.append((WORDS_BASELINE, partial(fit_words_baseline, data, is_fresh=is_fresh, on_progress=on_progress)))
    elif has_pixels:
        run = partial(fit_pixel_baseline, data, is_fresh=is_fresh, on_progress=on_progress)
        runs.append((PIXELS_BASELINE, run))
    for head in heads:
        find_head(head)
        run = partial(fit_sklearn, data, head, layer=layer, is_fresh=is_fresh, on_progress=on_progress)
        runs.append((head, run))
    return runs


def _keras_settings(
    seed: int, modes: Sequence[str], options: dict[str, Any], recipes: Sequence[Recipe]
) -> list[TrainSettings]:
    """Return how each network is trained: the modes, then each recipe with its own preprocessing and as written."""
    unknown = sorted(set(modes) - set(ALL_KERAS))
    if unknown:
        raise UsageError(f"No Keras candidate '{unknown[0]}'. Known: {', '.join(ALL_KERAS)}.")
    return [
        *(TrainSettings(mode=mode, seed=seed, **options) for mode in modes),
        *(recipe.make(is_as_written=as_written, seed=seed) for recipe in recipes for as_written in (False, True)),
    ]


def known_comparison(data: Data, *, on_progress: OnProgress = silent) -> Comparison:
    """Line up all candidates that were fitted on this cache and split before; fits nothing.

    Raises
    ------
    DataError
        There is none; the message says how to make one.
    """
    folder, split = workspace.models_dir(data.cache.path), data.split
    results = []
    for path in model_folders(data.cache.path):
        try:
            result = read_result(path)
        except ModelError:
            continue  # of an older version, or damaged
        if _is_of(result, data):
            results.append(result)
    if not results:
        raise DataError(
            f"No model in {folder} was fitted on {data.cache.path} with this split (seed {data.seed}). Run tlfeat "
            f"compare, tlfeat fit-sklearn or tlfeat fit-keras first, with the same --seed, --test-fraction and "
            f"--test-split."
        )
    leaks = data.leaks(on_progress)
    return _line_up(data, [Outcome(with_leaks(result, split, leaks), is_reused=True) for result in results], [])


def _is_of(result: Result, data: Data) -> bool:
    """Whether a saved Result was fitted on this cache and split."""
    own = dict(data.cache.fingerprint)
    if result.kind == "keras":  # a network may be trained on pixels that are scaled in another way
        own["preprocess"] = result.fingerprint.get("preprocess")
    is_same_cache = is_baseline(result.candidate) or result.fingerprint == own
    is_same_split = result.split.digest == data.split.info.digest
    return is_same_cache and is_same_split and len(result.predicted) == len(result.true) == data.split.info.n_test


def names_of(results: Sequence[Result]) -> list[str]:
    """Return a name a Result: the candidate, and where several have it, the settings in which they differ.

    A classifier of another package goes by its class alone.
    """
    names = []
    for result in results:
        settings = [other.settings for other in results if other.candidate == result.candidate]
        differing = [
            name
            for name in dict.fromkeys(name for known in settings for name in known)
            if name not in ("grid", "search", "model") and len({str(known.get(name)) for known in settings}) > 1
        ]
        told = ", ".join(f"{name} {result.settings.get(name, '–')}" for name in differing)
        short = short_name(result.candidate)
        names.append(f"{short} ({told})" if told else short)
    n_named = Counter(names)
    return [
        name if n_named[name] == 1 else f"{name} [{result.model.rpartition('-')[2] or i}]"
        for i, (name, result) in enumerate(zip(names, results, strict=True))
    ]


def _line_up(
    data: Data, outcomes: list[Outcome], skipped: list[tuple[str, str]], notes: Sequence[str] = ()
) -> Comparison:
    outcomes = sorted(outcomes, key=lambda outcome: -outcome.result.score.accuracy)
    digests = {outcome.result.split.digest for outcome in outcomes}
    if len(digests) != 1:
        raise TlfeatError(f"Results of different splits cannot be compared: {', '.join(sorted(digests))}.")
    best = outcomes[0].result
    is_scored = data.scored_tests()
    true, of_best = np.array(best.true)[is_scored], np.array(best.predicted)[is_scored]
    groups = data.split.test_groups(is_scored)
    predicted = [np.array(outcome.result.predicted)[is_scored] for outcome in outcomes]
    p_values = [1.0, *holm([mcnemar(true, other, of_best, groups) for other in predicted[1:]])]
    intervals = [(0.0, 0.0), *(difference_interval(true, other, of_best, groups) for other in predicted[1:])]
    lines = [
        Line(
            outcome.result,
            outcome.is_reused,
            p,
            p >= SIGNIFICANCE,
            _image_s(outcome.result),
            outcome.result.score.accuracy - best.score.accuracy,
            interval,
            name,
        )
        for outcome, p, interval, name in zip(
            outcomes, p_values, intervals, names_of([outcome.result for outcome in outcomes]), strict=True
        )
    ]
    return Comparison(
        cache=data.cache.path,
        backbone=next(
            (line.result.backbone for line in lines if line.result.layer not in BASELINE_LAYERS), lines[0].result.layer
        ),
        classes=data.split.classes,
        split=data.split.info,
        lines=lines,
        skipped=skipped,
        notes=[
            *filter(None, [leak_sentence(best.leaks), _shift_of(outcomes)]),
            *data.split.notes,
            *notes,
            *filter(None, map(_guessing_of, lines)),
        ],
    )


def _guessing_of(line: Line) -> str:
    """Say that a candidate only guesses; raw pixels are there to be beaten."""
    result = line.result
    if is_baseline(result.candidate):
        return ""
    return guessing_sentence(result.score, result.classes, name=line.name)


def _shift_of(outcomes: list[Outcome]) -> str:
    """Say a shift once: that of the best head."""
    results = [outcome.result for outcome in outcomes]
    heads = (result for result in results if result.kind == "head" and not is_baseline(result.candidate))
    return next((shift_sentence(result.shift) for result in heads), "")


def _image_s(result: Result) -> float | None:
    """Decode, network and head for a head; decode and network for Keras (measured together there)."""
    timing = result.timing
    if timing.predict_s_per_image is None or result.kind == "keras":
        return timing.predict_s_per_image
    if timing.extract_s_per_image is None:
        return None
    return timing.extract_s_per_image + timing.predict_s_per_image
