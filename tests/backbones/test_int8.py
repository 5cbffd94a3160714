"""A network made int8: its rows, its file, what NNCF is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones import frameworks, int8
from tlfeat.backbones.int8 import calibration_digest, find_network, quantise
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec
from tlfeat.backbones.precision import cosines
from tlfeat.backbones.runtime import is_converted
from tlfeat.errors import UsageError, WeightsError
from tlfeat.extract.sample import Sample, draw_sample
from tlfeat.images import example
from tlfeat.images.load import load_images
from tlfeat.types import Rows

pytestmark = pytest.mark.keras

needs_nncf = pytest.mark.skipif(not int8.is_installed(), reason="NNCF is not installed (tlfeat[int8])")

LAYERS = ("avg_pool", "block2_relu:max")


def digits(networks: Path, precision: str = "float32", layers: tuple[str, ...] = LAYERS) -> KerasEncoder:
    return KerasEncoder(BackboneSpec(DIGITS), layers, precision=precision, networks_dir=networks)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    images = load_images(example.write_digits(tmp_path_factory.mktemp("data") / "digits"))
    return draw_sample(images, digits(tmp_path_factory.mktemp("none")), 45)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    """A folder with the shipped network as float32, and as int8 of the first thirty pictures."""
    folder = tmp_path_factory.mktemp("networks")
    if int8.is_installed():
        make(folder, sample, "int8:made")
    return folder


def make(folder: Path, sample: Sample, precision: str, layers: tuple[str, ...] = LAYERS) -> Path:
    file = digits(folder, precision, layers).network_file
    float32 = digits(folder, layers=layers).converted()
    assert float32 is not None
    quantise(float32, sample.pixels[:30], file, layers=layers, backbone=DIGITS, is_transformer=False)
    return file


def rows_of(encoder: KerasEncoder, sample: Sample) -> dict[str, Rows]:
    return encoder.encode(np.stack(sample.pixels))


@needs_nncf
def test_rows_are_near_those_of_float32_and_are_not_they(networks: Path, sample: Sample) -> None:
    ours, reference = rows_of(digits(networks, "int8:made"), sample), rows_of(digits(networks), sample)
    for name in LAYERS:
        found = cosines(ours[name], reference[name])
        assert np.median(found) > 0.97
        assert found.max() < 1 - 1e-6
    weights = digits(networks, "int8:made").network_file.with_suffix(".bin").stat().st_size
    assert weights < 0.4 * digits(networks).network_file.with_suffix(".bin").stat().st_size


@needs_nncf
def test_the_same_pictures_give_the_same_network_to_the_bit(networks: Path, sample: Sample, tmp_path: Path) -> None:
    again = make(tmp_path, sample, "int8:made")
    first = digits(networks, "int8:made").network_file
    assert again.with_suffix(".bin").read_bytes() == first.with_suffix(".bin").read_bytes()
    assert again.name == first.name and is_converted(again)


@needs_nncf
def test_one_layer_of_a_network_that_gives_two(networks: Path, sample: Sample) -> None:
    both = rows_of(digits(networks, "int8:made"), sample)
    for name in LAYERS:
        alone = rows_of(digits(networks, "int8:made", (name,)), sample)
        assert list(alone) == [name]
        assert np.array_equal(alone[name], both[name])
    turned = rows_of(digits(networks, "int8:made", LAYERS[::-1]), sample)
    assert all(np.array_equal(turned[name], both[name]) for name in LAYERS)
    assert find_network([digits(networks, "int8:made").network_file], ["block1_relu"]) is None


@needs_nncf
@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_a_damaged_network_is_not_used(networks: Path, sample: Sample, tmp_path: Path, ending: str) -> None:
    for path in networks.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = digits(tmp_path, "int8:made").network_file.with_suffix(ending)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"int8-made.*is not in .*, or damaged"):
        digits(tmp_path, "int8:made").encode(np.stack(sample.pixels))


def test_a_network_that_is_not_there_is_named_and_float32_never_takes_its_place(networks: Path, sample: Sample) -> None:
    with pytest.raises(WeightsError, match=r"int8-other.*tlfeat extract DATA --precision int8"):
        rows_of(digits(networks, "int8:other"), sample)


def test_float32_names_no_precision_and_others_do() -> None:
    float32 = dict(digits(Path()).fingerprint)
    assert "precision" not in float32
    assert dict(digits(Path(), "int8:ab").fingerprint) == {**float32, "precision": "int8:ab"}
    assert digits(Path(), "bfloat16").network_file == digits(Path()).network_file
    files = {digits(Path(), precision).network_file for precision in ("float32", "int8:ab", "int8:cd")}
    assert len(files | {digits(Path(), "int8:ab", LAYERS[:1]).network_file}) == 4


def test_the_digest_changes_with_pictures_their_order_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {calibration_digest(keys) for keys in (["a", "b"], ["b", "a"], ["a"])}
    monkeypatch.setattr(int8, "distribution_version", lambda _: "99")
    assert len(found | {calibration_digest(["a", "b"])}) == 4


@needs_nncf
@pytest.mark.parametrize(
    ("backbone", "is_transformer", "is_fast"),
    [("mobilenet_v2", False, True), ("mobilenet_v3_small", False, False), ("efficientnet_b0", False, False),
     ("vit_base", True, True)],
)  # fmt: skip
def test_what_nncf_is_asked_for(
    networks: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    backbone: str, is_transformer: bool, is_fast: bool,
) -> None:  # fmt: skip
    nncf: Any = int8._import_nncf()
    asked: dict[str, Any] = {}

    def quantize(model: Any, pictures: Any, **named: Any) -> Any:
        asked.update(named)
        return model

    monkeypatch.setattr(nncf, "quantize", quantize)
    float32 = digits(networks).network_file
    to = tmp_path / "n.xml"
    quantise(float32, sample.pixels[:7], to, layers=LAYERS, backbone=backbone, is_transformer=is_transformer)
    assert (asked["subset_size"], asked["fast_bias_correction"]) == (7, is_fast)
    assert asked["model_type"] == (nncf.ModelType.TRANSFORMER if is_transformer else None)
    assert asked["advanced_parameters"].overflow_fix == nncf.OverflowFix.ENABLE  # sums fit into 16 bits without VNNI
    assert is_converted(to)


def test_without_nncf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "distribution_version", lambda _: "")
    with pytest.raises(UsageError, match=r'pip install "tlfeat\[int8\]"'):
        quantise(tmp_path / "a.xml", [], tmp_path / "b.xml", layers=[], backbone="x", is_transformer=False)


@needs_nncf
def test_nncf_is_imported_without_what_posts_usage_statistics() -> None:
    words = (
        "import sys; from tlfeat.backbones import int8; int8._import_nncf(); print('openvino_telemetry' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize(("precision", "hint"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_openvino_is_told_what_to_compute_in(
    networks: Path, monkeypatch: pytest.MonkeyPatch, precision: str, hint: str
) -> None:
    """Processors with bfloat16 use it unless they are told not to."""
    ov, told = frameworks.import_openvino(), {}

    def compile_model(_: Any, __: str, settings: dict[str, Any]) -> Any:
        told.update(settings)
        return SimpleNamespace()

    digits(networks).converted()
    capable = SimpleNamespace(compile_model=compile_model, get_property=lambda *_: ["FP32", "BF16"])
    monkeypatch.setattr(ov, "Core", lambda: capable)
    _ = digits(networks, precision)._engine
    assert told["INFERENCE_PRECISION_HINT"] == hint


def test_a_processor_without_bfloat16_says_so(networks: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    ov = frameworks.import_openvino()
    monkeypatch.setattr(ov, "Core", lambda: SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"]))
    with pytest.raises(UsageError, match="This processor does not compute in bfloat16"):
        rows_of(digits(networks, "bfloat16"), sample)


def test_the_cosine_of_rows() -> None:
    rows = np.array([[1, 0], [3, 4], [0, 0], [0, 0], [-1, 1]], np.float32)
    reference = np.array([[0, 2], [3, 4], [0, 0], [1, 0], [1, -1]], np.float32)
    assert cosines(rows, reference).tolist() == pytest.approx([0, 1, 1, 0, -1])


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("int8", r"plan_extraction\(DATA, precision='int8'\)"),
        ("float32:ab", "An int8 network is made for a set"),
        ("float16", "No precision 'float16'"),
    ],
)
def test_what_no_encoder_computes_in_is_refused(precision: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        digits(Path(), precision)
