"""Caches are made and opened here, by their path: one file, or a folder of shards."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from tlfeat.cache.cache_file import CacheFile, as_attribute
from tlfeat.cache.checks import FORMAT, FORMAT_VERSION
from tlfeat.cache.hdf5_file import create_file, open_file
from tlfeat.cache.manifest import is_manifest, read_manifest
from tlfeat.cache.reader import Cache
from tlfeat.cache.sharded import open_shards
from tlfeat.cache.verify import encoder_difference
from tlfeat.errors import CacheError, FingerprintError
from tlfeat.records import Environment
from tlfeat.types import ROW_TYPES, StrPath


def create_cache(
    path: Path, fingerprint: Mapping[str, Any], source: Mapping[str, Any], *, is_compressed: bool = False
) -> CacheFile:
    """Create an empty cache and open it for writing; it appears under its name only when it is whole.

    Parameters
    ----------
    path : Path
    fingerprint : mapping
        Its `dtype`, "float32" or "float16", is how rows are stored; `Cache.read` gives float32 always.
    source : mapping
        See `Cache.source`.
    is_compressed : bool, default=False
        Store rows with gzip.
    """
    if fingerprint.get("dtype", "float32") not in ROW_TYPES:
        raise CacheError(f"Rows are stored as {' or '.join(ROW_TYPES)}, not as {fingerprint['dtype']}.")
    attributes: dict[str, Any] = {
        "format": np.bytes_(FORMAT),
        "format_version": FORMAT_VERSION,
        "fingerprint": as_attribute(fingerprint),
        "environment": as_attribute(Environment.current().to_dict()),
        "source": as_attribute(source),
    }
    if is_compressed:
        attributes["compression"] = np.bytes_("gzip")
    create_file(path, attributes)
    return open_cache(path, writable=True)


@overload
def open_cache(
    path: StrPath, *, writable: Literal[False] = False, fingerprint: Mapping[str, Any] | None = None
) -> Cache: ...
@overload
def open_cache(
    path: StrPath, *, writable: Literal[True], fingerprint: Mapping[str, Any] | None = None
) -> CacheFile: ...
def open_cache(path: StrPath, *, writable: bool = False, fingerprint: Mapping[str, Any] | None = None) -> Cache:
    """Open a cache and check that it is one.

    Parameters
    ----------
    path : str or path
        Of the file; to read, of a folder of shards, too, or of its manifest.
    writable : bool, default=False
        Only one process can have it open for writing, and none beside it for reading.
    fingerprint : mapping, optional
        Raise `FingerprintError` unless the cache has exactly this one.
    """
    path = Path(path)
    if not path.exists():
        raise CacheError(f"No cache at {path}. Make one with: tlfeat extract DATA --cache {path}")
    if writable and is_manifest(path):
        read_manifest(path)  # or it is no cache at all
        raise CacheError(
            f"{path} is made of shards, and each is written by itself: tlfeat extract DATA --shard 1/64 --cache {path}"
        )
    with contextlib.ExitStack() as opened:
        cache: Cache
        if is_manifest(path):
            cache = opened.enter_context(open_shards(path))
        else:
            cache = CacheFile(opened.enter_context(open_file(path, is_writable=writable)))
        if fingerprint is not None and cache.fingerprint != dict(fingerprint):
            raise FingerprintError(encoder_difference(path, cache.fingerprint, fingerprint))
        opened.pop_all()
    return cache
