"""Charts for papers: PNG and SVG, the same files again, safe names, no formula where a label has a dollar."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from conftest import MakePhotos
from made_results import a_result, as_network, keep_network
from tlfeat import workspace
from tlfeat.errors import DataError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.embedding_map import make_map
from tlfeat.report.plots import file_names, learning_curves, write_plots
from tlfeat.studies.compare import compare_candidates, known_comparison


def test_charts_are_written_as_png_and_svg_whatever_the_names(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = plan_extraction(make_photos(n=20, classes=("cat", "dog", "newt")), backbone="pixels").run().cache
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("logreg",), keras_modes=(), has_pixels=False)
        keep_network(workspace.models_dir(data.cache.path), found.lines[0].result)
        found = known_comparison(data)
        odd = [r"$\frac{1}{0$", "猫/..", "a\nb"]
        lines = [replace(line, result=replace(line.result, classes=odd)) for line in found.lines]
        split = replace(data.split, classes=odd)
        layout = make_map(data.cache, data.split, "pixels", ["pca"])
        written = write_plots(replace(found, lines=lines), tmp_path / "plots", found_map=layout, split=split)
        first = {path.name: path.read_bytes() for path in written}
        write_plots(replace(found, lines=lines), tmp_path / "plots", found_map=layout, split=split)
    assert first == {path.name: path.read_bytes() for path in written}  # no date in them
    stems = {path.stem for path in written}
    assert {"accuracy-seconds", "learning-curves-keras-frozen", "confusion-logreg", "reliability-logreg"} <= stems
    assert "map-pca" in stems and {path.suffix for path in written} == {".svg", ".png"}
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "plots").iterdir())
    for path in (path for path in written if path.suffix == ".png"):
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=1)


def test_names_of_files_are_safe_and_differ() -> None:
    names = file_names(["svm (layer a/b)", "svm (layer a b)", "../..", "keras-frozen"])
    assert len(set(names)) == 4 and all(re.fullmatch(r"[\w.+=-]+", name) and name.strip(".") for name in names)


def test_the_curves_of_one_network_are_written_for_a_command_that_has_only_that(tmp_path: Path) -> None:
    network = as_network(a_result("svm"))
    written = learning_curves(network, tmp_path / "p")
    assert [path.name for path in written] == ["learning-curves-keras-frozen.svg", "learning-curves-keras-frozen.png"]
    assert learning_curves(a_result("svm"), tmp_path / "q") == [] and not (tmp_path / "q").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Cannot write to"):
        learning_curves(network, tmp_path / "file")
