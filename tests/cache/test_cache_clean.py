"""``tlfeat cache clean``: what can be made again is named and, with --yes, removed; nothing else is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from conftest import CountingEncoder, MakePhotos
from tlfeat import workspace
from tlfeat.cache.store import open_cache
from tlfeat.cli.app import app
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images

#: No process has this number.
GONE = 999_999_999

FREED = {
    "cuts/a.h5": 5_000,
    "pixels/8x8-b.pixels": 4_000,
    "networks/n.xml": 3_000,
    "networks/folder/n.bin": 300,
    "copies/c.json": 2_000,
    "reports/x/maps/m.npz": 1_000,
    "models/x/.svm-1.77.tmp/head.skops": 60,
    ".x.h5.77.tmp": 50,
    "exports/.svm-ab12_xyz/model.onnx": 40,
    f"exports/.svm.{GONE}.tmp/model.onnx": 30,
    f".x.h5.{GONE}.salvaged.journal": 20,
    "networks/.convertingab12_xyz/n.bin": 10,
}

KEPT = [
    "models/x/svm-1/head.skops",
    "reports/x/comparison.html",
    "exports/svm.onnx",
    "curves/x/c.json",
    "training/x.npz",
    "reference/r.npz",
    "baseline/x-pixels.h5",
    "example/digits/5/1.png",
    "x.h5.journal",
    "x.h5.damaged",
    ".hidden",
    f"models/x/.svm-1.{os.getpid()}.tmp/head.skops",  # of a command that runs
    f"models/x/.svm-2.{GONE}.tmp/head.skops",  # perhaps of a command on another machine
]

#: Minutes ago that something changed last; today, where it is not named.
AGES = {
    "models/x/.svm-1.77.tmp": 61,
    ".x.h5.77.tmp": 61,
    "exports/.svm-ab12_xyz": 61,
    "networks/.convertingab12_xyz": 61,
    f"exports/.svm.{GONE}.tmp": 2,
    f".x.h5.{GONE}.salvaged.journal": 2,
    f"models/x/.svm-1.{os.getpid()}.tmp": 59,
}


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["cache", "clean", *words])


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(workspace, "NETWORKS_DIR", Path("cache/networks"))
    for name, n_bytes in {**FREED, **dict.fromkeys(KEPT, 7)}.items():
        path = Path("cache") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(n_bytes))
    for name, age_min in AGES.items():
        for path in (Path("cache") / name, *(Path("cache") / name).rglob("*")):
            os.utime(path, (time.time() - 60 * age_min,) * 2)
    return [Path("cache") / name for name in FREED]


def test_without_yes_it_only_says_what_there_is(files: list[Path]) -> None:
    ran = run()
    assert ran.exit_code == 0, ran.output
    assert all(path.exists() for path in files)
    assert ran.stdout.splitlines()[-1].split() == ["altogether", "16", "kB"]
    assert [line.split()[0] for line in ran.stdout.splitlines()[2:4]] == ["outputs", "decoded"]
    assert "tlfeat cache clean --yes" in ran.stderr
    document = json.loads(run("--json").stdout)
    assert (document["bytes"], document["is_freed"]) == (sum(FREED.values()), False)


def test_with_yes_exactly_that_is_removed(files: list[Path]) -> None:
    document = json.loads(run("--yes", "--json").stdout)
    assert (document["bytes"], document["is_freed"], document["kept"]) == (sum(FREED.values()), True, [])
    assert not any(path.exists() for path in files)
    assert all((Path("cache") / name).exists() for name in KEPT)
    assert run("--yes").stdout == "Nothing under cache can be made again: there is nothing to free.\n"


def test_a_cut_that_a_command_has_open_is_left_alone(make_photos: MakePhotos) -> None:
    cut = Path("cache/cuts/used.h5")
    extract_rows(load_images(make_photos(n=2)), CountingEncoder(), cut)
    with open_cache(cut):
        journal = cut.with_name("used.h5.journal")
        journal.write_bytes(b"")
        run("--yes")
        assert cut.exists() and journal.exists()
    run("--yes")
    assert not cut.exists()


def test_what_a_link_points_at_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "large.h5").write_bytes(bytes(9_000))
    Path("cache/cuts/link").symlink_to(tmp_path / "other")
    assert json.loads(run("--json").stdout)["bytes"] < sum(FREED.values()) + 1_000
    run("--yes")
    assert not Path("cache/cuts/link").is_symlink()
    assert (tmp_path / "other" / "large.h5").exists()
