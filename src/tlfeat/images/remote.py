"""Images of a bucket or a web server: one listing, reads that are tried again, and a reason for what cannot be had.

A `RemoteStore` asks one of two kinds of `Remote`: a web server (`web_remote`), or whatever fsspec knows by its scheme
(`fsspec_remote`; S3 has faster reads, `s3_remote`). It opens that at the first use.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tlfeat.errors import BadImage, DataError
from tlfeat.images.decode import MAX_FILE_BYTES
from tlfeat.images.seen import Entry, Remote, Seen
from tlfeat.images.urls import WEB_SCHEMES, scheme_of
from tlfeat.images.web import Passing

#: Reads under way at once: a read waits 20 to 100 ms for a bucket, and a core embeds 50 to 100 images a second.
N_AHEAD = 48

#: Tries of one image, and seconds before the second one; each pause is twice the one before, up to the longest.
N_TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 6, 0.3, 8.0

#: After so many images in a row that could not be reached the server is taken to be gone.
_MOST_LOST = 100

#: After so many in a row a page leaves out its other pictures: each would be waited for 10 seconds.
_MOST_WAITED_FOR = 2


class RemoteStore:
    """The `stores.Store` of a URL that `urls.checked_url` returned."""

    n_ahead = N_AHEAD

    def __init__(self, url: str, remote: Remote | None = None) -> None:
        self.url = url
        self._remote = remote
        self._seen: Seen | None = None
        self._lock = threading.Lock()
        self._n_lost = 0  # in a row

    def __getstate__(self) -> str:
        return self.url  # what is open stays here: a worker elsewhere opens its own

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]

    def names(self) -> list[str]:
        """List what lies below the URL: the one listing of a run.

        Raises
        ------
        DataError
            Nothing there, no permission, no credentials, or no such server.
        """
        seen, remote = Seen(), self._opened()
        names = list(seen.names_of(remote.entries()))
        self._seen = seen if remote.lists_stamps else None
        return names

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        """Return size and stamp of each image by the listing; where there was none, they are asked for one by one."""
        if (seen := self._seen) is None:
            seen = self._seen = self._asked(paths)
        found = map(seen.get, paths)
        return [(size, stamp) if size >= 0 else (0, 0) for size, stamp in found]

    def read(self, path: str) -> bytes:
        """Return the bytes of one image; a `BadImage` where they cannot be had after several tries.

        Raises
        ------
        DataError
            A hundred images in a row could not be had: the server is gone, and the run may stop here.
        """
        size, stamp = self._seen.get(path) if self._seen is not None else (-1, 0)
        if size > MAX_FILE_BYTES:
            raise BadImage(f"too large: {size / 1e9:.1f} GB, the limit is {MAX_FILE_BYTES / 1e9:.1f} GB")
        remote, why, pause_s, lengths = self._opened(), "", FIRST_PAUSE_S, list[int]()
        for i in range(N_TRIES):
            try:
                data, found = remote.fetch(path, MAX_FILE_BYTES)
            except Passing as passing:
                why, after_s = str(passing), passing.after_s
            else:
                self._n_lost = 0
                if (size in (-1, len(data))) and (not stamp or not found or found == stamp):
                    return data
                lengths.append(len(data))
                if len(lengths) == 2:
                    raise BadImage("changed since it was listed" + _of_length(len(data), size))
                why, after_s = "not what was listed", 0.0
            if i + 1 < N_TRIES:
                time.sleep(max(after_s, pause_s * random.uniform(0.5, 1.5)))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._lose(why)
        raise BadImage(f"{why}; tried {N_TRIES} times")

    @property
    def is_gone(self) -> bool:
        """Whether the last images that were asked for could not be had, so that who can do without asks no more."""
        return self._n_lost >= _MOST_WAITED_FOR

    def _lose(self, why: str) -> None:
        self._n_lost += 1  # a count that threads may get wrong by a few
        if self._n_lost >= _MOST_LOST:
            raise DataError(
                f"{self.url}: {_MOST_LOST} images in a row could not be read ({why}). What is embedded is kept; run "
                f"the same command again when the server answers."
            )

    def _asked(self, paths: Sequence[str]) -> Seen:
        remote, seen = self._opened(), Seen()

        def ask(path: str) -> Entry:
            try:
                return remote.entry(path)
            except (Passing, BadImage):
                return path, -1, 0  # reading says why

        with ThreadPoolExecutor(N_AHEAD, thread_name_prefix="stamps") as pool:
            for _ in seen.names_of(_in_steps(pool, ask, paths)):
                pass
        return seen

    def _opened(self) -> Remote:
        with self._lock:
            if self._remote is None:
                self._remote = _remote_of(self.url)
            return self._remote


def _in_steps(pool: ThreadPoolExecutor, ask: object, paths: Sequence[str]) -> Iterable[Entry]:
    for start in range(0, len(paths), 4096):  # a future for each of a million is a gigabyte
        yield from pool.map(ask, paths[start : start + 4096])  # type: ignore[arg-type]


def _of_length(n_bytes: int, size: int) -> str:
    return f": {n_bytes:,} bytes in place of {size:,}" if size not in (-1, n_bytes) else ""


def _remote_of(url: str) -> Remote:
    if scheme_of(url) in WEB_SCHEMES:
        from tlfeat.images.web_remote import WebRemote

        return WebRemote(url)
    from tlfeat.images.fsspec_remote import FsspecRemote, open_files
    from tlfeat.images.s3_remote import S3Remote

    files = open_files(url)
    return S3Remote(url, files) if scheme_of(url) == "s3" else FsspecRemote(url, files)
