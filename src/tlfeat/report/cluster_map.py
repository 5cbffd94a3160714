"""The map of a cache with its clusters: what there is in a folder of pictures, labelled or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cache.contents import Origin, choose_layers, origin, snippets
from tlfeat.cache.reader import Cache
from tlfeat.errors import DataError, UsageError, nearest
from tlfeat.images.stores import Store
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

#: What the colours of the map may say.
COLORS = ("cluster", "domain", "class")

#: Domains or classes with a look of their own: so many differ (`class_look`). Others are as those without a name.
_MAX_LOOKS = 64

#: Of images without a domain or class.
_FAINT = ("c4", "circle")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that the network finds alike.

    Attributes
    ----------
    n : int
    typical : list of int
        Places in the map of the images nearest to its centre, nearest first.
    labels, domains : list of (str, int)
        How many images have which label or domain, the most frequent first; none without labels or domains.
    """

    n: int
    typical: list[int]
    labels: list[tuple[str, int]]
    domains: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """Where images lie, and in which cluster.

    Attributes
    ----------
    paths, labels, keys, domains : list of str
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
    home: Path | Store | None
    paths: list[str]
    labels: list[str]
    keys: list[str]
    points: Points
    cluster: Labels
    clusters: list[Cluster]
    n_images: int
    beginnings: Mapping[str, str] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)

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
    cluster, order = clusters_of(rows, n_clusters, seed)
    points, _ = lay_out(rows, [kind], seed=seed, on_progress=on_progress)
    labels, domains = ([column[i] for i in at] for column in (table.images.labels, table.images.domains))
    clusters = []
    for c in range(int(cluster.max()) + 1):
        inside = [int(i) for i in order if cluster[i] == c]
        of_labels, of_domains = (
            Counter(names[i] for i in inside if names[i]).most_common() for names in (labels, domains)
        )
        clusters.append(Cluster(len(inside), inside[:_N_TYPICAL], of_labels, of_domains))
    return ClusterMap(
        cache.path,
        name,
        kind,
        None if origin(cache) is Origin.IMPORTED else table.images.home,
        [table.images.paths[i] for i in at],
        labels,
        keys,
        points[kind],
        cluster,
        clusters,
        len(first),
        snippets(cache, [keys[i] for one in clusters for i in one.typical]),
        domains,
    )


def clusters_of(rows: Rows, n_clusters: int | None, seed: int) -> tuple[Labels, Labels]:
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
    has_labels, has_domains = any(found.labels), any(found.domains)
    rows = [
        (
            number,
            f"{cluster.n:,}",
            *([shares_text(cluster.labels, cluster.n)] if has_labels else []),
            *([shares_text(cluster.domains, cluster.n)] if has_domains else []),
            ", ".join(found.paths[i] for i in cluster.typical[:_N_NAMED]),
        )
        for number, cluster in enumerate(found.clusters, start=1)
    ]
    headings = ("cluster", "images", *["labels"] * has_labels, *["domains"] * has_domains, "most typical")
    return f"{sentence(found)}\n\n{aligned(headings, rows, n_left=len(headings), width=width)}"


def sentence(found: ClusterMap) -> str:
    """Return how many images there are, and of them on the map."""
    n = len(found.paths)
    some = f"a seeded sample of {n:,} of {found.n_images:,}" if n < found.n_images else f"{n:,}"
    many = counted(len(found.clusters), "cluster")
    return f"{some} pictures in {many}, by their rows of {found.layer}; labels had no part in it."


def shares_text(counts: Sequence[tuple[str, int]], n_images: int, n_most: int = 3) -> str:
    """Return the most frequent labels or domains of a cluster with their shares."""
    shown = [f"{one_line(name)} {percent(n / n_images)}" for name, n in counts[:n_most]]
    n_more = len(counts) - n_most
    return ", ".join(shown + ([f"{n_more} more"] if n_more > 0 else [])) or "–"


def to_document(found: ClusterMap) -> dict[str, Any]:
    """Return the map as JSON values."""
    domains = found.domains if any(found.domains) else [""] * len(found.paths)
    images = zip(found.paths, found.labels, domains, found.cluster.tolist(), found.points.tolist(), strict=True)
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
                **({"domains": dict(cluster.domains)} if any(domains) else {}),
            }
            for number, cluster in enumerate(found.clusters, start=1)
        ],
        "images": [
            {"path": path, "label": label, **({"domain": domain} if any(domains) else {}), "cluster": cluster + 1}
            | {"x": x, "y": y}
            for path, label, domain, cluster, (x, y) in images
        ],
    }


def check_color(color: str, domains: Sequence[str], labels: Sequence[str]) -> None:
    """Raise a `UsageError` where the colours of a map cannot say what was asked for."""
    if color not in COLORS:
        raise UsageError(f"No colours by '{color}'. {nearest(color, list(COLORS), of='ways')}")
    if color == "domain" and not any(domains):
        raise UsageError("--color domain: no image has a domain. See --domains and --domain-column of tlfeat extract.")
    if color == "class" and not any(labels):
        raise UsageError("--color class: no image has a label.")


def _looks_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return domain or class to colour and shape, in order of name; of very many the most frequent have one."""
    most = [name for name, _ in Counter(name for name in names if name).most_common(_MAX_LOOKS)]
    return {name: class_look(place) for place, name in enumerate(sorted(most))}


def _key_of(names: Sequence[str], looks: Mapping[str, tuple[str, str]], color: str) -> list[tuple[str, str, str]]:
    """Return colour, outline and words of each line of the key of a map."""
    counts = Counter(name if name in looks else "" for name in names)
    key = [(colour, SHAPES[shape], f"{one_line(name)} ({counts[name]:,})") for name, (colour, shape) in looks.items()]
    if counts[""]:
        n_names = len(set(names) - {""})
        others = f"no {color}" if n_names <= len(looks) else "all others"
        key.append((_FAINT[0], SHAPES[_FAINT[1]], f"{others} ({counts['']:,})"))
    return key


def to_html(found: ClusterMap, color: str = "cluster") -> str:
    """Return one page that needs nothing from elsewhere; every text in it is escaped.

    Parameters
    ----------
    found : ClusterMap
    color : str, default="cluster"
        What colours say: one of `COLORS`.
    """
    check_color(color, found.domains, found.labels)
    places = map_places(found.points) * [1, -1] + [0, 1000]  # y grows downwards in SVG
    looks = [class_look(c) for c in range(len(found.clusters))]
    names = {"domain": found.domains, "class": found.labels}.get(color, [])
    looks_of = _looks_of(names)
    look_of_dot = [looks_of.get(name, _FAINT) for name in names] or [looks[c] for c in found.cluster]
    dots = [
        (x, y, *look, _says(found, i))
        for i, ((x, y), look) in enumerate(zip(places.tolist(), look_of_dot, strict=True))
    ]
    clusters = []
    for number, (cluster, (colour, shape)) in enumerate(zip(found.clusters, looks, strict=True), start=1):
        pictures = [
            html_text(found.beginnings[found.keys[i]])
            if found.keys[i] in found.beginnings
            else html_picture(known_thumbnail(found.home, found.paths[i], found.keys[i], _SIDE), found.paths[i])
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
                "labels": shares_text(cluster.labels, cluster.n) if cluster.labels else "",
                "domains": shares_text(cluster.domains, cluster.n) if cluster.domains else "",
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
        color=color,
        key=_key_of(names, looks_of, color),
        dots=dots,
        clusters=clusters,
        side=_SIDE_ON_MAP,
        box=_box(places),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def _says(found: ClusterMap, i: int) -> str:
    """Return what a dot of the map says when it is pointed at."""
    of = ", ".join(name for names in (found.labels, found.domains) if names and (name := one_line(names[i])))
    return f"{one_line(found.paths[i])}{f' ({of})' if of else ''}, cluster {found.cluster[i] + 1}"


def _box(places: Any) -> str:
    """Return the part of the plane that has images, with room for a picture at its edge."""
    low, high = places.min(axis=0) - _SIDE_ON_MAP, places.max(axis=0) + _SIDE_ON_MAP
    return f"{low[0]} {low[1]} {high[0] - low[0]} {high[1] - low[1]}"


def write_reports(found: ClusterMap, folder: Path, *, color: str = "cluster") -> dict[str, Path]:
    """Write map.html and .json into `folder` and return their paths by ending; see `to_html`."""
    return write_forms(folder, "map", html=to_html(found, color), json=to_document(found))
