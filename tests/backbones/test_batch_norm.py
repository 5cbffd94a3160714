"""BatchNorm statistics of other images are those of NumPy, layer by layer, however the images are cut up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones import batch_norm
from tlfeat.backbones.batch_norm import adapt_batch_norm, batch_norms
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network_file import save_network
from tlfeat.backbones.preprocess import preprocess
from tlfeat.errors import WeightsError
from tlfeat.types import Pixels

pytestmark = pytest.mark.keras

PIXELS = np.random.default_rng(5).integers(0, 90, (13, 8, 8, 3), dtype=np.uint8)  # dark: another domain


@pytest.fixture(autouse=True)
def _three_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "BATCH_SIZE", 6)


def a_network(kind: str = "plain") -> Any:
    """Two blocks, the second with a sum; as one graph, or the second as a model within the model."""
    keras = import_keras()
    layers = keras.layers
    keras.backend.clear_session()  # layers without a name are numbered from 0, as `build_base` has it
    keras.utils.set_random_seed(11)
    pixels = x = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, name="conv1")(x)
    x = layers.BatchNormalization(name="bn1", moving_mean_initializer="ones", epsilon=0.01)(x)
    inner = start = keras.Input(x.shape[1:]) if kind == "nested" else x
    x = layers.Conv2D(4, 1, name="conv2")(layers.ReLU()(inner))
    x = layers.BatchNormalization(name="bn2")(layers.Dropout(0.9)(x))
    x = keras.ops.add(x, inner)
    if kind == "nested":
        x = keras.Model(start, x, name="block")(pixels_to(pixels))
    x = layers.BatchNormalization(name="bn3")(layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    return keras.Model(pixels, x, name=f"{kind}_network")


def pixels_to(pixels: Any) -> Any:
    layers = import_keras().layers
    x = layers.Conv2D(4, 3, strides=2, name="conv1")(pixels)
    return layers.BatchNormalization(name="bn1", epsilon=0.01)(x)


def inputs_of(network: Any, pixels: Pixels, mode: str) -> dict[str, Any]:
    """What goes into each BatchNorm layer, as Keras computes it: each layer notes its input in an ordinary call."""
    found: dict[str, Any] = {}
    for layer in batch_norms(network):

        def noting(x: Any, *args: Any, layer: Any = layer, call: Any = layer.call, **named: Any) -> Any:
            found[layer.name] = np.asarray(x, np.float64)
            return call(x, *args, **named)

        layer.call = noting
    network(preprocess(pixels.astype(np.float32), mode), training=False)
    for layer in batch_norms(network):
        del layer.call
    return found


@pytest.mark.parametrize("kind", ["plain", "nested"])
def test_every_layer_has_the_mean_and_variance_of_what_the_adapted_layers_before_it_give(kind: str) -> None:
    network = a_network(kind)
    assert adapt_batch_norm(network, PIXELS, "tf") == 3
    inputs = inputs_of(network, PIXELS, "tf")
    for layer in batch_norms(network):
        axes = tuple(range(inputs[layer.name].ndim - 1))
        np.testing.assert_allclose(layer.moving_mean, inputs[layer.name].mean(axes), atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, inputs[layer.name].var(axes), rtol=1e-5, atol=1e-6)


def test_what_is_kept_between_layers_changes_no_bit() -> None:
    found = []
    for kept_bytes in (0, 9000, 1 << 30):  # nothing, small maps, all
        network = a_network()
        adapt_batch_norm(network, PIXELS, "0-1", kept_bytes=kept_bytes)
        found.append([weights.tobytes() for weights in network.get_weights()])
    assert found[0] == found[1] == found[2]


def test_other_weights_stay_and_old_and_new_statistics_are_mixed() -> None:
    old, new, mixed = a_network(), a_network(), a_network()
    adapt_batch_norm(new, PIXELS, "0-1")
    adapt_batch_norm(mixed, PIXELS, "0-1", weight=0.2)
    for before, after in zip(old.trainable_weights, new.trainable_weights, strict=True):
        np.testing.assert_array_equal(before, after)
    for name in ("moving_mean", "moving_variance"):
        own, measured, found = (np.asarray(getattr(net.get_layer("bn1"), name)) for net in (old, new, mixed))
        np.testing.assert_allclose(found, 0.8 * own + 0.2 * measured, rtol=1e-5)


def test_a_channel_first_layer_is_measured_along_its_channels() -> None:
    keras = import_keras()
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization(axis=1)])
    adapt_batch_norm(network, PIXELS, "none")
    (layer,) = batch_norms(network)
    np.testing.assert_allclose(layer.moving_mean, PIXELS.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, PIXELS.var((0, 2, 3)), rtol=1e-6)


def test_networks_that_cannot_be_adapted_are_told_in_a_line() -> None:
    keras = import_keras()

    @keras.saving.register_keras_serializable("test_batch_norm")
    class Closed(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.hidden = keras.layers.BatchNormalization(name="hidden_bn")
            self.hidden.build(shape)

        def call(self, x: Any) -> Any:
            return self.hidden(x)

    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.LayerNormalization()], name="mine")
    with pytest.raises(WeightsError, match=r"mine has no BatchNorm layer.*ConvNeXt have none"):
        adapt_batch_norm(plain, PIXELS, "tf")
    closed = keras.Sequential([keras.Input((8, 8, 3)), Closed()], name="closed")
    with pytest.raises(WeightsError, match=r"1 BatchNorm layer within layers of its own.*hidden_bn"):
        adapt_batch_norm(closed, PIXELS, "tf")
    network = a_network()
    network.get_layer("conv2").set_weights([np.full((1, 1, 4, 4), np.inf), np.zeros(4)])
    with pytest.raises(WeightsError, match="into the layer bn2 is not finite"):
        adapt_batch_norm(network, PIXELS, "tf")


def test_equal_networks_are_equal_files_that_load_again(tmp_path: Path) -> None:
    contents = []
    for name in ("one.keras", "other.keras"):
        save_network(network := a_network(), tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    loaded = import_keras().saving.load_model(tmp_path / name)
    given = PIXELS.astype(np.float32)
    np.testing.assert_array_equal(loaded(given), network(given))
