"""Files become pixels: every format and mode against Pillow or against arithmetic, and every bad file says why."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import without_rights
from tlfeat.errors import BadImage
from tlfeat.images import decode
from tlfeat.images.decode import Decoded, decode_all, decode_bytes, decode_file
from tlfeat.images.image_set import content_key
from tlfeat.types import Pixels

SIZE = (12, 16)  # height, width


def picture(height: int = 12, width: int = 16, seed: int = 0) -> Pixels:
    """Coarse blocks of colour: sharp enough to see a flip, smooth enough for JPEG."""
    blocks = np.random.default_rng(seed).integers(0, 256, ((height + 3) // 4, (width + 3) // 4, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((4, 4, 1), np.uint8))[:height, :width]


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def files_of(tmp_path: Path, n: int) -> list[tuple[int, Path]]:
    """Write n different PNG files."""
    paths = [tmp_path / f"{i}.png" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(Image.fromarray(picture(seed=i)), "PNG"))
    return list(enumerate(paths))


# --- formats --------------------------------------------------------------------------------------------------

LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "BMP": {},
    "DIB": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_lossless_formats_give_back_the_pixels(file_format: str) -> None:
    data = encoded(Image.fromarray(picture()), file_format, **LOSSLESS[file_format])
    np.testing.assert_array_equal(decode_bytes(data, SIZE), picture())


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_gives_back_the_pixels(compression: str) -> None:
    data = encoded(Image.fromarray(picture()), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_bytes(data, SIZE), picture())


def test_gif_of_few_colours_gives_back_the_pixels() -> None:
    np.testing.assert_array_equal(decode_bytes(encoded(Image.fromarray(picture()), "GIF"), SIZE), picture())


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["plain", "progressive", "444"]
)
def test_jpeg_equals_what_pillow_decodes(options: dict[str, Any]) -> None:
    data = encoded(Image.fromarray(picture()), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_bytes(data, SIZE), expected)
    assert np.abs(expected.astype(int) - picture()).mean() < 25  # it is that picture


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_every_format_decodes_first_thing_in_a_fresh_process(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(Image.fromarray(picture()), file_format))
    program = f"from pathlib import Path; from tlfeat.images.decode import decode_bytes; \
print(decode_bytes(Path({str(path)!r}).read_bytes(), (5, 7)).shape)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("(5, 7, 3)", "")


def test_mpo_of_a_camera_gives_its_first_picture() -> None:
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (0, 1))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    expected = np.asarray(Image.open(io.BytesIO(encoded(first, "JPEG", quality=95))))
    np.testing.assert_array_equal(decode_bytes(data, SIZE), expected)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("GIF", {}), ("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})],
    ids=["animated-gif", "multi-page-tiff", "animated-png", "animated-webp"],
)
def test_the_first_frame_is_taken(file_format: str, options: dict[str, Any]) -> None:
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    np.testing.assert_array_equal(decode_bytes(data, SIZE), picture(seed=0))


# --- pixel formats --------------------------------------------------------------------------------------------


def test_greyscale_becomes_three_equal_channels() -> None:
    grey = picture()[:, :, 0]
    pixels = decode_bytes(encoded(Image.fromarray(grey), "PNG"), SIZE)
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit_becomes_black_and_white(file_format: str) -> None:
    bits = picture()[:, :, 0] > 127
    pixels = decode_bytes(encoded(Image.fromarray(bits), file_format), SIZE)
    np.testing.assert_array_equal(pixels[:, :, 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_over_white(file_format: str) -> None:
    data = encoded(Image.new("LA", (16, 12), (100, 0)), file_format)
    assert decode_bytes(data, SIZE).min() == 255
    data = encoded(Image.new("LA", (16, 12), (100, 255)), file_format)
    assert np.unique(decode_bytes(data, SIZE)).tolist() == [100]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("alpha", [0, 64, 128, 255])
def test_transparency_is_laid_over_white(file_format: str, alpha: int) -> None:
    rgba = np.dstack([picture(), np.full((12, 16), alpha, np.uint8)])
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    pixels = decode_bytes(encoded(Image.fromarray(rgba), file_format, **options), SIZE)
    expected = picture() * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(pixels - expected).max() <= 1  # integer blending rounds


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["one-index", "alpha-table"])
def test_a_transparent_palette_entry_becomes_white(transparency: int | bytes) -> None:
    image = Image.new("P", (16, 12), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 8, 12))
    pixels = decode_bytes(encoded(image, "PNG", transparency=transparency), SIZE)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 15].tolist() == [40, 50, 60]


def test_a_palette_without_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (16, 12), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert np.unique(decode_bytes(encoded(image, "PNG"), SIZE), axis=1)[0].tolist() == [[40, 50, 60]]


def test_transparent_pixels_of_a_gif_become_white() -> None:
    image = Image.new("P", (16, 12), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_bytes(encoded(image, "GIF", transparency=0), SIZE).min() == 255


def test_a_transparent_grey_value_of_a_png_becomes_white() -> None:
    pixels = decode_bytes(encoded(Image.new("L", (16, 12), 7), "PNG", transparency=7), SIZE)
    assert pixels.min() == 255


def test_cmyk_jpeg_has_the_right_colours_and_is_not_inverted() -> None:
    red = Image.new("RGB", (16, 12), (200, 30, 30)).convert("CMYK")
    pixels = decode_bytes(encoded(red, "JPEG", quality=95), SIZE)
    assert np.abs(pixels.astype(int) - [200, 30, 30]).max() <= 4


EVERY_16_BIT_VALUE = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257_and_rounded(file_format: str, dtype: str) -> None:
    image = Image.fromarray(EVERY_16_BIT_VALUE.astype(dtype))
    pixels = decode_bytes(encoded(image, file_format), (256, 256))
    expected = np.round(EVERY_16_BIT_VALUE / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels, np.stack([expected] * 3, axis=2))


def test_32_bit_integers_within_16_bits_are_divided_by_257() -> None:
    data = encoded(Image.fromarray(EVERY_16_BIT_VALUE.astype(np.int32)), "TIFF")
    np.testing.assert_array_equal(decode_bytes(data, (256, 256))[:, :, 0], np.round(EVERY_16_BIT_VALUE / 257))


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_32_bit_integers_beyond_16_bits_are_refused(value: int) -> None:
    with pytest.raises(BadImage, match="32-bit integer pixels beyond 0 to 65535"):
        decode_bytes(encoded(Image.fromarray(np.full((4, 4), value, np.int32)), "TIFF"), SIZE)


def test_floating_point_pixels_are_refused_with_a_way_out() -> None:
    with pytest.raises(BadImage, match=r"floating-point pixels .* save it with 8 or 16 bits"):
        decode_bytes(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), SIZE)


# --- orientation and size -------------------------------------------------------------------------------------

# EXIF 2.32, table 6, tag 0x0112: which side of the picture the first row and the first column of the file are.
STORED_AS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,  # row 0 top, column 0 left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda upright: upright[::-1].transpose(1, 0, 2),  # left, bottom
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_all_eight_exif_orientations_show_the_same_picture(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](picture())))
    data = encoded(stored, file_format, exif=exif, **LOSSLESS[file_format])
    np.testing.assert_array_equal(decode_bytes(data, SIZE), picture())


@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_of_a_jpeg_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16, 0] = 255  # red in the upper left quarter
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    pixels = decode_bytes(encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0), (16, 32))
    assert np.abs(pixels.astype(int) - upright).mean() < 5  # any other orientation: above 40


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_lies_on_its_side_keeps_the_detail_that_a_narrow_result_can_show(orientation: int) -> None:
    """Asked for at half the result's size and more, libjpeg may leave detail out: but height is width on its side."""
    upright = np.zeros((200, 800, 3), np.uint8)
    upright[np.arange(200) % 16 < 8] = 240  # stripes: each is two rows of the result
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    pixels = decode_bytes(encoded(stored, "JPEG", exif=exif, quality=95), (50, 12))
    expected = Image.fromarray(upright).resize((12, 50), Image.Resampling.BILINEAR)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() < 20  # decoded at an eighth: above 60


def test_turning_a_picture_writes_no_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ImageOps.exif_transpose` does: 3 ms a photograph for what nobody reads."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.ascontiguousarray(STORED_AS[6](picture()))), "PNG", exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *_: pytest.fail("EXIF was written"))
    np.testing.assert_array_equal(decode_bytes(data, SIZE), picture())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_bytes(encoded(Image.fromarray(picture()), "PNG", exif=exif), SIZE), picture())


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (24, 32), (100, 3), (224, 224)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_resizing_equals_bilinear_of_pillow(mode: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(40, 60)).convert(mode)
    pixels = decode_bytes(encoded(image, "PNG"), size)
    height, width = size
    expected = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_shrinking_antialiases() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = decode_bytes(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"), (4, 4))
    assert np.abs(pixels.astype(int) - 127).max() <= 2  # without antialiasing single pixels would be picked


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]),
)
@settings(max_examples=100)
def test_the_result_is_contiguous_uint8_of_the_wanted_shape(
    height: int, width: int, size: tuple[int, int], mode: str
) -> None:
    image = Image.fromarray(picture(height, width)).convert(mode)
    pixels = decode_bytes(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), size)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_a_picture_of_one_pixel_fills_the_frame() -> None:
    pixels = decode_bytes(encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), (3, 5))
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.array([9, 8, 7], np.uint8), (3, 5, 3)))


# --- bad files ------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


JPEG = encoded(Image.fromarray(picture(64, 64)), "JPEG")
PNG = encoded(Image.fromarray(picture(64, 64)), "PNG")

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "^empty file$"),
    "text": (b"<html>404 Not Found</html>", "^not an image in a known format$"),
    "zeros": (b"\0" * 5000, "^not an image in a known format$"),
    "one-byte": (b"\xff", "^not an image in a known format$"),
    "jpeg-cut-in-half": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg-cut-in-the-header": (JPEG[:100], "not an image in a known format|[Tt]runcated"),
    "jpeg-without-end": (JPEG[:-10], "truncated"),
    "png-cut-in-half": (PNG[: len(PNG) // 2], "truncated|broken"),
    "png-header-only": (PNG[:33], "."),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not an image in a known format"),
    "pdf": (b"%PDF-1.4\n", "not an image in a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image in a known format"),
    "bomb-of-2500-megapixels": (png_header(50_000, 50_000), "^too large"),
    "bomb-of-120-megapixels": (png_header(12_000, 10_000), "^too large: 12000x10000 is 120 million pixels, the limit"),
    "claims-more-than-it-holds": (png_header(5_000, 5_000), "truncated|broken"),
    "width-zero": (png_header(0, 10), "."),
}


@pytest.mark.parametrize(("data", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_gives_its_reason_on_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode_bytes(data, SIZE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).strip()


OTHER_FORMATS = ["PPM", "ICO", "TGA", "PCX", "SGI", "PDF", "EPS"]


@pytest.mark.parametrize("file_format", OTHER_FORMATS)
def test_other_formats_that_pillow_knows_are_refused(file_format: str) -> None:
    with pytest.raises(BadImage, match="not an image in a known format"):
        decode_bytes(encoded(Image.fromarray(picture(32, 32)), file_format), SIZE)


def test_a_decompression_bomb_is_refused_within_little_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="memory can be limited on Unix only")
    (tmp_path / "bomb.png").write_bytes(png_header(50_000, 50_000))  # 10 GB if it were allocated
    program = """
        import resource, sys
        from pathlib import Path
        from tlfeat.images.decode import decode_bytes
        from tlfeat.errors import BadImage
        data = Path(sys.argv[1]).read_bytes()
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        try:
            decode_bytes(data, (12, 16))
        except BadImage as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "bomb.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("too large"), ran.stderr  # "not enough memory" would mean that it tried


def test_a_real_picture_of_odd_proportions_decodes() -> None:
    wide = np.zeros((40, 20_000, 3), np.uint8)
    wide[:, 10_000:] = 255
    pixels = decode_bytes(encoded(Image.fromarray(wide), "PNG", compress_level=1), SIZE)
    assert (pixels[:, 0].max(), pixels[:, -1].min()) == (0, 255)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_text("not found"), "not an image in a known format"),
    ],
    ids=["directory", "missing", "link-to-itself", "empty", "text"],
)
def test_a_file_that_cannot_be_read_becomes_a_listed_failure(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    decoded = decode_file(3, path, SIZE, lambda key: False)
    assert (decoded.i, decoded.pixels, decoded.error) == (3, None, reason)


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(b"x" * 1001)
    decoded = decode_file(0, tmp_path / "a.png", SIZE, lambda key: False)
    assert decoded.error.startswith("too large: ")
    assert decoded.key == ""


def test_a_file_that_may_not_be_read_says_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    path.chmod(0)

    def decode_it() -> None:
        assert decode_file(0, path, SIZE, lambda key: False).error == "cannot be read: Permission denied"

    without_rights(decode_it)


def test_a_known_file_is_keyed_but_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not even a picture")
    decoded = decode_file(0, tmp_path / "a.png", SIZE, lambda key: key == content_key(b"not even a picture"))
    assert decoded == Decoded(0, content_key(b"not even a picture"), None, "")


def test_a_bad_file_keeps_its_key_so_that_copies_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG[:100])
    assert decode_file(0, tmp_path / "a.png", SIZE, lambda key: False).key == content_key(PNG[:100])


# --- damaged at random ----------------------------------------------------------------------------------------

SMALL = Image.fromarray(picture(8, 8))
VICTIMS: dict[str, bytes] = {
    "jpeg": encoded(SMALL, "JPEG"),
    "png": encoded(SMALL, "PNG"),
    "gif": encoded(SMALL, "GIF"),
    "webp": encoded(SMALL, "WEBP"),
    "tiff": encoded(SMALL, "TIFF"),
    "tiff-lzw": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "bmp": encoded(SMALL, "BMP"),
}

PLACE = st.floats(0, 1, exclude_max=True)
MUTATION = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACE, st.integers(1, 40)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("end"), PLACE, st.just(0)),
)


def mutated(data: bytes, mutations: list[tuple[str, float, Any]]) -> bytes:
    for kind, place, value in mutations:
        at = int(place * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + value :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "end":
            data = data[:at]
    return data


@pytest.mark.parametrize("name", VICTIMS)
@given(mutations=st.lists(MUTATION, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_decodes_or_is_a_bad_image_and_nothing_else(
    name: str, mutations: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1_000_000)  # a flipped size must not make the test slow
    try:
        pixels = decode_bytes(mutated(VICTIMS[name], mutations), SIZE)
    except BadImage as error:
        assert str(error)
    else:
        assert pixels.shape == (*SIZE, 3)
        assert pixels.dtype == np.uint8


def test_the_damage_is_neither_always_fatal_nor_always_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1_000_000)
    draw = random.Random(0)
    outcomes: dict[str, set[bool]] = {name: set() for name in VICTIMS}
    for name, data in VICTIMS.items():
        for _ in range(100):
            try:
                decode_bytes(mutated(data, [("flip", draw.random(), draw.randint(1, 255))]), SIZE)
                outcomes[name].add(True)
            except BadImage:
                outcomes[name].add(False)
    assert outcomes == {name: {True, False} for name in VICTIMS}


def test_a_sample_of_the_campaign_of_damaged_pictures_ends_well(tmp_path: Path) -> None:
    """All 10,000 of ``make soak``: progressive, CMYK and rotated JPEG, interlaced PNG, more TIFF, bounded memory."""
    script = Path(__file__).parents[2] / "soak" / "images.py"
    out = tmp_path / "soak.json"
    command = [sys.executable, str(script), "--n", "300", "--json", str(out), "--keep", str(tmp_path / "failed")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(out.read_text())
    assert sum(found["outcomes"].values()) == 300
    assert min(found["outcomes"]["decoded"], found["outcomes"]["BadImage"]) > 60
    assert found["peak_bytes"] < 2 << 30


# --- many files -----------------------------------------------------------------------------------------------


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_files_come_out_in_their_order(tmp_path: Path, n_threads: int) -> None:
    files = files_of(tmp_path, 20)
    found = list(decode_all(files, SIZE, n_threads=n_threads, n_ahead=7))
    assert [decoded.i for decoded in found] == list(range(20))
    for decoded, (i, path) in zip(found, files, strict=True):
        assert decoded.key == content_key(path.read_bytes())
        np.testing.assert_array_equal(decoded.pixels, picture(seed=i))


@pytest.mark.parametrize("n_ahead", [1, 2, 8])
def test_never_more_than_n_ahead_files_are_asked_for_before_the_consumer(tmp_path: Path, n_ahead: int) -> None:
    n_asked, n_taken, most_ahead = 0, 0, 0

    def counted() -> Iterator[tuple[int, Path]]:
        nonlocal n_asked, most_ahead
        for i, path in files_of(tmp_path, 30):
            n_asked += 1
            most_ahead = max(most_ahead, n_asked - n_taken)
            yield i, path

    for _ in decode_all(counted(), SIZE, n_threads=2, n_ahead=n_ahead):
        n_taken += 1
    assert n_taken == 30
    assert most_ahead == n_ahead


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    files = files_of(tmp_path, 6)
    files[2][1].write_bytes(b"junk")
    files[4][1].unlink()
    errors = [decoded.error for decoded in decode_all(files, SIZE, n_threads=2)]
    assert [bool(error) for error in errors] == [False, False, True, False, True, False]


def test_no_files_give_nothing() -> None:
    assert list(decode_all([], SIZE)) == []


def test_closing_early_leaves_no_thread_and_reads_no_more(tmp_path: Path) -> None:
    n_asked = 0

    def counted() -> Iterator[tuple[int, Path]]:
        nonlocal n_asked
        for item in files_of(tmp_path, 50):
            n_asked += 1
            yield item

    decoding = decode_all(counted(), SIZE, n_threads=3, n_ahead=5)
    next(decoding)
    assert decode_threads()
    decoding.close()
    assert decode_threads() == []
    assert n_asked == 5


def test_closing_early_does_not_decode_what_is_still_waiting(tmp_path: Path) -> None:
    begun: list[str] = []
    closing = threading.Event()

    def slow(key: str) -> bool:
        begun.append(key)
        if len(begun) > 1:
            closing.wait(60)
            time.sleep(0.3)
        return True

    decoding = decode_all(files_of(tmp_path, 30), SIZE, is_known=slow, n_threads=1, n_ahead=30)
    next(decoding)
    closing.set()
    decoding.close()
    assert 1 <= len(begun) <= 3  # the first, the one that is under way, and one more where closing is slow


def test_an_exception_in_is_known_reaches_the_consumer_and_leaves_no_thread(tmp_path: Path) -> None:
    def broken(key: str) -> bool:
        raise LookupError("the index is gone")

    with pytest.raises(LookupError, match="the index is gone"):
        list(decode_all(files_of(tmp_path, 5), SIZE, is_known=broken, n_threads=2))
    assert decode_threads() == []


def test_an_exception_in_the_list_of_files_reaches_the_consumer(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[int, Path]]:
        yield from files_of(tmp_path, 3)
        raise LookupError("the list is gone")

    with pytest.raises(LookupError, match="the list is gone"):
        list(decode_all(broken(), SIZE, n_threads=2))
    assert decode_threads() == []


def test_decoding_in_threads_silences_no_warnings_but_pillows(tmp_path: Path) -> None:
    files = files_of(tmp_path, 40)
    list(decode_all(files[:1], SIZE, n_threads=1))
    before = list(warnings.filters)
    for _ in range(10):
        assert all(not decoded.error for decoded in decode_all(files, SIZE, n_threads=4))
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="still an error"):  # as the test configuration has it
        warnings.warn("still an error", UserWarning, stacklevel=1)


def test_a_picture_that_pillow_warns_of_is_decoded_in_silence() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"  # ends within its first entry
    pixels = decode_bytes(encoded(Image.fromarray(picture()), "JPEG", exif=exif), SIZE)
    assert pixels.shape == (*SIZE, 3)


def test_threads_decode_while_the_consumer_works(tmp_path: Path) -> None:
    read: list[str] = []

    def seen(key: str) -> bool:
        read.append(key)
        return False

    decoding = decode_all(files_of(tmp_path, 8), SIZE, is_known=seen, n_threads=2, n_ahead=8)
    next(decoding)
    deadline_s = time.monotonic() + 10
    while len(read) < 8 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(read) == 8
    assert len(list(decoding)) == 7


def test_the_table_from_16_to_8_bits_has_every_entry_right() -> None:
    values: npt.NDArray[np.uint8] = decode._LUT_16_TO_8
    assert values.dtype == np.uint8
    assert all(values[v] == round(v / 257) for v in range(65536))
