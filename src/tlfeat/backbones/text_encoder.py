"""A frozen text encoder as an `Encoder`: the bytes of a text in, one row for each layer out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.backbones.fetch import SCHEME
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.runtime import (
    CannotConvert,
    TokenRuntime,
    check_runtime,
    choose_runtime,
    convert,
    converted_file,
    converted_tokens,
    is_converted,
)
from tlfeat.backbones.text_catalog import TextBackbone, find_text
from tlfeat.backbones.text_folder import TextFolder, digests, need_folder, open_text_folder
from tlfeat.backbones.text_network import NOTHING, check_layer, rows_function
from tlfeat.backbones.tokens import Tokenizer, Tokens
from tlfeat.errors import UsageError
from tlfeat.images.decode import n_cores
from tlfeat.text import counted
from tlfeat.texts.read import read_text
from tlfeat.types import OnProgress, Rows, silent

#: Texts that are handed over at once, for batches of about one length.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Which text encoder, and where its folder is: enough to build it again.

    Parameters
    ----------
    backbone : str
        A name of `text_catalog`.
    weights : str
        The folder, or ``hf://org/name``.
    """

    backbone: str
    weights: str = ""

    def __post_init__(self) -> None:
        find_text(self.backbone)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the folder absolute, so that the spec holds in any working folder."""
        is_path = self.weights and not self.weights.startswith(SCHEME)
        return {**asdict(self), "weights": str(Path(self.weights).resolve()) if is_path else self.weights}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextSpec:
        """Build the spec from what `to_dict` gave."""
        return cls(str(values.get("backbone")), str(values.get("weights", "")))


class TextEncoder:
    """A text encoder in a folder of weights as an `Encoder`.

    Parameters
    ----------
    spec : TextSpec
    layers : sequence of str, default=("avg_pool",)
        ``avg_pool``, the pooling that it was trained with, or ``final:mean``, ``final:cls``, ``block_3:mean`` ...
    runtime : str, default="auto"
        One of `runtime.RUNTIMES`.
    dtype : str, default="float32"
        Of the stored rows, or "float16".
    batch_size : int, optional
        Texts handed over at once.
    n_threads : int, optional
        Cores to use; all by default.
    networks_dir : Path, optional
        Where converted networks are kept; ``cache/networks`` by default.

    Raises
    ------
    UsageError
        No folder was named, or no such layer is there.
    WeightsError
        The folder is not what was named.
    """

    input_size = (0, 0)  # a text has none
    resize = "none"

    def __init__(
        self,
        spec: TextSpec,
        layers: Sequence[str] = ("avg_pool",),
        *,
        runtime: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        n_threads: int | None = None,
        networks_dir: Path | None = None,
    ) -> None:
        check_runtime(runtime)
        entry = find_text(spec.backbone)
        self.spec = spec
        self.folder: TextFolder = open_text_folder(need_folder(spec.weights, entry, spec.backbone), entry)
        self.prefix = entry.prefix if isinstance(entry, TextBackbone) else ""
        n_blocks = self.folder.sizes["num_hidden_layers"]
        self.layers = tuple(dict.fromkeys(check_layer(name, n_blocks, spec.backbone) for name in layers))
        self.dtype = dtype
        self.batch_size = batch_size or _AT_ONCE
        self.networks_dir = networks_dir or workspace.NETWORKS_DIR
        self._n_threads = n_threads
        self._asked_runtime = runtime
        self._notes: list[str] = []
        self._n_cut = 0
        self._counting = threading.Lock()

    @property
    def name(self) -> str:
        return self.spec.backbone

    @property
    def runtime(self) -> str:
        return self._engine.name

    @property
    def is_parallel(self) -> bool:
        return self._engine.is_parallel

    @property
    def notes(self) -> list[str]:
        """What the user should know: also how many texts were cut since the encoder was made."""
        if not self._n_cut:
            return list(self._notes)
        longer = counted(self._n_cut, "text is", "texts are")
        return [
            *self._notes,
            f"{longer} longer than {self.folder.max_length} tokens: the beginning was embedded, the rest was cut off",
        ]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Architecture, digests of weights and tokenizer, pooling, longest text, what is put before it, and dtype."""
        return {
            "backbone": self.spec.backbone,
            **digests(self.folder),
            "pooling": self.folder.pooling + (", length 1" if self.folder.is_normalised else ""),
            "max_length": self.folder.max_length,
            "prefix": self.prefix,
            "dtype": self.dtype,
        }

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Load the converted network, or build it with KerasHub and convert it (10 to 30 s, the first time)."""
        if choose_runtime(self._asked_runtime) == "tensorflow":
            on_progress("building the network with TensorFlow", 0, 0)
        elif not self._converted_file.exists():
            on_progress("building the network and converting it to OpenVINO, once", 0, 0)
        self.encode([np.zeros(3, np.int32)])

    def decode(self, data: bytes) -> Tokens:
        """Return the tokens of the bytes of a text; a `BadImage` says why there are none."""
        tokens, is_cut = self._tokenizer(self.prefix + read_text(data))
        if is_cut:
            with self._counting:
                self._n_cut += 1
        return tokens

    def encode(self, pixels: Any) -> dict[str, Rows]:
        """Embed texts at every layer in a single forward pass.

        Parameters
        ----------
        pixels : sequence of int32 arrays
            The tokens of each text, as `decode` gives them; under the name that an `Encoder` has for what it takes.

        Returns
        -------
        dict of layer name to float32 array of shape (n_texts, width)
            A row differs by at most 1e-6 with the texts that it stands among
            (``test_a_row_hardly_depends_on_the_texts_beside_it``).
        """
        return self._engine(pixels)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.folder)

    @cached_property
    def _engine(self) -> TokenRuntime:
        if choose_runtime(self._asked_runtime) == "openvino":
            file = self._converted_file
            try:
                if not is_converted(file):
                    convert(self._forward, self.layers, _probe(self.folder), file, read=converted_tokens)
                return converted_tokens(file, self.layers, self._n_threads or n_cores())
            except CannotConvert as error:
                self._notes.append(f"TensorFlow embeds, not the faster OpenVINO: {error}")
        return TokenRuntime("tensorflow", self._forward, self.layers, is_parallel=False)

    @property
    def _converted_file(self) -> Path:
        identity = workspace.digest({**self.fingerprint, "dtype": "float32", "layers": self.layers}, 16)
        return converted_file(self.networks_dir, self.name, identity)

    @cached_property
    def _forward(self) -> Callable[[npt.NDArray[np.int32]], list[Any]]:
        import_keras()
        import tensorflow as tf

        rows = rows_function(self.folder, self.layers)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, None), "int32")], autograph=False
        )
        def forward(tokens: Any) -> Any:
            return rows(tokens)

        return forward  # type: ignore[no-any-return]


def _probe(folder: TextFolder) -> npt.NDArray[np.int32]:
    """Return three texts of different lengths on which both runtimes must agree."""
    drawn = np.random.default_rng(0).integers(0, folder.sizes["vocab_size"], (3, min(24, folder.max_length)))
    for i, n in enumerate((24, 5, 11)):
        drawn[i, n:] = NOTHING
    return drawn.astype(np.int32)


def check_text_options(given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for options of pictures that were given for a text encoder."""
    words = {"pool": "--pool", "preprocess": "--preprocess", "input_size": "--input-size", "resize": "--resize"}
    for name, option in words.items():
        if given.get(name) is not None:
            better = " Poolings of texts are part of the layer: --layer final:cls." if name == "pool" else ""
            raise UsageError(f"{option} is for images, and {given.get('backbone')} embeds texts.{better}")
