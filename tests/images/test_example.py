"""The built-in example: its images, its halves, and the backbone that ships with it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.network import digits_backbone_path
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.split import Split
from tlfeat.heads.fit import fit_head, predict_probabilities
from tlfeat.images import example
from tlfeat.images.decode import decode_bytes
from tlfeat.records import SplitInfo
from tlfeat.types import Labels, Pixels, Rows

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    """Return every file of a folder, by its path within it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as users get it."""
    return example.write_digits(tmp_path_factory.mktemp("example") / "digits")


def images_of(folder: Path, part: str) -> dict[int, set[int]]:
    """Return the indices in `load_digits` of one part, by digit."""
    return {int(d.name): {int(f.stem) for f in d.glob("*.png")} for d in (folder / part).iterdir()}


def test_counts_are_those_stated(digits: Path) -> None:
    train, test = images_of(digits, "train"), images_of(digits, "test")
    assert {digit: len(indices) for digit, indices in train.items()} == {5: 10, 6: 10, 7: 10, 8: 10, 9: 10}
    assert {digit: len(indices) for digit, indices in test.items()} == example.TEST_IMAGE_COUNTS
    assert len(contents(digits)) == 5 * 10 + 447


def test_images_are_those_of_scikit_learn(digits: Path) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for path in digits.rglob("*.png"):
        assert bunch.target[int(path.stem)] == int(path.parent.name)
        with Image.open(path) as image:
            assert image.mode == "L"
            expected = np.rint(bunch.images[int(path.stem)] * 255 / 16)
            assert np.array_equal(np.asarray(image), expected)


def test_training_images_come_from_the_development_half_and_test_images_are_the_other(digits: Path) -> None:
    halves = example.load_digit_halves()
    train, test = images_of(digits, "train"), images_of(digits, "test")
    for digit in example.EXAMPLE_DIGITS:
        development = set(halves.development[digit].tolist())
        assert train[digit] < development
        assert test[digit] == set(halves.test[digit].tolist())
        assert development.isdisjoint(test[digit])
        assert development | test[digit] == set(np.flatnonzero(halves.digits == digit).tolist())


def test_writing_is_deterministic_and_fewer_labels_are_a_subset(digits: Path, tmp_path: Path) -> None:
    assert contents(example.write_digits(tmp_path / "again")) == contents(digits)
    more = contents(example.write_digits(tmp_path / "more", per_class=20))
    assert len(more) == 5 * 20 + 447
    assert contents(digits).items() < more.items()


def test_second_call_writes_nothing_and_loads_no_scikit_learn(digits: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [digits.parent, *digits.parent.rglob("*")]}
    code = (
        "import sys; from pathlib import Path; from tlfeat.images.example import write_digits\n"
        f"write_digits(Path({str(digits)!r}))\n"
        "assert not {'sklearn', 'numpy', 'PIL'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {path: path.stat().st_mtime_ns for path in [digits.parent, *digits.parent.rglob("*")]} == before


def test_killed_run_leaves_no_folder_that_is_taken_for_whole(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    # os._exit ends the process as a kill does: no `finally`, no clean-up
    code = (
        "import os; from pathlib import Path; from tlfeat.images import example\n"
        "write, n = example._write_class, iter(range(6))\n"
        "example._write_class = lambda *a: write(*a) if next(n, None) is not None else os._exit(9)\n"
        f"example.write_digits(Path({str(folder)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = list(tmp_path.rglob("*.png"))
    assert 0 < len(left) < 497
    assert not folder.exists()
    assert contents(example.write_digits(folder)) == contents(digits)


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "_write_class", interrupt)
    with pytest.raises(KeyboardInterrupt):
        example.write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_agree(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = tmp_path / "digits", example._write_images

    def other_is_faster(staging: Path, per_class: int) -> None:
        write(staging, per_class)
        write(folder, per_class)

    monkeypatch.setattr(example, "_write_images", other_is_faster)
    assert contents(example.write_digits(folder)) == contents(digits)
    assert list(tmp_path.iterdir()) == [folder]


def test_empty_folder_is_filled(digits: Path, tmp_path: Path) -> None:
    assert contents(example.write_digits(tmp_path)) == contents(digits)


@pytest.mark.parametrize("damage", ["missing image", "other per_class", "foreign file"])
def test_anything_else_is_refused_and_left_as_it_is(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    if damage == "foreign file":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        example.write_digits(folder, per_class=20 if damage == "other per_class" else 10)
    if damage == "missing image":
        next((folder / "test" / "7").glob("*.png")).unlink()
    before = contents(folder)
    with pytest.raises(DataError, match="holds something other than the whole digits example"):
        example.write_digits(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("per_class", [0, -1, 88])
def test_impossible_number_of_labels_is_refused(per_class: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"between 1 and 87, got {per_class}"):
        example.write_digits(tmp_path / "digits", per_class=per_class)
    assert list(tmp_path.iterdir()) == []


def test_shipped_backbone_is_small() -> None:
    assert digits_backbone_path().stat().st_size < 1_000_000


def greys_decoded(halves: example.DigitHalves, indices: Labels, side_px: int) -> Pixels:
    """Decode as tlfeat does: (n, side, side, 3)."""
    files = []
    for grey in halves.greys[indices]:
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "PNG")
        files.append(file.getvalue())
    return np.stack([decode_bytes(file, (side_px, side_px)) for file in files])


def accuracy(rows: Rows, digits: Labels, n_learned: int) -> float:
    """Fit tlfeat's logreg on the first rows and test it on the others."""
    labels, names = digits - 5, [str(i) for i in range(n_learned)]
    info = SplitInfo("", "given", 0, n_learned, 0, 0)
    learned = labels[:n_learned]
    split = Split(list("56789"), names, names, learned, np.arange(n_learned), ["train"] * n_learned, info)
    fitted = fit_head("logreg", rows[:n_learned], split, np.arange(n_learned))
    found = predict_probabilities(fitted.head, rows[n_learned:]).argmax(axis=1)
    return float(np.mean(found == labels[n_learned:]))


@pytest.mark.keras
def test_pooled_output_of_the_shipped_backbone_beats_raw_pixels_on_the_example() -> None:
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import DIGITS, BackboneSpec

    halves, encoder = example.load_digit_halves(), KerasEncoder(BackboneSpec(DIGITS), ["avg_pool"])
    test = np.concatenate(list(halves.test.values()))
    draws = []
    for draw in range(5):
        rng = np.random.default_rng(draw)
        drawn = [rng.permutation(halves.development[digit])[:10] for digit in example.EXAMPLE_DIGITS]
        draws.append(np.concatenate(drawn))
    task = np.unique(np.concatenate([test, *draws]))
    raw = PixelEncoder().encode(greys_decoded(halves, task, 16))["pixels"]
    pooled = encoder.encode(greys_decoded(halves, task, 32))["avg_pool"]
    gains = []
    for drawn in draws:
        at = np.concatenate([drawn, test])
        of_raw, of_pooled = (accuracy(rows[np.searchsorted(task, at)], halves.digits[at], 50) for rows in (raw, pooled))
        gains.append(of_pooled - of_raw)
    # the network of 40 classes of digits alone had 1.0 points here
    assert np.mean(gains) >= 0.015


@pytest.mark.keras
def test_last_layer_of_the_shipped_backbone_is_its_pooled_output() -> None:
    from tlfeat.backbones.network import DIGITS, BackboneSpec, build_base

    assert build_base(BackboneSpec(DIGITS), (32, 32)).layers[-1].name == "avg_pool"
