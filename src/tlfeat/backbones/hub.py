"""A row of `hub_catalog` becomes a Keras graph, block by block, so that every block can be an embedding or a cut.

KerasHub's networks are a few layers with all blocks inside. Here each block is a layer of one Functional model, called
``block_1`` to ``block_N``; they are KerasHub's own layers with its own weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlfeat.backbones.frameworks import import_hub, need_hub
from tlfeat.backbones.hub_catalog import Family, HubBackbone, no_size
from tlfeat.backbones.hub_config import Arguments, arguments_of
from tlfeat.backbones.hub_fetch import check_scaling, weights_folder
from tlfeat.backbones.hub_mends import mend_layers
from tlfeat.backbones.hub_weights import load_weights
from tlfeat.backbones.position_tables import resized
from tlfeat.backbones.weights_folder import WeightsFolder
from tlfeat.errors import UsageError, unknown_layer

#: The layer of SigLIP that makes a vector of its tokens.
ATTENTION_POOL = "attention_pool"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a network of KerasHub is made of.

    Attributes
    ----------
    before : list of callable
        From pixels to tokens.
    blocks : list of keras.Layer
    norm : keras.Layer
    n_prefix : int
        Tokens before those of the patches: CLS, registers, that of distillation.
    head : keras.Layer, optional
        From normed tokens to a vector.
    between : dict of int to callable
        What follows a block, by its number.
    arguments : dict
        Further arguments of every block.
    """

    before: list[Callable[[Any], Any]]
    blocks: list[Any]
    norm: Any
    n_prefix: int
    head: Any = None
    between: Mapping[int, Callable[[Any], Any]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _dinov2(net: Any, size: tuple[int, int]) -> _Parts:
    return _Parts([net.embeddings], net.encoder.layers, net.layernorm, 1 + net.num_register_tokens)


def _dinov3(net: Any, size: tuple[int, int]) -> _Parts:
    n_prefix = 1 + net.num_register_tokens
    rotations = net.rope_embedding(np.zeros((1, *size, 3), np.float32))  # depend on the size alone: constants
    angles = tuple(np.asarray(each) for each in rotations)
    arguments = {"position_embeddings": angles, "num_prefix_tokens": n_prefix}
    return _Parts([net.embeddings], net.encoder.layers, net.layernorm, n_prefix, arguments=arguments)


def _vit(net: Any, size: tuple[int, int]) -> _Parts:
    *_, embeddings, encoder = net.layers
    return _Parts([embeddings], encoder.encoder_layers, encoder.layer_norm, 1)


def _deit(net: Any, size: tuple[int, int]) -> _Parts:
    *_, embeddings, encoder = net.layers
    blocks = [_as_vit_block(block) for block in encoder.encoder_layers]
    return _Parts([embeddings], blocks, encoder.layer_norm, 2)


def _as_vit_block(block: Any) -> Any:
    """Return a block of DeiT as one of ViT, which computes the same; its own gives a None beside the tokens."""
    same = import_hub("keras_hub.src.models.vit.vit_layers").ViTEncoderBlock(
        block.num_heads,
        block.hidden_dim,
        block.intermediate_dim,
        use_mha_bias=block.use_mha_bias,
        layer_norm_epsilon=block.layer_norm_epsilon,
        dtype=block.dtype_policy,
    )
    same.build((None, None, block.hidden_dim))
    for target, held in zip(same.weights, block.weights, strict=True):
        target.assign(held)
    return same


def _swin(net: Any, size: tuple[int, int]) -> _Parts:
    blocks, between = [], {}
    for number, stage in enumerate(net.stages, 1):
        blocks += stage.blocks
        if stage.downsample is not None:
            height, width = stage.input_resolution
            stage.downsample.name = f"merge_{number}"
            between[len(blocks)] = functools.partial(stage.downsample, H=height, W=width)
    return _Parts([net.patch_embedding], blocks, net.norm, 0, between=between)


def _siglip(net: Any, size: tuple[int, int]) -> _Parts:
    return _Parts([net.embedding], net.encoder_layers, net.post_layer_norm, 0, head=net.head)


def _clip(net: Any, size: tuple[int, int]) -> _Parts:
    return _Parts([net.embedding, net.pre_layer_norm], net.encoder_layers, net.layer_norm, 1)


_PARTS: dict[str, Callable[[Any, tuple[int, int]], _Parts]] = {
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "vit": _vit,
    "deit": _deit,
    "swin": _swin,
    "siglip": _siglip,
    "clip": _clip,
}

#: Class of ``keras_hub.models`` for each family.
_CLASSES = {
    "dinov2": "DINOV2Backbone",
    "dinov3": "DINOV3Backbone",
    "vit": "ViTBackbone",
    "deit": "DeiTBackbone",
    "swin": "SwinTransformerBackbone",
    "siglip": "SigLIPVisionEncoder",
    "clip": "CLIPVisionEncoder",
}


def build_hub(
    keras: Any,
    entry: HubBackbone | Family,
    folder: WeightsFolder | None,
    size: tuple[int, int],
    *,
    is_random: bool = False,
) -> Any:
    """Return the Keras model from scaled pixels to the pooled output.

    Parameters
    ----------
    keras : module
    entry : HubBackbone or Family
        A family takes its size from the folder.
    folder : WeightsFolder, optional
        Random weights by default, of a `HubBackbone`.
    size : tuple of int
        Height and width of the pixels.
    is_random : bool, default=False
        Of the folder take the architecture alone.

    Returns
    -------
    keras.Model
        Layers ``block_1`` to ``block_N`` and ``norm`` give tokens (n, n_tokens, width). Its attribute `n_prefix` says
        how many of these stand before those of the patches.

    Raises
    ------
    UsageError
        KerasHub is not installed, or the size does not suit the network.
    WeightsError
        The folder does not fit.
    """
    import_hub()
    family = entry if isinstance(entry, Family) else entry.family
    if folder is None:
        if isinstance(entry, Family):
            raise no_size(entry.name)
        arguments: Arguments = dict(entry.arguments)
        check_size(family, arguments, size)
        return _flat(keras, family, make(family, arguments, size), size)
    arguments, native = arguments_of(folder, entry)
    check_size(family, arguments, size)
    if is_random:
        return _flat(keras, family, make(family, arguments, size), size)
    net = load_weights(folder, functools.partial(make, family, arguments), family, native)
    if size != native:
        net = resized(net, make(family, arguments, size))
    return _flat(keras, family, net, size)


def make(family: Family, arguments: Arguments, size: tuple[int, int]) -> Any:
    """Return a network of KerasHub with random weights."""
    mend_layers()
    given = dict(arguments)
    if family.name == "vit":
        given["mlp_dim"] = given.pop("intermediate_dim")
    if family.name == "swin":
        given["drop_path"] = 0.0
    if family.name in ("dinov2", "dinov3"):
        given.setdefault("use_mask_token", False)
    if family.name == "dinov2":
        given["position_embedding_shape"] = size
    net = getattr(import_hub().models, _CLASSES[family.name])(image_shape=(*size, 3), **given)
    if family.name == "clip":  # 0.32 leaves them at 0 for the weights to say, and Hugging Face's have none
        ids = net.embedding.position_ids
        ids.assign(np.arange(ids.shape[-1])[None])
    return net


def check_size(family: Family, arguments: Arguments, size: tuple[int, int]) -> None:
    """Raise `UsageError` for a height and width that the network cannot take."""
    step = int(arguments.get("patch_size", 4))
    if family.name == "swin":
        step *= int(arguments["window_size"]) * 2 ** (len(arguments["depths"]) - 1)
    if any(n % step for n in size):
        near = max(step, round(size[0] / step) * step)
        raise UsageError(
            f"{family.title} cuts a picture into patches: height and width are multiples of {step} pixels, received "
            f"{size[0]}x{size[1]}. Use --input-size {near}x{near}."
        )
    if size[0] != size[1] and family.name != "dinov3":
        raise UsageError(f"{family.title} takes square pictures, received {size[0]}x{size[1]}.")


def check_hub(
    entry: HubBackbone | Family, weights: str, size: tuple[int, int], layers: Sequence[str], mode: str | None = None
) -> None:
    """Raise for what can be said of a network before it is built: its weights, an input size, a block that is none.

    Parameters
    ----------
    weights : str
        As of `hub_fetch.weights_folder`, or "random".
    layers : sequence of str
        As in ``--layer``.
    mode : str, optional
        How pixels are scaled where nothing is said, which has to be what the weights want.
    """
    need_hub()
    family = entry if isinstance(entry, Family) else entry.family
    if weights != "random":
        folder = weights_folder(entry, weights)
        arguments, _ = arguments_of(folder, entry)
        if mode is not None:
            check_scaling(folder, mode)
    elif isinstance(entry, HubBackbone):
        arguments = dict(entry.arguments)
    else:
        raise no_size(entry.name)
    check_size(family, arguments, size)
    n_blocks = sum(arguments["depths"]) if "depths" in arguments else arguments["num_layers"]
    known = [f"block_{number}" for number in range(1, n_blocks + 1)]
    for name in (layer.partition(":")[0] for layer in layers):
        if name.startswith("block") and name not in known:
            raise unknown_layer(name, [*known, "norm"], of=entry.name)


def _flat(keras: Any, family: Family, net: Any, size: tuple[int, int]) -> Any:
    parts = _PARTS[family.name](net, size)
    pixels = x = keras.Input((*size, 3), name="images")
    for step in parts.before:
        x = step(x)
    for number, block in enumerate(parts.blocks, 1):
        block.name = f"block_{number}"
        x = block(x, **parts.arguments)
        x = parts.between.get(number, _same)(x)
    parts.norm.name = "norm"
    x = parts.norm(x)
    if parts.head is not None:
        parts.head.name = ATTENTION_POOL
        x = parts.head(x)
    else:
        x = pool_tokens(keras, x, family.pool, parts.n_prefix)
    model = keras.Model(pixels, x, name=family.name)
    model.n_prefix = parts.n_prefix
    return model


def _same(x: Any) -> Any:
    return x


def pool_tokens(keras: Any, tokens: Any, pool: str, n_prefix: int) -> Any:
    """Return vectors (n, width) of tokens (n, n_tokens, width).

    Parameters
    ----------
    pool : str
        "cls": the first token. "avg": of the patches alone, which registers and CLS are not. "cls+avg": both, side by
        side, 2 x width.
    n_prefix : int
        Tokens before those of the patches.

    Raises
    ------
    UsageError
        The network has no CLS token.
    """
    if pool in ("cls", "cls+avg") and not n_prefix:
        raise UsageError(f"This network has no CLS token: --pool {pool} does not apply. Use --pool avg.")
    cls = tokens[:, 0]
    if pool == "cls":
        return cls
    average = keras.ops.mean(tokens[:, n_prefix:], axis=1)
    return average if pool == "avg" else keras.ops.concatenate([cls, average], axis=-1)
