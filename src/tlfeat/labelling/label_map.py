"""Where the pictures of a labelling lie: drawn once, and again when twice as many rows have come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlfeat.labelling.pool import NOTHING, Look
from tlfeat.report.embedding_map import lay_out
from tlfeat.types import Labels

#: On the map; more take t-SNE longer than a person waits.
MAX_POINTS = 1000

#: Fewer are no map.
_FEWEST = 5


@dataclass(slots=True)
class LabelMap:
    """The map, as far as it was drawn."""

    _numbers: Labels = field(default_factory=lambda: NOTHING.numbers)
    _places: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def points(self, look: Look, shown: list[int], *, seed: int = 0) -> tuple[list[dict[str, Any]], str]:
        """Return number, x and y (0 to 1) of at most `MAX_POINTS` pictures, the first of `shown`; and what to know.

        Parameters
        ----------
        look : Look
        shown : list of int
            Places in `look` that may be on the map: in a random order.
        """
        chosen = shown[:MAX_POINTS]
        if len(chosen) < _FEWEST:
            return [], "The map comes when a few pictures are embedded."
        with self._lock:
            if len(chosen) >= 2 * len(self._numbers) or (len(chosen) == MAX_POINTS > len(self._numbers)):
                laid = lay_out(look.rows[chosen], ["tsne"], seed=seed)[0]["tsne"]
                low, high = laid.min(axis=0), laid.max(axis=0)
                self._places = (laid - low) / np.maximum(high - low, 1e-9)
                self._numbers = look.numbers[chosen]
            found = [
                {"number": number, "x": round(float(x), 4), "y": round(float(y), 4)}
                for number, (x, y) in zip(self._numbers.tolist(), self._places, strict=True)
            ]
        more = f" of {len(shown):,}" if len(shown) > len(found) else ""
        return found, f"{len(found):,}{more} pictures that are embedded; alike ones lie close together (t-SNE)."
