"""Random flips, turns, zooms and shears of training images, the same for an image in any batch, order or resumed run.

What is drawn depends on three things only: the seed, the epoch and the image's content key (`image_seeds`). All that is
drawn for an image is composed into one transform about its centre (`Augmentation.matrices`), so that its pixels are
interpolated once, whatever is changed (`apply`).

    augmentation = Augmentation.parse("flip=horizontal, rotation=0.1")
    matrices = augmentation.matrices(image_seeds(seed, epoch, keys), size)
    pixels = apply(pixels, matrices, fill=augmentation.fill)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.errors import ShapeError, UsageError, nearest

FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")

#: How the picture goes on beyond its edges: mirrored with the last pixel twice, its last pixel, or black.
FILLS = ("reflect", "nearest", "constant")

#: What may be drawn, with the largest value; a zoom of 1 would show a picture of no size.
_LARGEST = {"rotation": 1.0, "zoom": 0.99, "shear": 1.0}

#: The increment of SplitMix64: 2^64 over the golden ratio, odd.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Seeds = npt.NDArray[np.uint64]

Matrices = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a training image, and how far it may go; nothing by default.

    Parameters
    ----------
    flip : str, default=""
        One of `FLIPS`, each direction with probability 1/2, as ``keras.layers.RandomFlip``; "" for none.
    rotation : float, default=0.0
        Share of a full turn, 0 to 1; uniform in [-rotation, rotation], as ``keras.layers.RandomRotation``.
    zoom : float, default=0.0
        0 to 0.99; height and width are each shrunk by a factor uniform in [1 - zoom, 1 + zoom], as
        ``ImageDataGenerator(zoom_range=zoom)``.
    shear : float, default=0.0
        0 to 1; tangent of the angle by which columns lean, uniform in [-shear, shear].
    fill : str, default="reflect"
        One of `FILLS`. Without anything to fill for it is always the default.

    Raises
    ------
    UsageError
        A name that is not known, a number out of range.
    """

    flip: str = ""
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    fill: str = "reflect"

    def __post_init__(self) -> None:
        if self.flip and self.flip not in FLIPS:
            raise UsageError(f"No flip '{self.flip}'. {nearest(self.flip, FLIPS, of='flips')}")
        if self.fill not in FILLS:
            raise UsageError(f"No fill '{self.fill}'. {nearest(self.fill, FILLS, of='fills')}")
        for name, largest in _LARGEST.items():
            if not 0 <= getattr(self, name) <= largest:
                raise UsageError(f"{name} is from 0 to {largest:g}, received {getattr(self, name)}.")
        if not self:
            object.__setattr__(self, "fill", FILLS[0])

    def __bool__(self) -> bool:
        return bool(self.flip or self.rotation or self.zoom or self.shear)

    def __str__(self) -> str:
        words = [f"{name}={getattr(self, name)}" for name in ("flip", *_LARGEST) if getattr(self, name)]
        if self.fill != FILLS[0]:
            words.append(f"fill={self.fill}")
        return ", ".join(words) or "none"

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Return what a text like ``flip=horizontal,rotation=0.2`` asks for.

        ``flip`` alone is horizontal; ``none`` and the empty text change nothing. What `str` gives is read back as
        an equal value.

        Raises
        ------
        UsageError
            The text names what is not there, names it twice, or gives it a value that it cannot have.
        """
        if text.strip() in ("", "none"):
            return cls()
        values: dict[str, Any] = {}
        for word in text.split(","):
            name, has_value, value = (part.strip() for part in word.partition("="))
            if name not in ("flip", *_LARGEST, "fill"):
                known = ("flip", *_LARGEST, "fill")
                raise UsageError(f"No augmentation '{name}'. {nearest(name, known, of='augmentations')}")
            if name in values:
                raise UsageError(f"{name} is given twice in '{text}'.")
            if name == "flip" and not has_value:
                value = FLIPS[0]
            if not value:
                example = {"flip": FLIPS[0], "fill": FILLS[0]}.get(name, "0.1")
                raise UsageError(f"{name} needs a value, as in {name}={example}.")
            values[name] = _number(name, value) if name in _LARGEST else value
        return cls(**values)

    def matrices(self, seeds: Seeds, size: tuple[int, int]) -> Matrices:
        """Draw one transform an image: flip, then shear, then zoom, then rotation, all about the centre.

        A parameter takes always the same number out of an image's stream, so that one more of them leaves what the
        others draw as it is.

        Parameters
        ----------
        seeds : uint64 array of shape (n_images,)
            Of `image_seeds`.
        size : tuple of int
            Height and width of the images in pixels.

        Returns
        -------
        float32 array of shape (n_images, 8)
            (a0, a1, a2, b0, b1, b2, 0, 0): the pixel at (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2), x to
            the right, y downwards, in pixels, as ``keras.ops.image.affine_transform`` takes them.
        """
        flip_x, flip_y, shear, zoom_y, zoom_x, turn = (uniform(seeds, i) for i in range(6))  # each (n,), in [0, 1)
        sign_x = np.where((flip_x < 0.5) & self.flip.startswith("horizontal"), -1.0, 1.0)
        sign_y = np.where((flip_y < 0.5) & self.flip.endswith("vertical"), -1.0, 1.0)
        shear = self.shear * (2 * shear - 1)
        zoom_x = 1 + self.zoom * (2 * zoom_x - 1)
        zoom_y = 1 + self.zoom * (2 * zoom_y - 1)
        angle = 2 * np.pi * self.rotation * (2 * turn - 1)
        cos, sin = np.cos(angle), np.sin(angle)
        # where a pixel comes from is found backwards, flip @ shear @ zoom @ rotation:
        # [sx 0; 0 sy] @ [1 shear; 0 1] @ [zx 0; 0 zy] @ [cos -sin; sin cos]
        a0 = sign_x * (zoom_x * cos + shear * zoom_y * sin)
        a1 = sign_x * (-zoom_x * sin + shear * zoom_y * cos)
        b0 = sign_y * zoom_y * sin
        b1 = sign_y * zoom_y * cos
        y, x = ((n - 1) / 2 for n in size)  # the centre
        none = np.zeros(len(seeds))
        columns = [a0, a1, x - a0 * x - a1 * y, b0, b1, y - b0 * x - b1 * y, none, none]
        return np.stack(columns, axis=1).astype(np.float32)  # (n, 8)


def image_seeds(seed: int, epoch: int, keys: Sequence[str]) -> Seeds:
    """Return one number an image, as good as random, that depends on nothing but (seed, epoch, content key).

    Parameters
    ----------
    seed, epoch : int
    keys : sequence of str
        Content keys (`images.content_key`); copies of a picture get the same number.

    Returns
    -------
    uint64 array of shape (n_images,)
        The first 64 bits of a BLAKE2b digest.
    """
    digests = (blake2b(f"{seed} {epoch} {key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def uniform(seeds: Seeds, i: int) -> npt.NDArray[np.float64]:
    """Return, for each seed, the number `i` (from 0) of its own stream of uniform numbers in [0, 1).

    SplitMix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators, OOPSLA 2014, figure 17, with the
    mixing constants of Vigna's splitmix64.c), a hash of seed + (i + 1) times an odd constant, so that any number of a
    stream is had without those before it; its upper 53 bits.
    """
    return (splitmix64(seeds, i) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def splitmix64(seeds: Seeds, i: int) -> Seeds:
    """Return the output `i` (from 0) of SplitMix64 for each seed; arithmetic is modulo 2^64."""
    z: Seeds = seeds + np.array([i + 1], np.uint64) * _GOLDEN  # an array of one: numpy warns where scalars overflow
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def apply(pixels: npt.NDArray[Any], matrices: Matrices, *, fill: str = "reflect") -> npt.NDArray[np.float32]:
    """Return the images transformed, bilinearly interpolated, in float32 without rounding.

    Parameters
    ----------
    pixels : uint8 or float32 array of shape (n_images, height, width, 3)
        Not modified.
    matrices : float32 array of shape (n_images, 8)
        Of `Augmentation.matrices`.
    fill : str, default="reflect"
        One of `FILLS`: `Augmentation.fill`.

    Returns
    -------
    float32 array of shape (n_images, height, width, 3)
        Between the least and the largest value of `pixels` (with ``fill="constant"`` also 0). An image does not
        depend on what else is in its batch.

    Raises
    ------
    ShapeError
        The arrays do not belong together.
    """
    if pixels.ndim != 4 or matrices.shape != (len(pixels), 8):
        raise ShapeError(
            f"Expected pixels of shape (n, height, width, 3) and matrices of shape (n, 8), received {pixels.shape} "
            f"and {matrices.shape}."
        )
    values = pixels.astype(np.float32)
    is_left, is_down = matrices[:, 0] < 0, matrices[:, 4] < 0
    if np.array_equal(matrices, _flips(is_left, is_down, pixels.shape[1:3])):
        # the usual case flip=horizontal: moved, not interpolated, to the same values in a tenth of the time
        values[is_left] = values[is_left, :, ::-1]
        values[is_down] = values[is_down, ::-1]
        return values
    keras = import_keras()
    moved = keras.ops.image.affine_transform(values, matrices, interpolation="bilinear", fill_mode=fill, fill_value=0.0)
    return np.asarray(keras.ops.convert_to_numpy(moved), dtype=np.float32)


def _flips(is_left: npt.NDArray[np.bool_], is_down: npt.NDArray[np.bool_], size: tuple[int, ...]) -> Matrices:
    """Return the transforms that flip some images to the left, some down, and leave the others as they are."""
    matrices = np.zeros((len(is_left), 8), np.float32)
    for columns, is_flipped, n in (([0, 2], is_left, size[1]), ([4, 5], is_down, size[0])):
        matrices[:, columns] = np.where(is_flipped[:, None], (-1, n - 1), (1, 0))
    return matrices


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{name} is a number from 0 to {_LARGEST[name]:g}, received '{text}'.") from error


def augment(pixels: npt.NDArray[Any], augmentation: Augmentation, seed: int, epoch: int) -> npt.NDArray[Any]:
    """Return images changed at random, by (seed, epoch, content of the image), rounded where `pixels` are uint8.

    Parameters
    ----------
    pixels : uint8 or float32 array of shape (n_images, height, width, 3)
    augmentation : Augmentation
    seed, epoch : int

    Returns
    -------
    array of the shape and type of `pixels`
    """
    keys = [blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest() for image in pixels]
    matrices = augmentation.matrices(image_seeds(seed, epoch, keys), pixels.shape[1:3])
    changed = apply(pixels, matrices, fill=augmentation.fill)
    return np.rint(changed).astype(pixels.dtype) if pixels.dtype == np.uint8 else changed
