"""The recipes of well-known tutorials, and what the settings of training refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.cli.app import app
from tlfeat.errors import DataError, UsageError
from tlfeat.finetune.network import Network
from tlfeat.finetune.recipes import RECIPES, choose_settings, describe, find_recipe
from tlfeat.finetune.saved import load_model

pytestmark = pytest.mark.keras


def built(name: str, *, is_as_written: bool = False, n_classes: int = 3, size: tuple[int, int] = (96, 96)) -> Any:
    recipe = find_recipe(name)
    settings = recipe.make(is_as_written=is_as_written)
    return Network(BackboneSpec(recipe.backbone, "random"), size, n_classes, settings)


def head_of(network: Network) -> list[str]:
    words = {
        "Dense": lambda layer: f"{layer.units} {layer.activation.__name__}",
        "Dropout": lambda layer: f"drop {layer.rate}",
    }
    return [words.get(type(layer).__name__, lambda layer: type(layer).__name__)(layer) for layer in network.head]


def test_the_recipes_are_those_of_the_tutorials() -> None:
    potato, binary, chest = (find_recipe(r.name) for r in RECIPES)
    assert (potato.backbone, potato.input_size) == ("resnet50", (256, 256))
    s = potato.settings
    assert (s.augment.flip, s.augment.rotation, s.epochs, s.batch_size) == ("horizontal_and_vertical", 0.2, 50, 32)
    assert (s.optimizer, s.loss) == ("adam", "sparse_categorical_crossentropy")
    assert (binary.backbone, binary.input_size, binary.settings.loss) == (
        "mobilenet_v2",
        (224, 224),
        "binary_crossentropy",
    )
    assert (chest.backbone, chest.input_size, chest.settings.unfreeze_last) == ("inception_v3", (224, 224), 15)
    s = chest.settings
    assert (s.augment.flip, s.augment.zoom, s.augment.shear) == ("horizontal", 0.2, 0.2)
    assert (s.loss, bool(s.plateau)) == ("categorical_crossentropy", True)
    written = {r.name: r.make(is_as_written=True) for r in RECIPES}
    assert {name: s.preprocess for name, s in written.items()} == {
        "resnet50-potato": "0-1",
        "mobilenetv2-binary": None,
        "inception-last15": "0-1",
    }
    assert all(s.keep == "last" and s.recipe.endswith("-as-written") for s in written.values())
    for recipe in RECIPES:
        assert recipe.name in describe(recipe)


def test_the_heads_of_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = import_keras().layers
    pixels = import_keras().Input((96, 96, 3))
    small = import_keras().Model(pixels, layers.GlobalAveragePooling2D()(pixels))  # a head is the same on any backbone
    monkeypatch.setattr("tlfeat.finetune.network.build_base", lambda *_, **__: small)
    assert head_of(built("resnet50-potato")) == ["Flatten", "512 relu", "3 softmax"]
    assert head_of(built("mobilenetv2-binary", n_classes=2)) == ["128 relu", "1 sigmoid"]
    with pytest.raises(DataError, match="two classes apart; here are 3"):
        built("mobilenetv2-binary")


def test_inception_trains_its_last_15_layers_and_leaves_batchnorm_alone_unless_as_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keras = import_keras()
    base = build_base(BackboneSpec("inception_v3", "random"), (96, 96))  # once: building it takes seconds
    monkeypatch.setattr("tlfeat.finetune.network.build_base", lambda *_, **__: base)
    for is_as_written in (False, True):
        network = built("inception-last15", is_as_written=is_as_written)
        assert head_of(network) == ["Flatten", "512 relu", "drop 0.3", "512 relu", "drop 0.3", "3 softmax"]
        layers = network.graph.layers[:-1]  # the pooling is not the tutorial's base
        last = {layer.name for layer in layers[-15:]}
        norms = {layer.name for layer in layers if isinstance(layer, keras.layers.BatchNormalization)}
        trains = {layer.name for layer in layers if layer.weights and layer.trainable}
        with_weights = {layer.name for layer in layers[-15:] if layer.weights}
        assert trains == (with_weights if is_as_written else with_weights - norms)
        assert trains <= last
        assert len(trains & norms) == (5 if is_as_written else 0)


def test_a_recipe_runs_from_images_to_a_result_with_two_classes(
    make_photos: Any, small_network: Path, eagerly: None
) -> None:
    small = ["--backbone", str(small_network), "--preprocess", "tf", "--epochs", "2"]
    run = CliRunner().invoke(
        app, ["fit-keras", str(make_photos(n=12)), "--recipe", "mobilenetv2-binary", *small, "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["model"] == "mobilenetv2-binary"
    assert found["chosen"]["fed"] == "avg_pool"
    model = load_model(Path(found["path"]) / "model.keras")
    probabilities = np.array(model(np.zeros((2, 16, 16, 3), np.float32)))
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_compare_shows_a_recipe_as_it_should_be_and_as_written(
    small_cache: Path, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [replace(r, settings=replace(r.settings, epochs=1)) for r in RECIPES]
    monkeypatch.setattr("tlfeat.finetune.recipes.RECIPES", short)
    command = ["compare", "--heads", "none", "--keras", "none", "--no-pixels", "--recipe", "resnet50-potato", "--json"]
    run = CliRunner().invoke(app, [*command, "--cache", str(small_cache)])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert {line["model"] for line in found} == {"resnet50-potato", "resnet50-potato-as-written"}
    assert "the recipe names resnet50 at 256x256" in run.stderr


def test_settings_that_contradict_each_other_are_refused() -> None:
    for changes, message in (
        ({"unfreeze_last": 3, "is_from_scratch": True}, "contradict"),
        ({"is_as_written": True}, "add --recipe"),
        ({"augment": "flp"}, "flip"),
        ({"dense": "many"}, "--dense wants"),
        ({"views": 2}, "add --augment"),
        ({"head_epochs": 2}, "add --unfreeze-last"),
        ({"optimizer": "adm"}, "adam"),
        ({"cut": "float8"}, "--cut is one of"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"keep": "first"}, "--keep"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_settings(**changes)
    assert choose_settings(dense="512,256", augment="flip").dense == (512, 256)
    assert choose_settings(dense="0").dense == ()


def test_summary_says_what_is_frozen_and_how_much_trains() -> None:
    run = CliRunner().invoke(app, ["summary", "--backbone", "digits_cnn", "--unfreeze-last", "5", "--classes", "5"])
    assert run.exit_code == 0, run.output
    assert "block4_conv" in run.stdout
    assert "Trainable params: 140,037" in run.stdout
    found = json.loads(CliRunner().invoke(app, ["summary", "--recipe", "resnet50-potato", "--json"]).stdout)
    assert found["trained"] == ["dense", "probabilities"]
    assert found["n_trainable"] == 2048 * 512 + 512 + 512 * 2 + 2
