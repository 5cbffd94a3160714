"""``tlfeat adapt``: heads of some domains brought to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tlfeat import workspace
from tlfeat.cli.console import Console
from tlfeat.cli.options import FreshOption, LayerOption, OutputOption, SeedOption
from tlfeat.errors import UsageError
from tlfeat.text import counted

CachesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--cache",
        metavar="FILE.h5",
        help="The cache. May be repeated: caches of one encoder are domains of one set, each named after its file. "
        "Default: the newest one under cache/.",
    ),
]


def run_adapt(
    console: Console,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="A,B,...", help="Domains whose labels are known. Default: all others."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="The new domain, whose labels no method sees.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="logreg, svm, linear-svm, knn, ridge or lda.")] = "logreg",
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help="Comma-separated methods, or all. The head as it is (none) is always among them."
        ),
    ] = "all",
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="1,5,...",
            help="Labelled images of the target per class to compare with, or none: what adapting is worth in labels.",
        ),
    ] = "1,5,20",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of each of these numbers.")] = 5,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Take every domain as the target in turn; saves no model.")
    ] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="With --leave-one-out: splits of each target, from --seed on.")
    ] = 5,
    fresh: FreshOption = False,
    layer: LayerOption = None,
    cache: CachesOption = None,
    output: OutputOption = None,
    seed: SeedOption = 0,
) -> None:
    """Bring heads of some domains to another one without its labels, and say whether that helped."""
    from tlfeat.adapt.methods import find_methods
    from tlfeat.cache.store import open_cache
    from tlfeat.cli.studies import show_finding
    from tlfeat.evaluate.domain_split import choose_domains, make_domain_split
    from tlfeat.heads.table import find_head
    from tlfeat.report.adaptation import adaptation_finding
    from tlfeat.studies.adapt import adapt, save_chosen
    from tlfeat.studies.adapt_labels import parse_labels

    find_head(model)
    find_methods(methods)
    counts = parse_labels(labels)
    if leave_one_out:
        if source or target:
            raise UsageError("--leave-one-out takes every domain as the target in turn: leave out --source, --target.")
        _run_leave_one_out(
            console,
            _one_cache(console, cache),
            output,
            head=model,
            layer=layer,
            methods=methods,
            seed=seed,
            n_seeds=seeds,
            is_fresh=fresh,
        )
        return
    sources = [name.strip() for name in source.split(",") if name.strip()] if source else None
    with open_cache(_one_cache(console, cache)) as opened:
        console.speak_of(opened.table.images.holds, opened.table.images.classes)
        console.say(*opened.notes)
        chosen, new = choose_domains(opened.table, sources, target)
        split = make_domain_split(opened.table, chosen, new, seed=seed)
        console.say(
            f"From {', '.join(chosen)} ({counted(split.split.info.n_train, 'image')}) to {new} "
            f"({len(split.adapt.keys):,} to adapt to, {split.split.info.n_test:,} to test on) on {opened.path}"
        )
        found = adapt(
            opened, split, head=model, layer=layer, methods=methods, labels=counts, n_draws=draws,
            on_progress=console.progress,
        )  # fmt: skip
        result = save_chosen(opened, split, found)
    console.warn(*found.notes, *(f"{name} was not run: {why}" for name, why in found.skipped))
    show_finding(console, adaptation_finding(found), found.cache, output)
    console.say(f"Next: tlfeat predict {result.model} IMAGE...")


def _one_cache(console: Console, caches: list[Path] | None) -> Path:
    """Return the cache to work on: the one named, the newest, or several as one."""
    from tlfeat.cache.joined import join_caches

    if not caches or len(caches) == 1:
        return caches[0] if caches else workspace.newest_cache()
    joined = join_caches(caches)
    console.warn(*joined.notes)
    how = "as they were joined before" if joined.is_reused else "their rows were copied"
    console.say(f"{', '.join(joined.names)}: joined in {joined.path} ({how}), the newest cache from now on")
    return joined.path


def _run_leave_one_out(console: Console, cache: Path, output: Path | None, **asked: Any) -> None:
    from tlfeat.cache.store import open_cache
    from tlfeat.cli.studies import show_finding
    from tlfeat.report.leave_one_out import leave_one_out_finding
    from tlfeat.studies.leave_one_out import leave_one_out

    with open_cache(cache) as opened:
        console.speak_of(opened.table.images.holds, opened.table.images.classes)
        console.say(*opened.notes)
        found = leave_one_out(opened, on_progress=console.progress, **asked)
    console.warn(*found.notes, *(f"{name} was not run: {why}" for name, why in found.skipped))
    if found.n_reused:
        console.say(f"{counted(found.n_reused, 'split')} reused from earlier commands (--fresh computes them again)")
    show_finding(console, leave_one_out_finding(found), found.cache, output)
