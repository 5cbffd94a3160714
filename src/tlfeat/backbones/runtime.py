"""The frozen graph made fast on this machine: OpenVINO on a CPU, TensorFlow where a GPU is.

A network is converted once and kept on disk; from then on a process embeds without importing TensorFlow. Before it
is kept, its rows are compared with those of TensorFlow: a network that OpenVINO does not compute to `TOLERANCE` is
refused here, and the caller falls back.

Source of the way of working (one small batch per core, no threads below it): docs/benchmarks/extraction.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_openvino, silent_stderr
from tlfeat.errors import TlfeatError, UsageError, nearest
from tlfeat.records import distribution_version
from tlfeat.types import Pixels, Rows
from tlfeat.workspace import written_together

RUNTIMES = ("auto", "openvino", "tensorflow")

#: Largest difference between the rows of two runtimes, over the largest magnitude in that layer's rows.
TOLERANCE = 1e-4

#: Changes when the conversion below does, so that networks converted by an older tlfeat are converted again.
CONVERSION = 2

#: The last line of a converted network's .xml: a digest of what stands before it and of the weights in the .bin.
_SEAL = b"\n<!-- sha256 "


class CannotConvert(TlfeatError):
    """OpenVINO is not installed, cannot take this network, or computes something else."""


def check_runtime(wanted: str) -> None:
    """Raise `UsageError` unless `wanted` is one of `RUNTIMES`."""
    if wanted not in RUNTIMES:
        raise UsageError(f"No runtime '{wanted}'. {nearest(wanted, list(RUNTIMES), of='runtimes')}")


def choose_runtime(wanted: str) -> str:
    """Return "openvino" or "tensorflow" for one of `RUNTIMES`; "auto" is TensorFlow only where it has a GPU."""
    if wanted == "auto":
        return "tensorflow" if has_gpu() else "openvino"
    return wanted


def has_gpu() -> bool:
    """Whether TensorFlow finds a GPU; it is only asked where the machine has the device of one."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if is_hidden or not (Path("/dev/nvidiactl").exists() or sys.platform == "darwin"):
        return False
    if sys.platform == "darwin" and not distribution_version("tensorflow-metal"):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class TensorFlowRuntime:
    """The traced graph itself, in batches of one fixed size, so that a row does not depend on its batch.

    Parameters
    ----------
    forward : callable
        A ``tf.function`` from pixels to a list of tensors of shape (n, width), one for each of `layers`.
    """

    is_parallel = False

    def __init__(self, forward: Callable[[Pixels], Sequence[Any]], layers: Sequence[str], batch_size: int) -> None:
        self.name = f"tensorflow {distribution_version('tensorflow')}"
        self.forward = forward
        self.layers = layers
        self.batch_size = batch_size

    def __call__(self, pixels: Pixels) -> dict[str, Rows]:
        """Return float32 rows of shape (n, width) for each layer, n at most the batch size."""
        n = len(pixels)
        if n < self.batch_size:
            padding = np.zeros((self.batch_size - n, *pixels.shape[1:]), pixels.dtype)
            pixels = np.concatenate([pixels, padding])
        outputs = self.forward(pixels)
        return {name: np.asarray(out, dtype=np.float32)[:n] for name, out in zip(self.layers, outputs, strict=True)}


class OpenVinoRuntime:
    """A converted network on the CPU: any number of threads may call it, each keeps one core busy.

    Pictures go through one by one: what one picture leaves in the processor's caches is still there for the next
    layer, and small networks take a third less time than in batches of eight. Rows do not depend on the batch, nor on
    the number of threads, to the bit.

    Parameters
    ----------
    file : Path
        What `convert` wrote, and `is_converted` found whole.
    layers : sequence of str
        In the order of the network's outputs.
    n_threads : int
        Callers at once.
    is_bfloat16 : bool, default=False
        Compute in bfloat16, which the processor must have (`precision.has_bfloat16`).
    read : callable, optional
        Gives the model of the file with these layers as outputs, where it may have others, too.
    """

    is_parallel = True

    def __init__(
        self,
        file: Path,
        layers: Sequence[str],
        n_threads: int,
        *,
        is_bfloat16: bool = False,
        read: Callable[[Path, Sequence[str]], Any] | None = None,
    ) -> None:
        self.name = f"openvino {distribution_version('openvino')}"
        self.layers = layers
        self._compiled = _compile(read(file, layers) if read else file, n_threads, is_bfloat16=is_bfloat16)
        self._request = threading.local()

    def __call__(self, pixels: Pixels) -> dict[str, Rows]:
        """Return float32 rows of shape (n, width) for each layer."""
        if not hasattr(self._request, "own"):
            self._request.own = self._compiled.create_infer_request()
        request = self._request.own
        rows = {
            name: np.empty((len(pixels), self._compiled.output(k).shape[1]), np.float32)
            for k, name in enumerate(self.layers)
        }
        for i in range(len(pixels)):
            request.infer([pixels[i : i + 1]], share_inputs=True)
            for k, name in enumerate(self.layers):
                rows[name][i] = request.get_output_tensor(k).data[0]
        return rows


#: Texts of about one length that go through the network together, and the step by which their lengths are rounded up:
#: one by one short texts take three times as long, and in 32 long ones a tenth more (docs/benchmarks/text.md).
_TEXTS, _STEP = 8, 8


class TokenRuntime:
    """A network of texts: sorted by length, a few at a time, each batch as long as its longest text.

    Parameters
    ----------
    package : str
        What computes.
    forward : callable
        From int32 tokens of shape (n, length), -1 behind the end of each text, to a row a text for each layer.
    layers : sequence of str
    is_parallel : bool
    """

    def __init__(
        self,
        package: str,
        forward: Callable[[Any], Sequence[Any]],
        layers: Sequence[str],
        *,
        is_parallel: bool,
    ) -> None:
        self.name = f"{package} {distribution_version(package)}"
        self.forward = forward
        self.layers = layers
        self.is_parallel = is_parallel

    def __call__(self, tokens: Sequence[npt.NDArray[np.int32]]) -> dict[str, Rows]:
        """Return float32 rows of shape (n_texts, width) for each layer, in the order of the texts."""
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        rows: dict[str, Rows] = {}
        for start in range(0, len(order), _TEXTS):
            at = order[start : start + _TEXTS]
            longest = max(len(tokens[i]) for i in at)
            batch = np.full((len(at), -(-longest // _STEP) * _STEP), -1, np.int32)
            for k, i in enumerate(at):
                batch[k, : len(tokens[i])] = tokens[i]
            for name, found in zip(self.layers, self.forward(batch), strict=True):
                found = np.asarray(found, dtype=np.float32)
                rows.setdefault(name, np.empty((len(tokens), found.shape[1]), np.float32))[at] = found
        return rows


def converted_tokens(file: Path, layers: Sequence[str], n_threads: int) -> TokenRuntime:
    """Return the converted network of a text encoder, for any number of threads."""
    compiled, request = _compile(file, n_threads), threading.local()

    def forward(tokens: Any) -> list[Any]:
        if not hasattr(request, "own"):
            request.own = compiled.create_infer_request()
        request.own.infer([tokens], share_inputs=True)
        return [request.own.get_output_tensor(k).data.copy() for k in range(len(layers))]

    return TokenRuntime("openvino", forward, layers, is_parallel=True)


def converted_file(folder: Path, name: str, identity: str) -> Path:
    """Return where the converted form of a network lies; another version of OpenVINO or Keras gets another file."""
    versions = "-".join(distribution_version(package) for package in ("openvino", "keras"))
    return folder / f"{name}-{identity}-{versions}-{CONVERSION}.xml"


def is_converted(file: Path) -> bool:
    """Return whether a network is there as `convert` wrote it, to the bit.

    OpenVINO itself notices a weights file that is too short, but not one whose bits have flipped, nor the zeros that
    a power cut leaves: the rows would be wrong without an error. Reading the weights of ResNet50 takes 0.1 s.
    """
    try:
        graph, _, seal = file.read_bytes().rpartition(_SEAL)
        return seal == _seal(graph, file.with_suffix(".bin"))
    except OSError:
        return False


def seal_file(file: Path) -> None:
    """Write below a saved network the digest that `is_converted` looks for."""
    graph = file.read_bytes()
    file.write_bytes(graph + _SEAL + _seal(graph, file.with_suffix(".bin")))


def _seal(graph: bytes, weights: Path) -> bytes:
    with weights.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(graph)
    return f"{digest.hexdigest()} -->\n".encode()


def convert(
    forward: Any,
    layers: Sequence[str],
    probe: npt.NDArray[Any],
    file: Path,
    *,
    read: Callable[[Path, Sequence[str], int], Any] = OpenVinoRuntime,
    is_large: bool = False,
) -> None:
    """Write the OpenVINO form of a traced graph to `file` (and the weights beside it), if its rows are the same.

    Parameters
    ----------
    forward : tf.function
        From pixels to a list of tensors of shape (n, width), one for each of `layers`.
    probe : array of shape (n, height, width, 3), or (n, length)
        Pictures, or tokens, on which both must agree within `TOLERANCE`.
    file : Path
        Ends in ``.xml``. It appears only when it is whole.
    read : callable
        Gives what runs the file: `OpenVinoRuntime`, or `converted_tokens`, for any number of texts of any length.
    is_large : bool, default=False
        OpenVINO reads the variables where they are, instead of a frozen copy of the graph: of 86 million in 4 s and
        2 GB, not in 24 s and 5 GB. Rows of EfficientNet differ in the last bit then, so that what was converted from
        a frozen graph stays so.

    Raises
    ------
    CannotConvert
    """
    try:
        ov = import_openvino()
    except ImportError as error:
        raise CannotConvert("it is not installed") from error
    shape = (-1, -1) if probe.ndim == 2 else (1, *probe.shape[1:])
    frozen = None if is_large else freeze(forward)
    try:
        with written_together(file) as new:
            try:
                model = _read_in_place(ov, forward, shape) if is_large else to_openvino(frozen, shape, new.parent)
                ov.save_model(model, new, compress_to_fp16=False)
                given = probe if probe.ndim > 2 else [text[text >= 0] for text in probe]
                got = read(new, layers, 1)(given)  # with no name: on Windows a file that is open cannot be moved
            except Exception as error:  # OpenVINO raises RuntimeError for everything, and names no kinds
                raise CannotConvert(f"it cannot take this network: {_last_line(error)}") from error
            expected = dict(zip(layers, (np.asarray(rows) for rows in forward(probe)), strict=True))
            distance = largest_difference(got, expected)
            if not distance <= TOLERANCE:
                raise CannotConvert(f"its rows differ from TensorFlow's by {distance:.1g}, more than {TOLERANCE:.0e}")
            seal_file(new)
    except OSError as error:
        raise CannotConvert(f"{file.parent} cannot be written: {error.strerror or error}") from error


def freeze(forward: Any) -> Any:
    """Return the traced graph of a ``tf.function`` with one input signature, its variables made constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(forward.get_concrete_function())


def to_openvino(frozen: Any, shape: Sequence[int], folder: Path) -> Any:
    """Return the OpenVINO model of what `freeze` gave, its outputs in the same order.

    Parameters
    ----------
    frozen : ConcreteFunction
    shape : sequence of int
        Of the input; -1 for any number of images.
    folder : Path
        For a file that OpenVINO reads the graph from.
    """
    import tensorflow as tf

    ov = import_openvino()

    tf.io.write_graph(frozen.graph, str(folder), "graph.pb", as_text=False)
    model = ov.Core().read_model(folder / "graph.pb")
    (folder / "graph.pb").unlink()
    by_name = {name: output for output in model.outputs for name in output.names}
    model = ov.Model([by_name[tensor.name] for tensor in frozen.outputs], model.get_parameters())
    model.reshape(list(shape))
    _simplify(model)
    return model


def _read_in_place(ov: Any, forward: Any, shape: Sequence[int]) -> Any:
    """Return the OpenVINO model of a ``tf.function`` without a copy of its variables."""
    traced = forward.get_concrete_function()
    with silent_stderr():  # TensorFlow looks for a GPU and says that there is none
        model = ov.convert_model(traced)
    by_name = {name: output for output in model.outputs for name in output.names}
    model = ov.Model([by_name[tensor.name] for tensor in traced.outputs], model.get_parameters())
    model.reshape(list(shape))
    _simplify(model)
    return model


def _simplify(model: Any) -> None:
    """Fold BatchNorm into the weights now and not at every start: half the memory for weights, a third of the time.

    It is what OpenVINO's own converter does, under a name that may change; without it all is as right, and larger.
    """
    with contextlib.suppress(ImportError):
        from openvino._offline_transformations import apply_moc_transformations

        apply_moc_transformations(model, cf=True, smart_reshape=False)


def largest_difference(one: Mapping[str, Rows], other: Mapping[str, Rows]) -> float:
    """Return the largest difference over all layers, each over its largest magnitude; nan is a difference."""
    found = 0.0
    for name, rows in other.items():
        scale = float(np.abs(rows).max()) or 1.0
        found = max(found, float(np.abs(one[name] - rows).max()) / scale, key=lambda x: (np.isnan(x), x))
    return found


def _compile(file: Any, n_threads: int, *, is_bfloat16: bool = False) -> Any:
    try:
        ov = import_openvino()
    except ImportError as error:
        raise CannotConvert("it is not installed") from error
    settings = {
        # processors with bfloat16 would use it by default; what is int8 in a network stays so
        "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32",
        "NUM_STREAMS": n_threads,
        "INFERENCE_NUM_THREADS": n_threads,
    }
    try:
        return ov.Core().compile_model(file, "CPU", settings)
    except RuntimeError as error:
        raise CannotConvert(f"{file} cannot be loaded: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
