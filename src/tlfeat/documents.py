"""JSON that somebody else may have written: every value is of the type that it should have, or it is said.

What is expected stands as a type: ``int``, ``float``, ``str``, ``bool``, ``None``, ``Any``, ``list[T]``,
``dict[str, T]``, ``tuple[T, T]`` (a list of two), a union, or a `TypedDict`, whose other keys are passed over.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, TypedDict


class Fingerprint(TypedDict, total=False):
    """What tlfeat reads of a fingerprint; an encoder of somebody's own may have more in it."""

    backbone: str | None
    weights: str | None
    input_size: list[int] | None
    preprocess: str | None
    resize: str | None
    dtype: str
    precision: str


class EncoderSource(TypedDict, total=False):
    """How an encoder is built again: `backbones.network.BackboneSpec`."""

    backbone: str | None
    weights: str
    input_size: tuple[int, int] | None
    preprocess: str | None
    seed: int


class Source(TypedDict, total=False):
    """Where the images of a cache are, and how they were read."""

    root: str
    source: str
    encoder: EncoderSource
    class_map: list[str]
    classes: list[str]
    label_from: str | None
    path_column: str | None
    label_column: str | None
    domain_column: str | None
    domains: bool
    text_column: str | None
    holds: str
    parts: list[str]
    precision: dict[str, Any]


class Pass(TypedDict):
    """What passes through the network for the same layers took: `cache.passes.Pass`."""

    layers: list[str]
    n: int
    cpu_s: float
    wall_s: float
    encode_share: float
    runtime: str
    processor: str


class Timing(TypedDict, total=False):
    """What extraction took, summed over runs."""

    extract_s: float
    embed_s: float
    n_embedded: int
    runtime: str
    passes: list[Pass]


#: JSON attribute of a cache to what tlfeat reads of it.
OF_CACHE: dict[str, Any] = {"fingerprint": Fingerprint, "source": Source, "timing": Timing}

#: Beyond this an int does not fit into what HDF5, numpy and file systems count with.
_MOST = 1 << 63

_MAX_SHOWN = 60


def misfit(value: object, expected: Any, name: str, *, is_finite: bool = True) -> str:
    """Return what is wrong with a value in words, "" where nothing is.

    Parameters
    ----------
    value : object
        What ``json.loads`` gave.
    expected : type
        See above; numbers have to be finite.
    name : str
        Of the value, for the words.
    is_finite : bool, default=True
        False allows inf and nan, which Python writes into JSON.
    """
    return next(_misfits(value, expected, name, is_finite), "")


def _misfits(value: object, expected: Any, name: str, is_finite: bool) -> Iterator[str]:
    kind, inside = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return
    if kind in (typing.Union, types.UnionType):
        if all(misfit(value, one, name, is_finite=is_finite) for one in inside):
            known = next((one for one in inside if typing.get_origin(one) in (list, dict, tuple)), None)
            if known is not None and isinstance(value, (list, dict)):
                yield from _misfits(value, known, name, is_finite)
            yield _told(value, expected, name)
    elif typing.is_typeddict(expected):
        if not isinstance(value, dict):
            yield _told(value, dict, name)
            return
        for key, one, is_required in _keys(expected):
            if key in value:
                yield from _misfits(value[key], one, f"{name}.{key}", is_finite)
            elif is_required:
                yield f"{name} lacks '{key}'"
    elif kind is list and isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _misfits(each, inside[0], f"{name}[{i}]", is_finite)
    elif kind is tuple and isinstance(value, (list, tuple)) and len(value) == len(inside):
        for i, (each, one) in enumerate(zip(value, inside, strict=True)):
            yield from _misfits(each, one, f"{name}[{i}]", is_finite)
    elif kind is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from _misfits(each, inside[1], f"{name}.{key}", is_finite)
    elif not _is_plain(value, expected, is_finite):
        yield _told(value, expected, name)


@functools.cache
def _keys(expected: Any) -> list[tuple[str, Any, bool]]:
    """Return key, type, and whether it has to be there; `TypedDict` itself misses a NotRequired in a string."""
    found = typing.get_type_hints(expected, include_extras=True)
    plain = typing.get_type_hints(expected)
    is_optional = {key: typing.get_origin(one) is typing.NotRequired for key, one in found.items()}
    return [(key, one, expected.__total__ and not is_optional[key]) for key, one in plain.items()]


def _is_plain(value: object, expected: Any, is_finite: bool) -> bool:
    if expected in (None, type(None)):
        return value is None
    if expected is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and (not is_finite or (abs(value) < _MOST and math.isfinite(value)))  # type: ignore[arg-type]
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST
    return isinstance(expected, type) and type(value) is expected


def _told(value: object, expected: Any, name: str) -> str:
    words = expected.__name__ if isinstance(expected, type) and not typing.get_args(expected) else str(expected)
    return f"{name} is {shown(value)}, expected {words.replace('typing.', '')}"


def shown(value: object) -> str:
    """Return a value of a document for a message, however long or deep it is."""
    try:
        return repr(value)[:_MAX_SHOWN]
    except (ValueError, RecursionError):  # an int of more digits than Python writes; what is nested too deep
        return type(value).__name__
