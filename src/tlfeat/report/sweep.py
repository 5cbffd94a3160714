"""A sweep over layers as sentences, table, chart and page."""

from __future__ import annotations

from typing import Any

from tlfeat.backbones.graph import CutPoint
from tlfeat.evaluate.intervals import wilson_interval
from tlfeat.records import record
from tlfeat.report.charts import Chart, Mark, percent_axis, series, tick_axis
from tlfeat.report.finding import Finding, about, remarks
from tlfeat.studies.sweep import Depth, Sweep, standard_error
from tlfeat.text import counted, interval_text, percent, seconds


def sentences(sweep: Sweep) -> list[str]:
    """Return the answer in words."""
    depths, n = sweep.depths, sweep.split.n_train + sweep.split.n_val
    if sweep.chosen is None or sweep.shallowest is None:
        return [
            "No recommendation: a class has one training image, so that none can be held out to choose a layer. "
            "Label one more image of each class."
        ]
    best = depths[sweep.chosen]
    held_out = best.result.held_out_accuracy or 0.0
    found = [
        f"Take {best.layer}: {percent(held_out)} of the {n:,} training images are right when held out, the most "
        f"of {counted(len(depths), 'layer')}. {reuse_text(best.cut)}".rstrip(),
        f"On the {best.result.score.n_images:,} test images, which had no say in it, {sweep.head} on {best.layer} is "
        f"right on {percent(best.result.score.accuracy)} (95 % interval {interval_text(best.result.score.ci95)}).",
    ]
    error = 100 * standard_error(held_out, n)
    if sweep.shallowest < sweep.chosen:
        shallow = depths[sweep.shallowest]
        found.append(
            f"The shallowest layer within one standard error ({error:.1f} points) of it is {shallow.layer}: "
            f"{percent(shallow.result.held_out_accuracy or 0.0)} held out, {percent(shallow.result.score.accuracy)} on "
            f"the test images. {reuse_text(shallow.cut)}".rstrip()
        )
    top = max(depths, key=lambda depth: depth.result.score.accuracy)
    if top.result.score.accuracy > best.result.score.accuracy:
        found.append(
            f"The highest test accuracy in the table, {percent(top.result.score.accuracy)} at {top.layer}, is the best "
            f"of {len(depths)} looks at the same test images, which flatters it: nothing was chosen by it."
        )
    return found


def reuse_text(cut: CutPoint | None) -> str:
    if cut is None:
        return ""
    if cut.n_reused == cut.n_weight_layers:
        return f"It reuses all {cut.n_weight_layers} layers with weights."
    return (
        f"It reuses the first {cut.n_reused} of {cut.n_weight_layers} layers with weights, "
        f"{100 * cut.compute_share:.0f} % of the multiply-adds; the rest of the network is not needed."
    )


def sweep_finding(sweep: Sweep) -> Finding:
    """Return words, chart, table and records of a sweep."""
    chosen = None if sweep.chosen is None else sweep.depths[sweep.chosen].layer
    shallowest = None if sweep.shallowest is None else sweep.depths[sweep.shallowest].layer
    return Finding(
        name="sweep",
        title=f"{sweep.cache.stem}: which layer of {sweep.backbone}",
        sentences=sentences(sweep),
        chart=_chart(sweep),
        headings=("layer", "columns", "layers reused", "compute", "held out", "test", "95 % interval", "fit"),
        droppable=("layers reused", "columns", "fit", "95 % interval", "compute"),
        rows=[_row(depth, is_chosen=i == sweep.chosen) for i, depth in enumerate(sweep.depths)],
        legend=_legend(sweep),
        records=[_depth_record(depth) for depth in sweep.depths],
        about=about(sweep, head=sweep.head, chosen=chosen, shallowest_within_one_standard_error=shallowest),
        chosen_row=sweep.chosen,
    )


def _chart(sweep: Sweep) -> Chart:
    held, tested = [], []
    n = sweep.split.n_train + sweep.split.n_val
    for i, depth in enumerate(sweep.depths):
        score, held_out = depth.result.score, depth.result.held_out_accuracy
        says = f"{depth.layer}: {percent(score.accuracy)} of the test images"
        tested.append(Mark(i, score.accuracy, says, low=score.ci95[0], high=score.ci95[1]))
        if held_out is not None:
            low, high = wilson_interval(round(held_out * n), n)
            says = f"{depth.layer}: {percent(held_out)} held out"
            held.append(Mark(i, held_out, says, low=low, high=high, is_ringed=i == sweep.chosen))
    named = {name: marks for name, marks in (("held out", held), ("test images", tested)) if marks}
    drawn = [series(name, i, marks) for i, (name, marks) in enumerate(named.items())]
    return Chart(
        "Accuracy against the layer",
        tick_axis(
            f"{sweep.head} on the end of each block, from the input to the output",
            [(i, depth.layer) for i, depth in enumerate(sweep.depths)],
        ),
        percent_axis("accuracy", [end for m in (*held, *tested) for end in (m.low, m.high) if end is not None]),
        [mark for _, marks in drawn for mark in marks],
        [line for line, _ in drawn],
        width=760,
        height=420,
    )


def _row(depth: Depth, *, is_chosen: bool) -> tuple[str, ...]:
    score, timing, cut, held_out = depth.result.score, depth.result.timing, depth.cut, depth.result.held_out_accuracy
    return (
        f"{depth.layer}{' *' if is_chosen else ''}",
        f"{depth.width:,}",
        f"{cut.n_reused} of {cut.n_weight_layers}" if cut else "–",
        f"{100 * cut.compute_share:.0f} %" if cut else "–",
        percent(held_out) if held_out is not None else "–",
        percent(score.accuracy),
        interval_text(score.ci95),
        seconds((timing.search_s or 0.0) + (timing.fit_s or 0.0)),
    )


def _depth_record(depth: Depth) -> dict[str, Any]:
    cut = depth.cut
    return {
        **record(depth.result),
        "width": depth.width,
        "held_out_accuracy": depth.result.held_out_accuracy,
        "n_reused": cut.n_reused if cut else None,
        "n_weight_layers": cut.n_weight_layers if cut else None,
        "compute_share": cut.compute_share if cut else None,
    }


def _legend(sweep: Sweep) -> list[str]:
    split, n_scored = sweep.split, sweep.depths[0].result.score.n_images
    return [
        f"held out: {split.n_train + split.n_val:,} training images, each labelled by a head fitted without it "
        "(cross-validation; parameters were chosen on the same folds, which flatters all layers a little). * and the "
        "ring: the layer that it chooses.",
        f"test: {n_scored:,} images. Bands: 95 % intervals. Split: {split.origin}, seed {split.seed}.",
        "layers reused: layers with kernels up to there. compute: share of the backbone's multiply-adds up to there.",
        "fit: choosing parameters and fitting on cached rows, without extraction (one pass for all layers).",
        *remarks(sweep, "not used"),
    ]
