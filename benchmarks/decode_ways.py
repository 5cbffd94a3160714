"""What `decode.py` sets side by side: decoders of JPEG, and ways from bytes to the pixels that a network takes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from resizing import dct_1x, drafted, with_simplejpeg
from tlfeat.images.decode import decode_bytes
from tlfeat.images.resizing import resized
from tlfeat.records import distribution_version
from tlfeat.types import Pixels

# --- decoders -----------------------------------------------------------------------------------------------


def by_pillow(data: bytes) -> Pixels:
    """Decode as tlfeat does."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_simplejpeg(data: bytes) -> Pixels:
    """Decode by libjpeg-turbo, straight to an array."""
    import simplejpeg

    return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))


def by_opencv(data: bytes) -> Pixels:
    """Decode by OpenCV's libjpeg-turbo; EXIF is ignored as by the others."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION))


def by_imagecodecs(data: bytes) -> Pixels:
    """Decode by the libjpeg-turbo within imagecodecs."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace="RGB"))


def by_vips(data: bytes) -> Pixels:
    """Decode by libvips."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "", access="sequential")
    return np.asarray(image if image.bands == 3 else image.colourspace("srgb"))


DECODERS: dict[str, tuple[str, Callable[[bytes], Pixels]]] = {
    "Pillow": ("PIL", by_pillow),
    "simplejpeg": ("simplejpeg", by_simplejpeg),
    "OpenCV": ("cv2", by_opencv),
    "imagecodecs": ("imagecodecs", by_imagecodecs),
    "pyvips": ("pyvips", by_vips),
}


# --- ways ---------------------------------------------------------------------------------------------------


def box(data: bytes, size: tuple[int, int]) -> Pixels:
    """As antialias, but where both sides shrink the mean of the pixels whose centres lie within the new one."""
    rgb = drafted(data, 2 * max(size))
    is_smaller = rgb.height > size[0] and rgb.width > size[1]
    return np.asarray(rgb.resize(size[::-1], Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR))


def quick_2x(data: bytes, size: tuple[int, int]) -> Pixels:
    """As quick, JPEG decoded at a part of its size where twice the size wanted is left, as for antialias."""
    return resized(drafted(data, 2 * max(size)), size, "quick")


def quick_simplejpeg(data: bytes, size: tuple[int, int]) -> Pixels:
    """As `quick_2x`, decoded by simplejpeg, whose array needs no copy; Pillow reads the header."""
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

    def resize(rgb: Pixels, size: tuple[int, int]) -> Pixels:
        found = ImageData(size[1], size[0], PixelType.U8x3)
        options = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
        Resizer().resize(ImageData(rgb.shape[1], rgb.shape[0], PixelType.U8x3, rgb.tobytes()), found, options)
        return np.frombuffer(found.get_buffer(), np.uint8).reshape(*size, 3)

    return with_simplejpeg(data, size, resize)


def vips_thumbnail(data: bytes, size: tuple[int, int]) -> Pixels:
    """Decode and resize by libvips, JPEG at a part of its size."""
    import pyvips

    image = pyvips.Image.thumbnail_buffer(data, size[1], height=size[0], size="force")
    return np.asarray(image if image.bands == 3 else image.colourspace("srgb"))


def opencv_area(data: bytes, size: tuple[int, int]) -> Pixels:
    """Decode by OpenCV, resize by averaging areas where the picture shrinks."""
    import cv2

    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    is_smaller = rgb.shape[0] > size[0] and rgb.shape[1] > size[1]
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR))


#: The first is the default; for each the package it needs.
WAYS: dict[str, tuple[str, Callable[[bytes, tuple[int, int]], Pixels]]] = {
    "antialias": ("PIL", decode_bytes),
    "quick": ("cykooz_resizer", lambda data, size: decode_bytes(data, size, "quick")),
    "quick, DCT down to 2x": ("cykooz_resizer", quick_2x),
    "the same, simplejpeg": ("simplejpeg", quick_simplejpeg),
    "DCT down to 1x": ("PIL", dct_1x),
    "box": ("PIL", box),
    "pyvips thumbnail": ("pyvips", vips_thumbnail),
    "OpenCV, areas": ("cv2", opencv_area),
}


def installed(table: dict[str, tuple[str, Any]]) -> dict[str, Callable[..., Pixels]]:
    """Return the functions whose package is there."""
    return {name: function for name, (package, function) in table.items() if distribution_version(package)}
