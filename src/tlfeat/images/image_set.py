"""A set of images: paths, labels, splits, groups, domains; nothing decoded yet. `load` makes one.

The content key of an image is the sha256 of its bytes (`content_key`), so that a copy under another name is
the same picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlfeat.columns import Codes, Collected, Editable, as_codes, at, pack, pack_keys, pack_numbers
from tlfeat.errors import DataError
from tlfeat.images.classes import check_class_map, check_classes, renamed
from tlfeat.images.folders import FolderTree, Tree
from tlfeat.images.lines import TreeLines
from tlfeat.images.stores import Store, StoredImage
from tlfeat.images.urls import url_name
from tlfeat.text import counted


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one data set as parallel lists, in a fixed order.

    Attributes
    ----------
    root : Path
        Absolute; `paths` are relative to it.
    source : Path
        What the user named: the folder (then equal to `root`) or the table; see `named`.
    paths, labels, splits, groups, domains : sequence of str
        One entry an image. "" is "no label", "no given split", "no group", "no domain" (all by default).
    passed_over : mapping of str to int
        Files that were seen and are not images, by kind: their ending (".txt"), or "hidden" (a folder counts as one).
    notes : list of str
        What the user should know.
    holds : str
        "images", or "texts": files or lines of a table that a text encoder reads.
    contents : list of str
        The texts of a table, whose `paths` are then its lines, as ``reviews.csv:2``; empty where there are files.
    store : Store, optional
        Where the images lie if they are no files: `paths` are those of the store.
    url : str
        What the user named if it was a URL; "" otherwise. `root` and `source` then lead nowhere.
    """

    root: Path
    source: Path
    paths: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[str]
    groups: Sequence[str]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    holds: str = "images"
    contents: Sequence[str] = field(default=(), repr=False)
    domains: Sequence[str] = field(default_factory=list)
    store: Store | None = field(default=None, compare=False)
    url: str = ""

    def __post_init__(self) -> None:
        if not self.domains:
            object.__setattr__(self, "domains", Codes.filled("", len(self.paths)))
        if len(self.domains) != len(self.paths):
            raise ValueError(f"{len(self.paths)} paths and {len(self.domains)} domains")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted; images without a label contribute none."""
        return sorted(set(self.labels) - {""})

    @property
    def n_passed_over(self) -> int:
        """How many files were seen that are no images."""
        return sum(self.passed_over.values())

    @property
    def name(self) -> str:
        """A short name for files: the folder's or the table's own name."""
        if self.url:
            return url_name(self.url)
        return self.source.stem if self.source.is_file() else self.source.name

    @property
    def named(self) -> str:
        """What the user named, a path or a URL, in words."""
        return self.url or str(self.source)

    @property
    def place(self) -> str:
        """What `paths` count from, a folder or the URL of a store, in words."""
        return str(self.root) if self.store is None else self.store.url

    @property
    def home(self) -> Path | Store:
        """What the bytes of a path are read from (`decode.content_of`): the folder or the store."""
        return self.root if self.store is None else self.store

    def at(self, places: Sequence[int]) -> ImageSet:
        """Return the images at these places, in this order."""
        columns = ("paths", "labels", "splits", "groups", "domains", *(("contents",) if self.contents else ()))
        some: dict[str, Any] = {name: at(getattr(self, name), places) for name in columns}
        return replace(self, **some)

    def file(self, i: int) -> Path:
        """The absolute path of image `i`, where there is no store."""
        return self.root / self.paths[i]

    def picture(self, path: str) -> Path | Callable[[], bytes]:
        """What is read of the image with this path: its file, or what gives the bytes from the store."""
        return self.root / path if self.store is None else StoredImage(self.store, path)

    def content(self, i: int) -> Path | Callable[[], bytes]:
        """What is read of image or text `i`: its file, or what gives the bytes from a store or a table of texts."""
        if not self.contents:
            return self.picture(self.paths[i])
        text = self.contents[i]
        return lambda: text.encode("utf-8", "surrogateescape")


def content_key(data: bytes) -> str:
    """Return the 64 hexadecimal digits of the sha256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def from_folder(
    root: Path,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    suffixes: Collection[str] | None = None,
    *,
    has_domains: bool = False,
) -> ImageSet:
    """Return the images below a folder, or the files with other endings, with the labels of their folders."""
    images = from_tree(FolderTree(root, suffixes), class_map, classes, label_of, suffixes, has_domains=has_domains)
    return replace(images, root=root, source=root)


def from_tree(
    tree: Tree,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    suffixes: Collection[str] | None = None,
    *,
    has_domains: bool = False,
) -> ImageSet:
    """Return what `from_folder` does for any tree of folders; its root is yet to be set."""
    paths, labels, splits, domains = Collected(is_path=True), Collected(), Collected(), Collected()
    lines = TreeLines(tree, label_of, suffixes, has_domains=has_domains)
    for line in lines:
        paths.append(line.path)
        labels.append(line.label)
        splits.append(line.split)
        domains.append(line.domain)
    new_names = lines.new_names(class_map, classes)
    return ImageSet(
        root=Path(),
        source=Path(),
        paths=paths.column(),
        labels=pack(new_names[label] for label in labels.column()),
        splits=splits.column(),
        groups=Codes.filled("", len(paths)),
        passed_over=dict(tree.passed_over),
        notes=tree.notes,
        domains=domains.column(),
    )


def from_table_lines(
    lines: Sequence[Mapping[str, str]],
    paths: Sequence[str],
    labels: Sequence[str],
    class_map: Mapping[str, str],
    *,
    root: Path,
    source: Path,
    notes: Sequence[str] = (),
    store: Store | None = None,
) -> ImageSet:
    """Return the images of the lines of a table (`tables.Table`), with their paths from `root` and renamed labels."""
    new_names = renamed(set(labels), class_map)
    check_class_map(new_names.keys() - {""}, class_map)
    return ImageSet(
        root=root,
        source=source,
        paths=pack(paths, is_path=True),
        labels=pack(new_names[label] for label in labels),
        splits=pack(line["split"] for line in lines),
        groups=pack(line["group"] for line in lines),
        domains=pack(line["domain"] for line in lines),
        notes=list(notes),
        store=store,
    )


def only(images: ImageSet, classes: Collection[str]) -> ImageSet:
    """Leave out the images of other classes, and those without a label."""
    if not classes:
        return images
    check_classes(images.labels, classes)
    chosen = [i for i, label in enumerate(images.labels) if label in set(classes)]
    n_left_out = len(images) - len(chosen)
    note = f"{counted(n_left_out, images.holds[:-1])} of other classes left out (--classes)"
    return replace(images.at(chosen), notes=[*images.notes, note])


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The path table: what the data set looked like and what became of every image.

    Attributes
    ----------
    images : ImageSet
    keys : list of str or column
        Content keys; "" where the file could not be read or has not been looked at.
    status : list of str or column
        "ok", "failed" (then `errors` says why) or "pending" (the run did not get there).
    sizes, mtimes_ns : sequence of int
        Bytes and modification time, by which an unchanged file is recognised without reading it.
    """

    images: ImageSet
    keys: Editable
    status: Editable
    errors: Editable
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]

    def count(self, status: str) -> int:
        """How many images have this status."""
        return self.status.count(status)

    def at(self, places: Sequence[int]) -> ImageTable:
        """Return the lines at these places, in this order."""
        columns: tuple[Any, ...] = (self.keys, self.status, self.errors, self.sizes, self.mtimes_ns)
        return ImageTable(self.images.at(places), *(at(column, places) for column in columns))

    def packed(self) -> ImageTable:
        """Return the same table of columns, which share their memory with this one until either is changed."""
        columns: dict[str, Any] = {"paths": pack(self.images.paths, is_path=True).copy()}
        columns |= {name: pack(getattr(self.images, name)).copy() for name in ("labels", "splits", "groups", "domains")}
        return ImageTable(
            images=replace(self.images, **columns),
            keys=pack_keys(self.keys).copy(),
            status=as_codes(self.status).copy(),
            errors=as_codes(self.errors).copy(),
            sizes=pack_numbers(self.sizes),
            mtimes_ns=pack_numbers(self.mtimes_ns),
        )

    def without(self, status: str) -> ImageTable:
        """Return the table of the images that have another status."""
        return self.at([i for i, each in enumerate(self.status) if each != status])

    def check_embedded(self, where: object = "") -> None:
        """Raise `DataError` where images are not embedded yet; `where` says of which cache."""
        if n := self.count("pending"):
            raise DataError(
                f"{f'{where}: ' if where else ''}{n:,} of {len(self.keys):,} images are not embedded yet. Run the same "
                f"tlfeat extract again; it goes on where it stopped."
            )
