"""Mend a damaged cache: drop what is wrong, or carry what is sound over to a new file."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import h5py

from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.checks import attribute, document, foreign_names, h5_errors, in_child, layer_datasets
from tlfeat.cache.hdf5_file import Hdf5File
from tlfeat.cache.journal import JournalledFile, journal_of
from tlfeat.cache.manifest import is_manifest, read_manifest
from tlfeat.cache.path_table import drop_path_table, read_path_table
from tlfeat.cache.reader import NO_TIMING
from tlfeat.cache.row_table import RowTable
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.cache.verify import describe_bad_rows, find_bad_rows, row_problems, strangers
from tlfeat.errors import CacheDamaged, CacheError
from tlfeat.types import ROW_TYPES
from tlfeat.workspace import remove_leftovers, sync_folder

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
    if is_manifest(path):
        manifest = read_manifest(path)
        of_shards = ((shard.file, repair_cache(manifest.folder / shard.file)) for shard in manifest.shards)
        return [f"{name}: {what}" for name, dropped in of_shards for what in dropped]
    if not path.is_file():
        open_cache(path)  # says what it is instead
    repair = partial(_repair_in_place, path)
    try:
        return list(in_child(path, repair, patience=_REPAIR_PATIENCE))
    except CacheDamaged as damage:
        return _salvage(path, damage)


def _repair_in_place(path: Path) -> list[str]:
    """Rows keep their order but for the last ones, which move to where bad ones were.

    Images that then have no row stay in the path table.
    """
    with open_cache(path, writable=True) as cache:
        dropped = []
        for layer in cache.layers:
            table = cache.row_table(layer)
            bad, sentences = row_problems(table)
            if sentences:
                with cache.changing():
                    table.drop(bad)
            dropped += sentences
        return [*dropped, *_drop_foreign(cache), *_drop_damaged_path_table(cache)]


def _drop_foreign(cache: CacheFile) -> list[str]:
    with cache.changing() as file:
        sentences = strangers(file)
        for name in foreign_names(file):
            parent, _, last = name.rpartition("/")
            if last.startswith("@"):
                del file[parent or "/"].attrs[last[1:]]
            else:
                del file[name]
    return sentences


def _drop_damaged_path_table(cache: CacheFile) -> list[str]:
    try:
        _ = cache.table
    except CacheError as error:
        with cache.changing() as file:
            return [str(error)] * drop_path_table(file)
    return []


def _salvage(path: Path, damage: CacheDamaged) -> list[str]:
    remove_leftovers(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.salvaged")
    damaged = path.with_name(f"{path.name}.damaged")
    try:
        with h5_errors(path), JournalledFile(path, is_writable=True) as journal:
            try:
                copy, alone = partial(_copy_sound, path, journal, aside), partial(_copy_alone, path, aside)
                lost = in_child(path, copy, alone, patience=_REPAIR_PATIENCE)
            except CacheDamaged as error:
                lost = [str(error)]
            if not _n_rows_of(aside):
                raise CacheError(f"{damage} Nothing in it can be kept: delete it and run tlfeat extract again.")
            damaged.unlink(missing_ok=True)
            try:
                os.link(path, damaged)
            except OSError:
                shutil.copyfile(path, damaged)  # a file system without hard links
            try:
                aside.replace(path)
            except PermissionError:  # Windows replaces nothing that is open
                journal.close()
                aside.replace(path)
            sync_folder(path.parent)
    finally:
        for leftover in (aside, journal_of(aside)):
            leftover.unlink(missing_ok=True)
    return [f"{damage} It is kept as {damaged.name}.", *lost]


def _copy_alone(path: Path, to: Path) -> list[str]:
    with JournalledFile(path, is_locked=False) as journal:  # who asks for it holds the lock
        return _copy_sound(path, journal, to)


def _n_rows_of(path: Path) -> int:
    if not path.exists():
        return 0
    with open_cache(path, writable=True) as cache:
        return sum(n for n, _ in cache.layers.values())


def _copy_sound(path: Path, journal: JournalledFile, to: Path) -> list[str]:
    """Write what can be read with the right checksum to a new cache; return what is lost."""
    with h5_errors(path), h5py.File(journal, "r") as content:
        old = Hdf5File(path, content, journal)
        fingerprint, source = (document(path, content, name) for name in ("fingerprint", "source"))
        row_type = ROW_TYPES[fingerprint.get("dtype", "float32")]
        is_compressed = attribute(content, "compression") == "gzip"
        with create_cache(to, fingerprint, source, is_compressed=is_compressed) as new:
            lost = _copy_layers(old, row_type, new)
            try:
                with old.guard():
                    images = read_path_table(path, content)
                new.write_table(images)
                new.write_document("environment", document(path, content, "environment"))
                new.write_document("timing", {**NO_TIMING, **document(path, content, "timing")})
            except CacheError as error:
                lost.append(str(error))
    return lost


def _copy_layers(old: Hdf5File, row_type: str, new: CacheFile) -> list[str]:
    layers, lost = old.content["layers"], []
    version = int(old.content.attrs["format_version"])
    for layer in layers:
        try:
            with old.guard():
                layer_datasets(old.path, old.content, layer, row_type)  # plain datasets, no links to elsewhere
            lost += _copy_rows(RowTable(layers, layer, version, old.guard), new)
        except CacheDamaged as error:
            lost.append(f"layer '{layer}': {error}")
        new.commit()
    return lost


def _copy_rows(table: RowTable, to: CacheFile) -> list[str]:
    """Append the sound rows to another cache; return what is wrong with the others."""
    found = find_bad_rows(table)
    bad = {number for numbers in found.values() for number in numbers}
    for start in range(0, table.n_rows, table.chunk_rows):
        stop = min(start + table.chunk_rows, table.n_rows)
        good = [number - start for number in range(start, stop) if number not in bad]
        if good:
            keys, _ = table.keys_and_checksums(start, stop)
            to.append({table.layer: table.stored(start, stop)[good]}, [key.tobytes().hex() for key in keys[good]])
    return describe_bad_rows(table.layer, found)
