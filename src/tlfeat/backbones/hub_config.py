"""What a folder of weights says of a vision transformer becomes arguments of KerasHub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tlfeat.backbones.hub_catalog import FAMILIES, HUB_BACKBONES, Family, HubBackbone
from tlfeat.backbones.weights_folder import CONFIG, WeightsFolder
from tlfeat.errors import WeightsError

Arguments = dict[str, Any]

# Argument of KerasHub: (its name in config.json of Hugging Face, what transformers takes where it is left out).
_COMMON = {
    "hidden_dim": ("hidden_size", 768),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
}

_NAMES: dict[str, dict[str, tuple[str, Any]]] = {
    "dinov2": {
        **_COMMON,
        "patch_size": ("patch_size", 14),
        "num_register_tokens": ("num_register_tokens", 0),
        "use_swiglu_ffn": ("use_swiglu_ffn", False),
        "layer_scale_init_value": ("layerscale_value", 1.0),
    },
    "dinov3": {
        **_COMMON,
        "hidden_dim": ("hidden_size", 384),
        "num_heads": ("num_attention_heads", 6),
        "intermediate_dim": ("intermediate_size", 1536),
        "patch_size": ("patch_size", 16),
        "num_register_tokens": ("num_register_tokens", 0),
        "use_gated_mlp": ("use_gated_mlp", False),
        "hidden_activation": ("hidden_act", "gelu"),
        "use_query_bias": ("query_bias", True),
        "use_key_bias": ("key_bias", False),
        "use_value_bias": ("value_bias", True),
        "use_proj_bias": ("proj_bias", True),
        "use_mlp_bias": ("mlp_bias", True),
        "layer_norm_eps": ("layer_norm_eps", 1e-5),
        "rope_theta": ("rope_theta", 100.0),
        "layer_scale_init_value": ("layerscale_value", 1.0),
    },
    "vit": {
        **_COMMON,
        "intermediate_dim": ("intermediate_size", 3072),
        "patch_size": ("patch_size", 16),
        "layer_norm_epsilon": ("layer_norm_eps", 1e-12),
        "use_mha_bias": ("qkv_bias", True),
    },
    "deit": {
        **_COMMON,
        "intermediate_dim": ("intermediate_size", 3072),
        "patch_size": ("patch_size", 16),
        "layer_norm_epsilon": ("layer_norm_eps", 1e-12),
        "use_mha_bias": ("qkv_bias", True),
    },
    "swin": {
        "embed_dim": ("embed_dim", 96),
        "depths": ("depths", [2, 2, 6, 2]),
        "num_heads": ("num_heads", [3, 6, 12, 24]),
        "window_size": ("window_size", 7),
        "patch_size": ("patch_size", 4),
        "mlp_ratio": ("mlp_ratio", 4.0),
        "qkv_bias": ("qkv_bias", True),
    },
    "siglip": {
        **_COMMON,
        "intermediate_dim": ("intermediate_size", 3072),
        "patch_size": ("patch_size", 16),
        "intermediate_activation": ("hidden_act", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": ("layer_norm_eps", 1e-6),
    },
    "clip": {
        **_COMMON,
        "intermediate_dim": ("intermediate_size", 3072),
        "patch_size": ("patch_size", 32),
        "intermediate_activation": ("hidden_act", "quick_gelu"),
    },
}

#: What KerasHub has no argument for: it is so in its code.
_FIXED: dict[str, dict[str, tuple[Any, Any]]] = {  # name in config.json: (what it must be, where it is left out)
    "dinov2": {"layer_norm_eps": (1e-6, 1e-6), "hidden_act": ("gelu", "gelu"), "qkv_bias": (True, True)},
    "dinov3": {},
    "vit": {"hidden_act": ("gelu", "gelu")},
    "deit": {"hidden_act": ("gelu", "gelu")},
    "swin": {"layer_norm_eps": (1e-5, 1e-5), "hidden_act": ("gelu", "gelu"), "use_absolute_embeddings": (False, False)},
    "siglip": {"vision_use_head": (True, True)},
    "clip": {"layer_norm_eps": (1e-5, 1e-5)},
}

#: What transformers takes where it is left out.
_IMAGE_SIZE = 224

#: transformers' names of activations that KerasHub calls by another.
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_approximate", "gelu_new": "gelu_approximate"}

#: More than the largest transformers have: what a config.json may ask for.
_MOST = {"hidden_dim": 8192, "num_layers": 128, "num_heads": 128, "intermediate_dim": 65_536, "patch_size": 128}


def arguments_in(folder: WeightsFolder, family: Family) -> tuple[Arguments, tuple[int, int]]:
    """Return the arguments of KerasHub that a folder states, and the input size that its weights are of.

    Raises
    ------
    WeightsError
        It is of another family, or states what is of the wrong type or what KerasHub cannot build.
    """
    kinds = family.hub_classes if folder.is_preset else family.model_types
    if folder.kind not in kinds:
        raise WeightsError(f"{folder.path} is a {folder.kind}, no {family.title}.{_advice(folder)}")
    config = folder.config["config"] if folder.is_preset else folder.config
    config = _tower(config if isinstance(config, dict) else {}, folder)
    names = _NAMES[family.name]
    arguments: Arguments = {}
    for argument, (name, default) in names.items():
        key = _preset_name(argument, family) if folder.is_preset else name
        arguments[argument] = _checked(folder, argument, config.get(key, default), default)
    if not folder.is_preset:
        for name, (only, default) in _FIXED[family.name].items():
            if (stated := config.get(name, default)) != only:
                raise WeightsError(f"{folder.path / CONFIG} has {name} {stated!r}; KerasHub builds {only!r} alone.")
    if folder.is_preset and family.name in ("dinov2", "dinov3"):
        arguments["use_mask_token"] = config.get("use_mask_token") is not False  # it is among the weights
    if family.name == "dinov2":
        ratio = _checked(folder, "mlp_ratio", config.get("mlp_ratio", 4.0), 4.0)
        is_with_registers = folder.kind == "dinov2_with_registers" and "num_register_tokens" not in config
        arguments["num_register_tokens"] = 4 if is_with_registers else arguments["num_register_tokens"]
        arguments["intermediate_dim"] = int(
            config["intermediate_dim"] if folder.is_preset else arguments["hidden_dim"] * ratio
        )
        arguments["antialias_in_interpolation"] = (
            bool(config.get("antialias_in_interpolation"))
            if folder.is_preset
            else folder.kind == "dinov2_with_registers"
        )
    if family.name == "dinov3" and isinstance(rope := config.get("rope_parameters"), dict):
        arguments["rope_theta"] = _checked(folder, "rope_theta", rope.get("rope_theta", 100.0), 100.0)
    for name in ("intermediate_activation", "hidden_activation"):
        if name in arguments:
            arguments[name] = _ACTIVATIONS.get(arguments[name], arguments[name])
    return arguments, _native_size(config, folder, family)


def _tower(config: dict[str, Any], folder: WeightsFolder) -> dict[str, Any]:
    """Return what is said of the vision tower, where there are two."""
    for name in ("vision_config", "vision_encoder"):
        if isinstance(inner := config.get(name), dict):
            return inner.get("config", inner) if folder.is_preset else inner
    return config


def _preset_name(argument: str, family: Family) -> str:
    return "mlp_dim" if family.name == "vit" and argument == "intermediate_dim" else argument


def _checked(folder: WeightsFolder, name: str, value: Any, like: Any) -> Any:
    """Return a value of the type of another one; a `WeightsError` for any other, or one beyond all sizes."""
    if isinstance(like, list):
        is_right = isinstance(value, list) and 0 < len(value) <= 8 and all(_is_count(each, 512) for each in value)
        value = tuple(value) if is_right else value
    elif isinstance(like, bool):
        is_right = isinstance(value, bool)
    elif isinstance(like, int):
        if isinstance(value, list) and len(set(map(str, value))) == 1:
            value = value[0]  # patch_size: [16, 16]
        least = 0 if name == "num_register_tokens" else 1
        is_right = value == 0 == least or _is_count(value, _MOST.get(name, 512))
    elif isinstance(like, float):
        is_right = type(value) in (int, float) and math.isfinite(value) and 0 < value < 1e6
    else:
        is_right = isinstance(value, str) and value.isidentifier()
    if not is_right:
        raise WeightsError(f"{folder.path / CONFIG}: {name} is {str(value)[:40]!r}, which no such network has.")
    return value


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _native_size(config: Mapping[str, Any], folder: WeightsFolder, family: Family) -> tuple[int, int]:
    side: Any = config.get("image_size", _IMAGE_SIZE)
    if folder.is_preset:
        shape = config.get("position_embedding_shape") or config.get("image_shape")
        side = shape[0] if isinstance(shape, list) and shape else None
    side = side[0] if isinstance(side, list) and side else side
    if not _is_count(side, 4096):
        raise WeightsError(f"{folder.path / CONFIG} states no input size that a picture could have.")
    return side, side


def _advice(folder: WeightsFolder) -> str:
    for family in FAMILIES.values():
        if folder.kind in (*family.model_types, *family.hub_classes):
            fitting = row_of(family, arguments_in(folder, family)[0])
            return f" Use --backbone {fitting.name if fitting else family.name}."
    return f" Known are: {', '.join(FAMILIES)}."


def row_of(family: Family, arguments: Arguments) -> HubBackbone | None:
    """Return the first row of the table with that architecture."""
    for row in HUB_BACKBONES:
        if row.family is family and _agrees(row, arguments):
            return row
    return None


def _agrees(row: HubBackbone, arguments: Arguments) -> bool:
    switches = {"num_register_tokens": 4 if row.family.name == "dinov3" else 0, "use_swiglu_ffn": False}
    wanted = {**switches, "use_gated_mlp": False, **dict(row.arguments)}
    return all(arguments.get(name, value) == value for name, value in wanted.items())


def arguments_of(folder: WeightsFolder, entry: HubBackbone | Family) -> tuple[Arguments, tuple[int, int]]:
    """Return `arguments_in` once it is clear that the folder holds the network that was named."""
    if isinstance(entry, Family):
        return arguments_in(folder, entry)
    arguments, native = arguments_in(folder, entry.family)
    _check_row(folder, entry, arguments)
    return arguments, native


def _check_row(folder: WeightsFolder, row: HubBackbone, arguments: Arguments) -> None:
    """Raise `WeightsError` where a folder has another size than the row that was named."""
    if _agrees(row, arguments):
        return
    fitting = row_of(row.family, arguments)
    differing = ", ".join(
        f"{name} {arguments[name]} where {row.name} has {value}"
        for name, value in row.arguments
        if name in arguments and arguments[name] != value
    )
    raise WeightsError(
        f"{folder.path} does not fit {row.name}: {differing or 'it is another variant'}. "
        f"Use --backbone {fitting.name if fitting else row.family.name}."
    )
