"""What to label next as text, as a CSV to be filled in, and as tasks for Label Studio."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from tlfeat.errors import DataError, UsageError, nearest
from tlfeat.images.image_set import ImageSet
from tlfeat.images.urls import below
from tlfeat.labelling.next import NextPictures
from tlfeat.text import aligned, one_line, percent

#: Forms of a file. Label Studio: JSON tasks, 1.8 and later.
FORMATS = ("csv", "label-studio")

#: The names of the tags of the labelling interface; a CSV that Label Studio exports has columns of these names.
_CONTROL, _OBJECT = "label", "image"


def check_format(name: str) -> None:
    """Raise a `UsageError` for what is none of `FORMATS`."""
    if name not in FORMATS:
        raise UsageError(f"No format '{name}'. {nearest(name, FORMATS, of='formats')}")


def to_format(found: NextPictures, names: Sequence[str], images: ImageSet, name: str) -> str:
    """Return what a file in one of `FORMATS` holds."""
    check_format(name)
    return to_csv(found, names) if name == "csv" else json.dumps(to_label_studio(found, names, images), indent=1) + "\n"


def to_text(found: NextPictures, names: Sequence[str], width: int | None = None) -> str:
    """Return one line a picture; `names` are those of all pictures of the cache (`next.names_in`)."""
    rows = [
        (names[each.number], each.why, each.suggestion, "" if each.probability is None else percent(each.probability))
        for each in found.pictures
    ]
    return aligned(("picture", "why", "suggestion", "probability"), rows, n_left=3, width=width)


def to_document(found: NextPictures, names: Sequence[str]) -> dict[str, Any]:
    """Return the same as JSON values."""
    pictures = [{**asdict(each), "path": names[each.number]} for each in found.pictures]
    for picture in pictures:
        del picture["number"]
    return {**asdict(found), "pictures": pictures}


def to_csv(found: NextPictures, names: Sequence[str]) -> str:
    """Return a CSV whose column label is to be filled in; it then is one of labels as it stands."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "label", "how", "suggestion", "probability"))
    for each in found.pictures:
        probability = "" if each.probability is None else f"{each.probability:.4f}"
        writer.writerow((names[each.number], "", each.why, each.suggestion, probability))
    return out.getvalue()


def to_label_studio(found: NextPictures, names: Sequence[str], images: ImageSet) -> list[dict[str, Any]]:
    """Return the tasks that Label Studio imports, suggestions as predictions.

    Raises
    ------
    DataError
        The pictures are no files and have no URL: Label Studio could not show them.
    """
    return [
        {
            "data": {_OBJECT: _address(images, each.path), "path": names[each.number], "how": each.why},
            "predictions": [_prediction(each.suggestion, each.probability)] if each.suggestion else [],
        }
        for each in found.pictures
    ]


def _prediction(label: str, probability: float | None) -> dict[str, Any]:
    result = {"from_name": _CONTROL, "to_name": _OBJECT, "type": "choices", "value": {"choices": [label]}}
    return {"model_version": "tlfeat", "score": probability, "result": [result]}


def _address(images: ImageSet, path: str) -> str:
    if images.store is None:
        return f"/data/local-files/?d={quote(f'{images.root.name}/{path}', errors='surrogateescape')}"
    if not images.store.url or images.store.url.startswith("file:"):
        raise DataError(f"Label Studio cannot show what lies in {images.named}: unpack it, or take --format csv.")
    return below(images.store.url, path)


def interface_lines(found: NextPictures, images: ImageSet) -> list[str]:
    """Return what Label Studio has to be told: its labelling interface, and where the files are."""
    choices = "".join(f'<Choice value="{html.escape(one_line(name))}"/>' for name in found.classes)
    lines = [
        f'Labelling interface: <View><Image name="{_OBJECT}" value="${_OBJECT}"/>'
        f'<Choices name="{_CONTROL}" toName="{_OBJECT}">{choices}</Choices></View>'
    ]
    if images.store is None:
        lines.append(
            f"Files: start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={images.root.parent}, and add {images.root} as a source storage "
            f"without syncing it"
        )
    return lines
