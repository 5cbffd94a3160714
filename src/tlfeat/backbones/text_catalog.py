"""The table of text encoders: networks of KerasHub (0.32) that read a sentence or a page, as plain data.

Nothing here imports Keras. `text_network` builds them, `text_folder` reads their weights and tokenizer.

Each row names the model on Hugging Face from which its folder comes. Any folder with an architecture of the same family
and size may stand for it; what is in the fingerprint is the digest of the folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from tlfeat.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class TextFamily:
    """What networks of one kind have in common.

    Attributes
    ----------
    name : str
        Also a backbone by itself: its size is then what the folder says.
    model_types : tuple of str
        By which ``config.json`` of Hugging Face names it.
    hub_class : str
        Attribute of ``keras_hub.models``.
    converter : str
        Module of ``keras_hub.src.utils.transformers`` that knows the names of its tensors.
    n_lost : int
        Positions that no token can have: RoBERTa counts from 2.
    layer_norm_eps : float
        As KerasHub has it in its code.
    """

    name: str
    model_types: tuple[str, ...]
    hub_class: str
    converter: str
    n_lost: int = 0
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True, slots=True)
class TextBackbone:
    """One text encoder.

    Attributes
    ----------
    name : str
        tlfeat's name.
    family : TextFamily
    hub_name : str
        Where its folder is on Hugging Face.
    n_blocks, width : int
        Blocks of the transformer; columns of the rows.
    parameters : int
        Of the whole network, embeddings of the vocabulary included.
    max_length : int
        Tokens; the rest of a longer text is cut off.
    pooling : str
        "mean" or "cls": how tokens become one row where the folder does not say it (``modules.json``).
    languages, paper, licence : str
        The licence is that of the weights.
    prefix : str
        What the authors want before every text.
    """

    name: str
    family: TextFamily
    hub_name: str
    n_blocks: int
    width: int
    parameters: int
    max_length: int
    pooling: str
    languages: str
    paper: str
    licence: str
    prefix: str = ""


_BERT: Final = TextFamily("bert", ("bert",), "BertBackbone", "convert_bert")
_DISTILBERT: Final = TextFamily("distilbert", ("distilbert",), "DistilBertBackbone", "convert_distilbert")
_ROBERTA: Final = TextFamily("roberta", ("roberta",), "RobertaBackbone", "convert_roberta", 2, 1e-5)
_XLM_ROBERTA: Final = TextFamily("xlm_roberta", ("xlm-roberta",), "XLMRobertaBackbone", "convert_xlm_roberta", 2, 1e-5)

TEXT_FAMILIES: Final[dict[str, TextFamily]] = {f.name: f for f in (_BERT, _DISTILBERT, _ROBERTA, _XLM_ROBERTA)}

_SBERT: Final = "Reimers, Gurevych: Sentence-BERT. 2019, arXiv:1908.10084"
_MINILM: Final = "Wang, Wei, Dong, Bao, Yang, Zhou: MiniLM. 2020, arXiv:2002.10957; " + _SBERT
_BGE: Final = "Xiao, Liu, Zhang, Muennighoff: C-Pack. 2023, arXiv:2309.07597"
_E5_EN: Final = (
    "Wang, Yang, Huang, Jiao, Yang et al.: Text Embeddings by Weakly-Supervised Contrastive Pre-training. 2022, "
    "arXiv:2212.03533"
)
_E5_ALL: Final = "Wang, Yang, Huang, Yang, Majumder, Wei: Multilingual E5 Text Embeddings. 2024, arXiv:2402.05672"
_BERT_PAPER: Final = "Devlin, Chang, Lee, Toutanova: BERT. 2018, arXiv:1810.04805"
_SMALL_BERT: Final = "Turc, Chang, Lee, Toutanova: Well-Read Students Learn Better. 2019, arXiv:1908.08962"

TEXT_BACKBONES: Final[tuple[TextBackbone, ...]] = (
    TextBackbone("minilm", _BERT, "sentence-transformers/all-MiniLM-L6-v2", 6, 384, 22_713_216, 256, "mean",
                 "English", _MINILM, "Apache-2.0"),
    TextBackbone("minilm_l12", _BERT, "sentence-transformers/all-MiniLM-L12-v2", 12, 384, 33_360_000, 128, "mean",
                 "English", _MINILM, "Apache-2.0"),
    TextBackbone("bge_small", _BERT, "BAAI/bge-small-en-v1.5", 12, 384, 33_360_000, 512, "cls",
                 "English", _BGE, "MIT"),
    TextBackbone("bge_base", _BERT, "BAAI/bge-base-en-v1.5", 12, 768, 109_482_240, 512, "cls",
                 "English", _BGE, "MIT"),
    TextBackbone("bge_large", _BERT, "BAAI/bge-large-en-v1.5", 24, 1024, 335_141_888, 512, "cls",
                 "English", _BGE, "MIT"),
    TextBackbone("e5_small", _BERT, "intfloat/e5-small-v2", 12, 384, 33_360_000, 512, "mean",
                 "English", _E5_EN, "MIT", "query: "),
    TextBackbone("e5_base", _BERT, "intfloat/e5-base-v2", 12, 768, 109_482_240, 512, "mean",
                 "English", _E5_EN, "MIT", "query: "),
    TextBackbone("e5_multilingual_base", _XLM_ROBERTA, "intfloat/multilingual-e5-base", 12, 768, 278_043_648, 512,
                 "mean", "about 100", _E5_ALL, "MIT", "query: "),
    TextBackbone("bert_tiny", _BERT, "google/bert_uncased_L-2_H-128_A-2", 2, 128, 4_385_920, 512, "mean",
                 "English", _SMALL_BERT, "Apache-2.0"),
    TextBackbone("bert_base", _BERT, "google-bert/bert-base-uncased", 12, 768, 109_482_240, 512, "mean",
                 "English", _BERT_PAPER, "Apache-2.0"),
    TextBackbone("distilbert_base", _DISTILBERT, "distilbert/distilbert-base-uncased", 6, 768, 66_362_880, 512, "mean",
                 "English", "Sanh, Debut, Chaumond, Wolf: DistilBERT. 2019, arXiv:1910.01108", "Apache-2.0"),
    TextBackbone("roberta_base", _ROBERTA, "FacebookAI/roberta-base", 12, 768, 124_055_040, 512, "mean",
                 "English", "Liu, Ott, Goyal, Du, Joshi et al.: RoBERTa. 2019, arXiv:1907.11692", "MIT"),
)  # fmt: skip

_BY_NAME: Final = {row.name: row for row in TEXT_BACKBONES}


def is_text_backbone(name: object) -> bool:
    """Whether `find_text` knows the name."""
    return isinstance(name, str) and (name in _BY_NAME or name in TEXT_FAMILIES)


def list_text_backbones() -> list[dict[str, Any]]:
    """Return what ``tlfeat backbones`` lists of text encoders."""
    return [{"kind": "text", **asdict(row), "family": row.family.name} for row in TEXT_BACKBONES]


def find_text(name: str) -> TextBackbone | TextFamily:
    """Return the row of a name, or the family; a `UsageError` suggests the nearest name."""
    if name in TEXT_FAMILIES:
        return TEXT_FAMILIES[name]
    if name not in _BY_NAME:
        raise UsageError(f"No text encoder '{name}'. {nearest(name, list(_BY_NAME), of='text encoders')}")
    return _BY_NAME[name]
