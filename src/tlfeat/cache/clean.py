"""What lies under ``cache/`` and can be made again: how large it is, and removing it.

Rows, models, reports, curves, exports and the state of stopped trainings are never among it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlfeat import workspace
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError, CacheLocked


@dataclass(frozen=True, slots=True)
class Leftover:
    """One kind of file that can be made again.

    Attributes
    ----------
    what : str
        In words, with what makes it again.
    paths : list of Path
        Files and folders.
    n_bytes : int
    """

    what: str
    paths: list[Path]
    n_bytes: int


def find_leftovers() -> list[Leftover]:
    """Return what can be made again under ``cache/``, the largest first; what is in use is left out."""
    root = workspace.CACHE_DIR
    kinds = {
        "outputs of frozen layers (cuts; fit-keras computes them again)": _in(workspace.CUTS_DIR),
        "decoded images (pixels; fit-keras decodes them again)": _in(workspace.PIXELS_DIR),
        "converted networks (networks; extract converts them again)": _in(workspace.NETWORKS_DIR),
        "which images are copies (copies; found again)": _in(workspace.COPIES_DIR),
        "maps of embeddings (maps; compare lays them out again)": [
            path for folder in (root / "reports").glob("*/maps") for path in _in(folder)
        ],
        "half-written files of stopped commands": sorted(filter(workspace.is_left_over, root.rglob(".*"))),
    }
    found = []
    for what, paths in kinds.items():
        free = [path for path in paths if not _is_in_use(path)]
        if free:
            found.append(Leftover(what, free, sum(map(_n_bytes, free))))
    return sorted(found, key=lambda leftover: -leftover.n_bytes)


def remove(leftovers: list[Leftover]) -> list[Path]:
    """Remove it; return what could not be removed."""
    kept = []
    for path in (path for leftover in leftovers for path in leftover.paths):
        try:
            workspace.remove(path)
        except OSError:
            kept.append(path)
    return kept


def _in(folder: Path) -> list[Path]:
    """Return what a folder holds; a journal goes with its file, and half-written files stand for themselves."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if not workspace.is_aside(path))
    return sorted(path for path in found if path.suffix != ".journal" or not path.with_suffix("").exists())


def _is_in_use(path: Path) -> bool:
    """Whether a command has an HDF5 file open; where none has, its journal is applied and gone afterwards."""
    if path.suffix != ".h5" or not path.is_file():
        return False
    try:
        open_cache(path, writable=True).close()
    except CacheLocked:
        return True
    except CacheError:
        return False  # damaged: of no use to anybody
    return False


def _n_bytes(path: Path) -> int:
    """Return what a file, or all files in a folder take; what a link points at takes nothing here."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(each.lstat().st_size for each in (path, *inside) if not each.is_dir() or each.is_symlink())
