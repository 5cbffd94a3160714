"""Where the weights of a vision transformer are: a folder, or fetched once from where their authors keep them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones.fetch import SCHEME, from_hugging_face
from tlfeat.backbones.frameworks import import_hub
from tlfeat.backbones.hub_catalog import Family, HubBackbone, no_size
from tlfeat.backbones.hub_config import arguments_in
from tlfeat.backbones.preprocess import MEAN_AND_STD
from tlfeat.backbones.weights_folder import WeightsFolder, open_folder
from tlfeat.errors import UsageError, WeightsError, nearest, short_reason

#: Beside those of any network.
_PATTERNS = ["preprocessor_config.json"]


def weights_folder(entry: HubBackbone | Family, weights: str) -> WeightsFolder:
    """Return the folder that ``--weights`` names, fetched where it is not on this machine yet.

    Parameters
    ----------
    entry : HubBackbone or Family
    weights : str
        A folder, ``hf://org/name``, the name of a Keras preset, or "imagenet" for the network's own weights.

    Raises
    ------
    WeightsError
        There is none, or no network to fetch it with.
    """
    if weights == "imagenet":
        if isinstance(entry, Family):
            raise UsageError(
                f"'{entry.name}' is a kind of network: say which weights, --weights FOLDER or --weights hf://org/name."
            )
        weights = f"{SCHEME}{entry.hugging_face}"
    if weights == "random":
        raise no_size(entry.name)
    if weights.startswith(SCHEME):
        repository = weights.removeprefix(SCHEME)
        return open_folder(from_hugging_face(repository, _PATTERNS, _how_to_fetch(entry, repository)))
    if "/" not in weights and not Path(weights).exists() and weights in (known := presets(entry)):
        return open_folder(_from_kaggle(weights, known[weights]))
    path = Path(weights)
    if not path.exists() and not path.is_absolute():
        near = nearest(weights, list(presets(entry)), of="presets")
        raise WeightsError(f"There is no folder or preset {weights}. {near} {_how_to_fetch(entry)}")
    return open_folder(path)


def check_scaling(folder: WeightsFolder, mode: str) -> None:
    """Raise `WeightsError` where ``preprocessor_config.json`` of a folder says that pixels are scaled in another way.

    Parameters
    ----------
    mode : str
        One of `preprocess.MEAN_AND_STD`.
    """
    said = folder.json("preprocessor_config.json")
    stated = (said.get("image_mean"), said.get("image_std"))
    if None in stated or _near(stated, MEAN_AND_STD[mode]):
        return
    known = [name for name, values in MEAN_AND_STD.items() if _near(stated, values)]
    advice = (
        f"add --preprocess {known[0]}" if known else f"tlfeat has no such scaling; --preprocess {mode} forces its own"
    )
    raise WeightsError(
        f"The preprocessor_config.json of {folder.path} scales pixels by mean {stated[0]} and standard deviation "
        f"{stated[1]}, not as '{mode}': {advice}."
    )


def _near(stated: Any, values: Any) -> bool:
    try:
        return bool(np.allclose(np.asarray(stated, float), values, atol=2e-3))
    except (ValueError, TypeError):
        return False


def own_size(folder: WeightsFolder, family: Family) -> tuple[int, int]:
    """Return the height and width that a network of this family is fed where nothing is said.

    Those that its weights are of, but for the DINOs: made for large pictures, evaluated at 224.
    """
    if family.name in ("dinov2", "dinov3"):
        return (224, 224)
    return arguments_in(folder, family)[1]


def presets(entry: HubBackbone | Family) -> dict[str, str]:
    """Return KerasHub's names of the family's weights, and where Kaggle has them."""
    family = entry if isinstance(entry, Family) else entry.family
    known = getattr(import_hub().models, family.hub_classes[0]).presets
    return {name: str(about["kaggle_handle"]) for name, about in known.items()}


def _from_kaggle(name: str, handle: str) -> Path:
    kagglehub: Any = import_hub("kagglehub")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return Path(kagglehub.model_download(handle.removeprefix("kaggle://")))
    except Exception as error:  # requests', kagglehub's own and the operating system's
        raise WeightsError(
            f"The preset {name} is not on this machine and cannot be downloaded ({short_reason(error)}). Fetch "
            f"{handle} on another machine and pass its folder with --weights."
        ) from error


def _how_to_fetch(entry: HubBackbone | Family, repository: str = "") -> str:
    """Return the line that fetches weights on another machine."""
    repository = repository or (entry.hugging_face if isinstance(entry, HubBackbone) else "ORG/NAME")
    folder = repository.rpartition("/")[2]
    terms = " after accepting its terms there" if "dinov3" in repository else ""
    fetch = f"hf download {repository} config.json model.safetensors --local-dir {folder}"
    return f"Where there is a network{terms}: {fetch}; then --weights {folder}. Or --weights random to try things out."
