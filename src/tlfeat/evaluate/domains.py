"""Accuracy by domain: the same answers, counted for each place that images come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.evaluate.intervals import proportion_interval
from tlfeat.text import interval_text, one_line, percent
from tlfeat.types import Labels

#: How images without a domain are called beside others that have one.
NO_DOMAIN = "(no domain)"

#: Domains that a text names; of more, those whose interval ends lowest: poor, and with images enough to show it.
MAX_NAMED = 12


def accuracy_by_domain(
    domains: Sequence[str], right: npt.NDArray[np.bool_], groups: Labels | None = None
) -> list[dict[str, Any]]:
    """Return domain ("" for none), number of images, accuracy and its 95 % interval, in order of name.

    Parameters
    ----------
    domains : sequence of str
        Of each image; where all are "", there is nothing to return.
    right : bool array of shape (n_images,)
    groups : int array of shape (n_images,), optional
        Images with the same number are not independent; where a domain is one group, nothing is known of how groups
        differ, and its images count one by one.
    """
    if not any(domains):
        return []
    names, of_image = np.unique(np.array(domains, dtype=object), return_inverse=True)
    found = []
    for number, name in enumerate(names.tolist()):
        here = of_image == number
        own = None if groups is None or len(np.unique(groups[here])) < 2 else groups[here]
        interval = proportion_interval(right[here], own)
        found.append(
            {"domain": name, "n": int(here.sum()), "accuracy": float(right[here].mean()), "ci95": list(interval)}
        )
    return found


def shown_domains(by_domain: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the domains that a text names: all in order of name, or those whose interval ends lowest."""
    if len(by_domain) <= MAX_NAMED:
        return list(by_domain)
    return sorted(by_domain, key=lambda of: float(of["ci95"][1]))[:MAX_NAMED]


def domain_name(found: Mapping[str, Any]) -> str:
    """Return what the domain of an entry is called, in one line."""
    return one_line(found["domain"]) or NO_DOMAIN


def domain_lines(by_domain: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line a domain for what a command prints; none where there are fewer than two."""
    if len(by_domain) < 2:
        return []
    shown = shown_domains(by_domain)
    width = max(len(domain_name(of)) for of in shown)
    lines = [
        f"{domain_name(of).ljust(width)}  {percent(of['accuracy'])}  ({of['n']:,} test {_images(of['n'])}, 95 % "
        f"interval {interval_text(of['ci95'])})"
        for of in shown
    ]
    if n_more := len(by_domain) - len(lines):
        lines.append(f"and {n_more:,} more")
    return lines


def _images(n: int) -> str:
    return "image" if n == 1 else "images"
