"""OpenVINO in the place of TensorFlow: the same rows, and a clean way back where it cannot be."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlfeat.backbones import keras_encoder as backbone
from tlfeat.backbones import runtime
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec, build_base
from tlfeat.backbones.preprocess import preprocess
from tlfeat.backbones.runtime import TOLERANCE, TensorFlowRuntime, choose_runtime, is_converted, largest_difference
from tlfeat.errors import ShapeError, UsageError
from tlfeat.images.decode import decode_bytes
from tlfeat.images.resizing import RESIZES, pixel_type
from tlfeat.types import Pixels, Rows

pytestmark = pytest.mark.keras

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
LAYERS = ("avg_pool", "block3_conv", "block3_conv:max", "block2_relu:gem", "block4_conv:flatten")


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Twelve pictures of 32x32: noise, smooth ones and two of one colour, so that rows differ."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    smooth = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32)) for _ in range(5)]
    return np.concatenate([noise, np.stack(smooth), np.full((1, 32, 32, 3), 255, np.uint8), np.zeros_like(noise[:1])])


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped network converted."""
    folder = tmp_path_factory.mktemp("converted")
    digits(folder, "openvino").prepare()
    return folder


@pytest.fixture(scope="module")
def expected(pixels: Pixels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """Its rows of `pixels`, by TensorFlow."""
    return digits(tmp_path_factory.mktemp("none"), "tensorflow").encode(pixels)


def digits(networks_dir: Path, wanted: str = "openvino", **options: str | int) -> KerasEncoder:
    return KerasEncoder(BackboneSpec(DIGITS), LAYERS, runtime=wanted, networks_dir=networks_dir, **options)  # type: ignore[arg-type]


def graph_of(folder: Path) -> Path:
    (file,) = folder.glob("*.xml")
    return file


def copied(folder: Path, to: Path) -> Path:
    """Copy the converted network and return its .xml."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return graph_of(to)


def assert_same_bits(one: dict[str, Rows], other: dict[str, Rows]) -> None:
    assert {name: rows.tobytes() for name, rows in one.items()} == {n: r.tobytes() for n, r in other.items()}


# --- the same rows --------------------------------------------------------------------------------------------


@pytest.mark.sample("digits_cnn", "mobilenet")
@pytest.mark.parametrize(
    ("name", "mode", "layers"),
    [
        (DIGITS, None, LAYERS),
        ("mobilenet_0.25", "caffe", ("conv_pw_6_relu:flatten", "conv_pw_6_relu:gem", "avg_pool")),
        ("mobilenet_v3_small", None, ("avg_pool", "expanded_conv_2_add:max", "expanded_conv_2_add")),
    ],
    ids=["digits_cnn", "mobilenet", "mobilenet_v3"],
)
def test_rows_are_those_of_tensorflow(
    name: str,
    mode: str | None,
    layers: tuple[str, ...],
    pixels: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keras' own random weights let values vanish (1e-12), where any comparison passes or none does: see `awaken`."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from runtimes import awaken

    spec = BackboneSpec(name)
    if name != DIGITS:
        random = BackboneSpec(name, "random", (32, 32), mode)
        base = build_base(random, (32, 32))
        awaken(base, preprocess(pixels.astype(np.float32), random.mode))
        base.save_weights(tmp_path / "w.weights.h5")
        spec = replace(random, weights=str(tmp_path / "w.weights.h5"))
    encoder = KerasEncoder(spec, layers, runtime="openvino", networks_dir=tmp_path)
    found = encoder.encode(pixels)
    assert (encoder.runtime.split()[0], encoder.notes) == ("openvino", [])
    expected = TensorFlowRuntime(encoder._forward, layers, len(pixels))(pixels)
    assert tuple(found) == tuple(expected) == layers
    for layer, rows in expected.items():
        assert found[layer].shape == rows.shape and found[layer].dtype == np.float32
        assert 0.1 < np.abs(rows).max() < 100, "values that vanish or explode prove nothing"
        assert rows.std(axis=0).max() > 0.1 * np.abs(rows).max(), "nor do rows that are all alike"
    assert largest_difference(found, expected) <= TOLERANCE


def test_rows_depend_neither_on_the_batch_nor_on_the_number_of_threads(networks: Path, pixels: Pixels) -> None:
    whole = digits(networks, n_threads=1).encode(pixels)
    many = digits(networks, n_threads=4)
    with ThreadPoolExecutor(4) as pool:
        for n in (1, 3, 5):
            parts = list(pool.map(many.encode, [pixels[i : i + n] for i in range(0, len(pixels), n)]))
            assert_same_bits(whole, {name: np.concatenate([part[name] for part in parts]) for name in LAYERS})


def test_the_layers_of_one_pass_are_those_of_passes_of_their_own(
    networks: Path, tmp_path: Path, pixels: Pixels
) -> None:
    together = digits(networks).encode(pixels)
    for name in ("avg_pool", "block4_conv:flatten"):
        alone = KerasEncoder(BackboneSpec(DIGITS), [name], runtime="openvino", networks_dir=tmp_path).encode(pixels)
        np.testing.assert_allclose(alone[name], together[name], atol=1e-5)


def test_a_second_process_embeds_without_tensorflow(networks: Path, pixels: Pixels, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    program = f"""
import sys
import numpy as np
from pathlib import Path
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec
encoder = KerasEncoder(BackboneSpec(DIGITS), {LAYERS!r}, runtime="openvino", networks_dir=Path({str(networks)!r}))
np.savez("rows.npz", **encoder.encode(np.load("pixels.npy")))
assert encoder.notes == []
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "rows.npz") as rows:
        assert_same_bits(dict(rows), digits(networks).encode(pixels))


@pytest.mark.sample("openvino")
@pytest.mark.parametrize("wanted", ["openvino", "tensorflow"])
def test_pixels_that_were_not_rounded_are_taken_as_they_are(
    wanted: str, networks: Path, pixels: Pixels, tmp_path: Path
) -> None:
    encoder = digits(tmp_path, wanted, resize="dataset")
    whole = encoder.encode(pixels.astype(np.float32))
    assert largest_difference(whole, digits(networks, wanted).encode(pixels)) <= TOLERANCE
    halves = encoder.encode(np.clip(pixels + np.float32(0.5), 0, 255))
    assert largest_difference(halves, whole) > TOLERANCE, "the halves were cut off"
    with pytest.raises(ShapeError, match="Expected float32 pixels"):
        encoder.encode(pixels)


# --- what can go wrong ----------------------------------------------------------------------------------------

Damage = Callable[[bytes], bytes | None]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :]


@pytest.mark.sample("half-a-graph", "one-bit-of-the-weights", "another-width")
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".xml", lambda data: b""),
        (".xml", lambda data: data[: len(data) // 2]),
        (".xml", lambda data: data[:-1]),
        (".xml", lambda data: b"junk" * 100),
        (".xml", lambda data: data.replace(b"<dim>512</dim>", b"<dim>511</dim>")),
        (".bin", lambda data: b""),
        (".bin", lambda data: data[:-1]),
        (".bin", flipped),
        (".bin", lambda data: bytes(len(data))),
        (".bin", lambda data: None),
    ],
    ids=[
        *("empty-graph", "half-a-graph", "graph-cut-by-one", "no-graph", "another-width"),
        *("empty-weights", "weights-cut-by-one", "one-bit-of-the-weights", "weights-of-zeros", "no-weights"),
    ],
)
def test_a_damaged_network_is_converted_again(
    suffix: str, damage: Damage, networks: Path, pixels: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_converted = 0

    def counted(*args: object, **named: object) -> None:
        nonlocal n_converted
        n_converted += 1
        for file in networks.iterdir():  # as good as a conversion, and quicker
            (tmp_path / "own" / file.name).write_bytes(file.read_bytes())

    graph = copied(networks, tmp_path / "own")
    assert is_converted(graph)
    damaged = damage(graph.with_suffix(suffix).read_bytes())
    graph.with_suffix(suffix).unlink()
    if damaged is not None:
        graph.with_suffix(suffix).write_bytes(damaged)
    assert not is_converted(graph)
    monkeypatch.setattr(backbone, "convert", counted)
    encoder = digits(tmp_path / "own")
    assert_same_bits(encoder.encode(pixels), digits(networks).encode(pixels))
    assert (n_converted, encoder.notes) == (1, [])


def test_a_network_converted_again_takes_the_place_of_the_damaged(
    networks: Path, pixels: Pixels, tmp_path: Path
) -> None:
    graph = copied(networks, tmp_path / "own")
    for file in (graph, graph.with_suffix(".bin")):
        file.write_bytes(b"junk")
    assert_same_bits(digits(tmp_path / "own").encode(pixels), digits(networks).encode(pixels))
    assert is_converted(graph)
    assert len(list((tmp_path / "own").iterdir())) == 2


def falls_back(encoder: KerasEncoder, pixels: Pixels, expected: dict[str, Rows]) -> str:
    """Assert that TensorFlow embeds in the place of OpenVINO, and return the reason given."""
    np.testing.assert_allclose(encoder.encode(pixels)["avg_pool"], expected["avg_pool"], atol=1e-5)
    assert encoder.runtime.startswith("tensorflow")
    assert not encoder.is_parallel
    (note,) = encoder.notes
    start, _, reason = note.partition(": ")
    assert start == "TensorFlow embeds, not the faster OpenVINO"
    return reason


def test_a_whole_network_that_openvino_cannot_load_is_left_to_tensorflow(
    networks: Path, pixels: Pixels, expected: dict[str, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    def refuse(*args: object) -> None:
        raise RuntimeError("Exception from src/inference:\nno CPU plugin here\n")

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    assert falls_back(digits(networks), pixels, expected).endswith(".xml cannot be loaded: no CPU plugin here")


@pytest.mark.sample("nothing-converted")
@pytest.mark.parametrize("is_there_already", [False, True], ids=["nothing-converted", "converted-before"])
def test_without_openvino_tensorflow_embeds(
    is_there_already: bool,
    networks: Path,
    pixels: Pixels,
    expected: dict[str, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert falls_back(digits(networks if is_there_already else tmp_path), pixels, expected) == "it is not installed"


def test_a_network_whose_rows_differ_is_refused_and_not_kept(
    pixels: Pixels, expected: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "TOLERANCE", -1.0)
    assert falls_back(digits(tmp_path), pixels, expected).startswith("its rows differ from TensorFlow's by ")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_openvino_does_not_know_is_left_to_tensorflow(
    pixels: Pixels, expected: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    def refuse(*args: object) -> None:
        raise RuntimeError("Check 'x' failed\nNo translator found for Foo node.\n")

    monkeypatch.setattr(openvino.Core, "read_model", refuse)
    assert falls_back(digits(tmp_path), pixels, expected).endswith("network: No translator found for Foo node.")


def test_a_folder_that_cannot_be_written_leaves_it_to_tensorflow(
    pixels: Pixels, expected: dict[str, Rows], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert falls_back(digits(tmp_path / "file"), pixels, expected).endswith("file cannot be written: File exists")


def test_an_unknown_runtime_is_an_error_of_usage() -> None:
    with pytest.raises(UsageError, match=r"No runtime 'openvion'. Did you mean 'openvino'\?"):
        KerasEncoder(BackboneSpec(DIGITS), ["avg_pool"], runtime="openvion")


def test_auto_is_openvino_where_the_gpu_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert [choose_runtime(wanted) for wanted in runtime.RUNTIMES] == ["openvino", "openvino", "tensorflow"]


def test_a_row_that_is_not_a_number_is_a_difference() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    broken = rows.copy()
    broken[0, 1] = np.nan
    assert largest_difference({"a": rows}, {"a": rows}) == 0
    assert largest_difference({"a": rows, "b": rows + 1}, {"a": rows, "b": rows}) == 0.25
    for layers in (("a", "b"), ("b", "a")):
        found = {name: broken if name == "a" else rows + 1 for name in layers}
        assert np.isnan(largest_difference(found, dict.fromkeys(layers, rows)))


# --- resizing as Keras does -----------------------------------------------------------------------------------


def photo(height: int, width: int) -> bytes:
    """Return a JPEG with waves of every length from the whole picture to four pixels, and a little noise."""
    rng = np.random.default_rng(0)
    long_side = max(height, width)
    lengths_px = [2.0**k for k in range(2, int(np.log2(long_side)) + 1)]
    phases = rng.uniform(0, 2 * np.pi, (2, 3, len(lengths_px)))
    at = np.arange(long_side)[:, None]
    along, down = (
        np.stack([np.sin(2 * np.pi * at / lengths_px + phase).sum(axis=1) for phase in of_axis], axis=1)
        for of_axis in phases
    )  # (long_side, 3)
    noise = np.tile(rng.normal(0, 0.2, (128, 128, 3)), (long_side // 128 + 1, long_side // 128 + 1, 1))
    waves = along[None, :width] + down[:height, None] + noise[:height, :width]  # (h, w, 3)
    out = io.BytesIO()
    rgb = np.clip(127 + 400 / len(lengths_px) / 2 * waves, 0, 255).astype(np.uint8)
    Image.fromarray(rgb).save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.mark.parametrize(("height", "width"), [(300, 410), (97, 64), (60, 50), (3000, 17)])
def test_dataset_resizes_as_tensorflow_does(height: int, width: int) -> None:
    import_keras()
    import tensorflow as tf

    data = photo(height, width)
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    expected = tf.image.resize(rgb, (64, 80), method="bilinear", antialias=False).numpy()
    np.testing.assert_allclose(decode_bytes(data, (64, 80), "dataset"), expected, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(300, 410), (97, 64), (60, 50), (900, 1200)])
def test_load_img_resizes_as_keras_does(height: int, width: int, tmp_path: Path) -> None:
    keras = import_keras()
    (tmp_path / "a.jpg").write_bytes(photo(height, width))
    expected = keras.utils.load_img(tmp_path / "a.jpg", target_size=(64, 80), interpolation="bilinear")
    found = decode_bytes((tmp_path / "a.jpg").read_bytes(), (64, 80), "load_img")
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_antialias_of_a_large_photograph_is_within_a_grey_level_of_load_img() -> None:
    data = photo(1800, 2400)
    ways = {name: decode_bytes(data, (224, 224), name).astype(np.float32) for name in RESIZES if name != "quick"}
    assert ways["load_img"].std() > 20
    distance = {name: np.abs(found - ways["load_img"]) for name, found in ways.items()}
    assert 0 < distance["antialias"].mean() < 1, "the JPEG was not decoded at a part of its size, or it matters"
    assert distance["antialias"].max() <= 6
    assert distance["dataset"].mean() > 2, "the picture has no detail that could be lost"
    assert {name: pixel_type(name) for name in RESIZES}["dataset"] == "float32"
