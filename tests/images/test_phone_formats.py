"""AVIF and HEIC: read where Pillow can, else one clear reason; what is left out of a folder is named by kind."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tlfeat.errors import BadImage, DataError
from tlfeat.images import decode, folders
from tlfeat.images.decode import decode_bytes, image_size
from tlfeat.images.folders import left_out_text
from tlfeat.images.load import load_images

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")

HEIC_HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"

#: A Pillow plugin for "HEIC" files that hold a width and a height, as pillow-heif registers one.
PLUGIN = """
from PIL import Image, ImageFile

class Heif(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        header = self.fp.read(32)
        self._size, self._mode = (header[24], header[25]), "RGB"
        self.tile = []
    def load(self):
        if self._im is None:
            self.im = Image.new("RGB", self.size, (10, 200, 30)).im
        return super().load()

def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")
"""


def heic(width: int, height: int) -> bytes:
    return HEIC_HEADER + bytes([width, height]) + bytes(10)


@pytest.fixture
def pillow_heif(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with the name and the one function that are used, whether or not the real one is installed."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "pillow_heif.py").write_text(PLUGIN)
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    decode._formats.cache_clear()
    yield
    decode._formats.cache_clear()
    sys.modules.pop("pillow_heif", None)


@pytest.fixture
def no_pillow_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(folders, "find_spec", lambda name: None)
    decode._formats.cache_clear()
    yield
    decode._formats.cache_clear()


def encoded(image: Image.Image, file_format: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, file_format, quality=95, exif=exif.tobytes())
    return out.getvalue()


def ramp(width: int, height: int) -> Image.Image:
    down, along = np.indices((height, width))
    return Image.fromarray(np.stack([4 * along, 4 * down, 0 * down], axis=2).astype(np.uint8))


# --- AVIF -----------------------------------------------------------------------------------------------------


@needs_avif
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_avif_is_read_as_the_same_picture_in_jpeg(orientation: int) -> None:
    image = ramp(48, 32)
    avif, jpeg = encoded(image, "AVIF", orientation), encoded(image, "JPEG", orientation)
    assert image_size(avif) == image_size(jpeg) == ((32, 48) if orientation == 1 else (48, 32))
    difference = decode_bytes(avif, (24, 24)).astype(int) - decode_bytes(jpeg, (24, 24))
    assert abs(difference).max() <= 12  # a picture turned the wrong way differs by 190


@needs_avif
def test_a_damaged_avif_file_is_a_bad_image() -> None:
    data = encoded(ramp(48, 32), "AVIF")
    for damaged in (data[:20], data[: len(data) // 2], data[:-30]):
        with pytest.raises(BadImage):
            decode_bytes(damaged, (8, 8))


@needs_avif
def test_a_large_avif_file_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    monkeypatch.setattr(decode, "_to_pixels", lambda *_: pytest.fail("its pixels were decoded"))
    with pytest.raises(BadImage, match="too large: 48x32"):
        decode_bytes(encoded(ramp(48, 32), "AVIF"), (8, 8))


def test_avif_files_of_a_folder_are_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.AVIF").touch()
    assert load_images(tmp_path).paths == ["cat/a.AVIF"]


def test_a_pillow_without_avif_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    decode._formats.cache_clear()
    try:
        with pytest.raises(BadImage, match="built without AVIF"):
            decode_bytes(b"\0\0\0\x20ftypavif" + bytes(40), (8, 8))
    finally:
        decode._formats.cache_clear()


# --- HEIC -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pillow_heif")
def test_heic_is_read_where_the_package_is_there(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "IMG_1.HEIC").write_bytes(heic(6, 4))
    images = load_images(tmp_path)
    assert (images.paths, images.passed_over, images.notes) == (["cat/IMG_1.HEIC"], {}, [])
    np.testing.assert_array_equal(decode_bytes(heic(6, 4), None), np.full((4, 6, 3), (10, 200, 30)))
    assert image_size(heic(6, 4)) == (4, 6)


@pytest.mark.usefixtures("pillow_heif")
def test_a_large_heic_file_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(BadImage, match="too large: 20x9"):
        decode_bytes(heic(20, 9), (8, 8))


@pytest.mark.usefixtures("no_pillow_heif")
def test_heic_files_without_the_package_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("a.jpg", "b.heic", "c.HEIC", "d.heif"):
        (tmp_path / "cat" / name).touch()
    images = load_images(tmp_path)
    assert images.paths == ["cat/a.jpg"]
    (note,) = images.notes
    assert note.startswith("3 HEIC files are left out; ")
    assert "pip install 'tlfeat[heic]'" in note


@pytest.mark.usefixtures("no_pillow_heif")
def test_a_folder_of_heic_files_alone_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(DataError, match=r"left out: 1 \.heic\)\. Expected .* 1 HEIC file is left out; .*\[heic\]"):
        load_images(tmp_path)


@pytest.mark.usefixtures("no_pillow_heif")
def test_heic_under_the_name_of_a_jpeg_says_what_it_is() -> None:
    with pytest.raises(BadImage, match="reading HEIC needs one more package"):
        decode_bytes(heic(6, 4), (8, 8))


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_real_package_turns_a_picture_once(orientation: int) -> None:
    package = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    package.register_heif_opener()
    image = ramp(48, 32)
    data, jpeg = encoded(image, "HEIF", orientation), encoded(image, "JPEG", orientation)
    decode._formats.cache_clear()
    assert image_size(data) == image_size(jpeg)
    difference = decode_bytes(data, (24, 24)).astype(int) - decode_bytes(jpeg, (24, 24))
    assert abs(difference).max() <= 12


# --- what is left out -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pillow_heif")
def test_files_that_are_left_out_are_named_by_kind(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("a.jpg", "1.heic", "2.HEIC", "3.heic", "x.txt", "y.TXT", "z.svg", "Thumbs", ".DS_Store"):
        (tmp_path / "cat" / name).touch()
    images = load_images(tmp_path)
    assert images.passed_over == {".heic": 3, ".txt": 2, ".svg": 1, "without an ending": 1, "hidden": 1}
    assert left_out_text(images.passed_over) == "left out: 3 .heic, 2 .txt, 1 .svg, 1 hidden, 1 without an ending"


def test_many_kinds_are_summed_up() -> None:
    kinds = {f".a{i}": 20 - i for i in range(11)}
    assert left_out_text(kinds).endswith("13 .a7, 33 of 3 other kinds")
    assert left_out_text({}) == ""
