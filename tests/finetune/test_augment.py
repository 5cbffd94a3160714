"""What is drawn depends on the image alone, and does to it what the layers of Keras do."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tlfeat.backbones.frameworks import import_keras
from tlfeat.errors import ShapeError, UsageError
from tlfeat.finetune.augment import (
    FILLS,
    FLIPS,
    Augmentation,
    Matrices,
    apply,
    augment,
    image_seeds,
    splitmix64,
    uniform,
)

SIZE = (48, 64)
EVERYTHING = Augmentation("horizontal_and_vertical", rotation=0.2, zoom=0.3, shear=0.25)

Images = npt.NDArray[np.float32]


def keys(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]


SEEDS = image_seeds(0, 0, keys(2000))


def smooth_images(n: int, size: tuple[int, int] = SIZE) -> Images:
    """Waves of a few pixels' length, 0 to 255: bilinear interpolation errs little on them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    u, v = rng.uniform(-0.25, 0.25, (2, n, 3, 1, 1))
    waves = 127.5 + 127.5 * np.sin(u * x + v * y + rng.uniform(0, 6, (n, 3, 1, 1)))
    return np.ascontiguousarray(waves.transpose(0, 2, 3, 1), np.float32)  # (n, h, w, 3)


def squares(matrices: Matrices) -> npt.NDArray[np.float64]:
    """(n, 8) as (n, 3, 3)."""
    whole = np.concatenate([matrices, np.ones((len(matrices), 1), np.float32)], axis=1)
    return whole.astype(np.float64).reshape(-1, 3, 3)


# --- the words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Augmentation()),
        ("none", Augmentation()),
        ("flip", Augmentation("horizontal")),
        ("flip=horizontal,rotation=0.2,zoom=0.2", Augmentation("horizontal", 0.2, 0.2)),
        (" rotation = 0.1 , fill = nearest ", Augmentation(rotation=0.1, fill="nearest")),
        ("shear=.5", Augmentation(shear=0.5)),
        ("zoom=0", Augmentation()),
        ("fill=nearest", Augmentation()),
    ],
)
def test_text_says_what_is_changed(text: str, expected: Augmentation) -> None:
    assert Augmentation.parse(text) == expected
    assert bool(expected) == (text in ("flip", "shear=.5") or "rotation" in text)


@given(
    st.sampled_from(["", *FLIPS]),
    st.floats(0, 1),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.sampled_from(FILLS),
)
@example("", 0.0, 0.0, 0.0, "constant")
def test_text_of_a_value_is_read_back_as_an_equal_one(
    flip: str, rotation: float, zoom: float, shear: float, fill: str
) -> None:
    augmentation = Augmentation(flip, rotation, zoom, shear, fill)
    assert Augmentation.parse(str(augmentation)) == augmentation


def test_text_is_short() -> None:
    assert str(Augmentation()) == "none"
    assert str(Augmentation("horizontal", rotation=0.2)) == "flip=horizontal, rotation=0.2"
    assert str(Augmentation(zoom=0.1, fill="nearest")) == "zoom=0.1, fill=nearest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotaton=0.1", "No augmentation 'rotaton'. Did you mean 'rotation'?"),
        ("flip=horizontl", "No flip 'horizontl'. Did you mean 'horizontal'?"),
        ("flip=", "flip needs a value"),
        ("flip,flip", "flip is given twice"),
        ("zoom", "zoom needs a value, as in zoom=0.1."),
        ("zoom=much", "zoom is a number from 0 to 0.99, received 'much'."),
        ("zoom=1", "zoom is from 0 to 0.99, received 1.0."),
        ("rotation=-0.1", "rotation is from 0 to 1, received -0.1."),
        ("shear=nan", "shear is from 0 to 1, received nan."),
        ("flip,fill=wrap", "No fill 'wrap'. Known fills: reflect, nearest, constant."),
        ("flip,", "No augmentation ''. Known augmentations: flip, rotation, zoom, shear, fill."),
        ("none,flip", "No augmentation 'none'."),
    ],
)
def test_text_that_cannot_be_understood_says_what_could(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Augmentation.parse(text)
    assert message in str(error.value)


# --- what is drawn --------------------------------------------------------------------------------------


def test_streams_are_those_of_splitmix64() -> None:
    # the first five numbers of seed 1234567, as published with Vigna's splitmix64.c
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(splitmix64(np.array([1234567], np.uint64), i)[0]) for i in range(5)] == expected


def test_numbers_drawn_are_uniform_and_do_not_go_together() -> None:
    drawn = np.stack([uniform(SEEDS, i) for i in range(6)])  # (6, n)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    later = np.stack([uniform(image_seeds(0, 1, keys(2000)), i) for i in range(6)])
    steps = (np.arange(2000) + 0.5) / 2000
    assert np.abs(np.sort(drawn, axis=1) - steps).max() < 0.05  # Kolmogorov-Smirnov at 1e-4: 0.05
    correlations = np.corrcoef(np.concatenate([drawn, later])) - np.eye(12)
    assert np.abs(correlations).max() < 0.11  # 5 standard errors


def test_an_image_gets_the_same_whatever_its_batch_and_order() -> None:
    names = keys(50)
    whole = EVERYTHING.matrices(image_seeds(3, 7, names), SIZE)
    order = np.random.default_rng(0).permutation(50)
    shuffled = EVERYTHING.matrices(image_seeds(3, 7, [names[i] for i in order]), SIZE)
    alone = EVERYTHING.matrices(image_seeds(3, 7, names[11:12]), SIZE)
    np.testing.assert_array_equal(shuffled, whole[order])
    np.testing.assert_array_equal(alone[0], whole[11])


def test_what_is_drawn_stays_what_it_is_from_version_to_version() -> None:
    # a run that was stopped and goes on after an update must see the images it would have seen
    assert image_seeds(3, 7, keys(2)).tolist() == [14796222091979199194, 8835968579807691480]
    drawn = EVERYTHING.matrices(image_seeds(3, 7, keys(1)), SIZE)
    # worked out in plain Python from the numbers of the stream, as four matrices multiplied
    expected = [[-0.546128, -0.718345, 65.584145, -0.734253, 0.925811, 24.872422, 0, 0]]
    np.testing.assert_allclose(drawn, expected, atol=1e-4)


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (-1, 0)], ids=["seed", "epoch", "negative seed"])
def test_another_seed_or_epoch_draws_anew(other: tuple[int, int]) -> None:
    assert not np.isin(image_seeds(*other, keys(2000)), SEEDS).any()
    assert len(np.unique(SEEDS)) == 2000


def test_every_parameter_stays_in_its_range_and_fills_it() -> None:
    rotated = Augmentation(rotation=0.2).matrices(SEEDS, SIZE)
    turns = np.arctan2(rotated[:, 3], rotated[:, 0]) / (2 * np.pi)
    zoomed = Augmentation(zoom=0.3).matrices(SEEDS, SIZE)
    sheared = Augmentation(shear=0.25).matrices(SEEDS, SIZE)
    ranges = [(turns, 0.2), (zoomed[:, 0] - 1, 0.3), (zoomed[:, 4] - 1, 0.3), (sheared[:, 1], 0.25)]
    for values, largest in ranges:
        assert -largest - 1e-6 <= values.min() < -0.98 * largest
        assert largest + 1e-6 >= values.max() > 0.98 * largest
    assert abs(np.corrcoef(zoomed[:, 0], zoomed[:, 4])[0, 1]) < 0.1, "height and width are drawn apart"


@pytest.mark.parametrize("flip", FLIPS)
def test_half_of_the_images_are_flipped_in_each_direction(flip: str) -> None:
    matrices = Augmentation(flip).matrices(SEEDS, SIZE)
    is_left, is_down = matrices[:, 0] == -1, matrices[:, 4] == -1
    for is_flipped, is_wanted in ((is_left, "horizontal" in flip), (is_down, "vertical" in flip)):
        assert abs(is_flipped.mean() - is_wanted / 2) < 0.05 * is_wanted + 1e-9
    assert abs((is_left & is_down).mean() - (flip == "horizontal_and_vertical") / 4) < 0.05


def test_one_more_parameter_leaves_what_the_others_draw() -> None:
    parts = [
        Augmentation("horizontal_and_vertical"),
        Augmentation(shear=0.25),
        Augmentation(zoom=0.3),
        Augmentation(rotation=0.2),
    ]
    flip, shear, zoom, rotation = (squares(part.matrices(SEEDS, SIZE)) for part in parts)
    # backwards from the new pixel: out of the rotation, the zoom, the shear, the flip
    np.testing.assert_allclose(squares(EVERYTHING.matrices(SEEDS, SIZE)), flip @ shear @ zoom @ rotation, atol=1e-4)


def test_the_centre_stays_where_it_is() -> None:
    centre = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2, 1])
    moved = squares(EVERYTHING.matrices(SEEDS, SIZE)) @ centre
    np.testing.assert_allclose(moved, np.broadcast_to(centre, (2000, 3)), atol=1e-4)


# --- what is done to pixels -----------------------------------------------------------------------------


def test_nothing_asked_for_gives_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    moved = apply(pixels, Augmentation().matrices(SEEDS[:4], SIZE))
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, pixels)
    assert apply(pixels[:0], Augmentation().matrices(SEEDS[:0], SIZE)).shape == (0, *SIZE, 3)


def test_pixels_given_are_not_changed() -> None:
    pixels = smooth_images(8)
    before = pixels.copy()
    apply(pixels, Augmentation("horizontal").matrices(SEEDS[:8], SIZE))[:] = 0
    np.testing.assert_array_equal(pixels, before)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"received \(4, 48, 64, 3\) and \(5, 8\)"):
        apply(smooth_images(4), Augmentation().matrices(SEEDS[:5], SIZE))


def kernel(pixels: Images, matrices: Matrices, fill: str = "reflect") -> Images:
    """What TensorFlow's own operation gives."""
    moved = import_keras().ops.image.affine_transform(pixels, matrices, fill_mode=fill)
    return np.asarray(moved, np.float32)


@pytest.mark.keras
@pytest.mark.parametrize("flip", FLIPS)
def test_flips_are_exact_come_back_and_are_those_of_the_kernel(flip: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, *SIZE, 3)).astype(np.float32)
    matrices = Augmentation(flip).matrices(SEEDS[:16], SIZE)
    once = apply(images, matrices)
    np.testing.assert_array_equal(once, kernel(images, matrices))
    np.testing.assert_array_equal(apply(once, matrices), images)
    assert not np.array_equal(once, images)
    with_layer = np.asarray(import_keras().layers.RandomFlip(flip, seed=0)(images, training=True))
    of_both = {both.tobytes() for both in (images[0], images[0, :, ::-1], images[0, ::-1], images[0, ::-1, ::-1])}
    assert once[0].tobytes() in of_both
    assert with_layer[0].tobytes() in of_both


@pytest.mark.keras
def test_a_flip_of_a_shifted_image_is_not_mistaken_for_a_plain_one() -> None:
    images = smooth_images(2)
    matrices = Augmentation("horizontal").matrices(SEEDS[:2], SIZE)
    matrices[:, 2] += 3
    np.testing.assert_array_equal(apply(images, matrices), kernel(images, matrices))


@pytest.mark.keras
@pytest.mark.parametrize("fill", FILLS)
def test_a_fixed_rotation_is_that_of_the_keras_layer(fill: str) -> None:
    layers, images = import_keras().layers, smooth_images(1)
    for matrix in Augmentation(rotation=0.5).matrices(SEEDS[:6], SIZE)[:, None]:  # (1, 8)
        turn = float(np.arctan2(matrix[0, 3], matrix[0, 0]) / (2 * np.pi))
        layer = layers.RandomRotation((turn, turn), fill_mode=fill, fill_value=0.0)
        expected = np.asarray(layer(images, training=True))
        np.testing.assert_allclose(apply(images, matrix, fill=fill), expected, atol=0.02)


@pytest.mark.keras
@pytest.mark.parametrize("fill", FILLS)
def test_a_fixed_zoom_is_that_of_the_keras_layer(fill: str) -> None:
    layers, images = import_keras().layers, smooth_images(1)
    for matrix in Augmentation(zoom=0.4).matrices(SEEDS[:6], SIZE)[:, None]:
        width, height = float(matrix[0, 0]) - 1, float(matrix[0, 4]) - 1
        layer = layers.RandomZoom((height, height), (width, width), fill_mode=fill, fill_value=0.0)
        expected = np.asarray(layer(images, training=True))
        np.testing.assert_allclose(apply(images, matrix, fill=fill), expected, atol=0.02)


@pytest.mark.keras
def test_a_fixed_shear_is_that_of_the_keras_layer_but_about_the_centre() -> None:
    # Keras' layer shears about the upper left corner; at a tangent of 0.2 and 41 rows the centre moves by 4 pixels
    layers, images = import_keras().layers, smooth_images(1, (41, 64))
    layer = layers.RandomShear(x_factor=(0.2, 0.2), seed=0)
    about_corner = np.asarray(layer(images, training=True))
    seeds = SEEDS[np.abs(np.abs(2 * uniform(SEEDS, 2) - 1) - 0.2) < 0.0005]  # the layer draws the sign
    drawn = Augmentation(shear=1).matrices(seeds, (41, 64))
    sign = 1 if np.abs(about_corner[0, 20] - np.roll(images[0, 20], -4, axis=0))[8:-8].max() < 1e-2 else -1
    matrix = drawn[np.sign(drawn[:, 1]) == sign][:1]
    assert len(matrix) == 1
    ours = apply(images, matrix)
    expected = np.roll(about_corner, sign * 4, axis=2)
    np.testing.assert_allclose(ours[:, :, 8:-8], expected[:, :, 8:-8], atol=0.5)


@pytest.mark.keras
def test_all_at_once_is_what_one_after_the_other_gives_but_interpolated_once() -> None:
    images, size = smooth_images(8, (96, 96)), (96, 96)
    mild = [Augmentation("horizontal"), Augmentation(shear=0.1), Augmentation(zoom=0.1), Augmentation(rotation=0.05)]
    step_by_step = images
    for part in mild:
        step_by_step = apply(step_by_step, part.matrices(SEEDS[:8], size))
    at_once = apply(images, Augmentation("horizontal", 0.05, 0.1, 0.1).matrices(SEEDS[:8], size))
    middle = np.s_[:, 30:-30, 30:-30]
    assert np.abs(at_once - step_by_step)[middle].mean() < 2
    assert np.abs(at_once - images)[middle].mean() > 20, "nothing was moved: the test shows nothing"


@pytest.mark.keras
def test_an_image_is_the_same_to_the_bit_in_any_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, *SIZE, 3), dtype=np.uint8)
    matrices = EVERYTHING.matrices(SEEDS[:16], SIZE)
    whole = apply(pixels, matrices)
    assert apply(pixels[5:6], matrices[5:6]).tobytes() == whole[5].tobytes()
    assert apply(pixels[::-1], matrices[::-1])[10].tobytes() == whole[5].tobytes()
    assert whole.min() >= 0
    assert whole.max() <= 255


@pytest.mark.keras
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_beyond_the_edges_is_filled_as_asked_for(dtype: type) -> None:
    """A dark frame around a bright square: mirrored it is bright again further in, going on it stays dark."""
    images = np.full((6, 24, 24, 3), 20, dtype)
    images[:, 2:-2, 2:-2] = 220
    images += np.arange(6, dtype=dtype)[:, None, None, None]  # another content: another draw
    found = {}
    for fill in FILLS:
        augmentation = Augmentation(zoom=0.9, rotation=0.1, fill=fill)
        found[fill] = augment(images, augmentation, 3, 4)
        content = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
        matrices = augmentation.matrices(image_seeds(3, 4, content), (24, 24))
        expected = apply(images, matrices, fill=fill)
        np.testing.assert_array_equal(found[fill], np.rint(expected) if dtype == np.uint8 else expected)
        assert (found[fill].dtype, found[fill].shape) == (images.dtype, images.shape)
    lowest = {fill: float(images.min()) for fill, images in found.items()}
    assert lowest["constant"] == 0
    assert lowest["nearest"] >= 19.9 and lowest["reflect"] >= 19.9
    is_dark = {fill: float((images < 60).mean()) for fill, images in found.items()}
    assert is_dark["nearest"] > 2 * is_dark["reflect"]
