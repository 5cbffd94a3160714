"""Which images of a cache show one picture: found once for all of its images, and kept under ``cache/copies/``.

Whatever asks (a fit, a comparison, a model card, an audit; any split and seed) gets its answer from the same pairs.

A *group of copies* is a connected set of images: each shows the picture of another one, by equal bytes, equal pixels
or a small change. Two members need not be alike directly: a crop at the left and one at the right are both copies of
the whole. Chains are not cut, because a set whose leaks are taken out has to have no pair left with an image on each
side. Against chains of look-alikes stands the threshold that every step has to pass (`duplicates.SAME_PICTURE`), and
what is said of a leak is the way with the fewest steps (`Copies.nearest`).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tlfeat import workspace
from tlfeat.cache.contents import Origin, holds_texts, origin, picture_files, read_texts
from tlfeat.cache.reader import Cache
from tlfeat.documents import misfit
from tlfeat.errors import DataError
from tlfeat.evaluate.projections import N_COLUMNS, projected_rows
from tlfeat.images.duplicates import Pair, connected, find_duplicates
from tlfeat.memory import available_memory
from tlfeat.texts.near_copies import find_text_copies
from tlfeat.types import OnProgress, silent

#: Kinds of pairs that are the same but for the file: of images, and of texts.
EXACT = frozenset({"bytes", "pixels", "words"})

#: Of the files under ``cache/copies/``, and of the way pairs are found: others are not read.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Way:
    """How an image is a copy of another one.

    Attributes
    ----------
    to : str
        Content key of the other.
    kind : str
        As in `duplicates.Pair`: "bytes", "pixels" and "words" where it is exactly the same, over however many files.
    similarity : float
        The lowest of the steps.
    n_steps : int
        Changes on the way: 0 is exact, 1 is direct.
    """

    to: str
    kind: str
    similarity: float
    n_steps: int


@dataclass(frozen=True, slots=True)
class Copies:
    """The pictures that a cache holds more than once.

    Attributes
    ----------
    keys : list of str
        Content keys of all images, each once, sorted. Images of one key have the same bytes.
    pairs : list of Pair
        Between positions in `keys`.
    notes : list of str
        What was not looked for.
    """

    keys: list[str]
    pairs: list[Pair]
    notes: list[str]

    def groups(self) -> dict[str, int]:
        """Return the number of the group of each key; equal numbers are copies."""
        numbers = connected(len(self.keys), ((pair.one, pair.other) for pair in self.pairs))
        return dict(zip(self.keys, numbers, strict=True))

    def nearest(self, sources: Mapping[str, int]) -> dict[str, Way]:
        """Return for each key that is a copy of a source the nearest source, in as few changes as possible.

        Parameters
        ----------
        sources : mapping of str to int
            Content keys and their order: of sources that are as near, the lower one is taken.

        Returns
        -------
        dict
            The way of each key that hangs together with a source, of the sources themselves the way to themselves.
        """
        beside: dict[str, list[tuple[str, Pair]]] = defaultdict(list)
        for pair in self.pairs:
            one, other = self.keys[pair.one], self.keys[pair.other]
            beside[one].append((other, pair))
            beside[other].append((one, pair))
        # Dijkstra; more similar is shorter among ways with as many changes
        waiting = [(0, -1.0, order, key, key, "bytes") for key, order in sources.items()]
        heapq.heapify(waiting)
        found: dict[str, Way] = {}
        while waiting:
            n_steps, negative, order, key, source, kind = heapq.heappop(waiting)
            if key in found:
                continue
            found[key] = Way(source, kind, -negative, n_steps)
            for other, pair in beside.get(key, ()):
                is_exact = pair.kind in EXACT
                reached = kind if is_exact and n_steps else pair.kind
                heapq.heappush(
                    waiting,
                    (n_steps + (not is_exact), max(negative, -pair.similarity), order, other, source, reached),
                )
        return found


def layer_for_duplicates(cache: Cache) -> str:
    """Return the layer whose rows are compared: `avg_pool`, or the first by name."""
    return "avg_pool" if "avg_pool" in cache.layers else next(iter(cache.layers))


def find_copies(cache: Cache, *, on_progress: OnProgress = silent) -> Copies:
    """Find the copies among all images of a cache that have a row, or read what an earlier command found.

    What was found for the same images, encoder and layer is kept, unless a picture could not be read; a file that is
    damaged is made again.
    """
    table = cache.table
    path_of: dict[str, str] = {}
    for key, path, status in zip(table.keys, table.images.paths, table.status, strict=True):
        if status == "ok":
            path_of[key] = min(path, path_of.get(key, path))
    keys = sorted(path_of)
    layer = layer_for_duplicates(cache)
    n_columns = _columns_in_memory(len(keys), cache.layers[layer][1])
    asked = {"version": _VERSION, "keys": keys, "layer": layer, "fingerprint": cache.fingerprint}
    if n_columns != cache.layers[layer][1]:
        asked["n_columns"] = n_columns
    file = workspace.COPIES_DIR / f"{cache.stem}-{workspace.digest(asked, 16)}.json"
    kept = _read(file, keys)
    if kept is not None:
        return kept
    is_of_texts = holds_texts(cache)
    files = picture_files(cache, [path_of[key] for key in keys])
    rows, notes = None, []
    if n_columns == cache.layers[layer][1]:
        rows = cache.read(layer, keys)
    elif n_columns:
        rows = projected_rows(cache, layer, keys, on_progress=on_progress)
        notes.append(
            f"the rows are larger than memory: changed copies were looked for by {n_columns} random projections of them"
        )
    if is_of_texts:
        found = find_text_copies(rows, keys, read_texts(cache, keys))
    else:
        found = find_duplicates(rows, keys, files, on_progress=on_progress)
    copies = Copies(keys, found.pairs, [*notes, *found.notes])
    if (
        rows is not None
        and found.n_unread == 0
        and (files is not None or is_of_texts or origin(cache) is Origin.IMPORTED)
    ):
        with suppress(OSError):  # a folder that cannot be written to: it is found again next time
            _write(file, copies)
    return copies


def _columns_in_memory(n: int, width: int) -> int:
    """Return how many columns of `n` rows there is room for, the rows and a copy: all, N_COLUMNS of them, or none."""
    available = available_memory()
    return next((columns for columns in (width, N_COLUMNS) if columns <= width and 8 * n * columns < available), 0)


class _Kept(TypedDict):
    pairs: list[tuple[int, int, str, float]]
    notes: list[str]


def _write(file: Path, copies: Copies) -> None:
    content = {
        "pairs": [[pair.one, pair.other, pair.kind, pair.similarity] for pair in copies.pairs],
        "notes": copies.notes,
    }
    workspace.write_json(file, {**content, "digest": workspace.digest(content, 16)})


def _read(file: Path, keys: list[str]) -> Copies | None:
    """Return what the file holds, None where it is not there or not as it was written."""
    try:
        content: Any = workspace.read_json(file)
        if content.pop("digest") != workspace.digest(content, 16) or misfit(content, _Kept, "copies"):
            return None
        if not all(0 <= one < other < len(keys) for one, other, *_ in content["pairs"]):
            return None
        return Copies(keys, [Pair(*pair) for pair in content["pairs"]], content["notes"])
    except (OSError, DataError, AttributeError, KeyError, TypeError):
        return None
