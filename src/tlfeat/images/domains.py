"""Domains: where images come from (a camera, a hospital, photographs or drawings), as folders above those of classes.

::

    photos/DOMAIN/CLASS/...jpg
    photos/DOMAIN/{train,val,test}/CLASS/...jpg
    photos/{train,val,test}/DOMAIN/CLASS/...jpg
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlfeat.errors import DataError, UsageError
from tlfeat.images.folders import Tree, find_split_folders
from tlfeat.text import composed, counted, one_line

#: Names that a note has.
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Part:
    """A folder of class folders, with the split and the domain of all that lies in it.

    Attributes
    ----------
    inside : str
        Its path from the top: "", or with a slash at its end.
    split, split_folder : str
        Role, and what the folder of the split is called; "" where there is none.
    domain : str
        "" where there is none.
    is_loose : bool
        Only the images right in the folder belong to it: its subfolders are domains, and parts of their own.
    """

    inside: str = ""
    split: str = ""
    split_folder: str = ""
    domain: str = ""
    is_loose: bool = False


def find_parts(tree: Tree, suffixes: Collection[str] | None, *, has_domains: bool) -> list[Part]:
    """Return the folders whose subfolders are classes, in order: split folders, those of domains, or the top itself.

    Parameters
    ----------
    tree : Tree
    suffixes : collection of str, optional
        Endings of what is looked for, where it is not images.
    has_domains : bool
        Whether folders of domains lie above those of classes.
    """
    tops = [Part(f"{name}/", split, name) for name, split in find_split_folders(tree, "", suffixes)] or [Part()]
    if not has_domains:
        return tops
    parts = []
    for top in tops:
        parts.append(Part(top.inside, top.split, top.split_folder, is_loose=True))
        for folder in tree.folders(top.inside):
            domain, inside = composed(folder), f"{top.inside}{folder}/"
            below = find_split_folders(tree, inside, suffixes) if not top.inside else []
            parts += [Part(f"{inside}{name}/", split, name, domain) for name, split in below]
            if not below:
                parts.append(Part(inside, top.split, top.split_folder, domain))
    return parts


def check_domain_folders(root: str, domains: Sequence[str], labels: Sequence[str], *, is_labelled: bool) -> None:
    """Raise where a folder is not DOMAIN/CLASS/...; with `is_labelled` class folders are not needed."""
    expected = "--domains expects folders DOMAIN/CLASS/..."
    if domains and not any(domains):
        raise DataError(f"{expected}, and all images of {root} lie directly in it.")
    if domains and not is_labelled and not any(labels):
        raise DataError(
            f"{expected}, and the images of {root} lie directly in its folders ({_named(set(domains) - {''})}). If "
            f"these are the classes, leave --domains out; if they are domains, add --label-from name."
        )


def check_no_domain_folders(source: Path, *, domains: bool) -> None:
    """Raise where ``--domains`` was given for a table."""
    if domains:
        raise UsageError(
            f"--domains is for folders DOMAIN/CLASS/...; {source.name} is a table. Its domains are in the column "
            f"domain, or in another one: --domain-column NAME."
        )


def domain_notes(domains: Sequence[str], labels: Sequence[str], *, noun: str = "image") -> list[str]:
    """Return what the user should know of domains: images without one, only one, classes that others lack."""
    names = sorted(set(domains) - {""})
    if not names:
        return []
    notes = []
    if n := list(domains).count(""):
        notes.append(f"{n:,} of {counted(len(domains), noun)} have no domain")
    if len(names) == 1 and not n:
        notes.append("there is only one domain, so nothing can be compared between domains")
    domains_of: dict[str, set[str]] = defaultdict(set)
    classes_of: dict[str, set[str]] = {name: set() for name in names}
    for label, domain in zip(labels, domains, strict=True):
        if label and domain:
            domains_of[label].add(domain)
            classes_of[domain].add(label)
    if len(names) < 2 or len(domains_of) < 2:
        return notes
    single = [label for label, of in domains_of.items() if len(of) == 1]
    if len(single) == len(domains_of):
        return [*notes, "no class is in two domains: are the domains the classes?"]
    if poor := [name for name, of in classes_of.items() if len(of) < 2]:
        notes.append(f"{counted(len(poor), 'domain')} with fewer than two classes: {_named(poor)}")
    if single:
        notes.append(f"{counted(len(single), 'class', 'classes')} in one domain only: {_named(single)}")
    return notes


def domains_text(domains: Iterable[str]) -> str:
    """Return ", 2 domains (camera 1, camera 2)"; "" where there are none."""
    names = set(domains) - {""}
    return f", {counted(len(names), 'domain')} ({_named(names)})" if names else ""


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _MAX_NAMED:,} more" if len(ordered) > _MAX_NAMED else ""
    return ", ".join(map(one_line, ordered[:_MAX_NAMED])) + more
