"""A folder of weights that somebody else wrote: what it says of itself, and its tensors, with no code of it run.

Two forms are read: that of Hugging Face (``config.json`` with a ``model_type``, weights as safetensors) and a Keras
preset (``config.json`` with a ``registered_name``, weights as HDF5). Other files are left alone: a
``pytorch_model.bin`` is a pickle, which runs code when it is read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_hub
from tlfeat.errors import WeightsError
from tlfeat.files import MAX_MODEL_BYTES, check_regular, open_regular, read_regular

CONFIG = "config.json"

_TENSORS, _INDEX, _PRESET = "model.safetensors", "model.safetensors.index.json", "model.weights.h5"

_PLAIN = re.compile(r"[\w.-]+\.safetensors")

#: Twenty thousand names of classes are 1 MB.
_MAX_JSON_BYTES = 16 << 20

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """What `open_folder` found.

    Attributes
    ----------
    path : Path
    config : dict
        ``config.json``.
    files : tuple of Path
        The weights, in the order of their names.
    """

    path: Path
    config: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def is_preset(self) -> bool:
        """Whether it is Keras' own form."""
        return "registered_name" in self.config

    @property
    def kind(self) -> str:
        """What it says that it is: the ``model_type`` of Hugging Face, or the class of Keras."""
        if self.is_preset:
            return str(self.config["registered_name"]).rpartition(">")[2]
        return str(self.config["model_type"])

    def digest(self, more: Iterable[str] = ()) -> str:
        """Return ``sha256:...`` of the configuration, the weights and `more` files of the folder, by name."""
        found = hashlib.sha256()
        for path in [self.path / CONFIG, *self.files, *(self.path / name for name in more)]:
            try:
                with open_regular(path, max_bytes=MAX_MODEL_BYTES) as file:
                    found.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
            except OSError as error:
                raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
        return f"sha256:{found.hexdigest()}"

    def json(self, name: str) -> dict[str, Any]:
        """Return another JSON file of the folder; empty where it is not there."""
        return dict(read_json(self.path / name)) if (self.path / name).exists() else {}


def open_folder(path: Path) -> WeightsFolder:
    """Read what a folder of weights says of itself.

    Raises
    ------
    WeightsError
        It is not there, is in no form that is known, or a file that it names is missing, cut off or not regular.
    """
    if not path.is_dir():
        what = "is a file; expected a folder with config.json and its weights" if path.exists() else "does not exist"
        raise WeightsError(f"The weights folder {path} {what}.")
    if not (path / CONFIG).exists():
        raise WeightsError(f"{path} is no folder of weights: it has no {CONFIG}.")
    config = read_json(path / CONFIG)
    is_named = isinstance(config.get("registered_name"), str) or isinstance(config.get("model_type"), str)
    if not is_named:
        raise WeightsError(f"{path / CONFIG} names neither a model_type (Hugging Face) nor a registered_name (Keras).")
    folder = WeightsFolder(path, config, tuple(_weights_in(path, is_preset="registered_name" in config)))
    for file in folder.files:
        try:
            check_regular(file, max_bytes=MAX_MODEL_BYTES)
        except OSError as error:
            raise WeightsError(f"The weights {file} cannot be read: {error.strerror or error}.") from error
    return folder


def _weights_in(path: Path, *, is_preset: bool) -> Iterator[Path]:
    wanted = _PRESET if is_preset else _TENSORS
    if (path / wanted).exists():
        yield path / wanted
        return
    if not is_preset and (path / _INDEX).exists():
        places = read_json(path / _INDEX).get("weight_map")
        names = set(places.values()) if isinstance(places, dict) else set()
        if not names or not all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names):
            raise WeightsError(f"{path / _INDEX} does not say in which files the weights are.")
        yield from (path / name for name in sorted(names))
        return
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise WeightsError(
            f"{path} has its weights in {pickles[0]} alone, a pickle, which can run code when it is read. Fetch "
            f"{wanted}, or save it again with transformers: model.save_pretrained(FOLDER)."
        )
    raise WeightsError(f"{path} has no {wanted}.")


def read_json(path: Path, kind: type = dict, *, max_bytes: int = _MAX_JSON_BYTES) -> Any:
    """Return a JSON file of a folder, an object or a list; a `WeightsError` for anything else."""
    try:
        found = json.loads(read_regular(path, max_bytes=max_bytes))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: it is no JSON.") from error
    if not isinstance(found, kind):
        raise WeightsError(f"{path} is no JSON {'list' if kind is list else 'object'}.")
    return found


class Tensors:
    """The safetensors of a folder, as the converters of KerasHub ask for them; what was asked for is noted.

    A name is found as it stands, or with the name of the part before it (``vit.embeddings.cls_token`` in a file that
    was saved from the part alone is ``embeddings.cls_token``, and the other way round).
    """

    def __init__(self, folder: WeightsFolder) -> None:
        self.folder = folder
        self._opened: list[Any] = []
        self._file_of: dict[str, Any] = {}
        self._asked: set[str] = set()
        for path in folder.files:
            opened = _open_tensors(path)
            self._opened.append(opened)
            self._file_of |= dict.fromkeys(opened.keys(), opened)

    @property
    def n_numbers(self) -> int:
        """All tensors together."""
        return sum(math.prod(file.get_slice(name).get_shape()) for name, file in self._file_of.items())

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._opened:
            opened.__exit__(None, None, None)

    def get_tensor(self, name: str) -> npt.NDArray[Any]:
        """Return a tensor as float32; a `WeightsError` where there is none of that name."""
        found = self._find(name)
        self._asked.add(found)
        array = np.asarray(self._file_of[found].get_tensor(found))
        return array.astype(np.float32) if array.dtype.kind not in "iub" else array

    def _find(self, name: str) -> str:
        if name in self._file_of:
            return name
        without = name.partition(".")[2]
        if without and without in self._file_of:
            return without
        ending = [held for held in self._file_of if held.endswith(f".{name}")]
        if len(ending) == 1:
            return ending[0]
        raise WeightsError(f"{self.folder.path} lacks the tensor {name}, which a {self.folder.kind} has.")

    def port_weight(self, keras_variable: Any, hf_weight_key: str, hook_fn: Callable[..., Any] | None = None) -> None:
        """Give a Keras variable its tensor, changed by `hook_fn`; a `WeightsError` where it does not fit."""
        array, shape = self.get_tensor(hf_weight_key), tuple(keras_variable.shape)
        if not _fits(array.shape, shape):
            raise WeightsError(
                f"{self.folder.path} does not fit: its {hf_weight_key} is {'x'.join(map(str, array.shape))}, and "
                f"{self.folder.path / CONFIG} makes a network with {'x'.join(map(str, shape))} there."
            )
        array = hook_fn(array, list(shape)) if hook_fn else array
        keras_variable.assign(array.reshape(shape))

    def refuse_others(self, passed_over: Sequence[str]) -> None:
        """Raise `WeightsError` where there are tensors that nobody asked for and none of the expressions names."""
        pattern = re.compile("|".join(f"(?:{each})" for each in passed_over) or r"(?!)")
        left = sorted(name for name in self._file_of if name not in self._asked and not pattern.search(name))
        if left:
            raise WeightsError(
                f"{self.folder.path} has {len(left)} tensors that the network of its {CONFIG} has not, such as "
                f"{left[0]}: the two do not belong together."
            )


def _fits(held: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return whether a shape is another one with its axes in another order, or with neighbours made one."""
    sizes = sorted(n for n in held if n != 1)
    for cuts in itertools.product((False, True), repeat=max(len(wanted) - 1, 0)):
        merged = list(wanted[:1])
        for is_cut, n in zip(cuts, wanted[1:], strict=True):
            if is_cut:
                merged.append(n)
            else:
                merged[-1] *= n
        if sorted(n for n in merged if n != 1) == sizes:
            return True
    return False


def _open_tensors(path: Path) -> Any:
    safetensors = import_hub("safetensors")
    try:
        return safetensors.safe_open(path, framework="np").__enter__()
    except Exception as error:  # the library's own SafetensorError, for anything that it does not like
        raise WeightsError(f"{path} is damaged or no safetensors file: {str(error).strip().rstrip('.')}.") from error
