"""Copies as an audit tells them: groups, leaks, one picture under two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from tlfeat.evaluate.copies import EXACT, Copies
from tlfeat.evaluate.leaks import leaked_images
from tlfeat.evaluate.split import Split
from tlfeat.studies.findings import Finding, Group, Images

_IN_WORDS = {
    "bytes": "the same bytes",
    "pixels": "the same pixels in another file",
    "near": "a changed copy, correlation {:.3f}",
    "rows": "similar rows, cosine {:.3f}",
    "words": "the same words; white space or case differ",
    "runs": "a changed copy, {:.0%} of the runs of 8 characters in common",
}


def find_copy_groups(copies: Copies, images: Images, split: Split | None) -> tuple[list[Group], list[Finding]]:
    """Return the groups of copies, and findings of the kinds "leak", "conflict" and "duplicate", one an image.

    Parameters
    ----------
    copies : Copies
    images : Images
        All that have a row.
    split : Split, optional
        Its leaks are those of a fit. Without one the splits of `images` are taken as they are.
    """
    groups = _groups(copies, images)
    number_of = {path: group.number for group in groups for path in group.paths}
    leaks = sorted(_leaks(copies, images, split), key=lambda finding: -finding.score)
    findings = [*leaks, *_conflicts(copies, images, groups), *_duplicates(copies, images, groups)]
    return groups, [replace(finding, group=number_of[finding.path]) for finding in findings]


def _groups(copies: Copies, images: Images) -> list[Group]:
    """Return the groups of two images or more, in the order of their first ones."""
    group_of, inside, kinds = copies.groups(), defaultdict(list), defaultdict(set)
    for i, key in enumerate(images.keys):
        inside[group_of[key]].append(i)
    for pair in copies.pairs:
        kinds[group_of[copies.keys[pair.one]]].add((pair.similarity, pair.kind))
    several = {group: at for group, at in inside.items() if len(at) > 1}
    return [
        Group(
            number=number,
            paths=[images.paths[i] for i in at],
            labels=[images.labels[i] for i in at],
            splits=[images.splits[i] for i in at],
            detail=_in_words(*min(kinds[group] or {(1.0, "bytes")})),
        )
        for number, (group, at) in enumerate(several.items(), start=1)
    ]


def _in_words(similarity: float, kind: str) -> str:
    return _IN_WORDS[kind].format(similarity)


def _leaks(copies: Copies, images: Images, split: Split | None) -> list[Finding]:
    if split is None:
        leaks = leaked_images(copies, images.paths, images.keys, images.splits)
    else:
        leaks = leaked_images(copies, split.paths, split.keys, split.roles)
    place = {path: i for i, path in enumerate(images.paths)}
    return [
        _finding("leak", images, place[leak["test"]], place[leak["learned"]], leak["kind"], leak["similarity"])
        for leak in leaks
    ]


def _conflicts(copies: Copies, images: Images, groups: list[Group]) -> list[Finding]:
    """Return a finding for each labelled image of a group with two labels or more: the nearest with another label."""
    place = {path: i for i, path in enumerate(images.paths)}
    inside = [place[path] for group in groups if group.is_conflict for path in group.paths]
    labels = {images.labels[i] for i in inside} - {""}
    ways, image_of = {}, {}
    for label in sorted(labels):
        image_of[label] = _first_of_each_key(images, (i for i in inside if images.labels[i] not in ("", label)))
        ways[label] = copies.nearest(image_of[label])
    found = []
    for i in inside:
        if label := images.labels[i]:
            way = ways[label][images.keys[i]]
            found.append(_finding("conflict", images, i, image_of[label][way.to], way.kind, way.similarity))
    return found


def _duplicates(copies: Copies, images: Images, groups: list[Group]) -> list[Finding]:
    """Return a finding for each image of a group: the one that it is most similar to."""
    place = {path: i for i, path in enumerate(images.paths)}
    inside = [place[path] for group in groups for path in group.paths]
    nearest: dict[str, tuple[float, str, str]] = {}  # similarity, kind and key
    for pair in sorted(copies.pairs, key=lambda pair: (-pair.similarity, pair.kind not in EXACT)):
        for at, other in ((pair.one, pair.other), (pair.other, pair.one)):
            nearest.setdefault(copies.keys[at], (pair.similarity, pair.kind, copies.keys[other]))
    of_key = defaultdict(list)
    for i in inside:
        of_key[images.keys[i]].append(i)
    found = []
    for i in inside:
        same = [other for other in of_key[images.keys[i]] if other != i]
        similarity, kind, key = (1.0, "bytes", images.keys[i]) if same else nearest[images.keys[i]]
        found.append(_finding("duplicate", images, i, same[0] if same else of_key[key][0], kind, similarity))
    return found


def _first_of_each_key(images: Images, positions: Iterable[int]) -> dict[str, int]:
    firsts: dict[str, int] = {}
    for i in positions:
        firsts.setdefault(images.keys[i], i)
    return firsts


def _finding(kind: str, images: Images, i: int, other: int, how: str, similarity: float) -> Finding:
    return Finding(
        kind=kind,
        path=images.paths[i],
        label=images.labels[i],
        split=images.splits[i],
        score=similarity,
        detail=_in_words(similarity, how),
        other=images.paths[other],
        other_label=images.labels[other],
        other_split=images.splits[other],
    )
