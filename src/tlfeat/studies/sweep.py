"""Which layer: a head on the end of every block of a backbone, accuracy against depth.

The training images choose the layer, by cross-validation; the test images only say how good the choice is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from tlfeat import workspace
from tlfeat.backbones.graph import POOLS, CutPoint, list_cut_points
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.contents import Origin, choose_layers, encoder_name, origin
from tlfeat.cache.store import Cache, open_cache
from tlfeat.documents import misfit
from tlfeat.errors import DataError, Interrupted, KnownError, UsageError, nearest
from tlfeat.evaluate.data import Data
from tlfeat.extract.plan import ExtractionJob, plan_extraction
from tlfeat.heads.table import find_head
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Result, SplitInfo
from tlfeat.types import OnProgress, StrPath, silent
from tlfeat.workspace import read_json, write_json

#: Columns of a flattened layer in a sweep of several poolings: the last map of most networks, 7x7 with 1,280 channels,
#: is just below; an early layer has ten times as many, and takes megabytes an image.
MAX_FLAT = 65_536


@dataclass(frozen=True, slots=True)
class SweepJob:
    """The extraction of all layers in one pass, and where each of them lies; layers in order of depth."""

    extraction: ExtractionJob
    cuts: dict[str, CutPoint]
    notes: list[str] = field(default_factory=list)


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


def plan_sweep(
    data: StrPath | None = None, *, pool: str | None = None, pools: Sequence[str] = (), **options: Any
) -> SweepJob:
    """Decide which layers to embed; `options` are those of `plan.plan_extraction`.

    Parameters
    ----------
    data : str or path, optional
    pool : str, optional
        How layers with height and width become a row.
    pools : sequence of str
        Several ways, each a layer of its own in the cache. Layers that are rows already come once.

    Raises
    ------
    UsageError
        The encoder is no Keras backbone: it has no layers to choose from.
    """
    for name in pools:
        if name not in POOLS:
            raise UsageError(f"No pooling '{name}'. {nearest(name, list(POOLS), of='poolings')}")
    if data is None and (cache := options.get("cache")) is not None and cache.exists():
        with open_cache(cache) as held:
            if origin(held) is not Origin.KERAS:
                raise UsageError(f"{cache} was not made by a Keras backbone: it has no layers to choose from.")
    asked = plan_extraction(data, **options).encoder
    if not isinstance(asked, KerasEncoder):
        raise UsageError(f"'{asked.name}' has one layer. A sweep needs a backbone: tlfeat backbones lists them.")
    known = _known_cuts(asked)
    if pools:
        cuts, notes = _pooled(known, pools, asked.spec)
        return SweepJob(plan_extraction(data, layers=list(cuts), **options), cuts, notes)
    own_pool = asked.spec.own_pool or "avg"
    cuts = {"avg_pool" if cut.is_pooled_output and pool in (None, own_pool) else cut.layer: cut for cut in known}
    job = plan_extraction(data, layers=list(cuts), pool=pool, **options)
    return SweepJob(job, {asked.spec.embedding_name(name, pool): cut for name, cut in cuts.items()})


def _pooled(
    known: Sequence[CutPoint], pools: Sequence[str], spec: BackboneSpec
) -> tuple[dict[str, CutPoint], list[str]]:
    """Return each layer with each pooling by its name in the cache, and what is left out."""
    own_pool = spec.own_pool or "avg"
    cuts: dict[str, CutPoint] = {}
    wide = []
    for cut in known:
        for pool in pools:
            if pool == "flatten" and math.prod(cut.output_shape) > MAX_FLAT:
                wide.append(cut.layer)
            elif len(cut.output_shape) == 1 or pool == own_pool:
                vector = cut.layer if len(cut.output_shape) == 1 else spec.embedding_name(cut.layer, pool)
                cuts["avg_pool" if cut.is_pooled_output else vector] = cut
            else:
                cuts[spec.embedding_name(cut.layer, pool)] = cut
    left_out = f"flatten leaves out what has more than {MAX_FLAT:,} columns then: {', '.join(wide)}"
    return cuts, [left_out] if wide else []


class _KnownCut(TypedDict):
    layer: str
    output_shape: list[int]
    is_pooled_output: bool
    n_reused: int
    n_weight_layers: int
    compute_share: float


def _known_cuts(encoder: KerasEncoder) -> list[CutPoint]:
    """Read the cut points that an earlier sweep found, or build the network and look (5 to 20 s)."""
    file = _cuts_file(encoder.networks_dir, encoder.name, encoder.fingerprint)
    if known := _read_cuts(file):
        return known
    cuts = list_cut_points(encoder.spec)
    write_json(file, [asdict(cut) for cut in cuts])
    return cuts


def _cuts_file(networks_dir: Path, name: str, fingerprint: Mapping[str, Any]) -> Path:
    return networks_dir / f"{name}-{workspace.digest({**fingerprint, 'cut_points': 1})}-cuts.json"


def _read_cuts(file: Path) -> list[CutPoint]:
    with suppress(FileNotFoundError, DataError):  # what is damaged is looked for again
        known = read_json(file)
        if not misfit(known, list[_KnownCut], "cuts"):
            chosen = ({name: values[name] for name in _KnownCut.__annotations__} for values in known)
            return [CutPoint(**{**values, "output_shape": tuple(values["output_shape"])}) for values in chosen]
    return []


def shares_of(cache: Cache) -> dict[str, float]:
    """Return the share of the network's multiply-adds below each layer of a cache, as far as an earlier sweep found it.

    Nothing is built; `avg_pool` of a network of the catalog is its end.
    """
    if origin(cache) is not Origin.KERAS:
        return {}
    cuts = _read_cuts(_cuts_file(workspace.NETWORKS_DIR, encoder_name(cache), cache.fingerprint))
    share = {cut.layer: cut.compute_share for cut in cuts}
    is_own = cache.fingerprint.get("backbone") == "own model"
    ends = [cut.compute_share for cut in cuts if cut.is_pooled_output] if is_own else [1.0]
    if ends:
        share["avg_pool"] = ends[-1]
    return {layer: share[name] for layer in cache.layers if (name := layer.partition(":")[0]) in share}


def sweep_layers(
    data: Data,
    cuts: dict[str, CutPoint] | Sequence[str],
    *,
    head: str = "logreg",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Sweep:
    """Fit `head` on each layer, test it, and choose a layer by the held-out accuracy of the training images.

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
