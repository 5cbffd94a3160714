"""Image files below a folder, in order, and the split folders among its subfolders."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from tlfeat.errors import DataError
from tlfeat.text import counted, one_line

#: What is looked at; everything else in the folder is left out and counted by its kind.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"}
)

#: Looked at where the package pillow-heif is there.
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})

#: How HEIC files come to be read.
HEIC_ADVICE = "reading HEIC needs one more package: pip install 'tlfeat[heic]' (it is pillow-heif)"

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

#: Kinds of files: what is looked for, and what begins with a dot. Others are called by their ending.
IMAGE, HIDDEN = "image", "hidden"

#: Kinds of files that are named; a folder of a software project has dozens.
_N_KINDS_SHOWN = 8


def can_read_heic() -> bool:
    """Whether the optional package that decodes HEIC is installed; it is not imported."""
    return find_spec("pillow_heif") is not None


def image_suffixes() -> frozenset[str]:
    """Return the endings (lower case) of the files that are taken for images here."""
    return IMAGE_SUFFIXES | HEIC_SUFFIXES if can_read_heic() else IMAGE_SUFFIXES


def left_out_text(passed_over: Mapping[str, int]) -> str:
    """Return "left out: 3 .heic, 2 .txt", the most frequent kind first; "" where nothing was left out."""
    kinds = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{n:,} {one_line(kind)}" for kind, n in kinds[:_N_KINDS_SHOWN]]
    if rest := kinds[_N_KINDS_SHOWN:]:
        named.append(f"{sum(n for _, n in rest):,} of {counted(len(rest), 'other kind')}")
    return f"left out: {', '.join(named)}" if named else ""


def heic_notes(passed_over: Mapping[str, int]) -> list[str]:
    """Return the line that says how HEIC files that were left out come to be read, if there are any."""
    n = sum(passed_over.get(suffix, 0) for suffix in HEIC_SUFFIXES)
    return [f"{counted(n, 'HEIC file is', 'HEIC files are')} left out; {HEIC_ADVICE}"] if n else []


def nothing_there(named: object, passed_over: Mapping[str, int]) -> str:
    """Return the error of a folder, a URL or an archive without images."""
    left_out = left_out_text(passed_over)
    return ". ".join(
        [
            f"No images in {named}" + (f" ({left_out})" if left_out else ""),
            f"Expected {', '.join(sorted(image_suffixes()))} in class folders",
            *heic_notes(passed_over),
        ]
    )


class Tree(Protocol):
    """Folders and the files in them, on a disk or in a list of names.

    Attributes
    ----------
    name : str
        For messages: the folder, or the URL.
    passed_over : mapping of str to int
        What `files` has met so far and left out, by kind.
    notes : list of str

    Notes
    -----
    A folder is given by its path from the top, which is "", or ends with a slash.
    """

    @property
    def name(self) -> str: ...
    @property
    def passed_over(self) -> Mapping[str, int]: ...
    @property
    def notes(self) -> list[str]: ...

    def folders(self, inside: str) -> list[str]:
        """Return the names of the folders right in this one that are looked into, sorted."""
        ...

    def files(self, inside: str, *, is_deep: bool = True) -> Iterator[str]:
        """Give the paths of the images below a folder, or of those right in it, relative to it, in order."""
        ...

    def has_files(self, inside: str) -> bool:
        """Whether there is an image below a folder; nothing is counted."""
        ...


def find_split_folders(tree: Tree, inside: str = "", suffixes: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Return the names of the split folders and their roles, or nothing where the subfolders are classes.

    It is a split layout if there is a training folder and nothing beside it but other split folders (a class
    may well be called "train", as in cars, buses, trains).
    """
    folders = tree.folders(inside)
    roles = [(name, SPLIT_NAMES[name.lower()]) for name in folders if name.lower() in SPLIT_NAMES]
    found = {role for _, role in roles}
    others = [name for name in folders if name.lower() not in SPLIT_NAMES and tree.has_files(f"{inside}{name}/")]
    if "train" not in found or (others and found == {"train"}):
        return []
    if others:
        raise DataError(
            f"{f'{tree.name}/{inside}'.rstrip('/')} has split folders ({', '.join(name for name, _ in roles)}) and "
            f"beside them folders with {'images' if suffixes is None else 'texts'} ({', '.join(others[:5])}). Move "
            f"those away, or name a CSV instead."
        )
    return roles


class FolderTree:
    """The `Tree` of a folder on a disk.

    Parameters
    ----------
    root : Path
    suffixes : collection of str, optional
        The endings of what is looked for, where it is not images.
    is_ordered : bool, default=True
        False never holds the names in a folder all at once.
    """

    def __init__(self, root: Path, suffixes: Collection[str] | None = None, *, is_ordered: bool = True) -> None:
        self.name = str(root)
        self._root, self._suffixes = root, suffixes
        self._walk = Walk(suffixes, is_ordered=is_ordered)

    @property
    def passed_over(self) -> Mapping[str, int]:
        return self._walk.passed_over

    @property
    def notes(self) -> list[str]:
        return self._walk.notes

    def folders(self, inside: str) -> list[str]:
        with os.scandir(self._root / inside) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))

    def files(self, inside: str, *, is_deep: bool = True) -> Iterator[str]:
        return self._walk.files(str(self._root / inside), is_deep=is_deep)

    def has_files(self, inside: str) -> bool:
        return any(Walk(self._suffixes).files(str(self._root / inside)))


class Walk:
    """Finds image files below a folder, following symbolic links but not in circles; counts the rest by kind.

    Below a link another link is followed only to a folder that no link has led to before: folders that all link to each
    other would else be walked in every order, and there are 100,000 of those of eight.
    """

    def __init__(self, suffixes: Collection[str] | None = None, *, is_ordered: bool = True) -> None:
        self.passed_over: Counter[str] = Counter()
        self.notes: list[str] = []
        self._is_ordered = is_ordered  # else the names in a folder are never held all at once
        self._suffixes = image_suffixes() if suffixes is None else suffixes  # others, of files that are no images
        self._linked: set[str] = set()  # folders that links have led to

    def files(self, folder: str, *, is_deep: bool = True) -> Iterator[str]:
        """Give the paths of the images below `folder`, or of those right in it, relative to it, in order."""
        return self._files(folder, "", frozenset(), is_below_link=False, is_deep=is_deep)

    def _files(
        self, folder: str, inside: str, above: frozenset[str], *, is_below_link: bool, is_deep: bool = True
    ) -> Iterator[str]:
        here = os.path.realpath(folder)
        if here in above:
            self.notes.append(f"symbolic link in a circle, not followed: {folder}")
            return
        if above and os.path.islink(folder):  # noqa: PTH114  strings: once for every folder
            if is_below_link and here in self._linked:
                self.notes.append(f"symbolic link to a folder that another link led to, not followed: {folder}")
                return
            self._linked.add(here)
            is_below_link = True
        for name, kind in self._entries(folder):
            if kind == "folder":
                if not is_deep:
                    continue
                below = above | {here}
                yield from self._files(f"{folder}/{name}", f"{inside}{name}/", below, is_below_link=is_below_link)
            elif kind == IMAGE:
                yield inside + name
            else:
                self.passed_over[kind] += 1

    def _entries(self, folder: str) -> Iterator[tuple[str, str]]:
        """Give the name and the kind of what is in a folder."""
        try:
            with os.scandir(folder) as entries:
                found = ((entry.name, self._kind(entry)) for entry in entries)
                if not self._is_ordered:
                    yield from found
                    return
                ordered = sorted(found)
        except OSError as error:
            raise DataError(f"Cannot read the folder {folder}: {error.strerror}.") from error
        yield from ordered

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """Return "folder", "image", or what kind of other file it is: its ending, with the dot, if it has one."""
        if entry.name.startswith("."):
            return HIDDEN
        if _is_folder(entry):
            return "folder"
        kind = kind_of_file(entry.name, self._suffixes)
        return "special" if kind == IMAGE and _is_special(entry) else kind


def kind_of_file(name: str, suffixes: Collection[str]) -> str:
    """Return `IMAGE` where a name has one of these endings, else its ending, with the dot, if it has one."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  strings: once for every file
    return IMAGE if suffix in suffixes else suffix or "without an ending"


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
