"""A head that was tried on many layers is one candidate: what a sweep fitted stands folded away on the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tlfeat.records import is_baseline
from tlfeat.studies.compare import Line

#: Layers from which on one head on them is a sweep.
_MANY = 3


def fold_sweep(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Return the lines of the table, and those of a sweep that are folded away, both in their order.

    A head on at least three layers was swept. Of its lines those stay that lie on a layer of a head that was not
    swept (where all were: on the layer of the most accurate one), and the best of all.

    Parameters
    ----------
    lines : sequence of Line
        The best first.
    """
    heads = [line for line in lines if line.result.kind == "head" and not is_baseline(line.result.candidate)]
    layers: dict[str, set[str]] = defaultdict(set)
    for line in heads:
        layers[line.result.candidate].add(line.result.layer)
    swept = {candidate for candidate, found in layers.items() if len(found) >= _MANY}
    kept = {line.result.layer for line in heads if line.result.candidate not in swept}
    if not kept and heads:
        kept = {heads[0].result.layer}

    def is_folded(line: Line) -> bool:
        result = line.result
        return line is not lines[0] and result.candidate in swept and result.layer not in kept and result.kind == "head"

    return [line for line in lines if not is_folded(line)], [line for line in lines if is_folded(line)]
