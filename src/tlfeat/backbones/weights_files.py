"""What a file of weights or of a whole model says of itself, read without Keras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones import catalog
from tlfeat.errors import WeightsError

#: Groups of a weights file that are no weights of the network.
_OTHER_GROUPS = {"optimizer", "optimizer_weights", "seed_generator"}

#: Classes of ImageNet, with which the weights of Keras' own top were trained.
_IMAGENET_CLASSES = 1000


def count_parameters(path: Path) -> int | None:
    """Return how many numbers the weights in an HDF5 file are; None where it is no such file."""
    import h5py

    n_parameters = 0

    def add(name: str, item: Any) -> None:
        nonlocal n_parameters
        if isinstance(item, h5py.Dataset) and not _OTHER_GROUPS & set(name.split("/")):
            n_parameters += int(np.prod(item.shape, dtype=np.int64))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(add)
    except OSError:
        return None
    return n_parameters or None


def backbone_of(path: Path) -> str:
    """Return the backbone of the catalog with as many parameters as the file has, with or without its top; "" if none.

    No two backbones have the same number (`tests/backbones/test_weights_files.py`).
    """
    n_parameters = count_parameters(path)
    for entry in catalog.BACKBONES:
        if n_parameters in (entry.parameters, entry.parameters + (entry.width + 1) * _IMAGENET_CLASSES):
            return entry.name
    return ""


def check_weights_file(path: Path, backbone: str) -> None:
    """Raise `WeightsError` where a file has the weights of another backbone; whatever is unsure passes."""
    other = backbone_of(path)
    if other and other != backbone:
        raise WeightsError(
            f"{path} does not fit {backbone}: it has the number of parameters of {other}. Use --backbone {other}."
        )


def layer_names(model_file: Path) -> list[str] | None:
    """Return the names of the layers of a ``.keras`` file; None where they cannot be told without building it."""
    if not zipfile.is_zipfile(model_file):
        return None
    with zipfile.ZipFile(model_file) as archive:
        model = json.loads(archive.read("config.json"))
    if model.get("class_name") not in ("Functional", "Sequential"):
        return None
    names = [layer.get("config", {}).get("name") for layer in model.get("config", {}).get("layers", [])]
    return names if all(isinstance(name, str) for name in names) else None
