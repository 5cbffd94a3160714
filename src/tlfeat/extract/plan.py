"""What was asked for becomes a job: images, encoder, cache. The defaults of ``tlfeat extract`` live here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tlfeat import workspace
from tlfeat.backbones.encoder import Encoder, PixelEncoder
from tlfeat.backbones.graph import POOLS, TOKEN_POOLS
from tlfeat.backbones.hub import check_hub
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS, BackboneSpec
from tlfeat.backbones.precision import FLOAT32, KINDS, check_precision, kind_of
from tlfeat.backbones.text_catalog import is_text_backbone
from tlfeat.backbones.text_encoder import TextEncoder, TextSpec, check_text_options
from tlfeat.backbones.weights_files import check_weights_file, layer_names
from tlfeat.cache.contents import Origin, check_not_joined, origin_of
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, UsageError, nearest, unknown_layer
from tlfeat.extract.job import ExtractionJob as ExtractionJob
from tlfeat.images import example
from tlfeat.images.classes import parse_class_map
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.images.open_store import is_store
from tlfeat.images.resizing import RESIZES
from tlfeat.images.shards import parse_shard, shard_named
from tlfeat.text import counted
from tlfeat.texts.text_set import load_texts, looks_like_texts
from tlfeat.types import ROW_TYPES, StrPath
from tlfeat.workspace import CACHE_DIR, digest, safe_name

#: Of a folder of shards that has the name of what would be one cache.
SHARDS_SUFFIX = ".shards"

DEFAULT_BACKBONE = "mobilenet_v2"  # 14 MB of weights, 1,280 columns, the fastest per image that is still good


class EncoderOptions(TypedDict, total=False):
    """Which network embeds the images, and how; what is left out or None has the default beside it."""

    backbone: str | None  # `DEFAULT_BACKBONE`, or that of the cache
    weights: str  # "imagenet"
    pool: str | None  # "avg"
    preprocess: str | None  # the backbone's own
    input_size: tuple[int, int] | None  # height and width in pixels; the backbone's own
    resize: str | None  # the backbone's own, or that of the cache
    dtype: str | None  # "float32", or that of the cache
    precision: str | None  # "float32", or that of the cache
    runtime: str  # "auto"
    batch_size: int | None  # what the runtime likes best
    n_threads: int | None  # one a core
    seed: int  # 0; of random weights


def plan_extraction(
    data: StrPath | None = None,
    *,
    layers: Sequence[str] = ("avg_pool",),
    class_map: Sequence[str] = (),
    classes: Sequence[str] = (),
    label_from: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    domain_column: str | None = None,
    domains: bool = False,
    text_column: str | None = None,
    cache: StrPath | None = None,
    shard: str | None = None,
    is_dealt: bool = False,
    **options: Unpack[EncoderOptions],
) -> ExtractionJob:
    r"""Decide what to embed, with what, into which file.

    Parameters
    ----------
    data : str or path, optional
        Images. By default those of the named cache if it exists, with its backbone; else the built-in example, with
        its own small backbone.
    layers : sequence of str, default=("avg_pool",)
        Where to embed, in one pass.
    class_map : sequence of str
        Classes to rename, such as ``"Hot dog=hotdog"``, or a pattern such as ``r"(.*?)_.*=\1"``.
    classes : sequence of str
        Classes to take, as they are called then; all by default.
    label_from : str, optional
        Labels from names of files: "name", "parent" or a regular expression with one group.
    path_column, label_column, domain_column, text_column : str, optional
        Of a table.
    domains : bool, default=False
        Whether the first folders are domains: DOMAIN/CLASS/...
    cache : str or path, optional
        A name under ``cache/`` by default, made from the data and the encoder.
    shard : str, optional
        Such as "3/64": only the images whose paths belong to that shard. `cache` is then the folder of all shards.
    is_dealt : bool, default=False
        Other processes get shards dealt: `cache` is the folder of all shards, and a folder is not looked through here.
    **options
        Of the encoder; see `EncoderOptions`.

    Raises
    ------
    UsageError
        An option that is unknown, or two that contradict each other.
    DataError
        There are no images.
    """
    if unknown := set(options) - EncoderOptions.__annotations__.keys():
        raise TypeError(f"plan_extraction() has no option '{min(unknown)}'.")
    if isinstance(file := options.get("backbone"), os.PathLike):
        options["backbone"] = os.fspath(file)
    _check(options, layers)
    cache = None if cache is None else Path(cache)
    part = parse_shard(shard) if shard is not None else None
    if part and is_dealt:
        raise UsageError("--ray works on all shards, and --shard names one. Leave one of them out.")
    if (part or is_dealt) and cache and (cache.is_file() or cache.suffix == ".h5"):
        option = "--ray" if is_dealt else "--shard"
        raise UsageError(f"With {option}, --cache names the folder of all shards; {cache} is a file.")
    held_by = cache / part.file_name if part and cache else _first_shard(cache) if is_dealt and cache else cache
    source: dict[str, Any] = {}
    reading: dict[str, Any] = {"class_map": list(class_map), "classes": list(classes), "label_from": label_from}
    reading |= {"path_column": path_column, "label_column": label_column, "text_column": text_column}
    reading |= {"domain_column": domain_column, "domains": domains}
    if data is None and held_by is not None and held_by.exists():
        with open_cache(held_by) as existing:
            check_not_joined(existing)
            source, held = existing.source, existing.fingerprint
        options["resize"] = options.get("resize") or held.get("resize")
        options["dtype"] = options.get("dtype") or held.get("dtype")
        options["precision"] = options.get("precision") or kind_of(held.get("precision", FLOAT32))
        if not source.get("source"):
            raise DataError(
                f"{held_by} does not say where its images are: name them, tlfeat extract DATA --cache {cache}."
            )
        data = source["source"]
        reading = {name: value or source.get(name) for name, value in reading.items()}
    if data is None:
        data = example.write_digits(workspace.CACHE_DIR / "example" / "digits")
        options["backbone"] = options.get("backbone") or DIGITS
    known = source.get("encoder", {})
    is_of_texts = is_text_backbone(options.get("backbone") or known.get("backbone"))
    if is_dealt and is_of_texts:
        raise UsageError("--ray embeds images. For texts on many machines, run tlfeat extract --shard K/N on each.")
    images = _read_texts(data, reading) if is_of_texts else _read(data, reading, is_listed=not is_dealt)
    encoder, encoder_source = _make_encoder(options, layers, known=known)
    wanted = _wanted_precision(options, encoder, is_shard=part is not None, is_dealt=is_dealt)
    paths = {kind: cache or _default_path(images, encoder, kind) for kind in KINDS}
    if part or is_dealt:
        paths = {kind: cache or path.with_suffix(SHARDS_SUFFIX) for kind, path in paths.items()}
    whole = images
    if part:
        images, paths = part.of(images), {kind: path / part.file_name for kind, path in paths.items()}
    origin = {"encoder": encoder_source, "class_map": [], **{name: value for name, value in reading.items() if value}}
    if is_of_texts:
        origin["holds"] = images.holds
    notes = [*images.notes, *_warnings(encoder_source)]
    path = paths.get(wanted, paths[FLOAT32])
    return ExtractionJob(images, encoder, origin, path, notes, part, wanted, paths, whole)


def _wanted_precision(options: EncoderOptions, encoder: Encoder, *, is_shard: bool, is_dealt: bool) -> str:
    """Return the precision that is asked for; an error where this encoder, or this way of working, has it not."""
    wanted = options.get("precision") or FLOAT32
    check_precision(wanted)
    if wanted == FLOAT32:
        return wanted
    if not isinstance(encoder, KerasEncoder):
        raise UsageError(f"--precision {wanted} is for backbones of images; {encoder.name} computes in float32.")
    if options.get("runtime") == "tensorflow":
        raise UsageError(f"--precision {wanted} is for OpenVINO. Leave --runtime tensorflow out.")
    if is_dealt:
        raise UsageError(
            f"--ray embeds in float32. Run tlfeat extract --shard K/N --precision {wanted} on each machine."
        )
    if wanted == "auto" and is_shard:
        raise UsageError("All shards get one precision: name it, --precision int8 or bfloat16, instead of auto.")
    return wanted


def _default_path(images: ImageSet, encoder: Encoder, kind: str) -> Path:
    if kind == FLOAT32:
        return default_cache_path(images, encoder.name, encoder.fingerprint)
    return default_cache_path(images, f"{encoder.name}-{kind}", {**encoder.fingerprint, "precision": kind})


def _first_shard(folder: Path) -> Path | None:
    return min((path for path in folder.glob("*.h5") if shard_named(path.name)), default=None)


def _read(data: StrPath, reading: Mapping[str, Any], *, is_listed: bool = True) -> ImageSet:
    """Return the images; an error where a table names files none of which is there, before a network is built.

    Of a folder only where it is, unless `is_listed`.
    """
    if reading["text_column"]:
        raise UsageError("--text-column names texts: add --backbone minilm --weights FOLDER, or another text encoder.")
    of_images = {name: value for name, value in reading.items() if name != "text_column"}
    if not is_listed and not is_store(data) and Path(data).is_dir():
        root = Path(data).resolve()
        return ImageSet(root, root, [], [], [], [])
    try:
        images = load_images(data, **{**of_images, "class_map": parse_class_map(reading["class_map"] or [])})
    except DataError as error:
        if is_store(data):
            raise
        data = Path(data)
        if data.is_dir() and looks_like_texts(data):  # or there is a note among folders that are empty
            raise DataError(f"{error} If these texts are meant: --backbone minilm --weights FOLDER.") from error
        if data.exists() and looks_like_texts(data):
            raise UsageError(
                f"{data} holds texts, and this backbone embeds images. Add --backbone minilm --weights FOLDER "
                f"(docs/text.md says where to get one)."
            ) from error
        raise
    if (
        images.store is None
        and images.source.is_file()
        and not any(images.file(i).exists() for i in range(len(images)))
    ):
        raise DataError(
            f"{data}: none of its {counted(len(images), 'file')} is there; the first is '{images.paths[0]}'. Paths "
            f"count from the folder of the table ({images.root}); files were looked for by name below it, too."
        )
    return images


def _read_texts(data: StrPath, reading: Mapping[str, Any]) -> ImageSet:
    if is_store(data):
        raise UsageError(f"Texts are read from folders and tables of this machine; copy {data} here first.")
    if reading["path_column"]:
        raise UsageError("--path-column names files of images; the column of texts is --text-column NAME.")
    of_texts = {name: value for name, value in reading.items() if name != "path_column"}
    return load_texts(data, **{**of_texts, "class_map": parse_class_map(reading["class_map"] or [])})


def _check(options: EncoderOptions, layers: Sequence[str]) -> None:
    """Raise for what can be refused before any image is looked for."""
    backbone = options.get("backbone")
    if not isinstance(backbone, str | None):
        raise UsageError(
            f"A cache is made by a backbone that can be built again, by name or from a file; received "
            f"{type(backbone).__name__}. Save a Keras model, model.save('my.keras'), and name the file; or use "
            f"tlfeat.embed()."
        )
    if is_text_backbone(backbone):
        check_text_options(options)
    pool, resize, dtype = options.get("pool"), options.get("resize"), options.get("dtype")
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


def _make_encoder(
    options: EncoderOptions, layers: Sequence[str], *, known: dict[str, Any]
) -> tuple[Encoder, dict[str, Any]]:
    """Return the encoder and what describes it in a cache; `known` describes that of the named cache."""
    backbone, input_size = options.get("backbone"), options.get("input_size")
    if backbone == Origin.PIXELS or (backbone is None and origin_of(known) is Origin.PIXELS):
        return _pixel_encoder(layers, input_size), {"backbone": Origin.PIXELS}
    if is_text_backbone(backbone) or (backbone is None and origin_of(known) is Origin.TEXT):
        return _text_encoder(options, layers, known)
    if backbone is None and origin_of(known) is Origin.KERAS:
        spec = BackboneSpec.from_dict(known)
    else:
        spec = BackboneSpec(
            backbone or DEFAULT_BACKBONE,
            options.get("weights", "imagenet"),
            input_size,
            options.get("preprocess"),
            options.get("seed", 0),
        )
    _check_network(spec, layers, options.get("pool"))
    encoder = KerasEncoder(
        spec,
        [spec.embedding_name(layer, options.get("pool")) for layer in layers],
        runtime=options.get("runtime", "auto"),
        resize=options.get("resize"),
        dtype=options.get("dtype") or "float32",
        batch_size=options.get("batch_size"),
        n_threads=options.get("n_threads"),
    )
    return encoder, spec.to_dict()


def _text_encoder(
    options: EncoderOptions, layers: Sequence[str], known: dict[str, Any]
) -> tuple[Encoder, dict[str, Any]]:
    backbone, weights = options.get("backbone"), options.get("weights", "imagenet")
    if weights == "imagenet" and backbone in (None, known.get("backbone")):
        weights = str(known.get("weights", ""))  # those of the cache
    spec = TextSpec(backbone or str(known.get("backbone")), weights)
    encoder = TextEncoder(
        spec,
        layers,
        runtime=options.get("runtime", "auto"),
        dtype=options.get("dtype") or "float32",
        batch_size=options.get("batch_size"),
        n_threads=options.get("n_threads"),
    )
    return encoder, spec.to_dict()


def _check_network(spec: BackboneSpec, layers: Sequence[str], pool: str | None) -> None:
    """Raise for weights and layers that files show to be wrong, before a network is built."""
    if spec.hub is not None:
        check_hub(spec.hub, spec.weights, spec.size, layers, spec.mode if spec.preprocess is None else None)
        return
    if pool in TOKEN_POOLS:
        raise UsageError(f"--pool {pool} is for transformers: {spec.name} has no CLS token. Use --pool avg.")
    if spec.model_file is None:
        if spec.weights not in ("imagenet", "random"):
            check_weights_file(Path(spec.weights), spec.backbone)
        return
    if (known := layer_names(spec.model_file)) is None:
        return
    for name in (layer.partition(":")[0] for layer in layers):
        if name not in (*known, "avg_pool"):
            raise unknown_layer(name, known, of=spec.name)


def _pixel_encoder(layers: Sequence[str], input_size: tuple[int, int] | None) -> PixelEncoder:
    if not set(layers) <= {"avg_pool", "pixels"}:
        raise UsageError(f"--backbone pixels has one layer, 'pixels'; received {', '.join(layers)}.")
    encoder = PixelEncoder()
    if input_size is not None:
        raise UsageError(f"--backbone pixels is always {'x'.join(map(str, encoder.input_size))}, so that it compares.")
    return encoder


def _warnings(encoder_source: dict[str, Any]) -> list[str]:
    is_random = encoder_source.get("weights") == "random" and encoder_source.get("backbone") != DIGITS
    return ["RANDOM WEIGHTS: this backbone has learned nothing; accuracies say nothing about it"] if is_random else []


def default_cache_path(images: ImageSet, encoder_name: str, fingerprint: Mapping[str, Any]) -> Path:
    """Return ``cache/DATA-BACKBONE-XXXXXXXX.h5``; other data or another fingerprint give another name."""
    identity = digest({**fingerprint, "source": images.named})
    return CACHE_DIR / f"{safe_name(images.name)}-{safe_name(encoder_name)}-{identity}.h5"
