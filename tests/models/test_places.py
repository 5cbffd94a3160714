"""Models and reports lie beside their cache, whatever the current folder; those of earlier versions are still found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import MakePhotos
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cli.app import app
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.saved import Outcome
from tlfeat.studies.compare import known_comparison


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path) -> Path:
    return extract_rows(load_images(make_photos(n=9)), PixelEncoder(), tmp_path / "elsewhere" / "x.h5").cache


def fitted(cache: Path, head: str = "knn") -> Outcome:
    with open_data(cache, seed=3) as data:
        return fit_sklearn(data, head, is_searched=False)


def test_models_and_reports_of_a_cache_lie_beside_it(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    os.chdir(tmp_path / "here")  # monkeypatch takes it back
    for words in ("fit-sklearn --model knn --no-search", "report --map pca", "audit"):
        ran = CliRunner().invoke(app, [*words.split(), "--cache", str(cache)])
        assert ran.exit_code == 0, ran.output
    (folder,) = (cache.parent / "models" / "x").iterdir()
    assert folder.name.startswith("knn-pixels-")
    reports = cache.parent / "reports" / "x"
    assert {"comparison.html", "audit.html", "maps"} <= {path.name for path in reports.iterdir()}
    assert {path.name for path in Path("cache").glob("*")} <= {"copies"}


def test_those_of_a_cache_under_cache_are_where_they_were() -> None:
    cache = Path("cache/photos-b-12345678.h5")
    assert workspace.models_dir(cache) == Path("cache/models/photos-b-12345678")
    assert workspace.report_dir(cache) == Path("cache/reports/photos-b-12345678")


def test_models_that_an_earlier_version_left_in_the_current_folder_are_reused_and_listed(cache: Path) -> None:
    earlier = Path("cache/models/x")
    earlier.mkdir(parents=True)
    model = Path(fitted(cache).result.model)
    model.rename(earlier / model.name)
    again = fitted(cache)
    assert (again.is_reused, again.result.model) == (True, str(earlier / model.name))
    other = fitted(cache, "lda").result.model
    assert Path(other).parent == cache.parent / "models" / "x"
    with open_data(cache, seed=3) as data:
        assert {line.result.model for line in known_comparison(data).lines} == {str(earlier / model.name), other}


def test_beside_a_cache_that_only_others_may_write_to_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (str(path), mode) != ("/shared", os.W_OK))
    assert workspace.models_dir(Path("/shared/x.h5")) == Path("cache/models/x")
    assert workspace.report_dir(Path("/shared/x.h5")) == Path("cache/reports/x")
