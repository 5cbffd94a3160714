"""Images in the cells of Parquet and Arrow files, read row group by row group: never a whole file.

The path of an image is the name of its part and its row, counted from 0: ``data/train-00000.parquet:17``. A cell is
bytes, or a struct of ``bytes`` and ``path`` as Hugging Face `datasets` writes it; without bytes it is the file of that
name below the folder.

Rows asked for in order are decoded once, however many threads ask. In Arrow files that are not compressed an image is
read at its place, without the rows beside it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tlfeat.errors import BadImage, DataError, UsageError, short_reason
from tlfeat.files import kept_inside
from tlfeat.images.decode import MAX_FILE_BYTES, read_file
from tlfeat.images.file_parts import KnownFile, mixed, stamp

PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
ARROW_SUFFIXES = frozenset({".arrow", ".feather", ".ipc", ".arrows"})

#: A row group up to the first is decoded at once, a larger one (pandas puts a million rows in one) in pieces of the
#: second; of the pieces the last ones are kept, two at least, since threads run a little apart.
_WHOLE_BYTES, _PIECE_BYTES, _KEPT_BYTES, _MOST_KEPT = 32 << 20, 16 << 20, 64 << 20, 32

#: A row group that declares more than this many times its size in the file is a bomb: images do not pack.
_MOST_PACKED = 200

#: What an Arrow file begins with; its batches follow as in a stream.
_ARROW_MAGIC = b"ARROW1"


def pyarrow_for(path: Path) -> Any:
    """Return pyarrow, or raise the one line that says how to install it."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"Reading {path.name} needs one more package: pip install 'tlfeat[parquet]'") from error
    return pyarrow


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error of a file that is damaged, or is what its name does not say."""
    return DataError(f"{path} is damaged or no {_kind(path)} file: {short_reason(error)}.")


def _kind(path: Path) -> str:
    return "Parquet" if path.suffix.lower() in PARQUET_SUFFIXES else "Arrow"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Decoded rows of a part that follow each other."""

    part: Any
    first: int
    cells: Any

    def has(self, part: Any, row: int) -> bool:
        return self.part is part and self.first <= row < self.first + len(self.cells)


class _Part(Protocol):
    """One file: `starts` are the rows at which decoding may begin, ending with the number of rows."""

    file: KnownFile
    stamp: int
    starts: list[int]

    def pieces(self, group: int) -> Iterator[Any]:
        """Give the cells of a row group, in order."""
        ...

    def direct(self, row: int) -> bytes | None:
        """Return the bytes of a row that lie in the file as they are; None where they have to be decoded."""
        ...

    def may_be_missing(self, row: int) -> bool:
        """Whether the row may have a path in place of bytes."""
        ...


class ByteTable:
    """The images of one column of a Parquet or Arrow file, or of all such files below a folder; a `Store`.

    Parameters
    ----------
    source : Path
        Absolute.
    column : str
        Which holds the bytes.
    """

    n_ahead = 0

    def __init__(self, source: Path, column: str) -> None:
        self.url = f"{source.as_uri()}#{quote(column)}"
        self._source = source
        self.folder = source.parent if source.suffix.lower() in PARQUET_SUFFIXES | ARROW_SUFFIXES else source
        self.column = column
        self._lock = threading.Lock()  # of the three below
        self._parts: dict[str, _Part | DataError] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._kept: deque[_Piece] = deque()
        self._streams: dict[str, tuple[int, int, Iterator[Any]]] = {}  # row group, next row, and its pieces

    def __reduce__(self) -> tuple[Any, ...]:  # for other processes
        return ByteTable, (self._source, self.column)

    def read(self, path: str) -> bytes:
        """Return the bytes of one cell, or of the file that it names."""
        name, row = _name_and_row(path)
        part = self._part(name)
        if not 0 <= row < part.starts[-1]:
            raise BadImage(f"{name} has {part.starts[-1]:,} rows")
        content = part.direct(row)
        if content is not None:
            return content
        content, named = self._cell(name, part, row)
        if content is None:
            return self._file(named)
        if len(content) > MAX_FILE_BYTES:
            raise BadImage(f"too large: {len(content) / 1e9:.1f} GB")
        return content

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return size and stamp of the part that a row lies in: a part that was not written again has the same rows."""
        found = []
        for path in paths:
            try:
                name, row = _name_and_row(path)
                part = self._part(name)
            except BadImage:
                found.append((0, 0))  # reading says why
                continue
            is_known = part.file.is_settled and row < part.starts[-1] and not part.may_be_missing(row)
            found.append((part.file.size, mixed(part.stamp, row)) if is_known else (0, 0))
        return found

    def file_of(self, path: str) -> Path:
        """Return the file that a row lies in."""
        return self.folder / _name_and_row(path)[0]

    def _part(self, name: str) -> _Part:
        with self._lock:
            part = self._parts.get(name)
            if part is None:
                if kept_inside(name) != name or Path(name).is_absolute():
                    raise BadImage("its path leads out of the folder")
                try:
                    part = _opened(self.folder / name, self.column)
                except DataError as error:
                    part = error
                self._parts[name] = part
                self._locks[name] = threading.Lock()
        if isinstance(part, DataError):
            raise BadImage(str(part).rstrip("."))
        return part

    def _cell(self, name: str, part: _Part, row: int) -> tuple[bytes | None, str]:
        with self._locks[name]:  # one thread decodes a piece, the others that need it wait
            piece = next((piece for piece in tuple(self._kept) if piece.has(part, row)), None)
            if piece is None:
                try:
                    piece = self._decoded(name, part, row)
                except MemoryError as error:
                    raise BadImage("not enough memory to read its row group") from error
                except Exception as error:  # a damaged file: pyarrow raises errors of its own, OSError and ValueError
                    self._streams.pop(name, None)
                    if isinstance(error, BadImage):
                        raise
                    raise BadImage(f"{name} is damaged: {short_reason(error)}") from error
        cell = piece.cells[row - piece.first]
        if not hasattr(piece.cells, "field"):
            return cell.as_py(), ""
        value = cell.as_py() or {}
        return value.get("bytes"), value.get("path") or ""

    def _decoded(self, name: str, part: _Part, row: int) -> _Piece:
        group = bisect_right(part.starts, row) - 1
        at, first, pieces = self._streams.get(name, (-1, 0, iter(())))
        if at != group or first > row:
            with part.file.opened():  # it is still the one that was listed
                at, first, pieces = group, part.starts[group], part.pieces(group)
        for cells in pieces:
            piece = _Piece(part, first, cells)
            first += len(cells)
            self._keep(piece)
            self._streams[name] = (group, first, pieces)
            if piece.has(part, row):
                if first >= part.starts[group + 1]:
                    del self._streams[name]
                return piece
        raise BadImage(f"{name} ends before its last row")

    def _keep(self, piece: _Piece) -> None:
        with self._lock:
            self._kept.append(piece)
            n_bytes = sum(kept.cells.nbytes for kept in self._kept)
            while len(self._kept) > _MOST_KEPT or (len(self._kept) > 2 and n_bytes > _KEPT_BYTES):
                n_bytes -= self._kept.popleft().cells.nbytes

    def _file(self, named: str) -> bytes:
        """Return the file that a cell without bytes names, if it lies below the folder."""
        path = Path(named)
        if not named:
            raise BadImage("its cell is empty")
        inside = self.folder / path
        if path.is_absolute() or kept_inside(named) != named or not inside.is_file():
            raise BadImage(f"its cell has no bytes, and there is no file '{named}' below {self.folder}")
        if not inside.resolve().is_relative_to(self.folder.resolve()):
            raise BadImage(f"its cell has no bytes, and '{named}' is a link that leads out of {self.folder}")
        return read_file(inside)


def _name_and_row(path: str) -> tuple[str, int]:
    name, _, row = path.rpartition(":")
    if not name or not (row.isascii() and row.isdigit()):
        raise BadImage("it is no row of a table")
    return name, int(row)


def _opened(path: Path, column: str) -> _Part:
    """Return a part, of which only headings are read."""
    pyarrow = pyarrow_for(path)
    try:
        return (_ParquetPart if path.suffix.lower() in PARQUET_SUFFIXES else _ArrowPart)(path, column, pyarrow)
    except DataError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


class _ParquetPart:
    def __init__(self, path: Path, column: str, pyarrow: Any) -> None:
        self.file = KnownFile.of(path)
        self.stamp = stamp(self.file.mtime_ns)
        self._column, self._pyarrow = column, pyarrow
        self.starts, self._n_at_once, self._nulls = [0], [], []
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise DataError(f"{path} has no column '{column}'.")
            for group in (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)):
                chunks = [group.column(i) for i in range(group.num_columns)]
                own = [c for c in chunks if c.path_in_schema == column or c.path_in_schema == f"{column}.bytes"]
                n_bytes = sum(c.total_uncompressed_size for c in own)
                if n_bytes > max(_WHOLE_BYTES, _MOST_PACKED * sum(c.total_compressed_size for c in own)):
                    raise DataError(f"{path} declares {n_bytes / 1e9:.1f} GB in a row group that is far smaller.")
                self.starts.append(self.starts[-1] + group.num_rows)
                share = 1.0 if n_bytes <= _WHOLE_BYTES else _PIECE_BYTES / n_bytes
                self._n_at_once.append(max(1, int(group.num_rows * share)))
                self._nulls.append(any(c.statistics is not None and c.statistics.null_count for c in own))

    def pieces(self, group: int) -> Iterator[Any]:
        # read through a small buffer: the pages of a large row group are not all held at once
        with self._pyarrow.parquet.ParquetFile(self.file.path, pre_buffer=False, buffer_size=1 << 20) as file:
            batches = file.iter_batches(
                batch_size=self._n_at_once[group], row_groups=[group], columns=[self._column], use_threads=False
            )
            for batch in batches:
                yield batch.column(0)

    def direct(self, row: int) -> bytes | None:
        return None

    def may_be_missing(self, row: int) -> bool:
        return bool(self._nulls[bisect_right(self.starts, row) - 1])


@dataclass(frozen=True, slots=True)
class _Batch:
    """Where the offsets (of `width` bytes) and the bytes of a record batch lie; `width` is 0 if it is compressed."""

    has_nulls: bool
    offsets_at: int
    data_at: int
    width: int


class _ArrowPart:
    def __init__(self, path: Path, column: str, pyarrow: Any) -> None:
        self.file = KnownFile.of(path)
        self.stamp = stamp(self.file.mtime_ns)
        self._pyarrow, self.starts = pyarrow, [0]
        self._batches: list[_Batch] = []
        self._reader: Any = None
        self._next = 0  # batch of the reader
        with pyarrow.memory_map(str(path)) as file:  # of which only headings are touched
            begin = file.read_buffer(1).address
            self._first = first_batch(file)
            names = pyarrow.ipc.open_stream(file).schema.names
            if column not in names:
                raise DataError(f"{path} has no column '{column}'.")
            self._options = pyarrow.ipc.IpcReadOptions(included_fields=[names.index(column)], use_threads=False)
            file.seek(self._first)
            for batch in pyarrow.ipc.open_stream(file, options=self._options):
                self.starts.append(self.starts[-1] + batch.num_rows)
                self._batches.append(_batch_of(batch.column(0), begin, self.file.size, pyarrow))

    def pieces(self, group: int) -> Iterator[Any]:
        ipc = self._pyarrow.ipc
        if self._first:  # a file has a table of its batches, a stream is read on from where it stands
            with self._pyarrow.OSFile(str(self.file.path)) as file:
                yield ipc.open_file(file, options=self._options).get_batch(group).column(0)
            return
        if self._reader is None or self._next > group:
            self._reader = ipc.open_stream(self._pyarrow.OSFile(str(self.file.path)), options=self._options)
            self._next = 0
        batch = None
        while self._next <= group:
            batch = self._reader.read_next_batch()
            self._next += 1
        if batch is not None:
            yield batch.column(0)

    def direct(self, row: int) -> bytes | None:
        group = bisect_right(self.starts, row) - 1
        batch = self._batches[group]
        if batch.has_nulls or not batch.width:
            return None
        place = batch.offsets_at + batch.width * (row - self.starts[group])
        with self.file.opened() as handle:
            ends = self.file.read(handle, place, 2 * batch.width)
            start, end = (int.from_bytes(ends[i : i + batch.width], "little") for i in (0, batch.width))
            if not 0 <= end - start <= MAX_FILE_BYTES:
                raise BadImage(f"too large: {(end - start) / 1e9:.1f} GB")
            return self.file.read(handle, batch.data_at + start, end - start)

    def may_be_missing(self, row: int) -> bool:
        return self._batches[bisect_right(self.starts, row) - 1].has_nulls


def first_batch(file: Any) -> int:
    """Return where the stream of an Arrow file begins, and go there."""
    file.seek(0)
    start = 8 if file.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC else 0
    file.seek(start)
    return start


def _batch_of(cells: Any, begin: int, size: int, pyarrow: Any) -> _Batch:
    kinds = pyarrow.types
    has_nulls = cells.null_count > 0
    if kinds.is_struct(cells.type):
        cells = cells.field("bytes")
        has_nulls = has_nulls or cells.null_count > 0
    width = 4 if kinds.is_binary(cells.type) else 8 if kinds.is_large_binary(cells.type) else 0
    if not width or not len(cells) or cells.offset:
        return _Batch(has_nulls, 0, 0, 0)
    _, offsets, data = cells.buffers()
    places = [buffer.address - begin if buffer is not None else -1 for buffer in (offsets, data)]
    if not all(0 <= place < size for place in places):  # it was unpacked into memory
        return _Batch(has_nulls, 0, 0, 0)
    return _Batch(has_nulls, places[0], places[1], width)
