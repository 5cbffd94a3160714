"""``tlfeat compare``, ``report``, ``sweep``, ``curve`` and ``audit``: what is measured, and its pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlfeat import workspace
from tlfeat.cli.choice import check_heads_alone, compare_caches, embed_at_precisions, sweep_backbones
from tlfeat.cli.console import Console
from tlfeat.cli.extract import embed_first
from tlfeat.cli.options import (
    DataArgument,
    EmbeddingOptions,
    EpochsOption,
    FractionOption,
    FreshOption,
    LayerOption,
    OutputOption,
    PageOptions,
    PixelsOption,
    SeedOption,
    SplitOptions,
    TestSplitOption,
    parse_list,
)
from tlfeat.errors import UsageError
from tlfeat.text import aligned, counted

if TYPE_CHECKING:
    from tlfeat.evaluate.data import Data
    from tlfeat.report.finding import Finding
    from tlfeat.studies.compare import Comparison
    from tlfeat.studies.curve import Curve
    from tlfeat.studies.sweep import Sweep

#: Sentences below a table; all of them are in the report.
_MAX_NOTES = 3

CachesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--cache",
        metavar="FILE.h5",
        help="The cache. May be repeated: backbones are compared on the images that all caches have. Default: the "
        "newest one under cache/.",
    ),
]

LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="Layer of the embeddings. May be repeated: layers are compared. Default: avg_pool, or the only layer; of "
        "several caches all layers.",
    ),
]

PoolsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        help="Pooling of layers with height and width: avg, max, gem or flatten. May be repeated: poolings are "
        "compared.",
    ),
]

ModesOption = Annotated[
    str | None,
    typer.Option(
        "--keras",
        help="Comma-separated frozen, finetuned, scratch; or all, or none. Default: all; none where caches, layers or "
        "poolings are compared, and for texts.",
    ),
]

RecipesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Include a recipe twice: with the backbone's own preprocessing, and as its tutorial has it. "
        "May be repeated.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions(EmbeddingOptions):
    """How images become rows, for several backbones and poolings."""

    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            help="A name from `tlfeat backbones`, or your model FILE.keras. May be repeated: backbones are compared. "
            "Default: mobilenet_v2.",
        ),
    ] = None  # type: ignore[assignment]
    pool: PoolsOption = None  # type: ignore[assignment]


def run_compare(
    console: Console,
    layer: LayersOption = None,
    pool: PoolsOption = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Embed the images of the cache at other precisions, too, and compare heads on the rows of each: "
            "comma-separated float32, bfloat16, int8; or all.",
        ),
    ] = None,
    heads: Annotated[str, typer.Option("--heads", help="Comma-separated heads, or all, or none.")] = "all",
    keras: ModesOption = None,
    pixels: PixelsOption = True,
    epochs: EpochsOption = None,
    unfreeze_last: Annotated[
        int | None,
        typer.Option(
            "--unfreeze-last",
            min=1,
            help="Layers that keras-finetuned fine-tunes, or blocks of a transformer. Default: 20 layers or 2 blocks.",
        ),
    ] = None,
    recipe: RecipesOption = None,
    page: PageOptions = PageOptions(),
    cache: CachesOption = None,
    test_fraction: FractionOption = 0.2,
    test_split: TestSplitOption = None,
    seed: SeedOption = 0,
    fresh: FreshOption = False,
) -> None:
    """Compare raw pixels, every head and the frozen, fine-tuned and from-scratch networks on one split."""
    from tlfeat.cache.contents import holds_texts
    from tlfeat.heads.table import find_head
    from tlfeat.studies.compare import ALL_HEADS, ALL_KERAS, compare_candidates

    chosen_heads = parse_list(heads, ALL_HEADS)
    for head in chosen_heads:
        find_head(head)
    _check_page(page)
    given = {"epochs": epochs, "unfreeze_last": unfreeze_last}
    caches, layers = cache or [], layer or []
    if precision is not None:
        caches = embed_at_precisions(console, caches, precision)
    if len(caches) > 1 or len(layers) > 1 or pool:
        check_heads_alone(keras, recipe, given)
        compare_caches(
            console, caches or [workspace.newest_cache()], layers=layers, pools=pool or [], heads=chosen_heads,
            has_pixels=pixels, page=page, is_fresh=fresh, test_fraction=test_fraction, test_split=test_split, seed=seed,
        )  # fmt: skip
        return
    split = SplitOptions(cache=next(iter(caches), None), test_fraction=test_fraction, test_split=test_split, seed=seed)
    one_layer = next(iter(layers), None)
    with split.open(console.say) as data:
        console.speak_of(data.cache.table.images.holds, data.split.classes)
        console.say(f"Comparing on {data.cache.path}: {data.split.info.n_test:,} test images")
        found = compare_candidates(
            data,
            layer=one_layer,
            heads=chosen_heads,
            keras_modes=parse_list(keras or ("none" if holds_texts(data.cache) else "all"), ALL_KERAS),
            has_pixels=pixels,
            is_fresh=fresh,
            keras_options={name: value for name, value in given.items() if value is not None},
            recipes=recipe or [],
            on_progress=console.progress,
        )
        paths = _write_page(console, found, data, one_layer, page)
    _show_comparison(console, found, paths)
    console.detail(f"Layer {one_layer or 'chosen by default'}")
    console.say(f"Next: tlfeat predict {found.lines[0].result.model} IMAGE...")


def run_report(
    console: Console,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="LAYER", help="Layer that the map shows. Default: that of the best head."),
    ] = None,
    page: PageOptions = PageOptions(),
    split: SplitOptions = SplitOptions(),
) -> None:
    """Write the page and the tables of all models fitted on a cache with this split; fits nothing."""
    from tlfeat.studies.compare import known_comparison

    _check_page(page)
    with split.open(console.say) as data:
        console.speak_of(data.cache.table.images.holds, data.split.classes)
        found = known_comparison(data, on_progress=console.progress)
        paths = _write_page(console, found, data, layer, page)
    _show_comparison(console, found, paths)


def run_sweep(
    console: Console,
    data: DataArgument = None,
    model: Annotated[str, typer.Option("--model", help="Head to fit on each layer.")] = "logreg",
    embedding: SweepOptions = SweepOptions(),
    output: OutputOption = None,
    test_fraction: FractionOption = 0.2,
    test_split: TestSplitOption = None,
    fresh: FreshOption = False,
    seed: SeedOption = 0,
) -> None:
    """Embed at the end of every block in one pass, fit a head on each, and say which layer (or backbone) to take."""
    from tlfeat.heads.table import find_head
    from tlfeat.report.sweep import sweep_finding
    from tlfeat.studies.sweep import plan_sweep, sweep_layers

    find_head(model)
    options = embedding.given()
    backbones, pools = options.pop("backbone", []), options.pop("pool", [])
    if len(backbones) > 1 or len(pools) > 1:
        sweep_backbones(
            console, data, backbones=backbones, pools=pools, model=model, output=output, is_fresh=fresh,
            embedding=options, test_fraction=test_fraction, test_split=test_split, seed=seed,
        )  # fmt: skip
        return
    options |= {"backbone": backbones[0]} if backbones else {}
    job = plan_sweep(data, pool=next(iter(pools), None), **options, seed=seed)
    cache = embed_first(
        console, job.extraction, f"{counted(len(job.cuts), 'layer')} of {job.extraction.encoder.name} in one pass"
    ).cache
    with SplitOptions(cache=cache, test_fraction=test_fraction, test_split=test_split, seed=seed).open(
        console.say
    ) as opened:
        found = sweep_layers(opened, job.cuts, head=model, is_fresh=fresh, on_progress=console.progress)
    _warn_of(console, found)
    show_finding(console, sweep_finding(found), cache, output)
    if found.chosen is not None:
        console.say(f"Next: tlfeat compare --cache {cache} --layer {found.depths[found.chosen].layer}")


def run_curve(
    console: Console,
    layer: LayerOption = None,
    heads: Annotated[str, typer.Option("--heads", help="Comma-separated heads, or all, or none.")] = "logreg,knn",
    keras: Annotated[str, typer.Option("--keras", help="Comma-separated frozen, scratch; or all, or none.")] = "none",
    pixels: PixelsOption = True,
    counts: Annotated[
        str, typer.Option("--counts", help="Comma-separated numbers of labelled images per class.")
    ] = "1,2,5,10,20,50,all",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of each number of images.")] = 5,
    keras_counts: Annotated[
        str | None, typer.Option("--keras-counts", help="--counts for the Keras networks. Default: as --counts.")
    ] = None,
    keras_draws: Annotated[int, typer.Option("--keras-draws", min=1, help="--draws for the Keras networks.")] = 2,
    epochs: EpochsOption = None,
    output: OutputOption = None,
    split: SplitOptions = SplitOptions(),
    fresh: FreshOption = False,
) -> None:
    """Fit on few labelled images, then on more: accuracy per label, and how many labels a frozen backbone saves."""
    from tlfeat.report.curve import curve_finding, keras_hint
    from tlfeat.studies.compare import ALL_HEADS
    from tlfeat.studies.curve import KERAS_MODES, learning_curve, parse_counts

    head_counts, network_counts = parse_counts(counts), parse_counts(keras_counts or counts)
    modes = parse_list(keras, KERAS_MODES)
    with split.open(console.say) as data:
        console.speak_of(data.cache.table.images.holds, data.split.classes)
        console.say(f"Labels and accuracy on {data.cache.path}: {data.split.info.n_test:,} test images")
        found = learning_curve(
            data,
            layer=layer,
            heads=parse_list(heads, ALL_HEADS),
            keras_modes=modes,
            keras_options={"epochs": epochs or 0},
            has_pixels=pixels,
            counts=head_counts,
            keras_counts=network_counts,
            n_draws=draws,
            n_keras_draws=keras_draws,
            is_fresh=fresh,
            on_progress=console.progress,
        )
        hint = "" if modes else keras_hint(data, network_counts, keras_draws)
    _warn_of(console, found)
    if found.n_reused:
        console.say(f"{found.n_reused:,} draws reused from earlier commands (--fresh fits them again)")
    show_finding(console, curve_finding(found), data.cache.path, output)
    if hint:
        console.say(hint)


def run_audit(
    console: Console,
    layer: LayerOption = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FILE.csv",
            help="Also write a table for tlfeat extract without the leaks and without pictures under two labels; "
            "other copies get one group.",
        ),
    ] = None,
    output: OutputOption = None,
    split: SplitOptions = SplitOptions(),
) -> None:
    """Look for problems in the images and labels of a cache; changes nothing."""
    from tlfeat.cache.contents import choose_layers
    from tlfeat.cache.store import open_cache
    from tlfeat.report.audit import to_text, write_reports
    from tlfeat.studies.audit import audit
    from tlfeat.studies.clean import write_clean_table
    from tlfeat.studies.findings import to_document

    if write and write.suffix.lower() != ".csv":
        raise UsageError(f"--write wants a file that ends in .csv, received {write}.")
    path = split.cache or workspace.newest_cache()
    with open_cache(path) as opened:
        console.speak_of(opened.table.images.holds, opened.table.images.classes)
        console.say(*opened.notes)
        found = audit(
            opened,
            layer=choose_layers(opened, layer)[0],
            seed=split.seed,
            test_fraction=split.test_fraction,
            test_split=split.test_split,
            on_progress=console.progress,
        )
        clean = write_clean_table(opened, found, write) if write else None
    paths = write_reports(found, output or workspace.report_dir(path))
    console.warn(*found.notes)
    console.result(to_text(found), to_document(found))
    console.say(f"Report with pictures: {paths['html']} (and .csv, .json with every finding)")
    if clean:
        console.say(f"Table: {write} ({clean.sentence()})")
        console.say(f"Next: tlfeat extract {write}, with the same options")
    elif found.groups:
        console.say("Next: tlfeat audit --write clean.csv writes a table without leaks for tlfeat extract")


def _check_page(page: PageOptions) -> None:
    """Raise before anything is fitted if the page could not be written as asked for."""
    from tlfeat.report.embedding_map import choose_kinds
    from tlfeat.report.page import check_places

    choose_kinds(page.maps)
    check_places(page.html, page.plots)


def _write_page(
    console: Console, found: Comparison, data: Data, layer: str | None, page: PageOptions
) -> dict[str, Path]:
    from tlfeat.report.embedding_map import choose_kinds
    from tlfeat.report.page import write_reports

    return write_reports(
        found,
        data,
        page.output or workspace.report_dir(data.cache.path),
        html=page.html,
        layer=layer,
        maps=choose_kinds(page.maps),
        plots=page.plots,
        on_progress=console.progress,
    )


def _show_comparison(console: Console, found: Comparison, paths: dict[str, Path]) -> None:
    from tlfeat.report.comparison import legend, terminal_text

    _warn_of(console, found)
    reused = [line.name for line in found.lines if line.is_reused]
    if reused:
        console.say(f"Reused from earlier commands: {', '.join(reused)} (--fresh fits them again)")
    console.result(terminal_text(found, console.width), [line.to_record() for line in found.lines])
    for sentence in legend(found):
        console.detail(sentence)
    size_mb = paths["html"].stat().st_size / 1e6
    console.say(f"Report: {paths['html']} ({size_mb:.1f} MB; tables: {paths['md']}, .csv, .json)")
    if "plots" in paths:
        console.say(f"Charts: {paths['plots']}")
    console.detail(f"Split {found.split.digest}")


def show_finding(console: Console, finding: Finding, cache: Path, output: Path | None) -> None:
    from tlfeat.report.finding import document, write_finding

    paths = write_finding(finding, output or workspace.report_dir(cache))
    table = aligned(finding.headings, finding.rows, width=console.width, droppable=finding.droppable)
    text = "\n".join(finding.sentences) + f"\n\n{table}\n\n" + "\n".join(finding.legend[:_MAX_NOTES])
    console.result(text, document(finding))
    for sentence in finding.legend[_MAX_NOTES:]:
        console.detail(sentence)
    console.say(f"Report: {paths['html']} (and .md, .csv, .json, .svg)")


def _warn_of(console: Console, found: Comparison | Curve | Sweep) -> None:
    console.warn(*found.notes, *(f"{name} was not run: {why}" for name, why in found.skipped))
