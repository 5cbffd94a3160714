"""A network from a cache to a saved model and its Result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.backbones.network import BackboneSpec, weights_digest
from tlfeat.cache.contents import encoder_name, spec_of
from tlfeat.errors import BadImage, CacheError, DataError, Interrupted
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.split import Split
from tlfeat.finetune.network import Network
from tlfeat.finetune.recipes import Recipe
from tlfeat.finetune.saved import predict_files, save_model
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import MAX_CUT_BYTES, Sources
from tlfeat.finetune.train import Trained, train
from tlfeat.images.decode import Picture, content_of
from tlfeat.images.image_set import content_key
from tlfeat.models.saved import Fitted, Outcome, known_result, model_folder, write_model
from tlfeat.records import Timing
from tlfeat.text import counted
from tlfeat.types import OnProgress, silent


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is trained, on pixels of which kind, and where it is saved."""

    settings: TrainSettings
    spec: BackboneSpec
    fingerprint: dict[str, Any]
    folder: Path

    @property
    def state_path(self) -> Path:
        """Where the state of a stopped run is."""
        return workspace.training_state_path(self.folder)

    @property
    def resize(self) -> str:
        """How pictures are brought to the size of the network."""
        return str(self.fingerprint.get("resize"))


def fit_keras(
    data: Data,
    settings: TrainSettings,
    *,
    is_fresh: bool = False,
    max_cut_bytes: float | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Train a network on the split of the cache, test it, save it.

    Parameters
    ----------
    data : Data
    settings : TrainSettings
    is_fresh : bool, default=False
        Train again even if an equal Result exists, from the first epoch even if an earlier run was stopped.
    max_cut_bytes : float, optional
        Of tensors at the cut on disk; ``sources.MAX_CUT_BYTES`` by default.
    say : callable, optional
        Called with a sentence on what is about to be written to disk, and on epochs.

    Raises
    ------
    Interrupted
        Ctrl-C. The best weights so far are saved with their Result; the same call goes on from the last epoch.
    """
    plan = _plan(data, settings)
    leaks = data.leaks(on_progress)
    if is_fresh:
        plan.state_path.unlink(missing_ok=True)
    else:
        known = known_result(plan.folder, data.split, leaks)
        if known is not None and known.chosen.get("ended") != "interrupted":
            return Outcome(known, is_reused=True)
    test_files = _unchanged_test_files(data)
    with Sources(
        plan.spec,
        data.cache.table.images,
        data.split,
        plan.spec.size,
        plan.resize,
        data.stem,
        embeddings=data.cache if plan.fingerprint == data.cache.fingerprint else None,
        max_cut_bytes=MAX_CUT_BYTES if max_cut_bytes is None else max_cut_bytes,
        say=say,
        on_progress=on_progress,
    ) as sources:
        trained = _train(plan, data.split, sources, say, on_progress)
    on_progress(f"testing {settings.name}", 0, 0)
    fitted = _test(plan, data, trained, test_files)
    result = write_model(plan.folder, fitted, data, leaks, lambda to: save_model(trained.model, to / "model.keras"))
    if trained.is_interrupted:
        n_epochs = counted(trained.chosen["epochs_run"], "epoch")
        raise Interrupted(
            f"Stopped after {n_epochs}. The best weights so far are in {plan.folder} "
            f"({100 * result.score.accuracy:.1f} % of the test images right). The same command goes on from there."
        )
    return Outcome(result, is_reused=False)


def _plan(data: Data, settings: TrainSettings) -> _Plan:
    spec = spec_of(data.cache)
    if weights_digest(spec) != data.cache.fingerprint.get("weights"):
        raise CacheError(f"The weights of {spec.name} are not those that {data.cache.path} was made with.")
    settings = settings.on(has_blocks=spec.hub is not None)
    if settings.preprocess not in (None, spec.mode):
        spec = replace(spec, preprocess=settings.preprocess)
    fingerprint = {**data.cache.fingerprint, "preprocess": spec.mode}
    return _Plan(settings, spec, fingerprint, model_folder(data, settings.name, _identity(settings), fingerprint))


def _identity(settings: TrainSettings) -> dict[str, Any]:
    return {"model": settings.name, **settings.to_dict()}


def _unchanged_test_files(data: Data) -> list[Picture]:
    """Return the test images; an error before an hour of training if one has changed: no score could be compared."""
    images, split = data.cache.table.images, data.split
    files: list[Picture] = []
    for i in split.where("test"):
        file = images.picture(split.paths[i])
        try:
            is_same = content_key(content_of(images.home, split.paths[i])) == split.keys[i]
        except BadImage as error:
            raise DataError(f"{file}: {error} (it could be read by tlfeat extract).") from error
        if not is_same:
            raise DataError(f"{file} has changed since it was embedded. Run the same tlfeat extract again.")
        files.append(file)
    return files


def _train(plan: _Plan, split: Split, sources: Sources, say: Callable[[str], None], on_progress: OnProgress) -> Trained:
    on_progress("building the network with TensorFlow", 0, 0)
    network = Network(plan.spec, plan.spec.size, len(split.classes), plan.settings)
    return train(network, split, sources, state_path=plan.state_path, say=say, on_progress=on_progress)


def _test(plan: _Plan, data: Data, trained: Trained, files: list[Picture]) -> Fitted:
    size = plan.spec.size
    predict_files(trained.model, files[:1], size, plan.resize)  # traces the graph; not part of the time
    started_s = time.perf_counter()
    probabilities = predict_files(trained.model, files, size, plan.resize)
    predict_s = time.perf_counter() - started_s
    return Fitted(
        candidate=plan.settings.name,
        kind="keras",
        backbone=encoder_name(data.cache),
        layer="",
        settings=_identity(plan.settings),
        fingerprint=plan.fingerprint,
        encoder={**data.cache.source.get("encoder", {}), "preprocess": plan.spec.preprocess},
        chosen=trained.chosen,
        probabilities=probabilities,
        timing=Timing(extract_s=trained.extract_s, fit_s=trained.fit_s, predict_s_per_image=predict_s / len(files)),
        notes=trained.notes,
        history=trained.history,
    )


def other_backbone(data: Data, recipe: Recipe) -> str:
    """Return in words how the backbone of the cache differs from the one that a recipe names; "" where it does not."""
    spec = spec_of(data.cache)
    size = spec.size
    if spec.backbone == recipe.backbone and size == recipe.input_size:
        return ""
    own, named = ("{} at {}x{}".format(*pair) for pair in ((spec.name, *size), (recipe.backbone, *recipe.input_size)))
    return f"{recipe.name} runs on {own}, the backbone of the cache; the recipe names {named}"
