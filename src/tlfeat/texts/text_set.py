"""A folder of .txt files or a table with a column of texts becomes an `ImageSet` that holds texts.

The layouts are those of images::

    mails/CLASS/...txt                     labels; the split is made later, seeded
    mails/{train,val,test}/CLASS/...txt    labels and splits
    reviews.csv, .tsv, .jsonl or .parquet  columns text, label; optional split, group, domain

The content key of a text is the sha256 of its UTF-8 bytes: of the file, or of the cell of the table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlfeat.errors import DataError, UsageError
from tlfeat.files import open_regular
from tlfeat.images.byte_tables import holds_images
from tlfeat.images.classes import check_class_map, renamed
from tlfeat.images.domains import check_no_domain_folders, domain_notes
from tlfeat.images.folders import Walk, image_suffixes, left_out_text
from tlfeat.images.image_set import ImageSet, from_folder, only
from tlfeat.images.labels import check_one_label_each, labeller, layout_notes, unlabelled_notes
from tlfeat.images.tables import (
    COLUMN_NAMES,
    Table,
    check_asked_columns,
    check_lines,
    choose_columns,
    notes_on_columns,
    read_table,
)
from tlfeat.text import composed, counted
from tlfeat.types import StrPath

TEXT_SUFFIXES = frozenset({".txt"})

#: Role to the names that its column may have, in any case; the first that is there is taken.
TEXT_COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "body", "message", "review", "document"),
    **{role: names for role, names in COLUMN_NAMES.items() if role != "path"},
}

_DELIMITED = (".csv", ".tsv")

#: What a table of texts may end in.
TABLE_SUFFIXES = (*_DELIMITED, ".jsonl", ".ndjson", ".parquet")

_MAX_TABLE_BYTES = 1 << 30

#: Lines of a Parquet file that are read at a time.
_LINES = 10_000


def load_texts(
    source: StrPath,
    *,
    class_map: Mapping[str, str] | None = None,
    classes: Collection[str] = (),
    label_from: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    domain_column: str | None = None,
    domains: bool = False,
    is_labelled: bool = True,
) -> ImageSet:
    """Return the texts of a folder or a table.

    Parameters
    ----------
    source : str or path
        A folder of .txt files in class folders, or a table.
    class_map, classes, label_from
        As of `load.load_images`.
    text_column, label_column, domain_column : str, optional
        Of a table; one of `TEXT_COLUMN_NAMES` by default.
    domains : bool, default=False
        As of `load.load_images`.
    is_labelled : bool, default=True
        Whether a table has to have a column of labels.

    Raises
    ------
    DataError
        Nothing there, no texts in it, a table that lacks a column.
    UsageError
        There are images, or images and texts.
    """
    source = Path(source)
    class_map = {composed(old): composed(new) for old, new in (class_map or {}).items()}
    classes = [composed(name) for name in classes or ()]
    if not source.exists():
        raise DataError(f"{source} does not exist (looked in {Path.cwd()}). Name a folder of .txt files or a table.")
    label_of = labeller(label_from) if label_from else None
    if source.is_dir():
        if text_column or label_column:
            raise UsageError(f"--text-column and --label-column are for tables; {source} is a folder.")
        if domain_column:
            raise UsageError(
                f"--domain-column is for tables; {source} is a folder, of DOMAIN/CLASS/... with --domains."
            )
        texts = _texts_of_folder(source, class_map, classes, label_of, has_domains=domains)
    elif source.suffix.lower() in TABLE_SUFFIXES:
        if label_of:
            raise UsageError(f"--label-from takes labels from names of files; {source.name} is a table of texts.")
        check_no_domain_folders(source, domains=domains)
        asked = {"text": text_column, "label": label_column, "domain": domain_column}
        texts = _texts_of_table(source.resolve(), class_map, asked, is_labelled=is_labelled)
    else:
        raise DataError(f"{source} is neither a folder nor a table ({', '.join(TABLE_SUFFIXES)}).")
    if not len(texts):
        raise DataError(f"No texts in {source}. Expected a line for each text.")
    texts = only(texts, classes)
    notes = unlabelled_notes(texts.paths, texts.labels, label_from, noun="text")
    if source.is_dir() and not label_of and not domains:
        notes += layout_notes(texts.paths, texts.labels)
    notes += domain_notes(texts.domains, texts.labels, noun="text")
    if label_of or source.is_file():
        notes += check_one_label_each(texts.labels, source.name)
    return replace(texts, notes=[*texts.notes, *notes])


def looks_like_texts(source: Path) -> bool:
    """Whether a folder or table holds texts and no images, as far as names and headings tell."""
    if source.is_dir():
        walk = Walk(TEXT_SUFFIXES)
        return next(walk.files(str(source)), None) is not None and not _n_images(_walked(source).passed_over)
    if source.suffix.lower() == ".parquet":
        return not holds_images(source)
    if source.suffix.lower() not in _DELIMITED:
        return source.suffix.lower() in TABLE_SUFFIXES
    header = _header(source)
    return "text" in choose_columns(header, {}, TEXT_COLUMN_NAMES) and "path" not in choose_columns(header, {})


def _walked(folder: Path) -> Walk:
    walk = Walk(TEXT_SUFFIXES)
    for _ in walk.files(str(folder)):
        pass
    return walk


def _n_images(passed_over: Mapping[str, int]) -> int:
    return sum(passed_over.get(suffix, 0) for suffix in image_suffixes())


def _texts_of_folder(
    source: Path,
    class_map: Mapping[str, str],
    classes: Collection[str],
    label_of: Callable[[str, str], str] | None,
    *,
    has_domains: bool,
) -> ImageSet:
    found = from_folder(source.resolve(), class_map, classes, label_of, TEXT_SUFFIXES, has_domains=has_domains)
    texts = replace(found, holds="texts")
    n_images = _n_images(texts.passed_over)
    if n_images and len(texts):
        raise UsageError(
            f"{source} holds {counted(len(texts), 'text')} and {counted(n_images, 'image')}. Put each kind into a "
            f"folder of its own and extract it with an encoder of its kind."
        )
    if n_images:
        raise UsageError(
            f"{source} holds images, and this backbone embeds texts. Name a backbone for images, such as mobilenet_v2 "
            f"(tlfeat backbones lists them)."
        )
    if not len(texts):
        left_out = left_out_text(texts.passed_over)
        raise DataError(f"No texts in {source}{f' ({left_out})' if left_out else ''}. Expected .txt in class folders.")
    return texts


def _texts_of_table(
    source: Path,
    class_map: Mapping[str, str],
    asked: Mapping[str, str | None],
    *,
    is_labelled: bool,
) -> ImageSet:
    required = ("text", "label") if is_labelled else ("text",)
    if source.suffix.lower() in _DELIMITED:
        _check_not_of_images(source, asked["text"])
        with _long_cells():
            table = read_table(source, required=required, names=TEXT_COLUMN_NAMES, asked=asked)
        first = 2  # below the heading
    else:
        table, first = _table_of_records(source, asked, required), 1
    labels = [line["label"] for line in table.lines]
    new_names = renamed(labels, class_map)
    check_class_map(new_names.keys() - {""}, class_map)
    return ImageSet(
        root=source.parent,
        source=source,
        paths=[f"{source.name}:{number}" for number in range(first, first + len(labels))],
        labels=[new_names[label] for label in labels],
        splits=[line["split"] for line in table.lines],
        groups=[line["group"] for line in table.lines],
        domains=[line["domain"] for line in table.lines],
        notes=table.notes,
        holds="texts",
        contents=[line["text"] for line in table.lines],
    )


def _check_not_of_images(source: Path, text_column: str | None) -> None:
    header = _header(source)
    path = choose_columns(header, {}).get("path")
    text = choose_columns(header, {}, TEXT_COLUMN_NAMES).get("text")
    if path and text and not text_column:
        raise UsageError(
            f"{source.name} has texts ('{text}') and files ('{path}'). For the texts add --text-column {text}; for the "
            f"files name a backbone for images, such as mobilenet_v2."
        )
    if path and not text and not text_column:
        raise UsageError(
            f"{source.name} names files ('{path}') and has no column of texts, and this backbone embeds texts. Name a "
            f"backbone for images, such as mobilenet_v2, or the column: --text-column NAME."
        )


def _header(source: Path) -> list[str]:
    """Return the names of the columns of a delimited table; none where it cannot be read."""
    try:
        with open_regular(source, max_bytes=_MAX_TABLE_BYTES) as file:
            line = file.readline(1 << 20).decode("utf-8-sig", "surrogateescape")
        rows = [next(csv.reader(io.StringIO(line), delimiter=delimiter), []) for delimiter in ",;\t|"]
    except (OSError, csv.Error):
        return []
    return max(rows, key=len)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let a cell hold a text: the module csv stops at 131,072 characters. One that is too long is skipped later."""
    before = csv.field_size_limit(_MAX_TABLE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _table_of_records(source: Path, asked: Mapping[str, str | None], required: Sequence[str]) -> Table:
    """Return the lines of a JSON-lines or Parquet file."""
    read = _parquet_records if source.suffix.lower() == ".parquet" else _json_records
    header, records = read(source)
    columns = choose_columns(header, asked, TEXT_COLUMN_NAMES)
    check_asked_columns(source, header, columns, asked)
    if missing := [role for role in required if role not in columns]:
        raise DataError(
            f"{source} lacks the column {' and '.join(missing)} (split, group and domain are optional), received: "
            f"{', '.join(header) or 'nothing'}. Say which one it is: "
            + " ".join(f"--{role}-column NAME" for role in missing)
            + "."
        )
    lines = [{role: _as_text(record.get(columns.get(role, ""))) for role in TEXT_COLUMN_NAMES} for record in records]
    check_lines(source, lines)
    return Table(lines, notes_on_columns(source, header, columns, asked))


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _json_records(source: Path) -> tuple[list[str], list[dict[str, Any]]]:
    records = []
    try:
        with open_regular(source, max_bytes=_MAX_TABLE_BYTES) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise DataError(f"{source}, line {number}: expected an object, received {type(record).__name__}.")
                records.append(record)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}, line {number}: it is no JSON ({error}). Expected one object a line.") from error
    return list(dict.fromkeys(name for record in records for name in record)), records


def _parquet_records(source: Path) -> tuple[list[str], Sequence[dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError(f"Reading {source.name} needs one more package: pip install 'tlfeat[parquet]'") from error
    try:
        with open_regular(source, max_bytes=_MAX_TABLE_BYTES) as opened, parquet.ParquetFile(opened) as file:
            names = [str(name) for name in file.schema_arrow.names]
            known = {name for all_names in TEXT_COLUMN_NAMES.values() for name in all_names}
            kinds = dict(zip(names, file.schema_arrow.types, strict=True))
            taken = [n for n in names if n.strip().lower() in known or not pyarrow.types.is_nested(kinds[n])]
            batches = file.iter_batches(batch_size=_LINES, columns=taken)
            return taken, [record for batch in batches for record in batch.to_pylist()]
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from error
    except pyarrow.ArrowException as error:
        raise DataError(f"{source} is damaged or no Parquet file: {str(error).splitlines()[0]}.") from error
