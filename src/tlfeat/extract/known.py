"""Rows that other caches of the same encoder hold: a moved folder gets them copied, and is not embedded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import BadImage, CacheError
from tlfeat.images.decode import n_cores, read_picture
from tlfeat.images.image_set import ImageTable, content_key
from tlfeat.types import OnProgress

#: Files that are read, and rows that are copied, at a time.
_STEP = 1024


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The caches to look in, and a cache that lacks rows.

    Attributes
    ----------
    cache : Cache
        Open for writing; what is copied into it is committed as embedded rows are.
    layers : sequence of str
        A row is taken where another cache has one in each of these.
    others : sequence of Path
        Those of another encoder, in use or damaged are passed over.
    """

    cache: Cache
    layers: Sequence[str]
    others: Sequence[Path]
    n_threads: int | None
    say: Callable[[str], None]
    on_progress: OnProgress

    def take(self, table: ImageTable) -> None:
        """Copy the rows of pending images whose bytes another cache knows; their keys and status go into `table`."""
        keys: dict[int, str] = {}
        for path in self.others:
            if "pending" not in table.status:
                return
            if path.resolve() == self.cache.path.resolve():
                continue
            try:
                other = open_cache(path, fingerprint=self.cache.fingerprint)
            except CacheError:
                continue
            with other:
                n_taken = self._take_from(other, table, keys)
            if n_taken:
                n_all = len(table.status)
                self.say(f"{n_taken:,} of {n_all:,} images are known from {path}: nothing of them is embedded again")

    def _take_from(self, other: Cache, table: ImageTable, keys: dict[int, str]) -> int:
        """Return how many images of the table have rows from `other` now."""
        n_before, n_taken = self._n_rows(), 0
        for positions in self._read(_maybe_known(other, table), table, keys):
            known = [i for i in positions if keys[i] and self._is_in(other, keys[i])]
            wanted = dict.fromkeys(keys[i] for i in known if not self._is_in(self.cache, keys[i]))
            self._copy(other, list(wanted))
            for i in positions:
                if keys[i] and self._is_in(self.cache, keys[i]):
                    table.keys[i], table.status[i] = keys[i], "ok"
                    n_taken += keys[i] in wanted
        self._take_times(other, self._n_rows() - n_before)
        return n_taken

    def _read(self, positions: Sequence[int], table: ImageTable, keys: dict[int, str]) -> Iterator[list[int]]:
        """Fill in the content keys of these images, "" of a file that cannot be read; give them some at a time."""
        images = table.images
        with ThreadPoolExecutor(self.n_threads or n_cores(), thread_name_prefix="keys") as pool:
            for start in range(0, len(positions), _STEP):
                some = list(positions[start : start + _STEP])
                self.on_progress("looking for known images", start, len(positions))
                unread = [i for i in some if i not in keys]
                keys.update(zip(unread, pool.map(lambda i: _key_of(images.content(i)), unread), strict=True))
                yield some

    def _copy(self, other: Cache, keys: list[str]) -> None:
        """Append the rows of these keys that are as they were written."""
        if not keys:
            return
        try:
            found = {layer: other.row_table(layer).read_sound(keys) for layer in self.layers}
        except CacheError:
            return  # a damaged chunk: these are embedded
        is_sound = np.all([sound for _, sound in found.values()], axis=0)  # (n,)
        rows = {layer: stored[is_sound] for layer, (stored, _) in found.items()}
        self.cache.append(rows, [key for key, sound in zip(keys, is_sound, strict=True) if sound])

    def _take_times(self, other: Cache, n_rows: int) -> None:
        """Add what the copied rows cost when they were embedded: times of a fit include it."""
        own, theirs = self.cache.timing, other.timing
        n_timed = min(n_rows, theirs["n_embedded"])
        if not n_timed:
            return
        added = {name: own[name] + theirs[name] * n_timed / theirs["n_embedded"] for name in ("extract_s", "embed_s")}
        self.cache.write_document("timing", {**theirs, **own, **added, "n_embedded": own["n_embedded"] + n_timed})

    def _is_in(self, cache: Cache, key: str) -> bool:
        return all(key in cache.known(layer) for layer in self.layers)

    def _n_rows(self) -> int:
        return min(len(self.cache.known(layer)) for layer in self.layers)


def _maybe_known(other: Cache, table: ImageTable) -> list[int]:
    """Return the pending images that have the size of a file of `other`: no others need be read twice."""
    try:
        theirs = other.table
    except CacheError:
        return []
    sizes = {size for size, status in zip(theirs.sizes, theirs.status, strict=True) if status == "ok"}
    return [i for i, status in enumerate(table.status) if status == "pending" and table.sizes[i] in sizes]


def _key_of(content: Path | Callable[[], bytes]) -> str:
    try:
        return content_key(read_picture(content))
    except BadImage:
        return ""  # decoding says why
