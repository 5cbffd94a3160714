"""The HDF5 cache: format, fingerprint, keys, rows, append, resume, verify, read.

docs/cache-format.md writes the format out. In short::

    /            attributes format, format_version, fingerprint, environment, source, timing (JSON)
    /images/     the path table: one entry an image of the data set, replaced whole when the set changes
    /layers/L/   the row table of one layer: rows, keys, crc32 and n_rows, only ever appended to

Space for rows is reserved ahead (`Cache.reserve`), so that an append overwrites allocated bytes in place and no
HDF5 index changes while the network runs. ``n_rows`` is written last and is the only truth about how many rows
are valid: a killed writer leaves rows that do not count, never a count without rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.cachefile import FORMAT, FORMAT_VERSION, NUMBER_COLUMNS, TEXT_COLUMNS, check_structure, h5_errors
from tlfeat.encoder import Rows
from tlfeat.errors import CacheError, CacheLocked, FingerprintError
from tlfeat.images import ImageSet
from tlfeat.records import Environment

#: Rows in one HDF5 chunk: 64 x 1,280 x 4 bytes = 320 KiB, well inside the 1 MiB chunk cache.
_CHUNK_ROWS = 64

#: Left free on the disk by `append` and `reserve`, for HDF5's own bookkeeping.
_SPARE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The path table: what the data set looked like and what became of every image.

    Attributes
    ----------
    images : ImageSet
    keys : list of str
        Content keys; "" where the file could not be read or has not been looked at.
    status : list of str
        "ok", "failed" (then `errors` says why) or "pending" (the run did not get there).
    sizes, mtimes_ns : list of int
        Bytes and modification time, by which an unchanged file is recognised without reading it.
    """

    images: ImageSet
    keys: list[str]
    status: list[str]
    errors: list[str]
    sizes: list[int]
    mtimes_ns: list[int]

    def count(self, status: str) -> int:
        """How many images have this status."""
        return self.status.count(status)


class Cache:
    """One open cache file. Use `open_cache` or `create_cache`; it is a context manager.

    Raises
    ------
    CacheError
        Not a cache of this format, damaged, or the disk is full.
    CacheLocked
        Another process has it open for writing.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._n_rows: dict[str, int] = {}
        self._known: dict[str, dict[bytes, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was appended is already in it."""
        with h5_errors(self.path):
            self._file.close()

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
    def timing(self) -> dict[str, float]:
        """Wall seconds summed over runs, and the images in them.

        `extract_s` is all of it, `embed_s` leaves out building the network, `n_embedded` counts forward passes.
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
            self._n_rows[layer] = int(self._file["layers"][layer]["n_rows"][()])
        return self._n_rows[layer]

    def known(self, layer: str) -> dict[bytes, int]:
        """Content key (32 bytes) to row number of every valid row; empty for a layer that is not there."""
        if layer not in self._known:
            found = {}
            if layer in self._layer_names():
                keys = self._file["layers"][layer]["keys"][: self.n_rows(layer)]  # (n, 32)
                found = {key.tobytes(): row for row, key in enumerate(keys)}
            self._known[layer] = found
        return self._known[layer]

    def reserve(self, widths: Mapping[str, int], n_new: int) -> None:
        """Make room for `n_new` more rows in each layer, so that appends change no index.

        Raises
        ------
        CacheError
            The disk has less room than the rows need; nothing was changed.
        """
        n_bytes = sum((4 * width + 36) * n_new for width in widths.values())
        self._check_disk(n_bytes)
        with h5_errors(self.path):
            for layer, width in widths.items():
                if layer not in self._layer_names():
                    self._create_layer(layer, width)
                group = self._file["layers"][layer]
                needed = self.n_rows(layer) + n_new
                if needed > group["rows"].shape[0]:
                    for name in ("rows", "keys", "crc32"):
                        group[name].resize(needed, axis=0)
            self._file.flush()

    def append(self, rows: Mapping[str, Rows], keys: Sequence[str]) -> None:
        """Append one batch; when it returns, the rows survive the death of this process.

        Parameters
        ----------
        rows : mapping of layer name to float32 array of shape (n_images, width)
        keys : sequence of str
            Content keys, one a row. A key that a layer has already, or a second time, is left out there.
        """
        digests = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 32)
        counts = {}
        with h5_errors(self.path):
            for layer, batch in rows.items():
                first = {digest.tobytes(): i for i, digest in reversed(list(enumerate(digests)))}
                fresh = sorted(i for digest, i in first.items() if digest not in self.known(layer))
                if fresh:
                    counts[layer] = self._write_rows(layer, batch[fresh], digests[fresh])
            self._file.flush()  # rows before the count: without this, 40 of 40 killed writers lost rows
            for layer, n in counts.items():
                self._file["layers"][layer]["n_rows"][()] = n
            self._file.flush()
        for layer, n in counts.items():
            new_keys = self._file["layers"][layer]["keys"][self._n_rows[layer] : n]
            self._known[layer].update(
                (key.tobytes(), row) for row, key in enumerate(new_keys, start=self._n_rows[layer])
            )
            self._n_rows[layer] = n

    def _write_rows(self, layer: str, batch: Rows, digests: npt.NDArray[np.uint8]) -> int:
        start = self.n_rows(layer) if layer in self._layer_names() else 0
        stop = start + len(batch)
        if layer not in self._layer_names() or stop > self._rows(layer).shape[0]:
            self.reserve({layer: batch.shape[1]}, max(len(batch), _CHUNK_ROWS))
        self._check_disk(batch.nbytes)
        batch = np.ascontiguousarray(batch, dtype="<f4")
        group = self._file["layers"][layer]
        group["rows"][start:stop] = batch
        group["keys"][start:stop] = digests
        group["crc32"][start:stop] = [zlib.crc32(row) for row in batch]
        return stop

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
        known = self.known(layer)
        try:
            numbers = np.array([known[bytes.fromhex(key)] for key in keys], dtype=np.int64)
        except KeyError:
            n_missing = sum(bytes.fromhex(key) not in known for key in keys)
            raise CacheError(
                f"{self.path}: {n_missing} of {len(keys)} images have no row in layer '{layer}'. "
                f"Run tlfeat extract again."
            ) from None
        dataset = self._rows(layer)
        rows = np.empty((len(numbers), dataset.shape[1]), dtype=np.float32)
        with h5_errors(self.path):
            order = np.argsort(numbers, kind="stable")
            for start in range(0, self.n_rows(layer), 4096):  # block by block: no second copy of all rows
                low, high = np.searchsorted(numbers[order], [start, start + 4096])
                if low < high:
                    chosen = order[low:high]
                    block = dataset[start : min(start + 4096, self.n_rows(layer))]
                    rows[chosen] = block[numbers[chosen] - start]
        return rows

    # --- the path table -----------------------------------------------------------------------------------

    @property
    def table(self) -> ImageTable:
        """The path table; a `CacheError` where the first `extract` never got to write one."""
        name = "images_new" if self._has_new_table() else "images"
        if name not in self._file:
            raise CacheError(f"{self.path} has no table of images. Run tlfeat extract again.")
        group = self._file[name]
        with h5_errors(self.path):
            text = {name: _read_text(group[name]) for name in TEXT_COLUMNS}
            numbers = {name: group[name][:].tolist() for name in NUMBER_COLUMNS}
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
        """Replace the path table; a kill in between leaves the old one or the new one, never half of one."""
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
        with h5_errors(self.path):
            self._finish_table_swap()
            self._file.pop("images_new", None)
            group = self._file.create_group("images_new")
            for name, values in columns.items():
                group.create_dataset(
                    name,
                    data=_text_array(values) if name in TEXT_COLUMNS else np.asarray(values, np.int64),
                    chunks=(min(max(len(images), 1), 16384),),
                    compression="gzip",  # paths share their beginnings: 60,000 of them take 1 MB, not 6
                    compression_opts=1,
                )
            group.attrs["is_complete"] = True
            self._file.flush()
            self._finish_table_swap()

    def _has_new_table(self) -> bool:
        return "images_new" in self._file and bool(self._file["images_new"].attrs.get("is_complete", False))

    def _finish_table_swap(self) -> None:
        if self._has_new_table():
            self._file.pop("images", None)
            self._file.move("images_new", "images")
            self._file.flush()

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one of the JSON attributes (`source`, `timing`)."""
        with h5_errors(self.path):
            self._file.attrs[name] = json.dumps(document)
            self._file.flush()

    def describe(self) -> dict[str, Any]:
        """Return what ``tlfeat cache info`` says, as JSON values."""
        table = self.table
        images = table.images
        ok = [i for i, status in enumerate(table.status) if status == "ok"]
        return {
            "cache": str(self.path),
            "bytes": self.path.stat().st_size,
            "format_version": FORMAT_VERSION,
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

    # --- verify ---------------------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Read everything and return what is wrong, one sentence each; empty is sound."""
        problems = []
        for layer in self._layer_names():
            group = self._file["layers"][layer]
            n = self.n_rows(layer)
            for start in range(0, n, 4096):
                with h5_errors(self.path):
                    block = group["rows"][start : min(start + 4096, n)]
                    sums = group["crc32"][start : min(start + 4096, n)]
                for i, row in enumerate(block):
                    if zlib.crc32(row) != sums[i]:
                        problems.append(f"layer '{layer}', row {start + i}: the checksum does not fit")
                    elif not np.isfinite(row).all():
                        problems.append(f"layer '{layer}', row {start + i}: not all values are finite")
            if len(self.known(layer)) != n:
                problems.append(f"layer '{layer}': {n - len(self.known(layer))} keys stand there twice")
        try:
            table = self.table
        except CacheError as error:
            return [*problems, str(error)]
        for layer in self._layer_names():
            known = self.known(layer)
            n_missing = sum(
                status == "ok" and bytes.fromhex(key) not in known
                for key, status in zip(table.keys, table.status, strict=True)
            )
            if n_missing:
                problems.append(f"layer '{layer}': {n_missing} images have no row; run tlfeat extract again")
        if table.count("pending"):
            problems.append(f"{table.count('pending')} images are not embedded yet; run tlfeat extract again")
        return problems

    # --- inside ---------------------------------------------------------------------------------------------

    def _layer_names(self) -> list[str]:
        return sorted(self._file["layers"])

    def _rows(self, layer: str) -> h5py.Dataset:
        return self._file["layers"][layer]["rows"]

    def _document(self, name: str) -> dict[str, Any]:
        with h5_errors(self.path):
            text = self._file.attrs.get(name, "{}")
        try:
            document = json.loads(text)
        except (ValueError, TypeError) as error:
            raise CacheError(f"{self.path}: the attribute '{name}' is not JSON: {error}.") from error
        if not isinstance(document, dict):
            raise CacheError(f"{self.path}: the attribute '{name}' is not a JSON object.")
        return document

    def _create_layer(self, layer: str, width: int) -> None:
        group = self._file["layers"].create_group(layer)
        for name, shape, dtype in (("rows", (width,), "<f4"), ("keys", (32,), "u1"), ("crc32", (), "<u4")):
            space = h5py.h5s.create_simple((0, *shape), (h5py.h5s.UNLIMITED, *shape))
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((_CHUNK_ROWS, *shape))
            # Allocated when reserved and not filled: an append then moves no metadata at all.
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, plist)
        group.create_dataset("n_rows", data=np.uint64(0))
        self._n_rows[layer] = 0

    def _check_disk(self, n_bytes: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < n_bytes + _SPARE_BYTES:
            raise CacheError(
                f"The disk is full: {self.path.parent} has {free / 1e6:.1f} MB free, {n_bytes / 1e6:.1f} MB "
                f"plus {_SPARE_BYTES / 1e6:.0f} MB spare are needed. Everything embedded so far is kept; make room "
                f"and run the same command again."
            )


def create_cache(path: Path, fingerprint: Mapping[str, Any], source: Mapping[str, Any]) -> Cache:
    """Create an empty cache and open it for writing; it appears under its name only when it is whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5_errors(path), h5py.File(aside, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["fingerprint"] = json.dumps(dict(fingerprint))
            file.attrs["environment"] = json.dumps(Environment.current().to_dict())
            file.attrs["source"] = json.dumps(dict(source))
            file.create_group("layers")
        try:
            os.link(aside, path)  # unlike a rename, this fails where another process was faster
        except FileExistsError as error:
            raise CacheLocked(f"{path} was created by another process just now. Run it again.") from error
        except OSError:
            aside.rename(path)  # a file system without hard links
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
    with h5_errors(path):
        if not h5py.is_hdf5(path):
            raise CacheError(f"{path} is not an HDF5 file, or its beginning is damaged.")
        file = h5py.File(path, "r+" if writable else "r")
    try:
        check_structure(path, file)
        cache = Cache(path, file)
        if fingerprint is not None and cache.fingerprint != dict(fingerprint):
            raise FingerprintError(_describe_difference(path, cache.fingerprint, fingerprint))
    except BaseException:
        file.close()
        raise
    return cache


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


def _text_array(values: Sequence[Any]) -> npt.NDArray[np.bytes_]:
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    width = max((len(value) for value in encoded), default=0)
    return np.array(encoded, dtype=f"S{max(width, 1)}")


def _read_text(dataset: h5py.Dataset) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in dataset[:].tolist()]
