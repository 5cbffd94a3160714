"""Several caches of one encoder as one: the images of each are a domain, and nothing is embedded again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import CountingEncoder, MakePhotos
from made_data import FINGERPRINT, key_of, make_table, some_rows, tlfeat
from made_sentences import LetterEncoder
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache import joined
from tlfeat.cache.contents import picture_files, read_texts
from tlfeat.cache.joined import join_caches
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import BadImage, CacheDamaged, DataError, FingerprintError, UsageError
from tlfeat.evaluate.copies import find_copies
from tlfeat.evaluate.domain_split import find_domains, make_domain_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.image_set import ImageTable
from tlfeat.images.load import load_images
from tlfeat.texts.text_set import load_texts


def cache_of(path: str, table: ImageTable, *, layers: tuple[str, ...] = ("pooled",), **fingerprint: Any) -> Path:
    """Write a cache of these images whose rows follow from their keys."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    source = {"root": str(table.images.root), "source": "data", "encoder": {"backbone": "pixels"}}
    ok = list(dict.fromkeys(key for key, status in zip(table.keys, table.status, strict=True) if status == "ok"))
    rows = np.array([some_rows(1, seed=int(key[:6], 16))[0][0] for key in ok]).reshape(-1, 6)
    with create_cache(file, {**FINGERPRINT, **fingerprint}, source) as cache:
        cache.append(dict.fromkeys(layers, rows), ok)
        cache.write_table(table)
        cache.write_document("timing", {"extract_s": 3.0, "embed_s": 2.0, "n_embedded": len(ok), "runtime": "x"})
    return file


def two(first: int, n: int = 4, **columns: Any) -> ImageTable:
    """Return images of two classes, all different from those that begin at another number."""
    return make_table(["cat", "dog"] * (n // 2), keys=[key_of(i) for i in range(first, first + n)], **columns)


def test_joined_caches_are_what_the_same_folders_are_as_domains_of_one(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    made = make_photos(n=5, classes=("1", "2", "3", "4"))  # which are all different
    for old, new in zip("1234", ("photo/cat", "photo/dog", "sketch/cat", "sketch/dog"), strict=True):
        shutil.copytree(made / old, Path("all") / new)
    together = extract_rows(load_images("all", domains=True), encoder, "one.h5").cache
    caches = [extract_rows(load_images(f"all/{name}"), encoder, f"{name}.h5").cache for name in ("sketch", "photo")]
    encoder.n_encoded = 0
    found = join_caches(caches)
    assert (found.names, found.notes, found.is_reused) == (["photo", "sketch"], [], False)
    with open_cache(found.path) as cache, open_cache(together) as other:
        assert joined._columns(cache.table) == joined._columns(other.table)
        assert cache.table.images.root == other.table.images.root
        assert cache.layers == other.layers
        (layer,) = cache.layers
        keys = cache.table.keys
        assert cache.read(layer, keys).tobytes() == other.read(layer, keys).tobytes()
        assert cache.verify() == []
        splits = [make_domain_split(each.table, ["photo"], "sketch", seed=3).split for each in (cache, other)]
        assert splits[0].info == splits[1].info
        files = picture_files(cache, cache.table.images.paths)
        assert files is not None and all(file.exists() for file in files)
        assert find_copies(cache).pairs == find_copies(other).pairs
        assert cache.timing["n_embedded"] == 20
    assert encoder.n_encoded == 0


def test_it_is_made_again_only_where_it_would_hold_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = [cache_of("a.h5", two(0)), cache_of("b.h5", two(10))]
    first = join_caches(caches)
    cache_of("cache/later.h5", two(20))
    with monkeypatch.context() as patch:
        patch.setattr(joined, "_copy", None)  # a row that is copied is an error
        again = join_caches(caches[::-1])
    assert (again.path, again.is_reused) == (first.path, True)
    assert workspace.newest_cache() == first.path
    with open_cache(caches[1], writable=True) as cache:
        cache.write_table(two(10, groups=["x", "x", "y", "y"]))
    assert not join_caches(caches).is_reused
    with open_cache(first.path) as cache:
        assert cache.table.images.groups == ["", "", "", "", "x", "x", "y", "y"]
    first.path.write_bytes(b"damaged")
    assert not join_caches(caches).is_reused
    assert join_caches(caches).is_reused


def test_the_same_names_in_another_folder_are_another_cache() -> None:
    one = join_caches([cache_of("x/a.h5", two(0)), cache_of("x/b.h5", two(10))])
    other = join_caches([cache_of("y/a.h5", two(20)), cache_of("y/b.h5", two(30))])
    assert one.path != other.path
    assert join_caches([Path("x/a.h5"), Path("y/a.h5")]).names == ["x/a", "y/a"]


def test_a_name_that_extract_chose_is_the_name_of_the_data() -> None:
    chosen = cache_of("cache/photo-test-0a1b2c3d.h5", two(0))
    assert join_caches([chosen, cache_of("b-test-old.h5", two(10))]).names == ["b-test-old", "photo"]
    other = cache_of("cache/photo-test-99999999.h5", two(20))
    assert join_caches([chosen, other]).names == ["photo-test-0a1b2c3d", "photo-test-99999999"]


def test_domains_and_groups_with_one_name_in_two_caches_are_told_apart() -> None:
    a = two(0, domains=["one", "two", "", ""], groups=["17", "", "18", ""], splits=["train", "test", "", ""])
    b = two(10, domains=["one", "", "a", ""], groups=["17", "", "", "19"])
    found = join_caches([cache_of("a.h5", a), cache_of("b.h5", b)])
    with open_cache(found.path) as cache:
        images = cache.table.images
        assert find_domains(cache.table) == ["a", "a/one", "b", "b/a", "b/one", "two"]
    assert images.domains == ["a/one", "two", "a", "a", "b/one", "b", "b/a", "b"]
    assert images.groups == ["a/17", "", "18", "", "b/17", "", "", "19"]
    assert images.splits == ["train", "test", *[""] * 6]
    assert found.notes == [
        "2 domains called the same in several caches are taken as different ones, with the name of the cache in front "
        "(a, one)",
        "1 group called the same in several caches is taken as different ones, with the name of the cache in front "
        "(17)",
    ]


def test_copies_in_two_caches_share_a_row_and_are_said() -> None:
    a, b = two(0), make_table(["cat", "cat"], keys=[key_of(0), key_of(1)], paths=["x.png", "y.png"])
    found = join_caches([cache_of("a.h5", a), cache_of("b.h5", b)])
    assert found.notes == [
        "2 pictures are in several of these caches, 1 of them with another label: copies share a row, and count in no "
        "score where another copy trains"
    ]
    with open_cache(found.path) as cache:
        assert cache.layers == {"pooled": (4, 6)}
        assert len(cache.table.images) == 6


@pytest.mark.sample("beside", "none")
@pytest.mark.parametrize(
    ("roots", "root", "paths"),
    [
        (("/d/a", "/d/b/c"), "/d", ["a/p.png", "/else/q.png", "b/c/p.png", "/else/q.png"]),
        (("/d", "/d"), "/d", ["p.png", "/else/q.png", "p.png", "/else/q.png"]),
        (("/d", "/d/b"), "/d", ["p.png", "/else/q.png", "b/p.png", "/else/q.png"]),
        (("", "/d"), "", ["p.png", "/else/q.png", "/d/p.png", "/else/q.png"]),
    ],
    ids=["beside", "same", "below", "none"],
)
@pytest.mark.skipif(joined.os.sep != "/", reason="these are absolute paths of POSIX")
def test_paths_lead_to_the_same_pictures(roots: tuple[str, str], root: str, paths: list[str]) -> None:
    caches = []
    for name, each in zip("ab", roots, strict=True):
        table = make_table(
            ["cat", "dog"], keys=[key_of(name + "1"), key_of(name + "2")], paths=["p.png", "/else/q.png"]
        )
        object.__setattr__(table.images, "root", Path(each))
        caches.append(cache_of(f"{name}.h5", table))
    with open_cache(join_caches(caches).path) as cache:
        assert (cache.table.images.root, cache.table.images.paths) == (Path(root), paths)


def test_only_layers_that_are_whole_in_every_cache_are_joined() -> None:
    a, b = cache_of("a.h5", two(0), layers=("deep", "pooled")), cache_of("b.h5", two(10), layers=("pooled", "wide"))
    with open_cache(b, writable=True) as cache:
        cache.append({"deep": np.ones((1, 6), np.float32)}, [key_of(10)])  # the others were not reached
    found = join_caches([a, b])
    assert found.notes == ["layers that are not in every cache are left out: deep, wide"]
    with open_cache(found.path) as cache:
        assert cache.layers == {"pooled": (8, 6)}


def refused(error: type[Exception], match: str, *caches: Path) -> None:
    with pytest.raises(error, match=match):
        join_caches(list(caches))
    assert not list(workspace.CACHE_DIR.glob("*"))


def test_what_cannot_be_joined_is_refused_in_a_line() -> None:
    a = cache_of("a.h5", two(0))
    refused(UsageError, "a.h5 is named twice", a, a.resolve())
    other = cache_of("b.h5", two(10), weights="w2")
    refused(FingerprintError, r"a.h5 and b.h5 .*weights: None and 'w2'.*tlfeat compare --cache a.h5", a, other)
    other = cache_of("c.h5", two(10), layers=("wide",))
    refused(DataError, r"No layer .*a.h5: pooled \(6 columns\); c.h5: wide \(6 columns\)", a, other)
    other = cache_of("d.h5", make_table(["Cat", "Dog"], keys=[key_of(10), key_of(11)]))
    refused(
        DataError, r"a.h5 \(cat, dog\) has no class in common with d.h5 \(Cat, Dog\).*--class-map 'cat=Cat'", a, other
    )
    other = cache_of("e.h5", two(10, status=["ok", "ok", "pending", "ok"]))
    refused(DataError, "e.h5: 1 of 4 images are not embedded yet", a, other)
    other = cache_of("f.h5", two(10, status=["failed"] * 4))
    refused(DataError, "f.h5 has no image with a row", a, other)


def test_a_damaged_row_is_not_copied() -> None:
    a, b = cache_of("a.h5", two(0)), cache_of("b.h5", two(10))
    with open_cache(b) as cache:
        row = cache.read("pooled", [key_of(11)]).tobytes()
    content = b.read_bytes()
    assert content.count(row) == 1
    b.write_bytes(content.replace(row, b"\x01" + row[1:]))
    refused(CacheDamaged, "b.h5: rows of layer 'pooled' are damaged. Run: tlfeat cache verify", a, b)


def test_a_file_of_this_name_that_was_not_joined_is_kept() -> None:
    caches = [cache_of("a.h5", two(0)), cache_of("b.h5", two(10))]
    path = join_caches(caches).path
    shutil.copy("a.h5", path)
    with pytest.raises(UsageError, match="was not made by joining caches"):
        join_caches(caches)
    assert path.read_bytes() == Path("a.h5").read_bytes()


def test_images_are_embedded_into_the_parts_and_not_into_the_joined_cache(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    for name in ("a", "b"):
        extract_rows(load_images(make_photos(n=2 if name == "a" else 3, folder=name)), encoder, f"{name}.h5")
    path = join_caches([Path("a.h5"), Path("b.h5")]).path
    before = path.read_bytes()
    run = tlfeat("extract", "--cache", str(path), cwd=Path(), expect=3)
    assert "was joined from" in run.stderr
    with pytest.raises(DataError, match=r"was joined from .*a.h5, .*b.h5. Run tlfeat extract on each"):
        extract_rows(load_images("a"), encoder, path)
    assert path.read_bytes() == before


def test_texts_of_two_tables_are_read_again() -> None:
    caches = []
    for name in ("books", "films"):
        Path(f"{name}.csv").write_text(f"body,label\ngood {name},yes\nbad {name},no\n")
        texts = load_texts(Path(f"{name}.csv"), text_column="body")
        origin = {"encoder": {"backbone": "letters"}, "holds": "texts", "text_column": "body"}
        caches.append(extract_rows(texts, LetterEncoder(), f"{name}.h5", origin=origin).cache)
    with open_cache(join_caches(caches).path) as cache:
        found = read_texts(cache, cache.table.keys)
        assert cache.table.images.holds == "texts"
        assert [found[key] for key in cache.table.keys] == ["good books", "bad books", "good films", "bad films"]


def test_adapt_takes_several_caches_as_domains() -> None:
    words = ["--cache", str(cache_of("a.h5", two(0))), "--cache", str(cache_of("b.h5", two(10)))]
    run = tlfeat("adapt", "--target", "c", *words, cwd=Path(), expect=2)  # which ends before anything is fitted
    assert "a, b: joined in cache/a+b-" in run.stderr
    assert "No domain 'c'. Known domains: a, b." in run.stderr
    run = tlfeat("adapt", "--target", "c", *words, cwd=Path(), expect=2)
    assert "as they were joined before" in run.stderr


def test_one_cache_without_domains_says_how_to_name_several() -> None:
    run = tlfeat("adapt", "--target", "b", "--cache", str(cache_of("a.h5", two(0))), cwd=Path(), expect=3)
    assert "have no domains" in run.stderr and "--cache A.h5 --cache B.h5" in run.stderr


def test_compare_of_caches_without_a_common_image_names_adapt() -> None:
    a, b = cache_of("a.h5", two(0)), cache_of("b.h5", two(10))
    run = tlfeat("compare", "--cache", str(a), "--cache", str(b), cwd=Path(), expect=3)
    assert "tlfeat adapt --cache a.h5 --cache b.h5 --leave-one-out" in run.stderr


def test_images_of_stores_are_joined_and_none_is_taken_for_a_file(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    paths = []
    for k, name in enumerate(("one", "two")):
        for i in range(6):
            picture = tmp_path / "p.png"
            Image.new("RGB", (9, 9), (30 * i, 90 * k, 5)).save(picture)
            files.pipe(f"/{name}/{'cat' if i % 2 else 'dog'}/{i}.png", picture.read_bytes())
        paths.append(tmp_path / f"{name}.h5")
        extract_rows(load_images(f"memory://{name}"), PixelEncoder(), paths[-1])
    found = join_caches(paths)
    with open_cache(found.path) as cache:
        images = cache.table.images
        assert images.paths[0] == "memory://one/cat/1.png"
        content = images.content(0)
        assert callable(content)
        with pytest.raises(BadImage, match="joined from several places"):
            content()
