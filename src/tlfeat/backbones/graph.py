"""What the graph of a Keras network says: its layers, its blocks, how layers are pooled, where training begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.hub import pool_tokens
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.errors import UsageError, nearest, unknown_layer
from tlfeat.types import ROW_TYPES

#: How a map (height, width, channels) or the tokens of a transformer become a vector; the last two need a CLS token.
POOLS = ("avg", "max", "gem", "flatten", "cls", "cls+avg")

#: Of these, what only transformers have.
TOKEN_POOLS = ("cls", "cls+avg")

_GEM_POWER = 3.0  # p of generalised-mean pooling, its usual starting value: Radenovic et al. 2018, section 3.2

_GEM_FLOOR = 1e-6


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
    base = build_base(spec, spec.size)
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
    base = build_base(spec, spec.size)
    graph = import_keras().Model(base.inputs, base.outputs)
    operations = graph.operations  # each after all that it needs
    place = {id(operation): i for i, operation in enumerate(operations)}
    parents: list[set[int]] = [set() for _ in operations]
    for node in (node for nodes in graph._nodes_by_depth.values() for node in nodes):  # a layer may be in others, too
        parents[place[id(node.operation)]] |= {place[id(parent.operation)] for parent in node.parent_nodes}
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
    """Return the number of values of each kernel: weights with two dimensions or more that are multiplied with."""
    added = ("position", "token", "embeddings", "bias")  # tables of transformers; and tokens, which are 1 x n x width
    return [
        int(np.prod(w.shape))
        for w in getattr(operation, "weights", [])
        if len(w.shape) > 1 and not any(word in w.name for word in added) and (len(w.shape), w.shape[0]) != (3, 1)
    ]


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


def _output_shape(layer: Any) -> tuple[int | None, ...] | None:
    try:
        output = layer.output
    except (AttributeError, ValueError):
        return None
    return tuple(output.shape) if hasattr(output, "shape") else None


def embedding_output(base: Any, spec: BackboneSpec, name: str) -> Any:
    """Return the symbolic vector of shape (n, width) that `name` stands for."""
    layer_name, _, pool = name.partition(":")
    known = [layer.name for layer in base.layers]
    bare = {op.name: op for op in getattr(base, "operations", []) if op.name not in known}  # a sum without a layer
    if layer_name == "avg_pool" and layer_name not in known:
        vector = _pooled_output(base, spec)
    elif layer_name in known:
        vector = _output_within(base, base.get_layer(layer_name))
        if not hasattr(vector, "shape"):
            raise UsageError(f"Layer '{layer_name}' has several outputs and cannot be an embedding.")
    elif layer_name in bare:
        vector = bare[layer_name].output
    else:
        raise unknown_layer(layer_name, known, of=base.name)
    if len(vector.shape) == 2:
        if pool:
            raise UsageError(
                f"'{layer_name}' is a vector already, --pool does not apply. Name a layer with height and width."
            )
        return vector
    return _pool(vector, pool or "avg", layer_name, n_prefix=getattr(base, "n_prefix", None))


def _pooled_output(base: Any, spec: BackboneSpec) -> Any:
    """A catalog backbone is built with its pooling; of any other model, the average of its last map."""
    if spec.model_file is not None:
        for layer in reversed(base.layers):
            shape = _output_shape(layer)
            if shape is not None and len(shape) == 4:
                return _pool(_output_within(base, layer), "avg", layer.name)
    return base.outputs[0]


def _output_within(base: Any, layer: Any) -> Any:
    """Return the output of a layer in the graph of `base`; of a model within the model ``output`` is in its own."""
    graph = getattr(base, "_functional", None) or base  # a Sequential has one inside
    nodes = (node for nodes in getattr(graph, "_nodes_by_depth", {}).values() for node in nodes)
    outputs: list[Any] = next((node.outputs for node in nodes if node.operation is layer), [])
    return outputs[0] if len(outputs) == 1 else layer.output


def _pool(maps: Any, pool: str, layer_name: str, *, n_prefix: int | None = None) -> Any:
    """Return vectors; of tokens, `n_prefix` are no patches, and count in none but "cls" and "flatten"."""
    keras = import_keras()
    ops = keras.ops
    if pool not in POOLS:
        raise UsageError(f"No pooling '{pool}'. {nearest(pool, list(POOLS), of='poolings')}")
    if pool in TOKEN_POOLS:
        return pool_tokens(keras, maps, pool, n_prefix or 0)
    if n_prefix and pool != "flatten":
        maps = maps[:, n_prefix:]
    axes = tuple(range(1, len(maps.shape) - 1))
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


#: Below this share of the network's multiply-adds under the cut, pictures are as good to start from.
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Crossing:
    """One tensor that crosses the cut.

    Attributes
    ----------
    layer : str
        The operation of the backbone that gives it.
    shape : tuple of int
        Without the batch.
    """

    layer: str
    shape: tuple[int, ...]

    @property
    def embedding(self) -> str:
        """Its name in a cache."""
        return self.layer if len(self.shape) == 1 else f"{self.layer}:flatten"


@dataclass(frozen=True, slots=True)
class Cut:
    """The boundary between frozen and trainable layers of a backbone.

    Attributes
    ----------
    crossings : tuple of Crossing
        Every tensor that the part above needs from the part below.
    share : float
        Of the backbone's multiply-adds, those below the cut.
    """

    crossings: tuple[Crossing, ...]
    share: float

    @property
    def n_values(self) -> int:
        """Of one image."""
        return sum(int(np.prod(crossing.shape)) for crossing in self.crossings)

    @property
    def is_worthwhile(self) -> bool:
        """Whether there is something below it to compute once."""
        return self.share >= _LEAST_SHARE

    def n_bytes(self, n_images: int, dtype: str = "float32") -> int:
        """Of the tensors of so many images on disk."""
        return n_images * self.n_values * np.dtype(ROW_TYPES[dtype]).itemsize


def split_graph(graph: Any) -> tuple[Any, Any, Cut]:
    """Cut a Keras Functional model where the first layer that trains begins.

    Parameters
    ----------
    graph : keras.Model
        Its layers' ``trainable`` says what trains.

    Returns
    -------
    trunk : keras.Model
        From the model's input to the tensors that cross, in their order.
    tail : keras.Model
        From these to the model's output. Both share their layers with `graph`: training the tail trains the graph.
    cut : Cut
    """
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
    is_live: dict[int, bool] = {}  # by node: whether its output changes while training
    crossing: dict[int, Any] = {}
    compute, below = 0, 0
    for node in nodes:
        operation = node.operation
        trains = not node.is_input and getattr(operation, "weights", None) and operation.trainable
        is_live[id(node)] = bool(trains) or any(is_live[id(parent)] for parent in node.parent_nodes)
        n = 0 if node.is_input else multiply_adds(operation)
        compute += n
        below += 0 if is_live[id(node)] else n
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in nodes:
        needed = [] if node.is_input or not is_live[id(node)] else node.input_tensors
        own = [] if is_live[id(node)] else [tensor for tensor in node.outputs if id(tensor) in outputs]
        for tensor in [*needed, *own]:
            source = tensor._keras_history
            origin = source.operation._inbound_nodes[source.node_index]
            if not is_live[id(origin)]:
                crossing[id(tensor)] = tensor
    tensors = list(crossing.values())
    crossings = tuple(
        Crossing(tensor._keras_history.operation.name, tuple(int(d or 0) for d in tensor.shape[1:]))
        for tensor in tensors
    )
    crossed = tensors if len(tensors) > 1 else tensors[0]
    trunk = _part(graph.inputs[0], crossed, "below_the_cut")
    tail = _part(crossed, graph.outputs[0], "above_the_cut")
    return trunk, tail, Cut(crossings, below / max(compute, 1))


def _part(inputs: Any, outputs: Any, name: str) -> Any:
    """Return the model between tensors of one graph; where these are the same one, a model that passes it on."""
    keras = import_keras()
    if inputs is outputs:
        inputs = keras.Input(inputs.shape[1:])
        outputs = keras.layers.Identity()(inputs)
    return keras.Model(inputs, outputs, name=name)
