"""``tlfeat fit-sklearn`` and ``tlfeat fit-keras``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlfeat.cli.console import Console, since_start_s
from tlfeat.cli.extract import embed_first
from tlfeat.cli.options import FreshOption, ImageOptions, PlotsOption, SplitOptions
from tlfeat.cli.parameters import parse_grid, parse_parameters
from tlfeat.cli.training_options import TrainingOptions
from tlfeat.errors import UsageError

if TYPE_CHECKING:
    from tlfeat.finetune.recipes import Recipe
    from tlfeat.finetune.settings import TrainSettings
    from tlfeat.models.saved import Outcome


def run_fit_sklearn(
    console: Console,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="logreg, svm, linear-svm, knn, ridge or lda; spread, for a few labels and many images without one; or "
            "any classifier of an installed package, as sklearn.ensemble:HistGradientBoostingClassifier.",
        ),
    ] = "logreg",
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            "--unlabelled",
            metavar="CACHE",
            help="Cache of images that the labels are spread to, for --model spread. Default: those of the cache that "
            "have no label.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="NAME=VALUE", help="Parameter of a classifier named by its class. May be repeated."
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="NAME=V1,V2,...",
            help="Values of a parameter that cross-validation compares, for a classifier named by its class. May be "
            "repeated.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="LAYER",
            help="Layer of the embeddings. May be repeated: the search takes the best one, or all concatenated. "
            "Default: avg_pool, or the only layer.",
        ),
    ] = None,
    split: SplitOptions = SplitOptions(),
    search: Annotated[
        str,
        typer.Option(
            "--search",
            help="How much cross-validation tries: quick, or thorough (more ways to scale embeddings and more "
            "hyper-parameters; 3 to 20 times as long).",
        ),
    ] = "quick",
    no_search: Annotated[
        bool, typer.Option("--no-search", help="Take default hyper-parameters, without a search.")
    ] = False,
    file_format: Annotated[
        str, typer.Option("--format", help="File format of the head: skops (safe to load) or joblib.")
    ] = "skops",
    fresh: FreshOption = False,
) -> None:
    """Fit a scikit-learn head on cached embeddings and test it, without TensorFlow."""
    from tlfeat.cache.contents import choose_layers
    from tlfeat.cache.store import open_cache
    from tlfeat.heads.saved import check_format
    from tlfeat.heads.table import check_effort, check_head
    from tlfeat.models.fit_sklearn import fit_sklearn

    parameters, compared = parse_parameters(param), parse_grid(grid)
    check_head(model, parameters, compared, has_unlabelled=unlabelled is not None)
    check_effort(search)
    check_format(file_format)
    with split.open(console.say) as data, open_cache(unlabelled) if unlabelled else nullcontext() as others:
        console.speak_of(data.cache.table.images.holds, data.split.classes)
        console.say(f"{model} on {'+'.join(choose_layers(data.cache, layer))} of {data.cache.path}")
        outcome = fit_sklearn(
            data,
            model,
            layer=layer,
            is_searched=not no_search,
            effort=search,
            parameters=parameters,
            grid=compared,
            unlabelled=others,
            file_format=file_format,
            is_fresh=fresh,
            on_progress=console.progress,
        )
    _show(console, outcome, split.cache)


def run_fit_keras(
    console: Console,
    data: Annotated[
        str | None,
        typer.Argument(help="Images, which are embedded first. Default: the images of the cache."),
    ] = None,
    training: TrainingOptions = TrainingOptions(),
    images: ImageOptions = ImageOptions(),
    split: SplitOptions = SplitOptions(),
    cut_gb: Annotated[
        float,
        typer.Option(
            "--cut-gb", min=0, help="Disk limit in GB for outputs of the frozen layers; beyond it pixels are used."
        ),
    ] = 20.0,
    plots: PlotsOption = None,
    fresh: FreshOption = False,
) -> None:
    """Train in Keras on the same split: a Dense head on the frozen backbone, the last layers, or from scratch.

    Frozen layers run only once if that changes nothing: their outputs are stored on disk and only the layers above
    are trained. A run that is stopped keeps its best weights, and the same command continues after the last epoch.
    """
    from tlfeat.finetune.recipes import choose_settings, find_recipe
    from tlfeat.models.fit_keras import fit_keras, other_backbone

    recipe = find_recipe(training.recipe) if training.recipe else None
    settings = choose_settings(recipe, seed=split.seed, **training.given())
    with split.open(console.say, _cache_of(console, data, recipe, settings, images, split)) as opened:
        console.say(f"{settings.name} on the images of {opened.cache.path}")
        if recipe and (note := other_backbone(opened, recipe)):
            console.warn(note)
        outcome = fit_keras(
            opened,
            settings,
            is_fresh=fresh,
            max_cut_bytes=cut_gb * 1e9,
            say=console.say,
            on_progress=console.progress,
        )
    _show(console, outcome, split.cache)
    if plots:
        from tlfeat.report.plots import learning_curves

        console.say(f"Learning curves: {', '.join(map(str, learning_curves(outcome.result, plots)))}")


def _cache_of(
    console: Console,
    data: str | None,
    recipe: Recipe | None,
    settings: TrainSettings,
    images: ImageOptions,
    split: SplitOptions,
) -> Path | None:
    """Return the cache to train on, with the images of `data` in it where these are named."""
    from tlfeat.extract.plan import plan_extraction
    from tlfeat.finetune.recipes import choose_backbone

    if data is None:
        if images != ImageOptions():
            raise UsageError(
                "--backbone, --class-map, --label-from and all that says how images are read are for images: name DATA."
            )
        return split.cache
    job = plan_extraction(data, cache=split.cache, seed=split.seed, **choose_backbone(recipe, images.given()))
    settings.check_classes(job.n_testable_classes)
    return embed_first(console, job, f"{job.encoder.name}: images embedded once into {job.cache_path}").cache


def _show(console: Console, outcome: Outcome, cache: Path | None) -> None:
    from tlfeat.evaluate.leaks import leak_sentence
    from tlfeat.evaluate.scores import guessing_sentence
    from tlfeat.heads.reject import reference_warning
    from tlfeat.heads.shift import shift_sentence
    from tlfeat.records import record
    from tlfeat.report.comparison import result_text

    result = outcome.result
    said = [
        leak_sentence(result.leaks),
        shift_sentence(result.shift),
        guessing_sentence(result.score, result.classes, name=result.candidate),
        reference_warning(result.reference),
    ]
    console.warn(*filter(None, said), *result.notes)
    if outcome.is_reused:
        console.say("An equal result exists and is shown again (--fresh fits anew).")
    command_s = since_start_s() if result.kind == "head" and not outcome.is_reused else None
    document = {**record(result), "is_reused": outcome.is_reused, "command_s": command_s}
    console.result(result_text(result, command_s, console.width), document)
    for note in result.leaks.notes if result.leaks else []:
        console.detail(f"Leaks: {note}")
    console.detail(f"Settings: {result.settings}")
    console.detail(f"Split {result.split.digest}; {result.environment.packages}")
    console.say(f"Model: {result.model}")
    console.say("Next: tlfeat compare" + (f" --cache {cache}" if cache else ""))
