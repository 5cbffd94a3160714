"""What a comparison says in words: which model to take, what the others brought against it, what to beware of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.scores import confused_pairs, guessing_sentence
from tlfeat.heads.shift import shift_sentence
from tlfeat.report.comparison import p_text, table_rows, tradeoff_sentences, verdict_text
from tlfeat.studies.compare import Comparison, Line
from tlfeat.studies.showing import difference_text
from tlfeat.studies.tradeoff import seconds_of
from tlfeat.text import counted, interval_text, percent, seconds, size

#: How a network of each mode came about.
_BROUGHT = {
    "frozen": "a head on the frozen network",
    "finetuned": "fine-tuning",
    "scratch": "training from scratch",
}

#: A model is told to be smaller from this factor on.
_SMALLER = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first screen of the page.

    Attributes
    ----------
    take : str
        Name of the model to take; "" where none is better than guessing.
    why : str
    others, warnings : list of str
    """

    take: str
    why: str
    others: list[str]
    warnings: list[str]


def verdict(comparison: Comparison) -> Verdict:
    """Return which model to take, and why."""
    best = comparison.lines[0]
    score = best.result.score
    guesses = guessing_sentence(score, comparison.classes, name=best.name)
    told = f"It is right on {percent(score.accuracy)} of {score.n_images:,} test images"
    most = f", the most of {counted(len(comparison.lines), 'model')}" if len(comparison.lines) > 1 else ""
    return Verdict(
        "" if guesses else best.name,
        f"{guesses}." if guesses else f"{told}{most}; 95 % interval: {interval_text(score.ci95)}.",
        [*_alternatives(comparison.lines), *_networks(comparison.lines), _confused(best, comparison.classes)],
        warnings(comparison),
    )


def warnings(comparison: Comparison) -> list[str]:
    """Return those notes that put the scores themselves in doubt: leaks, and a shift."""
    said = {leak_sentence(line.result.leaks) for line in comparison.lines}
    said |= {shift_sentence(line.result.shift) for line in comparison.lines}
    return [note for note in comparison.notes if note in said]


def _alternatives(lines: Sequence[Line]) -> list[str]:
    """Say how many others are as good within noise, and which of these is the fastest and the smallest."""
    others, near = lines[1:], [line for line in lines[1:] if line.is_within_noise]
    if not others:
        return []
    if not near:
        behind = f"{-100 * others[0].difference:.1f} points behind"
        if len(others) == 1:
            return [f"{others[0].name} is {behind}, more than noise."]
        return [f"None of the {len(others)} others is within noise of it: {others[0].name}, the next, is {behind}."]
    if len(others) == 1:
        said = f"The other one, {near[0].name}, is within noise of it"
    else:
        of = f"All {len(near)}" if len(near) == len(others) else f"{len(near)} of the {len(others)}"
        said = f"{of} others {'is' if len(near) == 1 else 'are'} within noise of it"
    return [f"{said}{_cheaper(lines[0], near)}."]


def _cheaper(best: Line, near: Sequence[Line]) -> str:
    """Name the fastest and the smallest of those that are as good, where they are faster or smaller than the best."""
    best_s, n_bytes = _fit_s(best), best.result.model_bytes
    timed = [(s, line) for line in near if (s := _fit_s(line)) is not None]
    said, told = "", None
    if timed and best_s is not None:
        fastest_s, fastest = min(timed, key=lambda pair: pair[0])
        if fastest_s < best_s:
            right = percent(fastest.result.score.accuracy)
            said = (
                f"; the fastest to fit is {fastest.name}: {seconds(fastest_s)} against {seconds(best_s)}, {right} right"
            )
            told = fastest
        else:
            said = f"; none of these is faster to fit ({seconds(best_s)})"
    smallest = min(near, key=lambda line: line.result.model_bytes)
    if smallest is not told and 0 < _SMALLER * smallest.result.model_bytes <= n_bytes:
        said += f"; the smallest is {smallest.name}: {size(smallest.result.model_bytes)} against {size(n_bytes)}"
    return said


def _fit_s(line: Line) -> float | None:
    return seconds_of(line.result, "choosing and fitting")


def _networks(lines: Sequence[Line]) -> list[str]:
    """Say what training a network brought against the best head, or against the best model where that is a head."""
    best = lines[0]
    networks = [line for line in lines if line.result.kind == "keras"]
    if not networks:
        return ["No network was trained in Keras to compare it with."]
    if best.result.kind == "keras":
        head = next((line for line in lines if line.result.kind == "head"), None)
        if head is None:
            return []
        right = percent(head.result.score.accuracy)
        return [f"The best head, {head.name} ({right}): {_against(head)}, not in {seconds(_fit_s(best))}."]
    first = {line.result.settings.get("mode"): line for line in reversed(networks)}  # the best of each mode
    told = [f"{_BROUGHT.get(str(mode), line.name)} {_against(line)}" for mode, line in reversed(first.items())]
    return [f"Networks in Keras against it: {'; '.join(told)}. It was fitted in {seconds(_fit_s(best))}."]


def _against(line: Line) -> str:
    return f"{difference_text(line)}, {p_text(line)}, fitted in {seconds(_fit_s(line))}"


def _confused(best: Line, classes: Sequence[str]) -> str:
    score = best.result.score
    n_wrong = score.n_images - sum(score.confusion[i][i] for i in range(len(classes)))
    if not n_wrong:
        return "It is wrong on no test image."
    pair = confused_pairs(score, classes, n=1)[0]
    said = f"It is wrong on {counted(n_wrong, 'test image')}"
    if pair["n"] == 1 < n_wrong:
        return f"{said}, and confuses no two classes more than once."
    often = ", most often" if n_wrong > pair["n"] else ""
    n = counted(sum(score.confusion[classes.index(pair["true"])]), "image")
    return f"{said}{often} by taking {pair['true']} for {pair['predicted']}: {pair['n']:,} of {n} of {pair['true']}."


def page_rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells of the table of candidates; the last column of the terminal becomes two."""
    headings, rows = table_rows(comparison)
    ends = [("best", ""), *((difference_text(line), verdict_text(line)) for line in comparison.lines[1:])]
    cells = [(*row[:-1], *end) for row, end in zip(rows, ends, strict=True)]
    return (*headings, "verdict"), cells


def short_legend(comparison: Comparison) -> list[str]:
    """Return at most three short lines below the table."""
    tradeoff = tradeoff_sentences(comparison)
    return [
        "fit: choosing parameters and fitting. image: from the file to probabilities.",
        "against the best: difference in accuracy with its 95 % interval. within noise: the test images cannot tell "
        "the two apart.",
        *[sentence for sentence in tradeoff if sentence.startswith("frontier")][:1],
    ]
