"""A saved model becomes one file that takes pixels and gives labels, checked against `predict`, with a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.precision import INT8
from tlfeat.errors import CacheError, ModelError, UsageError
from tlfeat.files import kept_inside
from tlfeat.images.decode import Picture, decode_all
from tlfeat.images.resizing import pixel_type
from tlfeat.images.stores import StoredImage
from tlfeat.models.formats import Format, Run, find_format, write
from tlfeat.models.head_layers import add_head
from tlfeat.models.licences import credits_of, licence_texts
from tlfeat.models.model_card import Check, DataSet, Exported, model_card, read_data_set
from tlfeat.models.precise_export import at_precision, head_network, precision_of
from tlfeat.models.predict import Model
from tlfeat.models.saved import read_model, read_result
from tlfeat.records import Result
from tlfeat.text import counted
from tlfeat.types import OnProgress, Pixels, Probabilities, StrPath, silent
from tlfeat.workspace import write_text, written_together

#: Largest difference between a probability of the file and that of `predict`.
TOLERANCE = 1e-4

#: Test images that a file is checked on.
N_CHECKED = 16


def export_model(
    folder: StrPath,
    to: str,
    *,
    output: StrPath | None = None,
    is_trusted: bool = False,
    on_progress: OnProgress = silent,
) -> Exported:
    """Write backbone, preprocessing and head of a saved model as one file, labels and a model card beside it.

    Parameters
    ----------
    folder : str or path
        As written by ``fit-sklearn`` or ``fit-keras``.
    to : str
        A name of `formats.FORMATS`.
    output : str or path, optional
        The file, with the suffix of its format; a name under ``cache/exports/`` by default. What has that name
        is replaced when all is written and checked.
    is_trusted : bool, default=False
        Load a joblib head too, which can run any code.

    Raises
    ------
    ModelError
        Not a model, or one that the format cannot take; a package is missing; or the file gives other answers
        than `predict` (then none is written).
    """
    entry = find_format(to)
    folder = Path(folder)
    folder = (folder.parent if folder.is_file() else folder).resolve()
    file = Path(output) if output else workspace.export_file(folder, entry.suffix)
    _check_output(file, folder, entry)
    model = Model(folder, is_trusted=is_trusted)
    if hasattr(model.encoder, "decode"):
        raise ModelError(f"{folder} takes texts, and a file from tokens to labels is not written: use tlfeat predict.")
    result, encoder = read_result(folder), read_model(folder).encoder
    data = read_data_set(folder, result)
    example = _example(model, result, data)
    entry = at_precision(entry, model)
    on_progress(f"building the network for {to}", 0, 0)
    network = head_network(model) if precision_of(model) == INT8 else as_network(model)
    on_progress(f"writing and checking {file.name}", 0, 0)
    try:
        with written_together(file) as new:
            licences = licence_texts(encoder, folder)
            exported = _write_checked(network, model, entry, example, new, licences)
            exported = replace(exported, credits=credits_of(result, encoder), licences=list(licences))
            write_text(new.with_name(f"{file.name}.card.md"), model_card(result, data, exported))
    except OSError as error:
        raise CacheError(f"{file.parent} cannot be written: {error.strerror or error}.") from error
    return replace(exported, file=file, beside=[file.parent / path.name for path in exported.beside])


@dataclass(frozen=True, slots=True)
class _Example:
    """Pictures, what they are, and the probabilities that `predict` gives them."""

    what: str
    pixels: Pixels
    probabilities: Probabilities


def _example(model: Model, result: Result, data: DataSet) -> _Example:
    """Return test images that are still there, else noise."""
    pixels, what = _pictures(model, result, data)
    return _Example(what, pixels, model.probabilities(pixels))


def _write_checked(
    network: Any, model: Model, entry: Format, example: _Example, file: Path, licences: Mapping[str, bytes]
) -> Exported:
    """Write the file, its labels and licences; the card, named among those beside it, is the caller's to write."""
    labels = [_one_line(label) for label in model.classes]
    run = write(network, entry, labels, file)
    difference = compare(run, example.pixels, example.probabilities, labels)
    n_bytes = sum(path.stat().st_size for path in file.parent.iterdir())
    write_text(file.with_suffix(".labels.txt"), "".join(f"{label}\n" for label in labels))
    for name, text in licences.items():
        file.with_name(f"{file.name}.{name}").write_bytes(text)
    others = {path for path in file.parent.iterdir() if path != file}
    return Exported(
        file=file,
        format=entry.name,
        beside=sorted({*others, file.with_name(f"{file.name}.card.md")}),
        runtime=entry.version,
        n_bytes=n_bytes,
        labels=labels,
        input_size=model.encoder.input_size,
        resize=model.encoder.resize,
        check=Check(example.what, len(example.pixels), difference, TOLERANCE),
    )


def as_network(model: Model) -> Any:
    """Return the Keras model from float32 RGB pixels of 0 to 255 to probabilities of shape (n, n_classes).

    Raises
    ------
    ModelError
        The head cannot be a layer; see ``head_layers.add_head``.
    """
    keras = import_keras()
    if model.network is not None:
        pixels = keras.Input(model.network.input_shape[1:], name="pixels")
        return keras.Model(pixels, model.network(pixels, training=False))
    if isinstance(model.encoder, KerasEncoder):
        backbone = model.encoder.as_keras()
        vectors = backbone.outputs
        rows = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(vectors)
        return keras.Model(backbone.inputs[0], add_head(model.head, rows))
    if isinstance(model.encoder, PixelEncoder):
        pixels = keras.Input((*model.encoder.input_size, 3), name="pixels")
        rows = keras.layers.Flatten()(pixels / 255.0)
        return keras.Model(pixels, add_head(model.head, rows))
    raise ModelError(f"The encoder {model.encoder.name} is no Keras network and cannot be exported.")


def compare(run: Run, pixels: Pixels, expected: Probabilities, labels: Sequence[str]) -> float:
    """Return the largest difference between the probabilities of a written file and the `expected` ones.

    Parameters
    ----------
    run : Run
        The file.
    pixels : array of shape (n_images, height, width, 3)
    expected : float array of shape (n_images, n_classes)
    labels : sequence of str
        Of the classes.

    Raises
    ------
    ModelError
        It is larger than `TOLERANCE`, or the file's label is not the most probable class; where classes are equal to
        within `TOLERANCE` any of them may be named.
    """
    named, probabilities = run(pixels)
    if probabilities.shape != expected.shape:
        raise ModelError(f"The file gives {probabilities.shape} probabilities, expected {expected.shape}.")
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= TOLERANCE:  # nan is a difference
        raise ModelError(
            f"The file was not kept: its probabilities differ from those of tlfeat predict by {difference:.1g}, more "
            f"than {TOLERANCE:.0e}. tlfeat predict goes on working; another format may."
        )
    for label, row in zip(named, expected, strict=True):
        tied = [labels[j] for j in np.flatnonzero(row >= row.max() - 2 * TOLERANCE).tolist()]
        if label not in tied:
            raise ModelError(f"The file was not kept: it says '{label}' where tlfeat predict says '{tied[0]}'.")
    return difference


def _check_output(file: Path, folder: Path, entry: Format) -> None:
    if file.suffix != entry.suffix:
        raise UsageError(f"--to {entry.name} writes a file that ends in {entry.suffix}, received --output {file}.")
    if file.resolve().parent == folder:
        raise UsageError(f"--output {file} lies within the model that is exported. Name another folder.")


def _one_line(label: str) -> str:
    """A label as it can stand in a line of UTF-8: names of folders may hold anything."""
    return " ".join(label.encode(errors="replace").decode().split("\n"))


def _pictures(model: Model, result: Result, data: DataSet) -> tuple[Pixels, str]:
    size, resize = model.encoder.input_size, model.encoder.resize
    if (home := data.home) is not None:
        at = np.unique(np.linspace(0, len(result.test_paths) - 1, N_CHECKED).astype(np.int64))
        paths = [kept_inside(result.test_paths[i]) for i in at]
        files: list[Picture] = [home / p if isinstance(home, Path) else StoredImage(home, p) for p in paths]
        found = [d.pixels for d in decode_all(enumerate(files), size, resize=resize) if d.pixels is not None]
        if found:
            return np.stack(found), counted(len(found), "test image")
    noise = np.random.default_rng(0).integers(0, 256, (N_CHECKED, *size, 3)).astype(pixel_type(resize))
    return noise, f"{N_CHECKED} pictures of noise (no test image was found)"


def to_text(exported: Exported) -> str:
    """Return what was written, how far it agrees, and what it takes."""
    height, width = exported.input_size
    check = exported.check
    return "\n".join(
        [
            f"{exported.file}  ({exported.n_bytes / 1e6:.1f} MB)",
            f"  checked with   {exported.runtime} on {check.what}: same labels, probabilities within "
            f"{check.largest_difference:.1g} of tlfeat predict",
            f"  takes          pixels: float32 of shape (n, {height}, {width}, 3), RGB, 0 to 255, resized as the card "
            f"shows ({exported.resize})",
            f"  gives          {counted(len(exported.labels), 'probability', 'probabilities')} and the label: "
            f"{', '.join(exported.labels[:5])}{', ...' if len(exported.labels) > 5 else ''}",
            f"  beside it      {', '.join(path.name for path in exported.beside)}",
            *_terms(exported),
        ]
    )


def _terms(exported: Exported) -> Iterator[str]:
    if exported.credits is not None and exported.credits.terms:
        beside = "its copy beside it" if exported.licences else "put LICENSE.md of the folder of the weights beside it"
        yield f"  licence        {exported.credits.licence}: to pass the file on, {beside} ({exported.credits.terms})"


def to_document(exported: Exported) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        **{name: value for name, value in asdict(exported).items() if name != "format"},
        "file": str(exported.file),
        "beside": [str(path) for path in exported.beside],
    }
