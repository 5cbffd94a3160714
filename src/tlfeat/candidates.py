"""One candidate from a cache to a saved model and its Result; an equal one that exists is reused.

A saved model is a folder: ``head.skops`` (or ``head.joblib``, ``model.keras``), ``reject.npz`` (beside a head: when to
answer "unknown"), ``model.json`` (how to rebuild what feeds it) and ``result.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.network import weights_digest
from tlfeat.cache.contents import StoredRows, choose_layers, encoder_name, read_rows, spec_of
from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import BadImage, CacheError, DataError, Interrupted
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.leaks import find_leaks, score_without
from tlfeat.evaluate.scores import score
from tlfeat.evaluate.split import Split, folds
from tlfeat.extract.extract import extract_rows
from tlfeat.finetune.network import Network
from tlfeat.finetune.recipes import Recipe
from tlfeat.finetune.saved import predict_files, save_model
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import MAX_CUT_BYTES, Sources
from tlfeat.heads.blocks import View
from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.fit import N_FOLDS, FittedHead, fit_head, predict_probabilities
from tlfeat.heads.reject import Rejector, coverage_table, fit_rejector, save_rejector
from tlfeat.heads.saved import save_head
from tlfeat.heads.search import COARSE_ROWS
from tlfeat.heads.table import Head, find_head
from tlfeat.images.decode import read_file
from tlfeat.images.image_set import content_key
from tlfeat.memory import available_memory
from tlfeat.records import Environment, Result, Timing
from tlfeat.text import counted
from tlfeat.types import Labels, OnProgress, RowSource, silent
from tlfeat.workspace import read_json, write_json

MODEL_FORMAT_VERSION = 1

#: Between the layers of a head that takes several; no layer's name holds it.
SIDE_BY_SIDE = "+"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A Result, and whether it was there already."""

    result: Result
    is_reused: bool


def _beside_rows(width: int) -> int:
    """Bytes that a search takes beside the rows: libraries, the images of the coarse comparison, sums of each lane."""
    return 300_000_000 + 2 * COARSE_ROWS * width * 4 + 16 * min(width, MAX_COVARIANCE) ** 2 * 4


def _rows_to_learn(
    cache: Cache, layers: list[str], split: Split, learn_at: Labels, head: Head
) -> tuple[RowSource, Labels]:
    """Return rows in memory or, where they do not fit, in the file, and the positions that they belong to.

    Raises
    ------
    DataError
        They do not fit, and the head cannot read them a block at a time.
    """
    stored = StoredRows(cache, layers, [split.keys[i] for i in learn_at])
    n, width = stored.shape
    beside, free = _beside_rows(width), available_memory()
    needed = int(n * width * 4 * (1.25 + head.n_copies)) + beside
    if needed <= free:
        return read_rows(cache, layers, stored.keys), learn_at
    if head.n_copies:
        raise DataError(
            f"{head.name} needs about {needed / 1e9:.1f} GB of memory for {n:,} rows of {width:,} columns; "
            f"{free / 1e9:.1f} GB are free. logreg, linear-svm, ridge and lda read rows from the file block by block."
        )
    if beside > free:
        raise DataError(
            f"{head.name} needs about {beside / 1e9:.1f} GB of memory for {width:,} columns even where it reads the "
            f"rows from the file; {free / 1e9:.1f} GB are free. Take a layer with fewer columns."
        )
    known = cache.known(layers[0])
    in_file_order = np.array(sorted(learn_at.tolist(), key=lambda i: known.get(split.keys[i], 0)), dtype=np.int64)
    return StoredRows(cache, layers, [split.keys[i] for i in in_file_order]), in_file_order


def fit_sklearn(
    data: Data,
    head: str,
    *,
    layer: Sequence[str] | str | None = None,
    is_searched: bool = True,
    file_format: str = "skops",
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Fit one head on the cached rows of one layer, test it, save it.

    Parameters
    ----------
    data : Data
    head : str
        A name of the table in ``heads``.
    layer : str or sequence of str, optional
        `avg_pool` by default, or the only layer there is. Of several the search takes one, or all side by side.
    is_searched : bool, default=True
        Choose hyper-parameters by cross-validation.
    file_format : str, default="skops"
        Or "joblib".
    is_fresh : bool, default=False
        Fit again even if an equal Result exists.
    """
    entry = find_head(head)
    layers = choose_layers(data.cache, layer)
    settings = {
        "model": head,
        "layer": SIDE_BY_SIDE.join(layers),
        "seed": data.seed,
        "is_searched": is_searched,
        "file_format": file_format,
        "grid": repr(entry.family),
    }
    return _fit_rows(head, entry, layers, data, data.cache, settings, is_fresh, on_progress)


def fit_pixel_baseline(
    data: Data, *, head: str = "logreg", is_fresh: bool = False, on_progress: OnProgress = silent
) -> Outcome:
    """Fit a head on the raw pixels of the same images: what the backbone has to beat.

    The small pictures get a cache of their own, made from the same folder when it is not there yet.
    """
    entry = find_head(head)
    settings = {"model": f"pixels+{head}", "layer": "pixels", "seed": data.seed, "is_searched": True}
    settings["grid"] = repr(entry.family)
    with open_pixels(data, on_progress=on_progress) as cache:
        return _fit_rows(f"pixels+{head}", entry, ["pixels"], data, cache, settings, is_fresh, on_progress)


@contextmanager
def open_pixels(data: Data, *, on_progress: OnProgress = silent) -> Iterator[Cache]:
    """Open the cache of the raw pixels of the same images, bringing it up to date before."""
    path = workspace.baseline_cache_path(data.cache.path)
    if data.cache.source.get("encoder", {}).get("backbone") == "imported":
        raise DataError("the rows were imported: there are no images to take pixels from")
    origin = {"encoder": {"backbone": "pixels"}}
    report = extract_rows(data.cache.table.images, PixelEncoder(), path, on_progress=on_progress, origin=origin)
    gone = {name for name, _ in report.failures}.intersection(data.split.paths)
    if gone:
        raise DataError(f"{len(gone):,} images cannot be read any more; the first: {': '.join(report.failures[0])}")
    with open_cache(path) as cache:
        yield cache


def _fit_rejector(rows: RowSource, fitted: FittedHead, split: Split, learn_at: Labels, seed: int) -> Rejector | None:
    """Fit on the rows that the head takes, of at most 10,000 images."""
    some = np.unique(np.linspace(0, len(learn_at) - 1, min(len(learn_at), 10_000)).astype(np.int64))
    taken = View(rows, fitted.columns).take(some)[slice(None)]
    held_out = None if fitted.held_out is None else fitted.held_out[some]
    return fit_rejector(taken, folds(split, learn_at[some], n_folds=N_FOLDS, seed=seed), held_out)


def _fit_rows(
    candidate: str,
    head: Head,
    layers: list[str],
    data: Data,
    cache: Cache,
    settings: dict[str, Any],
    is_fresh: bool,
    on_progress: OnProgress,
) -> Outcome:
    split = data.split
    find_leaks(data.cache, split, on_progress=on_progress)  # first, so that its rows and those of the fit never meet
    folder = model_folder(data, candidate, settings["layer"], settings, cache.fingerprint)
    if not is_fresh and (known := known_result(folder, data)) is not None:
        return Outcome(known, is_reused=True)
    learn_at, test_at = split.where("train", "val"), split.where("test")
    on_progress(f"fitting {candidate}", 0, 0)
    rows, learn_at = _rows_to_learn(cache, layers, split, learn_at, head)
    fitted = fit_head(
        head.name,
        rows,
        split,
        learn_at,
        layers={layer: cache.layers[layer][1] for layer in layers},
        seed=data.seed,
        is_searched=settings["is_searched"],
    )
    started_s = time.perf_counter()
    rejector = _fit_rejector(rows, fitted, split, learn_at, data.seed)
    reject_s = time.perf_counter() - started_s
    del rows
    test_rows: RowSource = StoredRows(cache, fitted.layers, [split.keys[i] for i in test_at])
    if np.prod(test_rows.shape) * 4 + _beside_rows(test_rows.shape[1]) < available_memory():
        test_rows = read_rows(
            cache, fitted.layers, [split.keys[i] for i in test_at]
        )  # the reading is no part of the time
    started_s = time.perf_counter()
    probabilities = predict_probabilities(fitted.pipeline, test_rows)
    predict_s = time.perf_counter() - started_s
    timing = cache.timing
    n_embedded = timing["n_embedded"]
    source = cache.source.get("encoder", {})
    result = make_result(
        candidate,
        "head",
        data,
        cache,
        SIDE_BY_SIDE.join(fitted.layers),
        settings,
        fitted.chosen,
        probabilities,
        Timing(
            extract_s=timing["extract_s"] if n_embedded else None,
            extract_s_per_image=timing["embed_s"] / n_embedded if n_embedded else None,
            search_s=fitted.search_s,
            fit_s=fitted.fit_s,
            reject_s=reject_s,
            predict_s_per_image=predict_s / len(test_at),
        ),
        notes=fitted.notes,
        coverage=coverage_table(rejector, test_rows, probabilities, split.labels[test_at]) if rejector else [],
    )
    if fitted.held_out is not None:
        held = np.isfinite(fitted.held_out[:, 0])
        is_right = fitted.held_out.argmax(axis=1) == split.labels[learn_at]
        result = replace(result, held_out_accuracy=float(np.mean(is_right[held])))

    def save_model(to: Path) -> None:
        save_head(fitted.pipeline, to, file_format=settings.get("file_format", "skops"))
        if rejector:
            save_rejector(rejector, to)

    return Outcome(save_outcome(folder, result, source, data.cache.path, save_model), is_reused=False)


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
    find_leaks(data.cache, split, on_progress=on_progress)
    if is_fresh:
        state_path.unlink(missing_ok=True)
    elif (known := known_result(folder, data)) is not None and known.chosen.get("ended") != "interrupted":
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


def make_result(
    candidate: str,
    kind: str,
    data: Data,
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
        leaks=score_without(find_leaks(data.cache, split), split, true, predicted),
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


def known_result(folder: Path, data: Data) -> Result | None:
    path = folder / "result.json"
    try:
        known = replace(Result.from_dict(read_json(path)), model=str(folder)) if path.exists() else None
    except (DataError, TypeError, KeyError):
        return None  # half-written by an older version or damaged: fit again
    return known and with_leaks(known, data)


def with_leaks(known: Result, data: Data, *, on_progress: OnProgress = silent) -> Result:
    """Return a saved Result with today's leaks: paths may be others, and an older version did not look for them."""
    found = find_leaks(data.cache, data.split, on_progress=on_progress)
    return replace(known, leaks=score_without(found, data.split, np.array(known.true), np.array(known.predicted)))


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
