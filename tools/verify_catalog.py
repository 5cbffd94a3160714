"""Compare every entry of ``tlfeat.backbones.catalog`` with the installed Keras.

Prints one line per entry and exits with 1 if any field differs (multiply-adds are counted in the graph) or if
``keras.applications`` has a model that the table lacks. Each architecture is built once, with random weights, so it
needs no network; the largest of Keras, ConvNeXt XLarge, needs 1.4 GB of memory. So are the networks of KerasHub in
``hub_catalog``, of which DINOv2 giant needs 5 GB.

    python tools/verify_catalog.py                    # all, 2 minutes on 2 cores
    python tools/verify_catalog.py resnet50 xception  # some
"""

from __future__ import annotations

import gc
import inspect
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.catalog import BACKBONES, Backbone, find
from tlfeat.backbones.figures import FIGURES
from tlfeat.backbones.frameworks import import_hub
from tlfeat.backbones.graph import multiply_adds
from tlfeat.backbones.hub import build_hub
from tlfeat.backbones.hub_catalog import HUB_BACKBONES, Family, HubBackbone
from tlfeat.errors import UsageError

IMAGENET_MEAN_RGB = np.array([0.485, 0.456, 0.406])
IMAGENET_STD_RGB = np.array([0.229, 0.224, 0.225])
IMAGENET_MEAN_BGR_255 = np.array([103.939, 116.779, 123.68])  # Caffe's, not the one above times 255

FORMULAS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "tf": lambda pixels: pixels / 127.5 - 1.0,
    "caffe": lambda pixels: pixels[..., ::-1] - IMAGENET_MEAN_BGR_255,
    "torch": lambda pixels: (pixels / 255.0 - IMAGENET_MEAN_RGB) / IMAGENET_STD_RGB,
    "none": lambda pixels: pixels,
}


class Reached(Exception):
    """Carries a value out of Keras from the point where it is known."""


@contextmanager
def replaced(owner: Any, attribute: str, value: Any) -> Iterator[None]:
    """Set an attribute for the length of a ``with`` block."""
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)


def model_functions() -> dict[str, Callable[..., Any]]:
    """Return the public model functions of ``keras.applications`` and its submodules, by name."""
    import keras

    places = [keras.applications, *(m for m in vars(keras.applications).values() if inspect.ismodule(m))]
    return {
        name: thing
        for place in places
        for name, thing in vars(place).items()
        if callable(thing) and "include_top" in inspect.signature(thing).parameters
    }


def module_of(backbone: Backbone) -> ModuleType:
    """Return the Keras module that defines `backbone`."""
    return sys.modules[model_functions()[backbone.keras_name].__module__]


def hosted_arguments(keras_name: str) -> set[tuple[tuple[str, float | bool], ...]]:
    """Return the `Backbone.arguments` for which Keras has ImageNet weights of one model.

    MobileNet and MobileNetV2 list the permitted alphas in the error for a wrong one, MobileNetV3 keeps a
    table of its weights. The other models take no such argument.
    """
    function = model_functions()[keras_name]
    if "alpha" not in inspect.signature(function).parameters:
        return {()}
    hashes = getattr(sys.modules[function.__module__], "WEIGHTS_HASHES", None)
    if hashes:
        kind = keras_name.removeprefix("MobileNetV3").lower()
        found: set[tuple[tuple[str, float | bool], ...]] = set()
        for key in hashes:
            match = re.fullmatch(rf"{kind}(_minimalistic)?_224_([\d.]+)_float", key)
            if match:
                alpha = float(match[2])
                minimalistic = (("minimalistic", True),) if match[1] else ()
                found.add((*minimalistic, *((("alpha", alpha),) if alpha != 1.0 else ())))
        return found
    try:
        function(alpha=0.123, weights="imagenet", include_top=False, input_shape=(224, 224, 3))
    except ValueError as error:
        alphas = [float(a) for a in re.findall(r"`([\d.]+)`", str(error))]
        return {(("alpha", a),) if a != 1.0 else () for a in alphas}
    raise AssertionError(f"{keras_name} accepts any alpha; look for its weights by hand")


def missing_entries() -> list[str]:
    """Return a sentence per model or variant that Keras has and the table lacks, or the reverse."""
    there = {(name, arguments) for name in model_functions() for arguments in hosted_arguments(name)}
    here = {(backbone.keras_name, backbone.arguments) for backbone in BACKBONES}
    return [
        *(f"only in Keras: {name} {dict(arguments)}" for name, arguments in sorted(there - here)),
        *(f"only in the table: {name} {dict(arguments)}" for name, arguments in sorted(here - there)),
    ]


def quick_differences(backbone: Backbone) -> list[str]:
    """Compare what needs no model: preprocessing, input size, paper."""
    function, module = model_functions()[backbone.keras_name], module_of(backbone)
    differences = []

    pixels = np.random.default_rng(0).uniform(0.0, 255.0, size=(2, 5, 4, 3))
    theirs = np.asarray(module.preprocess_input(pixels.copy(), data_format="channels_last"))
    fitting = [mode for mode, formula in FORMULAS.items() if np.allclose(formula(pixels), theirs, atol=1e-4)]
    if fitting != [backbone.preprocess]:
        differences.append(f"preprocess: table {backbone.preprocess}, Keras {fitting}")

    def tell_default_size(*_: Any, default_size: int, **__: Any) -> None:
        raise Reached(default_size)

    # With the top, the default input shape is the one of training. MobileNetV3 does not ask for it here; its
    # size stands in the name of its weights, and another would give a warning in `built_differences`.
    if backbone.keras_name.startswith("MobileNetV3"):
        default_px = 224
    else:
        with replaced(module.imagenet_utils, "obtain_input_shape", tell_default_size):
            try:
                function(weights=None, include_top=True, **dict(backbone.arguments))
                default_px = -1
            except Reached as reached:
                default_px = reached.args[0]
    if backbone.input_size != (default_px, default_px):
        differences.append(f"input_size: table {backbone.input_size}, Keras {default_px}")

    arxiv = backbone.paper.rpartition("arXiv:")[2]
    if f"/{arxiv}" not in (inspect.getdoc(function) or ""):
        differences.append(f"paper: Keras' docstring does not link to arXiv:{arxiv}")
    if (
        backbone.keras_name.startswith("MobileNetV3")
        and (told := told_accuracy(backbone)) != FIGURES[backbone.name].top1
    ):
        differences.append(f"top1: table {FIGURES[backbone.name].top1}, Keras' docstring {told}")
    return differences


def told_accuracy(backbone: Backbone) -> float | None:
    """Return the top-1 accuracy in the table of a docstring of Keras; MobileNetV3 alone has one."""
    given = dict(backbone.arguments)
    kind = backbone.keras_name.removeprefix("MobileNetV3").lower()
    name = f"mobilenet_v3_{kind}{'_minimalistic' if given.get('minimalistic') else ''}_{given.get('alpha', 1.0)}_224"
    text = inspect.getdoc(model_functions()[backbone.keras_name]) or ""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return next((float(cells[3]) for cells in rows if cells[0] == name), None)


def built_differences(backbone: Backbone) -> list[str]:
    """Build the model as for ImageNet weights, without loading any, and compare what it shows."""
    import keras
    from keras.src.utils import file_utils  # all of keras.applications downloads through this module

    function = model_functions()[backbone.keras_name]
    requested: list[tuple[str, str]] = []

    def note_request(fname: str, origin: str, **_: Any) -> str:
        requested.append((fname, origin))
        return fname

    def load_nothing(*_: Any, **__: Any) -> None:
        pass

    keras.backend.clear_session()  # layers without a name of their own are numbered anew
    with (
        replaced(file_utils, "get_file", note_request),
        replaced(keras.Model, "load_weights", load_nothing),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        model = function(
            weights="imagenet",
            include_top=False,
            pooling="avg",
            input_shape=(*backbone.input_size, 3),
            **dict(backbone.arguments),
        )
    pooling = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)][-1]
    rescales = any(isinstance(x, keras.layers.Rescaling | keras.layers.Normalization) for x in model.layers)
    compared: list[tuple[str, Any, Any]] = [
        ("width", backbone.width, model.output_shape[-1]),
        ("parameters", backbone.parameters, model.count_params()),
        ("pooled_layer", backbone.pooled_layer, pooling.input._keras_history.operation.name),
        ("rescales by itself", backbone.preprocess == "none", rescales),
        ("weights", [(backbone.weights_file, backbone.weights_url)], requested),
        ("multiply_adds", FIGURES[backbone.name].multiply_adds, multiply_adds(model)),
    ]
    del model, pooling
    keras.backend.clear_session()
    gc.collect()
    return [
        *(f"{field}: table {ours}, Keras {theirs}" for field, ours, theirs in compared if ours != theirs),
        *(f"Keras warns: {w.message}" for w in caught if "input_shape" in str(w.message)),
    ]


def hub_differences(backbone: HubBackbone) -> list[str]:
    """Build a network of KerasHub, and compare what can be counted."""
    import keras

    presets = getattr(import_hub().models, backbone.family.hub_classes[0]).presets
    model = build_hub(keras, backbone, None, backbone.input_size)
    compared: list[tuple[str, Any, Any]] = [
        ("width", backbone.width, model.output_shape[-1]),
        ("parameters", backbone.parameters, model.count_params()),
        ("multiply_adds", FIGURES[backbone.name].multiply_adds, multiply_adds(model)),
        ("preset", True, backbone.preset in presets),
    ]
    del model
    keras.backend.clear_session()
    gc.collect()
    return [f"{field}: table {ours}, KerasHub {theirs}" for field, ours, theirs in compared if ours != theirs]


def _row(name: str) -> Backbone | HubBackbone:
    found = find(name)
    if isinstance(found, Family):
        raise UsageError(f"'{name}' is a family, no row of a table.")
    return found


def main(names: list[str]) -> int:
    """Verify the named entries, or all, and return the exit code."""
    try:
        chosen = [_row(name) for name in names] or [*BACKBONES, *HUB_BACKBONES]
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    n_wrong, started = 0, time.perf_counter()
    for sentence in missing_entries():
        n_wrong += 1
        print(f"WRONG  {sentence}", flush=True)
    for backbone in chosen:
        entry_started = time.perf_counter()
        if isinstance(backbone, Backbone):
            differences = quick_differences(backbone) + built_differences(backbone)
        else:
            differences = hub_differences(backbone)
        n_wrong += bool(differences)
        print(
            f"{'WRONG' if differences else 'ok   '}  {backbone.name:<32}"
            f"{backbone.input_size[0]:>4} px  {backbone.preprocess:<5}  {backbone.width:>4} columns  "
            f"{backbone.parameters:>11,} parameters  {time.perf_counter() - entry_started:5.1f} s",
            *differences,
            sep="\n       ",
            flush=True,
        )
    print(f"{len(chosen)} entries, {n_wrong} wrong, {time.perf_counter() - started:.0f} s")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # nothing is computed
    sys.exit(main(sys.argv[1:]))
