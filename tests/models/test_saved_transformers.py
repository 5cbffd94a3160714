"""Vision transformers as files: what KerasHub's layers say of themselves is enough to build them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_transformers import tiny_network
from tlfeat.backbones import hub
from tlfeat.backbones.hub_catalog import FAMILIES
from tlfeat.backbones.hub_mends import _SwinOps
from tlfeat.backbones.network import import_keras
from tlfeat.finetune.saved import load_model, save_model
from tlfeat.models import formats
from tlfeat.models.formats import find_format

pytestmark = pytest.mark.keras


@pytest.mark.sample("vit", "dinov3", "siglip")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_transformer_gives_the_same_rows(family: str, tmp_path: Path) -> None:
    """DINOv3's angles are constants of its blocks' calls, which config.json holds."""
    net, side = tiny_network(family)
    model = hub._flat(import_keras(), FAMILIES[family], net, (side, side))
    pixels = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    expected = np.asarray(model(pixels))
    assert expected.std(axis=0).max() > 0.01
    save_model(model, tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(load_model(tmp_path / "m.keras")(pixels)), expected)


def test_swin_rolls_as_numpy_does() -> None:
    pytest.importorskip("keras_hub", reason="vision transformers come with tlfeat[hub]")
    maps = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype(np.float32)
    for shift in ((-2, 1), (0, -3), (3, 0)):
        np.testing.assert_array_equal(_SwinOps().roll(maps, shift, (1, 2)), np.roll(maps, shift, (1, 2)))


def test_onnx_takes_the_exact_gelu_of_transformers(tmp_path: Path) -> None:
    keras = import_keras()
    inputs = keras.Input((8, 8, 3), name="pixels")
    dense = keras.layers.Dense(4, activation="gelu")(keras.layers.Flatten()(inputs / 255.0))
    network = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(dense))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.float32)
    run = formats.write(network, find_format("onnx"), ["a", "b", "c"], tmp_path / "m.onnx")
    np.testing.assert_allclose(run(pixels)[1], np.asarray(network(pixels)), atol=1e-5)
