"""What every candidate of one comparison shares: the cache, its split and its leaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlfeat import workspace
from tlfeat.cache.store import Cache, open_cache
from tlfeat.evaluate.split import TEST_FRACTION, Split, make_split


@dataclass(frozen=True, slots=True)
class Data:
    """What every candidate of one comparison shares: the cache and the one split."""

    cache: Cache
    split: Split
    seed: int

    @property
    def stem(self) -> str:
        """Models and reports lie under this name."""
        return self.cache.stem


@contextmanager
def open_data(cache_path: Path | None, *, seed: int, test_fraction: float = TEST_FRACTION) -> Iterator[Data]:
    """Open a cache (the newest one for None) and make its split."""
    with open_cache(cache_path or workspace.newest_cache()) as cache:
        yield Data(cache, make_split(cache.table, seed=seed, test_fraction=test_fraction), seed)
