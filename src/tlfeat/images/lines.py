"""The images of a tree of folders one after another, with the labels as the folders are called.

What depends on all of them, as new names of classes do, is known at the end. So no process need hold the whole list.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from tlfeat.errors import DataError
from tlfeat.images.classes import check_class_map, check_classes, check_same_classes, matching_class_map, renamed
from tlfeat.images.domains import check_domain_folders, domain_notes, find_parts
from tlfeat.images.folders import Tree, heic_notes, left_out_text, nothing_there
from tlfeat.images.labels import N_NAMED, unlabelled_note
from tlfeat.text import composed, counted


class Line(NamedTuple):
    """One image of a set; "" is "no label", "no given split" and so on."""

    path: str
    label: str
    split: str = ""
    group: str = ""
    domain: str = ""


class Names(NamedTuple):
    """How the labels of lines become classes, and how many images there are then.

    Attributes
    ----------
    new : dict of str to str
        Label of a line to its class.
    chosen : frozenset of str
        The images of these classes are taken; all where it is empty.
    n_images : int
        Those that are taken.
    """

    new: dict[str, str]
    chosen: frozenset[str]
    n_images: int

    def label_of(self, label: str) -> str | None:
        """Return the class of a label; None where its images are left out."""
        name = self.new.get(label, label)
        return name if not self.chosen or name in self.chosen else None


class TreeLines:
    """The lines of a tree of folders; iterate once, then ask for the rest.

    Parameters
    ----------
    tree : Tree
    label_of : callable, optional
        From (path, the same below its split folder) to the label, as `labels.labeller` makes it.
    suffixes : collection of str, optional
        Endings of what is looked for, where it is not images.
    has_domains : bool, default=False
        Whether the first folders are domains.

    Attributes
    ----------
    counts : Counter of (label, split, domain)
        Of the lines given so far.
    """

    def __init__(
        self,
        tree: Tree,
        label_of: Callable[[str, str], str] | None = None,
        suffixes: Collection[str] | None = None,
        *,
        has_domains: bool = False,
    ) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._tree = tree
        self._label_of = label_of
        self._suffixes = suffixes
        self._has_domains = has_domains
        self._of_split: dict[str, set[str]] = {}  # class folders, which may be empty, or labels that files were given
        self._unlabelled: list[str] = []

    def __iter__(self) -> Iterator[Line]:
        label_of, counts = self._label_of, self.counts
        for part in find_parts(self._tree, self._suffixes, has_domains=self._has_domains):
            above = part.inside
            labels = self._of_split.setdefault(part.split_folder, set())
            for path in self._tree.files(above, is_deep=not part.is_loose):
                found = label_of(above + path, path) if label_of else path.rpartition("/")[0].partition("/")[0]
                label = sys.intern(composed(found))
                labels.add(label)
                counts[label, part.split, part.domain] += 1
                if not label and len(self._unlabelled) < N_NAMED:
                    self._unlabelled.append(above + path)
                yield Line(above + path, label, part.split, "", part.domain)
            if not label_of and not part.is_loose:
                labels.update(map(composed, self._tree.folders(above)))

    def new_names(self, class_map: Mapping[str, str], classes: Collection[str]) -> dict[str, str]:
        """Return the class of every label, after the last line.

        Raises
        ------
        DataError
            Class folders that differ between splits, a class map that renames nothing, no folders of domains.
        """
        of_split = {name: found - {""} for name, found in self._of_split.items()}
        labels = {label for label, _, _ in self.counts}
        if self._has_domains:
            domains = [domain for _, _, domain in self.counts]
            check_domain_folders(self._tree.name, domains, list(labels), is_labelled=self._label_of is not None)
        new = renamed(labels.union(*of_split.values()), class_map)
        if split_folders := {name: found for name, found in of_split.items() if name}:
            mapped = {name: {new[old] for old in found} for name, found in split_folders.items()}
            if classes:
                mapped = {name: found & set(classes) for name, found in mapped.items()}
            # a split whose files name fewer classes is no mistake, one that has other words for the same classes is
            if not self._label_of or matching_class_map(list(mapped.values())):
                check_same_classes(mapped)
        check_class_map(new.keys() - {""}, class_map)
        return new

    def names(self, class_map: Mapping[str, str], classes: Collection[str]) -> Names:
        """Return how labels are called, after the last line; raise what `image_set.load_images` raises."""
        if not self.counts:
            raise DataError(nothing_there(self._tree.name, self._tree.passed_over))
        new = self.new_names(class_map, classes)
        if classes:
            check_classes((new[label] for label, _, _ in self.counts), classes)
        n_images = sum(n for (label, *_), n in self.counts.items() if not classes or new[label] in set(classes))
        return Names(new, frozenset(classes), n_images)

    @property
    def left_out(self) -> str:
        """Which files were passed over, as `folders.left_out_text` says it."""
        return left_out_text(self._tree.passed_over)

    def notes(self) -> list[str]:
        """Return what the user should know, after the last line."""
        n_all, n_without = self.counts.total(), sum(n for (label, *_), n in self.counts.items() if not label)
        notes = list(self._tree.notes)
        if 0 < n_without < n_all:
            notes.append(unlabelled_note(n_without, n_all, self._unlabelled))
        if n := sum(n for (_, _, domain), n in self.counts.items() if not domain) if self._has_domains else 0:
            notes.append(f"{n:,} of {counted(n_all, 'image')} have no domain")
        pairs = sorted({(label, domain) for label, _, domain in self.counts if domain})
        notes += domain_notes([domain for _, domain in pairs], [label for label, _ in pairs])
        return [*notes, *heic_notes(self._tree.passed_over)]
