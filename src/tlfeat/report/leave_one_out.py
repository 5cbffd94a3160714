"""The table of leave-one-out as sentences, table, chart and page."""

from __future__ import annotations

from typing import Any

from tlfeat.records import Environment
from tlfeat.report.charts import SHAPES, Chart, Key, Mark, percent_axis, tick_axis
from tlfeat.report.finding import Finding, p_text, points, remarks
from tlfeat.studies.adapt import BASELINE, SIGNIFICANCE
from tlfeat.studies.leave_one_out import BEST, CHOSEN, LeaveOneOut, Row
from tlfeat.text import counted, percent


def sentences(found: LeaveOneOut) -> list[str]:
    """Return the answer in words."""
    rows = {row.name: row for row in found.rows}
    chosen, before, best = rows[CHOSEN], rows[BASELINE], rows[BEST]
    low, high = chosen.difference_ci95 or (0.0, 0.0)
    worst = min(range(len(found.targets)), key=lambda i: chosen.differences[i])
    picked = ", ".join(f"{name} {counted(n, 'time')}" for name, n in found.times_chosen.items())
    return [
        f"Mean of {counted(len(found.targets), 'target')}, {counted(found.n_seeds, 'split')} of each: "
        f"{percent(chosen.mean)} with the method chosen without labels of the target, {percent(before.mean)} with "
        f"{found.head} of the sources alone. {verdict(chosen)} ({points(chosen.difference)} points, 95 % interval "
        f"{points(low)} to {points(high)}, {p_text(chosen.p_value)}).",
        f"The least it brought is {points(chosen.differences[worst])} points, on {found.targets[worst]}. Chosen: "
        f"{picked}.",
        f"Best in hindsight, the highest of all methods in each split: {percent(best.mean)}, "
        f"{100 * (best.mean - chosen.mean):.1f} points more; nobody could have chosen it without labels.",
    ]


def verdict(row: Row) -> str:
    """Say whether a row helped, in a few words."""
    if row.p_value is None or row.p_value >= SIGNIFICANCE:
        return "Adapting did not help for certain: the difference is within noise"
    return "Adapting helped" if row.difference > 0 else "Adapting did not help: it made things worse"


def leave_one_out_finding(found: LeaveOneOut) -> Finding:
    """Return words, chart, table and records."""
    return Finding(
        name="adapt-leave-one-out",
        title=f"{found.cache.stem}: every domain from the others",
        sentences=sentences(found),
        chart=_chart(found),
        headings=("method", *found.targets, "mean", "to none (p)", "95 % interval"),
        droppable=("95 % interval",),
        rows=[_row(row) for row in found.rows],
        legend=_legend(found),
        records=[row.to_record(found.targets) for row in found.rows],
        about=_about(found),
        chosen_row=next(i for i, row in enumerate(found.rows) if row.name == CHOSEN),
    )


def _row(row: Row) -> tuple[str, ...]:
    ci95 = row.difference_ci95
    cells = [
        f"{100 * share:.1f}" + ("" if p is None or p >= SIGNIFICANCE else " +" if difference > 0 else " −")
        for share, difference, p in zip(row.by_target, row.differences, row.p_by_target, strict=True)
    ]
    return (
        f"{row.name}{' *' if row.name == CHOSEN else ''}",
        *cells,
        f"{100 * row.mean:.1f}",
        ""
        if row.name == BASELINE
        else points(row.difference)
        + (f" ({p_text(row.p_value).removeprefix('p ')})" if row.p_value is not None else ""),
        f"{points(ci95[0])} to {points(ci95[1])}" if ci95 else "",
    )


def _chart(found: LeaveOneOut) -> Chart:
    names = {BASELINE: "sources alone", CHOSEN: "chosen without labels", BEST: BEST}
    shown = [row for row in found.rows if row.name in names]
    shapes = list(SHAPES)
    marks = [
        Mark(x, share, f"{names[row.name]} on {target}: {percent(share)}", f"c{i}", shapes[i])
        for i, row in enumerate(shown)
        for x, (target, share) in enumerate(zip(found.targets, row.by_target, strict=True))
    ]
    return Chart(
        "Accuracy on each target",
        tick_axis("target", list(enumerate(found.targets))),
        percent_axis("accuracy", [share for row in shown for share in row.by_target]),
        marks,
        keys=[Key(names[row.name], f"c{i}", shapes[i]) for i, row in enumerate(shown)],
        width=760,
        height=380,
    )


def _legend(found: LeaveOneOut) -> list[str]:
    return [
        "Accuracies in percent, means over splits; differences in percentage points.",
        "*: what a user would have got: in each split the method with the highest accuracy there and back, which sees "
        "no label of the target.",
        "+ and − mark a target where a method is better or worse than none for certain (McNemar on the same images, "
        f"p below {SIGNIFICANCE:g}, not adjusted).",
        "p: over all targets and splits, an image that tests in several splits counted as one; with "
        "Holm's correction, but for the chosen one, which no test image had a say in.",
        "Half of each target's images were adapted to without labels, half tested; another half in each split.",
        *remarks(found, "not run"),
    ]


def _about(found: LeaveOneOut) -> dict[str, Any]:
    return {
        "cache": str(found.cache),
        "backbone": found.backbone,
        "layers": found.layers,
        "head": found.head,
        "targets": found.targets,
        "n_splits": found.n_seeds,
        "times_chosen": found.times_chosen,
        "skipped": [list(pair) for pair in found.skipped],
        "notes": found.notes,
        "environment": Environment.current().to_dict(),
    }
