"""What embedding an image cost on this machine, as its caches remember it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tlfeat.cache.passes import Cost, cost_of, passes_of
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError


def measured(caches: Iterable[Path], input_sizes: dict[str, tuple[int, int]], *, processor: str) -> dict[str, Cost]:
    """Return the processor time of a whole network by its name.

    The first cache that measured just that says it, else the first with a pass for more layers: at most so much.

    Parameters
    ----------
    caches : iterable of Path
        The newest first. One that cannot be read says nothing.
    input_sizes : dict of str to (int, int)
        The input of each network; rows of another size say nothing.
    processor : str
        Passes on another one say nothing.
    """
    found: dict[str, Cost] = {}
    for path in caches:
        try:
            with open_cache(path) as cache:
                fingerprint, passes = cache.fingerprint, passes_of(cache)
        except CacheError:
            continue
        name = str(fingerprint.get("backbone"))
        size: Any = fingerprint.get("input_size")
        if name not in input_sizes or tuple(size or ()) != input_sizes[name]:
            continue
        cost = cost_of([one for one in passes if one.processor == processor], ["avg_pool"])
        if cost is not None and (name not in found or found[name].known != cost.known == "measured"):
            found[name] = cost
    return found
