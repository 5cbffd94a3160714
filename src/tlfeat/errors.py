"""The exception tree and each branch's exit code.

::

    TlfeatError            (never raised itself)
    ├── UsageError         exit code 2: the request cannot be understood
    └── KnownError         exit code 3: a known problem of the world, not of the request
        ├── DataError      images, labels, tables
        │   └── BadImage   one file that cannot be decoded; becomes a listed `Failure`
        ├── CacheError     an HDF5 cache that is unreadable, foreign or locked
        │   ├── CacheDamaged       what the file holds is not what was written
        │   ├── FingerprintError   the rows asked for were made by another encoder
        │   └── CacheLocked        another writer has it open
        ├── WeightsError   pretrained weights that are absent or do not fit
        ├── ClusterError   machines that cannot be reached, or do not see what they need
        ├── ModelError     a saved head or model that cannot be used
        ├── ShapeError     an array of another shape or dtype than stated
        └── Interrupted    Ctrl-C; what is done is kept (exit code 130, the shell's convention)

Anything else that escapes is a bug: traceback and exit code 1. A message says what was wrong, what was
received and what to do next; only ``cli`` turns it into a line on stderr.
"""

from __future__ import annotations

from collections.abc import Sequence


class TlfeatError(Exception):
    """Base of every error that tlfeat raises on purpose.

    Parameters
    ----------
    message : str
    add : sequence of str
        Words that mend it when they are added to the command; the command line shows the whole command.
    """

    exit_code = 3

    def __init__(self, message: str = "", *, add: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.add = tuple(add)


class UsageError(TlfeatError):
    """The request cannot be understood: an unknown name, options that contradict each other."""

    exit_code = 2


class KnownError(TlfeatError):
    """A known problem of the world: data, cache, weights, disk, network."""


class DataError(KnownError):
    """Images, labels or tables that cannot be used."""


class BadImage(DataError):
    """One file that cannot be decoded; the message is the reason, without the path."""


class CacheError(KnownError):
    """An HDF5 cache that is unreadable, foreign, incomplete or damaged."""


class CacheDamaged(CacheError):
    """What the file holds is not what was written; `repair_cache` keeps what is right of it."""


class FingerprintError(CacheError):
    """The rows asked for were made by another encoder than the cache holds."""


class CacheLocked(CacheError):
    """Another process is writing to the cache."""


class WeightsError(KnownError):
    """Pretrained weights that are absent, unreadable or do not fit the architecture."""


class ClusterError(KnownError):
    """Machines that cannot be reached, or do not see what they need."""


class ModelError(KnownError):
    """A saved head or Keras model that cannot be loaded or does not fit the input."""


class ShapeError(KnownError):
    """An array does not have the shape or dtype that the receiver states."""


class Interrupted(KnownError):
    """Stopped by Ctrl-C; the message says what is kept and how to go on."""

    exit_code = 130


def nearest(word: str, known: list[str] | tuple[str, ...], *, of: str) -> str:
    """Return "Did you mean ...?" for a misspelt `word`, or the `known` names where none is near.

    Parameters
    ----------
    word : str
        What was received.
    known : list of str
        What would have been accepted.
    of : str
        What the names are, in the plural, for the fallback sentence ("layers").
    """
    from difflib import get_close_matches

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    by_plain = {plain(name): name for name in known}
    near = get_close_matches(plain(word), by_plain, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{by_plain[near[0]]}'?"
    if len(known) <= 12:
        return f"Known {of}: {', '.join(known)}."
    return f"Known {of}, among others: {', '.join(known[:12])}."


def unknown_layer(name: str, known: Sequence[str], *, of: str) -> UsageError:
    """Return the error that names the nearest of the `known` layers."""
    return UsageError(
        f"No layer '{name}' in {of}. {nearest(name, ['avg_pool', *known], of='layers')} tlfeat layers lists all."
    )


def short_reason(error: Exception) -> str:
    """Return the first line of what a library raised, or the name of its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
