"""How much data: accuracy against labelled images a class, and the labels saved for equal accuracy.

Every candidate is fitted on the same seeded draws of training images and tested on the same test images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.cache.contents import Origin, choose_layers, encoder_name, holds_texts, origin, spec_of
from tlfeat.errors import DataError, Interrupted, UsageError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import VAL_FRACTION, Split, draw_per_class, folds
from tlfeat.finetune.network import Network
from tlfeat.finetune.saved import predict_pixels
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import Sources
from tlfeat.heads.fit import N_FOLDS, fit_head, predict_probabilities
from tlfeat.heads.table import find_head, search_settings
from tlfeat.heads.words import C_TRIED, fit_words, words_probabilities
from tlfeat.models.fit_sklearn import open_pixels
from tlfeat.models.fit_words import texts_of
from tlfeat.records import WORDS_BASELINE, SplitInfo
from tlfeat.studies.trials import MIN_FOR_VALIDATION, Place, RunTrial, Trial, TrialBook
from tlfeat.types import Labels, OnProgress, Rows, silent

COUNTS = "1,2,5,10,20,50,all"

KERAS_MODES = ("frozen", "scratch")

#: Of each epoch in Keras beside its images; what makes few images slow, as they need many epochs.
_EPOCH_S = 0.2


@dataclass(frozen=True, slots=True)
class Curve:
    """The curves of all candidates on one split.

    All labelled images count, those too on which Keras stops early: 15 % of a draw, none below 10 images a class.

    Attributes
    ----------
    lines : dict of candidate to list of Place
        The first candidate is the one that the others are compared with.
    n_reused : int
        Trials of earlier commands.
    """

    cache: Path
    backbone: str
    layer: str
    classes: list[str]
    split: SplitInfo
    n_draws: int
    n_keras_draws: int
    counts: list[int]
    lines: dict[str, list[Place]]
    n_reused: int
    skipped: list[tuple[str, str]]
    notes: list[str]

    @property
    def n_test(self) -> int:
        """Test images that count: those that are no leaks."""
        return len(next(iter(self.lines.values()))[0].trials[0].right)


def _union(*counts: Sequence[int]) -> list[int]:
    """Return all counts in ascending order, all images (0) last."""
    return sorted(set().union(*counts), key=lambda count: count or math.inf)


def parse_counts(text: str) -> list[int]:
    """Return the numbers of ``1,2,5,all`` in ascending order; 0 stands for all and comes last."""
    found = set()
    for word in (part.strip() for part in text.split(",") if part.strip()):
        if word != "all" and not (word.isdecimal() and int(word) > 0):
            raise UsageError(f"--counts wants numbers of images a class such as {COUNTS}, received '{word}'.")
        found.add(0 if word == "all" else int(word))
    if not found:
        raise UsageError(f"--counts wants numbers of images a class such as {COUNTS}, received '{text}'.")
    return _union(list(found))


def learning_curve(
    data: Data,
    *,
    layer: str | None = None,
    heads: Sequence[str] = ("logreg", "knn"),
    keras_modes: Sequence[str] = (),
    keras_options: dict[str, Any] | None = None,
    has_pixels: bool = True,
    counts: Sequence[int] = tuple(parse_counts(COUNTS)),
    keras_counts: Sequence[int] | None = None,
    n_draws: int = 5,
    n_keras_draws: int = 2,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Curve:
    """Fit every candidate on nested draws of training images, and test each on the same test images.

    A trial that is finished is on disk: a command that was stopped goes on after it.

    Parameters
    ----------
    data : Data
    layer : str, optional
        For the heads; `avg_pool` by default, or the only layer there is.
    heads, keras_modes : sequences of str
        Of ``heads.HEADS`` and `KERAS_MODES`.
    keras_options : dict, optional
        Fields of ``recipes.TrainSettings``.
    has_pixels : bool, default=True
        With logistic regression on raw pixels, or on TF-IDF of texts.
    counts : sequence of int
        Images a class, as `parse_counts` gives them.
    keras_counts : sequence of int, optional
        The same for networks, which are slow; `counts` by default.
    n_draws, n_keras_draws : int
        Draws for heads and for networks; all images there are make one draw.
    is_fresh : bool, default=False
        Fit again what an earlier command has fitted.
    """
    _check_asked(heads, keras_modes, min(n_draws, n_keras_draws))
    (layer,) = choose_layers(data.cache, layer)
    learn_at = data.split.where("train", "val")
    counts, notes = _within(counts, data.split, learn_at)
    keras_counts, _ = _within(keras_counts or counts, data.split, learn_at)
    book = TrialBook(data, learn_at, is_fresh, on_progress)
    if heads:
        _run_heads(data, book, heads, layer, counts, n_draws)
    if has_pixels:
        (_run_words if holds_texts(data.cache) else _run_pixels)(data, book, counts, n_draws)
    for mode in keras_modes:
        with book.kept_going(f"keras-{mode}"):
            _run_keras(data, book, mode, keras_counts, n_keras_draws, keras_options or {})
    return _as_curve(data, book, layer, _union(counts, keras_counts), (n_draws, n_keras_draws), notes)


def _check_asked(heads: Sequence[str], keras_modes: Sequence[str], least_draws: int) -> None:
    for head in heads:
        find_head(head)
    unknown = sorted(set(keras_modes) - set(KERAS_MODES))
    if unknown:
        raise UsageError(f"No Keras candidate '{unknown[0]}' in a curve. Known: {', '.join(KERAS_MODES)}.")
    if least_draws < 1:
        raise UsageError("--draws and --keras-draws are at least 1.")


def _run_words(data: Data, book: TrialBook, counts: Sequence[int], n_draws: int) -> None:
    """Fit the baseline of texts on each draw, the words those of the draw."""
    split, test_at, name = data.split, data.split.where("test"), WORDS_BASELINE
    with book.kept_going(name):
        texts = texts_of(data)

        def run(positions: Labels, count: int, draw: int) -> Trial:
            fitted = fit_words(
                [texts[i] for i in positions],
                split.labels[positions],
                folds(split, positions, n_folds=N_FOLDS, seed=data.seed),
                seed=data.seed,
            )
            probabilities = words_probabilities(fitted.head, [texts[i] for i in test_at])
            predicted = fitted.head.classes_[probabilities.argmax(axis=1)]
            right, spent_s = _marks(predicted == split.labels[test_at]), fitted.search_s + fitted.fit_s
            return Trial(name, count, draw, len(positions), right, spent_s, fitted.chosen)

        book.run(name, counts, n_draws, {"layer": "tfidf", "C": list(C_TRIED)}, run)


def _run_pixels(data: Data, book: TrialBook, counts: Sequence[int], n_draws: int) -> None:
    name, settings = "pixels+logreg", {"layer": "pixels", **search_settings()}
    with book.kept_going(name), open_pixels(data, on_progress=book.on_progress) as small:
        rows = small.read("pixels", data.split.keys)
        book.run(name, counts, n_draws, settings, _head_run(data, name, "logreg", rows))


def _run_heads(
    data: Data, book: TrialBook, heads: Sequence[str], layer: str, counts: Sequence[int], n_draws: int
) -> None:
    rows = data.cache.read(layer, data.split.keys)
    for head in heads:
        book.run(head, counts, n_draws, {"layer": layer, **search_settings()}, _head_run(data, head, head, rows))


def _as_curve(
    data: Data, book: TrialBook, layer: str, counts: Sequence[int], n_draws: tuple[int, int], notes: list[str]
) -> Curve:
    """Return what the book holds; an error where no candidate could run."""
    if not book.lines:
        reasons = " ".join(f"{name}: {why}" for name, why in book.skipped)
        raise DataError(f"No candidate could run. {reasons}" if reasons else "Nothing to measure: no candidate.")
    reached = {place.count for line in book.lines.values() for place in line}
    return Curve(
        cache=data.cache.path,
        backbone=encoder_name(data.cache),
        layer=layer,
        classes=data.split.classes,
        split=data.split.info,
        n_draws=n_draws[0],
        n_keras_draws=n_draws[1],
        counts=[count for count in counts if count in reached],
        lines=book.lines,
        n_reused=book.n_reused,
        skipped=book.skipped,
        notes=[*data.split.notes, *notes],
    )


def _within(counts: Sequence[int], split: Split, learn_at: Labels) -> tuple[list[int], list[str]]:
    """Drop the counts that are all images of every class, and say so."""
    n_of_class = np.bincount(split.labels[learn_at])
    least, most = int(n_of_class.min()), int(n_of_class.max())
    beyond = [count for count in counts if count >= most]
    kept = [count for count in counts if count < most]
    if not kept:
        raise UsageError(
            f"The largest class has {most:,} training images; {', '.join(map(str, beyond))} a class are more than "
            f"there are. Ask for fewer, or for all."
        )
    notes = []
    if beyond:  # what was asked for is all there is: that is what it gets
        kept = kept if 0 in kept else [*kept, 0]
        notes.append(f"{', '.join(map(str, beyond))} images a class: no class has more than {most:,}, this is all")
    if least < most and 0 in kept:
        notes.append(f"all are {least:,} to {most:,} images a class, in proportions that balanced draws do not have")
    return kept, notes


def _head_run(data: Data, candidate: str, head: str, rows: Rows) -> RunTrial:
    split, test_at = data.split, data.split.where("test")

    def run(positions: Labels, count: int, draw: int) -> Trial:
        fitted = fit_head(head, rows[positions], split, positions, seed=data.seed)
        predicted = fitted.classes[predict_probabilities(fitted.head, rows[test_at]).argmax(axis=1)]
        spent_s = fitted.search_s + fitted.fit_s
        right = _marks(predicted == split.labels[test_at])
        return Trial(candidate, count, draw, len(positions), right, spent_s, fitted.chosen, fitted.notes)

    return run


def _marks(is_right: npt.NDArray[np.bool_]) -> str:
    return "".join("01"[int(right)] for right in is_right)


def _run_keras(
    data: Data,
    book: TrialBook,
    mode: str,
    counts: Sequence[int],
    n_draws: int,
    options: dict[str, Any],
) -> None:
    from tlfeat.finetune import train as finetune

    candidate = f"keras-{mode}"
    spec, split, test_at = spec_of(data.cache), data.split, data.split.where("test")
    train_settings = TrainSettings(mode=mode, **options)
    settings = {"train": {**train_settings.to_dict(), "seed": data.seed}, "val": [VAL_FRACTION, MIN_FOR_VALIDATION]}
    size, resize = spec.size, str(data.cache.fingerprint.get("resize"))
    images = data.cache.table.images
    with Sources(spec, images, split, size, resize, data.stem, embeddings=data.cache) as sources:

        def run(positions: Labels, count: int, draw: int) -> Trial:
            drawn = _for_keras(split, positions, count, seed=data.seed, draw=draw)
            seeded = replace(train_settings, seed=data.seed + draw)
            network = Network(spec, size, len(split.classes), seeded)
            trained = finetune.train(network, drawn, sources, on_progress=book.on_progress)
            if trained.is_interrupted:
                raise Interrupted("Stopped. Every draw that was finished is kept; the same command goes on from there.")
            pixels, is_there = sources.pixels().read(test_at)
            if not is_there.all():
                raise DataError("Test images cannot be read any more. Run the same tlfeat extract again.")
            predicted = predict_pixels(trained.model, pixels).argmax(axis=1)
            right = _marks(predicted == split.labels[test_at])
            return Trial(candidate, count, draw, len(positions), right, trained.fit_s, trained.chosen, trained.notes)

        book.run(candidate, counts, n_draws, settings, run)


def _for_keras(split: Split, positions: Labels, count: int, *, seed: int, draw: int) -> Split:
    """Return the split with the drawn images alone for training, some of them for early stopping."""
    if not count:
        return split
    roles = [role if role == "test" else "" for role in split.roles]
    n_train = count - round(VAL_FRACTION * count) if count >= MIN_FOR_VALIDATION else count
    train = draw_per_class(split, positions, n_train, seed=seed, draw=draw)  # nested: part of `positions`
    for i in positions:
        roles[i] = "val"
    for i in train:
        roles[i] = "train"
    return replace(split, roles=roles)


def keras_estimate_s(data: Data, counts: Sequence[int], n_draws: int) -> float | None:
    """Return at most about how long `KERAS_MODES` would train, from the seconds an image took to embed.

    A frozen network runs forwards for 500 steps of 32 images or 20 epochs, one from scratch forwards and backwards,
    three times as much, for 800 steps or 30 epochs; early stopping often halves that, other work on the cores doubles
    it.
    """
    timing = data.cache.timing
    if not timing["n_embedded"] or origin(data.cache) is not Origin.KERAS:
        return None
    image_s, learn_at = timing["embed_s"] / timing["n_embedded"], data.split.where("train", "val")
    spent = 0.0
    for count in counts:
        at = draw_per_class(data.split, learn_at, count, seed=data.seed, draw=0) if count else learn_at
        for mode in KERAS_MODES:
            phase = TrainSettings(mode=mode).phases(len(at))[-1]
            epoch_s = _EPOCH_S + phase.passes * len(at) * image_s * (3 if mode == "scratch" else 1)
            spent += (n_draws if count else 1) * phase.epochs * epoch_s
    return spent
