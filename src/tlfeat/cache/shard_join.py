"""Shards in a folder become one cache: their manifest is written, and nothing is copied."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.hdf5_file import open_file
from tlfeat.cache.manifest import FORMAT, VERSION, Manifest, ShardFile, ShardLayer, check_shard, listed
from tlfeat.errors import CacheError
from tlfeat.images.decode import n_cores
from tlfeat.images.shards import Shard, shard_named
from tlfeat.text import counted
from tlfeat.types import OnProgress, StrPath, silent
from tlfeat.workspace import MANIFEST

#: The first eight bytes of keys, shape (n_rows,), sorted.
Beginnings = npt.NDArray[np.uint64]

#: Keys that are read at a time.
_STEP = 1 << 17

#: Stretches of all beginnings that are looked through one by one: a 64th of them is in memory twice.
_N_STRETCHES = 64


@dataclass(frozen=True, slots=True)
class _Read:
    """What one shard says of itself."""

    path: Path
    fingerprint: dict[str, Any]
    source: dict[str, Any]
    status: Counter[str] | None
    layers: dict[str, ShardLayer]
    beginnings: dict[str, Beginnings]


def join_shards(folder: StrPath, *, is_partial: bool = False, on_progress: OnProgress = silent) -> Manifest:
    """Write the manifest of the shards in a folder; nothing is copied, and what was extracted since counts.

    Parameters
    ----------
    folder : str or path
    is_partial : bool, default=False
        Join what is there, where shards are missing or not finished.

    Raises
    ------
    CacheError
        No shards, shards of two sets, missing or unfinished ones.
    FingerprintError
        Two shards were made by different encoders.
    """
    folder = Path(folder)
    named = _find(folder)
    read: list[_Read] = []
    with ThreadPoolExecutor(n_cores()) as pool:
        for shard in pool.map(lambda each: _read(each[1]), named):
            on_progress("joining", len(read), len(named))
            read.append(shard)
        first, n_shards = read[0], named[0][0].n_shards
        for one in read:
            check_shard(one.path, one.fingerprint, one.source, first.path, first.fingerprint, first.source)
        numbers = [shard.number for shard, _ in named]
        unfinished = [
            str(shard)
            for (shard, _), one in zip(named, read, strict=True)
            if one.status is None or one.status["pending"]
        ]
        notes = _check_all_there(folder, n_shards, numbers, unfinished, is_partial=is_partial)
        layers = _count_layers(read, pool)
    on_progress("joining", len(named), len(named))
    shards = [ShardFile(one.path.name, one.status["ok"] if one.status else 0, one.layers) for one in read]
    manifest = Manifest(folder, first.fingerprint, n_shards, layers, shards, notes)
    if not manifest.n_images:
        raise CacheError(f"No image of the shards in {folder} has a row. Run their tlfeat extract again.")
    workspace.write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "format_version": VERSION,
            "fingerprint": manifest.fingerprint,
            "n_shards": n_shards,
            "layers": layers,
            "shards": [asdict(shard) for shard in shards],
        },
    )
    workspace.make_newest(folder)
    return manifest


def _find(folder: Path) -> list[tuple[Shard, Path]]:
    """Return the shards in a folder, in order of their numbers; an error where there are none, or those of two sets."""
    if not folder.is_dir():
        raise CacheError(f"{folder} is no folder. {_advice(folder)}")
    found = sorted(
        ((shard, path) for path in folder.iterdir() if (shard := shard_named(path.name))),
        key=lambda each: (each[0].n_shards, each[0].number),
    )
    if not found:
        raise CacheError(f"No shard in {folder}. {_advice(folder)}")
    if len(counts := sorted({shard.n_shards for shard, _ in found})) > 1:
        raise CacheError(
            f"{folder} holds shards of different cuts, into {' and into '.join(map(str, counts))}: an image would be "
            f"in two of them. Keep each cut in a folder of its own."
        )
    return found


def _advice(folder: Path) -> str:
    return f"Make the first of 64 shards with: tlfeat extract DATA --shard 1/64 --cache {folder}"


def _check_all_there(
    folder: Path, n_shards: int, numbers: Sequence[int], unfinished: Sequence[str], *, is_partial: bool
) -> list[str]:
    """Return what is to be said of shards that are missing or not finished; an error unless that is wanted."""
    missing = [str(Shard(number, n_shards)) for number in range(1, n_shards + 1) if number not in set(numbers)]
    said = [
        f"{counted(len(which), 'shard')} of {n_shards:,} {'is' if len(which) == 1 else 'are'} {what} ({listed(which)})"
        for which, what in ((missing, "missing"), (unfinished, "not finished"))
        if which
    ]
    if said and not is_partial:
        raise CacheError(
            f"{folder}: {'; '.join(said)}. Run tlfeat extract --shard for each, it goes on where it stopped; or join "
            f"what is there with --partial."
        )
    return said


def _read(path: Path) -> _Read:
    with CacheFile(open_file(path, is_writable=False, has_rows=False)) as cache:
        layers, beginnings = {}, {}
        for name in cache.layers:
            layers[name], beginnings[name] = _read_layer(cache, name)
        return _Read(path, cache.fingerprint, cache.source, cache.count_status(), layers, beginnings)


def _read_layer(cache: CacheFile, name: str) -> tuple[ShardLayer, Beginnings]:
    """Return what the manifest says of a layer, and the beginnings of its keys."""
    table = cache.row_table(name)
    digest, found = hashlib.sha256(), np.empty(table.n_rows, np.uint64)
    for start in range(0, table.n_rows, _STEP):
        keys = table.keys(start, min(start + _STEP, table.n_rows))  # (n, 32)
        digest.update(keys.data)
        found[start : start + len(keys)] = keys.view("<u8")[:, 0]
    found.sort()
    return ShardLayer(len(found), table.width, digest.hexdigest()), found


def _count_layers(read: Sequence[_Read], pool: ThreadPoolExecutor) -> dict[str, int]:
    """Return the distinct keys of each layer; layers with the same keys in every shard are counted once."""
    counts: dict[tuple[str, ...], int] = {}
    found = {}
    for name in sorted({name for one in read for name in one.layers}):
        holding = [one for one in read if name in one.layers]
        digests = tuple(f"{one.path.name} {one.layers[name].keys}" for one in holding)
        if digests not in counts:
            counts[digests] = _count_distinct(holding, name, pool)
        found[name] = counts[digests]
    return found


def _count_distinct(read: Sequence[_Read], name: str, pool: ThreadPoolExecutor) -> int:
    """Return how many different keys a layer has: those that begin alike are looked at whole, and they are rare."""
    parts = [one.beginnings[name] for one in read]
    n = sum(map(len, parts))
    found = list(pool.map(lambda at: _repeated(_stretch(part, at) for part in parts), range(_N_STRETCHES)))
    repeated = np.concatenate(found)
    if not len(repeated):
        return n
    whole: set[bytes] = set()
    n_whole = 0
    for one in read:
        with CacheFile(open_file(one.path, is_writable=False, has_rows=False)) as cache:
            keys = cache.row_table(name).keys()
        at = np.flatnonzero(np.isin(keys.view("<u8")[:, 0], repeated))
        whole.update(key.tobytes() for key in keys[at])
        n_whole += len(at)
    return n - n_whole + len(whole)


def _stretch(beginnings: Beginnings, number: int) -> Beginnings:
    size = (1 << 64) // _N_STRETCHES
    low, high = np.uint64(number * size), np.uint64(number * size + size - 1)
    return beginnings[np.searchsorted(beginnings, low) : np.searchsorted(beginnings, high, side="right")]


def _repeated(parts: Iterable[Beginnings]) -> Beginnings:
    """Return the values that are there more than once, each once."""
    together = np.concatenate(list(parts))
    together.sort()
    return np.unique(together[1:][together[1:] == together[:-1]])
