"""How accurate the head is, from pictures that were asked at random, and what twice the labels would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tlfeat.evaluate.intervals import Interval, wilson_interval
from tlfeat.heads.blocks import steady_threads
from tlfeat.heads.learner import LinearModel
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.studies.doubling import MISFIT, gain_of_doubling
from tlfeat.types import Bools, Labels

#: Each random picture is predicted by a head that did not learn from its fold.
N_FOLDS = 5

#: Heads of the first quarter, the first half and all of the labels: three points of a learning curve.
_SHARES = (0.25, 0.5, 1.0)

#: Below so many random pictures nothing is said of twice the labels: one mistake would decide.
_FEWEST = 20

_N_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """The accuracy of the head of all labels, on new pictures like those of the set.

    Attributes
    ----------
    n, right : int
        Pictures that were asked at random and have a label, and how many of them a head predicted that had not
        learned from them.
    accuracy : float
    interval : tuple of float
        95 % interval of the accuracy.
    doubling : float, optional
        What twice as many labels would add to it, a share; None where too few were asked.
    doubling_interval : tuple of float, optional
        95 % interval of that.
    heads : tuple of LinearModel
        Where the next estimate starts.
    """

    n: int
    right: int
    accuracy: float
    interval: Interval
    doubling: float | None = None
    doubling_interval: Interval | None = None
    heads: tuple[LinearModel | None, ...] = field(default=(), repr=False)


def estimate(
    graph: Graph,
    places: Labels,
    labels: Labels,
    is_random: Bools,
    n_classes: int,
    *,
    before: Estimate | None = None,
    has_doubling: bool = True,
) -> Estimate | None:
    """Return the accuracy of the head of all labels, by cross-fitting over the pictures that were asked at random.

    These are cut in five folds. Each fold is predicted by a head that learned from all other labels, those that were
    chosen among them. The estimate is of new pictures like those of the set, not of those left in it.

    What was chosen must not depend on the random pictures: the head that chooses learns from the chosen ones alone. One
    that knows all labels asks for nothing near a random picture, so that its fold is predicted by a head with a hole
    there: on sign_digits with 300 labels, 85 % were estimated where 90 % were true (docs/benchmarks/label.md).

    Parameters
    ----------
    graph : Graph
        Of the pool; labels are spread over it without those of the fold.
    places : int array of shape (n,)
        In the pool, of the pictures that have a label, in the order in which they were answered.
    labels : int array of shape (n,)
        From 0 to ``n_classes - 1``.
    is_random : bool array of shape (n,)
    n_classes : int
    before : Estimate, optional
        The one before: its heads are where these start. No head ever saw the fold that it predicts, because a picture
        keeps its fold. After an answer was taken back or changed, give none.
    has_doubling : bool, default=True
        Whether to say anew what twice the labels would bring, which takes three times as long; else what `before` said.

    Returns
    -------
    Estimate or None
        None as long as there is no random picture, or no label beside them.
    """
    random = np.flatnonzero(is_random)
    if not len(random) or len(labels) < 2:
        return None
    fold_of = np.full(len(labels), -1)
    fold_of[random] = np.arange(len(random)) % N_FOLDS
    shares = _SHARES if has_doubling and len(random) >= _FEWEST else _SHARES[-1:]
    right, heads = _held_out(graph, places, labels, fold_of, n_classes, shares, _starts(before, len(shares)))
    found = right[:, random]
    n, n_right = len(random), int(found[-1].sum())
    made = Estimate(n, n_right, n_right / n, wilson_interval(n_right, n), heads=tuple(heads))
    if len(shares) > 1:
        gain, gain_interval = _doubling(found, len(labels))
        return replace(made, doubling=gain, doubling_interval=gain_interval)
    if before is None:
        return made
    return replace(
        made,
        doubling=before.doubling,
        doubling_interval=before.doubling_interval,
        heads=(*before.heads[:-N_FOLDS], *heads),  # those of fewer labels are where a later estimate starts
    )


def _held_out(
    graph: Graph,
    places: Labels,
    labels: Labels,
    fold_of: Labels,
    n_classes: int,
    shares: Sequence[float],
    starts: Sequence[LinearModel | None],
) -> tuple[Bools, list[LinearModel | None]]:
    """Return which labels heads of the first of the others get right, (n_shares, n), and these heads, fold by fold."""
    right, heads = np.zeros((len(shares), len(labels)), bool), list[LinearModel | None]()
    with steady_threads():
        for i, share in enumerate(shares):
            is_early = np.arange(len(labels)) < share * len(labels)
            for fold in range(N_FOLDS):
                learned, held, start = is_early & (fold_of != fold), fold_of == fold, starts[len(heads)]
                head = None
                if learned.any():
                    head = fit_spread(graph, places[learned], labels[learned], n_classes, start=start)
                    right[i, held] = head.scores(graph.rows[places[held]]).argmax(axis=1) == labels[held]
                heads.append(head)
    return right, heads


def _starts(before: Estimate | None, n_shares: int) -> Sequence[LinearModel | None]:
    """Return where the heads of each share and fold start; those of all labels stand last."""
    known = () if before is None else before.heads
    return (*[None] * (n_shares * N_FOLDS - len(known)), *known)[-n_shares * N_FOLDS :]


def _doubling(right: Bools, n_labels: int) -> tuple[float, Interval]:
    """Return what twice the labels would add, and its interval.

    A bootstrap over the random pictures, the misfit of the curve, and two pictures more or less: where none is wrong,
    all resamples are alike.
    """
    n = right.shape[1]

    def gain(of: Bools) -> float:
        return gain_of_doubling([(s * n_labels, float(line.mean())) for s, line in zip(_SHARES, of, strict=True)], n)

    rng = np.random.default_rng(0)
    low, high = np.percentile([gain(right[:, rng.integers(0, n, n)]) for _ in range(_N_RESAMPLES)], [2.5, 97.5])
    mean = gain(right)
    return mean, (float(low) - MISFIT * mean - 2 / n, float(high) + MISFIT * mean + 2 / n)


def is_reached(found: Estimate | None, until: float) -> bool:
    """Return whether the lower end of the interval is at `until`, a share, or above.

    Looking after every answer is no trouble here: where it stopped first, the accuracy was below in 1 to 2 % of the
    stops (``benchmarks/label.py``, estimate), because it rises while somebody labels.
    """
    return found is not None and found.interval[0] >= until
