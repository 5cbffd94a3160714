"""A Keras model in memory as an encoder: the same as its ``.keras`` file would be, without the file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.preprocess import PREPROCESS, preprocess
from tlfeat.errors import UsageError
from tlfeat.workspace import safe_name


def is_keras_model(backbone: object) -> bool:
    """Whether it looks like a Keras model; Keras is not imported to see it."""
    return all(hasattr(backbone, name) for name in ("layers", "get_weights", "get_config", "name"))


def mode_of(how: str | Callable[[Any], Any] | None) -> str:
    """Return the name in `PREPROCESS` of what is done to pixels: the name itself, or a function that does the same.

    A function is tried on a few pixels, so that ``keras.applications.resnet50.preprocess_input`` is "caffe".

    Raises
    ------
    UsageError
        Nothing was said, or the function does something else.
    """
    told = "; ".join(f"'{name}': {what}" for name, what in PREPROCESS.items())
    if how is None:
        raise UsageError(f"A Keras model was received: say how its pixels are scaled with preprocess=. {told}.")
    if isinstance(how, str):
        return how  # the spec checks it
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 3, 3)).astype(np.float32)
    found = np.asarray(how(pixels.copy()))
    for mode in PREPROCESS:
        if found.shape == pixels.shape and np.allclose(found, np.asarray(preprocess(pixels, mode)), atol=1e-3):
            return mode
    raise UsageError(
        f"preprocess={getattr(how, '__name__', how)} does none of what tlfeat knows. Put it into the model as a layer "
        f"and say preprocess='none'. Known: {told}."
    )


class ModelEncoder(KerasEncoder):
    """A frozen copy of a Keras model as an `Encoder`; the model itself is not changed, and may train on.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, with one input of images.
    layers : sequence of str
        As of `KerasEncoder`; ``avg_pool`` is the average of its last map where no layer has that name.
    preprocess : str or callable
        What is done to pixels of 0 to 255 before: a name in `PREPROCESS`, or a function that does the same.
    input_size : tuple of int, optional
        Height and width; the model's own by default.
    **options
        Of `KerasEncoder`.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[str],
        *,
        preprocess: str | Callable[[Any], Any] | None,
        input_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        mode = mode_of(preprocess)
        name = f"{safe_name(model.name)}.keras"  # there is no such file: it says that the model is the user's own
        super().__init__(
            BackboneSpec(name, input_size=input_size or _size_of(model), preprocess=mode), layers, **options
        )
        self._model, self._weights = model, model.get_weights()  # copies, which later training does not change
        self._digest = model_digest(model)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """As of a model file, with the digest of architecture and weights in place of that of the file."""
        return {
            "backbone": "own model",
            "weights": f"sha256:{self._digest}",
            "input_size": list(self.input_size),
            "preprocess": self.spec.mode,
            "resize": self.resize,
            "dtype": self.dtype,
        }

    def _base(self) -> Any:
        copy = import_keras().models.clone_model(self._model)
        copy.set_weights(self._weights)
        return copy


def model_digest(model: Any) -> str:
    """Return what changes with every weight of a model and with its architecture."""
    found = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        found.update(str(weights.shape).encode())
        found.update(np.ascontiguousarray(weights).tobytes())
    return found.hexdigest()


def _size_of(model: Any) -> tuple[int, int]:
    """Return height and width of the input of a model; a `UsageError` where it states none."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise UsageError(
            f"The Keras model '{model.name}' takes {shapes or 'nothing yet: it is not built'}. Expected a Functional "
            f"or Sequential model with one input of shape (None, height, width, 3)."
        )
    height, width = inputs[0].shape[1:3]
    if height is None or width is None:
        raise UsageError(f"The Keras model '{model.name}' takes any size: say one with input_size=(height, width).")
    return int(height), int(width)
