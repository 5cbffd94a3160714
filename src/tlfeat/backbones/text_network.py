"""A folder of a text encoder becomes one Keras function: token numbers in, one row a text and layer out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tlfeat.backbones.frameworks import import_hub, import_keras
from tlfeat.backbones.hub_weights import from_tensors
from tlfeat.backbones.text_folder import TextFolder
from tlfeat.backbones.weights_folder import CONFIG, Tensors
from tlfeat.errors import UsageError, WeightsError, nearest

#: Stands for no token in the array of a batch.
NOTHING = -1

#: The pooling that the encoder was trained with: what `--layer` takes by default.
OWN = "avg_pool"

POOLINGS = ("mean", "cls", "max")

#: Tensors of a folder that rows do not need: what trains on words, and the layer above the first token.
_PASSED_OVER = (r"position_ids$", r"(^|\.)pooler\.", r"^cls\.", r"^lm_head\.", r"^vocab_", r"^classifier\.")


def layer_names(n_blocks: int) -> list[str]:
    """Return what a text encoder can give, but for the poolings."""
    return [OWN, "final", *(f"block_{k}" for k in range(1, n_blocks + 1))]


def check_layer(name: str, n_blocks: int, of: str) -> str:
    """Return the full name of a layer: ``final`` is ``final:mean``.

    Raises
    ------
    UsageError
        There is no such layer or pooling.
    """
    layer, _, pool = name.partition(":")
    known = layer_names(n_blocks)
    if layer not in known:
        raise UsageError(f"No layer '{layer}' in {of}. {nearest(layer, known, of='layers')}")
    if layer == OWN:
        if pool not in ("", "avg"):
            raise UsageError(f"{OWN} is pooled already, as the encoder was trained. Use --layer final:{pool}.")
        return OWN
    if pool == "avg":
        pool = "mean"
    if pool not in ("", *POOLINGS):
        raise UsageError(f"No pooling '{pool}' of tokens. {nearest(pool, list(POOLINGS), of='poolings')}")
    return f"{layer}:{pool or 'mean'}"


def build_text(folder: TextFolder) -> Any:
    """Return KerasHub's network with the weights of a folder.

    Raises
    ------
    UsageError
        KerasHub is not installed.
    WeightsError
        Tensors are missing, too many, or of another shape.
    """
    keras, models, sizes = import_keras(), import_hub().models, folder.sizes
    n_positions = sizes["max_position_embeddings"] - folder.family.n_lost
    arguments: dict[str, Any] = {
        "vocabulary_size": sizes["vocab_size"],
        "num_layers": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "hidden_dim": sizes["hidden_size"],
        "intermediate_dim": sizes["intermediate_size"],
        "max_sequence_length": n_positions,
    }
    if folder.family.name == "bert":
        arguments["num_segments"] = sizes["type_vocab_size"]

    def convert(network: Any, tensors: Tensors) -> None:
        converter = import_hub(f"keras_hub.src.utils.transformers.{folder.family.converter}")
        converter.convert_weights(network, _Ported(tensors, folder), folder.weights.config)

    network = from_tensors(
        folder.weights, lambda: getattr(models, folder.family.hub_class)(**arguments), convert, _PASSED_OVER
    )
    if not folder.is_gelu_approximate:
        for k in range(sizes["num_hidden_layers"]):
            block = network.get_layer(f"transformer_layer_{k}")
            block._feedforward_intermediate_dense.activation = keras.activations.gelu
    network.trainable = False
    return network


class _Ported:
    """Tensors for a converter of KerasHub, with what it leaves out.

    Many folders lack the pooler, and no row needs it. RoBERTa's first two positions are no token's, and it adds to
    every token the one embedding of a segment, which KerasHub's network has not: it goes into the positions. (The
    converter for XLM-RoBERTa does the latter itself.)
    """

    def __init__(self, tensors: Tensors, folder: TextFolder) -> None:
        self.get_tensor = tensors.get_tensor
        self._tensors, self._folder = tensors, folder

    def port_weight(self, keras_variable: Any, hf_weight_key: str, hook_fn: Any = None) -> None:
        """Give a Keras variable its tensor."""
        family = self._folder.family
        if hf_weight_key.startswith("pooler."):
            return
        if not family.n_lost or not hf_weight_key.endswith("embeddings.position_embeddings.weight"):
            self._tensors.port_weight(keras_variable, hf_weight_key, hook_fn)
            return
        positions, shape = self.get_tensor(hf_weight_key), tuple(keras_variable.shape)
        if positions.shape != (shape[0] + family.n_lost, shape[1]):
            raise WeightsError(
                f"{self._folder.weights.path} does not fit: its {hf_weight_key} is "
                f"{'x'.join(map(str, positions.shape))}, and {CONFIG} says "
                f"{shape[0] + family.n_lost}x{shape[1]}."
            )
        positions = positions[family.n_lost :]
        if family.name == "roberta":
            positions = positions + self.get_tensor(hf_weight_key.replace("position_", "token_type_"))[0]
        keras_variable.assign(positions)


def rows_function(folder: TextFolder, layers: Sequence[str]) -> Callable[[Any], list[Any]]:
    """Return the function from int32 tokens of shape (n, length), `NOTHING` behind the end of each text, to rows.

    One float32 tensor of shape (n, width) for each of `layers`, which are names as `check_layer` gives them.
    """
    keras, network = import_keras(), build_text(folder)
    ops, n_blocks = keras.ops, folder.sizes["num_hidden_layers"]
    wanted = [OWN if name == OWN else name.partition(":")[0] for name in layers]
    blocks = [n_blocks if name in (OWN, "final") else int(name.removeprefix("block_")) for name in wanted]
    tapped = sorted(set(blocks))
    inner = keras.Model(network.inputs, [network.get_layer(f"transformer_layer_{k - 1}").output for k in tapped])
    names = [tensor.name for tensor in network.inputs]

    def forward(tokens: Any) -> list[Any]:
        mask = ops.cast(tokens >= 0, "int32")
        given = {"token_ids": ops.maximum(tokens, 0), "padding_mask": mask, "segment_ids": ops.zeros_like(tokens)}
        outputs = inner([given[name] for name in names], training=False)
        states = dict(zip(tapped, outputs if isinstance(outputs, (list, tuple)) else [outputs], strict=True))
        rows = []
        for name, block in zip(layers, blocks, strict=True):
            pool = folder.pooling if name == OWN else name.partition(":")[2]
            row = _pooled(ops, states[block], mask, pool)
            rows.append(_of_length_1(ops, row) if name == OWN and folder.is_normalised else row)
        return rows

    return forward


def _pooled(ops: Any, states: Any, mask: Any, pool: str) -> Any:
    """Return one vector a text of the vectors of its tokens (n, length, width)."""
    if pool == "cls":
        return states[:, 0]
    is_token = ops.expand_dims(ops.cast(mask, "float32"), -1)  # (n, length, 1)
    if pool == "max":
        return ops.max(states + (is_token - 1.0) * 1e9, axis=1)
    return ops.sum(states * is_token, axis=1) / ops.maximum(ops.sum(is_token, axis=1), 1e-9)


def _of_length_1(ops: Any, rows: Any) -> Any:
    return rows / ops.maximum(ops.sqrt(ops.sum(rows * rows, axis=1, keepdims=True)), 1e-12)
