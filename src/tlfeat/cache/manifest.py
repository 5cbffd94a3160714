"""Shards of one set in a folder, each an ordinary cache, become one: a manifest names them, and nothing is copied.

::

    shards/shard-00001-of-00064.h5 ...
    shards/manifest.json   fingerprint, rows of each layer, and of each shard its file, images, rows and digest of keys
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tlfeat import workspace
from tlfeat.cache.verify import differing_values
from tlfeat.documents import misfit
from tlfeat.errors import CacheDamaged, CacheError, DataError, FingerprintError
from tlfeat.images.shards import shard_named
from tlfeat.text import one_line
from tlfeat.types import StrPath
from tlfeat.workspace import MANIFEST

FORMAT, VERSION = "tlfeat-shards", 1

#: Of 10,000 shards with ten layers.
_MAX_BYTES = 64 << 20

_MAX_NAMED = 8

#: What of a cache's source may differ between shards: where the images lie on the machine that read them.
_PLACES = ("root", "source")


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
        raise CacheError(f"{folder} is a folder without shards, not a cache.") from None
    except DataError as error:
        raise CacheDamaged(str(error)) from error
    if wrong := misfit(found, _Document, MANIFEST):
        raise CacheDamaged(f"{file} is damaged: {wrong}.")
    if (found["format"], found["format_version"]) != (FORMAT, VERSION):
        raise CacheError(f"{file} is of format {found['format']} {found['format_version']}, expected {VERSION}.")
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
    notes = [f"{listed(added)} in {folder}: not joined (tlfeat cache join {folder})"] if added else []
    return Manifest(folder, found["fingerprint"], found["n_shards"], found["layers"], shards, notes)


def check_shard(
    path: Path,
    fingerprint: Mapping[str, Any],
    source: Mapping[str, Any],
    first: Path,
    of_first: Mapping[str, Any],
    source_of_first: Mapping[str, Any],
) -> None:
    """Raise where a shard is not of the same encoder, or was not read in the same way, as the first one."""
    if fingerprint != of_first:
        raise FingerprintError(
            f"{first} and {path} hold rows of different encoders. Differing: "
            f"{differing_values(of_first, fingerprint)}. Extract all shards with one encoder."
        )
    one, other = (
        {name: value for name, value in each.items() if name not in _PLACES} for each in (source_of_first, source)
    )
    if one != other:
        raise CacheError(
            f"{first} and {path} were read in different ways. Differing: {differing_values(one, other)}. Run "
            f"the tlfeat extract of all shards with the same options; embeddings are reused."
        )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _LayerDocument.__annotations__}


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
