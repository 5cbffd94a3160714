"""The chosen method of an adaptation as a saved model: predicted with, exported and refused by like any other head."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.adapt.methods import Adapted, probabilities_of
from tlfeat.cache.contents import encoder_name
from tlfeat.cache.reader import Cache
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.domain_split import FEW_IMAGES, DomainSplit
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.extract.reference import read_reference
from tlfeat.heads.blocks import View
from tlfeat.heads.domain_check import MAX_ROWS, DomainRows, save_domain
from tlfeat.heads.fit import N_FOLDS
from tlfeat.heads.reject import Rejector, coverage_table, fit_rejector, save_rejector
from tlfeat.heads.saved import save_head
from tlfeat.models.adapted_rows import Prepared
from tlfeat.models.fit_sklearn import refused_reference
from tlfeat.models.saved import Fitted, model_folder, write_model
from tlfeat.records import Result, Timing, side_by_side
from tlfeat.types import Floats, Labels, Rows

#: Images of the target on which thresholds of "unknown" are found, at most.
_MAX_REJECT = 10_000


def save_adapted(
    cache: Cache,
    found: DomainSplit,
    prepared: Prepared,
    adapted: Adapted,
    *,
    head: str,
    layers: Sequence[str],
    leaks: LeakedImages,
    chosen: Mapping[str, Any],
    fit_s: float,
    rows: Cache | None = None,
) -> Result:
    """Write the model of one method, and return its Result on the target's test images.

    Parameters
    ----------
    cache, found, prepared, adapted
        The adaptation.
    head : str
        Name of the head.
    layers : sequence of str
        Whose rows it takes, side by side.
    leaks : LeakedImages
    chosen : mapping
        How the method was chosen, for the Result.
    fit_s : float
        Wall seconds of its fit and its choice.
    rows : Cache, optional
        Whose rows the head takes, where that is another network than that of `cache`.
    """
    encoded = cache if rows is None else rows
    split, data = found.split, Data(cache, found.split, found.split.info.seed)
    settings = {
        "model": f"adapted-{head}",
        "layer": side_by_side(list(layers)),
        "seed": split.info.seed,
        "method": adapted.method.name,
        "source": found.sources,
        "target": found.target,
        "n_adapt": len(found.adapt.keys),
    }
    some = np.unique(np.linspace(0, len(found.adapt.keys) - 1, min(len(found.adapt.keys), _MAX_REJECT)).astype(int))
    new = View(prepared.task.target, (0, prepared.task.target.shape[1])).take(some)[slice(0, len(some))]
    reference = read_reference(encoded.path, encoded.fingerprint, layers)
    rejector = _rejector(new, adapted.certainty[some], found, prepared.adapt_at[some], reference)
    started_s = time.perf_counter()
    probabilities = prepared.answers(adapted)
    predict_s = time.perf_counter() - started_s
    embedding = encoded.timing
    n_embedded = embedding["n_embedded"]
    fitted = Fitted(
        candidate=f"adapted-{head}",
        kind="head",
        backbone=encoder_name(encoded),
        layer=side_by_side(list(layers)),
        settings=settings,
        fingerprint=encoded.fingerprint,
        encoder=encoded.source.get("encoder", {}),
        chosen={**adapted.fit.chosen, "method": adapted.method.name, **chosen},
        probabilities=probabilities,
        timing=Timing(
            extract_s=embedding["extract_s"] if n_embedded else None,
            extract_s_per_image=embedding["embed_s"] / n_embedded if n_embedded else None,
            fit_s=fit_s,
            predict_s_per_image=predict_s / len(probabilities),
        ),
        notes=[*adapted.fit.notes, used_of_target(found)],
        coverage=coverage_table(rejector, prepared.test, probabilities, prepared.true, prepared.is_scored)
        if rejector
        else [],
        reference=refused_reference(rejector, reference, adapted.head) if rejector and reference else {},
    )
    sample = new[np.random.default_rng(split.info.seed).permutation(len(new))[:MAX_ROWS]]
    named = probabilities_of(adapted.head, sample, split.classes).argmax(axis=1)

    def save(to: Path) -> None:
        save_head(adapted.head, to)
        save_domain(DomainRows(found.target, sample, named), to)
        if rejector:
            save_rejector(rejector, to)

    folder = model_folder(data, f"adapted-{head}", settings, encoded.fingerprint)
    return write_model(folder, fitted, data, leaks, save)


def used_of_target(found: DomainSplit) -> str:
    """Say what was known of the target, for the Result and the card."""
    tested = f"its other {found.split.info.n_test:,} images tested once" if found.is_tested_on_target else "none tested"
    return (
        f"adapted to {found.target}: {len(found.adapt.keys):,} of its images without their labels; {tested}. Labels "
        f"are of {', '.join(found.sources)}"
    )


def _rejector(rows: Rows, certainty: Floats, found: DomainSplit, at: Labels, reference: Any) -> Rejector | None:
    """Return thresholds from the target's own images, each held out once; None of few.

    That these are of known classes is taken on trust: they have no labels.
    """
    if len(rows) < FEW_IMAGES:
        return None
    groups = found.adapt.groups[at]
    order = np.random.default_rng(found.split.info.seed).permutation(np.unique(groups))
    fold_of = np.searchsorted(np.sort(order), groups)
    fold_of = np.argsort(order)[fold_of] % N_FOLDS
    folds = [(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(N_FOLDS)]
    folds = [(learned, held) for learned, held in folds if len(held) and len(learned)]
    return fit_rejector(rows, folds, certainty[:, None], reference.known if reference else None)
