"""Files of weights and models are told apart without Keras, so that a wrong one is refused at once."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import SHARED, MakePhotos, needs_shared
from tlfeat.backbones.catalog import BACKBONES, find
from tlfeat.backbones.network import DIGITS
from tlfeat.backbones.weights_files import backbone_of, check_weights_file, count_parameters, layer_names
from tlfeat.errors import UsageError, WeightsError
from tlfeat.extract.plan import plan_extraction

WEIGHTS = SHARED / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"


def weights(path: Path, n_parameters: int) -> Path:
    """Write a file with as many numbers, in the groups that Keras makes; they take no space."""
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv/vars/0", (n_parameters - 6,), np.float32)
        file.create_dataset("layers/conv/vars/1", (2, 3), np.float32)
        file.create_dataset("optimizer/vars/0", (1000,), np.float32)
        file.create_dataset("layers/dropout/seed_generator/vars/0", (2,), np.float32)
    return path


def test_no_two_backbones_have_the_same_number_of_parameters() -> None:
    counts = Counter(n for b in BACKBONES for n in (b.parameters, b.parameters + 1000 * (b.width + 1)))
    assert [n for n, times in counts.items() if times > 1] == []


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2_0.35", "efficientnet_b1"])
@pytest.mark.parametrize("has_top", [False, True], ids=["without-top", "with-top"])
def test_a_file_is_known_by_its_number_of_parameters(tmp_path: Path, name: str, has_top: bool) -> None:
    entry = find(name)
    path = weights(tmp_path / "w.h5", entry.parameters + has_top * 1000 * (entry.width + 1))
    assert backbone_of(path) == name
    check_weights_file(path, name)
    with pytest.raises(WeightsError, match=rf"w\.h5 does not fit vgg16: .* of {name}\. Use --backbone {name}\."):
        check_weights_file(path, "vgg16")


def test_what_is_unsure_passes(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("404 not found")
    assert count_parameters(tmp_path / "text.h5") is None
    check_weights_file(tmp_path / "text.h5", "resnet50")
    check_weights_file(tmp_path / "absent.h5", "resnet50")
    assert count_parameters(weights(tmp_path / "own.h5", 12_345)) == 12_345
    check_weights_file(tmp_path / "own.h5", "resnet50")


def test_wrong_weights_end_before_a_network_is_built(make_photos: MakePhotos, tmp_path: Path) -> None:
    file = weights(tmp_path / "w.h5", find("mobilenet_v2_0.5").parameters)
    with pytest.raises(WeightsError, match=r"Use --backbone mobilenet_v2_0\.5"):
        plan_extraction(make_photos(n=3), backbone="resnet50", weights=str(file))


@needs_shared
def test_real_weights_are_known() -> None:
    assert backbone_of(WEIGHTS) == "mobilenet_v2_0.35"


# --- layers of a model file -----------------------------------------------------------------------------------


def model_file(path: Path, class_name: str = "Functional") -> Path:
    layers = [{"class_name": "Dense", "config": {"name": name}} for name in ("pixels", "block_one", "block_two")]
    shaped = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 8, 8, 3]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": class_name, "config": {"layers": [shaped, *layers]}}))
    return path


def test_layers_of_a_model_file_are_read_without_building_it(tmp_path: Path) -> None:
    assert layer_names(model_file(tmp_path / "m.keras")) == ["input", "pixels", "block_one", "block_two"]
    assert layer_names(model_file(tmp_path / "own.keras", "MyModel")) is None
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert layer_names(tmp_path / "m.h5") is None


@pytest.mark.parametrize("layer", ["block_on", "block_on:max"])
def test_a_layer_that_a_model_file_lacks_is_refused_before_it_is_built(
    make_photos: MakePhotos, tmp_path: Path, layer: str
) -> None:
    file = model_file(tmp_path / "m.keras")
    with pytest.raises(UsageError, match=r"No layer 'block_on' in m\. Did you mean 'block_one'"):
        plan_extraction(make_photos(n=3), backbone=str(file), preprocess="tf", layers=["block_two", layer])
    job = plan_extraction(make_photos(n=3), backbone=str(file), preprocess="tf", layers=["avg_pool", "block_one:max"])
    assert job.encoder.layers == ("avg_pool", "block_one:max")


def test_a_layer_that_the_built_in_network_lacks_is_refused_before_it_is_built(make_photos: MakePhotos) -> None:
    with pytest.raises(UsageError, match=f"No layer 'blok_1' in {DIGITS}"):
        plan_extraction(make_photos(n=3), backbone=DIGITS, layers=["blok_1"])
