"""What was asked for becomes a job: which options decide, and which are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import MakePhotos
from tlfeat.backbones import catalog
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import create_cache
from tlfeat.errors import UsageError
from tlfeat.extract.encoders import encoder_of
from tlfeat.extract.plan import EncoderOptions, default_cache_path, plan_extraction
from tlfeat.images.load import load_images


def test_every_option_reaches_the_encoder(make_photos: MakePhotos, tmp_path: Path) -> None:
    options: EncoderOptions = {
        "backbone": "mobilenet_v2_0.35",
        "weights": "random",
        "pool": "max",
        "preprocess": "0-1",
        "input_size": (32, 40),
        "resize": "load_img",
        "dtype": "float16",
        "precision": "bfloat16",
        "runtime": "openvino",
        "batch_size": 5,
        "n_threads": 3,
        "seed": 11,
    }
    assert options.keys() == EncoderOptions.__annotations__.keys()
    job = plan_extraction(make_photos(n=3), layers=["out_relu", "avg_pool"], cache=tmp_path / "c.h5", **options)
    encoder = job.encoder
    assert isinstance(encoder, KerasEncoder)
    assert encoder.layers == ("out_relu:max", "avg_pool")
    assert encoder.input_size == (32, 40)
    spec = encoder.spec
    assert (spec.backbone, spec.weights, spec.preprocess, spec.seed) == ("mobilenet_v2_0.35", "random", "0-1", 11)
    assert [encoder.fingerprint[name] for name in ("resize", "dtype")] == ["load_img", "float16"]
    assert (encoder._asked_runtime, encoder.batch_size, encoder.n_threads, job.wanted) == ("openvino", 5, 3, "bfloat16")
    assert job.cache_path == tmp_path / "c.h5"
    assert job.origin == {"encoder": spec.to_dict(), "class_map": []}
    assert any("RANDOM WEIGHTS" in note for note in job.notes)


def test_an_option_that_does_not_exist_is_refused(make_photos: MakePhotos) -> None:
    misspelt: Any = {"backbon": "pixels"}
    with pytest.raises(TypeError, match="no option 'backbon'"):
        plan_extraction(make_photos(n=3), **misspelt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mx"}, "Did you mean 'max'"),
        ({"pool": "gem"}, "Name the layer before it for --pool gem"),
        ({"resize": "antialiased"}, "Did you mean 'antialias'"),
        ({"dtype": "float64"}, "received 'float64'"),
        ({"precision": "int4"}, "No precision 'int4'"),
        ({"precision": "int8", "runtime": "tensorflow"}, "--precision int8 is for OpenVINO"),
        ({"precision": "int8", "backbone": "pixels"}, "for backbones of images; pixels computes in float32"),
        ({"precision": "auto", "shard": "1/3"}, "All shards get one precision"),
        ({"precision": "bfloat16", "is_dealt": True}, "--ray embeds in float32.*--shard K/N --precision bfloat16"),
        ({"backbone": "pixels", "layers": ["conv"]}, "one layer, 'pixels'; received conv"),
        ({"backbone": "pixels", "input_size": (9, 9)}, "always 16x16"),
    ],
    ids=[
        "pool",
        "pool-of-a-vector",
        "resize",
        "dtype",
        "precision",
        "precision-of-tensorflow",
        "precision-of-pixels",
        "auto-of-a-shard",
        "precision-on-a-cluster",
        "layer-of-pixels",
        "size-of-pixels",
    ],
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, Any], message: str, make_photos: MakePhotos) -> None:
    with pytest.raises(UsageError, match=message):
        plan_extraction(make_photos(n=3), **options)


def test_a_named_cache_says_what_is_left_open(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"
    first = plan_extraction(make_photos(n=3), backbone="pixels", class_map=["dog=cat"], cache=cache)
    first.run()
    again = plan_extraction(backbone="pixels", cache=cache)
    assert again.images.paths == first.images.paths
    assert again.images.classes == ["cat"]
    assert again.encoder.fingerprint == first.encoder.fingerprint


def test_a_named_cache_of_a_network_gives_the_same_encoder_again(make_photos: MakePhotos, tmp_path: Path) -> None:
    job = plan_extraction(
        make_photos(n=3),
        backbone="mobilenet_v2_0.35",
        weights="random",
        preprocess="0-1",
        input_size=(32, 40),
        resize="load_img",
        dtype="float16",
        seed=11,
        cache=tmp_path / "c.h5",
    )
    source = {**job.origin, "root": str(job.images.root), "source": str(job.images.source)}
    create_cache(job.cache_path, job.encoder.fingerprint, source).close()
    again = plan_extraction(cache=job.cache_path)
    assert again.encoder.fingerprint == job.encoder.fingerprint
    assert again.origin == job.origin


def test_pictures_are_resized_the_networks_own_way_unless_another_is_asked_for(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(catalog.find("mobilenet_v2_0.35"), resize="crop")
    monkeypatch.setitem(catalog._BY_NAME, own.name, own)
    photos, options = make_photos(n=3), {"backbone": own.name, "weights": "random", "cache": tmp_path / "c.h5"}
    ways = [plan_extraction(photos, **options, resize=way).encoder.fingerprint["resize"] for way in (None, "load_img")]
    assert ways == ["crop", "load_img"]
    assert KerasEncoder(BackboneSpec(own.name), ["avg_pool"]).resize == "crop"
    assert KerasEncoder(BackboneSpec("mobilenet_v2"), ["avg_pool"]).resize == "antialias"
    assert KerasEncoder(BackboneSpec("my.keras", preprocess="tf"), ["avg_pool"]).resize == "antialias"


def test_a_cache_goes_on_with_its_way_of_resizing_and_so_do_new_images(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(catalog.find("mobilenet_v2_0.35"), resize="crop")
    monkeypatch.setitem(catalog._BY_NAME, own.name, own)
    job = plan_extraction(make_photos(n=3), backbone="mobilenet_v2_0.35", weights="random", resize="crop-full")
    source = {**job.origin, "root": str(job.images.root), "source": str(job.images.source)}
    with create_cache(tmp_path / "c.h5", job.encoder.fingerprint, source) as cache:
        assert encoder_of(cache, "avg_pool").resize == "crop-full"
    assert plan_extraction(cache=tmp_path / "c.h5").encoder.fingerprint["resize"] == "crop-full"


def test_names_that_differ_in_case_only_get_caches_that_differ_in_more(make_photos: MakePhotos) -> None:
    """A file system of Windows or macOS takes ``A`` and ``a`` for one name."""
    names = set()
    for folder in ("data/Photos", "data/photos", "Data/photos"):
        images = load_images(make_photos(n=1, folder=folder))
        names |= {default_cache_path(images, encoder, {"n": 1}).name.casefold() for encoder in ("Net", "net")}
        names |= {default_cache_path(images, "net", {"weights": weights}).name.casefold() for weights in ("W", "w")}
    assert len(names) == 9  # the name of an encoder says nothing that its fingerprint does not


def test_a_model_in_memory_makes_no_cache_and_its_file_may_be_a_path(make_photos: MakePhotos) -> None:
    photos = make_photos(n=2)
    with pytest.raises(UsageError, match=r"received object\. Save a Keras model"):
        plan_extraction(photos, backbone=object())  # type: ignore[typeddict-item]
    with pytest.raises(UsageError, match=r"gone\.keras is your own model: say how its pixels are scaled"):
        plan_extraction(photos, backbone=Path("gone.keras"))  # type: ignore[typeddict-item]
