"""What someone who is handed a model should know of it, from its Result: a model card in Markdown.

The sections are those of Hugging Face's template, after Mitchell et al. 2019, "Model cards for model reporting",
arXiv:1810.03993.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.adapt.methods import METHODS
from tlfeat.backbones.hub_catalog import FAMILIES, HUB_BACKBONES
from tlfeat.backbones.preprocess import PREPROCESS
from tlfeat.cache.store import open_cache
from tlfeat.errors import TlfeatError
from tlfeat.evaluate.calibration import calibration_text
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.split import TEST_FRACTION, make_split
from tlfeat.heads.reject import reference_text
from tlfeat.heads.shift import shift_sentence
from tlfeat.images.resizing import CROPPED, covered_size
from tlfeat.images.stores import Store
from tlfeat.models.licences import Credits, credits_of
from tlfeat.models.saved import read_model
from tlfeat.records import Result, distribution_version
from tlfeat.text import counted, in_markdown, markdown_table, page, percent, size, value_text

ROLES = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Check:
    """How a written file was compared with `predict`."""

    what: str  # "16 test images"
    n_images: int
    largest_difference: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes
    ----------
    file : Path
        The one to load.
    format : str
        One of `formats.FORMATS`, by name.
    beside : list of Path
        Labels, model card and, for OpenVINO, the weights.
    runtime : str
        What it was checked with, with its version.
    n_bytes : int
        Of the file, weights included.
    labels : list of str
        In the order of the probabilities.
    input_size : (int, int)
        Height and width of the pixels that it takes.
    resize : str
        How `predict` brings pictures to that size: one of `resizing.RESIZES`.
    check : Check
    credits : Credits or None
        Of the weights; from the Result alone where there are none.
    licences : list of str
        Names of the files of the licence of the weights that were found, and copied beside the file.
    """

    file: Path
    format: str
    beside: list[Path]
    runtime: str
    n_bytes: int
    labels: list[str]
    input_size: tuple[int, int]
    resize: str
    check: Check
    credits: Credits | None = None
    licences: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DataSet:
    """What the images were, as far as their cache is still there.

    Attributes
    ----------
    name : str
        The folder's or the table's own name.
    home : Path or Store or None
        Where the test images lie.
    counts : dict of str to list of int
        Class to training, validation and test images; empty where the split cannot be made again.
    n_groups : int
        Groups of images that stay on one side; 0 where each image is its own.
    """

    name: str
    home: Path | Store | None = None
    counts: dict[str, list[int]] = field(default_factory=dict)
    n_groups: int = 0


def read_data_set(folder: Path, result: Result) -> DataSet:
    """Look up the data of a saved model in the cache that model.json names; of an older version, ``cache/NAME.h5``.

    Where that is gone, or holds other images by now, less is said; nothing fails.
    """
    try:
        file = read_model(folder).cache or folder.parents[2] / f"{folder.parent.name}.h5"
        with open_cache(file) as cache:
            images = cache.table.images
            fraction = TEST_FRACTION if result.split.test_fraction is None else result.split.test_fraction
            split = make_split(
                cache.table, seed=result.split.seed, test_fraction=fraction, test_split=result.split.test_split
            )
    except (TlfeatError, OSError, IndexError):
        return DataSet(folder.parent.name)
    if split.info.digest != result.split.digest:
        return DataSet(images.name, images.home)
    labels = {role: split.labels[split.where(role)] for role in ROLES}
    counts = {
        name: [int(np.count_nonzero(labels[role] == c)) for role in ROLES] for c, name in enumerate(split.classes)
    }
    n_groups = len(set(images.groups) - {""})
    return DataSet(images.name, images.home, counts, n_groups)


def model_card(result: Result, data: DataSet, exported: Exported) -> str:
    """Return the card of an exported file, with an example that runs it.

    Parameters
    ----------
    result : Result
        Of the model that was exported.
    data : DataSet
    exported : Exported
    """
    found = exported.credits or credits_of(result, {"backbone": result.backbone})
    return (
        page(
            __package__,
            "card.md",
            version=distribution_version("tlfeat"),
            fingerprint=json.dumps(result.fingerprint),
            result=replace(result, notes=[in_markdown(note) for note in result.notes]),
            data=replace(data, name=in_markdown(data.name)),
            labels=[in_markdown(label) for label in exported.labels],
            file=exported.file.name,
            format=exported.format,
            runtime=exported.runtime,
            file_size=size(exported.n_bytes),
            height=exported.input_size[0],
            width=exported.input_size[1],
            resize=exported.resize,
            needs_hub=result.backbone in (*FAMILIES, *(row.name for row in HUB_BACKBONES)),
            covered=covered_size(exported.input_size, exported.resize) if exported.resize in CROPPED else None,
            check=exported.check,
            preprocess=PREPROCESS.get(str(result.fingerprint.get("preprocess")), ""),
            weights=found.weights,
            licence=found.licence,
            terms=found.terms,
            licences=[f"{exported.file.name}.{name}" for name in exported.licences],
            classes=_class_table(data, exported.labels) if data.counts else "",
            scores=_score_table(result),
            per_class=_per_class_table(result, exported.labels),
            calibration=calibration_text(result.score.calibration) if result.score.calibration else "",
            leaks=_leaks(result),
            shift=shift_sentence(result.shift),
            chosen=", ".join(f"{name} {value_text(value)}" for name, value in result.chosen.items()),
            percent=percent,
            reference=reference_text(result.reference),
            adapted=_adapted(result),
        )
        + "\n"
    )


def _adapted(result: Result) -> dict[str, str]:
    """Say what was used of which domains, where the model was adapted to one; empty elsewhere."""
    said = result.settings
    if not result.candidate.startswith("adapted-") or "target" not in said:
        return {}
    method = next((one.what for one in METHODS if one.name == said.get("method")), "")
    return {
        "target": in_markdown(str(said["target"])),
        "sources": ", ".join(in_markdown(str(name)) for name in said.get("source", [])),
        "images": counted(int(said.get("n_adapt", 0)), "image"),
        "method": in_markdown(str(said.get("method"))),
        "what": method,
    }


def _class_table(data: DataSet, labels: Sequence[str]) -> str:
    rows = [(label, *map(str, n)) for label, n in zip(labels, data.counts.values(), strict=True)]
    return markdown_table(("class", "train", "validation", "test"), rows)


def _score_table(result: Result) -> str:
    score = result.score
    rows = [
        ("accuracy", percent(score.accuracy), _interval(score.ci95)),
        ("balanced accuracy", percent(score.balanced_accuracy), _interval(score.balanced_accuracy_ci95)),
        ("macro F1", percent(score.macro_f1), _interval(score.macro_f1_ci95)),
    ]
    return markdown_table(("score", "value", "95 % interval"), rows)


def _per_class_table(result: Result, labels: Sequence[str]) -> str:
    rows = []
    for label, found in zip(labels, result.score.per_class, strict=False):
        cells = [
            f"{percent(found[name])} ({_interval(found.get(f'{name}_ci95'))})" if found.get(name) is not None else "–"
            for name in ("precision", "recall")
        ]
        rows.append((label, str(found["n"]), *cells))
    return markdown_table(("class", "test images", "precision (95 % interval)", "recall (95 % interval)"), rows)


def _interval(ends: Any) -> str:
    return "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _leaks(result: Result) -> str:
    if result.leaks is None:
        return "Leaks (test images that show a picture of the training images) were not looked for."
    found = leak_sentence(result.leaks)
    return found or "No test image was found to show a picture of the training images."
