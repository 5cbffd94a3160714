"""The Keras side: backbones, layers, weights; everything here starts TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SHARED, MakePhotos, needs_shared
from tlfeat import workspace
from tlfeat.backbones import catalog
from tlfeat.backbones.figures import list_backbones
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.graph import list_layers
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec, build_base
from tlfeat.backbones.preprocess import preprocess
from tlfeat.cache.store import open_cache
from tlfeat.errors import ModelError, UsageError, WeightsError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model
from tlfeat.types import Pixels

pytestmark = pytest.mark.keras

#: Below the working folder, before the tests have put theirs in its place.
NETWORKS_DIR = workspace.NETWORKS_DIR


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BackboneSpec:
    """MobileNet at 32 px with seeded weights under which values neither vanish nor explode.

    Keras' own random weights shrink every layer: its pooled rows are of size 1e-12, where any comparison passes.
    """
    base = build_base(BackboneSpec("mobilenet_0.25", "random", (32, 32)), (32, 32))
    rng = np.random.default_rng(0)
    for layer in base.layers:
        for weight in layer.weights:
            if len(weight.shape) == 4:
                is_depthwise = type(layer).__name__ == "DepthwiseConv2D"
                fan_in = np.prod(weight.shape[:2]) * (1 if is_depthwise else weight.shape[2])
                weight.assign(rng.normal(0, np.sqrt(4 / fan_in), weight.shape))
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    base.save_weights(path)
    return BackboneSpec("mobilenet_0.25", str(path), (32, 32))


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source(small: BackboneSpec) -> Any:
    return build_base(small, (32, 32))


NAMES = ["avg_pool", "conv_pw_5_relu", "conv_pw_5_relu:max", "conv_pw_5_relu:gem", "conv_pw_5_relu:flatten"]


def test_one_pass_gives_every_layer_as_keras_itself_does(small: BackboneSpec, source: Any, pixels: Pixels) -> None:
    keras = import_keras()
    rows = KerasEncoder(small, NAMES).encode(pixels)
    middle = keras.Model(source.inputs[0], [source.output, source.get_layer("conv_pw_5_relu").output])
    pooled, maps = (np.asarray(out) for out in middle(pixels.astype(np.float32) / 127.5 - 1, training=False))
    expected = {
        "avg_pool": pooled,
        "conv_pw_5_relu": maps.mean(axis=(1, 2)),
        "conv_pw_5_relu:max": maps.max(axis=(1, 2)),
        "conv_pw_5_relu:gem": (np.maximum(maps, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3),
        "conv_pw_5_relu:flatten": maps.reshape(20, -1),
    }
    for name in NAMES:
        assert rows[name].dtype == np.float32
        assert rows[name].std() > 0.01, "values that vanish prove nothing"
        np.testing.assert_allclose(rows[name], expected[name], atol=1e-4, err_msg=name)


def test_a_row_does_not_depend_on_what_else_is_in_its_batch(small: BackboneSpec, pixels: Pixels) -> None:
    encoder = KerasEncoder(small, NAMES, batch_size=8)  # converted by the test above
    whole = encoder.encode(pixels[:8])["avg_pool"]
    alone = encoder.encode(pixels[3:4])["avg_pool"]
    shifted = encoder.encode(pixels[2:8])["avg_pool"]
    assert alone.tobytes() == whole[3:4].tobytes()
    assert shifted.tobytes() == whole[2:8].tobytes()


def test_pixels_are_not_changed(small: BackboneSpec, pixels: Pixels) -> None:
    before = pixels.copy()
    KerasEncoder(small, NAMES).encode(pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_preprocessing_is_that_of_keras(mode: str, pixels: Pixels) -> None:
    import_keras()
    from keras.src.applications.imagenet_utils import preprocess_input

    expected = preprocess_input(pixels.astype(np.float32), mode=mode)
    np.testing.assert_allclose(np.asarray(preprocess(pixels.astype(np.float32), mode)), expected, atol=1e-4)


def test_a_wrong_layer_name_suggests_the_nearest(small: BackboneSpec) -> None:
    with pytest.raises(UsageError, match=r"No layer 'conv_pw_5_rellu' .* Did you mean 'conv_pw_5_relu'"):
        KerasEncoder(small, ["conv_pw_5_rellu"]).prepare()


def test_pooling_a_vector_is_refused() -> None:
    with pytest.raises(UsageError, match="a vector already"):
        KerasEncoder(BackboneSpec(DIGITS), ["avg_pool:max"]).prepare()


def test_random_weights_are_seeded() -> None:
    def weights(seed: int) -> list[Any]:
        return list(build_base(BackboneSpec("mobilenet_0.25", "random", (32, 32), seed=seed), (32, 32)).get_weights())

    one, same, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.fixture(scope="module")
def whole() -> Any:
    """MobileNet with its top."""
    return import_keras().applications.MobileNet(alpha=0.25, weights=None)


@pytest.mark.sample(".keras")
@pytest.mark.filterwarnings("ignore:.*HDF5 file.*legacy.*")  # that it is legacy is why it is tested
@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5"])
def test_weights_come_from_a_file_with_or_without_the_top(
    source: Any, whole: Any, tmp_path: Path, pixels: Pixels, ending: str, eagerly: None
) -> None:
    path = tmp_path / f"w{ending}"
    source.save_weights(path) if ending == ".weights.h5" else source.save(path)
    spec = BackboneSpec("mobilenet_0.25", str(path), (32, 32))
    rows = KerasEncoder(spec, ["avg_pool"], runtime="tensorflow").encode(pixels)
    expected = np.asarray(source(pixels.astype(np.float32) / 127.5 - 1, training=False))
    assert expected.std() > 0.01
    np.testing.assert_allclose(rows["avg_pool"], expected, atol=1e-4)

    top = tmp_path / f"top{ending}"
    whole.save_weights(top) if ending == ".weights.h5" else whole.save(top)
    base = build_base(BackboneSpec("mobilenet_0.25", str(top), (32, 32)), (32, 32))
    assert np.isfinite(base(pixels.astype(np.float32) / 127.5 - 1, training=False)).all()
    ours, theirs = base.get_layer("conv_pw_13").get_weights(), whole.get_layer("conv_pw_13").get_weights()
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one, other)


def test_efficientnet_from_a_file_is_the_graph_that_its_imagenet_weights_were_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras adds a Rescaling layer for weights="imagenet" alone; without it rows are wrong without an error.

    That is where its graph begins: one block of it is enough.
    """
    keras = import_keras()
    from keras.src.applications.efficientnet import DEFAULT_BLOCKS_ARGS, EfficientNet

    first = functools.partial(
        EfficientNet, 1.0, 1.0, 224, blocks_args=DEFAULT_BLOCKS_ARGS[:1], name="efficientnetb0", weights_name="b0"
    )
    monkeypatch.setattr(keras.applications, "EfficientNetB0", first)
    path = tmp_path / "b0.weights.h5"
    random = build_base(BackboneSpec("efficientnet_b0", "random", (32, 32)), (32, 32))
    random.save_weights(path)
    loaded = build_base(BackboneSpec("efficientnet_b0", str(path), (32, 32)), (32, 32))
    kinds = [type(layer).__name__ for layer in loaded.layers]
    assert kinds.count("Rescaling") == 2
    assert [type(layer).__name__ for layer in random.layers].count("Rescaling") == 1


def test_weights_that_do_not_fit_say_what_was_expected_and_nothing_more(tmp_path: Path) -> None:
    keras = import_keras()
    path = tmp_path / "w.weights.h5"
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]).save_weights(path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")  # Keras gives one for every layer
        with pytest.raises(WeightsError, match=r"does not fit mobilenet_0.25.*keras.applications.MobileNet, with or"):
            build_base(BackboneSpec("mobilenet_0.25", str(path), (32, 32)), (32, 32))
    assert [str(warning.message) for warning in seen] == []


def test_weights_of_another_backbone_name_it(small: BackboneSpec) -> None:
    with pytest.raises(WeightsError, match=r"does not fit mobilenet_v2_0\.35: .*Use --backbone mobilenet_0\.25\."):
        build_base(BackboneSpec("mobilenet_v2_0.35", small.weights, (32, 32)), (32, 32))


def test_no_network_says_which_file_to_fetch_and_how_to_pass_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_keras()
    from keras.src.utils import file_utils

    def offline(*args: object, **kwargs: object) -> str:
        sys.stdout.write("Downloading data from ...")
        raise Exception("URL fetch failure on ...: None -- [Errno -2] Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "get_file", offline)
    entry = catalog.find("mobilenet_v2_0.35")
    with pytest.raises(WeightsError, match=f"{entry.weights_file}.*--weights"):
        _ = KerasEncoder(BackboneSpec("mobilenet_v2_0.35"), ["avg_pool"]).fingerprint
    assert capsys.readouterr().out == "", "stdout is for results"


def test_layers_lists_what_can_be_an_embedding(small: BackboneSpec) -> None:
    found = {info.name: info for info in list_layers(small)}
    assert found["avg_pool"].width == 256
    assert found["conv_pw_5_relu"].is_reachable
    assert not found[next(iter(found))].is_reachable  # the input


def test_the_shipped_backbone_is_listed_as_it_is() -> None:
    listed = list_backbones()[0]
    base = build_base(BackboneSpec(DIGITS), tuple(listed["input_size"]))
    assert (listed["width"], listed["parameters"]) == (base.output_shape[-1], base.count_params())


def test_a_user_s_own_model_needs_preprocess_and_then_works(tmp_path: Path, pixels: Pixels) -> None:
    keras = import_keras()
    path = tmp_path / "mine.keras"
    inputs = keras.Input((24, 20, 3))
    x = keras.layers.Conv2D(5, 3, name="conv")(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save(path)
    with pytest.raises(UsageError, match="--preprocess"):
        BackboneSpec(str(path))
    encoder = KerasEncoder(BackboneSpec(str(path), preprocess="0-1"), ["avg_pool", "conv:max"])
    assert encoder.input_size == (24, 20)
    rows = encoder.encode(np.full((2, 24, 20, 3), 255, np.uint8))
    assert {name: r.shape for name, r in rows.items()} == {"avg_pool": (2, 5), "conv:max": (2, 5)}


def test_a_model_file_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_bytes(b"nonsense")
    spec = BackboneSpec(str(tmp_path / "x.keras"), preprocess="tf", input_size=(8, 8))
    with pytest.raises(WeightsError, match="cannot be loaded as a Keras model"):
        KerasEncoder(spec, ["avg_pool"]).prepare()


# --- from images to a score ------------------------------------------------------------------------------------


def test_a_model_whose_weights_have_changed_is_refused(
    small_network: Path, make_photos: MakePhotos, tmp_path: Path
) -> None:
    weights = shutil.copy(small_network, tmp_path / "w.keras")
    job = plan_extraction(make_photos(n=6), backbone=str(weights), preprocess="tf")
    with open_data(job.run().cache, seed=0) as data:
        result = fit_sklearn(data, "ridge", is_searched=False).result
    assert Model(Path(result.model)).classes == ["cat", "dog"]
    with weights.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"encoder cannot be rebuilt .*weights: fitted with"):
        Model(Path(result.model))


def test_second_extract_starts_no_tensorflow(tmp_path: Path) -> None:
    plan_extraction(layers=["avg_pool"]).run()
    code = (
        "import sys; sys.argv = ['tlfeat', 'extract', '--layer', 'avg_pool', '--json']\n"
        "from tlfeat.cli.app import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules and 'sklearn' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert '"n_embedded": 0' in run.stdout


def test_network_extraction_killed_in_the_middle_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tlfeat", "extract", "--batch-size", "1", "--layer", "avg_pool", "-q"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    KerasEncoder(BackboneSpec(DIGITS), ["avg_pool"]).prepare()
    for folder in (whole, killed):  # converted already, so that no process has to start TensorFlow
        shutil.copytree(workspace.NETWORKS_DIR, folder / NETWORKS_DIR)
    with contextlib.chdir(whole):
        plan_extraction(layers=["avg_pool"], batch_size=1).run()
    process = subprocess.Popen(command, cwd=killed)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the table of pending images is written when embedding begins
        found = list((killed / "cache").glob("*.h5"))
        if found and b"avg_pool" in found[0].read_bytes():
            break
        time.sleep(0.005)
    time.sleep(0.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed: the test shows nothing"
    with open_cache(found[0]) as cache:
        n_rows = cache.n_rows("avg_pool")
    assert 0 < n_rows < 500
    again = subprocess.run([*command, "--json"], cwd=killed, check=True, capture_output=True, text=True)
    with open_cache(next((whole / "cache").glob("*.h5"))) as one, open_cache(found[0]) as other:
        keys = one.table.keys
        assert json.loads(again.stdout)["n_embedded"] == len(set(keys)) - n_rows
        assert one.read("avg_pool", keys).tobytes() == other.read("avg_pool", keys).tobytes()


@needs_shared
def test_real_weights_reach_the_accuracy_that_right_preprocessing_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every eighth image a plain script with Keras and scikit-learn has 96.8 %, and 68 % without preprocessing."""
    import tarfile

    with tarfile.open(SHARED / "data" / "cats_dogs.tar") as archive:
        members = sorted((member for member in archive if member.isfile()), key=lambda member: member.name)
        archive.extractall(tmp_path, members[::8], filter="data")
    monkeypatch.chdir(tmp_path)
    job = plan_extraction(
        tmp_path / "cats_dogs",
        backbone="mobilenet_v2_0.35",
        weights=str(SHARED / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"),
    )
    with open_data(job.run().cache, seed=0) as data:
        assert (data.split.info.origin, data.split.info.n_test) == ("given", 63)
        assert fit_sklearn(data, "logreg").result.score.accuracy == pytest.approx(0.968, abs=0.033)


def with_layer_called(name: str, folder: Path) -> BackboneSpec:
    """A network of 8 px with one layer of that name, saved in `folder`."""
    keras = import_keras()
    pixels = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(2, 3, name=name)(pixels)
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="avg_pool")(maps)).save(folder / "n.keras")
    return BackboneSpec(str(folder / "n.keras"), preprocess="tf")


@pytest.mark.parametrize("name", ["a=b", "a b", "été", "a+b", "猫"])
def test_a_layer_that_tensorflow_cannot_run_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    spec = with_layer_called(name, tmp_path)
    with pytest.raises(WeightsError, match=rf"^TensorFlow cannot run a layer called '{re.escape(name)}'") as caught:
        KerasEncoder(spec, ["avg_pool"]).prepare()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a>b", "_a", "-a", "a.b"])
def test_a_layer_of_an_unusual_name_is_embedded(name: str, tmp_path: Path) -> None:
    spec = with_layer_called(name, tmp_path)
    rows = KerasEncoder(spec, [name, "avg_pool"]).encode(np.zeros((3, 8, 8, 3), np.uint8))
    assert [rows[layer].shape for layer in (name, "avg_pool")] == [(3, 2), (3, 2)]
