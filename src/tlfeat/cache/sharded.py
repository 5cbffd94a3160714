"""Shards that a manifest names, read as one cache."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.blocks import Chained
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.hdf5_file import open_file
from tlfeat.cache.key_index import KeyIndex
from tlfeat.cache.manifest import Manifest, check_shard, read_manifest
from tlfeat.cache.passes import summed_timing
from tlfeat.cache.reader import Cache
from tlfeat.cache.row_table import RowTable, Stored, digest_of
from tlfeat.errors import CacheError
from tlfeat.images.decode import n_cores
from tlfeat.images.image_set import ImageTable
from tlfeat.memory import give_back_memory
from tlfeat.system import allow_open_files
from tlfeat.types import Rows, StrPath


class ShardedCache(Cache):
    """An open manifest and its shards, in order of their numbers. Use `store.open_cache`.

    Of a key that is in two shards, the row of the first counts. Row numbers run through all shards.
    """

    def __init__(self, manifest: Manifest, files: Sequence[CacheFile]) -> None:
        self.path = manifest.folder
        self._manifest = manifest
        self._files = list(files)
        self._known: dict[str, KeyIndex] = {}

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for file in self._files:
                closing.callback(file.close)

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self._files[0].fingerprint

    @property
    def environment(self) -> dict[str, Any]:
        return self._files[0].environment

    @property
    def source(self) -> dict[str, Any]:
        return self._files[0].source

    @property
    def timing(self) -> dict[str, Any]:
        return summed_timing([file.timing for file in self._files])

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        widths = {name: layer.width for shard in self._manifest.shards for name, layer in shard.layers.items()}
        return {name: (n, widths[name]) for name, n in sorted(self._manifest.layers.items())}

    @property
    def notes(self) -> list[str]:
        return [*self._manifest.notes, *(note for file in self._files for note in file.notes)]

    @property
    def format_version(self) -> int:
        return max(file.format_version for file in self._files)

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self._files)

    @property
    def files(self) -> list[CacheFile]:
        """The shards."""
        return list(self._files)

    # --- rows and images --------------------------------------------------------------------------------

    def row_tables(self, layer: str) -> list[RowTable]:
        return [file.row_table(layer) for file in self._files if layer in file.layers]

    def n_rows(self, layer: str) -> int:
        return self._manifest.layers[layer]

    def known(self, layer: str) -> KeyIndex:
        if layer not in self._known:
            parts = (table.keys() for table in self._numbered(layer))
            self._known[layer] = KeyIndex.of_parts(parts, self._manifest.layers.get(layer, 0))
        return self._known[layer]

    def read(self, layer: str, keys: Sequence[str]) -> Rows:
        if n_missing := int((self.known(layer).numbers(keys) < 0).sum()):
            raise CacheError(
                f"{self.path}: {n_missing} of {len(keys)} images have no row in layer '{layer}'. Run tlfeat extract "
                f"--shard again for all shards, and tlfeat cache join {self.path}."
            )
        rows: Rows = np.empty((len(keys), self.layers[layer][1]), np.float32)
        for table, at, numbers in self._of_tables(layer, keys):
            rows[at] = table.numbered(numbers)
        return rows

    def read_sound(self, layer: str, keys: Sequence[str]) -> tuple[Stored, npt.NDArray[np.bool_]]:
        parts = [(at, table.read_sound([keys[i] for i in at])) for table, at, _ in self._of_tables(layer, keys)]
        rows = np.concatenate([stored for _, (stored, _) in parts])
        is_sound = np.concatenate([sound for _, (_, sound) in parts])
        back = np.argsort(np.concatenate([at for at, _ in parts]))
        return rows[back], is_sound[back]

    def _numbered(self, layer: str) -> list[RowTable]:
        """The tables in the order in which their rows are numbered: of a key that is in two the last one counts."""
        return self.row_tables(layer)[::-1]

    def _of_tables(
        self, layer: str, keys: Sequence[str]
    ) -> list[tuple[RowTable, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Return the tables that hold rows of `keys`, each with positions in `keys` and the numbers of its rows."""
        tables = self._numbered(layer)
        starts = np.array([0, *accumulate(table.n_rows for table in tables)])
        numbers = self.known(layer).numbers(keys)
        of_table = np.searchsorted(starts, numbers, side="right") - 1
        found = [(int(t), np.flatnonzero(of_table == t)) for t in np.unique(of_table)]
        return [(tables[t], at, numbers[at] - starts[t]) for t, at in found]

    @cached_property
    def _table(self) -> ImageTable:
        tables = [_embedded(file.table) for file in self._files]
        give_back_memory()
        of_images = ("paths", "labels", "splits", "groups", "domains")
        images: dict[str, Any] = {name: Chained([getattr(each.images, name) for each in tables]) for name in of_images}
        columns = ("keys", "status", "errors", "sizes", "mtimes_ns")
        others: dict[str, Any] = {name: Chained([getattr(each, name) for each in tables]) for name in columns}
        return ImageTable(replace(tables[0].images, **images), **others)

    @property
    def table(self) -> ImageTable:
        return self._table

    def verify(self) -> list[str]:
        problems = [f"{file.path.name}: {problem}" for file in self._files for problem in file.verify()]
        for shard, file in zip(self._manifest.shards, self._files, strict=True):
            problems += [
                f"{shard.file}: layer '{name}' has other keys than when it was joined"
                for name, layer in shard.layers.items()
                if digest_of(file.row_table(name).keys()) != layer.keys
            ]
        return problems


def open_shards(path: StrPath) -> ShardedCache:
    """Open the shards of a manifest.

    Raises
    ------
    CacheError
        A shard has gone, or has other rows than when it was joined.
    FingerprintError
        A shard is of another encoder by now.
    """
    manifest = read_manifest(path)
    allow_open_files(2 * len(manifest.shards))
    paths = [manifest.folder / shard.file for shard in manifest.shards]
    if gone := next((path for path in paths if not path.exists()), None):
        raise CacheError(f"{gone} has gone, and the manifest names it. {_again(manifest)}")
    with contextlib.ExitStack() as opened:
        with ThreadPoolExecutor(n_cores()) as pool:  # each is looked through by a process of its own
            opening = [pool.submit(open_file, path, is_writable=False) for path in paths]
        files = [opened.enter_context(CacheFile(one.result())) for one in opening if one.exception() is None]
        for one in opening:
            one.result()  # raises what was wrong with it, after the others are in the hands of `opened`
        for shard, file in zip(manifest.shards, files, strict=True):
            first = files[0].source
            check_shard(file.path, file.fingerprint, file.source, manifest.folder, manifest.fingerprint, first)
            if file.layers != {name: (layer.rows, layer.width) for name, layer in shard.layers.items()}:
                raise CacheError(f"{file.path} has other rows than when it was joined. {_again(manifest)}")
        opened.pop_all()
    return ShardedCache(manifest, files)


def _embedded(table: ImageTable) -> ImageTable:
    """Return the packed table of a shard without what is pending."""
    return (table.without("pending") if table.count("pending") else table).packed()


def _again(manifest: Manifest) -> str:
    return f"Join again, nothing is copied: tlfeat cache join {manifest.folder}"
