"""Which layer: cut points of a network by hand, and a choice that test images have no part in."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import MakePhotos
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.graph import CutPoint, _spread, list_cut_points
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cli.app import app
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.report.charts import to_svg
from tlfeat.report.finding import document, write_finding
from tlfeat.report.sweep import sentences, sweep_finding
from tlfeat.studies.sweep import Sweep, choose_depth, plan_sweep, sweep_layers
from tlfeat.types import Pixels, Rows


class DeepEncoder(PixelEncoder):
    """Three layers: noise, the mean colour (which tells the classes apart), and the mean colour with noise."""

    layers = ("noise", "colour", "faint")  # type: ignore[assignment]

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        colour = pixels.mean(axis=(1, 2)).astype(np.float32)  # (n, 3)
        seeds = pixels.reshape(len(pixels), -1).astype(np.int64).sum(axis=1)
        noise = np.stack([np.random.default_rng(seed).normal(size=3) for seed in seeds]).astype(np.float32)
        return {"noise": noise, "colour": colour, "faint": colour + 60 * noise}


def make_cache(photos: Path, path: Path) -> Path:
    return extract_rows(load_images(photos), DeepEncoder(), path).cache


def split_photos(make_photos: MakePhotos, folder: str, n_train: int = 16, n_test: int = 8) -> Path:
    """Return photographs with given train and test folders; the same pictures for every `folder`."""
    flat = make_photos(n=n_train + n_test, folder=f"{folder}-flat")
    root = flat.parent / folder
    for label in ("cat", "dog"):
        for i in range(n_train + n_test):
            to = root / ("train" if i < n_train else "test") / label / f"{i}.png"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(flat / label / f"{i}.png", to)
    return root


def swap_labels(folder: Path) -> None:
    (folder / "cat").rename(folder / "aside")
    (folder / "dog").rename(folder / "cat")
    (folder / "aside").rename(folder / "dog")


def run_sweep(cache: Path, layers: tuple[str, ...] = DeepEncoder.layers) -> Sweep:
    with open_data(cache, seed=0) as data:
        return sweep_layers(data, layers)


# --- cut points -----------------------------------------------------------------------------------------------


@pytest.mark.keras
def test_cut_points_of_a_branching_network_are_those_found_by_hand(tmp_path: Path) -> None:
    import keras
    from keras import layers as k

    inputs = keras.Input((16, 16, 3), name="pixels")
    x = k.Rescaling(1 / 255, name="scaled")(inputs)  # before the first kernel: no cut point
    x = k.Conv2D(4, 3, padding="same", name="stem")(x)  # 3*3*3*4 * 256 = 27,648 multiply-adds
    x = k.BatchNormalization(name="stem_bn")(x)
    stem = k.ReLU(name="stem_relu")(x)  # cut: the last of convolution, normalisation, activation
    x = k.Conv2D(4, 3, padding="same", name="left")(stem)  # within a branch: 36,864
    x = k.ReLU(name="left_relu")(x)
    x = k.Conv2D(4, 1, name="left_out")(x)  # 4,096
    x = k.Add(name="sum")([stem, x])
    x = k.ReLU(name="sum_relu")(x)  # cut: both branches have met
    x = k.Dropout(0.5, name="dropped")(x)  # passive: the name of the cut stays
    x = k.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(x)  # 3*3*4 * 64 = 2,304
    x = k.Conv2D(8, 1, name="point")(x)  # cut, with the depthwise one before: 2,048
    x = k.GlobalAveragePooling2D(name="pooled")(x)
    x = k.Dense(5, name="top")(x)  # cut: a vector: 40
    keras.Model(inputs, x).save(tmp_path / "own.keras")
    found = list_cut_points(BackboneSpec(str(tmp_path / "own.keras"), preprocess="none"))
    whole = 27_648 + 36_864 + 4_096 + 2_304 + 2_048 + 40
    assert [(cut.layer, cut.output_shape, cut.n_reused, cut.is_pooled_output) for cut in found] == [
        ("stem_relu", (16, 16, 4), 1, False),
        ("sum_relu", (16, 16, 4), 3, False),
        ("point", (8, 8, 8), 5, True),
        ("top", (5,), 6, False),
    ]
    assert {cut.n_weight_layers for cut in found} == {6}
    assert [cut.compute_share * whole for cut in found] == pytest.approx([27_648, 68_608, 72_960, 73_000])


@pytest.mark.sample("mobilenet_v2_0.35-some1-20", "digits_cnn-some2-5")
@pytest.mark.keras
@pytest.mark.parametrize(
    ("backbone", "some", "n"),
    [
        ("resnet50", ["conv2_block1_out", "conv3_block4_out", "conv5_block3_out"], 17),
        ("mobilenet_v2_0.35", ["block_3_expand_relu", "block_15_add", "out_relu"], 20),
        ("digits_cnn", ["stem_relu", "block1_relu", "block2_relu", "block3_relu", "block4_pool"], 5),
    ],
)
def test_cut_points_of_known_networks_are_their_blocks(backbone: str, some: list[str], n: int) -> None:
    found = list_cut_points(BackboneSpec(backbone, "random"))
    names = [cut.layer for cut in found]
    assert set(some) <= set(names)
    assert len(names) == n
    shares = [cut.compute_share for cut in found]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [cut.is_pooled_output for cut in found] == [False] * (n - 1) + [True]


def test_too_many_cut_points_keep_each_resolution_then_merges_then_spread() -> None:
    sizes = [32] * 10 + [16] * 10 + [8] * 10
    points = [CutPoint(f"l{i}", (size, size, 4), False, i, 30, i / 30) for i, size in enumerate(sizes)]
    merges = [i in (3, 14) for i in range(30)]
    assert _spread(points, merges, 3) == [9, 19, 29]  # the last of each resolution
    assert _spread(points, merges, 5) == [3, 9, 14, 19, 29]  # then where branches met
    assert _spread(points, merges, 6) == [3, 9, 14, 19, 24, 29]  # then the one farthest from those
    assert _spread(points[:4], merges[:4], 4) == [0, 1, 2, 3]


# --- the choice -----------------------------------------------------------------------------------------------


def test_the_layer_with_the_most_held_out_images_right_is_chosen(make_photos: MakePhotos, tmp_path: Path) -> None:
    found = run_sweep(make_cache(make_photos(n=24), tmp_path / "c.h5"))
    assert [depth.layer for depth in found.depths] == ["noise", "colour", "faint"]
    assert found.chosen == 1
    assert found.depths[1].result.held_out_accuracy == 1
    words = " ".join(sentences(found))
    assert words.startswith("Take colour: 100.0 % of the 38 training images are right when held out")
    assert "test images, which had no say in it" in words


def test_poisoned_test_labels_change_the_test_accuracy_and_not_the_choice(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    honest, poisoned = split_photos(make_photos, "honest"), split_photos(make_photos, "poisoned")
    swap_labels(poisoned / "test")
    one = run_sweep(make_cache(honest, tmp_path / "honest.h5"))
    other = run_sweep(make_cache(poisoned, tmp_path / "poisoned.h5"))
    held_out = [[depth.result.held_out_accuracy for depth in sweep.depths] for sweep in (one, other)]
    assert held_out[0] == held_out[1]
    assert (one.chosen, one.shallowest) == (other.chosen, other.shallowest) == (1, 1)
    assert one.depths[1].result.score.accuracy == 1
    assert other.depths[1].result.score.accuracy == 0  # "colour" is wrong on all: whoever looked would not take it
    assert "best of 3 looks" in " ".join(sentences(other))


def test_equal_layers_give_the_shallower_and_the_one_standard_error_rule_the_shallowest() -> None:
    # one standard error of 90 % of 100 images is 3 points
    assert choose_depth([0.5, 0.88, 0.9, 0.9], 100) == (2, 1)
    assert choose_depth([0.5, 0.86, 0.9, 0.89], 100) == (2, 2)
    assert choose_depth([None, 0.7, None], 100) == (1, 1)
    assert choose_depth([None, None], 100) == (None, None)
    assert choose_depth([0.99, 1.0], 100) == (1, 1)  # no error at 100 %: nothing else is as good


def test_without_held_out_images_no_layer_is_recommended(make_photos: MakePhotos, tmp_path: Path) -> None:
    found = run_sweep(make_cache(split_photos(make_photos, "few", n_train=1), tmp_path / "c.h5"))
    assert found.chosen is None
    assert "Label one more image" in sentences(found)[0]
    assert to_svg(sweep_finding(found).chart).count("<polyline") == 1  # the test images alone


def test_a_result_of_before_held_out_accuracies_is_fitted_again(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = make_cache(make_photos(n=12), tmp_path / "c.h5")
    file = Path(run_sweep(cache).depths[1].result.model) / "result.json"
    document = json.loads(file.read_text())
    del document["held_out_accuracy"]
    file.write_text(json.dumps(document))
    assert run_sweep(cache).depths[1].result.held_out_accuracy == 1


def test_bad_layers_and_heads_are_named(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = make_cache(make_photos(n=8), tmp_path / "c.h5")
    with pytest.raises(UsageError, match="No layer 'color' in this cache"):
        run_sweep(cache, ("noise", "color"))
    with open_data(cache, seed=0) as data, pytest.raises(UsageError, match="No head 'logreq'"):
        sweep_layers(data, ("noise",), head="logreq")
    with pytest.raises(UsageError, match="'pixels' has one layer"):
        plan_sweep(tmp_path / "photos", backbone="pixels")
    with pytest.raises(UsageError, match="was not made by a Keras backbone"):
        plan_sweep(cache=cache)


def test_one_class_is_an_error(make_photos: MakePhotos, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="At least two classes"):
        run_sweep(make_cache(make_photos(n=8, classes=("cat",)), tmp_path / "c.h5"))


# --- what is written ------------------------------------------------------------------------------------------


def test_the_report_has_every_layer_in_every_file_and_nothing_unescaped(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    found = sweep_finding(run_sweep(make_cache(make_photos(n=8, classes=("<b>cat", "dog")), tmp_path / "c&<i>.h5")))
    paths = write_finding(found, tmp_path / "report")
    assert {path.suffix for path in paths.values()} == {".md", ".csv", ".json", ".html", ".svg"}
    for ending in ("md", "csv", "html", "svg"):
        text = paths[ending].read_text()
        assert all(layer in text for layer in DeepEncoder.layers), ending
    assert "<i>" not in paths["html"].read_text()
    assert "default-src 'none'" in paths["html"].read_text()
    assert json.loads(paths["json"].read_text())["chosen"] == "colour" == document(found)["chosen"]
    root = ET.fromstring(paths["svg"].read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 2


@pytest.mark.keras
def test_the_command_sweeps_the_example_and_a_second_one_embeds_and_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "NETWORKS_DIR", tmp_path / "networks")
    run = CliRunner().invoke(app, ["sweep", "--json"])
    assert run.exit_code == 0, run.output
    first = json.loads(run.stdout)
    assert [line["layer"] for line in first["lines"]] == [
        *("stem_relu", "block1_relu", "block2_relu", "block3_relu"),
        "avg_pool",
    ]
    assert first["chosen"] == max(first["lines"], key=lambda line: line["held_out_accuracy"])["layer"]
    monkeypatch.setattr("tlfeat.studies.sweep.list_cut_points", lambda spec: pytest.fail("the network was built again"))
    again = CliRunner().invoke(app, ["sweep"])
    assert again.exit_code == 0, again.output
    assert "0 embedded, 497 known already" in again.stderr
    assert "Next: tlfeat compare" in again.stderr
