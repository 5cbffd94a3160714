"""``tlfeat label`` and ``next``: a page on this machine that asks for labels, and what to label next elsewhere."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlfeat.cli.console import Console, command_line
from tlfeat.cli.options import BackboneOptions, LayerOption, TrustOption
from tlfeat.cli.predict import folder_of_model
from tlfeat.errors import UsageError

if TYPE_CHECKING:
    from tlfeat.labelling.server import Server
    from tlfeat.labelling.start import Wanted


def run_label(
    console: Console,
    data: Annotated[str, typer.Argument(help="Folder of pictures, or a table with a column of paths.")],
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="A,B,...",
            help="Classes, in the order of their keys. Default: the names of class folders; more can be made on the "
            "page.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FILE.csv", help="The answers. Default: NAME-labels.csv in the working folder."
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            metavar="PERCENT",
            help="Say when so many of 100 pictures are right, by the lower end of the interval.",
        ),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Look through what tlfeat audit doubts: wrong labels, copies, outliers."),
    ] = False,
    predict: Annotated[
        Path | None,
        typer.Option(
            "--predict",
            metavar="MODEL",
            help="Look through what a model predicts of new pictures, the least sure first: its folder, or its name "
            "from `tlfeat models`.",
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Open no browser: print the address and wait.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page. Default: a free one.")] = 0,
    backbone: BackboneOptions = BackboneOptions(),
    weights: Annotated[
        str, typer.Option("--weights", metavar="WHAT", help="imagenet, random, a file, or a folder of a transformer.")
    ] = "imagenet",
    trust: TrustOption = False,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the order of the pictures.")] = 0,
) -> None:
    """Label pictures by keyboard, on a page of this machine; a head learns as you go, and extraction runs behind it."""
    from tlfeat.images.classes import parse_classes
    from tlfeat.labelling.start import Wanted

    if until is not None and not 0 < until < 100:
        raise UsageError(f"--until is a percentage between 0 and 100, received {until:g}.")
    if fix and predict:
        raise UsageError("--fix looks through labels, --predict through predictions: take one of them.")
    wanted = Wanted(
        data,
        labels,
        parse_classes(classes) if classes is not None else [],
        None if until is None else until / 100,
        seed,
        port,
        {**backbone.given(), "weights": weights},
    )
    with _opened(console, wanted, predict, is_fixing=fix, is_trusted=trust) as server:
        _serve(console, server, has_browser=not no_browser)
        state = server.session.state()
    console.say(f"{state['n_labelled']:,} of {state['n_pictures']:,} pictures have a label, in {state['csv']}")
    if state["n_labelled"]:
        console.say("Next: " + command_line("extract", state["csv"]) + " and tlfeat fit-sklearn")


def _opened(
    console: Console, wanted: Wanted, model: Path | None, *, is_fixing: bool, is_trusted: bool
) -> AbstractContextManager[Server]:
    if model is None and not is_fixing:
        from tlfeat.labelling.start import open_labelling

        return open_labelling(wanted, command_line)
    from tlfeat.labelling.start_walking import Voice, open_fixing, open_reviewing

    voice = Voice(command_line, console.progress)
    if model is None:
        return open_fixing(wanted, voice)
    return open_reviewing(wanted, folder_of_model(console, model, None), voice, is_trusted=is_trusted)


def _serve(console: Console, server: Server, *, has_browser: bool) -> None:
    """Say where the page is, open it, and wait until it is closed."""
    is_far = bool(os.environ.get("SSH_CONNECTION"))
    console.result(server.address, {"address": server.address, "port": server.port})
    console.say(*(f"note: {note}" for note in server.session.notes))
    if is_far:
        console.say(f"From where you sit: ssh -N -L {server.port}:127.0.0.1:{server.port} THIS-MACHINE, then open it.")
    elif has_browser:
        import webbrowser

        webbrowser.open(server.address)
    console.say("Every answer is kept at once. Close the page or press Ctrl-C to end.")
    with suppress(KeyboardInterrupt):
        server.serve_until_closed()
    console.say("Stopping. What is embedded is kept.")


def run_next(
    console: Console,
    cache: Annotated[
        Path | None,
        typer.Argument(metavar="CACHE", help="The cache of all pictures. Default: the newest one under cache/."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE.csv", help="The labels so far: a CSV with the columns path and label."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many pictures to choose.")] = 20,
    layer: LayerOption = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="csv, to be filled in, or label-studio. Default: a table, and csv for --output."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to this file and print the table.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the order of the pictures.")] = 0,
) -> None:
    """Choose the pictures whose labels help most, as tlfeat label does, for those who label elsewhere."""
    from tlfeat import workspace
    from tlfeat.cache.store import open_cache
    from tlfeat.labelling import next_forms
    from tlfeat.labelling.next import names_in, next_pictures

    if file_format is not None:
        next_forms.check_format(file_format)
    with open_cache(cache or workspace.newest_cache()) as opened:
        console.speak_of(opened.source.get("holds", "images"), opened.table.images.classes)
        console.say(*opened.notes)
        found = next_pictures(opened, labels, n, layer=layer, seed=seed)
        names = names_in(opened, (labels or output or Path("labels.csv")).parent)
        images = opened.table.images
    console.say(*(f"note: {note}" for note in found.notes))
    text = next_forms.to_text(found, names, console.width)
    if file_format is not None or output is not None:
        written = next_forms.to_format(found, names, images, file_format or "csv")
        if file_format == "label-studio":
            console.say(*next_forms.interface_lines(found, images))
        if output is None:
            text = written
        else:
            workspace.write_text(output, written)
            console.say(f"Written: {output}")
    console.result(text, next_forms.to_document(found, names), is_prose=output is not None or file_format is None)
