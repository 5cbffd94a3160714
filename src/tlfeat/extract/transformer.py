"""Embeddings as a step of a scikit-learn pipeline: images in, rows out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from tlfeat.backbones.encoder import Encoder
from tlfeat.backbones.model_encoder import is_keras_model, model_digest
from tlfeat.cache.store import open_cache
from tlfeat.extract.arrays import embed_pictures
from tlfeat.extract.encoders import make_encoder
from tlfeat.images.pictures import pictures_of
from tlfeat.images.resizing import pixel_type
from tlfeat.types import Rows


class ImageEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transform images into rows, from a cache where they are there and live where not.

    Parameters
    ----------
    backbone : str, path, keras.Model or Encoder, default="mobilenet_v2"
        As ``--backbone``; "pixels" is the raw-pixel baseline.
    layer : str, default="avg_pool"
    weights : str, default="imagenet"
    preprocess : str, callable or None, default=None
        See `embed`; required for a Keras model.
    input_size : tuple of int or None, default=None
    cache : path or None, default=None
        A cache of the same fingerprint. Rows that it has are read; it is not written to.
    batch_size : int, default=32

    Attributes
    ----------
    n_features_out_ : int
        Width of the rows.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(ImageEmbedder("pixels"), LogisticRegression())
    >>> model.fit(paths, labels).predict(paths[:1])  # doctest: +SKIP
    """

    _width: int | None

    def __init__(
        self,
        backbone: Any = "mobilenet_v2",
        layer: str = "avg_pool",
        weights: str = "imagenet",
        preprocess: str | Callable[[Any], Any] | None = None,
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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Build the encoder; a frozen backbone learns nothing from `X`."""
        if hasattr(X, "tocsr"):
            raise TypeError("Expected images: a sparse matrix is not supported.")  # as scikit-learn's own do
        self._make_encoder()
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []  # rows are float32, whatever the images are
        tags.no_validation = True  # images are no table of numbers, so there is no number of columns to hold them to
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = True
        return tags

    def transform(self, X: Any) -> Rows:
        """Return float32 rows of shape (n_images, width).

        Parameters
        ----------
        X
            Images as `embed` takes them: paths, bytes, PIL images, arrays of pixels.

        Raises
        ------
        DataError
            An image cannot be decoded: a pipeline has no place for a row that is missing.
        FingerprintError
            The cache was made by another encoder.
        """
        encoder = self._make_encoder()
        if self.cache is None:
            return embed_pictures(pictures_of(X), encoder)
        with open_cache(self.cache, fingerprint=encoder.fingerprint) as cache:
            return embed_pictures(pictures_of(X), encoder, cache)

    @property
    def n_features_out_(self) -> int:
        encoder = self._make_encoder()
        width: int | None = self._width
        if width is None:
            blank = np.zeros((1, *encoder.input_size, 3), pixel_type(encoder.resize))
            self._width = width = encoder.encode(blank)[encoder.layers[0]].shape[1]
        return width

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Return a name for each column, such as "avg_pool_0"; `input_features` is passed over, as images have none."""
        name = self._make_encoder().layers[0]
        return np.array([f"{name}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def _make_encoder(self) -> Encoder:
        settings = (
            model_digest(self.backbone) if is_keras_model(self.backbone) else self.backbone,
            self.layer,
            self.weights,
            self.preprocess,
            self.input_size,
            self.batch_size,
        )
        if getattr(self, "_made_for", None) != settings:
            self._encoder = make_encoder(
                self.backbone,
                [self.layer],
                weights=self.weights,
                preprocess=self.preprocess,
                input_size=self.input_size,
                batch_size=self.batch_size,
            )
            self._made_for = settings
            self._width = None
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_encoder", "_made_for")}  # a graph cannot be pickled
