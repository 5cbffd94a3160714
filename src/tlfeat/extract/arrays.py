"""Images in, one array of embeddings out: `embed`, for notebooks and scripts that want no folder and no split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder
from tlfeat.cache.cache_file import CacheFile
from tlfeat.cache.contents import read_rows
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import DataError
from tlfeat.extract.embed import embed_files
from tlfeat.extract.encoders import make_encoder
from tlfeat.images.decode import Decoded, Picture
from tlfeat.images.image_set import ImageSet, ImageTable
from tlfeat.images.pictures import pictures_of
from tlfeat.types import OnProgress, Rows, StrPath, silent


def embed(
    images: Any,
    backbone: Any = "mobilenet_v2",
    layer: str | Sequence[str] = "avg_pool",
    *,
    weights: str = "imagenet",
    preprocess: str | Callable[[Any], Any] | None = None,
    input_size: tuple[int, int] | None = None,
    cache: StrPath | bool | None = None,
    on_progress: OnProgress = silent,
    **options: Any,
) -> Rows:
    """Return the embeddings of images, in their order.

    Parameters
    ----------
    images
        A folder or a table, or many of these: paths, bytes of image files, PIL images, uint8 arrays of shape
        (height, width, 3). As a list, an array of shape (n, height, width, 3), a column of pandas or of Hugging Face
        `datasets`, or a ``tf.data.Dataset`` (labels in it are passed over). A single one counts as a list of one.
    backbone : str, path, keras.Model or Encoder, default="mobilenet_v2"
        A name from ``tlfeat backbones``, a model file, or a model in memory.
    layer : str or sequence of str, default="avg_pool"
        Of several, rows stand side by side.
    weights, input_size
        As ``--weights`` and ``--input-size``.
    preprocess : str or callable, optional
        As ``--preprocess``; required for a Keras model, where it may also be ``preprocess_input`` of
        ``keras.applications``.
    cache : str, path or bool, optional
        Rows are kept by content in this file, and those that it has are read; True takes one under
        ``cache/embedded/`` for this backbone. A cache of ``tlfeat extract`` is taken too. By default nothing is
        kept.
    on_progress : callable, optional
    **options
        `runtime`, `resize`, `dtype`, `batch_size`, `n_threads`: see `KerasEncoder`.

    Returns
    -------
    float32 array of shape (n_images, width)

    Raises
    ------
    DataError
        An image cannot be decoded, or there is none.
    FingerprintError
        The cache was made by another encoder.

    Examples
    --------
    >>> import numpy as np
    >>> embed(np.zeros((2, 20, 30, 3), np.uint8), "pixels").shape
    (2, 768)
    """
    layers = [layer] if isinstance(layer, str) else list(layer)
    encoder = make_encoder(backbone, layers, weights=weights, preprocess=preprocess, input_size=input_size, **options)
    if cache is None or cache is False:
        return embed_pictures(pictures_of(images), encoder, on_progress=on_progress)
    path = _kept_path(encoder) if cache is True else Path(cache)
    with _open_kept(path, encoder) as kept:
        return embed_pictures(pictures_of(images), encoder, kept, keep_in=kept, on_progress=on_progress)


def embed_pictures(
    pictures: Iterable[tuple[str, Picture]],
    encoder: Encoder,
    cache: Cache | None = None,
    *,
    keep_in: CacheFile | None = None,
    on_progress: OnProgress = silent,
) -> Rows:
    """Return the rows of pictures in their order, the layers of the encoder side by side.

    Parameters
    ----------
    pictures : iterable of (name, picture)
        See `pictures_of`; equal ones are computed once.
    encoder : Encoder
    cache : Cache, optional
        Rows that it has are read from it.
    keep_in : CacheFile, optional
        The same one where it is open for writing: the others are appended to it.

    Raises
    ------
    DataError
        A picture cannot be decoded: there is no place for a row that is missing. Or there is none at all.
    """
    known: list[Mapping[str, int]] = [cache.known(name) for name in encoder.layers] if cache else [{}]
    walk = _Walk(pictures, lambda key: all(key in of_layer for of_layer in known), on_progress)
    files = embed_files(walk, encoder, is_wanted=walk.is_wanted, is_known=walk.is_known, on_progress=on_progress)
    blocks: list[Rows] = []
    for batch in files:
        if keep_in is not None:
            keep_in.append(batch.rows, [decoded.key for decoded in batch.files])
        else:
            blocks.append(np.concatenate([batch.rows[name] for name in encoder.layers], axis=1))
    if not walk.keys:
        raise DataError("There is no image to embed.")
    if cache is None or (blocks and len(walk.wanted) == len(walk.keys)):
        return _in_order(np.concatenate(blocks), walk)
    if not blocks:
        return read_rows(cache, encoder.layers, walk.keys)
    is_new = np.array([key in walk.wanted for key in walk.keys])  # (n,)
    found = read_rows(cache, encoder.layers, [key for key in walk.keys if key not in walk.wanted])
    rows = np.empty((len(is_new), found.shape[1]), np.float32)
    rows[~is_new] = found
    rows[is_new] = _in_order(np.concatenate(blocks), walk)
    return rows


def _in_order(rows: Rows, walk: _Walk) -> Rows:
    """Return the computed rows once for each picture that wants one."""
    place = {key: i for i, key in enumerate(walk.wanted)}
    at = [place[key] for key in walk.keys if key in place]
    return rows if len(at) == len(rows) else rows[at]


class _Walk:
    """One pass over pictures: gives them numbers, keeps their names and keys, and stops at the first bad one."""

    def __init__(
        self, pictures: Iterable[tuple[str, Picture]], is_known: Callable[[str], bool], on_progress: OnProgress
    ) -> None:
        self.is_known = is_known
        self.keys: list[str] = []  # of all, in order
        self.wanted: dict[str, None] = {}  # of those that are encoded, in order
        self._pictures = pictures
        self._names: list[str] = []
        self._on_progress = on_progress

    def __iter__(self) -> Iterator[tuple[int, Picture]]:
        for name, picture in self._pictures:
            self._names.append(name)
            yield len(self._names) - 1, picture

    def is_wanted(self, decoded: Decoded) -> bool:
        if decoded.error:
            raise DataError(f"{self._names[decoded.i]}: {decoded.error}.")
        self.keys.append(decoded.key)
        self._on_progress("embedding", len(self.keys), 0)
        if decoded.pixels is None or decoded.key in self.wanted:
            return False
        self.wanted[decoded.key] = None
        return True


def _kept_path(encoder: Encoder) -> Path:
    """Return where rows are kept by default: a folder down, so as never to be the newest cache of the commands."""
    identity = workspace.digest(encoder.fingerprint)
    return workspace.CACHE_DIR / "embedded" / f"{workspace.safe_name(encoder.name)}-{identity}.h5"


def _open_kept(path: Path, encoder: Encoder) -> CacheFile:
    """Open a cache for writing; a new one has rows by content alone, and no table of images."""
    if path.exists():
        return open_cache(path, writable=True, fingerprint=encoder.fingerprint)
    cache = create_cache(path, encoder.fingerprint, {"encoder": {}, "root": "", "source": ""})
    none = ImageSet(Path(), Path(), [], [], [], [])
    cache.write_table(ImageTable(none, [], [], [], [], []))
    return cache
