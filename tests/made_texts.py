"""Tiny folders of text encoders with the same numbers everywhere, and a few texts; numpy alone is imported."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS = [
    *("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hat", "fish", "red", "blue", "big", "small"),
    *("today", "##s", "##ing", "is", "was", ",", ".", "!", "?"),
]

#: [PAD] is 0; every letter is a token, so that few words are unknown.
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz",
              *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]  # fmt: skip

TEXTS = [
    "The cat sat on the mat.",
    "a dog",
    "The big red dog ran under the small blue hat, and the cats are sitting today!",
    "Fish?",
    "the " * 60,
]

#: Sizes of the tiny networks, by transformers' names.
WIDTH, N_BLOCKS, N_HEADS, N_INNER, N_POSITIONS = 16, 2, 4, 24, 40


def write_tensors(file: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Write a safetensors file: the length of the header, the header as JSON, the numbers."""
    header, start = {}, 0
    for name, array in tensors.items():
        end = start + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    numbers = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in tensors.values())
    file.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def text_folder(path: Path, family: str = "bert", **changes: Any) -> Path:
    """Write a folder of a tiny encoder with drawn weights; `changes` go into its config.json."""
    path.mkdir(parents=True, exist_ok=True)
    config = {**_CONFIGS[family], **changes}
    (path / "config.json").write_text(json.dumps(config))
    write_tensors(path / "model.safetensors", tensors_of(family))
    (path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    return path


def as_sentence_encoder(path: Path, *, mode: str = "mean_tokens", length: int = 24) -> Path:
    """Add what sentence-transformers writes: the pooling, rows of length 1, the longest text."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"idx": i, "path": p, "type": f"sentence_transformers.models.{k}"} for i, (p, k) in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{name}": name == mode for name in ("mean_tokens", "cls_token", "max_tokens")}
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **modes}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    return path


_BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": N_HEADS,
    "intermediate_size": N_INNER,
    "max_position_embeddings": N_POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "pad_token_id": 0,
}

_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "distilbert": {
        "model_type": "distilbert",
        "activation": "gelu",
        "vocab_size": len(VOCABULARY),
        "dim": WIDTH,
        "n_layers": N_BLOCKS,
        "n_heads": N_HEADS,
        "hidden_dim": N_INNER,
        "max_position_embeddings": N_POSITIONS,
        "dropout": 0.1,
        "pad_token_id": 0,
    },
    "roberta": {**_BERT, "model_type": "roberta", "layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": 1},
}
_CONFIGS["xlm-roberta"] = {**_CONFIGS["roberta"], "model_type": "xlm-roberta"}


def tensors_of(family: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return weights that depend on the names alone: normal, of the size that trained ones have."""
    shapes = _distilbert_shapes() if family == "distilbert" else _bert_shapes(2 if family == "bert" else 1)
    found = {}
    for name, shape in shapes.items():
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32) * 0.3
        found[name] = drawn + 1 if name.endswith("orm.weight") else drawn
    return found


def _dense(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _bert_shapes(n_segments: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (N_POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (n_segments, WIDTH),
        **_norm("embeddings.LayerNorm"),
    }
    for k in range(N_BLOCKS):
        at = f"encoder.layer.{k}"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{at}.attention.self.{part}", WIDTH, WIDTH)
        shapes |= _dense(f"{at}.attention.output.dense", WIDTH, WIDTH) | _norm(f"{at}.attention.output.LayerNorm")
        shapes |= _dense(f"{at}.intermediate.dense", WIDTH, N_INNER)
        shapes |= _dense(f"{at}.output.dense", N_INNER, WIDTH) | _norm(f"{at}.output.LayerNorm")
    return shapes


def _distilbert_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (N_POSITIONS, WIDTH),
        **_norm("embeddings.LayerNorm"),
    }
    for k in range(N_BLOCKS):
        at = f"transformer.layer.{k}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _dense(f"{at}.attention.{part}", WIDTH, WIDTH)
        shapes |= _norm(f"{at}.sa_layer_norm") | _norm(f"{at}.output_layer_norm")
        shapes |= _dense(f"{at}.ffn.lin1", WIDTH, N_INNER) | _dense(f"{at}.ffn.lin2", N_INNER, WIDTH)
    return shapes
