"""The copies in a cache are found once and kept; whatever asks for them gets the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_data import FINGERPRINT, photo, table_of, tlfeat
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.evaluate import copies as copying
from tlfeat.evaluate.copies import Copies, Way, find_copies
from tlfeat.evaluate.projections import N_COLUMNS
from tlfeat.extract.extract import extract_rows
from tlfeat.images.duplicates import Pair
from tlfeat.images.image_set import content_key
from tlfeat.images.load import load_images


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each search among pictures looked at."""
    found: list[int] = []
    search = copying.find_duplicates

    def counted(rows: object, keys: list[str], *args: object, **options: object) -> object:
        found.append(len(keys))
        return search(rows, keys, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "find_duplicates", counted)
    return found


def write_set(folder: Path, n: int = 9) -> Path:
    (folder / "a").mkdir(parents=True)
    for i in range(n):
        photo(i).save(folder / "a" / f"{i}.png")
    photo(4).save(folder / "a" / "copy.jpg", quality=70)
    photo(5).save(folder / "a" / "copy.bmp")
    return folder


def found_in(folder: Path, file: str = "c.h5", encoder: PixelEncoder | None = None) -> Copies:
    with open_cache(extract_rows(load_images(folder), encoder or PixelEncoder(), Path(file)).cache) as cache:
        return find_copies(cache)


def kept_files() -> list[Path]:
    return list(Path("cache/copies").glob("*.json"))


def test_copies_are_found_once_for_all_images_and_read_afterwards(tmp_path: Path, searches: list[int]) -> None:
    first = found_in(write_set(tmp_path / "set"))
    assert {pair.kind for pair in first.pairs} == {"near", "pixels"}
    assert found_in(tmp_path / "set") == first
    assert searches == [11]


def test_another_image_or_encoder_is_searched_anew(tmp_path: Path, searches: list[int]) -> None:
    found_in(write_set(tmp_path / "set"))
    photo(8).save(tmp_path / "set" / "a" / "another.jpg", quality=60)
    assert len(found_in(tmp_path / "set").pairs) == 3
    with open_cache(
        extract_rows(load_images(tmp_path / "set"), PixelEncoder(input_size=(9, 9)), Path("d.h5")).cache
    ) as cache:
        assert len(find_copies(cache).pairs) == 3
    assert searches == [11, 12, 12]


def forged(text: str, pairs: list[Any]) -> str:
    """Return what a file was found to hold with other pairs, and the digest that fits them."""
    content = {**json.loads(text), "pairs": pairs}
    del content["digest"]
    return json.dumps({**content, "digest": workspace.digest(content, 16)})


@pytest.mark.sample("cut", "no pairs", "other kind")
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"near"', '"pixels"'),
        lambda text: json.dumps({**json.loads(text), "pairs": []}),
        lambda text: forged(text, [[0, 900, "near", 0.9]]),
        lambda text: forged(text, [["x", None, "near", 0.9]]),
        lambda text: forged(text, [[0, 1, "near", "much"]]),
    ],
    ids=["cut", "empty", "list", "other kind", "no pairs", "no such image", "no numbers", "no similarity"],
)
def test_a_damaged_file_is_ignored_and_made_again(tmp_path: Path, searches: list[int], damage) -> None:  # type: ignore[no-untyped-def]
    first = found_in(write_set(tmp_path / "set"))
    (file,) = kept_files()
    whole = file.read_text()
    file.write_text(damage(whole))
    assert found_in(tmp_path / "set") == first
    assert searches == [11, 11]
    assert file.read_text() == whole


def test_what_was_found_without_some_pictures_is_not_kept(tmp_path: Path, searches: list[int]) -> None:
    write_set(tmp_path / "set")
    path = extract_rows(load_images(tmp_path / "set"), PixelEncoder(), Path("c.h5")).cache
    (tmp_path / "set" / "a" / "4.png").rename(tmp_path / "4.png")
    with open_cache(path) as cache:
        assert find_copies(cache).notes == ["1 picture could not be read again and not be compared"]
    (tmp_path / "4.png").rename(tmp_path / "set" / "a" / "4.png")
    with open_cache(path) as cache:
        assert len(find_copies(cache).pairs) == 2
    (tmp_path / "set").rename(tmp_path / "gone")
    with open_cache(path) as cache:  # read, though the pictures are gone
        assert len(find_copies(cache).pairs) == 2
    assert searches == [11, 11]


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path: Path, searches: list[int]) -> None:
    Path("cache").mkdir()
    Path("cache/copies").write_text("a file, no folder")
    assert len(found_in(write_set(tmp_path / "set")).pairs) == 2


def test_the_nearest_source_is_the_one_with_the_fewest_changes() -> None:
    keys = ["a", "b", "c", "d", "e", "f", "g"]
    pairs = [
        Pair(0, 1, "near", 0.93),
        Pair(1, 2, "pixels", 1.0),
        Pair(2, 3, "near", 0.99),
        Pair(3, 4, "near", 0.97),
        Pair(0, 3, "near", 0.92),
        Pair(5, 6, "near", 0.99),
    ]
    copies = Copies(keys, pairs, [])
    assert copies.nearest({"a": 0}) == {
        "a": Way("a", "bytes", 1.0, 0),
        "b": Way("a", "near", 0.93, 1),
        "c": Way("a", "near", 0.93, 1),
        "d": Way("a", "near", 0.92, 1),
        "e": Way("a", "near", 0.92, 2),
    }
    assert copies.nearest({"b": 0, "e": 1})["c"] == Way("b", "pixels", 1.0, 0)
    assert copies.nearest({"c": 0, "e": 1})["d"] == Way("c", "near", 0.99, 1)
    groups = copies.groups()
    assert len({groups[key] for key in "abcde"}) == 1
    assert groups["f"] == groups["g"] != groups["a"]


def test_a_fit_keeps_what_an_audit_reads(tmp_path: Path, searches: list[int]) -> None:
    write_set(tmp_path / "set", n=12)
    rng = np.random.default_rng(0)
    (tmp_path / "set" / "b").mkdir()
    for i in range(12):
        photo(100 + int(rng.integers(0, 1000)) + i).save(tmp_path / "set" / "b" / f"{i}.png")
    tlfeat("extract", "set", "--backbone", "pixels", "-q", cwd=tmp_path)
    tlfeat("fit-sklearn", "--model", "knn", "-q", cwd=tmp_path)
    tlfeat("audit", "--seed", "3", "-q", cwd=tmp_path)
    assert len(searches) == 1


def test_where_rows_do_not_fit_copies_are_found_by_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    n, width = 300, 700
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((n, width)).astype(np.float32)
    rows[250:] = rows[:50] + 0.1 * rng.standard_normal((50, width)).astype(np.float32)  # a cosine of 0.995
    keys = [content_key(row.tobytes()) for row in rows]
    with create_cache(Path("wide.h5"), FINGERPRINT, {"encoder": {"backbone": "imported"}}) as cache:
        cache.append({"wide": rows}, keys)
        cache.write_table(table_of(keys))
    bytes_of = {"all": 8 * n * width + 1, "some": 8 * n * N_COLUMNS + 1, "none": 8 * n * N_COLUMNS}
    found = {}
    with open_cache("wide.h5") as cache:
        for name, n_bytes in bytes_of.items():
            monkeypatch.setattr("tlfeat.evaluate.copies.available_memory", lambda n_bytes=n_bytes: n_bytes)
            found[name] = find_copies(cache)
    pairs = {name: {(pair.one, pair.other) for pair in copies.pairs} for name, copies in found.items()}
    assert len(pairs["all"]) == 50
    assert pairs["some"] == pairs["all"]
    assert not any("projections" in note for note in found["all"].notes)
    assert any("by 256 random projections" in note for note in found["some"].notes)
    assert (pairs["none"], found["none"].notes[0].partition(":")[0]) == (set(), "the rows are larger than memory")
