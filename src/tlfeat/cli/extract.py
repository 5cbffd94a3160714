"""``tlfeat extract``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlfeat.cli.console import Console, command_line
from tlfeat.cli.options import DataArgument, EmbeddingOptions
from tlfeat.errors import UsageError
from tlfeat.images.domains import domains_text
from tlfeat.images.folders import left_out_text
from tlfeat.text import counted, one_line

if TYPE_CHECKING:
    from tlfeat.extract.cluster import ClusterReport
    from tlfeat.extract.extract import ExtractReport
    from tlfeat.extract.plan import ExtractionJob

#: More images have their copies looked for by the first command that needs them.
_MOST_FOR_COPIES = 50_000

_N_FAILURES_SHOWN = 5


def run_extract(
    console: Console,
    data: DataArgument = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="LAYER",
            help="Layer to embed at. May be repeated: all layers in one pass. Default: avg_pool.",
        ),
    ] = None,
    embedding: EmbeddingOptions = EmbeddingOptions(),
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress the embeddings of a new cache, without loss.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images in one batch. Default: the runtime's own.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads that decode and embed. Default: one per core.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time went and what would make it faster.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an unreadable image. Default: skip it and list it.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="K/N",
            help="Only the images of shard K of N, for many machines; --cache is then the folder of all shards.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Work on all machines of a Ray cluster: HOST:PORT or ray://HOST:PORT. Without ADDRESS the cluster "
            "that runs here, else one of this machine's cores. --cache is then a folder that all machines share.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Workers of --ray. Default: as many as there are processors.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", min=1, help="Shards of --ray. Default: those that are there, else four for each worker."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of --weights random.")] = 0,
) -> None:
    """Run images once through a frozen backbone and cache their embeddings."""
    from tlfeat.extract.plan import plan_extraction

    for name, value in (("--workers", workers), ("--shards", shards)):
        if value is not None and ray is None:
            raise UsageError(f"{name} is for --ray, which works on many shards at once.")
    job = plan_extraction(
        data,
        layers=layer or ["avg_pool"],
        batch_size=batch_size,
        n_threads=threads if ray is None else threads or 1,
        seed=seed,
        shard=shard,
        is_dealt=ray is not None,
        **embedding.given(),
    )
    if ray is not None:
        _run_on_cluster(
            console,
            job,
            ray,
            n_shards=shards,
            n_workers=workers,
            n_threads=threads or 1,
            compress=compress,
            strict=strict,
        )
        return
    console.speak_of(job.images.holds, job.images.classes)
    console.warn(*job.notes)
    left_out = left_out_text(job.images.passed_over)
    console.say(
        f"{counted(len(job.images), 'image')}, {counted(len(job.images.classes), 'class', 'classes')}"
        f"{domains_text(job.images.domains)} from {job.images.named}"
        + (f", shard {job.shard}" if job.shard else "")
        + (f" ({left_out})" if left_out else "")
    )
    if job.advice.why and not job.shard:
        console.warn(f"{job.advice.why}. Embeddings are computed all the same")
    job = job.settled(say=console.say, on_progress=console.progress)
    console.detail(f"Fingerprint: {dict(job.encoder.fingerprint)}")
    console.say(f"{job.encoder.name} at {', '.join(job.encoder.layers)} into {job.cache_path}")
    report = job.run(
        n_threads=threads, is_compressed=compress, is_strict=strict, say=console.say, on_progress=console.progress
    )
    _say_how_it_went(console, report, with_profile=profile)
    if not job.shard:
        _look_for_copies(console, report.cache)
    console.result(_report_text(report), _document(report))
    _say_what_next(console, job, ["--cache", str(embedding.cache)] if embedding.cache else [])


def _run_on_cluster(
    console: Console,
    job: ExtractionJob,
    address: str,
    *,
    n_shards: int | None,
    n_workers: int | None,
    n_threads: int,
    compress: bool,
    strict: bool,
) -> None:
    from tlfeat.extract.cluster import extract_on_cluster

    console.warn(*job.notes)
    console.say(f"{job.encoder.name} at {', '.join(job.encoder.layers)}")
    report = extract_on_cluster(
        job,
        address,
        n_shards=n_shards,
        n_workers=n_workers,
        n_threads=n_threads,
        is_compressed=compress,
        is_strict=strict,
        say=console.say,
        on_progress=console.progress,
    )
    console.warn(*report.notes)
    console.detail(
        f"{report.start_s:.1f} s to start, {report.list_s:.1f} s to list, {report.wall_s:.1f} s to embed "
        f"({report.runtime or 'nothing was missing'}); processor: driver {report.driver_cpu_s:.1f} s, workers "
        f"{report.worker_cpu_s:.1f} s"
    )
    for path, reason in report.failures if console.is_verbose else report.failures[:_N_FAILURES_SHOWN]:
        console.say(f"warning: skipped {one_line(path)}: {reason}")
    console.result(_cluster_text(report), _document(report))
    console.say(f"Next: {command_line('fit-sklearn', '--model', 'ridge', '--cache', job.cache_path)}")


def _cluster_text(report: ClusterReport) -> str:
    rate = f", {report.n_embedded / report.wall_s:,.0f} images/s" if report.n_embedded and report.wall_s else ""
    died = f", {counted(report.n_deaths, 'worker')} died" if report.n_deaths else ""
    return (
        f"{report.n_embedded:,} embedded{rate}, {report.n_known:,} known already, {report.n_failed:,} skipped{died}; "
        f"{counted(report.n_shards, 'shard')} in {report.cache}"
    )


def embed_first(console: Console, job: ExtractionJob, doing: str) -> ExtractReport:
    """Embed the images that another command needs and that are not in the cache yet; two classes it needs, too."""
    console.speak_of(job.images.holds, job.images.classes)
    console.warn(*job.notes)
    job.require_classes()
    console.say(doing)
    report = job.run(say=console.say, on_progress=console.progress)
    console.warn(*report.notes)
    console.say(_counts_text(report))
    return report


def _say_what_next(console: Console, job: ExtractionJob, cache: Sequence[str]) -> None:
    if job.shard:
        console.say(f"When all shards are done: {command_line('cache', 'join', job.cache_path.parent)}")
        return
    if not job.advice.why:
        console.say(f"Next: {command_line('fit-sklearn', '--model', 'svm', *cache)}")
        return
    if job.advice.label_from:
        layers = [] if job.encoder.layers == ("avg_pool",) else list(job.encoder.layers)
        words = [*(word for layer in layers for word in ("--layer", layer)), "--label-from", job.advice.label_from]
        again = command_line("extract", "--cache", job.cache_path, *words)
        console.say(f"For labels: {again} (nothing is embedded again)")
    audit, export = command_line("audit", *cache), command_line("cache", "export", "rows.csv", *cache)
    console.say(f"Without labels: {audit} (duplicates, outliers), or {export}")


def _say_how_it_went(console: Console, report: ExtractReport, *, with_profile: bool) -> None:
    console.warn(*report.notes)
    spent = report.profile
    console.detail(f"{spent.prepare_s:.1f} s to build the network, {spent.wall_s:.1f} s to embed ({report.runtime})")
    if with_profile and report.n_embedded:
        console.say(profile_text(dataclasses.asdict(spent), report.n_embedded, report.runtime))
    shown = report.failures if console.is_verbose else report.failures[:_N_FAILURES_SHOWN]
    for path, reason in shown:
        console.say(f"warning: skipped {one_line(path)}: {reason}")


def _look_for_copies(console: Console, path: Path) -> None:
    """Find copies now, while the user waits for images anyway: fits then find the answer."""
    from tlfeat.cache.store import open_cache
    from tlfeat.evaluate.copies import find_copies

    with open_cache(path) as cache:
        store = cache.table.images.store
        if store is not None and store.n_ahead:
            return  # what looks alike would be read from far away once more: only where it is needed
        if not 1 < cache.table.count("ok") <= _MOST_FOR_COPIES:
            return
        group_of = find_copies(cache, on_progress=console.progress).groups()
        sizes = Counter(group_of[key] for key in cache.table.keys if key in group_of)
    if n_twice := sum(n > 1 for n in sizes.values()):
        console.say(f"There more than once: {counted(n_twice, 'picture')} (tlfeat audit lists them)")


def _counts_text(report: ExtractReport, rate: str = "") -> str:
    return f"{report.n_embedded:,} embedded{rate}, {report.n_known:,} known already, {len(report.failures):,} skipped"


def _report_text(report: ExtractReport) -> str:
    wall_s = report.profile.wall_s
    text = _counts_text(report, f", {report.n_embedded / wall_s:,.0f} images/s" if report.n_embedded and wall_s else "")
    return text + (f" (see tlfeat cache info --cache {report.cache})" if report.failures else "")


def _document(report: ExtractReport | ClusterReport) -> dict[str, Any]:
    failures = [{"path": path, "reason": reason} for path, reason in report.failures]
    return {**dataclasses.asdict(report), "cache": str(report.cache), "failures": failures}


def profile_text(profile: Mapping[str, Any], n_images: int, runtime: str) -> str:
    """Return what ``tlfeat extract --profile`` prints of an `embed.Profile`."""
    wall_s, n_threads = max(profile["wall_s"], 1e-9), profile["n_threads"]
    in_threads = {name: profile[f"{name}_s"] for name in ("read", "decode", "encode")}
    far_s = profile.get("wait_read_s", 0.0)
    lines = [
        f"Where the time went: {n_images:,} images in {wall_s:.1f} s with {runtime}, {n_threads} threads",
        f"  {1000 * wall_s / n_images:.2f} ms and {1000 * profile['cpu_s'] / n_images:.2f} ms of processor an image; "
        f"{profile['prepare_s']:.1f} s before, to build the network",
        *(f"  {name:<8} {1000 * s / n_images:7.2f} ms an image" for name, s in in_threads.items()),
        *([f"  waited for images from far away {far_s:.1f} s"] if far_s else []),
        f"  waited for pictures {profile['wait_decode_s']:.1f} s, for rows {profile['wait_encode_s']:.1f} s; "
        f"wrote for {profile['write_s']:.1f} s",
    ]
    busy = sum(in_threads.values()) if profile["is_parallel"] else in_threads["read"] + in_threads["decode"]
    share, cpu_share = busy / (wall_s * n_threads), profile["cpu_s"] / (wall_s * n_threads)
    lines.append(f"  threads busy {100 * min(share, 1):.0f} % of the time, {100 * cpu_share:.0f} % on a processor")
    return "\n".join([*lines, f"  {_advice(profile, in_threads, wall_s, min(share, cpu_share))}"])


def _advice(profile: Mapping[str, Any], in_threads: Mapping[str, float], wall_s: float, busy_share: float) -> str:
    if profile["write_s"] > 0.2 * wall_s:
        return "Writing is the bottleneck: put the cache on a faster disk, or take fewer columns (--pool avg)."
    if profile.get("wait_read_s", 0.0) > 0.2 * wall_s:
        return "The way to the images is the bottleneck: run where the bucket is, or copy the images to a local disk."
    slowest = max(in_threads, key=lambda name: in_threads[name])
    if slowest == "read":
        return "The disk is the bottleneck: copy the images to a local disk, or give more --threads than cores."
    if slowest == "decode":
        return "Decoding is the bottleneck: store smaller pictures, such as twice the network's input."
    if profile["is_parallel"] and busy_share < 0.75:
        return "The threads had to wait for a processor: other work is using the cores."
    return "The network is the bottleneck: a smaller backbone or --input-size, more cores or a GPU would change that."
