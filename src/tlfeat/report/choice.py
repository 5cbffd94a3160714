"""The choice of a backbone, a layer and a head as sentences, table, chart and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tlfeat.cache.passes import Cost, cost_text
from tlfeat.records import Environment, record
from tlfeat.report.charts import MAX_NAME, Axis, Chart, Key, Mark, Polyline, percent_axis
from tlfeat.report.finding import Finding
from tlfeat.studies.choice import Choice
from tlfeat.studies.contenders import Contender
from tlfeat.studies.sweep import standard_error
from tlfeat.text import counted, interval_text, percent, seconds, size


def sentences(choice: Choice) -> list[str]:
    """Return the answer in words: which to take, what the next cheaper one gives up, how that was found."""
    contenders, n = choice.contenders, choice.split.n_train + choice.split.n_val
    if choice.chosen is None:
        return [
            "No recommendation: a class has one training image, so that none can be held out to choose. "
            "Label one more image of each class."
        ]
    best = contenders[choice.chosen]
    score, held_out = best.result.score, best.held_out or 0.0
    found = [
        f"Take {best.name}: {percent(score.accuracy)} of the test images are right (95 % interval "
        f"{interval_text(score.ci95)}), {_spent(best.cost)}; {_next_cheaper(choice)}.",
        f"It was chosen by the training images: {percent(held_out)} of {n:,} are right when held out, the most of "
        f"{counted(len(contenders), 'candidate')}. The {score.n_images:,} test images had no say in it.",
    ]
    if choice.economical not in (None, choice.cheaper):
        few = contenders[choice.economical]
        found.append(
            f"The cheapest within one standard error ({100 * standard_error(held_out, n):.1f} points) of it when held "
            f"out is {few.name}: {percent(few.held_out or 0.0)} held out, {percent(few.result.score.accuracy)} on the "
            f"test images, {_spent(few.cost)}."
        )
    top = max(contenders, key=lambda one: one.result.score.accuracy)
    if top.result.score.accuracy > score.accuracy:
        found.append(
            f"The highest test accuracy in the table, {percent(top.result.score.accuracy)} of {top.name}, is the best "
            f"of {len(contenders)} looks at the same test images, which flatters it: nothing was chosen by it."
        )
    return found


def _spent(cost: Cost | None) -> str:
    return f"{cost_text(cost)} of processor an image" if cost else "what an image costs is not recorded"


def _next_cheaper(choice: Choice) -> str:
    best = choice.contenders[choice.chosen or 0]
    if best.cost is None:
        return "extract again into a new cache to measure that"
    if choice.cheaper is None:
        return "nothing cheaper was tried" if all(one.cost for one in choice.contenders) else "no cheaper one is known"
    other = choice.contenders[choice.cheaper]
    told = f"the next cheaper one, {other.name} ({cost_text(other.cost)}), gives up"
    if other.against is None:
        return f"{told} nothing"
    less = -100 * other.against.difference
    low, high = sorted(-100 * end for end in other.against.ci95)
    noise = ", within noise" if other.against.is_within_noise else ""
    how = f"95 % interval {_signed(low)} to {_signed(high)}{noise}"
    return (
        f"{told} {less:.1f} points of them ({how})"
        if less >= 0.05
        else f"{told} nothing: {_signed(less)} points ({how})"
    )


def _signed(points: float) -> str:
    """Return percentage points with a minus sign as it is set, and no minus before zero."""
    return f"{round(points, 1) + 0.0:.1f}".replace("-", "−")


def choice_finding(choice: Choice, *, is_short: bool = False) -> Finding:
    """Return words, chart, table and records of a choice.

    Parameters
    ----------
    choice : Choice
    is_short : bool, default=False
        For a terminal: of the heads on the same rows only the one with the highest held-out accuracy is in the table.
    """
    shown = best_heads(choice) if is_short else list(range(len(choice.contenders)))
    title = " or ".join(dict.fromkeys(one.backbone for one in choice.contenders if one.backbone != "pixels"))
    n_more = len(choice.contenders) - len(shown)
    return Finding(
        name="choice",
        title=f"{choice.data}: {title}",
        sentences=sentences(choice),
        chart=_chart(choice),
        headings=_HEADINGS,
        n_left=3,
        droppable=("network", "row", "95 % interval", "fit", "frontier", "held out"),
        rows=[_row(choice, i) for i in shown],
        legend=_legend(choice, n_more),
        records=[_record(choice, i) for i in range(len(choice.contenders))],
        about=_about(choice),
        chosen_row=shown.index(choice.chosen) if choice.chosen in shown else None,
    )


_HEADINGS = (
    *("backbone", "layer", "head", "processor", "frontier", "held out", "test", "95 % interval"),
    *("against *", "network", "row", "fit"),
)


def best_heads(choice: Choice) -> list[int]:
    """Return the places of the best head on each set of rows by held-out accuracy; the chosen one is among them."""
    best: dict[tuple[Any, ...], int] = {}
    for i, one in enumerate(choice.contenders):
        rows = (one.cache, *one.layers)
        known = best.get(rows)
        is_better = known is None or (one.held_out or 0.0) > (choice.contenders[known].held_out or 0.0)
        if is_better or i == choice.chosen:
            best[rows] = i
        if known is not None and known == choice.chosen:
            best[rows] = known
    return sorted(best.values())


def _row(choice: Choice, i: int) -> tuple[str, ...]:
    one = choice.contenders[i]
    score, timing = one.result.score, one.result.timing
    return (
        f"{one.backbone}{' *' if i == choice.chosen else ''}",
        one.layer,
        one.head,
        cost_text(one.cost),
        "yes" if one.is_ahead else "",
        percent(one.held_out) if one.held_out is not None else "–",
        percent(score.accuracy),
        interval_text(score.ci95),
        _against_text(one),
        size(one.network_bytes) if one.network_bytes else "–",
        f"{one.row_bytes:,} B",
        seconds((timing.search_s or 0.0) + (timing.fit_s or 0.0)),
    )


def _against_text(one: Contender) -> str:
    if one.against is None:
        return ""
    points = _signed(100 * one.against.difference)
    verdict = "within noise" if one.against.is_within_noise else "better" if one.against.difference > 0 else "worse"
    return f"{'' if points.startswith(('−', '0.0')) else '+'}{points}, {verdict}"


def _record(choice: Choice, i: int) -> dict[str, Any]:
    one = choice.contenders[i]
    cost, against = one.cost, one.against
    return {
        **record(one.result),
        "name": one.name,
        "encoder": one.backbone,
        "cache": str(one.cache),
        "layers": one.layers,
        "held_out_accuracy": one.held_out,
        "extract_cpu_ms": cost.cpu_ms if cost else None,
        "extract_cpu_known": cost.known if cost else "unknown",
        "extract_cpu_n_images": cost.n if cost else None,
        "extract_cpu_processor": cost.processor if cost else None,
        "network_bytes": one.network_bytes,
        "width": one.width,
        "row_bytes": one.row_bytes,
        "is_on_frontier": one.is_ahead,
        "is_chosen": i == choice.chosen,
        "p_value_vs_chosen": against.p_value if against else None,
        "difference_to_chosen": against.difference if against else None,
        "difference_ci95": list(against.ci95) if against else None,
        "is_within_noise_of_chosen": against.is_within_noise if against else None,
        "is_reused": one.is_reused,
    }


def _about(choice: Choice) -> dict[str, Any]:
    def named(i: int | None) -> str | None:
        return None if i is None else choice.contenders[i].name

    return {
        "caches": [str(path) for path in choice.caches],
        "n_common": choice.n_common,
        "chosen": named(choice.chosen),
        "next_cheaper": named(choice.cheaper),
        "cheapest_within_one_standard_error": named(choice.economical),
        "split": choice.split.to_dict(),
        "skipped": [list(pair) for pair in choice.skipped],
        "notes": choice.notes,
        "environment": Environment.current().to_dict(),
    }


def _legend(choice: Choice, n_more: int) -> list[str]:
    split, n_scored = choice.split, choice.contenders[0].result.score.n_images
    processors = dict.fromkeys(one.cost.processor for one in choice.contenders if one.cost)
    hidden = f" {counted(n_more, 'more line')} with other heads: the page." if n_more else ""
    n = len(choice.caches)
    where = "in the cache" if n == 1 else "in both caches" if n == 2 else f"in all {n} caches"
    return [
        f"{choice.n_common:,} pictures are {where}. {n_scored:,} test "
        f"images, {split.n_train + split.n_val:,} training images; split: {split.origin}, seed {split.seed}.{hidden}",
        "processor: from file to row, decoding included, an image. ~: by the share of multiply-adds of a pass for more "
        "layers. ≤: no more than such a pass. –: not recorded. frontier: none is both cheaper and better held out.",
        "held out: training images, each labelled by a head fitted without it. *: the highest, so chosen. against *: "
        "points of the test images; within noise: p >= 0.05 (McNemar's mid-p test, Holm).",
        "network: all weights as float32, or int8 (of your own model, its file). row: embedding of an image in the "
        "cache. fit: choosing parameters and fitting on cached rows, without extraction.",
        *([f"Processor: {', '.join(processors)}."] if processors else []),
        *(f"not run: {name}: {why}" for name, why in choice.skipped),
        *(f"note: {note}" for note in choice.notes),
    ]


def _chart(choice: Choice) -> Chart:
    """Draw the best head of each set of rows: test accuracy against cost, the held-out frontier as a line."""
    names = list(dict.fromkeys(one.backbone for one in choice.contenders))
    is_one_head = len({one.head for one in choice.contenders}) == 1
    marks = []
    for i in best_heads(choice):
        one = choice.contenders[i]
        if one.cost is None or one.cost.cpu_ms <= 0:
            continue
        score, place = one.result.score, names.index(one.backbone)
        says = f"{one.name}: {percent(score.accuracy)} of the test images, {cost_text(one.cost)} an image"
        label = "" if not one.is_ahead else one.layer if is_one_head else f"{one.layer}, {one.head}"
        marks.append(
            Mark(
                one.cost.cpu_ms,
                score.accuracy,
                says,
                f"c{place % 8}",
                _SHAPES[place % len(_SHAPES)],
                low=score.ci95[0],
                high=score.ci95[1],
                name=label if len(label) <= MAX_NAME else one.layer,
                is_filled=one.is_ahead,
                is_ringed=i == choice.chosen,
            )
        )
    line = sorted((mark.x, mark.y) for mark in marks if mark.is_filled)
    return Chart(
        "Test accuracy against processor time",
        _cost_axis([mark.x for mark in marks]),
        percent_axis(
            "accuracy on test images",
            [end for mark in marks for end in (mark.low, mark.high) if end is not None] or [0.0, 1.0],
        ),
        marks,
        [Polyline(line, "frontier")] if len(line) > 1 else [],
        keys=[Key(name, f"c{i % 8}", _SHAPES[i % len(_SHAPES)]) for i, name in enumerate(names)],
        width=760,
        height=420,
    )


_SHAPES = ("circle", "square", "triangle", "diamond")


def _cost_axis(costs: Sequence[float]) -> Axis:
    """Return a logarithmic axis around milliseconds, with ticks at 1, 2 and 5 of each power of ten."""
    low, high = 0.95 * min(costs, default=1.0), 1.15 * max(costs, default=10.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    below = max((step for step in steps if step <= low), default=steps[0])
    above = min((step for step in steps if step >= high), default=steps[-1])
    ticks = [(step, f"{step:g} ms") for step in steps if below <= step <= above]
    return Axis("processor time of an image, from file to row", ticks, below, above, is_log=True)
