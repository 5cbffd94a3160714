"""``tlfeat adapt``: heads of some domains brought to another."""

from __future__ import annotations

from typing import Annotated

import typer

from tlfeat import workspace
from tlfeat.cli.console import Console
from tlfeat.cli.options import CacheOption, EpochsOption, LayerOption, OutputOption, SeedOption, given_of, parse_list
from tlfeat.errors import UsageError
from tlfeat.text import counted


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
    keras: Annotated[
        str, typer.Option("--keras", help="Networks beside the methods: adabn, finetuned; or all, or none.")
    ] = "none",
    epochs: EpochsOption = None,
    head_epochs: Annotated[
        int | None,
        typer.Option(
            "--head-epochs",
            min=0,
            help="--keras finetuned trains the linear head alone for N epochs, then the layers of --unfreeze-last too. "
            "Default: 5.",
        ),
    ] = None,
    unfreeze_last: Annotated[
        int | None,
        typer.Option(
            "--unfreeze-last",
            min=1,
            help="Layers that --keras finetuned fine-tunes, or blocks of a transformer. Default: 20 layers or 2 "
            "blocks.",
        ),
    ] = None,
    layer: LayerOption = None,
    cache: CacheOption = None,
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
    from tlfeat.studies.adapt_keras import MODES, Networks

    find_head(model)
    find_methods(methods)
    modes = parse_list(keras, MODES)
    given = {"epochs": epochs, "head_epochs": head_epochs, "unfreeze_last": unfreeze_last}
    networks = Networks(modes, **given_of(given)) if modes else None
    if given_of(given) and "finetuned" not in modes:
        raise UsageError("--epochs, --head-epochs and --unfreeze-last say how networks train: add --keras finetuned.")
    sources = [name.strip() for name in source.split(",") if name.strip()] if source else None
    with open_cache(cache or workspace.newest_cache()) as opened:
        console.speak_of(opened.table.images.holds, opened.table.images.classes)
        console.say(*opened.notes)
        chosen, new = choose_domains(opened.table, sources, target)
        split = make_domain_split(opened.table, chosen, new, seed=seed)
        console.say(
            f"From {', '.join(chosen)} ({counted(split.split.info.n_train, 'image')}) to {new} "
            f"({len(split.adapt.keys):,} to adapt to, {split.split.info.n_test:,} to test on) on {opened.path}"
        )
        found = adapt(
            opened,
            split,
            head=model,
            layer=layer,
            methods=methods,
            networks=networks,
            on_progress=console.progress,
        )
        result = save_chosen(opened, split, found)
    console.warn(*found.notes, *(f"{name} was not run: {why}" for name, why in found.skipped))
    show_finding(console, adaptation_finding(found), found.cache, output)
    console.say(f"Next: tlfeat predict {result.model} IMAGE...")
