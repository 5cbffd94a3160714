"""A file whose changes reach the disk all or not at all, for HDF5 to live on.

HDF5 changes headers and indexes in place, so a writer that dies in between leaves a file that nothing can open. Here
its writes collect in memory, in pages; `JournalledFile.commit` then

1. reserves room for what the file grows by, so that a full disk shows before anything has changed,
2. writes all pages to ``FILE.journal``, with a checksum, and waits until they are on the disk,
3. writes them to the file and waits again,
4. empties the journal.

Death before 2 ends leaves the file as it was; death after it leaves a journal that the next one to open the file
applies. Applying it twice does no harm, and applying it to another file is refused (`journal_format`).

A writer keeps others out for as long as it has the file open, and its journal locked: that says that it takes turns
(`system.turn`). In a turn of its own, between two commits, a reader may look at the file beside it, and `pin` what the
writer may change afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Self

from tlfeat import system
from tlfeat.cache.journal_format import PAGE_BYTES as _PAGE_BYTES
from tlfeat.cache.journal_format import beginning, is_unfinished, read_journal, set_aside
from tlfeat.workspace import sync_folder

#: The child process of a writer that was killed holds its lock until the child has ended too.
_LOCK_PATIENCE_S = 0.5

#: How long a writer waits for readers that look at the file. One that was stopped in the middle finds that it took
#: longer than `READER_S`, and gives up what it saw.
_WRITER_PATIENCE_S, READER_S = 20.0, 10.0

#: Pages that are written to the journal at once: 1 MiB, so that a commit does not hold all it writes a second time.
_RUN_PAGES = 256

_O_BINARY = getattr(os, "O_BINARY", 0)

#: A journal is never written through a link.
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)

#: What a full disk, a quota and a limit on file sizes say.
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


class JournalledFile:
    """A file object for h5py's ``fileobj`` driver; `commit` makes what was written so far permanent, as one.

    Parameters
    ----------
    path : Path
    is_writable : bool, default=False
        Only one process can have it open for writing, and none beside it for reading. Without it nothing on the
        disk is changed: a journal that a killed writer left is read as if it had been applied.
    is_locked : bool, default=True
        False where another process holds the lock and waits for this one.

    Raises
    ------
    OSError
        `BlockingIOError` where another process has it open.

    Attributes
    ----------
    set_aside : Path or None
        Where the journal of another file lies now that had the name of this one's; a reader leaves it where it is.

    Notes
    -----
    HDF5 crashes when a callback raises, so reading and writing never do: `failure` holds what went wrong.
    """

    def __init__(self, path: Path, *, is_writable: bool = False, is_locked: bool = True) -> None:
        self.path = path
        self.journal_path = journal_of(path)
        self.failure: Exception | None = None
        self.set_aside: Path | None = None
        self._is_writable = is_writable
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self._journal = -1
        self._is_named = False  # the journal's name is on the disk
        self._is_used = False  # something was in the journal
        self._is_sealed = False  # the journal holds `_pages`; they may be half applied
        self._file = os.open(path, (os.O_RDWR if is_writable else os.O_RDONLY) | _O_BINARY)
        try:
            if is_locked:
                system.lock_within(self._file, _LOCK_PATIENCE_S, is_exclusive=is_writable)
            self._size = self._disk_size = self._base_size = os.fstat(self._file).st_size
            self._recover()
            if is_writable:
                self._let_readers_in()
        except BaseException:
            self._close_files()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> None:
        found = read_journal(self.journal_path)
        if found is not None and found.is_of(self._read_file, os.fstat(self._file)):
            self._size, self._pages = found.size, found.pages
            if self._is_writable:
                self._open_journal()
                self._is_sealed = self._is_used = True
                with self._turn():
                    self._apply()
        elif self._is_writable and (found is not None or not is_unfinished(self.journal_path)):
            self.set_aside = set_aside(self.journal_path)

    def _let_readers_in(self) -> None:
        """Lock the journal, where turns can be taken: who finds it locked may look at the file in its turn."""
        with self._turn() as is_turn:
            journal = self._open_journal()
            if is_turn:
                with contextlib.suppress(BlockingIOError):
                    system.lock_within(journal, _LOCK_PATIENCE_S, is_exclusive=True)

    def _turn(self) -> contextlib.AbstractContextManager[bool]:
        return system.turn(self.path, _WRITER_PATIENCE_S, is_writer=True)

    def close(self) -> None:
        """Forget what was not committed, remove the journal and give up the lock."""
        try:
            if self._is_writable and self._file >= 0:
                with self._turn():
                    self._end_writing()
        finally:
            self._close_files()

    def _end_writing(self) -> None:
        if self._is_sealed:
            self._apply()
        if self._journal >= 0:
            if self._is_used:
                os.fsync(self._journal)  # empty for good: it must not come back and be applied to another file
            system.unlock(self._journal)
            os.close(self._journal)
            self._journal = -1
        self.journal_path.unlink(missing_ok=True)

    def _close_files(self) -> None:
        for handle in (self._file, self._journal):
            if handle >= 0:
                system.unlock(handle)  # forked children may hold the descriptor
                os.close(handle)
        self._file = self._journal = -1

    # --- the file object --------------------------------------------------------------------------------

    @property
    def n_dirty_bytes(self) -> int:
        """Bytes that wait for `commit`."""
        return len(self._pages) * _PAGE_BYTES

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`, from the start, from here or from the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` from here; zeros and `failure` where the disk cannot be read."""
        view = memoryview(buffer).cast("B")
        start, end = self._at, min(self._at + len(view), self._size)
        self._at = max(start, end)
        if end <= start:
            return 0
        try:
            view[: end - start] = self._read_disk(start, end - start)
        except OSError as error:
            self.failure = error
            view[: end - start] = bytes(end - start)
        if self._pages:
            for number, page_at, low, high in _pages_of(start, end):
                if number in self._pages:
                    view[low - start : high - start] = self._pages[number][low - page_at : high - page_at]
        return end - start

    def read(self, n: int = -1) -> bytes:
        """Return `n` bytes from here, or all."""
        buffer = bytearray(max(self._size - self._at, 0) if n < 0 else n)
        return bytes(buffer[: self.readinto(buffer)])

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Put `data` here, in memory."""
        view = memoryview(data).cast("B")
        start, end = self._at, self._at + len(view)
        for number, page_at, low, high in _pages_of(start, end):
            if number not in self._pages:
                is_whole = high - low == _PAGE_BYTES
                self._pages[number] = bytearray(_PAGE_BYTES) if is_whole else self._disk_page(number)
            self._pages[number][low - page_at : high - page_at] = view[low - start : high - start]
        self._at, self._size = end, max(self._size, end)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut off or extend with zeros, in memory."""
        size = self._at if size is None else size
        if size < self._size:
            last, n_kept = divmod(size, _PAGE_BYTES)
            for number in [number for number in self._pages if number > last]:
                del self._pages[number]
            if last in self._pages:
                self._pages[last][n_kept:] = bytes(_PAGE_BYTES - n_kept)
            self._base_size = min(self._base_size, size)
        self._size = size
        return size

    def flush(self) -> None:
        """Do nothing: `commit` is what makes changes permanent."""

    # --- beside a writer ---------------------------------------------------------------------------------

    def pin(self, unchanging: Sequence[tuple[int, int]]) -> None:
        """Keep everything in memory but these stretches of bytes, from start to end, which no writer changes."""
        done = 0
        for start, end in [*sorted(unchanging), (self._size, self._size)]:
            for number in range(done, -(-start // _PAGE_BYTES)):
                if number not in self._pages:
                    self._pages[number] = bytearray(self._read_disk(number * _PAGE_BYTES, _PAGE_BYTES))
            done = max(done, end // _PAGE_BYTES, -(-start // _PAGE_BYTES))

    # --- all or nothing ---------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything written so far permanent.

        Raises
        ------
        OSError
            Nothing has changed on the disk; or, where the file could not be written although there was room, the
            journal stays and is applied by the next one to open the file.
        """
        if self.failure is not None:
            raise self.failure
        for number, *_ in _pages_of(self._base_size, self._size):  # what it grew by, written or not
            if number not in self._pages:
                self._pages[number] = self._disk_page(number)
        if not self._pages and self._size == self._disk_size:
            return
        with self._turn():
            try:
                self._reserve()
                self._write_journal()
            except BaseException:
                with contextlib.suppress(OSError):
                    if self._journal >= 0:
                        os.ftruncate(self._journal, 0)
                    os.ftruncate(self._file, self._disk_size)
                raise
            self._is_sealed = True
            self._apply()

    def discard(self) -> None:
        """Forget what was not committed."""
        if self._is_sealed:
            with self._turn():
                self._apply()
        self._pages.clear()
        self.failure = None
        self._size = self._base_size = self._disk_size

    def _reserve(self) -> None:
        if self._size > self._disk_size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file, self._disk_size, self._size - self._disk_size)
            except OSError as error:
                if error.errno in FULL:
                    raise

    def _write_journal(self) -> None:
        self._is_used = True
        numbers = sorted(self._pages)
        journal, digest, end = self._open_journal(), hashlib.sha256(), 0
        pieces = [beginning(self._read_file, self._disk_size, self._size, self._pages)]
        runs = (numbers[i : i + _RUN_PAGES] for i in range(0, len(numbers), _RUN_PAGES))
        for piece in chain(pieces, (b"".join(self._pages[number] for number in run) for run in runs)):
            digest.update(piece)
            _write_at(journal, piece, end)
            end += len(piece)
        _write_at(journal, digest.digest(), end)
        os.fsync(journal)
        if not self._is_named:
            sync_folder(self.journal_path.parent)
            self._is_named = True

    def _apply(self) -> None:
        for number, page in self._pages.items():
            start = number * _PAGE_BYTES
            _write_at(self._file, page[: max(self._size - start, 0)], start)
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        os.ftruncate(self._open_journal(), 0)
        self._is_sealed = False
        self._pages.clear()
        self._disk_size = self._base_size = self._size

    def _open_journal(self) -> int:
        if self._journal < 0:
            self._journal = os.open(self.journal_path, os.O_RDWR | os.O_CREAT | _O_BINARY | _O_NOFOLLOW, 0o666)
        return self._journal

    def _read_disk(self, start: int, n: int) -> bytes:
        """Return `n` bytes of the committed file; zeros where it was cut off."""
        return self._read_file(start, max(min(n, self._base_size - start), 0)).ljust(n, b"\0")

    def _read_file(self, start: int, n: int) -> bytes:
        """Return `n` bytes of the file on the disk; zeros beyond its end."""
        os.lseek(self._file, start, os.SEEK_SET)
        parts, n_left = [], n
        while n_left > 0 and (part := os.read(self._file, n_left)):
            parts.append(part)
            n_left -= len(part)
        return b"".join(parts).ljust(n, b"\0")

    def _disk_page(self, number: int) -> bytearray:
        try:
            return bytearray(self._read_disk(number * _PAGE_BYTES, _PAGE_BYTES))
        except OSError as error:
            self.failure = error
            return bytearray(_PAGE_BYTES)


def journal_of(path: Path) -> Path:
    """Where the journal of `path` lies."""
    return path.with_name(f"{path.name}.journal")


def _pages_of(start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Number, first byte, and the part within [start, end) of every page there."""
    return [
        (at // _PAGE_BYTES, at, max(start, at), min(end, at + _PAGE_BYTES))
        for at in range(start - start % _PAGE_BYTES, end, _PAGE_BYTES)
    ]


def _write_at(file: int, data: bytes | bytearray, at: int) -> None:
    os.lseek(file, at, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
