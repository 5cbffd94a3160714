"""Which images of a set show the same picture: equal bytes, equal pixels, or a copy that was changed a little.

How it is found, in this order:

1. equal content keys: the same bytes;
2. candidates: of every image its `N_NEIGHBOURS` nearest by cosine similarity of the centred rows;
3. the files of the candidates are decoded to small grey pictures without their coarse light and shade, which are laid
   over each other, mirrored too, and with one of them cropped by up to a tenth. A correlation of `SAME_PICTURE` or more
   is a copy: it survives another JPEG quality, another size, more light, a small crop, a mirror.

Step 3 is what keeps pictures that are merely alike apart: in rows of potato leaves on one background the copies of some
pictures are less similar than other leaves are to each other, and no threshold on rows alone finds the ones without the
others. Where there are no files (imported rows), a high threshold on rows has to do, finds less, and is said.

Measured with rows of MobileNetV2 0.35 (benchmarks/audit.py, docs/benchmarks/audit.md): of 250 copies planted in
cats_dogs all were found, by rows alone 164. False alarms: none in the 5,714 pictures of cats_dogs, potato and
sign_digits, on which the threshold was chosen; about 6 for the 10,000 test pictures of cifar10, on which it was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tlfeat.errors import BadImage
from tlfeat.images.decode import decode_all, decode_bytes, image_size, read_file
from tlfeat.images.nearest import N_NEIGHBOURS, Nearest, Positions, nearest_images
from tlfeat.text import counted
from tlfeat.types import OnProgress, Rows, silent

#: Correlation of two small pictures from which they are called copies: in three sets the lowest of 360 cropped copies
#: had 0.912, and the highest of 28,000 pairs of other pictures 0.903 (two hands that show the same sign).
SAME_PICTURE = 0.91

#: Cosine similarity of centred rows from which images without files are called copies.
SAME_ROW = 0.95

#: Pairs of pictures that are compared, most similar rows first.
MAX_PAIRS = 20_000

#: Sides in pixels of the small pictures that are laid over each other: whole, and cropped to 98, 96, ... 91 %.
_SIDES = (48, 49, 50, 51, 52, 53)

#: Side in pixels at which they are decoded.
_DECODED_SIDE = 56

#: Smaller pictures hold too little to tell a changed copy from a look-alike.
MIN_SIDE = 24

#: Below this correlation of coarse pictures no crop brings the fine ones above `SAME_PICTURE`.
_WORTH_A_LOOK = 0.4

Grey = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one picture.

    Attributes
    ----------
    one, other : int
        Positions in the rows, `one` the lower. Where two sides were compared, `one` is on the asking side.
    kind : str
        "bytes" (equal content key; of imported rows: equal rows), "pixels" (equal after decoding), "near" (a changed
        copy), "rows" (similar rows, no files to look at).
    similarity : float
        1 for bytes and pixels; the correlation of the small pictures for near; the cosine of the centred rows for rows.
    """

    one: int
    other: int
    kind: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found, and in `notes` what was not looked for."""

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)


def find_duplicates(
    rows: Rows | None,
    keys: Sequence[str],
    files: Sequence[Path] | None,
    *,
    is_asking: npt.NDArray[np.bool_] | None = None,
    max_pairs: int = MAX_PAIRS,
    on_progress: OnProgress = silent,
) -> Duplicates:
    """Find the images that show the same picture; the same answer with any number of threads.

    Parameters
    ----------
    rows : float32 array of shape (n_images, width), optional
        Not modified; a copy is made. None, where they are larger than memory, finds equal bytes only.
    keys : sequence of str
        Content keys.
    files : sequence of Path, optional
        None where there are no pictures to look at.
    is_asking : bool array of shape (n_images,), optional
        Only pairs of an image where this is true (test) with one where it is not (training) are looked for; by
        default all pairs.
    max_pairs : int, default=20,000
        Pictures are compared for so many candidates, most similar rows first. Equal bytes are always found.

    Returns
    -------
    Duplicates
        Of n equal files n - 1 pairs, each with the first; with `is_asking` one pair for each asking image.
    """
    firsts, members = _by_key(keys)
    asks = np.ones(len(firsts), bool) if is_asking is None else _any_member(members, is_asking)
    answers = asks if is_asking is None else _any_member(members, ~is_asking)
    pairs = _equal_keys(members, is_asking)
    notes: list[str] = []
    if rows is None:
        notes.append("the rows are larger than memory: changed copies were not looked for; exact copies among all")
    else:
        candidates, cosines = _candidates(rows[firsts], asks, answers, notes)
        if files is None:
            near = _by_rows(candidates, cosines, notes)
        else:
            candidates = _most_similar(candidates, cosines, max_pairs, notes)
            near = _look(candidates, [files[i] for i in firsts], notes, on_progress)
        for pair in near:
            pairs += _expand(pair, members, is_asking)
    return Duplicates(sorted(pairs, key=lambda pair: (pair.one, pair.other)), notes)


def _candidates(
    rows: Rows, asks: npt.NDArray[np.bool_], answers: npt.NDArray[np.bool_], notes: list[str]
) -> tuple[Positions, Grey]:
    """Return pairs (n, 2) of images with similar rows, and the cosines of their rows."""
    if not (asks.any() and answers.any() and len(rows) > 1):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    nearest = nearest_images(rows, np.flatnonzero(asks), np.flatnonzero(answers))
    if not nearest.is_whole:
        notes.append(
            f"changed copies were looked for only among images with similar rows ({len(rows):,} images are too "
            f"many to compare each with each); exact copies among all"
        )
    return _distinct(np.flatnonzero(asks), nearest)


def _by_rows(candidates: Positions, cosines: Grey, notes: list[str]) -> list[Pair]:
    notes.append(
        f"there are no pictures to look at: changed copies are pairs of rows with a cosine of {SAME_ROW} or more, "
        f"which finds fewer of them"
    )
    return [
        Pair(int(a), int(b), "rows", round(float(cosine), 3))
        for (a, b), cosine in zip(candidates, cosines, strict=True)
        if cosine >= SAME_ROW
    ]


def _most_similar(candidates: Positions, cosines: Grey, max_pairs: int, notes: list[str]) -> Positions:
    if len(candidates) <= max_pairs:
        return candidates
    notes.append(
        f"changed copies were looked for in the {max_pairs:,} pairs with the most similar rows, of "
        f"{len(candidates):,} candidates; exact copies among all"
    )
    return candidates[np.sort(np.argsort(-cosines, kind="stable")[:max_pairs])]


def _by_key(keys: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Return the first position of every different key, and all its positions."""
    members: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    return [positions[0] for positions in members.values()], list(members.values())


def _any_member(members: list[list[int]], is_true: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.array([bool(is_true[positions].any()) for positions in members])


def _equal_keys(members: list[list[int]], is_asking: npt.NDArray[np.bool_] | None) -> list[Pair]:
    pairs = []
    for positions in members:
        if is_asking is None:
            pairs += [Pair(positions[0], i, "bytes", 1.0) for i in positions[1:]]
        elif others := [i for i in positions if not is_asking[i]]:
            pairs += [Pair(i, others[0], "bytes", 1.0) for i in positions if is_asking[i]]
    return pairs


def _expand(pair: Pair, members: list[list[int]], is_asking: npt.NDArray[np.bool_] | None) -> list[Pair]:
    """Turn a pair of different keys into pairs of images: copies of a copy are copies."""
    ones, others = members[pair.one], members[pair.other]
    if is_asking is None:
        first, second = sorted((ones[0], others[0]))
        return [Pair(first, second, pair.kind, pair.similarity)]
    found = {}
    for mine, theirs in ((ones, others), (others, ones)):
        if learned := [i for i in theirs if not is_asking[i]]:
            found.update({i: Pair(i, learned[0], pair.kind, pair.similarity) for i in mine if is_asking[i]})
    return list(found.values())


def _distinct(asking: Positions, nearest: Nearest) -> tuple[Positions, Grey]:
    """Return pairs (n, 2) of positions with their cosines, one of (a, b) and (b, a)."""
    pairs = np.column_stack([np.repeat(asking, N_NEIGHBOURS), nearest.positions.ravel()])  # (n, 2)
    is_there = pairs[:, 1] >= 0
    pairs, cosines = pairs[is_there], nearest.cosines.ravel()[is_there]
    _, at = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(at)], cosines[np.sort(at)]


def _look(candidates: Positions, files: Sequence[Path], notes: list[str], on_progress: OnProgress) -> list[Pair]:
    """Return the candidates whose pictures are copies of each other."""
    wanted = np.unique(candidates)
    place = {int(i): n for n, i in enumerate(wanted)}
    greys = np.full((len(wanted), _DECODED_SIDE, _DECODED_SIDE), np.nan, np.float32)
    for decoded in decode_all(((n, files[i]) for n, i in enumerate(wanted)), (_DECODED_SIDE, _DECODED_SIDE)):
        if decoded.pixels is not None:
            greys[decoded.i] = decoded.pixels.astype(np.float32).mean(axis=2)
        on_progress("comparing pictures", decoded.i + 1, len(wanted))
    n_gone = int(np.isnan(greys[:, 0, 0]).sum())
    if n_gone:
        notes.append(f"{counted(n_gone, 'picture')} could not be read again and not be compared")
    coarse = _flattened(greys, 16)
    at = np.array([[place[int(a)], place[int(b)]] for a, b in candidates], np.int64).reshape(-1, 2)
    rough = np.maximum(
        np.einsum("nij,nij->n", coarse[at[:, 0]], coarse[at[:, 1]]),
        np.einsum("nij,nij->n", coarse[at[:, 0]], coarse[at[:, 1], :, ::-1]),
    )
    found = []
    for (a, b), (i, j), score in zip(candidates.tolist(), at.tolist(), rough, strict=True):
        is_equal = bool(np.array_equal(greys[i], greys[j]))
        if not is_equal and not score >= _WORTH_A_LOOK:
            continue
        similarity = 1.0 if is_equal else _correlation(greys[i], greys[j])
        if similarity < SAME_PICTURE:
            continue
        kind = _kind(files[a], files[b], similarity)
        if kind:
            found.append(Pair(a, b, kind, 1.0 if kind == "pixels" else round(similarity, 3)))
    return found


def _kind(one: Path, other: Path, similarity: float) -> str:
    """Return "pixels" or "near", "" where the pictures are too small to tell."""
    try:
        data = read_file(one), read_file(other)
        if similarity >= 0.999 and image_size(data[0]) == image_size(data[1]):
            pixels, others = (decode_bytes(picture, None) for picture in data)
            if pixels.shape == others.shape and np.array_equal(pixels, others):
                return "pixels"
        return "near" if min(image_size(data[0]) + image_size(data[1])) >= MIN_SIDE else ""
    except BadImage:
        return ""


def _correlation(one: Grey, other: Grey) -> float:
    """Return the highest correlation of two decoded pictures over mirrors, small crops and their places."""
    maps = [[_flattened(grey[None], side)[0] for side in _SIDES] for grey in (one, other)]
    n, best = _SIDES[0], -1.0
    for cropped, whole in (maps, maps[::-1]):
        plain = whole[0]
        both = np.stack([plain, plain[:, ::-1]]).reshape(2, -1)
        for map_ in cropped:
            windows = np.lib.stride_tricks.sliding_window_view(map_, (n, n)).reshape(-1, n * n)  # (places, n * n)
            lengths = np.maximum(np.linalg.norm(windows, axis=1), 1e-6)
            best = max(best, float(((both @ windows.T) / lengths).max()))
    return best


def _flattened(greys: Grey, side: int) -> Grey:
    """Resize (n, s, s) to (n, side, side), take away what is coarser than a sixteenth, and scale to length 1.

    Light and shade of a whole picture are what different pictures of one scene share; its outlines are its own.
    A picture without outlines becomes 0.
    """
    sharp, blurred = _weights(greys.shape[-1], side, 0.0), _weights(greys.shape[-1], side, side / 16)
    maps = sharp @ greys @ sharp.T - blurred @ greys @ blurred.T  # (n, side, side)
    lengths = np.linalg.norm(maps, axis=(1, 2), keepdims=True)
    result: Grey = np.where(lengths > 0.5 * side, maps / np.maximum(lengths, 1e-6), 0)  # half a grey level a pixel
    return result


def _weights(n_from: int, n_to: int, blur: float) -> Grey:
    """Return the (n_to, n_from) matrix that resizes one side linearly, then blurs by a Gaussian of `blur` pixels."""
    step = n_from / n_to
    centres = (np.arange(n_to) + 0.5) * step - 0.5
    distance = np.abs(np.arange(n_from)[None] - centres[:, None])  # (n_to, n_from)
    weights = np.maximum(1 - distance / max(step, 1.0), 0)
    if blur:
        weights = np.exp(-0.5 * (distance / (blur * step)) ** 2)
    normal: Grey = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal
