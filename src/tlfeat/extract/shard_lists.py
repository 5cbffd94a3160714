"""Which images belong to which shard, as files in the folder of the shards: one list for each.

::

    shards/lists/shard-00003-of-00064.lines     path, label, split, group, domain of each image, each ended by a NUL

Whoever writes them holds a bounded part of one listing in memory, whoever reads one has one shard.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tlfeat.errors import CacheError, UsageError
from tlfeat.images.image_set import ImageSet
from tlfeat.images.lines import Line, Names
from tlfeat.images.shards import MAX_SHARDS, Shard, shard_named, shard_of

#: Of the folder of lists within the folder of shards. It is there while somebody deals.
LISTS = "lists"

#: Images of a shard: as few openings and commits as are worth it, and as little to do again as may be.
_LEAST, _MOST = 500, 50_000

#: Shards for each worker, so that all end together.
_EACH = 4

#: With fewer images a worker does not pay for its start.
_FEWEST = 50

#: Lines that wait for their list, in all.
_BUFFER_BYTES = 32 << 20

_BLOCK_BYTES = 1 << 20

_N_FIELDS = len(Line._fields)


def lists_in(folder: Path) -> Path:
    """Return the folder of the lists."""
    return folder / LISTS


def list_of(folder: Path, shard: Shard) -> Path:
    """Return the list of a shard."""
    return (lists_in(folder) / shard.file_name).with_suffix(".lines")


def n_shards_in(folder: Path, asked: int | None) -> int | None:
    """Return into how many shards the caches in a folder cut their set; `asked` where there are none.

    Raises
    ------
    UsageError
        Another number was asked for, or one that nothing can be cut into.
    CacheError
        There are caches of two cuts.
    """
    if asked is not None and not 1 <= asked <= MAX_SHARDS:
        raise UsageError(f"--shards {asked}: there can be 1 to {MAX_SHARDS:,} shards.")
    found = {shard.n_shards for path in folder.iterdir() if (shard := shard_named(path.name))}
    if len(found) > 1:
        raise CacheError(
            f"{folder} holds shards of different cuts, into {' and into '.join(map(str, sorted(found)))}. Keep each "
            f"cut in a folder of its own."
        )
    held = next(iter(found), None)
    if held and asked not in (None, held):
        raise UsageError(f"{folder} holds {held:,} shards, and --shards asks for {asked:,}. Leave it out.")
    return held or asked


def choose_n_shards(n_images: int, n_workers: int) -> int:
    """Return into how many shards a new set is cut.

    Four for each worker and at most 50,000 images in one, but at least 500 in one; small sets are cut so that each
    worker has one of 50 images or more.
    """
    wanted = max(_EACH * n_workers, -(-n_images // _MOST))
    return max(1, min(wanted, max(n_images // _LEAST, min(n_workers, n_images // _FEWEST)), MAX_SHARDS))


def write_lists(lines: Iterable[Line], folder: Path, n_shards: int | None, n_workers: int) -> list[int]:
    """Write the list of each shard.

    Parameters
    ----------
    lines : iterable of Line
        Taken once, one by one.
    folder : Path
        Of the shards.
    n_shards : int, optional
        By default what `choose_n_shards` says, once all lines have gone by.
    n_workers : int

    Returns
    -------
    list of int
        Lines of shard 1, 2, ...

    Raises
    ------
    CacheError
        The disk is full, or the folder cannot be written.
    """
    try:
        lists_in(folder).mkdir(parents=True, exist_ok=True)
        for old in lists_in(folder).glob("*.lines"):
            old.unlink()
        if n_shards is None:
            every = lists_in(folder) / "all.lines"
            n_images = _write_all(lines, every)
            n_shards = choose_n_shards(n_images, n_workers)
            lines = _read_all(every)
        else:
            every = None
        counts = _deal(lines, folder, n_shards)
        if every is not None:
            every.unlink()
    except OSError as error:
        raise CacheError(f"Cannot write the lists in {lists_in(folder)}: {error.strerror or error}.") from error
    return [counts[number] for number in range(1, n_shards + 1)]


def _bytes_of(line: Line) -> bytes:
    return ("\0".join(line) + "\0").encode("utf-8", "surrogateescape")


def _write_all(lines: Iterable[Line], path: Path) -> int:
    n = 0
    with path.open("wb", buffering=_BLOCK_BYTES) as file:
        for n, line in enumerate(lines, start=1):  # noqa: B007
            file.write(_bytes_of(line))
    return n


def _read_all(path: Path) -> Iterator[Line]:
    rest = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            *fields, rest = (rest + block).split(b"\0")
            whole = len(fields) // _N_FIELDS * _N_FIELDS
            texts = [field.decode("utf-8", "surrogateescape") for field in fields[:whole]]
            yield from (Line(*texts[i : i + _N_FIELDS]) for i in range(0, whole, _N_FIELDS))
            rest = b"\0".join([*fields[whole:], rest])


def _deal(lines: Iterable[Line], folder: Path, n_shards: int) -> Counter[int]:
    """Append each line to the list of its shard, many at a time."""
    counts: Counter[int] = Counter()
    waiting: dict[int, list[bytes]] = {}
    n_bytes = 0
    for line in lines:
        number = shard_of(line.path, n_shards)
        written = _bytes_of(line)
        counts[number] += 1
        waiting.setdefault(number, []).append(written)
        n_bytes += len(written) + 40
        if n_bytes > _BUFFER_BYTES:
            _append(waiting, folder, n_shards)
            n_bytes = 0
    _append(waiting, folder, n_shards)
    return counts


def _append(waiting: dict[int, list[bytes]], folder: Path, n_shards: int) -> None:
    for number, parts in waiting.items():
        with list_of(folder, Shard(number, n_shards)).open("ab") as file:
            file.write(b"".join(parts))
    waiting.clear()


def read_list(folder: Path, shard: Shard, images: ImageSet, names: Names) -> ImageSet:
    """Return the images of one shard, in the order of a walk through their folders.

    Parameters
    ----------
    folder : Path
        Of the shards.
    shard : Shard
    images : ImageSet
        What the shards are of: root, source and store are taken, images are not.
    names : Names
        How labels are called.
    """
    try:
        data = list_of(folder, shard).read_bytes()
    except FileNotFoundError:
        data = b""  # no path has this shard's hash
    except OSError as error:
        raise CacheError(f"Cannot read {list_of(folder, shard)}: {error.strerror or error}.") from error
    fields = data.decode("utf-8", "surrogateescape").split("\0")[:-1]
    lines = [Line(*fields[i : i + _N_FIELDS]) for i in range(0, len(fields), _N_FIELDS)]
    found = [line._replace(label=name) for line in lines if (name := names.label_of(line.label)) is not None]
    if images.source == images.root:  # a folder; lines of a table stay in its order
        found.sort(key=lambda line: line.path.split("/"))
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in Line._fields]
    paths, labels, splits, groups, domains = columns
    return ImageSet(images.root, images.source, paths, labels, splits, groups, domains=domains, store=images.store)


def remove_lists(folder: Path) -> None:
    """Remove the lists, where nobody deals any more."""
    shutil.rmtree(lists_in(folder), ignore_errors=True)


def free_of_links(path: Path) -> Path:
    """Return an absolute path that other machines understand: that of the working folder stands before it."""
    return Path(os.path.abspath(path))  # noqa: PTH100  a mount point may be a link here and a folder there
