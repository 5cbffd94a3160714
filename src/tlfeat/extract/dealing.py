"""Who works on which shard, what becomes of a shard whose worker died, and which image killed it; no engine here."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: What is recorded of an image under which two workers died.
KILLED = "it killed the worker that decoded it, twice (not enough memory?)"

#: Workers that may die one after another under one shard, without an image more than the last.
MAX_DEATHS = 5

#: A shard that somebody else writes is tried again after so long, and given up where nothing else goes on for so long.
_BUSY_S, _PATIENCE_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class Deal:
    """One shard for one worker.

    Attributes
    ----------
    number : int
        Of the shard.
    mark : str
        Of this deal and no other.
    skipped : mapping of path to reason
        Images that are not to be read.
    is_careful : bool
        One image after another, since a worker died under this shard: what it dies of this time is known then.
    with_reference : bool
        Embed the reference images as well.
    """

    number: int
    mark: str
    skipped: Mapping[str, str] = field(default_factory=dict)
    is_careful: bool = False
    with_reference: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker has to say of a deal.

    Attributes
    ----------
    error, kind : str
        What went wrong, and the name of its class in `errors`; "" where nothing did.
    failures : list of (path, reason)
        The first ones of `n_failed`.
    cpu_s : float
        Processor time of the worker's process since its last outcome.
    """

    number: int
    n_images: int = 0
    n_embedded: int = 0
    n_known: int = 0
    n_failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    runtime: str = ""
    notes: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    kind: str = ""
    error: str = ""


@dataclass(slots=True)
class _Shard:
    """What is known of a shard that is not done."""

    n_images: int
    n_done: int = 0  # in the deal that goes on, or in the last one
    best: int = -1  # done in any deal before
    n_deaths: int = 0  # since then
    suspects: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    due_s: float = 0.0


class Dealer:
    """Deals shards until each is done or given up.

    Parameters
    ----------
    sizes : mapping of int to int
        Number of each shard to its images; large ones are dealt first.
    needs_reference : bool, default=False
        Whether the reference images are yet to be embedded.

    Attributes
    ----------
    given_up : dict of int to str
        Shards that cannot be finished, and why.
    """

    def __init__(self, sizes: Mapping[int, int], *, needs_reference: bool = False) -> None:
        self._shards = {number: _Shard(n) for number, n in sizes.items()}
        self._todo = deque(sorted(sizes, key=lambda number: (-sizes[number], number)))
        self._out: dict[int, Deal] = {}
        self._needs_reference = needs_reference
        self._idle_since_s: float | None = None
        self.given_up: dict[int, str] = {}
        self.n_finished = 0
        self.n_images_finished = 0
        self.n_deaths = 0

    @property
    def is_over(self) -> bool:
        """Whether no shard is left."""
        return not self._todo and not self._out

    @property
    def n_todo(self) -> int:
        """Shards that nobody works on."""
        return len(self._todo)

    @property
    def n_images_done(self) -> int:
        """Images of finished shards, and those that are known to be done in others."""
        return self.n_images_finished + sum(self._shards[number].n_done for number in self._out)

    def deal(self, now_s: float) -> Deal | None:
        """Return what a free worker is to do; None where there is nothing (yet)."""
        for number in self._todo:
            shard = self._shards[number]
            if shard.due_s <= now_s:
                break
        else:
            return None
        self._todo.remove(number)
        with_reference = self._needs_reference and not any(deal.with_reference for deal in self._out.values())
        mark = secrets.token_hex(8)
        deal = Deal(number, mark, dict(shard.skipped), shard.n_deaths > 0, with_reference)
        shard.n_done = 0
        self._out[number] = deal
        return deal

    def note_progress(self, deal: Deal, n_done: int) -> None:
        """Note how many images of a shard are done."""
        if self._out.get(deal.number) is deal:
            self._shards[deal.number].n_done = n_done

    def finish(self, deal: Deal, outcome: Outcome, now_s: float) -> None:
        """Take what a worker says: the shard is done, somebody else writes it, or it cannot be done."""
        del self._out[deal.number]
        if outcome.kind == "CacheLocked":
            self._put_back(deal.number, now_s, outcome.error)
        elif outcome.kind == "Interrupted":
            self._todo.appendleft(deal.number)
        elif outcome.error:
            self.given_up[deal.number] = outcome.error
        else:
            self._idle_since_s = None
            self.n_finished += 1
            self.n_images_finished += outcome.n_images
            self._needs_reference &= not (deal.with_reference and outcome.n_embedded)

    def _put_back(self, number: int, now_s: float, why: str) -> None:
        self._shards[number].due_s = now_s + _BUSY_S
        self._todo.append(number)
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        if now_s - self._idle_since_s > _PATIENCE_S and not self._out:
            self.given_up |= dict.fromkeys(self._todo, why)
            self._todo.clear()

    def lose(self, deal: Deal, under_way: Collection[str]) -> str:
        """Take a shard back whose worker died while it read these images; return the one that killed it, or "".

        An image is to blame where two workers died under it.
        """
        del self._out[deal.number]
        shard = self._shards[deal.number]
        self.n_deaths += 1
        to_blame = shard.suspects.intersection(under_way)
        shard.suspects.update(under_way)
        shard.n_deaths = 1 if shard.n_done > shard.best else shard.n_deaths + 1
        shard.best = max(shard.best, shard.n_done)
        blamed = ""
        if len(to_blame) == 1:
            (blamed,) = to_blame
            shard.skipped[blamed] = KILLED
            shard.suspects.clear()
            shard.n_deaths = 1
        if shard.n_deaths >= MAX_DEATHS:
            self.given_up[deal.number] = f"{shard.n_deaths} workers died under it one after another"
        else:
            self._todo.appendleft(deal.number)
        return blamed


class UnderWay:
    """Notes in a file which images the threads of a worker are decoding, for whoever finds the worker dead.

    A context manager; the file goes with it, unless the process does first.
    """

    _BYTES = 8192  # of a thread: longer than any path

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, int] = {}
        self._writing = threading.Lock()

    def __enter__(self) -> UnderWay:
        self._file = self._path.open("wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def note(self, path: str) -> None:
        """Note what this thread begins with; "" for nothing."""
        data = path.encode("utf-8", "surrogateescape")[: self._BYTES - 1] + b"\0"
        with self._writing:
            place = self._places.setdefault(threading.get_ident(), len(self._places))
            self._file.seek(self._BYTES * place)
            self._file.write(data)

    @classmethod
    def read(cls, path: Path) -> set[str]:
        """Return what was under way, and remove the file; nothing where there is none."""
        try:
            data = path.read_bytes()
            path.unlink()
        except OSError:
            return set()
        parts = [data[start : start + cls._BYTES].partition(b"\0")[0] for start in range(0, len(data), cls._BYTES)]
        return {part.decode("utf-8", "surrogateescape") for part in parts if part}
