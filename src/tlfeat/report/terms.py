"""The words that a page explains where they stand; they are those of docs/glossary.md, which a test compares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

#: Each word of the glossary that a page explains: how it stands in a sentence (a regular expression), what it means.
TERMS = {
    "confidence interval (95 %)": (
        "95 % intervals?",
        "range of true values that agree with the test result; more test images make it narrower",
    ),
    "within noise": (
        "within noise",
        "so small a difference on these test images that chance alone may make it (p of 0.05 or more)",
    ),
    "McNemar's test": (
        "McNemar's[a-z -]* test",
        "compares two models by the images that only one of them gets right; p says how often chance alone makes "
        "them differ as much",
    ),
    "Holm": ("Holm", "correction of p-values when many models are compared"),
    "macro F1": (
        "macro F1",
        "mean of the F1 scores of the classes (F1: harmonic mean of precision and recall); rare classes count as much "
        "as common ones",
    ),
    "ECE": ("ECE", "expected calibration error: mean gap between probability and share of right answers"),
    "calibration": ("calibration", "how well probabilities agree with the share of right answers"),
    "frontier": ("frontier", "models for which no other is both faster and more accurate"),
    "break-even": ("break-even", "number of trainings after which extraction has saved more time than it took"),
    "held out": ("held[- ]out", "kept away from fitting, to judge a choice"),
    "leak": (
        "LEAK|Leaks?",
        "test image that is also, perhaps changed, a training image; it counts in no score",
    ),
}

#: Every word where it stands alone.
_ANY = re.compile(
    "|".join(rf"(?P<t{i}>(?<!\w)(?:{pattern})(?!\w))" for i, (pattern, _) in enumerate(TERMS.values())),
)


def explained(text: str) -> Markup:
    """Return a sentence as markup in which the first of each known word opens its explanation; the rest is escaped."""
    from markupsafe import Markup, escape

    found, end = Markup(), 0
    known: set[str] = set()
    for match in _ANY.finditer(text):
        name = match.lastgroup or ""
        if name in known:
            continue
        known.add(name)
        found += escape(text[end : match.start()]) + _word(name, match[0])
        end = match.end()
    return found + escape(text[end:])


def _word(name: str, text: str) -> Markup:
    from markupsafe import Markup

    return Markup('<button type="button" class="term" popovertarget="{}">{}</button>').format(name, text)


def explanations() -> list[tuple[str, str, str]]:
    """Return (name of the element, word, meaning) of every word."""
    return [(f"t{i}", word, meaning) for i, (word, (_, meaning)) in enumerate(TERMS.items())]
