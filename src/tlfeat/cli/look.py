"""``tlfeat similar`` and ``map``: what is like an image, and what there is in a cache."""

from __future__ import annotations

from typing import Annotated

import typer

from tlfeat.cli.console import Console
from tlfeat.cli.options import CacheOption, LayerOption, OutputOption, SeedOption


def run_similar(
    console: Console,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Image files, URLs of images, or paths of images as the cache has them."
        ),
    ],
    k: Annotated[int, typer.Option("-k", "--neighbours", min=1, help="Number of pictures to show for each image.")] = 9,
    layer: LayerOption = None,
    cache: CacheOption = None,
    output: OutputOption = None,
) -> None:
    """Show the pictures of a cache that are most like an image, with labels and distances."""
    from tlfeat import workspace
    from tlfeat.cache.store import open_cache
    from tlfeat.report.similar import to_document, to_text, write_reports
    from tlfeat.studies.similar import find_similar

    path = cache or workspace.newest_cache()
    with open_cache(path) as opened:
        console.speak_of(opened.source.get("holds", "images"), opened.table.images.classes)
        console.say(*opened.notes)
        found = find_similar(opened, images, k=k, layer=layer, on_progress=console.progress)
    paths = write_reports(found, output or workspace.report_dir(path))
    console.result(to_text(found, console.width), to_document(found))
    console.say(f"Page with pictures: {paths['html']} (and .json)")


def run_map(
    console: Console,
    layer: LayerOption = None,
    kind: Annotated[str, typer.Option("--kind", help="tsne, pca, or umap (pip install 'tlfeat[maps]').")] = "tsne",
    clusters: Annotated[
        int | None,
        typer.Option("--clusters", min=2, help="Number of clusters. Default: 10, fewer for less than 50 images."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=3, help="Images on the map, at most; a seeded sample.")] = 2000,
    color: Annotated[str, typer.Option("--color", help="What the colours say: cluster, domain or class.")] = "cluster",
    cache: CacheOption = None,
    output: OutputOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draw the map of a cache, labelled or not: clusters of alike images, named after their most typical pictures."""
    from tlfeat import workspace
    from tlfeat.cache.store import open_cache
    from tlfeat.report.cluster_map import check_color, map_cache, to_document, to_text, write_reports

    path = cache or workspace.newest_cache()
    with open_cache(path) as opened:
        console.speak_of(opened.source.get("holds", "images"), opened.table.images.classes)
        console.say(*opened.notes)
        check_color(color, opened.table.images.domains, opened.table.images.labels)
        found = map_cache(
            opened,
            layer=layer,
            kind=kind,
            n_clusters=clusters,
            seed=seed,
            max_images=images,
            on_progress=console.progress,
        )
    paths = write_reports(found, output or workspace.report_dir(path), color=color)
    console.result(to_text(found, console.width), to_document(found))
    console.say(f"Map with pictures: {paths['html']} (and .json)")
