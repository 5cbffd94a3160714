"""Which images belong to a shard: those whose path says so, however many others there are, and in whatever order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tlfeat.errors import UsageError
from tlfeat.images.image_set import ImageSet
from tlfeat.text import composed

#: Shards of one set at most; a file is open for each of them.
MAX_SHARDS = 10_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `n_shards`, counted from 1."""

    number: int
    n_shards: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.n_shards <= MAX_SHARDS:
            raise UsageError(
                f"--shard {self}: shards are 1/{self.n_shards} to {self.n_shards}/{self.n_shards}."
                if 1 <= self.n_shards <= MAX_SHARDS
                else f"--shard {self}: there can be 1 to {MAX_SHARDS:,} shards."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.n_shards}"

    @property
    def file_name(self) -> str:
        """The name of its cache in the folder of all shards."""
        return f"shard-{self.number:05d}-of-{self.n_shards:05d}.h5"

    def of(self, images: ImageSet) -> ImageSet:
        """Return the images that belong to it, in their order."""
        return images.at([i for i, path in enumerate(images.paths) if shard_of(path, self.n_shards) == self.number])


_FILE_NAME = re.compile(r"shard-(\d{5})-of-(\d{5})\.h5")


def parse_shard(text: str) -> Shard:
    """Return the shard of a text such as "3/64"."""
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text.strip())
    if found is None:
        raise UsageError(f"--shard {text}: expected NUMBER/OF, such as 3/64.")
    return Shard(int(found[1]), int(found[2]))


def shard_named(file_name: str) -> Shard | None:
    """Return the shard whose cache has this name; None where it is another file."""
    found = _FILE_NAME.fullmatch(file_name)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MAX_SHARDS:
        return None
    return Shard(int(found[1]), int(found[2]))


def shard_of(path: str, n_shards: int) -> int:
    """Return the number of the shard that an image belongs to, by its path alone.

    The same on every machine and in every version: the sha256 of the composed path, its first eight bytes as a number,
    modulo `n_shards`, plus 1.
    """
    digest = hashlib.sha256(composed(path).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % n_shards + 1
