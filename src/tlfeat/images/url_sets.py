"""A URL becomes an `ImageSet`: a bucket or a server as a folder does, a table there, or a table whose paths are URLs.

Nothing but the one listing, or the table, is read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tlfeat.errors import BadImage, DataError, UsageError
from tlfeat.images.domains import check_no_domain_folders
from tlfeat.images.image_set import ImageSet, from_table_lines
from tlfeat.images.listing import from_listing
from tlfeat.images.remote import RemoteStore
from tlfeat.images.tables import MAX_TABLE_BYTES, Table, read_table
from tlfeat.images.urls import below, checked_url, is_url, scheme_of
from tlfeat.text import composed

LabelOf = Callable[[str, str], str]


def is_table_url(url: str) -> bool:
    """Whether a URL is that of a table, by its ending."""
    return PurePosixPath(url.partition("?")[0]).suffix.lower() in (".csv", ".tsv")


def from_url(
    url: str,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: LabelOf | None,
    asked: Mapping[str, str | None],
    *,
    domains: bool = False,
) -> ImageSet:
    """Return the images of a URL; the parameters and errors are those of `load.load_images`.

    Parameters
    ----------
    url : str
        Of a part of a bucket, of the index page of a server, or of a .csv or .tsv table.
    asked : mapping of role to name of column
        Of a table.
    """
    url = checked_url(url)
    if scheme_of(url) != "memory" and not url.partition("://")[2].strip("/"):
        raise UsageError(f"{url} names no bucket or host.")
    if is_table_url(url):
        check_no_domain_folders(Path(url), domains=domains)
        images = _from_url_table(url, class_map, label_of, asked)
    else:
        if named := [f"--{role}-column" for role, name in asked.items() if name]:
            raise UsageError(f"{' and '.join(named)}: for tables; {url} is read as a folder.")
        store = RemoteStore(url)
        images = from_listing(store.names(), store, class_map, classes, label_of, has_domains=domains)
    return replace(images, url=url)


def _from_url_table(
    url: str, class_map: Mapping[str, str], label_of: LabelOf | None, asked: Mapping[str, str | None]
) -> ImageSet:
    folder, _, name = url.rpartition("/")
    try:
        content = RemoteStore(folder).read(name)
    except BadImage as bad:
        raise DataError(f"{url} cannot be read: {bad}.") from bad
    if len(content) > MAX_TABLE_BYTES:
        raise DataError(f"{url} is too large for a table.")
    table = read_table(url, required=("path",) if label_of else ("path", "label"), asked=asked, content=content)
    return from_table_of_urls(table, url, class_map, label_of, folder=folder)


def from_table_of_urls(
    table: Table, source: str, class_map: Mapping[str, str], label_of: LabelOf | None, *, folder: str = ""
) -> ImageSet:
    """Return the images of a table whose paths are URLs.

    Parameters
    ----------
    table : Table
    source : str
        Path or URL of the table.
    folder : str
        URL from which other paths count; where there is none, such a path is an error.
    """
    urls = [_absolute(line["path"], folder, f"{source}, row {n}") for n, line in enumerate(table.lines, start=2)]
    base, paths = _below_one_url(urls, source)
    labels = [composed(label_of(path, path)) for path in paths] if label_of else [line["label"] for line in table.lines]
    return from_table_lines(
        table.lines,
        paths,
        labels,
        class_map,
        root=Path(base),
        source=Path(source),
        notes=table.notes,
        store=RemoteStore(base),
    )


def _absolute(path: str, folder: str, where: str) -> str:
    if not path:
        raise DataError(f"{where}: the path is empty.")
    if "\0" in path:
        raise DataError(f"{where}: a NUL character, which no URL can hold. Is it UTF-8 text?")
    if not is_url(path) and not folder:
        raise DataError(f"{where}: a path among URLs. A table holds the one or the other.")
    try:
        url = checked_url(path if is_url(path) else below(folder, path))
    except UsageError as error:
        raise DataError(f"{where}: {error}") from error
    base, _, name = url.partition("://")
    host, _, inside = name.partition("/")
    parts = inside.split("/")
    if any(part in (".", "..") for part in parts):
        inside = posixpath.normpath(inside)
        if inside.startswith("..") or inside == ".":
            raise DataError(f"{where}: the path leads out of {base}://{host}.")
    if not host or not inside:
        raise DataError(f"{where}: the URL names no image.")
    return f"{base}://{host}/{inside}"


def _below_one_url(urls: Sequence[str], source: str) -> tuple[str, list[str]]:
    """Return the longest URL that all lie below, and their paths from there."""
    schemes = {scheme_of(url) for url in urls}
    if len(schemes) > 1:
        raise DataError(f"{source}: images of {' and '.join(f'{s}://' for s in sorted(schemes))}. One scheme a table.")
    if not urls:
        return "memory://", []
    scheme = schemes.pop()
    low, high = (url.partition("?")[0].split("/")[2:-1] for url in (min(urls), max(urls)))
    common = 0
    while common < min(len(low), len(high)) and low[common] == high[common]:
        common += 1
    base = f"{scheme}://{'/'.join(low[:common])}"
    n_cut = len(below(base))
    return base, [url[n_cut:] for url in urls]
