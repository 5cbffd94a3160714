"""Shards of one set in a folder, each an ordinary cache, become one: a manifest names them, and nothing is copied.

::

    shards/shard-00001-of-00064.h5 ...
    shards/manifest.json   fingerprint, rows of each layer, and of each shard its file, images, rows and digest of keys
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.hdf5_file import open_file
from tlfeat.cache.row_table import digest_of
from tlfeat.cache.verify import differing_values
from tlfeat.documents import misfit
from tlfeat.errors import CacheDamaged, CacheError, DataError, FingerprintError
from tlfeat.images.shards import Shard, shard_named
from tlfeat.text import counted, one_line
from tlfeat.types import OnProgress, StrPath, silent
from tlfeat.workspace import MANIFEST

_FORMAT, _VERSION = "tlfeat-shards", 1

#: Of 10,000 shards with ten layers.
_MAX_BYTES = 64 << 20

_MAX_NAMED = 8

#: What of a cache's source may differ between shards: where the images lie on the machine that read them.
_PLACES = ("root", "source")

#: The first eight bytes of keys, shape (n_rows,).
Prefixes = npt.NDArray[np.uint64]


class _LayerDocument(TypedDict):
    rows: int
    width: int
    keys: str


class _ShardDocument(TypedDict):
    file: str
    images: int
    layers: dict[str, _LayerDocument]


class _Document(TypedDict):
    format: str
    format_version: int
    fingerprint: dict[str, Any]
    n_shards: int
    layers: dict[str, int]
    shards: list[_ShardDocument]


@dataclass(frozen=True, slots=True)
class ShardLayer:
    """One layer of one shard: rows, columns, and the sha256 of its keys in the order of the rows."""

    rows: int
    width: int
    keys: str


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One shard: the name of its file, its images that have rows, and its layers by name."""

    file: str
    images: int
    layers: dict[str, ShardLayer]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `join_shards` wrote.

    Attributes
    ----------
    folder : Path
    fingerprint : dict
    n_shards : int
        Into how many the set was cut; with ``is_partial`` some of them are not there.
    layers : dict of str to int
        Distinct keys of each layer: one that is in two shards counts once.
    shards : list of ShardFile
        In order of their numbers.
    notes : list of str
        What the user should know of the shards.
    """

    folder: Path
    fingerprint: dict[str, Any]
    n_shards: int
    layers: dict[str, int]
    shards: list[ShardFile]
    notes: list[str]

    @property
    def n_images(self) -> int:
        """Images of all shards that have rows."""
        return sum(shard.images for shard in self.shards)


def is_manifest(path: Path) -> bool:
    """Whether a path is that of a folder of shards, or of its manifest."""
    return path.is_dir() or path.name == MANIFEST


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
    shards: list[ShardFile] = []
    prefixes: dict[str, list[Prefixes]] = {}
    unfinished: list[str] = []
    first: tuple[Path, dict[str, Any], dict[str, Any]] | None = None
    for n_done, (shard, path) in enumerate(named):
        on_progress("joining", n_done, len(named))
        with CacheFile(open_file(path, is_writable=False)) as cache:
            first = first or (path, cache.fingerprint, cache.source)
            check_shard(cache, *first)
            status = cache.count_status()
            if status is None or status["pending"]:
                unfinished.append(str(shard))
            held = {name: _read_layer(cache, name, prefixes.setdefault(name, [])) for name in cache.layers}
            shards.append(ShardFile(path.name, status["ok"] if status else 0, held))
    on_progress("joining", len(named), len(named))
    n_shards = named[0][0].n_shards
    notes = _check_all_there(folder, n_shards, [shard.number for shard, _ in named], unfinished, is_partial=is_partial)
    layers = _count_layers(folder, shards, prefixes)
    manifest = Manifest(folder, first[1] if first else {}, n_shards, layers, shards, notes)
    if not manifest.n_images:
        raise CacheError(f"No image of the shards in {folder} has a row. Run their tlfeat extract again.")
    workspace.write_json(
        folder / MANIFEST,
        {
            "format": _FORMAT,
            "format_version": _VERSION,
            "fingerprint": manifest.fingerprint,
            "n_shards": n_shards,
            "layers": layers,
            "shards": [asdict(shard) for shard in shards],
        },
    )
    workspace.make_newest(folder)
    return manifest


def read_manifest(path: StrPath) -> Manifest:
    """Return the manifest of a folder of shards, or of its file; it may be somebody else's.

    Raises
    ------
    CacheError
        There is none.
    CacheDamaged
        It is not what `join_shards` writes, or names a file that is no shard in its folder.
    """
    path = Path(path)
    folder = path.parent if path.name == MANIFEST else path
    file = folder / MANIFEST
    try:
        found = workspace.read_json(file, max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        if any(shard_named(each.name) for each in folder.iterdir()):
            raise CacheError(f"{folder} holds shards that are not joined: tlfeat cache join {folder}") from None
        raise CacheError(f"{folder} is not a file at all, but a folder without shards.") from None
    except DataError as error:
        raise CacheDamaged(str(error)) from error
    if wrong := misfit(found, _Document, MANIFEST):
        raise CacheDamaged(f"{file} is damaged: {wrong}.")
    if (found["format"], found["format_version"]) != (_FORMAT, _VERSION):
        raise CacheError(f"{file} is of format {found['format']} {found['format_version']}, expected {_VERSION}.")
    for each in found["shards"]:
        shard = shard_named(each["file"])
        if shard is None or shard.n_shards != found["n_shards"]:
            raise CacheDamaged(
                f"{file}: '{one_line(each['file'])}' is no shard of {found['n_shards']:,} in its folder."
            )
    shards = [
        ShardFile(each["file"], each["images"], {name: ShardLayer(**_known(of)) for name, of in each["layers"].items()})
        for each in found["shards"]
    ]
    if len({shard.file for shard in shards}) != len(shards) or not shards:
        raise CacheDamaged(f"{file} names a shard twice, or none.")
    added = sorted(p.name for p in folder.iterdir() if shard_named(p.name) and p.name not in {s.file for s in shards})
    notes = [f"{_listed(added)} in {folder}: not joined (tlfeat cache join {folder})"] if added else []
    return Manifest(folder, found["fingerprint"], found["n_shards"], found["layers"], shards, notes)


def check_shard(cache: CacheFile, first: Path, fingerprint: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Raise where a shard is not of the same encoder, or was not read in the same way, as the first one."""
    if cache.fingerprint != fingerprint:
        raise FingerprintError(
            f"{first} and {cache.path} hold rows of different encoders. Differing: "
            f"{differing_values(fingerprint, cache.fingerprint)}. Extract all shards with one encoder."
        )
    one, other = (
        {name: value for name, value in each.items() if name not in _PLACES} for each in (source, cache.source)
    )
    if one != other:
        raise CacheError(
            f"{first} and {cache.path} were read in different ways. Differing: {differing_values(one, other)}. Run "
            f"the tlfeat extract of all shards with the same options; embeddings are reused."
        )


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
        f"{counted(len(which), 'shard')} of {n_shards:,} {'is' if len(which) == 1 else 'are'} {what} ({_listed(which)})"
        for which, what in ((missing, "missing"), (unfinished, "not finished"))
        if which
    ]
    if said and not is_partial:
        raise CacheError(
            f"{folder}: {'; '.join(said)}. Run tlfeat extract --shard for each, it goes on where it stopped; or join "
            f"what is there with --partial."
        )
    return said


def _read_layer(cache: CacheFile, name: str, prefixes: list[Prefixes]) -> ShardLayer:
    """Return what the manifest says of a layer, and add the first eight bytes of each key to `prefixes`."""
    table = cache.row_table(name)
    keys = table.keys()  # (n, 32)
    prefixes.append(keys.view("<u8")[:, 0].copy())
    return ShardLayer(len(keys), table.width, digest_of(keys))


def _count_layers(folder: Path, shards: Sequence[ShardFile], prefixes: dict[str, list[Prefixes]]) -> dict[str, int]:
    """Return the distinct keys of each layer; layers with the same keys in every shard are counted once."""
    counts: dict[tuple[str, ...], int] = {}
    found = {}
    for name, parts in prefixes.items():
        digests = tuple(shard.layers[name].keys if name in shard.layers else "" for shard in shards)
        if digests not in counts:
            counts[digests] = _count_distinct(folder, shards, name, parts)
        found[name] = counts[digests]
    return found


def _count_distinct(folder: Path, shards: Sequence[ShardFile], name: str, parts: list[Prefixes]) -> int:
    """Return how many different keys a layer has: equal beginnings are looked at whole, and they are rare."""
    ordered = np.sort(np.concatenate(parts))
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return len(ordered)
    whole: set[bytes] = set()
    n_whole = 0
    for shard, part in zip([each for each in shards if name in each.layers], parts, strict=True):
        at = np.flatnonzero(np.isin(part, repeated))
        if len(at):
            with CacheFile(open_file(folder / shard.file, is_writable=False)) as cache:
                keys = cache.row_table(name).keys()
            whole.update(key.tobytes() for key in keys[at])
            n_whole += len(at)
    return len(ordered) - n_whole + len(whole)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _LayerDocument.__annotations__}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
