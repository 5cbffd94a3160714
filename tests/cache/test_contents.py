"""What a cache says of the encoder that made it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tlfeat.cache.contents import Origin, origin_of
from tlfeat.records import layers_of, side_by_side


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ({"backbone": "resnet50", "weights": "imagenet"}, Origin.KERAS),
        ({"backbone": "my/pixels.keras"}, Origin.KERAS),
        ({"backbone": "pixels"}, Origin.PIXELS),
        ({"backbone": "imported"}, Origin.IMPORTED),
        ({"backbone": None}, Origin.UNKNOWN),
        ({}, Origin.UNKNOWN),
    ],
)
def test_the_description_of_an_encoder_tells_where_rows_come_from(encoder: dict[str, Any], expected: Origin) -> None:
    assert origin_of(encoder) is expected


def test_an_origin_is_written_as_earlier_versions_wrote_it() -> None:
    assert json.dumps({"backbone": Origin.IMPORTED}) == '{"backbone": "imported"}'


@pytest.mark.parametrize("layers", [[], ["avg_pool"], ["block_3_add", "stem:max", "avg_pool"]], ids=len)
def test_layers_side_by_side_are_taken_apart_again(layers: list[str]) -> None:
    assert layers_of(side_by_side(layers)) == layers
