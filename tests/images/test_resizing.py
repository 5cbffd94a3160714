"""Ways of resizing: those of transformers against stored pixels of transformers, and the odd shapes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import ALL_RESIZES
from tlfeat.backbones.catalog import BACKBONES, USUAL_RESIZE
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.errors import UsageError
from tlfeat.images.decode import decode_bytes
from tlfeat.images.resizing import CROPPED, RESIZE, RESIZES, covered_size, draft, resized
from tlfeat.types import Pixels

#: Written by tools/resizing_reference.py with transformers 5.24 and Pillow 13: pictures, and what became of them.
REFERENCE = np.load(Path(__file__).parent / "resizing_reference.npz")

SIDE_PX = 21


def encoded(pixels: Any, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, file_format, **options)
    return out.getvalue()


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(4).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("name", [name for name in REFERENCE.files if not name.endswith("/picture")])
def test_pixels_equal_those_of_transformers_to_the_bit(name: str) -> None:
    picture, way = name.split("/")
    found = decode_bytes(encoded(REFERENCE[f"{picture}/picture"]), (SIDE_PX, SIDE_PX), way)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, REFERENCE[name])


@pytest.mark.parametrize("way", ["crop", "crop-full"])
@pytest.mark.parametrize("shape", [(30, 50), (30, 80), (50, 30), (40, 60)], ids=str)
def test_a_crop_that_is_no_square_keeps_the_aspect_ratio_and_covers_both_sides(
    way: str, shape: tuple[int, int]
) -> None:
    size = (14, 28)
    height, width = (16, 32) if way == "crop" else size
    scale = max(height / shape[0], width / shape[1])
    height, width = (int(n * scale + 1e-9) for n in shape)
    whole = Image.fromarray(noise(*shape)).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    expected = np.asarray(whole)[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(resized(Image.fromarray(noise(*shape)), size, way), expected)


@pytest.fixture
def largest_resized(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of pixels of every picture that Pillow was asked for."""
    asked: list[int] = []
    resize = Image.Image.resize

    def counting(self: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        asked.append(size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", counting)
    return asked


@pytest.mark.parametrize("way", CROPPED)
@pytest.mark.parametrize(
    "shape", [(3, 1000), (1000, 3), (40, 4000), (1, 1000), (700, 1)], ids=lambda shape: "x".join(map(str, shape))
)
def test_of_a_long_strip_only_the_middle_is_resized_and_it_is_the_same(
    way: str, shape: tuple[int, int], largest_resized: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    strip = Image.fromarray(noise(*shape))
    found = resized(strip, (14, 28), way).astype(int)
    assert largest_resized == [14 * 28]
    monkeypatch.setattr("tlfeat.images.resizing._MANY", 1e9)
    expected = resized(strip, (14, 28), way)
    assert largest_resized[-1] > 8 * 14 * 28
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


@pytest.mark.parametrize("way", ALL_RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 10_000), (10_000, 3)], ids=["one-pixel", "strip", "upright-strip"])
def test_odd_shapes_fill_the_frame(way: str, shape: tuple[int, int]) -> None:
    found = decode_bytes(encoded(np.full((*shape, 3), (9, 80, 7))), (224, 196), way)
    np.testing.assert_array_equal(found, np.broadcast_to(np.array([9, 80, 7], found.dtype), (224, 196, 3)))


@pytest.mark.parametrize("way", ["crop", "crop-full", "bicubic"])
def test_a_photograph_that_lies_on_its_side_is_turned_before_its_middle_is_cut_out(way: str) -> None:
    upright = noise(30, 47)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of the file is the right side
    found = decode_bytes(encoded(upright[:, ::-1].transpose(1, 0, 2), exif=exif), (14, 21), way)
    np.testing.assert_array_equal(found, resized(Image.fromarray(upright), (14, 21), way))


@pytest.mark.parametrize("way", ["crop", "crop-full", "bicubic"])
def test_transparency_is_white_before_anything_is_resized(way: str) -> None:
    rgba = noise(30, 47, 4)
    rgba[..., 3] = np.where(np.arange(47) < 25, 0, 255)
    over_white = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]).astype(np.uint8)
    found = decode_bytes(encoded(rgba), (14, 21), way)
    np.testing.assert_array_equal(found, resized(Image.fromarray(over_white), (14, 21), way))


@pytest.mark.parametrize(
    ("way", "shorter_px", "parts"),
    [
        *(("crop", 63, 1), ("crop", 64, 2), ("crop", 128, 4)),  # brought to 16 pixels before the middle is cut out
        *(("crop-full", 55, 1), ("crop-full", 56, 2), ("bicubic", 55, 1), ("bicubic", 56, 2)),
        *(("antialias", 55, 1), ("antialias", 56, 2), ("load_img", 400, 1), ("dataset", 400, 1)),
        *(("quick", 27, 1), ("quick", 28, 2), ("quick", 56, 4)),
    ],
)
@pytest.mark.parametrize("lies", [False, True], ids=["wide", "upright"])
def test_a_jpeg_is_decoded_smaller_where_twice_the_size_is_left_or_once_if_it_is_to_be_quick(
    way: str, shorter_px: int, parts: int, lies: bool
) -> None:
    shape = (shorter_px, 800)[:: -1 if lies else 1]
    image = Image.open(io.BytesIO(encoded(np.zeros((*shape, 3)), "JPEG")))
    draft(image, (14, 14), way)
    assert image.size == tuple(-(-n // parts) for n in shape[::-1])


@pytest.mark.parametrize("shape", [(90, 61), (30, 47), (9, 300)], ids=["smaller", "larger", "strip"])
def test_quick_is_within_a_grey_level_of_antialias_and_has_the_same_bits_on_every_processor(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cykooz = pytest.importorskip("cykooz_resizer", reason="tlfeat[quick] is not installed")
    picture, size = Image.fromarray(noise(*shape)), (40, 56)
    found = resized(picture, size, "quick")
    distance = np.abs(found.astype(int) - resized(picture, size, "antialias"))
    assert 0 < distance.max() <= 1
    assert distance.mean() < 0.3

    def without_simd() -> Any:
        resizer = with_simd()
        resizer.cpu_extensions = cykooz.CpuExtensions.none
        return resizer

    with_simd = cykooz.Resizer
    monkeypatch.setattr(cykooz, "Resizer", without_simd)
    np.testing.assert_array_equal(resized(picture, size, "quick"), found)


def test_rows_of_quick_stay_what_they_were() -> None:
    """The fingerprint does not say which version of the package resized."""
    pytest.importorskip("cykooz_resizer", reason="tlfeat[quick] is not installed")
    found = resized(Image.fromarray(noise(90, 61)), (40, 56), "quick")
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "647e4ff70daf28a6"


def test_quick_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlfeat.images.resizing.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tlfeat\[quick\]'"):
        KerasEncoder(BackboneSpec("mobilenet_v2"), ["avg_pool"], resize="quick")
    KerasEncoder(BackboneSpec("mobilenet_v2"), ["avg_pool"])


@pytest.mark.parametrize("way", ["crop", "crop-full", "bicubic"])
def test_a_large_jpeg_is_within_few_grey_levels_of_one_that_is_decoded_in_full(way: str) -> None:
    smooth = np.asarray(Image.fromarray(noise(12, 16)).resize((640, 480), Image.Resampling.BICUBIC))
    data = encoded(smooth, "JPEG", quality=92)
    found = decode_bytes(data, (28, 28), way).astype(int)
    expected = resized(Image.open(io.BytesIO(data)), (28, 28), way)
    assert 0 < np.abs(found - expected).max() <= 6
    assert expected.std() > 20


def test_the_own_way_of_every_backbone_is_known() -> None:
    assert {backbone.resize for backbone in BACKBONES} <= RESIZES.keys()
    assert next(iter(RESIZES)) == RESIZE == USUAL_RESIZE


def test_a_crop_covers_256_pixels_where_224_are_wanted() -> None:
    assert [covered_size((side, 224), "crop") for side in (224, 518)] == [(256, 256), (592, 256)]
    assert covered_size((224, 518), "crop-full") == (224, 518)
