"""The members of a zip, from the directory at its end; a fourth of the time and memory that `zipfile` takes."""

from __future__ import annotations

import contextlib
import struct
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from tlfeat.errors import BadImage, DataError
from tlfeat.images.archive_index import Index, plain

#: A member that unfolds to more, and to so many times its size in the archive, is a bomb and no picture.
_SMALL_BYTES, _MOST_PACKED = 64 << 20, 200

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF_8 = 0x1, 0x800  # flags
_LOCAL_HEADER = 30  # bytes, before the name

#: An entry of the directory up to its name, the end of the directory, and that of large archives with its locator
#: (APPNOTE.TXT 4.3.12, 4.3.16, 4.3.14, 4.3.15). The end has a comment of up to 64 kB behind it.
_ENTRY = struct.Struct("<4s4xHHHHIIIHHHHHII")
_END, _END_64, _LOCATOR_64 = struct.Struct("<4sHHHHIIH"), struct.Struct("<4sQ2x2xIIQQQQ"), struct.Struct("<4sIQI")
_MAX_COMMENT = 1 << 16
_ALL = 0xFFFFFFFF  # "see the field of 64 bits"

#: A directory of ten million members.
_MAX_DIRECTORY_BYTES = 2 << 30


class ZipIndex(Index):
    """Members that are stored or deflated; their CRC is checked, and is the stamp."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._packed, self._crcs, self._methods = array("q"), array("Q"), bytearray()
        try:
            with self.file.opened() as handle:
                directory, shift = self._directory(handle)
            self._take(directory, shift)
        except (BadImage, struct.error) as error:
            raise DataError(f"{path} is no zip archive, or cut short: {error}. Copy or download it again.") from error
        self.note_twice()
        self._refuse_overlapping()

    def _directory(self, handle: int) -> tuple[bytes, int]:
        """Return the directory, and how many bytes stand before the archive: a program that unpacks itself."""
        n_tail = min(self.file.size, _END.size + _MAX_COMMENT)
        tail = self.file.read(handle, self.file.size - n_tail, n_tail)
        place = tail.rfind(b"PK\5\6")
        if place < 0 or place + _END.size > n_tail:
            raise BadImage("it has no directory at its end")
        *_, n_bytes, offset, _ = _END.unpack_from(tail, place)
        end = self.file.size - n_tail + place
        before = end - _LOCATOR_64.size
        if before >= 0 and (locator := self.file.read(handle, before, _LOCATOR_64.size)).startswith(b"PK\6\7"):
            end = before - _END_64.size
            if end < 0 or not (found := self.file.read(handle, end, _END_64.size)).startswith(b"PK\6\6"):
                end = _LOCATOR_64.unpack(locator)[2]
                found = self.file.read(handle, end, _END_64.size)
            *_, n_bytes, offset = _END_64.unpack(found)
        shift = end - n_bytes - offset
        if shift < 0 or n_bytes > min(_MAX_DIRECTORY_BYTES, self.file.size):
            raise BadImage("its directory is not where it says")
        return self.file.read(handle, shift + offset, n_bytes), shift

    def _take(self, directory: bytes, shift: int) -> None:
        at, end = 0, len(directory)
        while at < end:
            mark, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, _, _, attributes, offset = (
                _ENTRY.unpack_from(directory, at)
            )
            name_at = at + _ENTRY.size
            at = name_at + n_name + n_extra + n_comment
            if mark != b"PK\1\2" or at > end:
                raise BadImage("its directory is damaged")
            if _ALL in (packed, size, offset):
                extra = directory[name_at + n_name : name_at + n_name + n_extra]
                size, packed, offset = _large(extra, size, packed, offset)
            i = len(self.at)
            self.places[_name(directory[name_at : name_at + n_name], flags)] = i
            self.at.append(offset + shift)
            self.sizes.append(size)
            self._packed.append(packed)
            self._crcs.append(crc)
            self._methods.append(min(method, 255))
            if reason := _refused(flags, method, attributes, size, packed):
                self.refused[i] = reason

    def _refuse_overlapping(self) -> None:
        """A bomb has members that share their bytes."""
        end, last = -1, -1
        for i in sorted(range(len(self.at)), key=self.at.__getitem__):
            if self.at[i] < end:
                self.refused[i] = self.refused[last] = "it shares its bytes with another member"
            if (its_end := self.at[i] + _LOCAL_HEADER + self._packed[i]) > end:
                end, last = its_end, i

    def _content(self, handle: int, i: int) -> bytes:
        header = self.file.read(handle, self.at[i], _LOCAL_HEADER)
        if not header.startswith(b"PK\3\4"):
            raise BadImage("the archive is damaged: there is no member at its place")
        n_names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        content = self.file.read(handle, self.at[i] + _LOCAL_HEADER + n_names, self._packed[i])
        if self._methods[i] == _DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.sizes[i] + 1)
            except zlib.error as error:
                raise BadImage(f"the archive is damaged: {error}") from error
        if len(content) != self.sizes[i] or zlib.crc32(content) != self._crcs[i]:
            raise BadImage("the archive is damaged: its content is not what the archive says")
        return content

    def _stamp(self, i: int) -> tuple[int, int]:
        return self.sizes[i], (self._crcs[i] << 31 | self._packed[i] & 0x7FFFFFFF) or 1


def _large(extra: bytes, *fields: int) -> Iterator[int]:
    """Give size, packed size and offset, those that did not fit from the field of 64 bits."""
    large = b""
    while len(extra) >= 4:
        kind, n_bytes = struct.unpack_from("<HH", extra)
        if kind == 1:
            large = extra[4 : 4 + n_bytes]
            break
        extra = extra[4 + n_bytes :]
    for value in fields:
        if value == _ALL:
            if len(large) < 8:
                raise BadImage("its directory is damaged")
            value, large = int.from_bytes(large[:8], "little"), large[8:]
        if value >= 1 << 63:
            raise BadImage("its directory is damaged")
        yield value


def _name(name: bytes, flags: int) -> str:
    r"""Return a name: UTF-8 where it can be, whatever the archive says; some programs write ``\\`` for ``/``."""
    text = ""
    with contextlib.suppress(UnicodeError):  # macOS writes UTF-8 and does not say so
        text = name.decode("utf-8")
    text = text or name.decode("utf-8", "surrogateescape") if flags & _UTF_8 else text or name.decode("cp437")
    return plain(text.replace("\\", "/") if "/" not in text else text)


def _refused(flags: int, method: int, attributes: int, size: int, packed: int) -> str:
    if flags & _ENCRYPTED:
        return "it is encrypted"
    if attributes >> 28 == 0o12:  # the type of a file of Unix
        return "it is a symbolic link"
    if method not in (_STORED, _DEFLATED):
        return f"it is packed by method {method}; only stored and deflated members are read"
    if size > max(_SMALL_BYTES, _MOST_PACKED * packed):
        return f"too large: {size / 1e6:,.0f} MB from {packed / 1e6:,.1f} MB"
    return ""
