"""Labels that two different heads doubt, each without having seen the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tlfeat.evaluate.copies import Copies
from tlfeat.evaluate.split import Split
from tlfeat.heads.fit import fit_head
from tlfeat.images.duplicates import connected
from tlfeat.studies.findings import Finding
from tlfeat.text import counted
from tlfeat.types import Floats, Labels, Rows

#: One draws a border between classes, the other votes among the nearest images: where both name the same other label,
#: the given one is wrong more often than where the first errs alone (docs/benchmarks/audit.md).
HEADS = ("logreg", "knn")


@dataclass(frozen=True, slots=True)
class DoubtedLabels:
    """What two heads doubt.

    Attributes
    ----------
    findings : list of Finding
        The surest first.
    notes : list of str
        What was not looked at.
    agreement : float, optional
        Share of images whose given label is the one that the first head names: its cross-validated accuracy. None where
        there were no folds.
    """

    findings: list[Finding]
    notes: list[str]
    agreement: float | None


def find_doubted_labels(rows: Rows, split: Split, copies: Copies, *, seed: int = 0) -> DoubtedLabels:
    """Find labels that confident learning doubts and for which both heads of `HEADS` name the same other label.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width)
        Of all images of `split`. Not modified.
    split : Split
        Its roles are not looked at: every image is held out once.
    copies : Copies
        Of one picture are held out together.
    seed : int, default=0
        Of the folds.

    Notes
    -----
    Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068) as in cleanlab 2, on the probabilities of
    the first head. Order: the probability of the other label less that of the given one, mean of both heads.
    """
    together = replace(split, groups=_joined(split, copies), is_val_given=False)
    fits = [fit_head(name, rows, together, np.arange(len(split.keys)), seed=seed) for name in HEADS]
    held_out = [fit.held_out for fit in fits if fit.held_out is not None]
    if len(held_out) < len(HEADS):
        return DoubtedLabels([], ["wrong labels were not looked for: a class has one image, or copies of one"], None)
    first, second = held_out
    judged = np.flatnonzero(np.isfinite(first + second).all(axis=1))
    labels = split.labels[judged]
    doubted, margins = _doubted(labels, first[judged], second[judged])
    order = np.argsort(-margins, kind="stable")
    mean = (first + second) / 2
    findings = [_finding(split, mean, int(judged[i])) for i in doubted[order].tolist()]
    notes = []
    if len(judged) < len(split.keys):
        notes.append(f"wrong labels were looked for in {len(judged):,} of {counted(len(split.keys), 'image')}")
    return DoubtedLabels(findings, notes, float((first[judged].argmax(axis=1) == labels).mean()))


def _doubted(labels: Labels, first: Floats, second: Floats) -> tuple[Labels, Floats]:
    """Return positions of doubted labels, and by how much the other label is more probable, mean of both heads."""
    from cleanlab.filter import find_label_issues

    likely = first.argmax(axis=1)
    is_other = (likely != labels) & (second.argmax(axis=1) == likely)
    is_issue = find_label_issues(labels=labels, pred_probs=first, n_jobs=1)
    doubted = np.flatnonzero(is_issue & is_other)
    mean = (first[doubted] + second[doubted]) / 2
    at = np.arange(len(doubted))
    return doubted, mean[at, likely[doubted]] - mean[at, labels[doubted]]


def _finding(split: Split, probabilities: Floats, i: int) -> Finding:
    given = int(split.labels[i])
    likely = int(np.delete(probabilities[i], given).argmax())
    likely += likely >= given
    return Finding(
        kind="label",
        path=split.paths[i],
        label=split.classes[given],
        split=split.roles[i],
        score=round(float(probabilities[i, given]), 4),
        detail=f"{split.classes[likely]} is {100 * probabilities[i, likely]:.1f} % probable, the given label "
        f"{100 * probabilities[i, given]:.1f} %",
        suggestion=split.classes[likely],
    )


def _joined(split: Split, copies: Copies) -> Labels:
    """Return the groups of a split with copies of a picture joined: no copy may vouch for its own label."""
    group_of = copies.groups()
    n = int(split.groups.max()) + 1  # groups of copies are numbered after those of the split
    numbers: dict[int, int] = {}
    links = [
        (int(group), n + numbers.setdefault(group_of[key], len(numbers)))
        for key, group in zip(split.keys, split.groups, strict=True)
    ]
    joined = np.array(connected(n + len(numbers), links), np.int64)
    together: Labels = np.unique(joined[split.groups], return_inverse=True)[1]
    return together
