"""The folder of a saved model: one writer and one reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder
from tlfeat.cache.contents import encoder_name
from tlfeat.cache.store import Cache
from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.leaks import LeakedImages, score_without
from tlfeat.evaluate.scores import score
from tlfeat.evaluate.split import Split
from tlfeat.records import Environment, Result, Timing
from tlfeat.workspace import read_json, write_json

MODEL_FORMAT_VERSION = 1

#: Between the layers of a head that takes several; no layer's name holds it.
SIDE_BY_SIDE = "+"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A Result, and whether it was there already."""

    result: Result
    is_reused: bool


def make_result(
    candidate: str,
    kind: str,
    data: Data,
    leaks: LeakedImages,
    cache: Cache,
    layer: str,
    settings: dict[str, Any],
    chosen: dict[str, Any],
    probabilities: npt.NDArray[np.float64],
    timing: Timing,
    *,
    notes: list[str],
    history: dict[str, list[float]] | None = None,
    coverage: list[dict[str, Any]] | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> Result:
    split = data.split
    test_at = split.where("test")
    true = split.labels[test_at]
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    return Result(
        candidate=candidate,
        kind=kind,
        backbone=encoder_name(cache),
        layer=layer,
        settings=settings,
        chosen=chosen,
        fingerprint=fingerprint or cache.fingerprint,
        classes=split.classes,
        split=split.info,
        score=score(true, predicted, split.classes, groups=split.groups[test_at], probabilities=probabilities),
        timing=timing,
        environment=Environment.current(),
        model_bytes=0,
        test_keys=[split.keys[i] for i in test_at],
        test_paths=[split.paths[i] for i in test_at],
        true=true.tolist(),
        predicted=predicted.tolist(),
        certainty=[round(float(p), 6) for p in probabilities.max(axis=1)],
        coverage=coverage or [],
        history=history or {},
        notes=[*split.notes, *notes],
        leaks=score_without(leaks, split, true, predicted),
    )


def model_folder(data: Data, candidate: str, layer: str, settings: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
    identity = workspace.digest(
        {
            "settings": settings,
            "fingerprint": fingerprint,
            "split": data.split.info.to_dict(),
            "version": MODEL_FORMAT_VERSION,
        }
    )
    layer_part = f"-{layer.replace(':', '-')[:60]}" if layer else ""
    return workspace.models_dir(data.stem) / f"{candidate}{layer_part}-{identity}"


def known_result(folder: Path, split: Split, leaks: LeakedImages) -> Result | None:
    path = folder / "result.json"
    try:
        known = replace(Result.from_dict(read_json(path)), model=str(folder)) if path.exists() else None
    except (DataError, TypeError, KeyError):
        return None  # half-written by an older version or damaged: fit again
    return known and with_leaks(known, split, leaks)


def with_leaks(known: Result, split: Split, leaks: LeakedImages) -> Result:
    """Return a saved Result with today's leaks: paths may be others, and an older version did not look for them."""
    return replace(known, leaks=score_without(leaks, split, np.array(known.true), np.array(known.predicted)))


def save_outcome(
    folder: Path, result: Result, encoder: dict[str, Any], cache: Path, save_model: Callable[[Path], Any]
) -> Result:
    saved = result

    def fill(aside: Path) -> None:
        nonlocal saved
        save_model(aside)
        n_bytes = sum(path.stat().st_size for path in aside.iterdir())
        saved = replace(result, model_bytes=n_bytes, model=str(folder))
        write_json(aside / "result.json", saved.to_dict())
        write_json(
            aside / "model.json",
            {
                "format": "tlfeat-model",
                "format_version": MODEL_FORMAT_VERSION,
                "kind": result.kind,
                "candidate": result.candidate,
                "layer": result.layer,
                "classes": result.classes,
                "fingerprint": result.fingerprint,
                "encoder": encoder,
                "cache": str(cache.resolve()),  # where the images are to be found again
            },
        )

    workspace.write_folder(folder, fill)
    return saved


#: One forward pass of 8 pictures costs little more than one of a single picture.
BATCH_SIZE = 8


def read_about(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.exists():
        raise ModelError(
            f"There is no model in {folder}: model.json is missing. Name a folder that fit-sklearn or fit-keras wrote."
        )
    try:
        about = read_json(path)
    except DataError as error:
        raise ModelError(str(error)) from error
    expected = {"kind": str, "layer": str, "classes": list, "fingerprint": dict, "encoder": dict}
    if (
        not isinstance(about, dict)
        or about.get("format") != "tlfeat-model"
        or not all(isinstance(about.get(name), kind) for name, kind in expected.items())
    ):
        raise ModelError(f"{path} is not the description of a tlfeat model.")
    if about.get("format_version") != 1:
        raise ModelError(f"{path} has format {about.get('format_version')}; this tlfeat reads 1. Update tlfeat.")
    return about


def rebuild_encoder(folder: Path, about: dict[str, Any]) -> Encoder:
    """Build the encoder that the model was fitted behind, or refuse: other rows would give confident nonsense."""
    from tlfeat.backbones.encoder import PixelEncoder
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec

    spec, there = about["encoder"], about["fingerprint"]
    encoder: Encoder
    if spec.get("backbone") == "pixels":
        encoder = PixelEncoder()
    elif spec.get("backbone") in (None, "imported"):
        raise ModelError(
            f"{folder} was fitted on imported rows: tlfeat does not have the encoder that made them and cannot "
            f"embed new images."
        )
    else:
        encoder = KerasEncoder(
            BackboneSpec.from_dict(spec),
            about["layer"].split("+") if about["layer"] else [],
            resize=there.get("resize", ""),
            dtype=there.get("dtype", ""),
            batch_size=BATCH_SIZE,
        )
    here = dict(encoder.fingerprint)
    if here != there:
        differing = [
            f"{name}: fitted with {there.get(name)!r}, here {here.get(name)!r}"
            for name in sorted({*here, *there})
            if here.get(name) != there.get(name)
        ]
        raise ModelError(f"{folder} cannot be used: its encoder cannot be rebuilt ({'; '.join(differing)}).")
    return encoder
