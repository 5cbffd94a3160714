"""The card of an exported model: from a Result and its data, without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.model_card import Check, DataSet, Exported, model_card, read_data_set
from tlfeat.records import Result


@pytest.fixture
def result(make_photos: MakePhotos) -> Result:
    """Of a head on 12 pictures of each of two classes, 40 % of them for testing."""
    cache = extract_rows(load_images(make_photos(n=12)), PixelEncoder(), Path("cache/c.h5")).cache
    with open_data(cache, seed=3, test_fraction=0.4) as data:
        return fit_sklearn(data, "lda", is_searched=False).result


def test_the_data_of_a_model_are_counted_by_the_split_that_it_had(result: Result) -> None:
    data = read_data_set(Path(result.model), result)
    assert {name: (train + val, test) for name, (train, val, test) in data.counts.items()} == {
        "cat": (7, 5),
        "dog": (7, 5),
    }
    assert isinstance(data.home, Path) and data.home.name == "photos"
    other = replace(result, split=replace(result.split, seed=4))
    assert read_data_set(Path(result.model), other).counts == {}  # the images are others by now: nothing is said


def test_html_in_the_names_of_classes_is_text_in_the_card(result: Result) -> None:
    labels = ["<img src=x onerror=alert(1)>", "<b>dog"]
    result = replace(result, layer="<i>", notes=["<script>a</script>\n# heading", "p < 0.01"])
    exported = Exported(
        Path("m.onnx"), "onnx", [], "onnxruntime 1", 1000, labels, (16, 16), "antialias", Check("2", 2, 1e-6, 1e-4)
    )
    card = model_card(result, DataSet("<u>photos", counts={label: [1, 2, 3] for label in labels}), exported)
    assert not re.search(r"<(img|b|i|u|script)\b", card)
    assert "- &lt;script>a&lt;/script>\\n# heading\n- p < 0.01\n" in card
    assert "| &lt;b>dog | 1 | 2 | 3 |" in card


def test_a_line_break_in_the_name_of_a_class_breaks_no_table(result: Result) -> None:
    labels = ["red\ncat", "dog\r|"]
    exported = Exported(
        Path("m.onnx"), "onnx", [], "onnxruntime 1", 1000, labels, (16, 16), "antialias", Check("2", 2, 1e-6, 1e-4)
    )
    lines = model_card(result, DataSet("photos", counts={label: [1, 2, 3] for label in labels}), exported).splitlines()
    assert {"| red\\ncat | 1 | 2 | 3 |", "| dog\\r\\| | 1 | 2 | 3 |"} <= set(lines)
    assert "# m.onnx: red\\ncat, dog\\r|" in lines
