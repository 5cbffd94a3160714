"""Images to rows: which keys are missing, decode, encode, append, count.

Three steps with plain data between them, so that another engine can take the place of the middle one:

* `recognise`: paths in, the keys that are known without reading a file out;
* `embed.embed_files`: paths in, keys and rows out;
* ``cache.append``: keys and rows in; this process is the only writer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.encoder import Encoder
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.contents import check_not_joined
from tlfeat.cache.passes import Pass, is_a_measurement, with_pass
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.columns import as_codes, pack_keys
from tlfeat.errors import CacheError, DataError, Interrupted
from tlfeat.extract.embed import Embedded, Profile, embed_files
from tlfeat.extract.known import KnownRows
from tlfeat.extract.recognise import differ, recognise, without_unsettled
from tlfeat.images.decode import Decoded, n_cores
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.system import processor_name
from tlfeat.types import OnProgress, StrPath, silent
from tlfeat.workspace import make_newest

#: The path table is written meanwhile too, for those who read beside this run, and for the next one if this is killed:
#: so long after the last time, and so many times as long as writing it takes.
_TABLE_EVERY_S, _TABLE_SHARE = 5.0, 50


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What one run of `extract_rows` did.

    Attributes
    ----------
    n_embedded : int
        Pictures that went through the encoder in this run.
    n_known : int
        Images whose rows were there already, copies of another picture included.
    failures : list of (path, reason)
    runtime : str
        What computed the rows; "" where nothing was missing.
    notes : list of str
        What the encoder has to say of how it ran.
    profile : Profile
    """

    cache: Path
    layers: dict[str, tuple[int, int]]
    n_images: int
    n_embedded: int
    n_known: int
    failures: list[tuple[str, str]]
    runtime: str
    notes: list[str]
    profile: Profile


def extract_rows(
    images: ImageSet,
    encoder: Encoder,
    cache_path: StrPath,
    *,
    n_threads: int | None = None,
    is_compressed: bool = False,
    is_strict: bool = False,
    is_whole: bool = True,
    origin: Mapping[str, Any] | None = None,
    known_in: Sequence[StrPath] = (),
    say: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = silent,
) -> ExtractReport:
    """Bring the cache up to date: afterwards every readable image has a row in every layer of the encoder.

    Parameters
    ----------
    images : ImageSet
    encoder : Encoder
    cache_path : str or path
        Created if it is not there; otherwise its fingerprint must be the encoder's.
    n_threads : int, optional
        Threads that read, decode and encode; as many as there are cores by default.
    is_compressed : bool, default=False
        Whether a new cache compresses its rows, without loss.
    is_strict : bool, default=False
        Raise `DataError` at the end if any image failed; rows of the others are kept all the same.
    is_whole : bool, default=True
        Raise `DataError` if all images failed; not for a part of a set, which may be a single image.
    origin : mapping, optional
        JSON values recorded in the cache: `encoder` (how `predict` builds the same one again), `class_map`.
    known_in : sequence of str or path
        Other caches: rows that they hold of the same images by the same encoder are copied, not computed again.
    say : callable, optional
        Called with a sentence on what was copied from where.
    on_progress : callable, optional

    Raises
    ------
    FingerprintError
        The cache was made by another encoder.
    CacheError
        The cache is damaged, locked or the disk is full; what was appended is kept.
    Interrupted
        Ctrl-C; what was appended is kept.
    """
    cache_path = Path(cache_path)
    others = [Path(path) for path in known_in]
    source = {**(origin or {}), "root": images.place, "source": images.named}
    if images.store is not None:
        source["store"] = images.store.url
    is_new = not cache_path.exists()
    if is_new:
        cache = create_cache(cache_path, encoder.fingerprint, source, is_compressed=is_compressed)
    else:
        cache = open_cache(cache_path, writable=True, fingerprint=encoder.fingerprint)
    with cache, _removed_if_empty(cache, is_new=is_new):
        check_not_joined(cache)
        known = KnownRows(cache, encoder.layers, others, n_threads, say, on_progress)
        run = _Run(images, encoder, cache, known, n_threads=n_threads, on_progress=on_progress)
        if cache.source != source:
            cache.write_document("source", source)
        report = run.execute()
    if is_whole and 0 < report.n_images == len(report.failures):
        path, reason = report.failures[0]
        raise DataError(f"No image of {report.n_images:,} could be read; the first: {path}: {reason}.")
    make_newest(cache_path)  # "the newest cache" is the one that extract ended with last, changed or not
    if is_strict and report.failures:
        path, reason = report.failures[0]
        raise DataError(
            f"{len(report.failures)} of {report.n_images} images failed and --strict was given; the first: "
            f"{path}: {reason}. The rows of the others are in {cache_path}."
        )
    return report


@contextmanager
def _removed_if_empty(cache: CacheFile, *, is_new: bool) -> Iterator[None]:
    """Leave no empty file behind when a run fails before its first row: it would be the newest cache."""
    try:
        yield
    except BaseException:
        if is_new and not cache.layers:
            _remove_open(cache)
        raise


def _remove_open(cache: CacheFile) -> None:
    """Remove the file while its lock is held; Windows removes no open file, and afterwards none that another opened."""
    try:
        cache.path.unlink(missing_ok=True)
    except PermissionError:
        cache.close()
        with suppress(OSError):
            cache.path.unlink(missing_ok=True)


class _Run:
    """One run of `extract_rows` over one open cache."""

    def __init__(
        self,
        images: ImageSet,
        encoder: Encoder,
        cache: CacheFile,
        known: KnownRows,
        *,
        n_threads: int | None,
        on_progress: OnProgress,
    ) -> None:
        self.images = images
        self.encoder = encoder
        self.cache = cache
        self.known = known
        self.on_progress = on_progress
        self.n_threads = n_threads
        self.profile = Profile(n_threads or 1)
        self.n_embedded = 0  # forward passes
        self.n_new = 0  # of them, those that became rows
        self.n_seen = 0  # files that were looked into
        self.is_reserved = False
        self.is_table_written = False  # meanwhile: what was there before is not what is there
        self.table_due_s = time.monotonic() + _TABLE_EVERY_S
        self.unsettled: list[int] = []  # blocks of lines in which something was missing
        self.embedding: set[str] = set()  # keys on their way through the encoder
        self.failed_keys: dict[str, str] = {}  # copies of a picture fail alike

    def execute(self) -> ExtractReport:
        previous = self._previous_table()
        table = recognise(self.images, previous)
        status = as_codes(table.status)
        for number in range(status.n_blocks):
            is_lost = status.is_text(number, "ok") & ~self._are_known(table, number, self.encoder.layers, all)
            status.set_some(number, is_lost, "pending")
        if previous is None:
            self.cache.write_table(table)  # a killed run leaves a cache that knows what it was about
        try:
            if not self.n_reads:  # to know an image is to read it, and one that is far away is read once
                self.known.take(table)
            with self._clock():
                self._embed(table)
        except KeyboardInterrupt:
            each = range(as_codes(table.status).n_blocks)
            n_known = sum(int(self._are_known(table, number, self.encoder.layers, all).sum()) for number in each)
            n_done = n_known + table.count("failed")
            self._save(table, previous)
            raise Interrupted(
                f"Stopped. {n_done:,} of {len(table.keys):,} images are done and kept in "
                f"{self.cache.path}. The same command goes on from there."
            ) from None
        self._save(table, previous)
        failures = [(self.images.paths[i], table.errors[i]) for i in status.where("failed")]
        return ExtractReport(
            cache=self.cache.path,
            layers=self.cache.layers,
            n_images=len(self.images),
            n_embedded=self.n_embedded,
            n_known=table.count("ok") - self.n_new,
            failures=failures,
            runtime=self.encoder.runtime if self.n_embedded else "",
            notes=[*self.cache.notes, *self.encoder.notes],
            profile=self.profile,
        )

    @contextmanager
    def _clock(self) -> Iterator[None]:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.profile.wall_s = time.perf_counter() - started_s - self.profile.prepare_s
            self.profile.cpu_s += time.process_time() - started_cpu_s

    @property
    def n_reads(self) -> int:
        """Reads that are best under way at once; 0 where images are near."""
        return self.images.store.n_ahead if self.images.store is not None else 0

    def _previous_table(self) -> ImageTable | None:
        try:
            return self.cache.table
        except CacheError:
            return None  # the first run was killed before it wrote one, or the table is damaged: read again

    def _is_known(self, key: str) -> bool:
        return all(key in self.cache.known(layer) for layer in self.encoder.layers)

    def _are_known(
        self, table: ImageTable, number: int, layers: Iterable[str], of_layers: Callable[[Iterable[bool]], bool]
    ) -> npt.NDArray[np.bool_]:
        """Return for each line of a block whether there is a row: in `all` of these layers, or in `any`."""
        keys = pack_keys(table.keys)
        found = [self.cache.known(layer).has_block(keys, number) for layer in layers]
        has_key = keys.digests(number)[1]
        return (np.logical_and if of_layers is all else np.logical_or).reduce(found) if found else has_key & False

    @property
    def _has_unproven_layers(self) -> bool:
        """Whether the network may lack a layer that was asked for: then it is built before any image is read."""
        return not set(self.encoder.layers) <= {"avg_pool", *self.cache.layers}

    def _needs_no_pixels(self, key: str) -> bool:
        return key in self.failed_keys or self._is_known(key)

    def _embed(self, table: ImageTable) -> None:
        """Embed and append what is missing; this thread alone touches the cache and the table."""
        n_todo = len(table.status) - table.count("ok")
        if not n_todo:
            return
        self.profile.n_threads = self.n_threads or n_cores()
        for layer in self.encoder.layers:
            self.cache.known(layer)  # read here, asked in threads
        status = as_codes(table.status)
        self.unsettled = [number for number in range(status.n_blocks) if not status.is_text(number, "ok").all()]
        embedded_all = embed_files(
            ((i, self.images.content(i)) for i in status.where_not("ok")),
            self.encoder,
            is_wanted=lambda decoded: self._is_wanted(table, decoded, n_todo),
            is_known=self._needs_no_pixels,
            is_prepared_first=self._has_unproven_layers,
            n_reads=self.n_reads,
            size_of=table.sizes.__getitem__,
            profile=self.profile,
            on_progress=self.on_progress,
        )
        try:
            for embedded in embedded_all:
                started_s = time.perf_counter()
                self._append(table, embedded, n_left=n_todo - self.n_seen)
                self._write_table_meanwhile(table)
                self.profile.write_s += time.perf_counter() - started_s
            self.on_progress("embedding", n_todo, n_todo)
        except BaseException:
            self._settle(table)
            raise
        finally:
            embedded_all.close()

    def _is_wanted(self, table: ImageTable, decoded: Decoded, n_todo: int) -> bool:
        """Note what became of one file, and say whether its pixels have to go through the encoder."""
        i = decoded.i
        self.n_seen += 1
        self.on_progress("embedding", self.n_seen - len(self.embedding), n_todo)
        table.keys[i] = decoded.key
        if decoded.error or decoded.key in self.failed_keys:
            self._fail(table, i, decoded.error or self.failed_keys[decoded.key])
            return False
        table.status[i] = "ok"  # a row is there, or on its way
        if decoded.pixels is None or decoded.key in self.embedding or self._is_known(decoded.key):
            return False
        self.embedding.add(decoded.key)
        return True

    def _append(self, table: ImageTable, embedded: Embedded, *, n_left: int) -> None:
        """Append the rows of one batch; `n_left` bounds what may still come."""
        rows = {name: self.cache.stored(r) for name, r in embedded.rows.items()}
        keys = [decoded.key for decoded in embedded.files]
        if not self.is_reserved:
            self.cache.reserve({name: r.shape[1] for name, r in rows.items()}, n_left + len(self.embedding))
            self.is_reserved = True
        is_finite = np.all([np.isfinite(r).all(axis=1) for r in rows.values()], axis=0)  # (n,)
        if not is_finite.all():
            rows = {name: r[is_finite] for name, r in rows.items()}
            reason = f"the network's output is not finite as {next(iter(rows.values())).dtype}"
            self.failed_keys |= {key: reason for key, finite in zip(keys, is_finite, strict=True) if not finite}
            for i, key in enumerate(table.keys):
                if key in self.failed_keys:
                    self._fail(table, i, self.failed_keys[key])
        self.cache.append(rows, [key for key, finite in zip(keys, is_finite, strict=True) if finite])
        self.n_embedded += len(keys)
        self.n_new += int(is_finite.sum())
        self.embedding.difference_update(keys)

    def _write_table_meanwhile(self, table: ImageTable) -> None:
        if (started_s := time.monotonic()) < self.table_due_s:
            return
        so_far = replace(table, keys=table.keys.copy(), status=table.status.copy(), errors=table.errors.copy())
        self._settle(so_far)
        self.cache.write_table(without_unsettled(so_far))
        self.is_table_written, ended_s = True, time.monotonic()
        self.table_due_s = ended_s + max(_TABLE_EVERY_S, _TABLE_SHARE * (ended_s - started_s))

    def _settle(self, table: ImageTable) -> None:
        """Before the end: "ok" is what has a row in some layer, so that layers that were complete stay usable."""
        status, layers = as_codes(table.status), list(self.cache.layers)
        for number in self.unsettled:
            has_row = self._are_known(table, number, layers, any)
            is_failed = status.is_text(number, "failed")
            status.set_some(number, has_row & ~is_failed, "ok")
            status.set_some(number, ~has_row & ~is_failed, "pending")

    @staticmethod
    def _fail(table: ImageTable, i: int, reason: str) -> None:
        table.status[i], table.errors[i] = "failed", reason

    def _save(self, table: ImageTable, previous: ImageTable | None) -> None:
        settled = without_unsettled(table)
        if previous is None or self.is_table_written or differ(settled, previous):
            self.cache.write_table(settled)
        if self.n_embedded:
            timing = self.cache.timing
            self.cache.write_document(
                "timing",
                {
                    **timing,
                    "extract_s": timing["extract_s"] + self.profile.wall_s + self.profile.prepare_s,
                    "embed_s": timing["embed_s"] + self.profile.wall_s,
                    "n_embedded": timing["n_embedded"] + self.n_embedded,
                    "runtime": self.encoder.runtime,
                    **self._passes(timing),
                },
            )

    def _passes(self, timing: Mapping[str, Any]) -> dict[str, Any]:
        """Return what this run says of the cost of its layers, beside what is known; nothing where it says nothing."""
        spent = self.profile
        if not is_a_measurement(self.n_embedded, self.n_seen) or spent.cpu_s <= 0:
            return {}
        in_threads = spent.read_s + spent.decode_s + spent.encode_s
        share = spent.encode_s / in_threads if in_threads > 0 else 0.0
        new = Pass(
            list(self.encoder.layers), self.n_embedded, spent.cpu_s, spent.wall_s, share,
            self.encoder.runtime, processor_name(),
        )  # fmt: skip
        return {"passes": with_pass(timing, new)}
