"""The HDF5 cache: two kinds of table in one file, changed all or nothing.

docs/cache-format.md writes the format out. In short::

    /            attributes format, format_version, fingerprint, environment, source, timing (JSON)
    /images/     the path table: one entry an image of the data set, replaced whole (`path_table`)
    /layers/L/   the row table of one layer: content key to row, only ever appended to (`row_table`)

HDF5 writes into a `JournalledFile`, whose `commit` changes the file on the disk all or not at all: a killed writer,
a power cut or a full disk leaves the file as the last commit left it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from tlfeat.blocks import BLOCK_LINES
from tlfeat.cache.checks import FORMAT, FORMAT_VERSION, attribute, document
from tlfeat.cache.hdf5_file import Hdf5File, create_file, open_file
from tlfeat.cache.key_index import KeyIndex
from tlfeat.cache.path_table import path_table_pieces, read_path_table
from tlfeat.cache.row_table import RowTable
from tlfeat.cache.verify import encoder_difference, missing_rows, row_problems, strangers
from tlfeat.errors import CacheError, FingerprintError
from tlfeat.images.image_set import ImageTable
from tlfeat.records import Environment
from tlfeat.text import counted
from tlfeat.types import ROW_TYPES, Rows, StrPath

#: `append` commits when this much waits (it is held in memory, and goes through the journal in one piece) ...
_COMMIT_BYTES = 16 << 20

#: ... or this long after the last commit: what a kill can cost, against two waits for the disk.
_COMMIT_S = 1.0

#: Left free on the disk by `append` and `reserve`, for HDF5's own bookkeeping.
_SPARE_BYTES = 4 << 20

#: A key and a checksum, beside each row.
_KEY_BYTES = 36

#: About what a line of the path table takes.
_LINE_BYTES = 200

#: `Cache.timing` before the first run.
NO_TIMING = {"extract_s": 0.0, "embed_s": 0.0, "n_embedded": 0}


class Cache:
    """One open cache file. Use `open_cache` or `create_cache`; it is a context manager.

    Raises `CacheError` where it is no cache of this format, damaged, or the disk is full.
    """

    def __init__(self, file: Hdf5File) -> None:
        self.path = file.path
        self._file = file
        with file.guard():
            self._version = int(file.content.attrs["format_version"])
        self._row_type = ROW_TYPES[self.fingerprint.get("dtype", "float32")]
        self._committed_s = time.monotonic()
        self._tables: dict[str, RowTable] = {}
        self._n_waiting_bytes = 0
        self._written: ImageTable | None = None  # the path table in the file, of packed columns, where it is known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit and close; of a change that failed half-way nothing is kept."""
        with self._file.guard():
            try:
                if self._file.is_changeable:
                    self.commit()
            finally:
                self._file.close()

    def commit(self) -> None:
        """Make everything so far permanent: when it returns, no kill and no power cut takes it away."""
        with self.changing():
            for table in self._tables.values():
                table.write()
            self._file.commit()
        self._committed_s = time.monotonic()
        self._n_waiting_bytes = 0

    @contextlib.contextmanager
    def changing(self) -> Iterator[h5py.File]:
        """Give the file to change, and take everything back to the last commit where the block fails."""
        try:
            with self._file.changing() as content:
                yield content
        except BaseException:
            self._tables, self._n_waiting_bytes, self._written = {}, 0, None
            raise

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
        return {**NO_TIMING, **self._document("timing")}

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Layer name to (valid rows, width), in order of name."""
        tables = [self.row_table(layer) for layer in self._layer_names()]
        return {table.layer: (table.n_rows, table.width) for table in tables}

    @property
    def notes(self) -> list[str]:
        """What the user should know of how it was opened."""
        if not self._file.is_beside_writer:
            return self._file.notes
        n = self.table.count("ok")
        return [f"extract is still writing this cache: {counted(n, 'image')} {'is' if n == 1 else 'are'} read"]

    @property
    def stem(self) -> str:
        """The file name without its ending; models and reports of this cache lie in folders of this name."""
        return self.path.stem

    # --- the row tables ---------------------------------------------------------------------------------

    def row_table(self, layer: str) -> RowTable:
        """The row table of a layer, which may not have been begun; good until a change fails."""
        if layer not in self._tables:
            self._tables[layer] = RowTable(
                self._file.content["layers"], layer, self._version, self._file.guard, self._tables.values
            )
        return self._tables[layer]

    def n_rows(self, layer: str) -> int:
        """The number of valid rows of a layer."""
        return self.row_table(layer).n_rows

    def known(self, layer: str) -> KeyIndex:
        """Content key to row number of every valid row; empty for a layer that is not there."""
        return self.row_table(layer).known

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
        self._check_disk(sum((row_bytes * width + _KEY_BYTES) * n_new for width in widths.values()))
        with self.changing():
            for layer, width in widths.items():
                self._begun(layer, width)

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
        fresh_rows = {}
        for layer, batch in rows.items():
            fresh = self.row_table(layer).fresh(keys)
            stored = self.stored(batch[fresh])
            if not np.isfinite(stored).all():
                raise CacheError(f"{self.path}: a row for layer '{layer}' is not finite as {stored.dtype}.")
            fresh_rows[layer] = stored, [keys[i] for i in fresh]
        n_bytes = sum(stored.nbytes for stored, _ in fresh_rows.values())
        self._check_disk(n_bytes + 2 * self._n_waiting_bytes)  # what waits goes to the journal and to the file
        with self.changing():
            for layer, (stored, fresh_keys) in fresh_rows.items():
                self._begun(layer, stored.shape[1]).append(stored, fresh_keys)
        self._n_waiting_bytes += n_bytes
        if self._n_waiting_bytes >= _COMMIT_BYTES or time.monotonic() - self._committed_s >= _COMMIT_S:
            self.commit()

    def _begun(self, layer: str, width: int) -> RowTable:
        table = self.row_table(layer)
        if not table.is_begun:
            is_compressed = attribute(self._file.content, "compression") == "gzip"
            table.begin(width, self._row_type, is_compressed=is_compressed)
        return table

    def _commit_waiting(self) -> None:
        if any(table.is_waiting for table in self._tables.values()):
            self.commit()

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
        table = self.row_table(layer)
        if n_missing := int((table.known.numbers(keys) < 0).sum()):
            raise CacheError(
                f"{self.path}: {n_missing} of {len(keys)} images have no row in layer '{layer}'. "
                f"Run tlfeat extract again."
            )
        if not self._file.is_beside_writer:
            return table.read(keys)
        rows, is_sound = table.read_sound(keys)  # nothing keeps a repair from moving rows meanwhile
        if not is_sound.all():
            raise CacheError(f"{self.path}: rows changed while they were read. Run the command again.")
        return rows.astype(np.float32, copy=False)

    # --- the path table and documents -------------------------------------------------------------------

    @property
    def table(self) -> ImageTable:
        """The path table, beside a writer of what is done; a `CacheError` where no `extract` got to write one."""
        with self._file.guard():
            table = read_path_table(self.path, self._file.content)
        if self._file.is_changeable:
            self._written = table.packed()
        return table.without("pending") if self._file.is_beside_writer else table

    def write_table(self, table: ImageTable) -> None:
        """Write the path table and commit, a large one in several commits.

        Where images were only added at the end only what differs is written; if the process is killed meanwhile, every
        line is as before or as it was to be. Otherwise the table is replaced whole, and stays as it was until then.
        """
        self._check_disk(_LINE_BYTES * len(table.images))
        new = table.packed()
        if self._written is None and len(new.images) >= BLOCK_LINES:
            with contextlib.suppress(CacheError):
                _ = self.table
        before, self._written = self._written, None
        pieces = path_table_pieces(self._file.content, new, before)
        is_done = False
        while not is_done:
            with self.changing():
                is_done = next(pieces, self) is self
            if is_done or self._file.n_waiting_bytes >= _COMMIT_BYTES:
                self.commit()
        self._written = new

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one of the JSON attributes (`source`, `timing`)."""
        with self.changing() as file:
            file.attrs[name] = _json(document)
        self.commit()

    def describe(self) -> dict[str, Any]:
        """Return what ``tlfeat cache info`` says, as JSON values."""
        table = self.table
        images, is_ok = table.images, [status == "ok" for status in table.status]
        return {
            "cache": str(self.path),
            "bytes": self.path.stat().st_size,
            "format_version": int(attribute(self._file.content, "format_version")),
            "source": str(images.source),
            "fingerprint": self.fingerprint,
            "environment": self.environment,
            "layers": self.layers,
            "timing": self.timing,
            "images": {
                "status": dict(Counter(table.status)),
                "splits": dict(Counter(filter(None, images.splits))),
                "classes": dict(sorted(Counter(filter(None, compress(images.labels, is_ok))).items())),
                "domains": dict(sorted(Counter(filter(None, compress(images.domains, is_ok))).items())),
            },
            "failures": [
                {"path": images.paths[i], "reason": table.errors[i]}
                for i, status in enumerate(table.status)
                if status == "failed"
            ],
        }

    def verify(self) -> list[str]:
        """Read everything and return what is wrong, one sentence each; empty is sound."""
        self._commit_waiting()
        tables = [self.row_table(layer) for layer in self._layer_names()]
        problems = [sentence for table in tables for sentence in row_problems(table)[1]]
        with self._file.guard():
            problems += strangers(self._file.content)
        try:
            return problems + missing_rows(self.table, tables)
        except CacheError as error:
            return [*problems, str(error)]

    # --- inside ---------------------------------------------------------------------------------------------

    def _layer_names(self) -> list[str]:
        with self._file.guard():
            return sorted(self._file.content["layers"])

    def _document(self, name: str) -> dict[str, Any]:
        with self._file.guard():
            return document(self.path, self._file.content, name)

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
    attributes: dict[str, Any] = {
        "format": np.bytes_(FORMAT),
        "format_version": FORMAT_VERSION,
        "fingerprint": _json(fingerprint),
        "environment": _json(Environment.current().to_dict()),
        "source": _json(source),
    }
    if is_compressed:
        attributes["compression"] = np.bytes_("gzip")
    create_file(path, attributes)
    return open_cache(path, writable=True)


def open_cache(path: StrPath, *, writable: bool = False, fingerprint: Mapping[str, Any] | None = None) -> Cache:
    """Open a cache and check that it is one.

    Parameters
    ----------
    path : str or path
    writable : bool, default=False
        Only one process can have it open for writing, and none beside it for reading.
    fingerprint : mapping, optional
        Raise `FingerprintError` unless the cache has exactly this one.
    """
    path = Path(path)
    if not path.exists():
        raise CacheError(f"No cache at {path}. Make one with: tlfeat extract DATA --cache {path}")
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open_file(path, is_writable=writable))
        cache = Cache(file)
        if fingerprint is not None and cache.fingerprint != dict(fingerprint):
            raise FingerprintError(encoder_difference(path, cache.fingerprint, fingerprint))
        opened.pop_all()
    return cache


def _json(document: Mapping[str, Any]) -> np.bytes_:
    """A document of fixed length: it lies in the file's checksummed header, and not in HDF5's heap."""
    return np.bytes_(json.dumps(dict(document)))
