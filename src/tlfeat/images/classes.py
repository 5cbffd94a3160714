"""Names of classes: renamed by ``--class-map``, chosen by ``--classes``, and the same in every split."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from tlfeat.errors import DataError, UsageError, nearest

# --- renaming and choosing ------------------------------------------------------------------------------------


def parse_class_map(pairs: Iterable[str]) -> dict[str, str]:
    r"""Turn ``["cats=cat", r"(.*?)_.*=\1", ...]`` into old to new; the first = outside ``(?=`` and ``(?<=`` parts."""
    renamed = {}
    for pair in pairs:
        old, *new = re.split(r"(?<!\(\?)(?<!\(\?<)=", pair, maxsplit=1)
        if not (old and new and new[0]):
            raise UsageError(f"--class-map wants OLD=NEW, received '{pair}'. Example: --class-map cats=cat")
        renamed[old] = new[0]
    return renamed


def renamed(names: Iterable[str], class_map: Mapping[str, str]) -> dict[str, str]:
    r"""Return every name with its new one.

    An OLD that is one of the names stands for this name alone. Any other is a regular expression that has to match
    a whole name, and ``\1`` in NEW is its first group. The first that matches counts.

    Raises
    ------
    UsageError
        A NEW with a group that OLD lacks, or that leaves nothing of a name.
    """
    every = set(names)
    patterns = [(pattern, new) for old, new in class_map.items() if old not in every and (pattern := _pattern(old))]
    new_names = {}
    for name in every:
        new_names[name] = class_map.get(name, name)
        match, new = next(((m, new) for p, new in patterns if (m := p.fullmatch(name))), (None, ""))
        if name not in class_map and name and match:
            try:
                new_names[name] = match.expand(new)
            except (re.error, IndexError) as error:
                raise UsageError(f"--class-map {match.re.pattern}={new} cannot be filled in: {error}.") from error
            if not new_names[name]:
                raise UsageError(f"--class-map {match.re.pattern}={new} leaves no name for the class '{name}'.")
    return new_names


def _pattern(old: str) -> re.Pattern[str] | None:
    try:
        return re.compile(old)
    except re.error:
        return None


def check_class_map(names: Collection[str], class_map: Mapping[str, str]) -> None:
    """Raise for an OLD that is no class and matches none."""
    unknown = sorted(
        old
        for old in class_map
        if old not in names and not ((pattern := _pattern(old)) and any(n and pattern.fullmatch(n) for n in names))
    )
    if unknown and names:
        raise DataError(
            f"--class-map names classes that are not there: {', '.join(unknown)}. "
            f"There are: {', '.join(sorted(set(names) - {''}))}."
        )


def parse_classes(text: str) -> list[str]:
    """Turn ``a,b,"c, d"`` into names; quotes are for names with a comma."""
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not any(names):
        raise UsageError("--classes wants names of classes such as cat,dog.")
    return [name for name in names if name]


def classes_text(names: Sequence[str]) -> str:
    """Return what `parse_classes` turns into these names."""
    return ",".join('"' + name.replace('"', '""') + '"' if set(name) & {",", '"'} else name for name in names)


def check_classes(labels: Iterable[str], classes: Collection[str]) -> None:
    """Raise for a chosen class that no image has."""
    known = sorted(set(labels) - {""})
    for name in classes:
        if name not in known:
            hint = nearest(name, known, of="classes") if known else "No image has a label."
            raise DataError(f"--classes: there is no class '{name}'. {hint}")


# --- classes that differ between splits -----------------------------------------------------------------------


def check_same_classes(classes: Mapping[str, Collection[str]]) -> None:
    """Raise where a split lacks a class of another; the error has the ``--class-map`` that mends it, if there is one.

    Parameters
    ----------
    classes : mapping of str to collection of str
        Name of split folder to its classes, which may have no images.
    """
    first, *others = classes
    for other in others:
        only_first = sorted(set(classes[first]) - set(classes[other]))
        only_other = sorted(set(classes[other]) - set(classes[first]))
        if only_first or only_other:
            pairs = matching_class_map(list(classes.values()))
            example = " ".join(f"--class-map {_quoted(pair)}" for pair in pairs) or "--class-map OLD=NEW"
            raise DataError(
                f"Classes differ between splits. Only in {first}: {_listed(only_first)}; "
                f"only in {other}: {_listed(only_other)}. Map them with {example} "
                f"(may be repeated), or add the missing folder (it may be empty).",
                add=[word for pair in pairs for word in ("--class-map", pair)],
            )


def matching_class_map(sets: Sequence[Collection[str]]) -> list[str]:
    """Return the shortest ``--class-map`` that makes all sets of classes the same one; [] where none is certain.

    Names that are not in every set get the name among them that they begin with (case does not count), where each
    set has one of each then.
    """
    every = set().union(*sets)
    differing = sorted(name for name in every if any(name not in names for names in sets))
    shortest = {
        name: min((other for other in differing if name.lower().startswith(other.lower())), key=lambda o: (len(o), o))
        for name in differing
    }
    if not _makes_equal(sets, shortest):
        return []
    pairs = {old: new for old, new in shortest.items() if old != new}
    follows = {old[len(new) :][:1] for old, new in pairs.items()}
    if len(pairs) > 1 and len(follows) == 1 and (mark := follows.pop()) and not mark.isalnum():
        pattern = {f"(.*?){re.escape(mark)}.*": r"\1"}
        if renamed(every, pattern) == {name: shortest.get(name, name) for name in every}:
            return [f"{old}={new}" for old, new in pattern.items()]
    return [f"{old}={new}" for old, new in pairs.items()]


def _makes_equal(sets: Sequence[Collection[str]], new_names: Mapping[str, str]) -> bool:
    mapped = [[new_names.get(name, name) for name in names] for names in sets]
    return all(len(set(names)) == len(names) and set(names) == set(mapped[0]) for names in mapped)


def _quoted(pair: str) -> str:
    return pair if re.fullmatch(r"[\w.=+-]+", pair) else f"'{pair}'"


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
