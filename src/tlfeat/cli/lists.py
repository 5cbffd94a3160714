"""``tlfeat backbones``, ``layers``, ``recipes`` and ``summary``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import BackboneOptions, InputSizeOption, parse_size
from tlfeat.cli.training_options import NetworkOptions
from tlfeat.text import aligned

if TYPE_CHECKING:
    from tlfeat.cache.passes import Cost


def run_backbones(
    console: Console,
    like: Annotated[
        str | None, typer.Option("--like", metavar="NAME", help="Show the ten that are nearest in size to this one.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Order by a column: name, input, width, parameters, multiply-adds, top-1, processor, preprocess or "
            "licence. The smallest first, of top-1 the highest.",
        ),
    ] = None,
) -> None:
    """List the backbones that have a name, those for images and those for texts, with what helps to choose one.

    top-1 is published accuracy on ImageNet; processor is time of an image on this machine, where a cache under cache/
    has a measurement.
    """
    from tlfeat import workspace
    from tlfeat.backbones.figures import alike, list_backbones, ordered
    from tlfeat.backbones.text_catalog import list_text_backbones
    from tlfeat.cache.measured import measured
    from tlfeat.system import processor_name

    processor = processor_name()
    entries = list_backbones()
    sizes = {entry["name"]: entry["input_size"] for entry in entries}
    costs = measured(workspace.known_caches(), sizes, processor=processor)
    for entry in entries:
        cost = costs.get(entry["name"])
        entry |= {"cpu_ms": cost.cpu_ms, "cpu_known": cost.known} if cost else {"cpu_ms": None, "cpu_known": "unknown"}
        entry["processor"] = processor if cost else None
    entries = entries if like is None else alike(entries, like)
    entries = entries if sort is None else ordered(entries, sort)
    headings = ("name", "input", "width", "parameters", "multiply-adds", "top-1", "processor", "preprocess", "licence")
    droppable = ("licence", "preprocess", "input", "width")
    table = aligned(
        headings,
        [_backbone_row(entry, costs.get(entry["name"])) for entry in entries],
        width=console.width,
        droppable=droppable,
    )
    is_all = like is None and sort is None
    if is_all:
        table = f"For images\n{table}\n\nFor texts, with --weights FOLDER\n{_text_table(console.width)}"
    console.result(table, [*entries, *(list_text_backbones() if is_all else [])])
    known_on = f"on {processor} ({', '.join(costs)})" if costs else "not known yet: tlfeat extract measures it"
    console.say(
        "dinov2 to clip: pip install 'tlfeat[hub]' and --weights FOLDER, or a network to fetch them once. "
        "top-1: published ImageNet accuracy (sources: --json). multiply-adds: of one image at this input. processor: "
        f"an image, decoding included, {known_on}. For your images: tlfeat sweep --backbone A --backbone B DATA"
    )


def _text_table(width: int | None) -> str:
    from tlfeat.backbones.text_catalog import list_text_backbones

    rows = [
        (
            entry["name"],
            f"{entry['max_length']:,} tokens",
            f"{entry['width']:,}",
            f"{entry['parameters'] / 1e6:.1f} M",
            entry["languages"],
            entry["hub_name"],
            entry["licence"],
        )
        for entry in list_text_backbones()
    ]
    headings = ("name", "longest text", "width", "parameters", "language", "folder on huggingface.co", "licence")
    return aligned(headings, rows, width=width, droppable=("licence", "language", "longest text", "width"))


def _backbone_row(entry: dict[str, Any], cost: Cost | None) -> tuple[str, ...]:
    from tlfeat.cache.passes import cost_text

    giga = entry["multiply_adds"] / 1e9
    return (
        entry["name"],
        "x".join(map(str, entry["input_size"])),
        f"{entry['width']:,}",
        f"{entry['parameters'] / 1e6:.1f} M",
        f"{giga:.1f} G" if giga >= 1 else f"{1000 * giga:.0f} M",
        "–" if entry["top1"] is None else f"{entry['top1']:.1f} %",
        cost_text(cost),
        entry["preprocess"],
        entry["licence"],
    )


def run_layers(
    console: Console,
    name: Annotated[str, typer.Argument(help="A name from `tlfeat backbones`, or your FILE.keras.")] = "digits_cnn",
    input_size: InputSizeOption = None,
) -> None:
    """List the layers of a backbone and which of them can be embeddings."""
    from tlfeat.backbones.graph import list_layers
    from tlfeat.backbones.network import BackboneSpec
    from tlfeat.backbones.text_catalog import is_text_backbone

    if is_text_backbone(name):
        _say_text_layers(console, name)
        return
    is_file = name.endswith((".keras", ".h5", ".hdf5"))
    found = list_layers(BackboneSpec(name, "random", parse_size(input_size), preprocess="none" if is_file else None))
    rows = [
        (
            i.index,
            i.name,
            i.type,
            "x".join("?" if d is None else str(d) for d in i.output_shape[1:]),
            i.width if i.is_reachable else "no",
        )
        for i in found
    ]
    table = aligned(
        ("index", "name", "type", "output", "columns"),
        rows,
        n_left=3,
        width=console.width,
        droppable=("type", "output"),
    )
    console.result(table, [dataclasses.asdict(i) for i in found])


def _say_text_layers(console: Console, name: str) -> None:
    from tlfeat.backbones.text_catalog import TextBackbone, find_text
    from tlfeat.backbones.text_network import OWN, POOLINGS, layer_names

    entry = find_text(name)
    is_row = isinstance(entry, TextBackbone)
    names = layer_names(entry.n_blocks) if isinstance(entry, TextBackbone) else [OWN, "final", "block_1"]
    found = [
        {"name": each, "poolings": [] if each == OWN else list(POOLINGS), "width": getattr(entry, "width", None)}
        for each in names
    ]
    rows = [
        (each, "as it was trained" if each == OWN else f"{each}:{{{','.join(POOLINGS)}}}", getattr(entry, "width", "?"))
        for each in names
    ]
    console.result(aligned(("layer", "poolings of its tokens", "columns"), rows, n_left=2), found)
    if not is_row:
        console.say(f"{name} takes its size from the folder: as many blocks as that has")


def run_recipes(
    console: Console, name: Annotated[str | None, typer.Argument(help="One recipe. Default: all.")] = None
) -> None:
    """Show the recipes of fit-keras: what each does and where it comes from."""
    from tlfeat.finetune.recipes import RECIPES, describe, find_recipe, to_document

    found = [find_recipe(name)] if name else list(RECIPES)
    console.result("\n\n".join(describe(recipe) for recipe in found), [to_document(recipe) for recipe in found])


def run_summary(
    console: Console,
    model: Annotated[
        Path | None, typer.Argument(help="Model folder written by fit-keras. Default: the network of the options.")
    ] = None,
    network: NetworkOptions = NetworkOptions(),
    backbone: BackboneOptions = BackboneOptions(),
    classes: Annotated[int, typer.Option("--classes", min=2, help="Number of classes.")] = 2,
) -> None:
    """Print the network that fit-keras would train, layer by layer, with random weights; nothing is downloaded."""
    from tlfeat.finetune.recipes import choose_backbone, choose_settings, find_recipe
    from tlfeat.finetune.saved import summarise

    recipe = find_recipe(network.recipe) if network.recipe else None
    settings = choose_settings(recipe, **network.given())
    chosen = choose_backbone(recipe, backbone.given())
    found = summarise(settings, model=model, n_classes=classes, **chosen)
    console.result(found.text, found.to_dict(), is_prose=False)
