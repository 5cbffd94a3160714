"""A long path table is written piece by piece: whatever was committed when a writer died, every line is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from made_data import FINGERPRINT, key_of, some_rows, table_of
from tlfeat import blocks, columns
from tlfeat.cache import cache_file, path_table
from tlfeat.cache.hdf5_file import Hdf5File
from tlfeat.cache.store import Cache, create_cache, open_cache
from tlfeat.images.image_set import ImageTable

N_BLOCK, N = 32, 90


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 lines, each committed, and no table in one commit that has more than two of them."""
    for module, name in (
        (blocks, "BLOCK_LINES"),
        (columns, "BLOCK_LINES"),
        (cache_file, "BLOCK_LINES"),
        (path_table, "BLOCK_LINES"),
        (path_table, "_CHUNK_LINES"),
    ):
        monkeypatch.setattr(module, name, N_BLOCK)
    monkeypatch.setattr(path_table, "_ONE_COMMIT_LINES", 2 * N_BLOCK)
    monkeypatch.setattr(cache_file, "_COMMIT_BYTES", 0)


def lines(table: ImageTable) -> list[tuple[object, ...]]:
    images = table.images
    texts = (images.paths, images.labels, images.splits, images.groups, images.domains)
    return list(zip(*texts, table.keys, table.status, table.errors, table.sizes, table.mtimes_ns, strict=True))


def numbered(n: int, *, label: str = "") -> ImageTable:
    """A table of pictures in order of name; with another label every line differs."""
    table = table_of([key_of(i) for i in range(n)], [f"{label or 'x'}/{i:06d}.png" for i in range(n)])
    labels = [label or f"class {i % 7}" for i in range(n)]
    return replace(table, images=replace(table.images, labels=labels), mtimes_ns=[10**18 + i for i in range(n)])


def failed_and_more(table: ImageTable) -> ImageTable:
    """The same images and 25 more; one in the middle has failed, others are not reached any more."""
    more = numbered(len(table.images) + 25)
    more.status[50], more.keys[50] = "failed", ""
    more.status[92:102] = ["pending"] * 10
    return replace(more, mtimes_ns=[10**18 + i + (i % 50 == 3) for i in range(len(more.images))])


CHANGES: dict[str, tuple[Callable[[ImageTable], ImageTable], bool]] = {
    "some lines and more": (failed_and_more, True),
    "only more": (lambda _: numbered(N + 25), True),
    "nothing": (lambda table: table, True),
    "other labels": (lambda table: replace(table, images=replace(table.images, labels=["z"] * N)), False),
    "fewer": (lambda _: numbered(N - 20), False),
    "a longer name": (lambda _: replace(numbered(N + 1), images=numbered(N + 1, label="long" * 9).images), False),
    "domains": (lambda table: replace(table, images=replace(table.images, domains=["a", "b", ""] * (N // 3))), False),
    "few": (lambda _: numbered(20), False),
}


def held(path: Path) -> ImageTable:
    with open_cache(path) as cache:
        assert [line for line in cache.verify() if "not embedded yet" not in line] == []
        return cache.table


@pytest.mark.sample("some lines and more", "nothing", "fewer")
@pytest.mark.parametrize(("change", "is_in_place"), CHANGES.values(), ids=CHANGES)
def test_every_line_is_as_before_or_as_it_was_to_be_whenever_the_writer_dies(
    change: Callable[[ImageTable], ImageTable],
    is_in_place: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, left, commit = tmp_path / "c.h5", [], Hdf5File.commit

    def as_a_kill_leaves_it(file: Hdf5File) -> None:
        commit(file)
        left.append(Path(shutil.copy(path, tmp_path / f"left{len(left)}.h5")))

    before = numbered(N)
    after = change(before)
    rows, _ = some_rows(N + 25)
    cache: Cache = create_cache(path, FINGERPRINT, {})
    cache.append({"pooled": rows}, [key_of(i) for i in range(N + 25)])
    cache.write_table(before)
    if after.images.labels[0] != "z":
        cache.close()
        cache = open_cache(path, writable=True)
    with cache:
        monkeypatch.setattr(Hdf5File, "commit", as_a_kill_leaves_it)
        cache.write_table(after)
        assert lines(cache.table) == lines(after)
    old, new = lines(before), lines(after)
    found = [lines(held(each)) for each in left]
    assert found[-1] == new and lines(held(path)) == new
    for table in found if is_in_place else []:
        assert N <= len(table) <= len(new)
        assert all(line in (old[i : i + 1] + new[i : i + 1]) for i, line in enumerate(table))
    if not is_in_place:
        assert all(table in (old, new) for table in found)
    n_pieces = {"nothing": 1, "few": 1}.get(next(name for name in CHANGES if CHANGES[name][0] is change), 2)
    assert len(found) >= n_pieces
    with h5py.File(path) as file:
        assert set(file) == {"images", "layers"}


def test_what_a_killed_writer_left_of_a_table_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.h5"
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.write_table(numbered(N))
        with cache.changing() as file:
            file.create_group("images_new").create_dataset("path", data=[b"half"])
    assert lines(held(path)) == lines(numbered(N))
    with open_cache(path, writable=True) as cache:
        cache.write_table(numbered(N, label="z"))
    with h5py.File(path) as file:
        assert set(file) == {"images", "layers"}
    assert lines(held(path)) == lines(numbered(N, label="z"))


def test_an_unchanged_table_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.write_table(numbered(N))
    content = path.read_bytes()
    with open_cache(path, writable=True) as cache:
        cache.write_table(numbered(N))
    assert path.read_bytes() == content
