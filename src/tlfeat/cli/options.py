"""Options that several commands share, each written once; a dataclass is a group of them (see `console.command`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlfeat.errors import UsageError

if TYPE_CHECKING:
    from tlfeat.evaluate.data import Data

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")]

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]

VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print details to stderr.")]

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FILE.h5", help="The cache. Default: the newest one under cache/."),
]

NewCacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE.h5",
        help="The cache to write. Default: a name under cache/ made from the data and the backbone.",
    ),
]

LayerOption = Annotated[
    str | None,
    typer.Option("--layer", metavar="LAYER", help="Layer of the embeddings. Default: avg_pool, or the only layer."),
]

SeedOption = Annotated[int, typer.Option("--seed", help="Random seed of the split and of the fit.")]

FractionOption = Annotated[
    float, typer.Option("--test-fraction", help="Share of each class to test on, if the data has no test split.")
]

TestSplitOption = Annotated[
    str | None,
    typer.Option(
        "--test-split",
        metavar="NAME",
        help="The given split to test on: test, val, or none (draw one from train). Default: test, else val.",
    ),
]

FreshOption = Annotated[bool, typer.Option("--fresh", help="Fit again even if an equal result exists.")]

OutputOption = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Folder for the reports. Default: cache/reports/...")
]

PlotsOption = Annotated[
    Path | None, typer.Option("--plots", metavar="DIR", help="Also write the charts here, as PNG and SVG files.")
]

PixelsOption = Annotated[
    bool, typer.Option("--pixels/--no-pixels", help="Include the humble baseline: raw pixels, or TF-IDF of texts.")
]

TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load a joblib head. It can run code: use it only if you trust its author.")
]

ModelArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Model folder written by fit-sklearn or fit-keras, or a name from `tlfeat models`. Default: the best "
        "model of the last split of the cache."
    ),
]

DataArgument = Annotated[
    str | None,
    typer.Argument(
        help="Folder of class folders, folder of train/val/test folders, or CSV file (columns path and label; see "
        "--path-column); a .zip, .tar, .parquet or .arrow of images; or a URL: s3://, gs://, az://, https://. Default: "
        "the built-in example."
    ),
]

InputSizeOption = Annotated[
    str | None,
    typer.Option("--input-size", metavar="HxW", help="Height and width in pixels. Default: the backbone's own."),
]

EpochsOption = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=0,
        help="Maximum number of epochs; early stopping usually ends before. 0: 20 epochs and at least 500 steps; "
        "from scratch 30 and 800. Default: 0.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """Which cache, and which of its images are for testing."""

    cache: CacheOption = None
    test_fraction: FractionOption = 0.2
    test_split: TestSplitOption = None
    seed: SeedOption = 0

    def open(self, say: Callable[[str], None], path: Path | None = None) -> AbstractContextManager[Data]:
        """Open the cache at `path`, else the named one, else the newest, with its split."""
        from tlfeat import workspace
        from tlfeat.evaluate.data import open_data

        path = path or self.cache or workspace.newest_cache()
        return open_data(path, seed=self.seed, test_fraction=self.test_fraction, test_split=self.test_split, say=say)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneOptions:
    """Which network, and how pixels reach it."""

    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help="A name from `tlfeat backbones`, or your model FILE.keras. Default: mobilenet_v2."
        ),
    ] = None
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess", help="Scaling of pixels: tf, caffe, torch, clip, 0-1 or none. Default: the backbone's own."
        ),
    ] = None
    input_size: InputSizeOption = None

    def given(self) -> dict[str, Any]:
        """Return what was asked for, by the names that `plan_extraction` has for it."""
        return given_of({**values_of(self), "input_size": parse_size(self.input_size)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions(BackboneOptions):
    """What is wanted of images beside the backbone."""

    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="WHAT",
            help="imagenet (the backbone's own, downloaded once), random, a file; of a transformer or a text encoder "
            "a folder or hf://ORG/NAME.",
        ),
    ] = "imagenet"
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--class-map",
            metavar="OLD=NEW",
            help="Rename a class. OLD may be a regular expression for whole names, such as '(.*?)_.*=\\1'. May be "
            "repeated.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="A,B,...", help="Take the images of these classes only. Default: all."),
    ] = None
    label_from: Annotated[
        str | None,
        typer.Option(
            "--label-from",
            metavar="HOW",
            help="Take labels from file names: name (cat.0.jpg is cat), parent (the folder right above), or a regular "
            "expression with one group for the path. Default: class folders, or the label column.",
        ),
    ] = None
    path_column: Annotated[
        str | None,
        typer.Option(
            "--path-column",
            metavar="NAME",
            help="Column of a CSV with the files (default: path, filename, file, filepath, image or image_path), or of "
            "a Parquet or Arrow file with the images.",
        ),
    ] = None
    label_column: Annotated[
        str | None,
        typer.Option(
            "--label-column",
            metavar="NAME",
            help="Column of a CSV with the labels. Default: label, class, category or target.",
        ),
    ] = None
    domain_column: Annotated[
        str | None,
        typer.Option(
            "--domain-column",
            metavar="NAME",
            help="Column of a CSV that says where each image comes from: a camera, a hospital. Default: domain.",
        ),
    ] = None
    domains: Annotated[
        bool, typer.Option("--domains", help="The first folders are domains, and class folders lie in them.")
    ] = False

    def given(self) -> dict[str, Any]:
        """Return what was asked for, by the names that `plan_extraction` has for it."""
        from tlfeat.images.classes import parse_classes

        names = parse_classes(self.classes) if self.classes is not None else None
        return given_of({**BackboneOptions.given(self), "classes": names})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions(ImageOptions):
    """How images become the rows of a cache."""

    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            help="Pooling of layers with height and width: avg, max, gem or flatten; of tokens also cls and cls+avg.",
        ),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            "--resize",
            help="antialias, crop, crop-full, bicubic, load_img, dataset or quick. Default: the network's own way.",
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", help="Type of the stored embeddings: float32, or float16 at half the size. Default: float32."
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="float32; bfloat16, on processors that have it; int8 (pip install tlfeat[int8]); or auto, the fastest "
            "whose rows are as good on these images. Default: float32.",
        ),
    ] = None
    runtime: Annotated[
        str,
        typer.Option("--runtime", help="openvino, tensorflow, or auto (OpenVINO; TensorFlow if there is a GPU)."),
    ] = "auto"
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column",
            metavar="NAME",
            help="Column of a table with the texts, for a text encoder. Default: text, sentence, content, body, "
            "message, review or document.",
        ),
    ] = None
    cache: NewCacheOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What the page of a comparison shows, and where it goes."""

    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE.html", help="File of the page. Default: comparison.html in the folder of --output."
        ),
    ] = None
    plots: PlotsOption = None
    maps: Annotated[
        str,
        typer.Option(
            "--map", help="Maps of the embeddings: comma-separated pca, tsne, umap (if installed); or all, or none."
        ),
    ] = "pca,tsne"
    output: OutputOption = None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of ``224x224``."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or (width and not width.isdecimal()) or int(height) < 1:
        raise UsageError(f"--input-size wants HEIGHTxWIDTH such as 224x224, received '{text}'.")
    return int(height), int(width or height)


def parse_list(text: str, every: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a comma-separated list, of ``all`` or of ``none``."""
    return every if text == "all" else () if text == "none" else tuple(t.strip() for t in text.split(",") if t.strip())


def values_of(options: Any) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def given_of(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
