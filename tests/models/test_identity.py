"""What makes rows, models and draws others: whatever differs, nothing that was made without it is taken for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import MakePhotos, picture
from tlfeat import workspace
from tlfeat.backbones import keras_encoder as backbone
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import FingerprintError
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import Split, draw_per_class
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.saved import model_folder
from tlfeat.studies import trials
from tlfeat.studies.curve import learning_curve
from tlfeat.types import Labels

FINGERPRINT = {"backbone", "weights", "input_size", "preprocess", "resize", "dtype"}


def encoder_of(
    name: str = "mobilenet_v2",
    size: tuple[int, int] = (96, 80),
    preprocess: str = "tf",
    seed: int = 1,
    **options: Any,
) -> KerasEncoder:
    return KerasEncoder(BackboneSpec(name, "random", size, preprocess, seed), ["avg_pool"], **options)


@pytest.fixture(autouse=True)
def _weights_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest without a network: of the name and the seed."""
    monkeypatch.setattr(backbone, "weights_digest", lambda spec: f"{spec.backbone} {spec.seed}")


OTHERS = {
    "backbone": {"name": "mobilenet_v3_small"},
    "weights": {"seed": 2},
    "input_size": {"size": (80, 96)},
    "preprocess": {"preprocess": "caffe"},
    "resize": {"resize": "dataset"},
    "dtype": {"dtype": "float16"},
}


def test_every_field_of_a_fingerprint_has_its_test() -> None:
    assert set(encoder_of().fingerprint) == set(OTHERS) == FINGERPRINT
    assert set(PixelEncoder().fingerprint) == FINGERPRINT


@pytest.mark.parametrize("field", OTHERS)
def test_an_encoder_that_differs_in_one_thing_has_another_fingerprint_and_is_refused_by_the_cache(
    field: str, tmp_path: Path
) -> None:
    one, other = encoder_of(), encoder_of(**OTHERS[field])
    expected = {field, "weights"} if field == "backbone" else {field}
    assert {name for name in FINGERPRINT if one.fingerprint[name] != other.fingerprint[name]} == expected
    create_cache(tmp_path / "c.h5", one.fingerprint, {}).close()
    open_cache(tmp_path / "c.h5", fingerprint=encoder_of().fingerprint).close()
    with pytest.raises(FingerprintError, match=f"{field}: the cache has "):
        open_cache(tmp_path / "c.h5", fingerprint=other.fingerprint)


def test_what_changes_no_row_is_in_no_fingerprint() -> None:
    other = encoder_of(runtime="tensorflow", batch_size=7, n_threads=3, networks_dir=Path("elsewhere"))
    assert other.fingerprint == encoder_of().fingerprint


def test_two_encoders_of_other_rows_never_share_a_converted_network() -> None:
    files = {encoder_of(**options).network_file for name, options in OTHERS.items() if name != "dtype"}
    assert len(files | {encoder_of().network_file}) == len(OTHERS)
    assert encoder_of(dtype="float16").network_file == encoder_of().network_file


def test_a_model_fitted_on_rows_of_another_encoder_is_not_reused(make_photos: MakePhotos) -> None:
    photos, path = make_photos(n=10), Path("c.h5")
    models = []
    for size in ((8, 8), (9, 9), (8, 8)):
        path.unlink(missing_ok=True)
        extract_rows(load_images(photos), PixelEncoder(size), path)
        with open_data(path, seed=0) as data:
            outcome = fit_sklearn(data, "lda", is_searched=False)
        models.append((outcome.result.model, outcome.is_reused))
    (one, first), (other, second), (again, third) = models
    assert (first, second, third) == (False, False, True)
    assert one == again != other


@pytest.mark.parametrize("changed", ["settings", "fingerprint", "split"])
def test_whatever_changes_a_model_changes_its_folder(changed: str, make_photos: MakePhotos) -> None:
    path = extract_rows(load_images(make_photos(n=10)), PixelEncoder(), Path("c.h5")).cache
    with open_data(path, seed=0) as data, open_data(path, seed=1) as other:
        same: tuple[Any, ...] = (data, "svm", {"layer": "avg_pool", "a": 1}, {"b": 2})
        others = {
            "settings": (data, "svm", {"layer": "avg_pool", "a": 2}, {"b": 2}),
            "fingerprint": (data, "svm", {"layer": "avg_pool", "a": 1}, {"b": 3}),
            "split": (other, "svm", {"layer": "avg_pool", "a": 1}, {"b": 2}),
        }
        assert model_folder(*same) == model_folder(*same)
        assert model_folder(*same) != model_folder(*others[changed])


# --- the draws of a learning curve ------------------------------------------------------------------------------


def test_draws_by_another_rule_are_not_those_that_were_kept(
    make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed, split and count say which images are drawn only as long as nothing about drawing changes."""
    path = extract_rows(load_images(make_photos(n=12)), PixelEncoder(), Path("c.h5")).cache

    def n_reused() -> int:
        with open_data(path, seed=0) as data:
            return learning_curve(data, heads=("lda",), counts=(1, 0), n_draws=2, has_pixels=False).n_reused

    def differently(split: Split, positions: Labels, n_per_class: int, *, seed: int, draw: int) -> Labels:
        return draw_per_class(split, positions, n_per_class, seed=seed + 1000, draw=draw)

    assert [n_reused(), n_reused()] == [0, 3]
    monkeypatch.setattr(trials, "draw_per_class", differently)
    assert n_reused() == 1  # all images are all images
    assert len(list((workspace.CACHE_DIR / "curves").rglob("*.json"))) == 5


def test_draws_from_rows_of_another_encoder_are_not_those_that_were_kept(make_photos: MakePhotos) -> None:
    photos, path = make_photos(n=12), Path("c.h5")
    found = []
    for size in ((8, 8), (9, 9), (8, 8)):
        path.unlink(missing_ok=True)
        extract_rows(load_images(photos), PixelEncoder(size), path)
        with open_data(path, seed=0) as data:
            found.append(learning_curve(data, heads=("lda",), counts=(1, 0), n_draws=1, has_pixels=False).n_reused)
    assert found == [0, 0, 2]
    picture(5).save(photos / "cat" / "new.png")
    extract_rows(load_images(photos), PixelEncoder((8, 8)), path)
    with open_data(path, seed=0) as data:
        assert learning_curve(data, heads=("lda",), counts=(1, 0), n_draws=1, has_pixels=False).n_reused == 0
