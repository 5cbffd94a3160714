"""Pages that walk through what is known before they open: doubts of an audit, predictions of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import read_rows
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.plan import default_cache_path, plan_extraction
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.labelling.answers import AnswerFile, open_answers
from tlfeat.labelling.doubts import all_labels, doubts_of, notes_of
from tlfeat.labelling.finish import fit_answers
from tlfeat.labelling.order import POOL, random_order
from tlfeat.labelling.pictures import Pictures, from_folder
from tlfeat.labelling.review import Review, load_reviewed, review
from tlfeat.labelling.server import Server
from tlfeat.labelling.session import Session
from tlfeat.labelling.start import Wanted, answers_path
from tlfeat.labelling.walking import Walking
from tlfeat.models.saved import read_model
from tlfeat.studies.audit import audit
from tlfeat.text import counted
from tlfeat.types import OnProgress, silent

#: Classes of a prediction that the page shows.
_N_TOP = 3


@dataclass(frozen=True, slots=True)
class Voice:
    """How a command speaks: progress, and commands of its words, quoted for a shell."""

    command_line: Callable[..., str]
    on_progress: OnProgress = silent


@contextmanager
def open_fixing(wanted: Wanted, voice: Voice) -> Iterator[Server]:
    """Open the page that asks about what `audit` doubts; the CSV has a line for every picture with a label.

    Raises
    ------
    DataError
        No picture has a label, neither by its folder nor by an answer.
    """
    images = load_images(wanted.data)
    pictures = Pictures(images, wanted.csv or answers_path(images))
    with open_answers(pictures.csv) as file:
        _write_all(pictures, file)
        job = plan_extraction(pictures.csv, **wanted.options)
        cache_path = job.run(on_progress=voice.on_progress).cache
        prefix = from_folder(images.root, job.images.root)
        paths = [prefix + path for path in images.paths]  # as the cache has them
        with open_cache(cache_path) as cache:
            found = audit(cache, seed=wanted.seed, on_progress=voice.on_progress)
        asker = Walking("fix", doubts_of(found, paths), len(images))
        notes = notes_of(found)
        if any(images.splits):
            notes.append("the table of answers has no column for train and test: a test set is drawn from it anew")
        session = Session(pictures, file, asker, sorted(found.n_by_class), notes=notes)
        with Server(
            session,
            lambda: fit_answers(pictures.csv, wanted.options, voice.command_line),
            f"Fix labels of {images.name}",
            port=wanted.port,
        ) as server:
            yield server


def _write_all(pictures: Pictures, file: AnswerFile) -> None:
    """Give every picture that has a label a line of its own."""
    in_csv = [pictures.in_csv(number) for number in range(len(pictures))]
    known = all_labels(in_csv, pictures.images.labels, file.answers)
    new = {path: answer for path, answer in known.items() if answer.label and path not in file.answers}
    if new:
        file.put(new)
    if not any(answer.label for answer in file.answers.values()):
        raise DataError(
            f"{pictures.images.named} has no labels to look through: neither class folders nor answers in {file.path}. "
            f"tlfeat label without --fix asks for labels."
        )


@contextmanager
def open_reviewing(wanted: Wanted, model_folder: Path, voice: Voice, *, is_trusted: bool = False) -> Iterator[Server]:
    """Open the page that asks about the predictions of a saved head, the least sure first."""
    images = load_images(wanted.data)
    pictures = Pictures(images, wanted.csv or answers_path(images))
    with open_answers(pictures.csv) as file:
        model, notes = load_reviewed(model_folder, is_trusted=is_trusted)
        numbers = np.sort(random_order(images.paths, seed=wanted.seed)[:POOL]).tolist()
        if len(numbers) < len(images):
            notes.append(f"{POOL:,} pictures are looked through, a random sample of {len(images):,}")
        found = _reviewed(images.at(numbers), numbers, model, model_folder, voice, wanted.seed)
        asker = Walking("review", found.questions, len(images), found.groups)
        session = Session(pictures, file, asker, [*model.classes], notes=notes)
        with Server(
            session, lambda: _sum_up(session, found, voice), f"Review predictions of {images.name}", port=wanted.port
        ) as server:
            yield server


def _reviewed(images: ImageSet, numbers: list[int], model: Any, folder: Path, voice: Voice, seed: int) -> Review:
    encoder = model.encoder
    path = default_cache_path(images, encoder.name, encoder.fingerprint)
    origin = {"encoder": read_model(folder).encoder, "class_map": []}
    extract_rows(images, encoder, path, origin=origin, on_progress=voice.on_progress)
    with open_cache(path) as cache:
        table = cache.table
        at = [i for i, status in enumerate(table.status) if status == "ok"]
        rows = read_rows(cache, list(encoder.layers), [table.keys[i] for i in at])
        number_of = dict(zip(images.paths, numbers, strict=True))
        names = [table.images.paths[i] for i in at]
    predictions = model.predict_rows(rows, names, n_top=_N_TOP)
    return review(predictions, [number_of[name] for name in names], rows, model.classes, seed=seed)


def _sum_up(session: Session, found: Review, voice: Voice) -> dict[str, Any]:
    """Return what became of the predictions that were looked at."""
    answers = session.facts().answers
    suggested = {q.number: q.suggestion for q in found.questions if not q.together}
    seen = [(suggested[n], answer) for n, answer in answers.items() if n in suggested and answer.source == "review"]
    right = sum(answer.label == label != "" for label, answer in seen)
    changed = Counter((label, answer.label) for label, answer in seen if label and answer.label not in ("", label))
    lines = [
        f"{counted(len(seen), 'picture')} were looked at, the least sure first: the model was right about {right:,}.",
        "These are not drawn at random: what the model is sure of is right more often.",
    ]
    csv = session.pictures.csv
    return {
        "lines": lines,
        "commands": [voice.command_line("extract", csv), voice.command_line("fit-sklearn")],
        "accuracy": None,
        "interval": None,
        "confused": [(answer, label, n) for (label, answer), n in changed.most_common(5)],
        "error": "",
    }
