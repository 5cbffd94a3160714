"""A frozen Keras backbone as an encoder: built once, all wanted layers as outputs, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import catalog, workspace
from tlfeat.decode import RESIZE, Pixels, n_cores, pixel_type
from tlfeat.encoder import Rows, check_pixels
from tlfeat.errors import UsageError, nearest
from tlfeat.network import (
    DIGITS,
    DIGITS_PARAMETERS,
    DIGITS_WIDTH,
    BackboneSpec,
    build_base,
    import_keras,
    preprocess,
    stored_input_size,
    weights_digest,
)
from tlfeat.progress import OnProgress, silent
from tlfeat.runtime import (
    CannotConvert,
    OpenVinoRuntime,
    TensorFlowRuntime,
    check_runtime,
    choose_runtime,
    convert,
    converted_file,
    has_gpu,
    is_converted,
)

#: How a map (height, width, channels) becomes a vector.
POOLS = ("avg", "max", "gem", "flatten")

_GEM_POWER = 3.0  # p of generalised-mean pooling, its usual starting value: Radenovic et al. 2018, section 3.2
_GEM_FLOOR = 1e-6


class KerasEncoder:
    """A frozen Keras backbone as an `Encoder`: every wanted layer from one forward pass.

    Parameters
    ----------
    spec : BackboneSpec
    layers : sequence of str
        Names of Keras layers, ``avg_pool`` for the pooled output; ``NAME:POOL`` chooses the pooling of a map
        (``avg`` where nothing is said).
    runtime : str, default="auto"
        One of `runtime.RUNTIMES`. What OpenVINO cannot take is embedded by TensorFlow, and `notes` says so.
    resize : str, default="antialias"
        One of `decode.RESIZES`.
    dtype : str, default="float32"
        Of the stored rows, or "float16".
    batch_size : int, optional
        Images handed over at once; a sound one for the runtime by default.
    n_threads : int, optional
        Cores to use; all by default.
    networks_dir : Path, optional
        Where converted networks are kept; ``cache/networks`` by default.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        layers: Sequence[str],
        *,
        runtime: str = "auto",
        resize: str = RESIZE,
        dtype: str = "float32",
        batch_size: int | None = None,
        n_threads: int | None = None,
        networks_dir: Path | None = None,
    ) -> None:
        self.spec = spec
        self.layers = tuple(dict.fromkeys(layers))
        self.resize = resize
        self.dtype = dtype
        self._n_threads = n_threads
        self.networks_dir = networks_dir or workspace.NETWORKS_DIR
        self.notes: list[str] = []
        check_runtime(runtime)
        self._asked_runtime = runtime
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def runtime(self) -> str:
        return self._engine.name

    @cached_property
    def _wanted_runtime(self) -> str:
        return choose_runtime(self._asked_runtime)  # late: where a GPU is, it imports TensorFlow

    @property
    def is_parallel(self) -> bool:
        return self._engine.is_parallel

    @property
    def n_threads(self) -> int:
        """Callers of `encode` at once."""
        return self._n_threads or n_cores()

    @property
    def batch_size(self) -> int:
        if self._batch_size is not None:
            return self._batch_size
        return 8 if self._wanted_runtime == "openvino" else 256 if has_gpu() else 32

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if self.spec.input_size is not None:
            return self.spec.input_size
        if self.spec.model_file is not None:
            return stored_input_size(self.spec.model_file)
        return catalog.find(self.spec.backbone).input_size

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Architecture, digest of the weights, input size, preprocessing, resizing and dtype of the rows."""
        return {
            "backbone": "own model" if self.spec.is_own_model else self.spec.backbone,
            "weights": weights_digest(self.spec),
            "input_size": list(self.input_size),
            "preprocess": self.spec.mode,
            "resize": self.resize,
            "dtype": self.dtype,
        }

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Load the converted network, or build it with TensorFlow and convert it (5 to 20 s, the first time)."""
        if self._wanted_runtime == "tensorflow":
            on_progress("building the network with TensorFlow", 0, 0)
        elif not self._converted_file.exists():
            on_progress("building the network and converting it to OpenVINO, once", 0, 0)
        self.encode(np.zeros((1, *self.input_size, 3), pixel_type(self.resize)))

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        check_pixels(pixels, self.input_size, pixel_type(self.resize))
        return self._engine(pixels)

    @cached_property
    def _engine(self) -> OpenVinoRuntime | TensorFlowRuntime:
        if self._wanted_runtime == "openvino":
            file = self._converted_file
            try:
                if not is_converted(file):
                    probe = np.random.default_rng(0).integers(0, 256, (2, *self.input_size, 3))
                    convert(self._forward, self.layers, probe.astype(pixel_type(self.resize)), file)
                return OpenVinoRuntime(file, self.layers, self.n_threads)
            except CannotConvert as error:
                self.notes.append(f"TensorFlow embeds, not the faster OpenVINO: {error}")
        return TensorFlowRuntime(self._forward, self.layers, self.batch_size)

    @property
    def _converted_file(self) -> Path:
        identity = workspace.digest({**self.fingerprint, "dtype": "float32", "layers": self.layers}, 16)
        return converted_file(self.networks_dir, self.name, identity)

    @cached_property
    def _forward(self) -> Callable[[Pixels], list[Any]]:
        keras = import_keras()
        import tensorflow as tf

        base = build_base(self.spec, self.input_size)
        frozen = keras.Model(base.inputs[0], [_embedding_output(base, self.spec, name) for name in self.layers])
        frozen.trainable = False

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, *self.input_size, 3), pixel_type(self.resize))],
            autograph=False,
            jit_compile=has_gpu() or None,
        )
        def forward(pixels: Any) -> Any:
            x = preprocess(keras.ops.cast(pixels, "float32"), self.spec.mode)
            return keras.tree.flatten(frozen(x, training=False))

        return forward  # type: ignore[no-any-return]


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
