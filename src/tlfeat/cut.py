"""Where the frozen part of a network ends: found in its graph; what crosses there is computed once and kept.

Below the cut nothing changes from epoch to epoch: no weight that trains, no statistic of a batch. What crosses the cut
goes through the same fast extraction as every embedding, into a cache of its own, and the tail is trained on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.augment import Augmentation, augment
from tlfeat.backbones.graph import Cut
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import Cache, open_cache
from tlfeat.extract.extract import extract_rows
from tlfeat.images.image_set import ImageSet
from tlfeat.memory import available_memory
from tlfeat.types import Labels, OnProgress, Pixels, Rows, silent

#: Tensors are held in memory if they take no more than this share of what is free.
_HELD_SHARE = 0.5


class ViewEncoder:
    """An encoder before which every picture is changed at random, the same way whenever it is asked again.

    Parameters
    ----------
    encoder : KerasEncoder
    augmentation : Augmentation
    seed : int
    view : int
        Which of the changed copies.
    """

    def __init__(self, encoder: KerasEncoder, augmentation: Augmentation, seed: int, view: int) -> None:
        self.encoder = encoder
        self.augmentation = augmentation
        self.seed = seed
        self.view = view
        self.name = encoder.name
        self.layers = encoder.layers
        self.resize = encoder.resize

    @property
    def fingerprint(self) -> dict[str, Any]:
        changed = {"augment": str(self.augmentation), "view": self.view, "seed": self.seed}
        return {**self.encoder.fingerprint, **changed}

    @property
    def input_size(self) -> tuple[int, int]:
        return self.encoder.input_size

    @property
    def batch_size(self) -> int:
        return self.encoder.batch_size

    @property
    def is_parallel(self) -> bool:
        return self.encoder.is_parallel

    @property
    def runtime(self) -> str:
        return self.encoder.runtime

    @property
    def notes(self) -> Sequence[str]:
        return self.encoder.notes

    def prepare(self, on_progress: OnProgress = silent) -> None:
        """Build the network."""
        self.encoder.prepare(on_progress)

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        """Embed changed copies of the pictures."""
        return self.encoder.encode(augment(pixels, self.augmentation, self.seed, self.view))


class CutRows:
    """What crosses a cut, by position in a split; of several views one an epoch, in turn.

    Parameters
    ----------
    cut : Cut
    layers : sequence of str
        The names of its crossings in the caches.
    plain : Cache
        Of pictures as they are.
    views : sequence of Cache
        Of their changed copies, for training; empty where there are none.
    keys : sequence of str
        Content keys of the images of the split.
    failures : mapping
        Path to reason, of images that have no rows.
    """

    def __init__(
        self,
        cut: Cut,
        layers: Sequence[str],
        plain: Cache,
        views: Sequence[Cache],
        keys: Sequence[str],
        failures: Mapping[str, str],
    ) -> None:
        self.failures = failures
        self.cut = cut
        self.layers = layers
        self.plain = plain
        self.views = views
        self.keys = keys
        self._held: dict[int, tuple[dict[str, int], list[Rows]]] = {}

    def is_there(self, positions: Labels) -> Any:
        """Return which images have rows, in every cache that they are wanted from."""
        caches = [self.plain, *self.views]
        known = [cache.known(layer) for cache in caches for layer in self.layers]
        return np.array([all(self.keys[i] in one for one in known) for i in positions], dtype=bool)

    def hold(self, positions: Labels, *, is_training: bool) -> None:
        """Read all that these images need into memory, if it takes no more than half of what is free."""
        caches = self.views if is_training and self.views else [self.plain]
        keys = list(dict.fromkeys(self.keys[i] for i in positions))
        if len(caches) * len(keys) * self.cut.n_values * 4 > _HELD_SHARE * available_memory():
            return
        for cache in caches:
            known, rows = self._held.get(id(cache), ({}, []))
            missing = [key for key in keys if key not in known]
            read = [cache.read(layer, missing) for layer in self.layers]
            rows = [np.concatenate(pair) for pair in zip(rows, read, strict=True)] if rows else read
            known = {**known, **{key: len(known) + i for i, key in enumerate(missing)}}
            self._held[id(cache)] = known, rows

    def __call__(self, positions: Labels, view: int | None) -> list[Rows]:
        """Return one float32 array of shape (n_images, *shape) for each crossing; `view` None: as they are."""
        cache = self.plain if view is None or not self.views else self.views[view % len(self.views)]
        keys = [self.keys[i] for i in positions]
        known, held = self._held.get(id(cache), ({}, []))
        if held and all(key in known for key in keys):
            at = [known[key] for key in keys]
            rows = [of_layer[at] for of_layer in held]
        else:
            rows = [cache.read(layer, keys) for layer in self.layers]
        return [r.reshape(len(r), *c.shape) for r, c in zip(rows, self.cut.crossings, strict=True)]


@dataclass(frozen=True)
class CutSource:
    """How to get what crosses a cut: which images, through which encoder, into which files.

    Attributes
    ----------
    spec : BackboneSpec
    images : ImageSet
        Those to train and validate on.
    stem : str
        Of the files' names.
    resize, dtype : str
        See ``decode.RESIZES`` and ``cachefile.ROW_TYPES``.
    augmentation : Augmentation
    n_views : int
    seed : int
    """

    spec: BackboneSpec
    images: ImageSet
    stem: str
    resize: str
    dtype: str
    augmentation: Augmentation
    n_views: int
    seed: int

    def n_bytes(self, cut: Cut) -> int:
        """Of all files together."""
        return (1 + self.n_views) * cut.n_bytes(len(self.images), self.dtype)

    @contextmanager
    def open(
        self, cut: Cut, keys: Sequence[str], *, on_progress: OnProgress = silent
    ) -> Iterator[tuple[CutRows, float]]:
        """Compute what is missing and give the rows, and the seconds that computing them took, now or earlier."""
        layers = [crossing.embedding for crossing in cut.crossings]
        encoder = KerasEncoder(self.spec, layers, resize=self.resize, dtype=self.dtype)
        encoders: list[Any] = [encoder]
        encoders += [ViewEncoder(encoder, self.augmentation, self.seed, view) for view in range(self.n_views)]
        origin: Mapping[str, Any] = {"encoder": self.spec.to_dict()}
        with ExitStack() as stack:
            caches: list[Cache] = []
            failures: dict[str, str] = {}
            for each in encoders:
                identity = workspace.digest({**each.fingerprint, "layers": layers, "root": str(self.images.root)})
                path = workspace.CUTS_DIR / f"{self.stem}-{identity}.h5"
                path.parent.mkdir(parents=True, exist_ok=True)
                report = extract_rows(self.images, each, path, origin=origin, on_progress=on_progress)
                failures |= dict(report.failures)
                caches.append(stack.enter_context(open_cache(path)))
            yield (
                CutRows(cut, layers, caches[0], caches[1:], keys, failures),
                sum(float(cache.timing["extract_s"]) for cache in caches),
            )


def some_images(images: ImageSet, paths: Sequence[str]) -> ImageSet:
    """Return the images of a set with one of these paths."""
    wanted = set(paths)
    at = [i for i, path in enumerate(images.paths) if path in wanted]
    lists: dict[str, Any] = {
        name: [getattr(images, name)[i] for i in at] for name in ("paths", "labels", "splits", "groups")
    }
    return replace(images, **lists)
