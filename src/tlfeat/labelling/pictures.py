"""The pictures of one labelling: by number for the page, by path from its own folder for the CSV."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tlfeat.errors import UsageError
from tlfeat.images.decode import content_of, image_size, jpeg_thumbnail
from tlfeat.images.image_set import ImageSet

#: Pixels a side, at most: of the picture in question, and of one among many.
LARGE, SMALL = 1024, 160


@dataclass(frozen=True, slots=True)
class Pictures:
    """A set of images whose answers go to a CSV.

    Attributes
    ----------
    images : ImageSet
        Files; a picture's number is its place.
    csv : Path
        Where the answers go.
    """

    images: ImageSet
    csv: Path
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)
    _prefix: list[str] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.images.store is not None or self.images.holds != "images":
            raise UsageError(f"Pictures are labelled where they are files: copy or unpack {self.images.named} first.")
        self._prefix.append(from_folder(self.images.root, self.csv.resolve().parent))
        self._numbers.update({self.in_csv(number): number for number in range(len(self.images))})

    def __len__(self) -> int:
        return len(self.images)

    def in_csv(self, number: int) -> str:
        """The path of a picture as the CSV has it: from its folder, with ``/``."""
        return self._prefix[0] + self.images.paths[number]

    def number(self, in_csv: str) -> int | None:
        """The number of a path of the CSV; None where the picture is not in the set, or has gone."""
        return self._numbers.get(in_csv)

    def jpeg(self, number: int, side: int) -> bytes:
        """Return a picture of at most `side` pixels a side; a `DataError` says why there is none."""
        content = content_of(self.images.home, self.images.paths[number])
        return jpeg_thumbnail(content, min(side, max(image_size(content))))


def from_folder(root: Path, folder: Path) -> str:
    """Return what leads from a folder to another one: "" for itself, else it ends with ``/``."""
    try:
        found = os.path.relpath(root, folder).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        found = root.as_posix()
    return "" if found == "." else f"{found}/"
