"""What a cache holds, for those who read it: which layers, which rows, which encoder, which files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.encoder import resolve_embedding
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.text_catalog import is_text_backbone
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError, DataError, TlfeatError
from tlfeat.images.decode import Picture
from tlfeat.images.stores import StoredImage
from tlfeat.text import printable
from tlfeat.texts.read import keyed_text, snippet
from tlfeat.texts.text_set import load_texts
from tlfeat.types import Rows


def choose_layers(cache: Cache, layers: Sequence[str] | str | None) -> list[str]:
    """Return the layers to take: the named ones, else `avg_pool`, else the only one there is."""
    names = list(cache.layers)
    if not names:
        raise CacheError(f"{cache.path} holds no rows yet. Run tlfeat extract again.")
    wanted = [layers] if isinstance(layers, str) else list(layers or [])
    if wanted:
        return list(dict.fromkeys(resolve_embedding(layer, names) for layer in wanted))
    return ["avg_pool" if "avg_pool" in names else names[0] if len(names) == 1 else resolve_embedding("", names)]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of several layers side by side, read from the cache whenever a block is wanted.

    Attributes
    ----------
    cache : Cache
    layers : list of str
    keys : list of str
        In the order of the rows in the file, else every block reads all of it.
    """

    cache: Cache
    layers: list[str]
    keys: list[str]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.keys), sum(self.cache.layers[layer][1] for layer in self.layers)

    def __getitem__(self, block: slice, /) -> Rows:
        found = [self.cache.read(layer, self.keys[block]) for layer in self.layers]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def read_rows(cache: Cache, layers: Sequence[str], keys: Sequence[str]) -> Rows:
    """Return the rows of several layers side by side, float32 of shape (len(keys), width); no second copy of them."""
    widths = [cache.layers[layer][1] for layer in layers]
    if len(layers) == 1:
        return cache.read(layers[0], keys)
    rows = np.empty((len(keys), sum(widths)), np.float32)
    for start in range(0, len(keys), 4096):
        rows[start : start + 4096] = StoredRows(cache, list(layers), list(keys[start : start + 4096]))[:]
    return rows


def in_file_order(cache: Cache, layer: str, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the positions of keys, (n,), in the order in which their rows lie in the file: as `StoredRows` wants."""
    return np.argsort(cache.known(layer).numbers(keys), kind="stable")


class Origin(StrEnum):
    """What made the rows of a cache."""

    KERAS = "keras"  # a backbone, which can be built again
    TEXT = "text"  # a text encoder, which can be built again
    PIXELS = "pixels"  # the small pictures themselves
    TFIDF = "tfidf"  # counts of the words of texts
    IMPORTED = "imported"  # somebody else's encoder; there may be no images
    UNKNOWN = "unknown"  # an encoder that was passed in from Python


def origin_of(encoder: Mapping[str, Any]) -> Origin:
    """Return what made rows, from the description of their encoder in a cache or a saved model."""
    backbone = encoder.get("backbone")
    if backbone is None:
        return Origin.UNKNOWN
    if is_text_backbone(backbone):
        return Origin.TEXT
    return Origin(backbone) if backbone in (Origin.PIXELS, Origin.TFIDF, Origin.IMPORTED) else Origin.KERAS


def origin(cache: Cache) -> Origin:
    """Return what made the rows of a cache."""
    return origin_of(cache.source.get("encoder", {}))


def spec_of(cache: Cache) -> BackboneSpec:
    """Return the `BackboneSpec` with which a cache was made; an error where it was not made by one."""
    if holds_texts(cache):
        raise DataError(f"{cache.path} holds texts: networks are trained on images alone. Heads: tlfeat fit-sklearn.")
    if origin(cache) is not Origin.KERAS:
        raise DataError(
            f"{cache.path} was not made by a Keras backbone, so there is no network to train. Keras candidates "
            f"need a cache from tlfeat extract."
        )
    return BackboneSpec.from_dict(cache.source["encoder"])


def encoder_name(cache: Cache) -> str:
    """Return the short name of the encoder that made a cache."""
    name = str(cache.fingerprint.get("backbone", ""))
    return Path(str(cache.source.get("encoder", {}).get("backbone", ""))).stem if name == "own model" else name


def holds_texts(cache: Cache) -> bool:
    """Whether the rows of a cache are of texts."""
    return cache.source.get("holds") == "texts"


def parts_of(cache: Cache) -> list[Path]:
    """Return the caches that a cache was joined from (`cache.joined`); none of any other."""
    return [Path(part) for part in cache.source.get("parts", [])]


def check_not_joined(cache: Cache) -> None:
    """Raise where a cache was joined from others: images are embedded into these."""
    if parts := parts_of(cache):
        raise DataError(
            f"{cache.path} was joined from {', '.join(map(str, parts))}. Run tlfeat extract on each of these; tlfeat "
            f"adapt joins them again."
        )


def read_texts(cache: Cache, keys: Sequence[str]) -> dict[str, str]:
    """Return the texts of these content keys that can be read again; one that has changed is another text.

    A cache keeps no text. They are looked for where they were: in the files, or in the table, in whatever line they are
    by now. Of a cache that was joined its parts know where that is.
    """
    found: dict[str, str] = {}
    for part in parts_of(cache):
        with suppress(CacheError), open_cache(part) as opened:
            found |= _own_texts(opened, keys)
    return found | _own_texts(cache, [key for key in keys if key not in found])


def _own_texts(cache: Cache, keys: Sequence[str]) -> dict[str, str]:
    wanted, images = set(keys), cache.table.images
    if images.source.is_file():
        source = cache.source
        try:
            held = load_texts(images.source, text_column=source.get("text_column"), is_labelled=False)
        except TlfeatError:
            return {}
        contents: Iterable[Path | Callable[[], bytes]] = map(held.content, range(len(held)))
    else:
        at = {key: i for i, key in enumerate(cache.table.keys) if key in wanted}
        contents = map(images.file, at.values())
    return dict(found for content in contents if (found := keyed_text(content)) and found[0] in wanted)


#: What stands where a text cannot be read again.
TEXT_GONE = "the text has gone or changed"


def snippets(cache: Cache, keys: Sequence[str]) -> dict[str, str]:
    """Return the beginnings of texts that can be read again, by content key; none where a cache holds images."""
    found = read_texts(cache, keys) if holds_texts(cache) else {}
    return {key: printable(snippet(text)) for key, text in found.items()}


def picture_files(cache: Cache, paths: list[str]) -> list[Picture] | None:
    """Return the files of images, or what reads them; None where rows were imported or every file is gone."""
    if origin(cache) is Origin.IMPORTED or holds_texts(cache):
        return None
    images = cache.table.images
    if images.store is not None:
        return [StoredImage(images.store, path) for path in paths]
    files = [images.root / path for path in paths]
    return [*files] if any(file.exists() for file in files) else None
