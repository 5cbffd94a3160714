"""The table of backbones: its own consistency without Keras, then Keras' word on it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from conftest import script
from tlfeat.backbones.catalog import BACKBONES, Backbone, find
from tlfeat.errors import UsageError

# The quickest to build of each family; `tools/verify_catalog.py` builds them all.
SAMPLE = [
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "inception_v3",
    "mobilenet_0.25",
    "mobilenet_v2_1.4",
    "mobilenet_v3_small_minimalistic",
    "resnet50",
    "resnet50_v2",
    "vgg16",
    "xception",
]


def test_names_are_unique_and_snake_case() -> None:
    names = [backbone.name for backbone in BACKBONES]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and "-" not in name and " " not in name for name in names)


def test_weights_files_are_unique() -> None:
    # A slip in copying a row would make two architectures share one.
    assert len({backbone.weights_file for backbone in BACKBONES}) == len(BACKBONES)
    assert len({backbone.weights_url for backbone in BACKBONES}) == len(BACKBONES)


def test_importing_the_table_starts_no_framework() -> None:
    code = "import sys, tlfeat.backbones.catalog; print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b.name)
def test_find_returns_the_entry_of_that_name(backbone: Backbone) -> None:
    assert find(backbone.name) is backbone


@pytest.mark.parametrize(
    ("received", "suggested"),
    [
        ("mobilenetv2", "mobilenet_v2"),
        ("ResNet-50", "resnet50"),
        ("ResNet50V2", "resnet50_v2"),
        ("EfficientNet_B0", "efficientnet_b0"),
        ("convnext-tiny", "convnext_tiny"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
        ("xceptoin", "xception"),
    ],
)
def test_find_suggests_the_nearest_name(received: str, suggested: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(received)
    assert str(caught.value) == (f"No backbone '{received}'. Did you mean '{suggested}'? `tlfeat backbones` lists all.")


def test_find_names_the_listing_where_nothing_is_near() -> None:
    with pytest.raises(UsageError, match=r"^No backbone 'zzzz'\. (?!Did).*`tlfeat backbones` lists all\.$"):
        find("zzzz")


@pytest.fixture(scope="module")
def verify() -> ModuleType:
    """``tools/verify_catalog.py`` as a module."""
    return script("tools/verify_catalog.py")


@pytest.mark.keras
def test_every_keras_model_with_hosted_weights_is_in_the_table(verify: ModuleType) -> None:
    assert verify.missing_entries() == []


@pytest.mark.keras
def test_a_model_new_in_keras_is_noticed(verify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def BrandNew(include_top: bool = True, weights: str = "imagenet") -> None: ...

    monkeypatch.setattr(keras.applications, "BrandNew", BrandNew, raising=False)
    assert verify.missing_entries() == ["only in Keras: BrandNew {}"]


@pytest.mark.keras
@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b.name)
def test_preprocessing_input_size_and_paper_are_those_of_keras(verify: ModuleType, backbone: Backbone) -> None:
    assert verify.quick_differences(backbone) == []


@pytest.mark.sample("mobilenet_0.25", "mobilenet_v3_small_minimalistic", "resnet50_v2", "efficientnet_b0")
@pytest.mark.keras
@pytest.mark.parametrize("name", SAMPLE)
def test_weights_and_shape_are_those_of_keras(verify: ModuleType, name: str) -> None:
    assert verify.built_differences(find(name)) == []


@pytest.mark.keras
def test_wrong_entries_are_noticed(verify: ModuleType) -> None:
    wrong = replace(
        find("mobilenet_0.25"),
        input_size=(160, 160),  # Keras then asks for other weights
        preprocess="torch",
        width=255,
        pooled_layer="conv_pw_13_bn",
        parameters=1,
        paper="Howard et al.: MobileNets. 2017, arXiv:1704.04862",
    )
    differing = [d.split(":")[0] for d in verify.quick_differences(wrong) + verify.built_differences(wrong)]
    assert differing == [
        "preprocess",
        "input_size",
        "paper",
        "width",
        "parameters",
        "pooled_layer",
        "weights",
        "multiply_adds",
    ]


@pytest.mark.keras
def test_wrong_figures_are_noticed(verify: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    known = find("mobilenet_v3_small_minimalistic")
    wrong = replace(verify.FIGURES[known.name], multiply_adds=50_674_625, top1=61.8)
    monkeypatch.setitem(verify.FIGURES, known.name, wrong)
    assert verify.quick_differences(known) == ["top1: table 61.8, Keras' docstring 61.9"]
    assert verify.built_differences(known) == ["multiply_adds: table 50674625, Keras 50674624"]
