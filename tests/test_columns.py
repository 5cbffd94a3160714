"""Columns in little memory read as the lists that they stand for."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlfeat import blocks, columns
from tlfeat.blocks import Chained
from tlfeat.columns import Codes, Collected, Keys, Paths, as_codes, at, pack, pack_keys, pack_numbers
from tlfeat.extract.recognise import recognise
from tlfeat.images.image_set import ImageSet

#: Texts of a file system: some share beginnings, some are no UTF-8, some end in NUL.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=9),
        st.binary(max_size=5).map(lambda data: "common/" + data.decode("utf-8", "surrogateescape")),
        st.sampled_from(["", "x", "x\0", "x\0\0", "common/" * 60]),
    ),
    max_size=50,
)

KEYS = st.lists(st.one_of(st.just(""), st.binary(min_size=32, max_size=32).map(bytes.hex)), max_size=30)

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, columns):
        monkeypatch.setattr(module, "BLOCK_LINES", 16)


def same(column: Any, values: list[Any]) -> None:
    """Assert that a column is the list in every way in which it is read."""
    n = len(values)
    assert len(column) == n and list(column) == values
    assert column == values and values == column and column == tuple(values)
    assert [column[i] for i in range(-n, n)] == values + values
    assert column[3:] == values[3:] and column[5:40:3] == values[5:40:3] and column[:-1] == values[:-1]
    assert column != [*values, *values[:1], values[0] if values else "x"]
    assert all(column.count(value) == values.count(value) and value in column for value in values[:5])
    with pytest.raises(IndexError):
        column[n]
    some = list(range(n - 1, -1, -2))
    kind = type(column._parts[0] if isinstance(column, Chained) else column)
    assert at(column, some) == [values[i] for i in some] and type(at(column, some)) is kind
    assert column.copy() == column


@settings(max_examples=25)
@given(TEXTS)
def test_texts_read_as_their_list(texts: list[str]) -> None:
    for column in (pack(texts, is_path=True), pack(iter(texts)), as_codes(texts)):
        same(column, texts)
    assert set(as_codes(texts).distinct) == set(texts)
    widths = [len(text.encode("utf-8", "surrogateescape")) for text in texts]
    paths = pack(texts, is_path=True)
    assert isinstance(paths, Paths) and paths.most_bytes == max(widths, default=0)


@settings(max_examples=25)
@given(KEYS, NUMBERS)
def test_keys_and_numbers_read_as_their_list(keys: list[str], numbers: list[int]) -> None:
    same(pack_keys(keys), keys)
    same(pack_numbers(numbers), numbers)
    places = np.arange(len(numbers))[::-1]
    assert pack_numbers(numbers).take(places).tolist() == numbers[::-1]
    assert pack_keys(keys).has_any == any(keys)


@settings(max_examples=25)
@given(TEXTS, KEYS, NUMBERS, st.lists(st.integers(0, 50), max_size=4))
def test_chained_columns_read_as_one_list(
    texts: list[str], keys: list[str], numbers: list[int], places: list[int]
) -> None:
    places = [0, *sorted(places), 50]
    packs: list[tuple[list[Any], Callable[[Any], Any]]] = [
        (texts, as_codes),
        (texts, lambda some: pack(some, is_path=True)),
        (keys, pack_keys),
        (numbers, pack_numbers),
    ]
    for values, packed in packs:
        column = Chained([packed(values[a:b]) for a, b in pairwise(places)])
        same(column, values)
        assert column == packed(values) and packed(values) == column
        assert [column[a:b] for a, b in combinations(places, 2)] == [values[a:b] for a, b in combinations(places, 2)]
        if values:
            assert column != [*values[:-1], "another"] and np.asarray(column).tolist() == np.asarray(values).tolist()


@settings(max_examples=25)
@given(TEXTS, KEYS, st.lists(st.tuples(st.integers(0, 49), st.sampled_from(["ok", "x", "", "7" * 64])), max_size=20))
def test_a_column_that_was_copied_stays_as_it_is(texts: list[str], keys: list[str], changes: list[Any]) -> None:
    for values, column in ((texts, as_codes(texts)), (keys, pack_keys(keys))):
        now, changed = list(values), column.copy()
        for place, text in changes:
            if place < len(now) and (isinstance(column, Codes) or len(text) in (0, 64)):
                now[place] = changed[place] = text
        assert (changed, column) == (now, values)
        copied = changed.copy()
        if now:
            changed[0] = "9" * 64
        assert copied == now
        copied.share(column)
        assert copied == now


def test_a_column_of_many_texts_becomes_paths_and_one_of_few_is_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MAX_DISTINCT", 9)
    few, many = [f"label {i % 9}" for i in range(70)], [f"group {i}" for i in range(70)]
    assert (type(pack(few)), type(pack(many))) == (Codes, Paths)
    assert (pack(few), pack(many)) == (few, many)
    numbered = Codes.filled("ok", 70)
    for i, text in enumerate(many * 5):
        numbered[i % 70] = f"{text} {i}"  # more than a byte can number
    assert numbered == [f"{text} {280 + i}" for i, text in enumerate(many)]


def test_lines_are_found_and_set_by_block() -> None:
    status = Codes.filled("pending", 40)
    status.set_some(1, np.arange(16) % 5 == 0, "ok")
    assert list(status.where("ok")) == [16, 21, 26, 31]
    assert list(status.where_not("pending")) == [16, 21, 26, 31]
    assert list(status.where("failed")) == []
    assert status.are("ok", np.array([31, 0, 16])).tolist() == [True, False, True]
    assert (status.count("ok"), "ok" in status, "failed" in status) == (4, True, False)


def test_a_column_is_added_to_only_where_its_blocks_are_full() -> None:
    keys = pack_keys(["7" * 64] * 17)
    with pytest.raises(ValueError, match="17 lines do not end with a block of 16"):
        keys.extend(["7" * 64])
    assert pack_keys(keys) is keys


def test_an_image_takes_at_most_60_bytes_in_the_table_and_a_second_table_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (blocks, columns):
        monkeypatch.setattr(module, "BLOCK_LINES", 8192)
    n = 3 * 8192
    keys = [hashlib.sha256(bytes([i & 255, i >> 8])).hexdigest() for i in range(n)]
    sizes = np.random.default_rng(2).integers(5_000, 60_000, n).tolist()
    tracemalloc.start()
    try:
        paths, labels = Collected(is_path=True), Collected()
        for i in range(n):
            paths.append(f"class_{i // 1000:05d}/image_{i:09d}.jpg")
            labels.append(f"class_{i // 1000:05d}")
        held = [paths.column(), labels.column(), pack_keys(keys), pack_numbers(sizes)]
        held += [Codes.filled("", n), Codes.filled("ok", n), pack_numbers([10**18 + 10**9 * size for size in sizes])]
        assert tracemalloc.get_traced_memory()[0] / n < 60
        copies = [column.copy() for column in held]
        assert tracemalloc.get_traced_memory()[0] / n < 61
    finally:
        tracemalloc.stop()
    assert copies == held


# --- what is recognised -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        list(range(70)),
        [*range(70), *range(100, 140)],
        [*range(5), 100, *range(5, 70)],
        [*range(20, 70), *range(3)],
        list(range(69, -1, -1)),
        [100, *range(7, 60, 3), 101, 102],
        [100, 101],
    ],
    ids=["same", "more behind", "one between", "first are last", "reversed", "some", "others"],
)
@pytest.mark.parametrize("as_list", [list, lambda paths: pack(paths, is_path=True)], ids=["list", "column"])
def test_files_are_recognised_wherever_their_lines_are(
    order: list[int], as_list: Callable[[list[str]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlfeat.extract.recognise.BLOCK_LINES", 16)
    for i in chain(range(70), range(100, 140)):
        (tmp_path / f"{i}.png").write_bytes(b"x" * i)

    def image_set(places: list[int]) -> ImageSet:
        paths, nothing = as_list([f"{i}.png" for i in places]), Codes.filled("", len(places))
        return ImageSet(tmp_path, tmp_path, paths, nothing, nothing, nothing)

    key_of = {i: hashlib.sha256(bytes([i])).hexdigest() for i in range(70)}
    before = recognise(image_set(list(range(70))), None)
    assert set(before.status) == {"pending"} and Keys.none(70) == before.keys
    for i in range(70):
        before.keys[i], before.status[i] = key_of[i], "failed" if i == 33 else "ok"
    (tmp_path / "12.png").write_bytes(b"another size")
    (tmp_path / "40.png").unlink()
    found = recognise(image_set(order), before)
    expected = [i if i < 70 and i not in (12, 33, 40) else None for i in order]
    assert found.keys == ["" if i is None else key_of[i] for i in expected]
    assert found.status == ["pending" if i is None else "ok" for i in expected]
    assert found.sizes == [12 if i == 12 else 0 if i == 40 else i for i in order]


def test_a_path_with_the_hash_of_another_one_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlfeat.extract.recognise.hash", len, raising=False)
    nothing = Codes.filled("", 3)
    images = ImageSet(tmp_path, tmp_path, ["a.png", "b.png", "long.png"], nothing, nothing, nothing)
    for path in images.paths:
        (tmp_path / path).write_bytes(b"x")
    before = recognise(images, None)
    for i in range(3):
        before.keys[i], before.status[i] = str(i) * 64, "ok"
    found = recognise(images.at([2, 0, 1]), before)
    assert found.keys == ["2" * 64, "", "1" * 64]
