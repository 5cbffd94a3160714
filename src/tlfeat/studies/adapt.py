"""Another camera, another hospital: heads of the sources brought to a target without its labels, side by side.

The method that a user would act on is chosen by circular validation, which sees no label of the target. Test images of
the target give scores and choose nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.adapt.circular import circular_accuracy
from tlfeat.adapt.methods import EVEN, METHODS, Adapted, Fitter, Method, evenness, find_methods
from tlfeat.cache.contents import choose_layers, encoder_name
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.domain_split import DomainSplit
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar, proportion_interval
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.heads.table import find_head
from tlfeat.models.adapted_rows import Prepared, check_room, prepare
from tlfeat.models.fit_adapted import save_adapted
from tlfeat.records import Result, SplitInfo
from tlfeat.studies.adapt_keras import Networks, Tried, try_networks
from tlfeat.studies.adapt_labels import N_DRAWS, Labelled, label_some
from tlfeat.types import Bools, OnProgress, silent

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
    p_alone : float
        Not adjusted: for the chosen method, which no test image had a say in.
    circular : float or None
        Accuracy there and back, 0 to 1: what the choice was made by. None of a network that was trained.
    spent_s : float
        Wall seconds of fit and circular validation; of networks with what they embedded.
    evenness : float, optional
        Of the mix of classes that the method names among the images that are adapted to.
    """

    method: Method
    right: Bools
    accuracy: float
    ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]
    p_value: float
    p_alone: float
    circular: float | None
    spent_s: float
    evenness: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return one flat record for scripts."""
        return {
            "method": self.method.name,
            "accuracy": self.accuracy,
            "ci95": list(self.ci95),
            "difference_to_none": self.difference,
            "difference_ci95": list(self.difference_ci95),
            "p_value": self.p_value,
            "p_value_alone": self.p_alone,
            "circular_accuracy": self.circular,
            "spent_s": self.spent_s,
            "evenness_of_names": self.evenness,
        }


@dataclass(frozen=True, slots=True)
class Adaptation:
    """All methods on one split of the target.

    Attributes
    ----------
    chosen, best : int
        The line chosen without labels of the target, and the one that turned out best on the test images of those that
        took none.
    priors : dict of class to share, or empty
        The target's estimated mix of classes, where that was estimated.
    adapted : Adapted
        The chosen method, fitted.
    prepared : Prepared
        The rows that it takes.
    rows : Path, optional
        The cache of these rows of the target, where they come from another network.
    labelled : list of Labelled
        What some labels of the target would bring.
    is_tested_on_target : bool
        See `DomainSplit`.
    """

    cache: Path
    backbone: str
    layers: list[str]
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
    prepared: Prepared | None = None
    labelled: list[Labelled] = field(default_factory=list)
    is_tested_on_target: bool = True
    rows: Path | None = None

    @property
    def helped(self) -> str:
        """What became of the chosen method on the test images: "yes", "no", "within noise" or "not known"."""
        if not self.is_tested_on_target:
            return "not known"
        line = self.lines[self.chosen]
        if line.p_alone >= SIGNIFICANCE:
            return "within noise"
        return "yes" if line.difference > 0 else "no"


def adapt(
    cache: Cache,
    found: DomainSplit,
    *,
    head: str = "logreg",
    layer: Sequence[str] | str | None = None,
    methods: str = "all",
    networks: Networks | None = None,
    leaks: LeakedImages | None = None,
    labels: Sequence[int] = (),
    n_draws: int = N_DRAWS,
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
    networks : Networks, optional
        Networks beside them.
    leaks : LeakedImages, optional
        Where they are known already.
    labels : sequence of int, optional
        Images a class of the target that are labelled after all, to compare with.
    n_draws : int, default=5
        Of each such number.
    """
    asked, entry = find_methods(methods), find_head(head)
    layers = choose_layers(cache, layer)
    leaks = found.leaks(cache, on_progress=on_progress) if leaks is None else leaks
    prepared = prepare(cache, found, layers, leaks)
    fitter = Fitter(prepared.task, entry)
    skipped: list[tuple[str, str]] = []
    tried: list[Tried] = []
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
        right = prepared.right(prepared.answers(adapted))
        tried.append(Tried(method, right, score, spent_s, adapted, prepared))
    on_progress("adapting", len(asked), len(asked))
    if networks is not None and not found.is_tested_on_target:
        skipped.append(("--keras", "no image of the target has a label to test on"))
    elif networks is not None:
        more, not_run = try_networks(
            networks, cache, found, prepared, head=head, layers=layers, on_progress=on_progress
        )
        tried, skipped = [*tried, *more], [*skipped, *not_run]
    lines = _lines(tried, prepared)
    chosen = _chosen(lines)
    priors = next((one.adapted.priors for one in tried if one.adapted and one.adapted.priors is not None), None)
    return Adaptation(
        cache=cache.path,
        backbone=encoder_name(cache),
        layers=layers,
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
        best=int(np.argmax([-1.0 if line.method.n_labelled else line.accuracy for line in lines])),
        skipped=skipped,
        notes=[*found.split.notes, *_fit_notes(fitter), *leaks.notes],
        priors={} if priors is None else dict(zip(found.split.classes, priors.tolist(), strict=True)),
        leaks=leaks,
        adapted=tried[chosen].adapted,
        prepared=tried[chosen].prepared,
        rows=tried[chosen].rows,
        labelled=_labelled(found, prepared, fitter, lines, chosen, labels, n_draws, on_progress),
        is_tested_on_target=found.is_tested_on_target,
    )


def _labelled(
    found: DomainSplit,
    prepared: Prepared,
    fitter: Fitter,
    lines: Sequence[Line],
    chosen: int,
    counts: Sequence[int],
    n_draws: int,
    on_progress: OnProgress,
) -> list[Labelled]:
    """Label some images after all, with the chosen method, or that on cached rows which promises most."""
    if not counts or not found.is_tested_on_target:
        return []
    on_rows = {method.name for method in METHODS}
    method = max(
        (line for line in lines if line.method.name in on_rows),
        key=lambda line: (line is lines[chosen], _promise(line)),
    ).method
    return label_some(found, prepared, fitter, method, counts=counts, n_draws=n_draws, on_progress=on_progress)


def save_chosen(cache: Cache, found: DomainSplit, adaptation: Adaptation) -> Result:
    """Write the model of the chosen method, and return its Result."""
    if adaptation.adapted is None or adaptation.prepared is None or adaptation.leaks is None:
        raise ModelError("Only an adaptation that was just made can be saved.")
    line = adaptation.lines[adaptation.chosen]
    with open_cache(adaptation.rows) if adaptation.rows else nullcontext(cache) as rows:
        return save_adapted(
            cache,
            found,
            adaptation.prepared,
            adaptation.adapted,
            head=adaptation.head,
            layers=adaptation.layers,
            leaks=adaptation.leaks,
            chosen={"circular_accuracy": line.circular},
            fit_s=line.spent_s,
            rows=rows,
        )


def _chosen(lines: Sequence[Line]) -> int:
    """Return the line of the highest accuracy there and back.

    One that takes as many images of each class gives way to one that takes the same share, where the names that this
    one gives are of an uneven mix.
    """
    chosen = int(np.argmax([_promise(line) for line in lines]))
    if lines[chosen].method.quota == "equal":
        for i, line in enumerate(lines):
            if line.method.quota == "share" and line.evenness is not None and line.evenness < EVEN:
                return i
    return chosen


def _promise(line: Line) -> float:
    """Return what a method is chosen by; -1 of one that may not be."""
    return -1.0 if line.circular is None or not line.method.is_choosable else line.circular


def _fit_notes(fitter: Fitter) -> list[str]:
    """Return what the user should know of the fits, each once."""
    return list(dict.fromkeys(note for fit in fitter.fits.values() for note in fit.notes))


def _lines(tried: Sequence[Tried], prepared: Prepared) -> list[Line]:
    before, groups = tried[0].right, prepared.groups
    true = np.ones(len(before), dtype=np.int64)
    lines = []
    for one in tried:
        method, right = one.method, one.right
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
                p_value=1.0,
                p_alone=1.0 if is_baseline else mcnemar(*sides),
                circular=one.circular,
                spent_s=one.spent_s,
                evenness=evenness(one.adapted.named) if one.adapted else None,
            )
        )
    others = [i for i, line in enumerate(lines) if line.method.name != BASELINE]
    for i, p in zip(others, holm([lines[i].p_alone for i in others]), strict=True):
        lines[i] = replace(lines[i], p_value=p)
    return lines
