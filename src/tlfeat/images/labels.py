"""Labels: taken from names of files, missing, or refused where they are no classes.

Thresholds of what is refused, all on labelled images after ``--class-map`` and ``--classes``:

- several labels in one: two images and `MIN_SEVERAL` of all; below it they are named and stay classes of their own;
- numbers: `MIN_NUMERIC` of the images have one, there are more than `MIN_NUMBERS` different ones, and most images
  have one with a fraction, or one that no other image has.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tlfeat.errors import DataError, UsageError
from tlfeat.images.folders import SPLIT_NAMES
from tlfeat.text import counted, one_line

#: Share of images with several labels above which a table is no table of classes.
MIN_SEVERAL = 0.05

#: Share of labels that are numbers, and how many different numbers, above which they may be measurements.
MIN_NUMERIC, MIN_NUMBERS = 0.9, 10

#: What stands between the labels of one image.
_SEPARATORS = "|;,"

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_FRACTION = re.compile(r"\d*[.,]0*[1-9]")

#: A file name up to its first digit, without separators at the end: "cat.0", "american_bulldog_10".
_NAME = re.compile(r"([^\W\d_](?:[^\d]*[^\W\d_])?)(?:[\W_]*\d.*)?", re.DOTALL)

#: A class and a number, and nothing else: only such names are proposed as labels.
_NUMBERED = re.compile(r"([^\W\d_](?:[^\d]*[^\W\d_]))[\W_]*\d[\d\W_]*", re.DOTALL)

#: Folders of splits under names that are not taken for such: "test1", "training_set".
_SPLIT_LIKE = re.compile(r"(train|val|test)(ing|id|idation)?([\W_\d]|$)", re.IGNORECASE)

#: Images without a label that a note names.
N_NAMED = 5

#: What cameras and phones call every picture.
_CAMERAS = frozenset(
    {"dcim", "dji", "dsc", "dscf", "dscn", "gopr", "image", "img", "mvi", "photo", "pic", "picture", "pxl", "vid", "wa"}
)


# --- labels from file names -----------------------------------------------------------------------------------


def labeller(how: str) -> Callable[[str, str], str]:
    """Return the function from (path, the same below its split folder) to the label, "" where there is none.

    Parameters
    ----------
    how : str
        "name": the file name up to its first digit. "parent": the folder right above the image. Else a regular
        expression with one group, searched in the path.

    Raises
    ------
    UsageError
        The expression is none, or has another number of groups.
    """
    if how == "name":
        return lambda path, inside: _label_of_name(path)
    if how == "parent":
        return lambda path, inside: _parent(inside)
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise UsageError(
            f"--label-from is name, parent or a regular expression; '{how}' is none of them: {error}."
        ) from error
    if pattern.groups != 1:
        raise UsageError(
            f"--label-from wants name, parent, or a regular expression with one group, the label; '{how}' has "
            f"{counted(pattern.groups, 'group')}. Example: --label-from '([a-z]+)_[0-9]+'"
        )

    def search(path: str, inside: str) -> str:
        match = pattern.search(path)
        return (match.group(1) or "").strip() if match else ""

    return search


def _stem(path: str) -> str:
    name = path.replace("\\", "/").rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _label_of_name(path: str) -> str:
    match = _NAME.fullmatch(_stem(path))
    return match.group(1) if match else ""


def _parent(inside: str) -> str:
    return inside.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Advice:
    """Why nothing can be fitted on these labels, and the ``--label-from`` that would help ("" where none does)."""

    why: str = ""
    label_from: str = ""


def advise(paths: Sequence[str], labels: Sequence[str]) -> Advice:
    """Say what is missing to fit a model; nothing where there are two classes."""
    classes = sorted(set(labels) - {""})
    if len(classes) > 1:
        return Advice()
    why = f"the only label is '{one_line(classes[0])}'" if classes else "no image has a label"
    why += ": without two classes nothing can be fitted or tested. "
    way, found = _proposal(paths)
    if not way:
        return Advice(
            f"{why}Put the images of each class into a folder of its own, or take labels from names with --label-from"
        )
    named = ", ".join(f"{one_line(name)} ({n:,})" for name, n in found.most_common(5))
    where = "File names begin with" if way == "name" else "The folders right above the images are"
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    return Advice(f"{why}{where} {named}{more}: add --label-from {way}", way)


def _proposal(paths: Sequence[str]) -> tuple[str, Counter[str]]:
    """Return the way that gives nearly every image one of a few labels, and how often it gives each."""
    for way, names in (("parent", map(_parent, paths)), ("name", map(_class_of_number, paths))):
        found = Counter(names)
        n_without = found.pop("", 0)
        are_few = 2 <= len(found) <= len(paths) / 3  # three images of each, or they are no classes
        lower = {name.lower() for name in found}
        if are_few and n_without <= 0.05 * len(paths) and not lower & _CAMERAS and not lower <= SPLIT_NAMES.keys():
            return way, found
    return "", Counter()


def _class_of_number(path: str) -> str:
    match = _NUMBERED.fullmatch(_stem(path))
    return match.group(1) if match else ""


def unlabelled_notes(
    paths: Sequence[str], labels: Sequence[str], label_from: str | None, *, noun: str = "image"
) -> list[str]:
    """Return the line that names images without a label, where others have one."""
    without = [path for path, label in zip(paths, labels, strict=True) if not label]
    if not without or len(without) == len(paths):
        return []
    return [unlabelled_note(len(without), len(paths), without, label_from, noun=noun)]


def unlabelled_note(
    n: int, n_all: int, paths: Sequence[str], label_from: str | None = None, *, noun: str = "image"
) -> str:
    """Return the line that says that `n` of `n_all` images have no label; `paths` are theirs, or the first ones."""
    named = ", ".join(map(one_line, paths[:N_NAMED])) + (", ..." if n > N_NAMED else "")
    return (
        f"{n:,} of {counted(n_all, noun)} have no label"
        + (f" by --label-from {label_from}" if label_from else "")
        + f" and take no part in fitting: {named}"
    )


def layout_notes(paths: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the line that says that class folders look like something else: like splits, or like patients."""
    classes = sorted(set(labels) - {""})
    if len(classes) > 1 and all(_SPLIT_LIKE.match(name) for name in classes):
        return [
            f"the classes are called {', '.join(map(one_line, classes))}: if they are splits, rename the folders to "
            f"train, val and test"
        ]
    above: dict[str, set[str]] = defaultdict(set)
    for path, label in zip(paths, labels, strict=True):
        above[_parent(path)].add(label)
    is_crossed = all(len(found) > 1 and not name.isdigit() and name not in found for name, found in above.items())
    if len(above) < 2 or len(classes) < 2 or not is_crossed:
        return []
    named = ", ".join(map(one_line, sorted(above)[:5]))
    if len(above) < len(classes):
        return [
            f"the {len(classes):,} classes are the first folders, and the folders right above the images are "
            f"{named} in all of them: if those are the classes and the first folders domains (where images come "
            f"from), add --domains; if those are just the classes, add --label-from parent"
        ]
    if len(above) > 2 and all(len(found) == len(classes) for found in above.values()):
        return [
            f"the classes are {', '.join(map(one_line, classes[:5]))}, and the same folders ({named}) lie in all of "
            f"them: if those are the classes, and the first folders domains (where images come from), add --domains"
        ]
    return []


# --- labels that are no classes -------------------------------------------------------------------------------


def check_one_label_each(labels: Sequence[str], source: str) -> list[str]:
    """Raise where labels are several in one, or numbers to be measured; return what the user should know."""
    counts = Counter(label for label in labels if label)
    n_labelled = counts.total()
    if not n_labelled:
        return []
    _check_numbers(counts, n_labelled, source)
    for separator in _SEPARATORS:
        several = _several(counts, separator)
        n_images = sum(counts[label] for label in several)
        if not several:
            continue
        example = max(several, key=lambda label: (counts[label], label))
        said = f"{source}: {n_images:,} of {counted(n_labelled, 'image')} have several labels, such as '{example}'"
        if n_images < max(2, MIN_SEVERAL * n_labelled):
            return [f"{said}: each combination is a class of its own"]
        raise DataError(
            f"{said}. tlfeat gives one label per image. Name a column with one label (--label-column NAME), leave such "
            f"images out (--classes A,B,...), or say that a combination is a class: --class-map '{example}=NAME'."
        )
    return []


def _several(counts: Mapping[str, int], separator: str) -> list[str]:
    """Return the labels that are combinations of others.

    Most of their parts stand in two different labels or more, and at least one part stands alone, or at several
    places. "Pepper, bell" and "Pepper, chili" are names of classes: only the first part comes back, always first.
    """
    parts = {label: [part.strip() for part in label.split(separator)] for label in counts}
    several = [label for label, found in parts.items() if len(found) > 1 and all(found)]
    used: dict[str, set[str]] = defaultdict(set)
    places: dict[str, set[int]] = defaultdict(set)
    for label, found in parts.items():
        for place, part in enumerate(found):
            used[part].add(label)
            places[part].add(place if len(found) > 1 else -1)
    combined = {part for label in several for part in parts[label]}
    come_back = [part for part in combined if len(used[part]) > 1]
    is_mixed = any(len(places[part]) > 1 for part in come_back)
    return several if is_mixed and len(come_back) > len(combined) / 2 else []


def _check_numbers(counts: Counter[str], n_labelled: int, source: str) -> None:
    numbers = {label: n for label, n in counts.items() if _NUMBER.fullmatch(label)}
    n_images = sum(numbers.values())
    if n_images < MIN_NUMERIC * n_labelled or len(numbers) <= MIN_NUMBERS:
        return
    n_with_fraction = sum(n for label, n in numbers.items() if _FRACTION.match(label.lstrip("+-")))
    n_single = sum(n for n in numbers.values() if n == 1)
    if n_with_fraction > n_images / 2 or n_single > n_images / 2:
        example = min(numbers, key=lambda label: (not _FRACTION.match(label.lstrip("+-")), label))
        raise DataError(
            f"{source}: the labels are {len(numbers):,} different numbers in {counted(n_images, 'image')}, such as "
            f"{example}. tlfeat predicts classes, not numbers. Put ranges (low, middle, high) into a column of their "
            f"own and name it with --label-column NAME."
        )
