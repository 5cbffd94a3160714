"""Weights that declare more than their file holds, and layers that want more than is stored, are refused unread."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.backbones.stored_weights import check_weights, load_network
from tlfeat.backbones.weights_files import check_file
from tlfeat.errors import ModelError, WeightsError
from tlfeat.finetune.saved import load_model


def packed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a/vars/0", data=np.zeros((6000, 2000), np.float32), compression="gzip")


def left_out(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a/vars/0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def of_many(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for i in range(6):
            file.create_dataset(f"a/vars/{i}", (2_000_000,), "f4")


def in_another_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a/vars/0", (4,), "f4", external=[("/dev/zero", 0, 16)])


def linked(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/")


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("a", layout)


BAD: list[tuple[Callable[[Path], None], str]] = [
    (packed, r"it holds weights of 48\.0 MB in 0\.\d MB"),
    (left_out, r"it holds weights of 4398\.0 GB in 0\.0 MB"),
    (of_many, r"it holds weights of 48\.0 MB in 0\.0 MB"),
    (in_another_file, "its weights lie in other files"),
    (linked, "its weights lie in other files"),
    (virtual, "its weights lie in other files"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[make.__name__ for make, _ in BAD])
@pytest.mark.parametrize("kind", ["alone", "stored", "deflated"])
def test_weights_that_are_not_in_their_file_are_refused_before_they_are_read(
    make: Callable[[Path], None], message: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.h5"
    make(path)
    if kind != "alone":
        path = in_archive(tmp_path / "model.keras", path.read_bytes(), is_packed=kind == "deflated")
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=message):
            check_file(path, "weights file")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    if kind == "stored":
        with pytest.raises(ModelError, match=message):
            load_model(path)


def in_archive(path: Path, weights: bytes, *, is_packed: bool = False, config: dict[str, Any] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
        archive.writestr("config.json", json.dumps(config or {}))
        archive.writestr("model.weights.h5", weights)
    return path


def test_numbers_of_weights_are_counted_wherever_they_lie(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/vars/0"] = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
        file["b"] = np.float32(2)
    content = (tmp_path / "w.h5").read_bytes()
    assert check_weights(tmp_path / "w.h5") == 1201
    for is_packed in (False, True):
        assert check_weights(in_archive(tmp_path / "m.keras", content, is_packed=is_packed)) == 1201
    (tmp_path / "no.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert check_weights(tmp_path / "no.h5") == 0


def test_weights_as_npz_in_an_archive_are_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("model.weights.npz", b"x")
    with pytest.raises(WeightsError, match="its weights are no HDF5"):
        check_file(tmp_path / "m.keras", "model file")


def forged(network: Path, to: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """Change the layers in config.json of a network."""
    with zipfile.ZipFile(network) as archive:
        config = json.loads(archive.read("config.json"))
        change(config["config"]["layers"])
        return in_archive(to, archive.read("model.weights.h5"), config=config)


def test_a_layer_that_wants_more_weights_than_are_stored_is_refused_before_it_takes_memory(
    small_network: Path, tmp_path: Path
) -> None:
    def widen(layers: list[dict[str, Any]]) -> None:
        layers[1]["config"]["filters"] = 400_000_000

    path = forged(small_network, tmp_path / "model.keras", widen)
    with pytest.raises(ModelError, match="its layer block1_conv wants more weights than the file has"):
        load_model(path)
    with pytest.raises(WeightsError, match="its layer block1_conv wants more weights than the file has"):
        build_base(BackboneSpec(str(path), preprocess="tf"), (16, 16))


def test_a_layer_that_makes_much_of_a_picture_is_refused(small_network: Path, tmp_path: Path) -> None:
    def enlarge(layers: list[dict[str, Any]]) -> None:
        layers[-1] |= {"class_name": "UpSampling2D", "config": {"name": "avg_pool", "size": [4000, 4000]}}
        layers[-1].pop("build_config", None)

    path = forged(small_network, tmp_path / "model.keras", enlarge)
    with pytest.raises(ModelError, match=r"its layer avg_pool gives 512,000,000 numbers for one picture"):
        load_model(path)


def test_a_sound_network_is_loaded_and_layers_are_as_they_were_before(small_network: Path) -> None:
    keras = import_keras()
    add_weight = keras.Layer.add_weight
    model = load_network(keras, small_network)
    assert model.count_params() == check_weights(small_network) == 846
    assert keras.Layer.add_weight is add_weight
    assert small_network.stat().st_size < 100_000
