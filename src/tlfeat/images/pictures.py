"""Whatever Python has for images becomes pictures: files, or bytes of files, one way to decode them for all.

Taken are a path, a folder or a table, bytes of an image file, a PIL image, an array, and many of these as a list, an
array, a column of pandas or of Hugging Face `datasets`, or a ``tf.data.Dataset``. Pixels without a file are packed
as the bytes of a BMP or PNG file, which loses nothing: they then have a content key as files have.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.errors import BadImage, DataError, ShapeError, UsageError
from tlfeat.images.decode import Picture
from tlfeat.images.load import load_images
from tlfeat.images.open_store import is_one_image, is_store, one_image
from tlfeat.images.packed import is_packed, stored_images
from tlfeat.images.stores import StoredImage

_WANTED = "a path, the bytes of an image file, a PIL image or a uint8 array of shape (height, width, 3)"

#: Two threads may not load one PIL image at once; few locks for any number of images.
_LOCKS = [threading.Lock() for _ in range(16)]


def pictures_of(images: Any) -> Iterator[tuple[str, Picture]]:
    """Give each image with a name for messages, in order; nothing is read or decoded yet.

    Raises
    ------
    DataError, ShapeError, UsageError
        When it is met: what is no image; an array of another shape or type.
    """
    if isinstance(images, str | os.PathLike):
        if is_store(images):
            yield from ((image.name, image) for image in images_at(os.fspath(images)))
        else:
            yield from _below(Path(images))
        return
    for i, item in enumerate(_items(images)):
        name = str(item) if isinstance(item, str | os.PathLike) else f"image {i}"
        yield name, _picture(item, name)


def _below(path: Path) -> Iterator[tuple[str, Picture]]:
    """Give a file, or the images of a folder or a table in the order that `extract` has them in."""
    if not path.exists():
        raise DataError(f"{path} does not exist (looked in {Path.cwd()}).")
    if not path.is_dir() and path.suffix.lower() not in (".csv", ".tsv") and not is_packed(path):
        yield str(path), path
        return
    found = load_images(path)
    if is_packed(path) or (found.store is not None and path.is_dir()):
        yield from ((image.name, image) for image in stored_images(path, found))
        return
    for i in range(len(found)):
        yield str(found.content(i)), found.content(i)


def images_at(url: str) -> list[StoredImage]:
    """Return the images of a bucket, a server or a table there, or the one that was named."""
    if is_one_image(url):
        return [one_image(url)]
    found = load_images(url)
    assert found.store is not None
    return [StoredImage(found.store, path) for path in found.paths]


def _items(images: Any) -> Iterable[Any]:
    """Return the images one by one, whatever holds them."""
    if _is_pil(images) or isinstance(images, bytes | bytearray | memoryview | Mapping):
        return [images]
    if hasattr(images, "element_spec"):
        return _of_tensorflow(images)
    if hasattr(images, "features") and hasattr(images, "column_names"):
        return _of_hugging_face(images)
    if hasattr(images, "columns"):
        raise UsageError(f"A whole table was received: name the column of the images, one of {list(images.columns)}.")
    if hasattr(images, "__array__"):
        return _of_array(np.asarray(images))
    if not isinstance(images, Iterable):
        raise DataError(f"No images: received {type(images).__name__}, expected many of {_WANTED}.")
    return images


def _of_array(images: npt.NDArray[Any]) -> Iterable[Any]:
    """Return the images of an array: (n, h, w, 3), (n, h, w) in grey, (h, w, 3) for one, or objects."""
    if images.ndim == 1 and images.dtype.kind in "OUST":
        return images  # paths, or bytes
    if images.ndim == 3 and images.shape[-1] in (1, 3, 4):
        return images[None]
    if images.ndim not in (3, 4):
        raise ShapeError(f"Expected pixels of shape (n, height, width, 3), received {images.dtype} {images.shape}.")
    return images


def _of_tensorflow(images: Any) -> Iterator[Any]:
    """Give the images of a ``tf.data.Dataset``, batched or not, with or without labels."""
    if int(images.cardinality()) == -1:
        raise DataError("The tf.data.Dataset has no end: leave repeat() out, or add take(n).")
    for element in images.as_numpy_iterator():
        x = element[0] if isinstance(element, tuple) else element
        if isinstance(x, Mapping):
            x = x["image"] if "image" in x else next(iter(x.values()))
        found = np.asarray(x)
        if found.dtype == object or found.dtype.kind == "S":
            yield from map(_path_or_bytes, found.ravel().tolist())
        elif found.ndim == 4:
            yield from found
        else:
            yield found


def _path_or_bytes(text: Any) -> str | bytes:
    """A string of TensorFlow is a path where it is one, else the bytes of an image file."""
    is_short = isinstance(text, bytes) and len(text) < 4096 and b"\0" not in text
    return os.fsdecode(text) if is_short and os.path.exists(text) else bytes(text)  # noqa: PTH110


def _of_hugging_face(images: Any) -> Iterator[Any]:
    """Give the images of a whole data set of Hugging Face that has one column of them."""
    columns = [name for name, kind in images.features.items() if type(kind).__name__ == "Image"]
    if len(columns) != 1:
        raise UsageError(f"{len(columns)} of the columns are images, of {list(images.column_names)}: name one.")
    return (row[columns[0]] for row in images.select_columns(columns))


def _picture(item: Any, name: str) -> Picture:
    if isinstance(item, str) and is_store(item):
        return one_image(item)
    if isinstance(item, str | os.PathLike):
        return Path(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return lambda: bytes(item)
    if isinstance(item, Mapping) and {"bytes", "path"} & item.keys():  # an image of Hugging Face, not decoded
        content = item.get("bytes")
        return Path(item["path"]) if content is None else lambda: bytes(content)
    if _is_pil(item):
        return lambda: _packed(item)
    if hasattr(item, "__array__"):
        pixels = _as_uint8(np.asarray(item), name)
        return lambda: _packed_pixels(pixels)
    raise DataError(f"{name}: received {type(item).__name__}, expected {_WANTED}.")


def _is_pil(item: Any) -> bool:
    """Whether it is a PIL image; where Pillow was not imported nothing is."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(item, pillow.Image)


def _as_uint8(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Return pixels of 0 to 255 as uint8; fractions, as Keras resizes to, are rounded."""
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3, 4))
    if not is_image or not pixels.size:
        raise ShapeError(f"{name}: expected pixels of shape (height, width, 3), received {pixels.shape}.")
    if pixels.dtype != np.uint8:
        if pixels.dtype.kind not in "iuf":
            raise ShapeError(f"{name}: expected uint8 pixels, received {pixels.dtype}.")
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 255):  # not a number is neither
            raise ShapeError(f"{name}: expected pixels from 0 to 255, received {low:g} to {high:g}.")
        if pixels.dtype.kind == "f" and 0 < high <= 1:
            raise ShapeError(f"{name}: expected pixels from 0 to 255, received 0 to {high:g}. Multiply them by 255.")
        pixels = np.rint(pixels).astype(np.uint8)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def _packed_pixels(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    return _packed(Image.fromarray(np.ascontiguousarray(pixels)))


def _packed(image: Any) -> bytes:
    """Return a PIL image as the bytes of a file, turned as its EXIF says; a `BadImage` where it cannot be had."""
    from PIL import ImageOps

    out = io.BytesIO()
    try:
        with _LOCKS[id(image) % len(_LOCKS)]:
            image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
            upright = upright.convert("RGB")
        if upright.mode in ("RGB", "L"):
            upright.save(out, "BMP")
        else:
            upright.save(out, "PNG", compress_level=1)
    except Exception as error:  # Pillow lets almost any exception out on damaged files, see `decode_bytes`
        raise BadImage(f"{str(error) or type(error).__name__}".splitlines()[0]) from error
    return out.getvalue()
