"""The nearest known pictures of images: as text, as JSON, and as a page of small pictures."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlfeat.errors import DataError
from tlfeat.images.decode import content_of, jpeg_thumbnail, read_picture
from tlfeat.images.open_store import named_image
from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.notebook import html_picture, html_text
from tlfeat.records import Environment
from tlfeat.studies.similar import Neighbour, Search, Similar
from tlfeat.text import aligned, counted, one_line, page
from tlfeat.workspace import write_forms

_SIDE = 160


def to_text(search: Search, width: int | None = None) -> str:
    """Return what ``tlfeat similar`` prints: a table for each image, as wide as the terminal allows."""
    return "\n\n".join(f"{sentence_of(one)}\n{_table(one, width)}" for one in search.found)


def _table(one: Similar, width: int | None) -> str:
    columns = {
        "distance": [f"{n.distance:.3f}" for n in one.neighbours],
        "label": [n.label for n in one.neighbours],
        "split": [n.split for n in one.neighbours],
        "path": [_named(n) for n in one.neighbours],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}  # no label, no split: no column of it
    rows = list(zip(*shown.values(), strict=True))
    return aligned(list(shown), rows, n_left=4, width=width, droppable=["split"] if "split" in shown else [])


def _named(neighbour: Neighbour) -> str:
    return neighbour.path + (f" (and {counted(neighbour.n_copies, 'copy', 'copies')})" if neighbour.n_copies else "")


def sentence_of(one: Similar) -> str:
    """Return which image it is, whether the cache has it, and the labels of its neighbours."""
    labels = Counter(n.label for n in one.neighbours if n.label).most_common()
    known = f" (in the cache as {', '.join(map(one_line, one.known_as))})" if one.known_as else ""
    told = ", ".join(f"{n} {one_line(label)}" for label, n in labels)
    return f"{one_line(one.image)}{known}: {told or f'{len(one.neighbours)} without a label'}"


def to_document(search: Search) -> dict[str, Any]:
    """Return the search as JSON values."""
    return {
        "cache": str(search.cache),
        "layer": search.layer,
        "n_images": search.n_images,
        "images": [dataclasses.asdict(one) for one in search.found],
    }


def to_html(search: Search) -> str:
    """Return one page that needs nothing from elsewhere; every text in it is escaped."""
    shown = [
        {
            "sentence": sentence_of(one),
            "picture": _picture(search, one),
            "neighbours": [(_shown(search, n), n, _named(n)) for n in one.neighbours],
        }
        for one in search.found
    ]
    return page(
        __package__,
        "similar.html",
        title=f"Similar {'texts' if search.beginnings else 'pictures'}: {search.cache.stem}",
        search=search,
        holds="texts" if search.beginnings else "images",
        shown=shown,
        environment=json.dumps(Environment.current().to_dict(), indent=1),
    )


def _shown(search: Search, n: Neighbour) -> str:
    """Return what a neighbour is shown by: its picture, or the beginning of its text."""
    if n.key in search.beginnings:
        return html_text(search.beginnings[n.key])
    return html_picture(known_thumbnail(search.home, n.path, n.key, _SIDE), n.path)


def _picture(search: Search, one: Similar) -> str:
    """Return the image that was asked for: the file that the user named, else that of the cache."""
    home, known = search.home, one.known_as[:1]
    ways: list[Callable[[], bytes]] = [lambda: read_picture(named_image(one.image))]
    if home is not None and known:
        ways.append(lambda: content_of(home, known[0]))
    for way in ways:
        try:
            return html_picture(jpeg_thumbnail(way(), _SIDE), one.image)
        except DataError:
            continue
    return ""


def write_reports(search: Search, folder: Path) -> dict[str, Path]:
    """Write similar.html and .json into `folder` and return their paths by ending."""
    return write_forms(folder, "similar", html=to_html(search), json=to_document(search))
