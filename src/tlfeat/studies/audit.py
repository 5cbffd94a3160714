"""What is wrong with a data set: duplicates, one picture under two labels, wrong labels, outliers, imbalance.

Nothing is changed. Every finding is for a person to look at; how often each kind is wrong was measured and is said.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from tlfeat.cache.contents import picture_files, snippets
from tlfeat.cache.store import Cache
from tlfeat.errors import DataError
from tlfeat.evaluate.copies import find_copies, layer_for_duplicates
from tlfeat.evaluate.split import Split, make_split
from tlfeat.images.nearest import N_NEIGHBOURS, nearest_images
from tlfeat.studies.copy_groups import find_copy_groups
from tlfeat.studies.doubted_labels import find_doubted_labels
from tlfeat.studies.findings import KINDS, Audit, Finding, Images
from tlfeat.types import OnProgress, Rows, silent

#: Robust z-score from which an image is an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5

#: Above this ratio of the largest to the smallest class heads are chosen by balanced accuracy (``heads``).
_IMBALANCED = 1.5


def audit(
    cache: Cache,
    *,
    layer: str = "",
    seed: int = 0,
    test_fraction: float = 0.2,
    test_split: str | None = None,
    on_progress: OnProgress = silent,
) -> Audit:
    """Look for everything of `KINDS` in all images of a cache that have a row.

    Parameters
    ----------
    cache : Cache
    layer : str, optional
        Whose rows are used; `avg_pool`, or the first by name.
    seed : int, default=0
        Of the split and of the folds.
    test_fraction : float, default=0.2
        As for a fit, where no test split is given: only so are the leaks those of that fit.
    test_split : str, optional
        As for a fit.

    Notes
    -----
    Copies and leaks are those that every fit on this cache finds (`evaluate.copies`), whatever `layer` says. Wrong
    labels: `doubted_labels`. Outliers: cosine distance to the fifth nearest image (Ramaswamy, Rastogi and Shim 2000,
    SIGMOD, definition 1), as a z-score by the median absolute deviation of the upper half.
    """
    layer = layer or layer_for_duplicates(cache)
    split, notes = _split_if_possible(cache, seed, test_fraction, test_split)
    images = _images(cache, split)
    files = picture_files(cache, images.paths)
    copies = find_copies(cache, on_progress=on_progress)
    notes += copies.notes
    groups, findings = find_copy_groups(copies, images, split)
    agreement = None
    if split is not None:
        on_progress("fitting on folds", 0, 0)
        doubted = find_doubted_labels(cache.read(layer, split.keys), split, copies, seed=seed)
        left_out = sorted(set(filter(None, images.labels)) - set(split.classes))
        notes += [f"wrong labels were not looked for in class {', '.join(left_out)}"] if left_out else []
        findings += doubted.findings
        notes += doubted.notes
        agreement = doubted.agreement
    findings += _outliers(cache.read(layer, images.keys), images)
    n_by_class = dict(sorted(Counter(filter(None, images.labels)).items()))
    findings += _imbalance(n_by_class, cache.table.images.holds)
    return Audit(
        cache=cache.path,
        home=cache.table.images.home if files else None,
        layer=layer,
        n_images=len(images.paths),
        n_by_class=n_by_class,
        groups=groups,
        findings=sorted(findings, key=lambda finding: list(KINDS).index(finding.kind)),
        notes=notes,
        agreement=agreement,
        key_of=dict(zip(images.paths, images.keys, strict=True)),
        holds=cache.table.images.holds,
        snippets=_snippets(cache, images),
    )


def _snippets(cache: Cache, images: Images) -> dict[str, str]:
    """Return the beginning of each text by its path, as far as they can be read again; nothing of images."""
    known = snippets(cache, images.keys)
    return {path: known[key] for path, key in zip(images.paths, images.keys, strict=True) if key in known}


def _split_if_possible(
    cache: Cache, seed: int, test_fraction: float, test_split: str | None
) -> tuple[Split | None, list[str]]:
    """Return the split and its notes; without a second class there is none, and a note says what that costs."""
    try:
        split = make_split(cache.table, seed=seed, test_fraction=test_fraction, test_split=test_split)
    except DataError as error:
        return None, [f"wrong labels were not looked for: {error}"]
    return split, list(split.notes)


def _images(cache: Cache, split: Split | None) -> Images:
    table, names = cache.table, cache.table.images
    chosen = [i for i, status in enumerate(table.status) if status == "ok"]
    if not chosen:
        raise DataError(f"{cache.path} holds no image with a row. Run tlfeat extract again.")
    roles = {} if split is None else dict(zip(split.paths, split.roles, strict=True))
    return Images(
        paths=[names.paths[i] for i in chosen],
        labels=[names.labels[i] for i in chosen],
        keys=[table.keys[i] for i in chosen],
        splits=[roles.get(names.paths[i], names.splits[i]) for i in chosen],
    )


def _outliers(rows: Rows, images: Images) -> list[Finding]:
    """Return images that lie far from all others, farthest first."""
    firsts = sorted({key: i for i, key in reversed(list(enumerate(images.keys)))}.values())
    if len(firsts) <= 2 * N_NEIGHBOURS:
        return []
    z = outlier_scores(rows[firsts])
    return [
        Finding(
            kind="outlier",
            path=images.paths[firsts[i]],
            label=images.labels[firsts[i]],
            split=images.splits[firsts[i]],
            score=round(float(z[i]), 2),
            detail=f"far from all others: {z[i]:.1f} standard deviations (robust) beyond the usual",
        )
        for i in np.argsort(-z, kind="stable").tolist()
        if z[i] > OUTLIER_Z
    ]


def outlier_scores(rows: Rows) -> npt.NDArray[np.float64]:
    """Return how far each image lies from its fifth nearest, as a robust z-score.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width)
        Used up.

    Returns
    -------
    float64 array of shape (n_images,)
    """
    everything = np.arange(len(rows))
    # not centred: a picture of another kind lacks what the others have in common, and the centre would hide that
    nearest = nearest_images(rows, everything, everything, is_centred=False)
    distances = 1 - nearest.cosines[:, -1].astype(np.float64)
    middle = np.median(distances)
    # the upper half only: distances have a long tail; of a normal variable this is the standard deviation
    spread = 1.4826 * np.median(distances[distances >= middle] - middle)
    scores: npt.NDArray[np.float64] = (distances - middle) / max(spread, 1e-9)
    return scores


def _imbalance(n_by_class: dict[str, int], noun: str) -> list[Finding]:
    if len(n_by_class) < 2:
        return []
    largest, smallest = max(n_by_class, key=lambda c: n_by_class[c]), min(n_by_class, key=lambda c: n_by_class[c])
    ratio = n_by_class[largest] / n_by_class[smallest]
    if ratio <= _IMBALANCED:
        return []
    share = n_by_class[largest] / sum(n_by_class.values())
    detail = (
        f"'{largest}' has {n_by_class[largest]:,} {noun}, '{smallest}' {n_by_class[smallest]:,} ({ratio:.1f} to 1): "
        f"always saying '{largest}' would be right for {100 * share:.1f} %. Read the balanced accuracy and macro F1 "
        f"(heads are chosen by the former); more {noun} of '{smallest}' help more than any setting."
    )
    return [Finding(kind="imbalance", path="", label=smallest, split="", score=round(ratio, 2), detail=detail)]
