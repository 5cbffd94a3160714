"""What ``--precision`` asks for becomes an encoder, unless its rows are worse than those of float32.

A network in bfloat16 or int8 gives other rows. Before a new cache is filled with them, they are held against those of
float32 on a few pictures of the set: by their cosine, and by a head fitted on either. What has a median cosine below
`precision.LEAST_COSINE`, or a head that loses more than the noise, is refused with its figures.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tlfeat.backbones.int8 import N_CALIBRATION, calibration_digest, is_installed, need_nncf, quantise
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.precision import BFLOAT16, FLOAT32, INT8, LEAST_COSINE, cosines, has_bfloat16, kind_of
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, FingerprintError, UsageError
from tlfeat.extract.sample import Sample, draw_sample, named_sample, rows_of_sample
from tlfeat.images.image_set import ImageSet
from tlfeat.images.shards import shard_named
from tlfeat.system import processor_name
from tlfeat.types import OnProgress, Rows, silent

#: Pictures beside those of the calibration, for the cosine.
_N_PROBE = 64

#: Below so many pictures "auto" takes float32 unasked: trying takes as long as it could save
#: (docs/benchmarks/precision.md).
LEAST_IMAGES = 5_000

#: "auto" leaves float32 for at least so much of its time an image.
_LEAST_GAIN = 0.10

#: A head that is worse with a smaller p-value than this loses more than the noise.
_SIGNIFICANCE = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tried:
    """A precision against float32 on a few pictures of the set.

    Attributes
    ----------
    cosine : float
        Median over the pictures, of the layer where it is lowest.
    ms, float32_ms : float
        Processor milliseconds that the network takes for an image.
    accuracies : (float, float) or None
        Of a head in cross-validation, on rows of this precision and of float32; None where there are too few labels.
    p_value : float
        One-sided sign test that the head on these rows is not worse.
    """

    precision: str
    cosine: float
    ms: float
    float32_ms: float
    accuracies: tuple[float, float] | None
    p_value: float

    @property
    def is_refused(self) -> bool:
        return not self.cosine >= LEAST_COSINE or self.p_value < _SIGNIFICANCE

    def __str__(self) -> str:
        kind = kind_of(self.precision)
        said = f"{kind} {self.ms:.1f} ms of processor an image, float32 {self.float32_ms:.1f}; median cosine "
        said += f"{self.cosine:.3f}"
        if self.accuracies is not None:
            ours, reference = self.accuracies
            said += f"; heads {100 * ours:.1f} % and {100 * reference:.1f} % right (p {self.p_value:.2f})"
        return said


@dataclass(frozen=True, slots=True)
class Settled:
    """An encoder at the precision that was asked for or chosen, the cache for it, and what that cache says of it."""

    encoder: KerasEncoder
    path: Path
    record: dict[str, Any] = field(default_factory=dict)


def settle(
    encoder: KerasEncoder,
    wanted: str,
    images: ImageSet,
    paths: Mapping[str, Path],
    *,
    say: Say = lambda _: None,
    on_progress: OnProgress = silent,
) -> Settled:
    """Return the encoder at the precision that is wanted.

    Parameters
    ----------
    encoder : KerasEncoder
        At float32.
    wanted : str
        One of `precision.PRECISIONS` other than float32.
    images : ImageSet
        All of them, also where a shard is embedded: each shard is to get the same network.
    paths : mapping of str to Path
        The cache for each kind. One that exists says which network its rows are of.

    Raises
    ------
    UsageError
        The processor does not have it, NNCF is not installed, or OpenVINO does not take the network.
    DataError
        Refused: its rows are worse than those of float32.
    FingerprintError
        The cache holds rows of another precision; or its int8 network is gone, and the pictures that this was
        calibrated on have changed.
    """
    if wanted == "auto":
        return _choose(encoder, images, paths, say, on_progress)
    path = paths[wanted]
    precision, record = _held_by(path)
    if precision and kind_of(precision) != wanted:
        raise FingerprintError(
            f"{path} holds rows in {kind_of(precision)}, not {wanted}. Name another --cache, or leave it out and one "
            f"is chosen."
        )
    if precision:
        again = encoder.at_precision(precision)
        if wanted == INT8 and again.int8_network() is None:
            _calibrate_again(encoder, again, images, record, on_progress)
        return Settled(again, path, {"precision": record})
    tried, at, sample = _try(encoder, wanted, images, on_progress)
    if tried.is_refused:
        raise DataError(
            f"{wanted} is refused for {encoder.name} on {images.named}: {tried}. A cosine of {LEAST_COSINE} or more is "
            f"asked, and a head may lose no more than the noise. Leave --precision out."
        )
    say(str(tried))
    return Settled(at, path, {"precision": _record(wanted, tried, sample)})


def _choose(
    encoder: KerasEncoder, images: ImageSet, paths: Mapping[str, Path], say: Say, on_progress: OnProgress
) -> Settled:
    """Return the fastest of the precisions that pass, or float32; a cache that is there decides."""
    for kind in (INT8, BFLOAT16, FLOAT32):
        held, record = _held_by(paths[kind])
        if kind_of(held) == kind:
            say(f"precision: {kind}, as {paths[kind]} has it")
            if kind == FLOAT32:
                return Settled(encoder, paths[kind], {"precision": record} if record else {})
            return settle(encoder, kind, images, paths, say=say, on_progress=on_progress)
    if not encoder.is_on_openvino:
        say("precision: float32, by TensorFlow on the GPU")
        return Settled(encoder, paths[FLOAT32])
    if len(images) < LEAST_IMAGES:
        say(f"precision: float32; below {LEAST_IMAGES:,} pictures another does not pay for being tried")
        return Settled(encoder, paths[FLOAT32])
    started_s = perf_counter()
    best, best_ms, tried_all, sample_of = encoder, float("inf"), [], dict[str, Sample]()
    kinds = [*([BFLOAT16] if has_bfloat16() else []), *([INT8] if is_installed() else [])]
    for kind in kinds:
        try:
            tried, at, sample = _try(encoder, kind, images, on_progress)
        except (DataError, UsageError) as error:
            say(f"precision: not {kind}: {error}")
            continue
        say(str(tried) + (": refused" if tried.is_refused else ""))
        tried_all.append(tried)
        sample_of[at.precision] = sample
        if not tried.is_refused and tried.ms < min(best_ms, (1 - _LEAST_GAIN) * tried.float32_ms):
            best, best_ms = at, tried.ms
    kind = kind_of(best.precision)
    cost_s = perf_counter() - started_s
    say(f"precision: {kind}, the fastest that passes on this processor ({cost_s:.0f} s to find out)")
    chosen = next((tried for tried in tried_all if tried.precision == best.precision), None)
    record = {} if chosen is None else _record("auto", chosen, sample_of[best.precision])
    record |= {"asked": "auto", "cost_s": cost_s, "processor": processor_name(), "tried": [*map(str, tried_all)]}
    return Settled(best, paths[kind], {"precision": record})


def _held_by(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the precision of a cache and what it says of it, or of another shard in its folder; "" without any."""
    there = path
    if shard_named(path.name) and not path.exists():
        there = next((other for other in sorted(path.parent.glob("*.h5")) if shard_named(other.name)), path)
    if not there.is_file():
        return "", {}
    with open_cache(there) as cache:
        return str(cache.fingerprint.get("precision", FLOAT32)), dict(cache.source.get("precision", {}))


def _try(
    encoder: KerasEncoder, kind: str, images: ImageSet, on_progress: OnProgress
) -> tuple[Tried, KerasEncoder, Sample]:
    """Return how a precision does, the encoder at it, and the pictures that it was calibrated on."""
    if kind == BFLOAT16 and not has_bfloat16():
        raise UsageError("--precision bfloat16 needs a processor that computes in it (AMX, AVX512); this one does not.")
    if kind == INT8:
        need_nncf()
    sample = draw_sample(images, encoder, N_CALIBRATION + _N_PROBE)
    if not len(sample):
        raise DataError(f"No image of {images.named} could be read.")
    n_probe = min(_N_PROBE, max(1, len(sample) // 4))
    calibration = sample.part(0, min(N_CALIBRATION, max(1, len(sample) - n_probe)))
    digest = f":{calibration_digest(calibration.keys)}" if kind == INT8 else ""
    at = encoder.at_precision(kind + digest)
    if kind == INT8:
        _calibrate(encoder, at, calibration, on_progress)
    on_progress(f"trying {kind}", 0, 0)
    reference, float32_s = rows_of_sample(encoder, sample.pixels)
    rows, spent_s = rows_of_sample(at, sample.pixels)
    lowest = min(float(np.median(cosines(rows[name], reference[name])[-n_probe:])) for name in rows)
    accuracies, p_value = _heads(rows[name := encoder.layers[0]], reference[name], sample.labels)
    return Tried(at.precision, lowest, 1000 * spent_s, 1000 * float32_s, accuracies, p_value), at, calibration


def _calibrate(encoder: KerasEncoder, at: KerasEncoder, sample: Sample, on_progress: OnProgress) -> None:
    if at.int8_network() is not None:
        return
    need_nncf()
    if (file := encoder.converted(on_progress)) is None:
        raise UsageError(f"{encoder.name} cannot be made int8. {'; '.join(encoder.notes)}")
    quantise(
        file,
        sample.pixels,
        at.network_file,
        layers=at.layers,
        backbone=encoder.spec.backbone,
        is_transformer=encoder.spec.hub is not None,
        on_progress=on_progress,
    )


def _calibrate_again(
    encoder: KerasEncoder, at: KerasEncoder, images: ImageSet, record: Mapping[str, Any], on_progress: OnProgress
) -> None:
    """Make the network of a cache once more, from the pictures that the cache names."""
    sample = named_sample(images, encoder, record.get("calibration", []))
    if at.precision != f"{INT8}:{calibration_digest(sample.keys)}":
        raise FingerprintError(
            f"The int8 network of these rows is not in {at.networks_dir}, and cannot be made again: pictures that it "
            f"was calibrated on have changed or gone, or NNCF is another version. Copy the network from where the rows "
            f"were made, or name another --cache."
        )
    _calibrate(encoder, at, sample, on_progress)


def _record(asked: str, tried: Tried, calibration: Sample) -> dict[str, Any]:
    return {
        "asked": asked,
        "cosine": tried.cosine,
        "ms": tried.ms,
        "float32_ms": tried.float32_ms,
        "accuracies": tried.accuracies,
        "p_value": tried.p_value,
        **({"calibration": calibration.paths} if tried.precision.startswith(INT8) else {}),
    }


def _heads(rows: Rows, reference: Rows, labels: Sequence[str]) -> tuple[tuple[float, float] | None, float]:
    """Return the accuracies of a head on either rows in five folds, and the p-value that the first is not worse."""
    counts = Counter(label for label in labels if label)
    kept = np.array([counts.get(label, 0) >= 5 for label in labels])
    if len({label for label, is_kept in zip(labels, kept, strict=True) if is_kept}) < 2:
        return None, 1.0
    from scipy.stats import binomtest
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    true = np.array(labels)[kept]
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of heads that have not converged
        right = [cross_val_predict(head, x[kept], true, cv=folds) == true for x in (rows, reference)]
    n_lost, n_won = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    p_value = float(binomtest(n_lost, n_lost + n_won, alternative="greater").pvalue) if n_lost + n_won else 1.0
    return (float(right[0].mean()), float(right[1].mean())), p_value
