"""A backbone and a head as one Keras network."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.graph import Crossing, Cut, split_graph
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.backbones.preprocess import preprocess
from tlfeat.backbones.runtime import has_gpu
from tlfeat.finetune.settings import OPTIMIZERS, TrainSettings
from tlfeat.types import Labels

#: Of BatchNormalization from scratch: statistics of the last 10 batches or so.
_SCRATCH_MOMENTUM = 0.9


class Network:
    """A backbone and a head, with what trains set as the settings say.

    Parameters
    ----------
    spec : BackboneSpec
    input_size : tuple of int
        Height and width in pixels.
    n_classes : int
    settings : TrainSettings
    precision : str, optional
        Keras' name of a dtype policy; mixed_float16 where a GPU is, else float32.
    is_random : bool, default=False
        With random weights whatever `spec` says, for weights that are set afterwards.

    Attributes
    ----------
    graph : keras.Model
        The backbone, from scaled pixels to its output.
    head : list of keras.Layer
    whole : keras.Model
        From float32 pixels (n, height, width, 3) of 0 to 255 to probabilities (n, n_classes).
    """

    def __init__(
        self,
        spec: BackboneSpec,
        input_size: tuple[int, int],
        n_classes: int,
        settings: TrainSettings,
        *,
        precision: str | None = None,
        is_random: bool = False,
    ) -> None:
        settings = settings.on(has_blocks=spec.hub is not None)
        settings.check_classes(n_classes)
        self.spec, self.input_size, self.n_classes, self.settings = spec, input_size, n_classes, settings
        keras = import_keras()
        policy = keras.config.dtype_policy()
        self.precision = precision or ("mixed_float16" if has_gpu() else "float32")
        keras.config.set_dtype_policy(self.precision)
        try:
            keras.utils.set_random_seed(settings.seed)
            base = _scratch_base(spec, input_size, settings.seed) if settings.mode == "scratch" else None
            base = base or build_base(spec, input_size, is_random=is_random)
            self.graph = base if hasattr(base, "_nodes_by_depth") else keras.Model(base.inputs[0], base.outputs[0])
            keras.utils.set_random_seed(settings.seed)
            self.head = self._head_layers()
            inputs = keras.Input((*input_size, 3), name="pixels", dtype="float32")
            outputs = self._through_head(self.graph(preprocess(inputs, spec.mode)))
            if settings.activation == "sigmoid":
                outputs = keras.ops.concatenate([1.0 - outputs, outputs], axis=-1)
            self.whole = keras.Model(inputs, outputs, name=settings.name.replace("-", "_"))
        finally:
            keras.config.set_dtype_policy(policy)
        self.unfreeze(settings.phases(1)[-1].unfreeze_last)

    def _head_layers(self) -> list[Any]:
        layers, s = import_keras().layers, self.settings
        found = [] if len(self.graph.outputs[0].shape) == 2 else [layers.GlobalAveragePooling2D()]
        found += [layers.Flatten()] if s.is_flattened else []
        for units in s.dense:
            found.append(layers.Dense(units, activation="relu"))
            found += [layers.Dropout(s.dropout)] if s.dropout else []
        found += [layers.Dropout(s.dropout)] if s.dropout and not s.dense else []
        is_sigmoid = s.activation == "sigmoid"
        n_outputs, name = (1, "probability") if is_sigmoid else (self.n_classes, "probabilities")
        return [*found, layers.Dense(n_outputs, activation=s.activation, name=name, dtype="float32")]

    def _through_head(self, features: Any) -> Any:
        for layer in self.head:
            features = layer(features)
        return features

    def unfreeze(self, last: int) -> None:
        """Let the last so many `units` of the backbone train and what lies above them; all of it from scratch."""
        keras = import_keras()
        layers = self.graph.layers
        for layer in layers:
            layer.trainable = True
        if self.settings.mode == "scratch":
            return
        first = len(layers) if last == 0 else 0 if last > len(self.units) else self.units[-last]
        for layer in layers[:first]:
            layer.trainable = False
        if not self.settings.trains_batchnorm:
            for layer in layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    @cached_property
    def units(self) -> list[int]:
        """What ``unfreeze_last`` counts, by place among the layers: blocks of a transformer, else layers."""
        layers = self.graph.layers
        if self.spec.hub is not None:
            return [place for place, layer in enumerate(layers) if layer.name.startswith("block_")]
        pooling = import_keras().layers.GlobalAveragePooling2D
        is_pooled = self.spec.model_file is None and isinstance(layers[-1], pooling)
        return list(range(len(layers) - is_pooled))

    @property
    def unit(self) -> str:
        """What one of the `units` is called."""
        return "block" if self.spec.hub is not None else "layer"

    def split(self) -> tuple[Any, Any, Cut]:
        """Return the frozen part, the part above it and the `Cut` between them; see ``cut.split_graph``."""
        trunk, tail, cut = split_graph(self.graph)
        is_output = len(cut.crossings) == 1 and not tail.weights
        if is_output and self.spec.model_file is None:
            cut = replace(cut, crossings=(Crossing("avg_pool", cut.crossings[0].shape),))
        return trunk, tail, cut

    def pixel_model(self, trunk: Any, tail: Any) -> Any:
        """Return the model to train from float32 pixels; what is frozen runs in inference mode."""
        keras = import_keras()
        inputs = keras.Input((*self.input_size, 3), dtype="float32")
        return keras.Model(inputs, self._through_head(tail(trunk(preprocess(inputs, self.spec.mode), training=False))))

    def tail_model(self, tail: Any) -> Any:
        """Return the model to train from what crosses the cut."""
        keras = import_keras()
        inputs = [keras.Input(tensor.shape[1:], dtype="float32") for tensor in tail.inputs]
        return keras.Model(inputs, self._through_head(tail(inputs if len(inputs) > 1 else inputs[0])))

    def in_float32(self) -> Any:
        """Return the whole network for any device: what was trained in mixed precision is slow without a GPU."""
        if self.precision == "float32":
            return self.whole
        plain = Network(
            self.spec, self.input_size, self.n_classes, self.settings, precision="float32", is_random=True
        ).whole
        plain.set_weights(self.whole.get_weights())
        return plain

    def compile(self, model: Any, rate: float) -> None:
        """Get a model ready to train."""
        keras = import_keras()
        model.compile(
            optimizer=getattr(keras.optimizers, OPTIMIZERS[self.settings.optimizer])(rate),
            loss=self.settings.loss,
            metrics=["accuracy"],
            jit_compile=has_gpu(),  # XLA is 8 times slower on a CPU
        )

    def targets(self, labels: Labels) -> npt.NDArray[Any]:
        """Return labels as the loss wants them."""
        if self.settings.loss == "categorical_crossentropy":
            return np.eye(self.n_classes, dtype=np.float32)[labels]
        return labels[:, None].astype(np.float32) if self.settings.activation == "sigmoid" else labels


def _scratch_base(spec: BackboneSpec, input_size: tuple[int, int], seed: int) -> Any:
    keras = import_keras()
    if spec.model_file is not None:
        base = keras.models.clone_model(build_base(spec, input_size))  # same layers, new weights
    else:
        base = build_base(replace(spec, seed=seed), input_size, is_random=True)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # MobileNetV2's 0.999 averages over a thousand batches, more than small sets have in all epochs:
            # validation then runs on statistics of the initial weights and stays at chance (50.0 % of two
            # classes on 850 images, where 0.9 learns)
            layer.momentum = min(layer.momentum, _SCRATCH_MOMENTUM)
    return base
