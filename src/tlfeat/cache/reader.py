"""What is read of a cache, be it one file (`cache_file.CacheFile`) or many shards (`sharded.ShardedCache`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tlfeat.cache.key_index import KeyIndex
from tlfeat.cache.row_table import RowTable, Stored
from tlfeat.images.image_set import ImageTable
from tlfeat.types import Rows

#: `Cache.timing` before the first run.
NO_TIMING = {"extract_s": 0.0, "embed_s": 0.0, "n_embedded": 0}


class Cache(ABC):
    """An open cache; a context manager. Use `store.open_cache`.

    Attributes
    ----------
    path : Path
        Of the file, or of the folder of shards.
    """

    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give the files back."""

    # --- what it is -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """The encoder's fingerprint; with a layer's name it says everything about that layer's rows."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Versions with which the cache was begun."""

    @property
    @abstractmethod
    def source(self) -> dict[str, Any]:
        """How to get there again: `root` and `source` of the images, `encoder` arguments."""

    @property
    @abstractmethod
    def timing(self) -> dict[str, Any]:
        """Wall seconds summed over runs, and the images in them.

        `extract_s` is all of it, `embed_s` leaves out building the network, `n_embedded` counts forward passes;
        `runtime` is what computed the last rows.
        """

    @property
    @abstractmethod
    def layers(self) -> dict[str, tuple[int, int]]:
        """Layer name to (valid rows, width), in order of name."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What the user should know of how it was opened."""

    @property
    @abstractmethod
    def format_version(self) -> int:
        """The version of the file format."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """How much it takes on the disk."""

    @property
    def stem(self) -> str:
        """The name without its ending; models and reports of this cache lie in folders of this name."""
        return self.path.stem

    # --- rows and images --------------------------------------------------------------------------------

    @abstractmethod
    def row_tables(self, layer: str) -> list[RowTable]:
        """The row tables of a layer, one for each file."""

    @abstractmethod
    def n_rows(self, layer: str) -> int:
        """The number of valid rows of a layer."""

    @abstractmethod
    def known(self, layer: str) -> KeyIndex:
        """Content key to row number of every valid row; empty for a layer that is not there."""

    @abstractmethod
    def read(self, layer: str, keys: Sequence[str]) -> Rows:
        """Return the rows of `keys`, in their order.

        Parameters
        ----------
        layer : str
            As in `layers`.
        keys : sequence of str
            Content keys; the same key twice gives the same row twice.

        Returns
        -------
        float32 array of shape (len(keys), width)

        Raises
        ------
        CacheError
            A key has no row in this layer.
        """

    @abstractmethod
    def read_sound(self, layer: str, keys: Sequence[str]) -> tuple[Stored, npt.NDArray[np.bool_]]:
        """Return the rows of `keys` as they are stored, and whether each is as it was written; all must be known."""

    @property
    @abstractmethod
    def table(self) -> ImageTable:
        """The path table, beside a writer of what is done; a `CacheError` where no `extract` got to write one."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Read everything and return what is wrong, one sentence each; empty is sound."""

    def describe(self) -> dict[str, Any]:
        """Return what ``tlfeat cache info`` says, as JSON values."""
        table = self.table
        images, is_ok = table.images, [status == "ok" for status in table.status]
        return {
            "cache": str(self.path),
            "bytes": self.n_bytes,
            "format_version": self.format_version,
            "source": images.named,
            "fingerprint": self.fingerprint,
            "environment": self.environment,
            "layers": self.layers,
            "timing": self.timing,
            "images": {
                "status": dict(Counter(table.status)),
                "splits": dict(Counter(filter(None, images.splits))),
                "classes": dict(sorted(Counter(filter(None, compress(images.labels, is_ok))).items())),
                "domains": dict(sorted(Counter(filter(None, compress(images.domains, is_ok))).items())),
            },
            "failures": [
                {"path": images.paths[i], "reason": table.errors[i]}
                for i, status in enumerate(table.status)
                if status == "failed"
            ],
        }
