"""Embeddings as a step of a scikit-learn pipeline: image paths in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from tlfeat.backbones.encoder import Encoder, PixelEncoder, embedding_name
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.extract.embed import embed_files
from tlfeat.images.decode import Decoded, read_file
from tlfeat.images.image_set import content_key
from tlfeat.types import Rows


class ImageEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transform image paths into rows, from a cache where they are there and live where not.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        As ``--backbone``; "pixels" is the raw-pixel baseline.
    layer : str, default="avg_pool"
    weights : str, default="imagenet"
    preprocess : str or None, default=None
    input_size : tuple of int or None, default=None
    cache : path or None, default=None
        A cache of the same fingerprint. Rows that it has are read; it is not written to.
    batch_size : int, default=32

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(ImageEmbedder("pixels"), LogisticRegression())
    >>> model.fit(paths, labels).predict(paths[:1])  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        layer: str = "avg_pool",
        weights: str = "imagenet",
        preprocess: str | None = None,
        input_size: tuple[int, int] | None = None,
        cache: str | Path | None = None,
        batch_size: int = 32,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.weights = weights
        self.preprocess = preprocess
        self.input_size = input_size
        self.cache = cache
        self.batch_size = batch_size

    def fit(self, X: Sequence[str | Path], y: Any = None) -> Self:
        """Build the encoder; a frozen backbone learns nothing from `X`."""
        self._make_encoder()
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Sequence[str | Path]) -> Rows:
        """Return float32 rows of shape (n_images, width).

        Raises
        ------
        DataError
            An image cannot be decoded: a pipeline has no place for a row that is missing.
        FingerprintError
            The cache was made by another encoder.
        """
        files = [Path(x) for x in X]
        encoder = self._make_encoder()
        name = encoder.layers[0]
        if self.cache is None:
            return self._embed(encoder, name, files)
        with open_cache(Path(self.cache), fingerprint=encoder.fingerprint) as cache:
            keys = [content_key(read_file(file)) for file in files]
            known = cache.known(name)
            is_known = np.array([key in known for key in keys], dtype=bool)
            found = cache.read(name, [key for key, is_there in zip(keys, is_known, strict=True) if is_there])
        if is_known.all():
            return found
        live = self._embed(encoder, name, [f for f, is_there in zip(files, is_known, strict=True) if not is_there])
        rows = np.empty((len(files), live.shape[1]), dtype=np.float32)
        rows[~is_known] = live
        if is_known.any():
            rows[is_known] = found
        return rows

    def _make_encoder(self) -> Encoder:
        settings = (
            self.backbone,
            self.layer,
            self.weights,
            self.preprocess,
            self.input_size,
            self.batch_size,
        )
        if getattr(self, "_made_for", None) != settings:
            if self.backbone == "pixels":
                self._encoder: Encoder = PixelEncoder()
            else:
                spec = BackboneSpec(self.backbone, self.weights, self.input_size, self.preprocess)
                self._encoder = KerasEncoder(spec, [embedding_name(self.layer)], batch_size=self.batch_size)
            self._made_for = settings
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_encoder", "_made_for")}  # a graph cannot be pickled

    def _embed(self, encoder: Encoder, name: str, files: list[Path]) -> Rows:
        blocks = [
            batch.rows[name] for batch in embed_files(enumerate(files), encoder, is_wanted=_must_be_readable(files))
        ]
        if not blocks:
            raise DataError("There is no image to embed.")
        return np.concatenate(blocks)


def _must_be_readable(files: Sequence[Path]) -> Callable[[Decoded], bool]:
    def is_wanted(decoded: Decoded) -> bool:
        if decoded.pixels is None:
            raise DataError(f"{files[decoded.i]}: {decoded.error}.")
        return True

    return is_wanted
