"""How many times a JPEG goes over its pixels; a file of 300 kB may ask for minutes of that."""

from __future__ import annotations

import re
from itertools import islice

from tlfeat.errors import BadImage

#: Passes over the picture; encoders make 10, the format allows about 200.
MAX_SCANS = 100

#: Passes times pixels: 20 over the largest picture. Each costs about 1 ns a pixel and colour.
MAX_SCANNED_PIXELS = 2_000_000_000

_START_OF_SCAN, _END = 0xDA, 0xD9

_SCAN = re.compile(rb"\xff\xda")

#: What ends the compressed pixels of a scan: a marker that is no restart (T.81, B.1.1.2 to B.1.1.5).
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def check_scans(data: bytes, n_pixels: int) -> None:
    """Raise `BadImage` where a JPEG of this many pixels has more scans than decoding should take time for."""
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(n_pixels, 1))
    one_more = islice(_SCAN.finditer(data), most, None)  # on megabytes half the time of bytes.count
    if next(one_more, None) is None:  # where thumbnails within count, too
        return
    n_scans = _count_scans(data)
    if n_scans > most:
        raise BadImage(f"a JPEG of {n_scans:,} scans; at this size {most:,} are read")


def _count_scans(data: bytes) -> int:
    """Count the scans from the beginning to the end of the first picture."""
    n, at = 0, 2
    while (marker := _MARKER.search(data, at)) is not None:
        kind, at = marker[0][1], marker.end()
        if kind == _END:
            break
        if kind == _START_OF_SCAN:
            n += 1
        if kind not in (0x01, 0xD8):  # these have no length
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return n
