"""A CSV or TSV file becomes lines of path, label, split, group and domain, whatever its columns are called."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import TextIO

from tlfeat.errors import DataError, nearest
from tlfeat.files import n_levels_out, open_regular
from tlfeat.images.folders import SPLIT_NAMES, Walk
from tlfeat.text import composed, counted
from tlfeat.types import StrPath

#: Role to the names that its column may have, in any case; the first that is there is taken.
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "filename", "file_name", "file", "filepath", "image", "image_path"),
    "label": ("label", "class", "category", "target"),
    "split": ("split",),
    "group": ("group",),
    "domain": ("domain",),
}

#: Columns that often say where images come from. They are proposed and not taken: a table that has had one for years
#: would else become another data set. Not among them is "source", which mostly is an address of each image.
_DOMAIN_LIKE = frozenset({"camera", "center", "centre", "device", "hospital", "scanner", "site"})

#: Longer ones are a table with a missing quote, not a class name.
MAX_LABEL_LENGTH = 500

#: Ten million lines of a hundred characters.
MAX_TABLE_BYTES = 1 << 30

#: Where files are looked for by name: beyond this the folder is a disk, not a data set.
_MAX_FILES_BELOW = 500_000

#: Of a table that ``tlfeat label`` writes.
ANSWER_COLUMNS = ("path", "label", "time", "how")

#: Fewer pictures that were drawn at random are no test set.
FEWEST_RANDOM = 10


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of a table, each a dict of path, label, split, group and domain, and what the user should know."""

    lines: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)


def read_table(
    source: StrPath,
    *,
    required: tuple[str, ...],
    path_column: str | None = None,
    label_column: str | None = None,
    names: Mapping[str, tuple[str, ...]] = COLUMN_NAMES,
    asked: Mapping[str, str | None] | None = None,
    content: bytes | None = None,
) -> Table:
    """Return the lines of a CSV or TSV file as dicts of path, label, split, group and domain ("" where absent).

    Parameters
    ----------
    source : Path
        The delimiter is the one with which the header has the columns: comma, semicolon, tab or bar. Column names
        may have any case; further columns are ignored.
    required : tuple of str
        Roles of `COLUMN_NAMES` that must be there.
    path_column, label_column : str, optional
        Names of columns; one of `COLUMN_NAMES` by default.
    names : mapping of role to names of columns, default=`COLUMN_NAMES`
        Of a table of something else than images.
    asked : mapping of role to name of column, optional
        Of any role, in place of `path_column` and `label_column`.
    content : bytes, optional
        Of a table that is no file; `source` is then its URL.

    Raises
    ------
    DataError
        Not a table, a column is missing, a split that is neither train, val nor test.
    """
    asked = {"path": path_column, "label": label_column} if asked is None else asked
    try:
        opened = open_regular(Path(source), max_bytes=MAX_TABLE_BYTES) if content is None else io.BytesIO(content)
        with io.TextIOWrapper(opened, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            delimiter, header, columns = _columns(source, file, required, asked, names)
            is_of_answers = "split" in names and sorted(map(str.strip, header)) == sorted(ANSWER_COLUMNS)
            if is_of_answers:
                columns |= {name.strip(): name for name in header}
            roles = dict.fromkeys((*names, *(ANSWER_COLUMNS if is_of_answers else ())))
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            lines = [{role: line.get(columns.get(role, ""), "") or "" for role in roles} for line in reader]
    except (csv.Error, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{source} cannot be read as a table: {why}.") from error
    notes = _test_on_random(lines) if is_of_answers else []
    check_lines(source, lines)
    return Table(lines, [*notes_on_columns(source, header, columns, asked), *notes])


def _test_on_random(lines: list[dict[str, str]]) -> list[str]:
    """Let what ``tlfeat label`` drew at random be the test set, as what was chosen is harder; say so."""
    is_random = [line["how"].partition(",")[0].strip() == "random" for line in lines]
    n_random = sum(drawn and bool(line["label"]) for drawn, line in zip(is_random, lines, strict=True))
    if n_random < FEWEST_RANDOM:
        return []
    for line, drawn in zip(lines, is_random, strict=True):
        line["split"] = "test" if drawn else "train"
    return [f"{n_random:,} images that tlfeat label drew at random are the test images"]


def check_lines(source: StrPath, lines: list[dict[str, str]]) -> None:
    """Bring the splits, labels, groups and domains of a table to one form, in place.

    Raises
    ------
    DataError
        A split that is neither train, val nor test, or a label that is no name.
    """
    for number, line in enumerate(lines, start=2):
        split = line["split"].strip().lower()
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{source}, row {number}: split is '{line['split']}', expected train, val or test.")
        line["split"] = SPLIT_NAMES.get(split, "")
        for role in ("label", "group", "domain"):
            line[role] = composed(line[role].strip())
        if max(len(line["label"]), len(line["group"])) > MAX_LABEL_LENGTH:
            raise DataError(f"{source}, row {number}: a label or group is longer than {MAX_LABEL_LENGTH} characters.")
        if len(line["domain"]) > MAX_LABEL_LENGTH:
            raise DataError(f"{source}, row {number}: a domain is longer than {MAX_LABEL_LENGTH} characters.")


def _columns(
    source: StrPath,
    file: TextIO,
    required: tuple[str, ...],
    asked: Mapping[str, str | None],
    names: Mapping[str, tuple[str, ...]],
) -> tuple[str, list[str], dict[str, str]]:
    """Return the delimiter, the header, and role to name of column; the file stands at its beginning again."""
    delimiters = "\t,;|" if PurePath(source).suffix.lower() == ".tsv" else ",;\t|"
    headers: dict[str, list[str]] = {}
    for delimiter in delimiters:
        file.seek(0)
        headers[delimiter] = next(csv.reader(file, delimiter=delimiter, strict=True), [])
    file.seek(0)
    for delimiter, header in headers.items():
        columns = choose_columns(header, asked, names)
        if all(role in columns for role in (*required, *(role for role, name in asked.items() if name))):
            return delimiter, header, columns
    header = max(headers.values(), key=len)  # of several that are as long, that of the usual delimiter
    columns = choose_columns(header, asked, names)
    check_asked_columns(source, header, columns, asked)
    missing = [role for role in required if role not in columns]
    raise DataError(
        f"{source} lacks the column {' and '.join(missing)} (split, group and domain are optional), "
        f"received: {', '.join(header) or 'an empty file'}."
        + (f" Say which one it is: {_options(missing)}." if {"path", "text"} & {*required} else "")
    )


def check_asked_columns(
    source: StrPath, header: Sequence[str], columns: Mapping[str, str], asked: Mapping[str, str | None]
) -> None:
    """Raise `DataError` for a column that was named in an option and is not there."""
    for role, name in asked.items():
        if name and role not in columns:
            raise DataError(
                f"{source} has no column '{name}' (--{role}-column). "
                f"{nearest(name, list(header), of='columns') if header else 'It is empty.'}"
            )


def _options(roles: Sequence[str]) -> str:
    return " ".join(f"--{role}-column NAME" for role in roles)


def choose_columns(
    header: Sequence[str],
    asked: Mapping[str, str | None],
    names: Mapping[str, tuple[str, ...]] = COLUMN_NAMES,
) -> dict[str, str]:
    """Return role to name of column as it stands in the header; a column has one role."""
    by_plain_name = {name.strip().lower(): name for name in reversed(header)}
    columns: dict[str, str] = {}
    for role, known in names.items():
        wanted = asked.get(role)
        if wanted and wanted in header:
            columns[role] = wanted
            continue
        for plain in (wanted.strip().lower(),) if wanted else known:
            if plain in by_plain_name and (wanted or by_plain_name[plain] not in asked.values()):
                columns[role] = by_plain_name[plain]
                break
    return columns


def notes_on_columns(
    source: StrPath, header: Sequence[str], columns: Mapping[str, str], asked: Mapping[str, str | None]
) -> list[str]:
    """Return the lines that say which columns were guessed, if any was, and which one may be the domains."""
    guessed = [
        f"{role}s from '{columns[role]}'"
        for role in ("path", "text", "label")
        if role in columns and not asked.get(role) and columns[role].strip().lower() != role
    ]
    options = " ".join(f"--{role}-column," for role in asked if role != "domain").rstrip(",")
    named = PurePath(source).name
    notes = [f"{named}: {', '.join(guessed)} (others: {options})"] if guessed else []
    free = [name.strip() for name in header if name.strip().lower() in _DOMAIN_LIKE and name not in columns.values()]
    if free and "domain" not in columns:
        notes.append(f"{named}: if '{free[0]}' says where the images come from, add --domain-column {free[0]}")
    return notes


def find_files(root: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths by which the files of a table are found from `root`, and what the user should know.

    A path that leads nowhere is read with ``/`` for ``\\`` if that leads somewhere, and with its accents in the letters
    or apart from them, as macOS writes them; on Windows ``/`` is always taken. Where no path at all leads anywhere,
    files are looked for by their names below `root`, with or without an ending: ``0a1b`` is ``train/0a1b.jpg``. Of
    several with one name the one with the most folders in common is taken, and none where two have as many.
    """
    found = list(paths)
    for i, path in enumerate(paths):
        if "\\" in path and (os.sep == "\\" or not _exists(root, path)):
            turned = path.replace("\\", "/")
            found[i] = turned if _exists(root, turned) else path
        if not path.isascii() and not _exists(root, found[i]):
            forms = [unicodedata.normalize(form, found[i]) for form in ("NFC", "NFD")]
            found[i] = next((form for form in forms if _exists(root, form)), found[i])
    n_turned = sum("\\" in old and "\\" not in new for new, old in zip(found, paths, strict=True))
    notes = [f"{counted(n_turned, 'path')} with \\ read as /"] if n_turned and os.sep != "\\" else []
    if not found or any(_exists(root, path) for path in found):
        return found, notes
    by_name = _files_by_name(root)
    found = [_best(by_name, path) or path for path in paths]
    changed = [i for i, path in enumerate(found) if path != paths[i]]
    if changed:
        old, new = paths[changed[0]], found[changed[0]]
        notes.append(
            f"{len(changed):,} of {counted(len(paths), 'file')} found by name below {root}, such as {new} for '{old}'"
        )
    return found, notes


def below_one_folder(folder: Path, paths: Sequence[str]) -> tuple[Path, list[str]]:
    """Return a folder that no relative path leads out of, and the paths from there.

    A table may say ``../photos/1.jpg``. A cache never does: whoever made one could lead anywhere.

    Parameters
    ----------
    folder : Path
        Resolved, so that its parent is what ``..`` means there.
    paths : sequence of str
        From `folder`, or absolute.
    """
    n_out = max((n_levels_out(path) for path in paths if ".." in path and not _is_absolute(path)), default=0)
    if not n_out:
        return folder, list(paths)
    below = folder.parts[1:][-n_out:]
    root = Path(*folder.parts[: len(folder.parts) - len(below)])
    return root, [path if _is_absolute(path) else _from_above(below, path) for path in paths]


def _from_above(below: Sequence[str], path: str) -> str:
    """Return a path that counted from the folder `below` as it is from above: ``../a`` takes one name less."""
    names, parts = list(below), path.split("/")
    while parts[0] == "..":
        del names[-1:], parts[:1]  # above the topmost folder is itself
    return "/".join([*names, *parts])


def _is_absolute(path: str) -> bool:
    return os.path.isabs(path)  # noqa: PTH117  strings: once for every image


def _exists(root: Path, path: str) -> bool:
    return os.path.isfile(os.path.join(root, path))  # noqa: PTH113, PTH118  strings: once for every image


def _files_by_name(root: Path) -> dict[str, list[str]]:
    """Return name, and name without ending, to the images below `root`."""
    by_name = defaultdict(list)
    try:
        for path in islice(Walk().files(str(root)), _MAX_FILES_BELOW):
            name = path.rpartition("/")[2]
            for known_as in {composed(name), composed(name).rpartition(".")[0]}:
                by_name[known_as].append(path)
    except DataError:  # a folder that may not be read: the files are not found, and extraction says so
        return {}
    return by_name


def _best(by_name: Mapping[str, list[str]], path: str) -> str:
    """Return the file with the name of `path` that shares most of its last folders, "" where there is not one."""
    *folders, name = path.replace("\\", "/").split("/")
    ranked = sorted(((_n_shared(folders, other), other) for other in by_name.get(composed(name), [])), reverse=True)
    is_unique = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][0] > ranked[1][0])
    return ranked[0][1] if is_unique else ""


def _n_shared(folders: Sequence[str], path: str) -> int:
    """How many of the folders right above a file are the same."""
    n = 0
    for one, other in zip(reversed(folders), reversed(path.split("/")[:-1]), strict=False):
        if composed(one).lower() != composed(other).lower():
            break
        n += 1
    return n
