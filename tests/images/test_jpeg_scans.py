"""A progressive JPEG goes over its pixels a bounded number of times."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tlfeat.errors import BadImage
from tlfeat.images import jpeg_scans
from tlfeat.images.decode import decode_bytes


def jpeg(side: int, n_more: int, **saving: object) -> bytes:
    """A grey progressive JPEG whose last scan stands there `n_more` times more."""
    out = io.BytesIO()
    Image.fromarray(np.full((side, side), 90, np.uint8)).save(out, "JPEG", progressive=True, **saving)
    data = out.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * n_more + data[-2:]


@pytest.mark.parametrize(("side", "n_more", "n"), [(64, 95, 101), (1500, 2000, 2006)])
def test_more_scans_than_any_encoder_makes_are_refused(side: int, n_more: int, n: int) -> None:
    with pytest.raises(BadImage, match=f"a JPEG of {n:,} scans; at this size 100 are read"):
        decode_bytes(jpeg(side, n_more), (8, 8))


def test_the_larger_the_picture_the_fewer_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_scans, "MAX_SCANNED_PIXELS", 64 * 64 * 12)
    assert decode_bytes(jpeg(64, 6), (8, 8)).shape == (8, 8, 3)
    with pytest.raises(BadImage, match="a JPEG of 13 scans; at this size 12 are read"):
        decode_bytes(jpeg(64, 7), (8, 8))


def test_as_many_scans_as_are_allowed_are_read() -> None:
    assert decode_bytes(jpeg(64, 94), (8, 8)).mean() == 90


def test_what_looks_like_a_scan_within_metadata_or_behind_the_end_is_none() -> None:
    noise = b"\xff\xda" * 300
    data = jpeg(64, 3, comment=noise) + noise
    assert decode_bytes(data, (8, 8)).mean() == 90
