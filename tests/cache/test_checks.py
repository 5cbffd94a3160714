"""A file as untrusted input: cut off, changed, made by a stranger; always one clear error."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_data import filled_cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheDamaged, CacheError

pytestmark = pytest.mark.whole


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return filled_cache(tmp_path / "c.h5")


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.2, 0.5, 0.9, 0.999], ids=str)
def test_a_cut_off_cache_is_a_clear_error(filled: Path, kept: float) -> None:
    data = filled.read_bytes()
    filled.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(CacheError, match=r"damaged|not an HDF5 file"), open_cache(filled) as cache:
        cache.verify()


def _external_link(file: h5py.File) -> None:
    del file["layers"]["pooled"]["rows"]
    file["layers"]["pooled"]["rows"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft_link(file: h5py.File) -> None:
    file["layers"]["other"] = h5py.SoftLink("/layers/pooled")


def _external_storage(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset(
        "rows", (200, 6), dtype="<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    )


def _virtual(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    layout = h5py.VirtualLayout((200, 6), dtype="<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (200, 6))
    file["layers/pooled"].create_virtual_dataset("rows", layout)


def _huge(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset("rows", (10**9, 1280), dtype="<f4", chunks=(64, 1280))
    file["layers/pooled/n_rows"][()] = 10**9


def _too_many(file: h5py.File) -> None:
    file["layers/pooled/n_rows"][()] = 10**6


def _bomb(file: h5py.File) -> None:
    del file["images/path"]
    file["images"].create_dataset("path", (10**9,), dtype="S4000", chunks=(1000,), compression="gzip")


def _tiny_chunks(file: h5py.File) -> None:
    del file["images/path"]
    path = file["images"].create_dataset("path", (200,), dtype="S90000", chunks=(100,), compression="gzip")
    for start in (0, 100):
        path.id.write_direct_chunk((start,), zlib.compress(b"x"))


def _nameless_filter(file: h5py.File) -> None:
    del file["images/label"]
    file["images"].create_dataset("label", data=np.array([b"a"] * 200), chunks=(200,), compression="lzf")


def _text_rows(file: h5py.File) -> None:
    del file["layers/pooled/rows"]
    file["layers/pooled"].create_dataset("rows", data=np.array([["a"] * 6] * 200, dtype="S1"))


def _other_version(file: h5py.File) -> None:
    file.attrs["format_version"] = 99


@pytest.mark.parametrize(
    "harm",
    [
        _external_link,
        _soft_link,
        _external_storage,
        _virtual,
        _huge,
        _too_many,
        _bomb,
        _tiny_chunks,
        _nameless_filter,
        _text_rows,
        _other_version,
    ],
    ids=lambda harm: harm.__name__.strip("_"),
)
def test_a_stranger_s_file_is_refused_before_anything_is_read(filled: Path, harm: object) -> None:
    with h5py.File(filled, "r+") as file:
        harm(file)  # type: ignore[operator]
    with pytest.raises(CacheError, match=str(filled.name)):
        open_cache(filled)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), n=st.integers(1, 40))
def test_mutated_bytes_end_in_a_listed_problem_or_a_clear_error(filled: Path, at: float, byte: int, n: int) -> None:
    data = bytearray(filled.read_bytes())
    start = int(at * len(data))
    data[start : start + n] = bytes([byte]) * len(data[start : start + n])
    mutant = filled.with_name("mutant.h5")
    mutant.write_bytes(data)
    try:
        with open_cache(mutant) as cache:
            cache.verify()
    except CacheError as error:
        assert str(mutant) in str(error)


def test_something_else_in_hdf5_is_not_taken_for_a_cache(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="not a tlfeat cache"):
        open_cache(tmp_path / "weights.h5")


def test_a_chunk_that_lies_on_the_beginning_of_the_file_is_damage(tmp_path: Path) -> None:
    """A repair that put zeros in the place of such a chunk made a file that nothing opens."""
    path = filled_cache(tmp_path / "c.h5")
    with h5py.File(path) as file:
        at = file["layers/pooled/rows"].id.get_chunk_info(1).byte_offset.to_bytes(8, "little")
    assert path.read_bytes().count(at) == 1
    path.write_bytes(path.read_bytes().replace(at, bytes(8)))
    with pytest.raises(CacheDamaged, match="chunk of another size than it declares"):
        open_cache(path)
