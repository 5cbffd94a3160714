"""Where things lie: everything that is written goes under ``cache/`` unless an option says otherwise."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tlfeat.errors import CacheError, DataError
from tlfeat.files import read_regular
from tlfeat.system import is_running

CACHE_DIR = Path("cache")

#: Networks converted for the fast runtime; safe to delete, they are made again.
NETWORKS_DIR = CACHE_DIR / "networks"

#: Images decoded for training; safe to delete, they are decoded again.
PIXELS_DIR = CACHE_DIR / "pixels"

#: What crosses the cut between frozen and trainable layers; safe to delete, it is computed again.
CUTS_DIR = CACHE_DIR / "cuts"

#: Which images show one picture; safe to delete, it is found again.
COPIES_DIR = CACHE_DIR / "copies"


#: Names the shards in a folder, which are one cache then.
MANIFEST = "manifest.json"

#: Of the cache of a shard; by itself it is none that a command should take.
_SHARD = re.compile(r"shard-\d{5}-of-\d{5}\.h5")

#: What is not whole yet: ``.NAME.PID.tmp`` and the ending of NAME, of a cache with its journal; before 0.2, and of the
#: built-in example, a name of eight random letters.
_ASIDE = re.compile(r"\..+\.(?P<pid>\d{1,9})\.(tmp|salvaged)(\..+)?|\.(.+-|converting|exporting)[a-z0-9_]{8}")

#: What has not changed for this long is left over where its process is gone: on a disk of several machines it may be
#: a process of another one, which goes on writing.
_GONE_S = 60.0

#: The same where a process of that number runs, which may be another one by now, and where no number is known.
_SETTLED_S = 3600.0

#: The time stamps of the coarsest file system, FAT, are so far apart.
_TICK_NS = 2_000_000_000

#: Of a Result of a million test images; as Python objects JSON takes up to twenty times its size.
_MAX_JSON_BYTES = 256 << 20


def digest(document: Mapping[str, Any], n_digits: int = 8) -> str:
    """Return the first hexadecimal digits of the sha256 of a JSON document with sorted keys."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:n_digits]


def baseline_cache_path(cache: Path) -> Path:
    """Return where the raw pixels of the images of `cache` lie: a folder down, so as never to be the newest cache."""
    return CACHE_DIR / "baseline" / f"{cache.stem}-pixels.h5"


def newest_cache() -> Path:
    """Return the cache that `extract` ended with last.

    Raises
    ------
    CacheError
        There is none; the message says how to make one.
    """
    found = _caches(CACHE_DIR)
    if not found:
        raise CacheError(
            f"No cache under {CACHE_DIR}/ of {Path.cwd()}. Make one with: tlfeat extract DATA "
            f"(without DATA: the built-in example), or name one with --cache FILE.h5."
        )
    return found[0]


def known_caches() -> list[Path]:
    """Return the caches under ``cache/``, the newest first."""
    return _caches(CACHE_DIR)


def make_newest(cache: Path) -> None:
    """Make `cache` the newest, also after the clock was set back, when others are of a time that has yet to come."""
    cache.touch()
    latest_ns = max((path.stat().st_mtime_ns for path in other_caches(cache)), default=0)
    if latest_ns >= cache.stat().st_mtime_ns:
        os.utime(cache, ns=(latest_ns + _TICK_NS, latest_ns + _TICK_NS))


def other_caches(cache: Path) -> list[Path]:
    """Return the caches under ``cache/`` and beside `cache`, the newest of each folder first."""
    found = {path.resolve(): path for folder in (CACHE_DIR, cache.parent) for path in _caches(folder)}
    found.pop(cache.resolve(), None)
    return list(found.values())


def _caches(folder: Path) -> list[Path]:
    """Return the caches in a folder, the newest first: files, and folders of shards that are joined."""
    found = [path for path in folder.glob("*.h5") if not path.name.startswith(".") and not _SHARD.fullmatch(path.name)]
    found += [path.parent for path in folder.glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def models_dir(cache: Path) -> Path:
    """Return the folder of the models fitted on a cache, beside it."""
    return _home(cache) / "models" / cache.stem


def models_dirs(cache: Path) -> list[Path]:
    """Return where models of a cache may be: beside it, and where 0.1 kept those of every cache."""
    folders = (models_dir(cache), CACHE_DIR / "models" / cache.stem)
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def training_state_path(model: Path) -> Path:
    """Return where the state of training is kept until `model` is there."""
    return CACHE_DIR / "training" / f"{model.parent.name}-{model.name}.npz"


def export_file(model: Path, suffix: str) -> Path:
    """Return where a saved model is exported to: a name of data, backbone, head and layer."""
    return CACHE_DIR / "exports" / f"{safe_name(model.parent.name)}-{model.name}{suffix}"


def report_dir(cache: Path) -> Path:
    """Return the folder of the reports on a cache, beside it."""
    return _home(cache) / "reports" / cache.stem


def _home(cache: Path) -> Path:
    """Return the folder of a cache, or ``cache/`` where that folder cannot be written to."""
    return cache.parent if os.access(cache.parent, os.W_OK) else CACHE_DIR


@contextmanager
def written_aside(path: Path, *, is_new: bool = False) -> Iterator[Path]:
    """Give a place to write a file or fill a folder in; it gets its name, on the disk, when it is whole.

    Parameters
    ----------
    path : Path
        What it is called at the end. What was there is replaced.
    is_new : bool, default=False
        Of a file: raise `FileExistsError` where something has the name by then.

    Yields
    ------
    Path
        Beside `path`, with the same ending; nothing lies there yet. It is gone after an error, Ctrl-C included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    before = path.with_name(f".{path.stem}.before.{os.getpid()}.tmp{path.suffix}")
    remove(aside)
    try:
        yield aside
        _sync(aside)
        if is_new:
            if not linked(aside, path):
                if path.exists():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
                aside.replace(path)
        else:
            if aside.is_dir() and path.exists():
                remove(before)
                path.replace(before)  # at once: a folder that is removed file by file is there in part
            aside.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # what is still open on Windows is left over until the next time
            remove(aside)
        if not path.exists() and before.exists():
            before.replace(path)
        with suppress(OSError):
            remove(before)


def linked(file: Path, name: Path) -> bool:
    """Give a file a second name; unlike a rename that is a `FileExistsError` where something has the name by then.

    False where the file system has no hard links.
    """
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Make a file last, or all files of a folder and their names."""
    if not path.is_dir():
        _sync_file(path)
        return
    for inside in path.iterdir():
        if inside.is_file() or inside.is_dir():
            _sync(inside)
    sync_folder(path)


@contextmanager
def written_together(file: Path) -> Iterator[Path]:
    """Give a place to write a file and others beside it; where the file is, all are, on the disk.

    Parameters
    ----------
    file : Path
        What gets its name last.

    Yields
    ------
    Path
        The same name in an empty folder, whose files are moved beside `file` at the end; after an error none is.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(file)
    aside = file.with_name(f".{file.stem}.{os.getpid()}.tmp")
    remove(aside)
    try:
        aside.mkdir()
        new = aside / file.name
        yield new
        for path in (*sorted(path for path in new.parent.iterdir() if path != new), new):
            _sync_file(path)
            path.replace(file.parent / path.name)
        sync_folder(file.parent)
    finally:
        with suppress(OSError):
            remove(aside)


def is_aside(path: Path) -> bool:
    """Whether something has the name of what is not whole yet."""
    return _ASIDE.fullmatch(path.name) is not None


def is_left_over(path: Path) -> bool:
    """Whether something is not whole and nobody works on it any more: it was being written by what was killed."""
    found = _ASIDE.fullmatch(path.name)
    if found is None:
        return False
    is_gone = found["pid"] is not None and not is_running(int(found["pid"]))
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    try:
        changed_s = max(float(each.lstat().st_mtime) for each in (path, *inside))
    except OSError:  # gone by now
        return False
    return changed_s < time.time() - (_GONE_S if is_gone else _SETTLED_S)


def remove_leftovers(path: Path) -> None:
    """Remove what earlier processes left that were killed while they wrote `path`; names without a number stay."""
    for other in path.parent.glob(f".{glob.escape(path.stem)}.*"):
        found = _ASIDE.fullmatch(other.name)
        if found is not None and found["pid"] is not None and is_left_over(other):
            with suppress(OSError):
                remove(other)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last; Windows cannot open one, and needs no such thing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder aside and rename it, so that it is there whole or not at all."""
    try:
        with written_aside(folder) as aside:
            aside.mkdir()
            fill(aside)
    except OSError as error:
        raise CacheError(f"Cannot write {folder}: {error.strerror or error}.") from error


def safe_name(name: str) -> str:
    """Return a name that any file system takes, at most 60 characters long."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:60] or "data"


def write_json(path: Path, document: object) -> None:
    """Write `document` aside and rename, so that a reader never sees half a file."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def write_forms(folder: Path, name: str, **forms: Any) -> dict[str, Path]:
    """Write NAME.ENDING into `folder` for each form, a text or values for JSON, and return the paths by ending."""
    paths = {ending: folder / f"{name}.{ending}" for ending in forms}
    for ending, form in forms.items():
        write_text(paths[ending], form) if isinstance(form, str) else write_json(paths[ending], form)
    return paths


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 aside and rename; names that are not valid UTF-8 survive."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_json(path: Path, *, max_bytes: int = _MAX_JSON_BYTES) -> Any:
    """Read a JSON file that may be a stranger's.

    Raises
    ------
    FileNotFoundError
    DataError
        It is no regular file in its folder, is larger than `max_bytes`, or is not JSON; with the place where it breaks.
    """
    try:
        content = read_regular(path, max_bytes=max_bytes, within=path.parent)
        return json.loads(content.decode("utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deep.") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
