"""``--param NAME=VALUE`` and ``--grid NAME=V1,V2,...``: parameters of a classifier as values of Python."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from tlfeat.errors import UsageError

_WORDS = {"true": True, "false": False, "none": None}


def parse_parameters(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return each parameter with its value: a number, true, false, none, another literal of Python, or a text."""
    return {name: _value(text) for name, text in _named(texts or (), "--param NAME=VALUE")}


def parse_grid(texts: Sequence[str] | None) -> dict[str, list[Any]]:
    """Return each parameter with the values to compare, which commas separate."""
    return {name: [_value(v) for v in _split(text)] for name, text in _named(texts or (), "--grid NAME=V1,V2,...")}


def _named(texts: Sequence[str], form: str) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not (name.isidentifier() and equals and value.strip()):
            raise UsageError(f"'{text}' is not of the form {form}.")
        if name in pairs:
            raise UsageError(f"{form.partition(' ')[0]} {name} is given twice.")
        pairs[name] = value.strip()
    return list(pairs.items())


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
