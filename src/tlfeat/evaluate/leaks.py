"""Leaks: test images that show a picture of the training images. The score is given with and without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.cache.store import Cache
from tlfeat.evaluate.copies import Copies, find_copies
from tlfeat.evaluate.intervals import proportion_interval
from tlfeat.evaluate.split import Split
from tlfeat.records import Leaks
from tlfeat.text import counted
from tlfeat.types import Labels, OnProgress, silent


@dataclass(frozen=True, slots=True)
class LeakedImages:
    """The test images of one split that show a picture of the training or validation images.

    Attributes
    ----------
    images : list of dict
        `test` and `learned`, the paths of the test image and of the training or validation image that it is nearest
        to; `kind` and `similarity` as in `copies.Way`. One entry a test image.
    notes : list of str
        What was not looked for.
    """

    images: list[dict[str, Any]]
    notes: list[str]


def find_leaks(cache: Cache, split: Split, *, on_progress: OnProgress = silent) -> LeakedImages:
    """Find every test image that is in a group of copies with a training or validation image (`copies`)."""
    copies = find_copies(cache, on_progress=on_progress)
    return LeakedImages(leaked_images(copies, split.paths, split.keys, split.roles), copies.notes)


def leaked_images(
    copies: Copies, paths: Sequence[str], keys: Sequence[str], roles: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one entry for each leaked test image, in their order; see `LeakedImages.images`.

    "bytes" or "pixels" stands wherever some training or validation image has the same ones, however alike others are.
    """
    learned_of: dict[str, str] = {}
    for path, key, role in zip(paths, keys, roles, strict=True):
        if role in ("train", "val"):
            learned_of.setdefault(key, path)
    ways = copies.nearest({key: order for order, key in enumerate(learned_of)})
    return [
        {"test": path, "learned": learned_of[way.to], "kind": way.kind, "similarity": way.similarity}
        for path, key, role in zip(paths, keys, roles, strict=True)
        if role == "test" and (way := ways.get(key))
    ]


def score_without(found: LeakedImages, split: Split, true: Labels, predicted: Labels) -> Leaks:
    """Return the accuracy on the test images that are no leaks.

    Parameters
    ----------
    found : LeakedImages
    split : Split
    true, predicted : int arrays of shape (n_test,)
        Of the test images of `split`, in its order.
    """
    leaked = {image["test"] for image in found.images}
    is_kept = np.array([split.paths[i] not in leaked for i in split.where("test")], dtype=bool)
    n_kept = int(is_kept.sum())
    right, groups = (true == predicted)[is_kept], split.groups[split.where("test")][is_kept]
    accuracy, ci95 = (float(right.mean()), proportion_interval(right, groups)) if n_kept else (None, None)
    return Leaks(found.images, n_kept, accuracy, ci95, found.notes)


def leak_sentence(leaks: Leaks | None) -> str:
    """Return a warning of leaks in one sentence, "" where there are none."""
    if leaks is None or not leaks.images:
        return ""
    n, n_test = len(leaks.images), len(leaks.images) + leaks.n_test
    n_exact = sum(image["kind"] in ("bytes", "pixels") for image in leaks.images)
    return (
        f"LEAK: {n:,} of {counted(n_test, 'test image')} ({100 * n / n_test:.1f} %) show a picture of the "
        f"training images ({n_exact:,} exact, {n - n_exact:,} changed a little): the score is flattered. "
        f"tlfeat audit shows them."
    )
