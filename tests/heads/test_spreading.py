"""Labels spread to pictures that look alike; a head of few of them is a better one."""

from __future__ import annotations

import numpy as np
import pytest

from tlfeat.heads import spreading
from tlfeat.heads.learner import LinearModel, fit
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.types import Labels, Rows


def groups(sizes: tuple[int, ...] = (60, 90, 30), *, width: int = 12, noise: float = 0.25) -> tuple[Rows, Labels]:
    """Rows of groups that lie apart, in random order."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = noise * rng.standard_normal((len(labels), width)).astype(np.float32)
    rows[np.arange(len(labels)), labels] += 1
    return rows, labels


def one_of_each(labels: Labels) -> Labels:
    return np.array([np.flatnonzero(labels == k)[0] for k in range(labels.max() + 1)])


def accuracy(head: LinearModel, rows: Rows, labels: Labels) -> float:
    return float((head.scores(rows).argmax(axis=1) == labels).mean())


def test_labels_reach_what_looks_alike() -> None:
    rows, labels = groups()
    known = one_of_each(labels)
    places, supposed, weights = Graph(rows).spread(known, labels[known], 4)
    assert not set(places.tolist()) & set(known.tolist())
    assert len(places) > 170
    assert (supposed == labels[places]).mean() > 0.97
    assert weights.dtype == np.float32 and weights.min() > 0
    assert weights.sum() == pytest.approx(3 * np.exp(-1 / 30), rel=1e-4)


def test_it_is_the_label_spreading_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.semi_supervised import LabelSpreading

    monkeypatch.setattr(spreading, "_POWER", 1)
    monkeypatch.setattr(spreading, "_N_ROUNDS", 2_000)
    rows, labels = groups()
    units = np.abs(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    known = np.concatenate([np.flatnonzero(labels == k)[:4] for k in range(3)])  # as many of each class
    graph = Graph(units)

    def ties(*_: object) -> Rows:
        cosines = units @ units.T
        np.fill_diagonal(cosines, 0)
        least = np.sort(cosines, axis=1)[:, -spreading.N_TIES, None]
        kept = np.where(cosines >= least, cosines, 0)
        return np.maximum(kept, kept.T)

    given = np.full(len(rows), -1)
    given[known] = labels[known]
    theirs = LabelSpreading(kernel=ties, alpha=0.9, max_iter=2_000, tol=1e-10).fit(units, given)
    places, supposed, weights = graph.spread(known, labels[known], 3)
    sure = np.sort(theirs.label_distributions_, axis=1)
    ahead = (sure[:, -1] - sure[:, -2])[places]
    assert (supposed == theirs.transduction_[places])[ahead > 1e-3].all()
    assert weights / weights.sum() == pytest.approx(ahead / ahead.sum(), abs=2e-4)


def test_a_label_outside_the_graph_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "N_IN_GRAPH", 100)
    rows, labels = groups()
    graph = Graph(rows)
    known = np.array([100 + np.flatnonzero(labels[100:] == k)[2] for k in range(3)])
    places, supposed, _ = graph.spread(known[::-1], labels[known[::-1]], 3)
    assert len(graph) == 100 and places.max() < 100
    assert len(places) > 90 and (supposed == labels[places]).mean() > 0.95


def test_a_class_with_more_labels_is_more_frequent_as_far_as_few_labels_say() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((120, 6)).astype(np.float32), np.repeat([0, 1], [50, 70])  # nothing to see
    few, many = np.r_[0:4, 50:51], np.r_[0:40, 50:60]
    shares = []
    for known in (few, many):
        _, supposed, _ = Graph(rows).spread(known, labels[known], 2)
        shares.append((supposed == 0).mean())
    assert 0.5 < shares[0] < shares[1]


def test_many_labels_are_not_spread() -> None:
    rows, labels = groups((300, 300), noise=0.5)
    graph = Graph(rows)
    weights = []
    for n in (20, 60, 150, 201):
        weights.append(float(graph.spread(np.arange(n), labels[:n], 2)[2].sum()) / n)
    assert 1 > weights[0] > weights[1] > weights[2] > weights[3] == 0


@pytest.mark.parametrize("labels", [[0], [1, 1]])
def test_one_class_alone_is_not_spread(labels: list[int]) -> None:
    rows, _ = groups()
    assert [len(part) for part in Graph(rows).spread(np.arange(len(labels)), np.array(labels), 2)] == [0, 0, 0]


def test_a_head_of_few_labels_learns_from_what_they_spread_to() -> None:
    rows, labels = groups((200, 300, 100), width=60, noise=0.25)
    graph, known = Graph(rows[:400]), one_of_each(labels)
    head = fit_spread(graph, known, labels[known], 3)
    alone = fit(rows[known], labels[known], 3)
    assert accuracy(head, rows[400:], labels[400:]) > accuracy(alone, rows[400:], labels[400:]) + 0.1
    again = fit_spread(graph, known, labels[known], 3, start=head)
    assert np.abs(again.probabilities(rows) - head.probabilities(rows)).max() < 0.02


def test_a_few_rows_are_a_graph() -> None:
    rows, labels = groups()
    for n in (0, 1, 2, 4):
        graph = Graph(rows[:n])
        assert len(graph) == n
        if n:
            assert fit_spread(graph, np.arange(n), labels[:n], 3).coef.shape == (12, 3)


def test_a_graph_is_made_anew_when_it_would_be_clearly_larger() -> None:
    graph = Graph(groups()[0][:100])
    assert graph.is_enough_for(100) and graph.is_enough_for(120) and not graph.is_enough_for(121)


def test_weights_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = groups(noise=0.6)
    weights = np.random.default_rng(1).uniform(0.1, 2, len(rows)).astype(np.float32)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    theirs = LogisticRegression(C=100.0, tol=1e-6, max_iter=10_000).fit(units, labels, sample_weight=weights)
    found = fit(rows, labels, 3, weights=weights).probabilities(rows)
    assert np.abs(found - theirs.predict_proba(units)).max() < 0.02
    assert np.abs(found - fit(rows, labels, 3).probabilities(rows)).max() > 0.05
