"""Parquet and Arrow files with a column of image bytes, and folders of them, become an `ImageSet`.

These are understood::

    data.parquet, data.arrow               one file
    data/{train,test}-00000-of-00002....   parts; splits from their names or those of their folders
    saved/state.json, data-*.arrow         what `datasets` saves to disk; saved/dataset_dict.json with a folder a split

The column of images holds bytes, or structs of bytes and path. Labels are texts or numbers; those of Hugging Face's
ClassLabel get their names.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlfeat.errors import DataError
from tlfeat.files import read_regular
from tlfeat.images.byte_store import (
    ARROW_SUFFIXES,
    PARQUET_SUFFIXES,
    ByteTable,
    first_batch,
    pyarrow_for,
    unreadable,
)
from tlfeat.images.folders import SPLIT_NAMES
from tlfeat.images.image_set import ImageSet, from_table_lines
from tlfeat.images.tables import COLUMN_NAMES, check_asked_columns, check_lines, choose_columns, notes_on_columns
from tlfeat.text import composed

TABLE_SUFFIXES = PARQUET_SUFFIXES | ARROW_SUFFIXES

#: What a column of images is usually called; asked only where several columns hold bytes.
_IMAGE_NAMES = ("image", "img", "images", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "picture", "photo")

#: Role to the names that its column may have; "path" here is the name of a file that stands beside its bytes.
_COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    **{role: names for role, names in COLUMN_NAMES.items() if role != "path"},
    "label": (*COLUMN_NAMES["label"], "labels", "cls"),
}

#: Of the JSON files beside the parts.
_MAX_JSON_BYTES = 64 << 20

#: A folder that holds more parts is no data set.
_MAX_PARTS = 100_000

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class _Heading:
    """Columns of all parts: what each holds."""

    names: list[str]
    images: list[str]  # those that hold bytes
    class_names: Mapping[str, list[str]]  # by column


def is_saved_dataset(folder: Path) -> bool:
    """Whether Hugging Face `datasets` saved it to disk."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def holds_images(source: Path) -> bool:
    """Whether a Parquet or Arrow file has a column of image bytes; a `DataError` as of `from_byte_table`."""
    return bool(_heading(source).images)


def has_tables(folder: Path) -> bool:
    """Whether there is a Parquet or Arrow file below a folder."""
    return next(_files_below(folder), None) is not None


def from_byte_table(
    source: Path,
    class_map: Mapping[str, str],
    label_of: Callable[[str, str], str] | None,
    asked: Mapping[str, str | None],
) -> ImageSet:
    """Return the images of a Parquet or Arrow file, or of the parts below a folder.

    Parameters
    ----------
    source : Path
        Absolute.
    class_map : mapping of str to str
    label_of : callable, optional
        As of `labels.labeller`: takes labels from the ``path`` beside the bytes, or from name and row of the part.
    asked : mapping of role to name of column
        "path" names the bytes.

    Raises
    ------
    DataError
        A file that is damaged, no column of bytes or several, labels that are none.
    """
    folder = source if source.is_dir() else source.parent
    parts, notes = _parts(source)
    if not parts:
        raise DataError(f"No Parquet or Arrow file in {source}.")
    first = next(iter(parts))
    heading = _heading(folder / first)
    column = _image_column(source, heading, asked.get("path"))
    others = [name for name in heading.names if name != column]
    columns = _columns(source, others, heading, {role: name for role, name in asked.items() if role != "path"})
    lines: list[dict[str, str]] = []
    paths: list[str] = []
    for name, split in parts.items():
        _check_same(folder / name, first, heading, column, columns)
        n_before = len(lines)
        for cells in _rows(folder / name, columns, column if label_of else None):
            line = {role: _text(cells.get(role), role, name) for role in ("label", "split", "group", "domain")}
            if names := heading.class_names.get(columns.get("label", "")):
                line["label"] = _class_name(line["label"], names, f"{name}:{len(lines) - n_before}")
            path = f"{name}:{len(lines) - n_before}"
            if label_of:
                inside = cells.get("path") or path
                line["label"] = label_of(inside, inside)
            if "split" not in columns:
                line["split"] = split
            lines.append({role: sys.intern(value) for role, value in line.items()})
            paths.append(path)
    if not lines:
        raise DataError(f"No images in {source}. Expected a row for each image.")
    check_lines(source, lines)
    if "label" not in columns and not label_of:
        notes.append(
            f"{source.name}: no column of labels among {', '.join(others) or 'none'}; name one with --label-column NAME"
        )
    found = {role: name for role, name in columns.items() if not (label_of and role == "label")}
    return from_table_lines(
        lines,
        paths,
        [line["label"] for line in lines],
        class_map,
        root=folder,
        source=source,
        notes=[*notes, *notes_on_columns(source, others, found, asked)],
        store=ByteTable(source, column),
    )


# --- parts and their splits -----------------------------------------------------------------------------------


def _parts(source: Path) -> tuple[dict[str, str], list[str]]:
    """Return the names of the parts, relative to the folder and in order, with their splits, and notes."""
    if source.is_file():
        return {source.name: ""}, []
    if (source / "dataset_dict.json").is_file():
        return _parts_of_dict(source)
    if is_saved_dataset(source):
        return dict.fromkeys(_saved_parts(source), ""), []
    names = sorted(path.relative_to(source).as_posix() for path in _files_below(source))
    if len(names) > _MAX_PARTS:
        raise DataError(f"{source} holds more than {_MAX_PARTS:,} Parquet and Arrow files.")
    return splits_of_names(source, names), []


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in TABLE_SUFFIXES and not is_hidden and path.is_file():
            yield path


def splits_of_names(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the split of each part: its name, or the nearest folder's, has one of the words train, val and test.

    As with split folders there are splits where there is a part to train on, and every part has to have one then.

    Raises
    ------
    DataError
        Some parts have none.
    """
    found = {name: split_of_name(name) for name in names}
    if "train" not in found.values() or set(found.values()) == {"train"}:
        return dict.fromkeys(names, "")
    if without := [name for name, split in found.items() if not split]:
        raise DataError(
            f"{source} has parts of splits and beside them others ({', '.join(without[:5])}). Move those away, or put "
            f"train, val or test into their names."
        )
    return found


def split_of_name(name: str) -> str:
    """Return train, val or test where a part's name, or that of the nearest folder, has such a word; else ""."""
    for part in reversed(name.split("/")):
        words = re.split(r"[^a-z0-9]+|(?<=[a-z])(?=[0-9])", part.lower())
        if len(roles := {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}) == 1:
            return roles.pop()
    return ""


def _parts_of_dict(source: Path) -> tuple[dict[str, str], list[str]]:
    folders = _json(source / "dataset_dict.json").get("splits")
    if not isinstance(folders, list) or not folders:
        raise DataError(f"{source / 'dataset_dict.json'} names no splits.")
    roles = {str(name): split_of_name(str(name)) for name in folders}
    if "train" not in roles.values():
        roles = dict.fromkeys(roles, "")
    left_out = [name for name, role in roles.items() if not role and "train" in roles.values()]
    notes = [f"splits left out, since they are neither train, val nor test: {', '.join(left_out)}"] if left_out else []
    parts = {
        f"{name}/{part}": role
        for name, role in roles.items()
        if name not in left_out
        for part in _saved_parts(source / name)
    }
    return parts, notes


def _saved_parts(folder: Path) -> list[str]:
    """Return the Arrow files of a saved data set, in its order."""
    files = _json(folder / "state.json").get("_data_files") if (folder / "state.json").is_file() else None
    names = [str(file.get("filename", "")) for file in files or () if isinstance(file, dict)]
    names = names or sorted(path.name for path in folder.glob("*.arrow"))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise DataError(f"{folder / 'state.json'} names the file '{name}', which is not there.")
    return names


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(path, max_bytes=_MAX_JSON_BYTES))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    return value if isinstance(value, dict) else {}


# --- columns --------------------------------------------------------------------------------------------------


def _heading(path: Path) -> _Heading:
    schema = _schema(path)
    types = pyarrow_for(path).types
    plain = (types.is_binary, types.is_large_binary, types.is_binary_view)

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return any(is_one(kind) for is_one in plain)

    images = [field.name for field in schema if holds_bytes(field.type)]
    return _Heading(list(schema.names), images, _class_names(path, schema))


def _schema(path: Path) -> Any:
    pyarrow = pyarrow_for(path)
    try:
        if path.suffix.lower() in PARQUET_SUFFIXES:
            return pyarrow.parquet.read_schema(path)
        with pyarrow.memory_map(str(path)) as file:
            first_batch(file)
            return pyarrow.ipc.open_stream(file).schema
    except Exception as error:  # pyarrow raises errors of its own, OSError and ValueError
        raise unreadable(path, error) from error


def _class_names(path: Path, schema: Any) -> dict[str, list[str]]:
    """Return the names of the numbers of each ClassLabel, from the heading or from dataset_info.json beside it."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        info = path.parent / "dataset_info.json"
        features = _json(info).get("features") if info.is_file() else None
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) else None
        if feature.get("_type") == "ClassLabel" if isinstance(feature, dict) else False:
            found[column] = [str(name) for name in names] if isinstance(names, list) else []
    return found


def image_column(file: Path) -> str:
    """Return the column whose images are taken where none is named; a `DataError` as of `from_byte_table`."""
    return _image_column(file, _heading(file), None)


def _image_column(source: Path, heading: _Heading, asked: str | None) -> str:
    columns = ", ".join(heading.images)
    if asked:
        if asked in heading.images:
            return asked
        check_asked_columns(source, heading.names, {"path": asked} if asked in heading.names else {}, {"path": asked})
        raise DataError(f"{source}: the column '{asked}' holds no bytes. Those that do: {columns or 'none'}.")
    if not heading.images:
        raise DataError(
            f"{source} has no column of image bytes, received: {', '.join(heading.names) or 'no columns'}. A table of "
            f"paths of files is a .csv."
        )
    usual = [name for name in heading.images if name.strip().lower() in _IMAGE_NAMES]
    if len(heading.images) > 1 and len(usual) != 1:
        raise DataError(f"{source}: several columns hold bytes ({columns}). Say which: --path-column NAME.")
    return usual[0] if usual else heading.images[0]


def _columns(source: Path, others: Sequence[str], heading: _Heading, asked: Mapping[str, str | None]) -> dict[str, str]:
    columns = choose_columns(others, asked, _COLUMN_NAMES)
    check_asked_columns(source, others, columns, asked)
    named = [name for name in heading.class_names if name in others]
    if "label" not in columns and len(named) == 1:
        columns["label"] = named[0]
    return columns


def _check_same(path: Path, first: str, heading: _Heading, column: str, columns: Mapping[str, str]) -> None:
    names = _schema(path).names
    if missing := [name for name in (column, *columns.values()) if name not in names]:
        raise DataError(f"{path} lacks the column {' and '.join(missing)}, which {first} has.")


# --- rows -----------------------------------------------------------------------------------------------------


def _rows(path: Path, columns: Mapping[str, str], image_column: str | None) -> Iterator[dict[str, Any]]:
    """Give role to value of each row; "path" is the one beside the bytes, where `image_column` is asked for it."""
    pyarrow = pyarrow_for(path)
    try:
        for batch in _batches(path, list(columns.values()), image_column, pyarrow):
            values = {role: batch.column(name).to_pylist() for role, name in columns.items()}
            if image_column and image_column in batch.schema.names:
                values["path"] = batch.column(image_column).field("path").to_pylist()
            for i in range(batch.num_rows):
                yield {role: of_role[i] for role, of_role in values.items()}
    except DataError:
        raise
    except Exception as error:  # as in `_schema`
        raise unreadable(path, error) from error


def _batches(path: Path, names: list[str], image_column: str | None, pyarrow: Any) -> Iterator[Any]:
    schema = _schema(path)
    kind = schema.field(image_column).type if image_column else None
    has_path = kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0
    if path.suffix.lower() in PARQUET_SUFFIXES:
        with pyarrow.parquet.ParquetFile(path) as file:
            # bytes are not read for their paths; with no columns at all the batches still have their rows
            wanted = [*names, f"{image_column}.path"] if has_path else names
            yield from file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted, use_threads=False)
        return
    wanted = [*names, str(image_column)] if has_path else names
    with pyarrow.memory_map(str(path)) as file:
        first_batch(file)
        fields = [schema.names.index(name) for name in dict.fromkeys(wanted)] or [0]
        options = pyarrow.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        yield from pyarrow.ipc.open_stream(file, options=options)


def _text(value: Any, role: str, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        raise DataError(f"{name}: the column of the {role} holds several values in a row, and one is expected.")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _class_name(number: str, names: Sequence[str], where: str) -> str:
    if not number or number == "-1":  # as Hugging Face writes "no label"
        return ""
    if number.isdigit() and int(number) < len(names):
        return composed(names[int(number)])
    raise DataError(f"{where}: the label is {number}, and there are names for 0 to {len(names) - 1} only.")
