"""Small pictures for a page: each once, side by side on sheets, as large as a number of bytes allows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlfeat.errors import DataError
from tlfeat.images.decode import Picture, content_of, jpeg_thumbnail, n_cores, read_picture, thumbnail
from tlfeat.images.image_set import content_key
from tlfeat.images.remote import RemoteStore
from tlfeat.images.stores import Store
from tlfeat.types import OnProgress, Pixels, silent

#: Places of a sheet: a hundred JPEGs of their own would repeat 0.6 kB of tables each, one sheet of all is slow to show.
COLUMNS, ROWS = 10, 10

_EACH = COLUMNS * ROWS

_N_READS = 32

#: Pixels a side and JPEG quality, best first; sides are multiples of 16, so that no block holds two pictures.
_STEPS = ((128, 75), (112, 75), (96, 75), (96, 60), (80, 60), (64, 60), (64, 45), (48, 45), (32, 40), (16, 40))


@dataclass(frozen=True, slots=True)
class Sheets:
    """Small pictures on JPEG sheets.

    Attributes
    ----------
    side : int
        Pixels a side of a picture's place; a sheet has `COLUMNS` times `ROWS` places.
    uris : list of str
        The sheets as ``data:`` URIs.
    sizes : list of (int, int) or None
        Width and height of picture i, which lies in the upper left corner of its place: number ``i % 100`` of sheet
        ``i // 100``. None where there is no picture.
    reasons : list of str
        Why there is none, "" where there is one.
    """

    side: int
    uris: list[str]
    sizes: list[tuple[int, int] | None]
    reasons: list[str]

    @property
    def n_bytes(self) -> int:
        """Bytes of all sheets as they stand in a page."""
        return sum(map(len, self.uris))


def make_sheets(
    files: Sequence[Picture | None], keys: Sequence[str], *, n_bytes: int, on_progress: OnProgress = silent
) -> Sheets:
    """Return the pictures of `files` on sheets that take at most `n_bytes` altogether.

    Parameters
    ----------
    files : sequence of Path or callable, or None
        None where there never was a picture.
    keys : sequence of str
        Content keys; a file that holds something else by now is not shown as what was embedded.
    n_bytes : int
        The first of ten sizes and qualities that fits is taken, and where not even the last one does, that.
    """
    pictures, reasons = _read(files, keys, on_progress)
    if not any(picture is not None for picture in pictures):
        return Sheets(_STEPS[0][0], [], [None] * len(files), reasons)
    for side, quality in _STEPS:
        is_last = (side, quality) == _STEPS[-1]
        small = [None if picture is None else _fitted(picture, side) for picture in pictures]
        some = small[:: max(1, len(small) // _EACH)][:_EACH]  # one sheet of them foretells the others
        if not is_last and len(_sheet(some, side, quality)) * len(small) > 1.05 * n_bytes * len(some):
            continue
        uris = [_sheet(small[start : start + _EACH], side, quality) for start in range(0, len(small), _EACH)]
        if is_last or sum(map(len, uris)) <= n_bytes:
            break
    return Sheets(side, uris, [picture and picture.size for picture in small], reasons)


def known_thumbnail(home: Path | Store | None, path: str, key: str | None, side: int) -> bytes:
    """Return an image of a cache as a small JPEG; nothing where it is gone, or another one than was embedded.

    A stranger's cache may name any picture of the user's, and pages are made to be shown.
    """
    if home is None or (isinstance(home, RemoteStore) and home.is_gone):
        return b""
    try:
        content = content_of(home, path)
        return jpeg_thumbnail(content, side) if content_key(content) == key else b""
    except DataError:  # of a store that is gone, too
        return b""


def _read(files: Sequence[Picture | None], keys: Sequence[str], on_progress: OnProgress) -> tuple[list[Any], list[str]]:
    """Return Pillow images of at most the largest side, None where there are none, and the reasons."""
    from PIL import Image

    side = _STEPS[0][0]

    def read(file: Picture | None, key: str) -> tuple[Pixels | None, str]:
        if file is None:
            return None, "no picture"
        try:
            data = read_picture(file)
            return (thumbnail(data, side), "") if content_key(data) == key else (None, "changed since it was embedded")
        except DataError as bad:
            return None, str(bad)

    pictures, reasons = [], []
    n_threads = _N_READS if any(map(callable, files)) else n_cores()  # a store may be far away
    with ThreadPoolExecutor(n_threads, thread_name_prefix="thumbnails") as pool:
        for pixels, reason in pool.map(read, files, keys):
            pictures.append(None if pixels is None else Image.fromarray(pixels))
            reasons.append(reason)
            on_progress("small pictures", len(reasons), len(files))
    return pictures, reasons


def _fitted(picture: Any, side: int) -> Any:
    """Return a picture scaled down to at most `side` pixels a side."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    from PIL import Image

    width, height = (max(1, round(scale * n)) for n in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _sheet(pictures: Sequence[Any], side: int, quality: int) -> str:
    """Return at most a hundred pictures side by side as the ``data:`` URI of a JPEG."""
    from PIL import Image

    n_columns, n_rows = min(COLUMNS, len(pictures)), -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (side * n_columns, side * n_rows), (128, 128, 128))
    for i, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (side * (i % COLUMNS), side * (i // COLUMNS)))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
