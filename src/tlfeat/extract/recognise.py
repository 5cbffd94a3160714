"""Files that have not changed since the last run are recognised, and their content is not read again."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tlfeat.blocks import BLOCK_LINES, Column
from tlfeat.columns import Codes, Keys, Numbers, as_codes, pack_keys, pack_numbers
from tlfeat.images.file_parts import SETTLED_NS
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.memory import give_back_memory

#: As `SETTLED_NS`, where time stamps are in whole seconds: clocks of two machines may differ by so much.
_SETTLED_COARSE_NS = 3600 * 1_000_000_000

#: Images whose columns, once freed, are worth giving back at once: some MB.
_MANY = 1 << 18


def recognise(images: ImageSet, previous: ImageTable | None) -> ImageTable:
    """Return the path table before anything is read: known keys where size and time stamp are unchanged.

    Images of a store have its stamps (`Store.stamps`) in place of times.

    Images that failed are looked at again (the cause may be gone); so are all others that differ. The table is of
    packed columns, which share the memory of those of `previous` where nothing has changed.
    """
    n = len(images)
    if images.contents:  # lines of a table are read each time: a line number is no name of a text
        sizes = [len(text.encode("utf-8", "surrogateescape")) for text in images.contents]
        nothing = Codes.filled("", n)
        return ImageTable(
            images, Keys.none(n), Codes.filled("pending", n), nothing, pack_numbers(sizes), pack_numbers([0] * n)
        )
    before = None
    if previous is not None and previous.images.place == images.place:
        before = _Before(previous.packed())
        for name in ("paths", "labels", "splits", "groups", "domains"):
            if isinstance(column := getattr(images, name), Column):
                column.share(getattr(before.table.images, name))
        if n > _MANY:
            give_back_memory()  # what was listed lies below the table that was read
    found = ImageTable(images, Keys(), Codes(), Codes.filled("", n), Numbers(), Numbers())
    for start in range(0, n, BLOCK_LINES):
        paths = images.paths[start : start + BLOCK_LINES]
        _recognise_block(found, before, paths, *_stamps(images, paths))
    return found


Stamps = npt.NDArray[np.int64]


def _stamps(images: ImageSet, paths: Sequence[str]) -> tuple[Stamps, Stamps]:
    """Return size and stamp of each image; zeros where nothing is known of it: decoding says why."""
    if images.store is not None:
        stamps = np.array(images.store.stamps(paths), np.int64).reshape(-1, 2)
        return np.ascontiguousarray(stamps[:, 0]), np.ascontiguousarray(stamps[:, 1])
    root = str(images.root)  # strings, not Paths: this is done for every image of an unchanged set
    sizes, mtimes_ns = [], []
    for path in paths:
        try:
            found = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118
        except (OSError, ValueError):
            sizes.append(0)
            mtimes_ns.append(0)
        else:
            sizes.append(found.st_size)
            mtimes_ns.append(found.st_mtime_ns)
    return np.array(sizes, np.int64), np.array(mtimes_ns, np.int64)


def _recognise_block(
    found: ImageTable, before: _Before | None, paths: Sequence[str], sizes: Stamps, mtimes_ns: Stamps
) -> None:
    """Add a block of lines to a table."""
    keys, status = pack_keys(found.keys), as_codes(found.status)
    in_sizes, in_mtimes_ns = pack_numbers(found.sizes), pack_numbers(found.mtimes_ns)
    number, is_known = keys.n_blocks, np.zeros(len(paths), np.bool_)
    places = np.empty(0, np.int64)
    if before is not None:
        places = before.places(number * BLOCK_LINES, paths)
        is_known[:] = before.is_unchanged(places, sizes, mtimes_ns)
        if is_known.all() and before.is_block(number, places):
            keys.extend_block(pack_keys(before.table.keys), number)
            in_sizes.extend_block(pack_numbers(before.table.sizes), number)
            in_mtimes_ns.extend_block(pack_numbers(before.table.mtimes_ns), number)
            status.extend(["ok"] * len(paths))
            return
    digests = np.zeros((len(paths), 32), np.uint8)
    if before is not None and is_known.any():
        digests[is_known] = pack_keys(before.table.keys).take(places[is_known])
    keys.extend_packed(digests, is_known)
    status.extend(["ok" if known else "pending" for known in is_known.tolist()])
    in_sizes.extend_array(sizes)
    in_mtimes_ns.extend_array(mtimes_ns)


class _Before:
    """The table of the last run, of packed columns: where paths were in it, and which lines are as they were."""

    def __init__(self, table: ImageTable) -> None:
        self.table = table
        self._shift = 0  # by how much lines lie further on in it than now
        self._n_in_place = 0  # lines from the first on that lie where they were
        self._hashes: tuple[Stamps, Stamps] | None = None

    def places(self, start: int, paths: Sequence[str]) -> Stamps:
        """Return the line of each path, -1 where there was none.

        Usually the paths that follow one another did so before; where they do not they are looked for by their hashes.
        """
        n, at, there = len(paths), start + self._shift, self.table.images.paths
        held = there[at : at + n] if at >= 0 else []
        is_other = (one != other for one, other in zip(held, paths, strict=False))
        n_same = n if held == paths else next((i for i, other in enumerate(is_other) if other), len(held))
        if self._shift == 0 and self._n_in_place == start:
            self._n_in_place += n_same
        places = np.full(n, -1, np.int64)
        places[:n_same] = np.arange(at, at + n_same)
        if n_same < n and self._n_in_place < len(there):  # else all of them are behind those that were there
            places[n_same:] = self._found(paths[n_same:])
            if places[-1] >= 0:
                self._shift = int(places[-1]) - (start + n - 1)
        return places

    def _found(self, paths: Sequence[str]) -> Stamps:
        there = self.table.images.paths
        if self._hashes is None:
            hashes = np.fromiter(map(hash, there), np.int64, len(there))
            order = np.argsort(hashes, kind="stable")
            self._hashes = hashes[order], order
        hashes, order = self._hashes
        wanted = np.array([hash(path) for path in paths], np.int64)
        at = np.searchsorted(hashes, wanted, side="right") - 1  # of a path that is there twice the last line
        places = np.where((at >= 0) & (hashes[at] == wanted), order[at], -1)
        for i in np.flatnonzero(places >= 0).tolist():
            if there[int(places[i])] != paths[i]:
                places[i] = -1
        return places

    def is_unchanged(self, places: Stamps, sizes: Stamps, mtimes_ns: Stamps) -> npt.NDArray[np.bool_]:
        """Return which files are as they were when they were embedded; `places` are their lines then, or -1."""
        table, is_unchanged = self.table, places >= 0
        held = places[is_unchanged]
        is_same = as_codes(table.status).are("ok", held)
        is_same &= pack_numbers(table.sizes).take(held) == sizes[is_unchanged]
        is_same &= pack_numbers(table.mtimes_ns).take(held) == mtimes_ns[is_unchanged]
        is_same &= mtimes_ns[is_unchanged] != 0  # nothing is known of it
        is_unchanged[is_unchanged] = is_same
        return is_unchanged

    def is_block(self, number: int, places: Stamps) -> bool:
        """Whether these are the lines of block `number`, all of them."""
        start = number * BLOCK_LINES
        stop = min(start + BLOCK_LINES, len(self.table.images))
        return len(places) == stop - start and bool((places == np.arange(start, stop)).all())


def without_unsettled(table: ImageTable) -> ImageTable:
    """Forget time stamps of files modified just now (or in the future), so that they are read again next time.

    "Just now" is by the clock of this machine, and a file server has one of its own. Times in whole seconds, as file
    servers and cards of cameras have them, are forgotten for an hour: a server whose clock is late by less than that
    hides no change. Finer ones change with every write, whatever the clocks say. Stamps of a store are no times.
    """
    if table.images.store is not None:
        return table
    now_ns, held, mtimes_ns = time.time_ns(), pack_numbers(table.mtimes_ns), Numbers()
    for number in range(held.n_blocks):
        block = held.numbers(number)
        is_settled = now_ns - block > _settled_ns(block)
        if is_settled.all():
            mtimes_ns.extend_block(held, number)
        else:
            mtimes_ns.extend_array(np.where(is_settled, block, 0))
    return replace(table, mtimes_ns=mtimes_ns)


def _settled_ns(mtimes_ns: Stamps) -> Stamps:
    return np.where(mtimes_ns % 1_000_000_000 == 0, _SETTLED_COARSE_NS, SETTLED_NS)


def differ(one: ImageTable, other: ImageTable) -> bool:
    a, b = one.images, other.images
    return (a.paths, a.labels, a.splits, a.groups, a.domains) != (b.paths, b.labels, b.splits, b.groups, b.domains) or (
        one.keys,
        one.status,
        one.errors,
        pack_numbers(one.sizes),
        pack_numbers(one.mtimes_ns),
    ) != (other.keys, other.status, other.errors, pack_numbers(other.sizes), pack_numbers(other.mtimes_ns))
