"""`embed`: images of any kind in, one array out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlfeat
from conftest import CountingEncoder, MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, FingerprintError, UsageError
from tlfeat.extract.arrays import embed
from tlfeat.extract.encoders import make_encoder
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.types import Pixels, Rows


@pytest.fixture
def files(make_photos: MakePhotos) -> list[Path]:
    return sorted(make_photos(n=4).rglob("*.png"))


@pytest.fixture
def embedder() -> CountingEncoder:
    return CountingEncoder((6, 5), batch_size=3)


class TwoLayers(CountingEncoder):
    layers = ("means", "pixels")

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        return {"means": pixels.mean(axis=(1, 2)).astype(np.float32), **super().encode(pixels)}


def test_rows_are_those_of_extract_in_the_order_of_the_images(
    files: list[Path], embedder: CountingEncoder, tmp_path: Path
) -> None:
    extract_rows(load_images(tmp_path / "photos"), CountingEncoder((6, 5)), tmp_path / "c.h5")
    stored = tlfeat.load(tmp_path / "c.h5")
    order = [files.index(file) for file in stored.files]
    for images in (tmp_path / "photos", files, [Image.open(file) for file in files], [f.read_bytes() for f in files]):
        rows = embed(images, embedder)
        assert rows.dtype == np.float32
        assert rows[order].tobytes() == stored.X.tobytes()
    assert embed(files[::-1], embedder).tobytes() == embed(files, embedder)[::-1].tobytes()


def test_a_picture_that_comes_twice_is_computed_once(files: list[Path], embedder: CountingEncoder) -> None:
    rows = embed([files[1], files[0], files[1]], embedder)
    assert embedder.n_encoded == 2
    assert rows.tobytes() == embed([files[1], files[0]], embedder)[[0, 1, 0]].tobytes()


def test_several_layers_stand_side_by_side() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    rows = embed(pixels, TwoLayers())
    assert rows.shape == (4, 3 + 192)
    assert rows[:, 3:].tobytes() == embed(pixels, CountingEncoder()).tobytes()
    assert embed(pixels, TwoLayers(), cache="two.h5").tobytes() == rows.tobytes()


def test_with_a_cache_only_what_is_new_is_computed_in_whatever_form_it_comes(
    files: list[Path], embedder: CountingEncoder
) -> None:
    live = embed(files, embedder)
    embedder.n_encoded = 0
    first = embed(files[:3], embedder, cache="kept/c.h5")
    second = embed([f.read_bytes() for f in [files[7], *files[:3], files[7]]], embedder, cache=Path("kept/c.h5"))
    assert embedder.n_encoded == 4
    assert first.tobytes() == live[:3].tobytes() and second.tobytes() == live[[7, 0, 1, 2, 7]].tobytes()
    arrays = np.zeros((1, 4, 4, 3), np.uint8)
    for _ in range(2):
        embed(arrays, embedder, cache="kept/c.h5")
    assert embedder.n_encoded == 5
    with open_cache(Path("kept/c.h5")) as cache:
        assert cache.verify() == [] and cache.describe()["images"]["status"] == {}


def test_a_cache_of_extract_serves_and_stays_what_it_is(files: list[Path], embedder: CountingEncoder) -> None:
    extract_rows(load_images(files[0].parents[1]), embedder, "c.h5")
    before = tlfeat.load("c.h5")
    n, expected = embedder.n_encoded, before.X
    new = Image.new("RGB", (9, 9), (10, 200, 30))
    rows = embed([new, *before.files], embedder, cache="c.h5")
    assert embedder.n_encoded == n + 1
    assert rows[1:].tobytes() == expected.tobytes()
    assert tlfeat.load("c.h5").paths.tolist() == before.paths.tolist()
    with pytest.raises(FingerprintError):
        embed(files, CountingEncoder((3, 3)), cache="c.h5")


def test_the_cache_of_true_is_never_the_newest_of_the_commands(files: list[Path], embedder: CountingEncoder) -> None:
    for _ in range(2):
        embed(files, embedder, cache=True)
    assert embedder.n_encoded == 8
    embed(files, CountingEncoder((3, 3)), cache=True)
    assert len(list(Path("cache/embedded").glob("pixels-*.h5"))) == 2
    with pytest.raises(tlfeat.TlfeatError, match="No cache under"):
        tlfeat.load()


def test_an_image_that_cannot_be_decoded_is_named(files: list[Path], embedder: CountingEncoder, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        embed([files[0], tmp_path / "bad.png"], embedder)
    with pytest.raises(DataError, match="image 1: empty file"):
        embed([files[0].read_bytes(), b""], embedder, cache="c.h5")
    for nothing in ([], np.zeros((0, 5, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="no image to embed"):
            embed(nothing, embedder)


def test_a_backbone_is_a_name_a_file_a_spec_or_an_encoder(monkeypatch: pytest.MonkeyPatch, embedder: Any) -> None:
    made: list[tuple[BackboneSpec, list[str], dict[str, Any]]] = []
    monkeypatch.setattr(
        "tlfeat.extract.encoders.KerasEncoder", lambda spec, layers, **o: made.append((spec, layers, o))
    )
    make_encoder("resnet50", ["a", "b:max"], weights="w.h5", preprocess="tf", input_size=(5, 4), runtime="openvino")
    make_encoder(Path("my.keras"), preprocess=lambda x: x / 255)
    make_encoder(BackboneSpec("vgg16"), batch_size=3)
    assert made == [
        (BackboneSpec("resnet50", "w.h5", (5, 4), "tf"), ["a", "b:max"], {"runtime": "openvino"}),
        (BackboneSpec("my.keras", preprocess="0-1"), ["avg_pool"], {}),
        (BackboneSpec("vgg16"), ["avg_pool"], {"batch_size": 3}),
    ]
    assert make_encoder(embedder) is embedder
    assert type(make_encoder("pixels")) is PixelEncoder
    with pytest.raises(UsageError, match="received int"):
        make_encoder(7)
