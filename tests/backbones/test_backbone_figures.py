"""What helps to choose a backbone: figures of every one, ordered by any column, the nearest in size."""

from __future__ import annotations

import pytest

from tlfeat.backbones.catalog import BACKBONES
from tlfeat.backbones.figures import COLUMNS, FIGURES, alike, list_backbones, ordered
from tlfeat.backbones.hub_catalog import HUB_BACKBONES
from tlfeat.errors import UsageError


def test_every_backbone_of_the_catalog_has_figures_with_their_source() -> None:
    assert list(FIGURES) == [backbone.name for backbone in (*BACKBONES, *HUB_BACKBONES)]
    assert all(40 < figures.top1 < 90 and figures.top1_source for figures in FIGURES.values() if figures.top1)
    assert all(FIGURES[backbone.name].top1 for backbone in BACKBONES)
    # counts from the papers: within 3 % of these, which leave small terms out or include the top
    known = {"mobilenet_v2": 300e6, "mobilenet_v2_0.35": 59e6, "vgg16": 15.5e9, "resnet50": 3.86e9, "mobilenet": 569e6}
    known |= {"swin_tiny": 4.2e9, "vit_base_16": 16.9e9, "dinov2_small": 5.5e9}  # without queries times keys
    assert {name: FIGURES[name].multiply_adds for name in known} == pytest.approx(known, rel=0.03)


def test_a_larger_network_of_a_family_computes_more_and_is_no_worse() -> None:
    for family in (
        ["mobilenet_0.25", "mobilenet_0.5", "mobilenet_0.75", "mobilenet"],
        [f"efficientnet_b{i}" for i in range(8)],
    ):
        found = [(FIGURES[name].multiply_adds, FIGURES[name].top1) for name in family]
        assert found == sorted(found)
        assert [top1 for _, top1 in found] == sorted(top1 for _, top1 in found)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_orders_the_list_and_loses_no_entry(column: str) -> None:
    entries = [{**entry, "cpu_ms": 7.5 if entry["name"] == "vgg16" else None} for entry in list_backbones()]
    found = ordered(entries, column)
    assert {entry["name"] for entry in found} == {entry["name"] for entry in entries}
    values = [entry[COLUMNS[column]] for entry in found if entry[COLUMNS[column]] is not None]
    assert values == sorted(values, reverse=column == "top-1")
    assert all(entry[COLUMNS[column]] is None for entry in found[len(values) :])


def test_the_most_accurate_comes_first_and_what_has_no_accuracy_last() -> None:
    found = ordered(list_backbones(), "top-1")
    assert found[0]["name"] == "convnext_xlarge"
    unknown = [entry["name"] for entry in found if entry["top1"] is None]
    assert {"digits_cnn", "siglip_base_16"} < set(unknown)
    assert [entry["name"] for entry in found][-len(unknown) :] == unknown


def test_the_nearest_in_size_begin_with_the_one_that_was_named() -> None:
    names = [entry["name"] for entry in alike(list_backbones(), "resnet50", n_most=4)]
    assert names[:2] == ["resnet50", "resnet50_v2"]
    assert len(names) == 4
    assert "mobilenet_v2" not in names
    assert alike(list_backbones(), "vgg16")[1]["name"] == "vgg19"


def test_unknown_names_and_columns_get_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"No column 'top1'. Did you mean 'top-1'\?"):
        ordered(list_backbones(), "top1")
    with pytest.raises(UsageError, match=r"No backbone 'resnet-50'. Did you mean 'resnet50'\?"):
        alike(list_backbones(), "resnet-50")
