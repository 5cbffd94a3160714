"""Names of objects in a bucket, or of members of an archive, become an `ImageSet` as the files of a folder do.

`from_listing` gives what `image_set.from_folder` gives for a folder with the same files: the same labels, splits,
domains, order, and the same counts of what is passed over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tlfeat.images.folders import HIDDEN, IMAGE, image_suffixes, kind_of_file
from tlfeat.images.image_set import ImageSet, from_tree
from tlfeat.images.stores import Store

#: Kind of names that no folder could have: with a part that is empty, "." or "..".
ODD_NAME = "with an odd name"

#: Stands for "/" while names are sorted: below every other character, so that a folder stands where its name does.
_SLASH = "\0"

#: Right after all that begins with `_SLASH`.
_AFTER_SLASH = "\1"


def from_listing(
    names: Iterable[str],
    store: Store,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    *,
    has_domains: bool = False,
) -> ImageSet:
    """Return the images among names, with the labels, splits and domains that their folders say.

    Parameters
    ----------
    names : iterable of str
        Relative paths with ``/``, in any order. One that ends with it is a folder, which need not be named.
    store : Store
        Where they lie; root and source of the images are its URL.
    class_map, classes, label_of, has_domains
        As of `image_set.from_folder`.

    Raises
    ------
    DataError
        As for a folder; nothing is read.
    """
    images = from_tree(ListedTree(names, store.url), class_map, classes, label_of, has_domains=has_domains)
    return replace(images, root=Path(store.url), source=Path(store.url), store=store)


class ListedTree:
    """The `folders.Tree` of a list of names. It takes their memory once more, and sorts them once."""

    def __init__(self, names: Iterable[str], name: str) -> None:
        self.name = name
        self.passed_over: Counter[str] = Counter()
        self.notes: list[str] = []
        self._suffixes = image_suffixes()
        self._names: list[str] = []
        for each in names:
            if _is_odd(each):
                self.passed_over[ODD_NAME] += 1
            else:
                self._names.append(each.replace("/", _SLASH))
        self._names.sort()

    def folders(self, inside: str) -> list[str]:
        top = inside.replace("/", _SLASH)
        at, end = self._range(top)
        found: list[str] = []
        while at < end:
            name, slash, _ = self._names[at][len(top) :].partition(_SLASH)
            if not slash:
                at += 1
                continue
            if not name.startswith("."):
                found.append(name)
            at = bisect_left(self._names, top + name + _AFTER_SLASH, at, end)
        return found

    def files(self, inside: str, *, is_deep: bool = True) -> Iterator[str]:
        return self._files(inside, is_deep=is_deep, passed_over=self.passed_over)

    def has_files(self, inside: str) -> bool:
        return any(True for _ in self._files(inside, is_deep=True, passed_over=Counter()))

    def _files(self, inside: str, *, is_deep: bool, passed_over: Counter[str]) -> Iterator[str]:
        hidden = ""  # the folder that is being passed over, which counts once
        start, end = self._range(inside.replace("/", _SLASH))
        before = ""
        for at in range(start, end):
            name = self._names[at][len(inside) :]
            if not name or name == before or (hidden and name.startswith(hidden)):
                continue  # the folder itself, the same name twice, or what lies in a hidden folder
            before = name
            parts = name.split(_SLASH)
            if not is_deep and len(parts) > 1 and not parts[0].startswith("."):
                continue
            if (place := next((i for i, part in enumerate(parts) if part.startswith(".")), None)) is not None:
                hidden = _SLASH.join([*parts[: place + 1], ""]) if place + 1 < len(parts) else ""
                passed_over[HIDDEN] += 1
            elif not parts[-1]:
                continue  # a folder that was named
            elif (kind := kind_of_file(parts[-1], self._suffixes)) == IMAGE:
                yield "/".join(parts)
            else:
                passed_over[kind] += 1

    def _range(self, top: str) -> tuple[int, int]:
        if not top:
            return 0, len(self._names)
        return bisect_left(self._names, top), bisect_left(self._names, top[:-1] + _AFTER_SLASH)


def _is_odd(name: str) -> bool:
    """Whether a name is none that a folder could hold, or leads out of it."""
    parts = name.removesuffix("/").split("/")
    return "\0" in name or any(part in ("", ".", "..") for part in parts)
