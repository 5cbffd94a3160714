"""Several caches of one encoder as one: rows are copied, and each cache is a domain of the images.

No picture is decoded. The joined cache lies under ``cache/``, names its parts in ``source["parts"]``, and is written
again only where it would hold something else by now.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.contents import Origin, encoder_name, origin, parts_of
from tlfeat.cache.passes import summed_timing
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.cache.verify import differing_values
from tlfeat.errors import CacheDamaged, CacheError, DataError, FingerprintError, UsageError
from tlfeat.images.classes import matching_class_map
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.stores import common_store
from tlfeat.text import counted

#: Rows that are copied at a time.
_STEP = 4096

#: Of the names of the parts, in the name of the file.
_MAX_NAME = 80

#: Names in one sentence.
_MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Joined:
    """What `join_caches` did.

    Attributes
    ----------
    path : Path
        The joined cache.
    names : list of str
        What each part is called, and the domain of its images that had none.
    notes : list of str
        What the user should know: pictures, groups and domains that are in several parts, layers that are not in all.
    is_reused : bool
        Whether it was there.
    """

    path: Path
    names: list[str]
    notes: list[str]
    is_reused: bool


@dataclass(frozen=True, slots=True)
class _Part:
    cache: Cache
    table: ImageTable
    name: str

    @property
    def ok(self) -> list[int]:
        return [i for i, status in enumerate(self.table.status) if status == "ok"]

    @property
    def keys(self) -> set[str]:
        return {self.table.keys[i] for i in self.ok}

    @property
    def classes(self) -> set[str]:
        return {self.table.images.labels[i] for i in self.ok} - {""}


def join_caches(paths: Sequence[Path]) -> Joined:
    """Make one cache of several, or find it as it was made; it is the newest cache afterwards.

    An image without a domain is of the domain that its cache is called: by the name of the file, of a name that
    `extract` chose the part that names the data. Domains and groups that are called the same in several caches are
    different ones, and get the name of their cache in front. Labels and splits stay, and paths lead to the same files.

    Parameters
    ----------
    paths : sequence of Path
        Two at least, in any order.

    Raises
    ------
    UsageError
        A cache that is named twice.
    FingerprintError
        They were made by different encoders.
    DataError
        Images that are not embedded yet, no layer or no class in common.
    """
    files = [path.resolve() for path in paths]
    if twice := [path for path, file in zip(paths, files, strict=True) if files.count(file) > 1]:
        raise UsageError(f"{twice[-1]} is named twice. Each --cache is a domain: name each once.")
    with ExitStack() as opened:
        caches = [opened.enter_context(open_cache(path)) for path in paths]
        _check_encoder(caches)
        tables = [_complete(cache) for cache in caches]
        named = zip(_names(caches), caches, tables, strict=True)
        parts = [_Part(cache, table, name) for name, cache, table in sorted(named, key=lambda each: each[0])]
        layers, notes = _common_layers(parts)
        _check_classes(parts)
        images, of_roles = _joined_images(parts)
        table = _joined_table(parts, images)
        path = _path(parts)
        source = {
            "root": images.place,
            "source": str(images.source),
            "encoder": parts[0].cache.source.get("encoder", {}),
            **({"holds": images.holds} if images.holds != "images" else {}),
            **({"store": images.store.url} if images.store is not None else {}),
            "parts": [str(part) for each in parts for part in parts_of(each.cache) or [each.cache.path.resolve()]],
        }
        is_reused = _is_current(path, parts, source, layers, table)
        if not is_reused:
            _write(path, parts, source, layers, table)
        notes = [*(note for part in parts for note in part.cache.notes), *_shared_pictures(parts), *of_roles, *notes]
    workspace.make_newest(path)
    return Joined(path, [part.name for part in parts], notes, is_reused)


# --- what can be joined -------------------------------------------------------------------------------------------


def _check_encoder(caches: Sequence[Cache]) -> None:
    first, *others = caches
    for other in others:
        if other.fingerprint != first.fingerprint:
            raise FingerprintError(
                f"{first.path} and {other.path} hold rows of different encoders "
                f"({first.fingerprint.get('backbone')}, {other.fingerprint.get('backbone')}). Differing: "
                f"{differing_values(first.fingerprint, other.fingerprint)}. Extract both with one encoder; backbones "
                f"on the same images are compared by: tlfeat compare --cache {first.path} --cache {other.path}"
            )


def _complete(cache: Cache) -> ImageTable:
    table = cache.table
    table.check_embedded(cache.path)
    if not table.count("ok"):
        raise DataError(f"{cache.path} has no image with a row: there is nothing of it to join.")
    return table


def _common_layers(parts: Sequence[_Part]) -> tuple[dict[str, int], list[str]]:
    """Return name and width of the layers that have a row of every image of every part, and what is left out."""
    whole: list[dict[str, int]] = []
    for part in parts:
        keys = part.keys
        layers = part.cache.layers
        whole.append({name: width for name, (_, width) in layers.items() if keys <= part.cache.known(name).keys()})
    common = {name: width for name, width in whole[0].items() if all(each.get(name) == width for each in whole)}
    if not common:
        held = "; ".join(
            f"{part.cache.path}: {', '.join(f'{name} ({width} columns)' for name, width in each.items()) or 'none'}"
            for part, each in zip(parts, whole, strict=True)
        )
        raise DataError(
            f"No layer has rows of all images in each of these caches ({held}). Run tlfeat extract with the same "
            f"--layer on each."
        )
    left_out = sorted({name for part in parts for name in part.cache.layers} - common.keys())
    notes = [f"layers that are not in every cache are left out: {_listed(left_out)}"] if left_out else []
    return common, notes


def _check_classes(parts: Sequence[_Part]) -> None:
    """Raise where a part with labels shares no class with any other: names were written in different ways."""
    labelled = [part for part in parts if part.classes]
    for part in labelled:
        others = [other for other in labelled if other is not part]
        if others and not any(part.classes & other.classes for other in others):
            pairs = matching_class_map([part.classes, others[0].classes])
            example = " ".join(f"--class-map '{pair}'" for pair in pairs) or "--class-map OLD=NEW"
            raise DataError(
                f"{part.cache.path} ({_listed(part.classes)}) has no class in common with {others[0].cache.path} "
                f"({_listed(others[0].classes)}). Extract again with names that agree, embeddings are reused: {example}"
            )


def _names(caches: Sequence[Cache]) -> list[str]:
    """Return what each cache is called: the first of these that tells all of them apart."""
    full = [cache.stem for cache in caches]
    above = [f"{cache.path.resolve().parent.name}/{cache.stem}" for cache in caches]
    for names in ([_data_name(cache) for cache in caches], full, above):
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{caches[0].path} and another cache have one name: rename one, the names become domains.")


def _data_name(cache: Cache) -> str:
    """Return the name of a cache, without backbone and digits where `extract` chose it (``DATA-BACKBONE-XXXXXXXX``)."""
    ending = re.escape(f"-{workspace.safe_name(encoder_name(cache))}-") + "[0-9a-f]{8}"
    return re.sub(f"{ending}$", "", cache.stem) or cache.stem


# --- the table ----------------------------------------------------------------------------------------------------


def _joined_images(parts: Sequence[_Part]) -> tuple[ImageSet, list[str]]:
    """Return the images of all parts, and what is said of domains and groups with one name in several of them."""
    first = parts[0].table.images
    root, paths = _paths(parts)
    own = [[domain or part.name for domain in part.table.images.domains] for part in parts]
    domains, shared_domains = _told_apart(parts, own)
    groups, shared_groups = _told_apart(parts, [part.table.images.groups for part in parts])
    notes = [
        f"{counted(len(names), noun)} called the same in several caches {'is' if len(names) == 1 else 'are'} taken as "
        f"different ones, with the name of the cache in front ({_listed(names)})"
        for noun, names in (("domain", shared_domains), ("group", shared_groups))
        if names
    ]
    images = ImageSet(
        root=root,
        source=Path("+".join(workspace.safe_name(part.name) for part in parts)),
        paths=paths,
        labels=_all(parts, lambda table: table.images.labels),
        splits=_all(parts, lambda table: table.images.splits),
        groups=groups,
        holds=first.holds,
        domains=domains,
        store=common_store({part.table.images.place: part.table.images.store for part in parts}),
    )
    return images, notes


def _joined_table(parts: Sequence[_Part], images: ImageSet) -> ImageTable:
    return ImageTable(
        images,
        _all(parts, lambda table: table.keys),
        _all(parts, lambda table: table.status),
        _all(parts, lambda table: table.errors),
        array("q", _all(parts, lambda table: table.sizes)),
        array("q", [0] * len(images)),  # for `extract`, which does not write here
    )


def _all(parts: Sequence[_Part], column: Callable[[ImageTable], Sequence[Any]]) -> list[Any]:
    return [value for part in parts for value in column(part.table)]


def _told_apart(parts: Sequence[_Part], columns: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the values of all parts in one list, and those of several parts, which get the part's name in front.

    What is called as the part itself keeps its name.
    """
    n_parts = Counter(value for column in columns for value in set(column))
    shared = sorted(value for value, n in n_parts.items() if n > 1 and value)
    found = []
    for part, column in zip(parts, columns, strict=True):
        renamed = {value: f"{part.name}/{value}" for value in shared if value != part.name}
        found += [renamed.get(value, value) for value in column]
    return found, shared


def _paths(parts: Sequence[_Part]) -> tuple[Path, list[str]]:
    """Return a folder above all images, and their paths from there; absolute ones where there is no such folder."""
    roots = [part.table.images.root for part in parts]
    if any(part.table.images.store is not None for part in parts):
        has_many = len({part.table.images.place for part in parts}) > 1
        named = [(part.table.images.place, path) for part in parts for path in part.table.images.paths]
        return roots[0], [f"{place}/{path}" if has_many else path for place, path in named]
    if all(origin(part.cache) is Origin.IMPORTED for part in parts):  # rows, which were read of no file
        return roots[0], [f"{part.name}/{path}" for part in parts for path in part.table.images.paths]
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError:  # other drives, or no root
        return roots[0], [
            str(each / path) for each, p in zip(roots, parts, strict=True) for path in p.table.images.paths
        ]
    found: list[str] = []
    for each, part in zip(roots, parts, strict=True):
        below = each.relative_to(root).as_posix()
        above = "" if below == "." else f"{below}/"
        found += [path if os.path.isabs(path) else above + path for path in part.table.images.paths]  # noqa: PTH117
    return root, found


def _shared_pictures(parts: Sequence[_Part]) -> list[str]:
    """Say which pictures are in several parts: one picture has one row, whatever it is called."""
    n_parts = Counter(key for part in parts for key in part.keys)
    shared = {key for key, n in n_parts.items() if n > 1}
    if not shared:
        return []
    labels: dict[str, set[str]] = {}
    for part in parts:
        for i in part.ok:
            if part.table.keys[i] in shared and part.table.images.labels[i]:
                labels.setdefault(part.table.keys[i], set()).add(part.table.images.labels[i])
    n_other = sum(len(found) > 1 for found in labels.values())
    other = f", {n_other:,} of them with another label" if n_other else ""
    return [
        f"{counted(len(shared), 'picture')} {'is' if len(shared) == 1 else 'are'} in several of these caches{other}: "
        f"copies share a row, and count in no score where another copy trains"
    ]


# --- the file -----------------------------------------------------------------------------------------------------


def _path(parts: Sequence[_Part]) -> Path:
    """Return where the joined cache lies: named after its parts, and told apart by where these lie."""
    name = "+".join(workspace.safe_name(part.name) for part in parts)[:_MAX_NAME]
    return (
        workspace.CACHE_DIR / f"{name}-{workspace.digest({'parts': [str(p.cache.path.resolve()) for p in parts]})}.h5"
    )


def _is_current(
    path: Path, parts: Sequence[_Part], source: dict[str, Any], layers: dict[str, int], table: ImageTable
) -> bool:
    """Whether the file holds what would be written.

    Raises
    ------
    CacheError
        Something else has its name.
    """
    if not path.exists():
        return False
    try:
        with open_cache(path) as kept:
            if not parts_of(kept):
                raise UsageError(f"{path} was not made by joining caches. Give it another name.")
            n_rows = len(set().union(*(part.keys for part in parts)))
            return (
                kept.fingerprint == parts[0].cache.fingerprint
                and kept.source == source
                and kept.layers == {name: (n_rows, width) for name, width in layers.items()}
                and kept.timing == _timing(parts)
                and _columns(kept.table) == _columns(table)
            )
    except CacheError:
        return False  # damaged, or of another format: written again


def _columns(table: ImageTable) -> list[Any]:
    images = table.images
    texts = [images.paths, images.labels, images.splits, images.groups, images.domains]
    return [*texts, table.keys, table.status, table.errors, list(table.sizes)]


def _write(
    path: Path, parts: Sequence[_Part], source: dict[str, Any], layers: dict[str, int], table: ImageTable
) -> None:
    try:
        with (
            workspace.written_aside(path) as aside,
            create_cache(aside, parts[0].cache.fingerprint, source) as joined,
        ):
            joined.reserve(layers, len(set().union(*(part.keys for part in parts))))
            for part in parts:
                for layer in layers:
                    _copy(part, layer, joined)
            joined.write_table(table)
            joined.write_document("timing", _timing(parts))
    except OSError as error:
        raise CacheError(f"Cannot write {path}: {error.strerror or error}.") from error


def _copy(part: _Part, layer: str, joined: CacheFile) -> None:
    """Append the rows of a part's images as they are stored, in the order of the file; what is there is left out."""
    wanted = part.keys
    for rows_of in part.cache.row_tables(layer):
        for start in range(0, rows_of.n_rows, _STEP):
            stop = min(start + _STEP, rows_of.n_rows)
            rows = rows_of.stored(start, stop)
            digests, checksums = rows_of.keys_and_checksums(start, stop)
            keys = [digest.tobytes().hex() for digest in digests]
            at = [i for i, key in enumerate(keys) if key in wanted]
            if (
                any(rows_of.checksum(rows[i], digests[i]) != checksums[i] for i in at)
                or not np.isfinite(rows[at]).all()
            ):
                raise CacheDamaged(f"{part.cache.path}: rows of layer '{layer}' are damaged. Run: tlfeat cache verify")
            joined.append({layer: rows[at]}, [keys[i] for i in at])


def _timing(parts: Sequence[_Part]) -> dict[str, Any]:
    return summed_timing([part.cache.timing for part in parts])


def _listed(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_MAX_NAMED]) + (", ..." if len(ordered) > _MAX_NAMED else "")
