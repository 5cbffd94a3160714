"""Where the frozen part of a network ends: found in its graph; what crosses there is computed once and kept.

Below the cut nothing changes from epoch to epoch: no weight that trains, no statistic of a batch. What crosses the cut
goes through the same fast extraction as every embedding, into a cache of its own, and the tail is trained on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.backbones.graph import Cut
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.store import Cache, open_cache
from tlfeat.evaluate.split import Split
from tlfeat.extract.extract import extract_rows
from tlfeat.finetune.augment import Augmentation, augment
from tlfeat.finetune.pixel_store import PixelStore, open_pixels_of
from tlfeat.finetune.settings import TrainSettings
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
        See ``resizing.RESIZES`` and ``cachefile.ROW_TYPES``.
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
                identity = workspace.digest({**each.fingerprint, "layers": layers, "root": self.images.place})
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
        name: [getattr(images, name)[i] for i in at] for name in ("paths", "labels", "splits", "groups", "domains")
    }
    return replace(images, **lists)


@dataclass(frozen=True, slots=True)
class AtTheCut:
    """What crosses a cut, or why pixels have to be taken.

    Attributes
    ----------
    rows : CutRows or None
        None where pixels have to be taken.
    computed_s : float or None
        Seconds that computing them took, now or earlier.
    reason : str
        Why pixels have to be taken; "" where there are rows.
    """

    rows: CutRows | None = None
    computed_s: float | None = None
    reason: str = ""


def _why_pixels(cut: Cut, settings: TrainSettings) -> str:
    if settings.cut == "off":
        return "--cut off"
    if not cut.is_worthwhile:
        return "next to nothing lies below the cut"
    if settings.augment and not settings.views:
        return "pictures change in every epoch (--views N would keep N changed copies of each)"
    return ""


#: Tensors at the cut take at most so much disk, whatever is free, unless a caller says otherwise.
MAX_CUT_BYTES = 20e9


@dataclass
class Sources:
    """Where training gets its images from: pixels kept on disk, or what crosses a cut; opened when wanted.

    Attributes
    ----------
    spec : BackboneSpec
    images : ImageSet
    split : Split
    size : tuple of int
        Height and width in pixels.
    resize : str
        One of `resizing.RESIZES`.
    stem : str
        For names of files.
    embeddings : Cache, optional
        Of the same backbone: its rows are taken where they are what crosses the cut.
    max_cut_bytes : float
    say : callable
        Called with a sentence before something large is written.
    """

    spec: BackboneSpec
    images: ImageSet
    split: Split
    size: tuple[int, int]
    resize: str
    stem: str
    embeddings: Cache | None = None
    max_cut_bytes: float = MAX_CUT_BYTES
    say: Callable[[str], None] = lambda _: None
    on_progress: OnProgress = silent
    _stack: ExitStack = field(default_factory=ExitStack)
    _pixels: PixelStore | None = None
    _rows: dict[str, tuple[CutRows, float]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def pixels(self) -> PixelStore:
        """Return the store of all images of the split, decoded when first asked for."""
        if self._pixels is None:
            files = [self.images.picture(path) for path in self.split.paths]
            store = open_pixels_of(files, self.split.keys, self.size, self.resize)
            self._pixels = self._stack.enter_context(store)
        return self._pixels

    def rows(self, cut: Cut, settings: TrainSettings) -> AtTheCut:
        """Return what crosses the cut, computed now where it is not there, or why pixels have to be taken."""
        names = [crossing.embedding for crossing in cut.crossings]
        if reason := _why_pixels(cut, settings):
            return AtTheCut(reason=reason)
        if self._are_embedded(names) and settings.cut == "float32" and not settings.views:
            assert self.embeddings is not None
            found = CutRows(cut, names, self.embeddings, [], self.split.keys, {})
            return AtTheCut(found, float(self.embeddings.timing["extract_s"]))
        source = self._cut_source(settings)
        n_bytes = source.n_bytes(cut)
        if n_bytes > self.max_cut_bytes:
            limit = f"the limit is {self.max_cut_bytes / 1e9:g} GB"
            return AtTheCut(reason=f"what crosses the cut would take {n_bytes / 1e9:.1f} GB, {limit}")
        key = str((names, str(settings.augment), settings.views, settings.seed, settings.cut))
        if key not in self._rows:
            self.say(
                f"What crosses the cut ({', '.join(names)}; {cut.n_values:,} values an image, {100 * cut.share:.0f} % "
                f"of the backbone's work below it) is computed once and kept: at most {n_bytes / 1e9:.2f} GB in "
                f"{workspace.CUTS_DIR}"
            )
            opened = source.open(cut, self.split.keys, on_progress=self.on_progress)
            self._rows[key] = self._stack.enter_context(opened)
        return AtTheCut(*self._rows[key])

    def _cut_source(self, settings: TrainSettings) -> CutSource:
        return CutSource(
            self.spec,
            some_images(self.images, [self.split.paths[i] for i in self.split.where("train", "val")]),
            self.stem,
            self.resize,
            settings.cut,
            settings.augment,
            settings.views,
            settings.seed,
        )

    def _are_embedded(self, names: Sequence[str]) -> bool:
        held = self.embeddings
        return held is not None and set(names) <= set(held.layers) and held.fingerprint.get("dtype") == "float32"

    @property
    def unstored(self) -> str:
        """Why decoded images could not be kept, or ""."""
        return self._pixels.unstored if self._pixels else ""

    def failures(self) -> list[tuple[str, str]]:
        """Return the images that took no part because they could not be read, with the reason."""
        found = {self.split.paths[i]: reason for i, reason in (self._pixels.failures if self._pixels else {}).items()}
        for rows, _ in self._rows.values():
            at = self.split.where("train", "val")
            for i in at[~rows.is_there(at)]:
                path = self.split.paths[i]
                found[path] = rows.failures.get(path, "its content has changed since it was read first")
        return sorted(found.items())


def pixel_feed(store: PixelStore, settings: TrainSettings) -> Callable[..., Any]:
    def feed(positions: Labels, epoch: int | None) -> tuple[Any, npt.NDArray[np.bool_]]:
        pixels, is_there = store.read(positions)
        pixels = pixels if is_there.all() else pixels[is_there]
        if epoch is not None and settings.augment:
            view = epoch % settings.views if settings.views else epoch
            pixels = augment(pixels, settings.augment, settings.seed, view)
        return pixels.astype(np.float32), is_there

    return feed


def cut_feed(rows: CutRows, settings: TrainSettings) -> Callable[..., Any]:
    def feed(positions: Labels, epoch: int | None) -> tuple[Any, npt.NDArray[np.bool_]]:
        is_there = rows.is_there(positions)
        tensors = rows(positions[is_there], epoch)
        return (tensors[0] if len(tensors) == 1 else tuple(tensors)), is_there

    return feed
