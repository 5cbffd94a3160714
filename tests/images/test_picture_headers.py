"""The size of a picture, and of its thumbnail, by its header alone, whichever way up it was stored."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_decode import LOSSLESS, STORED_AS, encoded, picture

from tlfeat.images.decode import decode_bytes, image_size, thumbnail


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_the_size_of_a_picture_is_that_of_what_is_shown(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](picture(12, 40))))
    data = encoded(stored, file_format, exif=exif, **LOSSLESS.get(file_format, {}))
    assert image_size(data) == decode_bytes(data, None).shape[:2] == (12, 40)
    assert thumbnail(data, 20).shape == (6, 20, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_no_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture(12, 40)), "PNG", exif=exif)
    assert image_size(data) == decode_bytes(data, None).shape[:2]
