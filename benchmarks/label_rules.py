"""Rules for which picture is asked next, ours and those of others, and labelling by them with simulated answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlfeat.evaluate.data import Data
from tlfeat.heads.blocks import MAPPINGS
from tlfeat.heads.learner import LinearModel, fit
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.labelling.choose import KEPT, OPEN, choose, clusters
from tlfeat.labelling.order import RANDOM_EVERY
from tlfeat.types import Bools, Labels, Rows


@dataclass(slots=True)
class Pictures:
    """Rows of one set that are labelled, in random order, and those that the head is tested on.

    Attributes
    ----------
    rows, test_rows : float32 arrays of shape (n, width)
    labels, test_labels : int arrays of shape (n,)
    names : int array of shape (n,)
        The rank of the file's name, without its folder.
    n_classes : int
    """

    rows: Rows
    labels: Labels
    names: Labels
    test_rows: Rows
    test_labels: Labels
    n_classes: int

    def accuracy(self, head: LinearModel) -> float:
        """Return the accuracy on the test pictures."""
        return float((head.scores(self.test_rows).argmax(axis=1) == self.test_labels).mean())


def read_set(data: Data) -> dict[str, Any]:
    """Return what `draw` takes, to be written to a file: rows, labels, groups of copies, ranks of names."""
    split, layer = data.split, list(data.cache.layers)[-1]
    names = [path.rpartition("/")[2] for path in split.paths]
    ranks = np.argsort(np.argsort(np.array(names, dtype=object), kind="stable"), kind="stable")
    rows = data.cache.read(layer, split.keys)
    return {"rows": rows, "labels": split.labels, "groups": split.groups, "names": ranks}


def draw(found: dict[str, Any], seed: int, held_out: float, n_most: int) -> Pictures:
    """Draw at most so many pictures, the test pictures among them, copies on one side, and the order of the others."""
    rng = np.random.default_rng(seed)
    groups = found["groups"]
    place = rng.permutation(int(groups.max()) + 1)[groups]
    order = np.argsort(place + rng.random(len(place)) / 2)[:n_most]
    n_test = int(held_out * len(order))
    while place[order[n_test]] == place[order[n_test - 1]]:
        n_test += 1
    test, ours = order[:n_test], order[n_test:]
    rows, labels = found["rows"], found["labels"]
    return Pictures(rows[ours], labels[ours], found["names"][ours], rows[test], labels[test], int(labels.max()) + 1)


@dataclass(slots=True)
class State:
    """What a rule may look at.

    Attributes
    ----------
    pictures : Pictures
    known : int array of shape (n,)
        The label, or `OPEN`.
    seed : int
    rng : Generator
    head : LinearModel, optional
        Of all labels, once there are two classes.
    memory : dict
        What a rule keeps.
    """

    pictures: Pictures
    known: Labels
    seed: int
    rng: np.random.Generator
    head: LinearModel | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> Labels:
        return np.flatnonzero(self.known == OPEN)

    @property
    def asked(self) -> Labels:
        return np.flatnonzero(self.known != OPEN)

    def units(self) -> Rows:
        if "units" not in self.memory:
            self.memory["units"] = MAPPINGS["l2"](self.pictures.rows)
        units: Rows = self.memory["units"]
        return units

    def graph(self) -> Graph:
        if "graph" not in self.memory:
            self.memory["graph"] = Graph(self.pictures.rows)
        graph: Graph = self.memory["graph"]
        return graph


Rule = Callable[[State, int], list[int]]


def at_random(state: State, n: int) -> list[int]:
    return [int(i) for i in state.rng.permutation(state.open)[:n]]


def by_name(state: State, n: int) -> list[int]:
    """Return the next files by their names."""
    return [int(i) for i in state.open[np.argsort(state.pictures.names[state.open])][:n]]


def least(score: Callable[[Rows], Rows]) -> Rule:
    """Return the rule that asks where a score of the probabilities is least; random until two classes are known."""

    def rule(state: State, n: int) -> list[int]:
        if state.head is None:
            return at_random(state, n)
        left = state.open
        return [int(i) for i in left[np.argsort(score(state.head.probabilities(state.pictures.rows[left])))][:n]]

    return rule


def margin(p: Rows) -> Rows:
    highest = np.partition(p, -2, axis=1)
    return np.asarray(highest[:, -1] - highest[:, -2])


def confidence(p: Rows) -> Rows:
    return np.asarray(p.max(axis=1))


def minus_entropy(p: Rows) -> Rows:
    return np.asarray((p * np.log(np.maximum(p, 1e-12))).sum(axis=1))


def k_centre(state: State, n: int) -> list[int]:
    """Return the farthest from everything that was asked, again and again (Sener and Savarese 2018, greedy)."""
    units = state.units()
    nearest = state.memory.setdefault("nearest", np.full(len(units), np.inf))
    seen = state.memory.setdefault("seen", set())
    chosen = []
    for place in [*state.asked.tolist(), *[-1] * n]:
        if place < 0:
            is_open = state.known == OPEN
            is_open[chosen] = False
            place = int(np.where(is_open, nearest, -1).argmax())
            chosen.append(place)
        if place not in seen:
            seen.add(place)
            np.minimum(nearest, 2 - 2 * units @ units[place], out=nearest)
    return chosen


def typiclust(state: State, n: int) -> list[int]:
    """Return the densest of the largest clusters without a label (Hacohen, Dekel and Weinshall 2022, section 3).

    As many clusters as labels there will be, at most 100 (500 there, but with 50,000 pictures), of at most 1,000
    pictures, by k-means; the density is that of the 20 nearest.
    """
    units = state.units()[:1000]
    n_clusters = min(len(state.asked) + n, 100)
    if n_clusters not in state.memory:
        state.memory[n_clusters] = clusters(units, n_clusters, seed=state.seed)[0]
    cluster_of, known = state.memory[n_clusters], state.known[: len(units)]
    n_asked = np.bincount(cluster_of[known != OPEN], minlength=n_clusters)
    sizes = np.bincount(cluster_of, minlength=n_clusters)
    chosen: list[int] = []
    for cluster in np.lexsort([-sizes, n_asked]):
        members = np.flatnonzero((cluster_of == cluster) & (known == OPEN))
        if len(members) and len(chosen) < n:
            near = np.sort(units[members] @ units[members].T, axis=1)[:, -21:-1]
            chosen.append(int(members[near.mean(axis=1).argmax()]) if len(members) > 1 else int(members[0]))
    return chosen + [i for i in at_random(state, n) if i not in chosen][: n - len(chosen)]


def lightly_studio(state: State, n: int) -> list[int]:
    """Return LightlyStudio 1.2's next twenty: 10 at random of those above 0.5 for a class, 10 of those below.

    Its few-shot classifier is a random forest for one class against the rest; here the classes take turns.
    """
    if state.head is None:
        return at_random(state, n)
    from sklearn.ensemble import RandomForestClassifier

    pictures, asked, left = state.pictures, state.asked, state.open
    forest = RandomForestClassifier(random_state=state.seed).fit(pictures.rows[asked], state.known[asked])
    turn = state.memory["turn"] = (state.memory.get("turn", -1) + 1) % len(forest.classes_)
    chances = forest.predict_proba(pictures.rows[left])[:, turn]
    parts = [state.rng.permutation(left[is_there])[:10] for is_there in (chances > 0.5, chances <= 0.5)]
    return [int(i) for i in np.concatenate(parts)]


def ours(state: State, n: int) -> list[int]:
    """Return tlfeat's choice; every fifth picture is the next of the reserve, which it never chooses from."""
    pictures, known, n_random, chances = state.pictures, state.known.copy(), n // RANDOM_EVERY, None
    n_kept = -(-len(known) // RANDOM_EVERY)
    known[:n_kept] = KEPT  # what was drawn at random has no part in the choice: see `estimate`
    heard = np.flatnonzero(known >= 0)
    if len(heard):
        start = state.memory.get("chooser")
        chooser = fit_spread(state.graph(), heard, known[heard], pictures.n_classes, start=start)
        state.memory["chooser"], chances = chooser, chooser.probabilities(pictures.rows)
    kept = np.flatnonzero(state.known[:n_kept] == OPEN)[:n_random]
    chosen = choose(pictures.rows, known, chances, n - n_random, n_classes=pictures.n_classes, seed=state.seed)
    return [choice.place for choice in chosen] + kept.tolist()


#: Name to rule; what stands behind it is in the table of the page.
RULES: dict[str, Rule] = {
    "tlfeat": ours,
    "random": at_random,
    "margin": least(margin),
    "least confident": least(confidence),
    "entropy": least(minus_entropy),
    "k-centre": k_centre,
    "TypiClust": typiclust,
    "LightlyStudio": lightly_studio,
    "file order": by_name,
    "random, spread": at_random,
    "margin, spread": least(margin),
}

#: The rules whose head learns from what labels spread to, as tlfeat's; of the others it learns from labels alone.
SPREAD = frozenset({"tlfeat", "random, spread", "margin, spread"})


def batch_size(n_labels: int) -> int:
    """Return how many are asked before the head is fitted again: five at first, then more, to save time."""
    return 5 if n_labels < 50 else 10 if n_labels < 100 else 20 if n_labels < 200 else 40


def label(
    pictures: Pictures, name: str, n_most: int, *, seed: int, batch: int | None = None
) -> Iterator[tuple[Labels, LinearModel]]:
    """Label as a rule asks; yield the places asked so far, in order, and the head, after every batch."""
    rule = RULES[name]
    state = State(pictures, np.full(len(pictures.labels), OPEN), seed, np.random.default_rng(seed))
    asked: list[int] = []
    waiting: list[int] = []
    head: LinearModel | None = None
    while len(asked) < min(n_most, len(pictures.labels)):
        n = batch or batch_size(len(asked))
        while len(waiting) < n and (more := rule(state, n)):
            state.known[more] = pictures.labels[more]  # the rule may not ask them again; the head does not see them yet
            waiting += more
        if not waiting:
            return
        asked, waiting = asked + waiting[:n], waiting[n:]
        labels, k = pictures.labels[asked], pictures.n_classes
        if name in SPREAD:
            head = fit_spread(state.graph(), np.array(asked), labels, k, start=head)
        else:
            head = fit(pictures.rows[asked], labels, k, start=head)
        state.head = head if len(set(pictures.labels[asked].tolist())) > 1 else None
        yield np.array(asked), head


def is_of_reserve(asked: Labels, pictures: Pictures) -> Bools:
    """Return which of the pictures that `ours` asked were drawn at random."""
    return asked < -(-len(pictures.labels) // RANDOM_EVERY)
