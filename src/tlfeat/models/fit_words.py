"""The humble baseline for texts, from the texts of a cache to a saved model and its Result."""

from __future__ import annotations

import time

import numpy as np

from tlfeat.backbones.words import WordsEncoder
from tlfeat.cache.contents import Origin, read_texts
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import folds
from tlfeat.heads.fit import N_FOLDS
from tlfeat.heads.saved import save_head
from tlfeat.heads.shift import HeldOut
from tlfeat.heads.words import C_TRIED, WORDS, fit_words, words_probabilities
from tlfeat.models.saved import Fitted, Outcome, known_result, model_folder, write_model
from tlfeat.records import WORDS_BASELINE, Timing
from tlfeat.text import counted
from tlfeat.types import OnProgress, silent


def texts_of(data: Data) -> list[str]:
    """Return the texts of a split, in its order.

    Raises
    ------
    DataError
        Some cannot be read again: a cache keeps no text.
    """
    found = read_texts(data.cache, data.split.keys)
    if gone := sum(key not in found for key in data.split.keys):
        raise DataError(
            f"{counted(gone, 'text')} of {len(data.split.keys):,} cannot be read again from "
            f"{data.cache.table.images.source}: it has gone or changed, and a cache keeps no text. Put it back, or run "
            f"tlfeat extract on it again"
        )
    return [found[key] for key in data.split.keys]


def fit_words_baseline(data: Data, *, is_fresh: bool = False, on_progress: OnProgress = silent) -> Outcome:
    """Fit logistic regression on TF-IDF of the same texts: what a text encoder has to beat.

    Times: counting the words is part of the search, of the fit and of a prediction, as reading a text is of none.
    """
    split, encoder = data.split, WordsEncoder()
    settings = {
        "model": WORDS_BASELINE,
        "layer": encoder.name,
        "seed": data.seed,
        "C": list(C_TRIED),
        "words": {name: list(value) if isinstance(value, tuple) else value for name, value in WORDS.items()},
    }
    started_s = time.perf_counter()
    leaks = data.leaks(on_progress)
    leaks_s = time.perf_counter() - started_s
    folder = model_folder(data, WORDS_BASELINE, settings, encoder.fingerprint)
    if not is_fresh and (known := known_result(folder, split, leaks)) is not None:
        return Outcome(known, is_reused=True)
    on_progress(f"fitting {WORDS_BASELINE}", 0, 0)
    texts, learn_at, test_at = texts_of(data), split.where("train", "val"), split.where("test")
    learned = fit_words(
        [texts[i] for i in learn_at],
        split.labels[learn_at],
        folds(split, learn_at, n_folds=N_FOLDS, seed=data.seed),
        seed=data.seed,
    )
    started_s = time.perf_counter()
    probabilities = words_probabilities(learned.head, [texts[i] for i in test_at])
    predict_s = time.perf_counter() - started_s
    held_out = None
    if learned.held_out is not None:
        is_held = np.isfinite(learned.held_out[:, 0])
        is_right = learned.held_out.argmax(axis=1) == split.labels[learn_at]
        held_out = HeldOut(is_right[is_held], split.groups[learn_at][is_held])
    fitted = Fitted(
        candidate=WORDS_BASELINE,
        kind="head",
        backbone=encoder.name,
        layer=encoder.name,
        settings=settings,
        fingerprint=encoder.fingerprint,
        encoder={"backbone": str(Origin.TFIDF)},
        chosen=learned.chosen,
        probabilities=probabilities,
        timing=Timing(
            extract_s=0.0,
            extract_s_per_image=0.0,
            leaks_s=leaks_s,
            search_s=learned.search_s,
            fit_s=learned.fit_s,
            predict_s_per_image=predict_s / len(test_at),
        ),
        notes=[],
        held_out=held_out,
    )
    return Outcome(write_model(folder, fitted, data, leaks, lambda to: save_head(learned.head, to)), is_reused=False)
