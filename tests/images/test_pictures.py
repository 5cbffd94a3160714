"""Whatever Python has for images becomes the same pixels and the same key."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from conftest import MakePhotos, picture
from tlfeat.errors import BadImage, DataError, ShapeError, TlfeatError, UsageError
from tlfeat.images.decode import decode_file
from tlfeat.images.pictures import pictures_of

SIZE = (7, 9)


def pixels_of(images: Any) -> list[npt.NDArray[np.uint8]]:
    found = [decode_file(i, source, SIZE, lambda key: False) for i, (_, source) in enumerate(pictures_of(images))]
    assert [decoded.error for decoded in found] == [""] * len(found)
    return [decoded.pixels for decoded in found if decoded.pixels is not None]


def keys_of(images: Any) -> list[str]:
    return [decode_file(0, source, SIZE, lambda key: True).key for _, source in pictures_of(images)]


def content(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class HuggingFace:
    """As much of `datasets.Dataset` as is used."""

    class Image: ...

    def __init__(self, columns: dict[str, list[Any]], images: tuple[str, ...] = ("photo",)) -> None:
        self.columns = columns
        self.column_names = list(columns)
        self.features = {name: self.Image() if name in images else int for name in columns}

    def select_columns(self, names: list[str]) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=True)) for row in zip(*(self.columns[n] for n in names), strict=True)]


class TensorFlow:
    """As much of `tf.data.Dataset` as is used."""

    element_spec = ()

    def __init__(self, elements: list[Any], n: int = 2) -> None:
        self.elements, self.n = elements, n

    def cardinality(self) -> npt.NDArray[np.int64]:
        return np.array(self.n)

    def as_numpy_iterator(self) -> Iterator[Any]:
        return iter(self.elements)


IMAGES = [picture(seed, (12, 10)) for seed in (3, 4)]
ARRAYS = np.stack([np.asarray(image) for image in IMAGES])
BYTES = [content(image) for image in IMAGES]
FLOATS = np.clip(ARRAYS - np.float32(0.3), 0, 255)


def pandas_column() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.Series(BYTES, index=[7, 5])


@pytest.mark.parametrize(
    "images",
    [
        BYTES,
        [bytearray(BYTES[0]), memoryview(BYTES[1])],
        IMAGES,
        tuple(IMAGES),
        iter(IMAGES),
        ARRAYS,
        list(ARRAYS),
        ARRAYS.astype(np.int64),
        FLOATS,
        np.array(BYTES, dtype=object),
        pandas_column,
        [{"bytes": data, "path": "gone.png"} for data in BYTES],
        HuggingFace({"label": [0, 1], "photo": IMAGES}),
        TensorFlow([(FLOATS, np.array([0, 1]))]),
        TensorFlow([(image, 0) for image in ARRAYS]),
        TensorFlow([{"id": 4, "image": image} for image in ARRAYS]),
        TensorFlow([np.array(BYTES, dtype=object)]),
    ],
    ids=lambda images: "" if callable(images) else type(images).__name__,
)
def test_what_holds_the_images_makes_no_difference(images: Any) -> None:
    expected = [np.asarray(image.resize((9, 7), Image.Resampling.BILINEAR)) for image in IMAGES]
    found = pixels_of(images() if callable(images) else images)
    assert len(found) == 2
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_paths_come_as_strings_as_paths_as_an_array_and_out_of_tensorflow(make_photos: MakePhotos) -> None:
    photos = make_photos(n=2)
    files = sorted(photos.rglob("*.png"))
    as_bytes = np.array([os.fsencode(file) for file in files], dtype=object)
    for images in (files, list(map(str, files)), np.array(list(map(str, files))), TensorFlow([as_bytes]), photos):
        assert keys_of(images) == keys_of([file.read_bytes() for file in files])
    assert [name for name, _ in pictures_of(str(photos))] == list(map(str, files))
    assert keys_of(files[1]) == keys_of([files[1]])
    assert keys_of([{"bytes": None, "path": str(files[1])}]) == keys_of(files[1])


@pytest.mark.parametrize(
    "one", [IMAGES[0], ARRAYS[0], BYTES[0], {"bytes": BYTES[0]}], ids=["pil", "array", "bytes", "dict"]
)
def test_a_single_image_counts_as_one(one: Any) -> None:
    assert (pixels_of(one)[0] == pixels_of([one])[0]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_a_pil_image_of_any_kind_is_what_its_file_is(mode: str, tmp_path: Path) -> None:
    image = IMAGES[0].convert("L").convert(mode) if mode == "I;16" else IMAGES[0].convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    file = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(file)
    assert np.abs(pixels_of(image)[0].astype(int) - pixels_of(file)[0]).max() <= 1


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    IMAGES[0].save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert (pixels_of(image)[0] == pixels_of(tmp_path / "a.png")[0]).all()
    assert (pixels_of(tmp_path / "a.png")[0] != pixels_of(IMAGES[0])[0]).any()


def test_grey_arrays_are_taken_with_and_without_a_last_axis() -> None:
    grey = ARRAYS[..., 0]
    for images in (grey, grey[..., None], list(grey)):
        assert [p[..., 1].tolist() for p in pixels_of(images)] == [p[..., 0].tolist() for p in pixels_of(grey)]


def test_equal_pixels_have_one_key_and_others_have_others() -> None:
    assert keys_of([IMAGES[0], ARRAYS[0], ARRAYS[1]]) == keys_of([ARRAYS[0], ARRAYS[0], IMAGES[1]])
    assert len(set(keys_of(ARRAYS))) == 2
    assert keys_of(ARRAYS[:1]) != keys_of(ARRAYS[:1].reshape(1, 12, 10, 3))


@pytest.mark.parametrize(
    ("images", "error", "what"),
    [
        (["gone.png", 3.5], DataError, "image 1: received float, expected a path"),
        ([b"x", None], DataError, "image 1: received NoneType"),
        (7, DataError, "received int"),
        (ARRAYS[None], ShapeError, r"\(n, height, width, 3\), received uint8 \(1, 2, 10, 12, 3\)"),
        (ARRAYS[0, :, :, 0], ShapeError, r"received uint8 \(10, 12\)"),
        (ARRAYS.transpose(0, 3, 1, 2), ShapeError, r"image 0: .* received \(3, 10, 12\)"),
        (ARRAYS / 255, ShapeError, "Multiply them by 255"),
        (ARRAYS * 2.0, ShapeError, "from 0 to 255, received"),
        (ARRAYS - 40.0, ShapeError, "from 0 to 255, received"),
        (ARRAYS * np.nan, ShapeError, "received nan"),
        (ARRAYS > 9, ShapeError, "expected uint8 pixels, received bool"),
        ("nowhere", DataError, "nowhere does not exist"),
        (TensorFlow([ARRAYS], n=-1), DataError, "no end"),
        (HuggingFace({"a": [1], "b": [2]}), UsageError, r"0 of the columns are images, of \['a', 'b'\]: name one"),
        (HuggingFace({"a": [1], "b": [2]}, images=("a", "b")), UsageError, "2 of the columns are images"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_told_with_its_place(images: Any, error: type[TlfeatError], what: str) -> None:
    with pytest.raises(error, match=what):
        list(pictures_of(images))


def test_a_whole_frame_is_told_to_name_a_column() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UsageError, match=r"name the column of the images, one of \['photo', 'label'\]"):
        list(pictures_of(pandas.DataFrame({"photo": BYTES, "label": [0, 1]})))


def test_a_pil_image_of_a_broken_file_is_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(BYTES[0][: len(BYTES[0]) // 2])
    with Image.open(tmp_path / "half.png") as image:
        ((_, source),) = pictures_of(image)
        assert callable(source)
        with pytest.raises(BadImage):
            source()
