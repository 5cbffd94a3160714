"""Another camera, another hospital: heads of the sources brought to a target without its labels, side by side.

The method that a user would act on is chosen by circular validation, which sees no label of the target. Test images of
the target give scores and choose nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.adapt.circular import circular_accuracy
from tlfeat.adapt.methods import Adapted, Fitter, Method, find_methods
from tlfeat.adapt.task import Task
from tlfeat.cache.contents import StoredRows, choose_layers, encoder_name, read_rows
from tlfeat.cache.store import Cache
from tlfeat.errors import DataError
from tlfeat.evaluate.domain_split import DomainSplit
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar, proportion_interval
from tlfeat.evaluate.leaks import LeakedImages, scored_tests
from tlfeat.heads.blocks import blocks_of
from tlfeat.heads.fit import predict_probabilities
from tlfeat.heads.table import Head, find_head
from tlfeat.memory import available_memory
from tlfeat.records import SplitInfo
from tlfeat.types import Bools, Labels, OnProgress, Probabilities, RowSource, silent

#: What is not adapted, and what all others are compared with.
BASELINE = "none"

#: Methods are told apart below this, after Holm's correction.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Line:
    """One method.

    Attributes
    ----------
    method : Method
    right : bool array of shape (n_scored,)
        Of the test images that count.
    accuracy, ci95
    difference, difference_ci95, p_value
        To source only, on the same test images; the p-value is McNemar's mid-p (sign flips of whole groups, where there
        are groups), Holm-adjusted for the number of methods; 1 for source only.
    circular : float
        Accuracy there and back, 0 to 1: what the choice was made by.
    spent_s : float
        Wall seconds of fit and circular validation.
    """

    method: Method
    right: Bools
    accuracy: float
    ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]
    p_value: float
    circular: float
    spent_s: float

    def to_record(self) -> dict[str, Any]:
        """Return one flat record for scripts."""
        return {
            "method": self.method.name,
            "accuracy": self.accuracy,
            "ci95": list(self.ci95),
            "difference_to_none": self.difference,
            "difference_ci95": list(self.difference_ci95),
            "p_value": self.p_value,
            "circular_accuracy": self.circular,
            "spent_s": self.spent_s,
        }


@dataclass(frozen=True, slots=True)
class Adaptation:
    """All methods on one split of the target.

    Attributes
    ----------
    chosen, best : int
        The line chosen without labels of the target, and the one that turned out best on the test images.
    priors : dict of class to share, or empty
        The target's estimated mix of classes, where that was estimated.
    adapted : Adapted
        The chosen method, fitted.
    """

    cache: Path
    backbone: str
    layer: str
    head: str
    sources: list[str]
    target: str
    classes: list[str]
    split: SplitInfo
    n_source: int
    n_adapt: int
    n_test: int
    lines: list[Line]
    chosen: int
    best: int
    skipped: list[tuple[str, str]]
    notes: list[str]
    priors: dict[str, float] = field(default_factory=dict)
    leaks: LeakedImages | None = None
    adapted: Adapted | None = None

    @property
    def helped(self) -> str:
        """What became of the chosen method on the test images: "yes", "no", or "within noise"."""
        line = self.lines[self.chosen]
        if line.p_value >= SIGNIFICANCE:
            return "within noise"
        return "yes" if line.difference > 0 else "no"


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
    """

    task: Task
    test: RowSource
    true: Labels
    is_scored: Bools
    groups: Labels | None
    adapt_at: Labels

    def right(self, probabilities: Probabilities) -> Bools:
        """Which of the test images that count are right."""
        return np.asarray((probabilities.argmax(axis=1) == self.true)[self.is_scored])


def adapt(
    cache: Cache,
    found: DomainSplit,
    *,
    head: str = "logreg",
    layer: Sequence[str] | str | None = None,
    methods: str = "all",
    leaks: LeakedImages | None = None,
    on_progress: OnProgress = silent,
) -> Adaptation:
    """Fit every method, choose one by circular validation, and test all once.

    Parameters
    ----------
    cache : Cache
    found : DomainSplit
    head : str, default="logreg"
        A name of ``heads.table``.
    layer : str or sequence of str, optional
        `avg_pool` by default, or the only layer.
    methods : str, default="all"
        Comma-separated names of ``adapt.methods.METHODS``.
    leaks : LeakedImages, optional
        Where they are known already.
    """
    asked, entry = find_methods(methods), find_head(head)
    layers = choose_layers(cache, layer)
    leaks = found.leaks(cache, on_progress=on_progress) if leaks is None else leaks
    prepared = prepare(cache, found, layers, leaks)
    fitter = Fitter(prepared.task, entry)
    skipped: list[tuple[str, str]] = []
    tried: list[tuple[Method, Bools, float, float]] = []
    fitted: dict[str, Adapted] = {}
    for i, method in enumerate(asked):
        on_progress("adapting", i, len(asked))
        started_s = time.perf_counter()
        try:
            check_room(method, prepared.task, entry)
            adapted = fitter.fit(method)
            score = circular_accuracy(fitter, adapted)
        except DataError as error:
            if method.name == BASELINE:
                raise
            skipped.append((method.name, str(error)))
            continue
        spent_s = time.perf_counter() - started_s
        right = prepared.right(probabilities_of(adapted.head, prepared.test, found.split.classes))
        tried.append((method, right, score, spent_s))
        fitted[method.name] = adapted
    on_progress("adapting", len(asked), len(asked))
    lines = _lines(tried, prepared)
    chosen = int(np.argmax([line.circular for line in lines]))
    priors = next((one.priors for one in fitted.values() if one.priors is not None), None)
    return Adaptation(
        cache=cache.path,
        backbone=encoder_name(cache),
        layer="+".join(layers),
        head=head,
        sources=found.sources,
        target=found.target,
        classes=found.split.classes,
        split=found.split.info,
        n_source=len(prepared.task.labels),
        n_adapt=len(found.adapt.keys),
        n_test=int(prepared.is_scored.sum()),
        lines=lines,
        chosen=chosen,
        best=int(np.argmax([line.accuracy for line in lines])),
        skipped=skipped,
        notes=[*found.split.notes, *leaks.notes],
        priors={} if priors is None else dict(zip(found.split.classes, priors.tolist(), strict=True)),
        leaks=leaks,
        adapted=fitted[lines[chosen].method.name],
    )


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
    task = Task(
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
    return Prepared(task, test, split.labels[test_at], is_scored, split.test_groups(is_scored), adapt_at)


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


def probabilities_of(head: Any, rows: RowSource, classes: Sequence[str]) -> Probabilities:
    """Return probabilities of all classes, of shape (n_images, n_classes); 0 for those that the head does not know."""
    found = np.zeros((rows.shape[0], len(classes)))
    found[:, [classes.index(str(name)) for name in head.classes_]] = predict_probabilities(head, rows)
    return found


def _lines(tried: Sequence[tuple[Method, Bools, float, float]], prepared: Prepared) -> list[Line]:
    before, groups = tried[0][1], prepared.groups
    true = np.ones(len(before), dtype=np.int64)
    lines = []
    for method, right, circular, spent_s in tried:
        sides = true, right.astype(np.int64), before.astype(np.int64), groups
        is_baseline = method.name == BASELINE
        lines.append(
            Line(
                method=method,
                right=right,
                accuracy=float(right.mean()),
                ci95=proportion_interval(right, groups),
                difference=float(right.mean() - before.mean()),
                difference_ci95=(0.0, 0.0) if is_baseline else difference_interval(*sides),
                p_value=1.0 if is_baseline else mcnemar(*sides),
                circular=circular,
                spent_s=spent_s,
            )
        )
    others = [i for i, line in enumerate(lines) if line.method.name != BASELINE]
    for i, p in zip(others, holm([lines[i].p_value for i in others]), strict=True):
        lines[i] = replace(lines[i], p_value=p)
    return lines
