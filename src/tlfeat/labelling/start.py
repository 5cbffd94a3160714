"""What was asked for becomes a page: pictures, answers, who asks, and the server. The defaults of `tlfeat label`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlfeat.errors import DataError
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.labelling.answers import AnswerFile, answered, checked_label, open_answers
from tlfeat.labelling.background import Extraction
from tlfeat.labelling.learning import Learning
from tlfeat.labelling.order import POOL, in_turns, pool_and_reserve, random_order
from tlfeat.labelling.pictures import Pictures
from tlfeat.labelling.pool import Pool
from tlfeat.labelling.server import Server
from tlfeat.labelling.session import Session
from tlfeat.text import counted
from tlfeat.workspace import safe_name

#: So long at most the first picture has the processor for itself.
HEAD_START_S = 3.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asks of `label`.

    Attributes
    ----------
    data : str
        A folder or a table.
    csv : Path, optional
        Where the answers go; by default ``NAME-labels.csv`` in the working folder.
    classes : sequence of str
        Their names, in the order of their keys.
    until : float, optional
        Share of pictures to be right, at the lower end of the interval.
    port : int
        0 for a free one.
    options : mapping
        Those of `plan_extraction` that say with what pictures are embedded.
    """

    data: str
    csv: Path | None = None
    classes: Sequence[str] = ()
    until: float | None = None
    seed: int = 0
    port: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def open_labelling(wanted: Wanted, command_line: Callable[..., str]) -> Iterator[Server]:
    """Open the page that asks for labels; extraction runs behind it and ends with the block.

    Parameters
    ----------
    wanted : Wanted
    command_line : callable
        Makes a command of its words, quoted for a shell.

    Raises
    ------
    DataError, UsageError
        There are no pictures, the answers cannot be written, or another window has them open.
    """
    images = load_images(wanted.data)
    pictures = Pictures(images, wanted.csv or answers_path(images))
    classes = [checked_label(name) for name in wanted.classes]
    with ExitStack() as opened:
        file = opened.enter_context(open_answers(pictures.csv))
        classes, notes = _with_folders(pictures, file, classes)
        notes += _gone(pictures, file)
        labelled = [number for path in file.answers if (number := pictures.number(path)) is not None]
        given = {number for number in labelled if file.answers[pictures.in_csv(number)].source == "folder"}
        order = random_order(images.paths, seed=wanted.seed)
        choosable, reserve = pool_and_reserve(order[[number not in given for number in order.tolist()]])
        extraction = Extraction(Path(wanted.data), wanted.options, wanted.seed)
        pool = Pool(images.paths, list(dict.fromkeys([*in_turns(choosable, reserve).tolist(), *labelled[-POOL:]])))
        asker = Learning(
            pool, choosable.tolist(), reserve.tolist(), extraction=extraction, until=wanted.until, seed=wanted.seed
        )
        opened.callback(asker.end)
        if len(images) > POOL:
            notes.append(f"questions are chosen among {POOL:,} pictures, a random sample of {len(images):,}")
        session = Session(pictures, file, asker, classes, wanted.until, notes)
        server = opened.enter_context(
            Server(
                session,
                lambda: _finish(pictures.csv, wanted, command_line, extraction.cache),
                f"Label {images.name}",
                port=wanted.port,
            )
        )
        opened.enter_context(_extracting_behind(extraction, pool, asker, server.has_shown))
        yield server


@contextmanager
def _extracting_behind(
    extraction: Extraction, pool: Pool, asker: Learning, has_shown: threading.Event
) -> Iterator[None]:
    """Embed the pictures within the block, from when the first of them is on the screen: nothing shall delay that."""

    def embed() -> None:
        has_shown.wait(HEAD_START_S)
        if not pool.has_ended:
            extraction.begin()
            pool.watch(extraction, asker.more_rows)

    behind = threading.Thread(target=embed, name="extracting", daemon=True)
    behind.start()
    try:
        yield
    finally:
        pool.end()
        has_shown.set()
        behind.join()
        extraction.stop()


def _finish(csv: Path, wanted: Wanted, command_line: Callable[..., str], cache: Path | None) -> dict[str, Any]:
    from tlfeat.labelling.finish import fit_answers  # late: the first picture does not wait for heads

    return fit_answers(csv, wanted.options, command_line, others=cache)


def answers_path(images: ImageSet) -> Path:
    """Return where answers about a set go by default: a name of its own in the working folder."""
    return Path(f"{safe_name(images.name)}-labels.csv")


def _with_folders(pictures: Pictures, file: AnswerFile, classes: list[str]) -> tuple[list[str], list[str]]:
    """Take the names of folders for classes, and what lies in them for answers where other pictures lie in none.

    Returns
    -------
    list of str
        All classes: those that were asked for, or those of the folders.
    list of str
        What the user should know.
    """
    images = pictures.images
    found = [name for name in images.classes if not classes or name in classes]
    n_labelled = sum(label in found for label in images.labels) if found else 0
    if not found:
        return classes, []
    if "" not in images.labels:
        note = (
            f"every picture lies in a folder: {counted(len(found), 'name')} of folders are taken for classes, and the "
            f"pictures are asked about. tlfeat label --fix looks at what lies in the wrong folder"
        )
        return classes or found, [note]
    new = {}
    for number, label in enumerate(images.labels):
        path = pictures.in_csv(number)
        if label in found and path not in file.answers:
            new[path] = answered(path, label, "folder")
    if new:
        file.put(new)
    return classes or found, [f"{counted(n_labelled, 'picture')} in class folders have their labels from there"]


def _gone(pictures: Pictures, file: AnswerFile) -> list[str]:
    gone = [path for path in file.answers if pictures.number(path) is None]
    if not gone:
        return []
    if len(gone) == len(file.answers):
        raise DataError(
            f"{file.path} holds answers about other pictures: none of its {counted(len(gone), 'picture')} is in "
            f"{pictures.images.named}; the first is {gone[0]}. Name another file with --labels."
        )
    return [f"{file.path} has {counted(len(gone), 'answer')} about pictures that have gone, such as {gone[0]}"]
