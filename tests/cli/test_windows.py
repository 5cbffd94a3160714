"""The main road on a Linux that refuses what Windows refuses; `windows` says what that is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import windows
from conftest import MakePhotos

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is made to look like Windows")

#: One process for several commands: a file that a command forgets to close stands in the way of the next.
ROAD = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="tlfeat")  # else files are cp1252
from tlfeat.cli.app import main
for line in sys.argv[1:]:
    print("$", line, flush=True)
    try:
        sys.argv = ["tlfeat", *line.split("|")]
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


NO_EMBEDDING = """
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.errors import DataError
def refuse(*_):
    raise DataError("no embedding today")
PixelEncoder.encode = refuse
"""


def on_windows(folder: Path, *lines: str, expect: int = 0, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run commands (words parted by ``|``) one after the other in one process, in `folder`, after the code `first`."""
    start = folder.parent / "start"
    start.mkdir(exist_ok=True)
    run = subprocess.run(
        [
            sys.executable,
            "-X",
            "warn_default_encoding",
            "-c",
            first + ROAD,
            *lines,
        ],
        cwd=folder,
        env=windows.environment(start),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == expect, f"{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr, run.stderr
    return run


@pytest.fixture
def work(make_photos: MakePhotos) -> Path:
    """A folder with pictures of two classes, one of them with a name that cp1252 cannot write."""
    return make_photos(n=12, classes=("dog", "猫")).parent


def test_a_folder_of_pictures_goes_all_the_way_on_windows(work: Path) -> None:
    run = on_windows(
        work,
        "extract|photos|--backbone|pixels",
        "extract|photos|--backbone|pixels",
        "fit-sklearn|--model|svm",
        "fit-sklearn|--model|svm|--fresh",
        "compare|--heads|svm|--keras|none|--map|none",
        "predict|photos/猫/3.png",
        "cache|export|rows.npz",
        "cache|export|rows.csv",
        "cache|export|rows.csv",
        "cache|verify",
        "cache|verify|--repair",
        "cache|info",
        "audit",
        "cache|clean|--yes",
        "models",
    )
    assert "猫" in run.stdout
    assert [path.name for path in work.rglob(".*")] == []
    assert list(work.rglob("*.journal")) == []


@pytest.mark.soak
def test_the_built_in_example_is_extracted_and_fitted_on_windows(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    run = on_windows(folder, "extract", "fit-sklearn|--model|knn", "predict|cache/example/digits/test/7", "cache|info")
    assert "last by openvino" in run.stdout
    assert any((folder / "cache" / "networks").glob("*.xml"))


def test_a_first_run_that_fails_leaves_no_cache_on_windows(work: Path) -> None:
    run = on_windows(work, "extract|photos|--backbone|pixels", expect=3, first=NO_EMBEDDING)
    assert "error: no embedding today" in run.stderr
    assert [path.name for path in (work / "cache").iterdir()] == []


def test_a_cache_that_cannot_be_opened_is_salvaged_on_windows(work: Path) -> None:
    on_windows(work, "extract|photos|--backbone|pixels|--cache|c.h5")
    with h5py.File(work / "c.h5", "r+") as file:
        file["layers"]["linked"] = h5py.ExternalLink("/etc/passwd", "/")
    run = on_windows(work, "cache|verify|--repair|--cache|c.h5", "cache|info|--cache|c.h5")
    assert "It is kept as c.h5.damaged." in run.stdout and "24 ok" in run.stdout
    assert sorted(path.name for path in work.iterdir() if path.is_file()) == ["c.h5", "c.h5.damaged"]
