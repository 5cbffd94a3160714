"""Predictions of new pictures as questions: the least sure first, and what is like no class in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from tlfeat.errors import ModelError, UsageError
from tlfeat.heads.reject import COVERAGE
from tlfeat.labelling.questions import GROUP_KEY, KEEP_KEY, OPEN_KEY, Choice, Other, Question
from tlfeat.models.predict import Model, Prediction
from tlfeat.report.cluster_map import clusters_of
from tlfeat.text import counted
from tlfeat.types import Rows, StrPath

#: Pictures of a group: a single one is none, and of fewer unknown ones than `_MIN_UNKNOWN` none are made.
MIN_GROUP, _MIN_UNKNOWN = 2, 4

#: Groups at most, fewer where there are not so many pictures for each. Smaller groups are of one kind more often.
MAX_GROUPS, _PICTURES_A_GROUP = 8, 4

#: Pictures of a group that its question shows.
MAX_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Review:
    """The questions of a review.

    Attributes
    ----------
    questions : list of Question
        Groups first, the largest first; then each picture, also those of groups, the least sure first.
    groups : list of list of int
        Numbers of the pictures of each group, the most typical first; `Choice.cluster` is a place here.
    """

    questions: list[Question]
    groups: list[list[int]]


def load_reviewed(folder: StrPath, *, is_trusted: bool = False) -> tuple[Model, list[str]]:
    """Return a saved head that says "unknown" where it can, and notes on what it cannot.

    Raises
    ------
    ModelError
        As `Model` does.
    UsageError
        A network of ``fit-keras``: it has no rows by which pictures could be told alike.
    """
    notes = []
    try:
        model = Model(folder, is_trusted=is_trusted, coverage=COVERAGE)
    except ModelError as error:
        model = Model(folder, is_trusted=is_trusted)  # raises again unless it was about "unknown"
        notes = [f"no picture will be called unknown: {error}"]
    if model.network is not None:
        raise UsageError(f"{folder} is a network of fit-keras. A review wants a model of tlfeat fit-sklearn.")
    return model, notes


def review(
    predictions: Sequence[Prediction], numbers: Sequence[int], rows: Rows, classes: Sequence[str], *, seed: int = 0
) -> Review:
    """Return the questions on new pictures, with their groups.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of `Model.predict_rows`, with as many classes as are to be shown.
    numbers : sequence of int
        The place of each picture in its set.
    rows : float32 array of shape (n_images, width)
        Of these pictures. Not modified.
    classes : sequence of str
        Of the model: no group is called like one.
    seed : int, default=0
    """
    unknown = [i for i, prediction in enumerate(predictions) if prediction.refused]
    groups = [[numbers[unknown[j]] for j in group] for group in unknown_groups(rows[unknown], seed=seed)]
    return Review([*_group_questions(groups, classes), *review_questions(predictions, numbers)], groups)


def review_questions(predictions: Sequence[Prediction], numbers: Sequence[int]) -> list[Question]:
    """Return a question for each picture that was read: those that the model calls unknown, then the least sure."""
    pairs = [pair for pair in zip(predictions, numbers, strict=True) if not pair[0].error]
    pairs.sort(key=lambda pair: (not pair[0].refused, pair[0].probability))
    return [_question(prediction, number) for prediction, number in pairs]


def _question(prediction: Prediction, number: int) -> Question:
    if prediction.refused:
        return Question(number, "unknown", top=prediction.top, text=f"unknown: {prediction.refused}")
    return Question(
        number, "prediction", suggestion=prediction.label, probability=prediction.probability, top=prediction.top
    )


def unknown_groups(rows: Rows, *, seed: int = 0) -> list[list[int]]:
    """Return the places of rows that are alike, 2 to 8 groups, the largest first, each with its most typical first.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width)
        Not modified. Of less than 4 there are no groups.
    """
    if len(rows) < _MIN_UNKNOWN:
        return []
    n_groups = max(2, min(MAX_GROUPS, len(rows) // _PICTURES_A_GROUP))
    cluster, order = clusters_of(rows, n_groups, seed)
    groups = [[int(i) for i in order if cluster[i] == c] for c in range(int(cluster.max()) + 1)]
    return [group for group in groups if len(group) >= MIN_GROUP]


def _group_questions(groups: Sequence[Sequence[int]], classes: Sequence[str]) -> list[Question]:
    names = (name for n in count(1) if (name := f"group {n}") not in classes)
    return [_group_question(place, group, next(names)) for place, group in enumerate(groups)]


def _group_question(place: int, group: Sequence[int], name: str) -> Question:
    first, *others = group
    return Question(
        first,
        "group",
        others=[Other(number, "") for number in others[: MAX_SHOWN - 1]],
        text=f"{counted(len(group), 'picture')} that are like none of your classes, and like each other",
        choices=[
            Choice(GROUP_KEY, f"all of these are a new class, {name}", "label", name),
            Choice(OPEN_KEY, "look at them together", "cluster", cluster=place),
            Choice(KEEP_KEY, "ask of each", "keep"),
        ],
        together=list(others),
    )
