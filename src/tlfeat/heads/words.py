"""The humble baseline for texts: counts of words and pairs of words, weighted by TF-IDF, and logistic regression.

TF-IDF: Sparck Jones 1972 and Salton and Buckley 1988; `sublinear_tf` takes 1 + log(count). C is chosen on held-out
folds, in each of which the words, too, are those of its training part.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.errors import DataError
from tlfeat.types import Floats, Labels

#: Inverse strengths of the penalty that are tried.
C_TRIED = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

#: Where there is nothing to choose on.
_C_DEFAULT = 10.0

#: How a text becomes counts; part of the settings of a fit.
WORDS: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True, "max_features": 200_000}

_MAX_ITERATIONS = 2000


@dataclass(frozen=True, slots=True)
class WordsFit:
    """A fitted pipeline from texts to classes, and what it took.

    Attributes
    ----------
    head : Pipeline
        Of scikit-learn: it takes texts.
    chosen : dict
    held_out : float64 array of shape (n_texts, n_classes), optional
        Probabilities of each text by a head that had not seen it; nan where it was never held out.
    search_s, fit_s : float
        Wall seconds, counting of words included.
    """

    head: Any
    chosen: dict[str, Any]
    held_out: Floats | None
    search_s: float
    fit_s: float


def fit_words(
    texts: Sequence[str], labels: Labels, folds: Sequence[tuple[Labels, Labels]], *, seed: int = 0
) -> WordsFit:
    """Choose C on folds, and fit on all texts.

    Parameters
    ----------
    texts : sequence of str
    labels : int array of shape (n_texts,)
    folds : sequence of (training, held-out) positions
        As `split.folds` gives them; without any C is 10.

    Raises
    ------
    DataError
        No text has a word of two letters or more.
    """
    started_s = time.perf_counter()
    held_out, c = None, _C_DEFAULT
    if folds:
        held_out, c = _searched(texts, labels, folds, seed)
    search_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    head = _fitted(texts, labels, c, seed)
    n_words = len(head.steps[0][1].vocabulary_)
    return WordsFit(head, {"C": c, "words": n_words}, held_out, search_s, time.perf_counter() - started_s)


def _searched(
    texts: Sequence[str], labels: Labels, folds: Sequence[tuple[Labels, Labels]], seed: int
) -> tuple[Floats, float]:
    """Return the held-out probabilities of the best C, and that C: of the lowest log loss."""
    n_classes = int(labels.max()) + 1
    scores = np.full((len(C_TRIED), len(texts), n_classes), np.nan)
    for learned, held in folds:
        vectorizer = _vectorizer()
        known = _counted(vectorizer, [texts[i] for i in learned])
        asked = vectorizer.transform([texts[i] for i in held])
        classifier = _classifier(C_TRIED[0], seed).set_params(warm_start=True)  # each from where the last one ended
        for k, c in enumerate(C_TRIED):
            classifier.set_params(C=c).fit(known, labels[learned])
            scores[k][np.ix_(held, classifier.classes_)] = classifier.predict_proba(asked)
    is_held = np.isfinite(scores[0]).any(axis=1)
    of_truth = np.nan_to_num(scores[:, is_held, labels[is_held]])  # a class that a fold lacks has no chance
    losses = -np.log(np.maximum(of_truth, 1e-12)).mean(axis=1)
    best = int(np.argmin(losses))
    return np.nan_to_num(scores[best]) if is_held.all() else scores[best], C_TRIED[best]


def _fitted(texts: Sequence[str], labels: Labels, c: float, seed: int) -> Any:
    from sklearn.pipeline import Pipeline

    vectorizer, classifier = _vectorizer(), _classifier(c, seed)
    classifier.fit(_counted(vectorizer, texts), labels)
    return Pipeline([("words", vectorizer), ("logreg", classifier)])


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**WORDS)


def _classifier(c: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    # on 1,600 texts of 15,000 words saga takes a tenth of the time of lbfgs
    return LogisticRegression(C=c, solver="saga", max_iter=_MAX_ITERATIONS, random_state=seed)


def _counted(vectorizer: Any, texts: Sequence[str]) -> Any:
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:  # "empty vocabulary"
        raise DataError("TF-IDF finds no word of two letters or more in these texts") from error


def words_probabilities(head: Any, texts: Sequence[str] | npt.NDArray[Any]) -> Floats:
    """Return probabilities of shape (n_texts, n_classes)."""
    found: Floats = np.asarray(head.predict_proba(list(texts)), dtype=np.float64)
    return found


def takes_words(head: Any) -> bool:
    """Whether a head is one of `fit_words`."""
    steps = getattr(head, "steps", None) or [("", None)]
    return type(steps[0][1]).__name__ == "TfidfVectorizer"


def check_words(head: Any) -> None:
    """Raise ValueError unless a head of a stranger's file counts words as `fit_words` does, and answers for a text."""
    vectorizer, usual = head.steps[0][1], _vectorizer()
    for name in ("analyzer", "tokenizer", "preprocessor", "token_pattern", "stop_words", "strip_accents", "input"):
        if getattr(vectorizer, name) != getattr(usual, name):
            raise ValueError(f"its words are counted with another {name}")
    found = words_probabilities(head, ["one text"])
    if found.shape != (1, len(head.classes_)) or not np.isfinite(found).all():
        raise ValueError("its probabilities are none")
