"""`WordsEncoder`: a text as its own embedding, for heads that count words."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlfeat.texts.read import read_text
from tlfeat.types import OnProgress, Rows, silent


class WordsEncoder:
    """An `Encoder` whose row is the text itself: one column of strings, for the TF-IDF baseline. No cache has such."""

    name = "tfidf"
    layers = ("tfidf",)
    input_size = (0, 0)  # a text has none
    resize = "none"
    batch_size = 64
    is_parallel = True
    runtime = "scikit-learn"
    notes = ()

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"backbone": self.name, "weights": "none", "dtype": "float32"}

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Nothing is slow here."""

    def decode(self, data: bytes) -> Any:
        """Return the text; a `BadImage` says why there is none."""
        return read_text(data)

    def encode(self, pixels: Any) -> dict[str, Rows]:
        """Return the texts as an array of shape (n_texts, 1)."""
        found = np.empty((len(pixels), 1), dtype=object)
        found[:, 0] = pixels
        return {"tfidf": found}
