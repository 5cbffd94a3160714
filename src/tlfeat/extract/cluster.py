"""Many machines embed one set: the driver lists the images once, deals shards to workers, and joins what they made.

The shards are the checkpoint: a driver that is killed and started again lists again, and finished shards only look at
the stamps of their files.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.cache.manifest import Manifest
from tlfeat.cache.shard_join import join_shards
from tlfeat.errors import CacheError, CacheLocked, DataError, FingerprintError, Interrupted
from tlfeat.extract.dealing import Dealer, Outcome
from tlfeat.extract.plan import ExtractionJob
from tlfeat.extract.ray_cluster import Workers, attached, check_address, import_ray, n_workers_of
from tlfeat.extract.reference import reference_file
from tlfeat.extract.shard_lists import free_of_links, lists_in, n_shards_in, remove_lists, write_lists
from tlfeat.extract.shard_worker import TOKEN, Kit, luggage, versions
from tlfeat.images.classes import parse_class_map
from tlfeat.images.folders import FolderTree
from tlfeat.images.image_set import ImageSet
from tlfeat.images.labels import labeller
from tlfeat.images.lines import Line, Names, TreeLines
from tlfeat.system import lock
from tlfeat.text import counted
from tlfeat.types import OnProgress, silent

_LOCK = "lock"

#: Lines between two reports of progress.
_STEP = 1000

#: Failures that are reported; the others are in the caches.
_N_FAILURES = 100


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What one run of `extract_on_cluster` did.

    Attributes
    ----------
    cache : Path
        The folder of shards.
    failures : list of (path, reason)
        The first ones of `n_failed`.
    n_deaths : int
        Workers that died at work.
    start_s, list_s, wall_s : float
        Wall seconds until the first worker was ready, the listing left out; of the listing; of all work after that.
    driver_cpu_s, worker_cpu_s : float
        Processor seconds of the driver, for listing and dealing; of all workers, their first start left out.
    """

    cache: Path
    layers: dict[str, int]
    n_images: int
    n_embedded: int
    n_known: int
    n_failed: int
    failures: list[tuple[str, str]]
    runtime: str
    notes: list[str]
    n_shards: int
    n_workers: int
    n_deaths: int
    start_s: float
    list_s: float
    wall_s: float
    driver_cpu_s: float
    worker_cpu_s: float


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a job, one by one, and what is known of them after the last one."""

    lines: Iterable[Line]
    names: Callable[[], Names]
    notes: Callable[[], list[str]]
    left_out: Callable[[], str]


def listing_of(job: ExtractionJob) -> Listing:
    """Return the listing of a job whose folder was not looked through yet; of a table what was read."""
    images, reading = job.images, job.origin
    if images.source != images.root or len(images):
        n = len(images)
        return Listing(_lines_of(images), lambda: Names({}, frozenset(), n), list, str)
    label_from = reading.get("label_from")
    label_of = labeller(label_from) if label_from else None
    found = TreeLines(FolderTree(images.root, is_ordered=False), label_of, has_domains=bool(reading.get("domains")))
    class_map = parse_class_map(reading.get("class_map") or [])
    return Listing(
        found, lambda: found.names(class_map, reading.get("classes") or []), found.notes, lambda: found.left_out
    )


def extract_on_cluster(
    job: ExtractionJob,
    address: str,
    *,
    n_shards: int | None = None,
    n_workers: int | None = None,
    n_threads: int = 1,
    is_compressed: bool = False,
    is_strict: bool = False,
    say: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = silent,
) -> ClusterReport:
    """Embed the images of a job on the workers of a Ray cluster, and join the shards.

    Parameters
    ----------
    job : ExtractionJob
        Planned with ``is_dealt=True``; its `cache_path` is the folder of the shards, on storage that all nodes share.
    address : str
        See `ray_cluster.attached`.
    n_shards : int, optional
        Those that are there, else `shard_lists.choose_n_shards`.
    n_workers : int, optional
        As many as there are processors by default.
    n_threads : int, default=1
        Threads, and processors, of a worker.
    is_compressed, is_strict
        As for `extract_rows`.

    Raises
    ------
    ClusterError
        No cluster there, or no node of it sees the images and the folder.
    CacheError
        Shards that could not be finished; all others are.
    Interrupted
        Ctrl-C; what is done is kept.
    """
    check_address(address)
    import_ray()
    started_s, folder = time.monotonic(), free_of_links(job.cache_path)
    with _driving(folder):
        n_shards = n_shards_in(folder, n_shards)
        encoder, files = luggage(job.encoder, on_progress)
        with attached(address, sum(path.stat().st_size for path in files.values())) as ray:
            n_room = n_workers_of(ray, n_threads)
            n_workers = min(n_workers or n_room, n_room)
            start_cpu_s, listed_s = time.process_time(), time.monotonic()
            listing = listing_of(job)
            sizes = write_lists(_counted(listing.lines, on_progress), folder, n_shards, n_workers)
            names = listing.names()
            listed_in_s = time.monotonic() - listed_s
            _say_what_there_is(job, names, listing, len(sizes), min(n_workers, len(sizes)), say)
            token = secrets.token_hex(16)
            (lists_in(folder) / TOKEN).write_text(token, encoding="utf-8")
            kit = Kit(
                folder,
                token,
                job.images.at([]),
                names,
                len(sizes),
                encoder,
                {name: ray.put(path.read_bytes()) for name, path in files.items()},
                job.origin,
                n_threads,
                is_compressed,
                [free_of_links(path) for path in workspace.other_caches(folder)],
                versions(),
            )
            needs_reference = not reference_file(folder, job.encoder.fingerprint).exists()
            dealer = Dealer(dict(enumerate(sizes, start=1)), needs_reference=needs_reference)
            worked_s = time.monotonic()
            try:
                with Workers(ray, kit, dealer, n_workers, say, on_progress) as workers:
                    workers.run()
            except KeyboardInterrupt:
                raise Interrupted(
                    f"Stopped. At least {dealer.n_images_done:,} of {names.n_images:,} images are done and kept in "
                    f"{job.cache_path}. The same command goes on from there."
                ) from None
            driver_cpu_s = time.process_time() - start_cpu_s
        _check_finished(job.cache_path, dealer, workers.outcomes, len(sizes))
        ready_s = workers.ready_s or time.monotonic()
        manifest = _joined(job.cache_path, workers.outcomes, on_progress)
        report = _report(
            manifest,
            dealer,
            workers.outcomes,
            n_workers=n_workers,
            start_s=ready_s - started_s - listed_in_s,
            list_s=listed_in_s,
            wall_s=time.monotonic() - max(ready_s, worked_s),
            driver_cpu_s=driver_cpu_s,
        )
        remove_lists(folder)
    if is_strict and report.n_failed:
        path, reason = report.failures[0]
        raise DataError(
            f"{report.n_failed:,} of {report.n_images:,} images failed and --strict was given; the first: {path}: "
            f"{reason}. The rows of the others are in {report.cache}."
        )
    return report


@contextlib.contextmanager
def _driving(folder: Path) -> Iterator[None]:
    """Be the only driver of a folder of shards."""
    try:
        lists_in(folder).mkdir(parents=True, exist_ok=True)
        held = (lists_in(folder) / _LOCK).open("wb")
    except OSError as error:
        raise CacheError(f"Cannot write {folder}: {error.strerror or error}.") from error
    with held:
        try:
            lock(held.fileno(), is_exclusive=True)
        except BlockingIOError:
            raise CacheLocked(f"Another tlfeat extract --ray works on {folder}. Wait until that has ended.") from None
        yield


def _counted(lines: Iterable[Line], on_progress: OnProgress) -> Iterator[Line]:
    for n, line in enumerate(lines):
        if not n % _STEP:
            on_progress("listing images", n, 0)
        yield line


def _say_what_there_is(
    job: ExtractionJob, names: Names, listing: Listing, n_shards: int, n_workers: int, say: Callable[[str], None]
) -> None:
    left_out = listing.left_out()
    say(f"{counted(names.n_images, 'image')} from {job.images.source}" + (f" ({left_out})" if left_out else ""))
    for note in listing.notes():
        say(f"warning: {note}")
    say(f"{counted(n_shards, 'shard')} for {counted(n_workers, 'worker')}, into {job.cache_path}")


def _check_finished(folder: Path, dealer: Dealer, outcomes: list[Outcome], n_shards: int) -> None:
    """Raise where shards were given up."""
    if not dealer.given_up:
        return
    number, why = min(dealer.given_up.items())
    kind = FingerprintError if any(o.kind == "FingerprintError" for o in outcomes) else CacheError
    raise kind(
        f"{counted(len(dealer.given_up), 'shard')} of {n_shards:,} could not be finished; shard {number}/{n_shards}: "
        f"{why.rstrip('.')}. The others are done and kept in {folder}; the same command goes on from there."
    )


def _joined(folder: Path, outcomes: list[Outcome], on_progress: OnProgress) -> Manifest:
    """Join the shards; raise where no image of them could be read."""
    done = _done(outcomes)
    n_images, n_failed = sum(o.n_images for o in done), sum(o.n_failed for o in done)
    if 0 < n_images == n_failed:
        path, reason = _failures(done)[0]
        raise DataError(f"No image of {n_images:,} could be read; the first: {path}: {reason}.")
    return join_shards(folder, on_progress=on_progress)


def _report(manifest: Manifest, dealer: Dealer, outcomes: list[Outcome], **spent: Any) -> ClusterReport:
    done = _done(outcomes)
    return ClusterReport(
        cache=manifest.folder,
        layers=manifest.layers,
        n_images=sum(outcome.n_images for outcome in done),
        n_embedded=sum(outcome.n_embedded for outcome in done),
        n_known=sum(outcome.n_known for outcome in done),
        n_failed=sum(outcome.n_failed for outcome in done),
        failures=_failures(done)[:_N_FAILURES],
        runtime=next((outcome.runtime for outcome in done if outcome.runtime), ""),
        notes=list(dict.fromkeys([*manifest.notes, *(note for outcome in done for note in outcome.notes)])),
        n_shards=manifest.n_shards,
        n_deaths=dealer.n_deaths,
        worker_cpu_s=sum(outcome.cpu_s for outcome in outcomes),
        **spent,
    )


def _done(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.error]


def _failures(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return sorted(failure for outcome in outcomes for failure in outcome.failures)


def _lines_of(images: ImageSet) -> Iterator[Line]:
    """Give the lines of a set that is in memory."""
    columns = (images.paths, images.labels, images.splits, images.groups, images.domains)
    return (Line(*each) for each in zip(*columns, strict=True))
