"""What a pass through the network cost: written by ``extract``, read by whoever compares backbones.

A pass gives the rows of several layers at once. What one of them alone would cost is measured where a pass had that
layer alone, and an estimate or an upper bound elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tlfeat.cache.reader import NO_TIMING, Cache
from tlfeat.text import seconds

#: Passes that a cache remembers, the newest ones; the document lies in the header of the file, which is small.
_MOST = 8

#: Below this share of embedded images among those that were read, reading the others counts too much.
_LEAST_EMBEDDED = 0.9

#: How the cost of layers is known: by a pass for exactly these, by the share of the multiply-adds of a pass for more
#: layers, or only that it is no more than such a pass.
Known = Literal["measured", "estimated", "at most"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Passes for the same layers on the same processor, summed.

    Attributes
    ----------
    layers : list of str
    n : int
        Images that went through the network.
    cpu_s, wall_s : float
        From the first file to the last row, reading and decoding included, building the network not.
    encode_share : float
        Of the time of the threads, what the network took; the rest is reading, decoding and resizing.
    runtime : str
        What computed the rows.
    processor : str
    """

    layers: list[str]
    n: int
    cpu_s: float
    wall_s: float
    encode_share: float
    runtime: str
    processor: str

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor for an image."""
        return 1000 * self.cpu_s / self.n

    def _is_like(self, other: Pass) -> bool:
        return (sorted(self.layers), self.runtime, self.processor) == (
            sorted(other.layers),
            other.runtime,
            other.processor,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of processor for one image, from its file to the rows of some layers.

    Attributes
    ----------
    cpu_ms : float
    known : {"measured", "estimated", "at most"}
        See `Known`.
    n : int
        Images that it was measured on.
    processor : str
    """

    cpu_ms: float
    known: Known
    n: int
    processor: str


#: Before a cost that is an estimate, or a bound.
_SIGNS: dict[Known, str] = {"measured": "", "estimated": "~", "at most": "≤ "}


def cost_text(cost: Cost | None) -> str:
    """Return the processor time of an image, with a sign before what was not measured as it is."""
    return f"{_SIGNS[cost.known]}{seconds(cost.cpu_ms / 1000)}" if cost else "–"


def is_a_measurement(n_embedded: int, n_read: int) -> bool:
    """Return whether a run says what a pass costs: nearly all that it read went through the network."""
    return n_embedded > 0 and n_embedded >= _LEAST_EMBEDDED * n_read


def with_pass(timing: Mapping[str, Any], new: Pass) -> list[dict[str, Any]]:
    """Return the passes of a cache's timing with one more, as JSON values; it is added to one like it."""
    kept = []
    for known in _read(timing):
        if known._is_like(new):
            n = known.n + new.n
            share = (known.n * known.encode_share + new.n * new.encode_share) / n
            new = Pass(
                new.layers, n, known.cpu_s + new.cpu_s, known.wall_s + new.wall_s, share, new.runtime, new.processor
            )
        else:
            kept.append(known)
    return [asdict(one) for one in [*kept, new][-_MOST:]]


def summed_timing(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the timing of several caches together: times of a fit include what all of their rows cost."""
    merged: dict[str, Any] = {}
    for timing in timings:
        for one in _read(timing):
            merged = {"passes": with_pass(merged, one)}
    first = next((each for each in timings if each["n_embedded"]), timings[0])
    return {**first, **{name: sum(each[name] for each in timings) for name in NO_TIMING}, **merged}


def passes_of(cache: Cache) -> list[Pass]:
    """Return the passes that a cache remembers; none in one that an older version made."""
    return _read(cache.timing)


def _read(timing: Mapping[str, Any]) -> list[Pass]:
    names = Pass.__annotations__
    found = (Pass(**{name: values[name] for name in names}) for values in timing.get("passes", []))
    return [one for one in found if one.n > 0]


def cost_of(passes: Sequence[Pass], layers: Sequence[str], shares: Mapping[str, float] | None = None) -> Cost | None:
    """Return what the rows of some layers cost; None where no pass was recorded for one of them.

    Parameters
    ----------
    passes : sequence of Pass
    layers : sequence of str
        One, or several side by side.
    shares : mapping of str to float, optional
        Layer to its share of the network's multiply-adds, as far as it is known.
    """
    exact = [one for one in passes if set(one.layers) == set(layers)]
    if exact:
        return Cost(exact[-1].cpu_ms, "measured", exact[-1].n, exact[-1].processor)
    wider = [one for one in passes if set(layers) <= set(one.layers)]
    if wider:
        # of equally wide ones the last: it may have been measured after a better runtime was installed
        nearest = min(reversed(wider), key=lambda one: len(one.layers))
        share = _share(layers, nearest.layers, shares or {})
        whole = nearest.cpu_ms
        if share is None:
            return Cost(whole, "at most", nearest.n, nearest.processor)
        part = nearest.encode_share * (1 - share)
        known: Known = "estimated" if share < 1 else "at most"
        return Cost(whole * (1 - part), known, nearest.n, nearest.processor)
    single = [cost_of(passes, [layer], shares) for layer in layers] if len(layers) > 1 else [None]
    known_costs = [cost for cost in single if cost is not None]
    if len(known_costs) < len(single):
        return None
    # layers of several passes: one pass for all of them costs less than these passes together
    total = sum(cost.cpu_ms for cost in known_costs)
    return Cost(total, "at most", min(cost.n for cost in known_costs), known_costs[-1].processor)


def _share(layers: Sequence[str], of: Sequence[str], shares: Mapping[str, float]) -> float | None:
    """Return the multiply-adds up to the deepest of `layers` as a share of those up to the deepest of `of`."""
    if any(layer not in shares for layer in (*layers, *of)):
        return None
    deepest = max(shares[layer] for layer in of)
    return max(shares[layer] for layer in layers) / deepest if deepest > 0 else None
