"""Vision transformers: rows equal their originals', and a folder of weights that does not fit is said to be one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import script, skip_without
from tlfeat.backbones import hub, hub_fetch
from tlfeat.backbones.hub_catalog import FAMILIES, HUB_BACKBONES
from tlfeat.errors import UsageError, WeightsError

skip_without("keras_hub", reason="KerasHub is not installed: pip install 'tlfeat[hub]'")

ORIGINALS = Path(__file__).parent / "originals"

#: The largest difference over the largest value; 1e-4 is promised.
CLOSE = 5e-6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weights that may be spoilt: a tiny DINOv2 with registers."""
    return copied("dinov2_with_registers_small", tmp_path)


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ORIGINALS / name, tmp_path / name))


def changed(folder: Path, **values: Any) -> Path:
    """Say something else in config.json; what is None is left out."""
    config = {**json.loads((folder / "config.json").read_text()), **values}
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    return folder


def tensors_of(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


def saved(folder: Path, tensors: dict[str, Any]) -> Path:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "model.safetensors")
    return folder


def build(folder: Path, backbone: str = "dinov2", size: tuple[int, int] = (48, 48)) -> Any:
    from tlfeat.backbones.network import BackboneSpec, build_base

    return build_base(BackboneSpec(backbone, str(folder), size), size)


def plan(folder: Path | str, backbone: str, data: Path, **options: Any) -> Any:
    from tlfeat.extract.plan import plan_extraction

    return plan_extraction(data, backbone=backbone, weights=str(folder), **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("plain", "dotted", "plain")):
        (root / name).mkdir(exist_ok=True)
        shutil.copy(ORIGINALS / "vit_base_16" / f"picture_{number}", root / name / f"{number}.png")
    return root


@pytest.mark.sample("dinov3_small", "siglip_base_16", "dinov2_with_registers_small", "clip_base_32")
@pytest.mark.keras
@pytest.mark.parametrize("name", sorted(path.name for path in ORIGINALS.iterdir()))
def test_all_tokens_of_every_block_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    reference = script("benchmarks/encoders_reference.py")
    found = reference.differences(copied(name, tmp_path), "openvino", reference.family_of(name))
    assert {"blocks", "norm", "pooled"} <= found.keys()
    assert max(found.values()) < CLOSE, found


@pytest.mark.keras
def test_positions_of_another_size_are_interpolated_as_pytorch_does_it(tmp_path: Path) -> None:
    # the originals of test_all_tokens... run at another size than that of their weights; with Keras' kernel they differ
    from tlfeat.backbones.position_tables import interpolate

    random = np.random.default_rng(3)
    table = random.normal(size=(1, 26, 4)).astype(np.float32)
    wider = interpolate(table, (1, 37, 4))
    assert wider.shape == (1, 37, 4)
    np.testing.assert_array_equal(wider[0, 0], table[0, 0])
    np.testing.assert_allclose(interpolate(np.ones((26, 2), np.float32), (10, 2)), 1, rtol=1e-6)
    smooth, sharp = (interpolate(table, (1, 10, 4), antialias=antialias) for antialias in (True, False))
    assert np.abs(smooth[0, 1:]).max() < np.abs(sharp[0, 1:]).max()


@pytest.mark.keras
def test_registers_and_cls_count_in_no_average_of_patches() -> None:
    from tlfeat.backbones.frameworks import import_keras
    from tlfeat.backbones.graph import embedding_output
    from tlfeat.backbones.network import BackboneSpec

    name = "dinov2_with_registers_small"
    base = build(ORIGINALS / name)
    spec = BackboneSpec("dinov2", str(ORIGINALS / name), (48, 48))
    pools = ["norm:flatten", "norm:cls", "norm", "norm:cls+avg", "norm:max", "avg_pool"]
    model = import_keras().Model(base.input, [embedding_output(base, spec, pool) for pool in pools])
    pixels = np.random.default_rng(5).normal(size=(2, 48, 48, 3)).astype(np.float32)
    flat, cls, average, both, most, pooled = (np.asarray(rows) for rows in model(pixels))
    tokens = flat.reshape(2, 1 + 3 + 36, 24)
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(cls, tokens[:, 0], **close)
    np.testing.assert_allclose(average, tokens[:, 4:].mean(axis=1), **close)
    np.testing.assert_allclose(most, tokens[:, 4:].max(axis=1), **close)
    np.testing.assert_allclose(both, np.hstack([cls, average]), **close)
    np.testing.assert_allclose(pooled, both, **close)
    assert np.abs(average - tokens[:, 1:].mean(axis=1)).max() > 1e-3


def test_a_layer_goes_by_its_familys_pooling_where_nothing_is_said(pictures: Path, tmp_path: Path) -> None:
    layers = ["avg_pool", "block_1", "block_2:avg", "block_2:cls"]
    dino = plan(ORIGINALS / "dinov2_small", "dinov2", pictures, layers=layers, cache=tmp_path / "a.h5")
    assert dino.encoder.layers == ("avg_pool", "block_1:cls+avg", "block_2:avg", "block_2:cls")
    clip = plan(ORIGINALS / "clip_base_32", "clip", pictures, layers=layers, cache=tmp_path / "b.h5")
    assert clip.encoder.layers == ("avg_pool", "block_1:cls", "block_2:avg", "block_2:cls")
    maximum = plan(ORIGINALS / "swin_tiny", "swin", pictures, layers=["block_1"], pool="max", cache=tmp_path / "c.h5")
    assert maximum.encoder.layers == ("block_1:max",)


@pytest.mark.keras
def test_more_than_ten_layers_keep_their_order(tmp_path: Path) -> None:
    # by the names of TensorFlow "Identity_10" comes before "Identity_2"
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec
    from tlfeat.backbones.runtime import TensorFlowRuntime

    spec = BackboneSpec("dinov2", str(ORIGINALS / "dinov2_small"), (48, 48))
    pools = ("cls", "avg", "max", "gem", "cls+avg", "flatten")
    layers = [f"{layer}:{pool}" for pool in pools for layer in ("block_1", "norm")]
    pixels = np.random.default_rng(2).integers(0, 256, (3, 48, 48, 3)).astype(np.uint8)
    encoder = KerasEncoder(spec, layers, runtime="openvino", networks_dir=tmp_path)
    rows = encoder.encode(pixels)
    assert [rows[layer].shape[1] for layer in layers] == [24, 24] * 4 + [48, 48, 37 * 24, 37 * 24]
    expected = TensorFlowRuntime(encoder._forward, layers, len(pixels))(pixels)
    for layer in layers:
        np.testing.assert_allclose(rows[layer], expected[layer], rtol=1e-3, atol=1e-4)


@pytest.mark.keras
def test_a_sweep_goes_through_the_blocks(pictures: Path, tmp_path: Path) -> None:
    from tlfeat.extract.plan import plan_extraction
    from tlfeat.studies.sweep import plan_sweep

    options: dict[str, Any] = {"backbone": "vit", "weights": str(ORIGINALS / "vit_base_16"), "cache": tmp_path / "a.h5"}
    job = plan_sweep(pictures, **options)
    assert [*job.cuts][1:] == ["block_1:cls", "avg_pool"]
    shares = [cut.compute_share for cut in job.cuts.values()]
    assert shares[2] == 1
    assert shares[2] - shares[1] == pytest.approx(shares[1] - shares[0])  # blocks are alike
    both = plan_sweep(pictures, pools=["cls", "avg"], **options)
    assert {"block_1:cls", "block_1:avg", "avg_pool", "norm:avg"} <= both.cuts.keys()
    assert {*both.cuts} == {*both.extraction.encoder.layers}
    again = plan_extraction(pictures, layers=[*both.cuts], **options)  # a name means the same wherever it is given
    assert again.encoder.layers == both.extraction.encoder.layers


def test_the_table_has_each_network_once() -> None:
    names = [row.name for row in HUB_BACKBONES]
    assert len({*names, *FAMILIES}) == len(names) + len(FAMILIES)
    assert len({row.hugging_face for row in HUB_BACKBONES}) == len(names)
    assert len({row.preset for row in HUB_BACKBONES}) == len(names)


# What is wrong with a folder of weights


SPOILT: dict[str, tuple[Any, str]] = {
    "no folder": (shutil.rmtree, "does not exist"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "it is no JSON"),
    "no model_type": (lambda folder: changed(folder, model_type=None), "names neither a model_type"),
    "a class that is not in the table": (
        lambda folder: changed(folder, model_type="evil"),
        "Known are: dinov2, dinov3",
    ),
    "another family": (lambda folder: changed(folder, model_type="vit"), "is a vit, no DINOv2. Use --backbone vit."),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
    "a number that is none": (lambda folder: changed(folder, hidden_size="48"), "hidden_dim is '48'"),
    "too large": (lambda folder: changed(folder, num_hidden_layers=10**6), "num_layers is '1000000'"),
    "more weights than there are": (
        lambda folder: changed(folder, hidden_size=8192),
        "wants more weights than the file has",
    ),
    "what KerasHub does not build": (lambda folder: changed(folder, hidden_act="relu"), "hidden_act 'relu'"),
    "numbers that do not go together": (lambda folder: changed(folder, num_attention_heads=5), "."),
    "no size": (lambda folder: changed(folder, image_size="big"), "no input size"),
}


@pytest.mark.keras
@pytest.mark.parametrize("what", SPOILT)
def test_a_folder_that_says_nonsense_is_refused(what: str, folder: Path) -> None:
    spoil, why = SPOILT[what]
    spoil(folder)
    with pytest.raises(WeightsError) as raised:
        build(folder)
    assert why in str(raised.value)


def without(name: str) -> Any:
    return lambda tensors: {key: array for key, array in tensors.items() if key != name}


TENSORS: dict[str, tuple[Any, str]] = {
    "missing": (without("encoder.layer.1.norm2.bias"), "lacks the tensor encoder.layer.1.norm2.bias"),
    "too many": (lambda tensors: {**tensors, "encoder.layer.2.norm1.bias": np.ones(24, np.float32)}, "has 1 tensors"),
    "another shape": (
        lambda tensors: {**tensors, "layernorm.weight": np.ones(23, np.float32)},
        "its layernorm.weight is 23",
    ),
    "another width": (
        lambda tensors: {**tensors, "encoder.layer.0.mlp.fc1.weight": np.ones((96, 12), np.float32)},
        "fc1.weight is 96x12",
    ),
}


@pytest.mark.keras
@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_do_not_fit_are_named(what: str, folder: Path) -> None:
    spoil, why = TENSORS[what]
    saved(folder, spoil(tensors_of(folder)))
    with pytest.raises(WeightsError) as raised:
        build(folder)
    assert why in str(raised.value)


@pytest.mark.sample("siglip_base_16-head.attention.in_proj_weight-shape0")
@pytest.mark.keras
@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("siglip_base_16", "head.attention.in_proj_weight", (71, 24)),  # three in one, which are taken apart
        ("swin_tiny", "encoder.layers.0.blocks.1.attention.self.query.weight", (11, 12)),  # three that are put together
    ],
)
def test_tensors_that_are_put_together_and_do_not_fit_are_said_to(
    name: str, tensor: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)
    tensors = tensors_of(folder)
    (held,) = [key for key in tensors if key.endswith(tensor)]
    saved(folder, {**tensors, held: np.ones(shape, np.float32)})
    with pytest.raises(WeightsError, match=r"does not fit its config\.json"):
        build(folder, name.partition("_")[0], (32, 32))


@pytest.mark.sample("0", "500")
@pytest.mark.keras
@pytest.mark.parametrize("n_left", [0, 5, 500, 60_000])
def test_truncated_weights_are_damaged(n_left: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_left])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged or no safetensors file"):
        build(folder)


@pytest.mark.sample("bfloat16-0.03")
@pytest.mark.keras
@pytest.mark.parametrize(("kind", "close"), [("float16", 3e-3), ("bfloat16", 3e-2)])
def test_weights_of_half_precision_are_read(kind: str, close: float, folder: Path) -> None:
    import ml_dtypes

    pixels = np.random.default_rng(4).normal(size=(1, 48, 48, 3)).astype(np.float32)
    exact = np.asarray(build(folder)(pixels))
    half = getattr(ml_dtypes, kind, np.float16)
    saved(folder, {name: array.astype(half) for name, array in tensors_of(folder).items()})
    difference = np.abs(np.asarray(build(folder)(pixels)) - exact).max()
    assert 0 < difference < close


@pytest.mark.keras
def test_a_pickle_is_never_read(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + bytes(trap) + b"'\ntR.")
    build(folder)  # beside safetensors it is left alone
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin alone, a pickle, which can run code"):
        build(folder)
    assert not trap.exists()


@pytest.mark.keras
def test_a_folder_of_several_weights_files_is_read(folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = tensors_of(folder)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = build(folder).get_weights()
    (folder / "model.safetensors").unlink()
    for one, other in zip(whole, build(folder).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    outside = {"weight_map": dict.fromkeys(names, "../model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(outside))
    with pytest.raises(WeightsError, match="does not say in which files"):
        build(folder)


@pytest.mark.keras
def test_a_keras_preset_gives_the_same_network(folder: Path, tmp_path: Path) -> None:
    import keras_hub

    from tlfeat.backbones.frameworks import import_keras

    import_keras()
    size = (40, 40)
    preset = tmp_path / "preset"
    keras_hub.models.DINOV2Backbone.from_preset(str(folder)).save_to_preset(str(preset))
    pixels = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    rows = [np.asarray(build(each, size=size)(pixels)) for each in (folder, preset)]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-5, atol=1e-6)
    import h5py

    with h5py.File(preset / "model.weights.h5", "a") as file:
        del file["layers/dinov2_encoder/layers/dinov2_layer_1"]
    with pytest.raises(WeightsError, match=r"does not fit its config\.json"):
        build(preset, size=size)


@pytest.mark.sample("clip")
@pytest.mark.keras
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_vision_tower_of_a_keras_preset_is_taken_out(family: str, tmp_path: Path) -> None:
    import keras_hub

    from tlfeat.backbones.frameworks import import_keras

    keras = import_keras()
    models = keras_hub.models
    name, image = {"clip": ("CLIP", (32, 32, 3)), "siglip": ("SigLIP", (32, 32, 3))}[family]
    vision = getattr(models, f"{name}VisionEncoder")(8, 24, 2, 2, 48, image_shape=image)
    arguments: dict[str, Any] = {"vocabulary_size": 50, "embedding_dim": 24, "hidden_dim": 24, "num_layers": 1}
    arguments |= {"num_heads": 2, "intermediate_dim": 48, "max_sequence_length": 8}
    if family == "siglip":
        arguments["projection_dim"] = 24
    text = getattr(models, f"{name}TextEncoder")(**arguments)
    more = {"projection_dim": 24} if family == "clip" else {}
    whole = getattr(models, f"{name}Backbone")(vision, text, **more)
    if family == "clip":
        vision.embedding.position_ids.assign(np.arange(17)[None])
    whole.save_to_preset(str(tmp_path / "preset"))
    pixels = np.random.default_rng(1).normal(size=(2, *image)).astype(np.float32)
    expected = np.asarray(vision({"images": pixels}))
    got = np.asarray(build(tmp_path / "preset", family, (32, 32))(pixels))
    np.testing.assert_allclose(got, expected[:, 0] if family == "clip" else expected, rtol=1e-4, atol=1e-5)
    assert keras.backend.backend() == "tensorflow"


# What is wrong with a command


def test_a_row_of_another_size_is_named(folder: Path, pictures: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit dinov2_small: hidden_dim 24 where dinov2_small has 384"):
        plan(folder, "dinov2_small", pictures)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"input_size": (50, 50)}, r"multiples of 8 pixels, received 50x50. Use --input-size 48x48"),
        ({"input_size": (48, 64)}, r"takes square pictures"),
        ({"layers": ["block_3"]}, r"No layer 'block_3' in dinov2. Did you mean 'block_2'"),
        ({"layers": ["block_1"], "pool": "cls+average"}, r"No pooling 'cls\+average'"),
    ],
)
def test_what_a_transformer_cannot_do_is_said_before_it_is_built(
    options: dict[str, Any], why: str, folder: Path, pictures: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        plan(folder, "dinov2", pictures, **{"input_size": (48, 48), **options})


def test_a_cnn_has_no_cls_token(pictures: Path) -> None:
    with pytest.raises(UsageError, match="resnet50 has no CLS token"):
        plan("random", "resnet50", pictures, layers=["conv2_block1_out"], pool="cls")


@pytest.mark.keras
def test_a_network_without_a_cls_token_says_so(pictures: Path, tmp_path: Path) -> None:
    job = plan(ORIGINALS / "siglip_base_16", "siglip", pictures, layers=["norm:cls"], cache=tmp_path / "a.h5")
    with pytest.raises(UsageError, match="has no CLS token"):
        job.run()


def test_a_folder_that_scales_pixels_in_another_way_is_refused(pictures: Path, tmp_path: Path) -> None:
    folder = copied("vit_base_16", tmp_path)
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text())
    plan(folder, "vit", pictures)
    path.write_text(json.dumps({**said, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}))
    with pytest.raises(WeightsError, match="add --preprocess torch"):
        plan(folder, "vit", pictures)
    assert plan(folder, "vit", pictures, preprocess="torch").encoder.fingerprint["preprocess"] == "torch"
    path.write_text(json.dumps({**said, "image_mean": "half", "image_std": 3}))
    with pytest.raises(WeightsError, match="--preprocess tf forces its own"):
        plan(folder, "vit", pictures)


def test_the_digest_changes_with_every_file_that_counts(folder: Path) -> None:
    from tlfeat.backbones.weights_folder import open_folder

    digest = open_folder(folder).digest()
    (folder / "README.md").write_text("about")
    assert open_folder(folder).digest() == digest
    changed(folder, layerscale_value=0.5)
    assert open_folder(folder).digest() != digest


@pytest.mark.parametrize(
    ("backbone", "weights", "why"),
    [
        ("dinov2_small", "imagenet", r"hf download facebook/dinov2-small .* --local-dir dinov2-small; then --weights"),
        ("dinov3_base", "imagenet", r"after accepting its terms"),
        ("dinov2_small", "hf://somebody/else", r"hf download somebody/else"),
        ("dinov2_small", "dinov2_small", r"preset dinov2_small is not on this machine .* Fetch kaggle://keras/dinov2"),
        ("dinov2_small", "dinov2_smal", r"no folder or preset dinov2_smal. Did you mean 'dinov2_small'"),
    ],
)
def test_without_a_network_it_is_said_what_to_fetch(
    backbone: str, weights: str, why: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub, kaggle = pytest.importorskip("huggingface_hub"), pytest.importorskip("kagglehub")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    monkeypatch.setattr(kaggle, "model_download", unreachable)
    with pytest.raises(WeightsError, match=why):
        plan(weights, backbone, pictures)


def test_what_was_fetched_once_is_asked_for_no_more(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[dict[str, Any]] = []

    def fetched(repository: str, **how: Any) -> str:
        asked.append({"repository": repository, **how})
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", fetched)
    job = plan("hf://somebody/tiny", "dinov2", pictures, input_size=(48, 48))
    assert job.encoder.fingerprint["weights"].startswith("sha256:")
    assert job.origin["encoder"]["weights"] == "hf://somebody/tiny"
    assert all(each["local_files_only"] and each["repository"] == "somebody/tiny" for each in asked)
    assert not any("bin" in pattern or "py" in pattern for pattern in asked[0]["allow_patterns"])


def test_a_family_needs_weights(pictures: Path) -> None:
    with pytest.raises(UsageError, match="is a kind of network: say which weights"):
        plan("imagenet", "dinov2", pictures)
    with pytest.raises(UsageError, match="has no size"):
        plan("random", "dinov3", pictures)


def test_a_network_is_planned_without_importing_kerashub(
    pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It brings TensorFlow: ten seconds and a gigabyte, which a network that is converted already does not need."""

    def import_it(part: str = "keras_hub") -> None:
        raise AssertionError(f"{part} was imported")

    for module in (hub, hub_fetch):
        monkeypatch.setattr(module, "import_hub", import_it)
    assert plan("random", "dinov2_small", pictures).encoder.input_size == (224, 224)
    assert plan(folder, "dinov2", pictures, input_size=(48, 48)).encoder.input_size == (48, 48)


@pytest.mark.parametrize("missing", ["keras_hub", "safetensors"])
def test_without_the_extra_one_line_says_how_to_get_it(
    missing: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"^{missing} is needed .* pip install 'tlfeat\[hub\]'\.$"):
        plan(folder, "dinov2", pictures, input_size=(48, 48)).run()


def test_an_old_kerashub_is_told_from_none(pictures: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from tlfeat.backbones import frameworks

    monkeypatch.setattr(frameworks, "distribution_version", lambda name: "0.9.3" if name == "keras-hub" else "")
    with pytest.raises(UsageError, match=r"^KerasHub 0.9.3 is too old .* pip install 'tlfeat\[hub\]'\.$"):
        plan(folder, "dinov2", pictures, input_size=(48, 48))
