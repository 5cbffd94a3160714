"""An HDF5 file whose changes reach the disk all or not at all.

HDF5 writes into a `JournalledFile`; a change that fails is taken back to the last commit. The file is a stranger's
until a child process has looked through it (`checks`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import h5py

from tlfeat.cache.checks import HDF5_MAGIC, check_structure, h5_errors, in_child
from tlfeat.cache.journal import READER_S, JournalledFile, journal_of
from tlfeat.cache.journal_format import set_aside
from tlfeat.cache.row_table import complete_chunks
from tlfeat.errors import CacheDamaged, CacheError, CacheLocked
from tlfeat.system import is_locked, turn, without_interrupts
from tlfeat.workspace import linked, remove_leftovers, sync_folder

#: HDF5 1.8's file format: checksummed headers, readable by every HDF5 since, no flag that a killed writer leaves set.
_LIBVER = ("v108", "v108")


class Hdf5File:
    """An open file with its journal; a context manager. `open_file` opens one.

    Attributes
    ----------
    path : Path
    content : h5py.File
        Another object after a change that failed: ask for it each time, inside `guard` or `changing`.
    is_beside_writer : bool
        Whether another process goes on writing the file, which is seen here as it was when it was opened.
    """

    def __init__(
        self, path: Path, content: h5py.File, journal: JournalledFile, *, is_beside_writer: bool = False
    ) -> None:
        self.path = path
        self.content = content
        self.is_beside_writer = is_beside_writer
        self._journal = journal
        self._is_torn = False  # a change failed half-way and could not be taken back

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notes(self) -> list[str]:
        """What the user should know of how it was opened."""
        aside = self._journal.set_aside
        if aside is None:
            return []
        return [f"{self.path.name}.journal belonged to another file; it was not applied, and is kept as {aside.name}"]

    @property
    def is_changeable(self) -> bool:
        """Whether it is open for writing, and sound."""
        return bool(self.content) and self.content.mode != "r" and not self._is_torn

    def close(self) -> None:
        """Close; what was not committed is lost."""
        with contextlib.suppress(Exception):
            self.content.close()
        self._journal.close()

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Touch HDF5 in the block: its errors and the journal's become `CacheError`, and Ctrl-C waits until it ends."""
        with h5_errors(self.path), without_interrupts():
            yield
            if self._journal.failure is not None:
                raise self._journal.failure

    @contextlib.contextmanager
    def changing(self) -> Iterator[h5py.File]:
        """Give the content to change, and take everything back to the last commit where the block fails."""
        if self._is_torn:
            raise CacheError(f"{self.path}: a change failed before; close the cache and open it again.")
        with self.guard():
            try:
                yield self.content
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        self._is_torn = True
        with contextlib.suppress(Exception):
            self.content.close()
        self._journal.discard()
        self.content = h5py.File(self._journal, "r+", libver=_LIBVER)
        self._is_torn = False

    @property
    def n_waiting_bytes(self) -> int:
        """Bytes that HDF5 has written since the last commit; they are held in memory."""
        return self._journal.n_dirty_bytes

    def commit(self) -> None:
        """Make every change so far permanent; call it inside `changing`."""
        self.content.flush()
        self._journal.commit()


def open_file(path: Path, *, is_writable: bool, has_rows: bool = True) -> Hdf5File:
    """Open a file after a child process has looked through it.

    A reader is let in beside a writer, and sees what was committed last when it came.

    Parameters
    ----------
    path : Path
    is_writable : bool
    has_rows : bool, default=True
        False looks at all but the rows, which must not be read then.
    """
    with contextlib.ExitStack() as opened, h5_errors(path):
        if not path.is_file():
            raise CacheError(f"{path} is not an HDF5 file: it is not a file at all.")
        is_beside_writer = not is_writable and is_locked(journal_of(path))
        try:
            journal = _beside_writer(path) if is_beside_writer else _alone(path, is_writable, has_rows)
        except BlockingIOError:
            if is_writable or is_beside_writer or not is_locked(journal_of(path)):
                raise
            journal, is_beside_writer = _beside_writer(path), True  # one that has begun meanwhile
        opened.enter_context(journal)
        with without_interrupts():
            content = _open_content(path, journal, is_writable=is_writable)
        opened.pop_all()
    return Hdf5File(path, content, journal, is_beside_writer=is_beside_writer)


def _alone(path: Path, is_writable: bool, has_rows: bool) -> JournalledFile:
    """Return a file that nobody writes, or that nobody else has open."""
    with contextlib.ExitStack() as opened:
        journal = opened.enter_context(JournalledFile(path, is_writable=is_writable))
        _check_beginning(path, journal)
        in_child(path, lambda: _check(path, journal, is_writable, has_rows), partial(_check_alone, path, has_rows))
        opened.pop_all()
    return journal


def _beside_writer(path: Path) -> JournalledFile:
    """Return a file as a writer committed it last, whatever that writes from now on.

    Only what it may change is kept in memory: rows that fill their chunk stay what and where they are.
    """
    with contextlib.ExitStack() as opened:
        with turn(path, READER_S, is_writer=False) as is_turn:
            if not is_turn:
                raise BlockingIOError("no turn came")
            started_s = time.monotonic()
            journal = opened.enter_context(JournalledFile(path, is_locked=False))
            _check_beginning(path, journal)
            rows_at = in_child(path, lambda: _rows_at(path, journal), partial(_rows_at_alone, path))
            journal.pin([(start, end) for start, end in rows_at])
        if time.monotonic() - started_s > READER_S:
            raise BlockingIOError("the writer did not wait so long")
        opened.pop_all()
    return journal


def _check_beginning(path: Path, journal: JournalledFile) -> None:
    if journal.read(len(HDF5_MAGIC)) != HDF5_MAGIC:
        raise CacheDamaged(f"{path} is not an HDF5 file, or its beginning is damaged.")


def _check(path: Path, journal: JournalledFile, is_writable: bool, has_rows: bool) -> None:
    with _open_content(path, journal, is_writable=is_writable) as content:
        check_structure(path, content, has_rows=has_rows)


def _check_alone(path: Path, has_rows: bool) -> None:
    with JournalledFile(path, is_locked=False) as journal:  # who asks for it holds the lock
        _check(path, journal, is_writable=False, has_rows=has_rows)


def _rows_at(path: Path, journal: JournalledFile) -> list[tuple[int, int]]:
    with _open_content(path, journal, is_writable=False) as content:
        check_structure(path, content)
        return complete_chunks(content["layers"])


def _rows_at_alone(path: Path) -> list[tuple[int, int]]:
    with JournalledFile(path, is_locked=False) as journal:  # who asks for it has its turn
        return _rows_at(path, journal)


def _open_content(path: Path, journal: JournalledFile, *, is_writable: bool) -> h5py.File:
    if is_writable or journal.n_dirty_bytes:
        return h5py.File(journal, "r+" if is_writable else "r", libver=_LIBVER)
    return h5py.File(path, "r", locking=False)  # faster; the lock is the journal's


def create_file(path: Path, attributes: Mapping[str, Any]) -> None:
    """Create a file without layers; it appears under its name only when it is whole.

    Raises
    ------
    CacheLocked
        Another process was faster.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with h5_errors(path), h5py.File(aside, "w", libver=_LIBVER) as content:
            for name, value in attributes.items():
                content.attrs[name] = value
            content.create_group("layers")
        with aside.open("rb+") as written:  # Windows syncs only what is open for writing
            os.fsync(written.fileno())
        with JournalledFile(aside, is_writable=True):  # nobody opens it before all this is done
            is_linked = _link(aside, path)
            if is_linked:
                set_aside(journal_of(path))  # of a file that was moved away without it
        if not is_linked:
            if path.exists():
                raise _created(path)
            set_aside(journal_of(path))
            aside.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise CacheError(f"Cannot create {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _link(aside: Path, path: Path) -> bool:
    try:
        return linked(aside, path)
    except FileExistsError as error:
        raise _created(path) from error


def _created(path: Path) -> CacheLocked:
    return CacheLocked(f"{path} was created by another process just now. Run it again.")
