"""A few pictures of a set, drawn at random, to try a network on before all go through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import process_time

import numpy as np

from tlfeat.backbones.encoder import Encoder
from tlfeat.images.decode import decode_all
from tlfeat.images.image_set import ImageSet
from tlfeat.types import Pixels, Rows


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures as a network takes them, each of shape (height, width, 3), with what is known of them."""

    pixels: list[Pixels]
    keys: list[str]
    paths: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Sample:
        """Return pictures `start` to `stop`."""
        some = slice(start, stop)
        return Sample(self.pixels[some], self.keys[some], self.paths[some], self.labels[some])


def draw_sample(images: ImageSet, encoder: Encoder, n: int, seed: int = 0) -> Sample:
    """Return up to `n` different pictures in a random order; those that cannot be read are passed over.

    Where the set says which of its images are for training, they are among these.
    """
    for_training = [i for i, split in enumerate(images.splits) if split not in ("test", "val")]
    order = np.random.default_rng(seed).permutation(for_training or len(images))
    return _read(images, encoder, map(int, order), n)


def named_sample(images: ImageSet, encoder: Encoder, paths: Sequence[str]) -> Sample:
    """Return the pictures with these paths, in their order, as far as they are in the set and can be read."""
    at = {path: i for i, path in enumerate(images.paths)}
    return _read(images, encoder, (at[path] for path in paths if path in at), len(paths))


def _read(images: ImageSet, encoder: Encoder, order: Iterable[int], n: int) -> Sample:
    sample = Sample([], [], [], [])
    seen: set[str] = set()
    n_reads = images.store.n_ahead if images.store is not None else 0
    pictures = ((i, images.content(i)) for i in order)
    decoded_all = decode_all(pictures, encoder.input_size, resize=encoder.resize, n_reads=n_reads)
    for decoded in decoded_all:
        if decoded.pixels is not None and decoded.key not in seen:
            seen.add(decoded.key)
            sample.pixels.append(decoded.pixels)
            sample.keys.append(decoded.key)
            sample.paths.append(images.paths[decoded.i])
            sample.labels.append(images.labels[decoded.i])
        if len(sample) == n:
            break
    decoded_all.close()
    return sample


def rows_of_sample(encoder: Encoder, pixels: Sequence[Pixels]) -> tuple[dict[str, Rows], float]:
    """Return the rows of pictures, (n, width) for each layer, and the processor seconds that one of them took."""
    encoder.prepare()
    step = min(8, encoder.batch_size)
    batches = [np.stack(pixels[start : start + step]) for start in range(0, len(pixels), step)]
    started_s = process_time()
    with ThreadPoolExecutor(getattr(encoder, "n_threads", 1) if encoder.is_parallel else 1) as pool:
        parts = list(pool.map(encoder.encode, batches))
    spent_s = (process_time() - started_s) / max(len(pixels), 1)
    return {layer: np.concatenate([part[layer] for part in parts]) for layer in encoder.layers}, spent_s
