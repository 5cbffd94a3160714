"""Whose weights a model stands on: where they come from, under which licence, and the files of it that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tlfeat.backbones import catalog
from tlfeat.backbones.hub_catalog import DINOV3_LICENCE, FAMILIES, HUB_BACKBONES, Family, HubBackbone
from tlfeat.backbones.hub_fetch import weights_folder
from tlfeat.backbones.network import DIGITS
from tlfeat.backbones.text_catalog import TextFamily, find_text
from tlfeat.cache.contents import Origin, origin_of
from tlfeat.errors import TlfeatError
from tlfeat.files import read_regular
from tlfeat.records import Result

#: What a folder of weights may hold of its licence; each is copied beside what is exported.
LICENCE_FILES: Final = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")

#: Licences that let nobody pass on a model that is made with the weights without a copy of the text; where that is.
MUST_TRAVEL: Final = {DINOV3_LICENCE: "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"}

#: The longest text of a licence in use has 100 kB.
_MAX_BYTES = 1 << 20

_HUB: Final[dict[str, HubBackbone | Family]] = {**{row.name: row for row in HUB_BACKBONES}, **FAMILIES}


@dataclass(frozen=True, slots=True)
class Credits:
    """What is known of the weights of a backbone.

    Attributes
    ----------
    weights : str
        Which they are and where they come from, with the beginning of their digest.
    licence : str
        "" where there is none.
    terms : str
        URL of a licence that has to go with what is made of the weights; "" for any other.
    """

    weights: str
    licence: str = ""
    terms: str = ""


def credits_of(result: Result, encoder: Mapping[str, Any]) -> Credits:
    """Return what is known of the weights that a model stands on.

    Parameters
    ----------
    result : Result
    encoder : mapping
        How its encoder is built again, as model.json says it; empty where that is not known.
    """
    digest, given = str(result.fingerprint.get("weights", "")), str(encoder.get("weights", ""))
    if result.backbone == "pixels":
        return Credits("none: the head takes the pixels themselves")
    if result.candidate == "keras-scratch":
        return Credits("random before training")
    if digest.startswith("random"):
        return Credits(f"random ({digest})")
    if result.fingerprint.get("backbone") == "own model":
        return Credits(f"your own model file ({digest[:19]})", "not known to tlfeat: that of the file")
    if result.backbone == DIGITS:
        return Credits(
            "pretrained on the handwritten digits 0 to 4 and printed letters; ships with tlfeat", "Apache-2.0"
        )
    found = origin_of(encoder)
    if found is Origin.TFIDF:
        return Credits("none: words are counted")
    if found is Origin.TEXT:
        text = find_text(result.backbone)
        if isinstance(text, TextFamily):
            return _published(f"a {text.name} network", digest, given, "", "not known to tlfeat: that of the folder")
        return _published(text.paper, digest, given, text.hub_name, text.licence)
    if found is not Origin.KERAS:
        return Credits("not known to tlfeat: the rows came from elsewhere", "not known to tlfeat")
    if (row := _HUB.get(result.backbone)) is not None:
        repository = row.hugging_face if isinstance(row, HubBackbone) else ""
        return _published(row.paper, digest, given, repository, row.licence)
    entry = catalog.find(result.backbone)
    assert isinstance(entry, catalog.Backbone)
    if given == "imagenet":
        return Credits(f"{entry.paper} ({digest[:19]}...; Keras' ImageNet weights, {entry.weights_url})", entry.licence)
    return Credits(
        f"{entry.paper} ({digest[:19]}...; the file that was given, by default Keras' ImageNet weights)",
        f"{entry.licence}, if they are Keras' ImageNet weights",
    )


def _published(paper: str, digest: str, given: str, repository: str, licence: str) -> Credits:
    """Return the credits of weights that their authors keep in a `repository` of Hugging Face; it may be ""."""
    terms, url = MUST_TRAVEL.get(licence, ""), "https://huggingface.co/"
    is_authors = repository and given in ("imagenet", f"hf://{repository}")
    if given.startswith("hf://") or is_authors:
        source = url + (repository if is_authors else given.removeprefix("hf://"))
    else:
        source = "those that were given" + (f"; its authors' are at {url}{repository}" if repository else "")
    if not is_authors and not licence.startswith("not known"):
        licence += ", if they are its authors' weights"
    return Credits(f"{paper} ({digest[:19]}...; {source})", licence, terms)


def licence_texts(encoder: Mapping[str, Any], model: Path | None = None) -> dict[str, bytes]:
    """Return the files of the licence in the folder of the model, else in that of the weights, by name.

    What cannot be read is left out.
    The folder may be of somebody else's making: a link in it that leads out of it is not followed, so that no file of
    the user's is handed on. (The store of Hugging Face links each file to one that lies two folders above.)
    """
    found = _texts_in(model) if model else {}
    return found or (_texts_in(folder) if (folder := _weights_folder(encoder)) else {})


def _weights_folder(encoder: Mapping[str, Any]) -> Path | None:
    weights, row = str(encoder.get("weights") or "random"), _HUB.get(str(encoder.get("backbone")))
    if Path(weights).is_dir():
        return Path(weights)
    if weights == "random" or row is None:
        return None
    with suppress(TlfeatError):  # a network can be exported where its first weights are gone
        return weights_folder(row, weights).path
    return None


def _texts_in(folder: Path) -> dict[str, bytes]:
    within = folder.parent.parent if folder.parent.name == "snapshots" else folder
    found = {}
    for name in LICENCE_FILES:
        try:
            found[name] = read_regular(folder / name, max_bytes=_MAX_BYTES, within=within)
        except OSError:
            continue
    return found
