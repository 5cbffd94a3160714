"""The HDF5 cache: format, fingerprint, keys, rows, append, resume, verify, read.

docs/cache-format.md writes the format out. In short::

    /            attributes format, format_version, fingerprint, environment, source, timing (JSON)
    /images/     the path table: one entry an image of the data set, replaced whole when the set changes
    /layers/L/   the row table of one layer: rows, keys, crc32 and n_rows, only ever appended to

HDF5 writes into a `JournalledFile`, whose `commit` changes the file on the disk all or not at all: a killed writer,
a power cut or a full disk leaves the file as the last commit left it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.cache.checks import (
    FORMAT,
    FORMAT_VERSION,
    HDF5_MAGIC,
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    attribute,
    check_structure,
    document,
    foreign_names,
    h5_errors,
    in_child,
    is_complete,
    layer_datasets,
)
from tlfeat.cache.journal import JournalledFile, journal_of, sync_folder
from tlfeat.errors import CacheDamaged, CacheError, CacheLocked, FingerprintError
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.records import Environment
from tlfeat.text import counted
from tlfeat.types import ROW_TYPES, Rows

#: A chunk of rows has at most this many, and as few as keep it inside HDF5's chunk cache of 1 MiB.
_CHUNK_ROWS, _CHUNK_BYTES = 64, 1 << 20

#: Read at once: few wide rows that lie far apart do not make the whole file be read.
_BLOCK_BYTES = 16 << 20

#: Lines of the path table in one chunk.
_CHUNK_TABLE = 8192

#: Keys and checksums are small; larger chunks keep their index short.
_CHUNK_KEYS = 1024

#: `append` commits when this much waits (it is held in memory, and goes through the journal in one piece) ...
_COMMIT_BYTES = 16 << 20

#: ... or this long after the last commit: what a kill can cost, against two waits for the disk.
_COMMIT_S = 1.0

#: Left free on the disk by `append` and `reserve`, for HDF5's own bookkeeping.
_SPARE_BYTES = 4 << 20

#: HDF5 1.8's file format: checksummed headers, readable by every HDF5 since, no flag that a killed writer leaves set.
_LIBVER = ("v108", "v108")

_STATUS = {"ok", "failed", "pending"}

_KEY = re.compile("([0-9a-f]{64})?")


class Cache:
    """One open cache file. Use `open_cache` or `create_cache`; it is a context manager.

    Raises
    ------
    CacheError
        Not a cache of this format, damaged, or the disk is full.
    CacheLocked
        Another process has it open for writing.
    """

    def __init__(self, path: Path, file: h5py.File, journal: JournalledFile) -> None:
        self.path = path
        self._file = file
        self._journal = journal
        with self._h5():
            self._version = int(file.attrs["format_version"])
            self._row_type = ROW_TYPES[self.fingerprint.get("dtype", "float32")]
        self._is_torn = False  # a change failed half-way and could not be taken back
        self._committed_s = time.monotonic()
        self._waiting: dict[str, list[tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.uint8]]]] = {}
        self._n_waiting_bytes = 0
        self._n_rows: dict[str, int] = {}  # those that wait included
        self._known: dict[str, dict[str, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit and close; of a change that failed half-way nothing is kept."""
        with self._h5():
            try:
                if self._file and self._file.mode != "r" and not self._is_torn:
                    self.commit()
            finally:
                with contextlib.suppress(Exception):
                    self._file.close()
                self._journal.close()

    def commit(self) -> None:
        """Make everything so far permanent: when it returns, no kill and no power cut takes it away."""
        with self._changing():
            self._write_waiting()
            self._file.flush()
            self._journal.commit()
        self._committed_s = time.monotonic()
        self._n_waiting_bytes = 0

    @contextlib.contextmanager
    def _h5(self) -> Iterator[None]:
        with h5_errors(self.path), _without_interrupts():
            yield
            if self._journal.failure is not None:
                raise self._journal.failure

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Take everything back to the last commit where the block fails."""
        if self._is_torn:
            raise CacheError(f"{self.path}: a change failed before; close the cache and open it again.")
        with self._h5():
            try:
                yield
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        self._is_torn = True
        self._n_rows, self._known, self._waiting, self._n_waiting_bytes = {}, {}, {}, 0
        with contextlib.suppress(Exception):
            self._file.close()
        self._journal.discard()
        self._file = h5py.File(self._journal, "r+", libver=_LIBVER)
        self._is_torn = False

    # --- what it is -------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The encoder's fingerprint; with a layer's name it says everything about that layer's rows."""
        return self._document("fingerprint")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions with which the cache was begun."""
        return self._document("environment")

    @property
    def source(self) -> dict[str, Any]:
        """How to get there again: `root` and `source` of the images, `encoder` arguments."""
        return self._document("source")

    @property
    def timing(self) -> dict[str, Any]:
        """Wall seconds summed over runs, and the images in them.

        `extract_s` is all of it, `embed_s` leaves out building the network, `n_embedded` counts forward passes;
        `runtime` is what computed the last rows.
        """
        return {"extract_s": 0.0, "embed_s": 0.0, "n_embedded": 0, **self._document("timing")}

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Layer name to (valid rows, width), in order of name."""
        return {name: (self.n_rows(name), int(self._rows(name).shape[1])) for name in self._layer_names()}

    @property
    def stem(self) -> str:
        """The file name without its ending; models and reports of this cache lie under it."""
        return self.path.stem

    # --- rows -------------------------------------------------------------------------------------------

    def n_rows(self, layer: str) -> int:
        """The number of valid rows of a layer."""
        if layer not in self._n_rows:
            with self._h5():
                self._n_rows[layer] = int(self._file["layers"][layer]["n_rows"][()])
        return self._n_rows[layer]

    def known(self, layer: str) -> dict[str, int]:
        """Content key to row number of every valid row; empty for a layer that is not there."""
        if layer not in self._known:
            found = {}
            if layer in self._layer_names():
                with self._h5():
                    keys = self._file["layers"][layer]["keys"][: self.n_rows(layer)]  # (n, 32)
                found = {key.tobytes().hex(): row for row, key in enumerate(keys)}
            self._known[layer] = found
        return self._known[layer]

    def stored(self, rows: Rows) -> npt.NDArray[np.floating[Any]]:
        """Return rows as they are stored: float16 where the fingerprint says so, in which large values are infinite."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows, dtype=self._row_type)

    def reserve(self, widths: Mapping[str, int], n_new: int) -> None:
        """Begin the layers, and see before hours of work that the disk has room for `n_new` more rows in each.

        Raises
        ------
        CacheError
            The disk has less room than the rows need; nothing was changed.
        """
        row_bytes = np.dtype(self._row_type).itemsize
        self._check_disk(sum((row_bytes * width + 36) * n_new for width in widths.values()))
        with self._changing():
            for layer, width in widths.items():
                if layer not in self._layer_names():
                    self._create_layer(layer, width)

    def append(self, rows: Mapping[str, npt.NDArray[np.floating[Any]]], keys: Sequence[str]) -> None:
        """Append one batch; `commit` makes it permanent, and so does every append that comes a second after the last.

        Parameters
        ----------
        rows : mapping of layer name to array of shape (n_images, width)
            float32, or as `stored` gave them.
        keys : sequence of str
            Content keys, one a row. A key that a layer has already, or a second time, is left out there.

        Raises
        ------
        CacheError
            The disk is full, or a value is not finite as it would be stored. Nothing of the batch was kept.
        """
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        fresh_rows = {}
        for layer, batch in rows.items():
            fresh = sorted(i for key, i in first.items() if key not in self.known(layer))
            stored = self.stored(batch[fresh])
            if not np.isfinite(stored).all():
                raise CacheError(f"{self.path}: a row for layer '{layer}' is not finite as {stored.dtype}.")
            fresh_rows[layer] = stored, [keys[i] for i in fresh]
        n_bytes = sum(stored.nbytes for stored, _ in fresh_rows.values())
        self._check_disk(n_bytes + 2 * self._n_waiting_bytes)  # what waits goes to the journal and to the file
        with self._changing():
            for layer, (stored, fresh_keys) in fresh_rows.items():
                if layer not in self._n_rows and layer not in self._layer_names():
                    self._create_layer(layer, stored.shape[1])
                start = self.n_rows(layer)
                self.known(layer).update((key, row) for row, key in enumerate(fresh_keys, start=start))
                self._n_rows[layer] = start + len(stored)
                digests = np.frombuffer(bytes.fromhex("".join(fresh_keys)), dtype=np.uint8).reshape(-1, 32)
                self._waiting.setdefault(layer, []).append((stored, digests))
        self._n_waiting_bytes += n_bytes
        if self._n_waiting_bytes >= _COMMIT_BYTES or time.monotonic() - self._committed_s >= _COMMIT_S:
            self.commit()

    def _commit_waiting(self) -> None:
        if self._waiting:
            self.commit()

    def _write_waiting(self) -> None:
        """Hand HDF5 what was appended since the last commit, in one piece: a call costs it as much as ten rows."""
        for layer, blocks in self._waiting.items():
            stored, digests = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
            stop = self.n_rows(layer)
            start = stop - len(stored)
            group = self._file["layers"][layer]
            sums = [self._checksum(row, key) for row, key in zip(stored, digests, strict=True)]
            for name, values in (("rows", stored), ("keys", digests), ("crc32", sums)):
                if stop > group[name].shape[0]:
                    group[name].resize(stop, axis=0)
                group[name][start:stop] = values
            group["n_rows"][()] = stop
        self._waiting = {}

    def _checksum(self, row: npt.NDArray[np.floating[Any]], key: npt.NDArray[np.uint8]) -> int:
        return zlib.crc32(row.data, 0 if self._version == 1 else zlib.crc32(key.data))

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
        self._commit_waiting()
        known = self.known(layer)
        try:
            numbers = np.array([known[key] for key in keys], dtype=np.int64)
        except KeyError:
            n_missing = sum(key not in known for key in keys)
            raise CacheError(
                f"{self.path}: {n_missing} of {len(keys)} images have no row in layer '{layer}'. "
                f"Run tlfeat extract again."
            ) from None
        dataset = self._rows(layer)
        rows = np.empty((len(numbers), dataset.shape[1]), dtype=np.float32)
        with self._h5():
            order = np.argsort(numbers, kind="stable")
            n_block = min(max(_BLOCK_BYTES // (dataset.shape[1] * dataset.dtype.itemsize), 1), 4096)
            for start in range(0, self.n_rows(layer), n_block):  # block by block: no second copy of all rows
                low, high = np.searchsorted(numbers[order], [start, start + n_block])
                if low < high:
                    chosen = order[low:high]
                    first, last = numbers[chosen[0]], numbers[chosen[-1]]
                    rows[chosen] = dataset[first : last + 1][numbers[chosen] - first]
        return rows

    # --- the path table -----------------------------------------------------------------------------------

    @property
    def table(self) -> ImageTable:
        """The path table; a `CacheError` where the first `extract` never got to write one."""
        with self._h5():
            # version 1 was written as /images_new first, and a writer may have died before it was renamed
            name = next((n for n in ("images_new", "images") if n in self._file and is_complete(self._file[n])), None)
            if name is None:
                raise CacheError(f"{self.path} has no table of images. Run tlfeat extract again.")
            group = self._file[name]
            text = {name: _read_text(group[name]) for name in TEXT_COLUMNS}
            numbers = {name: array("q", group[name][:].tobytes()) for name in NUMBER_COLUMNS}
        if not set(text["status"]) <= _STATUS or not all(map(_KEY.fullmatch, text["key"])):
            raise CacheDamaged(f"{self.path} is damaged: its table of images holds what is no key or status.")
        source = self.source
        images = ImageSet(
            root=Path(source.get("root", "")),
            source=Path(source.get("source", "")),
            paths=text["path"],
            labels=text["label"],
            splits=text["split"],
            groups=text["group"],
        )
        return ImageTable(images, text["key"], text["status"], text["error"], numbers["size"], numbers["mtime_ns"])

    def write_table(self, table: ImageTable) -> None:
        """Replace the path table and commit."""
        images = table.images
        columns: dict[str, Sequence[str] | Sequence[int]] = {
            "path": images.paths,
            "key": table.keys,
            "label": images.labels,
            "split": images.splits,
            "group": images.groups,
            "status": table.status,
            "error": [error[:300] for error in table.errors],
            "size": table.sizes,
            "mtime_ns": table.mtimes_ns,
        }
        self._check_disk(200 * len(images))
        with self._changing():
            for name in ("images", "images_new"):
                self._file.pop(name, None)
            group = self._file.create_group("images")
            for name, values in columns.items():
                column = group.create_dataset(
                    name,
                    (len(images),),
                    _text_type(values) if name in TEXT_COLUMNS else np.int64,
                    chunks=(min(max(len(images), 1), _CHUNK_TABLE),),
                    compression="gzip",  # paths share their beginnings: 60,000 of them take 1 MB, not 6
                    compression_opts=1,
                    fletcher32=True,
                )
                for start in range(0, len(images), _CHUNK_TABLE):  # block by block: no second copy of the table
                    block: Any = values[start : start + _CHUNK_TABLE]
                    if name in TEXT_COLUMNS:
                        block = np.array([_encoded(value) for value in block])
                    column[start : start + _CHUNK_TABLE] = block
            group.attrs["is_complete"] = True
        self.commit()

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one of the JSON attributes (`source`, `timing`)."""
        with self._changing():
            self._file.attrs[name] = _json(document)
        self.commit()

    def describe(self) -> dict[str, Any]:
        """Return what ``tlfeat cache info`` says, as JSON values."""
        table = self.table
        images = table.images
        ok = [i for i, status in enumerate(table.status) if status == "ok"]
        return {
            "cache": str(self.path),
            "bytes": self.path.stat().st_size,
            "format_version": self._version,
            "source": str(images.source),
            "fingerprint": self.fingerprint,
            "environment": self.environment,
            "layers": self.layers,
            "timing": self.timing,
            "images": {
                "status": dict(Counter(table.status)),
                "splits": dict(Counter(split for split in images.splits if split)),
                "classes": dict(sorted(Counter(images.labels[i] for i in ok if images.labels[i]).items())),
            },
            "failures": [
                {"path": images.paths[i], "reason": table.errors[i]}
                for i, status in enumerate(table.status)
                if status == "failed"
            ],
        }

    # --- verify and repair ------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Read everything and return what is wrong, one sentence each; empty is sound."""
        self._commit_waiting()
        problems = []
        for layer in self._layer_names():
            problems += self._row_problems(layer)[1]
        with self._h5():
            problems += [f"{name} is nothing that tlfeat has written" for name in foreign_names(self._file)]
        try:
            table = self.table
        except CacheError as error:
            return [*problems, str(error)]
        for layer in self._layer_names():
            known = self.known(layer)
            n_missing = sum(
                status == "ok" and key not in known for key, status in zip(table.keys, table.status, strict=True)
            )
            if n_missing:
                problems.append(f"layer '{layer}': {n_missing} images have no row; run tlfeat extract again")
        if table.count("pending"):
            problems.append(f"{table.count('pending')} images are not embedded yet; run tlfeat extract again")
        return problems

    def repair(self) -> list[str]:
        """Drop what is wrong and return what that was, one sentence each; `extract` computes it again.

        Rows keep their order but for the last ones, which move to where bad ones were. Images that then have no row
        stay in the table.
        """
        self._commit_waiting()
        dropped = []
        for layer in self._layer_names():
            bad, said = self._row_problems(layer)
            dropped += said
            if said:
                with self._changing():
                    self._drop_rows(layer, bad)
        with self._changing():
            for name in foreign_names(self._file):
                dropped.append(f"{name} is nothing that tlfeat has written")
                place, _, last = name.rpartition("/")
                if last.startswith("@"):
                    del self._file[place or "/"].attrs[last[1:]]
                else:
                    del self._file[name]
        try:
            _ = self.table
        except CacheError as error:
            with self._changing():
                for name in ("images", "images_new"):
                    if self._file.pop(name, None) is not None:
                        dropped.append(str(error))
        self.commit()
        return dropped

    def _row_problems(self, layer: str) -> tuple[list[int], list[str]]:
        """Return the rows of a layer that are no good, in order, and what is wrong with its rows, in words."""
        found = self._bad_rows(layer)
        said = bad_rows_text(layer, found)
        if n_beyond := self._n_beyond(layer):
            said.append(f"layer '{layer}': {counted(n_beyond, 'row')} beyond the number that is recorded")
        return sorted({row for rows in found.values() for row in rows}), said

    def _n_beyond(self, layer: str) -> int:
        with self._h5():
            group = self._file["layers"][layer]
            n_there = max(len(group[name]) for name in ("rows", "keys", "crc32"))
        return 0 if self._version == 1 else n_there - self.n_rows(layer)  # version 1 reserved room there

    def _bad_rows(self, layer: str) -> dict[str, list[int]]:
        """What is wrong with rows, and their numbers in order."""
        found: dict[str, list[int]] = {}
        seen: set[bytes] = set()
        group = self._file["layers"][layer]
        for start in range(0, self.n_rows(layer), _CHUNK_KEYS):
            stop = min(start + _CHUNK_KEYS, self.n_rows(layer))
            with self._h5():
                keys, sums = group["keys"][start:stop], group["crc32"][start:stop]
            step = group["rows"].chunks[0]
            for low in range(start - start % step, stop, step):
                numbers = range(max(low, start), min(low + step, stop))
                try:
                    with self._h5():
                        rows = group["rows"][numbers.start : numbers.stop]
                except CacheDamaged:
                    found.setdefault("cannot be read", []).extend(numbers)
                    continue
                is_finite = np.isfinite(rows).all(axis=1)
                for i, row in zip(numbers, rows, strict=True):
                    key = keys[i - start]
                    if self._checksum(row, key) != sums[i - start]:
                        found.setdefault("the checksum does not fit", []).append(i)
                    elif not is_finite[i - numbers.start]:
                        found.setdefault("not all values are finite", []).append(i)
                    elif key.tobytes() in seen:
                        found.setdefault("the same key stands there before", []).append(i)
                    else:
                        seen.add(key.tobytes())
        return found

    def _copy_layer(self, layer: str, to: Cache) -> list[str]:
        """Append the sound rows to another cache; return what is wrong with the others."""
        with self._h5():
            rows, keys, *_ = datasets = layer_datasets(self.path, self._file, layer, self._row_type)
            self._n_rows[layer] = min(int(datasets[-1][()]), *(len(dataset) for dataset in datasets[:-1]))
        found = self._bad_rows(layer)
        bad = {number for numbers in found.values() for number in numbers}
        for start in range(0, self.n_rows(layer), rows.chunks[0]):
            stop = min(start + rows.chunks[0], self.n_rows(layer))
            good = [number - start for number in range(start, stop) if number not in bad]
            if good:
                with self._h5():
                    block, digests = rows[start:stop][good], keys[start:stop][good]
                to.append({layer: block}, [digest.tobytes().hex() for digest in digests])
        return bad_rows_text(layer, found)

    def _drop_rows(self, layer: str, bad: list[int]) -> None:
        group = self._file["layers"][layer]
        rows, n, is_bad = group["rows"], self.n_rows(layer), set(bad)
        if rows.compression:  # a chunk that cannot be read cannot be changed, only replaced
            for start in sorted({number - number % rows.chunks[0] for number in bad}):
                try:
                    _ = rows[start]
                except OSError:
                    rows.id.write_direct_chunk(
                        (start, 0), zlib.compress(bytes(rows.dtype.itemsize * int(np.prod(rows.chunks))))
                    )
        n_kept = n - len(bad)
        last_good = (number for number in range(n - 1, -1, -1) if number not in is_bad)
        for hole in (number for number in bad if number < n_kept):
            moved = next(last_good)
            for name in ("rows", "keys", "crc32"):
                group[name][hole] = group[name][moved]
        for name in ("rows", "keys", "crc32"):
            group[name].resize(n_kept, axis=0)
        group["n_rows"][()] = n_kept
        self._n_rows.pop(layer, None)
        self._known.pop(layer, None)

    # --- inside ---------------------------------------------------------------------------------------------

    def _layer_names(self) -> list[str]:
        with self._h5():
            return sorted(self._file["layers"])

    def _rows(self, layer: str) -> h5py.Dataset:
        with self._h5():
            return self._file["layers"][layer]["rows"]

    def _document(self, name: str) -> dict[str, Any]:
        with self._h5():
            return document(self.path, self._file, name)

    def _create_layer(self, layer: str, width: int) -> None:
        group = self._file["layers"].create_group(layer)
        row_type = np.dtype(self._row_type)
        n_chunk = min(max(_CHUNK_BYTES // (width * row_type.itemsize), 1), _CHUNK_ROWS)
        filters = {}
        if attribute(self._file, "compression") == "gzip":
            filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        group.create_dataset("rows", (0, width), row_type, maxshape=(None, width), chunks=(n_chunk, width), **filters)
        group.create_dataset("keys", (0, 32), "u1", maxshape=(None, 32), chunks=(_CHUNK_KEYS, 32))
        group.create_dataset("crc32", (0,), "<u4", maxshape=(None,), chunks=(_CHUNK_KEYS,))
        group.create_dataset("n_rows", data=np.uint64(0))
        self._n_rows[layer] = 0
        self._known.setdefault(layer, {})  # the one that other threads may be asking

    def _check_disk(self, n_bytes: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < n_bytes + _SPARE_BYTES:
            raise CacheError(
                f"The disk is full: {self.path.parent} has {free / 1e6:.1f} MB free, {n_bytes / 1e6:.1f} MB "
                f"plus {_SPARE_BYTES / 1e6:.0f} MB spare are needed. Everything committed so far is kept; make room "
                f"and run the same command again."
            )


def create_cache(
    path: Path, fingerprint: Mapping[str, Any], source: Mapping[str, Any], *, is_compressed: bool = False
) -> Cache:
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
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5_errors(path), h5py.File(aside, "w", libver=_LIBVER) as file:
            file.attrs["format"] = np.bytes_(FORMAT)
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["fingerprint"] = _json(fingerprint)
            file.attrs["environment"] = _json(Environment.current().to_dict())
            file.attrs["source"] = _json(source)
            if is_compressed:
                file.attrs["compression"] = np.bytes_("gzip")
            file.create_group("layers")
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        with JournalledFile(aside, is_writable=True):  # nobody opens it before all this is done
            try:
                os.link(aside, path)  # unlike a rename, this fails where another process was faster
            except FileExistsError as error:
                raise CacheLocked(f"{path} was created by another process just now. Run it again.") from error
            except OSError:
                aside.rename(path)  # a file system without hard links
            journal_of(path).unlink(missing_ok=True)  # of a file that was deleted
            sync_folder(path.parent)
    except OSError as error:
        raise CacheError(f"Cannot create {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return open_cache(path, writable=True)


def open_cache(path: Path, *, writable: bool = False, fingerprint: Mapping[str, Any] | None = None) -> Cache:
    """Open a cache and check that it is one.

    Parameters
    ----------
    path : Path
    writable : bool, default=False
        Only one process can have it open for writing, and none beside it for reading.
    fingerprint : mapping, optional
        Raise `FingerprintError` unless the cache has exactly this one.
    """
    if not path.exists():
        raise CacheError(f"No cache at {path}. Make one with: tlfeat extract DATA --cache {path}")
    with contextlib.ExitStack() as opened:
        with h5_errors(path):
            if not path.is_file():
                raise CacheError(f"{path} is not an HDF5 file: it is not a file at all.")
            journal = opened.enter_context(JournalledFile(path, is_writable=writable))
            if journal.read(len(HDF5_MAGIC)) != HDF5_MAGIC:
                raise CacheDamaged(f"{path} is not an HDF5 file, or its beginning is damaged.")
            in_child(path, lambda: _check(path, journal, is_writable=writable))
            with _without_interrupts():
                file = opened.enter_context(_open_file(path, journal, is_writable=writable))
        cache = Cache(path, file, journal)
        if fingerprint is not None and cache.fingerprint != dict(fingerprint):
            raise FingerprintError(_describe_difference(path, cache.fingerprint, fingerprint))
        opened.pop_all()
    return cache


def _open_file(path: Path, journal: JournalledFile, *, is_writable: bool) -> h5py.File:
    if is_writable or journal.n_dirty_bytes:
        return h5py.File(journal, "r+" if is_writable else "r", libver=_LIBVER)
    return h5py.File(path, "r", locking=False)  # faster; the lock is the journal's


def _check(path: Path, journal: JournalledFile, *, is_writable: bool) -> None:
    with _open_file(path, journal, is_writable=is_writable) as file:
        check_structure(path, file)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: HDF5 does not survive an exception in the middle of a callback."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[Any] = []
    signal.signal(signal.SIGINT, lambda *received: held.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


def _json(document: Mapping[str, Any]) -> np.bytes_:
    """A document of fixed length: it lies in the file's checksummed header, and not in HDF5's heap."""
    return np.bytes_(json.dumps(dict(document)))


def _describe_difference(path: Path, held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    differing = [
        f"{name}: the cache has {held.get(name)!r}, asked was {asked.get(name)!r}"
        for name in sorted({*held, *asked})
        if held.get(name) != asked.get(name)
    ]
    return (
        f"{path} holds rows of another encoder ({held.get('backbone')}, not {asked.get('backbone')}). "
        f"Differing: {'; '.join(differing)}. Name another --cache, or leave it out and one is chosen."
    )


def _encoded(text: Any) -> bytes:
    return bytes(text.encode("utf-8", "surrogateescape"))


def _text_type(values: Sequence[Any]) -> str:
    return f"S{max((len(_encoded(value)) for value in values), default=0) or 1}"


def _read_text(dataset: h5py.Dataset) -> list[str]:
    values = dataset[:].tolist()
    strings: dict[bytes, str] = {}  # equal labels become one string
    return [strings.setdefault(value, value.decode("utf-8", "surrogateescape")) for value in values]


#: Ranges of rows named in one sentence of `verify`.
_MAX_RANGES = 20


def bad_rows_text(layer: str, found: Mapping[str, Sequence[int]]) -> list[str]:
    return [f"layer '{layer}', {_ranges(numbers)}: {reason}" for reason, numbers in found.items()]


def _ranges(numbers: Sequence[int]) -> str:
    """Return "row 7" or "rows 7, 64 to 127 (65 rows)"."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    ends = [i for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1]
    starts = [0, *(i + 1 for i in ends)]
    parts = [(numbers[a], numbers[b]) for a, b in zip(starts, [*ends, len(numbers) - 1], strict=True)]
    said = [str(a) if a == b else f"{a} to {b}" for a, b in parts[:_MAX_RANGES]]
    more = ", ..." if len(parts) > _MAX_RANGES else ""
    return f"rows {', '.join(said)}{more} ({len(numbers):,} rows)"
