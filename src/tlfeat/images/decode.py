"""A file becomes RGB pixels of shape (height, width, 3); a bad file becomes a `Decoded` that says why.

How every picture is brought to the same form, in this order:

1. the first frame of an animation or of a multi-page file;
2. EXIF orientation applied;
3. 16-bit greyscale scaled to 8 bits by 1/257; palette, greyscale, CMYK and YCbCr converted to RGB;
   transparency laid over white;
4. resized to (height, width) in one of the ways of `resizing.RESIZES`. Its name is part of the fingerprint;
   benchmarks/resizing.py measures what each costs and what it does to accuracy.

Each file is read once: the content key and the pixels come from the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from tlfeat.errors import BadImage, DataError
from tlfeat.files import read_regular
from tlfeat.images.folders import HEIC_ADVICE, can_read_heic
from tlfeat.images.image_set import content_key
from tlfeat.images.jpeg_scans import check_scans
from tlfeat.images.read_ahead import Picture as Picture
from tlfeat.images.read_ahead import read_ahead
from tlfeat.images.resizing import RESIZE, draft, pixel_type, resized
from tlfeat.images.stores import Store, StoredImage
from tlfeat.types import Pixels

#: Larger pictures are refused from their header, before any pixel is decoded: 100 million pixels are 300 MB.
MAX_PIXELS = 100_000_000

#: Above this, pictures are decoded one at a time, so that memory stays bounded with any number of threads.
_LARGE_PIXELS = 16_000_000

#: Files above this are refused unread; no picture of at most MAX_PIXELS needs more.
MAX_FILE_BYTES = 1 << 30

#: Only these decoders are ever tried; Pillow knows others that start external programs (EPS).
#: MPO, the two pictures in one file of some phones, is opened by JPEG and has no entry of its own.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")

#: The brands by which the header of a HEIC file names itself (ISO/IEC 23008-12), bytes 8 to 12.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

#: EXIF orientation to what makes it upright. `ImageOps.exif_transpose` writes the EXIF anew, too: 3 ms a photograph.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PILLOW = r"PIL\."

#: As `warnings.filterwarnings` keeps it.
_PILLOW_IGNORED = ("ignore", None, Warning, re.compile(_PILLOW), 0)

_one_large_at_a_time = threading.Lock()

_LUT_16_TO_8 = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the decoders that are tried: AVIF where Pillow was built with it, HEIF where pillow-heif is installed."""
    formats = [*_FORMATS, "AVIF"] if features.check("avif") else [*_FORMATS]
    if can_read_heic():
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def _unknown_format(data: bytes) -> str:
    """Return why no decoder takes a file; an ending says nothing: phones call HEIC files .jpg, too."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in _formats():
        return HEIC_ADVICE
    if data[4:12] in (b"ftypavif", b"ftypavis") and "AVIF" not in _formats():
        return "this Pillow was built without AVIF"
    return "not an image in a known format"


@dataclass(frozen=True, slots=True)
class Decoded:
    """Image `i` of a set: its content key and pixels, or why there are none.

    ``pixels`` is None with an empty `error` where the key was known already and decoding was not needed; of a text it
    holds the tokens.
    ``read_s`` and ``decode_s`` are the seconds that a thread spent on it.
    """

    i: int
    key: str
    pixels: Pixels | None
    error: str = ""
    read_s: float = field(default=0.0, compare=False)
    decode_s: float = field(default=0.0, compare=False)


def decode_bytes(data: bytes, size: tuple[int, int] | None, resize: str = RESIZE) -> Pixels:
    """Decode one picture.

    Parameters
    ----------
    data : bytes
        A whole JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF file, or HEIC where pillow-heif is installed.
    size : tuple of int, optional
        Height and width of the result in pixels; None keeps the picture's own.
    resize : str
        One of `resizing.RESIZES`.

    Returns
    -------
    array of shape (height, width, 3)
        RGB, 0 to 255; uint8, or float32 with ``resize="dataset"``.

    Raises
    ------
    BadImage
        Truncated, not a picture, too large, or a pixel format without a stated conversion.
    """
    if not data:
        raise BadImage("empty file")
    try:
        _silence_pillow()
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            n_pixels = image.width * image.height
            if n_pixels > MAX_PIXELS:
                raise BadImage(
                    f"too large: {image.width}x{image.height} is {n_pixels / 1e6:.0f} million pixels, "
                    f"the limit is {MAX_PIXELS / 1e6:.0f} million"
                )
            if image.format in ("JPEG", "MPO"):
                check_scans(data, n_pixels)
            if size is not None:
                draft(image, size, resize)
            if image.width * image.height <= _LARGE_PIXELS:
                return _to_pixels(image, size, resize)
            with _one_large_at_a_time:
                return _to_pixels(image, size, resize)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(_unknown_format(data)) from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except MemoryError as error:
        raise BadImage("not enough memory to decode it") from error
    except Exception as error:
        # Pillow's plugins let almost any exception out on damaged files (SyntaxError, struct.error, KeyError...)
        raise BadImage(f"{str(error) or type(error).__name__}".splitlines()[0]) from error


def _silence_pillow() -> None:
    """Ignore Pillow's warnings (bad EXIF, odd TIFF tags: the pixels decide) in the whole process.

    `warnings.catch_warnings` swaps one global list: threads that leave it in another order than they came would
    switch every warning off for good.
    """
    if _PILLOW_IGNORED not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


def image_size(data: bytes) -> tuple[int, int]:
    """Return height and width in pixels as the header of a picture states them, EXIF orientation applied.

    Raises
    ------
    BadImage
        It has no such header.
    """
    try:
        _silence_pillow()
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            lies_on_its_side &= image.format != "TIFF"  # whose size Pillow turns by itself
            return (image.width, image.height) if lies_on_its_side else (image.height, image.width)
    except Exception as error:  # as in `decode_bytes`: Pillow's plugins let almost any exception out
        raise BadImage("not an image in a known format") from error


def jpeg_thumbnail(data: bytes, side: int) -> bytes:
    """Return a picture as a small JPEG of at most `side` pixels a side; a `BadImage` as in `decode_bytes`."""
    out = io.BytesIO()
    Image.fromarray(thumbnail(data, side)).save(out, "JPEG", quality=70)
    return out.getvalue()


def thumbnail(data: bytes, side: int) -> Pixels:
    """Return a picture at most `side` pixels high and wide, its aspect kept; a `BadImage` as in `decode_bytes`."""
    height, width = image_size(data)
    scale = side / max(height, width)
    return decode_bytes(data, (max(1, round(scale * height)), max(1, round(scale * width))))


def _to_pixels(image: Image.Image, size: tuple[int, int] | None, resize: str) -> Pixels:
    image.load()
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    rgb = _to_rgb(image if turn is None else image.transpose(turn))
    if size is None:
        return np.asarray(rgb, dtype=pixel_type(resize))  # (h, w, 3)
    return resized(rgb, size, resize)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # I;16, I;16B, I;16L, I: 16 bits a pixel in a PNG or TIFF
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise BadImage("32-bit integer pixels beyond 0 to 65535 have no stated conversion")
        image = Image.fromarray(_LUT_16_TO_8[values])
    elif image.mode == "F":
        raise BadImage("floating-point pixels have no stated conversion; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; a `BadImage` says why they cannot be had."""
    try:
        return read_regular(path, max_bytes=MAX_FILE_BYTES)
    except OSError as error:
        why = error.strerror or str(error)
        raise BadImage(why if error.errno == errno.EFBIG else f"cannot be read: {why}") from error


def content_of(home: Path | Store, path: str) -> bytes:
    """Return the bytes of one image of a folder or a store (`ImageSet.home`); a `BadImage` as in `read_file`."""
    return read_file(home / path) if isinstance(home, Path) else home.read(path)


def read_picture(picture: Picture) -> bytes:
    """Return the bytes of a file, or those that a function gives; a `BadImage` as in `read_file`."""
    return picture() if callable(picture) else read_file(picture)


def n_reads_of(files: Sequence[object]) -> int:
    """Return how many reads are best under way at once: those of the store that the first image lies in, if any."""
    return files[0].store.n_ahead if files and isinstance(files[0], StoredImage) else 0


def decode_file(
    i: int,
    picture: Picture,
    size: tuple[int, int],
    is_known: Callable[[str], bool],
    resize: str = RESIZE,
    decode: Callable[[bytes], Pixels] | None = None,
) -> Decoded:
    """Read, key and decode one picture; pixels are left out where `is_known(key)` says that no one needs them."""
    key, error, pixels = "", "", None
    started_s = read_s = time.perf_counter()
    try:
        data = read_picture(picture)
        key = content_key(data)
        read_s = time.perf_counter()
        if not is_known(key):
            pixels = decode_bytes(data, size, resize) if decode is None else decode(data)
    except BadImage as bad:
        error = str(bad)
    return Decoded(i, key, pixels, error, read_s - started_s, time.perf_counter() - read_s)


def decode_all(
    files: Iterable[tuple[int, Picture]],
    size: tuple[int, int],
    *,
    resize: str = RESIZE,
    is_known: Callable[[str], bool] = lambda key: False,
    n_threads: int | None = None,
    n_ahead: int = 64,
    pool: Executor | None = None,
    decode: Callable[[bytes], Pixels] | None = None,
    n_reads: int = 0,
    size_of: Callable[[int], int] = lambda i: 0,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> Generator[Decoded, None, None]:
    """Decode files in threads, in order, at most `n_ahead` of them ahead of the consumer.

    The bound keeps memory flat when the network is slower than the decoder, which is the usual case: 64
    pictures of 224x224 are 10 MB. Pillow releases the GIL, so two threads decode 1.8 times as fast as one.

    Parameters
    ----------
    pool : Executor, optional
        Threads shared with other work; `n_threads` of its own, one a core, by default.
    decode : callable, optional
        Takes the bytes of what is no picture: a text becomes its tokens.
    n_reads, size_of, on_wait
        Where images lie far away: reads under way at once, as in `read_ahead.read_ahead`.
    """
    with contextlib.ExitStack() as stack:
        if pool is None:
            pool = stack.enter_context(ThreadPoolExecutor(n_threads or n_cores(), thread_name_prefix="decode"))
        waiting: deque[Future[Decoded]] = deque()
        if n_reads:
            files = read_ahead(files, n_reads, size_of=size_of, on_wait=on_wait)
            stack.callback(files.close)
        try:
            for i, path in files:
                waiting.append(pool.submit(decode_file, i, path, size, is_known, resize, decode))
                if len(waiting) >= n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def n_cores() -> int:
    """Return how many cores this process may use: affinity and the quota of a container counted in."""
    import joblib  # late: 0.1 s that an unchanged set does not need

    return int(joblib.cpu_count())


def decode_batches(
    files: Sequence[Picture], size: tuple[int, int], batch_size: int, resize: str = RESIZE
) -> Iterator[Pixels]:
    """Give the pixels of `files` in order, `batch_size` at a time, where none of them may be missing.

    Raises
    ------
    DataError
        A file cannot be decoded; the message names it.
    """
    waiting: list[Pixels] = []
    for decoded in decode_all(enumerate(files), size, resize=resize, n_reads=n_reads_of(files)):
        if decoded.pixels is None:
            raise DataError(f"{files[decoded.i]}: {decoded.error}.")
        waiting.append(decoded.pixels)
        if len(waiting) == batch_size or decoded.i == len(files) - 1:
            yield np.stack(waiting)  # (n, h, w, 3)
            waiting.clear()
