"""A folder or a table becomes an `ImageSet`: paths, labels, splits and groups, nothing decoded yet.

Three layouts are understood::

    photos/CLASS/...jpg                    labels; the split is made later, seeded
    photos/{train,val,test}/CLASS/...jpg   labels and splits (any case; val, valid, validation)
    table.csv or .tsv                      columns path, label, optional split, optional group

The content key of an image is the sha256 of its bytes (`content_key`), so that a copy under another name is
the same picture.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlfeat.errors import DataError, UsageError
from tlfeat.text import counted

#: What is looked at; everything else in the folder is passed over and counted.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})

#: Folder or column value (lower case) to role.
SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

#: What a table may say of an image.
TABLE_COLUMNS = ("path", "label", "split", "group")

#: Longer ones are a table with a missing quote, not a class name.
MAX_LABEL_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one data set as parallel lists, in a fixed order.

    Attributes
    ----------
    root : Path
        Absolute; `paths` are relative to it.
    source : Path
        What the user named: the folder (then equal to `root`) or the table.
    paths, labels, splits, groups : list of str
        One entry an image. "" is "no label", "no given split", "no group".
    n_passed_over : int
        Files that were seen and are not images (hidden files and folders count as one each).
    """

    root: Path
    source: Path
    paths: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]
    n_passed_over: int = 0
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted; images without a label contribute none."""
        return sorted(set(self.labels) - {""})

    @property
    def name(self) -> str:
        """A short name for files: the folder's or the table's own name."""
        return self.source.stem if self.source.is_file() else self.source.name

    def file(self, i: int) -> Path:
        """The absolute path of image `i`."""
        return self.root / self.paths[i]


def content_key(data: bytes) -> str:
    """Return the 64 hexadecimal digits of the sha256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def load_images(source: Path, *, class_map: Mapping[str, str] | None = None) -> ImageSet:
    """Return the images of a folder or a table.

    Parameters
    ----------
    source : Path
        A folder of class folders, of split folders of class folders, or a ``.csv`` or ``.tsv`` file.
    class_map : mapping of str to str, optional
        Renames labels, for class folders that differ between splits.

    Raises
    ------
    DataError
        Nothing there, no images in it, class folders that differ between splits, a table that lacks columns.
    """
    class_map = class_map or {}
    if not source.exists():
        raise DataError(f"{source} does not exist (looked in {Path.cwd()}). Name a folder of images or a CSV.")
    if source.is_dir():
        images = _from_folder(source.resolve(), class_map)
    elif source.suffix.lower() in (".csv", ".tsv"):
        images = _from_table(source.resolve())
    else:
        raise DataError(f"{source} is neither a folder nor a .csv or .tsv table.")
    images = _rename_classes(images, class_map)
    if not len(images):
        raise DataError(
            f"No images in {source} ({counted(images.n_passed_over, 'other file')} passed over). Expected "
            + (
                f"{', '.join(sorted(IMAGE_SUFFIXES))} in class folders."
                if source.is_dir()
                else "a line for each image."
            )
        )
    return images


def parse_class_map(pairs: list[str]) -> dict[str, str]:
    """Turn ``["cats=cat", ...]`` into ``{"cats": "cat", ...}``."""
    renamed = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--class-map wants OLD=NEW, received '{pair}'. Example: --class-map cats=cat")
        renamed[old] = new
    return renamed


def _from_folder(root: Path, class_map: Mapping[str, str]) -> ImageSet:
    split_folders = _find_split_folders(root)
    if split_folders:
        _check_same_classes(split_folders, class_map)
    paths, labels, splits = [], [], []
    walk = _Walk()
    for folder, split in split_folders or [(root, "")]:
        above = f"{folder.name}/" if folder != root else ""
        for path in walk.files(str(folder)):
            label, slash, _ = path.partition("/")
            paths.append(above + path)
            labels.append(sys.intern(label) if slash else "")  # one string for each class, not one for each image
            splits.append(split)
    return ImageSet(root, root, paths, labels, splits, [""] * len(paths), walk.n_passed_over, walk.notes)


def _find_split_folders(root: Path) -> list[tuple[Path, str]]:
    """Return the split folders and their roles, or nothing where the subfolders are classes.

    It is a split layout if there is a training folder and nothing beside it but other split folders (a class
    may well be called "train", as in cars, buses, trains).
    """
    folders = sorted(p for p in root.iterdir() if _is_visible_folder(p))
    roles = [(p, SPLIT_NAMES[p.name.lower()]) for p in folders if p.name.lower() in SPLIT_NAMES]
    found = {role for _, role in roles}
    others = [p for p in folders if p.name.lower() not in SPLIT_NAMES and any(_Walk().files(str(p)))]
    if "train" not in found or (others and found == {"train"}):
        return []
    if others:
        raise DataError(
            f"{root} has split folders ({', '.join(p.name for p, _ in roles)}) and beside them folders with "
            f"images ({', '.join(p.name for p in others[:5])}). Move those away, or name a CSV instead."
        )
    return roles


class _Walk:
    """Finds image files below a folder, following symbolic links but not in circles; counts the rest."""

    def __init__(self) -> None:
        self.n_passed_over = 0
        self.notes: list[str] = []

    def files(self, folder: str, inside: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
        """Give the paths of the images below `folder`, relative to it and with `inside` before them, in order."""
        here = os.path.realpath(folder)
        if here in above:
            self.notes.append(f"symbolic link in a circle, not followed: {folder}")
            return
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, _kind(entry)) for entry in entries)
        except OSError as error:
            raise DataError(f"Cannot read the folder {folder}: {error.strerror}.") from error
        for name, kind in found:
            if kind == "folder":
                yield from self.files(f"{folder}/{name}", f"{inside}{name}/", above | {here})
            elif kind == "image":
                yield inside + name
            else:
                self.n_passed_over += 1


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.name.startswith("."):
        return "other"
    if _is_folder(entry):
        return "folder"
    is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
    return "image" if is_image and not _is_special(entry) else "other"


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether reading would wait for ever or make no sense: a named pipe, a socket, a device."""
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a broken symbolic link is listed as a failure, not passed over
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _from_table(source: Path) -> ImageSet:
    lines = read_table(source, required=("path", "label"))
    for number, line in enumerate(lines, start=2):
        if not line["path"]:
            raise DataError(f"{source}, row {number}: the path is empty.")
        if "\0" in line["path"] + line["label"] + line["group"]:
            raise DataError(f"{source}, row {number}: a NUL character, which no file name can hold. Is it UTF-8 text?")
    return ImageSet(
        root=source.parent,
        source=source,
        paths=[line["path"] for line in lines],
        labels=[line["label"] for line in lines],
        splits=[line["split"] for line in lines],
        groups=[line["group"] for line in lines],
    )


def read_table(source: Path, *, required: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the lines of a CSV or TSV file as dicts of path, label, split and group ("" where absent).

    Parameters
    ----------
    source : Path
        Tab-separated if it ends in ``.tsv``. Column names may have any case; further columns are ignored.
    required : tuple of str
        Columns that must be there.

    Raises
    ------
    DataError
        Not a table, a column is missing, a split that is neither train, val nor test.
    """
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    try:
        with source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            missing = [name for name in required if name not in names]
            if missing:
                raise DataError(
                    f"{source} lacks the column {' and '.join(missing)} (split and group are optional), "
                    f"received: {', '.join(reader.fieldnames or []) or 'an empty file'}."
                )
            lines = [{column: line.get(names.get(column, ""), "") or "" for column in TABLE_COLUMNS} for line in reader]
    except (csv.Error, OSError) as error:
        raise DataError(f"{source} cannot be read as a table: {error}.") from error
    for number, line in enumerate(lines, start=2):
        split = line["split"].strip().lower()
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{source}, row {number}: split is '{line['split']}', expected train, val or test.")
        line["split"] = SPLIT_NAMES.get(split, "")
        line["label"], line["group"] = line["label"].strip(), line["group"].strip()
        if max(len(line["label"]), len(line["group"])) > MAX_LABEL_LENGTH:
            raise DataError(f"{source}, row {number}: a label or group is longer than {MAX_LABEL_LENGTH} characters.")
    return lines


def _rename_classes(images: ImageSet, class_map: Mapping[str, str]) -> ImageSet:
    unknown = sorted(set(class_map) - set(images.labels))
    if unknown and len(images):
        raise DataError(
            f"--class-map names classes that are not there: {', '.join(unknown)}. "
            f"There are: {', '.join(images.classes)}."
        )
    return replace(images, labels=[class_map.get(label, label) for label in images.labels])


def _check_same_classes(split_folders: list[tuple[Path, str]], class_map: Mapping[str, str]) -> None:
    """Raise where a split has a class folder that another lacks; an empty class folder counts as there."""
    classes = {
        folder: {class_map.get(p.name, p.name) for p in folder.iterdir() if _is_visible_folder(p)}
        for folder, _ in split_folders
    }
    first, *others = classes
    for other in others:
        only_first, only_other = (
            sorted(classes[first] - classes[other]),
            sorted(classes[other] - classes[first]),
        )
        if only_first or only_other:
            example = f"{only_other[0]}={only_first[0]}" if only_other and only_first else "OLD=NEW"
            raise DataError(
                f"Class folders differ between splits. Only in {first.name}: {_listed(only_first)}; "
                f"only in {other.name}: {_listed(only_other)}. Map them with --class-map {example} "
                f"(may be repeated), or add the missing folder (it may be empty)."
            )


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The path table: what the data set looked like and what became of every image.

    Attributes
    ----------
    images : ImageSet
    keys : list of str
        Content keys; "" where the file could not be read or has not been looked at.
    status : list of str
        "ok", "failed" (then `errors` says why) or "pending" (the run did not get there).
    sizes, mtimes_ns : sequence of int
        Bytes and modification time, by which an unchanged file is recognised without reading it.
    """

    images: ImageSet
    keys: list[str]
    status: list[str]
    errors: list[str]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]

    def count(self, status: str) -> int:
        """How many images have this status."""
        return self.status.count(status)
