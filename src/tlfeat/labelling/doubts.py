"""What an audit doubts, as questions: one a picture, the surest first.

Nothing is changed where the pictures lie: the answers stand in a table of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tlfeat.labelling.answers import Answer
from tlfeat.labelling.questions import KEEP_KEY, SIDE_KEYS, Choice, Other, Question
from tlfeat.studies.findings import Audit, Finding, Group
from tlfeat.text import one_line

#: Findings that become questions, in the order in which these are asked, and what each says of its picture.
WHY = {
    "conflict": "two labels",
    "label": "probably wrong label",
    "leak": "test image seen in training",
    "duplicate": "copy of a picture",
    "outlier": "outlier",
}

_KEEP_ALL = Choice(KEEP_KEY, "keep all labels", "keep")


def doubts_of(found: Audit, paths: Sequence[str]) -> list[Question]:
    """Return a question for every picture that an audit doubts, each in one question alone.

    Parameters
    ----------
    found : Audit
    paths : sequence of str
        Of the set; what an audit says of others is passed over.

    Notes
    -----
    Order: one picture under two labels (one of the two is wrong for sure), probably wrong labels, copies (test images
    seen in training first), outliers; within a kind the surest first. Copies of a picture share the answer where they
    share the label. Of a group of copies one image is not asked about, so that it stays.
    """
    doubts = _Doubts(found, paths)
    questions = []
    for kind in WHY:
        for finding in doubts.of_kind(kind):
            if doubts.is_open(finding.path) and (question := doubts.ask[kind](finding)):
                questions.append(question)
                doubts.asked |= set(question.numbers)
    return questions


def notes_of(found: Audit) -> list[str]:
    """Return what an audit says of the whole set: no answer of one picture helps there."""
    return [*found.notes, *(finding.detail for finding in found.findings if not finding.path)]


class _Doubts:
    """The findings of an audit on the pictures of a set, and which of these were asked about."""

    def __init__(self, found: Audit, paths: Sequence[str]) -> None:
        self.found = found
        self.asked: set[int] = set()
        self.number_of = {path: number for number, path in enumerate(paths)}
        self.group_of = {path: group for group in found.groups for path in group.paths}
        self.suggested = {finding.path: finding.suggestion for finding in found.of_kind("label")}
        self.ask: dict[str, Callable[[Finding], Question | None]] = {
            "conflict": self._of_conflict,
            "label": self._of_label,
            "leak": self._of_copy,
            "duplicate": self._of_copy,
            "outlier": self._of_outlier,
        }

    def of_kind(self, kind: str) -> list[Finding]:
        """Findings on pictures that are there; an audit has those on labels with the surest first, but not copies."""
        here = [finding for finding in self.found.of_kind(kind) if finding.path in self.number_of]
        return here if kind == "label" else sorted(here, key=lambda finding: -finding.score)

    def is_open(self, path: str) -> bool:
        """Whether a picture is there and was not asked about."""
        return path in self.number_of and self.number_of[path] not in self.asked

    def _other(self, path: str, label: str) -> Other:
        return Other(self.number_of[path], one_line(label) or "no label")

    def _of_conflict(self, finding: Finding) -> Question | None:
        group = self.group_of[finding.path]
        members = _side_by_side([(path, label) for path, label in _members(group) if label and self.is_open(path)])
        counts = Counter(label for _, label in members)
        if len(counts) < 2:  # the others have gone
            return None
        (first, label), *others = members
        *names, last = map(one_line, counts)
        text = (
            f"one picture under {len(counts)} labels, {', '.join(names)} and {last} ({group.detail}): which is right?"
        )
        sides = [
            Choice(SIDE_KEYS[place] if place < len(SIDE_KEYS) else "", one_line(name), "label", name)
            for place, name in enumerate(counts)
        ]
        return Question(
            self.number_of[first],
            WHY[finding.kind],
            suggestion=self._suggestion(members, counts),
            others=[self._other(*other) for other in others],
            label=label,
            text=text,
            choices=[*sides, _KEEP_ALL],
            together=[self.number_of[path] for path, _ in others],
        )

    def _suggestion(self, members: Sequence[tuple[str, str]], counts: Counter[str]) -> str:
        """Return the label that heads name which have not seen the picture, else that of most of its images, or ""."""
        named = {self.suggested.get(path, "") for path, _ in members} & set(counts)
        if len(named) == 1:
            return named.pop()
        (most, n), (_, second) = counts.most_common(2)
        return most if n > second else ""

    def _of_label(self, finding: Finding) -> Question:
        return self._alone(finding, f"{finding.detail}: which is right?", suggestion=finding.suggestion)

    def _of_outlier(self, finding: Finding) -> Question:
        return self._alone(finding, f"{finding.detail}: keep it, or leave it out as bad?")

    def _alone(self, finding: Finding, text: str, *, suggestion: str = "") -> Question:
        """Return the question of a picture with its copies of the same label."""
        group = self.group_of.get(finding.path)
        same = [
            (path, label)
            for path, label in (_members(group) if group else ())
            if label == finding.label and path != finding.path and self.is_open(path)
        ]
        return Question(
            self.number_of[finding.path],
            WHY[finding.kind],
            suggestion=suggestion,
            others=[self._other(*member) for member in same],
            label=finding.label,
            text=text,
            choices=[_keep(finding.label)],
            together=[self.number_of[path] for path, _ in same],
        )

    def _of_copy(self, finding: Finding) -> Question | None:
        group = self.group_of[finding.path]
        kept = self._kept(group)
        if finding.path == kept:
            return None
        detail = finding.detail if finding.other == kept else group.detail
        where = "a test image that training has seen: " if finding.kind == "leak" else ""
        return Question(
            self.number_of[finding.path],
            WHY[finding.kind],
            others=[self._other(kept, group.labels[group.paths.index(kept)])],
            label=finding.label,
            text=f"{where}the same picture as {one_line(kept)} ({detail}): keep it, or leave it out as bad?",
            choices=[_keep(finding.label)],
        )

    def _kept(self, group: Group) -> str:
        """Return the image of a group that stays: the first that is no test image, else the first."""
        here = [
            (split == "test", place, path)
            for place, (path, split) in enumerate(zip(group.paths, group.splits, strict=True))
            if path in self.number_of
        ]
        return min(here)[2]


def _keep(label: str) -> Choice:
    return Choice(KEEP_KEY, f"keep {one_line(label)}" if label else "keep", "keep")


def _members(group: Group) -> list[tuple[str, str]]:
    """Return path and label of the images of a group."""
    return list(zip(group.paths, group.labels, strict=True))


def _side_by_side(members: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return paths and labels in another order: the first of each label, then the second of each, and so on."""
    n_before: Counter[str] = Counter()
    turns = []
    for _, label in members:
        turns.append(n_before[label])
        n_before[label] += 1
    return [members[place] for place in sorted(range(len(members)), key=turns.__getitem__)]


def all_labels(paths: Sequence[str], labels: Sequence[str], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return a line for every picture of a set, by path: its answer, or the label that it has in the folder.

    Parameters
    ----------
    paths, labels : sequence of str
        Of all pictures; paths as the table of answers has them.
    answers : mapping of str to Answer
        By path. Others than those of `paths` are left out.
    """
    return {
        path: answers.get(path) or Answer(path, label, how="folder") for path, label in zip(paths, labels, strict=True)
    }
