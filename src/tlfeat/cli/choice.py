"""``tlfeat compare`` with several caches or layers, and ``tlfeat sweep`` with several backbones or poolings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlfeat import workspace
from tlfeat.cli.console import Console
from tlfeat.cli.extract import embed_first
from tlfeat.cli.options import PageOptions, parse_list
from tlfeat.errors import DataError, UsageError
from tlfeat.text import aligned, counted

if TYPE_CHECKING:
    from tlfeat.studies.choice import Choice

#: Sentences below a table; all of them are in the report.
_MAX_NOTES = 4


def check_heads_alone(keras: str | None, recipe: list[str] | None, given: dict[str, int | None]) -> None:
    """Raise for options of Keras networks where backbones or layers are compared: networks are not trained there."""
    if keras not in (None, "none") or recipe or any(value is not None for value in given.values()):
        raise UsageError(
            "Several caches, layers or poolings are compared by heads. For networks of Keras (--keras, --recipe, "
            "--epochs, --unfreeze-last) name one --cache and one --layer."
        )


def compare_caches(
    console: Console,
    caches: Sequence[Path],
    *,
    layers: Sequence[str],
    pools: Sequence[str],
    heads: Sequence[str],
    has_pixels: bool,
    page: PageOptions,
    is_fresh: bool,
    **split: Any,
) -> None:
    """Compare heads on every backbone and layer of some caches; `split` is what `open_together` wants to know."""
    from tlfeat.evaluate.together import open_together
    from tlfeat.studies.choice import compare_backbones
    from tlfeat.studies.contenders import rows_of

    if page.plots:
        raise UsageError("--plots is for one cache and one layer. Here the chart is choice.svg, beside the page.")
    with open_together(caches, **split) as together:
        rows = rows_of(together, layers, pools)
        _say_what(console, together.n_common, caches, sum(len(of.layers) for of in rows))
        found = compare_backbones(
            together, rows, heads=heads, has_pixels=has_pixels, is_fresh=is_fresh, on_progress=console.progress
        )
    _show(console, found, page.output, page.html)


def embed_at_precisions(console: Console, of: Sequence[Path], kinds: str) -> list[Path]:
    """Embed the images of a cache at each precision; one that is refused, or not to be had here, is left out."""
    from tlfeat.backbones.precision import KINDS
    from tlfeat.extract.plan import ExtractionJob
    from tlfeat.studies.precisions import plan_precisions

    if len(of) > 1:
        raise UsageError("--precision embeds the images of one cache again, and --cache names several.")
    caches = []
    for kind, job in plan_precisions(of[0] if of else workspace.newest_cache(), parse_list(kinds, KINDS)).items():
        if not isinstance(job, ExtractionJob):
            caches.append(job)
            continue
        try:
            caches.append(embed_first(console, job, f"{job.encoder.name} in {kind}").cache)
        except (DataError, UsageError) as error:
            console.warn(f"{kind} is left out: {error}")
    if len(caches) < 2:
        raise UsageError("There is nothing to compare: no other precision could be had.")
    return caches


def sweep_backbones(
    console: Console,
    data: str | None,
    *,
    backbones: Sequence[str],
    pools: Sequence[str],
    model: str,
    output: Path | None,
    is_fresh: bool,
    embedding: dict[str, Any],
    **split: Any,
) -> None:
    """Embed at the end of every block of some backbones, fit a head on each, and say which to take."""
    from tlfeat.evaluate.together import open_together
    from tlfeat.studies.choice import compare_backbones
    from tlfeat.studies.contenders import rows_of
    from tlfeat.studies.sweep import plan_sweep

    if len(backbones) > 1 and "cache" in embedding:
        raise UsageError("--cache names one cache, and each backbone has its own. Leave it out.")
    # all are planned before the first one embeds for minutes: a name may be wrong, or weights may be missing
    jobs = [plan_sweep(data, pools=pools, **opts, seed=split["seed"]) for opts in encoder_options(backbones, embedding)]
    caches = []
    for job in jobs:
        console.warn(*job.notes)
        doing = f"{counted(len(job.cuts), 'layer')} of {job.extraction.encoder.name} in one pass"
        caches.append(embed_first(console, job.extraction, doing).cache)
    layers = [layer for job in jobs for layer in job.cuts]
    with open_together(caches, **split) as together:
        rows = rows_of(together, layers)
        _say_what(console, together.n_common, caches, sum(len(of.layers) for of in rows))
        found = compare_backbones(
            together, rows, heads=[model], has_pixels=False, is_fresh=is_fresh, on_progress=console.progress
        )
    _show(console, found, output, None)


def encoder_options(backbones: Sequence[str], embedding: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the options of each backbone: ``--preprocess`` is for a user's own model, a weights file for the other.

    Raises
    ------
    UsageError
        A weights file, and several backbones that it could be for.
    """
    if len(backbones) < 2:
        return [{**embedding, **({"backbone": backbones[0]} if backbones else {})}]
    is_own = [name.endswith((".keras", ".h5", ".hdf5")) for name in backbones]
    weights = embedding.get("weights", "imagenet")
    if weights not in ("imagenet", "random") and is_own.count(False) > 1:
        raise UsageError(
            f"--weights {weights} is for one backbone, and there are {is_own.count(False)}. Extract each with its own, "
            f"then tlfeat compare --cache A.h5 --cache B.h5."
        )
    has_own = any(is_own)
    found = []
    for name, own in zip(backbones, is_own, strict=True):
        options = {**embedding, "backbone": name}
        if own:
            options.pop("weights", None)
        elif has_own:
            options.pop("preprocess", None)
        found.append(options)
    return found


def _say_what(console: Console, n_common: int, caches: Sequence[Path], n_layers: int) -> None:
    console.say(f"{counted(n_common, 'picture')} in {counted(len(caches), 'cache')}, {counted(n_layers, 'layer')}")


def _show(console: Console, found: Choice, output: Path | None, html: Path | None) -> None:
    from tlfeat.report.choice import choice_finding
    from tlfeat.report.finding import document, to_html, write_finding
    from tlfeat.workspace import write_text

    console.warn(*found.notes, *(f"{name} was not run: {why}" for name, why in found.skipped))
    n_reused = sum(one.is_reused for one in found.contenders)
    if n_reused:
        console.say(f"{n_reused:,} of {counted(len(found.contenders), 'result')} reused (--fresh fits them again)")
    whole, short = choice_finding(found), choice_finding(found, is_short=True)
    paths = write_finding(whole, output or workspace.report_dir(found.caches[0]))
    if html:
        write_text(html, to_html(whole))
    table = aligned(short.headings, short.rows, n_left=short.n_left, width=console.width, droppable=short.droppable)
    text = "\n".join(short.sentences) + f"\n\n{table}\n\n" + "\n".join(short.legend[:_MAX_NOTES])
    console.result(text, document(whole))
    for sentence in short.legend[_MAX_NOTES:]:
        console.detail(sentence)
    console.say(f"Report: {html or paths['html']} (and .md, .csv, .json, .svg)")
    if found.chosen is not None:
        console.say(f"Next: tlfeat predict {found.contenders[found.chosen].result.model} IMAGE...")
