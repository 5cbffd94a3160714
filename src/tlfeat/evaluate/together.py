"""Several caches of the same images: one split for all of them, made on the images that all have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tlfeat.cache.contents import Origin, origin
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import TEST_FRACTION, Split, make_split
from tlfeat.images.image_set import ImageTable
from tlfeat.text import counted


@dataclass(frozen=True, slots=True)
class Together:
    """The caches with their one split.

    Attributes
    ----------
    data : list of Data
        One a cache, in the order given. The splits are the same, image for image; paths are those of each cache.
    n_common : int
        Different pictures that every cache has rows of.
    notes : list of str
        What the user should know of images that are not common, and of splits, groups and domains that differ.
    """

    data: list[Data]
    n_common: int
    notes: list[str]


@contextmanager
def open_together(
    paths: Sequence[Path], *, seed: int, test_fraction: float = TEST_FRACTION, test_split: str | None = None
) -> Iterator[Together]:
    """Open caches, find the images that all of them have, and make one split of these; see `split.make_split`.

    Images are the same where their bytes are (content keys). Labels, splits, groups and domains are those of
    the first cache.

    Raises
    ------
    DataError
        No image is common, or a common one has another label in another cache.
    """
    with ExitStack() as opened:
        caches = [opened.enter_context(open_cache(path)) for path in _once(paths)]
        tables = [_complete(cache) for cache in caches]
        held = [{key for key, status in zip(t.keys, t.status, strict=True) if status == "ok"} for t in tables]
        common = set.intersection(*held)
        if not common:
            raise DataError(_nothing_common(caches, held))
        for cache, table in zip(caches[1:], tables[1:], strict=True):
            _check_labels(caches[0], tables[0], cache, table, common)
        n_left_out = [len(keys - common) for keys in held]
        table = tables[0] if not n_left_out[0] else _only(tables[0], common)
        split = make_split(table, seed=seed, test_fraction=test_fraction, test_split=test_split)
        first = Data(caches[0], split, seed)
        others = [
            Data(cache, replace(split, paths=_own_paths(split, own)), seed, leaks_of=first)
            for cache, own in zip(caches[1:], tables[1:], strict=True)
        ]
        notes = [note for cache in caches for note in cache.notes]
        notes += [
            f"{counted(n, 'picture')} of {cache.path} {'is' if n == 1 else 'are'} not in every cache and left out"
            for cache, n in zip(caches, n_left_out, strict=True)
            if n
        ]
        notes += [
            note
            for cache, own in zip(caches[1:], tables[1:], strict=True)
            if (note := _other_roles(caches[0], tables[0], cache, own, common))
        ]
        yield Together([first, *others], len(common), notes)


def _once(paths: Sequence[Path]) -> list[Path]:
    """Return every file once, however it was named."""
    return list({path.resolve(): path for path in reversed(paths)}.values())[::-1]


def _nothing_common(caches: Sequence[Cache], held: Sequence[set[str]]) -> str:
    counts = ", ".join(f"{cache.path} {len(keys):,}" for cache, keys in zip(caches, held, strict=True))
    why = "Images are told by their bytes: run tlfeat extract on the same files with each backbone."
    imported = [str(cache.path) for cache in caches if origin(cache) is Origin.IMPORTED]
    if imported:
        why = f"The rows of {', '.join(imported)} were imported, without images by which they could be told."
    if all(cache.fingerprint == caches[0].fingerprint for cache in caches[1:]):
        words = " ".join(f"--cache {cache.path}" for cache in caches)
        why += f" If these are domains of one set (one encoder made all): tlfeat adapt {words} --leave-one-out"
    return f"No image is in all of these caches (pictures in each: {counts}). {why}"


def _complete(cache: Cache) -> ImageTable:
    table = cache.table
    table.check_embedded(cache.path)
    return table


def _labels_of(table: ImageTable) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, label, status in zip(table.keys, table.images.labels, table.status, strict=True):
        if status == "ok" and label:
            found.setdefault(key, set()).add(label)
    return found


def _check_labels(first: Cache, table: ImageTable, other: Cache, own: ImageTable, common: set[str]) -> None:
    """Raise where a common image has other labels; one that has none somewhere is no conflict."""
    ours, theirs = _labels_of(table), _labels_of(own)
    differing = [key for key in table.keys if key in common and ours.get(key) and theirs.get(key)]
    differing = [key for key in dict.fromkeys(differing) if ours[key] != theirs[key]]
    if not differing:
        return
    key = differing[0]
    path = table.images.paths[table.keys.index(key)]
    raise DataError(
        f"{counted(len(differing), 'image')} of {len(common):,} common ones {'has' if len(differing) == 1 else 'have'} "
        f"another label in {other.path} than in {first.path}: {path} is {_named(ours[key])} there and "
        f"{_named(theirs[key])} here. Extract both with the same labels (--class-map, --label-from)."
    )


def _named(labels: set[str]) -> str:
    return " and ".join(f"'{label}'" for label in sorted(labels))


def _only(table: ImageTable, keys: set[str]) -> ImageTable:
    """Return the part of a table that is embedded and of these keys."""
    states = zip(table.keys, table.status, strict=True)
    return table.at([i for i, (key, status) in enumerate(states) if key in keys and status == "ok"])


def _own_paths(split: Split, table: ImageTable) -> list[str]:
    """Return the path that another cache has for each image; of copies each has its own as long as there are some."""
    waiting: dict[str, list[str]] = {}
    for key, path, status in sorted(zip(table.keys, table.images.paths, table.status, strict=True), reverse=True):
        if status == "ok":
            waiting.setdefault(key, []).append(path)
    return [of[-1] if len(of := waiting[key]) == 1 else of.pop() for key in split.keys]


def _other_roles(first: Cache, table: ImageTable, other: Cache, own: ImageTable, common: set[str]) -> str:
    """Say where another cache has other splits, groups or domains: those of the first one count."""
    ours, theirs = _roles_of(table), _roles_of(own)
    n = sum(ours[key] != theirs[key] for key in common)
    if not n:
        return ""
    what = "split, group or domain" if any(table.images.domains) or any(own.images.domains) else "split or group"
    return f"{counted(n, 'image')} with another {what} in {other.path}: those of {first.path} count"


def _roles_of(table: ImageTable) -> dict[str, set[tuple[str, str, str]]]:
    found: dict[str, set[tuple[str, str, str]]] = {}
    images = table.images
    roles = zip(images.splits, images.groups, images.domains, strict=True)
    for key, role, status in zip(table.keys, roles, table.status, strict=True):
        if status == "ok":
            found.setdefault(key, set()).add(role)
    return found
