"""The rows of an adaptation, read from a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlfeat.adapt.methods import Adapted, Method, probabilities_of
from tlfeat.adapt.task import Task
from tlfeat.cache.contents import StoredRows, read_rows
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError
from tlfeat.evaluate.domain_split import DomainSplit
from tlfeat.evaluate.leaks import LeakedImages, scored_tests
from tlfeat.heads.blocks import blocks_of
from tlfeat.heads.table import Head
from tlfeat.memory import available_memory
from tlfeat.types import Bools, Labels, Probabilities, RowSource


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows of one adaptation.

    Attributes
    ----------
    task : Task
    test : RowSource of shape (n_test, width)
    true : int array of shape (n_test,)
    is_scored : bool array of shape (n_test,)
    groups : int array of shape (n_scored,) or None
    adapt_at : int array of shape (n_adapt,)
        Position in `DomainSplit.adapt` of each row of ``task.target``.
    scored_keys : list of str
        Content keys of the test images that count.
    test_domains : array of str, shape (n_test,)
    """

    task: Task
    test: RowSource
    true: Labels
    is_scored: Bools
    groups: Labels | None
    adapt_at: Labels
    scored_keys: list[str]
    test_domains: npt.NDArray[np.str_]

    def answers(self, adapted: Adapted) -> Probabilities:
        """Return the probabilities of the test images, each from its own domain, of shape (n_test, n_classes)."""
        if (self.test_domains == self.task.target_name).all():
            return probabilities_of(adapted.head, self.test, self.task.classes)
        return adapted.probabilities(self.task, self.test, self.test_domains)

    def right(self, probabilities: Probabilities) -> Bools:
        """Which of the test images that count are right."""
        return np.asarray((probabilities.argmax(axis=1) == self.true)[self.is_scored])


def prepare(cache: Cache, found: DomainSplit, layers: Sequence[str], leaks: LeakedImages) -> Prepared:
    """Read the rows of an adaptation, into memory where they fit, else in the order of the file."""
    split, known = found.split, cache.known(layers[0])

    def in_file_order(keys: Sequence[str], at: Labels) -> Labels:
        return np.array(sorted(at.tolist(), key=lambda i: known.get(keys[i], 0)), dtype=np.int64)

    source_at = in_file_order(split.keys, split.where("train"))
    test_at = split.where("test")
    adapt_at = in_file_order(found.adapt.keys, np.arange(len(found.adapt.keys)))
    parts = [[split.keys[i] for i in source_at], [found.adapt.keys[i] for i in adapt_at]]
    source, target = (_rows(cache, layers, keys) for keys in parts)
    test = _rows(cache, layers, [split.keys[i] for i in test_at])
    is_scored = scored_tests(leaks, split)
    task = task_of(found, source_at, source, target)
    keys = [split.keys[i] for i in test_at[is_scored]]
    domains = np.array([split.domains[i] for i in test_at])
    return Prepared(task, test, split.labels[test_at], is_scored, split.test_groups(is_scored), adapt_at, keys, domains)


def task_of(found: DomainSplit, source_at: Labels, source: RowSource, target: RowSource) -> Task:
    """Return the task of these rows; `source_at` are the positions of the sources' in the split."""
    split = found.split
    return Task(
        source=source,
        labels=split.labels[source_at],
        domains=np.array([split.domains[i] for i in source_at]),
        target=target,
        target_name=found.target,
        classes=split.classes,
        groups=split.groups[source_at],
        seed=split.info.seed,
        is_signed=any(_lowest(rows) < 0 for rows in (source, target)),
    )


def _rows(cache: Cache, layers: Sequence[str], keys: list[str]) -> RowSource:
    stored = StoredRows(cache, list(layers), keys)
    return read_rows(cache, layers, keys) if np.prod(stored.shape) * 4 * 3 < available_memory() else stored


def _lowest(rows: RowSource) -> float:
    lowest = min((float(rows[block].min()) for block in blocks_of(rows.shape[0])), default=0.0)
    if not np.isfinite(lowest):
        raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
    return lowest


def check_room(method: Method, task: Task, head: Head) -> None:
    """Raise `DataError` where a method has to hold all rows in memory and they do not fit."""
    n, width = task.source.shape[0] + task.target.shape[0], task.source.shape[1]
    needed, free = int(n * width * 4 * (3 + head.n_copies)), available_memory()
    if method.quota and needed > free:
        raise DataError(
            f"self-training holds all rows in memory: about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB free"
        )
