"""The commands: parse, import late, call one function, print. No logic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tlfeat.cli.console import Console, errors_as_exit_codes
from tlfeat.errors import CacheError, DataError, UsageError
from tlfeat.text import aligned, counted, one_line

app = typer.Typer(
    help="Embed images once with a frozen Keras backbone, fit scikit-learn heads in seconds, compare honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cache_app = typer.Typer(help="Look into a cache, check it, take rows out or bring rows in.", no_args_is_help=True)

app.add_typer(cache_app, name="cache", short_help="Look into a cache; verify, export, import.")

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FILE.h5", help="The cache; the newest one under cache/ by default."),
]

LayerOption = Annotated[
    str | None,
    typer.Option("--layer", help="Layer whose rows are used; avg_pool by default, or the only one."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")]

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks; only results and errors.")]

VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]

SeedOption = Annotated[int, typer.Option("--seed", help="For the split and for everything that is drawn.")]

FractionOption = Annotated[
    float,
    typer.Option("--test-fraction", help="Share of every class for testing, where no test split is given."),
]

FreshOption = Annotated[bool, typer.Option("--fresh", help="Fit again even if an equal result exists.")]

BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="A name from `tlfeat backbones`, or your own model FILE.keras. [mobilenet_v2]"),
]

WeightsOption = Annotated[
    str, typer.Option("--weights", help="imagenet (Keras downloads them once), random, or a file.")
]

PreprocessOption = Annotated[
    str | None, typer.Option("--preprocess", help="Pixel scaling: tf, caffe, torch, 0-1 or none.")
]

InputSizeOption = Annotated[
    str | None,
    typer.Option("--input-size", metavar="HxW", help="Height and width in pixels; the backbone's own by default."),
]

DataArgument = Annotated[
    Path | None,
    typer.Argument(help="Folder of class folders, of train/val/test folders, or CSV. Without: the built-in example."),
]

PoolOption = Annotated[
    str | None,
    typer.Option("--pool", help="How layers with height and width become vectors: avg, max, gem, flatten."),
]

ClassMapOption = Annotated[
    list[str] | None,
    typer.Option("--class-map", metavar="OLD=NEW", help="Rename a class; may be repeated."),
]

CachePathOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FILE.h5", help="Where rows go; by default a name under cache/ of data and backbone."
    ),
]

RuntimeOption = Annotated[
    str,
    typer.Option("--runtime", help="auto (OpenVINO; TensorFlow where a GPU is), openvino or tensorflow."),
]

ResizeOption = Annotated[
    str | None,
    typer.Option("--resize", help="antialias, or as Keras' loaders do: load_img, dataset. [antialias]"),
]

DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="Of the stored rows: float32, or float16 at half the size. [float32]")
]

HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE.html", help="Write the page here, not to comparison.html in --output."),
]

PlotsOption = Annotated[
    Path | None, typer.Option("--plots", metavar="DIR", help="Write the charts there as PNG and SVG files, for papers.")
]

MapOption = Annotated[
    str,
    typer.Option("--map", help="Maps of the embeddings: comma-separated pca, tsne, umap (if installed); all, or none."),
]

OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Folder for the reports; cache/reports/... by default.")
]

RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="One of `tlfeat recipes`; the other options change pieces of it.")
]

AsWrittenOption = Annotated[
    bool, typer.Option("--as-written", help="The recipe to the letter, its slips included (pixels by 1/255).")
]

UnfreezeOption = Annotated[int | None, typer.Option("--unfreeze-last", min=1, help="Train the last N layers too.")]

ScratchOption = Annotated[
    bool | None, typer.Option("--from-scratch", help="Same architecture from random weights.", show_default=False)
]

DenseOption = Annotated[
    str | None,
    typer.Option("--dense", metavar="N,...", help="Units of the hidden layers, such as 512,512; 0: none. [128]"),
]

DropoutOption = Annotated[
    float | None, typer.Option("--dropout", help="After every hidden layer, or before the last layer. [0.2]")
]

AugmentOption = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="HOW",
        help="Change training images at random: none, or such as flip=horizontal,rotation=0.2,zoom=0.2,shear=0.2.",
    ),
]

ViewsOption = Annotated[
    int | None,
    typer.Option("--views", min=0, help="With --augment: take N changed copies of each image, kept at the cut. [0]"),
]

OptimizerOption = Annotated[str | None, typer.Option("--optimizer", help="adam, adamw, rmsprop or sgd. [adam]")]

LossOption = Annotated[
    str | None,
    typer.Option("--loss", help="sparse_categorical_crossentropy, categorical_crossentropy, binary_crossentropy."),
]

RateOption = Annotated[float | None, typer.Option("--learning-rate", help="[1e-3; 1e-4 with --unfreeze-last]")]

HeadEpochsOption = Annotated[
    int | None,
    typer.Option("--head-epochs", min=0, help="Two phases: the head alone for N epochs, then --unfreeze-last. [0]"),
]

HeadRateOption = Annotated[
    float | None, typer.Option("--head-learning-rate", help="In the first of two phases. [1e-3]")
]

PlateauOption = Annotated[
    int | None,
    typer.Option(
        "--reduce-on-plateau",
        min=0,
        help="Divide the learning rate by 10 after N epochs without a lower loss. [0]",
    ),
]

EpochsOption = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=0,
        help="At most; the validation loss ends it earlier. 0: 20 and 500 steps; from scratch 30 and 800. [0]",
    ),
]

PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        min=0,
        help="Epochs without a lower validation loss. 0: 3 and 75 steps; from scratch 8 and 200. [0]",
    ),
]

KeepOption = Annotated[
    str | None, typer.Option("--keep", help="Weights of the best epoch by validation loss, or of the last. [best]")
]

BatchNormOption = Annotated[
    bool | None,
    typer.Option(
        "--train-batchnorm", help="BatchNormalization among unfrozen layers learns new statistics.", show_default=False
    ),
]

BatchSizeOption = Annotated[int | None, typer.Option("--batch-size", min=1, help="[32]")]

CutOption = Annotated[
    str | None,
    typer.Option("--cut", help="Keep what crosses the cut as float32 or float16; off: pixels every epoch. [float32]"),
]

CutGbOption = Annotated[
    float, typer.Option("--cut-gb", min=0, help="Take no more disk for it; above that pixels are taken.")
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Embed images once, fit heads in seconds, compare honestly."""
    if version:
        from tlfeat.records import distribution_version

        typer.echo(distribution_version("tlfeat"))
        raise typer.Exit


@app.command(short_help="Images to cached embeddings, each through the network once.")
def extract(
    data: DataArgument = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Layer to embed at; may be repeated (one pass for all). [avg_pool]"),
    ] = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = "imagenet",
    pool: PoolOption = None,
    preprocess: PreprocessOption = None,
    input_size: InputSizeOption = None,
    class_map: ClassMapOption = None,
    cache: CachePathOption = None,
    runtime: RuntimeOption = "auto",
    resize: ResizeOption = None,
    dtype: DtypeOption = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress the rows of a new cache, without loss.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images handed to the network at once.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads that decode and embed; one a core by default.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time went, and what would change it.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A bad image is an error, not a listed skip.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="For --weights random.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run images once through a frozen backbone and cache their embeddings."""
    from tlfeat.cli.console import profile_text
    from tlfeat.extract import plan

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        job = plan.plan_extraction(
            data,
            layers=layer or ["avg_pool"],
            backbone=backbone,
            weights=weights,
            pool=pool,
            preprocess=preprocess,
            input_size=_parse_size(input_size),
            class_map=class_map or [],
            cache=cache,
            resize=resize,
            dtype=dtype,
            runtime=runtime,
            batch_size=batch_size,
            n_threads=threads,
            seed=seed,
        )
        for note in job.notes:
            console.warn(note)
        console.say(
            f"{len(job.images):,} images, {len(job.images.classes)} classes from {job.images.source}"
            + (f" ({job.images.n_passed_over:,} other files passed over)" if job.images.n_passed_over else "")
        )
        console.detail(f"Fingerprint: {dict(job.encoder.fingerprint)}")
        console.say(f"{job.encoder.name} at {', '.join(job.encoder.layers)} into {job.cache_path}")
        report = job.run(n_threads=threads, is_compressed=compress, is_strict=strict, on_progress=progress)
    for note in report.notes:
        console.warn(note)
    spent = report.profile
    console.detail(f"{spent.prepare_s:.1f} s to build the network, {spent.wall_s:.1f} s to embed ({report.runtime})")
    if profile and report.n_embedded:
        console.say(profile_text(dataclasses.asdict(spent), report.n_embedded, report.runtime))
    shown = report.failures if verbose else report.failures[:5]
    for path, reason in shown:
        console.warn(f"skipped {one_line(path)}: {reason}")
    rate = f", {report.n_embedded / spent.wall_s:,.0f} images/s" if report.n_embedded and spent.wall_s else ""
    text = f"{report.n_embedded:,} embedded{rate}, {report.n_known:,} known already, {len(report.failures):,} skipped"
    if report.failures:
        text += f" (see tlfeat cache info --cache {report.cache})"
    console.result(text, _plain(report))
    console.say("Next: tlfeat fit-sklearn --model svm" + (f" --cache {cache}" if cache else ""))


@app.command("fit-sklearn", short_help="A scikit-learn head on cached rows, in seconds.")
def fit_sklearn(
    model: Annotated[str, typer.Option("--model", help="logreg, svm, linear-svm, knn, ridge or lda.")] = "logreg",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Layer whose rows are used; may be repeated (one, or all side by side). [avg_pool, or the only one]",
        ),
    ] = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Choose parameters by cross-validation.")] = True,
    file_format: Annotated[str, typer.Option("--format", help="skops (safe to load) or joblib.")] = "skops",
    fresh: FreshOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fit a scikit-learn head on cached rows and test it; no TensorFlow in the process."""
    from tlfeat import workspace
    from tlfeat.cache.contents import choose_layers
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.saved import check_format
    from tlfeat.heads.table import find_head
    from tlfeat.models import fit_sklearn as candidates

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        find_head(model)
        check_format(file_format)
        path = cache or workspace.newest_cache()
        with open_data(path, seed=seed, test_fraction=test_fraction) as data:
            console.say(f"{model} on {'+'.join(choose_layers(data.cache, layer))} of {path}")
            outcome = candidates.fit_sklearn(
                data,
                model,
                layer=layer,
                is_searched=search,
                file_format=file_format,
                is_fresh=fresh,
                on_progress=progress,
            )
    _show_result(console, outcome, path if cache else None)


@app.command("fit-keras", short_help="A Keras head, fine-tuning, training from scratch; recipes.")
def fit_keras(
    data: Annotated[
        Path | None,
        typer.Argument(help="Images, embedded once first as extract does. Without: the images of the cache."),
    ] = None,
    recipe: RecipeOption = None,
    as_written: AsWrittenOption = False,
    backbone: BackboneOption = None,
    weights: WeightsOption = "imagenet",
    preprocess: PreprocessOption = None,
    input_size: InputSizeOption = None,
    class_map: ClassMapOption = None,
    unfreeze_last: UnfreezeOption = None,
    from_scratch: ScratchOption = None,
    dense: DenseOption = None,
    dropout: DropoutOption = None,
    augment: AugmentOption = None,
    views: ViewsOption = None,
    optimizer: OptimizerOption = None,
    loss: LossOption = None,
    learning_rate: RateOption = None,
    head_epochs: HeadEpochsOption = None,
    head_learning_rate: HeadRateOption = None,
    reduce_on_plateau: PlateauOption = None,
    epochs: EpochsOption = None,
    patience: PatienceOption = None,
    keep: KeepOption = None,
    train_batchnorm: BatchNormOption = None,
    batch_size: BatchSizeOption = None,
    cut: CutOption = None,
    cut_gb: CutGbOption = 20.0,
    plots: PlotsOption = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    fresh: FreshOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train in Keras on the same split: a Dense head on the frozen backbone, the last layers, or from scratch.

    Frozen layers run once where that changes nothing: what crosses the cut is kept on disk and only the tail trains.
    A run that is stopped leaves its best weights, and the same command goes on from its last epoch.
    """
    from tlfeat import workspace
    from tlfeat.evaluate.data import open_data
    from tlfeat.extract import plan
    from tlfeat.finetune import recipes
    from tlfeat.models.fit_keras import fit_keras as run_fit_keras
    from tlfeat.models.fit_keras import other_backbone

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        chosen = recipes.find_recipe(recipe) if recipe else None
        settings = recipes.choose_settings(
            chosen,
            is_as_written=as_written,
            unfreeze_last=unfreeze_last,
            is_from_scratch=from_scratch,
            dense=dense,
            dropout=dropout,
            augment=augment,
            views=views,
            optimizer=optimizer,
            loss=loss,
            learning_rate=learning_rate,
            head_epochs=head_epochs,
            head_learning_rate=head_learning_rate,
            plateau=reduce_on_plateau,
            epochs=epochs,
            patience=patience,
            keep=keep,
            trains_batchnorm=train_batchnorm,
            batch_size=batch_size,
            cut=cut,
            seed=seed,
        )
        if data is None:
            if backbone or input_size or preprocess or weights != "imagenet":
                raise UsageError("--backbone, --weights, --input-size and --preprocess are for images: name DATA.")
            path = cache or workspace.newest_cache()
        else:
            job = plan.plan_extraction(
                data,
                backbone=backbone or (chosen.backbone if chosen else None),
                weights=weights,
                preprocess=preprocess,
                input_size=_parse_size(input_size) or (chosen.input_size if chosen and not backbone else None),
                class_map=class_map or [],
                cache=cache,
                seed=seed,
            )
            for note in job.notes:
                console.warn(note)
            console.say(f"{job.encoder.name}: images embedded once into {job.cache_path}")
            path = job.run(on_progress=progress).cache
        with open_data(path, seed=seed, test_fraction=test_fraction) as opened:
            console.say(f"{settings.name} on the images of {path}")
            if chosen and (note := other_backbone(opened, chosen)):
                console.warn(note)
            outcome = run_fit_keras(
                opened,
                settings,
                is_fresh=fresh,
                max_cut_bytes=cut_gb * 1e9,
                say=console.say,
                on_progress=progress,
            )
    _show_result(console, outcome, path if cache else None)
    if plots:
        from tlfeat.report.plots import learning_curves

        with errors_as_exit_codes():
            console.say(f"Learning curves: {', '.join(map(str, learning_curves(outcome.result, plots)))}")


@app.command(short_help="The tutorials' recipes: what each does, where it comes from.")
def recipes(
    name: Annotated[str | None, typer.Argument(help="One of them; all by default.")] = None, as_json: JsonOption = False
) -> None:
    """Print the recipes of fit-keras with what each does and where it comes from."""
    from tlfeat.finetune import recipes as book

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        found = [book.find_recipe(name)] if name else list(book.RECIPES)
        console.result("\n\n".join(book.describe(r) for r in found), [book.to_document(r) for r in found])


@app.command(short_help="A network as Keras prints it: what is frozen, what trains.")
def summary(
    model: Annotated[
        Path | None, typer.Argument(help="A folder that fit-keras wrote; without: the network of the options.")
    ] = None,
    recipe: RecipeOption = None,
    as_written: AsWrittenOption = False,
    backbone: BackboneOption = None,
    preprocess: PreprocessOption = None,
    input_size: InputSizeOption = None,
    classes: Annotated[int, typer.Option("--classes", min=2, help="Units of the last layer.")] = 2,
    unfreeze_last: UnfreezeOption = None,
    from_scratch: ScratchOption = None,
    dense: DenseOption = None,
    dropout: DropoutOption = None,
    loss: LossOption = None,
    train_batchnorm: BatchNormOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the network that fit-keras would train, layer by layer, with random weights; nothing is downloaded."""
    from tlfeat.finetune import recipes
    from tlfeat.finetune.saved import summarise

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        chosen = recipes.find_recipe(recipe) if recipe else None
        settings = recipes.choose_settings(
            chosen,
            is_as_written=as_written,
            unfreeze_last=unfreeze_last,
            is_from_scratch=from_scratch,
            dense=dense,
            dropout=dropout,
            loss=loss,
            trains_batchnorm=train_batchnorm,
        )
        found = summarise(
            settings,
            model=model,
            backbone=backbone or (chosen.backbone if chosen else None),
            input_size=_parse_size(input_size) or (chosen.input_size if chosen and not backbone else None),
            preprocess=preprocess,
            n_classes=classes,
        )
        console.result(found.text, found.to_dict())


@app.command(short_help="All candidates on one split: accuracy and time.")
def compare(
    layer: LayerOption = None,
    heads: Annotated[str, typer.Option("--heads", help="Comma-separated heads, all, or none.")] = "all",
    keras: Annotated[
        str, typer.Option("--keras", help="Comma-separated frozen, finetuned, scratch; all, or none.")
    ] = "all",
    pixels: Annotated[bool, typer.Option("--pixels/--no-pixels", help="With the raw-pixel baseline.")] = True,
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", min=0, help="At most, for the Keras candidates. 0: 20 and 500 steps; from scratch 30 and 800."
        ),
    ] = 0,
    unfreeze_last: Annotated[int, typer.Option("--unfreeze-last", min=1, help="For keras-finetuned.")] = 20,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="With a recipe, as it should be and as written; may be repeated."),
    ] = None,
    html: HtmlOption = None,
    plots: PlotsOption = None,
    maps: MapOption = "pca,tsne",
    output: OutputOption = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    fresh: FreshOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Line up raw pixels, every head, the frozen, the fine-tuned and the from-scratch network on one split."""
    import tlfeat.studies.compare as comparing
    from tlfeat import workspace
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.table import find_head
    from tlfeat.report import embedding_map
    from tlfeat.report import page as report_page

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        chosen_heads = _parse_list(heads, comparing.ALL_HEADS)
        for head in chosen_heads:
            find_head(head)
        kinds = embedding_map.choose_kinds(maps)
        report_page.check_places(html, plots)
        path = cache or workspace.newest_cache()
        with open_data(path, seed=seed, test_fraction=test_fraction) as data:
            console.say(f"Comparing on {path}: {data.split.info.n_test:,} test images")
            found = comparing.compare_candidates(
                data,
                layer=layer,
                heads=chosen_heads,
                keras_modes=_parse_list(keras, comparing.ALL_KERAS),
                has_pixels=pixels,
                is_fresh=fresh,
                keras_options={"epochs": epochs, "unfreeze_last": unfreeze_last},
                recipes=recipe or [],
                on_progress=progress,
            )
            paths = report_page.write_reports(
                found,
                data,
                output or workspace.report_dir(path.stem),
                html=html,
                layer=layer,
                maps=kinds,
                plots=plots,
                on_progress=progress,
            )
    for note in found.notes:
        console.warn(note)
    for name, why in found.skipped:
        console.warn(f"{name} was not run: {why}")
    reused = [line.name for line in found.lines if line.is_reused]
    if reused:
        console.say(f"Reused from earlier commands: {', '.join(reused)} (--fresh fits them again)")
    _show_comparison(console, found, paths)
    console.detail(f"Split {found.split.digest}, layer {layer or 'chosen by default'}")
    console.say(f"Next: tlfeat predict {found.lines[0].result.model} IMAGE...")


@app.command(short_help="The page of a comparison again, from what was fitted.")
def report(
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer whose rows the map shows; that of the best head by default.")
    ] = None,
    html: HtmlOption = None,
    plots: PlotsOption = None,
    maps: MapOption = "pca,tsne",
    output: OutputOption = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make the page and the tables of every model that was fitted on a cache with this split; fits nothing."""
    from tlfeat import workspace
    from tlfeat.evaluate.data import open_data
    from tlfeat.report import embedding_map
    from tlfeat.report import page as report_page
    from tlfeat.studies.compare import known_comparison

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        kinds = embedding_map.choose_kinds(maps)
        report_page.check_places(html, plots)
        path = cache or workspace.newest_cache()
        with open_data(path, seed=seed, test_fraction=test_fraction) as data:
            found = known_comparison(data, on_progress=progress)
            paths = report_page.write_reports(
                found,
                data,
                output or workspace.report_dir(path.stem),
                html=html,
                layer=layer,
                maps=kinds,
                plots=plots,
                on_progress=progress,
            )
    for note in found.notes:
        console.warn(note)
    _show_comparison(console, found, paths)
    console.detail(f"Split {found.split.digest}")


@app.command(short_help="Which layer: accuracy against the depth of a backbone.")
def sweep(
    data: DataArgument = None,
    model: Annotated[str, typer.Option("--model", help="The head on each layer.")] = "logreg",
    backbone: BackboneOption = None,
    weights: WeightsOption = "imagenet",
    pool: PoolOption = None,
    preprocess: PreprocessOption = None,
    input_size: InputSizeOption = None,
    class_map: ClassMapOption = None,
    cache: CachePathOption = None,
    runtime: RuntimeOption = "auto",
    resize: ResizeOption = None,
    dtype: DtypeOption = None,
    output: OutputOption = None,
    test_fraction: FractionOption = 0.2,
    fresh: FreshOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Embed at the end of every block in one pass, fit a head on each, and say which layer to take."""
    from tlfeat import workspace
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.table import find_head
    from tlfeat.report import finding as figures
    from tlfeat.report.sweep import sweep_finding
    from tlfeat.studies import sweep as sweeping

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        find_head(model)
        job = sweeping.plan_sweep(
            data,
            backbone=backbone,
            weights=weights,
            pool=pool,
            preprocess=preprocess,
            input_size=_parse_size(input_size),
            class_map=class_map or [],
            cache=cache,
            resize=resize,
            dtype=dtype,
            runtime=runtime,
            seed=seed,
        )
        for note in job.extraction.notes:
            console.warn(note)
        console.say(f"{counted(len(job.cuts), 'layer')} of {job.extraction.encoder.name} in one pass")
        report = job.extraction.run(on_progress=progress)
        for note in report.notes:
            console.warn(note)
        console.say(
            f"{report.n_embedded:,} embedded, {report.n_known:,} known already, {len(report.failures):,} skipped"
        )
        with open_data(report.cache, seed=seed, test_fraction=test_fraction) as opened:
            found = sweeping.sweep_layers(opened, job.cuts, head=model, is_fresh=fresh, on_progress=progress)
        finding = sweep_finding(found)
        paths = figures.write_finding(finding, output or workspace.report_dir(report.cache.stem))
    _show_finding(console, finding, paths)
    if found.chosen is not None:
        console.say(f"Next: tlfeat compare --cache {report.cache} --layer {found.depths[found.chosen].layer}")


@app.command(short_help="How much data: accuracy against labelled images a class.")
def curve(
    layer: LayerOption = None,
    heads: Annotated[str, typer.Option("--heads", help="Comma-separated heads, all, or none.")] = "logreg,knn",
    keras: Annotated[str, typer.Option("--keras", help="Comma-separated frozen, scratch; all, or none.")] = "none",
    pixels: Annotated[bool, typer.Option("--pixels/--no-pixels", help="With the raw-pixel baseline.")] = True,
    counts: Annotated[str, typer.Option("--counts", help="Labelled images a class.")] = "1,2,5,10,20,50,all",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of each number of images.")] = 5,
    keras_counts: Annotated[
        str | None, typer.Option("--keras-counts", help="--counts of networks, which are slow. [as --counts]")
    ] = None,
    keras_draws: Annotated[int, typer.Option("--keras-draws", min=1, help="--draws of networks.")] = 2,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="At most, for networks; 0 as in fit-keras.")] = 0,
    output: OutputOption = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    fresh: FreshOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fit on few labelled images, then on more: what each label buys, and how many a frozen backbone saves."""
    import tlfeat.studies.compare as comparing
    from tlfeat import workspace
    from tlfeat.evaluate.data import open_data
    from tlfeat.report import finding as figures
    from tlfeat.report.curve import curve_finding, keras_hint
    from tlfeat.studies import curve as curving

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        wanted = curving.parse_counts(counts)
        keras_wanted = curving.parse_counts(keras_counts or counts)
        modes = _parse_list(keras, curving.KERAS_MODES)
        path = cache or workspace.newest_cache()
        with open_data(path, seed=seed, test_fraction=test_fraction) as data:
            console.say(f"Labels and accuracy on {path}: {data.split.info.n_test:,} test images")
            found = curving.learning_curve(
                data,
                layer=layer,
                heads=_parse_list(heads, comparing.ALL_HEADS),
                keras_modes=modes,
                keras_options={"epochs": epochs},
                has_pixels=pixels,
                counts=wanted,
                keras_counts=keras_wanted,
                n_draws=draws,
                n_keras_draws=keras_draws,
                is_fresh=fresh,
                on_progress=progress,
            )
            hint = "" if modes else keras_hint(data, keras_wanted, keras_draws)
        finding = curve_finding(found)
        paths = figures.write_finding(finding, output or workspace.report_dir(path.stem))
    for note in found.notes:
        console.warn(note)
    for name, why in found.skipped:
        console.warn(f"{name} was not run: {why}")
    if found.n_reused:
        console.say(f"{found.n_reused:,} draws reused from earlier commands (--fresh fits them again)")
    _show_finding(console, finding, paths)
    if hint:
        console.say(hint)


@app.command(short_help="Copies, leaks, probably wrong labels, outliers, imbalance.")
def audit(
    layer: LayerOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the reports; cache/reports/... by default.")
    ] = None,
    cache: CacheOption = None,
    test_fraction: FractionOption = 0.2,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look for what is wrong with the images and labels of a cache; nothing is changed."""
    from tlfeat import workspace
    from tlfeat.cache.contents import choose_layers
    from tlfeat.cache.store import open_cache
    from tlfeat.report import audit as audit_report
    from tlfeat.studies import audit as auditing

    console = Console(is_json=as_json, is_quiet=quiet)
    with errors_as_exit_codes(), console.progress() as progress:
        path = cache or workspace.newest_cache()
        with open_cache(path) as opened:
            found = auditing.audit(
                opened,
                layer=choose_layers(opened, layer)[0],
                seed=seed,
                test_fraction=test_fraction,
                on_progress=progress,
            )
        paths = audit_report.write_reports(found, output or workspace.report_dir(path.stem))
    for note in found.notes:
        console.warn(note)
    console.result(audit_report.to_text(found), auditing.to_document(found))
    console.say(f"Report with pictures: {paths['html']} (and .csv, .json with every finding)")
    if found.of_kind("leak"):
        console.say(
            "Next: take the test images that audit.csv lists as leak out of the set, or give the copies of a picture "
            "one group (a CSV with the column group), and run tlfeat extract again"
        )


@app.command(short_help="Labels and probabilities of new images.")
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that fit-sklearn or fit-keras wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to name for each image.")] = 1,
    reject: Annotated[
        bool,
        typer.Option("--reject", help="Answer unknown to pictures unlike those learned from, and to uncertain ones."),
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="With --reject: share of known pictures that is answered. [0.95]"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a joblib head, which can run code of its maker.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what new images show."""
    from tlfeat.heads.reject import COVERAGE
    from tlfeat.models import predict as predicting

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        if coverage is not None and not reject:
            raise UsageError("--coverage says how much --reject lets through: add --reject.")
        if reject and coverage is None:
            coverage = COVERAGE
        files = predicting.find_files(images)
        loaded = predicting.Model(model, is_trusted=trust, coverage=coverage)
        found = list(loaded.predict(files, n_top=top, on_progress=progress))
        text = predicting.to_csv(found) if as_csv else predicting.to_text(found)
        console.result(text, [dataclasses.asdict(prediction) for prediction in found])
        if all(prediction.error for prediction in found):
            raise DataError(f"No image of {len(found)} could be read.")


@app.command(short_help="A model as one file for Keras, ONNX, OpenVINO or TFLite.")
def export(
    model: Annotated[Path, typer.Argument(help="A folder that fit-sklearn or fit-keras wrote.")],
    to: Annotated[str, typer.Option("--to", help="keras, onnx, openvino or tflite.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file; a name under cache/exports/ by default.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a joblib head, which can run code of its maker.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write backbone, preprocessing and head as one file from pixels to labels, checked, with a model card."""
    from tlfeat.models import export as exporting

    console = Console(is_json=as_json, is_quiet=quiet, is_verbose=verbose)
    with errors_as_exit_codes(), console.progress() as progress:
        found = exporting.export_model(model, to, output=output, is_trusted=trust, on_progress=progress)
    console.result(exporting.to_text(found), exporting.to_document(found))


@app.command(short_help="The backbones that have a name.")
def backbones(as_json: JsonOption = False) -> None:
    """List the backbones that have a name."""
    from tlfeat.backbones.network import list_backbones

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        entries = list_backbones()
        rows = [
            (
                e["name"],
                "x".join(map(str, e["input_size"])),
                e["width"],
                f"{e['parameters'] / 1e6:.1f} M",
                e["preprocess"],
                e["licence"],
            )
            for e in entries
        ]
        console.result(aligned(("name", "input", "width", "parameters", "pixels", "licence"), rows), entries)


@app.command(short_help="The layers of a backbone.")
def layers(
    name: Annotated[str, typer.Argument(help="A name from `tlfeat backbones`, or your own FILE.keras.")] = "digits_cnn",
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the layers of a backbone and which of them can be embeddings."""
    from tlfeat.backbones import network
    from tlfeat.backbones.graph import list_layers

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        is_file = name.endswith((".keras", ".h5", ".hdf5"))
        spec = network.BackboneSpec(name, "random", _parse_size(input_size), preprocess="none" if is_file else None)
        found = list_layers(spec)
        rows = [
            (
                i.index,
                i.name,
                i.type,
                "x".join("?" if d is None else str(d) for d in i.output_shape[1:]),
                i.width if i.is_reachable else "no",
            )
            for i in found
        ]
        console.result(
            aligned(("index", "name", "type", "output", "columns"), rows, n_left=3),
            [dataclasses.asdict(i) for i in found],
        )


@cache_app.command("info")
def cache_info(cache: CacheOption = None, as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Say what a cache holds: encoder, layers, images, splits, failures."""
    from tlfeat import workspace
    from tlfeat.cache.store import open_cache
    from tlfeat.cli.console import cache_text

    console = Console(is_json=as_json, is_verbose=verbose)
    with errors_as_exit_codes(), open_cache(cache or workspace.newest_cache()) as opened:
        about = opened.describe()
        console.result(cache_text(about, is_long=verbose), about)


@cache_app.command("verify")
def cache_verify(
    cache: CacheOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is wrong, so that the next extract computes it again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every row and check it; exit code 3 if anything is wrong and was not repaired."""
    from tlfeat import workspace
    from tlfeat.cache.repair import repair_cache
    from tlfeat.cache.store import open_cache

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        path = cache or workspace.newest_cache()
        dropped = repair_cache(path) if repair else []
        with open_cache(path) as opened:
            problems = opened.verify()
            n_rows = sum(n for n, _ in opened.layers.values())
        lines = [f"dropped: {what}" for what in dropped] + problems
        console.result(
            "\n".join(lines) if lines else f"{path} is sound: {n_rows:,} rows checked.",
            {"cache": str(path), "n_rows": n_rows, "problems": problems, "dropped": dropped},
        )
        if problems and not repair:
            raise CacheError(f"{counted(len(problems), 'problem')} in {path}.")


@cache_app.command("export")
def cache_export(
    to: Annotated[Path, typer.Argument(help="FILE.npz, FILE.csv or FILE.parquet.")],
    layer: LayerOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write rows and labels for other tools."""
    from tlfeat import workspace
    from tlfeat.extract import transfer

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        n, width = transfer.export_rows(cache or workspace.newest_cache(), to, layer=layer)
        console.result(f"{n:,} rows of {width:,} columns in {to}", {"path": str(to), "n_rows": n, "width": width})


@cache_app.command("import")
def cache_import(
    rows: Annotated[Path, typer.Argument(help="Rows of any other encoder: FILE.npy or FILE.npz.")],
    table: Annotated[Path, typer.Argument(help="CSV or TSV, a line a row: label; optional path, split, group.")],
    name: Annotated[str, typer.Option("--name", help="What the encoder is called in tables.")] = "imported",
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a cache of rows from any other encoder, such as a text or speech model."""
    from tlfeat import workspace
    from tlfeat.extract import transfer

    console = Console(is_json=as_json)
    with errors_as_exit_codes():
        path = cache or workspace.CACHE_DIR / f"{table.stem}-{name}.h5"
        n = transfer.import_rows(rows, table, path, name=name)
        console.result(f"{n:,} rows in {path}", {"cache": str(path), "n_rows": n})
        console.say(f"Next: tlfeat compare --cache {path}")


def _show_result(console: Console, outcome: Any, cache: Path | None) -> None:
    from tlfeat.evaluate.leaks import leak_sentence
    from tlfeat.records import record
    from tlfeat.report import comparison as report

    for note in [*outcome.result.notes, *filter(None, [leak_sentence(outcome.result.leaks)])]:
        console.warn(note)
    if outcome.is_reused:
        console.say("An equal result exists and is shown again (--fresh fits anew).")
    console.result(
        report.result_text(outcome.result),
        {**record(outcome.result), "is_reused": outcome.is_reused},
    )
    for note in outcome.result.leaks.notes if outcome.result.leaks else []:
        console.detail(f"Leaks: {note}")
    console.detail(f"Settings: {outcome.result.settings}")
    console.detail(f"Split {outcome.result.split.digest}; {outcome.result.environment.packages}")
    console.say(f"Model: {outcome.result.model}")
    console.say("Next: tlfeat compare" + (f" --cache {cache}" if cache else ""))


def _show_comparison(console: Console, found: Any, paths: dict[str, Path]) -> None:
    from tlfeat.report import comparison as report

    text = aligned(*report.table_rows(found)) + "\n\n" + "\n".join(report.legend(found))
    console.result(text, [line.to_record() for line in found.lines])
    console.say(
        f"Report: {paths['html']} ({paths['html'].stat().st_size / 1e6:.1f} MB; tables: {paths['md']}, .csv, .json)"
    )
    if "plots" in paths:
        console.say(f"Charts: {paths['plots']}")


def _show_finding(console: Console, finding: Any, paths: dict[str, Path]) -> None:
    from tlfeat.report import finding as figures

    words = "\n".join(finding.sentences)
    table = aligned(finding.headings, finding.rows)
    console.result(f"{words}\n\n{table}\n\n" + "\n".join(finding.legend), figures.document(finding))
    console.say(f"Report: {paths['html']} (and .md, .csv, .json, .svg)")


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or (width and not width.isdecimal()) or int(height) < 1:
        raise UsageError(f"--input-size wants HEIGHTxWIDTH such as 224x224, received '{text}'.")
    return int(height), int(width or height)


def _parse_list(text: str, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if text == "all" else () if text == "none" else tuple(t.strip() for t in text.split(",") if t.strip())


def _plain(report: Any) -> dict[str, Any]:
    values = dataclasses.asdict(report)
    return {
        **values,
        "cache": str(report.cache),
        "failures": [{"path": p, "reason": r} for p, r in report.failures],
    }


def main() -> None:
    """Run the command line."""
    app()
