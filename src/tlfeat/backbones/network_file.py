"""A Keras network as a ``.keras`` file whose bytes depend on the network alone.

Keras writes the day, and numbers for shared parts that are addresses in memory: the same network has another digest,
and so another fingerprint, each time that it is saved.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

#: The first day that a zip archive can name.
_DAY, _DATE_TIME = "1980-01-01@00:00:00", (1980, 1, 1, 0, 0, 0)


def save_network(network: Any, file: Path) -> None:
    """Write a network without the state of training.

    Parameters
    ----------
    network : keras.Model
    file : Path
        Ends in ``.keras``; it is replaced.
    """
    network.save(file)
    written = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(written, "w") as same:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            if name == "metadata.json":
                content = json.dumps({**json.loads(content), "date_saved": _DAY}).encode()
            elif name == "config.json":
                content = json.dumps(_renumbered(json.loads(content), {})).encode()
            same.writestr(zipfile.ZipInfo(name, _DATE_TIME), content)
    file.write_bytes(written.getvalue())


def _renumbered(value: Any, numbers: dict[int, int]) -> Any:
    """Return a document with the numbers of shared parts in the order in which they first appear."""
    if isinstance(value, list):
        return [_renumbered(each, numbers) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: numbers.setdefault(each, len(numbers)) if name == "shared_object_id" else _renumbered(each, numbers)
        for name, each in value.items()
    }
