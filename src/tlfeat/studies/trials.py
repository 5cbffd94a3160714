"""Fits of a curve, each kept on disk under what it was fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.errors import DataError, Interrupted, KnownError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import draw_per_class
from tlfeat.records import Record, distribution_version
from tlfeat.types import Labels, OnProgress
from tlfeat.workspace import read_json, write_json

#: Below this many images a class Keras trains on all of them: a fold of one image says nothing about when to stop.
MIN_FOR_VALIDATION = 10

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """One candidate fitted on one draw and tested: what is kept on disk, so that nothing is fitted twice."""

    candidate: str
    count: int  # images a class that were asked for; 0 is all
    draw: int
    n_labels: int  # images that were drawn
    right: str  # "1" for each test image that it gets right, else "0"
    fit_s: float  # choosing parameters and fitting, without extraction and decoding
    chosen: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of the test images."""
        return self.right.count("1") / len(self.right)


@dataclass(frozen=True)
class Place:
    """One candidate at one number of images a class: the mean over draws, with its 95 % t-interval."""

    count: int
    n_labels: float
    trials: list[Trial]

    @property
    def accuracies(self) -> list[float]:
        """Of each draw."""
        return [trial.accuracy for trial in self.trials]

    @property
    def mean(self) -> float:
        """Over the draws."""
        return float(np.mean(self.accuracies))

    @cached_property
    def right(self) -> npt.NDArray[np.float64]:
        """1 where a draw gets a test image right, of shape (n_draws, n_test)."""
        return np.array([[mark == "1" for mark in trial.right] for trial in self.trials], dtype=np.float64)


#: Fits on the images at the given positions and tests: (positions, count, draw) to a trial without its identity.
RunTrial = Callable[[Labels, int, int], Trial]


class TrialBook:
    """Runs trials, writes each to disk when it is finished, and reads those that are there."""

    def __init__(self, data: Data, learn_at: Labels, is_fresh: bool, on_progress: OnProgress) -> None:
        self.data, self.learn_at = data, learn_at
        self.is_fresh, self.on_progress = is_fresh, on_progress
        self.lines: dict[str, list[Place]] = {}
        self.skipped: list[tuple[str, str]] = []
        self.n_reused = 0

    @contextmanager
    def kept_going(self, candidate: str) -> Iterator[None]:
        """List a candidate that cannot run with its reason; the others are not lost."""
        try:
            yield
        except Interrupted:
            raise
        except KnownError as error:
            self.skipped.append((candidate, str(error)))

    def run(self, candidate: str, counts: Sequence[int], n_draws: int, settings: dict[str, Any], run: RunTrial) -> None:
        """Bring one candidate's curve together; draw by draw, so that one that is stopped has whole curves."""
        plan = [(count, draw) for draw in range(n_draws) for count in counts if count or draw == 0]
        trials: dict[int, list[Trial]] = {count: [] for count in counts}
        failed: set[int] = set()
        for i, (count, draw) in enumerate(plan):
            self.on_progress(f"{candidate}: draws", i, len(plan))
            if count not in failed:
                failed.add(count)
                with self.kept_going(candidate if not count else f"{candidate} on {count} a class"):
                    trials[count].append(self._trial(candidate, count, draw, settings, run))
                    failed.discard(count)
        places = [
            Place(count, float(np.mean([trial.n_labels for trial in trials[count]])), trials[count])
            for count in counts
            if count not in failed
        ]
        if places:
            self.lines[candidate] = places

    def _trial(self, candidate: str, count: int, draw: int, settings: dict[str, Any], run: RunTrial) -> Trial:
        split, seed = self.data.split, self.data.seed
        at = draw_per_class(split, self.learn_at, count, seed=seed, draw=draw) if count else self.learn_at
        name = f"{candidate}-{count or 'all'}-{draw}"
        file = self._file(name, settings, at)
        known = None if self.is_fresh else _known_trial(file)
        if known is not None:
            self.n_reused += 1
            return self._scored(known)
        trial = run(at, count, draw)
        write_json(file, trial.to_dict())
        return self._scored(trial)

    def _scored(self, trial: Trial) -> Trial:
        """Leave the leaks out: on disk a trial knows every test image."""
        return replace(trial, right="".join(compress(trial.right, self.data.scored_tests(self.on_progress))))

    def _file(self, name: str, settings: dict[str, Any], at: Labels) -> Path:
        """Return where a trial is kept: what it was fitted on decides the name."""
        split = self.data.split
        learned = "\n".join(split.keys[i] for i in at)
        identity = workspace.digest(
            {
                "settings": settings,
                "fingerprint": self.data.cache.fingerprint,
                "split": split.info.identity(),
                "seed": self.data.seed,
                "learned": hashlib.sha256(learned.encode()).hexdigest(),
                "version": [_FORMAT_VERSION, distribution_version("tlfeat")],
            },
            16,
        )
        return workspace.CACHE_DIR / "curves" / self.data.stem / f"{name}-{identity}.json"


def _known_trial(file: Path) -> Trial | None:
    try:
        return Trial.from_dict(read_json(file)) if file.exists() else None
    except (DataError, TypeError, AttributeError):
        return None  # damaged: fit again
