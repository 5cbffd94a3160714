"""An int8 network travels with the heads fitted on its rows: without its pictures it cannot be made again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.precision import FLOAT32, INT8, kind_of
from tlfeat.records import layers_of

#: The network in a model's folder, with its weights beside it.
NETWORK_FILE = "network.xml"


def copy_network(encoder: Mapping[str, Any], layer: str, fingerprint: Mapping[str, Any], folder: Path) -> None:
    """Copy the int8 network of some rows into a folder, if it is one and it is still there.

    Parameters
    ----------
    encoder : mapping
        As a cache describes it.
    layer : str
        Those of the head, as a Result names them.
    fingerprint : mapping
        Of the rows.
    folder : Path
    """
    precision = str(fingerprint.get("precision", FLOAT32))
    if kind_of(precision) != INT8:
        return
    spec = BackboneSpec.from_dict(dict(encoder))
    made_by = KerasEncoder(spec, layers_of(layer), resize=fingerprint.get("resize"), precision=precision)
    if (file := made_by.int8_network()) is not None:
        for ending in (".xml", ".bin"):
            shutil.copyfile(file.with_suffix(ending), (folder / NETWORK_FILE).with_suffix(ending))
