"""What a file of weights or of a whole model says of itself, read without Keras."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones import catalog
from tlfeat.backbones.stored_weights import check_weights
from tlfeat.errors import WeightsError
from tlfeat.files import MAX_MODEL_BYTES, check_archive, check_regular

#: Groups of a weights file that are no weights of the network.
_OTHER_GROUPS = {"optimizer", "optimizer_weights", "seed_generator"}

#: Classes of ImageNet, with which the weights of Keras' own top were trained.
_IMAGENET_CLASSES = 1000


def check_file(path: Path, what: str) -> None:
    """Raise `WeightsError` unless a file that is about to be read by a library is a regular one of a sound size.

    Parameters
    ----------
    path : Path
    what : str
        "weights file", "model file".
    """
    try:
        check_regular(path, max_bytes=MAX_MODEL_BYTES)
        if zipfile.is_zipfile(path):
            check_archive(path)
        check_weights(path)
    except FileNotFoundError as error:
        raise WeightsError(f"The {what} {path} does not exist.") from error
    except (zipfile.BadZipFile, RuntimeError, ValueError, KeyError) as error:  # what HDF5 and zipfile raise
        raise WeightsError(f"The {what} {path} is damaged: {error}.") from error
    except OSError as error:
        raise WeightsError(f"The {what} {path} cannot be read: {error.strerror or error}.") from error


def count_parameters(path: Path) -> int | None:
    """Return how many numbers the weights in an HDF5 file are; None where it is no such file."""
    import h5py

    n_parameters = 0

    def add(name: str, item: Any) -> None:
        nonlocal n_parameters
        if isinstance(item, h5py.Dataset) and not _OTHER_GROUPS & set(name.split("/")):
            n_parameters += int(np.prod(item.shape, dtype=np.int64))

    try:
        check_regular(path, max_bytes=MAX_MODEL_BYTES)
        with h5py.File(path, "r") as file:
            file.visititems(add)
    except (OSError, RuntimeError, ValueError, KeyError):  # what is damaged fails anywhere
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
    config = stored_config(model_file)
    layers = _layers_in(config)
    if config.get("class_name") not in ("Functional", "Sequential") or layers is None:
        return None
    names = [layer["config"].get("name") for layer in layers]
    return names if all(isinstance(name, str) for name in names) else None


def stored_config(model_file: Path) -> dict[str, Any]:
    """Return config.json of a ``.keras`` file; empty of any other kind of file.

    Raises
    ------
    WeightsError
        The file is not there, is no regular file, or its config.json cannot be read.
    """
    check_file(model_file, "model file")
    if not zipfile.is_zipfile(model_file):
        return {}
    try:
        with zipfile.ZipFile(model_file) as archive:
            config = json.loads(archive.read("config.json"))
    except (KeyError, ValueError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error) as error:  # damaged anywhere
        raise WeightsError(f"{model_file} is damaged: its config.json cannot be read.") from error
    return config if isinstance(config, dict) else {}


def input_shapes(model_file: Path) -> list[list[Any]]:
    """Return the shapes of the inputs that config.json of a ``.keras`` file states, the batch first."""
    shapes = [layer["config"].get("batch_shape") for layer in _layers_in(stored_config(model_file)) or []]
    return [shape for shape in shapes if isinstance(shape, list) and shape]


def _layers_in(config: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return what describes the layers; None where that is in no form that is known."""
    inside = config.get("config")
    layers = inside.get("layers") if isinstance(inside, dict) else None
    if not isinstance(layers, list):
        return None
    is_known = all(isinstance(layer, dict) and isinstance(layer.get("config"), dict) for layer in layers)
    return layers if is_known else None
