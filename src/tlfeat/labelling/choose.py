"""Which pictures are asked next: first typical ones, then those that the head is unsure of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlfeat.heads.blocks import MAPPINGS
from tlfeat.types import Labels, Rows

#: Clusters a class that one typical picture is asked of, before anything else.
CLUSTERS = 3

#: With so many answers a cluster, clusters are no longer looked at.
_ENOUGH = 3

#: Of a pool in random order so many are clustered: typical of them is typical of all.
_CLUSTERED = 2_000

_N_ROUNDS = 20

#: Labels of pictures without a label: not asked yet; asked in vain (unknown, bad); never to be chosen, as they measure.
OPEN, ASKED, KEPT = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Choice:
    """A picture to ask about.

    Attributes
    ----------
    place : int
        Its row in the pool.
    why : "typical" or "unsure"
    """

    place: int
    why: Literal["typical", "unsure"]


def codes_of(
    numbers: Sequence[int], keys: Sequence[str], code_of: Mapping[int, int], kept: Collection[int]
) -> tuple[Labels, Labels]:
    """Return what is known of pictures, for the head that suggests and for the one that chooses.

    The latter hears nothing of the pictures that measure, nor of their copies: else nothing would be asked near these,
    and they would tell too little of the whole (`estimate`).

    Parameters
    ----------
    numbers, keys : sequences
        Of the pictures of a pool; copies share a content key.
    code_of : mapping of int to int
        By number, of pictures with an answer: a class, or `ASKED`.
    kept : collection of int
        Numbers of the pictures that measure.

    Returns
    -------
    two int64 arrays of shape (n_pool,)
        As `choose` takes the second one.
    """
    kept_keys = {key for number, key in zip(numbers, keys, strict=True) if number in kept}
    is_kept = np.array([key in kept_keys for key in keys], bool)
    known = np.array([code_of.get(number, OPEN) for number in numbers], np.int64)
    return np.where(is_kept & (known == OPEN), KEPT, known), np.where(is_kept, KEPT, known)


def choose(
    rows: Rows, labels: Labels, probabilities: Rows | None, n: int, *, n_classes: int, seed: int = 0
) -> list[Choice]:
    """Return the next pictures to ask about, no picture twice.

    First the most typical picture of each of three clusters a class, largest first; clusters in which something was
    asked are passed over. Then those whose two most probable classes are nearest to each other.

    Parameters
    ----------
    rows : float32 array of shape (n_pool, width)
        As the backbone gives them, in random order. Not modified.
    labels : int array of shape (n_pool,)
        A class, `OPEN`, `ASKED` or `KEPT`.
    probabilities : float32 array of shape (n_pool, n_classes), optional
        Of the head of all labels; without it only typical pictures are chosen, then the first open ones.
    n : int
    n_classes : int
    seed : int, default=0

    Returns
    -------
    list of Choice
        Fewer than `n` where fewer are open.
    """
    found = [Choice(place, "typical") for place in _typical(rows[:_CLUSTERED], labels[:_CLUSTERED], n_classes, seed)]
    if len(found) < n:
        is_free = labels == OPEN
        is_free[[choice.place for choice in found]] = False
        free = np.flatnonzero(is_free)
        if probabilities is not None and probabilities.shape[1] > 1:
            highest = np.partition(probabilities[free], -2, axis=1)[:, -2:]
            free = free[np.argsort(highest[:, 1] - highest[:, 0], kind="stable")]
        found += [Choice(int(place), "unsure") for place in free[: n - len(found)]]
    return found[:n]


def _typical(rows: Rows, labels: Labels, n_classes: int, seed: int) -> list[int]:
    """Return the picture nearest to the centre of each cluster in which nothing was asked, largest first."""
    n_clusters = min(CLUSTERS * max(n_classes, 2), len(rows))
    is_asked, is_open = (labels >= 0) | (labels == ASKED), labels == OPEN
    if is_asked.sum() >= _ENOUGH * n_clusters or not is_open.any():
        return []
    cluster_of, distances = clusters(rows, n_clusters, seed=seed)
    sizes = np.bincount(cluster_of, minlength=n_clusters)
    was_asked = np.bincount(cluster_of[is_asked], minlength=n_clusters) > 0
    places = []
    for cluster in np.argsort(-sizes, kind="stable"):
        members = np.flatnonzero((cluster_of == cluster) & is_open)
        if len(members) and not was_asked[cluster]:
            places.append(int(members[distances[members].argmin()]))
    return places


def clusters(rows: Rows, n_clusters: int, *, seed: int = 0) -> tuple[Labels, Rows]:
    """Cluster rows by their direction (k-means of rows of length 1).

    Parameters
    ----------
    rows : float32 array of shape (n, width)
    n_clusters : int
        At most n.
    seed : int, default=0

    Returns
    -------
    cluster_of : int array of shape (n,)
    distances : float32 array of shape (n,)
        Squared distance to the centre of the own cluster.
    """
    units = MAPPINGS["l2"](rows)
    centres = _spread_out(units, n_clusters, np.random.default_rng(seed))
    cluster_of = np.empty(0, np.int64)
    for _ in range(_N_ROUNDS):
        distances = _squared_distances(units, centres)
        before, cluster_of = cluster_of, distances.argmin(axis=1)
        if np.array_equal(before, cluster_of):
            break
        is_member = (cluster_of == np.arange(n_clusters)[:, None]).astype(np.float32)
        sizes = is_member.sum(axis=1)
        centres[sizes > 0] = (is_member @ units)[sizes > 0] / sizes[sizes > 0, None]
    return cluster_of, distances[np.arange(len(units)), cluster_of]


def _squared_distances(units: Rows, centres: Rows) -> Rows:
    """Return those of rows of length 1 to centres, of shape (n, n_centres)."""
    return np.asarray(1 - 2 * (units @ centres.T) + np.einsum("ij,ij->i", centres, centres), dtype=np.float32)


def _spread_out(units: Rows, n: int, rng: np.random.Generator) -> Rows:
    """Return n rows to start from, each drawn by its squared distance to those before (k-means++)."""
    places = [int(rng.integers(len(units)))]
    nearest = np.full(len(units), np.inf)
    while len(places) < n:
        nearest = np.maximum(np.minimum(nearest, _squared_distances(units, units[places[-1:]])[:, 0]), 0)
        total = nearest.sum()
        places.append(int(rng.choice(len(units), p=nearest / total)) if total > 0 else places[-1])
    return units[places]
