"""Options of commands that train networks: what fit-keras, summary and compare share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tlfeat.cli.options import EpochsOption, given_of, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """What a network consists of and which layers train; named as in `TrainSettings`, None where not given."""

    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Start from a recipe of `tlfeat recipes`; other options override its settings.",
        ),
    ] = None
    is_as_written: Annotated[
        bool,
        typer.Option("--as-written", help="The recipe exactly as its tutorial has it, mistakes included."),
    ] = False
    unfreeze_last: Annotated[
        int | None,
        typer.Option(
            "--unfreeze-last",
            min=1,
            help="Fine-tune the last N layers of the backbone; of a vision transformer its last N blocks.",
        ),
    ] = None
    is_from_scratch: Annotated[
        bool | None,
        typer.Option("--from-scratch", help="Train the same architecture from random weights.", show_default=False),
    ] = None
    dense: Annotated[
        str | None,
        typer.Option(
            "--dense", metavar="N,...", help="Units of the hidden layers, such as 512,512. 0: none. Default: 128."
        ),
    ] = None
    dropout: Annotated[
        float | None,
        typer.Option("--dropout", help="Rate after each hidden layer, or before the last layer if none. Default: 0.2."),
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="sparse_categorical_crossentropy, categorical_crossentropy or binary_crossentropy. "
            "Default: sparse_categorical_crossentropy.",
        ),
    ] = None
    trains_batchnorm: Annotated[
        bool | None,
        typer.Option(
            "--train-batchnorm",
            help="Update the statistics of BatchNormalization in unfrozen layers.",
            show_default=False,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return what was asked for, by the names that `recipes.choose_settings` has for it."""
        return given_of({**values_of(self), "recipe": None})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions(NetworkOptions):
    """How a network is trained; named as in `TrainSettings`, None where not given."""

    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="HOW",
            help="Random changes of training images: none, or such as flip=horizontal,rotation=0.2,zoom=0.2,shear=0.2.",
        ),
    ] = None
    views: Annotated[
        int | None,
        typer.Option(
            "--views",
            min=0,
            help="With --augment: use N fixed changed copies of each image, so that frozen layers run once. "
            "0: new changes in every epoch. Default: 0.",
        ),
    ] = None
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="adam, adamw, rmsprop or sgd. Default: adam.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Learning rate. Default: 1e-3; 1e-4 with --unfreeze-last.")
    ] = None
    head_epochs: Annotated[
        int | None,
        typer.Option(
            "--head-epochs",
            min=0,
            help="Two phases: train the head alone for N epochs, then the layers of --unfreeze-last too. Default: 0.",
        ),
    ] = None
    head_learning_rate: Annotated[
        float | None,
        typer.Option("--head-learning-rate", help="Learning rate of the first of two phases. Default: 1e-3."),
    ] = None
    plateau: Annotated[
        int | None,
        typer.Option(
            "--reduce-on-plateau",
            min=0,
            help="Divide the learning rate by 10 after N epochs without a lower validation loss. 0: never. Default: 0.",
        ),
    ] = None
    epochs: EpochsOption = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=0,
            help="Stop after N epochs without a lower validation loss. 0: 3 epochs and at least 75 steps; from "
            "scratch 8 and 200. Default: 0.",
        ),
    ] = None
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Weights to keep: best (lowest validation loss) or last epoch. Default: best."),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images per training step. Default: 32.")
    ] = None
    cut: Annotated[
        str | None,
        typer.Option(
            "--cut",
            help="How the outputs of the frozen layers are stored: float32 or float16. off: compute them from pixels "
            "in every epoch. Default: float32.",
        ),
    ] = None
