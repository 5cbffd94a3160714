"""Looks for damage in a cache, and mends it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from tlfeat.cache.checks import attribute, h5_errors, in_child
from tlfeat.cache.journal import JournalledFile, journal_of, sync_folder
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.errors import CacheDamaged, CacheError

#: Repairing reads and may write everything, where opening only looks at the indexes.
_REPAIR_PATIENCE = 10


def repair_cache(path: Path) -> list[str]:
    """Drop what is wrong in a cache and return what that was, one sentence each; empty where it was sound.

    Where it cannot be opened at all, whatever has the right checksum goes to a new file in its place, and the damaged
    one is kept as ``FILE.h5.damaged``.

    Raises
    ------
    CacheError
        Nothing can be kept.
    """
    if not path.is_file():
        open_cache(path)  # says what it is instead
    try:
        return list(in_child(path, lambda: _repair(path), patience=_REPAIR_PATIENCE))
    except CacheDamaged as damage:
        return _salvage(path, damage)


def _repair(path: Path) -> list[str]:
    with open_cache(path, writable=True) as cache:
        return cache.repair()


def _salvage(path: Path, damage: CacheDamaged) -> list[str]:
    aside = path.with_name(f".{path.name}.{os.getpid()}.salvaged")
    damaged = path.with_name(f"{path.name}.damaged")
    try:
        with h5_errors(path), JournalledFile(path, is_writable=True) as journal:
            try:
                lost = in_child(path, lambda: _copy_sound(path, journal, aside), patience=_REPAIR_PATIENCE)
            except CacheDamaged as error:
                lost = [str(error)]
            if not _n_rows_of(aside):
                raise CacheError(f"{damage} Nothing in it can be kept: delete it and run tlfeat extract again.")
            damaged.unlink(missing_ok=True)
            try:
                os.link(path, damaged)
            except OSError:
                path.rename(damaged)  # a file system without hard links
            aside.replace(path)
            sync_folder(path.parent)
    finally:
        for leftover in (aside, journal_of(aside)):
            leftover.unlink(missing_ok=True)
    return [f"{damage} It is kept as {damaged.name}.", *lost]


def _n_rows_of(path: Path) -> int:
    if not path.exists():
        return 0
    with open_cache(path, writable=True) as cache:
        return sum(n for n, _ in cache.layers.values())


def _copy_sound(path: Path, journal: JournalledFile, to: Path) -> list[str]:
    """Write what can be read with the right checksum to a new cache; return what is lost."""
    lost = []
    with h5_errors(path), h5py.File(journal, "r") as file:
        old = Cache(path, file, journal)
        is_compressed = attribute(file, "compression") == "gzip"
        with create_cache(to, old.fingerprint, old.source, is_compressed=is_compressed) as new:
            for layer in file["layers"]:
                try:
                    lost += old._copy_layer(layer, new)
                except CacheDamaged as error:
                    lost.append(f"layer '{layer}': {error}")
                new.commit()
            try:
                new.write_table(old.table)
                new.write_document("environment", old.environment)
                new.write_document("timing", old.timing)
            except CacheError as error:
                lost.append(str(error))
    return lost
