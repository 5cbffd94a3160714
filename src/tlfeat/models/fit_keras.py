"""A network from a cache to a saved model and its Result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tlfeat import workspace
from tlfeat.backbones.network import weights_digest
from tlfeat.cache.contents import spec_of
from tlfeat.errors import BadImage, CacheError, DataError, Interrupted
from tlfeat.evaluate.data import Data
from tlfeat.finetune.network import Network
from tlfeat.finetune.recipes import Recipe
from tlfeat.finetune.saved import predict_files, save_model
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import MAX_CUT_BYTES, Sources
from tlfeat.images.decode import read_file
from tlfeat.images.image_set import content_key
from tlfeat.models.saved import Outcome, known_result, make_result, model_folder, save_outcome
from tlfeat.records import Timing
from tlfeat.text import counted
from tlfeat.types import OnProgress, silent


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
        Train again even if an equal Result exists; what a stopped run left is not gone on from.
    max_cut_bytes : float, optional
        Of tensors at the cut on disk; ``finetune.MAX_CUT_BYTES`` by default.
    say : callable, optional
        Told what is going to be written, before it is.

    Raises
    ------
    Interrupted
        Ctrl-C. The best weights so far are saved with their Result; the same call goes on from the last epoch.
    """
    from tlfeat.finetune import train as finetune

    spec, split = spec_of(data.cache), data.split
    digest = weights_digest(spec)
    if digest != data.cache.fingerprint.get("weights"):
        raise CacheError(f"The weights of {spec.name} are not those that {data.cache.path} was made with.")
    is_own_scaling = settings.preprocess in (None, spec.mode)
    spec = spec if is_own_scaling else replace(spec, preprocess=settings.preprocess)
    identity = {"model": settings.name, **settings.to_dict()}
    fingerprint = {**data.cache.fingerprint, "preprocess": spec.mode}
    folder = model_folder(data, settings.name, "", identity, fingerprint)
    state_path = workspace.training_state_path(folder)
    leaks = data.leaks(on_progress)
    if is_fresh:
        state_path.unlink(missing_ok=True)
    elif (known := known_result(folder, data.split, leaks)) is not None and known.chosen.get("ended") != "interrupted":
        return Outcome(known, is_reused=True)
    images, test_at = data.cache.table.images, split.where("test")
    test_files = [images.root / split.paths[i] for i in test_at]
    _check_unchanged(test_files, [split.keys[i] for i in test_at])
    size, resize = spec.size, str(fingerprint.get("resize"))
    sources = Sources(
        spec,
        images,
        split,
        size,
        resize,
        data.stem,
        embeddings=data.cache if is_own_scaling else None,
        max_cut_bytes=MAX_CUT_BYTES if max_cut_bytes is None else max_cut_bytes,
        say=say,
        on_progress=on_progress,
    )
    with sources:
        on_progress("building the network with TensorFlow", 0, 0)
        network = Network(spec, size, len(split.classes), settings)
        trained = finetune.train(network, split, sources, state_path=state_path, on_progress=on_progress)
    on_progress(f"testing {settings.name}", 0, 0)
    predict_files(trained.model, test_files[:1], size, resize)  # traces the graph; not part of the time
    started_s = time.perf_counter()
    probabilities = predict_files(trained.model, test_files, size, resize)
    predict_s = time.perf_counter() - started_s
    result = make_result(
        settings.name,
        "keras",
        data,
        leaks,
        data.cache,
        "",
        identity,
        trained.chosen,
        probabilities,
        Timing(extract_s=trained.extract_s, fit_s=trained.fit_s, predict_s_per_image=predict_s / len(test_at)),
        notes=trained.notes,
        history=trained.history,
        fingerprint=fingerprint,
    )
    source = {**data.cache.source.get("encoder", {}), "preprocess": spec.preprocess}
    saved = save_outcome(
        folder, result, source, data.cache.path, lambda to: save_model(trained.model, to / "model.keras")
    )
    if trained.is_interrupted:
        n_epochs = counted(trained.chosen["epochs_run"], "epoch")
        raise Interrupted(
            f"Stopped after {n_epochs}. The best weights so far are in {folder} ({100 * saved.score.accuracy:.1f} % of "
            f"the test images right). The same command goes on from there."
        )
    return Outcome(saved, is_reused=False)


def _check_unchanged(files: Sequence[Path], keys: Sequence[str]) -> None:
    """Raise before an hour of training if a test image is not there any more: its score could not be compared."""
    for file, key in zip(files, keys, strict=True):
        try:
            is_same = content_key(read_file(file)) == key
        except BadImage as error:
            raise DataError(f"{file}: {error} (it could be read by tlfeat extract).") from error
        if not is_same:
            raise DataError(f"{file} has changed since it was embedded. Run the same tlfeat extract again.")


def other_backbone(data: Data, recipe: Recipe) -> str:
    """Return in words how the backbone of the cache differs from the one that a recipe names; "" where it does not."""
    spec = spec_of(data.cache)
    size = spec.size
    if spec.backbone == recipe.backbone and size == recipe.input_size:
        return ""
    own, named = ("{} at {}x{}".format(*pair) for pair in ((spec.name, *size), (recipe.backbone, *recipe.input_size)))
    return f"{recipe.name} runs on {own}, the backbone of the cache; the recipe names {named}"
