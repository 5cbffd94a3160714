"""A frozen Keras backbone as an encoder: built once, all wanted layers as outputs, preprocessing inside."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import check_pixels
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.graph import embedding_output
from tlfeat.backbones.int8 import find_network, read_layers
from tlfeat.backbones.network import BackboneSpec, build_base, weights_digest
from tlfeat.backbones.precision import BFLOAT16, FLOAT32, INT8, check_written, has_bfloat16, kind_of
from tlfeat.backbones.preprocess import preprocess
from tlfeat.backbones.runtime import (
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
from tlfeat.errors import UsageError, WeightsError
from tlfeat.images.decode import n_cores
from tlfeat.images.resizing import check_possible, pixel_type
from tlfeat.types import OnProgress, Pixels, Rows, silent

#: What TensorFlow takes as the name of a scope within another; every layer is one.
_SCOPE = re.compile(r"[A-Za-z0-9_.\\/>-]*")


def _check_names(network: Any) -> None:
    """Raise `WeightsError` for a layer that Keras can build and save, and TensorFlow cannot run."""
    for layer in network._flatten_layers(include_self=False):
        if not _SCOPE.fullmatch(layer.name):
            raise WeightsError(
                f"TensorFlow cannot run a layer called '{layer.name}': a name has letters without accents, digits and "
                f". _ - / > only. Build the network with other names and give it the same weights."
            )


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
    resize : str, optional
        One of `resizing.RESIZES`; the network's own by default.
    dtype : str, default="float32"
        Of the stored rows, or "float16".
    precision : str, default="float32"
        What the network computes in, as `precision` writes it. Another than float32 is for OpenVINO alone.
    network : Path, optional
        The int8 network, where it lies elsewhere than in `networks_dir`.
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
        resize: str | None = None,
        dtype: str = "float32",
        precision: str = FLOAT32,
        network: Path | None = None,
        batch_size: int | None = None,
        n_threads: int | None = None,
        networks_dir: Path | None = None,
    ) -> None:
        self.spec = spec
        self.layers = tuple(dict.fromkeys(layers))
        self.resize = resize or spec.own_resize
        check_possible(self.resize)
        self.dtype = dtype
        self.precision = precision
        self._network = network
        self._n_threads = n_threads
        self.networks_dir = networks_dir or workspace.NETWORKS_DIR
        self.notes: list[str] = []
        check_runtime(runtime)
        check_written(precision)
        if precision != FLOAT32:
            if runtime == "tensorflow":
                raise UsageError(f"--precision {kind_of(precision)} is for OpenVINO. Leave --runtime tensorflow out.")
            runtime = "openvino"
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
        return self.spec.size

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Architecture, digest of the weights, input size, preprocessing, resizing, dtype of the rows; precision.

        Caches of float32 do not name their precision.
        """
        precision = {} if self.precision == FLOAT32 else {"precision": self.precision}
        return {
            "backbone": "own model" if self.spec.is_own_model else self.spec.backbone,
            "weights": weights_digest(self.spec),
            "input_size": list(self.input_size),
            "preprocess": self.spec.mode,
            "resize": self.resize,
            "dtype": self.dtype,
            **precision,
        }

    def at_precision(self, precision: str) -> KerasEncoder:
        """Return the same encoder at another precision."""
        return KerasEncoder(
            self.spec,
            self.layers,
            runtime=self._asked_runtime,
            resize=self.resize,
            dtype=self.dtype,
            precision=precision,
            batch_size=self._batch_size,
            n_threads=self._n_threads,
            networks_dir=self.networks_dir,
        )

    @property
    def is_on_openvino(self) -> bool:
        """Whether OpenVINO is to embed: not where TensorFlow was asked for, or has a GPU."""
        return self._wanted_runtime == "openvino"

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Load the converted network, or build it with TensorFlow and convert it (5 to 20 s, the first time)."""
        if self._wanted_runtime == "tensorflow":
            on_progress("building the network with TensorFlow", 0, 0)
        elif not self.network_file.exists():
            on_progress("building the network and converting it to OpenVINO, once", 0, 0)
        self.encode(np.zeros((1, *self.input_size, 3), pixel_type(self.resize)))

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        check_pixels(pixels, self.input_size, pixel_type(self.resize))
        return self._engine(pixels)

    @cached_property
    def _engine(self) -> OpenVinoRuntime | TensorFlowRuntime:
        is_bfloat16 = self.precision == BFLOAT16
        if is_bfloat16 and not has_bfloat16():
            raise UsageError("This processor does not compute in bfloat16, which these rows need.")
        if (file := self.converted()) is not None:
            read = read_layers if kind_of(self.precision) == INT8 else None
            try:
                return OpenVinoRuntime(file, self.layers, self.n_threads, is_bfloat16=is_bfloat16, read=read)
            except CannotConvert as error:
                self._note(error)
        return TensorFlowRuntime(self._forward, self.layers, self.batch_size)

    def converted(self, on_progress: OnProgress = silent) -> Path | None:
        """Return the converted network, which is made if it is not there yet; None where TensorFlow embeds."""
        if self._wanted_runtime != "openvino":
            return None
        if kind_of(self.precision) == INT8:
            return self._int8_network()
        file = self.network_file
        try:
            if not is_converted(file):
                on_progress("building the network and converting it to OpenVINO, once", 0, 0)
                probe = np.random.default_rng(0).integers(0, 256, (2, *self.input_size, 3))
                pixels = probe.astype(pixel_type(self.resize))
                convert(self._forward, self.layers, pixels, file, is_large=self.spec.hub is not None)
        except CannotConvert as error:
            self._note(error)
            return None
        return file

    def int8_network(self) -> Path | None:
        """Return where the int8 network lies, which may give other layers, too; None where it has to be made."""
        file = self._network or self.network_file
        others = sorted(file.parent.glob(f"{glob.escape(file.stem.rpartition('-')[0])}-*.xml"))
        return find_network([file, *(other for other in others if other != file)], self.layers)

    def _int8_network(self) -> Path:
        if (found := self.int8_network()) is None:
            file = self._network or self.network_file
            raise WeightsError(
                f"The int8 network of these rows, {file.name}, is not in {file.parent}, or damaged. Make it again from "
                f"the same pictures (tlfeat extract DATA --precision int8), or copy it from where they were made."
            )
        return found

    def _note(self, error: CannotConvert) -> None:
        if self.precision != FLOAT32:
            raise UsageError(f"{self.name} cannot be embedded in {kind_of(self.precision)}: OpenVINO: {error}")
        self.notes.append(f"TensorFlow embeds, not the faster OpenVINO: {error}")

    @property
    def network_file(self) -> Path:
        """Where the converted network lies, or will: bfloat16 is computed with that of float32."""
        held = {name: value for name, value in self.fingerprint.items() if name != "precision"} | {"dtype": "float32"}
        identity = workspace.digest({**held, "layers": self.layers}, 16)
        if kind_of(self.precision) != INT8:
            return converted_file(self.networks_dir, self.name, identity)
        # its numbers are its own: it is not made again when a package is updated
        stem = f"{self.name}-{workspace.digest(held, 16)}-{self.precision.replace(':', '-')}"
        return self.networks_dir / f"{stem}-{identity[:8]}.xml"

    @cached_property
    def _forward(self) -> Callable[[Pixels], list[Any]]:
        keras = import_keras()
        import tensorflow as tf

        frozen = self._frozen()
        _check_names(frozen)

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
        base = self._base()
        outputs = [embedding_output(base, self.spec, name) for name in self.layers]
        frozen = import_keras().Model(base.inputs[0], outputs)
        frozen.trainable = False
        return frozen

    def _base(self) -> Any:
        """The whole network, to be taken apart."""
        return build_base(self.spec, self.input_size)
