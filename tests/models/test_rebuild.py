"""The encoder behind a saved model is built again as it was, or the model is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.errors import ModelError
from tlfeat.models.rebuild import rebuild_encoder
from tlfeat.models.saved import ModelInfo

SPEC = BackboneSpec("mobilenet_v2_0.35", "random", (48, 40), "0-1", seed=11)


def info_of(fingerprint: dict[str, Any], encoder: dict[str, Any], layer: str = "out_relu:max+avg_pool") -> ModelInfo:
    return ModelInfo("head", layer, ["a", "b"], fingerprint, encoder, None)


def test_an_encoder_that_differs_from_the_usual_in_everything_is_built_again() -> None:
    encoder = KerasEncoder(SPEC, ["out_relu:max", "avg_pool"], resize="dataset", dtype="float16")
    again = rebuild_encoder(Path("m"), info_of(encoder.fingerprint, SPEC.to_dict()))
    assert again.fingerprint == encoder.fingerprint
    assert tuple(again.layers) == encoder.layers


@pytest.mark.parametrize("changed", ["backbone", "weights", "input_size", "preprocess"])
def test_an_encoder_that_gives_other_rows_is_refused_by_what_differs(changed: str) -> None:
    fingerprint = {**KerasEncoder(SPEC, ["avg_pool"]).fingerprint, changed: "another"}
    with pytest.raises(ModelError, match=rf"m cannot be used: .*\({changed}: fitted with 'another', here "):
        rebuild_encoder(Path("m"), info_of(fingerprint, SPEC.to_dict()))


def test_raw_pixels_are_built_again_and_imported_rows_cannot_be() -> None:
    pixels = PixelEncoder()
    again = rebuild_encoder(Path("m"), info_of(pixels.fingerprint, {"backbone": "pixels"}, "pixels"))
    assert isinstance(again, PixelEncoder)
    with pytest.raises(ModelError, match="imported rows"):
        rebuild_encoder(Path("m"), info_of({"backbone": "mine"}, {"backbone": "imported"}, "rows"))
