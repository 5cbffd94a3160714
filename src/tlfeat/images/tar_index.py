"""The members of a plain tar."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

from tlfeat.errors import BadImage, DataError, short_reason
from tlfeat.images.archive_index import Index, plain
from tlfeat.images.file_parts import mixed, stamp
from tlfeat.text import counted

_BLOCK = 512

#: Types of members that are no files; "1" is a hard link, which is another name of an earlier member.
_KINDS = {"2": "a symbolic link", "3": "a device", "4": "a device", "6": "a named pipe", "S": "a sparse file"}

#: Headers that say more of the member after them may be this long.
_MAX_EXTRA_BYTES = 1 << 20


class TarIndex(Index):
    """Members of a plain tar (POSIX, GNU and old); those of a tar that is cut short as far as they are whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mtimes = array("q")
        self._base = stamp(self.file.size, self.file.mtime_ns) if self.file.is_settled else 0
        for name, kind, at, size, mtime, target in self._members():
            i = len(self.at)
            if kind == "1":
                found = self.places.get(target)
                at, size = (self.at[found], self.sizes[found]) if found is not None else (0, 0)
                if found is None or found in self.refused:
                    self.refused[i] = "it is a hard link to what is not in the archive"
            elif kind != "0":
                self.refused[i] = f"it is {_KINDS.get(kind, 'no plain file')}"
            self.places[name] = i
            self.at.append(at)
            self.sizes.append(size)
            self._mtimes.append(mtime)
        self.note_twice()

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
                        name, target = _names(header, {**common, **extra})
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
        return self.file.read(handle, self.at[i], self.sizes[i])

    def _stamp(self, i: int) -> tuple[int, int]:
        return (self.sizes[i], mixed(self._base, self.at[i], self._mtimes[i])) if self._base else (0, 0)


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
    total = sum(header) - sum(header[148:156]) + 8 * 32  # where the sum stands, spaces stood
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


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


def _names(header: bytes, extra: dict[str, str]) -> tuple[str, str]:
    name = _decoded(header[:100].partition(b"\0")[0])
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        name = f"{_decoded(prefix)}/{name}"
    target = extra.get("linkpath") or _decoded(header[157:257].partition(b"\0")[0])
    return plain(extra.get("path") or name), plain(target)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
