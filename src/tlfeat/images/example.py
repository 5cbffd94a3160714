"""Built-in example: tell the handwritten digits 5 to 9 apart from few labels, with nothing to download."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tlfeat.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PRETEXT_DIGITS = (0, 1, 2, 3, 4)
"""The digits that the shipped backbone was trained on, beside letters."""

EXAMPLE_DIGITS = (5, 6, 7, 8, 9)

"""The digits of the example task; the backbone never saw one of them."""

SPLIT_SEED = 0

MAX_GREY_LEVEL = 16

TEST_IMAGE_COUNTS = {5: 91, 6: 90, 7: 89, 8: 87, 9: 90}

"""Images in the test half, by digit: what a whole folder is recognised by without loading scikit-learn."""


class DigitHalves(NamedTuple):
    """All handwritten digits, and the two halves of those from 5 to 9.

    Attributes
    ----------
    greys : ndarray of uint8, shape (1797, 8, 8)
        Every image of scikit-learn's ``load_digits``, its 0..16 spread over 0..255.
    digits : ndarray of int64, shape (1797,)
        The digit that each image shows.
    development : dict of int to ndarray of int64, shape (about 90,)
        For each digit from 5 to 9, the indices of its development half in a seeded random order.
        Everything that was chosen (architecture, augmentation, epochs, layer) was chosen on these.
    test : dict of int to ndarray of int64, shape (about 90,)
        For each digit from 5 to 9, the indices of its test half. No choice was made on them.
    """

    greys: NDArray[np.uint8]
    digits: NDArray[np.int64]
    development: dict[int, NDArray[np.int64]]
    test: dict[int, NDArray[np.int64]]


def load_digit_halves() -> DigitHalves:
    """Load the digits and split those from 5 to 9 into a development half and a test half.

    Returns
    -------
    DigitHalves
        1797 images of shape (8, 8); 449 of them in the development half, 447 in the test half.

    Notes
    -----
    The images are scikit-learn's ``load_digits``: the test part of the UCI data set "Optical
    Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, licence CC BY 4.0). They lie there
    writer by writer, so the split draws at random within each digit instead of cutting in the
    middle; both halves therefore hold images of the same writers.
    """
    import numpy as np

    table = np.loadtxt(file_of_scikit_learn("data", "digits.csv.gz"), delimiter=",")  # (1797, 8 * 8 + 1)
    greys = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / MAX_GREY_LEVEL)).astype(np.uint8)
    digits = table[:, -1].astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    development: dict[int, NDArray[np.int64]] = {}
    test: dict[int, NDArray[np.int64]] = {}
    for digit in EXAMPLE_DIGITS:
        shuffled = rng.permutation(np.flatnonzero(digits == digit))
        development_count = (len(shuffled) + 1) // 2
        development[digit] = shuffled[:development_count]
        test[digit] = shuffled[development_count:]
    return DigitHalves(greys, digits, development, test)


def file_of_scikit_learn(*parts: str) -> Path:
    """Return a file of scikit-learn's data sets, without its import, which takes a second or more."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath("datasets", *parts)


def write_digits(folder: Path, *, per_class: int = 10) -> Path:
    """Write the example's images as 8-bit greyscale PNG files of 8x8 pixels.

    The files are ``folder/train/<digit>/<index>.png`` and ``folder/test/<digit>/<index>.png`` with
    the digits 5 to 9 and the index of the image in ``load_digits``, four places wide. The training
    images come from the development half, a smaller ``per_class`` taking a subset of a larger one's;
    the test images are exactly the test half (447 images).

    A folder that is already whole is left as it is.

    Parameters
    ----------
    folder : Path
        Where to write. It may be missing or empty; its parents are made.
    per_class : int, default=10
        Training images for each digit, from 1 to 87.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    DataError
        `folder` holds anything other than the example with this `per_class`; it is left as it is.
    UsageError
        `per_class` is less than 1 or more than the development half holds.

    Notes
    -----
    The images are scikit-learn's ``load_digits``: the test part of the UCI data set "Optical
    Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, licence CC BY 4.0), each value from
    0 to 16 multiplied by 255/16 and rounded.
    """
    folder = Path(folder)
    if _is_whole(folder, per_class):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} holds something other than the whole digits example with per_class={per_class}. "
            "Remove it or name another folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A run that is killed leaves only the temporary sibling: `folder` appears whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
        written = Path(staging) / "digits"
        _write_images(written, per_class)
        _publish(written, folder, per_class)
    return folder


def _is_whole(folder: Path, per_class: int) -> bool:
    return all(
        _count_images(folder / "train" / str(digit)) == per_class
        and _count_images(folder / "test" / str(digit)) == test_count
        for digit, test_count in TEST_IMAGE_COUNTS.items()
    )


def _count_images(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.png"))


def _write_images(folder: Path, per_class: int) -> None:
    halves = load_digit_halves()
    most = min(len(indices) for indices in halves.development.values())
    if not 1 <= per_class <= most:
        raise UsageError(f"per_class must lie between 1 and {most}, got {per_class}.")
    for digit in EXAMPLE_DIGITS:
        _write_class(folder / "train" / str(digit), halves.greys, halves.development[digit][:per_class])
        _write_class(folder / "test" / str(digit), halves.greys, halves.test[digit])


def _write_class(folder: Path, greys: NDArray[np.uint8], indices: NDArray[np.int64]) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for index in indices:
        Image.fromarray(greys[index]).save(folder / f"{index:04d}.png")


def _publish(written: Path, folder: Path, per_class: int) -> None:
    try:
        if folder.is_dir():
            folder.rmdir()  # empty: os.replace onto an existing folder fails on Windows
        written.replace(folder)
    except OSError:
        # Another run may have put the same folder there meanwhile; its files are these files.
        if not _is_whole(folder, per_class):
            raise
