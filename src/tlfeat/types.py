"""Names for arrays and callbacks, in one place: the ground that every wing stands on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

#: The name of a file or folder.
StrPath = str | os.PathLike[str]

#: uint8, or float32 where resizing does not round; 0 to 255 either way. Shape (n_images, height, width, 3).
Pixels = npt.NDArray[Any]

#: Embeddings, shape (n_images, width).
Rows = npt.NDArray[np.float32]

#: Index of the class of each image, shape (n_images,).
Labels = npt.NDArray[np.int64]

#: Shape (n_images, n_classes); each line sums to 1.
Probabilities = npt.NDArray[np.float64]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: The dtype of rows on the disk, by the dtype that the fingerprint names.
ROW_TYPES = {"float32": "<f4", "float16": "<f2"}


class RowSource(Protocol):
    """What heads read rows from: an array, or rows in a file that are larger than memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_images, width)."""

    def __getitem__(self, block: slice, /) -> Rows:
        """Rows of a block, float32 of shape (m, width)."""


#: Called with (what is being done, steps done, steps in all); 0 in all means that nobody knows.
OnProgress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Show nothing; the default of every function that reports progress."""
