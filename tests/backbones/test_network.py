"""Which network, with which weights: what is written down of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlfeat.backbones.network import BackboneSpec


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (BackboneSpec("resnet50", "my/w.weights.h5", (64, 48), "0-1", 7), "weights"),
        (BackboneSpec("my/own.keras", preprocess="tf"), "backbone"),
    ],
    ids=["weights", "own model"],
)
def test_files_are_written_down_so_that_any_working_folder_finds_them(
    spec: BackboneSpec, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = spec.to_dict()
    assert values[name] == str(tmp_path / getattr(spec, name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = BackboneSpec.from_dict(values)
    assert again.to_dict() == values
    assert (again.size if spec.input_size else None, again.mode, again.seed) == (spec.input_size, spec.mode, spec.seed)
