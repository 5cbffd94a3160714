"""Chunks of datasets in a file that may be anybody's: all there, each as large as it should be, none twice."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.errors import CacheDamaged

#: Deflate shrinks at most 1,032 times: what declares more than that is not there.
_MAX_SHRINKING = 1100

#: A compressed chunk may inflate to 1,032 times its size whatever it declares; those above this are tried first.
_TRIED_CHUNK_BYTES = 1 << 20

#: What an HDF5 file begins with; no chunk lies there.
_SUPERBLOCK_BYTES = 48


class Chunks:
    """Whether the chunks of datasets are all there, each the size that it should have, none twice."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.n_bytes_left = file.id.get_filesize()

    def check(self, dataset: h5py.Dataset, known_filters: tuple[int, ...]) -> None:
        """Raise `CacheDamaged` where chunks of a dataset are missing or are not what they should be."""
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        chunk_bytes = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
        most = chunk_bytes + chunk_bytes // 100 + 1024 if filters else chunk_bytes
        if not set(filters) <= set(known_filters):
            raise CacheDamaged(f"{self.path}: {dataset.name} has a filter that no tlfeat uses.")
        chunks: list[Any] = []
        dataset.id.chunk_iter(chunks.append)  # None goes on; nothing else may be called for each of millions
        sizes = np.array([chunk.size for chunk in chunks], np.int64)
        is_right = (sizes <= most) & (most < _MAX_SHRINKING * sizes) if filters else sizes == most
        is_right &= (
            np.array([chunk.byte_offset for chunk in chunks], np.uint64) >= _SUPERBLOCK_BYTES
        )  # repair writes it
        if not is_right.all() or any(chunk.filter_mask for chunk in chunks):
            raise CacheDamaged(f"{self.path}: {dataset.name} has a chunk of another size than it declares.")
        self.n_bytes_left -= int(sizes.sum())
        places = np.array([chunk.chunk_offset for chunk in chunks], np.uint64).reshape(-1, dataset.ndim)
        n_there, n_expected = _count_places(places, dataset.shape, dataset.chunks)
        if n_there < n_expected or self.n_bytes_left < 0:
            raise CacheDamaged(f"{self.path}: {dataset.name} declares more than it stores.")
        is_tried = (sizes > _TRIED_CHUNK_BYTES) & (h5py.h5z.FILTER_DEFLATE in filters)
        for place in (chunks[i].chunk_offset for i in np.flatnonzero(is_tried)):
            _, raw = dataset.id.read_direct_chunk(place)
            if len(zlib.decompressobj().decompress(raw, chunk_bytes + 5)) > chunk_bytes + 4:
                raise CacheDamaged(f"{self.path}: {dataset.name} has a chunk of another size than it declares.")


def _count_places(places: npt.NDArray[np.uint64], shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, int]:
    """Return how many chunks of a dataset are there, each place once and inside alone, and how many there should be."""
    steps = np.array(chunks, np.uint64)
    is_inside = ((places < np.array(shape, np.uint64)) & (places % steps == 0)).all(axis=1)
    counts = [-(-n // step) for n, step in zip(shape, chunks, strict=True)]
    numbers = np.zeros(int(is_inside.sum()), np.int64)
    for along, count in zip((places[is_inside] // steps).T.astype(np.int64), counts, strict=True):
        numbers = numbers * count + along
    return len(np.unique(numbers)), int(np.prod(counts, dtype=object))
