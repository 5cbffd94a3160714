"""Which images of a set show the same picture: equal bytes, equal pixels, or a copy that was changed a little.

How it is found, in this order:

1. equal content keys: the same bytes;
2. candidates: of every image its `N_NEIGHBOURS` nearest by cosine similarity of the centred rows;
3. the files of the candidates are decoded to small grey pictures without their coarse light and shade, which are laid
   over each other, mirrored too, and with one of them cropped by up to a tenth. A correlation of `SAME_PICTURE` or more
   is a copy: it survives another JPEG quality, another size, more light, a small crop, a mirror.

Of more than `N_NEIGHBOURS` copies of a picture each may have only others of them for neighbours. So the first of such a
group asks again, without the others.

Step 3 is what keeps pictures that are merely alike apart: in rows of potato leaves on one background the copies of some
pictures are less similar than other leaves are to each other, and no threshold on rows alone finds the ones without the
others. Where there are no files (imported rows), a high threshold on rows has to do, finds less, and is said.

Measured with rows of MobileNetV2 0.35 (benchmarks/audit.py, docs/benchmarks/audit.md): of 250 copies planted in
cats_dogs all were found, by rows alone 164. False alarms: none in the 5,714 pictures of cats_dogs, potato and
sign_digits, on which the threshold was chosen; about 6 for the 10,000 test pictures of cifar10, on which it was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tlfeat.errors import BadImage
from tlfeat.images.grey_maps import COARSE, FINE, HALF, Grey, Pictures
from tlfeat.images.nearest import N_NEIGHBOURS, Nearest, Positions, nearest_images
from tlfeat.images.read_ahead import Picture
from tlfeat.text import counted
from tlfeat.types import OnProgress, Rows, silent

#: Correlation of two small pictures from which they are called copies: in three sets the lowest of 360 cropped copies
#: had 0.912, and the highest of 28,000 pairs of other pictures 0.903 (two hands that show the same sign).
SAME_PICTURE = 0.91

#: Cosine similarity of centred rows from which images without files are called copies.
SAME_ROW = 0.95

#: Pairs of pictures that are compared, most similar rows first: all of 60,000 images.
MAX_PAIRS = 300_000

#: Smaller pictures hold too little to tell a changed copy from a look-alike.
MIN_SIDE = 24

#: Coarser maps and the correlation from which the next finer ones are compared. Of 858 copies in four sets, cropped
#: ones among them, the lowest had 0.62 and 0.77; of neighbours that are no copies between 0 and 25 % pass both.
_WORTH_A_LOOK = ((COARSE, 0.55), (HALF, 0.7))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one picture.

    Attributes
    ----------
    one, other : int
        Positions in the rows, `one` the lower.
    kind : str
        "bytes" (equal content key; of imported rows: equal rows), "pixels" (equal after decoding), "near" (a changed
        copy), "rows" (similar rows, no files to look at); of texts
        "words" (equal but for white space and case) and "runs" (most characters are the same).
    similarity : float
        1 for bytes and pixels; the correlation of the small pictures for near; the cosine of the centred rows for rows.
    """

    one: int
    other: int
    kind: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found, in `notes` what was not looked for, and how many pictures could not be read."""

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)
    n_unread: int = 0


def find_duplicates(
    rows: Rows | None,
    keys: Sequence[str],
    files: Sequence[Picture] | None,
    *,
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
    files : sequence of Path or callable, optional
        None where there are no pictures to look at.
    max_pairs : int, default=300,000
        Pictures are compared for so many candidates, most similar rows first. Equal bytes are always found.

    Returns
    -------
    Duplicates
        Of n equal files n - 1 pairs, each with the first. Of other copies the pairs that were compared: all copies of a
        picture hang together through them (`connected`), but not each is paired with each.
    """
    firsts, members = _by_key(keys)
    pairs = [Pair(positions[0], i, "bytes", 1.0) for positions in members for i in positions[1:]]
    notes: list[str] = []
    n_unread = 0
    if rows is None:
        notes.append("the rows are larger than memory: changed copies were not looked for; exact copies among all")
    elif len(firsts) > 1:
        pictures = None if files is None else Pictures([files[i] for i in firsts], on_progress)
        found = _changed_copies(rows[firsts], pictures, max_pairs, notes)
        n_unread = pictures.n_gone if pictures else 0
        if n_unread:
            notes.append(f"{counted(n_unread, 'picture')} could not be read again and not be compared")
        pairs += [Pair(firsts[pair.one], firsts[pair.other], pair.kind, pair.similarity) for pair in found]
    return Duplicates(sorted(pairs, key=lambda pair: (pair.one, pair.other)), list(dict.fromkeys(notes)), n_unread)


def _by_key(keys: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Return the first position of every different key, and all its positions."""
    members: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    return [positions[0] for positions in members.values()], list(members.values())


def connected(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of `n` positions the lowest one that it hangs together with through pairs (union-find)."""
    parent = list(range(n))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        parent[high] = low
    return [find(i) for i in range(n)]


def _changed_copies(rows: Rows, pictures: Pictures | None, max_pairs: int, notes: list[str]) -> list[Pair]:
    """Return pairs of images with different keys; `rows` are used up."""
    everything = np.arange(len(rows))
    nearest = nearest_images(rows, everything, everything)
    if not nearest.is_whole:
        notes.append(
            f"changed copies were looked for only among images with similar rows ({len(rows):,} images are too "
            f"many to compare each with each); exact copies among all"
        )
    if pictures is None:
        notes.append(
            f"there are no pictures to look at: changed copies are pairs of rows with a cosine of {SAME_ROW} or more, "
            f"which finds fewer of them"
        )
    found: list[Pair] = []
    asking = everything
    while True:
        candidates, cosines = _distinct(asking, nearest)
        if pictures is None:
            new = _by_rows(candidates, cosines)
        else:
            new = _look(_most_similar(candidates, cosines, max_pairs, notes), pictures)
        found += new
        group_of = np.array(connected(len(rows), ((pair.one, pair.other) for pair in found)))
        is_large = np.bincount(group_of, minlength=len(rows)) > N_NEIGHBOURS  # at the first of a group
        asking = np.flatnonzero(is_large)
        if not new or not len(asking):
            return found
        others = everything[is_large | ~is_large[group_of]]
        nearest = nearest_images(rows, asking, others, is_centred=False)


def _distinct(asking: Positions, nearest: Nearest) -> tuple[Positions, Grey]:
    """Return pairs (n, 2) of positions, the lower first, each once, with their cosines."""
    pairs = np.column_stack([np.repeat(asking, N_NEIGHBOURS), nearest.positions.ravel()])  # (n, 2)
    is_there = pairs[:, 1] >= 0
    pairs, cosines = np.sort(pairs[is_there], axis=1), nearest.cosines.ravel()[is_there]
    _, at = np.unique(pairs[:, 0] * (1 + pairs.max(initial=0)) + pairs[:, 1], return_index=True)
    return pairs[at], cosines[at]


def _by_rows(candidates: Positions, cosines: Grey) -> list[Pair]:
    return [
        Pair(one, other, "rows", round(float(cosine), 3))
        for (one, other), cosine in zip(candidates.tolist(), cosines, strict=True)
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


def _look(candidates: Positions, pictures: Pictures) -> list[Pair]:
    """Return the candidates whose pictures are copies of each other."""
    candidates = pictures.read(candidates)
    is_equal = pictures.are_equal(candidates)
    equal, others = candidates[is_equal], candidates[~is_equal]
    for sides, enough in _WORTH_A_LOOK:
        others = others[pictures.correlations(others, sides) >= enough]
    correlations = pictures.correlations(others, FINE)
    scored = [(one, other, 1.0) for one, other in equal.tolist()]
    scored += [(*pair, float(score)) for pair, score in zip(others.tolist(), correlations, strict=True)]
    found = []
    for one, other, similarity in scored:
        kind = _kind(pictures, one, other, similarity) if similarity >= SAME_PICTURE else ""
        if kind:
            found.append(Pair(one, other, kind, 1.0 if kind == "pixels" else round(similarity, 3)))
    return found


def _kind(pictures: Pictures, one: int, other: int, similarity: float) -> str:
    """Return "pixels" or "near", "" where the pictures are too small to tell."""
    try:
        if similarity >= 0.999 and pictures.have_equal_pixels(one, other):
            return "pixels"
        return "near" if min(pictures.size(one) + pictures.size(other)) >= MIN_SIDE else ""
    except BadImage:
        return ""
