"""What takes part when backbones are compared: the layers of each cache, and a head on the rows of some of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tlfeat.backbones import catalog
from tlfeat.backbones.encoder import resolve_embedding
from tlfeat.backbones.graph import POOLS
from tlfeat.backbones.network import DIGITS, DIGITS_PARAMETERS
from tlfeat.backbones.precision import INT8, kind_of
from tlfeat.cache.contents import Origin, encoder_name, origin
from tlfeat.cache.passes import Cost, cost_of, passes_of
from tlfeat.cache.reader import Cache
from tlfeat.errors import UsageError, nearest
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.together import Together
from tlfeat.heads.any_estimator import short_name
from tlfeat.models.saved import Outcome
from tlfeat.records import Result, layers_of
from tlfeat.studies.compare import SIGNIFICANCE
from tlfeat.studies.sweep import shares_of
from tlfeat.types import ROW_TYPES


@dataclass(frozen=True, slots=True)
class Against:
    """A contender against the chosen one, on the test images.

    Attributes
    ----------
    p_value : float
        McNemar's mid-p test (sign flips of whole groups, where there are groups), Holm-adjusted.
    difference : float
        Accuracy less that of the chosen one, a share.
    ci95 : (float, float)
        Its 95 % interval, not adjusted for the number of contenders.
    """

    p_value: float
    difference: float
    ci95: tuple[float, float]

    @property
    def is_within_noise(self) -> bool:
        """Whether the test cannot tell the two apart."""
        return self.p_value >= SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class Contender:
    """One head on the rows of one backbone, with what these rows cost.

    Attributes
    ----------
    backbone : str
        With what tells it from another cache of the same network.
    layers : list of str
        Side by side, where they are several.
    of_all : int
        How many layers of the cache took part: where it has all of them, they need not be named.
    width : int
        Columns of the rows.
    row_bytes : int
        Of an image, as the cache stores it.
    network_bytes : int or None
        Of the whole network's weights as float32, or int8; of a user's own model, its file.
    cost : Cost or None
        None where the cache does not say it.
    is_ahead : bool
        On the frontier of held-out accuracy and cost.
    against : Against or None
        None for the chosen one, and where none was chosen.
    """

    backbone: str
    cache: Path
    layers: list[str]
    of_all: int
    result: Result
    is_reused: bool
    width: int
    row_bytes: int
    network_bytes: int | None
    cost: Cost | None
    is_ahead: bool = False
    against: Against | None = None

    @property
    def layer(self) -> str:
        """The layer, or in short the layers."""
        if len(self.layers) == 1:
            return self.layers[0]
        return all_layers(self.of_all) if len(self.layers) == self.of_all else " + ".join(self.layers)

    @property
    def head(self) -> str:
        return short_name(self.result.candidate.removeprefix("pixels+").removeprefix("tfidf+"))

    @property
    def name(self) -> str:
        """Backbone, layer and head."""
        where = self.backbone if self.layers == [self.backbone] else f"{self.backbone} at {self.layer}"
        return f"{where} with {self.head}"

    @property
    def held_out(self) -> float | None:
        """Accuracy on training images, each by a head fitted without it."""
        return self.result.held_out_accuracy


def all_layers(n: int) -> str:
    """Return what several layers side by side are called."""
    return "both layers" if n == 2 else f"all {n} layers"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one cache that take part: its layers in the order in which they are listed.

    Attributes
    ----------
    shares : mapping of str to float
        Layer to its share of the network's multiply-adds, as far as it is known.
    """

    data: Data
    name: str
    layers: list[str]
    shares: Mapping[str, float] = field(default_factory=dict)


def rows_of(together: Together, layers: Sequence[str] = (), pools: Sequence[str] = ()) -> list[Rows]:
    """Return the layers of each cache that take part.

    Parameters
    ----------
    together : Together
    layers : sequence of str
        As in ``--layer``, with all poolings that the cache has of it; all layers by default. Each has to be in one of
        the caches.
    pools : sequence of str
        Take these poolings alone; a vector, such as `avg_pool`, counts as "avg".

    Raises
    ------
    UsageError
        No cache has such a layer, or such a pooling.
    """
    for pool in pools:
        if pool not in POOLS:
            raise UsageError(f"No pooling '{pool}'. {nearest(pool, list(POOLS), of='poolings')}")
    caches = [data.cache for data in together.data]
    every = [name for cache in caches for name in cache.layers]
    for layer in layers:
        if not any(_is_asked(name, layer) for name in every):
            resolve_embedding(layer, list(dict.fromkeys(every)))  # raises, with the nearest name
    found = []
    for data, name in zip(together.data, _names(caches), strict=True):
        shares = shares_of(data.cache)
        own = sorted(data.cache.layers, key=lambda layer: (shares.get(layer, math.inf), layer))
        own = [layer for layer in own if not layers or any(_is_asked(layer, asked) for asked in layers)]
        own = [layer for layer in own if not pools or _pool_of(layer) in pools]
        if own:
            found.append(Rows(data, name, own, shares))
    if not found:
        raise UsageError(
            f"No layer with --pool {' or '.join(pools)} in {', '.join(str(cache.path) for cache in caches)}. Add one: "
            f"tlfeat extract DATA --layer LAYER:{pools[0] if pools else 'max'}."
        )
    return found


def _is_asked(layer: str, asked: str) -> bool:
    return asked in (layer, layer.partition(":")[0])


def _pool_of(layer: str) -> str:
    return layer.partition(":")[2] or "avg"


def _names(caches: Sequence[Cache]) -> list[str]:
    """Return a name a cache: its backbone, and where several have that, what else of the fingerprint differs."""
    plain = [encoder_name(cache) or cache.stem for cache in caches]
    names = []
    for cache, name in zip(caches, plain, strict=True):
        alike = [other.fingerprint for other, its in zip(caches, plain, strict=True) if its == name]
        told = [
            f"{part.replace('_', ' ')} {_short(cache.fingerprint[part])}"
            for part in cache.fingerprint
            if part != "weights" and len({str(other.get(part)) for other in alike}) > 1
        ]
        names.append(f"{name} ({', '.join(told)})" if told else name)
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} [{c.stem}]" for c, name in zip(caches, names, strict=True)]


def _short(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else kind_of(str(value))


def contender_of(cache: Cache, name: str, outcome: Outcome, n_layers: int, shares: Mapping[str, float]) -> Contender:
    """Return a fitted head with what its rows and the network cost."""
    layers = layers_of(outcome.result.layer)
    width = sum(cache.layers[layer][1] for layer in layers)
    row_type = ROW_TYPES[cache.fingerprint.get("dtype", "float32")]
    return Contender(
        backbone=name,
        cache=cache.path,
        layers=layers,
        of_all=n_layers,
        result=outcome.result,
        is_reused=outcome.is_reused,
        width=width,
        row_bytes=width * np.dtype(row_type).itemsize,
        network_bytes=network_bytes(cache),
        cost=cost_of(passes_of(cache), layers, shares),
    )


def network_bytes(cache: Cache) -> int | None:
    """Return the size of the network that made a cache: its weights as float32 or int8, or a user's own file.

    None where there is no network that is known, or its file is gone.
    """
    kind = origin(cache)
    if kind is not Origin.KERAS:
        return 0 if kind is Origin.PIXELS else None
    backbone = str(cache.source["encoder"]["backbone"])
    each = 1 if kind_of(cache.fingerprint.get("precision", "")) == INT8 else 4
    if backbone == DIGITS:
        return each * DIGITS_PARAMETERS
    try:
        return each * getattr(catalog.find(backbone), "parameters", 0) or None
    except UsageError:
        file = Path(backbone)
        return file.stat().st_size if file.is_file() else None
