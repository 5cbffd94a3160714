"""Leaks: test images that show a picture of the training images. They count in no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.cache.reader import Cache
from tlfeat.evaluate.copies import EXACT, Copies, find_copies
from tlfeat.evaluate.intervals import proportion_interval
from tlfeat.evaluate.split import Split
from tlfeat.records import Leaks
from tlfeat.text import counted, percent
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


def renamed(found: LeakedImages, before: Sequence[str], after: Sequence[str]) -> LeakedImages:
    """Return the leaks with the paths that the same images have elsewhere; both lists are in one order."""
    name = dict(zip(before, after, strict=True))
    images = [{**image, "test": name[image["test"]], "learned": name[image["learned"]]} for image in found.images]
    return LeakedImages(images, found.notes)


def scored_tests(found: LeakedImages, split: Split) -> npt.NDArray[np.bool_]:
    """Return which test images count, of shape (n_test,) in the order of `split`: those that are no leaks.

    Where every one of them is a leak all count, and `leak_sentence` says so.
    """
    leaked = {image["test"] for image in found.images}
    is_scored = np.array([split.paths[i] not in leaked for i in split.where("test")], dtype=bool)
    return is_scored if is_scored.any() else np.ones_like(is_scored)


def with_leaked(found: LeakedImages, split: Split, true: Labels, predicted: Labels) -> Leaks:
    """Return the leaks, with the accuracy that would be reported if they counted.

    Parameters
    ----------
    found : LeakedImages
    split : Split
    true, predicted : int arrays of shape (n_test,)
        Of the test images of `split`, in its order.
    """
    right, n_kept = true == predicted, len(true) - len(found.images)

    def share(chosen: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
        return float(right[chosen].mean()), proportion_interval(right[chosen], split.test_groups(chosen))

    accuracy, ci95 = share(scored_tests(found, split)) if n_kept else (None, None)
    accuracy_with, ci95_with = share(np.ones_like(right))
    return Leaks(found.images, n_kept, accuracy, ci95, accuracy_with, ci95_with, found.notes)


def leak_sentence(leaks: Leaks | None) -> str:
    """Return a warning of leaks in one sentence, "" where there are none."""
    if leaks is None or not leaks.images:
        return ""
    n, n_test = len(leaks.images), len(leaks.images) + leaks.n_test
    n_exact = sum(image["kind"] in EXACT for image in leaks.images)
    shown = f"({n_exact:,} exact, {n - n_exact:,} changed a little)"
    if not leaks.n_test:
        return (
            f"LEAK: every one of {counted(n, 'test image')} shows a picture of the training images {shown}: the scores "
            f"say nothing of new pictures. tlfeat audit shows them."
        )
    share = f"{n:,} of {counted(n_test, 'test image')} ({100 * n / n_test:.1f} %)"
    said = f"LEAK: {share} show a picture of the training images {shown}"
    if leaks.accuracy_with is None:
        return f"{said}: the score of this older version counts them and is flattered. tlfeat audit shows them."
    return (
        f"{said} and count in no score; with them the accuracy would be {percent(leaks.accuracy_with)}. "
        f"tlfeat audit shows them."
    )
