"""What is wrong with a cache, in words: every row read and its checksum computed again, and images without rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tlfeat.cache.checks import foreign_names
from tlfeat.cache.row_table import CHUNK_KEYS, RowTable
from tlfeat.columns import as_codes, pack_keys
from tlfeat.errors import CacheDamaged
from tlfeat.images.image_set import ImageTable
from tlfeat.text import counted

#: Ranges of rows named in one sentence.
_MAX_RANGES = 20


def find_bad_rows(table: RowTable) -> dict[str, list[int]]:
    """Read every row of a layer; return the reasons why rows are bad, each with their numbers in order."""
    found: dict[str, list[int]] = {}
    known, seen = table.known, set[bytes]()  # of rows that are sound, the keys that are there again further on
    step = table.chunk_rows
    for start in range(0, table.n_rows, CHUNK_KEYS):
        stop = min(start + CHUNK_KEYS, table.n_rows)
        keys, checksums = table.keys_and_checksums(start, stop)
        is_again = known.rows_of(keys) != np.arange(start, stop)
        for low in range(start - start % step, stop, step):
            numbers = range(max(low, start), min(low + step, stop))
            try:
                rows = table.stored(numbers.start, numbers.stop)
            except CacheDamaged:
                found.setdefault("cannot be read", []).extend(numbers)
                continue
            is_finite = np.asarray(np.isfinite(rows).all(axis=1))
            for number, row in zip(numbers, rows, strict=True):
                key = keys[number - start]
                if table.checksum(row, key) != checksums[number - start]:
                    found.setdefault("the checksum does not fit", []).append(number)
                elif not is_finite[number - numbers.start]:
                    found.setdefault("not all values are finite", []).append(number)
                elif key.tobytes() in seen:
                    found.setdefault("the same key stands there before", []).append(number)
                elif is_again[number - start]:
                    seen.add(key.tobytes())
    return found


def row_problems(table: RowTable) -> tuple[list[int], list[str]]:
    """Return the numbers of the bad rows of a layer, in order, and what is wrong, one sentence each."""
    found = find_bad_rows(table)
    sentences = describe_bad_rows(table.layer, found)
    if table.n_beyond:
        sentences.append(f"layer '{table.layer}': {counted(table.n_beyond, 'row')} beyond the number that is recorded")
    return sorted({number for numbers in found.values() for number in numbers}), sentences


def describe_bad_rows(layer: str, found: Mapping[str, Sequence[int]]) -> list[str]:
    """Return one sentence for each reason, with the rows that it concerns."""
    return [f"layer '{layer}', {_ranges(numbers)}: {reason}" for reason, numbers in found.items()]


def strangers(file: h5py.File) -> list[str]:
    """Return one sentence for each object and attribute that tlfeat has not written."""
    return [f"{name} is nothing that tlfeat has written" for name in foreign_names(file)]


def missing_rows(images: ImageTable, tables: Sequence[RowTable]) -> list[str]:
    """Return one sentence for each layer that lacks rows of images, and one for images that were not reached."""
    problems = []
    packed = images.packed()
    keys, status = pack_keys(packed.keys), as_codes(packed.status)
    for table in tables:
        known, each = table.known, range(status.n_blocks)
        n_missing = sum(int((status.is_text(i, "ok") & ~known.has_block(keys, i)).sum()) for i in each)
        if n_missing:
            problems.append(f"layer '{table.layer}': {n_missing} images have no row; run tlfeat extract again")
    if n_pending := images.count("pending"):
        problems.append(f"{n_pending} images are not embedded yet; run tlfeat extract again")
    return problems


def _ranges(numbers: Sequence[int]) -> str:
    """Return "row 7" or "rows 7, 64 to 127 (65 rows)"."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    ends = [i for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1]
    starts = [0, *(i + 1 for i in ends)]
    parts = [(numbers[a], numbers[b]) for a, b in zip(starts, [*ends, len(numbers) - 1], strict=True)]
    said = [str(a) if a == b else f"{a} to {b}" for a, b in parts[:_MAX_RANGES]]
    more = ", ..." if len(parts) > _MAX_RANGES else ""
    return f"rows {', '.join(said)}{more} ({len(numbers):,} rows)"


def encoder_difference(path: Path, held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return in words how the fingerprint that a cache has differs from the one that is asked for."""
    differing = [
        f"{name}: the cache has {held.get(name)!r}, asked was {asked.get(name)!r}"
        for name in sorted({*held, *asked})
        if held.get(name) != asked.get(name)
    ]
    return (
        f"{path} holds rows of another encoder ({held.get('backbone')}, not {asked.get('backbone')}). "
        f"Differing: {'; '.join(differing)}. Name another --cache, or leave it out and one is chosen."
    )


def differing_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in words how two fingerprints differ, the values of each in the order given."""
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return "; ".join(f"{name}: {one.get(name)!r} and {other.get(name)!r}" for name in names)
