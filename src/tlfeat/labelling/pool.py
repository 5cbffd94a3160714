"""The rows that a labelling works with: those of a random sample of the pictures, as extraction brings them.

They are held in memory and only added to, so that whoever has a look at them keeps it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlfeat.errors import CacheError
from tlfeat.images.image_set import ImageTable
from tlfeat.labelling.background import Extraction
from tlfeat.types import Labels, Rows

if TYPE_CHECKING:
    from tlfeat.cache.reader import Cache

#: Between two looks into the cache, and so many times as long as a look takes.
_LOOK_EVERY_S, _LOOK_SHARE = 1.0, 10


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at one moment.

    Attributes
    ----------
    numbers : int64 array of shape (n,)
        Of the pictures, each once.
    rows : float32 array of shape (n, width)
        Not to be changed.
    keys : list of str
        Content keys.
    """

    numbers: Labels
    rows: Rows
    keys: list[str]

    def __len__(self) -> int:
        return len(self.numbers)


NOTHING = Look(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), [])


@dataclass(slots=True)
class Pool:
    """Rows of the pictures that are wanted, as far as they are embedded.

    Attributes
    ----------
    paths : sequence of str
        Of all pictures, as the cache has them; a picture's number is its place.
    wanted : list of int
        Numbers of the pictures whose rows are held, in the order in which these are taken where they are there.
    failures : dict of int to str
        Why pictures have no row.
    look : Look
        What there is now; another one when more has come.
    """

    paths: Sequence[str]
    wanted: list[int]
    failures: dict[int, str] = field(default_factory=dict)
    look: Look = NOTHING
    _rows: Rows = field(default_factory=lambda: NOTHING.rows)
    _lines: tuple[int, dict[int, int]] = (0, {})
    _is_ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing that can still come."""
        return len(self.look) + len(self.failures.keys() & set(self.wanted)) >= len(self.wanted)

    def watch(self, extraction: Extraction, on_more: Callable[[], None]) -> None:
        """Look into the cache again and again until all is there or `end` is called; `on_more` is told of new rows."""
        while not self._is_ended.is_set():
            is_last, started_s = extraction.is_over, time.monotonic()
            if extraction.cache is not None and self.look_into(extraction.cache):
                on_more()
            if is_last or self.is_whole:
                return
            self._is_ended.wait(max(_LOOK_EVERY_S, _LOOK_SHARE * (time.monotonic() - started_s)))

    def end(self) -> None:
        """Watch no longer."""
        self._is_ended.set()

    @property
    def has_ended(self) -> bool:
        """Whether `end` was called."""
        return self._is_ended.is_set()

    def look_into(self, path: Path) -> bool:
        """Take what is new in a cache, also beside the one that writes it; whether there was any."""
        from tlfeat.cache.store import open_cache  # late: the first picture does not wait for HDF5

        try:
            with open_cache(path) as cache:
                return self._take(cache)
        except CacheError:
            return False  # not there yet, or no table yet

    def _take(self, cache: Cache) -> bool:
        table = cache.table
        lines = self._lines_of(table)
        known = set(self.look.numbers.tolist())
        n_failed, failed = len(self.failures), "failed"
        self.failures = {number: table.errors[i] for number, i in lines.items() if table.status[i] == failed}
        waiting = [(n, table.keys[lines[n]]) for n in self.wanted if n in lines and n not in known]
        if not cache.layers:
            return len(self.failures) > n_failed
        from tlfeat.cache.contents import choose_layers

        layer = choose_layers(cache, None)[0]
        index = cache.known(layer)
        new = [(number, key) for number, key in waiting if key and key in index and number not in self.failures]
        if new:
            self._append(new, cache.read(layer, [key for _, key in new]))
        return bool(new) or len(self.failures) > n_failed

    def _append(self, new: Sequence[tuple[int, str]], rows: Rows) -> None:
        before, end = self.look, len(self.look) + len(new)
        if self._rows.shape[1] != rows.shape[1]:
            self._rows = np.empty((len(self.wanted), rows.shape[1]), np.float32)
        self._rows[len(before) : end] = rows
        numbers = np.array([*before.numbers.tolist(), *(number for number, _ in new)], np.int64)
        self.look = Look(numbers, self._rows[:end], [*before.keys, *(key for _, key in new)])

    def _lines_of(self, table: ImageTable) -> dict[int, int]:
        """Return number to line of the table, looked for again where the table has another length."""
        n, lines = self._lines
        if n != len(table.keys):
            wanted = {self.paths[number]: number for number in self.wanted}
            lines = {wanted[path]: i for i, path in enumerate(table.images.paths) if path in wanted}
            self._lines = len(table.keys), lines
        return lines
