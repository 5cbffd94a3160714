"""What helps to choose a backbone of the catalog: how much it computes, and how good it is on ImageNet.

Multiply-adds are computed from the graph (`graph.multiply_adds`), at the input size of the catalog, without the top and
without the products of queries and keys; ``tools/verify_catalog.py`` computes them again. Accuracies are published ones
on single crops of the validation images of ImageNet 2012, of the whole network with these weights or, where the source
says so, of a linear classifier on its frozen rows; those of two sources are not measured in quite the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tlfeat.backbones.catalog import BACKBONES
from tlfeat.backbones.hub_catalog import HUB_BACKBONES, HubBackbone
from tlfeat.backbones.network import DIGITS, DIGITS_PARAMETERS, DIGITS_WIDTH
from tlfeat.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one backbone.

    Attributes
    ----------
    multiply_adds : int
        Of its kernels, for one image.
    top1 : float
        Percent of the validation images whose label it, or a linear classifier on its rows, names first; None: unknown.
    top1_source : str
    """

    multiply_adds: int
    top1: float | None
    top1_source: str


_TABLE: Final = "keras.io/api/applications, table of available models"

_V1: Final = "Howard et al. 2017, arXiv:1704.04861, table 6"

_V2: Final = "table of tf.keras.applications.mobilenet_v2 (TensorFlow 2.2 to 2.11), from the authors' checkpoints"

_V3: Final = "docstring of keras.applications.MobileNetV3Large"

_DINOV2: Final = "README of facebookresearch/dinov2: a linear classifier on frozen rows"

_DEIT: Final = "README of facebookresearch/deit: distilled, the whole network"

_SWIN: Final = "README of microsoft/Swin-Transformer: trained on ImageNet-1k, the whole network"

_CLIP: Final = "CLIP_benchmark: a linear classifier on frozen rows, its learning rate chosen on the same images"

FIGURES: Final[dict[str, Figures]] = {
    "convnext_tiny": Figures(4_454_763_264, 81.3, _TABLE),
    "convnext_small": Figures(8_682_944_256, 82.3, _TABLE),
    "convnext_base": Figures(15_353_705_472, 85.3, _TABLE),
    "convnext_large": Figures(34_359_897_600, 86.3, _TABLE),
    "convnext_xlarge": Figures(60_918_982_656, 86.7, _TABLE),
    "densenet121": Figures(2_833_137_664, 75.0, _TABLE),
    "densenet169": Figures(3_358_179_328, 76.2, _TABLE),
    "densenet201": Figures(4_289_445_888, 77.3, _TABLE),
    "efficientnet_b0": Figures(384_534_752, 77.1, _TABLE),
    "efficientnet_b1": Figures(685_522_832, 79.1, _TABLE),
    "efficientnet_b2": Figures(992_153_872, 80.1, _TABLE),
    "efficientnet_b3": Figures(1_825_605_392, 81.6, _TABLE),
    "efficientnet_b4": Figures(4_391_979_024, 82.9, _TABLE),
    "efficientnet_b5": Figures(10_264_336_752, 83.6, _TABLE),
    "efficientnet_b6": Figures(19_065_289_536, 84.0, _TABLE),
    "efficientnet_b7": Figures(37_743_324_192, 84.3, _TABLE),
    "efficientnet_v2_b0": Figures(716_806_176, 78.7, _TABLE),
    "efficientnet_v2_b1": Figures(1_195_539_360, 79.8, _TABLE),
    "efficientnet_v2_b2": Figures(1_696_134_832, 80.5, _TABLE),
    "efficientnet_v2_b3": Figures(3_009_922_816, 82.0, _TABLE),
    "efficientnet_v2_s": Figures(8_364_337_152, 83.9, _TABLE),
    "efficientnet_v2_m": Figures(24_581_180_384, 85.3, _TABLE),
    "efficientnet_v2_l": Figures(56_078_419_008, 85.7, _TABLE),
    "inception_v3": Figures(5_711_168_096, 77.9, _TABLE),
    "inception_resnet_v2": Figures(13_154_258_016, 80.3, _TABLE),
    "mobilenet_0.25": Figures(40_774_272, 50.6, _V1),
    "mobilenet_0.5": Figures(148_985_088, 63.7, _V1),
    "mobilenet_0.75": Figures(324_632_448, 68.4, _V1),
    "mobilenet": Figures(567_716_352, 70.4, _TABLE),
    "mobilenet_v2_0.35": Figures(58_005_808, 60.3, _V2),
    "mobilenet_v2_0.5": Figures(95_851_840, 65.4, _V2),
    "mobilenet_v2_0.75": Figures(207_789_792, 69.8, _V2),
    "mobilenet_v2": Figures(299_494_272, 71.3, _TABLE),
    "mobilenet_v2_1.3": Figures(507_710_560, 74.4, _V2),
    "mobilenet_v2_1.4": Figures(580_403_824, 75.0, _V2),
    "mobilenet_v3_small_0.75": Figures(41_932_976, 65.4, _V3),
    "mobilenet_v3_small": Figures(54_896_576, 68.1, _V3),
    "mobilenet_v3_small_minimalistic": Figures(50_674_624, 61.9, _V3),
    "mobilenet_v3_large_0.75": Figures(152_359_024, 73.3, _V3),
    "mobilenet_v3_large": Figures(214_080_960, 75.6, _V3),
    "mobilenet_v3_large_minimalistic": Figures(206_627_904, 72.3, _V3),
    "nasnet_mobile": Figures(562_582_816, 74.4, _TABLE),
    "nasnet_large": Figures(23_779_382_658, 82.5, _TABLE),
    "resnet50": Figures(3_855_925_248, 74.9, _TABLE),
    "resnet101": Figures(7_568_146_432, 76.4, _TABLE),
    "resnet152": Figures(11_280_367_616, 76.6, _TABLE),
    "resnet50_v2": Figures(3_480_207_360, 76.0, _TABLE),
    "resnet101_v2": Figures(7_192_428_544, 77.2, _TABLE),
    "resnet152_v2": Figures(10_904_649_728, 78.0, _TABLE),
    "vgg16": Figures(15_346_630_656, 71.3, _TABLE),
    "vgg19": Figures(19_508_428_800, 71.3, _TABLE),
    "xception": Figures(8_355_355_496, 79.0, _TABLE),
    "dinov2_small": Figures(5_515_080_192, 81.1, _DINOV2),
    "dinov2_base": Figures(21_944_263_680, 84.5, _DINOV2),
    "dinov2_large": Figures(77_766_144_000, 86.3, _DINOV2),
    "dinov2_giant": Figures(291_274_868_736, None, ""),
    "dinov2_with_registers_small": Figures(5_600_918_016, None, ""),
    "dinov2_with_registers_base": Figures(22_285_808_640, None, ""),
    "dinov2_with_registers_large": Figures(78_976_512_000, None, ""),
    "dinov2_with_registers_giant": Figures(295_808_329_728, None, ""),
    "dinov3_small": Figures(4_327_243_776, None, ""),
    "dinov3_small_plus": Figures(5_749_899_264, None, ""),
    "dinov3_base": Figures(17_190_420_480, None, ""),
    "dinov3_large": Figures(60_858_040_320, None, ""),
    "dinov3_huge_plus": Figures(168_808_611_840, None, ""),
    "vit_base_16": Figures(16_848_322_560, None, ""),
    "vit_base_32": Figures(4_364_697_600, None, ""),
    "vit_large_16": Figures(59_646_935_040, None, ""),
    "vit_large_32": Figures(15_256_780_800, None, ""),
    "vit_huge_14": Figures(161_883_847_680, None, ""),
    "deit_tiny": Figures(1_080_262_656, 74.5, _DEIT),
    "deit_small": Figures(4_262_658_048, 81.2, _DEIT),
    "deit_base": Figures(16_933_847_040, 83.4, _DEIT),
    "swin_tiny": Figures(4_177_797_120, 81.2, _SWIN),
    "swin_small": Figures(8_339_595_264, 83.2, _SWIN),
    "swin_base": Figures(14_819_524_608, 83.5, _SWIN),
    "swin_large": Figures(33_329_479_680, None, ""),
    "siglip_base_16": Figures(16_769_875_968, None, ""),
    "siglip_large_16": Figures(77_523_320_832, None, ""),
    "siglip_so400m_14": Figures(105_422_671_872, None, ""),
    "siglip2_base_16": Figures(16_769_875_968, None, ""),
    "siglip2_large_16": Figures(77_523_320_832, None, ""),
    "siglip2_so400m_14": Figures(105_422_671_872, None, ""),
    "clip_base_32": Figures(4_364_697_600, 75.6, _CLIP),
    "clip_base_16": Figures(16_848_322_560, None, ""),
    "clip_large_14": Figures(77_766_144_000, 84.4, _CLIP),
}

_DIGITS_MULTIPLY_ADDS: Final = 4_644_864

#: Column of ``tlfeat backbones`` to the key that `list_backbones` has for it.
COLUMNS: Final = {
    "name": "name",
    "input": "input_size",
    "width": "width",
    "parameters": "parameters",
    "multiply-adds": "multiply_adds",
    "top-1": "top1",
    "processor": "cpu_ms",
    "preprocess": "preprocess",
    "licence": "licence",
}


def list_backbones() -> list[dict[str, Any]]:
    """Return what ``tlfeat backbones`` lists: the catalog, and the network that ships with tlfeat."""
    digits = {
        "name": DIGITS,
        "keras_name": "",
        "input_size": (32, 32),
        "preprocess": "tf",
        "width": DIGITS_WIDTH,
        "parameters": DIGITS_PARAMETERS,
        "paper": "ships with tlfeat: tools/pretrain_digits.py",
        "licence": "Apache-2.0",
        "multiply_adds": _DIGITS_MULTIPLY_ADDS,
        "top1": None,
        "top1_source": "",
    }
    of_keras = [{**asdict(entry), **asdict(FIGURES[entry.name])} for entry in BACKBONES]
    return [digits, *of_keras, *map(_of_hub, HUB_BACKBONES)]


def _of_hub(entry: HubBackbone) -> dict[str, Any]:
    figures = asdict(FIGURES[entry.name])
    names = ("name", "input_size", "preprocess", "width", "parameters", "paper", "licence", "hugging_face", "preset")
    return {**{name: getattr(entry, name) for name in names}, "family": entry.family.name, **figures}


def ordered(entries: Sequence[Mapping[str, Any]], column: str) -> list[dict[str, Any]]:
    """Return entries by a column of `COLUMNS`: the smallest first, of accuracies the highest; without a value last.

    Raises
    ------
    UsageError
        There is no such column.
    """
    if column not in COLUMNS:
        raise UsageError(f"No column '{column}'. {nearest(column, list(COLUMNS), of='columns')}")
    key = COLUMNS[column]
    known = [dict(entry) for entry in entries if entry.get(key) is not None]
    unknown = [dict(entry) for entry in entries if entry.get(key) is None]
    return [*sorted(known, key=lambda entry: entry[key], reverse=column == "top-1"), *unknown]


def alike(entries: Sequence[Mapping[str, Any]], name: str, *, n_most: int = 10) -> list[dict[str, Any]]:
    """Return the entries nearest in size to one of them, itself first.

    Near is a small ratio of parameters times the ratio of multiply-adds, each taken above 1.

    Raises
    ------
    UsageError
        There is no such backbone.
    """
    by_name = {entry["name"]: entry for entry in entries}
    if name not in by_name:
        raise UsageError(f"No backbone '{name}'. {nearest(name, list(by_name), of='backbones')}")
    like = by_name[name]

    def distance(entry: Mapping[str, Any]) -> float:
        return sum(abs(math.log(entry[key] / like[key])) for key in ("parameters", "multiply_adds"))

    return [dict(entry) for entry in sorted(entries, key=distance)[:n_most]]
