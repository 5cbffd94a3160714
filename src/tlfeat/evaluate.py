"""Splits, scores, intervals and tests of difference: the only place where a metric is computed.

One split serves every candidate, heads and Keras alike. Choices are made on training and validation images,
numbers are reported on test images.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.cache import ImageTable
from tlfeat.errors import DataError, ModelError, UsageError, counted
from tlfeat.records import Score, SplitInfo

Labels = npt.NDArray[np.int64]

TEST_FRACTION = 0.2
#: Of what is not test; Keras needs it for early stopping, heads cross-validate on train and val together.
VAL_FRACTION = 0.15


@dataclass(frozen=True, slots=True)
class Split:
    """Which image plays which part, and the labelled images themselves.

    Attributes
    ----------
    classes : list of str
        Sorted; labels are positions in it.
    keys, paths : list of str
        Of the images that take part, in an order that depends on nothing but keys and paths.
    labels : int array of shape (n_images,)
    groups : int array of shape (n_images,)
        Images with the same number may not be separated: copies of one picture, and the user's groups.
    roles : list of str
        "train", "val" or "test".
    info : SplitInfo
    notes : list of str
        What the user should know: classes left out, copies across given splits, one picture under two labels.
    """

    classes: list[str]
    keys: list[str]
    paths: list[str]
    labels: Labels
    groups: Labels
    roles: list[str]
    info: SplitInfo
    notes: list[str] = field(default_factory=list)

    def where(self, *roles: str) -> Labels:
        """Positions of the images with one of these roles."""
        return np.array([i for i, role in enumerate(self.roles) if role in roles], dtype=np.int64)


def make_split(table: ImageTable, *, seed: int = 0, test_fraction: float = TEST_FRACTION) -> Split:
    """Return the split of a data set: the given one where there is one, else seeded, stratified and grouped.

    A given test set stays as it is; a validation set is drawn from the training images where none is given.
    Adding the same images in another order, or under other names, gives the same split.

    Parameters
    ----------
    table : ImageTable
        Only images with status "ok" and a label take part.
    seed : int, default=0
    test_fraction : float, default=0.2
        Of every class, where no test set is given.

    Raises
    ------
    DataError
        Fewer than two classes have enough images, or the table is not complete.
    """
    if not 0 < test_fraction < 1:
        raise UsageError(f"The test fraction is {test_fraction}, expected between 0 and 1.")
    if table.count("pending"):
        raise DataError(
            f"{table.count('pending'):,} of {len(table.keys):,} images are not embedded yet. "
            f"Run the same tlfeat extract again; it goes on where it stopped."
        )
    images = table.images
    usable = [i for i, status in enumerate(table.status) if status == "ok" and images.labels[i]]
    # the path comes last: it decides only between images that are alike in all that counts
    usable.sort(key=lambda i: (table.keys[i], images.labels[i], images.splits[i], images.groups[i], images.paths[i]))
    keys = [table.keys[i] for i in usable]
    labels = [images.labels[i] for i in usable]
    given = [images.splits[i] for i in usable]
    groups = _join_groups(keys, [images.groups[i] for i in usable])
    notes = []
    n_unlabelled = table.count("ok") - len(usable)
    if n_unlabelled:
        notes.append(f"{n_unlabelled:,} images have no label and take no part")

    roles = list(given)
    origin = "given" if "test" in given else "seeded"
    rng = np.random.default_rng(seed)
    if origin == "seeded":
        if any(given):
            notes.append("no test split is given: a test set is drawn from the training images")
        held = {groups[i] for i, role in enumerate(roles) if role == "val"}
        free = [i for i in range(len(roles)) if groups[i] not in held]  # no copy of a validation image either
        for i in _draw(free, labels, groups, test_fraction, rng):
            roles[i] = "test"
    if "val" not in roles:
        free = [i for i, role in enumerate(roles) if role != "test"]
        for i in _draw(free, labels, groups, VAL_FRACTION, rng):
            roles[i] = "val"
    roles = [role or "train" for role in roles]

    notes += _leak_notes(keys, labels, [images.groups[i] for i in usable], roles)
    kept, left_out = _testable_classes(labels, roles)
    notes += left_out
    if len(kept) < 2:
        found = ", ".join(f"{name} ({n})" for name, n in sorted(Counter(labels).items())) or "none"
        raise DataError(
            f"At least two classes with two different images each are needed, one to learn from and one to "
            f"test; found: {found}."
        )
    chosen = [i for i, label in enumerate(labels) if label in kept]
    counts = Counter(roles[i] for i in chosen)
    joined = "\n".join(f"{keys[i]} {labels[i]} {roles[i]}" for i in chosen)
    return Split(
        classes=kept,
        keys=[keys[i] for i in chosen],
        paths=[images.paths[usable[i]] for i in chosen],
        labels=np.array([kept.index(labels[i]) for i in chosen], dtype=np.int64),
        groups=np.array([groups[i] for i in chosen], dtype=np.int64),
        roles=[roles[i] for i in chosen],
        info=SplitInfo(
            digest=hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16],
            origin=origin,
            seed=seed,
            n_train=counts["train"],
            n_val=counts["val"],
            n_test=counts["test"],
            test_fraction=test_fraction if origin == "seeded" else None,
        ),
        notes=notes,
    )


def _join_groups(keys: Sequence[str], user_groups: Sequence[str]) -> list[int]:
    """Number the sets of images that hang together through an equal key or an equal group (union-find)."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for key, group in zip(keys, user_groups, strict=True):
        if group:
            parent[find("key " + key)] = find("group " + group)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(find("key " + key), len(numbers)) for key in keys]


def _draw(
    free: Sequence[int],
    labels: Sequence[str],
    groups: Sequence[int],
    fraction: float,
    rng: np.random.Generator,
) -> list[int]:
    """Draw whole groups until every class has its share; at least one image stays behind in every class.

    A group counts for the label that most of its images have. A class of one group is left where it is.
    """
    members = defaultdict(list)
    for i in free:
        members[groups[i]].append(i)
    by_class = defaultdict(list)
    for group, inside in members.items():
        by_class[Counter(labels[i] for i in inside).most_common(1)[0][0]].append(group)
    drawn: list[int] = []
    for label in sorted(by_class):
        own = by_class[label]
        n_images = sum(len(members[group]) for group in own)
        wanted = max(1, round(fraction * n_images)) if len(own) > 1 else 0
        taken: list[int] = []
        for group in rng.permutation(own).tolist() if wanted else []:
            # a group that overshoots is taken only if that lands nearer to the goal than leaving it
            if len(taken) + len(members[group]) / 2 <= wanted:
                taken += members[group]
        if wanted and not 0 < len(taken) < n_images:
            taken = members[min(own, key=lambda group: len(members[group]))]
        drawn += taken
    return drawn


def _testable_classes(labels: Sequence[str], roles: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the classes that can be learned and tested, and a note for each that cannot."""
    learned = {label for label, role in zip(labels, roles, strict=True) if role != "test"}
    tested = {label for label, role in zip(labels, roles, strict=True) if role == "test"}
    notes = []
    for label in sorted(learned ^ tested):
        n = sum(other == label for other in labels)
        lacking = "test" if label in learned else "training"
        notes.append(f"class '{label}' is left out: {n} image{'s' * (n != 1)} and none of them for {lacking}")
    return sorted(learned & tested), notes


def _leak_notes(keys: Sequence[str], labels: Sequence[str], groups: Sequence[str], roles: Sequence[str]) -> list[str]:
    sides_of, sides_of_group, labels_of = defaultdict(set), defaultdict(set), defaultdict(set)
    for key, label, group, role in zip(keys, labels, groups, roles, strict=True):
        sides_of[key].add(role == "test")
        labels_of[key].add(label)
        if group:
            sides_of_group[group].add(role == "test")
    notes = []
    if n := sum(len(found) > 1 for found in sides_of.values()):
        notes.append(f"{counted(n, 'picture')} both in the given test set and in training: scores are flattered")
    if n := sum(len(found) > 1 for found in sides_of_group.values()):
        notes.append(f"{counted(n, 'group')} both in the given test set and in training: scores are flattered")
    if n := sum(len(found) > 1 for found in labels_of.values()):
        notes.append(f"{counted(n, 'picture')} under two labels: at least one of them is wrong")
    return notes


def folds(split: Split, positions: Labels, *, n_folds: int, seed: int) -> list[tuple[Labels, Labels]]:
    """Return stratified folds over `positions` that keep groups together, as positions within `positions`.

    There are as many folds as the rarest class has groups, at most `n_folds`; none where it has only one.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels, groups = split.labels[positions], split.groups[positions]
    n_groups = min(len(set(groups[labels == label])) for label in np.unique(labels))
    n = min(n_folds, n_groups)
    if n < 2:
        return []
    is_single = len(np.unique(groups)) == len(groups)
    # StratifiedGroupKFold looks at one group at a time (60,000 of them take 10 s); most sets need no groups
    if is_single:
        return list(StratifiedKFold(n, shuffle=True, random_state=seed).split(labels, labels))
    return list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(labels, labels, groups))


def score(true: Labels, predicted: Labels, classes: Sequence[str]) -> Score:
    """Return every test-set score of one candidate.

    Parameters
    ----------
    true, predicted : int arrays of shape (n_images,)
        Positions in `classes`.

    Notes
    -----
    Macro F1 is the plain mean of the classes' F1; a class that is never predicted has F1 0. Balanced accuracy
    is the mean recall over classes.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=0)
    accuracy, ci95 = accuracy_with_interval(true, predicted)
    return Score(
        accuracy=accuracy,
        ci95=ci95,
        balanced_accuracy=float(np.mean(recall)),
        macro_f1=float(np.mean(f1)),
        confusion=confusion_matrix(true, predicted, labels=numbers).tolist(),
        per_class=[
            {
                "class": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "n": int(support[i]),
            }
            for i, name in enumerate(classes)
        ],
    )


def accuracy_with_interval(true: Labels, predicted: Labels) -> tuple[float, tuple[float, float]]:
    """Return the accuracy and its 95 % interval; for the arguments see `score`."""
    n_right = int(np.sum(true == predicted))
    return n_right / len(true), wilson_interval(n_right, len(true))


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22; recommended
    for any n by Brown, Cai and DasGupta 2001, Statistical Science 16(2), section 5. It treats test images as
    independent draws: with groups (several images of one plant) it is too narrow. For 100 to 500 images and a true
    accuracy up to 0.9 it covers 93 to 97 % (``tests/test_evaluate.py``); near 1 it can fall a little below.
    """
    if n <= 0:
        raise ModelError("There are no test images to score.")
    z = 1.959963984540054  # normal quantile at 0.975
    p = n_right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(true: Labels, one: Labels, other: Labels) -> float:
    """Return the two-sided p-value of "both are wrong equally often", from the same test images.

    The exact test of McNemar 1947, Psychometrika 12: of the images that exactly one of the two gets right, the
    share of the first is binomial with 1/2. Chosen by Dietterich 1998, Neural Computation 10(7), for
    comparing two classifiers that were trained once. Images that both get wrong do not count, however they do.

    Parameters
    ----------
    true, one, other : int arrays of shape (n_images,)
    """
    from scipy.stats import binomtest

    only_one = int(np.sum((one == true) & (other != true)))
    only_other = int(np.sum((other == true) & (one != true)))
    if only_one + only_other == 0:
        return 1.0
    return float(binomtest(only_one, only_one + only_other, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def confused_pairs(found: Score, classes: Sequence[str], *, n: int = 5) -> list[dict[str, Any]]:
    """Return the most frequent confusions: true class, predicted class, how often."""
    pairs = [
        {"true": classes[i], "predicted": classes[j], "n": count}
        for i, row in enumerate(found.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -int(str(pair["n"])))[:n]
