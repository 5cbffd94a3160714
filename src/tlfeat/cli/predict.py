"""``tlfeat models``, ``predict`` and ``export``: which models there are, and what they are for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import CacheOption, ModelArgument, TrustOption
from tlfeat.errors import DataError, UsageError
from tlfeat.text import counted


def run_models(console: Console, cache: CacheOption = None) -> None:
    """List the saved models of a cache: those of the last split first, the best first."""
    from tlfeat import workspace
    from tlfeat.models.listing import saved_models, to_documents, to_text

    path = cache or workspace.newest_cache()
    models = saved_models(path)
    console.say(f"{counted(len(models), 'model')} of {path}")
    console.result(to_text(models, console.width), to_documents(models))
    if models:
        console.say(f"Next: tlfeat predict {models[0].name} IMAGE..." + (f" --cache {cache}" if cache else ""))
    else:
        console.say("Next: tlfeat fit-sklearn" + (f" --cache {cache}" if cache else ""))


def run_predict(
    console: Console,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGE...",
            help="Image files, folders or archives of them, or URLs (s3://, https://...). A model may stand before "
            "them: its folder, or its name from `tlfeat models`. Default: the best model of the last split of the "
            "cache.",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="NAME", help="The model, if it does not stand before the images.")
    ] = None,
    cache: CacheOption = None,
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
    named, images = (model, images) if model else _model_and_images(images)
    files = find_files(images)
    loaded = Model(folder_of_model(console, named, cache), is_trusted=trust, coverage=coverage)
    if reject and loaded.reference:
        console.say(f"This model {reference_text(loaded.reference)}, and few pictures of a new class of the same kind.")
        console.warn(*filter(None, [reference_warning(loaded.reference)]))
    found = list(loaded.predict(files, n_top=top, on_progress=console.progress))
    console.warn(*filter(None, [loaded.domain_warning()]))
    text = to_csv(found) if as_csv else to_text(found, is_of_texts=hasattr(loaded.encoder, "decode"))
    console.result(text, is_prose=not as_csv, document=[dataclasses.asdict(prediction) for prediction in found])
    if all(prediction.error for prediction in found):
        raise DataError(f"No image of {len(found)} could be read.")


def run_export(
    console: Console,
    model: ModelArgument = None,
    *,
    to: Annotated[str, typer.Option("--to", help="keras, onnx, openvino or tflite.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file. Default: a name under cache/exports/.")
    ] = None,
    cache: CacheOption = None,
    trust: TrustOption = False,
) -> None:
    """Write backbone, preprocessing and head as one file from pixels to labels, checked, with a model card."""
    from tlfeat.models.export import export_model, to_document, to_text

    folder = folder_of_model(console, model, cache)
    found = export_model(folder, to, output=output, is_trusted=trust, on_progress=console.progress)
    console.result(to_text(found), to_document(found))


def _model_and_images(words: list[str]) -> tuple[Path | None, list[str]]:
    """Tell whether a model stands before the images: a folder with a model.json, or what is no file and no image."""
    from tlfeat.images.folders import IMAGE_SUFFIXES
    from tlfeat.images.open_store import is_store
    from tlfeat.models.listing import is_model

    if is_store(words[0]):
        return None, words
    first, others = Path(words[0]), words[1:]
    if is_model(first) and not others:
        raise UsageError(f"No image was named, only the model {first}.")
    is_gone = not first.exists() and first.suffix.lower() not in IMAGE_SUFFIXES
    has_models = first.is_dir() and any(first.glob("*/model.json"))
    return (first, others) if is_model(first) or (others and (is_gone or has_models)) else (None, words)


def folder_of_model(console: Console, named: Path | None, cache: Path | None) -> Path:
    """Return the folder of the model that was named, else of the best one of the cache, and say which it is."""
    from tlfeat.models.listing import find_model

    if named is not None and (named.exists() or len(named.parts) > 1):
        return named
    found = find_model(None if named is None else str(named), cache)
    console.say(found.sentence())
    return found.folder
