"""Files that have not changed since the last run are recognised, and their content is not read again."""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import replace

from tlfeat.images.image_set import ImageSet, ImageTable

#: A file modified this shortly before it was recorded may change again within its time stamp's granularity.
_SETTLED_NS = 2_000_000_000

#: The same where it is in whole seconds: clocks of two machines may differ by so much.
_SETTLED_COARSE_NS = 3600 * 1_000_000_000


def recognise(images: ImageSet, previous: ImageTable | None) -> ImageTable:
    """Return the path table before anything is read: known keys where size and time stamp are unchanged.

    Images of a store have its stamps (`Store.stamps`) in place of times.

    Images that failed are looked at again (the cause may be gone); so are all others that differ.
    """
    seen: dict[str, int] = {}
    if previous is not None and previous.images.place == images.place:
        seen = {path: i for i, path in enumerate(previous.images.paths)}
    n = len(images)
    keys, status = [""] * n, ["pending"] * n
    sizes, mtimes_ns = array("q", bytes(8 * n)), array("q", bytes(8 * n))
    root = str(images.root)  # strings, not Paths: this is done for every image of an unchanged set
    if images.contents:  # lines of a table are read each time: a line number is no name of a text
        sizes = array("q", (len(text.encode("utf-8", "surrogateescape")) for text in images.contents))
        return ImageTable(images, keys, status, [""] * n, sizes, mtimes_ns)
    stamps = None if images.store is None else images.store.stamps(images.paths)
    for i, path in enumerate(images.paths):
        if stamps is not None:
            sizes[i], mtimes_ns[i] = stamps[i]
            if not mtimes_ns[i]:
                continue  # nothing is known of it: it is read
        else:
            try:
                found = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118
            except (OSError, ValueError):
                continue  # decoding says why
            sizes[i], mtimes_ns[i] = found.st_size, found.st_mtime_ns
        at = seen.get(path)
        if previous is None or at is None or previous.status[at] != "ok":
            continue
        if (previous.sizes[at], previous.mtimes_ns[at]) == (sizes[i], mtimes_ns[i]):
            keys[i], status[i] = previous.keys[at], "ok"
    return ImageTable(images, keys, status, [""] * n, sizes, mtimes_ns)


def without_unsettled(table: ImageTable) -> ImageTable:
    """Forget time stamps of files modified just now (or in the future), so that they are read again next time.

    "Just now" is by the clock of this machine, and a file server has one of its own. Times in whole seconds, as file
    servers and cards of cameras have them, are forgotten for an hour: a server whose clock is late by less than that
    hides no change. Finer ones change with every write, whatever the clocks say. Stamps of a store are no times.
    """
    if table.images.store is not None:
        return table
    now_ns = time.time_ns()
    mtimes_ns = array("q", (t if now_ns - t > _settled_ns(t) else 0 for t in table.mtimes_ns))
    return replace(table, mtimes_ns=mtimes_ns)


def _settled_ns(mtime_ns: int) -> int:
    return _SETTLED_NS if mtime_ns % 1_000_000_000 else _SETTLED_COARSE_NS


def differ(one: ImageTable, other: ImageTable) -> bool:
    a, b = one.images, other.images
    return (a.paths, a.labels, a.splits, a.groups, a.domains) != (b.paths, b.labels, b.splits, b.groups, b.domains) or (
        one.keys,
        one.status,
        one.errors,
        array("q", one.sizes),
        array("q", one.mtimes_ns),
    ) != (other.keys, other.status, other.errors, array("q", other.sizes), array("q", other.mtimes_ns))
