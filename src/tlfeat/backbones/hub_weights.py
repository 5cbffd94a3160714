"""The tensors of a folder become the weights of a network of KerasHub."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_hub, import_keras
from tlfeat.backbones.hub_catalog import Family
from tlfeat.backbones.stored_weights import as_many_as, check_weights
from tlfeat.backbones.weights_folder import CONFIG, Tensors, WeightsFolder
from tlfeat.errors import UsageError, WeightsError, short_reason

#: Tensors of a folder that are no part of the tower: heads, the other tower, what is computed anew.
_PASSED_OVER = (
    r"(^|\.)(cls_|distillation_)?classifier\.",
    r"(^|\.)pooler\.",
    r"mask_token$",
    r"^text_model\.",
    r"^logit_(scale|bias)$",
    r"^(visual|text)_projection\.",
    r"position_ids$",
    r"relative_position_index$",
    r"inv_freq$",
    r"periods$",
)

#: Weights beside those of the file: positions at another size, enumerations.
_BESIDE = 8_000_000


def load_weights(
    folder: WeightsFolder, make: Callable[[tuple[int, int]], Any], family: Family, native: tuple[int, int]
) -> Any:
    """Return a network of KerasHub with the weights of a folder, at the input size that these are of.

    Parameters
    ----------
    make : callable
        Gives the network with random weights, at an input size.

    Raises
    ------
    WeightsError
        Tensors are missing, too many, of another shape, or not to be read.
    """
    if folder.is_preset:
        return _load_preset(folder, make, native)
    converter = _CONVERTERS[family.name]
    return from_tensors(
        folder, lambda: make(native), lambda net, tensors: converter(net, tensors, folder.config), _PASSED_OVER
    )


def from_tensors(
    folder: WeightsFolder,
    make: Callable[[], Any],
    convert: Callable[[Any, Tensors], None],
    passed_over: Sequence[str],
) -> Any:
    """Return a network with the safetensors of a folder; it may not ask for many more numbers than these have.

    Parameters
    ----------
    make : callable
        Gives the network with random weights.
    convert : callable
        Gives it its tensors.
    passed_over : sequence of str
        Expressions for the names of tensors that it has no use for.

    Raises
    ------
    WeightsError
        Tensors are missing, too many, of another shape, or not to be read.
    """
    with Tensors(folder) as tensors, as_many_as(import_keras(), 2 * tensors.n_numbers + _BESIDE):
        net = _built(folder, make)
        try:
            convert(net, tensors)
        except (WeightsError, UsageError):
            raise
        except Exception as error:  # numpy's and Keras' own, where a converter puts tensors together by itself
            raise WeightsError(f"{folder.path} does not fit its {CONFIG}: {short_reason(error)}.") from error
        tensors.refuse_others(passed_over)
    return net


def _built(folder: WeightsFolder, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (WeightsError, UsageError):
        raise
    except Exception as error:  # numpy's, TensorFlow's and Keras' own, for what does not go together
        raise WeightsError(f"No network can be built as {folder.path / CONFIG} says: {short_reason(error)}.") from error


def _load_preset(folder: WeightsFolder, make: Callable[[tuple[int, int]], Any], native: tuple[int, int]) -> Any:
    try:
        n_numbers = check_weights(folder.files[0])
    except OSError as error:
        raise WeightsError(f"{folder.files[0]} cannot be used: {error.strerror or error}.") from error
    with as_many_as(import_keras(), 2 * n_numbers + _BESIDE):
        net = _built(folder, lambda: make(native))
        whole = _two_towers(folder, net) if "vision_encoder" in folder.config.get("config", {}) else net
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of containers that an older Keras did not write
                whole.load_weights(folder.files[0])
        except Exception as error:  # ValueError, KeyError, OSError: whatever Keras raises for a misfit
            raise WeightsError(f"{folder.path} does not fit its {CONFIG}: {short_reason(error)}.") from error
    return net


def _two_towers(folder: WeightsFolder, vision: Any) -> Any:
    """Return the model of images and texts that a preset has the weights of, with `vision` as its vision tower."""
    config = folder.config["config"]
    text = config.get("text_encoder")
    inner = text.get("config") if isinstance(text, dict) else None
    name = folder.kind.removesuffix("Backbone")
    if not isinstance(inner, dict):
        raise WeightsError(f"{folder.path / CONFIG} says nothing of the text tower.")
    plain = {
        key: value
        for key, value in inner.items()
        if key not in ("name", "trainable", "dtype") and (value is None or isinstance(value, (int, float, str, bool)))
    }
    models = import_hub().models
    more = {"projection_dim": config["projection_dim"]} if name == "CLIP" else {}
    return _built(
        folder,
        lambda: getattr(models, folder.kind)(
            vision_encoder=vision, text_encoder=getattr(models, f"{name}TextEncoder")(**plain), **more
        ),
    )


def _from_hub(module: str) -> Callable[[Any, Tensors, Mapping[str, Any]], None]:
    def convert(net: Any, tensors: Tensors, config: Mapping[str, Any]) -> None:
        import_hub(f"keras_hub.src.utils.transformers.{module}").convert_weights(net, tensors, config)

    return convert


def _convert_tower(net: Any, tensors: Tensors, config: Mapping[str, Any]) -> None:
    """Give the vision tower of CLIP or SigLIP its tensors; KerasHub has no converter for these."""
    is_clip = hasattr(net, "pre_layer_norm")
    root = "vision_model"

    def dense(layer: Any, name: str) -> None:
        tensors.port_weight(layer.kernel, f"{name}.weight", _transposed)
        tensors.port_weight(layer.bias, f"{name}.bias")

    def norm(layer: Any, name: str) -> None:
        tensors.port_weight(layer.gamma, f"{name}.weight")
        tensors.port_weight(layer.beta, f"{name}.bias")

    def attention(layer: Any, name: str) -> None:
        places = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
        for part, tensor in places.items():
            dense(getattr(layer, f"{part}_dense"), f"{name}.{tensor}")

    embedding = net.embedding
    tensors.port_weight(embedding.patch_embedding.kernel, f"{root}.embeddings.patch_embedding.weight", _channels_last)
    tensors.port_weight(embedding.position_embedding.embeddings, f"{root}.embeddings.position_embedding.weight")
    if is_clip:
        tensors.port_weight(embedding.class_embedding, f"{root}.embeddings.class_embedding")
        norm(net.pre_layer_norm, f"{root}.pre_layrnorm")  # transformers' own spelling
    else:
        tensors.port_weight(embedding.patch_embedding.bias, f"{root}.embeddings.patch_embedding.bias")
    for i, block in enumerate(net.encoder_layers):
        name = f"{root}.encoder.layers.{i}"
        attention(block.attention if is_clip else block.self_attn, f"{name}.self_attn")
        for k in (1, 2):
            norm(getattr(block, f"layer_norm_{k}" if is_clip else f"layer_norm{k}"), f"{name}.layer_norm{k}")
            dense(getattr(block, f"dense_{k}") if is_clip else getattr(block.mlp, f"fc{k}"), f"{name}.mlp.fc{k}")
    norm(net.layer_norm if is_clip else net.post_layer_norm, f"{root}.post_layernorm")
    if not is_clip:
        _convert_pooling(net.head, tensors, f"{root}.head", dense, norm)


def _convert_pooling(head: Any, tensors: Tensors, name: str, dense: Any, norm: Any) -> None:
    """Of SigLIP: attention of one learned query, whose three projections PyTorch keeps in one tensor."""
    tensors.port_weight(head.probe, f"{name}.probe")
    weights, biases = (tensors.get_tensor(f"{name}.attention.in_proj_{what}") for what in ("weight", "bias"))
    for k, part in enumerate(("query", "key", "value")):
        layer = getattr(head.attention, f"{part}_dense")
        layer.kernel.assign(np.split(weights, 3)[k].T.reshape(layer.kernel.shape))
        layer.bias.assign(np.split(biases, 3)[k].reshape(layer.bias.shape))
    dense(head.attention.output_dense, f"{name}.attention.out_proj")
    norm(head.layer_norm, f"{name}.layernorm")
    for k in (1, 2):
        dense(getattr(head.mlp, f"fc{k}"), f"{name}.mlp.fc{k}")


def _transposed(array: npt.NDArray[Any], shape: list[int]) -> npt.NDArray[Any]:
    return array.T.reshape(shape)


def _channels_last(array: npt.NDArray[Any], shape: list[int]) -> npt.NDArray[Any]:
    return array.transpose(2, 3, 1, 0)


_CONVERTERS: dict[str, Callable[[Any, Tensors, Mapping[str, Any]], None]] = {
    "dinov2": _from_hub("convert_dinov2"),
    "dinov3": _from_hub("convert_dinov3"),
    "vit": _from_hub("convert_vit"),
    "deit": _from_hub("convert_deit"),
    "swin": _from_hub("convert_swin_transformer"),
    "siglip": _convert_tower,
    "clip": _convert_tower,
}
