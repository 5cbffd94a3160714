"""What lies where in an archive: read once, then every member is read at its place (`zip_index`, `tar_index`).

Nothing is unpacked to a disk. Names that lead out of a folder are left out by `listing`; members that are no plain
files, or cannot be read, stay in the index with the reason.
"""

from __future__ import annotations

from array import array
from pathlib import Path

from tlfeat.errors import BadImage, DataError
from tlfeat.images.decode import MAX_FILE_BYTES
from tlfeat.images.file_parts import KnownFile
from tlfeat.text import counted


class Index:
    """The members of one archive.

    Attributes
    ----------
    file : KnownFile
    places : dict of str to int
        Name to number of a member; of several with one name the last, as when it is unpacked.
    notes : list of str
        What the user should know.
    at, sizes : array
        Offset in the archive and bytes of each member.
    refused : dict of int to str
        Why a member cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = KnownFile.of(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        self.places: dict[str, int] = {}
        self.notes: list[str] = []
        self.at, self.sizes = array("q"), array("q")
        self.refused: dict[int, str] = {}

    def read(self, name: str) -> bytes:
        """Return the bytes of a member; a `BadImage` says why there are none."""
        i = self._place(name)
        if reason := self.refused.get(i):
            raise BadImage(reason)
        if self.sizes[i] > MAX_FILE_BYTES:
            raise BadImage(f"too large: {self.sizes[i] / 1e9:.1f} GB")
        with self.file.opened() as handle:
            return self._content(handle, i)

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and stamp; (0, 0) where nothing is known."""
        i = self.places.get(name)
        return (0, 0) if i is None or i in self.refused else self._stamp(i)

    def size(self, name: str) -> int:
        """Return how many bytes a member has, as the archive says."""
        return self.sizes[self._place(name)]

    def _place(self, name: str) -> int:
        if (i := self.places.get(name)) is None:
            raise BadImage(f"{self.file.path.name} has no such member")
        return i

    def _content(self, handle: int, i: int) -> bytes:
        raise NotImplementedError

    def _stamp(self, i: int) -> tuple[int, int]:
        raise NotImplementedError

    def note_twice(self) -> None:
        if n := len(self.at) - len(self.places):
            name = self.file.path.name
            self.notes.append(f"{name}: {counted(n, 'member')} with the name of a later one left out")


def plain(name: str) -> str:
    """Return a name without the ``./`` that some programs begin it with."""
    while name.startswith("./"):
        name = name[2:]
    return name
