"""What tests of texts share: sentences of two classes, tables of them, and an encoder without a network."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.texts.read import read_text
from tlfeat.texts.text_set import load_texts
from tlfeat.types import OnProgress, Rows, silent


class LetterEncoder:
    """An `Encoder` of texts without a network: how often each of 64 pairs of letters is there. It counts its texts."""

    name = "letters"
    layers = ("avg_pool",)
    input_size = (0, 0)
    resize = "none"
    batch_size = 8
    is_parallel = True
    runtime = "numpy"
    notes = ()
    fingerprint: dict[str, Any] = {"backbone": "letters", "dtype": "float32"}  # noqa: RUF012

    def __init__(self) -> None:
        self.n_encoded = 0

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Nothing is slow here."""

    def decode(self, data: bytes) -> npt.NDArray[np.int64]:
        text = read_text(data).lower()
        return np.array([zlib.crc32(text[i : i + 2].encode()) % 64 for i in range(len(text))])

    def encode(self, pixels: Any) -> dict[str, Rows]:
        self.n_encoded += len(pixels)
        return {"avg_pool": np.stack([np.bincount(pairs, minlength=64) for pairs in pixels]).astype(np.float32)}


#: Sentences of two classes; no two are alike.
ANIMALS = ["cat", "dog", "horse", "mouse", "goat", "duck", "fox", "hen", "owl", "bear"]
FOODS = ["bread", "soup", "rice", "cake", "beans", "cheese", "salad", "stew", "toast", "curry"]


def sentences(n: int = 30) -> list[tuple[str, str]]:
    """Return (text, label) of each of `n` sentences a class."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        one, other, more = (int(k) for k in rng.integers(0, 10, 3))
        found += [
            (f"The {ANIMALS[one]} chased number {i} of the {ANIMALS[other]}s over field {more}{i}.", "animals"),
            (f"Cook {FOODS[one]} for {i} minutes with fresh {FOODS[other]}, serve at table {more}{i}.", "foods"),
        ]
    return found


def write_table(file: Path, lines: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write a CSV of texts."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([header, *lines])
    return file


def extracted(table: Path, cache: Path, encoder: LetterEncoder | None = None) -> ExtractReport:
    """Embed the texts of a table with a `LetterEncoder`."""
    return extract_rows(load_texts(table), encoder or LetterEncoder(), cache, origin={"holds": "texts", "encoder": {}})
