"""Shards of one set: each an ordinary cache, one cache together, and nothing is copied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import CountingEncoder, MakePhotos
from made_data import FINGERPRINT, key_of, make_table, some_rows
from tlfeat import workspace
from tlfeat.cache.joined import join_caches
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.shard_join import join_shards
from tlfeat.cache.sharded import ShardedCache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.columns import Codes, Keys, Numbers, Paths
from tlfeat.errors import CacheDamaged, CacheError, FingerprintError
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.images.load import load_images
from tlfeat.images.shards import Shard
from tlfeat.models import fit_sklearn as fit_sklearn_module
from tlfeat.models.fit_sklearn import fit_sklearn


def extract_shard(photos: Path, shard: Shard, encoder: CountingEncoder, folder: str = "shards") -> ExtractReport:
    Path(folder).mkdir(exist_ok=True)
    images = shard.of(load_images(photos))
    return extract_rows(images, encoder, Path(folder) / shard.file_name, origin={"encoder": {"backbone": "pixels"}})


def write_shard(
    number: int, seeds: list[int], *, n_shards: int = 3, layers: tuple[str, ...] = ("pooled",), **of: Any
) -> Path:
    """Write a shard of a folder ``shards``; the seed of a picture is its key, and its rows follow from it."""
    file = Path("shards") / Shard(number, n_shards).file_name
    file.parent.mkdir(exist_ok=True)
    keys = [key_of(seed) for seed in seeds]
    status = of.pop("status", ["ok"] * len(keys))
    source = {"root": "/data", "source": "/data", "encoder": {"backbone": "pixels"}, **of.pop("source", {})}
    noise = 1000 * of.pop("noise", 0)
    rows = np.array([some_rows(1, seed=seed + noise)[0][0] for seed in seeds]).reshape(-1, 6)
    with create_cache(file, {**FINGERPRINT, **of}, source) as cache:
        ok = [i for i, each in enumerate(status) if each == "ok"]
        cache.append(dict.fromkeys(layers, rows[ok]), [keys[i] for i in ok])
        labels = ["cat" if seed % 2 else "dog" for seed in seeds]
        paths = [f"{label}/{number}-{seed}.png" for label, seed in zip(labels, seeds, strict=True)]
        cache.write_table(make_table(labels, keys=keys, status=status, paths=paths))
        cache.write_document("timing", {"extract_s": 3.0, "embed_s": 2.0, "n_embedded": len(ok), "runtime": "x"})
    return file


def test_ten_shards_hold_the_rows_of_one_cache_and_give_the_same_head(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=21)
    shutil.copy(photos / "cat" / "3.png", photos / "cat" / "copy.png")
    (photos / "dog" / "broken.png").write_bytes(b"no picture")
    origin = {"encoder": {"backbone": "pixels"}}
    one = extract_rows(load_images(photos), encoder, "one.h5", origin=origin).cache
    reports = [extract_shard(photos, Shard(k, 10), encoder) for k in range(1, 11)]
    assert max(report.n_images for report in reports) < 20
    encoder.n_encoded = 0
    joined = join_shards("shards")
    assert (len(joined.shards), joined.n_images, joined.layers, joined.notes) == (10, 43, {"pixels": 42}, [])
    with open_cache(one) as single, open_cache("shards") as many, open_cache("shards/manifest.json") as named:
        assert isinstance(many, ShardedCache) and named.layers == many.layers == single.layers
        assert sorted(many.known("pixels")) == sorted(single.known("pixels"))
        assert many.stem == "shards"
        keys = single.table.keys[::-1]
        readable = [key for key in keys if key in single.known("pixels")]
        assert many.read("pixels", readable).tobytes() == single.read("pixels", readable).tobytes()
        rows, is_sound = many.read_sound("pixels", readable)
        assert rows.tobytes() == single.read("pixels", readable).tobytes() and is_sound.all()
        assert sorted(many.table.images.paths) == sorted(single.table.images.paths)
        assert many.table.count("failed") == 1
        assert many.timing["n_embedded"] >= 42 and many.verify() == []
        splits = [make_split(cache.table, seed=3) for cache in (single, many)]
        assert splits[0].paths == splits[1].paths and splits[0].roles == splits[1].roles
    scores = []
    for cache in ("one.h5", "shards"):
        with open_data(cache, seed=2) as data:
            outcome = fit_sklearn(data, "logreg")
            scores.append((outcome.result.score, outcome.result.settings))
    assert scores[0] == scores[1]
    assert encoder.n_encoded == 0


def test_of_a_key_in_two_shards_the_first_row_counts_and_it_counts_once() -> None:
    write_shard(1, [1, 2, 3])
    write_shard(2, [4, 2], noise=1)
    write_shard(3, [5, 1, 6], noise=2)
    joined = join_shards("shards")
    assert (joined.layers, joined.n_images) == ({"pooled": 6}, 8)
    with open_cache("shards") as cache:
        assert cache.n_rows("pooled") == len(cache.known("pooled")) == 6
        row = cache.read("pooled", [key_of(2)])[0]
        assert row.tobytes() == some_rows(1, seed=2)[0][0].tobytes()
        assert cache.table.count("ok") == 8
        assert len(set(cache.known("pooled").values())) == 6


def test_the_tables_of_shards_are_chained_without_unpacking_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [[1, 2, 3], [4], [6, 5]]
    for number, some in enumerate(seeds, 1):
        write_shard(number, some)
    join_shards("shards")

    def unpacked(*_: object) -> Any:
        raise AssertionError("unpacked")

    with open_cache("shards") as cache:
        with monkeypatch.context() as patched:
            for kind in (Codes, Keys, Numbers, Paths):
                patched.setattr(kind, "_values", unpacked)
            table = cache.table
        assert list(table.keys) == [key_of(seed) for some in seeds for seed in some]
        some = table.at([5, 0, 3])
        assert (some.images.paths, some.keys[1]) == (["cat/3-5.png", "cat/1-1.png", "dog/2-4.png"], key_of(1))
        packed = table.packed()
        assert (packed.images, packed.keys, packed.sizes) == (table.images, table.keys, table.sizes)
        assert (packed.status, packed.errors, packed.mtimes_ns) == (table.status, table.errors, table.mtimes_ns)


def test_layers_that_only_some_shards_have_are_counted_for_themselves() -> None:
    write_shard(1, [1, 2], layers=("pooled", "deep"))
    write_shard(2, [3, 4, 5])
    write_shard(3, [2, 6], layers=("deep",))
    assert join_shards("shards").layers == {"deep": 3, "pooled": 5}
    with open_cache("shards") as cache:
        assert cache.layers == {"deep": (3, 6), "pooled": (5, 6)}
        assert cache.read("deep", [key_of(6), key_of(1)]).shape == (2, 6)
        with pytest.raises(CacheError, match=r"1 of 2 images have no row in layer 'deep'"):
            cache.read("deep", [key_of(6), key_of(4)])


def test_what_is_missing_or_unfinished_is_said_and_joined_only_if_asked() -> None:
    write_shard(1, [1, 2, 3])
    write_shard(3, [4, 5], status=["ok", "pending"])
    said = r"1 shard of 3 is missing \(2/3\); 1 shard of 3 is not finished \(3/3\)"
    with pytest.raises(CacheError, match=said):
        join_shards("shards")
    assert not Path("shards/manifest.json").exists()
    joined = join_shards("shards", is_partial=True)
    assert [note.partition(" (")[0] for note in joined.notes] == [
        "1 shard of 3 is missing",
        "1 shard of 3 is not finished",
    ]
    with open_cache("shards") as cache:
        assert cache.table.count("ok") == len(cache.table.keys) == 4
    write_shard(2, [7])
    with open_cache("shards") as cache:
        assert cache.notes == ["shard-00002-of-00003.h5 in shards: not joined (tlfeat cache join shards)"]


@pytest.mark.parametrize(
    ("other", "error", "said"),
    [
        ({"weights": "others"}, FingerprintError, "different encoders. Differing: weights: None and 'others'"),
        ({"source": {"class_map": ["a=b"]}}, CacheError, "read in different ways. Differing: class_map"),
        ({"n_shards": 4}, CacheError, "different cuts, into 3 and into 4"),
    ],
)
def test_shards_of_two_kinds_are_refused(other: dict[str, Any], error: type[Exception], said: str) -> None:
    for number in (1, 2):
        write_shard(number, [number])
    write_shard(3, [3], **other)
    with pytest.raises(error, match=said.replace("(", r"\(")):
        join_shards("shards")


def test_the_folder_of_the_images_may_differ_between_machines() -> None:
    for number in (1, 2, 3):
        write_shard(number, [number], source={"root": f"/mnt{number}", "source": f"/mnt{number}"})
    assert join_shards("shards").n_images == 3


def test_a_shard_that_went_or_grew_since_is_said() -> None:
    files = [write_shard(number, [number, 10 + number]) for number in (1, 2, 3)]
    join_shards("shards")
    with open_cache(files[1], writable=True) as cache:
        cache.append({"pooled": some_rows(1, seed=50)[0]}, [key_of(50)])
    with pytest.raises(CacheError, match=r"00002-of-00003.h5 has other rows.*tlfeat cache join shards"):
        open_cache("shards")
    assert join_shards("shards").layers == {"pooled": 7}
    files[2].unlink()
    with pytest.raises(CacheError, match=r"00003-of-00003.h5 has gone.*tlfeat cache join shards"):
        open_cache("shards")


def test_verify_finds_rows_that_were_replaced_since() -> None:
    for number in (1, 2, 3):
        file = write_shard(number, [number, 10 + number])
    join_shards("shards")
    file.unlink()
    write_shard(3, [3, 99])
    with open_cache("shards") as cache:
        assert cache.verify() == ["shard-00003-of-00003.h5: layer 'pooled' has other keys than when it was joined"]


def test_repair_goes_through_all_shards() -> None:
    for number in (1, 2, 3):
        file = write_shard(number, [number, 10 + number])
    join_shards("shards")
    data = bytearray(file.read_bytes())
    at = data.index(some_rows(1, seed=13)[0][0].tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert repair_cache(Path("shards")) == ["shard-00003-of-00003.h5: layer 'pooled', row 1: the checksum does not fit"]


def changed(**values: Any) -> None:
    file = Path("shards/manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.sample("../shard-00001-of-00003.h5", "/etc/passwd")
@pytest.mark.parametrize("name", ["../shard-00001-of-00003.h5", "/etc/passwd", "other.h5", "shard-00001-of-00004.h5"])
def test_a_manifest_that_points_outside_its_folder_is_refused(name: str) -> None:
    for number in (1, 2, 3):
        write_shard(number, [number])
    join_shards("shards")
    shutil.copy("shards/shard-00001-of-00003.h5", ".")
    shards = json.loads(Path("shards/manifest.json").read_text())["shards"]
    changed(shards=[{**shards[0], "file": name}, *shards[1:]])
    with pytest.raises(CacheDamaged, match="is no shard of 3 in its folder"):
        open_cache("shards")


@pytest.mark.sample(
    "values2-is of format tlfeat-shards 9", "values3-names a shard twice, or none", "values4-different encoders"
)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shards": {}}, "shards is {}"),
        ({"n_shards": "3"}, "n_shards is '3'"),
        ({"format_version": 9}, "is of format tlfeat-shards 9"),
        ({"shards": []}, "names a shard twice, or none"),
        ({"fingerprint": {"backbone": "other"}}, "different encoders"),
    ],
)
def test_a_damaged_manifest_is_said(values: dict[str, Any], said: str) -> None:
    for number in (1, 2, 3):
        write_shard(number, [number])
    join_shards("shards")
    changed(**values)
    with pytest.raises(CacheError, match=said):
        open_cache("shards")


def test_a_folder_without_a_manifest_says_what_to_do() -> None:
    Path("empty").mkdir()
    with pytest.raises(CacheError, match="is a folder without shards, not a cache"):
        open_cache("empty")
    write_shard(1, [1])
    with pytest.raises(CacheError, match="holds shards that are not joined: tlfeat cache join shards"):
        open_cache("shards")
    with pytest.raises(CacheError, match="No shard in empty"):
        join_shards("empty")


def test_shards_are_written_one_by_one() -> None:
    for number in (1, 2, 3):
        write_shard(number, [number])
    join_shards("shards")
    with pytest.raises(CacheError, match="each is written by itself"):
        open_cache("shards", writable=True)


def test_a_joined_folder_is_the_newest_cache_and_a_shard_never_is(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=4)
    extract_rows(load_images(photos), encoder, "cache/one.h5")
    for number in (1, 2):
        extract_shard(photos, Shard(number, 2), encoder, "cache/two.shards")
    assert workspace.newest_cache() == Path("cache/one.h5")
    join_shards("cache/two.shards")
    assert workspace.newest_cache() == Path("cache/two.shards")
    assert workspace.other_caches(Path("cache/two.shards/shard-00001-of-00002.h5")) == [
        Path("cache/two.shards"),
        Path("cache/one.h5"),
    ]


def test_an_image_that_was_added_goes_into_its_shard_and_the_others_stay(
    make_photos: MakePhotos, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=9)
    for number in (1, 2, 3):
        extract_shard(photos, Shard(number, 3), encoder)
    encoder.n_encoded = 0
    Image.new("RGB", (9, 9), "green").save(photos / "cat" / "0a.png")
    reports = [extract_shard(photos, Shard(number, 3), encoder) for number in (1, 2, 3)]
    assert (encoder.n_encoded, sorted(report.n_embedded for report in reports)) == (1, [0, 0, 1])
    assert join_shards("shards").n_images == 19


def test_an_empty_shard_is_one(make_photos: MakePhotos, encoder: CountingEncoder) -> None:
    photos = make_photos(n=1)
    reports = [extract_shard(photos, Shard(number, 4), encoder) for number in range(1, 5)]
    assert 0 in {report.n_images for report in reports}
    assert join_shards("shards").n_images == 2


def test_caches_of_shards_are_joined_as_domains() -> None:
    for number in (1, 2, 3):
        write_shard(number, [number, 10 + number])
    join_shards("shards")
    shutil.move("shards", "left.shards")
    for number in (1, 2, 3):
        write_shard(number, [100 + number, 110 + number])
    join_shards("shards")
    found = join_caches([Path("left.shards"), Path("shards")])
    with open_cache(found.path) as cache:
        assert cache.layers == {"pooled": (12, 6)}
        assert set(cache.table.images.domains) == {"left", "shards"}
        assert cache.read("pooled", [key_of(111)])[0].tobytes() == some_rows(1, seed=111)[0][0].tobytes()


def test_heads_that_stream_their_rows_answer_the_same_from_shards(
    make_photos: MakePhotos, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(n=30, classes=("ash", "elm", "yew"))
    origin = {"encoder": {"backbone": "pixels"}}
    extract_rows(load_images(photos), encoder, "one.h5", origin=origin)
    for number in (1, 2, 3):
        extract_shard(photos, Shard(number, 3), encoder)
    join_shards("shards")
    width = 8 * 8 * 3
    monkeypatch.setattr(fit_sklearn_module, "available_memory", lambda: fit_sklearn_module._beside_rows(width) + 1)
    reads: list[int] = []
    read = ShardedCache.read
    monkeypatch.setattr(ShardedCache, "read", lambda *given: reads.append(len(given[2])) or read(*given))
    for head in ("logreg", "ridge", "lda"):
        results = []
        for cache in ("one.h5", "shards"):
            with open_data(cache, seed=4) as data:
                results.append(fit_sklearn(data, head).result)
        assert results[0].predicted == results[1].predicted
        assert results[0].chosen == results[1].chosen
        assert np.abs(np.subtract(results[0].certainty, results[1].certainty)).max() < 1e-4
    assert len(reads) > 6  # block by block, and more than once


def test_shards_of_the_first_format_of_manifests_are_read(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "golden" / "shards", tmp_path / "shards")
    rows, keys = some_rows(7)
    with open_cache("shards") as cache:
        assert cache.layers == {"pooled": (7, 6)}
        assert cache.read("pooled", keys[::-1]).tobytes() == rows[::-1].tobytes()
        assert list(cache.table.images.paths) == [f"a/1-{i}.png" for i in range(4)] + [
            f"a/2-{i}.png" for i in (4, 1, 5, 6)
        ]
        assert cache.verify() == []
    assert join_shards("shards").layers == {"pooled": 7}
