"""What lies where in a .zip or a .tar: read once, then every member is read at its place.

Nothing is unpacked to a disk. Names that lead out of a folder are left out by `listing`; members that are no plain
files, or cannot be read, stay in the index with the reason.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from tlfeat.errors import BadImage, DataError, short_reason
from tlfeat.images.decode import MAX_FILE_BYTES
from tlfeat.images.file_parts import KnownFile, stamp
from tlfeat.text import counted

#: A member that unfolds to more, and to so many times its size in the archive, is a bomb and no picture.
_SMALL_BYTES, _MOST_PACKED = 64 << 20, 200

_ENCRYPTED, _UTF_8 = 0x1, 0x800  # flags of a member of a zip
_LOCAL_HEADER = 30  # bytes, before the name
_BLOCK = 512  # of a tar

#: Types of members of a tar that are no files; "1" is a hard link, which is another name of an earlier member.
_TAR_KINDS = {"2": "a symbolic link", "3": "a device", "4": "a device", "6": "a named pipe", "S": "a sparse file"}

#: Headers that say more of the member after them may be this long.
_MAX_EXTRA_BYTES = 1 << 20


class Index:
    """The members of one archive.

    Attributes
    ----------
    file : KnownFile
    places : dict of str to int
        Name to number of a member; of several with one name the last, as when it is unpacked.
    notes : list of str
        What the user should know.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = KnownFile.of(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        self.places: dict[str, int] = {}
        self.notes: list[str] = []
        self._at, self._sizes = array("q"), array("q")
        self._refused: dict[int, str] = {}

    def read(self, name: str) -> bytes:
        """Return the bytes of a member; a `BadImage` says why there are none."""
        i = self._place(name)
        if reason := self._refused.get(i):
            raise BadImage(reason)
        if self._sizes[i] > MAX_FILE_BYTES:
            raise BadImage(f"too large: {self._sizes[i] / 1e9:.1f} GB")
        with self.file.opened() as handle:
            return self._content(handle, i)

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and stamp; (0, 0) where nothing is known."""
        i = self.places.get(name)
        return (0, 0) if i is None or i in self._refused else self._stamp(i)

    def size(self, name: str) -> int:
        """Return how many bytes a member has, as the archive says."""
        return self._sizes[self._place(name)]

    def _place(self, name: str) -> int:
        if (i := self.places.get(name)) is None:
            raise BadImage(f"{self.file.path.name} has no such member")
        return i

    def _content(self, handle: int, i: int) -> bytes:
        raise NotImplementedError

    def _stamp(self, i: int) -> tuple[int, int]:
        raise NotImplementedError

    def _note_twice(self) -> None:
        if n := len(self._at) - len(self.places):
            name = self.file.path.name
            self.notes.append(f"{name}: {counted(n, 'member')} with the name of a later one left out")


class ZipIndex(Index):
    """Members that are stored or deflated; their CRC is checked, and is the stamp."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._packed, self._crcs, self._methods = array("q"), array("L"), bytearray()
        for member in self._members(path):
            i = len(self._at)
            self.places[_zip_name(member)] = i
            self._at.append(member.header_offset)
            self._sizes.append(member.file_size)
            self._packed.append(member.compress_size)
            self._crcs.append(member.CRC)
            self._methods.append(min(member.compress_type, 255))
            if reason := _refused_of_zip(member):
                self._refused[i] = reason
        self._note_twice()
        self._refuse_overlapping()

    @staticmethod
    def _members(path: Path) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is no zip archive, or cut short: {short_reason(error)}. Copy or download it again."
            ) from error

    def _refuse_overlapping(self) -> None:
        """A bomb has members that share their bytes."""
        order = sorted(range(len(self._at)), key=self._at.__getitem__)
        end, last = -1, -1
        for i in order:
            if self._at[i] < end:
                self._refused[i] = self._refused[last] = "it shares its bytes with another member"
            if (its_end := self._at[i] + _LOCAL_HEADER + self._packed[i]) > end:
                end, last = its_end, i

    def _content(self, handle: int, i: int) -> bytes:
        header = self.file.read(handle, self._at[i], _LOCAL_HEADER)
        if not header.startswith(b"PK\3\4"):
            raise BadImage("the archive is damaged: there is no member at its place")
        n_names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        content = self.file.read(handle, self._at[i] + _LOCAL_HEADER + n_names, self._packed[i])
        if self._methods[i] == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self._sizes[i] + 1)
            except zlib.error as error:
                raise BadImage(f"the archive is damaged: {error}") from error
        if len(content) != self._sizes[i] or zlib.crc32(content) != self._crcs[i]:
            raise BadImage("the archive is damaged: its content is not what the archive says")
        return content

    def _stamp(self, i: int) -> tuple[int, int]:
        return self._sizes[i], stamp(self._crcs[i], self._sizes[i], self._packed[i])


def _zip_name(member: zipfile.ZipInfo) -> str:
    r"""Return the name: UTF-8 where it can be, whatever the archive says; some programs write ``\`` for ``/``."""
    name = member.filename
    if not member.flag_bits & _UTF_8 and not name.isascii():
        with contextlib.suppress(UnicodeError):  # else it is cp437, which zipfile has taken it for
            name = name.encode("cp437").decode("utf-8")
    return _plain(name.replace("\\", "/") if "/" not in name else name)


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name


def _refused_of_zip(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if (member.external_attr >> 28) == 0o12:  # the type of a file of Unix
        return "it is a symbolic link"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is packed by method {member.compress_type}; only stored and deflated members are read"
    if member.file_size > max(_SMALL_BYTES, _MOST_PACKED * member.compress_size):
        return f"too large: {member.file_size / 1e6:,.0f} MB from {member.compress_size / 1e6:,.1f} MB"
    return ""


class TarIndex(Index):
    """Members of a plain tar (POSIX, GNU and old); those of a tar that is cut short as far as they are whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mtimes = array("q")
        self._is_settled = self.file.is_settled
        for name, kind, at, size, mtime, target in self._members():
            i = len(self._at)
            if kind == "1":
                found = self.places.get(target)
                at, size = (self._at[found], self._sizes[found]) if found is not None else (0, 0)
                if found is None or found in self._refused:
                    self._refused[i] = "it is a hard link to what is not in the archive"
            elif kind != "0":
                self._refused[i] = f"it is {_TAR_KINDS.get(kind, 'no plain file')}"
            self.places[name] = i
            self._at.append(at)
            self._sizes.append(size)
            self._mtimes.append(mtime)
        self._note_twice()

    def _members(self) -> Iterator[tuple[str, str, int, int, int, str]]:
        """Give name, type, offset, size, time and target of a link of each whole member."""
        path, at, n_members = self.file.path, 0, 0
        extra: dict[str, str] = {}
        common: dict[str, str] = {}
        try:
            with self.file.opened() as handle:
                while at + _BLOCK <= self.file.size:
                    header = self.file.read(handle, at, _BLOCK)
                    at += _BLOCK
                    if not header.strip(b"\0"):
                        return  # the end
                    size = _number(header[124:136])
                    if not _is_header(header) or size < 0:
                        raise BadImage("what follows is no header of a member")
                    kind = chr(header[156])
                    size = int(extra.get("size", size)) if kind not in "xgLK" else size
                    if at + (0 if kind in "123456" else size) > self.file.size:
                        raise BadImage("it ends in the middle of a member")
                    if kind in "xgLK":
                        found = _more(kind, self.file.read(handle, at, min(size, _MAX_EXTRA_BYTES)))
                        (common if kind == "g" else extra).update(found)
                    else:
                        name, target = _tar_names(header, {**common, **extra})
                        is_sparse = any(key.startswith("GNU.sparse") for key in extra)
                        kind = "S" if is_sparse else "0" if kind in "0\x007" else kind
                        if kind != "5" and not (kind == "0" and name.endswith("/")):
                            n_members += 1
                            yield name, kind, at, size, _number(header[136:148]), target
                        extra = {}
                    at += 0 if kind in "123456" else -(-size // _BLOCK) * _BLOCK
        except (BadImage, ValueError) as error:
            if not n_members:
                raise DataError(f"{path} is no tar archive, or damaged: {short_reason(error)}.") from error
            self.notes.append(
                f"{path.name} is damaged or cut short after {counted(n_members, 'member')}: {short_reason(error)}. "
                f"The others are taken"
            )
            return
        if at < self.file.size or (at == self.file.size and not n_members):
            self.notes.append(f"{path.name} is cut short after {counted(n_members, 'member')}. The others are taken")

    def _content(self, handle: int, i: int) -> bytes:
        return self.file.read(handle, self._at[i], self._sizes[i])

    def _stamp(self, i: int) -> tuple[int, int]:
        if not self._is_settled:
            return 0, 0
        at, size, mtime = self._at[i], self._sizes[i], self._mtimes[i]
        return size, stamp(at, size, mtime, self.file.size, self.file.mtime_ns)


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or from 8 GB on bytes after a mark."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    if field[:1] == b"\xff":
        return -1
    return int(field.strip(b" \0") or b"0", 8)


def _is_header(header: bytes) -> bool:
    """Whether the sum of its bytes is what it says; old programs summed signed bytes."""
    try:
        stated = _number(header[148:156])
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    return stated in (total, total - 256 * sum(byte > 127 for byte in rest))


def _more(kind: str, content: bytes) -> dict[str, str]:
    """Return what a header says of the member after it: a long name (GNU), or records (POSIX)."""
    if kind in "LK":
        return {"path" if kind == "L" else "linkpath": _decoded(content.partition(b"\0")[0])}
    found = {}
    while content:
        length = content.partition(b" ")[0]
        if not length.isdigit() or not 0 < int(length) <= len(content):
            break
        record, content = content[len(length) + 1 : int(length) - 1], content[int(length) :]
        key, _, value = record.partition(b"=")
        found[_decoded(key)] = _decoded(value)
    return found


def _tar_names(header: bytes, extra: dict[str, str]) -> tuple[str, str]:
    name = _decoded(header[:100].partition(b"\0")[0])
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        name = f"{_decoded(prefix)}/{name}"
    target = extra.get("linkpath") or _decoded(header[157:257].partition(b"\0")[0])
    return _plain(extra.get("path") or name), _plain(target)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
