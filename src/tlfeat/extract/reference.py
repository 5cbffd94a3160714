"""Rows of the reference images, once for each encoder, in a file beside the caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones.encoder import Encoder
from tlfeat.errors import CacheError
from tlfeat.files import check_archive, check_regular
from tlfeat.images.reference import Reference, decode_picture, reference_images
from tlfeat.types import Pixels, Rows
from tlfeat.workspace import digest, written_aside


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """Rows of `images.reference.Reference`, each of shape (n_images, width)."""

    known: Rows
    drawings: Rows
    photographs: Rows


def reference_file(cache: Path, fingerprint: Mapping[str, Any]) -> Path:
    """Return where the rows of an encoder lie: beside the caches, one file for all of this encoder."""
    return (cache if cache.is_dir() else cache.parent) / "reference" / f"{digest(dict(fingerprint))}.npz"


def embed_reference(encoder: Encoder, cache: Path) -> None:
    """Embed the reference images at the encoder's layers, unless their rows are there.

    Parameters
    ----------
    encoder : Encoder
        Prepared.
    cache : Path
        Beside which the rows are kept.
    """
    path = reference_file(cache, encoder.fingerprint)
    held = _read(path)
    if all(f"{kind}/{layer}" in held for kind in Reference._fields for layer in encoder.layers):
        return
    for kind, pixels in reference_pixels(encoder.input_size, encoder.resize).items():
        n = encoder.batch_size
        batches = [encoder.encode(pixels[start : start + n]) for start in range(0, len(pixels), n)]
        held |= {f"{kind}/{layer}": np.concatenate([batch[layer] for batch in batches]) for layer in encoder.layers}
    try:
        with written_aside(path) as aside:
            np.savez(aside, **held)
    except OSError as error:
        raise CacheError(f"Cannot write {path}: {error.strerror or error}.") from error


def reference_pixels(size: tuple[int, int], resize: str) -> dict[str, Pixels]:
    """Return the images of each kind as an encoder takes them, arrays of shape (n_images, height, width, 3)."""
    kinds = reference_images()._asdict()
    return {kind: np.stack([decode_picture(p, size, resize) for p in pictures]) for kind, pictures in kinds.items()}


def read_reference(cache: Path, fingerprint: Mapping[str, Any], layers: Sequence[str]) -> ReferenceRows | None:
    """Return the rows of several layers side by side, or None where a cache of an older tlfeat has none."""
    held = _read(reference_file(cache, fingerprint))
    try:
        found = {
            kind: np.concatenate([held[f"{kind}/{layer}"] for layer in layers], axis=1) for kind in Reference._fields
        }
    except (KeyError, ValueError):
        return None
    if not all(rows.dtype == np.float32 and len(rows) and np.isfinite(rows).all() for rows in found.values()):
        return None
    return ReferenceRows(**found)


def _read(path: Path) -> dict[str, Any]:
    """Return all arrays of a file; none of one that is damaged: it is written again."""
    try:
        check_regular(path, within=path.parent)
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception:  # a damaged archive fails anywhere: zipfile, zlib, numpy
        return {}
