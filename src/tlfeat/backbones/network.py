"""A description of a network becomes a Keras model with its weights, and pixels become its input.

Keras is imported inside the functions, so that naming a network and finding its weights' digest cost no TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from tlfeat.backbones import catalog
from tlfeat.backbones.encoder import embedding_name
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.hub import ATTENTION_POOL, build_hub
from tlfeat.backbones.hub_catalog import Family, HubBackbone
from tlfeat.backbones.hub_fetch import own_size, weights_folder
from tlfeat.backbones.preprocess import PREPROCESS
from tlfeat.backbones.stored_weights import load_network
from tlfeat.backbones.weights_files import check_file, check_weights_file, input_shapes
from tlfeat.documents import EncoderSource, misfit
from tlfeat.errors import DataError, UsageError, WeightsError, nearest, short_reason
from tlfeat.files import MAX_MODEL_BYTES, open_regular

#: The small network that ships with tlfeat; pretrained on the digits 0 to 4 and on letters.
DIGITS = "digits_cnn"
DIGITS_WIDTH, DIGITS_PARAMETERS = 512, 154_272

#: 4096 x 4096; the largest input of the catalog is 600 x 600.
MAX_INPUT_PIXELS = 1 << 24


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Which network, with which weights, fed how: enough to build it again.

    Parameters
    ----------
    backbone : str
        A name of the catalog, ``digits_cnn``, or the path of a user's own ``.keras`` or ``.h5`` model.
    weights : str, default="imagenet"
        ``imagenet``, ``random`` or the path of a ``.weights.h5``, ``.h5`` or ``.keras`` file; of a vision transformer
        a folder, ``hf://org/name`` or the name of a Keras preset, and ``imagenet`` stands for its authors' weights,
        whatever these were trained on. Ignored for a user's own model, which brings its own.
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
        if self.input_size is not None:
            _check_size(self.input_size)
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
    def hub(self) -> HubBackbone | Family | None:
        """The row of a vision transformer of KerasHub, or None for any other network."""
        if self.is_own_model or self.backbone == DIGITS:
            return None
        entry = catalog.find(self.backbone)
        return None if isinstance(entry, catalog.Backbone) else entry

    @property
    def own_pool(self) -> str | None:
        """How the tokens of a transformer become a vector where nothing is said; None for maps, which are averaged."""
        if self.hub is None:
            return None
        return self.hub.pool if isinstance(self.hub, Family) else self.hub.family.pool

    def embedding_name(self, layer: str, pool: str | None = None) -> str:
        """Return the name of an embedding in the cache, as ``encoder.embedding_name``; of tokens with their pooling.

        Parameters
        ----------
        layer : str
            As in ``--layer``.
        pool : str, optional
            Where the layer has none by itself; the network's own by default.
        """
        name, _, inline = layer.partition(":")
        if name == "avg_pool":
            return embedding_name(layer)
        if self.own_pool is None or name == ATTENTION_POOL:
            return embedding_name(layer, pool)
        return f"{name}:{inline or pool or self.own_pool}"

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
    def size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        if self.input_size is not None:
            return self.input_size
        if self.model_file is not None:
            return stored_input_size(self.model_file)
        entry = catalog.find(self.backbone)
        return own_size(weights_folder(entry, self.weights), entry) if isinstance(entry, Family) else entry.input_size

    @property
    def mode(self) -> str:
        """The preprocessing in force."""
        if self.preprocess is not None:
            return self.preprocess
        return "tf" if self.backbone == DIGITS else catalog.find(self.backbone).preprocess

    @property
    def own_resize(self) -> str:
        """How its pictures are resized where nothing else is asked for: one of ``resizing.RESIZES``."""
        return catalog.own_resize(self.backbone)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; file names absolute, so that the spec holds in any working folder."""
        values = asdict(self)
        if self.is_own_model:
            values["backbone"] = str(Path(self.backbone).resolve())
        if self.weights not in ("imagenet", "random") and (self.hub is None or Path(self.weights).exists()):
            values["weights"] = str(Path(self.weights).resolve())
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BackboneSpec:
        """Build the spec from what `to_dict` gave; a `DataError` where somebody else wrote something else."""
        if wrong := misfit(values, EncoderSource, "encoder"):
            raise DataError(f"No encoder can be built: {wrong}.")
        size, known = values.get("input_size"), [field.name for field in fields(cls)]
        given = {name: values[name] for name in known if name in values}
        try:
            return cls(**{**given, "input_size": tuple(size) if size else None})
        except (UsageError, TypeError) as error:
            raise DataError(f"No encoder can be built: {error}") from error


def weights_digest(spec: BackboneSpec) -> str:
    """Return what identifies the weights: ``sha256:...`` of the file, or ``random:SEED``.

    ``imagenet`` is downloaded by Keras here if it is not in Keras' own store yet.
    """
    if spec.model_file is not None:
        return _file_digest(spec.model_file)
    if spec.weights == "random":
        return f"random:{spec.seed}"
    if spec.hub is not None:
        return weights_folder(spec.hub, spec.weights).digest()
    return _file_digest(weights_file(spec))


def weights_file(spec: BackboneSpec) -> Path:
    """Return the file with the weights of a catalog architecture, downloading it by Keras' own means if needed."""
    if spec.weights != "imagenet":
        return Path(spec.weights)
    entry = _of_keras(spec)
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
                f"({short_reason(error).replace(entry.weights_url, 'the server')}). Fetch {entry.weights_url} on "
                f"another machine and pass it with --weights {entry.weights_file}, or use --weights random to try "
                f"things out."
            ) from error
    return store


def _of_keras(spec: BackboneSpec) -> catalog.Backbone:
    entry = catalog.find(spec.backbone)
    assert isinstance(entry, catalog.Backbone)
    return entry


def build_base(spec: BackboneSpec, input_size: tuple[int, int], *, is_random: bool = False) -> Any:
    """Return the Keras model from preprocessed pixels to the pooled output, with its weights.

    Parameters
    ----------
    spec : BackboneSpec
    input_size : tuple of int
    is_random : bool, default=False
        The same architecture with random weights; a model file keeps its own.

    Raises
    ------
    WeightsError
        The file is absent, is no model, or does not fit the architecture.
    """
    keras = import_keras()
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()  # layers without a name of their own are then numbered from 0 again
    keras.config.set_dtype_policy(policy)  # it was cleared too
    if spec.model_file is not None:
        return _load_model(spec.model_file)
    if spec.hub is not None:
        keras.utils.set_random_seed(spec.seed)
        folder = None if spec.weights == "random" else weights_folder(spec.hub, spec.weights)
        return build_hub(keras, spec.hub, folder, input_size, is_random=is_random)
    if is_random or spec.weights == "random":
        return _new_base(spec, input_size, None)
    path = weights_file(spec)
    check_file(path, "weights file")
    check_weights_file(path, spec.backbone)
    try:
        return _quiet_if_it_fails(lambda: _new_base(spec, input_size, path))
    except UsageError:
        raise
    except Exception as error:  # Keras raises ValueError, KeyError, OSError, IndexError... for a misfit
        try:
            return _quiet_if_it_fails(lambda: _without_top(spec, input_size, path))
        except Exception:
            raise WeightsError(
                f"{path} does not fit {spec.backbone}: {short_reason(error)}. Expected weights of "
                f"keras.applications.{_of_keras(spec).keras_name}, with or without its top."
            ) from error


def _quiet_if_it_fails(build: Callable[[], Any]) -> Any:
    """Hold warnings back until it is built: for a file that does not fit, Keras gives one for every layer."""
    with warnings.catch_warnings(record=True) as held_back:
        built = build()
    for warning in held_back:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return built


def _new_base(
    spec: BackboneSpec, input_size: tuple[int, int], weights: Path | None, *, include_top: bool = False
) -> Any:
    """Build an architecture of the catalog; `weights` of None are random.

    Weights are always loaded as "imagenet", with Keras' download answered by the file: EfficientNet builds another
    graph (one more Rescaling) for that very word, and without it the rows would be wrong without an error.
    """
    keras = import_keras()
    entry = _of_keras(spec)
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
                    f"{spec.backbone} at {input_size[0]}x{input_size[1]} pixels: {short_reason(error)}."
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
    if _of_keras(spec).keras_name.startswith("EfficientNetB"):
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
    check_file(path, "model file")
    try:
        model = load_network(keras, path)
    except Exception as error:  # a stranger's file: whatever Keras raises means that it cannot be used
        raise WeightsError(f"{path} cannot be loaded as a Keras model: {short_reason(error)}.") from error
    if not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise WeightsError(f"{path}: expected a model with one input, received {type(model).__name__}.")
    return model


def stored_input_size(path: Path) -> tuple[int, int]:
    """Read the input size out of a .keras file without importing Keras, or through Keras for an .h5 file."""
    shape: list[Any] = next(iter(input_shapes(path)), [])
    if not shape:
        shape = list(_load_model(path).inputs[0].shape)
    if len(shape) != 4 or shape[1] is None or shape[2] is None or shape[3] != 3:
        raise UsageError(f"{path} takes {shape}; say the input size with --input-size HEIGHTxWIDTH (3 channels).")
    height, width = shape[1:3]
    _check_size((height, width))
    return height, width


def _check_size(size: Any) -> None:
    """Raise `UsageError` for what is no height and width, or is more than any network takes."""
    if not (isinstance(size, tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
        raise UsageError(f"The input size is a height and a width in pixels, received {size!r}.")
    if size[0] * size[1] > MAX_INPUT_PIXELS:
        limit = f"the limit is {MAX_INPUT_PIXELS / 1e6:.0f} million pixels"
        raise UsageError(f"An input of {size[0]}x{size[1]} pixels is too large: {limit}.")


def _file_digest(path: Path) -> str:
    try:
        with open_regular(path, max_bytes=MAX_MODEL_BYTES) as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def digits_backbone_path() -> Path:
    """Locate the backbone that ships with the package.

    Returns
    -------
    Path
        A Keras file (``.keras``, below 1 MB): a convolutional network trained on the digits 0 to 4
        in their eight orientations and on printed letters. Input (n, 32, 32, 3), float RGB in [-1, 1]; its
        last layer is the pooled output ``avg_pool``: the averages over the four quadrants of its last map.
    """
    return Path(str(files("tlfeat") / "example_data" / "digits_cnn.keras"))
