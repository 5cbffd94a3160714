"""``tlfeat backbones``, ``layers``, ``recipes`` and ``summary``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import BackboneOptions, InputSizeOption, NetworkOptions, parse_size
from tlfeat.text import aligned


def run_backbones(console: Console) -> None:
    """List the backbones that have a name."""
    from tlfeat.backbones.network import list_backbones

    entries = list_backbones()
    rows = [
        (
            e["name"],
            "x".join(map(str, e["input_size"])),
            e["width"],
            f"{e['parameters'] / 1e6:.1f} M",
            e["preprocess"],
            e["licence"],
        )
        for e in entries
    ]
    headings = ("name", "input", "width", "parameters", "preprocess", "licence")
    droppable = ("licence", "preprocess", "parameters")
    console.result(aligned(headings, rows, width=console.width, droppable=droppable), entries)


def run_layers(
    console: Console,
    name: Annotated[str, typer.Argument(help="A name from `tlfeat backbones`, or your FILE.keras.")] = "digits_cnn",
    input_size: InputSizeOption = None,
) -> None:
    """List the layers of a backbone and which of them can be embeddings."""
    from tlfeat.backbones.graph import list_layers
    from tlfeat.backbones.network import BackboneSpec

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
