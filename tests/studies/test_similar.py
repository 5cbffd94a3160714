"""The nearest known pictures: by the rows alone, and what is known is not embedded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import CountingEncoder, MakePhotos, picture
from made_data import as_json, make_table, tlfeat
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.errors import DataError, FingerprintError, UsageError
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.similar import to_html, to_text
from tlfeat.studies import similar
from tlfeat.studies.similar import find_similar


@pytest.fixture
def photos(make_photos: MakePhotos) -> Path:
    return make_photos(n=6)


@pytest.fixture
def cache(photos: Path) -> Iterator[Cache]:
    with open_cache(plan_extraction(photos, backbone="pixels").run().cache) as opened:
        yield opened


def rows_cache(path: Path, rows: list[list[float]], labels: list[str]) -> Path:
    table = make_table(labels)
    with create_cache(path, {"backbone": "test", "dtype": "float32"}, {"encoder": {"backbone": "imported"}}) as cache:
        cache.append({"one": np.array(rows, np.float32)}, table.keys)
        cache.write_table(table)
    return path


def test_neighbours_are_those_of_the_smallest_angle_around_the_mean(tmp_path: Path) -> None:
    path = rows_cache(tmp_path / "r.h5", [[9, 7], [13, 7.5], [11, 11], [7, 6], [10, 3.5]], ["a", "b", "", "c", "d"])
    with open_cache(path) as cache:
        rows = cache.read("one", cache.table.keys)
        (found,) = find_similar(cache, [Path("b/1.png")], k=3).found
        all_found = find_similar(cache, [Path("b/1.png")], k=99).found[0]
    x = rows - rows.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = sorted((round(float(1 - x[1] @ x[i]), 6), i) for i in (0, 2, 3, 4))
    paths = ["a/0.png", "b/1.png", "/2.png", "c/3.png", "d/4.png"]
    assert [n.path for n in all_found.neighbours] == [paths[i] for _, i in expected]
    assert [n.distance for n in found.neighbours] == pytest.approx([d for d, _ in expected[:3]], abs=2e-6)
    assert found.known_as == ["b/1.png"]


def test_blocks_change_nothing(cache: Cache, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photos / "cat" / "1.png", photos / "dog" / "0.png"]
    whole = find_similar(cache, files)
    monkeypatch.setattr(similar, "_BLOCK", 5)
    assert find_similar(cache, files) == whole


def test_a_new_image_is_embedded_and_a_known_one_is_not(
    cache: Cache, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = CountingEncoder((16, 16))
    monkeypatch.setattr("tlfeat.extract.encoders.PixelEncoder", lambda: encoder)
    (tmp_path / "copy.png").write_bytes((photos / "cat" / "3.png").read_bytes())
    with Image.open(photos / "dog" / "2.png") as image:
        image.save(tmp_path / "other.bmp")
    found = find_similar(cache, [tmp_path / "copy.png", tmp_path / "other.bmp", Path("dog/2.png")], k=4).found
    assert encoder.n_encoded == 1
    assert found[0].known_as == ["cat/3.png"] and "cat/3.png" not in [n.path for n in found[0].neighbours]
    assert found[1].known_as == [] and found[1].neighbours[0].path == "dog/2.png"
    assert found[1].neighbours[0].distance < 1e-5
    assert [n.path for n in found[2].neighbours[:3]] == [n.path for n in found[1].neighbours[1:]]
    assert all(len(one.neighbours) == 4 for one in found)


def test_copies_count_once_and_are_told(photos: Path) -> None:
    (photos / "dog" / "9.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    picture(77).save(photos.parent / "new.png")
    with open_cache(plan_extraction(photos, backbone="pixels").run().cache) as cache:
        found = find_similar(cache, [photos.parent / "new.png"], k=50)
    neighbours = found.found[0].neighbours
    assert len(neighbours) == 12 and found.n_images == 13
    assert [n.n_copies for n in neighbours if n.path == "cat/0.png"] == [1]
    assert "cat/0.png (and 1 copy)" in to_text(found)


def test_what_cannot_be_asked_for_is_told(cache: Cache, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: .*no image of the cache either"):
        find_similar(cache, [Path("gone.png")])
    with pytest.raises(UsageError, match="received 0"):
        find_similar(cache, [Path("cat/0.png")], k=0)
    with (
        open_cache(rows_cache(tmp_path / "r.h5", [[1.0, 2], [2, 1]], ["a", "b"])) as imported,
        pytest.raises(DataError, match="only its own can be named"),
    ):
        find_similar(imported, [photos / "cat" / "0.png"])


def test_rows_of_another_encoder_are_refused(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(78).save(tmp_path / "new.png")
    monkeypatch.setattr("tlfeat.extract.encoders.PixelEncoder", lambda: CountingEncoder((4, 4)))
    with pytest.raises(FingerprintError, match="differing: input_size"):
        find_similar(cache, [tmp_path / "new.png"])


def test_the_page_shows_the_pictures_that_were_embedded_and_no_name_becomes_html(make_photos: MakePhotos) -> None:
    photos = make_photos(n=4, classes=("<b>cat", "dog"))
    with open_cache(plan_extraction(photos, backbone="pixels").run().cache) as cache:
        gone, changed, *_ = (n.path for n in find_similar(cache, [Path("dog/0.png")]).found[0].neighbours)
        (photos / gone).unlink()
        picture(5).save(photos / changed)
        found = find_similar(cache, [Path("dog/0.png")])
    page = to_html(found)
    assert page.count("<img") == 1 + 7 - 2 and "<b>" not in page and "&lt;b&gt;cat" in page
    assert page.index("<img") < page.index("<ol>")
    assert "default-src 'none'" in page and "<script" not in page


def test_the_command_prints_labels_and_distances_and_writes_a_page(photos: Path, tmp_path: Path) -> None:
    tlfeat("extract", str(photos), "--backbone", "pixels", "--cache", "c.h5", cwd=tmp_path)
    run = tlfeat("similar", "cat/1.png", "-k", "3", "--cache", "c.h5", cwd=tmp_path)
    lines = run.stdout.splitlines()
    assert lines[0].startswith("cat/1.png (in the cache as cat/1.png): ")
    assert lines[1].split() == ["distance", "label", "path"]
    assert len(lines) == 6 and float(lines[3].split()[0]) <= float(lines[5].split()[0])
    assert (tmp_path / "reports" / "c" / "similar.html").is_file() and "similar.html" in run.stderr
    document = as_json("similar", "cat/1.png", "dog/0.png", "--cache", "c.h5", cwd=tmp_path)
    assert [one["image"] for one in document["images"]] == ["cat/1.png", "dog/0.png"]
    assert document["images"][0]["neighbours"][0].keys() == {"path", "label", "split", "key", "n_copies", "distance"}
