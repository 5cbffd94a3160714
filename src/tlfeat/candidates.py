"""One candidate from a cache to a saved model and its Result; an equal one that exists is reused.

A saved model is a folder: ``head.skops`` (or ``head.joblib``, ``model.keras``), ``model.json`` (how to rebuild what
feeds it) and ``result.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache import Cache, open_cache
from tlfeat.encoder import PixelEncoder, resolve_embedding
from tlfeat.errors import CacheError, DataError
from tlfeat.evaluate import TEST_FRACTION, Split, make_split, score
from tlfeat.extract import extract_rows
from tlfeat.heads import find_head, fit_head, predict_probabilities, save_head
from tlfeat.leaks import find_leaks, score_without
from tlfeat.progress import OnProgress, silent
from tlfeat.records import Environment, Result, Timing, read_json, write_json

MODEL_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """A Result, and whether it was there already."""

    result: Result
    is_reused: bool


@dataclass(frozen=True, slots=True)
class Data:
    """What every candidate of one comparison shares: the cache and the one split."""

    cache: Cache
    split: Split
    seed: int

    @property
    def stem(self) -> str:
        """Models and reports lie under this name."""
        return self.cache.stem


@contextmanager
def open_data(cache_path: Path | None, *, seed: int, test_fraction: float = TEST_FRACTION) -> Iterator[Data]:
    """Open a cache (the newest one for None) and make its split."""
    with open_cache(cache_path or workspace.newest_cache()) as cache:
        yield Data(cache, make_split(cache.table, seed=seed, test_fraction=test_fraction), seed)


def choose_layer(cache: Cache, layer: str | None) -> str:
    """Return the layer to take: the named one, else `avg_pool`, else the only one there is."""
    names = list(cache.layers)
    if not names:
        raise CacheError(f"{cache.path} holds no rows yet. Run tlfeat extract again.")
    if layer is not None:
        return resolve_embedding(layer, names)
    return "avg_pool" if "avg_pool" in names else names[0] if len(names) == 1 else resolve_embedding("", names)


def fit_sklearn(
    data: Data,
    head: str,
    *,
    layer: str | None = None,
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
    layer : str, optional
        `avg_pool` by default, or the only layer there is.
    is_searched : bool, default=True
        Choose hyper-parameters by cross-validation.
    file_format : str, default="skops"
        Or "joblib".
    is_fresh : bool, default=False
        Fit again even if an equal Result exists.
    """
    entry = find_head(head)
    layer = choose_layer(data.cache, layer)
    settings = {
        "model": head,
        "layer": layer,
        "seed": data.seed,
        "is_searched": is_searched,
        "file_format": file_format,
        "grid": {name: list(values) for name, values in entry.grid.items()},
    }
    return _fit_rows(head, head, layer, data, data.cache, settings, is_fresh, on_progress)


def fit_pixel_baseline(
    data: Data, *, head: str = "logreg", is_fresh: bool = False, on_progress: OnProgress = silent
) -> Outcome:
    """Fit a head on the raw pixels of the same images: what the backbone has to beat.

    The small pictures get a cache of their own, made from the same folder when it is not there yet.
    """
    images = data.cache.table.images
    encoder = PixelEncoder()
    path = workspace.baseline_cache_path(data.cache.path)
    settings = {"model": f"pixels+{head}", "layer": "pixels", "seed": data.seed, "is_searched": True}
    if data.cache.source.get("encoder", {}).get("backbone") == "imported":
        raise DataError("the rows were imported: there are no images to take pixels from")
    report = extract_rows(images, encoder, path, on_progress=on_progress, origin={"encoder": {"backbone": "pixels"}})
    gone = {name for name, _ in report.failures}.intersection(data.split.paths)
    if gone:
        raise DataError(f"{len(gone):,} images cannot be read any more; the first: {': '.join(report.failures[0])}")
    with open_cache(path) as cache:
        return _fit_rows(f"pixels+{head}", head, "pixels", data, cache, settings, is_fresh, on_progress)


def _fit_rows(
    candidate: str,
    head: str,
    layer: str,
    data: Data,
    cache: Cache,
    settings: dict[str, Any],
    is_fresh: bool,
    on_progress: OnProgress,
) -> Outcome:
    split = data.split
    find_leaks(data.cache, split, on_progress=on_progress)  # first, so that its rows and those of the fit never meet
    folder = _folder(data, candidate, layer, settings, cache.fingerprint)
    if not is_fresh and (known := _known_result(folder, data)) is not None:
        return Outcome(known, is_reused=True)
    learn_at, test_at = split.where("train", "val"), split.where("test")
    on_progress(f"fitting {candidate}", 0, 0)
    rows = cache.read(layer, [split.keys[i] for i in learn_at])
    fitted = fit_head(head, rows, split, learn_at, seed=data.seed, is_searched=settings["is_searched"])
    del rows
    test_rows = cache.read(layer, [split.keys[i] for i in test_at])
    started_s = time.perf_counter()
    probabilities = predict_probabilities(fitted.pipeline, test_rows)
    predict_s = time.perf_counter() - started_s
    timing = cache.timing
    n_embedded = timing["n_embedded"]
    source = cache.source.get("encoder", {})
    result = _result(
        candidate,
        "head",
        data,
        cache,
        layer,
        settings,
        fitted.chosen,
        probabilities,
        Timing(
            extract_s=timing["extract_s"] if n_embedded else None,
            extract_s_per_image=timing["embed_s"] / n_embedded if n_embedded else None,
            search_s=fitted.search_s,
            fit_s=fitted.fit_s,
            predict_s_per_image=predict_s / len(test_at),
        ),
        notes=fitted.notes,
    )
    return Outcome(
        _save(
            folder,
            result,
            source,
            lambda to: save_head(fitted.pipeline, to, file_format=settings.get("file_format", "skops")),
        ),
        is_reused=False,
    )


def fit_keras(
    data: Data,
    train_settings: Any,
    *,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Train a network on the split of the cache, test it, save it. See ``finetune.TrainSettings``."""
    from tlfeat import finetune
    from tlfeat.backbone import KerasEncoder
    from tlfeat.network import weights_digest

    spec = spec_of(data.cache)
    split = data.split
    candidate = f"keras-{train_settings.mode}"
    settings = {"model": candidate, **train_settings.to_dict()}
    fingerprint = data.cache.fingerprint
    folder = _folder(data, candidate, "", settings, fingerprint)
    find_leaks(data.cache, split, on_progress=on_progress)
    if not is_fresh and (known := _known_result(folder, data)) is not None:
        return Outcome(known, is_reused=True)
    if weights_digest(spec) != fingerprint.get("weights"):
        raise CacheError(f"The weights of {spec.name} are not those that {data.cache.path} was made with.")
    size, resize = KerasEncoder(spec, ()).input_size, str(fingerprint.get("resize"))
    root = data.cache.table.images.root
    started_s = time.perf_counter()
    with finetune.stored_pixels(
        root, split.paths, size, resize, below=workspace.CACHE_DIR, on_progress=on_progress
    ) as pixels:
        decode_s = time.perf_counter() - started_s
        trained = finetune.train(spec, pixels, split, train_settings, on_progress=on_progress)
        test_at = split.where("test")
        finetune.predict_pixels(trained.model, pixels[test_at[:1]])  # traces the graph; not part of the time
    test_files = [root / split.paths[i] for i in test_at]
    started_s = time.perf_counter()
    probabilities = finetune.predict_files(trained.model, test_files, size, resize)
    predict_s = time.perf_counter() - started_s
    result = _result(
        candidate,
        "keras",
        data,
        data.cache,
        "",
        settings,
        trained.chosen,
        probabilities,
        Timing(decode_s=decode_s, fit_s=trained.fit_s, predict_s_per_image=predict_s / len(test_at)),
        notes=trained.notes,
        history=trained.history,
    )
    return Outcome(
        _save(
            folder,
            result,
            data.cache.source.get("encoder", {}),
            lambda to: finetune.save_model(trained.model, to / "model.keras"),
        ),
        is_reused=False,
    )


def spec_of(cache: Cache) -> Any:
    """Return the `BackboneSpec` with which a cache was made; an error where it was not made by one."""
    from tlfeat.network import BackboneSpec

    source = cache.source.get("encoder", {})
    if source.get("backbone") in (None, "pixels", "imported"):
        raise DataError(
            f"{cache.path} was not made by a Keras backbone, so there is no network to train. Keras candidates "
            f"need a cache from tlfeat extract."
        )
    return BackboneSpec.from_dict(source)


def encoder_name(cache: Cache) -> str:
    """Return the short name of the encoder that made a cache."""
    name = str(cache.fingerprint.get("backbone", ""))
    return Path(str(cache.source.get("encoder", {}).get("backbone", ""))).stem if name == "own model" else name


def _result(
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
        fingerprint=cache.fingerprint,
        classes=split.classes,
        split=split.info,
        score=score(true, predicted, split.classes),
        timing=timing,
        environment=Environment.current(),
        model_bytes=0,
        test_keys=[split.keys[i] for i in test_at],
        test_paths=[split.paths[i] for i in test_at],
        true=true.tolist(),
        predicted=predicted.tolist(),
        certainty=[round(float(p), 6) for p in probabilities.max(axis=1)],
        history=history or {},
        notes=[*split.notes, *notes],
        leaks=score_without(find_leaks(data.cache, split), split, true, predicted),
    )


def _folder(data: Data, candidate: str, layer: str, settings: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
    identity = workspace.digest(
        {
            "settings": settings,
            "fingerprint": fingerprint,
            "split": data.split.info.to_dict(),
            "version": MODEL_FORMAT_VERSION,
        }
    )
    layer_part = f"-{layer.replace(':', '-')}" if layer else ""
    return workspace.models_dir(data.stem) / f"{candidate}{layer_part}-{identity}"


def _known_result(folder: Path, data: Data) -> Result | None:
    path = folder / "result.json"
    try:
        known = replace(Result.from_dict(read_json(path)), model=str(folder)) if path.exists() else None
    except (DataError, TypeError, KeyError):
        return None  # half-written by an older version or damaged: fit again
    if known is not None:  # the paths of the images may be others today, and an older version did not look for leaks
        found = find_leaks(data.cache, data.split)
        leaks = score_without(found, data.split, np.array(known.true), np.array(known.predicted))
        known = replace(known, leaks=leaks)
    return known


def _save(folder: Path, result: Result, encoder: dict[str, Any], save_model: Callable[[Path], Any]) -> Result:
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
            },
        )

    workspace.write_folder(folder, fill)
    return saved
