"""Learned positions of patches, brought to another grid: what a transformer needs to take another input size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Of the cubic kernel: PyTorch's without antialiasing, and with it (which is Pillow's).
_SHARPNESS = {False: -0.75, True: -0.5}


def resized(net: Any, wanted: Any) -> Any:
    """Give a network of KerasHub the weights of the same one at another input size, its positions interpolated.

    Parameters
    ----------
    net : keras.Model
        With its weights.
    wanted : keras.Model
        The same architecture at another size; it is changed, and returned.
    """
    antialias = bool(getattr(net, "antialias_in_interpolation", False))
    for held, target in zip(net.weights, wanted.weights, strict=True):
        if "position_ids" in held.path:
            continue  # an enumeration, which is right already
        array = np.asarray(held)
        if array.shape != tuple(target.shape):
            array = interpolate(array, target.shape, antialias=antialias)
        target.assign(array)
    return wanted


def interpolate(table: npt.NDArray[Any], shape: tuple[int, ...], *, antialias: bool = False) -> npt.NDArray[np.float32]:
    """Return a table of positions for another grid of patches, as ``torch.nn.functional.interpolate`` does (bicubic).

    Parameters
    ----------
    table : array of shape (n, width) or (1, n, width)
        Positions of a square grid, row by row, after those of tokens that are no patches.
    shape : tuple of int
        Of the result: another square grid after as many others.
    antialias : bool, default=False
        As PyTorch's argument.
    """
    n, wanted = table.shape[-2], shape[-2]
    n_others = next(k for k in range(8) if _is_square(n - k) and _is_square(wanted - k))
    rows = table.reshape(n, -1).astype(np.float32)
    side, new_side = round((n - n_others) ** 0.5), round((wanted - n_others) ** 0.5)
    grid = rows[n_others:].reshape(side, side, -1)
    weights = _cubic_weights(side, new_side, antialias=antialias)
    grid = np.einsum("ai,bj,ijc->abc", weights, weights, grid, optimize=True)
    return np.concatenate([rows[:n_others], grid.reshape(new_side * new_side, -1)]).astype(np.float32).reshape(shape)


def _is_square(n: int) -> bool:
    return n > 0 and round(n**0.5) ** 2 == n


def _cubic_weights(n: int, wanted: int, *, antialias: bool) -> npt.NDArray[np.float64]:
    """Return what each of `wanted` places takes of `n`: shape (wanted, n), rows that add up to 1."""
    scale = n / wanted
    stretch = max(scale, 1.0) if antialias else 1.0
    a = _SHARPNESS[antialias]
    found: npt.NDArray[np.float64] = np.zeros((wanted, n))
    for place in range(wanted):
        centre = (place + 0.5) * scale - 0.5
        for source in range(int(np.floor(centre - 2 * stretch)), int(np.ceil(centre + 2 * stretch)) + 1):
            weight = _cubic(abs(source - centre) / stretch, a)
            if antialias and not 0 <= source < n:
                continue  # what lies outside counts for nothing
            found[place, min(max(source, 0), n - 1)] += weight
    found /= found.sum(axis=1, keepdims=True)
    return found


def _cubic(x: float, a: float) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0
