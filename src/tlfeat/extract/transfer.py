"""Rows out of a cache for other tools, and rows of other encoders into one."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import Origin
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheError, DataError, UsageError
from tlfeat.files import check_regular
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.tables import read_table
from tlfeat.text import csv_cell
from tlfeat.types import Rows
from tlfeat.workspace import write_text, written_aside


def export_rows(
    cache_path: Path, to: Path, *, layer: str | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[int, int]:
    """Write the rows of one layer with their labels; the ending of `to` decides the form.

    Parameters
    ----------
    cache_path : Path
    to : Path
        ``.npz`` (arrays X, path, label, split, group, key, where there are domains domain), ``.csv``
        (those columns, then e0, e1, ...) or
        ``.parquet`` (the same; needs pyarrow).
    layer : str, optional
        `avg_pool` by default, or the only layer there is.
    say : callable, optional
        Called with what the user should know of how the cache was opened.

    Returns
    -------
    tuple of int
        Images and columns written. Images that failed are left out.
    """
    from tlfeat.cache.contents import choose_layers

    if to.suffix not in (".npz", ".csv", ".parquet"):
        raise UsageError(f"Export to {to.suffix or 'a file without ending'} is not known. Use .npz, .csv or .parquet.")
    with open_cache(cache_path) as cache:
        for note in cache.notes:
            say(note)
        name = choose_layers(cache, layer)[0]
        table = cache.table
        chosen = [i for i, status in enumerate(table.status) if status == "ok"]
        rows = cache.read(name, [table.keys[i] for i in chosen])
    images = table.images
    columns = {
        "path": [images.paths[i] for i in chosen],
        "label": [images.labels[i] for i in chosen],
        "split": [images.splits[i] for i in chosen],
        "group": [images.groups[i] for i in chosen],
        "key": [table.keys[i] for i in chosen],
    }
    if any(images.domains):
        columns["domain"] = [images.domains[i] for i in chosen]
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix == ".npz":
            text: dict[str, Any] = {column: np.array(values, dtype=str) for column, values in columns.items()}
            with written_aside(to) as aside:
                np.savez(aside, X=rows, **text)
        elif to.suffix == ".csv":
            _write_csv(to, columns, rows)
        else:
            _write_parquet(to, columns, rows)
    except OSError as error:
        raise DataError(f"Cannot write {to}: {error.strerror or error}.") from error
    return rows.shape[0], rows.shape[1]


def _write_csv(to: Path, columns: dict[str, list[str]], rows: Rows) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*columns, *(f"e{j}" for j in range(rows.shape[1]))])
    for text, row in zip(zip(*columns.values(), strict=True), rows, strict=True):
        writer.writerow([*map(csv_cell, text), *(format(value, ".9g") for value in row)])  # 9 digits restore a float32
    write_text(to, out.getvalue())


def _write_parquet(to: Path, columns: dict[str, list[str]], rows: Rows) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'tlfeat[parquet]'") from error
    table = {**columns, **{f"e{j}": rows[:, j] for j in range(rows.shape[1])}}
    try:
        with written_aside(to) as aside:
            pq.write_table(pa.table(table), aside)
    except UnicodeEncodeError as error:
        raise DataError(
            f"Parquet holds UTF-8 only, and the name or label {error.object!r} is not. Export to .csv or .npz."
        ) from error


def import_rows(rows_file: Path, table_file: Path, cache_path: Path, *, name: str, layer: str = "rows") -> int:
    """Make a cache of rows from any other encoder (text, speech, another vision model).

    Parameters
    ----------
    rows_file : Path
        ``.npy``, or ``.npz`` with one array or one called X: float rows of shape (n, width).
    table_file : Path
        CSV or TSV, one line a row of the array in its order: column label; optional path, split, group, domain.
    cache_path : Path
        Must not exist.
    name : str
        What the encoder is called in tables.
    layer : str, default="rows"

    Returns
    -------
    int
        Rows imported. A row's key is the sha256 of its bytes, so that equal rows stay on one side of a split.

    Raises
    ------
    DataError
        Shapes that do not fit together, values that are not finite, columns that are missing.
    """
    rows = _load_array(rows_file)
    lines = read_table(table_file, required=("label",)).lines
    if len(lines) != len(rows):
        raise DataError(f"{rows_file} has {len(rows):,} rows but {table_file} has {len(lines):,} lines.")
    if os.path.lexists(cache_path):
        raise UsageError(_exists_already(cache_path))
    keys = [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
    n = len(rows)
    images = ImageSet(
        root=table_file.resolve().parent,
        source=table_file.resolve(),
        paths=[line["path"] or f"row {i}" for i, line in enumerate(lines)],
        labels=[line["label"] for line in lines],
        splits=[line["split"] for line in lines],
        groups=[line["group"] for line in lines],
        domains=[line["domain"] for line in lines],
    )
    fingerprint = {"backbone": name, "weights": "imported", "dtype": "float32"}
    source = {"root": str(images.root), "source": str(images.source), "encoder": {"backbone": Origin.IMPORTED}}
    try:
        with written_aside(cache_path, is_new=True) as aside, create_cache(aside, fingerprint, source) as cache:
            cache.reserve({layer: rows.shape[1]}, n)
            for start in range(0, n, 4096):
                cache.append({layer: rows[start : start + 4096]}, keys[start : start + 4096])
            cache.write_table(ImageTable(images, keys, ["ok"] * n, [""] * n, [0] * n, [0] * n))
    except FileExistsError as error:
        raise UsageError(_exists_already(cache_path)) from error
    except OSError as error:
        raise CacheError(f"Cannot write {cache_path}: {error.strerror or error}.") from error
    return n


def _exists_already(path: Path) -> str:
    return f"{path} exists already. Name another --cache."


def _load_array(path: Path) -> Rows:
    try:
        check_regular(path)
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            names = loaded.files
            if len(names) != 1 and "X" not in names:
                raise DataError(f"{path} holds the arrays {', '.join(names)}; expected one, or one called X.")
            loaded = loaded["X" if "X" in names else names[0]]
    except (OSError, ValueError, EOFError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path} cannot be read as .npy or .npz: {why}.") from error
    if loaded.ndim != 2 or loaded.dtype.kind not in "fiu" or 0 in loaded.shape:
        raise DataError(f"{path}: expected numbers of shape (n, width), received {loaded.dtype} {loaded.shape}.")
    rows = np.ascontiguousarray(loaded, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise DataError(f"{path} holds NaN or infinity.")
    return rows
