"""A table of the images without leaks, for ``tlfeat extract``."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlfeat.cache.contents import holds_texts, read_texts
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError
from tlfeat.images.duplicates import connected
from tlfeat.images.image_set import ImageSet
from tlfeat.images.packed_paths import paths_into
from tlfeat.images.urls import below
from tlfeat.studies.findings import Audit
from tlfeat.text import counted
from tlfeat.workspace import write_text


@dataclass(frozen=True, slots=True)
class CleanTable:
    """What was left out of a table, and how many images are in it.

    Attributes
    ----------
    n_images : int
    n_leaks, n_conflicts : int
        Test images that were left out as copies of training or validation images; images of pictures under two labels.
    n_groups : int
        Groups of copies that stay, each on one side.
    """

    n_images: int
    n_leaks: int
    n_conflicts: int
    n_groups: int

    def sentence(self) -> str:
        """Return what was done, in one sentence."""
        left_out = [
            f"{counted(self.n_leaks, 'test image')} seen in training" if self.n_leaks else "",
            f"{counted(self.n_conflicts, 'image')} of pictures under two labels" if self.n_conflicts else "",
        ]
        text = f"{counted(self.n_images, 'image')}; left out: {' and '.join(filter(None, left_out)) or 'none'}"
        return text + (f"; {counted(self.n_groups, 'group')} of copies stay together" if self.n_groups else "")


def write_clean_table(cache: Cache, found: Audit, file: Path) -> CleanTable:
    """Write path, label, split, group (and domain) of all images but those that leak or have two labels.

    Left out are all images of a picture under two labels, for nobody knows which is right, and, where the data has a
    test split of its own, the test images that are copies of training or validation images. Other copies stay and get
    one group, so that they lie on one side of every split. Where no test split is given it is drawn after `extract`.

    Parameters
    ----------
    cache : Cache
    found : Audit
        Of this cache.
    file : Path
        Ends in ``.csv``. Paths in it are relative to its folder where the images lie below it, else absolute. Of texts
        it holds the texts themselves, of images in a bucket their URLs, of those in an archive ``photos.zip/1.jpg``.

    Raises
    ------
    DataError
        The rows were imported or the pictures are gone, so there is nothing to extract.
    """
    images, keys = cache.table.images, cache.table.keys
    texts = read_texts(cache, keys) if holds_texts(cache) else {}
    if found.home is None and not texts:
        raise DataError(f"No table for tlfeat extract: {cache.path} has no pictures, or they are gone.")
    conflicts = {path for group in found.groups_of("conflict") for path in group.paths}
    # where the test set is drawn, groups keep copies on one side
    given = {path for path, split in zip(images.paths, images.splits, strict=True) if split in ("val", "test")}
    leaks = {finding.path for finding in found.of_kind("leak")} & given
    number_of = {path: group.number for group in found.groups for path in group.paths}
    kept = [
        i
        for i, (path, status) in enumerate(zip(images.paths, cache.table.status, strict=True))
        if status == "ok" and path not in conflicts and path not in leaks and (not texts or keys[i] in texts)
    ]
    numbers = [number_of.get(images.paths[i], 0) for i in kept]
    groups = _group_names(numbers, [images.groups[i] for i in kept])
    folder = file.resolve().parent
    names = iter(()) if texts else iter(_names(images, [images.paths[i] for i in kept], folder))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    has_domains = any(images.domains)
    writer.writerow(("text" if texts else "path", "label", "split", "group", *["domain"] * has_domains))
    for i, group in zip(kept, groups, strict=True):
        others = (images.labels[i], images.splits[i], group, *[images.domains[i]] * has_domains)
        if texts:
            writer.writerow((texts[keys[i]], *others))
            continue
        writer.writerow((next(names), *others))
    write_text(file, out.getvalue())
    return CleanTable(
        len(kept),
        len(leaks - conflicts),
        len(conflicts),
        sum(n > 1 for number, n in Counter(numbers).items() if number),
    )


def _names(images: ImageSet, paths: Sequence[str], folder: Path) -> list[str]:
    """Return the paths by which a table in `folder` names images, those of a bucket or a server by their URLs."""
    if images.store is None:
        files = [images.root / path for path in paths]
        return [(file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix() for file in files]
    if images.store.url.startswith("file:"):
        return paths_into(images.store, paths, folder)
    if not images.store.url:
        raise DataError("No table for tlfeat extract: the cache was joined from several places.")
    return [below(images.store.url, path) for path in paths]


def _group_names(numbers: Sequence[int], given: Sequence[str]) -> list[str]:
    """Return the user's groups, those that share copies joined; "copies-N" where there are copies only; "" for others.

    Parameters
    ----------
    numbers : sequence of int
        Of the group of copies of each image, 0 for none.
    given : sequence of str
        The user's group of each image, "" for none.
    """
    firsts: dict[int | str, int] = {}
    marks = [(i, mark) for i, pair in enumerate(zip(numbers, given, strict=True)) for mark in pair if mark]
    joined = connected(len(given), ((firsts.setdefault(mark, i), i) for i, mark in marks))
    sizes = Counter(joined)
    name_of: dict[int, str] = {}
    for i, group in enumerate(joined):
        if given[i]:
            name_of.setdefault(group, given[i])
    prefix = "copies-"
    while any(name.startswith(prefix) for name in given):
        prefix = "_" + prefix
    return [name_of.get(group, f"{prefix}{numbers[i]}" if sizes[group] > 1 else "") for i, group in enumerate(joined)]
