"""The random order of a set of pictures: which are looked at first, and which are kept for measuring.

The place of a picture depends on its path and the seed alone, so that a second run, and one with a few more pictures,
goes on in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tlfeat.types import Labels

#: Pictures that a question is chosen among: a random sample of any set, so that memory and time do not grow with it.
POOL = 20_000

#: Every fifth question is drawn at random, and a fifth of the pictures is kept for those questions.
RANDOM_EVERY = 5


def random_order(paths: Sequence[str], *, seed: int = 0) -> Labels:
    """Return the places of all paths, int64 of shape (n,), in a random order.

    The first m of it are a simple random sample of the paths, for every m.
    """
    marks = [hashlib.blake2b(f"{seed}:{path}".encode("utf-8", "surrogateescape")).digest() for path in paths]
    return np.array(sorted(range(len(marks)), key=marks.__getitem__), np.int64)


def pool_and_reserve(order: Labels, *, pool: int = POOL) -> tuple[Labels, Labels]:
    """Return the places that questions are chosen among, and those that are kept for random questions, in order.

    The two share none, so that what was asked at random can test a head that learned from the others.
    """
    n_reserved = -(-min(len(order), pool) // RANDOM_EVERY)
    return order[n_reserved:pool], order[:n_reserved]


def in_turns(choosable: Labels, reserve: Labels) -> Labels:
    """Return both in one order: of every beginning of it a fifth is of the reserve, as far as that goes."""
    turns = np.arange(len(choosable))
    ranks = [RANDOM_EVERY * np.arange(len(reserve)), turns // (RANDOM_EVERY - 1) * RANDOM_EVERY + 1]
    return np.concatenate([reserve, choosable])[np.argsort(np.concatenate(ranks), kind="stable")]


def embedding_order(paths: Sequence[str], *, seed: int = 0) -> Labels:
    """Return the places of all paths in the order in which their rows are wanted: each beginning is a random sample."""
    order = random_order(paths, seed=seed)
    return np.concatenate([in_turns(*pool_and_reserve(order)), order[POOL:]])


def is_random_turn(n_random: int, n_asked: int) -> bool:
    """Return whether the next question is drawn at random, after so many of which so many were."""
    return n_random * RANDOM_EVERY <= n_asked
