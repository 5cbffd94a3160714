"""What accuracy costs: seconds of a Result, the candidates that none beats in both, when extraction has paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tlfeat.records import BASELINE_LAYERS, Result

#: What may count as the time of a candidate, in the order in which it is offered.
COSTS = {
    "choosing and fitting": "choosing parameters and fitting; for Keras all epochs, decoding in the first",
    "from image files": "the same with extraction, which all heads share",
    "the last fit alone": "fitting once with the parameters that were chosen; for Keras all epochs",
}


def seconds_of(result: Result, cost: str) -> float | None:
    """Return the wall seconds of a candidate under one of `COSTS`; None where they were not measured."""
    timing = result.timing
    if timing.fit_s is None:
        return None
    if cost == "the last fit alone":
        return timing.fit_s
    chosen_s = (timing.decode_s or 0.0) + (timing.search_s or 0.0) + timing.fit_s
    if cost == "choosing and fitting":
        return chosen_s
    if result.kind == "keras":  # it reads the image files itself, or extracts what crosses its cut
        return (timing.extract_s or 0.0) + chosen_s
    return None if timing.extract_s is None else timing.extract_s + chosen_s


def _once_s(result: Result) -> float:
    """Return what a network takes once, however often it is trained: decoding, or extraction up to its cut."""
    return (result.timing.decode_s or 0.0) + (result.timing.extract_s or 0.0)


def frontier(points: Sequence[tuple[float | None, float]]) -> list[bool]:
    """Return which of (seconds, accuracy) no other one beats: as good and faster, or as fast and better.

    Equal ones are on the frontier together; one without seconds is not on it (Pareto front).
    """

    def is_beaten(cost_s: float, accuracy: float) -> bool:
        return any(s is not None and s <= cost_s and a >= accuracy and (s < cost_s or a > accuracy) for s, a in points)

    return [s is not None and not is_beaten(s, accuracy) for s, accuracy in points]


def break_even(
    extract_s: float | None, head_s: float | None, decode_s: float | None, keras_s: float | None
) -> int | None:
    """Return after how many trainings extraction has paid for itself.

    The least N >= 1 so that for it and for every larger number n of trainings ::

        extract_s + n * head_s  <  decode_s + n * keras_s

    Parameters
    ----------
    extract_s : float or None
        Seconds of extraction, once.
    head_s : float or None
        Of choosing and fitting a head on cached rows, every time.
    decode_s : float or None
        Of decoding for Keras, or extraction up to its cut, once; None counts as none (it decodes while it trains).
    keras_s : float or None
        Of all epochs, every time.

    Returns
    -------
    int or None
        None where it never pays, or where a time is not known.
    """
    if extract_s is None or head_s is None or keras_s is None:
        return None
    ahead_s, gain_s = extract_s - (decode_s or 0.0), keras_s - head_s
    if gain_s <= 0:
        return 1 if gain_s == 0 and ahead_s < 0 else None
    return max(1, math.floor(ahead_s / gain_s) + 1)


@dataclass(frozen=True, slots=True)
class BreakEven:
    """One Keras candidate against the best head: places in the list of Results, and the `break_even` between them."""

    head: int
    keras: int
    n_trainings: int | None


def break_evens(results: Sequence[Result]) -> list[BreakEven]:
    """Return the break-even of each Keras candidate against the most accurate head whose extraction was timed."""
    heads = [
        i
        for i, r in enumerate(results)
        if r.kind == "head"
        and r.layer not in BASELINE_LAYERS
        and r.timing.extract_s is not None
        and r.timing.fit_s is not None
    ]
    if not heads:
        return []
    head = max(heads, key=lambda i: results[i].score.accuracy)
    head_s = seconds_of(results[head], "choosing and fitting")
    return [
        BreakEven(head, i, break_even(results[head].timing.extract_s, head_s, _once_s(r), r.timing.fit_s))
        for i, r in enumerate(results)
        if r.kind == "keras" and r.timing.fit_s is not None
    ]
