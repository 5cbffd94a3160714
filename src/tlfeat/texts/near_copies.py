"""Which texts of a set are the same text: equal bytes, equal words, or a copy that was changed a little.

How it is found, in this order:

1. equal content keys: the same bytes;
2. equal texts after white space, case and compatible characters (NFKC) are made one;
3. candidates are the `nearest.N_NEIGHBOURS` nearest of each text by the cosine of the rows; of these a copy is what
   shares `SAME_TEXT` of its runs of `RUN` characters (Jaccard; Broder 1997, "On the resemblance and containment of
   documents"). Texts of less than `MIN_CHARACTERS` are too short to tell.

What it finds and what it takes wrongly for a copy: benchmarks/text.py, docs/benchmarks/text.md.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from tlfeat.images.duplicates import Duplicates, Pair
from tlfeat.images.nearest import nearest_images
from tlfeat.text import counted
from tlfeat.types import Rows

#: Characters of a run, and the share of all runs of two texts from which they are called copies.
RUN, SAME_TEXT = 8, 0.75

#: Below it two texts may share most runs and say different things.
MIN_CHARACTERS = 40

#: Of a longer text the beginning is compared.
_MAX_CHARACTERS = 20_000


def same_words(text: str) -> str:
    """Return a text in the form in which copies are equal: one kind of white space, no capitals."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overlap(one: str, other: str) -> float:
    """Return the share of runs of two texts, as `same_words` gives them, that both have: 0 to 1."""
    runs, others = _runs(one), _runs(other)
    return len(runs & others) / max(len(runs | others), 1)


def _runs(text: str) -> set[str]:
    text = text[:_MAX_CHARACTERS]
    return {text[i : i + RUN] for i in range(max(len(text) - RUN + 1, 1))}


def find_text_copies(rows: Rows | None, keys: Sequence[str], texts: Mapping[str, str]) -> Duplicates:
    """Find the texts that are copies of each other.

    Parameters
    ----------
    rows : float32 array of shape (n_texts, width), optional
        Used up. None, where they are larger than memory, finds exact copies only.
    keys : sequence of str
        Content keys, each once.
    texts : mapping of str to str
        Content key to text; one that is missing is compared with none.

    Returns
    -------
    Duplicates
        Pairs of the kinds "words" (equal but for white space and case) and "runs" (most characters are the same).
    """
    plain = [same_words(texts[key]) if key in texts else "" for key in keys]
    notes = []
    n_unread = sum(not text for text in plain)
    if n_unread:
        notes.append(f"{counted(n_unread, 'text')} could not be read again and not be compared")
    first_of: dict[str, int] = {}
    pairs = [
        Pair(first, i, "words", 1.0)
        for i, text in enumerate(plain)
        if text and (first := first_of.setdefault(text, i)) != i
    ]
    firsts = np.array(sorted(first_of.values()), np.int64)
    if rows is None:
        notes.append("the rows are larger than memory: changed copies were not looked for; exact copies among all")
    elif len(firsts) > 1:
        nearest = nearest_images(rows, firsts, firsts, is_centred=False)
        beside = {
            (min(i, j), max(i, j))
            for i, others in zip(firsts.tolist(), nearest.positions.tolist(), strict=True)
            for j in others
            if j >= 0 and min(len(plain[i]), len(plain[j])) >= MIN_CHARACTERS
        }
        for i, j in sorted(beside):
            if _can_be(plain[i], plain[j]) and (share := overlap(plain[i], plain[j])) >= SAME_TEXT:
                pairs.append(Pair(i, j, "runs", round(share, 3)))
    return Duplicates(sorted(pairs, key=lambda pair: (pair.one, pair.other)), notes, n_unread)


def _can_be(one: str, other: str) -> bool:
    """Whether the lengths allow so much in common."""
    short, long = sorted((min(len(one), _MAX_CHARACTERS), min(len(other), _MAX_CHARACTERS)))
    return short >= 0.5 * long
