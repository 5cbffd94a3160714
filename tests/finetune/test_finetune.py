"""Training: from the cut as from pixels, with what is frozen left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.graph import split_graph
from tlfeat.backbones.network import BackboneSpec
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data, open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.network import Network
from tlfeat.finetune.saved import load_model
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import Sources
from tlfeat.models.fit_keras import fit_keras
from tlfeat.records import Result

pytestmark = pytest.mark.keras

SHORT = {"epochs": 2, "patience": 2}
LAST_BLOCK = {"mode": "finetuned", "unfreeze_last": 4, **SHORT}


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `branching_network`; one, so that it is converted once."""
    return branching_network(tmp_path_factory.mktemp("branching") / "net.keras")


@pytest.fixture
def data(small_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Data]:
    monkeypatch.chdir(small_cache.parents[1])
    with open_data(small_cache, seed=0) as opened:
        yield opened


@pytest.fixture
def own_data(tmp_path: Path, branching: Path, make_photos: Any) -> Iterator[tuple[Path, Data]]:
    """Images that a test may spoil, behind a branching network."""
    photos = make_photos(n=14)
    job = plan_extraction(photos, backbone=str(branching), preprocess="tf")
    with open_data(job.run().cache, seed=0) as opened:
        yield photos, opened


def branching_network(path: Path) -> Path:
    """Two branches with BatchNorm and a sum around them, so that two tensors cross any cut within."""
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(3)
    pixels = keras.Input((24, 20, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(pixels)
    x = layers.BatchNormalization(name="stem_bn")(x)
    left = layers.Conv2D(5, 1, activation="relu", name="left_1")(x)
    left = layers.Conv2D(6, 3, padding="same", name="left_2")(left)
    right = layers.DepthwiseConv2D(3, padding="same", name="right_1")(x)
    right = layers.Conv2D(6, 1, name="right_2")(right)
    x = layers.Add(name="sum")([left, right, x])
    x = layers.BatchNormalization(name="sum_bn")(x)
    keras.Model(pixels, layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))).save(path)
    return path


def network_of(data: Data, settings: TrainSettings) -> Network:
    spec = BackboneSpec.from_dict(data.cache.source["encoder"])
    return Network(spec, tuple(data.cache.fingerprint["input_size"]), len(data.split.classes), settings)


def weights_of(result: Result) -> list[Any]:
    return [np.array(w.numpy()) for w in load_model(Path(result.model) / "model.keras").weights]


# --- the cut --------------------------------------------------------------------------------------------------


def test_every_tensor_that_crosses_the_cut_is_found_in_the_graph(branching: Path) -> None:
    graph = import_keras().saving.load_model(branching)
    for layer in graph.layers:
        layer.trainable = layer.name in ("left_2", "relu")
    trunk, tail, cut = split_graph(graph)
    assert {c.layer for c in cut.crossings} == {"left_1", "right_2", "stem_bn"}, "what the sum needs beside left_2"
    assert 0 < cut.share < 1
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 24, 20, 3)).astype(np.float32)
    np.testing.assert_array_equal(graph(pixels), tail(trunk(pixels)))
    assert [w.path for w in tail.trainable_weights] == ["left_2/kernel", "left_2/bias"]


def test_more_layers_than_there_are_is_the_whole_backbone(branching: Path) -> None:
    spec = BackboneSpec(str(branching), preprocess="tf")
    network = Network(spec, spec.size, 2, TrainSettings("finetuned", unfreeze_last=12))
    assert len(network.units) == 11
    assert all(layer.trainable for layer in network.graph.layers if "bn" not in layer.name)


@pytest.mark.sample("6")
@pytest.mark.parametrize("last", [0, 1, 6, 8])
def test_training_from_the_cut_gives_the_weights_of_plain_keras(
    own_data: tuple[Path, Data], last: int, request: pytest.FixtureRequest
) -> None:
    """Plain Keras: the whole network, `trainable` set, the same batches one by one."""
    if last in (0, 6):  # the others with graphs
        request.getfixturevalue("eagerly")
    _, data = own_data
    settings = TrainSettings("finetuned" if last else "frozen", unfreeze_last=max(last, 1), epochs=2, batch_size=8)
    settings = replace(settings, keep="last", learning_rate=1e-3)
    result = fit_keras(data, settings).result
    assert not result.chosen["fed"].startswith("pixels")
    network = network_of(data, settings)
    network.compile(network.whole, settings.rate)
    train_at = data.split.where("train")
    spec, images = network.spec, data.cache.table.images
    with Sources(spec, images, data.split, network.input_size, "antialias", "x") as sources:
        for epoch in range(2):
            order = np.random.default_rng([0, epoch]).permutation(train_at)
            for start in range(0, len(order), 8):
                at = np.sort(order[start : start + 8])
                pixels = sources.pixels().read(at)[0].astype(np.float32)
                network.whole.train_on_batch(pixels, data.split.labels[at])
    started = [np.array(w.numpy()) for w in network_of(data, settings).whole.weights]
    found, plain = weights_of(result), [np.array(w.numpy()) for w in network.whole.weights]
    assert sum(not np.array_equal(a, b) for a, b in zip(started, plain, strict=True)) >= 4, "something was learned"
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.sample("views in two phases")
@pytest.mark.parametrize(
    "changes",
    [
        LAST_BLOCK,
        {**LAST_BLOCK, "augment": Augmentation(flip="horizontal", rotation=0.1), "views": 2},
        {**LAST_BLOCK, "head_epochs": 1},
        {**LAST_BLOCK, "augment": Augmentation(flip="horizontal", rotation=0.1), "views": 2, "head_epochs": 1},
        {**LAST_BLOCK, "unfreeze_last": 7, "trains_batchnorm": True},
    ],
    ids=["plain", "views", "two phases", "views in two phases", "batchnorm"],
)
def test_what_is_fed_does_not_change_what_is_learned(
    data: Data, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if changes.keys() & {"augment", "head_epochs"}:  # the others with graphs
        request.getfixturevalue("eagerly")
    from_cut = fit_keras(data, TrainSettings(**changes)).result
    from_pixels = fit_keras(data, TrainSettings(**changes, cut="off")).result
    assert from_pixels.chosen["fed"] == "pixels: --cut off"
    assert not from_cut.chosen["fed"].startswith("pixels")
    np.testing.assert_allclose(from_cut.history["loss"], from_pixels.history["loss"], rtol=2e-5)
    assert np.mean(np.array(from_cut.predicted) == from_pixels.predicted) > 0.99


def test_half_precision_at_the_cut_takes_half_the_disk(data: Data, eagerly: None) -> None:
    whole = fit_keras(data, TrainSettings(**LAST_BLOCK)).result
    half = fit_keras(data, TrainSettings(**LAST_BLOCK, cut="float16")).result
    assert half.history["loss"] != whole.history["loss"]
    np.testing.assert_allclose(half.history["loss"], whole.history["loss"], rtol=0.01)


def test_what_would_take_too_much_disk_is_not_written(data: Data, eagerly: None) -> None:
    said: list[str] = []
    settings = TrainSettings(**{**LAST_BLOCK, "epochs": 1}, seed=5)
    nothing = fit_keras(data, settings, max_cut_bytes=0, say=said.append).result
    assert "the limit is 0 GB" in nothing.chosen["fed"], "0 is a limit, too"
    network = network_of(data, settings)
    _, _, cut = network.split()
    images = data.cache.table.images
    with Sources(network.spec, images, data.split, network.input_size, "antialias", "x", say=said.append) as sources:
        sources.max_cut_bytes = 1000
        assert "would take" in sources.rows(cut, settings).reason
        assert not any("computed once" in text for text in said)
        sources.max_cut_bytes = 1e9
        assert sources.rows(cut, settings).rows is not None
    assert "is computed once and kept: at most" in said[-1]


def test_frozen_batchnorm_keeps_its_statistics_and_a_trained_one_does_not(data: Data) -> None:
    before = network_of(data, TrainSettings()).graph.get_layer("block3_bn").moving_mean
    for trains, settings in ((False, LAST_BLOCK), (True, {**LAST_BLOCK, "trains_batchnorm": True})):
        result = fit_keras(data, TrainSettings(**settings)).result
        model = load_model(Path(result.model) / "model.keras")
        base = next(layer for layer in model.layers if hasattr(layer, "layers"))
        assert np.array_equal(base.get_layer("block3_bn").moving_mean, before) is not trains


def test_augmentation_changes_what_is_learned_and_draws_anew_in_every_epoch(data: Data, eagerly: None) -> None:
    plain = TrainSettings(**LAST_BLOCK)
    drawn = replace(plain, augment=Augmentation(rotation=0.3))
    one, again = fit_keras(data, drawn).result, fit_keras(data, drawn, is_fresh=True).result
    assert one.history["loss"] == again.history["loss"]
    for other in (plain, replace(drawn, views=1)):
        assert fit_keras(data, other).result.history["loss"][1:] != one.history["loss"][1:]


def test_mixed_precision_trains_and_leaves_a_network_in_float32(
    data: Data, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Network.__init__

    def mixed(self: Any, *args: Any, precision: str = "mixed_float16", **named: Any) -> None:
        original(self, *args, precision=precision, **named)

    monkeypatch.setattr(Network, "__init__", mixed)
    spec = BackboneSpec("mobilenet_0.25", "random", (32, 32))
    network = Network(spec, (32, 32), 3, TrainSettings())
    assert network.graph.get_layer("conv_pw_13").compute_dtype == "float16"
    assert network.head[-1].compute_dtype == "float32"
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(network.whole(pixels), network.in_float32()(pixels), atol=2e-3)
    result = fit_keras(data, TrainSettings(**LAST_BLOCK, seed=3)).result
    assert result.history["loss"][-1] < result.history["loss"][0]
    model = load_model(Path(result.model) / "model.keras")
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


# --- images that have gone ---------------------------------------------------------------------------------


@pytest.mark.sample("float32")
@pytest.mark.parametrize("cut", ["float32", "off"])
def test_an_image_that_has_gone_or_changed_is_left_out_and_listed(
    own_data: tuple[Path, Data], cut: str, eagerly: None
) -> None:
    photos, data = own_data
    gone, changed = (photos / data.split.paths[i] for i in data.split.where("train")[:2])
    gone.unlink()
    changed.write_bytes((photos / data.split.paths[data.split.where("val")[0]]).read_bytes())
    result = fit_keras(data, TrainSettings("finetuned", unfreeze_last=8, epochs=1, cut=cut)).result
    (note,) = [note for note in result.notes if "took no part" in note]
    assert note.startswith("2 images")


def test_a_test_image_that_has_gone_is_an_error_before_training(own_data: tuple[Path, Data]) -> None:
    photos, data = own_data
    (photos / data.split.paths[data.split.where("test")[0]]).unlink()
    with pytest.raises(DataError, match="could be read by tlfeat extract"):
        fit_keras(
            data, TrainSettings(epochs=1), on_progress=lambda what, *_: pytest.fail(what) if "train" in what else None
        )
