"""Where training gets its images from: what decides which rows they are."""

from __future__ import annotations

from typing import Any

import pytest

from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.sources import ViewEncoder


def view_of(seed_of_weights: int = 1, flip: str = "horizontal", seed: int = 5, view: int = 2) -> ViewEncoder:
    encoder = KerasEncoder(BackboneSpec("mobilenet_v2", "random", seed=seed_of_weights), ["avg_pool"])
    return ViewEncoder(encoder, Augmentation(flip=flip), seed, view)


@pytest.mark.parametrize("other", [{"seed_of_weights": 2}, {"flip": "vertical"}, {"seed": 6}, {"view": 3}], ids=str)
def test_changed_copies_of_another_kind_seed_or_number_have_another_fingerprint(other: dict[str, Any]) -> None:
    assert view_of().fingerprint == view_of().fingerprint != view_of(**other).fingerprint
