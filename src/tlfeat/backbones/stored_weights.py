"""A network of somebody else's: what its weights declare, before they are read, and what it makes of them.

Weights are HDF5, alone or in a ``.keras`` archive. HDF5 packs and leaves out, so that a small file declares any size;
and what a layer in config.json takes is what config.json says.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlfeat.backbones.hub_mends import mend_layers
from tlfeat.files import open_regular, refuse_unfolding

#: What Keras keeps in variables beside the weights that it saves.
_BESIDE = 1_000_000

#: Numbers that one tensor of one picture may have: so many, and so many for each number of the input.
_TENSOR, _TENSOR_TIMES = 1 << 24, 256

_LOCAL_HEADER_BYTES = 30


def check_weights(path: Path) -> int:
    """Return how many numbers the data sets in a file declare; 0 where it is neither HDF5 nor an archive with some.

    Raises
    ------
    OSError
        They declare much more than the file holds, or lie in other files; `strerror` says which.
    """
    import h5py

    n_numbers = n_bytes = 0
    for file in _hdf5_in(path):
        with file:
            try:
                content = h5py.File(file, "r")
            except OSError:
                continue  # nobody can read it, and who tries says so
            with content:
                numbers, declared = _declared(path, content)
        n_numbers, n_bytes = n_numbers + numbers, n_bytes + declared
    refuse_unfolding(path, n_bytes, "weights of ")
    return n_numbers


def _hdf5_in(path: Path) -> Iterator[io.BufferedIOBase | io.RawIOBase]:
    """Give the HDF5 file that `path` is, or those in the archive that it is."""
    import h5py

    if not zipfile.is_zipfile(path):
        if h5py.is_hdf5(path):
            yield open_regular(path)
        return
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npz"):
                raise OSError(errno.EINVAL, "its weights are no HDF5", str(path))
            if member.filename.endswith(".h5"):
                is_stored = member.compress_type == zipfile.ZIP_STORED
                yield _Part(path, member) if is_stored else archive.open(member)  # type: ignore[misc]


class _Part(io.RawIOBase):
    """A member of an archive that is stored as it is; `zipfile` reads all that lies before the place it goes to."""

    def __init__(self, path: Path, member: zipfile.ZipInfo) -> None:
        self._file = open_regular(path)
        self._file.seek(member.header_offset)
        header = self._file.read(_LOCAL_HEADER_BYTES)
        n_name, n_extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        self._start = member.header_offset + _LOCAL_HEADER_BYTES + n_name + n_extra
        self._size = member.file_size
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(self._size - self._at, 0)]
        self._file.seek(self._start + self._at)
        n = self._file.readinto(view)
        self._at += n
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


def _declared(path: Path, content: Any) -> tuple[int, int]:
    """Return the numbers and the bytes that all data sets declare."""
    import h5py

    found = [0, 0]

    def add(_: str, item: Any) -> str | None:  # no exception may pass through HDF5
        if not isinstance(item, h5py.Dataset):
            return None
        n = math.prod(item.shape or ())
        found[0] += n
        found[1] += n * item.dtype.itemsize
        return "elsewhere" if item.is_virtual or item.external else None

    def is_link(_: str, link: Any) -> str | None:
        return "elsewhere" if isinstance(link, h5py.ExternalLink) else None

    if content.visititems(add) or content.visititems_links(is_link):
        raise OSError(errno.EINVAL, "its weights lie in other files", str(path))
    return found[0], found[1]


def load_network(keras: Any, path: Path) -> Any:
    """Load a whole network in Keras' safe mode; whatever Keras raises, and `ValueError` where it takes too much.

    Parameters
    ----------
    keras : module
    path : Path
        A file that has been checked; see `weights_files.check_file`.
    """
    if _has_layers_of_hub(path):
        mend_layers()
    with as_many_as(keras, check_weights(path) + _BESIDE):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    n_input = max((_size(each.shape) for each in getattr(model, "inputs", None) or ()), default=0)
    most = max(_TENSOR, _TENSOR_TIMES * n_input)
    for layer in model._flatten_layers(include_self=False):
        for node in getattr(layer, "_inbound_nodes", ()):
            for tensor in node.output_tensors:
                if _size(tensor.shape) > most:
                    raise ValueError(f"its layer {layer.name} gives {_size(tensor.shape):,} numbers for one picture")
    return model


def _has_layers_of_hub(path: Path) -> bool:
    """Whether a ``.keras`` file names layers of KerasHub: Keras finds these once that is imported."""
    if not zipfile.is_zipfile(path):
        return False
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return "config.json" in archive.namelist() and b'"keras_hub.' in archive.read("config.json")


def _size(shape: tuple[int | None, ...]) -> int:
    return math.prod(n for n in shape[1:] if n is not None)


@contextlib.contextmanager
def as_many_as(keras: Any, most: int) -> Iterator[None]:
    """Let layers have that many weights in all while the block runs: they are refused before they take memory."""
    add_weight, n_left = keras.Layer.add_weight, most

    def limited(self: Any, *args: Any, **named: Any) -> Any:
        nonlocal n_left
        shape = named.get("shape", args[0] if args else None)
        n_left -= math.prod(shape) if isinstance(shape, (tuple, list)) else 1
        if n_left < 0:
            raise ValueError(f"its layer {self.name} wants more weights than the file has")
        return add_weight(self, *args, **named)

    keras.Layer.add_weight = limited
    try:
        yield
    finally:
        keras.Layer.add_weight = add_weight
