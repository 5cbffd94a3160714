"""A frozen Keras backbone as an encoder: built once, all wanted layers as outputs, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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

        frozen = self._frozen()

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, *self.input_size, 3), pixel_type(self.resize))],
            autograph=False,
            jit_compile=has_gpu() or None,
        )
        def forward(pixels: Any) -> Any:
            x = preprocess(keras.ops.cast(pixels, "float32"), self.spec.mode)
            return keras.tree.flatten(frozen(x, training=False))

        return forward  # type: ignore[no-any-return]

    def as_keras(self) -> Any:
        """Return the Keras model from float32 RGB pixels of 0 to 255 to a list of vectors, one for each layer."""
        keras = import_keras()
        frozen = self._frozen()
        pixels = keras.Input((*self.input_size, 3), name="pixels")
        rows = frozen(preprocess(pixels, self.spec.mode), training=False)
        return keras.Model(pixels, keras.tree.flatten(rows))

    def _frozen(self) -> Any:
        """The Keras model from preprocessed pixels to the layers."""
        base = build_base(self.spec, self.input_size)
        outputs = [_embedding_output(base, self.spec, name) for name in self.layers]
        frozen = import_keras().Model(base.inputs[0], outputs)
        frozen.trainable = False
        return frozen


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


@dataclass(frozen=True, slots=True)
class CutPoint:
    """The end of a block of a backbone, where one tensor alone goes on: a natural place to take embeddings.

    Attributes
    ----------
    layer : str
        The last layer of the block.
    output_shape : tuple of int
        Without the batch.
    is_pooled_output : bool
        Whether ``avg_pool`` stands for this one (for its average, where it is a map).
    n_reused, n_weight_layers : int
        Layers with kernels up to here (what a head on this layer reuses), and in the whole backbone.
    compute_share : float
        Multiply-adds up to here as a share of the backbone's, of its kernels alone.
    """

    layer: str
    output_shape: tuple[int, ...]
    is_pooled_output: bool
    n_reused: int
    n_weight_layers: int
    compute_share: float


#: More cut points than that make a table that no one reads; ResNet50 has 18.
MAX_CUT_POINTS = 20

#: What adds nothing to the layer before it that a pooled embedding would show.
_PASSIVE = ("Dropout", "SpatialDropout2D", "ZeroPadding2D", "Flatten", "Reshape", "GlobalAveragePooling2D")


def list_cut_points(spec: BackboneSpec, *, n_most: int = MAX_CUT_POINTS) -> list[CutPoint]:
    """Return the ends of the backbone's blocks, from its input to its output, at most `n_most`.

    A tensor is a cut point where every path from input to output goes through it (an articulation point of the
    graph): the sum that ends a residual block, the concatenation that ends an Inception module, every layer of a plain
    chain. Of cut points with no kernel between them (convolution, normalisation, activation) the last one counts, and
    a depthwise convolution with the pointwise one after it is one convolution. Where there are more than `n_most`, the
    last one at each resolution comes first, then those after a merge of branches, then the others, each time the one
    farthest from those that are taken.
    """
    base = build_base(spec, KerasEncoder(spec, ()).input_size)
    operations = import_keras().Model(base.inputs, base.outputs).operations  # each after all that it needs
    place = {id(operation): i for i, operation in enumerate(operations)}
    parents = [
        {place[id(node.operation)] for call in op._inbound_nodes for node in call.parent_nodes} for op in operations
    ]
    last_use = list(range(len(operations)))
    for i, needed in enumerate(parents):
        for j in needed:
            last_use[j] = max(last_use[j], i)
    compute = [multiply_adds(op) for op in operations]
    has_kernel = [bool(_kernels(op)) for op in operations]
    is_cut, reach = [], 0
    for i in range(len(operations)):
        is_cut.append(reach <= i)  # nothing before it is needed after it
        reach = max(reach, last_use[i])
    blocks: list[list[int]] = []
    is_depthwise = False
    for i, operation in enumerate(operations):
        if not blocks or (has_kernel[i] and not is_depthwise and any(is_cut[j] for j in blocks[-1])):
            blocks.append([])
        blocks[-1].append(i)
        is_depthwise = type(operation).__name__ == "DepthwiseConv2D" if has_kernel[i] else is_depthwise
    found: list[CutPoint] = []
    is_merge = []
    for block in blocks:
        ends = [i for i in block if is_cut[i] and _is_end(operations[i])]
        if not ends or not any(has_kernel[: ends[-1] + 1]):
            continue  # the input, and what is done to pixels before the first kernel
        shape = _output_shape(operations[ends[-1]]) or ()
        found.append(
            CutPoint(
                operations[ends[-1]].name,
                tuple(int(d or 0) for d in shape[1:]),
                is_pooled_output=False,
                n_reused=sum(has_kernel[: ends[-1] + 1]),
                n_weight_layers=sum(has_kernel),
                compute_share=sum(compute[: ends[-1] + 1]) / max(sum(compute), 1),
            )
        )
        is_merge.append(any(len(parents[i]) > 1 for i in block))
    # a user's own model may go on after its last map: see `_pooled_output`
    pooled = [i for i, point in enumerate(found) if spec.model_file is None or len(point.output_shape) > 1]
    if pooled:
        found[pooled[-1]] = replace(found[pooled[-1]], is_pooled_output=True)
    return [found[i] for i in _spread(found, is_merge, n_most)]


def _kernels(operation: Any) -> list[int]:
    """Return the number of values of each kernel: weights with two dimensions or more."""
    return [int(np.prod(w.shape)) for w in getattr(operation, "weights", []) if len(w.shape) > 1]


def multiply_adds(operation: Any) -> int:
    """Return the multiply-adds of a layer's kernels for one image, or of all layers of a model."""
    if hasattr(operation, "operations"):  # a model within the model
        return sum(multiply_adds(inner) for inner in operation.operations)
    shape = _output_shape(operation) or ()
    return sum(_kernels(operation)) * int(np.prod([d or 1 for d in shape[1:-1]]))  # once at each place of the map


def _is_end(operation: Any) -> bool:
    shape = _output_shape(operation)
    is_layer = isinstance(operation, import_keras().Layer)  # a bare operation has no name that --layer could find
    return is_layer and type(operation).__name__ not in _PASSIVE and len(shape or ()) in (2, 3, 4)


def _spread(points: Sequence[CutPoint], is_merge: Sequence[bool], n_most: int) -> list[int]:
    """Return which of the `points` to keep, in order: see `list_cut_points`."""
    if len(points) <= n_most:
        return list(range(len(points)))
    last_at = {point.output_shape[:-1]: i for i, point in enumerate(points)}
    kept = {len(points) - 1, *last_at.values()}
    for wanted in ([i for i, merged in enumerate(is_merge) if merged], range(len(points))):
        left = set(wanted) - kept
        while left and len(kept) < n_most:
            far = max(sorted(left), key=lambda i: min(abs(i - j) for j in kept))
            kept.add(far)
            left.discard(far)
    return sorted(kept)


def list_backbones() -> list[dict[str, Any]]:
    """Return what ``tlfeat backbones`` lists: the catalog, and the network that ships with tlfeat."""
    digits = {
        "name": DIGITS,
        "keras_name": "",
        "input_size": (32, 32),
        "preprocess": "tf",
        "width": DIGITS_WIDTH,
        "parameters": DIGITS_PARAMETERS,
        "paper": "ships with tlfeat: tools/pretrain_digits.py",
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
    bare = {op.name: op for op in getattr(base, "operations", []) if op.name not in known}  # a sum without a layer
    if layer_name == "avg_pool" and layer_name not in known:
        vector = _pooled_output(base, spec)
    elif layer_name in known:
        vector = base.get_layer(layer_name).output
        if not hasattr(vector, "shape"):
            raise UsageError(f"Layer '{layer_name}' has several outputs and cannot be an embedding.")
    elif layer_name in bare:
        vector = bare[layer_name].output
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
