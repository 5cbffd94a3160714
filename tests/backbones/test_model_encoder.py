"""A Keras model in memory is a backbone, and stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlfeat
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.model_encoder import ModelEncoder, mode_of
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.preprocess import PREPROCESS, preprocess
from tlfeat.errors import UsageError

pytestmark = pytest.mark.keras

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(small_network: Path) -> Any:
    return import_keras().models.load_model(small_network)


def test_rows_are_those_of_the_model_file(model: Any, small_network: Path) -> None:
    layers = ["avg_pool", "block2_relu:max"]
    of_file = KerasEncoder(BackboneSpec(str(small_network), preprocess="tf"), layers, runtime="tensorflow")
    of_model = ModelEncoder(model, layers, preprocess="tf", runtime="tensorflow")
    expected, found = of_file.encode(PIXELS), of_model.encode(PIXELS)
    for layer in layers:
        assert found[layer].tobytes() == expected[layer].tobytes()
    differing = {name for name, value in of_file.fingerprint.items() if of_model.fingerprint[name] != value}
    assert differing == {"weights"}


def test_embed_takes_a_model_and_a_function_for_its_pixels(model: Any) -> None:
    rows = tlfeat.embed(PIXELS, model, layer="block2_relu", preprocess=lambda x: x / 127.5 - 1, runtime="tensorflow")
    keras = import_keras()
    part = keras.Model(model.inputs[0], model.get_layer("block2_relu").output)
    expected = np.asarray(part(PIXELS / np.float32(127.5) - 1, training=False)).mean(axis=(1, 2))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_the_model_is_not_frozen_and_its_later_training_changes_no_encoder(model: Any) -> None:
    keras = import_keras()
    own = keras.models.clone_model(model)
    encoder = ModelEncoder(own, ["avg_pool"], preprocess="none", runtime="tensorflow")
    own.set_weights([np.ones_like(w) for w in own.get_weights()])
    other = ModelEncoder(own, ["avg_pool"], preprocess="none", runtime="tensorflow")
    before, after = encoder.encode(PIXELS)["avg_pool"], other.encode(PIXELS)["avg_pool"]
    assert not np.allclose(before, after)
    assert encoder.fingerprint["weights"] != other.fingerprint["weights"]
    assert own.trainable and all(layer.trainable for layer in own.layers)


def test_an_embedder_notices_that_its_model_was_trained(model: Any) -> None:
    own = import_keras().models.clone_model(model)
    embedder = tlfeat.ImageEmbedder(own, preprocess="0-1")
    before = embedder.fit(PIXELS)._make_encoder()
    assert embedder._make_encoder() is before
    own.set_weights([np.ones_like(w) for w in own.get_weights()])
    assert embedder._make_encoder() is not before


def test_a_model_within_a_model_gives_the_rows_of_its_last_map(model: Any) -> None:
    keras = import_keras()
    maps = keras.Model(model.inputs, model.get_layer("block3_relu").output, name="maps")
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), maps]
    whole = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(name="mean"), keras.layers.Dense(2)])
    expected = tlfeat.embed(PIXELS, model, "block3_relu", preprocess="0-1", runtime="tensorflow")
    for layer in ("avg_pool", "maps", "mean"):
        found = tlfeat.embed(PIXELS, whole, layer, preprocess="none", runtime="tensorflow")
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", PREPROCESS)
def test_a_function_is_known_by_what_it_does(mode: str) -> None:
    names = {"tf": "mobilenet_v2", "caffe": "resnet50", "torch": "densenet", "none": "efficientnet"}
    applications = import_keras().applications
    ours = {"0-1": lambda x: x / 255, "clip": lambda x: preprocess(x, "clip")}
    how = getattr(applications, names[mode]).preprocess_input if mode in names else ours[mode]
    assert mode_of(how) == mode


def test_what_cannot_be_a_backbone_is_told_what_to_do(model: Any) -> None:
    keras = import_keras()
    with pytest.raises(UsageError, match=r"how its pixels are scaled with preprocess=.*'0-1': x / 255"):
        tlfeat.embed(PIXELS, model)
    with pytest.raises(UsageError, match="No preprocessing 'tff'"):
        tlfeat.embed(PIXELS, model, preprocess="tff")
    with pytest.raises(UsageError, match="does none of what tlfeat knows"):
        tlfeat.embed(PIXELS, model, preprocess=lambda x: x / 100)
    grey = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    with pytest.raises(UsageError, match=r"\(None, 8, 8, 1\).*Expected a Functional"):
        tlfeat.embed(PIXELS, grey, preprocess="none")
    with pytest.raises(UsageError, match="not built"):
        tlfeat.embed(PIXELS, keras.Sequential([keras.layers.Flatten()]), preprocess="none")
    free = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(UsageError, match=r"input_size=\(height, width\)"):
        tlfeat.embed(PIXELS, free, preprocess="none")
    assert tlfeat.embed(PIXELS, free, preprocess="none", input_size=(6, 9), runtime="tensorflow").shape == (5, 4)
