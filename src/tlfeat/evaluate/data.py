"""What every candidate of one comparison shares: the cache, its split and its leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.leaks import LeakedImages, find_leaks, renamed, scored_tests
from tlfeat.evaluate.split import TEST_FRACTION, Split, make_split
from tlfeat.types import OnProgress, StrPath, silent


@dataclass(slots=True)
class Data:
    """An open cache and its one split; the leaks are looked for when they are first asked for, and kept.

    With `leaks_of` they are those of another cache of the same images and split, so that the same test images count.
    """

    cache: Cache
    split: Split
    seed: int
    leaks_of: Data | None = None
    _leaks: LeakedImages | None = field(default=None, init=False, repr=False)

    @property
    def stem(self) -> str:
        """Models and reports lie under this name."""
        return self.cache.stem

    def leaks(self, on_progress: OnProgress = silent) -> LeakedImages:
        """Return the test images that show a picture of the training or validation images."""
        if self._leaks is None:
            other = self.leaks_of
            if other is None:
                self._leaks = find_leaks(self.cache, self.split, on_progress=on_progress)
            else:
                self._leaks = renamed(other.leaks(on_progress), other.split.paths, self.split.paths)
        return self._leaks

    def scored_tests(self, on_progress: OnProgress = silent) -> npt.NDArray[np.bool_]:
        """Return which test images count, of shape (n_test,); see ``leaks.scored_tests``."""
        return scored_tests(self.leaks(on_progress), self.split)


@contextmanager
def open_data(
    cache_path: StrPath | None,
    *,
    seed: int,
    test_fraction: float = TEST_FRACTION,
    test_split: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Data]:
    """Open a cache (the newest one for None) and make its split; see `make_split`.

    `say` is called with what the user should know of how it was opened.
    """
    with open_cache(workspace.newest_cache() if cache_path is None else cache_path) as cache:
        for note in cache.notes:
            say(note)
        split = make_split(cache.table, seed=seed, test_fraction=test_fraction, test_split=test_split)
        yield Data(cache, split, seed)
