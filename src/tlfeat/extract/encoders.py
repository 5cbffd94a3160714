"""What Python names as a backbone becomes an encoder: a name, a file, a Keras model, or an encoder already."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from tlfeat.backbones.encoder import Encoder, PixelEncoder, embedding_name
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.model_encoder import ModelEncoder, is_keras_model, mode_of
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.precision import FLOAT32
from tlfeat.backbones.text_catalog import is_text_backbone
from tlfeat.backbones.text_encoder import TextEncoder, TextSpec, check_text_options
from tlfeat.cache.contents import Origin, origin, spec_of
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError, FingerprintError, UsageError


def make_encoder(
    backbone: Any,
    layers: Sequence[str] = ("avg_pool",),
    *,
    weights: str = "imagenet",
    preprocess: str | Callable[[Any], Any] | None = None,
    input_size: tuple[int, int] | None = None,
    **options: Any,
) -> Encoder:
    """Return the encoder for a backbone.

    Parameters
    ----------
    backbone : str, path, keras.Model, BackboneSpec or Encoder
        As ``--backbone``; "pixels" is the raw-pixel baseline.
    layers : sequence of str
        An encoder has its own.
    weights, input_size
        See `BackboneSpec`; of a name or a file.
    preprocess : str or callable, optional
        One of the modes, or a function that does the same, such as ``preprocess_input`` of ``keras.applications``.
    **options
        Of `KerasEncoder`.
    """
    if isinstance(backbone, str | os.PathLike):
        if backbone == "pixels":
            return PixelEncoder()
        if is_text_backbone(backbone):
            check_text_options({"backbone": backbone, "preprocess": preprocess, "input_size": input_size, **options})
            return TextEncoder(TextSpec(str(backbone), weights), layers, **options)
        mode = preprocess if preprocess is None else mode_of(preprocess)
        backbone = BackboneSpec(os.fspath(backbone), weights, input_size, mode)
    if isinstance(backbone, BackboneSpec):
        return KerasEncoder(backbone, [*map(backbone.embedding_name, layers)], **options)
    names = [embedding_name(layer) for layer in layers]
    if is_keras_model(backbone):
        return ModelEncoder(backbone, names, preprocess=preprocess, input_size=input_size, **options)
    if callable(getattr(backbone, "encode", None)):  # isinstance() would ask it for its runtime, and so build it
        return backbone  # type: ignore[no-any-return]
    raise UsageError(
        f"backbone= is a name from tlfeat backbones, a file, a Keras model or an encoder, received "
        f"{type(backbone).__name__}."
    )


def encoder_of(cache: Cache, layer: str) -> Encoder:
    """Return the encoder that made the rows of a layer, for new images.

    Raises
    ------
    DataError
        The rows were imported, or made by an encoder that was passed in from Python.
    FingerprintError
        What can be built here gives other rows: other weights, for one.
    """
    made_by, held = origin(cache), cache.fingerprint
    if made_by is Origin.PIXELS:
        encoder: Encoder = PixelEncoder()
    elif made_by is Origin.KERAS:
        encoder = KerasEncoder(
            spec_of(cache),
            [layer],
            resize=held["resize"],
            dtype=held["dtype"],
            precision=held.get("precision", FLOAT32),
            batch_size=8,
        )
    elif made_by is Origin.TEXT:
        encoder = TextEncoder(TextSpec.from_dict(cache.source["encoder"]), [layer], dtype=held["dtype"])
    else:
        raise DataError(
            f"{cache.path} does not say what made its rows: new images cannot be embedded, only its own can be named."
        )
    if differing := [name for name in held if held[name] != encoder.fingerprint.get(name)]:
        raise FingerprintError(
            f"New images would get other rows than {cache.path} holds; differing: {', '.join(differing)}."
        )
    return encoder
