"""Which images train, validate and test: one split serves every candidate, heads and Keras alike.

Choices are made on training and validation images, numbers are reported on test images. Given folders stay what they
are; where there is ``val`` and no ``test``, as in most tutorials, ``val`` is the test set.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from tlfeat.errors import DataError, UsageError
from tlfeat.images.folders import SPLIT_NAMES
from tlfeat.images.image_set import ImageTable
from tlfeat.records import SplitInfo
from tlfeat.text import counted
from tlfeat.types import Labels

TEST_FRACTION = 0.2

#: Of what is not test; Keras needs it for early stopping, heads cross-validate on train and val together.
VAL_FRACTION = 0.15

#: Classes that an error names.
_MAX_NAMED = 10


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
    is_val_given : bool
        Whether the validation images are the user's choice; heads then choose on them instead of in folds.
    domains : list of str
        Where each image comes from; "" where nothing is said, which is everywhere by default.
    """

    classes: list[str]
    keys: list[str]
    paths: list[str]
    labels: Labels
    groups: Labels
    roles: list[str]
    info: SplitInfo
    notes: list[str] = field(default_factory=list)
    is_val_given: bool = False
    domains: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.domains:
            object.__setattr__(self, "domains", [""] * len(self.keys))

    def where(self, *roles: str) -> Labels:
        """Positions of the images with one of these roles."""
        return np.array([i for i, role in enumerate(self.roles) if role in roles], dtype=np.int64)

    def test_groups(self, is_scored: npt.NDArray[np.bool_]) -> Labels | None:
        """Return the groups of the test images that count, for intervals and tests.

        None where all of them are of one group: how groups differ is then not known, and a note says so.

        Parameters
        ----------
        is_scored : bool array of shape (n_test,)
        """
        groups = self.groups[self.where("test")][is_scored]
        return groups if len(np.unique(groups)) > 1 else None


def make_split(
    table: ImageTable, *, seed: int = 0, test_fraction: float = TEST_FRACTION, test_split: str | None = None
) -> Split:
    """Return the split of a data set: the given one where there is one, else seeded, stratified and grouped.

    A given test set stays as it is; where there is a validation set and no test set, that is the test set. A validation
    set is drawn from the training images where none is left. Adding the same images in another order, or under other
    names, gives the same split, and so does adding domains.

    Parameters
    ----------
    table : ImageTable
        Only images with status "ok" and a label take part.
    seed : int, default=0
    test_fraction : float, default=0.2
        Of every class, where no test set is given.
    test_split : str, optional
        The given split to test on: "test" or "val", by any of its names; images of the other one then train ("val") or
        take no part ("test"). "none" draws the test set from the training images. By default "test", else "val".

    Raises
    ------
    DataError
        Fewer than two classes have enough images, or the table is not complete, or it has no such split.
    """
    _check_asked(table, test_fraction)
    labelled = _labelled(table)
    notes = []
    n_unlabelled = table.count("ok") - len(labelled.keys)
    if n_unlabelled:
        notes.append(f"{n_unlabelled:,} images have no label and take no part")
    labelled, of_test = _testing_on(labelled, test_split)
    notes += of_test
    roles = _draw_roles(labelled, test_fraction, np.random.default_rng(seed))
    notes += _notes_of_groups_and_labels(labelled, roles)
    classes, left_out = _testable_classes(labelled.labels, roles)
    notes += left_out
    if len(classes) < 2:
        counts = Counter(labelled.labels)
        most = sorted(counts.items(), key=lambda of: (-of[1], of[0]))[:_MAX_NAMED]
        found = ", ".join(f"{name} ({n})" for name, n in most) or "none"
        found += f" and {len(counts) - len(most):,} more" if len(counts) > len(most) else ""
        raise DataError(
            f"At least two classes with two different images each are needed, one for training and one for testing; "
            f"found: {found}."
        )
    chosen = [i for i, label in enumerate(labelled.labels) if label in classes]
    notes += _note_of_one_group(labelled, roles, chosen)
    counts = Counter(roles[i] for i in chosen)
    is_given = "test" in labelled.splits
    return Split(
        classes=classes,
        keys=[labelled.keys[i] for i in chosen],
        paths=[labelled.paths[i] for i in chosen],
        labels=np.array([classes.index(labelled.labels[i]) for i in chosen], dtype=np.int64),
        groups=np.array([labelled.groups[i] for i in chosen], dtype=np.int64),
        roles=[roles[i] for i in chosen],
        info=SplitInfo(
            digest=_digest(labelled, roles, chosen, has_groups=any(table.images.groups)),
            origin="given" if is_given else "seeded",
            seed=seed,
            n_train=counts["train"],
            n_val=counts["val"],
            n_test=counts["test"],
            test_fraction=None if is_given else test_fraction,
            test_split=test_split,
        ),
        notes=notes,
        is_val_given="val" in labelled.splits,
        domains=[labelled.domains[i] for i in chosen],
    )


def _check_asked(table: ImageTable, test_fraction: float) -> None:
    if not 0 < test_fraction < 1:
        raise UsageError(f"The test fraction is {test_fraction}, expected between 0 and 1.")
    table.check_embedded()


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The images that have a row and a label, in an order that depends on nothing but keys and paths.

    Attributes
    ----------
    splits, user_groups, domains : list of str
        As given; "" where nothing is.
    groups : list of int
        See `join_groups`.
    """

    keys: list[str]
    labels: list[str]
    splits: list[str]
    user_groups: list[str]
    paths: list[str]
    groups: list[int]
    domains: list[str]

    def where(self, is_kept: Sequence[bool]) -> _Labelled:
        columns = (getattr(self, f.name) for f in fields(self))
        return _Labelled(*(list(compress(column, is_kept)) for column in columns))


def _labelled(table: ImageTable) -> _Labelled:
    images = table.images
    # path and domain come last: they decide only between images that are alike in all that counts
    rows = sorted(
        (table.keys[i], images.labels[i], images.splits[i], images.groups[i], images.paths[i], images.domains[i])
        for i, status in enumerate(table.status)
        if status == "ok" and images.labels[i]
    )
    columns = map(list, zip(*rows, strict=True)) if rows else [[]] * 6
    keys, labels, splits, user_groups, paths, domains = columns
    return _Labelled(keys, labels, splits, user_groups, paths, join_groups(keys, user_groups), domains)


def _testing_on(labelled: _Labelled, asked: str | None) -> tuple[_Labelled, list[str]]:
    """Make the split that is tested on the one called "test"; return it with what the user should know of it."""
    given = set(labelled.splits) - {""}
    if asked is None:
        name = "test" if "test" in given else "val" if "val" in given else ""
    else:
        name = "" if asked.lower() == "none" else SPLIT_NAMES.get(asked.lower(), asked)
        if name not in ("", *(given - {"train"})):
            known = ", ".join(sorted(given - {"train"})) or "no given split"
            raise UsageError(
                f"--test-split {asked}: there are no such images with a label. There is: {known}; none draws a test "
                f"set from the training images."
            )
    notes = []
    if not name and given:
        notes.append("no test split is given: a test set is drawn from the training images")
    if name == "val" and asked is None:
        notes.append(
            f"there is no test folder: the {counted(labelled.splits.count('val'), 'image')} of val are the test set "
            f"and take no part in any choice (--test-split none draws a test set from train instead)"
        )
    is_kept = [split != "test" or name == "test" for split in labelled.splits]
    if not all(is_kept):
        notes.append(f"{counted(is_kept.count(False), 'image')} of the split test take no part (--test-split {asked})")
        labelled = labelled.where(is_kept)
    if name == "val":
        labelled = replace(labelled, splits=["test" if split == "val" else split for split in labelled.splits])
    return labelled, notes


def _draw_roles(labelled: _Labelled, test_fraction: float, rng: np.random.Generator) -> list[str]:
    """Return the role of each image: what is given, and drawn test and validation images where none are."""
    roles, labels, groups = list(labelled.splits), labelled.labels, labelled.groups
    if "test" not in roles:
        held = {groups[i] for i, role in enumerate(roles) if role == "val"}
        free = [i for i in range(len(roles)) if groups[i] not in held]  # no copy of a validation image either
        for i in draw_groups(free, labels, groups, test_fraction, rng):
            roles[i] = "test"
    if "val" not in roles:
        free = [i for i, role in enumerate(roles) if role != "test"]
        for i in draw_groups(free, labels, groups, VAL_FRACTION, rng):
            roles[i] = "val"
    return [role or "train" for role in roles]


def _digest(labelled: _Labelled, roles: Sequence[str], chosen: Sequence[int], *, has_groups: bool) -> str:
    """Return what is equal exactly where every image has the same label, role and group."""
    joined = "\n".join(f"{labelled.keys[i]} {labelled.labels[i]} {roles[i]}" for i in chosen)
    if has_groups:  # intervals depend on them, so an equal digest has to mean equal groups
        joined += "".join(f"\n{labelled.groups[i]}" for i in chosen)
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def join_groups(keys: Sequence[str], user_groups: Sequence[str]) -> list[int]:
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


def draw_groups(
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


def _notes_of_groups_and_labels(labelled: _Labelled, roles: Sequence[str]) -> list[str]:
    sides_of_group, labels_of, domains_of = defaultdict(set), defaultdict(set), defaultdict(set)
    columns = zip(labelled.keys, labelled.labels, labelled.user_groups, roles, labelled.domains, strict=True)
    for key, label, group, role, domain in columns:
        labels_of[key].add(label)
        domains_of[key].add(domain)
        if group:
            sides_of_group[group].add(role == "test")
    notes = []
    if n := sum(len(found) > 1 for found in sides_of_group.values()):
        notes.append(f"{counted(n, 'group')} both in the given test set and in training: scores are flattered")
    if n := sum(len(found) > 1 for found in labels_of.values()):
        notes.append(f"{counted(n, 'picture')} under two labels: at least one of them is wrong")
    if n := sum(len(found) > 1 for found in domains_of.values()):
        notes.append(f"{counted(n, 'picture')} in two domains or more: what is learned in one is known in the other")
    return notes


def _note_of_one_group(labelled: _Labelled, roles: Sequence[str], chosen: Sequence[int]) -> list[str]:
    names = {labelled.user_groups[i] for i in chosen if roles[i] == "test"}
    if len(names) != 1 or not (name := names.pop()):
        return []
    return [
        f"all test images are of one group ({name}): the intervals hold for more images of that group, and how "
        f"accuracy differs between groups is not known"
    ]


def folds(split: Split, positions: Labels, *, n_folds: int, seed: int) -> list[tuple[Labels, Labels]]:
    """Return stratified folds over `positions` that keep groups together, as positions within `positions`.

    There are as many folds as the rarest class has groups, at most `n_folds`; none where it has only one. Where the
    user gave validation images, and training images of every class, there is one fold: these.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels, groups = split.labels[positions], split.groups[positions]
    if split.is_val_given:
        is_val = np.array([split.roles[i] == "val" for i in positions])
        if is_val.any() and set(labels[~is_val]) == set(labels):
            return [(np.flatnonzero(~is_val), np.flatnonzero(is_val))]
    n_groups = min(len(set(groups[labels == label])) for label in np.unique(labels))
    n = min(n_folds, n_groups)
    if n < 2:
        return []
    is_single = len(np.unique(groups)) == len(groups)
    # StratifiedGroupKFold looks at one group at a time (60,000 of them take 10 s); most sets need no groups
    if is_single:
        return list(StratifiedKFold(n, shuffle=True, random_state=seed).split(labels, labels))
    return list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(labels, labels, groups))


def draw_per_class(split: Split, positions: Labels, n_per_class: int, *, seed: int, draw: int) -> Labels:
    """Return `n_per_class` of each class' images in `positions`, drawn at random, in ascending order.

    Draws are nested: the one for 5 images is part of the one for 10 with the same `seed` and `draw`. Groups stay whole:
    they are taken in a random order, as many as come nearest to `n_per_class` images, at least one. A class with fewer
    images gives all it has.
    """
    labels, groups = split.labels[positions], split.groups[positions]
    order = np.random.default_rng([seed, draw]).permutation(np.unique(groups))
    place = np.empty(order.max() + 1, dtype=np.int64)
    place[order] = np.arange(len(order))
    drawn = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(place[groups[own]], kind="stable")]
        whole = np.flatnonzero(np.diff(groups[own], append=-1)) + 1  # numbers of images that end with a group
        drawn.append(own[: whole[np.argmin(np.abs(whole - n_per_class))]])
    return np.sort(positions[np.concatenate(drawn)])
