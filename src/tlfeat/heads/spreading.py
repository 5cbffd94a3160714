"""Labels spread to the pictures that look like labelled ones, so that few labels tell of many pictures.

Label spreading over a graph of nearest neighbours (Zhou et al. 2003, Learning with local and global consistency), with
the ties and the certainty of Iscen et al. 2019, Label propagation for deep semi-supervised learning. The head learns
from what was spread as from labels of less weight: it answers for pictures outside the graph, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tlfeat.heads.blocks import MAPPINGS, steady_threads
from tlfeat.heads.learner import LinearModel, fit
from tlfeat.types import Floats, Labels, Rows

#: Pictures in the graph, the first of a pool in random order; labelled ones beyond them are tied to these.
N_IN_GRAPH = 2_000

#: Nearest pictures that a picture is tied to, and the power of the cosine that is the strength of a tie.
N_TIES, _POWER = 5, 3

#: What a picture takes from its neighbours in each round, a share, and the rounds.
_SHARE, _N_ROUNDS = 0.9, 30

#: All that was spread weighs as much as the labels while these are few, with so many a class a third (1 / e) of them,
#: and soon nothing: the head of many labels knows more than the graph.
_FEW_A_CLASS = 30

#: With so many labels a class nothing is spread any more; it would weigh 4 % of them.
_ENOUGH_A_CLASS = 100

#: Labels that are added to those of each class to say how frequent it is: of a few labels nobody knows.
_ADDED = 5


@dataclass(slots=True)
class Graph:
    """Pictures tied to those that look most like them.

    Attributes
    ----------
    rows : float32 array of shape (n_pool, width)
        In random order; a longer one with the same beginning may take its place. Not modified.
    """

    rows: Rows
    _units: Rows = field(init=False)  # of the pictures in the graph
    _ties: dict[int, tuple[Labels, Rows]] = field(init=False)

    def __post_init__(self) -> None:
        self._units, self._ties = MAPPINGS["l2"](self.rows[:N_IN_GRAPH]), {}
        self._tie(np.arange(len(self._units)))

    def __len__(self) -> int:
        return len(self._units)

    def is_enough_for(self, n_pool: int) -> bool:
        """Return whether a graph of so many pictures would hardly be larger."""
        return min(n_pool, N_IN_GRAPH) <= 1.2 * len(self)

    def spread(self, places: Labels, labels: Labels, n_classes: int) -> tuple[Labels, Labels, Rows]:
        """Spread labels to the pictures of the graph that have none.

        Parameters
        ----------
        places : int array of shape (n,)
            Of the labelled pictures in the pool, each once.
        labels : int array of shape (n,)
        n_classes : int

        Returns
        -------
        places, labels : int64 arrays of shape (m,)
            Pictures without a label, and the class that each is nearest to.
        weights : float32 array of shape (m,)
            A label weighs 1. How far the class is ahead of the next one, scaled so that all together weigh as much as
            the labels, less the more labels there are.
        """
        n_known, n = len(np.unique(labels)), len(self)
        if n_known < 2 or len(labels) > _ENOUGH_A_CLASS * n_known:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        outside = np.unique(places[places >= n])
        self._tie(outside[[place not in self._ties for place in outside.tolist()]])
        start = np.zeros((n + len(outside), n_classes))
        start[np.where(places < n, places, n + np.searchsorted(outside, places)), labels] = 1
        counts = start.sum(axis=0)
        start *= (counts + _ADDED) / np.maximum(counts, 1)
        shares = self._spread(start, outside)[:n]
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        second, first = np.partition(shares, -2, axis=1)[:, -2:].T
        ahead = first - second
        ahead[places[places < n]] = 0
        found = np.flatnonzero(ahead > 0)
        most = len(labels) * np.exp(-len(labels) / (_FEW_A_CLASS * n_known))
        weights = ahead[found] * min(1.0, most / max(ahead.sum(), 1e-12))
        return found, shares[found].argmax(axis=1), weights.astype(np.float32)

    def _tie(self, places: Labels) -> None:
        """Find the nearest in the graph of pictures of the pool, and how strong the ties are."""
        if not len(places):
            return
        with steady_threads():
            strength = np.maximum(MAPPINGS["l2"](self.rows[places]) @ self._units.T, 0) ** _POWER
        strength[places < len(self), places[places < len(self)]] = 0  # none is tied to itself
        nearest = np.argpartition(-strength, min(N_TIES, len(self) - 1), axis=1)[:, :N_TIES]
        for place, near, line in zip(places.tolist(), nearest, strength, strict=True):
            self._ties[place] = near, line[near]

    def _spread(self, start: Floats, outside: Labels) -> Floats:
        """Return the shares of classes (n_nodes, n_classes) after all rounds; the last nodes lie outside the graph."""
        from scipy.sparse import csr_array

        n_nodes = len(start)
        ties = [self._ties[place] for place in [*range(len(self)), *outside.tolist()]]
        ends = np.concatenate([near for near, _ in ties])
        begins = np.repeat(np.arange(n_nodes), [len(near) for near, _ in ties])
        one_way = csr_array((np.concatenate([line for _, line in ties]), (begins, ends)), shape=(n_nodes, n_nodes))
        both_ways = one_way.maximum(one_way.T)
        scale = 1 / np.sqrt(np.maximum(both_ways.sum(axis=1), 1e-12))
        shares = start
        for _ in range(_N_ROUNDS):
            shares = _SHARE * scale[:, None] * (both_ways @ (scale[:, None] * shares)) + (1 - _SHARE) * start
        return np.asarray(shares)


def fit_spread(
    graph: Graph, places: Labels, labels: Labels, n_classes: int, *, start: LinearModel | None = None
) -> LinearModel:
    """Return the head of labels and of what they spread to; `learner.fit` has the parameters and errors."""
    more, supposed, weights = graph.spread(places, labels, n_classes)
    rows = graph.rows[np.concatenate([places, more])]
    weights = np.concatenate([np.ones(len(places), np.float32), weights])
    return fit(rows, np.concatenate([labels, supposed]), n_classes, weights=weights, start=start)
