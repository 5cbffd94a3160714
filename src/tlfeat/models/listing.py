"""The saved models of a cache, and the one that is meant where none or a short name is given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.errors import ModelError, nearest
from tlfeat.models.saved import has_model, model_folders, read_model, read_result
from tlfeat.records import Result
from tlfeat.text import aligned, counted, interval_text, percent, size


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model that `predict` can load.

    Attributes
    ----------
    cache : Path
        What it was fitted on.
    folder : Path
    result : Result
        As it was saved.
    saved_at_s : float
        Seconds since the epoch.
    """

    cache: Path
    folder: Path
    result: Result
    saved_at_s: float

    @property
    def name(self) -> str:
        """The name of its folder; no other model of the cache has it."""
        return self.folder.name

    def sentence(self) -> str:
        """Say which model this is."""
        accuracy, interval = percent(self.result.score.accuracy), interval_text(self.result.score.ci95)
        return f"Model: {self.name} of {self.cache}, accuracy {accuracy} (95 % interval {interval})"


def saved_models(cache: Path) -> list[SavedModel]:
    """Return the models fitted on a cache: those of the newest split first, of each split the best first."""
    beside, home = workspace.models_dir(cache), cache.resolve()
    found = []
    for folder in model_folders(cache):
        try:
            known_cache = read_model(folder).cache
            result = read_result(folder)
        except ModelError:
            continue  # damaged
        if not has_model(result):
            continue  # a power cut took it
        if folder.parent == beside or known_cache in (None, home):  # another cache may have this name, too
            found.append(SavedModel(cache, folder, result, (folder / "result.json").stat().st_mtime))
    newest: dict[str, float] = {}
    for model in found:
        digest = model.result.split.digest
        newest[digest] = max(newest.get(digest, 0.0), model.saved_at_s)
    return sorted(found, key=lambda m: (-newest[m.result.split.digest], -m.result.score.accuracy, -m.saved_at_s))


def find_model(name: str | None, cache: Path | None) -> SavedModel:
    """Return a saved model of a cache.

    Parameters
    ----------
    name : str, optional
        Of its folder, or of its head or network: then the first of `saved_models`. None: the first of all.
    cache : Path, optional
        The newest one by default.

    Raises
    ------
    ModelError
        There is none; the message says how to make or list them.
    """
    path = cache or workspace.newest_cache()
    models = saved_models(path)
    if not models:
        raise ModelError(f"No model was fitted on {path} yet. Fit one: tlfeat fit-sklearn --cache {path}")
    for model in models:
        if name in (None, model.name):
            return model
    for model in models:
        if name == model.result.candidate:
            return model
    known = list(dict.fromkeys([*(m.result.candidate for m in models), *(m.name for m in models)]))
    hint = nearest(str(name), known, of="names")
    raise ModelError(f"No model '{name}' of {path}. {hint} All of them: tlfeat models --cache {path}")


def is_model(path: Path) -> bool:
    """Whether this is the folder of a model, or a file in it that is its own."""
    if path.is_file():
        return path.name in ("model.json", "result.json", "reject.npz", "model.keras") or path.stem == "head"
    return (path / "model.json").is_file()


def to_text(models: Sequence[SavedModel], width: int | None = None) -> str:
    """Return what ``tlfeat models`` prints."""
    headings = ("name", "layer", "accuracy", "95 % interval", "split", "size", "age", "folder")
    rows = [
        (
            model.name,
            model.result.layer or "–",
            percent(model.result.score.accuracy),
            interval_text(model.result.score.ci95),
            f"seed {model.result.split.seed} ({model.result.split.digest[:6]})",
            size(model.result.model_bytes),
            _age(time.time() - model.saved_at_s),
            model.folder,
        )
        for model in models
    ]
    return aligned(headings, rows, n_left=2, width=width, droppable=("folder", "layer", "size", "age", "split"))


def to_documents(models: Sequence[SavedModel]) -> list[dict[str, Any]]:
    """Return one flat record a model, in the same order."""
    return [
        {
            "name": model.name,
            "model": model.result.candidate,
            "kind": model.result.kind,
            "layer": model.result.layer,
            "accuracy": model.result.score.accuracy,
            "ci95": list(model.result.score.ci95),
            "n_scored": model.result.score.n_images,
            "seed": model.result.split.seed,
            "split": model.result.split.digest,
            "model_bytes": model.result.model_bytes,
            "age_s": max(time.time() - model.saved_at_s, 0.0),
            "folder": str(model.folder),
            "cache": str(model.cache),
        }
        for model in models
    ]


def _age(age_s: float) -> str:
    """Return a time in whole minutes, hours or days."""
    minutes = int(max(age_s, 0) // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else counted(minutes // (24 * 60), "day")
