"""Which measurements of this machine ``tlfeat backbones`` shows, and which say nothing of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlfeat.cache.measured import measured
from tlfeat.cache.store import create_cache

SIZES = {"mobilenet_v2": (224, 224), "vgg16": (224, 224)}


def a_cache(path: Path, backbone: str = "mobilenet_v2", size_px: int = 224, **changes: Any) -> Path:
    one = {"layers": ["avg_pool"], "n": 50, "cpu_s": 0.3, "wall_s": 0.2, "encode_share": 0.9, "runtime": "r"}
    with create_cache(path, {"backbone": backbone, "input_size": [size_px, size_px], "dtype": "float32"}, {}) as cache:
        cache.write_document("timing", {"passes": [{**one, "processor": "Zen", **changes}]})
    return path


def costs(*caches: Path) -> dict[str, float]:
    return {name: round(cost.cpu_ms, 6) for name, cost in measured(caches, SIZES, processor="Zen").items()}


def test_the_newest_cache_of_each_network_says_what_it_costs(tmp_path: Path) -> None:
    newest, older = a_cache(tmp_path / "a.h5"), a_cache(tmp_path / "b.h5", cpu_s=9.0)
    other = a_cache(tmp_path / "c.h5", "vgg16", cpu_s=2.0)
    assert costs(newest, older, other) == {"mobilenet_v2": 6.0, "vgg16": 40.0}


def test_other_processors_inputs_parts_and_networks_say_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"no cache")
    assert (
        costs(
            a_cache(tmp_path / "elsewhere.h5", processor="Xeon"),
            a_cache(tmp_path / "small.h5", size_px=96),
            a_cache(tmp_path / "part.h5", layers=["block_3_add"]),
            a_cache(tmp_path / "own.h5", "own model"),
            damaged,
        )
        == {}
    )


def test_a_pass_for_the_whole_network_alone_goes_before_a_newer_one_for_more_layers(tmp_path: Path) -> None:
    more = a_cache(tmp_path / "more.h5", layers=["block_3_add", "avg_pool"], cpu_s=0.5)
    assert costs(more) == {"mobilenet_v2": 10.0}
    alone, older = a_cache(tmp_path / "alone.h5"), a_cache(tmp_path / "older.h5", cpu_s=0.1)
    assert costs(more, alone, older) == {"mobilenet_v2": 6.0}
