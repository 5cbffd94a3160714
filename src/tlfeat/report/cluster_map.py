"""The map of a cache with its clusters: what there is in a folder of pictures, labelled or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import Origin, choose_layers, origin, snippets
from tlfeat.cache.store import Cache
from tlfeat.errors import DataError, UsageError, nearest
from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.memory import available_memory
from tlfeat.notebook import html_picture, html_text
from tlfeat.records import Environment
from tlfeat.report.charts import SHAPES
from tlfeat.report.drawings import class_look, map_places
from tlfeat.report.embedding_map import KINDS, MAX_IMAGES, N_COMPONENTS, Points, choose_kinds, lay_out
from tlfeat.text import aligned, counted, one_line, page, percent
from tlfeat.types import Labels, OnProgress, Rows, silent
from tlfeat.workspace import write_forms

#: Clusters by default, fewer where there are not so many images for each. No number is right: the silhouette was best
#: at two on both real sets that were tried (cats_dogs, potato), which shows little.
N_CLUSTERS, _MIN_IMAGES = 10, 5

#: Typical pictures of a cluster that the page shows, and that the terminal names.
_N_TYPICAL, _N_NAMED = 8, 2

_SIDE, _SIDE_ON_MAP = 112, 64


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that the network finds alike.

    Attributes
    ----------
    n : int
    typical : list of int
        Places in the map of the images nearest to its centre, nearest first.
    labels : list of (str, int)
        How many images have which label, the most frequent first; none without labels.
    """

    n: int
    typical: list[int]
    labels: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """Where images lie, and in which cluster.

    Attributes
    ----------
    paths, labels, keys : list of str
        Of the images on the map; copies lie on one another and are there once.
    points : float32 array of shape (n, 2)
    cluster : int array of shape (n,)
        Positions in `clusters`, the largest first.
    n_images : int
        Different pictures of the cache; a seeded sample of them is on the map where it is larger.
    beginnings : mapping of str to str
        Of texts that are shown, by content key.
    """

    cache: Path
    layer: str
    kind: str
    root: Path | None
    paths: list[str]
    labels: list[str]
    keys: list[str]
    points: Points
    cluster: Labels
    clusters: list[Cluster]
    n_images: int
    beginnings: Mapping[str, str] = field(default_factory=dict)

    def name(self, cluster: Cluster) -> str:
        """The name of a cluster: its most typical picture."""
        return Path(self.paths[cluster.typical[0]]).name


def map_cache(
    cache: Cache,
    *,
    layer: str | None = None,
    kind: str = "tsne",
    n_clusters: int | None = None,
    seed: int = 0,
    max_images: int = MAX_IMAGES,
    on_progress: OnProgress = silent,
) -> ClusterMap:
    """Lay out the images of a cache and part them into clusters; no label is used.

    Parameters
    ----------
    cache : Cache
    layer : str, optional
        ``avg_pool``, or the only one, by default.
    kind : str, default="tsne"
        One of `KINDS`.
    n_clusters : int, optional
        10 by default, fewer for less than 50 images.
    seed : int, default=0
    max_images : int, default=2000

    Notes
    -----
    Clusters: k-means on the first 50 principal components, scaled to length 1, so that they go by angles as `similar`
    does.
    """
    if kind not in KINDS:
        raise UsageError(f"No map '{kind}'. {nearest(kind, list(KINDS), of='maps')}")
    choose_kinds(kind)
    name = choose_layers(cache, layer)[0]
    table, known = cache.table, cache.known(name)
    first: dict[str, int] = {}
    for i, key in enumerate(table.keys):
        if table.status[i] == "ok" and key in known:
            first.setdefault(key, i)
    n_fitting = available_memory() // (16 * cache.layers[name][1])  # as in `make_map`
    at = np.array(list(first.values()), dtype=np.int64)
    if len(at) < 3:
        raise DataError(f"{cache.path} holds {counted(len(at), 'picture')} of the layer {name}: a map wants three.")
    if n_clusters is not None and not 2 <= n_clusters <= len(at):
        raise UsageError(f"--clusters is from 2 to the number of pictures, {len(at):,}; received {n_clusters}.")
    if len(at) > (n_most := max(3, min(max_images, n_fitting))):
        at = np.sort(np.random.default_rng(seed).permutation(at)[:n_most])
    keys = [table.keys[i] for i in at]
    rows = cache.read(name, keys)
    on_progress("map: clusters", 0, 0)
    cluster, order = _clusters(rows, n_clusters, seed)
    points, _ = lay_out(rows, [kind], seed=seed, on_progress=on_progress)
    labels = [table.images.labels[i] for i in at]
    clusters = []
    for c in range(int(cluster.max()) + 1):
        inside = [int(i) for i in order if cluster[i] == c]
        counts = Counter(labels[i] for i in inside if labels[i])
        clusters.append(Cluster(len(inside), inside[:_N_TYPICAL], counts.most_common()))
    return ClusterMap(
        cache.path,
        name,
        kind,
        None if origin(cache) is Origin.IMPORTED else table.images.root,
        [table.images.paths[i] for i in at],
        labels,
        keys,
        points[kind],
        cluster,
        clusters,
        len(first),
        snippets(cache, [keys[i] for one in clusters for i in one.typical]),
    )


def _clusters(rows: Rows, n_clusters: int | None, seed: int) -> tuple[Labels, Labels]:
    """Return the cluster of each row, the largest cluster first, and all rows in order of distance to its centre."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    n = len(rows)
    if not np.ptp(rows, axis=0).any():  # nothing that could be parted
        return np.zeros(n, np.int64), np.arange(n, dtype=np.int64)
    parts = PCA(min(N_COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
    parts /= np.maximum(np.linalg.norm(parts, axis=1, keepdims=True), 1e-12)
    wanted = n_clusters or max(2, min(N_CLUSTERS, n // _MIN_IMAGES))
    with threadpool_limits(1):  # as t-SNE: threads that wait for each other
        fitted = KMeans(min(wanted, len(np.unique(parts, axis=0))), n_init=4, random_state=seed).fit(parts)
    by_size = np.argsort(-np.bincount(fitted.labels_), kind="stable")
    place = np.empty(len(by_size), np.int64)
    place[by_size] = np.arange(len(by_size))
    far = np.linalg.norm(parts - fitted.cluster_centers_[fitted.labels_], axis=1)
    return place[fitted.labels_], np.argsort(far, kind="stable")


def to_text(found: ClusterMap, width: int | None = None) -> str:
    """Return what ``tlfeat map`` prints: a line a cluster, as wide as the terminal allows."""
    has_labels = any(found.labels)
    rows = [
        (
            number,
            f"{cluster.n:,}",
            *([labels_text(cluster)] if has_labels else []),
            ", ".join(found.paths[i] for i in cluster.typical[:_N_NAMED]),
        )
        for number, cluster in enumerate(found.clusters, start=1)
    ]
    headings = ("cluster", "images", *(["labels"] if has_labels else []), "most typical")
    return f"{sentence(found)}\n\n{aligned(headings, rows, n_left=len(headings), width=width)}"


def sentence(found: ClusterMap) -> str:
    """Return how many images there are, and of them on the map."""
    n = len(found.paths)
    some = f"a seeded sample of {n:,} of {found.n_images:,}" if n < found.n_images else f"{n:,}"
    many = counted(len(found.clusters), "cluster")
    return f"{some} pictures in {many}, by their rows of {found.layer}; labels had no part in it."


def labels_text(cluster: Cluster, n_most: int = 3) -> str:
    """Return the most frequent labels of a cluster with their shares."""
    shown = [f"{one_line(label)} {percent(n / cluster.n)}" for label, n in cluster.labels[:n_most]]
    n_more = len(cluster.labels) - n_most
    return ", ".join(shown + ([f"{n_more} more"] if n_more > 0 else [])) or "–"


def to_document(found: ClusterMap) -> dict[str, Any]:
    """Return the map as JSON values."""
    images = zip(found.paths, found.labels, found.cluster.tolist(), found.points.tolist(), strict=True)
    return {
        "cache": str(found.cache),
        "layer": found.layer,
        "kind": found.kind,
        "n_images": found.n_images,
        "clusters": [
            {
                "number": number,
                "name": found.name(cluster),
                "n_images": cluster.n,
                "typical": [found.paths[i] for i in cluster.typical],
                "labels": dict(cluster.labels),
            }
            for number, cluster in enumerate(found.clusters, start=1)
        ],
        "images": [
            {"path": path, "label": label, "cluster": cluster + 1, "x": x, "y": y}
            for path, label, cluster, (x, y) in images
        ],
    }


def to_html(found: ClusterMap) -> str:
    """Return one page that needs nothing from elsewhere; every text in it is escaped."""
    places = map_places(found.points) * [1, -1] + [0, 1000]  # y grows downwards in SVG
    looks = [class_look(c) for c in range(len(found.clusters))]
    dots = [
        (x, y, *looks[c], f"{one_line(path)}{f' ({one_line(label)})' if label else ''}, cluster {c + 1}")
        for (x, y), c, path, label in zip(
            places.tolist(), found.cluster.tolist(), found.paths, found.labels, strict=True
        )
    ]
    clusters = []
    for number, (cluster, (colour, shape)) in enumerate(zip(found.clusters, looks, strict=True), start=1):
        pictures = [
            html_text(found.beginnings[found.keys[i]])
            if found.keys[i] in found.beginnings
            else html_picture(known_thumbnail(found.root, found.paths[i], found.keys[i], _SIDE), found.paths[i])
            for i in cluster.typical
        ]
        x, y = places[cluster.typical[0]].tolist()
        clusters.append(
            {
                "number": number,
                "colour": colour,
                "shape": SHAPES[shape],
                "name": found.name(cluster),
                "n": f"{cluster.n:,}",
                "labels": labels_text(cluster) if cluster.labels else "",
                "pictures": [picture for picture in pictures if picture],
                "typical": [found.paths[i] for i in cluster.typical[:_N_NAMED]],
                "source": pictures[0].partition('src="')[2].partition('"')[0],
                "x": x - _SIDE_ON_MAP // 2,
                "y": y - _SIDE_ON_MAP // 2,
            }
        )
    return page(
        __package__,
        "map.html",
        title=f"Map: {found.cache.stem}",
        holds="texts" if found.beginnings else "images",
        kind=KINDS[found.kind],
        sentence=sentence(found),
        shapes=SHAPES,
        dots=dots,
        clusters=clusters,
        side=_SIDE_ON_MAP,
        box=_box(places),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def _box(places: Any) -> str:
    """Return the part of the plane that has images, with room for a picture at its edge."""
    low, high = places.min(axis=0) - _SIDE_ON_MAP, places.max(axis=0) + _SIDE_ON_MAP
    return f"{low[0]} {low[1]} {high[0] - low[0]} {high[1] - low[1]}"


def write_reports(found: ClusterMap, folder: Path) -> dict[str, Path]:
    """Write map.html and .json into `folder` and return their paths by ending."""
    return write_forms(folder, "map", html=to_html(found), json=to_document(found))
