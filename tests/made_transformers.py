"""Tiny vision transformers with random weights, as folders that ``--weights`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones import hub
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.hub_catalog import FAMILIES

#: Three blocks each, wide enough for two heads. Sizes are those that the weights are of.
SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "vit": (32, {"patch_size": 16}),
    "deit": (32, {"patch_size": 16}),
    "dinov2": (28, {"patch_size": 14, "num_register_tokens": 2}),
    "dinov3": (32, {"patch_size": 16, "num_register_tokens": 2}),
    "siglip": (32, {"patch_size": 16}),
    "clip": (32, {"patch_size": 16}),
}

#: OpenVINO cannot take a first stage of one head.
_SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 2, "patch_size": 4}


def tiny_network(family: str) -> tuple[Any, int]:
    """Return a network of KerasHub and the side of its pictures; two blocks each at two sizes for a Swin."""
    pytest.importorskip("keras_hub", reason="vision transformers come with tlfeat[hub]")
    import_keras().utils.set_random_seed(7)
    side, more = SIZES.get(family, (32, _SWIN))
    plain = {"hidden_dim": 24, "num_layers": 3, "num_heads": 2, "intermediate_dim": 48}
    net = hub.make(FAMILIES[family], {**({} if family == "swin" else plain), **more}, (side, side))
    rng = np.random.default_rng(7)
    for weight in net.weights:
        if weight.dtype == "float32":  # also those that begin as zeros or ones
            weight.assign(np.asarray(weight) + rng.normal(0, 0.1, weight.shape))
    return net, side


def tiny_folder(family: str, parent: Path) -> Path:
    """Return a folder with the weights of a `tiny_network`, in Keras' form; made where it is not there."""
    folder = parent / family
    if not folder.exists():
        tiny_network(family)[0].save_to_preset(folder)
    return folder
