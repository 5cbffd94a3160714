"""Every domain as the target in turn, over several splits: the table that papers print, with its differences tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.cache.contents import choose_layers, encoder_name
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError, KnownError, ModelError
from tlfeat.evaluate.copies import Copies, find_copies
from tlfeat.evaluate.domain_split import find_domains, make_domain_split
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar
from tlfeat.evaluate.split import join_groups
from tlfeat.records import Record, distribution_version
from tlfeat.studies.adapt import BASELINE, Adaptation, adapt
from tlfeat.types import Labels, OnProgress, silent
from tlfeat.workspace import read_json, write_json

#: What a user would have got, and what nobody could have chosen.
CHOSEN, BEST = "chosen", "best in hindsight"

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Round(Record):
    """One target on one split: what is kept on disk, so that a command that was stopped goes on."""

    target: str
    seed: int
    keys: list[str]  # of the test images that count
    groups: list[int]  # images with the same number are not independent
    right: dict[str, str]  # method to "1" for each test image that it gets right, else "0"
    circular: dict[str, float]
    chosen: str
    notes: list[str]
    evenness: dict[str, float] = field(default_factory=dict)  # method to that of the classes it names

    def accuracy(self, method: str) -> float:
        """Share of the test images."""
        return self.right[method].count("1") / len(self.keys)

    @property
    def best(self) -> str:
        """The method with the highest test accuracy."""
        return max(self.right, key=self.accuracy)

    def named(self, row: str) -> str:
        """The method that a row of the table stands for in this round."""
        return {CHOSEN: self.chosen, BEST: self.best}.get(row, row)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name : str
        A method, `CHOSEN` or `BEST`.
    by_target : list of float
        Mean accuracy over splits.
    mean : float
        Of these.
    difference, difference_ci95, p_value
        To source only over all targets and splits. An image that tests in several splits is one image; p-values are
        Holm-adjusted, but for the chosen one, which no test image had a say in. None for source only and for the best
        in hindsight.
    differences, p_by_target : list of float
        To source only on each target.
    """

    name: str
    by_target: list[float]
    mean: float
    difference: float
    difference_ci95: tuple[float, float] | None
    p_value: float | None
    differences: list[float]
    p_by_target: list[float | None]

    def to_record(self, targets: Sequence[str]) -> dict[str, Any]:
        """Return one flat record for scripts."""
        return {
            "method": self.name,
            "accuracy_by_target": dict(zip(targets, self.by_target, strict=True)),
            "mean_accuracy": self.mean,
            "difference_to_none": self.difference,
            "difference_ci95": list(self.difference_ci95) if self.difference_ci95 else None,
            "p_value": self.p_value,
            "difference_by_target": dict(zip(targets, self.differences, strict=True)),
            "p_by_target": dict(zip(targets, self.p_by_target, strict=True)),
        }


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The whole table.

    Attributes
    ----------
    times_chosen : dict of method to int
        Of all rounds.
    n_reused : int
        Rounds of earlier commands.
    """

    cache: Path
    backbone: str
    layers: list[str]
    head: str
    targets: list[str]
    n_seeds: int
    rows: list[Row]
    times_chosen: dict[str, int]
    n_reused: int
    skipped: list[tuple[str, str]]
    notes: list[str]


def leave_one_out(
    cache: Cache,
    *,
    head: str = "logreg",
    layer: Sequence[str] | str | None = None,
    methods: str = "all",
    seed: int = 0,
    n_seeds: int = 5,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> LeaveOneOut:
    """Adapt to every domain from all others, on several splits of it.

    Parameters
    ----------
    cache : Cache
    head, layer, methods
        As of `adapt`.
    seed : int, default=0
        Of the first split; the others follow.
    n_seeds : int, default=5
    is_fresh : bool, default=False
        Compute again what an earlier command has computed.

    Raises
    ------
    DataError
        There are fewer than two domains, or none of them can be a target.
    """
    targets, layers = find_domains(cache.table), choose_layers(cache, layer)
    rounds: list[Round] = []
    skipped: dict[str, str] = {}
    n_reused = 0
    plan = list(product(targets, range(seed, seed + n_seeds)))
    copies: Copies | None = None
    for i, (target, draw) in enumerate(plan):
        on_progress(f"{target}: split", i, len(plan))
        try:
            split = make_domain_split(cache.table, [name for name in targets if name != target], target, seed=draw)
        except KnownError as error:
            skipped[target] = str(error)
            continue
        file = _file(cache, split.split.info.digest, head, layers, methods)
        known = None if is_fresh else _known(file)
        if known is None:
            copies = copies or find_copies(cache)
            leaks = split.leaks_among(copies)
            found = adapt(cache, split, head=head, layer=layer, methods=methods, leaks=leaks)
            skipped |= {f"{name} on {target}": why for name, why in found.skipped}
            known = round_of(found, split.split.info.seed, target)
            write_json(file, known.to_dict())
        else:
            n_reused += 1
        rounds.append(known)
    on_progress("splits", len(plan), len(plan))
    if not rounds:
        raise DataError(f"No domain can be a target. {next(iter(skipped.values()))}")
    kept = [target for target in targets if any(one.target == target for one in rounds)]
    chosen = [one.chosen for one in rounds]
    return LeaveOneOut(
        cache=cache.path,
        backbone=encoder_name(cache),
        layers=layers,
        head=head,
        targets=kept,
        n_seeds=n_seeds,
        rows=rows_of(rounds, kept),
        times_chosen={name: chosen.count(name) for name in dict.fromkeys(chosen)},
        n_reused=n_reused,
        skipped=list(skipped.items()),
        notes=list(dict.fromkeys(note for one in rounds for note in one.notes)),
    )


def round_of(found: Adaptation, seed: int, target: str) -> Round:
    """Return what is kept of an adaptation."""
    prepared = found.prepared
    if prepared is None:
        raise ModelError("Only an adaptation that was just made can be kept.")
    groups = np.arange(len(prepared.scored_keys)) if prepared.groups is None else prepared.groups
    return Round(
        target=target,
        seed=seed,
        keys=prepared.scored_keys,
        groups=groups.tolist(),
        right={line.method.name: "".join("01"[int(right)] for right in line.right) for line in found.lines},
        circular={line.method.name: line.circular for line in found.lines if line.circular is not None},
        chosen=found.lines[found.chosen].method.name,
        notes=found.notes,
        evenness={line.method.name: line.evenness for line in found.lines if line.evenness is not None},
    )


def rows_of(rounds: Sequence[Round], targets: Sequence[str]) -> list[Row]:
    """Return the lines of the table: every method that ran in all rounds, the chosen one and the best in hindsight."""
    common = [name for name in rounds[0].right if all(name in one.right for one in rounds)] if rounds else []
    rows = [_row(name, rounds, targets) for name in (*common, CHOSEN, BEST)] if rounds else []
    tested = [i for i, row in enumerate(rows) if row.p_value is not None and row.name != CHOSEN]
    adjusted = holm([rows[i].p_value or 0.0 for i in tested])
    for i, p in zip(tested, adjusted, strict=True):
        rows[i] = replace(rows[i], p_value=p)
    return rows


def _row(name: str, rounds: Sequence[Round], targets: Sequence[str]) -> Row:
    by_target, differences, p_by_target = [], [], []
    for target in targets:
        own = [one for one in rounds if one.target == target]
        by_target.append(float(np.mean([one.accuracy(one.named(name)) for one in own])))
        difference, _, p = _against_none(name, own)
        differences.append(difference)
        p_by_target.append(p)
    difference, ci95, p = _against_none(name, rounds)
    return Row(name, by_target, float(np.mean(by_target)), difference, ci95, p, differences, p_by_target)


def _against_none(name: str, rounds: Sequence[Round]) -> tuple[float, tuple[float, float] | None, float | None]:
    """Return the difference to source only, its interval and its p-value, with images of several splits as groups."""
    one = np.concatenate([_marks(each.right[each.named(name)]) for each in rounds])
    other = np.concatenate([_marks(each.right[BASELINE]) for each in rounds])
    difference = float(np.mean([each.accuracy(each.named(name)) - each.accuracy(BASELINE) for each in rounds]))
    if name in (BASELINE, BEST):
        return difference, None, None
    groups = _groups(rounds)
    true = np.ones(len(one), dtype=np.int64)
    return difference, difference_interval(true, one, other, groups), mcnemar(true, one, other, groups)


def _marks(right: str) -> Labels:
    return np.array([mark == "1" for mark in right], dtype=np.int64)


def _groups(rounds: Sequence[Round]) -> Labels:
    """Number the images, with the user's groups and over splits: what hangs together has one number."""
    keys = [key for one in rounds for key in one.keys]
    groups = [f"{i}/{group}" for i, one in enumerate(rounds) for group in one.groups]
    return np.array(join_groups(keys, groups), dtype=np.int64)


def _file(cache: Cache, split: str, head: str, layers: Sequence[str], methods: str) -> Path:
    """Return where a round is kept: what it was computed from decides the name."""
    identity = workspace.digest(
        {
            "split": split,
            "fingerprint": cache.fingerprint,
            "head": head,
            "layers": list(layers),
            "methods": methods,
            "scikit-learn": distribution_version("sklearn"),
            "version": _FORMAT_VERSION,
        }
    )
    return workspace.CACHE_DIR / "adaptations" / cache.path.stem / f"{identity}.json"


def _known(file: Path) -> Round | None:
    try:
        return Round.from_dict(read_json(file))
    except (OSError, KnownError):
        return None
