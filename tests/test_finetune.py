"""Training: from the cut as from pixels, resumed as never stopped, and what happens when something goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tlfeat import finetune, training
from tlfeat.augment import Augmentation
from tlfeat.candidates import Data, fit_keras, open_data
from tlfeat.cli import app
from tlfeat.cut import split_graph
from tlfeat.errors import DataError, Interrupted, UsageError
from tlfeat.network import BackboneSpec, import_keras
from tlfeat.plan import plan_extraction
from tlfeat.recipes import RECIPES, Phase, TrainSettings, choose_settings, describe, find_recipe
from tlfeat.records import Result
from tlfeat.training import State, make_batches, run_phase

pytestmark = pytest.mark.keras

SHORT = {"epochs": 4, "patience": 4}
LAST_BLOCK = {"mode": "finetuned", "unfreeze_last": 5, **SHORT}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built-in example, embedded."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan_extraction().run()
    return folder


@pytest.fixture
def data(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Data]:
    monkeypatch.chdir(workplace)
    with open_data(None, seed=0) as opened:
        yield opened


@pytest.fixture
def own_data(tmp_path: Path, make_photos: Any) -> Iterator[tuple[Path, Data]]:
    """Images that a test may spoil, behind a branching network."""
    photos = make_photos(n=30)
    job = plan_extraction(photos, backbone=str(branching_network(tmp_path / "net.keras")), preprocess="tf")
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


def network_of(data: Data, settings: TrainSettings) -> finetune.Network:
    spec = BackboneSpec.from_dict(data.cache.source["encoder"])
    return finetune.Network(spec, tuple(data.cache.fingerprint["input_size"]), len(data.split.classes), settings)


def weights_of(result: Result) -> list[Any]:
    return [np.array(w.numpy()) for w in finetune.load_model(Path(result.model) / "model.keras").weights]


# --- the cut --------------------------------------------------------------------------------------------------


def test_every_tensor_that_crosses_the_cut_is_found_in_the_graph(tmp_path: Path) -> None:
    graph = import_keras().saving.load_model(branching_network(tmp_path / "net.keras"))
    for layer in graph.layers:
        layer.trainable = layer.name in ("left_2", "relu")
    trunk, tail, cut = split_graph(graph)
    assert {c.layer for c in cut.crossings} == {"left_1", "right_2", "stem_bn"}, "what the sum needs beside left_2"
    assert 0 < cut.share < 1
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 24, 20, 3)).astype(np.float32)
    np.testing.assert_array_equal(graph(pixels), tail(trunk(pixels)))
    assert [w.path for w in tail.trainable_weights] == ["left_2/kernel", "left_2/bias"]


@pytest.mark.parametrize("last", [0, 1, 6, 8])
def test_training_from_the_cut_gives_the_weights_of_plain_keras(own_data: tuple[Path, Data], last: int) -> None:
    """Plain Keras: the whole network, `trainable` set, the same batches one by one."""
    _, data = own_data
    settings = TrainSettings("finetuned" if last else "frozen", unfreeze_last=max(last, 1), **SHORT, batch_size=8)
    settings = replace(settings, keep="last", learning_rate=1e-3)
    result = fit_keras(data, settings).result
    assert not result.chosen["fed"].startswith("pixels")
    network = network_of(data, settings)
    network.compile(network.whole, settings.rate)
    train_at = data.split.where("train")
    spec, images = network.spec, data.cache.table.images
    with finetune.Sources(spec, images, data.split, network.input_size, "antialias", "x") as sources:
        for epoch in range(4):
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


@pytest.mark.parametrize(
    "changes",
    [
        LAST_BLOCK,
        {**LAST_BLOCK, "augment": Augmentation(flip="horizontal", rotation=0.1), "views": 2},
        {**LAST_BLOCK, "head_epochs": 2},
        {**LAST_BLOCK, "unfreeze_last": 8, "trains_batchnorm": True},
    ],
    ids=["plain", "views", "two phases", "batchnorm"],
)
def test_what_is_fed_does_not_change_what_is_learned(data: Data, changes: dict[str, Any]) -> None:
    from_cut = fit_keras(data, TrainSettings(**changes)).result
    from_pixels = fit_keras(data, TrainSettings(**changes, cut="off")).result
    assert from_pixels.chosen["fed"] == "pixels: --cut off"
    assert not from_cut.chosen["fed"].startswith("pixels")
    np.testing.assert_allclose(from_cut.history["loss"], from_pixels.history["loss"], rtol=2e-4)
    assert np.mean(np.array(from_cut.predicted) == from_pixels.predicted) > 0.99


def test_half_precision_at_the_cut_takes_half_the_disk(data: Data) -> None:
    whole = fit_keras(data, TrainSettings(**LAST_BLOCK)).result
    half = fit_keras(data, TrainSettings(**LAST_BLOCK, cut="float16")).result
    assert half.history["loss"] != whole.history["loss"]
    np.testing.assert_allclose(half.history["loss"], whole.history["loss"], rtol=0.01)


def test_what_would_take_too_much_disk_is_not_written(data: Data) -> None:
    said: list[str] = []
    settings = TrainSettings(**LAST_BLOCK, seed=5)
    result = fit_keras(data, settings, max_cut_bytes=1000, say=said.append).result
    assert "would take" in result.chosen["fed"]
    nothing = fit_keras(data, settings, max_cut_bytes=0, say=said.append, is_fresh=True).result
    assert "the limit is 0 GB" in nothing.chosen["fed"], "0 is a limit, too"
    assert not said
    fit_keras(data, settings, say=said.append, is_fresh=True)
    assert "is computed once and kept: at most" in said[0]


def test_frozen_batchnorm_keeps_its_statistics_and_a_trained_one_does_not(data: Data) -> None:
    for trains, settings in ((False, LAST_BLOCK), (True, {**LAST_BLOCK, "trains_batchnorm": True})):
        result = fit_keras(data, TrainSettings(**settings)).result
        model = finetune.load_model(Path(result.model) / "model.keras")
        base = next(layer for layer in model.layers if hasattr(layer, "layers"))
        before = network_of(data, TrainSettings()).graph.get_layer("block4_bn").moving_mean
        assert np.array_equal(base.get_layer("block4_bn").moving_mean, before) is not trains


def test_augmentation_changes_what_is_learned_and_draws_anew_in_every_epoch(data: Data) -> None:
    drawn = TrainSettings(**LAST_BLOCK, augment=Augmentation(rotation=0.3))
    one, again = fit_keras(data, drawn).result, fit_keras(data, drawn, is_fresh=True).result
    assert one.history["loss"] == again.history["loss"]
    for other in (TrainSettings(**LAST_BLOCK), replace(drawn, views=1)):
        assert fit_keras(data, other).result.history["loss"][1:] != one.history["loss"][1:]


def test_mixed_precision_trains_and_leaves_a_network_in_float32(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    original = finetune.Network.__init__

    def mixed(self: Any, *args: Any, precision: str = "mixed_float16") -> None:
        original(self, *args, precision=precision)

    monkeypatch.setattr(finetune.Network, "__init__", mixed)
    spec = BackboneSpec("mobilenet_v2_0.35", "random", (32, 32))
    network = finetune.Network(spec, (32, 32), 3, TrainSettings())
    assert network.graph.get_layer("Conv_1").compute_dtype == "float16"
    assert network.head[-1].compute_dtype == "float32"
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(network.whole(pixels), network.in_float32()(pixels), atol=2e-3)
    result = fit_keras(data, TrainSettings(**LAST_BLOCK, seed=3)).result
    assert result.history["loss"][-1] < result.history["loss"][0]
    model = finetune.load_model(Path(result.model) / "model.keras")
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


# --- stops ----------------------------------------------------------------------------------------------------


def stopping_at(n_epochs: int, error: type[BaseException]) -> Callable[..., None]:
    """A progress function that stops training in the epoch after so many."""

    def on_progress(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done > (total // SHORT["epochs"]) * n_epochs + 1:
            raise error

    return on_progress


@pytest.mark.parametrize("cut", ["float32", "off"])
def test_ctrl_c_leaves_the_best_weights_and_the_same_call_goes_on(data: Data, cut: str) -> None:
    settings = TrainSettings(**LAST_BLOCK, cut=cut, seed=11, batch_size=8)
    whole = fit_keras(data, settings).result
    saved = Path(whole.model)
    with pytest.raises(Interrupted, match=r"Stopped after 2 epochs.*goes on from there"):
        fit_keras(data, settings, is_fresh=True, on_progress=stopping_at(2, KeyboardInterrupt))
    stopped = Result.from_dict(json.loads((saved / "result.json").read_text()))
    assert stopped.chosen["ended"] == "interrupted"
    assert stopped.history["loss"] == whole.history["loss"][:2]
    assert len(stopped.predicted) == stopped.split.n_test
    outcome = fit_keras(data, settings)
    assert not outcome.is_reused, "an interrupted result is not a finished one"
    assert outcome.result.history["loss"] == whole.history["loss"]
    assert outcome.result.predicted == whole.predicted
    assert any("went on from epoch 2" in note for note in outcome.result.notes)
    assert fit_keras(data, settings).is_reused


def test_a_killed_training_goes_on_from_its_last_saved_epoch(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written but at the ends of epochs, so that a kill is the same as any other error here."""
    monkeypatch.setattr(training, "_SAVE_EVERY_S", 0.0)
    settings = TrainSettings(**LAST_BLOCK, seed=12, plateau=1, learning_rate=1e-9, batch_size=8)
    whole = fit_keras(data, settings).result
    assert len(set(whole.history["learning_rate"])) > 1, "the learning rate fell on the way"
    shutil.rmtree(whole.model)
    with pytest.raises(MemoryError):
        fit_keras(data, settings, is_fresh=True, on_progress=stopping_at(3, MemoryError))
    resumed = fit_keras(data, settings).result
    assert any("went on from epoch 3" in note for note in resumed.notes)
    for name in ("loss", "val_loss", "learning_rate"):
        assert resumed.history[name] == whole.history[name]
    assert resumed.predicted == whole.predicted


def test_a_state_that_is_damaged_is_no_state(tmp_path: Path) -> None:
    state = State(history={"loss": [1.0]}, current=[np.zeros(3)], best=[np.ones(2)])
    state.save(tmp_path / "s.npz")
    assert State.load(tmp_path / "s.npz").n_epochs == 1
    written = (tmp_path / "s.npz").read_bytes()
    for spoiled in (written[: len(written) // 2], b"", b"nonsense"):
        (tmp_path / "s.npz").write_bytes(spoiled)
        assert State.load(tmp_path / "s.npz").n_epochs == 0


def test_a_loss_that_is_not_finite_leaves_the_best_weights() -> None:
    keras = import_keras()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rows = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)

    def feed(at: Any, epoch: int | None) -> Any:
        poison = np.nan if epoch == 2 else 0.0
        return rows[at] + np.float32(poison), np.ones(len(at), bool)

    state, best = State(), []
    run_phase(
        model,
        model.variables,
        make_batches(feed, rows[:, 0], np.arange(16), 4, seed=0),
        make_batches(feed, rows[:, 0], np.arange(16), 4),
        Phase(0, 5, 5, 0.1),
        state,
        plateau=0,
        keeps_last=True,
        save=best.append,
        what="",
        on_progress=lambda *_: None,
    )
    assert (state.ended, state.n_epochs) == ("diverged", 2)
    assert np.isfinite(model.variables[0].numpy()).all()
    np.testing.assert_array_equal(model.variables[0], state.best[0])


TWO_PHASES = {**LAST_BLOCK, "head_epochs": 2}


def test_a_second_phase_that_diverges_at_once_leaves_the_weights_of_the_first(data: Data) -> None:
    settings = TrainSettings(**{**TWO_PHASES, "optimizer": "sgd", "learning_rate": 1e30})
    result = fit_keras(data, settings).result
    assert (result.chosen["ended"], result.chosen["epochs_run"]) == ("diverged", 2)
    assert all(np.isfinite(weights).all() for weights in weights_of(result))


def test_ctrl_c_in_the_first_epoch_of_the_second_phase_loses_nothing_of_the_first(data: Data) -> None:
    settings = TrainSettings(**TWO_PHASES, seed=21, batch_size=8)
    whole = fit_keras(data, settings).result
    shutil.rmtree(whole.model)

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "training keras-finetuned, at most 4 epochs" and done > 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Stopped after 2 epochs"):
        fit_keras(data, settings, on_progress=on_progress)
    resumed = fit_keras(data, settings).result
    assert any("went on from epoch 2" in note for note in resumed.notes)
    assert resumed.history["loss"] == whole.history["loss"]
    assert resumed.predicted == whole.predicted


def test_a_first_epoch_that_diverges_is_an_error_that_says_what_to_do(data: Data) -> None:
    with pytest.raises(DataError, match="lower --learning-rate"):
        fit_keras(data, TrainSettings(**{**LAST_BLOCK, "optimizer": "sgd", "learning_rate": 1e30}))


@pytest.mark.parametrize("cut", ["float32", "off"])
def test_an_image_that_has_gone_or_changed_is_left_out_and_listed(own_data: tuple[Path, Data], cut: str) -> None:
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


# --- recipes --------------------------------------------------------------------------------------------------


def built(name: str, *, is_as_written: bool = False, n_classes: int = 3, size: tuple[int, int] = (96, 96)) -> Any:
    recipe = find_recipe(name)
    settings = recipe.make(is_as_written=is_as_written)
    return finetune.Network(BackboneSpec(recipe.backbone, "random"), size, n_classes, settings)


def head_of(network: finetune.Network) -> list[str]:
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


def test_the_heads_of_the_recipes() -> None:
    assert head_of(built("resnet50-potato")) == ["Flatten", "512 relu", "3 softmax"]
    assert head_of(built("mobilenetv2-binary", n_classes=2)) == ["128 relu", "1 sigmoid"]
    with pytest.raises(DataError, match="two classes apart; here are 3"):
        built("mobilenetv2-binary")


def test_inception_trains_its_last_15_layers_and_leaves_batchnorm_alone_unless_as_written() -> None:
    keras = import_keras()
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
    tmp_path: Path, make_photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--backbone", "mobilenet_v2_0.35", "--weights", "random", "--input-size", "32x32", "--epochs", "2"]
    run = CliRunner().invoke(
        app, ["fit-keras", str(make_photos(n=24)), "--recipe", "mobilenetv2-binary", *small, "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["model"] == "mobilenetv2-binary"
    assert found["chosen"]["fed"] == "avg_pool"
    model = finetune.load_model(Path(found["path"]) / "model.keras")
    probabilities = np.array(model(np.zeros((2, 32, 32, 3), np.float32)))
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_compare_shows_a_recipe_as_it_should_be_and_as_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("tlfeat.recipes.RECIPES", [replace(r, settings=replace(r.settings, epochs=2)) for r in RECIPES])
    command = ["compare", "--heads", "none", "--keras", "none", "--no-pixels", "--recipe", "resnet50-potato", "--json"]
    run = CliRunner().invoke(app, command)
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
