"""What an audit finds: one record a finding, and the groups of copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlfeat.images.stores import Store
from tlfeat.records import Record

#: What some kinds are called where a cache holds texts.
KINDS_OF_TEXTS = {
    "leak": "test texts seen in training",
    "conflict": "one text under two labels",
    "duplicate": "copies of a text",
}

#: Kinds of findings in the order of a report, and what each is called there.
KINDS = {
    "leak": "test images seen in training",
    "conflict": "one picture under two labels",
    "duplicate": "copies of a picture",
    "label": "probably wrong labels",
    "outlier": "outliers",
    "imbalance": "imbalance",
}


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One thing to look at.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    path, label, split : str
        The image; "" for findings about the whole set.
    other, other_label, other_split : str
        The nearest image of the same picture, for the first three kinds: of a leak a training or validation image, of a
        conflict one with another label.
    suggestion : str
        The more probable label.
    score : float
        Similarity of copies (1 is exact), probability of the given label, robust z-score of outliers.
    detail : str
        In words.
    group : int
        Of copies (`Group.number`), for the first three kinds; 0 for others.
    """

    kind: str
    path: str
    label: str
    split: str
    score: float
    detail: str
    other: str = ""
    other_label: str = ""
    other_split: str = ""
    suggestion: str = ""
    group: int = 0


@dataclass(frozen=True, slots=True)
class Group(Record):
    """Images that show one picture, two at least.

    Attributes
    ----------
    number : int
        From 1.
    paths, labels, splits : list of str
        One entry an image.
    detail : str
        How far they are alike, in words.
    """

    number: int
    paths: list[str]
    labels: list[str]
    splits: list[str]
    detail: str

    @property
    def is_conflict(self) -> bool:
        """Whether its images have two labels or more."""
        return len(set(self.labels) - {""}) > 1


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings on one cache, by kind and within it the surest first; `notes` say what was not looked for.

    A finding of copies is one image: `groups` has those of one picture together. `agreement` is the share of images for
    which a head that had not seen them names the given label, None where no labels were looked at. `key_of` is the
    content key of a path: no other picture is shown. `holds` says what the rows are of, and of texts `snippets` has the
    beginnings by path.
    """

    cache: Path
    home: Path | Store | None
    layer: str
    n_images: int
    n_by_class: dict[str, int]
    groups: list[Group]
    findings: list[Finding]
    notes: list[str]
    agreement: float | None = None
    key_of: Mapping[str, str] = field(default_factory=dict)
    holds: str = "images"
    snippets: Mapping[str, str] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What one of them is called."""
        return self.holds.removesuffix("s")

    def title(self, kind: str) -> str:
        """What a kind of findings is called."""
        return KINDS_OF_TEXTS.get(kind, KINDS[kind]) if self.holds == "texts" else KINDS[kind]

    def of_kind(self, kind: str) -> list[Finding]:
        """Findings of one kind of `KINDS`."""
        return [finding for finding in self.findings if finding.kind == kind]

    def groups_of(self, kind: str) -> list[Group]:
        """Return the groups of copies that findings of a kind come in: "duplicate" or "conflict"."""
        return [group for group in self.groups if kind == "duplicate" or (kind == "conflict" and group.is_conflict)]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a cache that have a row, as parallel lists; `splits` are those of a fit, or as given."""

    paths: list[str]
    labels: list[str]
    keys: list[str]
    splits: list[str]


def to_document(found: Audit) -> dict[str, Any]:
    """Return the audit for scripts: counts, notes and every finding."""
    return {
        "cache": str(found.cache),
        "layer": found.layer,
        "n_images": found.n_images,
        "n_by_class": found.n_by_class,
        "n_by_kind": {kind: len(found.of_kind(kind)) for kind in KINDS},
        "n_groups_by_kind": {kind: len(found.groups_of(kind)) for kind in ("conflict", "duplicate")},
        "agreement": found.agreement,
        "notes": found.notes,
        "groups": [group.to_dict() for group in found.groups],
        "findings": [finding.to_dict() for finding in found.findings],
    }
