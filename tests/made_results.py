"""Results for tests that need some and not the fits: made up, or taken from a head as if a network had got them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tlfeat.records import Environment, Result, Score, SplitInfo, Timing
from tlfeat.studies.compare import Comparison, Line, names_of
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
    balanced_accuracy: float | None = None,
    macro_f1: float | None = None,
    settings: dict[str, Any] | None = None,
    **timing: float,
) -> Result:
    """A Result in which no two numbers are the same: whoever takes one for another shows it.

    Balanced accuracy and macro F1 are a little below the accuracy, unless they are given.
    """
    balanced = accuracy - 0.03125 if balanced_accuracy is None else balanced_accuracy
    macro = accuracy - 0.0625 if macro_f1 is None else macro_f1
    return Result(
        candidate=candidate,
        kind=kind,
        backbone="b",
        layer="" if kind == "keras" else layer,
        settings=settings or {},
        chosen={},
        fingerprint={},
        classes=["a", "b"],
        split=SplitInfo("d", "seeded", 7, 12, 3, 5, 0.25),
        score=Score(
            accuracy,
            (0.11, 0.91),
            balanced,
            macro,
            [[1, 1], [2, 1]],
            balanced_accuracy_ci95=(0.12, 0.92),
            macro_f1_ci95=(0.13, 0.93),
        ),
        timing=Timing(**timing),
        environment=Environment(),
        model_bytes=0,
        test_keys=list("vwxyz"),
        test_paths=[f"{name}.png" for name in "vwxyz"],
        true=[0, 0, 1, 1, 1],
        predicted=[0, 1, 0, 0, 1],
        certainty=[0.95, 0.85, 0.75, 0.65, 0.55],
    )


def lined_up(*results: Result) -> Comparison:
    """A comparison of these, in this order, with numbers of each line's own."""
    names = names_of(results)
    lines = [
        Line(r, False, 1.0 if i == 0 else 0.25 / i, i < 2, 0.5 + i, -0.01 * i, (-0.02 * i, 0.005 * i), names[i])
        for i, r in enumerate(results)
    ]
    return Comparison(Path("c.h5"), "b", ["a", "b"], results[0].split, lines, [], [])


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
