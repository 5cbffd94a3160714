"""Which layer: a head on the end of every block of a backbone, accuracy against depth.

The images to learn from choose the layer, by cross-validation; the test images only say how good the choice is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.backbones.encoder import embedding_name
from tlfeat.backbones.graph import CutPoint, list_cut_points
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.cache.contents import choose_layers, encoder_name
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, Interrupted, KnownError, UsageError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.intervals import wilson_interval
from tlfeat.extract.plan import ExtractionJob, plan_extraction
from tlfeat.figures import Chart, Finding, Point, Series
from tlfeat.heads.table import find_head
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Environment, Result, SplitInfo, record
from tlfeat.text import counted, percent, seconds
from tlfeat.types import OnProgress, silent
from tlfeat.workspace import read_json, write_json


@dataclass(frozen=True, slots=True)
class SweepJob:
    """The extraction of all layers in one pass, and where each of them lies; layers in order of depth."""

    extraction: ExtractionJob
    cuts: dict[str, CutPoint]


@dataclass(frozen=True, slots=True)
class Depth:
    """One layer of a sweep.

    Attributes
    ----------
    layer : str
        As in ``--layer``.
    width : int
        Columns of the embedding.
    cut : CutPoint or None
        Where it lies; None for a layer that is no cut point or of a cache without a network.
    result : Result
        Of the head on it.
    """

    layer: str
    width: int
    cut: CutPoint | None
    result: Result


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every layer with its head, in order of depth.

    Attributes
    ----------
    chosen : int or None
        Of `depths`: the highest held-out accuracy; None where no image could be held out.
    shallowest : int or None
        The first of `depths` within one standard error of it.
    """

    cache: Path
    backbone: str
    head: str
    split: SplitInfo
    depths: list[Depth]
    chosen: int | None
    shallowest: int | None
    skipped: list[tuple[str, str]]
    notes: list[str]


def plan_sweep(data: Path | None = None, *, pool: str | None = None, **options: Any) -> SweepJob:
    """Decide which layers to embed; `options` are those of `plan.plan_extraction`.

    Raises
    ------
    UsageError
        The encoder is no Keras backbone: it has no layers to choose from.
    """
    if data is None and (cache := options.get("cache")) is not None and cache.exists():
        with open_cache(cache) as held:
            if held.source.get("encoder", {}).get("backbone") in (None, "pixels", "imported"):
                raise UsageError(f"{cache} was not made by a Keras backbone: it has no layers to choose from.")
    asked = plan_extraction(data, **options).encoder
    if not isinstance(asked, KerasEncoder):
        raise UsageError(f"'{asked.name}' has one layer. A sweep needs a backbone: tlfeat backbones lists them.")
    cuts = {
        "avg_pool" if cut.is_pooled_output and pool in (None, "avg") else cut.layer: cut for cut in _known_cuts(asked)
    }
    job = plan_extraction(data, layers=list(cuts), pool=pool, **options)
    vector_pool = None if pool == "avg" else pool
    return SweepJob(
        job, {embedding_name(name, None if name == "avg_pool" else vector_pool): cut for name, cut in cuts.items()}
    )


def _known_cuts(encoder: KerasEncoder) -> list[CutPoint]:
    """Read the cut points that an earlier sweep found, or build the network and look (5 to 20 s)."""
    identity = workspace.digest({**encoder.fingerprint, "cut_points": 1})
    file = encoder.networks_dir / f"{encoder.name}-{identity}-cuts.json"
    if file.exists():
        return [CutPoint(**{**values, "output_shape": tuple(values["output_shape"])}) for values in read_json(file)]
    cuts = list_cut_points(encoder.spec)
    write_json(file, [asdict(cut) for cut in cuts])
    return cuts


def sweep_layers(
    data: Data,
    cuts: dict[str, CutPoint] | Sequence[str],
    *,
    head: str = "logreg",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Sweep:
    """Fit `head` on each layer, test it, and choose a layer by the held-out accuracy of the images to learn from.

    Parameters
    ----------
    data : Data
    cuts : dict of layer to CutPoint, or sequence of layers
        In order of depth; each must be in the cache.
    head : str, default="logreg"
    is_fresh : bool, default=False
        Reuse no Result of an earlier command.

    Notes
    -----
    Held out means: each image gets its label from a head that was fitted without it, in cross-validation. The head's
    parameters were chosen on the same folds, which flatters every layer a little, and the highest one most.
    A layer that cannot carry the head (too many columns) is listed with its reason.
    """
    find_head(head)
    depths, skipped = [], []
    layers = [choose_layers(data.cache, layer)[0] for layer in cuts]
    for layer in layers:
        common: dict[str, Any] = {"layer": layer, "on_progress": on_progress}
        try:
            outcome = fit_sklearn(data, head, is_fresh=is_fresh, **common)
            if outcome.is_reused and outcome.result.held_out_accuracy is None:  # of a version that did not hold out
                outcome = fit_sklearn(data, head, is_fresh=True, **common)
        except Interrupted:
            raise
        except KnownError as error:
            skipped.append((layer, str(error)))
            continue
        cut = cuts[layer] if isinstance(cuts, dict) else None
        depths.append(Depth(layer, data.cache.layers[layer][1], cut, outcome.result))
    if not depths:
        raise DataError("No layer could be used. " + " ".join(f"{name}: {why}" for name, why in skipped))
    held_out = [depth.result.held_out_accuracy for depth in depths]
    info = data.split.info
    chosen, shallowest = choose_depth(held_out, info.n_train + info.n_val)
    return Sweep(
        data.cache.path,
        encoder_name(data.cache),
        head,
        info,
        depths,
        chosen,
        shallowest,
        skipped,
        list(dict.fromkeys(note for depth in depths for note in depth.result.notes)),
    )


def choose_depth(held_out: Sequence[float | None], n_images: int) -> tuple[int | None, int | None]:
    """Return the most accurate layer, and the first one within one standard error of it.

    The one-standard-error rule: Breiman, Friedman, Olshen and Stone 1984, Classification and Regression Trees,
    section 3.4.3.

    Parameters
    ----------
    held_out : sequence of float or None
        Share of the held-out images that are right, in order of depth; of equal ones the first counts.
    n_images : int
        That were held out.
    """
    known = [(accuracy, i) for i, accuracy in enumerate(held_out) if accuracy is not None]
    if not known:
        return None, None
    best, chosen = max(known, key=lambda pair: (pair[0], -pair[1]))
    return chosen, min(i for accuracy, i in known if accuracy >= best - standard_error(best, n_images))


def standard_error(accuracy: float, n_images: int) -> float:
    """Return the binomial standard error of a share of `n_images`."""
    return math.sqrt(accuracy * (1 - accuracy) / n_images)


def sentences(sweep: Sweep) -> list[str]:
    """Return the answer in words."""
    depths, n = sweep.depths, sweep.split.n_train + sweep.split.n_val
    if sweep.chosen is None or sweep.shallowest is None:
        return [
            "No recommendation: a class has one image to learn from, so that none can be held out to choose a layer. "
            "Label one more image of each class."
        ]
    best = depths[sweep.chosen]
    held_out = best.result.held_out_accuracy or 0.0
    low, high = best.result.score.ci95
    found = [
        f"Take {best.layer}: {percent(held_out)} of the {n:,} images to learn from are right when held out, the most "
        f"of {counted(len(depths), 'layer')}. {reuse_text(best.cut)}".rstrip(),
        f"On the {sweep.split.n_test:,} test images, which had no say in it, {sweep.head} on {best.layer} is right on "
        f"{percent(best.result.score.accuracy)} (95 % interval {100 * low:.1f} to {100 * high:.1f}).",
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
            f"of {len(depths)} looks at the same test images and flattered by that: it chose nothing."
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
    rows, held, tested = [], [], []
    n = sweep.split.n_train + sweep.split.n_val
    for i, depth in enumerate(sweep.depths):
        score, timing, cut = depth.result.score, depth.result.timing, depth.cut
        held_out = depth.result.held_out_accuracy
        fit_s = (timing.search_s or 0.0) + (timing.fit_s or 0.0)
        rows.append(
            (
                f"{depth.layer}{' *' if i == sweep.chosen else ''}",
                f"{depth.width:,}",
                f"{cut.n_reused} of {cut.n_weight_layers}" if cut else "–",
                f"{100 * cut.compute_share:.0f} %" if cut else "–",
                percent(held_out) if held_out is not None else "–",
                percent(score.accuracy),
                f"{100 * score.ci95[0]:.1f} to {100 * score.ci95[1]:.1f}",
                seconds(fit_s),
            )
        )
        tested.append(
            Point(
                i,
                score.accuracy,
                *score.ci95,
                f"{depth.layer}: {percent(score.accuracy)} of the test images",
            )
        )
        if held_out is not None:
            text = f"{depth.layer}: {percent(held_out)} held out"
            interval = wilson_interval(round(held_out * n), n)
            held.append(Point(i, held_out, *interval, text, is_marked=i == sweep.chosen))
    series = [Series("test images", tested)]
    if held:
        series.insert(0, Series("held out", held))
    return Finding(
        name="sweep",
        title=f"{sweep.cache.stem}: which layer of {sweep.backbone}",
        sentences=sentences(sweep),
        chart=Chart(
            f"{sweep.head} on the end of each block, from the input to the output",
            [(i, depth.layer) for i, depth in enumerate(sweep.depths)],
            series,
        ),
        headings=("layer", "columns", "layers reused", "compute", "held out", "test", "95 % interval", "fit"),
        rows=rows,
        legend=_legend(sweep),
        records=[_flat(depth) for depth in sweep.depths],
        about={
            "cache": str(sweep.cache),
            "backbone": sweep.backbone,
            "head": sweep.head,
            "chosen": None if sweep.chosen is None else sweep.depths[sweep.chosen].layer,
            "shallowest_within_one_standard_error": None
            if sweep.shallowest is None
            else sweep.depths[sweep.shallowest].layer,
            "split": sweep.split.to_dict(),
            "skipped": [list(pair) for pair in sweep.skipped],
            "environment": Environment.current().to_dict(),
        },
        chosen_row=sweep.chosen,
    )


def _flat(depth: Depth) -> dict[str, Any]:
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
    split = sweep.split
    return [
        f"held out: {split.n_train + split.n_val:,} images to learn from, each labelled by a head fitted without it "
        "(cross-validation; parameters were chosen on the same folds, which flatters all layers a little). * and the "
        "ring: the layer that it chooses.",
        f"test: {split.n_test:,} images that chose nothing. Bands: 95 % intervals. Split: {split.origin}, "
        f"seed {split.seed}.",
        "layers reused: layers with kernels up to there. compute: share of the backbone's multiply-adds up to there.",
        "fit: choosing parameters and fitting on cached rows, without extraction (one pass for all layers).",
        *(f"not used: {layer}: {why}" for layer, why in sweep.skipped),
        *(f"note: {note}" for note in sweep.notes),
    ]
