"""What ``tlfeat cache info`` prints of made-up caches."""

from __future__ import annotations

from typing import Any

from tlfeat.cli.cache import cache_text

ABOUT: dict[str, Any] = {
    "cache": "cache/c.h5",
    "bytes": 2_340_000,
    "format_version": 2,
    "source": "/photos",
    "fingerprint": {"backbone": "b", "weights": "w", "input_size": [32, 40], "resize": "load_img", "dtype": "float16"},
    "layers": {"avg_pool": (1100, 1280), "out_relu:max": (1099, 320)},
    "timing": {"extract_s": 12.34, "embed_s": 9.0, "n_embedded": 1200, "runtime": "openvino 7"},
    "images": {"status": {"ok": 1100, "failed": 12}, "splits": {"train": 1000, "test": 112}, "classes": {"a\nb": 1100}},
    "failures": [{"path": f"a\nb/{i}.png", "reason": f"bad\t{i}"} for i in range(12)],
}


def test_every_line_is_one_line_whatever_names_hold() -> None:
    lines = cache_text(ABOUT).splitlines()
    assert lines == [
        "cache/c.h5  (2.3 MB, format 2)",
        "  images    /photos",
        "            1,100 ok, 12 failed",
        "            train: 1,000",
        "            test: 112",
        "  classes   a\\nb (1,100)",
        "  encoder   b, weights w",
        "            input size [32, 40]",
        "            resize load_img",
        "  layer     avg_pool: 1,100 rows of 1,280, float16",
        "  layer     out_relu:max: 1,099 rows of 320, float16",
        "  time      12.3 s for 1,200 images embedded, last by openvino 7",
        *(f"  skipped   a\\nb/{i}.png: bad\\t{i}" for i in range(10)),
        "            ... and 2 more (-v shows all)",
    ]
    assert cache_text(ABOUT, is_long=True).splitlines()[-1] == "  skipped   a\\nb/11.png: bad\\t11"


def test_domains_have_a_line_where_there_are_some() -> None:
    about = {**ABOUT, "images": {**ABOUT["images"], "domains": {"Haus\nSüd": 1099, "x": 1}}}
    many = {**ABOUT, "images": {**ABOUT["images"], "domains": {f"d{i:03}": 2 for i in range(500)}}}
    assert cache_text(many).splitlines()[6].endswith("d018 (2), d019 (2) and 480 more (-v shows all)")
    assert cache_text(many, is_long=True).splitlines()[6].endswith("d499 (2)")
    assert cache_text(about).splitlines()[6] == "  domains   Haus\\nSüd (1,099), x (1)"
