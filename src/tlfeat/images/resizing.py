"""A decoded picture becomes pixels of the size that a network takes, in one of the ways of `RESIZES`.

Networks of ``keras.applications`` were trained on all sorts of crops, and a head fitted on rows of whole pictures, with
their aspect ratio lost, does as well (docs/benchmarks/resizing.md). Transformers come with a way of their own, and
their published figures hold for it. Pictures of ordinary size come out equal to the bit to what the image processors
of Hugging Face's transformers make of them with Pillow (tests/images/test_resizing.py). Those decode every JPEG in
full and lay transparency over black; here neither is done.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tlfeat.errors import UsageError
from tlfeat.types import Pixels

_DRAFT = "JPEG decoded at 1/2, 1/4 or 1/8 of its size as long as that leaves twice the size wanted"

#: Name to what it does to pixels; the first is the default of networks that have no way of their own.
RESIZES = {
    "antialias": f"bilinear with antialiasing, rounded to uint8; {_DRAFT}",
    "crop": "the shorter side brought to 8/7 of the size (256 for 224), aspect ratio kept, then the middle cut out: "
    f"bicubic with antialiasing, rounded to uint8; {_DRAFT}. DINOv2's way",
    "crop-full": f"as crop, but the shorter side is brought to the size itself: {_DRAFT}. CLIP's way",
    "bicubic": f"bicubic with antialiasing, rounded to uint8; {_DRAFT}. SigLIP's and Swin's way",
    "load_img": "bilinear with antialiasing, rounded to uint8: keras.utils.load_img(interpolation='bilinear')",
    "dataset": "bilinear without antialiasing, float32: keras.utils.image_dataset_from_directory",
    "quick": "as antialias, by cykooz-resizer: some pixels differ by 1; JPEG decoded at 1/2, 1/4 or 1/8 of its size as "
    "long as that leaves the size wanted",
}

RESIZE = "antialias"

#: Of these the middle is cut out, the others lose the aspect ratio.
CROPPED = ("crop", "crop-full")

#: Above so many times the pixels that are kept (long strips), only what is kept is resized, not the whole picture.
_MANY = 8

#: How far bicubic interpolation looks, in pixels of the result where it shrinks, of the picture where it enlarges.
_REACH = 2


def is_possible(resize: str) -> bool:
    """Return whether what one of the ways of `RESIZES` needs is installed."""
    return resize != "quick" or find_spec("cykooz_resizer") is not None


def check_possible(resize: str) -> None:
    """Raise `UsageError` where it is not."""
    if not is_possible(resize):
        raise UsageError(f"Resizing '{resize}' needs one more package: pip install 'tlfeat[quick]' (cykooz-resizer).")


def pixel_type(resize: str) -> str:
    """Return the dtype of pixels that were resized in one of the ways of `RESIZES`."""
    return "float32" if resize == "dataset" else "uint8"


def covered_size(size: tuple[int, int], resize: str) -> tuple[int, int]:
    """Return the height and width that the resized picture has or covers, before its middle is cut out."""
    return (round(size[0] * 8 / 7), round(size[1] * 8 / 7)) if resize == "crop" else size


def draft(image: Image.Image, size: tuple[int, int], resize: str) -> None:
    """Have an opened JPEG decoded at a part of its size, as long as that leaves twice the size wanted, or once."""
    if resize not in ("load_img", "dataset"):
        # libjpeg leaves out the frequencies that resizing would average away; max(): it may lie on its side
        side = (1 if resize == "quick" else 2) * max(covered_size(size, resize))
        image.draft(None, (side, side))  # both sides stay as long as that, so the shorter one is


def resized(rgb: Image.Image, size: tuple[int, int], resize: str) -> Pixels:
    """Resize an upright RGB picture.

    Parameters
    ----------
    rgb : Image
        Of mode RGB.
    size : tuple of int
        Height and width of the result in pixels.
    resize : str
        One of `RESIZES`.

    Returns
    -------
    array of shape (height, width, 3)
        uint8, or float32 with ``resize="dataset"``.
    """
    height, width = size
    if resize == "dataset":
        return _bilinear(np.asarray(rgb, dtype=np.uint8), size)
    if resize in CROPPED:
        rgb = _middle(rgb, size, covered_size(size, resize))
    elif resize == "quick":
        return _quick(rgb, size)
    elif rgb.size != (width, height):
        is_bicubic = resize == "bicubic"
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8)  # (h, w, 3)


def _quick(rgb: Image.Image, size: tuple[int, int]) -> Pixels:
    """Resize with coefficients of 16 bits, where Pillow has 22, and many pixels an instruction, where it has one.

    The bits are the same with AVX2, SSE 4.1 and without (tests/images/test_resizing.py).
    """
    from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

    found = ImageData(size[1], size[0], PixelType.U8x3)
    options = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
    Resizer().resize(ImageData(rgb.width, rgb.height, PixelType.U8x3, rgb.tobytes()), found, options)
    return np.frombuffer(found.get_buffer(), np.uint8).reshape(*size, 3)  # (h, w, 3)


def _middle(rgb: Image.Image, size: tuple[int, int], covered: tuple[int, int]) -> Image.Image:
    """Resize so that `covered` is just covered, aspect ratio kept, and cut the middle out.

    Sizes and offsets are rounded down, as transformers do it; torchvision rounds offsets to the nearest.
    """
    height = max(covered[0], int(covered[1] * rgb.height / rgb.width))
    width = max(covered[1], int(covered[0] * rgb.width / rgb.height))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    if height * width <= _MANY * covered[0] * covered[1]:
        whole = rgb if rgb.size == (width, height) else rgb.resize((width, height), Image.Resampling.BICUBIC)
        return whole.crop((left, top, left + size[1], top + size[0]))
    (x0, x1, *across), (y0, y1, *down) = (
        _window(*side) for side in ((rgb.width, width, left, size[1]), (rgb.height, height, top, size[0]))
    )
    box: Any = (across[0], down[0], across[1], down[1])
    return rgb.crop((x0, y0, x1, y1)).resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)


def _window(n: int, n_resized: int, start: int, n_kept: int) -> tuple[int, int, float, float]:
    """Return which pixels of a side are needed for a part of the resized side, and where in these the part lies."""
    scale = n / n_resized
    first, last = start * scale, (start + n_kept) * scale
    reach = _REACH * max(scale, 1) + 1
    begin, end = max(0, math.floor(first - reach)), min(n, math.ceil(last + reach))
    return begin, end, first - begin, last - begin


def _bilinear(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """What ``tf.image.resize`` does: the four nearest pixels around each new pixel's centre, nothing averaged."""
    (top, bottom, down), (left, right, along) = (
        _neighbours(n, wanted) for n, wanted in zip(rgb.shape, size, strict=False)
    )
    along = along[:, None]
    upper, lower = rgb[top].astype(np.float32), rgb[bottom].astype(np.float32)  # (h, w_before, 3)
    upper = upper[:, left] + (upper[:, right] - upper[:, left]) * along
    lower = lower[:, left] + (lower[:, right] - lower[:, left]) * along
    return upper + (lower - upper) * down[:, None, None]  # (h, w, 3)


def _neighbours(n: int, wanted: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    centre = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(n / wanted) - np.float32(0.5)
    before = np.floor(centre)
    first, second = np.maximum(before, 0), np.minimum(before + 1, n - 1)
    return first.astype(np.intp), second.astype(np.intp), centre - before
