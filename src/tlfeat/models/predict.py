"""A saved model and new images become labels and probabilities."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.encoder import Encoder
from tlfeat.errors import DataError, ModelError
from tlfeat.extract.embed import embed_files
from tlfeat.finetune.saved import load_model, predict_pixels
from tlfeat.heads.domain_check import MAX_ROWS, DomainRows, domain_sentence, load_domain
from tlfeat.heads.fit import predict_probabilities
from tlfeat.heads.reject import Rejector, check_coverage, load_rejector
from tlfeat.heads.saved import load_head
from tlfeat.heads.words import takes_words, words_probabilities
from tlfeat.images.decode import Decoded, n_reads_of
from tlfeat.images.load import load_images
from tlfeat.images.open_store import is_store, named_image, one_image
from tlfeat.images.packed import is_packed, stored_images
from tlfeat.images.pictures import images_at
from tlfeat.images.stores import StoredImage
from tlfeat.models.rebuild import BATCH_SIZE, rebuild_encoder
from tlfeat.models.saved import read_model, read_result
from tlfeat.text import aligned, csv_cell
from tlfeat.texts.read import TableText
from tlfeat.texts.text_set import TABLE_SUFFIXES, load_texts, looks_like_texts
from tlfeat.types import Labels, OnProgress, Pixels, Probabilities, Rows, StrPath, silent

#: The label of a picture that is refused.
UNKNOWN = "unknown"

#: What is predicted: a file, a text of a table, an image of a bucket or a server.
Item = Path | TableText | StoredImage


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one file.

    Attributes
    ----------
    path : str
    label : str
        The most probable class, or "unknown" where `refused` says why; "" where the file could not be read.
    probability : float
        Of the most probable class.
    top : list of (label, probability)
        The k most probable classes, falling.
    error : str
        Why the file could not be read.
    refused : str
        Why the answer is "unknown".
    """

    path: str
    label: str = ""
    probability: float = 0.0
    top: list[tuple[str, float]] = field(default_factory=list)
    error: str = ""
    refused: str = ""


class Model:
    """A saved head with the encoder that feeds it, or a whole Keras network.

    Parameters
    ----------
    folder : str or path
        As written by ``fit-sklearn`` or ``fit-keras``.
    is_trusted : bool, default=False
        Load a joblib head too, which can run any code.
    coverage : float, optional
        Answer "unknown" to pictures unlike the training images, and to uncertain ones, such that this share of known
        pictures is answered (0.5 to 0.999).

    Attributes
    ----------
    classes : list of str
    encoder : Encoder
        What decides how pictures are decoded.
    head, network : object or None
        The one of the two that there is.
    reference : dict
        What is refused of reference images, as in `records.Result`; empty without `coverage`.

    Raises
    ------
    ModelError
        Not a model, damaged, or its encoder cannot be rebuilt: other weights, other preprocessing. Or it cannot
        tell what it does not know: a network, or a head of an older version.
    """

    def __init__(self, folder: StrPath, *, is_trusted: bool = False, coverage: float | None = None) -> None:
        folder = Path(folder)
        folder = folder.parent if folder.is_file() else folder  # model.json or head.skops was named
        info = read_model(folder)
        self.rejector: Rejector | None = None
        self.domain: DomainRows | None = None
        self.reference: dict[str, Any] = {}
        self.coverage = coverage
        self._seen: list[tuple[Rows, Labels]] = []
        if coverage is not None:
            check_coverage(coverage)
            self.rejector = load_rejector(folder)
            with suppress(ModelError):  # answers do not need the result
                self.reference = read_result(folder).reference
        self.classes = info.classes
        self.layer = info.layer
        self.encoder = rebuild_encoder(folder, info)
        self.head: Any = None
        self.network: Any = None
        self.classify: Callable[[Rows], Probabilities]
        if info.kind == "keras":
            self.network = load_model(folder / "model.keras")
            self._check_classes(folder, self.network.output_shape[-1])
            self.encoder, self.classify = _Network(self.network, self.encoder), lambda rows: rows.astype(np.float64)
        else:
            self.head = load_head(folder, is_trusted=is_trusted)
            self._check_classes(folder, len(self.head.classes_))
            if self.head.classes_.dtype.kind == "U" and self.head.classes_.tolist() != self.classes:
                raise ModelError(
                    f"{folder}: the head names other classes than model.json. Its files do not belong together."
                )
            self.classify = lambda rows: predict_probabilities(self.head, rows)
            if takes_words(self.head):
                self.classify = lambda rows: words_probabilities(self.head, rows[:, 0])
            width = getattr(self.head, "n_features_in_", None)
            self.domain = load_domain(folder, width, len(self.classes)) if width else None
            if self.rejector and width != len(self.rejector.known_rows.mean):
                raise ModelError(
                    f"{folder}: the head takes {width} columns, reject.npz {len(self.rejector.known_rows.mean)}. Its "
                    f"files do not belong together."
                )

    def _check_classes(self, folder: Path, n_classes: int) -> None:
        if n_classes != len(self.classes):
            raise ModelError(
                f"{folder}: the model was fitted on {n_classes} classes, but model.json names "
                f"{len(self.classes)}. Its files do not belong together."
            )

    def predict(
        self, files: Sequence[StrPath | TableText | StoredImage], *, n_top: int = 1, on_progress: OnProgress = silent
    ) -> Iterator[Prediction]:
        """Give a `Prediction` for every file, in order; one that cannot be decoded says why."""
        items = [file if isinstance(file, TableText | StoredImage) else _item(file) for file in files]
        self._seen.clear()
        return self._predict(items, n_top, on_progress)

    def predict_rows(self, rows: Rows, names: Sequence[str], *, n_top: int = 1) -> list[Prediction]:
        """Give a `Prediction` for every row, in order; nothing is decoded or embedded.

        Parameters
        ----------
        rows : float32 array of shape (n_images, width)
            As `encoder` makes them, its layers side by side: of a cache with its fingerprint.
        names : sequence of str
            What each is called.
        n_top : int, default=1
        """
        probabilities = self.classify(rows)
        self._keep(rows, probabilities)
        refused = [""] * len(rows)
        if self.rejector and self.coverage is not None:
            refused = self.rejector.reasons(rows, probabilities, coverage=self.coverage)
        told = zip(names, probabilities, refused, strict=True)
        return [self._prediction(name, row, n_top, why) for name, row, why in told]

    def domain_warning(self) -> str:
        """Return a sentence where the pictures that were predicted last are of another domain, "" elsewhere."""
        if self.domain is None or not self._seen:
            return ""
        rows = np.concatenate([rows for rows, _ in self._seen])
        auc = self.domain.apart(rows, np.concatenate([named for _, named in self._seen]))
        return "" if auc is None else domain_sentence(self.domain.name, auc, len(rows))

    def _keep(self, rows: Rows, probabilities: Probabilities) -> None:
        """Keep the first rows of a run, by which its domain is known."""
        room = MAX_ROWS - sum(len(kept) for kept, _ in self._seen)
        if self.domain is not None and room > 0:
            self._seen.append((rows[:room].copy(), probabilities[:room].argmax(axis=1)))

    def _predict(self, files: Sequence[Item], n_top: int, on_progress: OnProgress) -> Iterator[Prediction]:
        done: dict[int, Prediction] = {}

        def is_wanted(decoded: Decoded) -> bool:
            if decoded.pixels is None:
                done[decoded.i] = Prediction(_name_of(files[decoded.i]), error=decoded.error)
            on_progress("predicting", decoded.i + 1, len(files))
            return decoded.pixels is not None

        n_given = 0
        batches = embed_files(enumerate(files), self.encoder, is_wanted=is_wanted, n_reads=n_reads_of(files))
        for batch in chain(batches, [None]):
            if batch is not None:
                names = [_name_of(files[decoded.i]) for decoded in batch.files]
                found = self.predict_rows(self._side_by_side(batch.rows), names, n_top=n_top)
                done |= {decoded.i: one for decoded, one in zip(batch.files, found, strict=True)}
            while n_given in done:
                yield done.pop(n_given)
                n_given += 1

    def probabilities(self, pixels: Pixels) -> Probabilities:
        """Return probabilities of shape (n_images, n_classes) of decoded pictures, as the encoder takes them."""
        return self.classify(self._side_by_side(self.encoder.encode(pixels)))

    def _side_by_side(self, rows: Mapping[str, Rows]) -> Rows:
        taken = [rows[layer] for layer in self.encoder.layers]
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)

    def _prediction(self, name: str, row: npt.NDArray[np.float64], n_top: int, refused: str) -> Prediction:
        best = np.argsort(-row, kind="stable")[: max(n_top, 1)]
        top = [(self.classes[j], float(row[j])) for j in best]
        return Prediction(name, UNKNOWN if refused else top[0][0], top[0][1], top, refused=refused)


def _item(file: StrPath) -> Path | StoredImage:
    return one_image(os.fspath(file)) if is_store(file) else Path(file)


def _name_of(file: Item) -> str:
    return file.as_posix() if isinstance(file, Path) else file.name


class _Network:
    """A whole Keras network as an `Encoder` whose one layer is the probabilities."""

    layers = ("probabilities",)
    batch_size = BATCH_SIZE
    is_parallel = False
    runtime = "keras"
    notes = ()

    def __init__(self, model: Any, backbone: Encoder) -> None:
        self.model = model
        self.name = backbone.name
        self.fingerprint = backbone.fingerprint
        self.input_size = backbone.input_size
        self.resize = backbone.resize

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """The model is there."""

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        """Return the probabilities as if they were rows."""
        return {"probabilities": predict_pixels(self.model, pixels, batch_size=BATCH_SIZE).astype(np.float32)}


def to_text(predictions: Sequence[Prediction], *, is_of_texts: bool = False) -> str:
    """Return one line an image or text: path, then every named class with its probability."""
    rows = [(p.path, _in_words(p)) for p in predictions]
    return aligned(("text" if is_of_texts else "image", "prediction"), rows, n_left=2)


def _in_words(prediction: Prediction) -> str:
    if prediction.error:
        return f"error: {prediction.error}"
    named = "  ".join(f"{label} {100 * q:.1f} %" for label, q in prediction.top)
    return f"{UNKNOWN}: {prediction.refused} (else {named})" if prediction.refused else named


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return path, label, probability, error, refused and the further classes as CSV, without a final line break."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    n_top = max((len(p.top) for p in predictions), default=1)
    further = [f"{name}_{k}" for k in range(2, n_top + 1) for name in ("label", "probability")]
    writer.writerow(["path", "label", "probability", "error", "refused", *further])
    for p in predictions:
        cells = [cell for label, q in p.top[1:] for cell in (label, f"{q:.6f}")]
        told = [p.path, p.label, f"{p.probability:.6f}" if p.label else "", p.error, p.refused, *cells]
        writer.writerow([csv_cell(cell) for cell in told])
    return out.getvalue().rstrip("\n")


def find_files(paths: Sequence[StrPath]) -> list[Item]:
    """Return the named files, the images or texts below the named folders, and the texts of the named tables.

    A URL is that of an image, or of what `load_images` takes; a path may lead into an archive (`named_image`).

    Raises
    ------
    DataError
        A path does not exist, or a folder holds no image and no text.
    """
    found: list[Item] = []
    for named in paths:
        if is_store(named):
            found += images_at(os.fspath(named))
            continue
        path = Path(named)
        if isinstance(image := named_image(path), StoredImage):
            found.append(image)
            continue
        if not path.exists():
            raise DataError(f"{path} does not exist (looked in {Path.cwd()}).")
        if path.suffix.lower() in TABLE_SUFFIXES and looks_like_texts(path):
            texts = load_texts(path, is_labelled=False)
            found += map(TableText, texts.paths, texts.contents)
        elif path.is_dir() and looks_like_texts(path):
            found += [path / name for name in load_texts(path).paths]
        elif path.is_dir() or is_packed(path):
            images = load_images(path)
            found += [path / name for name in images.paths] if images.store is None else stored_images(path, images)
        else:
            found.append(path)
    return found
