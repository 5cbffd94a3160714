"""Export of models whose networks compute in int8 or bfloat16: an OpenVINO file, which computes like `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones.frameworks import import_keras, import_openvino
from tlfeat.backbones.int8 import read_layers
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.precision import BFLOAT16, FLOAT32, INT8, kind_of
from tlfeat.backbones.runtime import to_openvino
from tlfeat.errors import ModelError
from tlfeat.models.formats import Format, frozen_network, load_openvino, save_openvino
from tlfeat.models.head_layers import add_head
from tlfeat.models.predict import Model


def precision_of(model: Model) -> str:
    """Return the kind of precision in which the network of a model computes."""
    return kind_of(model.encoder.precision) if isinstance(model.encoder, KerasEncoder) else FLOAT32


def at_precision(entry: Format, model: Model) -> Format:
    """Return the format as it is written and run for a model that does not compute in float32.

    Raises
    ------
    ModelError
        The format would answer otherwise.
    """
    kind = precision_of(model)
    if kind == FLOAT32:
        return entry
    if entry.name != "openvino":
        raise ModelError(
            f"This model computes in {kind}; a {entry.name} file would compute in float32, and answer otherwise. Use "
            f"--to openvino, or fit a head on rows in float32."
        )
    if kind == BFLOAT16:
        return replace(entry, load=partial(load_openvino, is_bfloat16=True))
    return replace(entry, write=partial(_write_int8, model))


def head_network(model: Model) -> Any:
    """Return the Keras model from the rows of all layers, each of shape (n, width), to probabilities."""
    keras = import_keras()
    width = int(model.head.n_features_in_)
    rows = keras.Input((width,), name="rows")
    return keras.Model(rows, add_head(model.head, rows))


def _write_int8(model: Model, head: Any, labels: Sequence[str], file: Path) -> None:
    """Write the int8 network with the head behind it, for any number of pictures in float32."""
    encoder = model.encoder
    assert isinstance(encoder, KerasEncoder) and precision_of(model) == INT8
    network = encoder.converted()
    assert network is not None  # OpenVINO alone computes in int8
    ov = import_openvino()
    rows = read_layers(network, encoder.layers)
    (pixels,) = rows.get_parameters()
    _free_batch(rows)
    pixels.set_element_type(ov.Type.f32)
    pixels.set_partial_shape(ov.PartialShape([-1, *encoder.input_size, 3]))
    rows.validate_nodes_and_infer_types()
    behind = to_openvino(frozen_network(head), (-1, *head.inputs[0].shape[1:]), file.parent)
    vectors = [result.input_value(0) for result in rows.get_results()]
    joined = vectors[0] if len(vectors) == 1 else ov.opset13.concat(vectors, 1).output(0)
    behind.get_parameters()[0].output(0).replace(joined)
    save_openvino(ov.Model([result.input_value(0) for result in behind.get_results()], [pixels]), labels, file)


def _free_batch(model: Any) -> None:
    """Let reshapes that were folded for one picture keep whatever number of pictures comes."""
    opset = import_openvino().opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Reshape" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        pattern = node.input_value(1).get_node().data.tolist()
        if pattern and pattern[0] == 1 and 0 not in pattern:
            kept = opset.reshape(node.input_value(0), np.array([0, *pattern[1:]]), special_zero=True)  # 0: as it comes
            node.output(0).replace(kept.output(0))
