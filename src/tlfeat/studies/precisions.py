"""The images of a cache at other precisions: what has to be embedded before they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlfeat.backbones.precision import FLOAT32, KINDS, check_precision, kind_of
from tlfeat.cache.contents import check_not_joined, spec_of
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.extract.plan import ExtractionJob, plan_extraction


def plan_precisions(cache: Path, kinds: Sequence[str]) -> dict[str, ExtractionJob | Path]:
    """Return for each precision what embeds the images of a cache at it, or the cache where it has it itself.

    Parameters
    ----------
    cache : Path
        Made by a Keras backbone.
    kinds : sequence of str
        Of `precision.KINDS`; float32 is always there, since the others are held against it.

    Raises
    ------
    DataError
        The cache was not made by such a backbone, or does not say where its images are.
    UsageError
        No such precision.
    """
    for kind in kinds:
        check_precision(kind)
        if kind not in KINDS:
            raise UsageError(f"--precision {kind} is for tlfeat extract; here precisions are named: all, or {KINDS}.")
    with open_cache(cache) as opened:
        check_not_joined(opened)
        spec, source, held, layers = spec_of(opened), opened.source, opened.fingerprint, list(opened.layers)
    if not source.get("source"):
        raise DataError(f"{cache} does not say where its images are: extract them at each precision, then compare.")
    own = kind_of(held.get("precision", FLOAT32))
    reading: dict[str, Any] = {
        name: source.get(name) for name in ("label_from", "path_column", "label_column", "domain_column")
    }
    described: dict[str, Any] = spec.to_dict()
    found: dict[str, ExtractionJob | Path] = {}
    for kind in KINDS:
        if kind == own:
            found[kind] = cache
        elif kind in (FLOAT32, *kinds):
            found[kind] = plan_extraction(
                source["source"],
                layers=layers,
                class_map=source.get("class_map", []),
                classes=source.get("classes", []),
                domains=source.get("domains", False),
                **reading,
                **described,
                resize=held.get("resize"),
                dtype=held.get("dtype"),
                precision=kind,
            )
    return found
