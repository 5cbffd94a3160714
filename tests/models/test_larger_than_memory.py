"""Rows that do not fit into memory are read from the file block by block, or the head says what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos
from tlfeat import memory, workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.contents import StoredRows, read_rows
from tlfeat.cache.store import open_cache
from tlfeat.cli.console import errors_as_exit_codes
from tlfeat.errors import DataError
from tlfeat.evaluate import copies
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.models import fit_sklearn as candidates


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path) -> Path:
    return extract_rows(load_images(make_photos(n=40)), PixelEncoder((8, 8)), tmp_path / "c.h5").cache


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (candidates, copies):
        monkeypatch.setattr(module, "available_memory", lambda: 1000)
    monkeypatch.setattr(candidates, "_beside_rows", lambda width: 0)


@pytest.mark.sample("logreg", "lda")
@pytest.mark.parametrize("head", ["logreg", "linear-svm", "ridge", "lda"])
def test_a_head_fitted_from_the_file_is_the_head_fitted_in_memory(
    head: str, cache: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_data(cache, seed=0) as data:
        one = candidates.fit_sklearn(data, head).result
    read, of_all = [], StoredRows.__getitem__

    def counted(self: StoredRows, block: slice, /) -> object:
        read.append(block)
        return of_all(self, block)

    monkeypatch.setattr(StoredRows, "__getitem__", counted)
    request.getfixturevalue("little_memory")
    shutil.rmtree(workspace.COPIES_DIR)  # found with enough memory
    with open_data(cache, seed=0) as data:
        other = candidates.fit_sklearn(data, head, is_fresh=True).result
    assert len(read) > 10
    assert other.predicted == one.predicted
    assert other.chosen["rows"] == one.chosen["rows"]
    np.testing.assert_allclose(other.certainty, one.certainty, atol=1e-3)  # the rows come in another order
    assert other.leaks is not None
    assert "larger than memory" in other.leaks.notes[0]


@pytest.mark.parametrize("head", ["svm", "knn"])
@pytest.mark.usefixtures("little_memory")
def test_a_head_that_needs_all_rows_says_how_much_and_which_to_take(head: str, cache: Path) -> None:
    with open_data(cache, seed=0) as data, pytest.raises(DataError, match=rf"{head} needs about .* GB .* logreg"):
        candidates.fit_sklearn(data, head)


def test_where_even_blocks_do_not_fit_it_says_how_much_is_needed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "available_memory", lambda: 200_000_000)
    with (
        open_data(cache, seed=0) as data,
        pytest.raises(DataError, match=r"about 0\.3 GB .* 192 columns even .* fewer columns"),
    ):
        candidates.fit_sklearn(data, "logreg")


def test_memory_that_runs_out_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, errors_as_exit_codes():
        raise MemoryError("Unable to allocate 9 GiB")
    assert end.value.code == 3
    assert capsys.readouterr().err == "error: there is not enough memory (Unable to allocate 9 GiB).\n"


def test_stored_rows_are_those_of_the_cache_side_by_side(cache: Path) -> None:
    with open_cache(cache) as opened:
        keys = make_split(opened.table).keys
        stored = StoredRows(opened, ["pixels", "pixels"], keys)
        assert stored.shape == (80, 2 * 192)
        expected = opened.read("pixels", keys)
        assert np.array_equal(stored[slice(5, 9)], np.concatenate([expected, expected], axis=1)[5:9])
        assert np.array_equal(read_rows(opened, ["pixels", "pixels"], keys)[:, :192], expected)


def test_available_memory_is_no_more_than_the_machine_has_and_sees_a_limit_on_the_process() -> None:
    free = memory.available_memory()
    assert 0 < free < 2**50
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (300_000_000, 300_000_000));"
        "from tlfeat.memory import available_memory; print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 100_000_000 < int(done.stdout) < 300_000_000


@pytest.mark.parametrize(
    ("limit", "usage"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
    ids=["version 2", "version 1"],
)
def test_what_a_container_uses_already_is_not_available(
    limit: str, usage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        Path("/proc/meminfo"): ["MemTotal: 16000 kB", "MemAvailable: 9000 kB"],
        Path("/sys/fs/cgroup", limit): ["5000000"],
        Path("/sys/fs/cgroup", usage): ["3200000"],
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path, []))
    assert memory.available_memory() == 1_800_000
    files[Path("/sys/fs/cgroup", limit)] = ["max"]  # no limit
    assert memory.available_memory() == 9000 * 1024
