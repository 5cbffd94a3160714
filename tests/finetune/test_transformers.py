"""Fine-tuning of vision transformers: blocks in place of layers, the cut between them, and what is saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import picture
from made_transformers import SIZES, tiny_folder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.evaluate.data import Data, open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune import epochs as training
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.network import Network
from tlfeat.finetune.saved import load_model
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import Sources
from tlfeat.models.fit_keras import fit_keras

pytestmark = pytest.mark.keras

LAST_BLOCK = TrainSettings("finetuned", unfreeze_last=1, dense=(8,), epochs=2, patience=2, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transformers")


def size_of(family: str) -> tuple[int, int]:
    return (SIZES[family][0],) * 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for c, name in enumerate(("cat", "dog")):
        (root / name).mkdir()
        for i in range(10):
            picture(100 * c + i).save(root / name / f"{i}.png")
    return root


@contextmanager
def data_of(family: str, folders: Path, photos: Path) -> Iterator[Data]:
    """Open a cache that was made once, with what crosses the cut in it: a network is converted once."""
    made = folders / f"{family}.h5"
    if not made.exists():
        plan_extraction(
            photos,
            backbone=family,
            weights=str(tiny_folder(family, folders)),
            input_size=size_of(family),
            layers=["avg_pool", "block_2:flatten"],
            cache=made,
        ).run()
    with open_data(made, seed=0) as data:
        yield data


def network_of(family: str, folders: Path, settings: TrainSettings, **more: Any) -> Network:
    spec = BackboneSpec(family, str(tiny_folder(family, folders)), size_of(family))
    return Network(spec, spec.size, 2, settings, **more)


def arrays_of(model: Any) -> list[Any]:
    return [np.array(weight.numpy()) for weight in model.weights]


def test_the_last_blocks_train_with_the_norm_above_them(folders: Path) -> None:
    network = network_of("vit", folders, LAST_BLOCK)
    found = {}
    for last in (1, 3, 4):
        network.unfreeze(last)
        found[last] = [layer.name for layer in network.graph.layers if layer.trainable_weights]
    assert found[1] == ["block_3", "norm"]
    assert found[3] == ["block_1", "block_2", "block_3", "norm"]
    assert found[4] == ["vit_patching_and_embedding", *found[3]], "more than there are: the whole backbone"


def test_where_nothing_is_said_two_blocks_train_and_of_other_networks_twenty_layers(folders: Path) -> None:
    settings = replace(LAST_BLOCK, unfreeze_last=None)
    network = network_of("vit", folders, settings)
    assert [layer.name for layer in network.graph.layers if layer.trainable_weights] == ["block_2", "block_3", "norm"]
    assert network.settings.to_dict()["unfreeze_last"] == 2
    assert settings.on(has_blocks=False).to_dict()["unfreeze_last"] == settings.to_dict()["unfreeze_last"] == 20


@pytest.mark.sample("dinov3")
@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov3"])
def test_training_from_the_cut_gives_the_weights_of_plain_keras(
    family: str, folders: Path, photos: Path, eagerly: None
) -> None:
    """Plain Keras: the whole network, `trainable` set, the same batches one by one."""
    settings = replace(LAST_BLOCK, keep="last", learning_rate=1e-3)
    with data_of(family, folders, photos) as data:
        result = fit_keras(data, settings).result
        assert result.chosen["fed"] == "block_2:flatten"
        network = network_of(family, folders, settings)
        started = arrays_of(network.whole)
        network.compile(network.whole, settings.rate)
        resize = str(data.cache.fingerprint["resize"])
        with Sources(network.spec, data.cache.table.images, data.split, network.input_size, resize, "x") as sources:
            for epoch in range(2):
                order = np.random.default_rng([3, epoch]).permutation(data.split.where("train"))
                for start in range(0, len(order), 8):
                    at = np.sort(order[start : start + 8])
                    pixels = sources.pixels().read(at)[0].astype(np.float32)
                    network.whole.train_on_batch(pixels, data.split.labels[at])
    found, plain = arrays_of(load_model(Path(result.model) / "model.keras")), arrays_of(network.whole)
    changed = [not np.array_equal(one, other) for one, other in zip(started, plain, strict=True)]
    n_trained = len(network.whole.trainable_weights)
    assert sum(changed) >= n_trained - 1, "a bias of keys changes nothing"
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.soak
def test_what_is_fed_does_not_change_what_is_learned(folders: Path, photos: Path, eagerly: None) -> None:
    changes: dict[str, Any] = {"augment": Augmentation(flip="horizontal", rotation=0.1), "views": 2, "head_epochs": 1}
    with data_of("vit", folders, photos) as data:
        from_cut = fit_keras(data, replace(LAST_BLOCK, **changes)).result
        from_pixels = fit_keras(data, replace(LAST_BLOCK, **changes, cut="off")).result
    assert from_pixels.chosen["fed"] == "pixels: --cut off"
    assert from_cut.chosen["fed"].endswith("; then block_2:flatten of 2 views")
    np.testing.assert_allclose(from_cut.history["loss"], from_pixels.history["loss"], rtol=2e-4)
    assert from_cut.predicted == from_pixels.predicted


@pytest.mark.soak
def test_a_killed_training_goes_on_from_its_last_saved_epoch(
    folders: Path, photos: Path, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", 0.0)
    settings = replace(LAST_BLOCK, epochs=3, patience=3)

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done > 2 * total // 3 + 1:
            raise MemoryError

    with data_of("dinov3", folders, photos) as data:
        whole = fit_keras(data, settings).result
        shutil.rmtree(whole.model)
        with pytest.raises(MemoryError):
            fit_keras(data, settings, is_fresh=True, on_progress=stop)
        resumed = fit_keras(data, settings).result
    assert any("went on from epoch 2" in note for note in resumed.notes)
    assert resumed.history["loss"] == whole.history["loss"]
    assert resumed.predicted == whole.predicted


def test_more_blocks_than_there_are_is_said(folders: Path, photos: Path, eagerly: None) -> None:
    with data_of("dinov3", folders, photos) as data:
        result = fit_keras(data, replace(LAST_BLOCK, unfreeze_last=12, epochs=1)).result
    assert "dinov3 has 3 blocks, not 12: the whole backbone trains" in result.notes


@pytest.mark.soak
def test_what_was_trained_in_half_precision_runs_in_float32_with_the_same_weights(folders: Path) -> None:
    half = network_of("dinov3", folders, LAST_BLOCK, precision="mixed_float16")
    pixels = np.random.default_rng(0).integers(0, 256, (3, *half.input_size, 3)).astype(np.float32)
    half.compile(half.whole, 1e-3)
    half.whole.train_on_batch(pixels, np.array([0, 1, 1]))
    whole = half.in_float32()
    assert whole.get_layer("dinov3").get_layer("block_1").compute_dtype == "float32"
    for one, other in zip(arrays_of(whole), arrays_of(half.whole), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(np.asarray(whole(pixels)), np.asarray(half.whole(pixels)), atol=0.01)


def test_from_scratch_takes_the_architecture_of_the_folder_and_weights_of_the_seed(folders: Path) -> None:
    scratch = replace(LAST_BLOCK, mode="scratch", unfreeze_last=None)
    trained = arrays_of(network_of("vit", folders, LAST_BLOCK).graph)
    one, same, other = (arrays_of(network_of("vit", folders, replace(scratch, seed=n)).graph) for n in (3, 3, 4))
    assert [array.shape for array in one] == [array.shape for array in trained]
    kernels = [i for i, array in enumerate(one) if array.ndim > 1 and array.std() > 0]
    assert len(kernels) > 10
    for i in kernels:
        assert not np.array_equal(one[i], trained[i])
        assert np.array_equal(one[i], same[i])
        assert not np.array_equal(one[i], other[i])
