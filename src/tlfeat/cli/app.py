"""The program: one page of registrations, in the order of ``tlfeat --help``. The commands are in the files beside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tlfeat.cli import adapt, cache, extract, fit, label, lists, look, predict, studies
from tlfeat.cli.console import INTERRUPTED_EXIT_CODE, Console, command, errors_as_exit_codes
from tlfeat.system import notice_interrupts, speak_utf8

Commands = tuple[tuple[str, Callable[..., None], str], ...]

COMMANDS: Commands = (
    ("extract", extract.run_extract, "Compute and cache embeddings of images."),
    ("label", label.run_label, "Label pictures by keyboard, on a page of this machine."),
    ("next", label.run_next, "Choose which pictures to label next, elsewhere."),
    ("fit-sklearn", fit.run_fit_sklearn, "Fit a scikit-learn head on cached embeddings, in seconds."),
    ("fit-keras", fit.run_fit_keras, "Train a Keras head, fine-tune, or train from scratch."),
    ("recipes", lists.run_recipes, "Show the recipes of fit-keras, taken from tutorials."),
    ("summary", lists.run_summary, "Print a network: its layers, frozen or trained."),
    ("compare", studies.run_compare, "Compare all models on one split: accuracy and time."),
    ("report", studies.run_report, "Write the page of a comparison again; fits nothing."),
    ("sweep", studies.run_sweep, "Find the best layer: accuracy by depth of the backbone."),
    ("curve", studies.run_curve, "Measure accuracy by number of labelled images per class."),
    ("adapt", adapt.run_adapt, "Bring heads to another domain without its labels."),
    ("audit", studies.run_audit, "Find duplicates, leaks, wrong labels, outliers, imbalance."),
    ("similar", look.run_similar, "Show the pictures of a cache that are most like an image."),
    ("map", look.run_map, "Draw the map of a cache: clusters of alike images."),
    ("models", predict.run_models, "List the saved models of a cache, the best first."),
    ("predict", predict.run_predict, "Predict labels and probabilities of new images."),
    ("export", predict.run_export, "Write a model as one file: Keras, ONNX, OpenVINO, TFLite."),
    ("backbones", lists.run_backbones, "List the backbones."),
    ("layers", lists.run_layers, "List the layers of a backbone."),
)

CACHE_COMMANDS: Commands = (
    ("info", cache.run_info, "Show what a cache holds."),
    ("join", cache.run_join, "Make one cache of the shards in a folder."),
    ("verify", cache.run_verify, "Check every stored embedding, and repair."),
    ("export", cache.run_export, "Write embeddings and labels to a file."),
    ("import", cache.run_import, "Make a cache from other embeddings."),
    ("clean", cache.run_clean, "Free what can be made again."),
)


def with_address(args: Sequence[str]) -> list[str]:
    """Return the words of a command line with the address after a bare ``--ray``: typer knows no optional values."""
    words = list(args)
    if "--ray" in words:
        after = words.index("--ray") + 1
        if after == len(words) or words[after].startswith("-"):
            words.insert(after, "auto")
    return words


class Program(TyperGroup):
    """All commands in one block, which turns errors into exit codes; that of no command can be forgotten."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **extra: Any) -> Any:
        """Read the command line."""
        with errors_as_exit_codes():
            return super().make_context(info_name, with_address(args), *others, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with errors_as_exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Program,
    help="Embed images once with a frozen Keras backbone, fit scikit-learn heads in seconds, compare honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cache_app = typer.Typer(help="Show, check, export, import or clean up a cache.", no_args_is_help=True)

for to, commands in ((app, COMMANDS), (cache_app, CACHE_COMMANDS)):
    for name, run, short_help in commands:
        to.command(name, short_help=short_help)(command(run))
app.add_typer(cache_app, name="cache")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Embed images once, fit heads in seconds, compare honestly."""
    if version:
        from tlfeat.records import distribution_version

        Console().result(distribution_version("tlfeat"), None)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    speak_utf8()
    notice_interrupts()
    try:
        app()
    except SystemExit as end:
        if end.code != INTERRUPTED_EXIT_CODE:
            raise
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        # Not the usual end: it waits for threads, where a second Ctrl-C is a traceback; and where Ctrl-C came within
        # exec() Python makes another code of 130.
        os._exit(INTERRUPTED_EXIT_CODE)
