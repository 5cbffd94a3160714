"""The `Encoder` protocol and `PixelEncoder`, the numpy-only baseline.

``extract`` takes anything with this protocol and never sees Keras. `PixelEncoder` is a product, not a mock: it
answers "does the backbone beat raw pixels?" in every comparison, and stands in for a network in tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tlfeat.errors import ShapeError, UsageError, nearest
from tlfeat.images.resizing import RESIZE
from tlfeat.types import OnProgress, Pixels, Rows, silent


@runtime_checkable
class Encoder(Protocol):
    """Turns pixels into rows at one or several layers, in a single forward pass.

    An encoder of something else than pictures has a method `decode` besides, from the bytes of one item to what
    `encode` takes a list of (`text_encoder.TextEncoder`); its `input_size` and `resize` say nothing.
    """

    @property
    def name(self) -> str:
        """A short name for files and tables."""

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that changes the numbers in a row, but the layer; JSON values only."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def layers(self) -> Sequence[str]:
        """The embeddings that `encode` returns, by name."""

    @property
    def resize(self) -> str:
        """How pictures are resized: one of `resizing.RESIZES`."""

    @property
    def batch_size(self) -> int:
        """Images that `encode` is given at once, at most."""

    @property
    def is_parallel(self) -> bool:
        """Whether several threads may call `encode` at once, each call keeping one core busy; after `prepare`."""

    @property
    def runtime(self) -> str:
        """What computes the rows, with its version, for the record; after `prepare`."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of how it runs."""

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Do whatever is slow (build the model, load weights); called once, and only if rows are missing."""

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        """Embed one batch at every layer in a single forward pass.

        Parameters
        ----------
        pixels : array of shape (n_images, height, width, 3)
            RGB, 0 to 255, at `input_size`, as `decode.decode_bytes` gives them. Not modified.

        Returns
        -------
        dict of layer name to float32 array of shape (n_images, width_of_layer)
            Row i belongs to ``pixels[i]``.

        Raises
        ------
        ShapeError
            The batch is not (n, height, width, 3) at the expected size.
        """


def check_pixels(pixels: Pixels, input_size: tuple[int, int], dtype: str = "uint8") -> None:
    """Raise `ShapeError` unless `pixels` is of that type and of shape (n, height, width, 3)."""
    expected = (*input_size, 3)
    if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != dtype:
        raise ShapeError(
            f"Expected {dtype} pixels of shape (n, {', '.join(map(str, expected))}), "
            f"received {pixels.dtype} {pixels.shape}."
        )


class PixelEncoder:
    """The picture itself as its embedding: every pixel of a small copy, scaled to [0, 1].

    Parameters
    ----------
    input_size : tuple of int, default=(16, 16)
        Height and width in pixels. 16x16x3 is 768 columns, about the width of a pooled backbone, so that the
        baseline is not favoured or hurt by its number of columns.
    """

    name = "pixels"
    layers = ("pixels",)
    resize = RESIZE
    batch_size = 32
    is_parallel = True
    runtime = "numpy"
    notes = ()

    def __init__(self, input_size: tuple[int, int] = (16, 16)) -> None:
        self.input_size = input_size

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "backbone": self.name,
            "weights": "none",
            "input_size": list(self.input_size),
            "preprocess": "0-1",
            "resize": self.resize,
            "dtype": "float32",
        }

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Nothing is slow here."""

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        check_pixels(pixels, self.input_size)
        return {"pixels": pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)}  # (n, h*w*3)


def embedding_name(layer: str, pool: str | None = None) -> str:
    """Return the name under which an embedding stands in the cache.

    A layer's plain name means its vector, or the average over its map; ``NAME:max`` and so on are other poolings.
    """
    layer, _, inline = layer.partition(":")
    pool = inline or pool or "avg"
    return layer if pool == "avg" else f"{layer}:{pool}"


def resolve_embedding(wanted: str, available: Sequence[str]) -> str:
    """Return the one embedding that `wanted` names: exactly, or by its layer where that is unique.

    Raises
    ------
    UsageError
        None or several fit; the message lists them.
    """
    if wanted in available:
        return wanted
    by_layer = [name for name in available if name.partition(":")[0] == wanted]
    if len(by_layer) == 1:
        return by_layer[0]
    if by_layer:
        raise UsageError(f"Layer '{wanted}' is there with several poolings: {', '.join(by_layer)}. Name one.")
    raise UsageError(
        f"No layer '{wanted}' in this cache. {nearest(wanted, list(available), of='layers')} "
        f"tlfeat extract DATA --layer NAME adds another."
    )
