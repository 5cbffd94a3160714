"""Layers of KerasHub 0.32, put right where a network with them could not be saved, loaded or converted.

Some state what their own constructors refuse, leave out what these need, or cannot say it at all. What is saved here
is loaded by KerasHub as it is: ``import keras_hub`` is all that ``keras.models.load_model`` needs.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tlfeat.backbones.frameworks import import_hub

_MODELS = "keras_hub.src.models"

#: By module and class: what its constructor does not know.
_UNKNOWN = {
    (f"{_MODELS}.vit.vit_layers", "ViTPatchingAndEmbedding"): ("num_patches", "num_positions"),
    (f"{_MODELS}.vit.vit_layers", "ViTEncoderBlock"): ("key_dim",),
    (f"{_MODELS}.deit.deit_layers", "DeiTEmbeddings"): ("num_patches", "num_positions"),
}

_SWIN = f"{_MODELS}.swin_transformer.swin_transformer_layers"

#: A class of Keras as Keras writes a function down: that is how it finds it again.
_LAYER_NORM = {
    "module": "keras.layers",
    "class_name": "function",
    "config": "LayerNormalization",
    "registered_name": "function",
}


#: Swin gives its attention a mask that Keras takes for one of its own.
_NO_MASK = r"Layer 'attn' \(of type WindowAttention\) was passed an input with a mask"


def mend_layers() -> None:
    """Let all layers of vision transformers say what their constructors take; once is enough."""
    warnings.filterwarnings("ignore", message=_NO_MASK)
    import_hub(_SWIN).ops = _SwinOps()
    for (module, name), unknown in _UNKNOWN.items():
        _wrap(module, name, functools.partial(_config_without, unknown=unknown))
    _wrap(_SWIN, "PatchEmbedding", _config_of_patches)
    _wrap(_SWIN, "SwinTransformerBlock", _config_of_window_block)
    for name in ("PatchEmbedding", "PatchMerging", "SwinTransformerBlock"):
        # a shape to build from would mark them as built, with nothing in them: they are built when they are called
        getattr(import_hub(_SWIN), name).get_build_config = _no_config
    # it states one token more than it gives
    import_hub(f"{_MODELS}.siglip.siglip_layers").SigLIPVisionEmbedding.compute_output_shape = _siglip_tokens


def _wrap(module: str, name: str, config_of: Callable[[Any, Any], dict[str, Any]]) -> None:
    layer_class = getattr(import_hub(module), name)
    get_config = layer_class.get_config
    if hasattr(get_config, "is_mended"):
        return

    @functools.wraps(get_config)
    def mended(self: Any) -> dict[str, Any]:
        return config_of(self, get_config)

    mended.is_mended = True  # type: ignore[attr-defined]
    layer_class.get_config = mended


def _no_config(layer: Any) -> None:
    return None


def _siglip_tokens(layer: Any, shape: Sequence[int | None]) -> tuple[int | None, int, int]:
    return shape[0], layer.num_positions, layer.hidden_dim


class _SwinOps:
    """``keras.ops`` for KerasHub's Swin.

    Its `slice_update` is an operation of XLA that OpenVINO does not know, its `roll` one of TensorFlow that TFLite does
    not know.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(import_hub("keras").ops, name)

    def roll(self, x: Any, shift: Sequence[int], axis: Sequence[int]) -> Any:
        """Return `x` with its places moved along the axes; what leaves at one end comes in at the other."""
        ops = import_hub("keras").ops
        for n, along in zip(shift, axis, strict=True):
            parts = ops.split(x, [-n % x.shape[along]], axis=along)
            x = ops.concatenate(parts[::-1], axis=along)
        return x

    def slice_update(self, inputs: Any, start_indices: Sequence[int], updates: Any) -> Any:
        """Return `inputs` with `updates` written over it, from a place that is known."""
        ops = import_hub("keras").ops
        sizes = zip(inputs.shape, start_indices, updates.shape, strict=True)
        around = [(start, whole - start - own) for whole, start, own in sizes]
        return ops.where(ops.pad(ops.ones_like(updates), around) > 0, ops.pad(updates, around), inputs)


def _config_without(layer: Any, get_config: Any, *, unknown: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in get_config(layer).items() if name not in unknown}


def _config_of_patches(layer: Any, get_config: Any) -> dict[str, Any]:
    held, layer.norm_layer = layer.norm_layer, None  # a class, which it cannot write down
    try:
        return {**get_config(layer), "norm_layer": _LAYER_NORM if held is not None else None}
    finally:
        layer.norm_layer = held


def _config_of_window_block(layer: Any, get_config: Any) -> dict[str, Any]:
    return {**get_config(layer), "qkv_bias": layer.attn.qkv_bias}
