"""A backbone with the BatchNorm statistics of a domain is another encoder, kept as a file, with rows of its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlfeat
from conftest import MakePhotos, picture
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import DataError, FingerprintError, UsageError, WeightsError
from tlfeat.extract import adapted as adapted_module
from tlfeat.extract.adapted import Adapted, adapt_network, open_adapted
from tlfeat.extract.plan import plan_extraction

pytestmark = pytest.mark.keras


@pytest.fixture(autouse=True)
def _eight_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapted_module, "MIN_IMAGES", 8)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Nine small pictures, by name; "twin" is a copy of one."""
    found = {}
    for i in range(9):
        found[f"p{i}"] = tmp_path / f"p{i}.png"
        picture(50 + i).save(found[f"p{i}"])
    found["twin"] = tmp_path / "twin.png"
    found["twin"].write_bytes(found["p3"].read_bytes())
    return found


def spec_of(small_network: Path) -> BackboneSpec:
    return BackboneSpec(str(small_network), preprocess="tf")


def no_network(*_: object, **__: object) -> Any:
    raise AssertionError("the network was built again")


def test_the_same_images_in_any_order_are_the_same_network_and_are_measured_once(
    small_network: Path, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(adapted_module, "MAX_IMAGES", 8)  # which of them does not depend on the order either
    first = adapt_network(spec_of(small_network), pictures, domain="dusk")
    names = [name for name in pictures if name != "twin"]
    random.Random(2).shuffle(names)
    shuffled = {name: pictures[name] for name in names}
    again = adapt_network(spec_of(small_network), shuffled, domain="dusk", folder=tmp_path / "elsewhere")
    assert again.made_of == first.made_of
    assert Path(again.spec.backbone).read_bytes() == Path(first.spec.backbone).read_bytes()
    assert first.made_of["n_images"] == 8
    assert not first.is_reused
    with monkeypatch.context() as patch:
        patch.setattr(adapted_module, "build_base", no_network)
        known = adapt_network(spec_of(small_network), shuffled, domain="dusk")
    assert known == Adapted(first.spec, first.made_of, [], is_reused=True)
    assert first.made_of["what"] == "BatchNorm statistics of dusk"
    Path(first.spec.backbone).write_bytes(b"cut off")
    assert not adapt_network(spec_of(small_network), pictures, domain="dusk").is_reused


def test_unreadable_images_are_passed_over_and_listed_each_time(
    small_network: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(pictures["p1"].read_bytes()[:40])
    bad = {"bad": tmp_path / "bad.png", "gone": tmp_path / "gone.png"}
    clean = adapt_network(spec_of(small_network), pictures)
    for is_reused in (False, True):
        found = adapt_network(spec_of(small_network), {**bad, **pictures})
        assert found.is_reused == is_reused
        assert {name for name, _ in found.failures} == {"bad", "gone"}
        assert found.made_of == clean.made_of | {"what": "BatchNorm statistics of other images"}


def test_too_few_images_and_a_network_without_batch_norm_are_a_line_each(
    small_network: Path, pictures: dict[str, Path]
) -> None:
    few = {name: pictures[name] for name in [*pictures][:7]}
    with pytest.raises(DataError, match="the domain fog take 8 different images at least, received 7"):
        adapt_network(spec_of(small_network), few, domain="fog")
    layers = import_keras().layers
    plain = import_keras().Sequential([layers.Input((9, 9, 3)), layers.Conv2D(2, 3), layers.LayerNormalization()])
    plain.save("plain.keras")
    with pytest.raises(WeightsError, match="no BatchNorm layer"):
        adapt_network(BackboneSpec("plain.keras", preprocess="tf"), few)  # said before anything is decoded
    with pytest.raises(UsageError, match="above 0 and at most 1, received 0"):
        adapt_network(spec_of(small_network), pictures, weight=0)


@pytest.fixture
def cache(small_network: Path, make_photos: MakePhotos) -> Path:
    return (
        plan_extraction(make_photos(n=6), backbone=str(small_network), preprocess="tf", runtime="tensorflow")
        .run()
        .cache
    )


def open_dog(opened: Cache, **options: Any) -> Any:
    """The dogs and three cats are measured; the dogs and another cat get rows."""
    dogs = [i for i, label in enumerate(opened.table.images.labels) if label == "dog"]
    return open_adapted(opened, [*dogs, 1, 2, 3], [*dogs, 0], domain="dog", runtime="tensorflow", **options)


def test_rows_of_a_domain_lie_in_a_cache_of_their_own_with_another_fingerprint(cache: Path) -> None:
    with open_cache(cache) as opened, open_dog(opened, weight=0.9) as rows:
        table = rows.table
        assert sorted(table.images.labels) == ["cat", *["dog"] * 6]
        assert set(table.keys) <= set(opened.table.keys)
        changed = [name for name in rows.fingerprint if rows.fingerprint[name] != opened.fingerprint[name]]
        assert changed == ["weights"]
        made_of = rows.source["encoder"]["adapted"]
        assert (made_of["domain"], made_of["n_images"], made_of["weight"]) == ("dog", 9, 0.9)
        assert made_of["base"]["digest"] == opened.fingerprint["weights"]
        assert made_of["weights"] == rows.fingerprint["weights"]
        before = opened.read("avg_pool", table.keys)
        after = rows.read("avg_pool", table.keys)
        assert np.abs(after - before).max() > 0.1
        with pytest.raises(FingerprintError):
            open_cache(rows.path, fingerprint=opened.fingerprint)
        files = [table.images.file(i) for i in range(len(table.keys))]
        network, path = rows.source["encoder"]["backbone"], rows.path
    plain = tlfeat.embed(files, network, preprocess="tf", runtime="tensorflow")
    np.testing.assert_array_equal(plain, after)
    assert path.parent.name == "adabn"
    assert json.loads(Path(network).with_suffix(".json").read_text())["failed"] == {}


def test_a_changed_image_is_said_and_a_second_call_embeds_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cache(cache) as opened:
        file = opened.table.images.file(0)
        content = file.read_bytes()
        picture(77).save(file)
        with pytest.raises(DataError, match=r"cat.0\.png has changed or gone.*same tlfeat extract"), open_dog(opened):
            pass
        file.write_bytes(content)
        with open_dog(opened):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(adapted_module, "build_base", no_network)
            patch.setattr("tlfeat.backbones.keras_encoder.build_base", no_network)
            with open_dog(opened) as rows:
                assert rows.n_rows("avg_pool") == 8  # seven, and the picture that had changed


def test_rows_of_pixels_have_no_network_to_adapt(make_photos: MakePhotos) -> None:
    report = plan_extraction(make_photos(n=4), backbone="pixels").run()
    with (
        open_cache(report.cache) as opened,
        pytest.raises(DataError, match="not made by a Keras backbone"),
        open_dog(opened),
    ):
        pass
