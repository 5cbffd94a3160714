"""What ``tlfeat extract --profile`` says of made-up runs: the shares add up, and the advice names the bottleneck."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tlfeat.cli.extract import profile_text
from tlfeat.extract.embed import Profile


def text_of(**seconds: Any) -> str:
    """Return the text on 1,000 images in ten seconds on two threads, 16 of whose 20 seconds went into the network."""
    values = {"read_s": 0.4, "decode_s": 3.0, "encode_s": 16.0, "wait_encode_s": 9.0, "wall_s": 10.0, "cpu_s": 19.0}
    return profile_text(asdict(Profile(2, **{**values, **seconds})), 1000, "a runtime")


@pytest.mark.parametrize(
    ("seconds", "advice"),
    [
        ({}, "The network is the bottleneck"),
        ({"encode_s": 3.0, "decode_s": 16.0}, "Decoding is the bottleneck: store smaller pictures"),
        ({"encode_s": 3.0, "decode_s": 2.0, "read_s": 14.0}, "The disk is the bottleneck: copy the images"),
        ({"write_s": 4.0}, "Writing is the bottleneck: put the cache on a faster disk"),
        ({"write_s": 4.0, "read_s": 17.0}, "Writing is the bottleneck"),
        ({"encode_s": 9.0}, "The threads had to wait for a processor: other work"),
        ({"cpu_s": 11.0}, "The threads had to wait for a processor: other work"),
        ({"encode_s": 9.0, "is_parallel": False}, "The network is the bottleneck"),
        ({"encode_s": 9.0, "decode_s": 1.0, "is_parallel": False}, "a smaller backbone or --input-size"),
    ],
    ids=[
        *("network", "slow-decode", "slow-disk", "slow-write", "slow-write-and-disk", "idle-threads", "busy-machine"),
        *("network-with-its-own-threads", "network-on-a-gpu"),
    ],
)
def test_the_advice_names_the_bottleneck(seconds: dict[str, Any], advice: str) -> None:
    *_, last = text_of(**seconds).splitlines()
    assert advice in last


def test_the_figures_are_those_of_the_run() -> None:
    lines = text_of(prepare_s=5.0, wait_decode_s=0.5, write_s=0.25).splitlines()
    assert lines[:-1] == [
        "Where the time went: 1,000 images in 10.0 s with a runtime, 2 threads",
        "  10.00 ms and 19.00 ms of processor an image; 5.0 s before, to build the network",
        "  read        0.40 ms an image",
        "  decode      3.00 ms an image",
        "  encode     16.00 ms an image",
        "  waited for pictures 0.5 s, for rows 9.0 s; wrote for 0.2 s",
        "  threads busy 97 % of the time, 95 % on a processor",
    ]


def test_encoding_beside_the_threads_does_not_make_them_busy() -> None:
    assert "threads busy 17 % of the time" in text_of(is_parallel=False)


def test_clocks_that_disagree_give_no_share_above_all() -> None:
    assert "threads busy 100 % of the time" in text_of(encode_s=30.0)
    assert "threads busy 100 %" in text_of(wall_s=0.0)
