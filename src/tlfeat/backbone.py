"""The Keras model: built once, all wanted layers as outputs, frozen, preprocessing inside.

Keras is imported inside the functions, so that naming a backbone, computing its fingerprint and finding that
nothing is missing cost no TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import catalog
from tlfeat.decode import RESIZE, Pixels
from tlfeat.encoder import PixelEncoder, Rows, check_pixels
from tlfeat.errors import UsageError, WeightsError, nearest
from tlfeat.example import digits_backbone_path

#: How a map (height, width, channels) becomes a vector.
POOLS = ("avg", "max", "gem", "flatten")

#: What is done to pixels of 0 to 255 before the first layer; the modes of keras.applications and two more.
PREPROCESS = {
    "tf": "x / 127.5 - 1",
    "caffe": "RGB to BGR, minus the ImageNet mean 103.939, 116.779, 123.68",
    "torch": "x / 255, minus the ImageNet mean 0.485, 0.456, 0.406, over 0.229, 0.224, 0.225",
    "0-1": "x / 255",
    "none": "x (the network rescales inside)",
}

#: The small network that ships with tlfeat; pretrained on the digits 0 to 4.
DIGITS = "digits_cnn"
DIGITS_WIDTH, DIGITS_PARAMETERS = 192, 191_392

_GEM_POWER = 3.0  # p of generalised-mean pooling, its usual starting value: Radenovic et al. 2018, section 3.2
_GEM_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Which network, with which weights, fed how: enough to build it again.

    Parameters
    ----------
    backbone : str
        A name of the catalog, ``digits_cnn``, or the path of a user's own ``.keras`` or ``.h5`` model.
    weights : str, default="imagenet"
        ``imagenet``, ``random`` or the path of a ``.weights.h5``, ``.h5`` or ``.keras`` file. Ignored for a
        user's own model, which brings its own.
    input_size : tuple of int, optional
        Height and width; the catalog's, or the model's own, by default.
    preprocess : str, optional
        One of `PREPROCESS`; the catalog's by default. Required for a user's own model.
    seed : int, default=0
        For random weights.
    """

    backbone: str
    weights: str = "imagenet"
    input_size: tuple[int, int] | None = None
    preprocess: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preprocess is not None and self.preprocess not in PREPROCESS:
            raise UsageError(
                f"No preprocessing '{self.preprocess}'. {nearest(self.preprocess, list(PREPROCESS), of='modes')}"
            )
        if self.is_own_model and self.preprocess is None:
            raise UsageError(
                f"{self.backbone} is your own model: say how its pixels are scaled with --preprocess "
                f"({', '.join(PREPROCESS)})."
            )
        if not self.is_own_model and self.backbone != DIGITS:
            catalog.find(self.backbone)

    @property
    def is_own_model(self) -> bool:
        """Whether the backbone is a file of the user's."""
        return self.backbone.endswith((".keras", ".h5", ".hdf5"))

    @property
    def name(self) -> str:
        """A short name for tables and files."""
        return Path(self.backbone).stem if self.is_own_model else self.backbone

    @property
    def model_file(self) -> Path | None:
        """The file that holds a whole model, or None for an architecture of the catalog."""
        if self.backbone == DIGITS:
            return digits_backbone_path()
        return Path(self.backbone) if self.is_own_model else None

    @property
    def mode(self) -> str:
        """The preprocessing in force."""
        if self.preprocess is not None:
            return self.preprocess
        return "tf" if self.backbone == DIGITS else catalog.find(self.backbone).preprocess

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; file names absolute, so that the spec holds in any working folder."""
        values = asdict(self)
        if self.is_own_model:
            values["backbone"] = str(Path(self.backbone).resolve())
        if self.weights not in ("imagenet", "random"):
            values["weights"] = str(Path(self.weights).resolve())
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BackboneSpec:
        """Build the spec from what `to_dict` gave."""
        size = values.get("input_size")
        return cls(**{**values, "input_size": tuple(size) if size else None})


class KerasEncoder:
    """A frozen Keras backbone as an `Encoder`: every wanted layer from one forward pass.

    Parameters
    ----------
    spec : BackboneSpec
    layers : sequence of str
        Names of Keras layers, ``avg_pool`` for the pooled output; ``NAME:POOL`` chooses the pooling of a map
        (``avg`` where nothing is said).
    batch_size : int, default=32
        Smaller batches are padded to it. The graph then always runs on the same shape, and a row does not depend
        on what else was in its batch: extraction that was killed and resumed gives the same bits.
    """

    def __init__(self, spec: BackboneSpec, layers: Sequence[str], *, batch_size: int = 32) -> None:
        self.spec = spec
        self.layers = tuple(dict.fromkeys(layers))
        self.batch_size = batch_size

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if self.spec.input_size is not None:
            return self.spec.input_size
        if self.spec.model_file is not None:
            return _stored_input_size(self.spec.model_file)
        return catalog.find(self.spec.backbone).input_size

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Architecture, digest of the weights, input size, preprocessing, resizing and dtype of the rows."""
        return {
            "backbone": "own model" if self.spec.is_own_model else self.spec.backbone,
            "weights": weights_digest(self.spec),
            "input_size": list(self.input_size),
            "preprocess": self.spec.mode,
            "resize": RESIZE,
            "dtype": "float32",
        }

    def prepare(self) -> None:
        """Import TensorFlow, build the model, load the weights, trace the graph (5 to 10 s)."""
        self.encode(np.zeros((1, *self.input_size, 3), np.uint8))

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        check_pixels(pixels, self.input_size)
        n = len(pixels)
        if n < self.batch_size:
            pixels = np.concatenate([pixels, np.zeros((self.batch_size - n, *pixels.shape[1:]), np.uint8)])
        outputs = self._forward(pixels)
        return {name: np.asarray(out, dtype=np.float32)[:n] for name, out in outputs.items()}

    @cached_property
    def _forward(self) -> Callable[[Pixels], dict[str, Any]]:
        keras = import_keras()
        import tensorflow as tf

        base = build_base(self.spec, self.input_size)
        outputs = {name: _embedding_output(base, self.spec, name) for name in self.layers}
        frozen = keras.Model(base.inputs[0], outputs)
        frozen.trainable = False

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, *self.input_size, 3), tf.uint8)], autograph=False
        )
        def forward(pixels: Any) -> Any:
            return frozen(preprocess(keras.ops.cast(pixels, "float32"), self.spec.mode), training=False)

        return forward  # type: ignore[no-any-return]


def make_encoder(spec: BackboneSpec | None, layers: Sequence[str], *, batch_size: int = 32) -> Any:
    """Return the encoder of `spec`, or the pixel baseline for None."""
    return PixelEncoder() if spec is None else KerasEncoder(spec, layers, batch_size=batch_size)


def import_keras() -> Any:
    """Import Keras on TensorFlow, quiet, with oneDNN on (worth 1.8 times on AMD, where it is off by default)."""
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _silent_stderr():  # TensorFlow 2.21 greets on file descriptor 2 before it has read its log level
        import keras
    # "5 out of the last 7 calls triggered tf.function retracing" when several networks train in one process
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what native code writes to stderr; it is shown after all if the body raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(kept, held_back.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def preprocess(x: Any, mode: str) -> Any:
    """Scale float32 RGB pixels of 0 to 255 as the backbone was trained; the only place where this is done.

    Parameters
    ----------
    x : float32 tensor of shape (n, height, width, 3)
    mode : str
        One of `PREPROCESS`.
    """
    if mode == "tf":
        return x / 127.5 - 1.0
    if mode == "caffe":
        return x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    if mode == "torch":
        mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
        return (x / 255.0 - mean) / std
    return x / 255.0 if mode == "0-1" else x


def weights_digest(spec: BackboneSpec) -> str:
    """Return what identifies the weights: ``sha256:...`` of the file, or ``random:SEED``.

    ``imagenet`` is downloaded by Keras here if it is not in Keras' own store yet.
    """
    if spec.model_file is not None:
        return _file_digest(spec.model_file)
    if spec.weights == "random":
        return f"random:{spec.seed}"
    return _file_digest(weights_file(spec))


def weights_file(spec: BackboneSpec) -> Path:
    """Return the file with the weights of a catalog architecture, downloading it by Keras' own means if needed."""
    if spec.weights != "imagenet":
        return Path(spec.weights)
    entry = catalog.find(spec.backbone)
    store = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / entry.weights_file
    if not store.exists():
        keras = import_keras()
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Keras says what it downloads on stdout, where results go
                getattr(keras.applications, entry.keras_name)(
                    include_top=False,
                    weights="imagenet",
                    input_shape=(*entry.input_size, 3),
                    **dict(entry.arguments),
                )
        except Exception as error:  # urllib, ssl and socket errors, wrapped by Keras in a bare Exception
            raise WeightsError(
                f"The ImageNet weights of {spec.backbone} are not on this machine and cannot be downloaded "
                f"({_short(error).replace(entry.weights_url, 'the server')}). Fetch {entry.weights_url} on another "
                f"machine and pass it with --weights {entry.weights_file}, or use --weights random to try things out."
            ) from error
    return store


def build_base(spec: BackboneSpec, input_size: tuple[int, int]) -> Any:
    """Return the Keras model from preprocessed pixels to the pooled output, with its weights.

    Raises
    ------
    WeightsError
        The file is absent, is no model, or does not fit the architecture.
    """
    import_keras().backend.clear_session()  # layers without a name of their own are then numbered from 0 again
    if spec.model_file is not None:
        return _load_model(spec.model_file)
    if spec.weights == "random":
        return _new_base(spec, input_size, None)
    path = weights_file(spec)
    if not path.exists():
        raise WeightsError(f"The weights file {path} does not exist.")
    try:
        return _new_base(spec, input_size, path)
    except UsageError:
        raise
    except Exception as error:  # Keras raises ValueError, KeyError, OSError, IndexError... for a misfit
        try:
            return _without_top(spec, input_size, path)
        except Exception:
            raise WeightsError(
                f"{path} does not fit {spec.backbone}: {_short(error)}. Expected weights of "
                f"keras.applications.{catalog.find(spec.backbone).keras_name}, with or without its top."
            ) from error


def _new_base(
    spec: BackboneSpec, input_size: tuple[int, int], weights: Path | None, *, include_top: bool = False
) -> Any:
    """Build an architecture of the catalog; `weights` of None are random.

    Weights are always loaded as "imagenet", with Keras' download answered by the file: EfficientNet builds another
    graph (one more Rescaling) for that very word, and without it the rows would be wrong without an error.
    """
    keras = import_keras()
    entry = catalog.find(spec.backbone)
    keras.utils.set_random_seed(spec.seed)
    kwargs: dict[str, Any] = dict(entry.arguments)
    if not include_top:
        kwargs |= {"pooling": "avg", "input_shape": (*input_size, 3)}
    make = getattr(keras.applications, entry.keras_name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input_shape.*")  # MobileNets: made for 224, run at another size
        if weights is None:
            try:
                return make(weights=None, include_top=include_top, **kwargs)
            except ValueError as error:
                raise UsageError(
                    f"{spec.backbone} at {input_size[0]}x{input_size[1]} pixels: {_short(error)}."
                ) from error
        with _download_answered_by(weights):
            return make(weights="imagenet", include_top=include_top, **kwargs)


@contextlib.contextmanager
def _download_answered_by(path: Path) -> Iterator[None]:
    from keras.src.utils import file_utils

    original = file_utils.get_file
    file_utils.get_file = lambda *args, **kwargs: str(path)
    try:
        yield
    finally:
        file_utils.get_file = original


def _without_top(spec: BackboneSpec, input_size: tuple[int, int], weights: Path) -> Any:
    """Load weights that include the classifier and copy those of the layers below it."""
    if catalog.find(spec.backbone).keras_name.startswith("EfficientNetB"):
        raise WeightsError("EfficientNet's weights are needed without the top")  # see `_new_base`: another graph
    whole = _new_base(spec, input_size, weights, include_top=True)
    import_keras().backend.clear_session()
    base = _new_base(spec, input_size, None)
    by_name = {layer.name: layer for layer in whole.layers}
    for layer in base.layers:
        if layer.weights:
            layer.set_weights(by_name[layer.name].get_weights())
    return base


def _load_model(path: Path) -> Any:
    keras = import_keras()
    if not path.exists():
        raise WeightsError(f"The model file {path} does not exist.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a stranger's file: whatever Keras raises means that it cannot be used
        raise WeightsError(f"{path} cannot be loaded as a Keras model: {_short(error)}.") from error
    if not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise WeightsError(f"{path}: expected a model with one input, received {type(model).__name__}.")
    return model


def _stored_input_size(path: Path) -> tuple[int, int]:
    """Read the input size out of a .keras file without importing Keras, or through Keras for an .h5 file."""
    import json
    import zipfile

    shape: list[int | None] = []
    if not path.exists():
        raise WeightsError(f"The model file {path} does not exist.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        layers = config.get("config", {}).get("layers", [])
        shapes = [layer.get("config", {}).get("batch_shape") for layer in layers]
        shape = next((s for s in shapes if s), [])
    if not shape:
        shape = list(_load_model(path).inputs[0].shape)
    if len(shape) != 4 or shape[1] is None or shape[2] is None or shape[3] != 3:
        raise UsageError(f"{path} takes {shape}; say the input size with --input-size HEIGHTxWIDTH (3 channels).")
    return int(shape[1]), int(shape[2])


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer of a backbone as ``tlfeat layers`` lists it."""

    index: int
    name: str
    type: str
    output_shape: tuple[int | None, ...]
    is_reachable: bool
    width: int | None  # columns with the default pooling


def list_layers(spec: BackboneSpec) -> list[LayerInfo]:
    """Return every layer of the backbone, in order, `avg_pool` first where no layer has that name."""
    base = build_base(spec, KerasEncoder(spec, ()).input_size)
    found = []
    for index, layer in enumerate(base.layers):
        shape = _output_shape(layer)
        is_reachable = shape is not None and len(shape) in (2, 3, 4) and shape[-1] is not None and index > 0
        width = shape[-1] if is_reachable and shape is not None else None
        found.append(LayerInfo(index, layer.name, type(layer).__name__, shape or (), is_reachable, width))
    if all(info.name != "avg_pool" for info in found):
        shape = _pooled_output(base, spec).shape
        found.append(LayerInfo(len(found), "avg_pool", "pooled output", tuple(shape), True, shape[-1]))
    return found


def list_backbones() -> list[dict[str, Any]]:
    """Return what ``tlfeat backbones`` lists: the catalog, and the network that ships with tlfeat."""
    digits = {
        "name": DIGITS,
        "keras_name": "",
        "input_size": (32, 32),
        "preprocess": "tf",
        "width": DIGITS_WIDTH,
        "parameters": DIGITS_PARAMETERS,
        "paper": "ships with tlfeat: benchmarks/pretrain_digits.py",
        "licence": "Apache-2.0",
    }
    return [digits, *(asdict(entry) for entry in catalog.BACKBONES)]


def _output_shape(layer: Any) -> tuple[int | None, ...] | None:
    try:
        output = layer.output
    except (AttributeError, ValueError):
        return None
    return tuple(output.shape) if hasattr(output, "shape") else None


def _embedding_output(base: Any, spec: BackboneSpec, name: str) -> Any:
    """Return the symbolic vector of shape (n, width) that `name` stands for."""
    layer_name, _, pool = name.partition(":")
    known = [layer.name for layer in base.layers]
    if layer_name == "avg_pool" and layer_name not in known:
        vector = _pooled_output(base, spec)
    elif layer_name in known:
        vector = base.get_layer(layer_name).output
        if not hasattr(vector, "shape"):
            raise UsageError(f"Layer '{layer_name}' has several outputs and cannot be an embedding.")
    else:
        raise UsageError(
            f"No layer '{layer_name}' in {base.name}. {nearest(layer_name, ['avg_pool', *known], of='layers')} "
            f"tlfeat layers lists all."
        )
    if len(vector.shape) == 2:
        if pool:
            raise UsageError(
                f"'{layer_name}' is a vector already, --pool does not apply. Name a layer with height and width."
            )
        return vector
    return _pool(vector, pool or "avg", layer_name)


def _pooled_output(base: Any, spec: BackboneSpec) -> Any:
    """A catalog backbone is built with its pooling; of any other model, the average of its last map."""
    if spec.model_file is not None:
        for layer in reversed(base.layers):
            shape = _output_shape(layer)
            if shape is not None and len(shape) == 4:
                return _pool(layer.output, "avg", layer.name)
    return base.outputs[0]


def _pool(maps: Any, pool: str, layer_name: str) -> Any:
    ops = import_keras().ops
    axes = tuple(range(1, len(maps.shape) - 1))
    if pool not in POOLS:
        raise UsageError(f"No pooling '{pool}'. {nearest(pool, list(POOLS), of='poolings')}")
    if pool == "avg":
        return ops.mean(maps, axis=axes)  # (n, c)
    if pool == "max":
        return ops.max(maps, axis=axes)  # (n, c)
    if pool == "gem":
        powered = ops.power(ops.maximum(maps, _GEM_FLOOR), _GEM_POWER)
        return ops.power(ops.mean(powered, axis=axes), 1.0 / _GEM_POWER)  # (n, c)
    if None in maps.shape[1:]:
        raise UsageError(f"'{layer_name}' has no fixed height and width and cannot be flattened.")
    return ops.reshape(maps, (-1, int(np.prod(maps.shape[1:]))))  # (n, h*w*c)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
