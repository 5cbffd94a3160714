"""The answers of one person: a CSV of path, label, time and how, one line a picture, safe on the disk after each.

A new answer is appended and synced. What changes lines that are there (undo, another label) writes the file anew,
aside, and renames it. `extract` takes the file as it is. Who edits it by hand in the middle is heard: it is read again
first.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tlfeat.errors import DataError
from tlfeat.images.tables import ANSWER_COLUMNS, COLUMN_NAMES, MAX_LABEL_LENGTH, read_table
from tlfeat.system import lock
from tlfeat.text import composed
from tlfeat.workspace import written_aside

_HEADER = (",".join(ANSWER_COLUMNS) + "\n").encode()

_NAMES = {**COLUMN_NAMES, "time": ("time",), "how": ("how",)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said of one picture.

    Attributes
    ----------
    path : str
        As the CSV has it: from its folder, with ``/``.
    label : str
        "" where the picture has none: it is unknown, or bad.
    time : str
        UTC, as ``2026-11-26T10:15:00Z``; "" where a line was written by hand.
    how : str
        How the picture was come by (random, typical, unsure, grid, folder, fix, review), then "unknown" or "bad", then
        "was LABEL", with commas between.
    """

    path: str
    label: str
    time: str = ""
    how: str = ""

    @property
    def source(self) -> str:
        """How the picture was come by."""
        return self._words[0]

    @property
    def is_random(self) -> bool:
        """Whether the picture was drawn at random."""
        return self.source == "random"

    @property
    def kind(self) -> str:
        """What it is: "label", "unknown" or "bad"."""
        return "label" if self.label else "bad" if self.is_bad else "unknown"

    @property
    def is_bad(self) -> bool:
        """Whether the picture itself is bad."""
        return not self.label and "bad" in self._words

    @property
    def is_answer(self) -> bool:
        """False for a line without a label that does not say why: it is still to be answered."""
        return bool(self.label) or self.is_bad or "unknown" in self._words

    @property
    def _words(self) -> list[str]:
        return [word.strip() for word in self.how.split(",")]


def answered(path: str, label: str, how: str, kind: str = "label", before: Answer | None = None) -> Answer:
    """Return an answer that is given now.

    Parameters
    ----------
    path, label : str
    how : str
        How the picture was come by.
    kind : str, default="label"
        Or "unknown" or "bad": then the picture has no label.
    before : Answer, optional
        What was said of it until now.
    """
    new = label if kind == "label" else ""
    words = [how, *([kind] if kind in ("unknown", "bad") else [])]
    if before and before.label not in ("", new):
        words.append(f"was {before.label}")
    return Answer(path, new, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), ", ".join(words))


def checked_label(label: str) -> str:
    """Return the name of a class as it is written to the CSV.

    Raises
    ------
    DataError
        It is empty, too long, or holds what no name holds.
    """
    label = composed(label.strip())
    if not label:
        raise DataError("A class needs a name.")
    if len(label) > MAX_LABEL_LENGTH or any(character in label for character in "\0\r\n"):
        raise DataError(f"A class has a name of one line, of at most {MAX_LABEL_LENGTH} characters.")
    return label


@contextmanager
def open_answers(path: Path) -> Iterator[AnswerFile]:
    """Open a CSV of answers, which need not be there yet, for this process alone.

    Raises
    ------
    DataError
        Another `tlfeat label` has it open, it cannot be read or written, or it has columns that would be lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        yield AnswerFile(path)


@dataclass(slots=True)
class AnswerFile:
    """An open CSV of answers; see `open_answers`.

    Attributes
    ----------
    answers : dict of str to Answer
        By path, in the order of the file.
    notes : list of str
        What the user should know of how it was read.
    """

    path: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _stamp: tuple[int, int, int] | None = None
    _is_ours: bool = True

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> bool:
        """Read the file again if it has changed; whether it had."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        if stamp is None:  # somebody removed it meanwhile: the next answer writes it again, with all others
            self._stamp = None
            return False
        answers, notes, is_ours = read_answers(self.path)
        self.answers, self.notes, self._is_ours, self._stamp = answers, notes, is_ours, stamp
        return True

    def put(self, changes: Mapping[str, Answer | None]) -> None:
        """Write answers, None for what is to be taken back; afterwards they are on the disk.

        Raises
        ------
        DataError
            They could not be written, such as on a full disk; the file then is as it was.
        """
        self.read()
        is_new = all(answer and path not in self.answers for path, answer in changes.items())
        answers = {**self.answers}
        for path, answer in changes.items():
            if answer is None:
                answers.pop(path, None)
            else:
                answers[path] = answer
        try:
            if is_new and self._is_ours and self._stamp:
                self._append([answer for answer in changes.values() if answer])
            else:
                with written_aside(self.path) as aside:
                    aside.write_bytes(_HEADER + _lines(answers.values()))
                self._is_ours = True
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        self.answers, self._stamp = answers, self._stamp_now()

    def _append(self, answers: list[Answer]) -> None:
        with self.path.open("r+b", buffering=0) as file:
            end, lines = file.seek(0, io.SEEK_END), _lines(answers)
            try:
                if file.write(lines) != len(lines):
                    raise OSError(f"only a part was written, the disk may be full: {self.path}")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino


def read_answers(path: Path) -> tuple[dict[str, Answer], list[str], bool]:
    """Return the answers of a CSV by path, notes, and whether lines can be appended to it as it is.

    Of several lines for one picture the last counts. A last line that was cut off in the middle is left out.
    """
    notes, is_whole, lines = [], True, answers_in(path)
    with path.open("rb") as file:
        header = file.readline()
        if header:
            file.seek(-1, io.SEEK_END)
            is_whole = file.read() == b"\n"
    _check_columns(path, header)
    if not is_whole and lines and not lines[-1].how:
        notes.append(f"{path}: the last line is not whole and was left out: {lines[-1].path}, {lines[-1].label}")
        del lines[-1]
    found: dict[str, Answer] = {}
    for answer in lines:
        if answer.path in found:
            notes.append(f"{path}: {answer.path} is there twice; the last line counts")
        found[answer.path] = answer
    return found, notes, is_whole and header == _HEADER


def answers_in(path: Path) -> list[Answer]:
    """Return the lines of a table with the columns path and label, and perhaps time and how; further ones are left."""
    lines = read_table(path, required=("path", "label"), names=_NAMES).lines if path.stat().st_size else []
    return [Answer(*(line[name] for name in ANSWER_COLUMNS)) for line in lines]


def _check_columns(path: Path, header: bytes) -> None:
    """Refuse a table with columns that writing it anew would lose."""
    text = header.decode("utf-8-sig", errors="replace").strip()
    delimiter = max(",;\t|", key=text.count)
    further = [
        name for name in next(csv.reader([text], delimiter=delimiter), []) if name.strip() not in ("", *ANSWER_COLUMNS)
    ]
    if further:
        raise DataError(
            f"{path} has further columns ({', '.join(further)}), and answers are path, label, time and how. Name "
            f"another file with --labels."
        )


def _lines(answers: object) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(astuple, answers))  # type: ignore[call-overload]
    return out.getvalue().encode("utf-8", "surrogateescape")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock beside the CSV, which is replaced now and then and so cannot be locked itself."""
    name = path.with_name(f".{path.name}.lock")
    while True:
        try:
            handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            lock(handle, is_exclusive=True)
        except BlockingIOError:
            os.close(handle)
            raise DataError(
                f"Another tlfeat label has {path} open. Close it first, or name another file with --labels."
            ) from None
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == name.stat().st_ino:
                break  # else another one has just removed it
        os.close(handle)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            name.unlink()
        os.close(handle)
        with suppress(OSError):
            if os.name == "nt":
                name.unlink()
