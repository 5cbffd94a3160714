"""An extraction that is decided: these images, this encoder, this cache; what runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.precision import FLOAT32
from tlfeat.errors import DataError
from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.extract.precision import settle
from tlfeat.extract.reference import embed_reference
from tlfeat.images.image_set import ImageSet
from tlfeat.images.labels import Advice, advise
from tlfeat.images.shards import Shard
from tlfeat.types import OnProgress, silent


@dataclass(frozen=True, slots=True)
class ExtractionJob:
    """Everything that `extract_rows` needs, decided; ``notes`` are what the user should not miss.

    Attributes
    ----------
    wanted : str
        A precision that is still to be settled, with the encoder at float32; float32 where nothing is.
    paths : mapping of str to Path
        The cache for each kind of precision.
    whole : ImageSet, optional
        All images, where `images` are those of a shard.
    """

    images: ImageSet
    encoder: Encoder
    origin: dict[str, Any]
    cache_path: Path
    notes: list[str] = field(default_factory=list)
    shard: Shard | None = None
    wanted: str = FLOAT32
    paths: Mapping[str, Path] = field(default_factory=dict)
    whole: ImageSet | None = None

    @property
    def advice(self) -> Advice:
        """Why nothing can be fitted on these images, and what helps."""
        return advise(self.images.paths, self.images.labels)

    @property
    def n_testable_classes(self) -> int:
        """How many classes have two images or more; a smaller one takes no part in fitting."""
        return sum(n > 1 for label, n in Counter(self.images.labels).items() if label)

    def require_classes(self) -> None:
        """Raise `DataError` where the images have fewer than two classes, for commands that could not go on."""
        if (missing := self.advice).why:
            add = ["--label-from", missing.label_from] if missing.label_from else []
            raise DataError(f"{self.images.named}: {missing.why}.", add=add)

    def run(self, **options: Any) -> ExtractReport:
        """Run it; `options` are those of `extract_rows`. An encoder that had work embeds reference images too.

        Rows are copied from other caches beside this one and under ``cache/``, unless `known_in` names others.
        """
        speaking = {name: options[name] for name in ("say", "on_progress") if name in options}
        job = self.settled(**speaking)
        options = {"known_in": workspace.other_caches(job.cache_path), **options}
        report = extract_rows(job.images, job.encoder, job.cache_path, origin=job.origin, **options)
        if report.n_embedded and job.images.holds == "images":
            embed_reference(job.encoder, job.cache_path)
        return report

    def settled(
        self, *, say: Callable[[str], None] = lambda _: None, on_progress: OnProgress = silent
    ) -> ExtractionJob:
        """Return the job with an encoder at the precision that is wanted: a network is tried, and made int8, once."""
        if self.wanted == FLOAT32 or not isinstance(self.encoder, KerasEncoder):
            return self
        found = settle(
            self.encoder, self.wanted, self.whole or self.images, self.paths, say=say, on_progress=on_progress
        )
        origin = {**self.origin, **found.record}
        return replace(self, encoder=found.encoder, cache_path=found.path, origin=origin, wanted=FLOAT32)
