"""Rows of images without a label, which a head of few labels learns from, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlfeat import workspace
from tlfeat.cache.contents import read_rows
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data
from tlfeat.heads.spreading import N_IN_GRAPH
from tlfeat.types import Rows


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """Rows without a label.

    Attributes
    ----------
    rows : float32 array of shape (n, width)
    digest : str
        Of which images they are: another head comes of others.
    """

    rows: Rows
    digest: str


def read_unlabelled(cache: Cache, data: Data, layers: Sequence[str]) -> Unlabelled:
    """Return rows of images that have no label in `data`, and so of no test image; at most 2,000, drawn by the seed.

    Parameters
    ----------
    cache : Cache
        That of `data`, or another one of the same encoder.
    data : Data
    layers : sequence of str
        Whose rows stand side by side.

    Raises
    ------
    DataError
        The cache is of another encoder or layer, or every image has a label.
    """
    if cache.fingerprint != data.cache.fingerprint:
        raise DataError(
            f"{cache.path} was not extracted as {data.cache.path}: name a cache of the same backbone and options with "
            "--unlabelled"
        )
    if missing := [layer for layer in layers if layer not in cache.layers]:
        raise DataError(f"{cache.path} has no layer {missing[0]}")
    labelled, table = set(data.split.keys), cache.table
    found = {key for key, status in zip(table.keys, table.status, strict=True) if status == "ok"} - labelled
    there = sorted(found.intersection(*(cache.known(layer) for layer in layers)))
    if not there:
        raise DataError(
            f"every image of {cache.path} has a label: spread learns from images without one, too; name the cache of "
            "their folder with --unlabelled, or take logreg"
        )
    drawn = np.random.default_rng(data.seed).permutation(len(there))[:N_IN_GRAPH]
    keys = [there[i] for i in drawn.tolist()]
    return Unlabelled(read_rows(cache, list(layers), keys), workspace.digest({"keys": keys}))
