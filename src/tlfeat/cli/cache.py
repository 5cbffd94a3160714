"""``tlfeat cache``: what a cache holds, whether it is sound, rows out and rows in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import CacheOption, LayerOption, NewCacheOption
from tlfeat.errors import CacheError
from tlfeat.text import aligned, counted, one_line, size


def run_info(console: Console, cache: CacheOption = None) -> None:
    """Show what a cache holds: backbone, layers, images, splits, skipped files."""
    from tlfeat import workspace
    from tlfeat.cache.store import open_cache

    with open_cache(cache or workspace.newest_cache()) as opened:
        console.speak_of(opened.source.get("holds", "images"))
        console.say(*opened.notes)
        about = opened.describe()
    console.result(cache_text(about, is_long=console.is_verbose), about)


def run_verify(
    console: Console,
    cache: CacheOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged embeddings; the next extract computes them again.")
    ] = False,
) -> None:
    """Read and check every stored embedding; exit code 3 if one is damaged and was not repaired."""
    from tlfeat import workspace
    from tlfeat.cache.manifest import is_manifest
    from tlfeat.cache.repair import repair_cache
    from tlfeat.cache.store import open_cache

    path = cache or workspace.newest_cache()
    dropped = repair_cache(path) if repair else []
    if is_manifest(path):
        console.say(*(f"dropped: {what}" for what in dropped))  # what is read next may be an error: join again
    with open_cache(path) as opened:
        console.say(*opened.notes)
        problems = opened.verify()
        n_rows = sum(n for n, _ in opened.layers.values())
    lines = [f"dropped: {what}" for what in dropped] + problems
    console.result(
        "\n".join(lines) if lines else f"{path} is sound: {n_rows:,} rows checked.",
        {"cache": str(path), "n_rows": n_rows, "problems": problems, "dropped": dropped},
    )
    if problems and not repair:
        raise CacheError(f"{counted(len(problems), 'problem')} in {path}.")


def run_join(
    console: Console,
    folder: Annotated[Path, typer.Argument(help="Folder of shards, as extract --shard K/N --cache FOLDER wrote them.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Join what is there, where shards are missing or not finished.")
    ] = False,
) -> None:
    """Make one cache of all shards in a folder; nothing is copied."""
    from tlfeat.cache.shard_join import join_shards

    joined = join_shards(folder, is_partial=partial, on_progress=console.progress)
    console.warn(*joined.notes)
    layers = ", ".join(f"{name} ({n:,} rows)" for name, n in joined.layers.items())
    console.result(
        f"{counted(len(joined.shards), 'shard')}, {joined.n_images:,} images: {layers}",
        {
            "cache": str(folder),
            "n_shards": len(joined.shards),
            "n_images": joined.n_images,
            "layers": joined.layers,
            "notes": joined.notes,
        },
    )
    console.say(f"Next: tlfeat fit-sklearn --model svm --cache {folder}")


def run_export(
    console: Console,
    to: Annotated[Path, typer.Argument(help="FILE.npz, FILE.csv or FILE.parquet.")],
    layer: LayerOption = None,
    cache: CacheOption = None,
) -> None:
    """Write embeddings and labels to a file for other tools."""
    from tlfeat import workspace
    from tlfeat.extract.transfer import export_rows

    n, width = export_rows(cache or workspace.newest_cache(), to, layer=layer, say=console.say)
    console.result(f"{n:,} rows of {width:,} columns in {to}", {"path": str(to), "n_rows": n, "width": width})


def run_import(
    console: Console,
    rows: Annotated[Path, typer.Argument(help="Embeddings from any encoder: FILE.npy or FILE.npz, one row per item.")],
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV or TSV file, one line per row: column label; optional columns path, split, group, domain."
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the encoder in tables.")] = "imported",
    cache: NewCacheOption = None,
) -> None:
    """Make a cache from the embeddings of any other encoder, such as a text or speech model."""
    from tlfeat import workspace
    from tlfeat.extract.transfer import import_rows

    path = cache or workspace.CACHE_DIR / f"{table.stem}-{name}.h5"
    n = import_rows(rows, table, path, name=name)
    console.result(f"{n:,} rows in {path}", {"cache": str(path), "n_rows": n})
    console.say(f"Next: tlfeat compare --cache {path}")


def run_clean(
    console: Console,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it. Default: only say what there is.")] = False,
) -> None:
    """Say what under cache/ can be made again and how large it is; never embeddings, models or reports."""
    from tlfeat import workspace
    from tlfeat.cache.clean import find_leftovers, remove

    found = find_leftovers()
    kept = remove(found) if yes else []
    n_bytes = sum(leftover.n_bytes for leftover in found)
    rows = [(leftover.what, f"{len(leftover.paths):,}", size(leftover.n_bytes)) for leftover in found]
    table = aligned(("can be made again", "files", "size"), [*rows, ("altogether", "", size(n_bytes))])
    nothing = f"Nothing under {workspace.CACHE_DIR} can be made again: there is nothing to free."
    documents = [dataclasses.asdict(each) | {"paths": [str(path) for path in each.paths]} for each in found]
    console.result(
        table if found else nothing,
        {"bytes": n_bytes, "is_freed": yes, "kept": [str(path) for path in kept], "found": documents},
    )
    console.warn(*(f"could not delete {path}" for path in kept))
    if found:
        console.say("Deleted." if yes else "Nothing was deleted. To delete it: tlfeat cache clean --yes")


#: Domains that are named without -v; a table may have one for each patient.
_MAX_DOMAINS = 20

#: How pixels reach the network, of a fingerprint.
_FED = ("input_size", "resize", "preprocess", "precision")


def cache_text(about: Mapping[str, Any], *, is_long: bool = False) -> str:
    """Return what ``tlfeat cache info`` prints of ``Cache.describe()``."""
    images, encoder = about["images"], about["fingerprint"]
    lines = [
        f"{about['cache']}  ({about['bytes'] / 1e6:.1f} MB, format {about['format_version']})",
        f"  images    {about['source']}",
        "            " + ", ".join(f"{n:,} {status}" for status, n in images["status"].items()),
        *(f"            {split}: {n:,}" for split, n in images["splits"].items()),
        f"  classes   {', '.join(f'{one_line(name)} ({n:,})' for name, n in images['classes'].items()) or 'none'}",
        *_domain_lines(images.get("domains", {}), is_long=is_long),
        f"  encoder   {encoder.get('backbone')}, weights {encoder.get('weights')}",
        *(f"            {name.replace('_', ' ')} {encoder[name]}" for name in _FED if name in encoder),
        *(
            f"  layer     {name}: {n:,} rows of {width:,}, {encoder.get('dtype')}"
            for name, (n, width) in about["layers"].items()
        ),
        f"  time      {about['timing']['extract_s']:.1f} s for {about['timing']['n_embedded']:,} images embedded"
        + (f", last by {about['timing']['runtime']}" if about["timing"].get("runtime") else ""),
    ]
    failures = about["failures"] if is_long else about["failures"][:10]
    lines += [f"  skipped   {one_line(f['path'])}: {one_line(f['reason'])}" for f in failures]
    if len(about["failures"]) > len(failures):
        lines.append(f"            ... and {len(about['failures']) - len(failures):,} more (-v shows all)")
    return "\n".join(lines)


def _domain_lines(domains: Mapping[str, int], *, is_long: bool) -> list[str]:
    named = [f"{one_line(name)} ({n:,})" for name, n in domains.items()]
    shown = named if is_long else named[:_MAX_DOMAINS]
    more = f" and {len(named) - len(shown):,} more (-v shows all)" if len(named) > len(shown) else ""
    return [f"  domains   {', '.join(shown)}{more}"] if named else []
