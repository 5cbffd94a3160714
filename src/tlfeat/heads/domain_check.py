"""Whether new pictures are of the domain that a head was adapted to: a few rows of that domain, kept beside the head.

What `shift.tell_apart` does for a test set, for a batch of new pictures. Rows are compared within the classes that they
are named as: a batch of nothing but cats is no other domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlfeat.errors import ModelError
from tlfeat.files import check_archive, check_regular
from tlfeat.heads.shift import tell_apart
from tlfeat.types import Labels, Rows

FILE_NAME = "domain.npz"

#: Rows that are kept, and pictures of a batch that are looked at.
MAX_ROWS = 500

#: Fewer pictures are not judged.
LEAST_IMAGES = 20

#: From here on a batch is called another domain (docs/benchmarks/adaptation.md).
APART = 0.9

_MAX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class DomainRows:
    """Rows of the domain that a head was adapted to.

    Attributes
    ----------
    name : str
    rows : float32 array of shape (n_rows, width)
        At most `MAX_ROWS`, of images that were adapted to.
    named : int array of shape (n_rows,)
        What the head names them.
    """

    name: str
    rows: Rows
    named: Labels

    def apart(self, rows: Rows, named: Labels) -> float | None:
        """Return how well new rows are told from these within the classes they are named as; None of too few.

        Parameters
        ----------
        rows : float32 array of shape (n_images, width)
        named : int array of shape (n_images,)

        Returns
        -------
        float, optional
            Area under the ROC curve: 0.5 not at all, 1 always.
        """
        ours, theirs = _matched(self.named, named)
        if len(ours) < LEAST_IMAGES:
            return None
        return tell_apart(self.rows[ours], rows[theirs])


def _matched(one: Labels, other: Labels) -> tuple[Labels, Labels]:
    """Return positions on both sides with as many of each class on one as on the other, in a random order."""
    rng = np.random.default_rng(0)
    sides: tuple[list[Labels], list[Labels]] = ([], [])
    for label in np.intersect1d(one, other):
        found = [rng.permutation(np.flatnonzero(side == label)) for side in (one, other)]
        n = min(map(len, found))
        for side, at in zip(sides, found, strict=True):
            side.append(at[:n])
    empty = np.empty(0, dtype=np.int64)
    return tuple(rng.permutation(np.concatenate(side)) if side else empty for side in sides)  # type: ignore[return-value]


def save_domain(found: DomainRows, folder: Path) -> None:
    """Write ``domain.npz``, plain arrays, into `folder`."""
    np.savez(
        folder / FILE_NAME,
        name=np.array(found.name),
        rows=found.rows.astype(np.float32),
        named=found.named.astype(np.int64),
    )


def load_domain(folder: Path, width: int, n_classes: int) -> DomainRows | None:
    """Load ``domain.npz``; it holds arrays alone and runs no code. None where the head was not adapted.

    Raises
    ------
    ModelError
        Damaged, or not of this head.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        check_regular(path, max_bytes=_MAX_BYTES, within=folder)
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            name, rows, named = str(archive["name"]), archive["rows"], archive["named"]
    except Exception as error:  # a damaged archive fails anywhere: zipfile, zlib, numpy
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    is_whole = rows.dtype == np.float32 and rows.ndim == 2 and np.isfinite(rows).all() and rows.shape[1] == width
    fits = named.dtype == np.int64 and named.shape == (len(rows),) and len(rows) <= MAX_ROWS
    if not is_whole or not fits or not ((named >= 0) & (named < n_classes)).all():
        raise ModelError(f"{path} is damaged: its arrays do not belong together, or to this head.")
    return DomainRows(name, rows, named)


def domain_sentence(name: str, auc: float, n: int) -> str:
    """Return the warning of a batch of another domain, "" where it is none."""
    if auc < APART:
        return ""
    return (
        f"DOMAIN: these {n:,} images are told from those of {name}, to which the model was adapted (AUC {auc:.2f}, "
        f"even within the classes it names them as). Adapt again with images like these: tlfeat adapt."
    )
