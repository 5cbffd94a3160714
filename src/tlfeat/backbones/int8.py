"""A converted network made int8: its weights, and between its layers the ranges that pictures of the user have.

By NNCF, the post-training quantisation of OpenVINO's makers (extra ``tlfeat[int8]``). Weights keep 7 of their 8 bits,
so that no sum overflows on processors without VNNI: there rows of MobileNetV2 have a median cosine of 0.98 to those
of float32 and not 0.88 (docs/benchmarks/precision.md).
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlfeat.backbones.frameworks import import_openvino, silent_stderr, without_telemetry
from tlfeat.backbones.runtime import is_converted, seal_file
from tlfeat.errors import UsageError
from tlfeat.records import distribution_version
from tlfeat.types import OnProgress, Pixels, silent
from tlfeat.workspace import digest, written_together

#: Pictures that the ranges are taken from.
N_CALIBRATION = 300

#: Networks whose int8 form is far off unless every layer's bias is corrected with the layers before it in int8:
#: MobileNetV3-small at half width has 42 % on ImageNet with the fast correction and 57 % with the full one
#: (NNCF's own post-training figures; float32: 58 %).
_NEED_FULL_CORRECTION = ("mobilenet_v3", "efficientnet")

#: Where a network says which layers it gives.
_LAYERS = ["tlfeat", "layers"]

#: Changes with what is asked of NNCF below.
_SETTINGS = 1


def is_installed() -> bool:
    """Whether networks can be made int8 here; one that was made elsewhere needs nothing but OpenVINO."""
    return bool(distribution_version("nncf"))


def need_nncf() -> None:
    """Raise `UsageError` unless networks can be made int8 here."""
    if not is_installed():
        raise UsageError('int8 networks are made with NNCF, which is not installed: pip install "tlfeat[int8]"')


def calibration_digest(keys: Sequence[str]) -> str:
    """Return what an int8 network is known by: the content keys of its pictures, in order, and how it was made."""
    return digest({"keys": list(keys), "nncf": distribution_version("nncf"), "settings": _SETTINGS}, 16)


def quantise(
    file: Path,
    pixels: Sequence[Pixels],
    to: Path,
    *,
    layers: Sequence[str],
    backbone: str,
    is_transformer: bool,
    on_progress: OnProgress = silent,
) -> None:
    """Write the int8 form of a converted network.

    Parameters
    ----------
    file : Path
        What `runtime.convert` wrote.
    pixels : sequence of arrays of shape (height, width, 3)
        Pictures of the kind that will be embedded, `N_CALIBRATION` or fewer.
    to : Path
        Ends in ``.xml``. It appears, and the weights beside it, only when both are whole.
    layers : sequence of str
        In the order of the network's outputs; written into the file.
    backbone : str
        The name in the catalog, which decides on the correction of biases.
    is_transformer : bool

    Raises
    ------
    UsageError
        NNCF is not installed.
    """
    nncf = _import_nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    taken = 0

    def one(picture: Pixels) -> Any:
        nonlocal taken
        taken += 1
        on_progress("making the network int8", min(taken, len(pixels)), len(pixels))
        return picture[None]

    model = import_openvino().Core().read_model(file)
    with _quiet(), _same_draws():
        made = nncf.quantize(
            model,
            nncf.Dataset(list(pixels), one),
            subset_size=len(pixels),
            fast_bias_correction=not backbone.startswith(_NEED_FULL_CORRECTION),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
    made.set_rt_info(json.dumps(list(layers)), _LAYERS)
    with written_together(to) as new:
        import_openvino().save_model(made, new, compress_to_fp16=False)
        seal_file(new)


def read_layers(file: Path, layers: Sequence[str]) -> Any:
    """Return the OpenVINO model of an int8 network with these layers alone as outputs, in this order.

    Raises
    ------
    KeyError
        It does not give all of them.
    """
    ov = import_openvino()
    model = ov.Core().read_model(file)
    held = dict(zip(json.loads(model.get_rt_info(_LAYERS).astype(str)), model.outputs, strict=True))
    return ov.Model([held[layer] for layer in layers], model.get_parameters())


def find_network(files: Iterable[Path], layers: Sequence[str]) -> Path | None:
    """Return the first whole int8 network among `files` that gives these layers."""
    for file in files:
        if is_converted(file):
            with contextlib.suppress(KeyError, ValueError, RuntimeError):
                read_layers(file, layers)
                return file
    return None


def _import_nncf() -> Any:
    need_nncf()
    import_openvino()
    with without_telemetry(), silent_stderr():  # where PyTorch is installed NNCF imports it, and it looks for a GPU
        import nncf

        nncf.disable_logging()
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's own progress bars out of the output of commands."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _same_draws() -> Iterator[None]:
    """Give NNCF the same random numbers each time, and the caller its own back."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)
