"""How a network is trained: `TrainSettings`, and the named, complete ones of three tutorials."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlfeat.errors import UsageError, nearest
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Recipe:
    """A complete way of training with a name.

    Attributes
    ----------
    name : str
    origin : str
        Where it comes from.
    backbone : str
        A name of the catalog.
    input_size : (int, int)
        Height and width in pixels.
    settings : TrainSettings
        With the backbone's own preprocessing, the best epoch's weights and frozen BatchNormalization.
    written : mapping
        The settings in which the tutorial differs.
    remarks : sequence of str
        What one should know of the difference.
    layout : str
        Of the data it was made for.
    """

    name: str
    origin: str
    backbone: str
    input_size: tuple[int, int]
    settings: TrainSettings
    written: Mapping[str, Any]
    remarks: Sequence[str]
    layout: str

    def make(self, *, is_as_written: bool = False, **changes: Any) -> TrainSettings:
        """Return the settings, with `changes` of single ones."""
        written = {**self.written, "recipe": self.name + _AS_WRITTEN} if is_as_written else {"recipe": self.name}
        return replace(self.settings, **{**written, **changes})


#: Ends the name of a recipe that is run to the letter of its tutorial.
_AS_WRITTEN = "-as-written"

_AS_THE_LAST_EPOCH = {"keep": "last", "patience": 10_000}

_RESCALED = (
    "As written pixels are scaled to 0 to 1, and {name} was trained on something else ({own}): the features of the "
    "frozen layers suffer. By default the backbone gets what it was trained on."
)

_LAST_EPOCH = (
    "As written all epochs run and the last one's weights are kept. By default those of the epoch with the lowest "
    "validation loss are."
)

RECIPES = (
    Recipe(
        "resnet50-potato",
        "A tutorial that tells early blight, late blight and healthy potato leaves apart (PlantVillage).",
        "resnet50",
        (256, 256),
        TrainSettings(
            dense=(512,),
            dropout=0.0,
            augment=Augmentation(flip="horizontal_and_vertical", rotation=0.2),
            epochs=50,
            patience=50,
            is_flattened=True,
        ),
        {**_AS_THE_LAST_EPOCH, "preprocess": "0-1"},
        (
            _RESCALED.format(name="ResNet50", own="BGR minus the ImageNet mean"),
            _LAST_EPOCH,
            "Flip, rotation and what else changes a picture are one interpolation, not one each.",
        ),
        "train, valid and test folders of class folders",
    ),
    Recipe(
        "mobilenetv2-binary",
        "A tutorial that tells two classes apart with a small head on a mobile network.",
        "mobilenet_v2",
        (224, 224),
        TrainSettings(dense=(128,), dropout=0.0, loss="binary_crossentropy"),
        dict(_AS_THE_LAST_EPOCH),
        (
            "The tutorial leaves the number of epochs open: 20 here, and at least 500 steps.",
            _LAST_EPOCH,
        ),
        "two class folders",
    ),
    Recipe(
        "inception-last15",
        "A tutorial that tells kinds of lung cancer apart on chest CT.",
        "inception_v3",
        (224, 224),
        TrainSettings(
            "finetuned",
            unfreeze_last=15,
            dense=(512, 512),
            dropout=0.3,
            augment=Augmentation(flip="horizontal", zoom=0.2, shear=0.2, fill="nearest"),
            loss="categorical_crossentropy",
            learning_rate=1e-3,
            plateau=10,
            is_flattened=True,
        ),
        {
            **_AS_THE_LAST_EPOCH,
            "preprocess": "0-1",
            "trains_batchnorm": True,
            "augment": Augmentation(flip="horizontal", zoom=0.2, shear=0.003491, fill="nearest"),
        },
        (
            _RESCALED.format(name="InceptionV3", own="-1 to 1"),
            _LAST_EPOCH,
            "As written BatchNormalization among the last 15 layers learns new statistics from batches of 32. By "
            "default it stays as it was.",
            "As written the shear of 0.2 is ImageDataGenerator's, in degrees: next to nothing. By default it is a "
            "fifth of the picture's height.",
            "The tutorial leaves epochs, learning rate and the plateau's patience open: 20 epochs and at least 500 "
            "steps, and Keras' own 0.001 and 10 epochs.",
        ),
        "train, valid and test folders of class folders",
    ),
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises
    ------
    UsageError
        There is none; the message names the nearest.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise UsageError(f"No recipe '{name}'. {nearest(name, [r.name for r in RECIPES], of='recipes')}")


def recipe_of(name: str) -> tuple[Recipe | None, bool]:
    """Return the recipe behind `TrainSettings.recipe`, None for another name, and whether it was run as written."""
    return next((r for r in RECIPES if r.name == name.removesuffix(_AS_WRITTEN)), None), name.endswith(_AS_WRITTEN)


def choose_settings(recipe: Recipe | None = None, *, is_as_written: bool = False, **changes: Any) -> TrainSettings:
    """Return the settings of a recipe, or the defaults, with the `changes` that are not None.

    `unfreeze_last` and `is_from_scratch` say which of `MODES` it is; ``augment`` and ``dense`` may be texts, as on the
    command line.

    Raises
    ------
    UsageError
        Changes that contradict each other, or what `TrainSettings` refuses.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if is_as_written and recipe is None:
        raise UsageError("--as-written says how a recipe is run: add --recipe NAME.")
    if changes.pop("is_from_scratch", False):
        if "unfreeze_last" in changes:
            raise UsageError(
                "--unfreeze-last and --from-scratch contradict each other: from scratch trains every layer."
            )
        changes["mode"] = "scratch"
    elif "unfreeze_last" in changes:
        changes["mode"] = "finetuned"
    if isinstance(changes.get("augment"), str):
        changes["augment"] = Augmentation.parse(changes["augment"])
    if isinstance(changes.get("dense"), str):
        changes["dense"] = _units(changes["dense"])
    if recipe is not None:
        return recipe.make(is_as_written=is_as_written, **changes)
    return TrainSettings(**changes)


def choose_backbone(recipe: Recipe | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a backbone: those `asked` for, and for what they leave open the recipe's.

    The input size of a recipe goes with its backbone only.
    """
    if recipe is None or asked.get("backbone"):
        return dict(asked)
    return {"backbone": recipe.backbone, "input_size": recipe.input_size, **asked}


def _units(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(
            f"--dense wants numbers of units such as 128 or 512,512 (0: no hidden layer), received '{text}'."
        )
    return tuple(int(word) for word in words if int(word))


def describe(recipe: Recipe) -> str:
    """Return what ``tlfeat recipes`` prints of one."""
    s = recipe.settings
    steps = [
        f"images of {recipe.input_size[0]}x{recipe.input_size[1]} pixels"
        + (f", changed at random in every epoch: {s.augment}" if s.augment else ""),
        f"{recipe.backbone} with ImageNet weights, average-pooled, "
        + (f"all but its last {s.unfreeze_last} layers frozen" if s.mode == "finetuned" else "frozen"),
        " > ".join(
            [
                *(["Flatten"] if s.is_flattened else []),
                *(f"Dense {n} relu" + (f" > Dropout {s.dropout:g}" if s.dropout else "") for n in s.dense),
                "Dense 1 sigmoid" if s.activation == "sigmoid" else "Dense softmax, one unit a class",
            ]
        ),
        f"{s.optimizer.capitalize()} at {s.rate:g}, {s.loss.replace('_', ' ')}, "
        f"batches of {s.batch_size}, " + (f"{s.epochs} epochs" if s.epochs else "20 epochs and at least 500 steps"),
        *([f"learning rate a tenth after {s.plateau} epochs without a lower validation loss"] if s.plateau else []),
    ]
    lines = [
        f"{recipe.origin} Data: {recipe.layout}.",
        *(f"- {step}" for step in steps),
        *recipe.remarks,
        f"tlfeat fit-keras DATA --recipe {recipe.name} [--as-written]",
    ]
    wrapped = (textwrap.wrap(line, 100, initial_indent="  ", subsequent_indent="    ") for line in lines)
    return "\n".join([recipe.name, *(part for line in wrapped for part in line)])


def to_document(recipe: Recipe) -> dict[str, Any]:
    """Return what ``tlfeat recipes --json`` prints of one."""
    return {
        "name": recipe.name,
        "origin": recipe.origin,
        "layout": recipe.layout,
        "backbone": recipe.backbone,
        "input_size": list(recipe.input_size),
        "settings": recipe.make().to_dict(),
        "as_written": recipe.make(is_as_written=True).to_dict(),
        "remarks": list(recipe.remarks),
    }
