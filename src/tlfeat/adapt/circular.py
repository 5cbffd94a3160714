"""Which method suits, without a label of the target: there and back again.

Circular validation (Bruzzone and Marconcini 2010, IEEE PAMI 32(5), section 5): a method names the target's images; with
these names as labels the same method is fitted the other way round, from the target to each source, whose labels are
known. Where the names were wrong the way back goes wrong, too.
"""

from __future__ import annotations

import numpy as np

from tlfeat.adapt.methods import Adapted, Fitter, probabilities_of
from tlfeat.adapt.task import Task
from tlfeat.heads.blocks import View
from tlfeat.types import Labels, Rows, RowSource

#: Images of one domain that take part in the choice; of more, so many are drawn.
MAX_IMAGES = 2_000


def circular_accuracy(fitter: Fitter, adapted: Adapted) -> float:
    """Return the share of source images that are right after the way there and back, the mean over source domains.

    A method that gives the whole target one name gets 0.

    Parameters
    ----------
    fitter : Fitter
        That of the task. Nothing is searched on the way back: its parameters are taken.
    adapted : Adapted
    """
    task = fitter.task
    new = _taken(task.target, _some(np.arange(task.target.shape[0]), task.seed))
    labels = probabilities_of(adapted.head, new, task.classes).argmax(axis=1)
    if len(np.unique(labels)) < 2:
        return 0.0
    found = []
    for domain in np.unique(task.domains):
        at = _some(np.flatnonzero(task.domains == domain), task.seed)
        known = _taken(task.source, at)
        if len(known) < 2:
            continue
        back = Task(
            source=new,
            labels=labels,
            domains=np.repeat(task.target_name, len(new)),
            target=known,
            target_name=str(domain),
            classes=task.classes,
            groups=np.arange(len(new)),
            seed=task.seed,
            is_signed=task.is_signed,
        )
        head = Fitter(back, fitter.head, fitter.fits).fit(adapted.method).head
        found.append(float((probabilities_of(head, known, task.classes).argmax(axis=1) == task.labels[at]).mean()))
    return float(np.mean(found)) if found else 0.0


def _some(at: Labels, seed: int) -> Labels:
    if len(at) <= MAX_IMAGES:
        return at
    return np.sort(np.random.default_rng(seed).permutation(at)[:MAX_IMAGES])


def _taken(rows: RowSource, at: Labels) -> Rows:
    return View(rows, (0, rows.shape[1])).take(at)[slice(0, len(at))]
