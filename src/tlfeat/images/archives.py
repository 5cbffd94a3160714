"""Archives (.zip, .tar), and folders of them, become an `ImageSet` whose images are read in place.

The folders in an archive say what the folders on a disk say: classes, splits, domains. A folder that holds all the rest
(``photos/CLASS/x.jpg`` in photos.zip) is passed by. In the way of WebDataset a label may lie beside its image:
``key.jpg`` with ``key.cls``, or with ``key.json`` that has a "label" or a "class"; the split of a shard is in its name.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlfeat.errors import BadImage, DataError
from tlfeat.images.archive_index import Index
from tlfeat.images.byte_tables import splits_of_names
from tlfeat.images.classes import check_class_map, check_same_classes, renamed
from tlfeat.images.folders import SPLIT_NAMES, image_suffixes
from tlfeat.images.image_set import ImageSet
from tlfeat.images.listing import from_listing
from tlfeat.images.tar_index import TarIndex
from tlfeat.images.zip_index import ZipIndex
from tlfeat.text import composed

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar"})

#: Archives that can be read only from their beginning, and what makes a plain one of them.
_PACKED_ADVICE = {
    (".tar.gz", ".tgz"): "gunzip -k {name}",
    (".tar.bz2", ".tbz2", ".tbz"): "bunzip2 -k {name}",
    (".tar.xz", ".txz"): "unxz -k {name}",
    (".tar.zst", ".tzst"): "unzstd {name}",
    (".7z", ".rar"): "unpack it into a folder",
}

#: A label beside an image is short.
_MAX_LABEL_BYTES = 64 << 10

#: Names in ``key.json`` that say the class; the first that is there is taken.
_JSON_LABELS = ("label", "class", "category", "cls", "class_name")

#: What macOS puts into a zip beside each file.
_NOT_OURS = "__MACOSX/"


class Archives:
    """The members of an archive, or of all archives below a folder; a `Store`.

    A path is the name of a member; below a folder that of its archive stands before it, as in ``a.tar/0001.jpg``.

    Parameters
    ----------
    source : Path
        Absolute.
    """

    n_ahead = 0

    def __init__(self, source: Path) -> None:
        self.url = source.as_uri()
        self.source = source
        self._lock = threading.Lock()  # while a list of members is made; reading needs none
        self._indices: dict[str, Index | DataError] = {}

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes
        return Archives, (self.source,)

    def read(self, path: str) -> bytes:
        """Return the bytes of a member."""
        part, name = self._split(path)
        try:
            return self.index(part).read(name)
        except BadImage:
            raise
        except DataError as error:
            raise BadImage(str(error).rstrip(".")) from error

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return size and stamp of each member: of a zip by its checksum, of a tar by its place and the tar's time."""
        found = []
        for path in paths:
            part, name = self._split(path)
            try:
                found.append(self.index(part).stamp(name))
            except DataError:
                found.append((0, 0))  # reading says why
        return found

    def index(self, part: str) -> Index:
        """Return the members of an archive; "" is the source itself."""
        index = self._indices.get(part)
        if index is None:
            with self._lock:
                index = self._indices.get(part)
                if index is None:
                    index = self._indices[part] = self._made(self.source / part if part else self.source)
        if isinstance(index, DataError):
            raise index
        return index

    @staticmethod
    def _made(path: Path) -> Index | DataError:
        try:
            return ZipIndex(path) if path.suffix.lower() == ".zip" else TarIndex(path)
        except DataError as error:
            return error

    def _split(self, path: str) -> tuple[str, str]:
        """Return the archive and the member."""
        if self.source.suffix.lower() in ARCHIVE_SUFFIXES:
            return "", path
        names = path.split("/")
        for i, name in enumerate(names):
            if Path(name).suffix.lower() in ARCHIVE_SUFFIXES and ".." not in names[: i + 1] and names[0]:
                return "/".join(names[: i + 1]), "/".join(names[i + 1 :])
        return path, ""


def check_no_packed(source: Path) -> None:
    """Raise for an archive that can be read only from its beginning, with what makes a plain one of it."""
    for endings, advice in _PACKED_ADVICE.items():
        if source.name.lower().endswith(endings):
            raise DataError(
                f"{source.name} cannot be read in place, since it is packed as a whole. Make a plain archive of it "
                f"({advice.format(name=source.name)}) and name that one; a .zip is read as it is."
            )


def archives_below(folder: Path) -> list[str]:
    """Return the archives below a folder, in order, relative to it."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ARCHIVE_SUFFIXES and path.is_file())
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def from_archives(
    source: Path,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    *,
    has_domains: bool = False,
) -> ImageSet:
    """Return the images of an archive, or of the archives below a folder.

    Parameters
    ----------
    source : Path
        Absolute.
    class_map, classes, label_of, has_domains
        As of `image_set.from_folder`.

    Raises
    ------
    DataError
        An archive that is damaged or cut short; what a folder is refused for.
    """
    store = Archives(source)
    if source.is_file():
        images = _of_one(store, "", class_map, classes, label_of, has_domains=has_domains)
        return replace(images, root=source, source=source)
    splits = splits_of_names(source, archives_below(source))
    every = [
        _of_one(store, part, {}, (), label_of, has_domains=has_domains, has_split=split != "")
        for part, split in splits.items()
    ]
    labels = [label for images in every for label in images.labels]
    new_names = renamed(set(labels), class_map)
    check_class_map(new_names.keys() - {""}, class_map)
    of_split: dict[str, set[str]] = {}
    for images, split in zip(every, splits.values(), strict=True):
        of_split.setdefault(split, set()).update(new_names[label] for label in images.labels if label)
    if not label_of and not classes and all(of_split) and all(of_split.values()):
        check_same_classes(of_split)
    return ImageSet(
        root=source,
        source=source,
        paths=[f"{part}/{path}" for part, images in zip(splits, every, strict=True) for path in images.paths],
        labels=[new_names[label] for label in labels],
        splits=[s or split for images, split in zip(every, splits.values(), strict=True) for s in images.splits],
        groups=[""] * len(labels),
        domains=[domain for images in every for domain in images.domains],
        passed_over=sum((Counter(images.passed_over) for images in every), Counter()),
        notes=[note for images in every for note in images.notes],
        store=store,
    )


def _of_one(
    store: Archives,
    part: str,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    *,
    has_domains: bool,
    has_split: bool = False,
) -> ImageSet:
    """Return the images of one archive; paths are names of members. With `has_split` its folder may be called so."""
    index = store.index(part)
    names = [name for name in index.places if not name.startswith(_NOT_OURS)]
    beside = {} if label_of else _labels_beside(index, names)
    top = _top_folder(names, {} if has_split else SPLIT_NAMES)

    def label_beside(path: str, inside: str) -> str:
        return beside.get(top + path) or inside.rpartition("/")[0].partition("/")[0]

    # the folders above all others may be members, too; without the names above them nothing is left of theirs
    short = [name.removeprefix(top) for name in names if name and not (name[-1] == "/" and top.startswith(name))]
    listed = from_listing(
        short, store, class_map, classes, label_beside if beside else label_of, has_domains=has_domains
    )
    passed_over = dict(listed.passed_over)
    for ending in (".cls", ".json") if beside else ():
        passed_over.pop(ending, None)  # they were read
    paths = [top + path for path in listed.paths] if top else listed.paths
    return replace(listed, paths=paths, passed_over=passed_over, notes=[*listed.notes, *index.notes])


def _top_folder(names: Sequence[str], kept: Collection[str]) -> str:
    """Return the folder, with "/", that holds all others and no images: what was packed, mostly; none of `kept`."""
    suffixes = tuple(image_suffixes())
    images = [name for name in names if name.lower().endswith(suffixes) and "/../" not in f"/{name}/"]
    top = ""
    while images:
        folder, slash, _ = images[0][len(top) :].partition("/")
        below = f"{top}{folder}/"
        if not slash or not folder or folder.lower() in kept:
            break
        if not all(name.startswith(below) and "/" in name[len(below) :] for name in images):
            break
        top = below
    return top


def _labels_beside(index: Index, names: Sequence[str]) -> dict[str, str]:
    """Return image to label where labels lie beside the images, as WebDataset has them; nothing where they do not."""
    known = set(names)
    suffixes = tuple(image_suffixes())
    if not any(name.endswith((".cls", ".json")) for name in names):
        return {}
    found = {}
    for name in names:
        if not name.lower().endswith(suffixes):
            continue
        folder, _, file = name.rpartition("/")
        key = f"{folder}/" * bool(folder) + file.partition(".")[0]
        if f"{key}.cls" in known:
            label = _short(index, f"{key}.cls")
        elif f"{key}.json" in known:
            label = _label_of_json(_short(index, f"{key}.json"))
        else:
            continue
        if label:
            found[name] = composed(label)
    return found


def _short(index: Index, name: str) -> str:
    try:
        return index.read(name).decode("utf-8", "replace").strip() if index.size(name) <= _MAX_LABEL_BYTES else ""
    except BadImage:
        return ""


def _label_of_json(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = next((value[name] for name in _JSON_LABELS if name in value), "") if isinstance(value, dict) else ""
    return str(found).strip() if isinstance(found, str | int) and not isinstance(found, bool) else ""
