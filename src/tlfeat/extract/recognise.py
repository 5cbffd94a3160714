"""Files that have not changed since the last run are recognised, and their content is not read again."""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import replace

from tlfeat.images.image_set import ImageSet, ImageTable

#: A file modified this shortly before it was recorded may change again within its time stamp's granularity.
_SETTLED_NS = 2_000_000_000


def recognise(images: ImageSet, previous: ImageTable | None) -> ImageTable:
    """Return the path table before anything is read: known keys where size and time stamp are unchanged.

    Images that failed are looked at again (the cause may be gone); so are all others that differ.
    """
    seen: dict[str, int] = {}
    if previous is not None and previous.images.root == images.root:
        seen = {path: i for i, path in enumerate(previous.images.paths)}
    n = len(images)
    keys, status = [""] * n, ["pending"] * n
    sizes, mtimes_ns = array("q", bytes(8 * n)), array("q", bytes(8 * n))
    root = str(images.root)  # strings, not Paths: this is done for every image of an unchanged set
    if images.contents:  # lines of a table are read each time: a line number is no name of a text
        sizes = array("q", (len(text.encode("utf-8", "surrogateescape")) for text in images.contents))
        return ImageTable(images, keys, status, [""] * n, sizes, mtimes_ns)
    for i, path in enumerate(images.paths):
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
    """Forget time stamps of files modified just now (or in the future), so that they are read again next time."""
    now_ns = time.time_ns()
    mtimes_ns = array("q", (t if now_ns - t > _SETTLED_NS else 0 for t in table.mtimes_ns))
    return replace(table, mtimes_ns=mtimes_ns)


def differ(one: ImageTable, other: ImageTable) -> bool:
    a, b = one.images, other.images
    return (a.paths, a.labels, a.splits, a.groups, a.domains) != (b.paths, b.labels, b.splits, b.groups, b.domains) or (
        one.keys,
        one.status,
        one.errors,
        array("q", one.sizes),
        array("q", one.mtimes_ns),
    ) != (other.keys, other.status, other.errors, array("q", other.sizes), array("q", other.mtimes_ns))
