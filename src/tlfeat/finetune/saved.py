"""A trained network as a file, and what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.stored_weights import load_network
from tlfeat.errors import ModelError
from tlfeat.extract.plan import DEFAULT_BACKBONE
from tlfeat.files import check_saved
from tlfeat.finetune.network import Network
from tlfeat.finetune.settings import TrainSettings
from tlfeat.images.decode import Picture, decode_batches
from tlfeat.types import Pixels

#: Images whose probabilities are computed at once.
_BATCH_SIZE = 32


def predict_pixels(model: Any, pixels: Pixels, *, batch_size: int = 32) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes) of uint8 pixels (n_images, height, width, 3).

    The last batch is padded to `batch_size`: every new shape would be traced again, for half a second.
    """
    batches = []
    for start in range(0, len(pixels), batch_size):
        batch = np.zeros((batch_size, *pixels.shape[1:]), np.float32)
        n = len(pixels[start : start + batch_size])
        batch[:n] = pixels[start : start + batch_size]
        batches.append(np.asarray(model.predict_on_batch(batch))[:n])
    return np.concatenate(batches).astype(np.float64)


def predict_files(
    model: Any, files: Sequence[Picture], size: tuple[int, int], resize: str, *, batch_size: int = 32
) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_files, n_classes), decoding included; every file must be readable."""
    batches = decode_batches(files, size, batch_size, resize)
    return np.concatenate([predict_pixels(model, pixels) for pixels in batches])


def save_model(model: Any, path: Path) -> None:
    """Save the whole network without the optimizer's state, which is twice as large as the weights."""
    model.compile()
    model.optimizer = None
    model.save(path)


def load_model(path: Path) -> Any:
    """Load what `save_model` wrote; Keras' safe mode refuses anything that would run foreign code."""
    check_saved(path)
    keras = import_keras()
    try:
        return load_network(keras, path)
    except Exception as error:  # a stranger's file: whatever Keras raises means that it cannot be used
        raise ModelError(f"{path} cannot be loaded as a Keras model: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``tlfeat summary`` prints.

    Attributes
    ----------
    text : str
        As Keras prints it.
    n_trainable, n_parameters : int
    frozen, trained : list of str
        Layers with weights, by what they do.
    """

    text: str
    n_trainable: int
    n_parameters: int
    frozen: list[str]
    trained: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts, without the text."""
        return {name: value for name, value in asdict(self).items() if name != "text"}


def summarise(
    settings: TrainSettings,
    *,
    model: Path | None = None,
    backbone: str | None = None,
    input_size: tuple[int, int] | None = None,
    preprocess: str | None = None,
    n_classes: int = 2,
) -> Summary:
    """Describe a saved network, or the one that `settings` would train, with random weights."""
    if model is not None:
        whole = load_model((model.parent if model.is_file() else model) / "model.keras")
    else:
        spec = BackboneSpec(backbone or DEFAULT_BACKBONE, "random", input_size, preprocess)
        whole = Network(spec, spec.size, n_classes, settings).whole
    lines: list[str] = []
    whole.summary(
        expand_nested=True, show_trainable=True, line_length=110, print_fn=lambda text, **_: lines.append(text)
    )
    layers = [
        layer for layer in whole._flatten_layers(include_self=False) if layer.weights and not hasattr(layer, "layers")
    ]
    return Summary(
        "\n".join(lines),
        int(sum(np.prod(w.shape) for w in whole.trainable_weights)),
        int(sum(np.prod(w.shape) for w in whole.weights)),
        [layer.name for layer in layers if not layer.trainable_weights],
        [layer.name for layer in layers if layer.trainable_weights],
    )
