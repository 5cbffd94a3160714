"""The map of a cache: clusters without labels, named by what is nearest to their centres."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos, picture
from made_data import as_json, make_table, tlfeat
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.cluster_map import ClusterMap, _key_of, _looks_of, map_cache, to_document, to_html, to_text


def blobs_cache(path: Path, sizes: tuple[int, ...] = (20, 12, 8), *, has_labels: bool = True) -> Path:
    """Rows around a few far directions, so that which image belongs where is known; the middle of each comes first."""
    rng = np.random.default_rng(4)
    rows = []
    for c, n in enumerate(sizes):
        centre = 10 * np.eye(6)[c]
        rows += [centre, *(centre + rng.normal(0, 1, (n - 1, 6)))]
    labels = [f"<i>{c}" if has_labels else "" for c, n in enumerate(sizes) for _ in range(n)]
    order = rng.permutation(len(rows))
    table = make_table([labels[i] for i in order], paths=[f"{i:03}.png" for i in order])
    with create_cache(path, {"backbone": "test", "dtype": "float32"}, {"encoder": {"backbone": "imported"}}) as cache:
        cache.append({"one": np.array(rows, np.float32)[order]}, table.keys)
        cache.write_table(table)
    return path


def mapped(path: Path, **options: object) -> ClusterMap:
    with open_cache(path) as cache:
        return map_cache(cache, kind="pca", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("has_labels", [True, False])
def test_images_that_are_alike_are_one_cluster_the_largest_first(tmp_path: Path, has_labels: bool) -> None:
    found = mapped(blobs_cache(tmp_path / "b.h5", has_labels=has_labels), n_clusters=3)
    assert [cluster.n for cluster in found.clusters] == [20, 12, 8]
    of = dict(zip(found.paths, found.cluster.tolist(), strict=True))
    assert [of[f"{i:03}.png"] for i in range(40)] == [0] * 20 + [1] * 12 + [2] * 8
    assert [cluster.labels for cluster in found.clusters] == (
        [[("<i>0", 20)], [("<i>1", 12)], [("<i>2", 8)]] if has_labels else [[], [], []]
    )
    assert ("labels" in to_text(found).splitlines()[2]) is has_labels


def test_a_cluster_is_named_by_the_image_nearest_to_its_centre(tmp_path: Path) -> None:
    found = mapped(blobs_cache(tmp_path / "b.h5", (30, 20)), n_clusters=2)
    for cluster, middle in zip(found.clusters, ("000.png", "030.png"), strict=True):
        typical = [found.paths[i] for i in cluster.typical]
        assert middle in typical[:4] and len(typical) == 8
        assert found.name(cluster) == typical[0]
        assert all(found.cluster[i] == found.cluster[cluster.typical[0]] for i in cluster.typical)


def test_the_number_of_clusters_follows_the_number_of_images(tmp_path: Path) -> None:
    assert len(mapped(blobs_cache(tmp_path / "a.h5", (30, 30, 10))).clusters) == 10
    assert len(mapped(blobs_cache(tmp_path / "b.h5", (9, 7))).clusters) == 3
    assert len(mapped(blobs_cache(tmp_path / "c.h5", (2, 2))).clusters) == 2


def test_a_sample_is_seeded_and_said(tmp_path: Path) -> None:
    path = blobs_cache(tmp_path / "b.h5")
    found, again, other = (mapped(path, max_images=15, seed=seed) for seed in (3, 3, 4))
    assert found.paths == again.paths and found.points.tobytes() == again.points.tobytes()
    assert found.paths != other.paths and len(found.paths) == 15 and found.n_images == 40
    assert to_text(found).startswith("a seeded sample of 15 of 40 pictures in 3 clusters, by their rows of one")


def test_equal_rows_are_one_cluster(tmp_path: Path) -> None:
    table = make_table(["a"] * 6)
    with create_cache(tmp_path / "e.h5", {"backbone": "test", "dtype": "float32"}, {}) as cache:
        cache.append({"one": np.ones((6, 4), np.float32)}, table.keys)
        cache.write_table(table)
    assert [cluster.n for cluster in mapped(tmp_path / "e.h5", n_clusters=3).clusters] == [6]


def test_what_makes_no_map_is_told(tmp_path: Path) -> None:
    path = blobs_cache(tmp_path / "b.h5", (4, 3))
    with pytest.raises(UsageError, match="from 2 to the number of pictures, 7; received 8"):
        mapped(path, n_clusters=8)
    with open_cache(path) as cache, pytest.raises(UsageError, match=r"No map 'tnse'\. Did you mean 'tsne'"):
        map_cache(cache, kind="tnse")
    with pytest.raises(DataError, match="2 pictures of the layer one: a map wants three"):
        mapped(blobs_cache(tmp_path / "c.h5", (1, 1)))


def test_the_page_has_every_image_and_no_name_becomes_html(tmp_path: Path) -> None:
    page = to_html(mapped(blobs_cache(tmp_path / "b.h5"), n_clusters=3))
    assert page.count("<path class=") == 40 + 3 and page.count("<section>") == 3 and "<img" not in page
    assert "<i>" not in page and "(&lt;i&gt;0), cluster 1" in page
    assert "20 images: &lt;i&gt;0 100.0 %." in page
    assert "default-src 'none'" in page and "<script" not in page
    assert "principal components" in page and "mean nothing" not in page


def test_the_page_shows_the_typical_pictures_on_the_map_and_below(make_photos: MakePhotos) -> None:
    photos = make_photos(n=6)
    with open_cache(plan_extraction(photos, backbone="pixels").run().cache) as cache:
        found = map_cache(cache, kind="pca", n_clusters=2)
        for path in {found.paths[cluster.typical[1]] for cluster in found.clusters}:
            picture(9).save(photos / path)  # another one than was embedded
        page = to_html(found)
    assert page.count("<image href=") == 2 and page.count("<img") == 12 - 2
    x, y, width, height = map(float, re.findall(r'viewBox="(-?\d+ -?\d+ \d+ \d+)" role', page)[0].split())
    places = [tuple(map(float, at.split())) for at in re.findall(r"translate\(([-\d ]+)\)", page)]
    assert len(places) == 12
    assert all(x < px < x + width and y < py < y + height for px, py in places)


def test_the_command_prints_a_line_a_cluster_and_writes_a_page(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=6)
    tlfeat("extract", str(photos), "--backbone", "pixels", "--cache", "c.h5", cwd=tmp_path)
    words = ("map", "--cache", "c.h5", "--kind", "pca", "--clusters", "2")
    run = tlfeat(*words, cwd=tmp_path)
    assert run.stdout.startswith("12 pictures in 2 clusters, by their rows of pixels; labels had no part in it.")
    assert (tmp_path / "reports" / "c" / "map.html").is_file() and "map.html" in run.stderr
    document = as_json(*words, cwd=tmp_path)
    assert sum(cluster["n_images"] for cluster in document["clusters"]) == len(document["images"]) == 12
    numbers = {image["path"]: image["cluster"] for image in document["images"]}
    assert all(numbers[path] == c["number"] for c in document["clusters"] for path in c["typical"])


# --- domains --------------------------------------------------------------------------------------------------


def with_domains(path: Path, names: list[str]) -> ClusterMap:
    with open_cache(blobs_cache(path), writable=True) as cache:
        table = cache.table
        cache.write_table(
            replace(table, images=replace(table.images, domains=[names[i % len(names)] for i in range(40)]))
        )
    return mapped(path, n_clusters=3)


def test_domains_have_a_column_a_key_and_the_colours_where_asked_for(tmp_path: Path) -> None:
    found = with_domains(tmp_path / "b.h5", ["<b>Süd", "nord", "", "nord"])
    of = dict(zip(found.paths, found.domains, strict=True))
    assert sum(n for cluster in found.clusters for name, n in cluster.domains if name == "nord") == 20
    assert "domains" in to_text(found).splitlines()[2]
    document = to_document(found)
    assert {image["path"]: image["domain"] for image in document["images"]} == of
    assert document["clusters"][0]["domains"] == dict(found.clusters[0].domains)
    page = to_html(found, "domain")
    key = re.findall(r"<li><svg.*?<path class=\"(c\d)\".*?</svg> (.*?)</li>", page)
    assert key == [("c0", "&lt;b&gt;Süd (10)"), ("c1", "nord (20)"), ("c4", "no domain (10)")]
    dots = re.findall(r'<path class="(c\d)" transform.*?<title>(\d+\.png)', page)
    colour = {"<b>Süd": "c0", "nord": "c1", "": "c4"}
    assert [dot for dot, _ in dots] == [colour[of[path]] for _, path in dots] and len(dots) == 40
    assert ", nord), cluster" in page and "<b>" not in page and "Domains: " in page
    by_class = re.findall(r"</svg> (.*?)</li>", to_html(found, "class"))
    assert by_class == ["&lt;i&gt;0 (20)", "&lt;i&gt;1 (12)", "&lt;i&gt;2 (8)"]


def test_of_very_many_domains_the_most_frequent_have_a_colour(tmp_path: Path) -> None:
    names = [f"camera {i}" for i in range(500) for _ in range(2 if i in (7, 400) else 1)]
    looks = _looks_of(names)
    assert len(looks) == 64 and "camera 400" in looks
    key = _key_of(names, looks, "domain")
    assert len(key) == 65 and key[-1][2] == "all others (436)"


def test_colours_that_nothing_is_known_of_are_refused(tmp_path: Path) -> None:
    found = mapped(blobs_cache(tmp_path / "b.h5", has_labels=False))
    with pytest.raises(UsageError, match=r"no image has a domain.*--domain-column"):
        to_html(found, "domain")
    with pytest.raises(UsageError, match="no image has a label"):
        to_html(found, "class")
    with pytest.raises(UsageError, match=r"No colours by 'domian'\. Did you mean 'domain'"):
        to_html(found, "domian")
    assert "domain" not in to_document(found)["images"][0] and "domains" not in to_text(found)
