"""Files of models whose networks do not compute in float32."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlfeat import workspace
from tlfeat.backbones import frameworks, int8
from tlfeat.backbones.network import DIGITS
from tlfeat.errors import ModelError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.images import example
from tlfeat.models import formats, precise_export
from tlfeat.models.export import TOLERANCE, export_model
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.formats import find_format, load_openvino
from tlfeat.models.predict import Model

pytestmark = [
    pytest.mark.keras,
    pytest.mark.skipif(not int8.is_installed(), reason="NNCF is not installed (tlfeat[int8])"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on two layers of the shipped network in int8; the networks are gone afterwards."""
    home = tmp_path_factory.mktemp("precise")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(workspace, "NETWORKS_DIR", home / "networks")
        job = plan_extraction(
            example.write_digits(Path("digits")),
            backbone=DIGITS,
            layers=["avg_pool", "block2_relu:max"],
            precision="int8",
        )
        with open_data(job.run().cache, seed=0) as data:
            found = fit_sklearn(data, "logreg", layer=["avg_pool", "block2_relu:max"])
    return (home / found.result.model).resolve()


def test_an_openvino_file_answers_as_predict_does_for_any_number_of_pictures(model: Path, tmp_path: Path) -> None:
    exported = export_model(model, "openvino", output=tmp_path / "m.xml")
    assert exported.check.largest_difference <= TOLERANCE and "test images" in exported.check.what
    predict = Model(model)
    pixels = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    labels, probabilities = load_openvino(tmp_path / "m.xml")(pixels)
    expected = predict.probabilities(pixels)
    assert np.abs(probabilities - expected).max() < TOLERANCE
    assert labels == [predict.classes[i] for i in expected.argmax(axis=1)]
    weights = (tmp_path / "m.bin").stat().st_size
    assert weights < 2 * (model / "network.bin").stat().st_size


@pytest.mark.parametrize("to", ["keras", "onnx", "tflite"])
def test_a_format_that_would_answer_otherwise_is_refused(model: Path, tmp_path: Path, to: str) -> None:
    output = tmp_path / f"m{find_format(to).suffix}"
    with pytest.raises(ModelError, match=rf"computes in int8; a {to} file would compute in float32.*--to openvino"):
        export_model(model, to, output=output)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_bfloat16_model_is_checked_in_bfloat16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def core() -> Any:
        info = SimpleNamespace(astype=lambda _: '["a"]')
        return SimpleNamespace(
            read_model=lambda _: SimpleNamespace(get_rt_info=lambda _: info),
            compile_model=lambda *values: told.append(values[2]),
        )

    monkeypatch.setattr(frameworks.import_openvino(), "Core", core)
    monkeypatch.setattr(precise_export, "precision_of", lambda _: "bfloat16")
    entry = precise_export.at_precision(find_format("openvino"), Any)  # type: ignore[arg-type]
    assert entry.write is formats.find_format("openvino").write
    entry.load(tmp_path / "m.xml")
    find_format("openvino").load(tmp_path / "m.xml")
    assert [settings["INFERENCE_PRECISION_HINT"] for settings in told] == ["bf16", "f32"]
