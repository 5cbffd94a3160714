"""The encoder that a saved model was fitted behind is built again."""

from __future__ import annotations

from pathlib import Path

from tlfeat.backbones.encoder import Encoder, PixelEncoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.precision import FLOAT32, check_written
from tlfeat.backbones.text_encoder import TextEncoder, TextSpec
from tlfeat.backbones.words import WordsEncoder
from tlfeat.cache.contents import Origin, origin_of
from tlfeat.errors import DataError, ModelError, UsageError, WeightsError
from tlfeat.images.resizing import RESIZES
from tlfeat.models.network_copy import NETWORK_FILE
from tlfeat.models.saved import ModelInfo
from tlfeat.records import layers_of
from tlfeat.types import ROW_TYPES

#: One forward pass of 8 pictures costs little more than one of a single picture.
BATCH_SIZE = 8


def rebuild_encoder(folder: Path, info: ModelInfo) -> Encoder:
    """Build the encoder that the model was fitted behind, or refuse: other rows would give confident nonsense."""
    encoder = _build(folder, info)
    here, there = dict(encoder.fingerprint), info.fingerprint
    if here != there:
        differing = [
            f"{name}: fitted with {there.get(name)!r}, here {here.get(name)!r}"
            for name in sorted({*here, *there})
            if here.get(name) != there.get(name)
        ]
        raise ModelError(f"{folder} cannot be used: its encoder cannot be rebuilt ({'; '.join(differing)}).")
    return encoder


def _build(folder: Path, info: ModelInfo) -> Encoder:
    found = origin_of(info.encoder)
    if found is Origin.PIXELS:
        return PixelEncoder()
    if found is Origin.KERAS:
        resize, dtype = info.fingerprint.get("resize"), info.fingerprint.get("dtype")
        precision = str(info.fingerprint.get("precision", FLOAT32))
        try:
            spec = BackboneSpec.from_dict(info.encoder)
            check_written(precision)
        except (DataError, UsageError) as error:
            raise ModelError(f"{folder} cannot be used: {error}") from error
        if resize not in RESIZES or dtype not in ROW_TYPES:
            raise ModelError(f"{folder} cannot be used: its fingerprint says resize {resize!r}, dtype {dtype!r}.")
        return KerasEncoder(
            spec,
            layers_of(info.layer),
            resize=resize,
            dtype=dtype,
            precision=precision,
            network=network if (network := folder / NETWORK_FILE).exists() else None,
            batch_size=BATCH_SIZE,
        )
    if found is Origin.TFIDF:
        return WordsEncoder()
    if found is Origin.TEXT:
        try:
            text = TextSpec.from_dict(info.encoder)
            return TextEncoder(text, layers_of(info.layer), dtype=str(info.fingerprint.get("dtype")))
        except (UsageError, WeightsError) as error:
            raise ModelError(f"{folder} cannot be used: {error}") from error
    raise ModelError(
        f"{folder} was fitted on imported rows: tlfeat does not have the encoder that made them and cannot embed new "
        f"images."
    )
