"""Small grey pictures without their coarse light and shade, and how well two of them fit over each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from tlfeat.images.decode import Picture, decode_all, decode_bytes, image_size, n_reads_of, read_picture
from tlfeat.types import OnProgress, silent

#: Side in pixels at which pictures are decoded.
DECODED_SIDE = 56

#: Sides in pixels of the maps that are laid over each other: whole, and cropped to 98, 96, ... 91 %.
FINE = (48, 49, 50, 51, 52, 53)

#: The same, coarser: what these keep apart the fine ones need not compare.
HALF = (24, 25, 26)
COARSE = (16, 17)

#: Bytes of the windows that are looked at together: they fit into the cache of a processor.
_WINDOW_BYTES = 2_000_000

#: Pictures whose maps are made together.
_BLOCK = 1024

Grey = npt.NDArray[np.float32]
Sums = npt.NDArray[np.uint16]
Pairs = npt.NDArray[np.int64]


class Pictures:
    """The pictures of a set, small and grey; each is decoded once, when it is first wanted.

    Parameters
    ----------
    files : sequence of Path or callable
    on_progress : callable
    """

    def __init__(self, files: Sequence[Picture], on_progress: OnProgress = silent) -> None:
        self._files = files
        self._on_progress = on_progress
        self._sums: dict[int, Sums | None] = {}  # of red, green and blue: half the bytes of a mean
        self._whole: dict[int, tuple[int, int]] = {}

    @property
    def n_gone(self) -> int:
        """How many of those that were wanted could not be read."""
        return sum(sums is None for sums in self._sums.values())

    def read(self, pairs: Pairs) -> Pairs:
        """Decode the pictures of pairs, shape (n, 2), and return those of which both are there."""
        new = [i for i in np.unique(pairs).tolist() if i not in self._sums]
        files = ((i, self._files[i]) for i in new)
        small = decode_all(files, (DECODED_SIDE, DECODED_SIDE), n_reads=n_reads_of(self._files))
        for n, decoded in enumerate(small, start=1):
            pixels = decoded.pixels
            self._sums[decoded.i] = None if pixels is None else pixels.sum(axis=2, dtype=np.uint16)
            self._on_progress("comparing pictures", n, len(new))
        is_there = [self._sums[a] is not None and self._sums[b] is not None for a, b in pairs.tolist()]
        known: Pairs = pairs[np.array(is_there, dtype=bool)]
        return known

    def are_equal(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Return which pairs are the same when small and grey."""
        return np.array([np.array_equal(self._small(a), self._small(b)) for a, b in pairs.tolist()], dtype=bool)

    def correlations(self, pairs: Pairs, sides: Sequence[int]) -> Grey:
        """Return the highest correlation of each pair over mirrors, small crops and their places, shape (n,).

        A picture without outlines correlates with nothing.
        """
        found = np.zeros(len(pairs), np.float32)
        n_places = (sides[-1] - sides[0] + 1) ** 2
        step = max(1, _WINDOW_BYTES // (4 * n_places * sides[0] ** 2))
        for start in range(0, len(pairs), _BLOCK):
            part = pairs[start : start + _BLOCK]
            members, at = np.unique(part, return_inverse=True)
            greys: Grey = np.stack([self._small(i) for i in members.tolist()]).astype(np.float32) / np.float32(3)
            maps = [_flattened(greys, side) for side in sides]
            at = at.reshape(-1, 2)
            for block in range(0, len(part), step):
                one, other = ([map_[at[block : block + step, k]] for map_ in maps] for k in (0, 1))
                found[start + block : start + block + len(one[0])] = np.maximum(_best(one, other), _best(other, one))
        return found

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of a whole picture."""
        return image_size(read_picture(self._files[i]))

    def have_equal_pixels(self, one: int, other: int) -> bool:
        """Return whether two pictures are the same pixel by pixel, however they are stored."""
        return self.size(one) == self.size(other) and self._pixel_key(one) == self._pixel_key(other)

    def _small(self, i: int) -> Sums:
        sums = self._sums[i]
        assert sums is not None
        return sums

    @cache  # noqa: B019
    def _pixel_key(self, i: int) -> bytes:
        pixels = decode_bytes(read_picture(self._files[i]), None)
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _best(one: list[Grey], other: list[Grey]) -> Grey:
    """Lay each picture of the smallest map of `one`, mirrored too, over every window of all maps of `other`."""
    n, side, _ = one[0].shape
    both = np.stack([one[0], one[0][:, :, ::-1]], axis=1).reshape(n, 2, -1)
    best = np.full(n, -1, np.float32)
    for map_ in other:
        windows = np.lib.stride_tricks.sliding_window_view(map_, (side, side), axis=(1, 2))
        flat = windows.reshape(n, -1, side * side)  # (n, places, side * side)
        lengths = np.maximum(np.sqrt(np.einsum("npi,npi->np", flat, flat)), 1e-6)
        products = both @ flat.transpose(0, 2, 1) / lengths[:, None]  # (n, 2, places)
        best = np.maximum(best, products.max(axis=(1, 2)))
    return best


def _flattened(greys: Grey, side: int) -> Grey:
    """Resize (n, s, s) to (n, side, side), take away what is coarser than a sixteenth, and scale to length 1.

    Light and shade of a whole picture are what different pictures of one scene share; its outlines are its own.
    A picture without outlines becomes 0.
    """
    sharp, blurred = _weights(greys.shape[-1], side, 0.0), _weights(greys.shape[-1], side, side / 16)
    maps = sharp @ greys @ sharp.T - blurred @ greys @ blurred.T  # (n, side, side)
    lengths = np.linalg.norm(maps, axis=(1, 2), keepdims=True)
    result: Grey = np.where(lengths > 0.5 * side, maps / np.maximum(lengths, 1e-6), 0)  # half a grey level a pixel
    return result


@cache
def _weights(n_from: int, n_to: int, blur: float) -> Grey:
    """Return the (n_to, n_from) matrix that resizes one side linearly, then blurs by a Gaussian of `blur` pixels."""
    step = n_from / n_to
    centres = (np.arange(n_to) + 0.5) * step - 0.5
    distance = np.abs(np.arange(n_from)[None] - centres[:, None])  # (n_to, n_from)
    weights = np.maximum(1 - distance / max(step, 1.0), 0)
    if blur:
        weights = np.exp(-0.5 * (distance / (blur * step)) ** 2)
    normal: Grey = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal
