"""Weights that Hugging Face keeps, fetched once: no code, no pickles, and nothing is asked where they are there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tlfeat.backbones.frameworks import import_hub
from tlfeat.errors import WeightsError, short_reason

#: What Hugging Face calls a repository: ``hf://org/name``.
SCHEME = "hf://"

#: The configuration, the weights and their terms, of any network.
PATTERNS = ("config.json", "model*.safetensors", "model.safetensors.index.json", "LICENSE*")


def from_hugging_face(repository: str, more: Sequence[str], advice: str) -> Path:
    """Return the folder of a repository in Hugging Face's own store.

    Parameters
    ----------
    repository : str
        ``org/name``.
    more : sequence of str
        Names of files beside `PATTERNS`; ``*`` stands for anything.
    advice : str
        What to do where it cannot be fetched.

    Raises
    ------
    WeightsError
        It is not there, and there is no network.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    hub, patterns = import_hub("huggingface_hub"), [*PATTERNS, *more]
    try:
        with contextlib.suppress(Exception):  # it is there already: nothing is asked of the network
            return Path(hub.snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
        with contextlib.redirect_stdout(sys.stderr):
            return Path(hub.snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the client's own, httpx's and the operating system's
        raise WeightsError(
            f"The weights {SCHEME}{repository} are not on this machine and cannot be downloaded "
            f"({short_reason(error)}). {advice}"
        ) from error
