"""What a folder of a text encoder says of itself: its size, tokenizer, longest text and pooling. No code of it is run.

Read are ``config.json``, ``model.safetensors``, ``tokenizer.json`` or ``vocab.txt``, and of sentence-transformers
``modules.json``, ``1_Pooling/config.json`` and ``sentence_bert_config.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlfeat.backbones.fetch import SCHEME, from_hugging_face
from tlfeat.backbones.text_catalog import TEXT_BACKBONES, TEXT_FAMILIES, TextBackbone, TextFamily
from tlfeat.backbones.weights_folder import CONFIG, WeightsFolder, open_folder, read_json
from tlfeat.errors import UsageError, WeightsError

#: What says how a text becomes tokens; all of them that are there count.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")

#: Of a tokenizer: XLM-RoBERTa's 250,000 pieces are 17 MB.
MAX_TOKENIZER_BYTES = 64 << 20

#: Of a repository, beside what any network has.
_FETCHED = [*TOKENIZER_FILES, "modules.json", "sentence_bert_config.json", "*_Pooling/config.json"]

_MAX_JSON_BYTES = 1 << 20

#: More than the largest of these networks have.
_MOST = {
    "vocab_size": 1_000_000,
    "hidden_size": 4096,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "intermediate_size": 16_384,
    "max_position_embeddings": 8_194,
}

#: DistilBERT's own names.
_OTHER_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}

#: transformers' activations as Keras has them. KerasHub builds all BERTs with the approximation, which none was
#: trained with: rows would differ by 5e-4.
ACTIVATIONS = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}

_SENTENCE = re.compile(r"sentence_transformers\.(?:\w+\.)*(Transformer|Pooling|Normalize)")


@dataclass(frozen=True, slots=True)
class TextFolder:
    """A folder that was read.

    Attributes
    ----------
    weights : WeightsFolder
    family : TextFamily
    sizes : dict of str to int
        By transformers' names, those of `_MOST`, and ``type_vocab_size``.
    is_gelu_approximate : bool
    pooling : str
        "mean", "cls" or "max".
    is_normalised : bool
        Whether rows get the length 1.
    max_length : int
        Tokens, those at the beginning and the end included.
    """

    weights: WeightsFolder
    family: TextFamily
    sizes: dict[str, int]
    is_gelu_approximate: bool
    pooling: str
    is_normalised: bool
    max_length: int

    @property
    def tokenizer_files(self) -> list[str]:
        """Those of `TOKENIZER_FILES` that are there."""
        return [name for name in TOKENIZER_FILES if (self.weights.path / name).exists()]


def open_text_folder(path: Path, wanted: TextBackbone | TextFamily) -> TextFolder:
    """Read a folder, and check that it is what was named.

    Raises
    ------
    WeightsError
        It is not there, of another family or size, or has a part that tlfeat does not compute.
    """
    weights = open_folder(path)
    if weights.is_preset:
        raise WeightsError(
            f"{path} is a preset of Keras; of text encoders the form of Hugging Face is read (config.json with a "
            f"model_type, model.safetensors, tokenizer.json). Fetch {_origin(wanted)}."
        )
    family = wanted.family if isinstance(wanted, TextBackbone) else wanted
    if weights.kind not in family.model_types:
        known = next((f for f in TEXT_FAMILIES.values() if weights.kind in f.model_types), None)
        advice = f"Use --backbone {known.name}" if known else f"Text encoders are: {', '.join(TEXT_FAMILIES)}"
        raise WeightsError(f"{path} is a {weights.kind}, no {family.name}. {advice}.")
    sizes = _sizes(weights)
    if isinstance(wanted, TextBackbone):
        _check_row(weights, wanted, sizes)
    if weights.config.get("position_embedding_type", "absolute") != "absolute":
        raise WeightsError(f"{path / CONFIG} has relative positions, which KerasHub's {family.name} has not.")
    activation = weights.config.get("hidden_act", weights.config.get("activation", "gelu"))
    if activation not in ACTIVATIONS:
        raise WeightsError(f"{path / CONFIG} has hidden_act {str(activation)[:40]!r}; known: {', '.join(ACTIVATIONS)}.")
    default = wanted.pooling if isinstance(wanted, TextBackbone) else "mean"
    pooling, is_normalised = _pooling(path, default)
    if not any((path / name).exists() for name in TOKENIZER_FILES[:2]):
        raise WeightsError(f"{path} has no tokenizer.json and no vocab.txt: fetch the one that belongs to the weights.")
    return TextFolder(
        weights, family, sizes, ACTIVATIONS[activation], pooling, is_normalised,
        _max_length(weights, sizes["max_position_embeddings"] - family.n_lost),
    )  # fmt: skip


def digests(folder: TextFolder) -> dict[str, str]:
    """Return the digests of the weights with their configuration, and of the tokenizer's files."""
    tokenizer = WeightsFolder(folder.weights.path, {}, ())
    return {"weights": folder.weights.digest(), "tokenizer": tokenizer.digest(folder.tokenizer_files)}


def fetch_advice(wanted: TextBackbone | TextFamily) -> str:
    """Return what to fetch, and where to put it."""
    files = "config.json, model.safetensors, tokenizer.json, modules.json and 1_Pooling/config.json"
    return (
        f"Fetch the folder {_origin(wanted)} ({files}) from huggingface.co, put it anywhere on this machine and name "
        f"it: --weights FOLDER"
    )


def _origin(wanted: TextBackbone | TextFamily) -> str:
    if isinstance(wanted, TextBackbone):
        return wanted.hub_name
    return next(row.hub_name for row in TEXT_BACKBONES if row.family == wanted)


def _sizes(weights: WeightsFolder) -> dict[str, int]:
    found = {}
    for name, most in _MOST.items():
        value = weights.config.get(name, weights.config.get(_OTHER_NAMES.get(name, name)))
        if type(value) is not int or not 0 < value <= most:
            raise WeightsError(f"{weights.path / CONFIG}: {name} is {str(value)[:40]!r}, which no such network has.")
        found[name] = value
    segments = weights.config.get("type_vocab_size", 2)
    if type(segments) is not int or not 0 < segments <= 16:
        raise WeightsError(f"{weights.path / CONFIG}: type_vocab_size is {str(segments)[:40]!r}.")
    if found["hidden_size"] % found["num_attention_heads"]:
        raise WeightsError(
            f"{weights.path / CONFIG}: hidden_size {found['hidden_size']} is no multiple of num_attention_heads "
            f"{found['num_attention_heads']}."
        )
    return {**found, "type_vocab_size": segments}


def _check_row(weights: WeightsFolder, wanted: TextBackbone, sizes: dict[str, int]) -> None:
    held = (sizes["num_hidden_layers"], sizes["hidden_size"])
    if held == (wanted.n_blocks, wanted.width):
        return
    fitting = [row.name for row in TEXT_BACKBONES if (row.n_blocks, row.width) == held and row.family == wanted.family]
    raise WeightsError(
        f"{weights.path} has {held[0]} blocks of width {held[1]:,}, and {wanted.name} has {wanted.n_blocks} of "
        f"{wanted.width:,}. Use --backbone {(fitting or [wanted.family.name])[0]}."
    )


def _pooling(path: Path, default: str) -> tuple[str, bool]:
    """Return how tokens become a row and whether that gets the length 1, as sentence-transformers wrote it down."""
    modules = _json(path / "modules.json", list) if (path / "modules.json").exists() else []
    if not modules:
        return default, False
    pooling, is_normalised = default, False
    for number, module in enumerate(modules):
        match = _SENTENCE.fullmatch(str(module.get("type"))) if isinstance(module, dict) else None
        if match is None:
            what = module.get("type") if isinstance(module, dict) else module
            raise WeightsError(f"{path / 'modules.json'} has the step {str(what)[:80]!r}, which tlfeat does not know.")
        kind = match.group(1)
        if (kind == "Transformer") != (number == 0):
            raise WeightsError(f"{path / 'modules.json'}: the network is not its first step.")
        if kind == "Pooling":
            pooling = _pooling_mode(path, module.get("path"))
        is_normalised |= kind == "Normalize"
    return pooling, is_normalised


def _pooling_mode(path: Path, folder: Any) -> str:
    if not isinstance(folder, str) or not re.fullmatch(r"[\w-]+", folder):
        raise WeightsError(f"{path / 'modules.json'} names no folder of its pooling.")
    file = path / folder / CONFIG
    config = _json(file, dict)
    names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if isinstance(mode := config.get("pooling_mode"), str):
        return _known_mode(file, mode)
    if len(modes) != 1:
        raise WeightsError(f"{file} has {len(modes)} poolings; expected one of {', '.join(names)}.")
    return _known_mode(file, names.get(modes[0], modes[0]))


def _known_mode(file: Path, mode: str) -> str:
    if mode not in ("mean", "cls", "max"):
        raise WeightsError(f"{file} has the pooling {mode[:40]!r}; tlfeat knows mean, cls and max.")
    return mode


def _max_length(weights: WeightsFolder, n_positions: int) -> int:
    """Return the longest text in tokens: what sentence-transformers or the tokenizer says, at most the positions."""
    said = _read_if_there(weights.path / "sentence_bert_config.json").get("max_seq_length")
    if said is None:
        said = _read_if_there(weights.path / "tokenizer_config.json").get("model_max_length")
    length = said if type(said) is int and said > 0 else n_positions  # transformers writes 1e30 for "no limit"
    if (length := min(length, n_positions)) < 8:
        raise WeightsError(f"{weights.path}: texts of {length} tokens are none.")
    return length


def _read_if_there(path: Path) -> dict[str, Any]:
    return dict(_json(path, dict)) if path.exists() else {}


def _json(path: Path, kind: type) -> Any:
    return read_json(path, kind, max_bytes=_MAX_JSON_BYTES)


def need_folder(weights: str, wanted: TextBackbone | TextFamily, name: str) -> Path:
    """Return the folder that ``--weights`` names; that of ``hf://org/name`` is fetched where it is not there yet.

    Raises
    ------
    UsageError
        None was named.
    WeightsError
        It cannot be fetched.
    """
    if weights.startswith(SCHEME):
        return from_hugging_face(weights.removeprefix(SCHEME), _FETCHED, f"{fetch_advice(wanted)}.")
    if weights == "random":
        raise UsageError(f"{name}: random weights know no language. {fetch_advice(wanted)}.")
    if weights in ("", "imagenet"):
        raise UsageError(f"{name} needs the folder of its weights, which is no part of tlfeat. {fetch_advice(wanted)}.")
    return Path(weights)
