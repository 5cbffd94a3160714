"""``tlfeat predict`` and ``tlfeat export``: what a saved model is for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import ModelArgument, TrustOption
from tlfeat.errors import DataError, UsageError


def run_predict(
    console: Console,
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of classes to list for each image.")] = 1,
    reject: Annotated[
        bool,
        typer.Option("--reject", help="Answer 'unknown' for images unlike the training images or uncertain ones."),
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="With --reject: share of images of known classes to answer. Default: 0.95."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    trust: TrustOption = False,
) -> None:
    """Predict the labels of new images, with probabilities."""
    from tlfeat.heads.reject import COVERAGE, reference_text, reference_warning
    from tlfeat.models.predict import Model, find_files, to_csv, to_text

    if coverage is not None and not reject:
        raise UsageError("--coverage says how much --reject lets through: add --reject.")
    if reject and coverage is None:
        coverage = COVERAGE
    files = find_files(images)
    loaded = Model(model, is_trusted=trust, coverage=coverage)
    if reject and loaded.reference:
        console.say(f"This model {reference_text(loaded.reference)}, and few pictures of a new class of the same kind.")
        console.warn(*filter(None, [reference_warning(loaded.reference)]))
    found = list(loaded.predict(files, n_top=top, on_progress=console.progress))
    text = to_csv(found) if as_csv else to_text(found)
    console.result(text, is_prose=not as_csv, document=[dataclasses.asdict(prediction) for prediction in found])
    if all(prediction.error for prediction in found):
        raise DataError(f"No image of {len(found)} could be read.")


def run_export(
    console: Console,
    model: ModelArgument,
    to: Annotated[str, typer.Option("--to", help="keras, onnx, openvino or tflite.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file. Default: a name under cache/exports/.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Write backbone, preprocessing and head as one file from pixels to labels, checked, with a model card."""
    from tlfeat.models.export import export_model, to_document, to_text

    found = export_model(model, to, output=output, is_trusted=trust, on_progress=console.progress)
    console.result(to_text(found), to_document(found))
