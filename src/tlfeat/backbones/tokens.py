"""A text becomes the numbers of its tokens, as the tokenizer in a folder of weights says: the package `tokenizers`.

KerasHub has WordPiece of its own; that of `tokenizers` gives transformers' tokens exactly on 200 odd texts, and it
reads every kind of ``tokenizer.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_hub
from tlfeat.backbones.text_folder import MAX_TOKENIZER_BYTES, TextFolder
from tlfeat.errors import WeightsError
from tlfeat.files import check_regular, read_regular

#: Characters that are looked at first, for each token that is wanted: English has five for one.
_CHARACTERS = 16

#: Tokens beyond the wanted ones that make a beginning safe: what was cut through was in the last word, and a word of
#: WordPiece has at most 100 characters.
_SPARE = 128

Tokens = npt.NDArray[np.int32]


class Tokenizer:
    """Texts to arrays of token numbers.

    Parameters
    ----------
    folder : TextFolder

    Raises
    ------
    WeightsError
        Its files are damaged, or know more tokens than the network.
    """

    def __init__(self, folder: TextFolder) -> None:
        self._inner = _load(folder.weights.path)
        self._inner.no_padding()
        self._inner.no_truncation()
        n_known, n_network = self._inner.get_vocab_size(), folder.sizes["vocab_size"]
        if n_known > n_network:
            raise WeightsError(
                f"{folder.weights.path}: the tokenizer knows {n_known:,} tokens, the network {n_network:,}. They do "
                f"not belong together."
            )
        self.max_length = folder.max_length
        self._most = self.max_length - self._inner.num_special_tokens_to_add(False)

    def __call__(self, text: str) -> tuple[Tokens, bool]:
        """Return the tokens of a text, and whether its end was cut off; of a long text only the beginning is read."""
        n = _CHARACTERS * self.max_length
        while True:
            found = self._inner.encode(text[:n], add_special_tokens=False)
            if n >= len(text) or len(found.ids) >= self._most + _SPARE:
                break
            n *= 4
        is_cut = len(found.ids) > self._most
        found.truncate(self._most)
        return np.array(self._inner.post_process(found).ids, np.int32), is_cut


def _load(path: Path) -> Any:
    tokenizers = import_hub("tokenizers")
    whole, words = path / "tokenizer.json", path / "vocab.txt"
    file = whole if whole.exists() else words
    try:
        check_regular(file, max_bytes=MAX_TOKENIZER_BYTES)
        if file == whole:
            return tokenizers.Tokenizer.from_file(str(whole))
        return _word_pieces(tokenizers, path)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # the library raises a bare Exception for anything that it does not like
        raise WeightsError(f"{file} is damaged or no tokenizer: {str(error)[:100]}.") from error


def _word_pieces(tokenizers: Any, path: Path) -> Any:
    """Return the tokenizer of a BERT from its words, with what ``tokenizer_config.json`` says."""
    said: dict[str, Any] = {}
    if (path / "tokenizer_config.json").exists():
        found = json.loads(read_regular(path / "tokenizer_config.json", max_bytes=1 << 20))
        said = found if isinstance(found, dict) else {}
    words = read_regular(path / "vocab.txt", max_bytes=MAX_TOKENIZER_BYTES).decode("utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): number for number, word in enumerate(words) if word}
    return tokenizers.BertWordPieceTokenizer(
        vocabulary,
        lowercase=said.get("do_lower_case", True) is not False,
        handle_chinese_chars=said.get("tokenize_chinese_chars", True) is not False,
    )
