"""Pieces of a large file, an archive or a table, read at their place as long as the file is the one that was listed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlfeat.errors import BadImage

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

#: A file modified this shortly before may change again within its time stamp's granularity.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it was when it was listed: by size, time and inode it is known to be the same one later."""

    path: Path
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> KnownFile:
        """Look at a file; an `OSError` where it is none."""
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        return cls(path, about.st_size, about.st_mtime_ns, about.st_ino)

    @property
    def is_settled(self) -> bool:
        """Whether its time stamp is old enough to tell a later change."""
        return time.time_ns() - self.mtime_ns > SETTLED_NS

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Give a descriptor of its own, so that any number of threads read at once.

        Raises
        ------
        BadImage
            The file is gone, cannot be read, or is not the one that was listed.
        """
        try:
            handle = os.open(self.path, _FLAGS)
        except OSError as error:
            raise BadImage(f"{self.path.name} cannot be read: {error.strerror or error}") from error
        try:
            about = os.fstat(handle)
            if (about.st_size, about.st_mtime_ns, about.st_ino) != (self.size, self.mtime_ns, self.inode):
                raise self.changed()
            yield handle
        except OSError as error:
            raise BadImage(f"{self.path.name} cannot be read: {error.strerror or error}") from error
        finally:
            os.close(handle)

    def changed(self) -> BadImage:
        """Return the error of a file that is another one by now."""
        return BadImage(f"{self.path.name} was changed while it was read; run the command again")

    def read(self, handle: int, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset`; a `BadImage` where the file ends before."""
        os.lseek(handle, offset, os.SEEK_SET)
        content = os.read(handle, n_bytes) if n_bytes else b""
        while len(content) < n_bytes:  # the system gives at most 2 GB at once
            more = os.read(handle, n_bytes - len(content))
            if not more:
                raise BadImage(f"{self.path.name} ends in the middle of it")
            content += more
        return content


def stamp(*what: object) -> int:
    """Return a number of 63 bits, above 0, that changes with any of `what`."""
    digest = hashlib.blake2b(repr(what).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) or 1


def mixed(base: int, place: int, more: int = 0) -> int:
    """Return a stamp of one of many pieces of what `base` is the stamp of; a tenth of the time of `stamp`."""
    return (base + place * 0x9E3779B97F4A7C15 + more * 0xC2B2AE3D27D4EB4F) % (1 << 63) or 1
