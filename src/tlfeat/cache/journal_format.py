"""What a journal holds: pages for one file in one state, and how that file is told from every other.

A journal knows its file by what it is about to change: for each sector of 512 bytes that it writes, the checksum of
what was there; for some pages that it does not write, theirs; and the sizes before and after. A file in which every
such sector is either as it was or as it is to be is the one that a writer was killed in. A backup of an earlier state,
or another file under the same name, is not: each commit of a cache changes the number of rows, the list of their chunks
or the address of the file's end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlfeat.files import open_regular

PAGE_BYTES = 4096

#: What a disk writes whole or not at all.
_SECTOR_BYTES = 512

_SECTORS = PAGE_BYTES // _SECTOR_BYTES

_OF_ZEROS = [zlib.crc32(bytes(_SECTOR_BYTES))] * _SECTORS

#: Pages that a commit does not change and its file is known by, beside those that it does.
_N_WITNESSES = 16

MAGIC, _MAGIC_1 = b"tlfeat journal 2", b"tlfeat journal 1"

#: Magic, size before and after, number of pages and of witnesses.
_HEAD = struct.Struct("<16sQQQQ")

#: Of version 1: magic, size afterwards, number of pages; then page numbers, pages and the sha256 of all before it.
_HEAD_1 = struct.Struct("<16sQQ")

_DIGEST_BYTES = 32

#: A journal of version 1 is not bound to its file. After a kill both were written to within this time: room is reserved
#: in the file, then the journal is written, then the file. A backup that was copied over the file was not.
_TOGETHER_S = 60

#: Start and number of bytes to what a file holds there, zeros beyond its end.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Journal:
    """A whole journal: the size and the pages of the file afterwards, and what the file was before.

    `sums` are the checksums of the sectors that it changes, `witnesses` those of pages that it does not; `size_before`
    is None, and both are empty, in version 1.
    """

    size: int
    pages: dict[int, bytearray]
    size_before: int | None = None
    sums: tuple[int, ...] = ()
    witnesses: tuple[tuple[int, int], ...] = ()
    changed_s: float = 0.0

    def is_of(self, read: Read, about: os.stat_result) -> bool:
        """Whether it belongs to a file: before it was applied, in the middle of that, or after.

        Parameters
        ----------
        read : callable
        about : os.stat_result
            Of the same file.
        """
        size = about.st_size
        if self.size_before is None:
            return size == self.size and abs(about.st_mtime - self.changed_s) <= _TOGETHER_S
        if not min(self.size_before, self.size) <= size <= max(self.size_before, self.size):
            return False
        if any(zlib.crc32(read(number * PAGE_BYTES, PAGE_BYTES)) != found for number, found in self.witnesses):
            return False
        sums = (self.sums[at : at + _SECTORS] for at in range(0, len(self.sums), _SECTORS))
        return all(
            page == (found := read(number * PAGE_BYTES, PAGE_BYTES)) or self._is_on_the_way(number, page, found, before)
            for (number, page), before in zip(self.pages.items(), sums, strict=True)
        )

    def _is_on_the_way(self, number: int, page: bytearray, found: bytes, before: tuple[int, ...]) -> bool:
        parts = zip(before, _parts(number, page, self.size), _parts(number, found, self.size), strict=True)
        return all(there == new or zlib.crc32(there) == old for old, new, there in parts)


def _parts(number: int, page: bytes | bytearray, size: int) -> list[bytes]:
    """The sectors of a page, cut off where the file ends afterwards: beyond that nothing is written."""
    n = min(max(size - number * PAGE_BYTES, 0), PAGE_BYTES)
    return [bytes(page[at : max(min(at + _SECTOR_BYTES, n), at)]) for at in range(0, PAGE_BYTES, _SECTOR_BYTES)]


def beginning(read: Read, size_before: int, size: int, pages: Mapping[int, bytearray]) -> bytes:
    """Return what stands in a journal before its pages, which follow in order of their numbers.

    Parameters
    ----------
    read : callable
        Of the file before the commit.
    size_before, size : int
        Of the file, before and afterwards.
    pages : mapping of int to bytearray
    """
    numbers = sorted(pages)
    n_whole = min(size_before, size) // PAGE_BYTES
    evenly = {i * (n_whole - 1) // (_N_WITNESSES - 1) for i in range(_N_WITNESSES)} if n_whole else set()
    witnesses = sorted(number for number in evenly if number not in pages)
    sums: list[int] = []
    for number in numbers:
        if number * PAGE_BYTES >= size_before and (number + 1) * PAGE_BYTES <= size:
            sums += _OF_ZEROS  # most pages: rows are appended
        else:
            sums += (zlib.crc32(part) for part in _parts(number, _before(read, number, size_before), size))
    seen = [zlib.crc32(read(number * PAGE_BYTES, PAGE_BYTES)) for number in witnesses]
    return b"".join(
        (
            _HEAD.pack(MAGIC, size_before, size, len(numbers), len(witnesses)),
            struct.pack(f"<{len(numbers)}Q", *numbers),
            struct.pack(f"<{len(sums)}I", *sums),
            struct.pack(f"<{len(witnesses)}Q", *witnesses),
            struct.pack(f"<{len(witnesses)}I", *seen),
        )
    )


def _before(read: Read, number: int, size_before: int) -> bytes:
    is_new = number * PAGE_BYTES >= size_before
    return bytes(PAGE_BYTES) if is_new else read(number * PAGE_BYTES, PAGE_BYTES)


def read_journal(path: Path) -> Journal | None:
    """Return a whole journal; None where there is none, or only the beginning of one.

    One that declares more than it holds, or is full of holes, is not read.
    """
    try:
        with open_regular(path) as file:
            about = os.fstat(file.fileno())
            head = file.read(_HEAD.size)
            n_bytes = _n_bytes(head)
            held = min(about.st_size, 512 * getattr(about, "st_blocks", about.st_size))
            if n_bytes is None or not n_bytes <= about.st_size or n_bytes > held + PAGE_BYTES:
                return None
            content = head + file.read(n_bytes - len(head))
    except OSError:
        return None
    end = len(content) - _DIGEST_BYTES
    if len(content) < n_bytes or hashlib.sha256(memoryview(content)[:end]).digest() != content[end:]:
        return None
    return _unpacked(content, about.st_mtime)


def _n_bytes(head: bytes) -> int | None:
    """Return how long the journal is that begins so."""
    with contextlib.suppress(struct.error):
        if head.startswith(_MAGIC_1):
            _, _, n_pages = _HEAD_1.unpack_from(head)
            return int(_HEAD_1.size + n_pages * (8 + PAGE_BYTES) + _DIGEST_BYTES)
        if head.startswith(MAGIC):
            *_, n_pages, n_witnesses = _HEAD.unpack_from(head)
            return int(_HEAD.size + n_pages * (8 + 4 * _SECTORS + PAGE_BYTES) + n_witnesses * 12 + _DIGEST_BYTES)
    return None


def _unpacked(content: bytes, changed_s: float) -> Journal:
    if content.startswith(_MAGIC_1):
        _, size, n_pages = _HEAD_1.unpack_from(content)
        numbers = struct.unpack_from(f"<{n_pages}Q", content, _HEAD_1.size)
        return Journal(size, _pages(content, numbers), changed_s=changed_s)
    _, size_before, size, n_pages, n_witnesses = _HEAD.unpack_from(content)
    at = _HEAD.size
    numbers = struct.unpack_from(f"<{n_pages}Q", content, at)
    sums = struct.unpack_from(f"<{n_pages * _SECTORS}I", content, at := at + 8 * n_pages)
    witnesses = struct.unpack_from(f"<{n_witnesses}Q", content, at := at + 4 * n_pages * _SECTORS)
    seen = struct.unpack_from(f"<{n_witnesses}I", content, at + 8 * n_witnesses)
    return Journal(
        size, _pages(content, numbers), size_before, sums, tuple(zip(witnesses, seen, strict=True)), changed_s
    )


def _pages(content: bytes, numbers: tuple[int, ...]) -> dict[int, bytearray]:
    """Return the pages, which are the last in a journal before its digest."""
    first = len(content) - _DIGEST_BYTES - len(numbers) * PAGE_BYTES
    starts = range(first, len(content) - _DIGEST_BYTES, PAGE_BYTES)
    return {n: bytearray(content[at : at + PAGE_BYTES]) for n, at in zip(numbers, starts, strict=True)}


def is_unfinished(path: Path) -> bool:
    """Whether a file that is no whole journal is the beginning of one, which a power cut may have emptied in parts."""
    try:
        with open_regular(path) as file:
            begun = file.read(len(MAGIC))
    except OSError:
        return False
    return begun in (b"", MAGIC, _MAGIC_1) or not any(begun)


def set_aside(path: Path) -> Path | None:
    """Give a journal that belongs to another file another name, so that nothing is lost; return it."""
    if not os.path.lexists(path):
        return None
    names = (path.with_name(f"{path.name}.set-aside{number}") for number in ("", *(f"-{i}" for i in range(2, 1000))))
    to = next(name for name in names if not os.path.lexists(name))
    return path.rename(to)
