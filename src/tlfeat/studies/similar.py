"""The nearest known pictures of an image: by the rows of a cache, whatever their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import Origin, StoredRows, choose_layers, in_file_order, origin, snippets
from tlfeat.cache.reader import Cache
from tlfeat.errors import BadImage, DataError, UsageError
from tlfeat.extract.arrays import embed_pictures
from tlfeat.extract.encoders import encoder_of
from tlfeat.images.decode import read_picture
from tlfeat.images.image_set import content_key
from tlfeat.images.open_store import named_image
from tlfeat.images.stores import Store
from tlfeat.types import Floats, OnProgress, Rows, StrPath, silent

#: Rows that are read and compared at a time.
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A known picture.

    Attributes
    ----------
    path : str
        As in the cache; the first one where it has copies.
    label, split, key : str
    n_copies : int
        Other images of the same bytes.
    distance : float
        1 less the cosine of both rows after the mean of all rows is taken away: 0 is the same, about 1 nothing in
        common, 2 opposite.
    """

    path: str
    label: str
    split: str
    key: str
    n_copies: int
    distance: float


@dataclass(frozen=True, slots=True)
class Similar:
    """An image and its nearest known pictures, nearest first; `known_as` are images of the cache with its bytes."""

    image: str
    known_as: list[str]
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in one cache; `home` is the folder or the store of its images, None where rows were imported.

    Of texts `beginnings` has the beginning of each neighbour, by its content key.
    """

    cache: Path
    layer: str
    home: Path | Store | None
    n_images: int
    found: list[Similar]
    beginnings: Mapping[str, str] = field(default_factory=dict)


def find_similar(
    cache: Cache, images: Sequence[StrPath], *, k: int = 9, layer: str | None = None, on_progress: OnProgress = silent
) -> Search:
    """Return the `k` nearest known pictures of each image.

    Parameters
    ----------
    cache : Cache
        Images need no label in it.
    images : sequence of str or path
        Files, URLs of images, paths into archives, or paths as the cache has them. What it holds is not embedded again.
    k : int, default=9
    layer : str, optional
        ``avg_pool``, or the only one, by default.

    Raises
    ------
    DataError
        An image is not there or cannot be decoded, or rows were imported and the image is none of them.
    """
    if k < 1:
        raise UsageError(f"At least one neighbour is asked for, received {k}.")
    name = choose_layers(cache, layer)[0]
    table = cache.table
    known = cache.known(name)
    places: dict[str, list[int]] = {}
    for i, key in enumerate(table.keys):
        if table.status[i] == "ok" and key in known:
            places.setdefault(key, []).append(i)
    if not places:
        raise DataError(f"{cache.path} holds no images of the layer {name}. Run tlfeat extract again.")
    by_path = dict(zip(table.images.paths, table.keys, strict=True))
    keys = [_key_of(os.fspath(image), by_path) for image in images]
    rows = _rows_of(cache, name, images, keys, on_progress)
    every = list(places)
    everything = StoredRows(cache, [name], [every[i] for i in in_file_order(cache, name, every)])
    distances = _distances(everything, rows)
    found = []
    for image, key, (near, far) in zip(images, keys, _nearest(distances, everything.keys, keys, k), strict=True):
        neighbours = []
        for other, distance in zip(near, far, strict=True):
            first, *copies = places[other]
            of = table.images
            neighbours.append(
                Neighbour(of.paths[first], of.labels[first], of.splits[first], other, len(copies), distance)
            )
        known_as = [table.images.paths[i] for i in places.get(key, [])]
        found.append(Similar(str(image), known_as, neighbours))
    home = None if origin(cache) is Origin.IMPORTED else table.images.home
    shown = snippets(cache, [neighbour.key for one in found for neighbour in one.neighbours])
    return Search(cache.path, name, home, sum(map(len, places.values())), found, shown)


def _key_of(image: str, by_path: dict[str, str]) -> str:
    """Return the content key of an image that a user named, or of the one that has this path in the cache."""
    try:
        return content_key(read_picture(named_image(image)))
    except DataError as error:
        if key := by_path.get(image, "") or by_path.get(Path(image).as_posix(), ""):
            return key
        if isinstance(error, BadImage):
            raise DataError(f"{image}: {error}. It is no image of the cache either.") from error
        raise


def _rows_of(cache: Cache, layer: str, images: Sequence[StrPath], keys: Sequence[str], on_progress: OnProgress) -> Rows:
    """Return the rows of images: those of the cache, and those of the others live."""
    known = cache.known(layer)
    new = {key: image for image, key in zip(images, keys, strict=True) if key not in known}
    if not new:
        return cache.read(layer, keys)
    live = embed_pictures(
        ((str(image), named_image(image)) for image in new.values()), encoder_of(cache, layer), on_progress=on_progress
    )
    row_of = dict(zip(new, live, strict=True))
    return np.stack([row_of[key] if key in row_of else cache.read(layer, [key])[0] for key in keys])


def _distances(rows: StoredRows, asked: Rows) -> Floats:
    """Return cosine distances after centring, of shape (n_asked, n_rows); rows are read block by block, twice."""
    n = rows.shape[0]
    mean = np.sum([block.sum(axis=0, dtype=np.float64) for _, block in _blocks(rows)], axis=0) / n  # (width,)
    wanted = _scaled(asked - mean)
    found = np.empty((len(asked), n))
    for start, block in _blocks(rows):
        found[:, start : start + len(block)] = 1 - wanted @ _scaled(block - mean).T
    return np.maximum(found, 0)


def _blocks(rows: StoredRows) -> Iterator[tuple[int, Rows]]:
    for start in range(0, rows.shape[0], _BLOCK):
        yield start, rows[start : start + _BLOCK]


def _scaled(rows: Any) -> Any:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _nearest(
    distances: Floats, known: Sequence[str], asked: Sequence[str], k: int
) -> Iterator[tuple[list[str], list[float]]]:
    """Give keys and distances of the nearest of each image, itself left out; equal distances in the order of keys."""
    for row, own in zip(distances, asked, strict=True):
        near = sorted((round(float(row[i]), 6), known[i]) for i in np.argsort(row, kind="stable")[: k + 1])
        kept = [(distance, key) for distance, key in near if key != own][:k]
        yield [key for _, key in kept], [distance for distance, _ in kept]
