"""The index of content keys answers as a dictionary does, in a seventh of the memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlfeat.cache import key_index
from tlfeat.cache.key_index import KeyIndex

#: Keys of few different bytes, so that many begin alike and some end in zeros.
DIGESTS = st.lists(
    st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([b"\0", b"\1", b"\xff"]).map(lambda b: b * 32)).map(
        lambda digest: digest[:2] + digest[30:] * 15
    ),
    max_size=60,
)


def as_array(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


@given(in_file=DIGESTS, appended=st.lists(DIGESTS, max_size=6), asked=DIGESTS)
def test_an_index_answers_as_a_dictionary(
    in_file: list[bytes], appended: list[list[bytes]], asked: list[bytes]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_index, "_MAX_RECENT", 7)
        patch.setattr(key_index, "_SEGMENT_ROWS", 23)
        patch.setattr(key_index, "_READ_ROWS", 5)
        stored = as_array(in_file)
        index = KeyIndex.read(len(stored), lambda start, stop: stored[start:stop])
        rows = list(in_file)
        for digests in appended:
            index.append(as_array(digests))
            rows += digests
        expected = {digest.hex(): row for row, digest in enumerate(rows)}
        wanted = [digest.hex() for digest in asked + rows]
        assert [index.get(key) for key in wanted] == [expected.get(key) for key in wanted]
        assert index.rows_of(as_array(asked + rows)).tolist() == [expected.get(key, -1) for key in wanted]
        assert index.numbers(wanted).tolist() == [expected.get(key, -1) for key in wanted]
        assert index.numbers([*wanted, "", "no key"]).tolist()[-2:] == [-1, -1]
        assert "" not in index
        assert 7 not in index
        if len(set(rows)) == len(rows):
            assert (index, len(index)) == (expected, len(expected))
            assert list(index) == list(expected)
        again = KeyIndex.read(len(rows), lambda start, stop: as_array(rows)[start:stop], like=[index])
        assert again.numbers(wanted).tolist() == index.numbers(wanted).tolist()


def test_a_key_that_is_there_twice_counts_once_and_has_its_last_row() -> None:
    digests = np.repeat(np.arange(70_000, dtype=">u4")[:, None], 8, axis=1).view(np.uint8)  # (n, 32)
    digests = np.concatenate([digests, digests[5:9]])
    index = KeyIndex.read(len(digests), lambda start, stop: digests[start:stop])
    assert (len(index), index[digests[6].tobytes().hex()]) == (70_000, 70_001)
    assert list(index)[5] == digests[9].tobytes().hex()


def test_an_index_takes_forty_bytes_a_row_and_a_second_layer_with_the_same_keys_nothing() -> None:
    n = 100_000
    digests = np.random.default_rng(3).integers(0, 256, (n, 32), dtype=np.uint8)
    tracemalloc.start()
    index = KeyIndex.read(n, lambda start, stop: digests[start:stop])
    one = tracemalloc.get_traced_memory()[0]
    second = KeyIndex.read(n, lambda start, stop: digests[start:stop], like=[index])
    both, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one < 40 * n
    assert both - one < 1 * n
    assert peak < 60 * n
    assert second[digests[77].tobytes().hex()] == 77
