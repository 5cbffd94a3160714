"""How a comparison was made: the commands that make it again, from what the records say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from tlfeat.backbones.catalog import own_resize
from tlfeat.backbones.precision import kind_of
from tlfeat.cache.contents import Origin, origin, parts_of
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError
from tlfeat.evaluate.split import TEST_FRACTION
from tlfeat.finetune.recipes import recipe_of
from tlfeat.finetune.settings import TrainSettings
from tlfeat.images.classes import classes_text
from tlfeat.records import Result, SplitInfo, is_baseline, layers_of

#: Settings of training that have an option of ``fit-keras``, but for those that say the mode.
_OPTIONS = tuple(
    f.name for f in fields(TrainSettings) if f.name not in ("mode", "unfreeze_last", "recipe", "is_flattened", "seed")
)

#: Options that are not called as their setting is.
_RENAMED = {"plateau": "--reduce-on-plateau", "trains_batchnorm": "--train-batchnorm"}


def commands(cache: Cache, results: Iterable[Result]) -> list[str]:
    """Return the command lines, each quoted for a shell: extraction, every candidate, the report."""
    results = list(results)
    lines = [*_extractions(cache), *dict.fromkeys(_fit(cache, result) for result in results)]
    return [shlex.join(words) for words in (*lines, ("tlfeat", "report", *_common(cache, results[0].split)))]


def _common(cache: Cache, split: SplitInfo) -> tuple[str, ...]:
    """Return what every command after `extract` takes: the cache and what decides the split."""
    words = ["--cache", str(cache.path), "--seed", str(split.seed)]
    if split.origin == "seeded" and split.test_fraction not in (None, TEST_FRACTION):
        words += ["--test-fraction", str(split.test_fraction)]
    if split.test_split is not None:
        words += ["--test-split", split.test_split]
    return tuple(words)


def _extractions(cache: Cache) -> list[tuple[str, ...]]:
    """Return what makes a cache: of one that was joined, what makes the parts that are there, and joins them."""
    parts = parts_of(cache)
    if not parts:
        return [_extract(cache)]
    lines = []
    for part in parts:
        with suppress(CacheError), open_cache(part) as opened:
            lines.append(_extract(opened))
    named = (word for part in parts for word in ("--cache", str(part)))
    return [*lines, ("tlfeat", "adapt", "--leave-one-out", "--methods", "none", *named)]


def _extract(cache: Cache) -> tuple[str, ...]:
    source, fingerprint = cache.source, cache.fingerprint
    encoder = source.get("encoder", {})
    data = str(source.get("source", ""))
    backbone = str(encoder.get("backbone", ""))
    if origin(cache) is Origin.IMPORTED:
        name = str(fingerprint.get("backbone", ""))
        return "tlfeat", "cache", "import", "ROWS.npy", data, "--name", name, "--cache", str(cache.path)
    words = ["tlfeat", "extract", data, "--backbone", backbone]
    if encoder.get("weights", "imagenet") != "imagenet":
        words += ["--weights", str(encoder["weights"])]
    if encoder.get("preprocess"):
        words += ["--preprocess", str(encoder["preprocess"])]
    if encoder.get("input_size"):
        words += ["--input-size", "x".join(map(str, encoder["input_size"]))]
    for layer in cache.layers if backbone != Origin.PIXELS else ():
        words += ["--layer", layer]
    if fingerprint.get("resize", own := own_resize(backbone)) != own:
        words += ["--resize", str(fingerprint["resize"])]
    if fingerprint.get("dtype", "float32") != "float32":
        words += ["--dtype", str(fingerprint["dtype"])]
    if fingerprint.get("precision"):
        words += ["--precision", kind_of(fingerprint["precision"])]
    for pair in source.get("class_map", []):
        words += ["--class-map", str(pair)]
    if source.get("classes"):
        words += ["--classes", classes_text(source["classes"])]
    for option in ("label_from", "path_column", "text_column", "label_column", "domain_column"):
        if source.get(option):
            words += [f"--{option.replace('_', '-')}", str(source[option])]
    if source.get("domains"):
        words.append("--domains")
    if encoder.get("seed"):
        words += ["--seed", str(encoder["seed"])]
    return (*words, "--cache", str(cache.path))


def _fit(cache: Cache, result: Result) -> tuple[str, ...]:
    common, settings = _common(cache, result.split), result.settings
    if result.kind == "keras":
        return ("tlfeat", "fit-keras", *_training(settings), *common)
    if is_baseline(result.candidate):
        return ("tlfeat", "compare", "--heads", "none", "--keras", "none", *common)
    words = ["tlfeat", "fit-sklearn", "--model", result.candidate]
    for layer in layers_of(str(settings.get("layer", result.layer))):
        words += ["--layer", layer]
    for name, value in settings.get("parameters", {}).items():
        words += ["--param", f"{name}={value}"]
    for name, values in settings.get("grid", {}).items():
        words += ["--grid", f"{name}={','.join(map(str, values))}"]
    if not settings.get("is_searched", True):
        words.append("--no-search")
    elif settings.get("effort") != "quick":
        words += ["--search", "thorough"]
    if settings.get("file_format", "skops") != "skops":
        words += ["--format", str(settings["file_format"])]
    return (*words, *common)


def _training(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of ``fit-keras``: those that differ from the recipe's, or from what it takes by default."""
    mode, name = str(settings.get("mode", "frozen")), str(settings.get("recipe") or "")
    recipe, is_as_written = recipe_of(name)
    usual = (recipe.make(is_as_written=is_as_written) if recipe else TrainSettings(mode)).to_dict()
    words = ["--recipe", recipe.name, *(["--as-written"] if is_as_written else [])] if recipe else []
    words += ["--from-scratch"] if mode == "scratch" else []
    if mode == "finetuned" and not (recipe and settings.get("unfreeze_last") == usual.get("unfreeze_last")):
        words += ["--unfreeze-last", str(settings.get("unfreeze_last"))]
    for option in _OPTIONS:
        value = settings.get(option)
        if value is None or value == usual.get(option):
            continue
        words.append(_RENAMED.get(option, f"--{option.replace('_', '-')}"))
        if isinstance(value, list):
            words.append(",".join(map(str, value)) or "0")
        elif not isinstance(value, bool):
            words.append(str(value))
    return words
