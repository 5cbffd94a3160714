"""Decoded images at one size on disk, kept between runs and filled while training reads them.

One file holds one record a picture, in the order of the sorted content keys: 4 bytes of checksum (CRC-32, little
endian), then the pixels. The checksum takes in the picture's key, the size and the way of resizing, so a record is
either exactly these pixels of this picture, or it is decoded again: after a kill or a power cut in the middle of it,
in a file cut off, with a flipped bit, or where nothing was written yet. Nothing else has to be right. That also lets
two processes fill one store at a time without a lock: both write the same bytes, and what is torn fails its checksum.

Records are read and written as a file, not mapped: a full or failing disk is then an error that can be answered (the
image is decoded), where a mapped page ends the process with SIGBUS.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from tlfeat.cache.journal import FULL
from tlfeat.errors import CacheError
from tlfeat.images.decode import Picture, decode_file, n_cores
from tlfeat.images.resizing import pixel_type
from tlfeat.types import Pixels
from tlfeat.workspace import PIXELS_DIR, digest

_CHECKSUM = struct.Struct("<I")

#: Goes into every checksum; another one, wherever decoding changes, makes all stored pixels be decoded again.
_VERSION = 1


def n_bytes(n_pictures: int, size: tuple[int, int], resize: str) -> int:
    """Return how large the store of `n_pictures` different pictures is on disk, in bytes.

    Parameters
    ----------
    n_pictures : int
        Different content keys.
    size : tuple of int
        Height and width in pixels.
    resize : str
        One of `resizing.RESIZES`.
    """
    return n_pictures * (_CHECKSUM.size + size[0] * size[1] * 3 * np.dtype(pixel_type(resize)).itemsize)


def open_pixels_of(
    files: Sequence[Picture],
    keys: Sequence[str],
    size: tuple[int, int],
    resize: str,
    *,
    folder: Path = PIXELS_DIR,
    n_threads: int | None = None,
) -> PixelStore:
    """Open the store of these pictures below `folder`, for a ``with`` statement; other ones have a store of their own.

    Parameters and errors are those of `PixelStore`; the name is made of the set of keys, the size and the way of
    resizing, so neither the order nor the paths of the images matter.
    """
    path = folder / f"{size[0]}x{size[1]}-{resize}-{digest({'keys': sorted(set(keys))}, 16)}.pixels"
    return PixelStore(path, files, keys, size, resize, n_threads=n_threads)


class PixelStore:
    """The pixels of images by their position, from disk where they are there and from the image files where not.

    `read` may be called from several threads at a time.

    Parameters
    ----------
    path : Path
        The file; made where there is none, with room for all pictures. `open_pixels_of` chooses it.
    files : sequence of Path or callable
        The image files, or what gives their bytes.
    keys : sequence of str
        The content key of each (`images.content_key`). Copies of a picture are stored once.
    size : tuple of int
        Height and width in pixels.
    resize : str
        One of `resizing.RESIZES`.
    n_threads : int, optional
        Threads that decode; one a core by default.

    Attributes
    ----------
    path : Path
    n_bytes : int
        Size of the file when it is full; taken on the disk from the start, where the system can do that.
    failures : dict of int to str
        Position of each image that was wanted and cannot be had, to the reason. It is not tried again before the
        store is opened anew.
    unstored : str
        Why pixels could not be written, if so: they are decoded each time that they are read. Else "".

    Raises
    ------
    CacheError
        The disk has no room for the file, or it cannot be made there.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Picture],
        keys: Sequence[str],
        size: tuple[int, int],
        resize: str,
        *,
        n_threads: int | None = None,
    ) -> None:
        pictures = sorted(set(keys))
        row_of = {key: row for row, key in enumerate(pictures)}
        self.path = path
        self.n_bytes = n_bytes(len(pictures), size, resize)
        self.failures: dict[int, str] = {}
        self.unstored = ""
        self._files = files
        self._keys = pictures
        self._size, self._resize = size, resize
        self._record_bytes = n_bytes(1, size, resize)
        self._rows = np.array([row_of[key] for key in keys], np.int64)  # of each position
        self._positions: list[list[int]] = [[] for _ in pictures]  # of each row: the copies of a picture
        for position, row in enumerate(self._rows):
            self._positions[row].append(position)
        self._lock = threading.Lock()  # between moving in the file and reading or writing there
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_room()
            path.touch()
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            raise CacheError(f"Cannot write {path}: {error.strerror or error}.") from error
        try:
            self._reserve()
        except BaseException:
            self._file.close()
            raise
        self._pool = ThreadPoolExecutor(n_threads or n_cores(), thread_name_prefix="pixels")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the threads and the file; what was read stays stored."""
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            self._file.close()

    def read(self, positions: npt.NDArray[np.int64]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """Return a batch of images; those that are not stored yet are decoded, in all threads, and stored.

        Parameters
        ----------
        positions : int64 array of shape (n,)
            In any order, any of them more than once.

        Returns
        -------
        pixels : array of shape (n, height, width, 3)
            RGB, 0 to 255; uint8, or float32 where resizing does not round (`resizing.pixel_type`).
        is_there : bool array of shape (n,)
            False, and the pixels zero, where neither the image nor a copy of it can be read and decoded, or their
            content is not that of the key any more; `failures` then says why.
        """
        pixels = np.empty((len(positions), *self._size, 3), pixel_type(self._resize))
        is_there = np.ones(len(positions), np.bool_)
        missing: dict[int, list[int]] = {}  # row to where in the batch
        for i, row in enumerate(self._rows[positions].tolist()):
            if not self._load(row, pixels[i]):
                missing.setdefault(row, []).append(i)
        for where, decoded in zip(missing.values(), self._pool.map(self._decode, missing), strict=True):
            is_there[where] = decoded is not None
            pixels[where] = 0 if decoded is None else decoded
        return pixels, is_there

    def _decode(self, row: int) -> Pixels | None:
        """Decode and store a picture from the first of its copies that still is it; None where there is none."""
        reasons: dict[int, str] = {}
        for position in self._positions[row]:
            if position in self.failures:
                return None
            found = decode_file(
                position, self._files[position], self._size, lambda key: key != self._keys[row], self._resize
            )
            if found.pixels is not None:
                self._save(row, found.pixels)
                return found.pixels
            reasons[position] = found.error or "its content has changed since it was read first"
        self.failures.update(reasons)
        return None

    def _load(self, row: int, out: Pixels) -> bool:
        """Read a record into `out`, and say whether it is what was stored there."""
        try:
            with self._lock:
                self._file.seek(row * self._record_bytes)
                checksum = self._file.read(_CHECKSUM.size)
                if not any(checksum):  # nothing yet, or behind the end of the file
                    return False
                self._file.readinto(out.data)
        except OSError:  # a failing disk
            return False
        return checksum == self._checksum(row, out)

    def _save(self, row: int, pixels: Pixels) -> None:
        if self.unstored:
            return
        pixels = np.ascontiguousarray(pixels)  # those of resize="dataset" are not
        checksum = self._checksum(row, pixels)
        try:
            with self._lock:
                self._file.seek(row * self._record_bytes)
                self._file.write(checksum)
                self._file.write(pixels.data)
        except OSError as error:
            self.unstored = f"{self.path}: {error.strerror or error}"

    def _checksum(self, row: int, pixels: Pixels) -> bytes:
        height, width = self._size
        identity = f"{_VERSION} {self._keys[row]} {height}x{width} {self._resize}"
        return _CHECKSUM.pack(zlib.crc32(pixels.data, zlib.crc32(identity.encode())))

    def _check_room(self) -> None:
        n_there = self.path.stat().st_size if self.path.exists() else 0
        free = shutil.disk_usage(self.path.parent).free
        if free < self.n_bytes - n_there:
            raise CacheError(
                f"Decoded images need {(self.n_bytes - n_there) / 1e9:.2f} GB in {self.path.parent}, "
                f"{free / 1e9:.2f} GB are free."
            )

    def _reserve(self) -> None:
        """Take the room on the disk now, where the system can do that; elsewhere the file grows as it is filled."""
        n_there = os.fstat(self._file.fileno()).st_size
        if n_there >= self.n_bytes or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._file.fileno(), n_there, self.n_bytes - n_there)
        except OSError as error:
            if error.errno in FULL:
                self._file.truncate(n_there)
                raise CacheError(
                    f"Decoded images need {self.n_bytes / 1e9:.2f} GB at {self.path}: {error.strerror}."
                ) from error
