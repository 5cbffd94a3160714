"""Rows of a cache as points of a plane: which images the network finds alike. No label is used."""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache.reader import Cache
from tlfeat.errors import UsageError, nearest
from tlfeat.evaluate.split import Split
from tlfeat.files import open_regular
from tlfeat.memory import available_memory
from tlfeat.records import distribution_version
from tlfeat.types import Labels, OnProgress, Rows, silent
from tlfeat.workspace import written_aside

#: Ways of laying out a map; UMAP where the package `umap-learn` is installed.
KINDS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}

#: Images on a map, and components that t-SNE and UMAP start from.
MAX_IMAGES, N_COMPONENTS = 2000, 50

#: t-SNE's effective number of neighbours (van der Maaten and Hinton 2008 name 5 to 50).
_PERPLEXITY = 30

Points = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Where images lie.

    Attributes
    ----------
    layer : str
        Whose rows these are.
    at : int array of shape (n,)
        Positions in the split.
    points : dict of kind to float32 array of shape (n, 2)
    explained : (float, float)
        Shares of the variance of the rows along the two axes of "pca".
    n_images : int
        Of the split; a seeded sample of them is on the map where `at` is shorter.
    """

    layer: str
    at: Labels
    points: dict[str, Points]
    explained: tuple[float, float]
    n_images: int


def choose_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of map that were asked for: some of `KINDS` with commas, "all" that can be had, or "none".

    Raises
    ------
    UsageError
        An unknown kind, or UMAP without its package.
    """
    has_umap = importlib.util.find_spec("umap") is not None
    if text in ("all", "none"):
        return tuple(kind for kind in KINDS if has_umap or kind != "umap") if text == "all" else ()
    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split(",") if kind.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"No map '{kind}'. {nearest(kind, [*KINDS, 'all', 'none'], of='maps')}")
    if "umap" in kinds and not has_umap:
        raise UsageError("--map umap needs a package that is not installed: pip install 'tlfeat[maps]'")
    return kinds


def make_map(
    cache: Cache,
    split: Split,
    layer: str,
    kinds: Sequence[str] = ("pca", "tsne"),
    *,
    seed: int = 0,
    max_images: int = MAX_IMAGES,
    kept: Path | None = None,
    on_progress: OnProgress = silent,
) -> EmbeddingMap:
    """Lay out the images of a split by the rows of one layer.

    Parameters
    ----------
    cache : Cache
    split : Split
        Labels and roles only decide the sample, which holds as large a part of each class and role.
    layer : str
    kinds : sequence of str
        Some of `KINDS`.
    seed : int, default=0
    max_images : int, default=2000
        Fewer where their rows do not fit into memory.
    kept : Path, optional
        A folder in which a map is kept, so that the same one is made once.
    """
    width = cache.layers[layer][1]
    n_fitting = available_memory() // (16 * width)  # rows, their centred copy, and as much again for the solver
    at = sample(split, max(2, min(max_images, n_fitting)), seed=seed)
    keys = [split.keys[i] for i in at]
    versions = [distribution_version(module) for module in ("sklearn", "umap")]
    made_of = {"keys": keys, "layer": layer, "kinds": list(kinds), "seed": seed, "versions": versions}
    file = kept and kept / f"{workspace.digest({**made_of, **cache.fingerprint}, 16)}.npz"
    laid_out = _load(file, kinds, len(at)) if file else None
    if laid_out is None:
        laid_out = lay_out(cache.read(layer, keys), kinds, seed=seed, on_progress=on_progress)
        if file:
            _save(file, *laid_out)
    return EmbeddingMap(layer, at, *laid_out, len(split.keys))


def _save(file: Path, points: dict[str, Points], explained: tuple[float, float]) -> None:
    """Write a map aside and rename it."""
    with written_aside(file) as aside:
        np.savez(aside, explained=np.array(explained), **points)  # type: ignore[arg-type]


def _load(file: Path, kinds: Sequence[str], n: int) -> tuple[dict[str, Points], tuple[float, float]] | None:
    """Return a map that was kept; None where it is not there, or not what it should be."""
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as found:
            points = {kind: np.asarray(found[kind], dtype=np.float32) for kind in kinds}
            low, high = (float(share) for share in found["explained"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    is_sound = all(p.shape == (n, 2) and bool(np.isfinite(p).all()) for p in points.values())
    return (points, (low, high)) if is_sound else None


def sample(split: Split, n: int, *, seed: int) -> Labels:
    """Return at most `n` positions in ascending order, of each class and role the same share (largest remainders)."""
    if len(split.keys) <= n:
        return np.arange(len(split.keys), dtype=np.int64)
    rng = np.random.default_rng(seed)
    strata = sorted({(int(label), role) for label, role in zip(split.labels, split.roles, strict=True)})
    members = [np.flatnonzero((split.labels == c) & (np.array(split.roles) == role)) for c, role in strata]
    shares = np.array([n * len(m) / len(split.keys) for m in members])
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: n - counts.sum()]] += 1
    chosen = [rng.permutation(m)[:count] for m, count in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def lay_out(
    rows: Rows, kinds: Sequence[str], *, seed: int, on_progress: OnProgress = silent
) -> tuple[dict[str, Points], tuple[float, float]]:
    """Return the points of each kind and the shares of variance along the axes of PCA.

    Parameters
    ----------
    rows : float32 array of shape (n, width), n >= 2

    Notes
    -----
    t-SNE (van der Maaten 2014, Barnes-Hut) and UMAP (McInnes et al. 2018) start from the first 50 principal
    components. Distances between far clusters, and sizes of clusters, mean nothing in either.
    """
    from sklearn.decomposition import PCA

    on_progress("map: principal components", 0, 0)
    n_components = max(1, min(N_COMPONENTS, *rows.shape))
    pca = PCA(n_components, random_state=seed)
    with np.errstate(invalid="ignore", divide="ignore"):  # rows that are all equal explain 0 of 0
        components = np.asarray(pca.fit_transform(rows), dtype=np.float32)  # (n, n_components)
    explained = np.nan_to_num(np.pad(pca.explained_variance_ratio_, (0, 1))[:2])
    points = {}
    for kind in kinds:
        if kind != "pca":
            on_progress(f"map: {kind} of {len(rows):,} images", 0, 0)
        points[kind] = {"pca": _first_two, "tsne": _tsne, "umap": _umap}[kind](components, seed)
    return points, (float(explained[0]), float(explained[1]))


def _first_two(components: Points, seed: int) -> Points:
    return np.pad(components, ((0, 0), (0, 1)))[:, :2]


def _tsne(components: Points, seed: int) -> Points:
    """Run Barnes-Hut t-SNE in one thread.

    Its threads wait for each other a thousand times: on two idle cores they take 5 s for 2,000 images and one thread
    8 s, but where other work had the cores they took 20 to 90 s.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = _first_two(components, seed)
    if len(components) < 5 or not components.std():
        return start  # nothing that neighbours could tell
    start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4  # as scikit-learn's init="pca" does
    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    with threadpool_limits(1):
        found: Points = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(components)
    return found


def _umap(components: Points, seed: int) -> Points:
    import umap

    if len(components) < 5 or not components.std():
        return _first_two(components, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        found: Any = umap.UMAP(n_neighbors=min(15, len(components) - 1), random_state=seed).fit_transform(components)
    return np.asarray(found, dtype=np.float32)
