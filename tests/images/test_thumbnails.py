"""Small pictures on sheets: the right one at the right place, within the bytes allowed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tlfeat.images.decode import thumbnail
from tlfeat.images.image_set import content_key
from tlfeat.images.thumbnails import COLUMNS, ROWS, Sheets, make_sheets


def painted(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> str:
    Image.new("RGB", size, colour).save(path)
    return content_key(path.read_bytes())


def cut_out(sheets: Sheets, i: int) -> np.ndarray:
    """What a page shows of picture i."""
    uri = sheets.uris[i // (COLUMNS * ROWS)]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))))
    place = i % (COLUMNS * ROWS)
    x, y = sheets.side * (place % COLUMNS), sheets.side * (place // COLUMNS)
    size = sheets.sizes[i]
    assert size is not None
    return sheet[y : y + size[1], x : x + size[0]]


def test_every_picture_lies_at_its_place_on_its_sheet(tmp_path: Path) -> None:
    colours = [(10 * (i % 25), 200 - i, 5 * (i % 50)) for i in range(123)]
    files = [tmp_path / f"{i}.png" for i in range(len(colours))]
    keys = [painted(file, colour) for file, colour in zip(files, colours, strict=True)]
    sheets = make_sheets(files, keys, n_bytes=10**6)
    assert len(sheets.uris) == 2 and sheets.reasons == [""] * len(files)
    for i, colour in enumerate(colours):
        inside = cut_out(sheets, i)[2:-2, 2:-2].astype(int)  # JPEG smears colours over an edge
        assert np.abs(inside - colour).max() < 12


def test_pictures_that_are_gone_changed_or_never_were_leave_a_reason(tmp_path: Path) -> None:
    gone, changed, broken, there = (tmp_path / name for name in ("gone.png", "changed.png", "broken.png", "there.png"))
    key = painted(there, (255, 0, 0))
    painted(changed, (0, 255, 0))
    broken.write_bytes(b"no picture at all")
    keys = ["0" * 64, "0" * 64, content_key(broken.read_bytes()), "", key]
    sheets = make_sheets([gone, changed, broken, None, there], keys, n_bytes=10**6)
    assert [size is None for size in sheets.sizes] == [True, True, True, True, False]
    assert "cannot be read" in sheets.reasons[0] and "changed since" in sheets.reasons[1]
    assert "not an image" in sheets.reasons[2] and sheets.reasons[3:] == ["no picture", ""]
    assert cut_out(sheets, 4)[5, 5][0] > 240
    assert make_sheets([gone, None], ["", ""], n_bytes=1).uris == []


@pytest.mark.parametrize("n_bytes", [400_000, 100_000, 30_000])
def test_sheets_keep_within_the_bytes_allowed(tmp_path: Path, n_bytes: int) -> None:
    rng = np.random.default_rng(0)
    files, keys = [], []
    for i in range(40):  # noise: nothing is larger as a JPEG
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(files[-1])
        keys.append(content_key(files[-1].read_bytes()))
    sheets = make_sheets(files, keys, n_bytes=n_bytes)
    assert n_bytes / 8 < sheets.n_bytes <= n_bytes
    assert max(max(size) for size in sheets.sizes if size) == sheets.side


def test_sheets_keep_within_the_bytes_where_the_pictures_looked_at_first_tell_too_little(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files, keys = [], []
    for i in range(220):  # every second one is looked at to foretell the size: those are plain
        files.append(tmp_path / f"{i}.png")
        pixels = rng.integers(0, 256, (64, 64, 3)) if i % 2 else np.zeros((64, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).resize((128, 128), Image.Resampling.NEAREST).save(files[-1])
        keys.append(content_key(files[-1].read_bytes()))
    assert make_sheets(files, keys, n_bytes=300_000).n_bytes <= 300_000


def test_a_photograph_that_lies_on_its_side_keeps_its_shape(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert thumbnail((tmp_path / "a.jpg").read_bytes(), 20).shape == (20, 10, 3)
