""" "Or label 5 a class": what adapting without labels is worth, in labels of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlfeat.adapt.methods import Fitter, Method, probabilities_of
from tlfeat.adapt.task import Task
from tlfeat.errors import UsageError
from tlfeat.evaluate.domain_split import DomainSplit
from tlfeat.evaluate.intervals import mean_interval
from tlfeat.models.adapted_rows import Prepared
from tlfeat.types import Labels, OnProgress, silent

#: Labelled images a class that are tried.
COUNTS = "1,5,20"

N_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """Some images a class of the target labelled after all, over several draws.

    Attributes
    ----------
    count : int
        Images a class that were asked for.
    n_labels : float
        In all, the mean over draws; a class with fewer gives all that it has.
    target_only, both : list of float
        Accuracy of each draw on the target's test images: a head of these labels alone, and one of these and of the
        sources, the chosen method included, where both sides count the same.
    """

    count: int
    n_labels: float
    target_only: list[float]
    both: list[float]

    def to_record(self) -> dict[str, object]:
        """Return means and 95 % t-intervals over draws, for scripts."""
        sides = {"target_only": self.target_only, "both": self.both}
        return {
            "labels_a_class": self.count,
            "n_labels": self.n_labels,
            **{name: float(np.mean(values)) for name, values in sides.items()},
            **{f"{name}_ci95": list(mean_interval(values)) for name, values in sides.items()},
            "n_draws": len(self.both),
        }


def parse_labels(text: str) -> list[int]:
    """Return the numbers of ``1,5,20`` in ascending order, none of ``none``."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return []
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--labels wants numbers of images a class such as {COUNTS}, or none; received '{text}'.")
    return sorted({int(word) for word in words})


def label_some(
    found: DomainSplit,
    prepared: Prepared,
    fitter: Fitter,
    method: Method,
    *,
    counts: Sequence[int],
    n_draws: int = N_DRAWS,
    on_progress: OnProgress = silent,
) -> list[Labelled]:
    """Label some of the images that were adapted to, fit on them alone and beside the sources, and test both.

    Draws are nested: the one for 1 image a class is part of the one for 5. A count beyond what every class has is left
    out, and so is everything where fewer than two classes have labels.

    Parameters
    ----------
    found : DomainSplit
    prepared : Prepared
    fitter : Fitter
        Of the same task.
    method : Method
        The one that was chosen.
    counts : sequence of int
        Labelled images a class.
    """
    hidden = found.adapt.hidden[prepared.adapt_at]
    sizes = np.bincount(hidden[hidden >= 0], minlength=len(found.split.classes))
    counts = [count for count in counts if count <= sizes.max(initial=0)]
    if (sizes > 0).sum() < 2:
        return []
    places: dict[int, tuple[list[float], list[float], list[int]]] = {count: ([], [], []) for count in counts}
    for draw in range(n_draws):
        order = np.random.default_rng([prepared.task.seed, draw]).permutation(len(hidden))
        for i, count in enumerate(counts):
            on_progress("labelling some", draw * len(counts) + i, n_draws * len(counts))
            at = _first(hidden, order, count)
            alone, both, numbers = places[count]
            alone.append(_accuracy(_alone(prepared, fitter, at, hidden[at]), prepared, found))
            both.append(_accuracy(fitter.fit_with_labels(method, at, hidden[at]), prepared, found))
            numbers.append(len(at))
    return [Labelled(count, float(np.mean(numbers)), alone, both) for count, (alone, both, numbers) in places.items()]


def worth_in_labels(lines: Sequence[Labelled], accuracy: float) -> float | None:
    """Return with how many labels a class a head of the target alone is as accurate, between the counts tried.

    The mean accuracy is taken as a straight line in the logarithm of the count. 0 where one label a class does as well;
    infinite where the most that were tried do worse; None of nothing.
    """
    if not lines:
        return None
    means = [float(np.mean(line.target_only)) for line in lines]
    if accuracy <= means[0]:
        return 0.0
    for (low, one), (high, other) in zip(
        zip(lines, means, strict=True), list(zip(lines, means, strict=True))[1:], strict=False
    ):
        if one < accuracy <= other:
            share = (accuracy - one) / (other - one)
            return float(np.exp(np.log(low.count) + share * (np.log(high.count) - np.log(low.count))))
    return float("inf")


def _first(hidden: Labels, order: Labels, count: int) -> Labels:
    """Return the first so many images of each class in an order."""
    labels = hidden[order]
    return np.sort(np.concatenate([order[labels == label][:count] for label in np.unique(labels[labels >= 0])]))


def _alone(prepared: Prepared, fitter: Fitter, at: Labels, labels: Labels) -> object:
    """Fit a head on the labelled images of the target alone, searched like any other."""
    task = prepared.task
    rows = task.target[slice(0, task.target.shape[0])][at]
    own = Task(
        source=rows,
        labels=labels,
        domains=np.repeat(task.target_name, len(at)),
        target=rows,
        target_name=task.target_name,
        classes=task.classes,
        groups=np.arange(len(at)),
        seed=task.seed,
        is_signed=task.is_signed,
    )
    return Fitter(own, fitter.head).source_head()


def _accuracy(head: object, prepared: Prepared, found: DomainSplit) -> float:
    return float(prepared.right(probabilities_of(head, prepared.test, found.split.classes)).mean())
