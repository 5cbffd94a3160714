"""How a comparison was made: the commands that make it again, from what the records say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from tlfeat.cache import Cache
from tlfeat.decode import RESIZE
from tlfeat.evaluate import TEST_FRACTION
from tlfeat.records import Result, SplitInfo

#: Settings of training that have an option, and what ``fit-keras`` takes of its own accord.
_USUAL = {
    "dense": 128,
    "dropout": 0.2,
    "augment": "none",
    "views": 0,
    "optimizer": "adam",
    "loss": "sparse_categorical_crossentropy",
    "learning_rate": None,
    "head_epochs": 0,
    "head_learning_rate": 1e-3,
    "plateau": 0,
    "epochs": 0,
    "patience": 0,
    "keep": "best",
    "trains_batchnorm": False,
    "batch_size": 32,
    "preprocess": None,
    "cut": "float32",
}

#: Options that are not called as their setting is.
_RENAMED = {"plateau": "--reduce-on-plateau", "trains_batchnorm": "--train-batchnorm"}


def commands(cache: Cache, results: Iterable[Result]) -> list[str]:
    """Return the command lines, each quoted for a shell: extraction, every candidate, the report."""
    results = list(results)
    lines = [_extract(cache), *dict.fromkeys(_fit(cache, result) for result in results)]
    return [shlex.join(words) for words in (*lines, ("tlfeat", "report", *_common(cache, results[0].split)))]


def _common(cache: Cache, split: SplitInfo) -> tuple[str, ...]:
    """Return what every command after `extract` takes: the cache and what decides the split."""
    words = ["--cache", str(cache.path), "--seed", str(split.seed)]
    if split.origin == "seeded" and split.test_fraction not in (None, TEST_FRACTION):
        words += ["--test-fraction", str(split.test_fraction)]
    return tuple(words)


def _extract(cache: Cache) -> tuple[str, ...]:
    source, fingerprint = cache.source, cache.fingerprint
    encoder = source.get("encoder", {})
    data = str(source.get("source", ""))
    backbone = str(encoder.get("backbone", ""))
    if backbone == "imported":
        name = str(fingerprint.get("backbone", ""))
        return "tlfeat", "cache", "import", "ROWS.npy", data, "--name", name, "--cache", str(cache.path)
    words = ["tlfeat", "extract", data, "--backbone", backbone]
    if encoder.get("weights", "imagenet") != "imagenet":
        words += ["--weights", str(encoder["weights"])]
    if encoder.get("preprocess"):
        words += ["--preprocess", str(encoder["preprocess"])]
    if encoder.get("input_size"):
        words += ["--input-size", "x".join(map(str, encoder["input_size"]))]
    for layer in cache.layers if backbone != "pixels" else ():
        words += ["--layer", layer]
    if fingerprint.get("resize", RESIZE) != RESIZE:
        words += ["--resize", str(fingerprint["resize"])]
    if fingerprint.get("dtype", "float32") != "float32":
        words += ["--dtype", str(fingerprint["dtype"])]
    for pair in source.get("class_map", []):
        words += ["--class-map", str(pair)]
    if encoder.get("seed"):
        words += ["--seed", str(encoder["seed"])]
    return (*words, "--cache", str(cache.path))


def _fit(cache: Cache, result: Result) -> tuple[str, ...]:
    common, settings = _common(cache, result.split), result.settings
    if result.kind == "keras":
        return ("tlfeat", "fit-keras", *_training(settings), *common)
    if result.candidate.startswith("pixels+"):
        return ("tlfeat", "compare", "--heads", "none", "--keras", "none", *common)
    words = ["tlfeat", "fit-sklearn", "--model", result.candidate]
    for layer in str(settings.get("layer", result.layer)).split("+"):
        words += ["--layer", layer]
    words += [] if settings.get("is_searched", True) else ["--no-search"]
    if settings.get("file_format", "skops") != "skops":
        words += ["--format", str(settings["file_format"])]
    return (*words, *common)


def _training(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of ``fit-keras``: those that differ from the usual; with a recipe all, as they change it."""
    mode, recipe = settings.get("mode", "frozen"), str(settings.get("recipe") or "")
    words = ["--recipe", recipe.removesuffix("-as-written")] if recipe else []
    words += ["--as-written"] if recipe.endswith("-as-written") else []
    words += ["--from-scratch"] if mode == "scratch" else []
    words += ["--unfreeze-last", str(settings.get("unfreeze_last"))] if mode == "finetuned" else []
    usual = {**_USUAL, "learning_rate": 1e-4 if mode == "finetuned" else 1e-3}
    for name in (name for name in usual if settings.get(name) is not None):
        value = settings[name]
        if isinstance(value, list):
            value = ",".join(map(str, value)) or 0
        option = _RENAMED.get(name, f"--{name.replace('_', '-')}")
        if isinstance(value, bool):
            words += [option] if value else []
        elif recipe or str(value) != str(usual[name]):
            words += [option, str(value)]
    return words
