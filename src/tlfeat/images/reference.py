"""Reference images: drawings, patterns and photographs that are nobody's training images, made without a download.

``predict --reject`` learns what drawings look like from some of the drawings; the other drawings and the photographs
tell how much of something else a model refuses.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tlfeat.images.decode import decode_bytes
from tlfeat.images.example import file_of_scikit_learn
from tlfeat.types import Pixels

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

#: Of each kind of drawing, and of each of the two photographs; 108 pictures in all take about a second to embed.
_N_DRAWINGS, _N_CROPS = 12, 18

_SIZE_PX = 128

Picture = npt.NDArray[np.uint8]
"""uint8 array of shape (height, width, 3), RGB."""


class Reference(NamedTuple):
    """The images by what they are for."""

    known: list[Picture]  # drawings that a rejector may learn from
    drawings: list[Picture]  # others, to be refused
    photographs: list[Picture]  # to be refused


@functools.cache
def reference_images() -> Reference:
    """Return 36 drawings to learn from, 36 others, and 36 parts of two photographs; always the same ones.

    Notes
    -----
    The photographs, a Chinese temple and a flower, come with scikit-learn (``load_sample_image``, CC BY).
    """
    drawings = [
        [draw(np.random.default_rng([i, n])) for n in range(_N_DRAWINGS)]
        for i, draw in enumerate((_lines, _shapes, _text, _dots, _waves, _blur))
    ]
    known = [picture for kind in drawings for picture in kind[::2]]
    return Reference(known, [picture for kind in drawings for picture in kind[1::2]], _crops())


def decode_picture(picture: Picture, size: tuple[int, int], resize: str) -> Pixels:
    """Return a picture as an encoder takes it, as if it had been read from a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "BMP")  # PNG took longer to write than all the pictures to draw
    return decode_bytes(file.getvalue(), size, resize)


def _crops() -> list[Picture]:
    rng = np.random.default_rng(0)
    found = []
    for name in ("china.jpg", "flower.jpg"):
        photograph = decode_bytes(file_of_scikit_learn("images", name).read_bytes(), None)
        height, width = photograph.shape[:2]
        for _ in range(_N_CROPS):
            side = int(rng.integers(80, height))
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            found.append(photograph[top : top + side, left : left + side])
    return found


def _canvas(draw_on: Callable[[ImageDraw], None], ground: tuple[int, ...] = (255, 255, 255)) -> Picture:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_SIZE_PX, _SIZE_PX), ground)
    draw_on(ImageDraw.Draw(image))
    return np.asarray(image)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(0, 256, 3).tolist())


def _outline(rng: np.random.Generator, radius: float) -> list[tuple[float, float]]:
    """Points of a closed, smooth line around a random place: a circle whose radius wanders."""
    angles = np.linspace(0, 2 * np.pi, 97)
    waves = [rng.normal(0, 0.5 / k) * np.cos(k * angles + rng.uniform(0, 6)) for k in (1, 2, 3, 4)]
    lengths = radius * (1 + np.sum(waves, axis=0))
    x, y = rng.uniform(0.3, 0.7, 2)
    points = np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1) * _SIZE_PX
    return [(a, b) for a, b in points.tolist()]


def _lines(rng: np.random.Generator) -> Picture:
    """A drawing in black lines."""

    def draw_on(canvas: ImageDraw) -> None:
        for _ in range(rng.integers(2, 7)):
            canvas.line(_outline(rng, rng.uniform(0.06, 0.35)), fill=(0, 0, 0), width=int(rng.integers(1, 3)))
        for _ in range(rng.integers(0, 6)):
            canvas.line(rng.uniform(0, _SIZE_PX, 4).tolist(), fill=(0, 0, 0))

    return _canvas(draw_on)


def _shapes(rng: np.random.Generator) -> Picture:
    """Flat shapes in colour, like a cartoon."""

    def draw_on(canvas: ImageDraw) -> None:
        for _ in range(rng.integers(3, 9)):
            outline = _outline(rng, rng.uniform(0.06, 0.4))
            canvas.polygon(outline, fill=_colour(rng))
            canvas.line(outline, fill=(0, 0, 0), width=2)

    return _canvas(draw_on, _colour(rng) if rng.random() < 0.5 else (255, 255, 255))


def _text(rng: np.random.Generator) -> Picture:
    """Letters and signs in several sizes."""
    from PIL import ImageFont

    def draw_on(canvas: ImageDraw) -> None:
        for _ in range(rng.integers(1, 12)):
            word = "".join(chr(c) for c in rng.integers(33, 127, rng.integers(1, 12)))
            colour = (0, 0, 0) if rng.random() < 0.6 else _colour(rng)
            place = tuple(rng.uniform(-10, 0.8 * _SIZE_PX, 2).tolist())
            canvas.text(place, word, font=ImageFont.load_default(float(rng.uniform(8, 70))), fill=colour)

    return _canvas(draw_on)


def _dots(rng: np.random.Generator) -> Picture:
    """Discs that cover one another, small ones more often: the "dead leaves" of Lee, Mumford and Huang 2001."""

    def draw_on(canvas: ImageDraw) -> None:
        ground = rng.integers(0, 256, 3)
        for _ in range(300):
            radius = 0.02 * _SIZE_PX / rng.uniform(0.04, 1)
            x, y = rng.uniform(0, _SIZE_PX, 2)
            colour = tuple(np.clip(ground + rng.normal(0, 60, 3), 0, 255).astype(int).tolist())
            canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    return _canvas(draw_on)


def _waves(rng: np.random.Generator) -> Picture:
    """Stripes or squares of two colours, some of them under noise."""
    y, x = np.mgrid[:_SIZE_PX, :_SIZE_PX] / _SIZE_PX
    angle, n_waves = rng.uniform(0, np.pi), rng.uniform(1, 20)
    found = np.sin(2 * np.pi * n_waves * (x * np.cos(angle) + y * np.sin(angle)))
    if rng.random() < 0.5:
        found = np.sign(found * np.sin(2 * np.pi * n_waves * (y * np.cos(angle) - x * np.sin(angle))))
    one, other = rng.uniform(0, 255, (2, 3))
    noise = rng.normal(0, rng.choice([0, 50]), (_SIZE_PX, _SIZE_PX, 3))
    return _as_picture(one + (other - one) * (found[..., None] + 1) / 2 + noise)


def _blur(rng: np.random.Generator) -> Picture:
    """Colours that run into one another: noise whose amplitude falls with the frequency."""
    steepness = rng.uniform(0.5, 2.5)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_SIZE_PX), np.fft.fftfreq(_SIZE_PX)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(rng.normal(size=(3, _SIZE_PX, _SIZE_PX))) / frequency**steepness
    found = np.fft.ifft2(noise).real.transpose(1, 2, 0)
    return _as_picture(128 + rng.uniform(20, 70) * (found - found.mean()) / found.std())


def _as_picture(values: npt.NDArray[np.float64]) -> Picture:
    return np.clip(values, 0, 255).astype(np.uint8)
