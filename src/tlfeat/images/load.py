"""What a user names becomes an `ImageSet`; nothing is decoded yet.

These layouts are understood::

    photos/CLASS/...jpg                    labels; the split is made later, seeded
    photos/{train,val,test}/CLASS/...jpg   labels and splits (any case; val, valid, validation)
    table.csv or .tsv                      columns path, label; optional split, group, domain (`tables`)
    photos/DOMAIN/CLASS/...jpg             labels and domains, where asked for (`domains`)
    photos.zip or .tar                     the same folders, in an archive (`archives`)
    data.parquet or .arrow                 a column of bytes, one of labels (`byte_tables`)

Labels may also be taken from the names of files (`labels`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from tlfeat.errors import DataError, UsageError
from tlfeat.images.domains import check_no_domain_folders, domain_notes
from tlfeat.images.folders import heic_notes, nothing_there
from tlfeat.images.image_set import ImageSet, from_folder, from_table_lines, only
from tlfeat.images.labels import check_one_label_each, labeller, layout_notes, unlabelled_notes
from tlfeat.images.packed import from_packed, holds_packed, is_packed
from tlfeat.images.packed_paths import packed_paths
from tlfeat.images.tables import below_one_folder, find_files, read_table
from tlfeat.images.urls import is_url
from tlfeat.text import composed
from tlfeat.types import StrPath


def load_images(
    source: StrPath,
    *,
    class_map: Mapping[str, str] | None = None,
    classes: Collection[str] = (),
    label_from: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    domain_column: str | None = None,
    domains: bool = False,
) -> ImageSet:
    """Return the images of a folder, a table or an archive.

    Parameters
    ----------
    source : str or path
        A folder of class folders, of split folders of class folders, or a ``.csv`` or ``.tsv`` file; the URL of
        one in a bucket or on a server; an archive (``.zip``, ``.tar``), a table with a column of images
        (``.parquet``, ``.arrow``), or a folder of those.
    class_map : mapping of str to str, optional
        Renames labels, for class folders that differ between splits; see `labels.renamed`.
    classes : collection of str, optional
        Takes the images of these classes only, as they are called after `class_map`.
    label_from : str, optional
        Takes labels from names of files: "name", "parent" or a regular expression; see `labels.labeller`.
    path_column, label_column, domain_column : str, optional
        Of a table; one of `tables.COLUMN_NAMES` by default.
    domains : bool, default=False
        Whether the first folders are domains, and class folders lie below them. Split folders may stand above or below
        those of the domains.

    Raises
    ------
    DataError
        Nothing there, no images in it, class folders that differ between splits, a table that lacks columns, labels
        that are several in one or numbers.
    """
    class_map = {composed(old): composed(new) for old, new in (class_map or {}).items()}
    classes = [composed(name) for name in classes or ()]
    label_of = labeller(label_from) if label_from else None
    asked = {"path": path_column, "label": label_column, "domain": domain_column}
    named = os.fspath(source)
    if is_url(named):
        from tlfeat.images.url_sets import from_url, is_table_url  # late: connections are not needed for files

        images = from_url(named, class_map, classes, label_of, asked, domains=domains)
        is_table, has_folders = is_table_url(named), not is_table_url(named)
    else:
        path = Path(source)
        images = _from_path(path, class_map, classes, label_of, asked, domains=domains)
        is_table, has_folders = path.is_file(), path.is_dir() and images.store is None
    if not len(images):
        is_list = is_table and images.store is None
        what = f"No images in {named}. Expected a line for each image."
        raise DataError(what if is_list else nothing_there(images.url or named, images.passed_over))
    images = only(images, classes)
    notes = unlabelled_notes(images.paths, images.labels, label_from)
    if has_folders and not label_of and not domains:
        notes += layout_notes(images.paths, images.labels)
    if label_of or is_table:
        notes += check_one_label_each(images.labels, images.source.name if images.url else path.name)
    notes += domain_notes(images.domains, images.labels)
    return replace(images, notes=[*images.notes, *notes, *heic_notes(images.passed_over)])


def _from_path(
    source: Path,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    asked: Mapping[str, str | None],
    *,
    domains: bool,
) -> ImageSet:
    if not source.exists():
        raise DataError(f"{source} does not exist (looked in {Path.cwd()}). Name a folder of images or a CSV.")
    if is_packed(source):
        return from_packed(source.resolve(), class_map, classes, label_of, asked, has_domains=domains)
    if source.is_dir():
        images = from_folder(source.resolve(), class_map, classes, label_of, has_domains=domains)
        if not len(images) and holds_packed(images.passed_over):
            return from_packed(source.resolve(), class_map, classes, label_of, asked, has_domains=domains)
        if asked["path"] or asked["label"]:
            raise UsageError(f"--path-column and --label-column are for tables; {source} is a folder.")
        if asked["domain"]:
            raise UsageError(
                f"--domain-column is for tables; {source} is a folder, of DOMAIN/CLASS/... with --domains."
            )
        return images
    if source.suffix.lower() in (".csv", ".tsv"):
        check_no_domain_folders(source, domains=domains)
        return _from_table(source.resolve(), class_map, label_of, asked)
    raise DataError(
        f"{source} is neither a folder nor a .csv or .tsv table, an archive (.zip, .tar) or a table with a column "
        f"of images (.parquet, .arrow)."
    )


def _from_table(
    source: Path,
    class_map: Mapping[str, str],
    label_of: Callable[[str, str], str] | None,
    asked: Mapping[str, str | None],
) -> ImageSet:
    required = ("path",) if label_of else ("path", "label")
    table = read_table(source, required=required, asked=asked)
    if any(is_url(line["path"]) for line in table.lines):
        from tlfeat.images.url_sets import from_table_of_urls

        return from_table_of_urls(table, str(source), class_map, label_of)
    for number, line in enumerate(table.lines, start=2):
        if not line["path"]:
            raise DataError(f"{source}, row {number}: the path is empty.")
        if "\0" in line["path"] + line["label"] + line["group"] + line["domain"]:
            raise DataError(f"{source}, row {number}: a NUL character, which no file name can hold. Is it UTF-8 text?")
    paths, notes = [line["path"] for line in table.lines], list[str]()
    packed = packed_paths(source.parent, paths, source)
    if packed is None:
        paths, notes = find_files(source.parent, paths)
    labels = [composed(label_of(path, path)) for path in paths] if label_of else [line["label"] for line in table.lines]
    root, paths = (packed.root, packed.paths) if packed else below_one_folder(source.parent, paths)
    return from_table_lines(
        table.lines,
        paths,
        labels,
        class_map,
        root=root,
        source=source,
        notes=[*table.notes, *notes],
        store=packed.store if packed else None,
    )
