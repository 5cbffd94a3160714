"""A Keras network from pixels to probabilities as a file for another runtime, with its labels inside; and run again.

One literal table of formats. Every file takes ``pixels``, float32 of shape (n, height, width, 3), RGB, 0 to 255, for
any n, and gives ``probabilities`` of shape (n, n_classes). Where its labels stand:

========  ======================================================================================================
keras     output ``label`` (strings); they are the vocabulary of the StringLookup layer of that name
onnx      output ``label`` (strings), and as JSON in the metadata under ``labels``
openvino  JSON in the runtime information under ``tlfeat/labels``, and under ``model_info/labels``, where Intel's
          Model API looks for them (parted by spaces, so that spaces within become ``_``); output ``class_index``
tflite    ``labels.txt``, a zip at the end of the file, as TFLite's associated files are; output ``class_index``
========  ======================================================================================================
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras, import_openvino, silent_stderr
from tlfeat.backbones.runtime import freeze, to_openvino
from tlfeat.errors import ModelError, UsageError, nearest, short_reason
from tlfeat.models.head_layers import PROBABILITIES
from tlfeat.records import distribution_version
from tlfeat.types import Pixels

Probabilities32 = npt.NDArray[np.float32]

#: Pixels to labels and probabilities.
Run = Callable[[Pixels], tuple[list[str], Probabilities32]]

#: The last operator set that tf2onnx 1.17 knows is 18; onnxruntime has taken 17 since 1.12 (2022).
_OPSET = 17


@dataclass(frozen=True, slots=True)
class Format:
    """One entry of the table.

    Attributes
    ----------
    name : str
        As in ``--to``.
    suffix : str
        Of the file. OpenVINO has its weights in a second one, ``.bin``.
    runtime : str
        The package that runs it.
    needs : tuple of str
        Modules beyond those of a plain install, to write it and to check what was written.
    write : callable
        Network, labels and file: writes the file.
    load : callable
        File to `Run`, on the processor, in float32.
    """

    name: str
    suffix: str
    runtime: str
    needs: tuple[str, ...]
    write: Callable[[Any, Sequence[str], Path], None]
    load: Callable[[Path], Run]

    @property
    def version(self) -> str:
        """The runtime with its version."""
        return f"{self.runtime} {distribution_version(self.runtime)}"


def _write_keras(network: Any, labels: Sequence[str], file: Path) -> None:
    keras = import_keras()
    probabilities = network.outputs[0]
    lookup = keras.layers.StringLookup(
        vocabulary=list(labels), invert=True, num_oov_indices=0, mask_token=None, name="label"
    )
    best = keras.ops.argmax(probabilities, axis=-1)
    keras.Model(network.inputs[0], {"label": lookup(best), PROBABILITIES: probabilities}).save(file)


def frozen_network(network: Any) -> Any:
    """The graph from ``pixels`` to ``class_index`` and ``probabilities``, weights made constants."""
    import tensorflow as tf

    shape = (None, *network.inputs[0].shape[1:])

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(shape, tf.float32, name="pixels")], autograph=False
    )
    def forward(pixels: Any) -> Any:
        probabilities = network(pixels, training=False)
        return tf.argmax(probabilities, axis=-1, output_type=tf.int32), probabilities

    return freeze(forward)


def _write_onnx(network: Any, labels: Sequence[str], file: Path) -> None:
    import onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx
    from tf2onnx import convert

    frozen = frozen_network(network)
    names = dict(zip((tensor.name for tensor in frozen.outputs), ("class_index", PROBABILITIES), strict=True))
    renamed = {frozen.inputs[0].name: "pixels", **names}
    patch_tf2onnx()  # tf2onnx 1.17 knows numpy 1 only
    model, _ = convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[frozen.inputs[0].name],
        output_names=list(names),
        tensors_to_rename=renamed,
        custom_op_handlers={"Erfc": (_erfc, [])},
        opset=_OPSET,
    )
    graph = model.graph
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    strings: Any = [label.encode() for label in labels]
    table = onnx.helper.make_tensor("labels", onnx.TensorProto.STRING, [len(labels)], strings)
    graph.initializer.append(table)
    graph.node.append(onnx.helper.make_node("Gather", ["labels", "class_index"], ["label"], axis=0))
    graph.output.append(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.STRING, ["n"]))
    onnx.helper.set_model_props(model, {"labels": _json(labels), "pixels": "RGB, 0 to 255, resized"})
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """Write erfc as 1 - erf, which ONNX has: the exact GELU of transformers is made with it."""
    source, shape, dtype = node.input[0], context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    context.remove_node(node.name)
    one = context.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    erf = context.make_node("Erf", [source], shapes=[shape], dtypes=[dtype]).output[0]
    context.make_node("Sub", [one, erf], outputs=node.output, name=name, shapes=[shape], dtypes=[dtype])


def _write_openvino(network: Any, labels: Sequence[str], file: Path) -> None:
    save_openvino(to_openvino(frozen_network(network), (-1, *network.inputs[0].shape[1:]), file.parent), labels, file)


def save_openvino(model: Any, labels: Sequence[str], file: Path) -> None:
    """Write an OpenVINO model from pixels to the number of the class and the probabilities, with their names."""
    model.inputs[0].tensor.set_names({"pixels"})
    for output, name in zip(model.outputs, ("class_index", PROBABILITIES), strict=True):
        output.tensor.set_names({name})
    model.set_rt_info(["_".join(label.split()) for label in labels], ["model_info", "labels"])
    model.set_rt_info("Classification", ["model_info", "model_type"])
    model.set_rt_info(_json(labels), ["tlfeat", "labels"])
    import_openvino().save_model(model, file, compress_to_fp16=False)


def _write_tflite(network: Any, labels: Sequence[str], file: Path) -> None:
    import tensorflow as tf

    frozen = frozen_network(network)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(frozen.inputs[0].shape, tf.float32, name="pixels")], autograph=False
    )
    def named(pixels: Any) -> Any:
        class_index, probabilities = frozen(pixels)
        return {"class_index": class_index, PROBABILITIES: probabilities}

    # Frozen first: with weights as variables the converter gave NaN where constants stand beside them. And by way of
    # a SavedModel without gradients: the converter's own way fails on those of swish, and then drops the names.
    folder = file.parent / "saved_model"
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), folder, {"serving_default": named.get_concrete_function()}, options)
    file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    shutil.rmtree(folder)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))


def _json(labels: Sequence[str]) -> str:
    return json.dumps(list(labels), ensure_ascii=False)


def _load_keras(file: Path) -> Run:
    model = import_keras().saving.load_model(file, compile=False, safe_mode=True)

    def run(pixels: Pixels) -> tuple[list[str], Probabilities32]:
        answer = model.predict_on_batch(pixels.astype(np.float32))
        return [label.decode() for label in answer["label"].tolist()], answer[PROBABILITIES]

    return run


def _load_onnx(file: Path) -> Run:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # what its packages for Windows send
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(pixels: Pixels) -> tuple[list[str], Probabilities32]:
        label, probabilities = session.run(["label", PROBABILITIES], {"pixels": pixels.astype(np.float32)})
        return label.tolist(), probabilities

    return run


def load_openvino(file: Path, *, is_bfloat16: bool = False) -> Run:
    """Return what runs an OpenVINO file, in float32 or in bfloat16; what is int8 in it stays so."""
    ov = import_openvino()
    model = ov.Core().read_model(file)
    labels = json.loads(model.get_rt_info(["tlfeat", "labels"]).astype(str))
    # without the hint, processors that have bfloat16 compute in it
    hint = "bf16" if is_bfloat16 else "f32"
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})

    def run(pixels: Pixels) -> tuple[list[str], Probabilities32]:
        answer = compiled(pixels.astype(np.float32))
        return [labels[i] for i in answer["class_index"].tolist()], answer[PROBABILITIES]

    return run


def _load_tflite(file: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(file) as archive:
        labels = archive.read("labels.txt").decode().splitlines()
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()  # says which delegate it takes, on stderr
    runner = interpreter.get_signature_runner()

    def run(pixels: Pixels) -> tuple[list[str], Probabilities32]:
        answer = runner(pixels=pixels.astype(np.float32))
        return [labels[i] for i in answer["class_index"].tolist()], answer[PROBABILITIES]

    return run


# --- the table ----------------------------------------------------------------------------------------------

FORMATS = (
    Format("keras", ".keras", "keras", (), _write_keras, _load_keras),
    Format("onnx", ".onnx", "onnxruntime", ("onnx", "tf2onnx", "onnxruntime"), _write_onnx, _load_onnx),
    Format("openvino", ".xml", "openvino", ("openvino",), _write_openvino, load_openvino),
    Format("tflite", ".tflite", "ai-edge-litert", ("ai_edge_litert",), _write_tflite, _load_tflite),
)


def find_format(name: str) -> Format:
    """Return the table's entry, if its packages are there.

    Raises
    ------
    UsageError
        No such format; the nearest is suggested.
    ModelError
        A package is missing; the message says how to install it.
    """
    names = [entry.name for entry in FORMATS]
    if name not in names:
        raise UsageError(f"No format '{name}' to export to. {nearest(name, names, of='formats')}")
    found = FORMATS[names.index(name)]
    missing = [module for module in found.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise ModelError(f"--to {name} needs {', '.join(missing)}: pip install 'tlfeat[export]'.")
    return found


def write(network: Any, to: Format, labels: Sequence[str], file: Path) -> Run:
    """Write a network to `file` and load it again.

    Parameters
    ----------
    network : keras.Model
        From float32 pixels of shape (n, height, width, 3) to probabilities of shape (n, n_classes).
    to : Format
    labels : sequence of str
        Of the classes, in the order of the probabilities; of one line each.
    file : Path
        In a folder of its own: half-written files are left there if it fails.

    Raises
    ------
    ModelError
        The format cannot take this network.
    OSError
        The disk.
    """
    try:
        with _quiet(), silent_stderr():
            to.write(network, labels, file)
            return to.load(file)
    except OSError:
        raise
    except Exception as error:  # each converter and runtime raises kinds of its own
        raise ModelError(
            f"{to.name} cannot take this network: {short_reason(error)}. Another of "
            f"{', '.join(entry.name for entry in FORMATS)} may."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what converters log and warn of while all is well."""
    loggers = [logging.getLogger(name) for name in ("absl", "tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
