"""A backbone with the BatchNorm statistics of one domain: another encoder, as a file, and the rows that it gives.

The file is a whole network that every command takes as ``--backbone FILE.keras``; a description lies beside it. It is
kept by what it was made of, so that the same images of the same backbone are measured once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat import workspace
from tlfeat.backbones.batch_norm import adapt_batch_norm, batch_norms
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec, build_base, weights_digest
from tlfeat.backbones.network_file import save_network
from tlfeat.backbones.precision import kind_of
from tlfeat.cache.contents import Origin, choose_layers, origin, spec_of
from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import BadImage, CacheError, DataError, TlfeatError, UsageError
from tlfeat.extract.extract import extract_rows
from tlfeat.images.decode import Decoded, Picture, decode_all, read_file
from tlfeat.images.image_set import content_key
from tlfeat.types import OnProgress, silent

#: Changes when the way of measuring does, so that networks of an older tlfeat are measured again.
MEASURING = 1

#: More images are measured on so many of them: the first by content key, which is as good as drawn by lot.
MAX_IMAGES = 1000

#: Of what is measured, against the backbone's own statistics: half of each gave better rows than either alone on both
#: networks (docs/benchmarks/adabn.md); its weights were trained with the old ones.
WEIGHT = 0.5

#: 32 images of a domain gave as good rows as 140; of 8 the rows were worse than with nothing done (the same page).
MIN_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Adapted:
    """A network that was measured on other images.

    Attributes
    ----------
    spec : BackboneSpec
        Of its file.
    made_of : dict
        Its description, JSON values: ``what`` in words, ``base`` (the digest of the weights it came from and how they
        are found), ``domain``, ``n_images`` and ``keys`` (digest of their content keys), ``n_layers``, ``weight``,
        ``preprocess``, ``resize``, ``weights`` (its own digest).
    failures : list of (path, reason)
        Images that could not be read; nothing of them is in it.
    is_reused : bool
        Whether it was there.
    """

    spec: BackboneSpec
    made_of: dict[str, Any]
    failures: list[tuple[str, str]]
    is_reused: bool


def adapt_network(
    spec: BackboneSpec,
    images: Mapping[str, Picture],
    *,
    resize: str | None = None,
    domain: str = "",
    weight: float = WEIGHT,
    folder: Path | None = None,
    on_progress: OnProgress = silent,
) -> Adapted:
    """Measure the BatchNorm statistics of a backbone again, on images of one domain, without labels.

    Parameters
    ----------
    spec : BackboneSpec
        Of the network to start from.
    images : mapping of str to path or callable
        By the name to call each by. Order does not matter, copies count once.
    resize : str, optional
        As for the rows; the backbone's own by default.
    domain : str
        What to call it.
    weight : float, default=0.5
        See `adapt_batch_norm`.
    folder : Path, optional
        ``cache/adabn`` by default.
    on_progress : callable, optional

    Raises
    ------
    WeightsError
        The network has no BatchNorm layer, or cannot be built.
    UsageError
        The weight is no share.
    DataError
        Fewer than `MIN_IMAGES` different images can be read.
    """
    if not 0 < weight <= 1:
        raise UsageError(f"The weight of the new statistics is above 0 and at most 1, received {weight}.")
    resize = resize or spec.own_resize
    keys, failures = _keys_of(images)
    digest = weights_digest(spec)
    identity = {
        "base": {"network": "" if spec.is_own_model else spec.backbone, "digest": digest, "size": spec.size},
        "preprocess": spec.mode,
        "resize": resize,
        "images": sorted(keys),
        "weight": weight,
        "measuring": MEASURING,
    }
    parts = (spec.name, domain, workspace.digest(identity))
    name = "-".join(workspace.safe_name(part) for part in parts if part)
    file = (folder or workspace.CACHE_DIR / "adabn") / f"{name}.keras"
    adapted = replace(spec, backbone=str(file), weights="imagenet", input_size=spec.size, preprocess=spec.mode)
    if (known := _read_description(adapted)) is not None:
        bad = known.pop("failed")
        failures += [(path, bad[key]) for key, path in keys.items() if key in bad]
        return Adapted(adapted, known, failures, is_reused=True)
    network = build_base(spec, spec.size)
    batch_norms(network)  # before a thousand pictures are decoded
    decoded = _decode(images, keys, spec.size, resize, on_progress)
    bad = {each.key: each.error for each in decoded if each.pixels is None}
    failures += [(keys[key], reason) for key, reason in bad.items()]
    pixels = [each.pixels for each in decoded if each.pixels is not None]
    if len(pixels) < MIN_IMAGES:
        first = f"; the first that cannot be read: {': '.join(failures[0])}" if failures else ""
        of = f"the domain {domain}" if domain else "a domain"
        raise DataError(
            f"BatchNorm statistics of {of} take {MIN_IMAGES} different images at least, received {len(pixels)}{first}."
        )
    n_layers = adapt_batch_norm(network, np.stack(pixels), spec.mode, weight=weight, on_progress=on_progress)
    made_of: dict[str, Any] = {
        "what": f"BatchNorm statistics of {domain or 'other images'}",
        "base": {**spec.to_dict(), "digest": digest},
        "domain": domain,
        "n_images": len(pixels),
        "keys": workspace.digest({"keys": [each.key for each in decoded if each.key not in bad]}, 64),
        "n_layers": n_layers,
        "weight": weight,
        "preprocess": spec.mode,
        "resize": resize,
    }
    try:
        with workspace.written_together(file) as new:
            save_network(network, new)
            made_of["weights"] = weights_digest(replace(adapted, backbone=str(new)))
            workspace.write_json(new.with_suffix(".json"), {**made_of, "failed": bad})
    except OSError as error:
        raise CacheError(f"Cannot write {file}: {error.strerror or error}.") from error
    return Adapted(adapted, made_of, failures, is_reused=False)


@contextmanager
def open_adapted(
    cache: Cache,
    measured_at: Sequence[int],
    rows_at: Sequence[int],
    *,
    layers: Sequence[str] | str | None = None,
    domain: str = "",
    weight: float = WEIGHT,
    runtime: str = "auto",
    on_progress: OnProgress = silent,
) -> Iterator[Cache]:
    """Open a cache of rows from the backbone of another cache, with the BatchNorm statistics of some of its images.

    It lies under ``cache/adabn/``, is brought up to date before, and says in ``source["encoder"]["adapted"]`` what it
    was made of. Keys of rows are those of `cache`.

    Parameters
    ----------
    cache : Cache
        Of a Keras backbone with BatchNorm.
    measured_at, rows_at : sequence of int
        Lines of its path table: the images that are measured, without their labels, and those that get rows. Images
        that had failed are passed over.
    layers : sequence of str, optional
        As `choose_layers` takes them.
    domain, weight
        See `adapt_network`.
    runtime : str, default="auto"
        See `KerasEncoder`.

    Raises
    ------
    DataError
        The cache was not made by such a backbone, or images have gone or changed.
    WeightsError
        The backbone has no BatchNorm.
    """
    if origin(cache) is not Origin.KERAS:
        raise DataError(f"{cache.path} was not made by a Keras backbone: there are no BatchNorm statistics to adapt.")
    spec, held, table = spec_of(cache), cache.fingerprint, cache.table
    if held.get("precision"):
        raise DataError(
            f"{cache.path} holds rows in {kind_of(held['precision'])}; BatchNorm is adapted in float32 alone."
        )
    if weights_digest(spec) != held.get("weights"):
        raise CacheError(f"The weights of {spec.name} are not those that {cache.path} was made with.")
    measured_at, rows_at = ([i for i in at if table.status[i] == "ok"] for at in (measured_at, rows_at))
    names = choose_layers(cache, layers)
    adapted = adapt_network(
        spec,
        {table.images.paths[i]: table.images.content(i) for i in measured_at},
        resize=held["resize"],
        domain=domain,
        weight=weight,
        on_progress=on_progress,
    )
    if adapted.failures:
        raise DataError(f"An image cannot be read any more: {': '.join(adapted.failures[0])}.")
    path = Path(adapted.spec.backbone).with_name(f"{workspace.safe_name(cache.stem)}-{adapted.spec.name[-8:]}.h5")
    encoder = KerasEncoder(adapted.spec, names, runtime=runtime, resize=held["resize"], dtype=held["dtype"])
    described = {"encoder": {**adapted.spec.to_dict(), "adapted": adapted.made_of}}
    extract_rows(table.images.at(rows_at), encoder, path, origin=described, on_progress=on_progress)
    with open_cache(path, fingerprint=encoder.fingerprint) as opened:
        wanted = {table.keys[i]: table.images.paths[i] for i in rows_at}
        if lost := [wanted[key] for key in wanted if any(key not in opened.known(name) for name in names)]:
            raise DataError(f"{lost[0]} has changed or gone since it was embedded. Run the same tlfeat extract again.")
        yield opened


def _keys_of(images: Mapping[str, Picture]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the name of a picture by its content key, in the order of keys, and those that cannot be read."""
    keys: dict[str, str] = {}
    failures: list[tuple[str, str]] = []
    for name, picture in images.items():
        try:
            keys.setdefault(content_key(picture() if callable(picture) else read_file(picture)), name)
        except BadImage as error:
            failures.append((name, str(error)))
    return dict(sorted(keys.items())), failures


def _decode(
    images: Mapping[str, Picture],
    keys: Mapping[str, str],
    size: tuple[int, int],
    resize: str,
    on_progress: OnProgress,
) -> list[Decoded]:
    """Return the first of the pictures by content key, whose order is that of no user and no file system."""
    found: list[Decoded] = []
    some = [*keys.values()][:MAX_IMAGES]
    for decoded in decode_all(((i, images[name]) for i, name in enumerate(some)), size, resize=resize):
        on_progress("decoding", len(found), len(some))
        found.append(decoded)
    return found


def _read_description(spec: BackboneSpec) -> dict[str, Any] | None:
    """Return the description of a network that is there as it was written; None of any other, which is made again."""
    try:
        found = workspace.read_json(Path(spec.backbone).with_suffix(".json"))
        is_whole = found["weights"] == weights_digest(spec) and isinstance(found["failed"], dict)
    except (OSError, TlfeatError, TypeError, KeyError):
        return None
    return found if is_whole else None
