"""What a pass cost: added up, estimated for some of its layers, and unknown where nothing was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.passes import Pass, cost_of, is_a_measurement, passes_of, with_pass
from tlfeat.cache.store import open_cache
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.system import processor_name


def a_pass(*layers: str, n: int = 100, cpu_s: float = 0.8, encode_share: float = 0.75, processor: str = "Zen") -> Pass:
    return Pass(list(layers), n, cpu_s, 0.5, encode_share, "openvino 1", processor)


def test_a_run_that_embeds_records_what_it_cost(make_photos: MakePhotos, tmp_path: Path) -> None:
    images, cache = load_images(make_photos(n=6)), tmp_path / "c.h5"
    report = extract_rows(images, PixelEncoder(), cache)
    with open_cache(cache) as opened:
        (found,) = passes_of(opened)
    assert (found.layers, found.n, found.runtime) == (["pixels"], 12, "numpy")
    assert found.cpu_s == pytest.approx(report.profile.cpu_s)
    assert found.processor == processor_name() != ""
    assert 0 < found.encode_share < 1
    extract_rows(images, PixelEncoder(), cache)  # nothing is embedded: nothing is known that was not
    with open_cache(cache) as opened:
        assert passes_of(opened) == [found]


def test_passes_for_the_same_layers_are_added_up_and_others_stand_beside_them() -> None:
    timing = {"passes": with_pass({}, a_pass("a", "b", n=100, cpu_s=1.0, encode_share=0.5))}
    timing = {"passes": with_pass(timing, a_pass("a", n=50, cpu_s=0.2))}
    timing = {"passes": with_pass(timing, a_pass("b", "a", n=300, cpu_s=2.0, encode_share=0.9))}
    found = [Pass(**values) for values in timing["passes"]]
    assert [(one.layers, one.n, one.cpu_s) for one in found] == [(["a"], 50, 0.2), (["b", "a"], 400, 3.0)]
    assert found[1].encode_share == pytest.approx(0.8)
    assert found[1].cpu_ms == 7.5
    other = Pass(**with_pass(timing, a_pass("a", processor="Xeon"))[-1])
    assert (other.processor, other.n) == ("Xeon", 100)


def test_only_the_newest_passes_are_kept() -> None:
    timing: dict[str, object] = {}
    for i in range(12):
        timing = {"passes": with_pass(timing, a_pass(f"layer{i}"))}
    assert [values["layers"] for values in timing["passes"]] == [[f"layer{i}"] for i in range(4, 12)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("n_embedded", "n_read", "expected"), [(0, 0, False), (95, 100, True), (80, 100, False)])
def test_a_run_that_mostly_read_what_was_known_is_no_measurement(n_embedded: int, n_read: int, expected: bool) -> None:
    assert is_a_measurement(n_embedded, n_read) is expected


def test_a_layer_costs_what_its_own_pass_did_else_its_share_of_a_wider_one() -> None:
    whole = a_pass("early", "late", "avg_pool", cpu_s=0.8)  # 8 ms, of which the network is 6
    shares = {"early": 0.25, "late": 0.5, "avg_pool": 1.0}
    cost = cost_of([whole], ["early"], shares)
    assert cost is not None
    assert (cost.cpu_ms, cost.known) == (pytest.approx(8 - 6 * 0.75), "estimated")
    together = cost_of([whole], ["early", "late"], shares)
    assert together is not None
    assert together.cpu_ms == pytest.approx(8 - 6 * 0.5)
    own = cost_of([whole, a_pass("early", cpu_s=0.3, n=60)], ["early"], shares)
    assert own is not None
    assert (own.cpu_ms, own.known, own.n) == (pytest.approx(5.0), "measured", 60)


def test_without_shares_a_layer_costs_at_most_the_narrowest_pass_that_has_it() -> None:
    passes = [a_pass("a", "b", "c", cpu_s=0.9), a_pass("a", "b", cpu_s=0.7)]
    cost = cost_of(passes, ["a"])
    assert cost is not None
    assert (cost.cpu_ms, cost.known) == (pytest.approx(7.0), "at most")


def test_layers_of_several_passes_cost_at_most_their_sum_and_an_unrecorded_one_is_unknown() -> None:
    passes = [a_pass("a", cpu_s=0.5), a_pass("b", cpu_s=0.7)]
    cost = cost_of(passes, ["a", "b"])
    assert cost is not None
    assert (cost.cpu_ms, cost.known) == (pytest.approx(12.0), "at most")
    assert cost_of(passes, ["a", "c"]) is None
    assert cost_of([], ["a"]) is None
