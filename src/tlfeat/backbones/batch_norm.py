"""BatchNorm statistics of other images: what a network normalises with is measured again, its weights stay.

AdaBN (Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization For Practical Domain Adaptation. 2016,
arXiv:1603.04779) normalises a target domain by its own mean and variance. Every layer is measured on what the layers
before it give with *their* new statistics, over all images and positions. What a pass in training mode gives instead,
statistics of a batch within a batch, depends on the batches: docs/benchmarks/adabn.md has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.preprocess import preprocess
from tlfeat.errors import WeightsError
from tlfeat.text import counted
from tlfeat.types import OnProgress, Pixels, silent

#: Images that go through the network at once. One size for all: sums of a batch would have other last bits in another.
BATCH_SIZE = 32

#: What of all images is kept between two layers, so that no layer is computed twice; larger maps are computed again.
KEPT_BYTES = 1 << 30

#: A tensor of the graph: in which model within which model, and which.
_Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation of the network: what it needs, and what it gives."""

    run: Callable[[Sequence[Any]], Sequence[Any]]
    needs: tuple[_Place, ...]
    gives: tuple[_Place, ...]
    operation: Any = None


def adapt_batch_norm(
    network: Any,
    pixels: Pixels,
    mode: str,
    *,
    weight: float = 1.0,
    kept_bytes: int = KEPT_BYTES,
    on_progress: OnProgress = silent,
) -> int:
    """Give every BatchNormalization of a network the mean and variance of its inputs for these images.

    Parameters
    ----------
    network : keras.Model
        Functional or Sequential, models within it included; changed in place.
    pixels : array of shape (n_images, height, width, 3)
        RGB, 0 to 255. Their order changes the last bits.
    mode : str
        How they are scaled: one of `PREPROCESS`.
    weight : float, default=1.0
        Of what is measured, above 0: the new statistics are ``weight * measured + (1 - weight) * old``, as Schneider et
        al. 2020 (arXiv:2006.16971) mix them.
    kept_bytes : int
        See `KEPT_BYTES`; the result is the same to the bit.
    on_progress : callable, optional

    Returns
    -------
    int
        How many layers were measured.

    Raises
    ------
    WeightsError
        It has no such layer, or one within a layer that cannot be looked into.
    """
    layers = batch_norms(network)
    steps = _steps(network, mode)
    place: dict[int, int] = {}
    for i, step in enumerate(steps):
        if any(step.operation is layer for layer in layers):
            place.setdefault(id(step.operation), i)  # one that is used twice has the statistics of its first use
    if hidden := [layer.name for layer in layers if id(layer) not in place]:
        raise WeightsError(
            f"{network.name} has {counted(len(hidden), 'BatchNorm layer')} within layers of its own, where their "
            f"inputs cannot be measured; the first: {hidden[0]}."
        )
    last_use = {needed: i for i, step in enumerate(steps) for needed in step.needs}
    start = 0
    held: list[dict[_Place, Any]] = [
        {(): pixels[first : first + BATCH_SIZE]} for first in range(0, len(pixels), BATCH_SIZE)
    ]
    for n_done, at in enumerate(sorted(place.values())):
        on_progress("measuring BatchNorm statistics", n_done, len(place))
        layer = steps[at].operation
        moments, kept, is_kept = _Moments(layer), [], False
        for batch in held:
            values = dict(batch)
            for i in range(start, at):
                _run(steps[i], i, values, last_use)
            moments.add(np.asarray(values[steps[at].needs[0]]))
            if batch is held[0]:
                is_kept = len(held) * sum(np.asarray(value).nbytes for value in values.values()) <= kept_bytes
            if is_kept:
                kept.append(values)
        moments.assign(weight)
        if is_kept:
            held, start = kept, at
    on_progress("measuring BatchNorm statistics", len(place), len(place))
    return len(place)


def batch_norms(network: Any) -> list[Any]:
    """Return the BatchNormalization layers of a network, those within models and layers included.

    Raises
    ------
    WeightsError
        There is none.
    """
    kind = import_keras().layers.BatchNormalization
    found = [layer for layer in network._flatten_layers(include_self=False) if isinstance(layer, kind)]
    if not found:
        raise WeightsError(
            f"{network.name} has no BatchNorm layer, so there are no statistics to adapt (vision transformers and "
            f"ConvNeXt have none). MobileNet, ResNet, DenseNet and EfficientNet have some."
        )
    return found


def _run(step: _Step, i: int, values: dict[_Place, Any], last_use: dict[_Place, int]) -> None:
    """Compute step number `i`, and forget what no later one needs."""
    given = step.run([values[needed] for needed in step.needs])
    for needed in step.needs:
        if last_use[needed] == i:
            values.pop(needed, None)
    values.update((made, value) for made, value in zip(step.gives, given, strict=True) if made in last_use)


class _Moments:
    """Sums in float64, an image at a time, of what goes into one layer.

    Differences from the old mean are summed: squares of large numbers would leave few digits for a small variance.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._mean = np.asarray(layer.moving_mean, np.float64)  # (c,)
        self._sum, self._squares, self._n = np.zeros_like(self._mean), np.zeros_like(self._mean), 0

    def add(self, maps: npt.NDArray[Any]) -> None:
        for image in np.moveaxis(maps, self._layer.axis, -1):
            values = image.reshape(-1, image.shape[-1]) - self._mean  # (n, c)
            self._sum += values.sum(axis=0)
            self._squares += np.einsum("nc,nc->c", values, values)
            self._n += len(values)

    def assign(self, weight: float) -> None:
        """Give the layer its statistics: the variance is that of the population, as `keras.ops.moments` gives it."""
        shift = self._sum / self._n
        measured = self._mean + shift, self._squares / self._n - shift**2
        old = self._mean, np.asarray(self._layer.moving_variance, np.float64)
        mean, variance = (weight * new + (1 - weight) * before for new, before in zip(measured, old, strict=True))
        variance = np.maximum(variance, 0.0)
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise WeightsError(f"What goes into the layer {self._layer.name} is not finite for these images.")
        self._layer.moving_mean.assign(mean.astype(np.float32))
        self._layer.moving_variance.assign(variance.astype(np.float32))


def _steps(network: Any, mode: str) -> list[_Step]:
    """Return the operations of a network from pixels on, each after all that it needs."""
    keras = import_keras()

    def scale(given: Sequence[Any]) -> list[Any]:
        return [preprocess(keras.ops.cast(given[0], "float32"), mode)]

    graph = _graph(network)
    if graph is None or len(graph.inputs) != 1:
        raise WeightsError(f"{network.name} is no Functional or Sequential model with one input of images.")
    return [_Step(scale, ((),), ((id(graph.inputs[0]),),)), *_steps_within(graph, ())]


def _graph(operation: Any) -> Any:
    """Return the graph that a model is made of, or None."""
    found = getattr(operation, "_functional", None) or operation  # a Sequential has one inside
    return found if getattr(found, "_nodes_by_depth", None) else None


def _steps_within(graph: Any, within: _Place) -> Iterator[_Step]:
    nodes = (node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth])
    for node in nodes:
        if node.is_input:
            continue
        needs = tuple((*within, id(tensor)) for tensor in node.input_tensors)
        gives = tuple((*within, id(tensor)) for tensor in node.outputs)
        inner = _graph(node.operation)
        if inner is None:
            yield _Step(_call_of(node), needs, gives, node.operation)
            continue
        inside = (*within, id(node))
        yield _Step(list, needs, tuple((*inside, id(tensor)) for tensor in inner.inputs))
        yield from _steps_within(inner, inside)
        yield _Step(list, tuple((*inside, id(tensor)) for tensor in inner.outputs), gives)


def _call_of(node: Any) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return what computes one node as `predict` would: dropout and augmentation do nothing."""
    keras = import_keras()
    named = {"training": False} if "training" in getattr(node.operation, "_call_context_args", {}) else {}

    def call(given: Sequence[Any]) -> list[Any]:
        values = {id(tensor): value for tensor, value in zip(node.input_tensors, given, strict=True)}
        args, kwargs = node.arguments.fill_in(values)
        return keras.tree.flatten(node.operation(*args, **{**kwargs, **named}))  # type: ignore[no-any-return]

    return call
