"""What was asked for becomes a job: images, encoder, cache. The defaults of ``tlfeat extract`` live here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder, PixelEncoder, embedding_name
from tlfeat.backbones.graph import POOLS
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec
from tlfeat.cache.contents import Origin, origin_of
from tlfeat.cache.store import open_cache
from tlfeat.errors import UsageError, nearest
from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.images import example
from tlfeat.images.decode import RESIZE, RESIZES
from tlfeat.images.image_set import ImageSet, load_images, parse_class_map
from tlfeat.types import ROW_TYPES
from tlfeat.workspace import CACHE_DIR, digest, safe_name

DEFAULT_BACKBONE = "mobilenet_v2"  # 14 MB of weights, 1,280 columns, the fastest per image that is still good


@dataclass(frozen=True, slots=True)
class ExtractionJob:
    """Everything that `extract_rows` needs, decided; ``notes`` are what the user should not miss."""

    images: ImageSet
    encoder: Encoder
    origin: dict[str, Any]
    cache_path: Path
    notes: list[str] = field(default_factory=list)

    def run(self, **options: Any) -> ExtractReport:
        """Run it; `options` are those of `extract_rows`."""
        return extract_rows(self.images, self.encoder, self.cache_path, origin=self.origin, **options)


def plan_extraction(
    data: Path | None = None,
    *,
    layers: Sequence[str] = ("avg_pool",),
    backbone: str | None = None,
    weights: str = "imagenet",
    pool: str | None = None,
    preprocess: str | None = None,
    input_size: tuple[int, int] | None = None,
    class_map: Sequence[str] = (),
    cache: Path | None = None,
    resize: str | None = None,
    dtype: str | None = None,
    runtime: str = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
    seed: int = 0,
) -> ExtractionJob:
    """Decide what to embed, with what, into which file.

    Without `data`: the images and the backbone of the named cache if it exists, else the built-in example with its
    own small backbone.
    """
    if pool is not None and pool not in POOLS:
        raise UsageError(f"No pooling '{pool}'. {nearest(pool, list(POOLS), of='poolings')}")
    if pool not in (None, "avg") and set(layers) == {"avg_pool"}:
        raise UsageError(
            f"avg_pool is pooled already. Name the layer before it for --pool {pool}; tlfeat layers lists all."
        )
    if resize is not None and resize not in RESIZES:
        raise UsageError(f"No way of resizing '{resize}'. {nearest(resize, list(RESIZES), of='ways')}")
    if dtype not in (None, *ROW_TYPES):
        raise UsageError(f"Rows are stored as float32 or float16, received '{dtype}'.")
    names = [embedding_name(layer, None if layer == "avg_pool" else pool) for layer in layers]
    source: dict[str, Any] = {}
    if data is None and cache is not None and cache.exists():
        with open_cache(cache) as existing:
            source, held = existing.source, existing.fingerprint
        resize, dtype = resize or held.get("resize"), dtype or held.get("dtype")
        data = Path(source["source"])
        class_map = class_map or source.get("class_map", [])
    if data is None:
        data = example.write_digits(workspace.CACHE_DIR / "example" / "digits")
        backbone = backbone or DIGITS
    images = load_images(data, class_map=parse_class_map(list(class_map)))
    encoder: Encoder
    if backbone == Origin.PIXELS:
        if not set(layers) <= {"avg_pool", "pixels"}:
            raise UsageError(f"--backbone pixels has one layer, 'pixels'; received {', '.join(layers)}.")
        encoder, encoder_source = PixelEncoder(), {"backbone": Origin.PIXELS}
        if input_size is not None:
            raise UsageError(
                f"--backbone pixels is always {'x'.join(map(str, encoder.input_size))}, so that it compares."
            )
    else:
        known = source.get("encoder", {})
        if backbone is None and origin_of(known) is Origin.KERAS:
            spec = BackboneSpec.from_dict(known)
        else:
            spec = BackboneSpec(backbone or DEFAULT_BACKBONE, weights, input_size, preprocess, seed)
        encoder, encoder_source = (
            KerasEncoder(
                spec,
                names,
                runtime=runtime,
                resize=resize or RESIZE,
                dtype=dtype or "float32",
                batch_size=batch_size,
                n_threads=n_threads,
            ),
            spec.to_dict(),
        )
    path = cache or default_cache_path(images, encoder.name, encoder.fingerprint)
    origin = {"encoder": encoder_source, "class_map": list(class_map)}
    return ExtractionJob(images, encoder, origin, path, [*images.notes, *_warnings(encoder_source)])


def _warnings(encoder_source: dict[str, Any]) -> list[str]:
    is_random = encoder_source.get("weights") == "random" and encoder_source.get("backbone") != DIGITS
    return ["RANDOM WEIGHTS: this backbone has learned nothing; accuracies say nothing about it"] if is_random else []


def default_cache_path(images: ImageSet, encoder_name: str, fingerprint: Mapping[str, Any]) -> Path:
    """Return ``cache/DATA-BACKBONE-XXXXXXXX.h5``; other data or another fingerprint give another name."""
    identity = digest({**fingerprint, "source": str(images.source)})
    return CACHE_DIR / f"{safe_name(images.name)}-{safe_name(encoder_name)}-{identity}.h5"
