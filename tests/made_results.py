"""Results for tests that need some and not the fits: made up, or taken from a head as if a network had got them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tlfeat.records import Environment, Result, Score, SplitInfo, Timing
from tlfeat.workspace import write_json

HISTORY = {
    "loss": [0.9, 0.5, 0.4],
    "val_loss": [0.8, 0.6, 0.7],
    "accuracy": [0.6, 0.8, 0.9],
    "val_accuracy": [0.6, 0.75, 0.7],
    "learning_rate": [1e-3, 1e-3, 1e-4],
    "epoch_s": [2.0, 1.0, 1.0],
}


def a_result(
    candidate: str,
    *,
    kind: str = "head",
    layer: str = "avg_pool",
    accuracy: float = 0.5,
    settings: dict[str, Any] | None = None,
    **timing: float,
) -> Result:
    return Result(
        candidate=candidate,
        kind=kind,
        backbone="b",
        layer="" if kind == "keras" else layer,
        settings=settings or {},
        chosen={},
        fingerprint={},
        classes=["a", "b"],
        split=SplitInfo("d", "seeded", 0, 2, 0, 2),
        score=Score(accuracy, (0.1, 0.9), accuracy, accuracy, [[1, 0], [1, 0]]),
        timing=Timing(**timing),
        environment=Environment(),
        model_bytes=0,
        test_keys=[],
        test_paths=[],
        true=[0, 1],
        predicted=[0, 0],
        certainty=[0.9, 0.8],
    )


def as_network(result: Result, **changes: Any) -> Result:
    """The same predictions as if a network had made them: a page without TensorFlow."""
    timing = Timing(decode_s=3.0, fit_s=40.0, predict_s_per_image=0.01)
    return replace(
        result,
        candidate="keras-frozen",
        kind="keras",
        layer="",
        settings={"model": "keras-frozen", "mode": "frozen", "epochs": 3, "seed": 0},
        chosen={"best_epoch": 2},
        timing=timing,
        history=HISTORY,
        **changes,
    )


def keep_network(folder: Path, result: Result, name: str = "keras-frozen-1234abcd") -> None:
    write_json(folder / name / "result.json", as_network(result).to_dict())
