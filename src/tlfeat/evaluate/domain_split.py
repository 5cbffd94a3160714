"""The split of an adaptation: sources train, the target's images are adapted to without labels, or test once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError, UsageError, nearest
from tlfeat.evaluate.copies import Copies, find_copies
from tlfeat.evaluate.leaks import LeakedImages, leaked_images
from tlfeat.evaluate.split import Split, join_groups
from tlfeat.images.image_set import ImageTable
from tlfeat.records import SplitInfo
from tlfeat.text import counted
from tlfeat.types import Bools, Labels, OnProgress, silent

#: Of the labelled images of the target; the others adapt.
TEST_SHARE = 0.5

#: Of the sources, where no image of the target has a label.
HELD_SHARE = 0.2

#: With fewer images to adapt to, moments and pseudo-labels are rough.
FEW_IMAGES = 20

#: Fewer cannot be both adapted to and tested on.
_LEAST_TARGET = 4


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """The target's images that are adapted to.

    Attributes
    ----------
    keys, paths : list of str
    hidden : int array of shape (n_adapt,)
        Their labels where the user gave them, -1 elsewhere. No method sees them: they are for "label 5 a class" alone.
    groups : int array of shape (n_adapt,)
    """

    keys: list[str]
    paths: list[str]
    hidden: Labels
    groups: Labels


@dataclass(frozen=True, slots=True)
class DomainSplit:
    """The split and the images that are adapted to.

    Attributes
    ----------
    split : Split
        Images of the sources have the role "train", those of the target that test have "test".
    adapt : Unlabelled
    sources : list of str
    target : str
    is_tested_on_target : bool
        False where no image of the target has a label: the test images are of the sources, held out.
    """

    split: Split
    adapt: Unlabelled
    sources: list[str]
    target: str
    is_tested_on_target: bool = True

    def leaks(self, cache: Cache, *, on_progress: OnProgress = silent) -> LeakedImages:
        """Return the test images that show a picture of the sources, or one that is adapted to."""
        return self.leaks_among(find_copies(cache, on_progress=on_progress))

    def leaks_among(self, copies: Copies) -> LeakedImages:
        """Return the same where the copies of the cache are known."""
        roles = [*self.split.roles, *(["train"] * len(self.adapt.keys))]
        paths, keys = [*self.split.paths, *self.adapt.paths], [*self.split.keys, *self.adapt.keys]
        return LeakedImages(leaked_images(copies, paths, keys, roles), copies.notes)


def find_domains(table: ImageTable) -> list[str]:
    """Return the domains of the embedded images, sorted.

    Raises
    ------
    DataError
        There are none, or one only.
    """
    images = table.images
    found = sorted({d for d, status in zip(images.domains, table.status, strict=True) if d and status == "ok"})
    if not found:
        raise DataError(
            "The images of this cache have no domains. Say where each comes from: a column domain in the table, or "
            "folders DOMAIN/CLASS/... with tlfeat extract --domains (embeddings are reused). Or name a cache for each "
            "domain: --cache A.h5 --cache B.h5."
        )
    if len(found) < 2:
        raise DataError(f"All images are of one domain ({found[0]}): there is nothing to adapt from, or to.")
    return found


def choose_domains(table: ImageTable, sources: Sequence[str] | None, target: str | None) -> tuple[list[str], str]:
    """Return the sources and the target; all other domains are the sources by default.

    Raises
    ------
    UsageError
        A name that is no domain, a target that is a source, or no target where there are several domains.
    """
    known = find_domains(table)
    for name in [*(sources or []), *([target] if target is not None else [])]:
        if name not in known:
            raise UsageError(f"No domain '{name}'. {nearest(name, known, of='domains')}")
    if target is None:
        rest = [name for name in known if name not in (sources or [])]
        if not sources or len(rest) != 1:
            raise UsageError(f"Say which domain is the new one: --target {known[-1]}. There are: {', '.join(known)}.")
        target = rest[0]
    if target in (sources or []):
        raise UsageError(f"{target} is the target and a source. Leave it out of --source.")
    return list(dict.fromkeys(sources or [name for name in known if name != target])), target


def make_domain_split(table: ImageTable, sources: Sequence[str], target: str, *, seed: int = 0) -> DomainSplit:
    """Split the target's images once, seeded, without a look at labels: half to adapt to, half to test on.

    Groups and copies stay on one side. Images of the target without a label adapt; where the user gave test images in
    the target, these are tested on and all others adapt. Where no image of the target has a label, a fifth of the
    sources is held out and tested on in its place: what becomes of the target is then not known.

    Raises
    ------
    DataError
        Fewer than two classes in the sources, or too few images of the target.
    """
    table.check_embedded()
    images = table.images
    rows = sorted(
        (table.keys[i], images.paths[i], images.labels[i], images.groups[i], images.splits[i], images.domains[i])
        for i, status in enumerate(table.status)
        if status == "ok" and (images.domains[i] == target or (images.domains[i] in sources and images.labels[i]))
    )
    keys, paths, labels, user_groups, splits, domains = map(list, zip(*rows, strict=True)) if rows else ([[]] * 6)
    groups = join_groups(keys, user_groups)
    is_target = np.array([domain == target for domain in domains], dtype=bool)
    classes = sorted({label for label, new in zip(labels, is_target, strict=True) if not new})
    _check(classes, sources, target, int(is_target.sum()))
    can_test = np.array([new and label in classes for label, new in zip(labels, is_target, strict=True)], dtype=bool)
    is_test = _tests(can_test, splits, groups, seed)
    is_adapt = is_target & ~is_test
    _check_adapt(is_adapt, target)
    is_tested_on_target = bool(is_test.any())
    if not is_tested_on_target:
        is_test = _tests(~is_target, [""] * len(splits), groups, seed, share=HELD_SHARE)
    number = {name: i for i, name in enumerate(classes)}
    kept = np.flatnonzero(~is_adapt & (~is_target | is_test))
    adapt = np.flatnonzero(is_adapt)
    numbers = np.array([number.get(label, -1) for label in labels], dtype=np.int64)
    roles = ["test" if is_test[i] else "train" for i in kept]
    info = SplitInfo(
        digest=_digest(keys, numbers, kept, adapt, is_test, domains, groups),
        origin="given" if any(splits[i] == "test" for i in np.flatnonzero(is_test)) else "seeded",
        seed=seed,
        n_train=roles.count("train"),
        n_val=0,
        n_test=roles.count("test"),
    )
    split = Split(
        classes=classes,
        keys=[keys[i] for i in kept],
        paths=[paths[i] for i in kept],
        labels=numbers[kept],
        groups=np.array([groups[i] for i in kept], dtype=np.int64),
        roles=roles,
        info=info,
        notes=[
            *_untested(is_tested_on_target, target),
            *_notes(classes, labels, is_target, is_adapt, target, groups),
        ],
        domains=[domains[i] for i in kept],
    )
    adapted = Unlabelled(
        [keys[i] for i in adapt],
        [paths[i] for i in adapt],
        numbers[adapt],
        np.array([groups[i] for i in adapt], dtype=np.int64),
    )
    return DomainSplit(split, adapted, list(sources), target, is_tested_on_target)


def _check(classes: list[str], sources: Sequence[str], target: str, n_target: int) -> None:
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise DataError(f"The sources ({', '.join(sources)}) have fewer than two classes with images; found: {found}.")
    if n_target < _LEAST_TARGET:
        raise DataError(
            f"{target} has {counted(n_target, 'image')}: at least {_LEAST_TARGET} are needed, some to adapt to and "
            f"some to test on."
        )


def _check_adapt(is_adapt: Bools, target: str) -> None:
    if not is_adapt.any():
        raise DataError(
            f"No image of {target} is left to adapt to: all test, as given, or as one group. Give it other images, "
            f"with or without labels."
        )


def _tests(
    can_test: Bools, splits: Sequence[str], groups: Sequence[int], seed: int, share: float = TEST_SHARE
) -> Bools:
    """Return which images test: the given ones, else whole groups until the share of those that can."""
    is_given = np.array([split == "test" for split in splits], dtype=bool) & can_test
    if is_given.any():
        return is_given
    numbers = np.array(groups, dtype=np.int64)
    sizes = np.bincount(numbers[can_test], minlength=1)
    wanted, n, drawn = share * can_test.sum(), 0, []
    for group in np.random.default_rng(seed).permutation(np.flatnonzero(sizes)).tolist():
        # a group that overshoots is taken only if that lands nearer to the goal than leaving it
        if n + sizes[group] / 2 <= wanted:
            n += int(sizes[group])
            drawn.append(group)
    return can_test & np.isin(numbers, drawn)


def _untested(is_tested_on_target: bool, target: str) -> list[str]:
    if is_tested_on_target:
        return []
    return [
        f"NO TEST: no image of {target} has a label of a class that the sources have, so whether adapting helped is "
        f"not known (accuracies are of held-out images of the sources, each from its own domain). Label a few of each "
        f"class to know"
    ]


def _notes(
    classes: list[str],
    labels: Sequence[str],
    is_target: Bools,
    is_adapt: Bools,
    target: str,
    groups: Sequence[int],
) -> list[str]:
    """What the user should know of the target; labels of images that are adapted to are looked at by nothing else."""
    notes = []
    found = Counter(label for label, new in zip(labels, is_target, strict=True) if new and label)
    lacking = [name for name in classes if not found[name]]
    if lacking and found:
        notes.append(
            f"{target} has no image of {', '.join(lacking[:10])}{' and more' if len(lacking) > 10 else ''}: methods "
            f"that expect every class may go wrong there"
        )
    beyond = sorted(set(found) - set(classes))
    if beyond:
        n = sum(found[name] for name in beyond)
        notes.append(
            f"{counted(n, 'image')} of {target} cannot test, as no source has the class: {', '.join(beyond[:10])}"
            f"{' and more' if len(beyond) > 10 else ''}"
        )
    if is_adapt.sum() < FEW_IMAGES:
        notes.append(
            f"{counted(int(is_adapt.sum()), 'image')} to adapt to: few, so that what is learned of {target} is rough"
        )
    numbers = np.array(groups)
    shared = set(numbers[is_target].tolist()) & set(numbers[~is_target].tolist())
    if shared:
        notes.append(f"in {target} and in a source at once: {counted(len(shared), 'group')} of images or copies")
    return notes


def _digest(
    keys: Sequence[str],
    numbers: Labels,
    kept: Labels,
    adapt: Labels,
    is_test: Bools,
    domains: Sequence[str],
    groups: Sequence[int],
) -> str:
    """Return what is equal exactly where every image has the same label, domain, part and group."""
    lines = [f"{keys[i]} {numbers[i]} {domains[i]} {'test' if is_test[i] else 'train'} {groups[i]}" for i in kept]
    lines += [f"{keys[i]} adapt {groups[i]}" for i in adapt]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
