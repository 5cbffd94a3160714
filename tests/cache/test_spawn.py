"""Another Python process takes the first look at a file where there is no fork."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from tlfeat.cache.checks import in_child
from tlfeat.cache.repair import repair_cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheDamaged, CacheError, CacheLocked

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)

KEYS = [f"{i:064x}" for i in range(6)]


@pytest.fixture(autouse=True)
def _no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "c.h5"
    with create_cache(path, {"dtype": "float32"}, {}) as cache:
        cache.append({"x": ROWS}, KEYS)
    return path


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (os.abort, "crashes the HDF5 library"),
        (partial(time.sleep, 60), "hangs the HDF5 library"),
        (partial(int, "x"), "is damaged: invalid literal"),
    ],
    ids=["crash", "wait", "error"],
)
def test_what_goes_wrong_in_the_process_is_an_error_here(
    tmp_path: Path, work: Callable[[], object], message: str
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(CacheDamaged, match=message):
        in_child(tmp_path / "f", work, patience=0.1)


def test_what_the_process_says_arrives_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert in_child(tmp_path / "f", partial(str.ljust, "é", 200_000, "é")) == "é" * 200_000


def test_a_file_that_is_none_is_refused_and_a_writer_keeps_its_lock(cache: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="not a tlfeat cache"):
        open_cache(tmp_path / "other.h5")
    with open_cache(cache, writable=True) as writer:
        with pytest.raises(CacheLocked):
            open_cache(cache, writable=True)
        with open_cache(cache) as beside:  # which another process has looked through in a turn of this one
            writer.append({"x": ROWS[:1] + 1}, [f"{99:064x}"])
            writer.commit()
            assert beside.read("x", KEYS).tolist() == ROWS.tolist()


def test_a_damaged_cache_is_mended_in_the_process(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file["layers/x/rows"][2] = 7.0
    assert "row 2" in repair_cache(cache)[0]
    with open_cache(cache) as mended:
        assert mended.read("x", KEYS[3:]).tolist() == ROWS[3:].tolist()


def test_what_is_sound_is_carried_over_in_the_process(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file["layers"]["linked"] = h5py.ExternalLink("/etc/passwd", "/")
        file["layers/x/rows"][5] = 0
    assert "It is kept as c.h5.damaged." in repair_cache(cache)[0]
    assert sorted(path.name for path in cache.parent.iterdir()) == ["c.h5", "c.h5.damaged"]
    with open_cache(cache) as mended:
        assert mended.read("x", KEYS[:5]).tolist() == ROWS[:5].tolist()
