"""The map: neighbours stay neighbours, labels have no part in it, the same seed gives the same places."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import MakePhotos
from tlfeat.errors import UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import Split
from tlfeat.extract.plan import plan_extraction
from tlfeat.records import SplitInfo
from tlfeat.report.embedding_map import choose_kinds, lay_out, make_map, sample

pytestmark = pytest.mark.whole


def a_split(counts: dict[tuple[int, str], int]) -> Split:
    members = [key for key, n in counts.items() for _ in range(n)]
    n = len(members)
    return Split(
        classes=["a", "b"],
        keys=[f"{i:064x}" for i in range(n)],
        paths=[f"{i}.png" for i in range(n)],
        labels=np.array([label for label, _ in members]),
        groups=np.arange(n),
        roles=[role for _, role in members],
        info=SplitInfo("d", "seeded", 0, n, 0, 0),
    )


def two_clouds(n: int = 60, width: int = 20) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    rows[: n // 2, 3] += 15
    return rows


def test_the_sample_holds_the_same_share_of_each_class_and_role() -> None:
    split = a_split({(0, "train"): 600, (1, "train"): 300, (0, "test"): 80, (1, "test"): 20})
    at = sample(split, 100, seed=0)
    assert len(set(at.tolist())) == 100 and np.array_equal(at, np.sort(at))
    drawn = [(int(split.labels[i]), split.roles[i]) for i in at]
    assert [drawn.count(k) for k in [(0, "train"), (1, "train"), (0, "test"), (1, "test")]] == [60, 30, 8, 2]
    assert np.array_equal(at, sample(split, 100, seed=0)) and not np.array_equal(at, sample(split, 100, seed=1))
    assert np.array_equal(sample(split, 1000, seed=0), np.arange(1000))


def test_the_sample_is_filled_up_where_most_is_missing() -> None:
    split = a_split({(0, "train"): 66, (1, "train"): 23, (0, "test"): 11})  # of ten: 6.6, 2.3 and 1.1
    drawn = [(int(split.labels[i]), split.roles[i]) for i in sample(split, 10, seed=4)]
    assert [drawn.count(k) for k in [(0, "train"), (1, "train"), (0, "test")]] == [7, 2, 1]


@pytest.mark.parametrize("n", [7, 99, 501])
def test_the_sample_is_as_large_as_asked(n: int) -> None:
    split = a_split({(0, "train"): 333, (1, "train"): 331, (0, "test"): 167, (1, "test"): 171})
    assert len(sample(split, n, seed=0)) == n


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_two_clouds_stay_apart(kind: str) -> None:
    rows = two_clouds()
    points, explained = lay_out(rows, [kind], seed=0)
    one, other = points[kind][:30], points[kind][30:]
    gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
    assert gap > 2 * max(one.std(), other.std())
    assert explained[0] > 0.5 > explained[1]


def test_principal_components_are_those_of_the_covariance() -> None:
    rows = two_clouds()
    points, explained = lay_out(rows, ["pca"], seed=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    expected = np.abs((rows - rows.mean(axis=0)) @ vectors[:, ::-1][:, :2])
    assert np.abs(points["pca"]) == pytest.approx(expected, abs=1e-3)
    assert explained == pytest.approx(tuple(values[::-1][:2] / values.sum()), abs=1e-4)


def test_the_same_seed_gives_the_same_places() -> None:
    rows = two_clouds()
    one, other = (lay_out(rows, ["pca", "tsne"], seed=3)[0] for _ in range(2))
    assert all(np.array_equal(one[kind], other[kind]) for kind in one)


@pytest.mark.parametrize(
    "rows", [np.ones((8, 4)), np.arange(3.0)[:, None], np.zeros((2, 1))], ids=["equal", "one", "two"]
)
def test_rows_that_say_little_are_laid_out_all_the_same(rows: np.ndarray) -> None:
    points, explained = lay_out(rows.astype(np.float32), ["pca", "tsne"], seed=0)
    assert all(p.shape == (len(rows), 2) and np.isfinite(p).all() for p in points.values())
    assert np.isfinite(explained).all()


def test_a_map_is_kept_and_a_damaged_one_made_again(make_photos: MakePhotos, tmp_path: Path) -> None:
    cache = plan_extraction(make_photos(n=12), backbone="pixels").run().cache
    said: list[str] = []

    def note(what: str, done: int, total: int) -> None:
        said.append(what)

    with open_data(cache, seed=0) as data:
        first, again = (
            make_map(data.cache, data.split, "pixels", kept=tmp_path / "maps", on_progress=note) for _ in range(2)
        )
        assert len(said) == 2  # PCA and t-SNE, once
        assert all(np.array_equal(first.points[kind], again.points[kind]) for kind in ("pca", "tsne"))
        assert first.explained == again.explained
        (kept,) = (tmp_path / "maps").glob("*.npz")
        kept.write_bytes(kept.read_bytes()[:100])
        make_map(data.cache, data.split, "pixels", kept=tmp_path / "maps", on_progress=note)
        make_map(data.cache, data.split, "pixels", seed=1, kept=tmp_path / "maps", on_progress=note)
    assert len(said) == 6 and len(list((tmp_path / "maps").iterdir())) == 2


def test_umap_gets_the_components_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    class FakeUmap:
        def __init__(self, **options: object) -> None:
            given.update(options)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            given["shape"] = rows.shape
            return rows[:, :2].astype(np.float64)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FakeUmap))
    points, _ = lay_out(two_clouds(width=80), ["umap"], seed=5)
    assert given == {"n_neighbors": 15, "random_state": 5, "shape": (60, 50)}
    assert points["umap"].shape == (60, 2) and points["umap"].dtype == np.float32


def test_what_may_be_asked_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_kinds("none") == () and choose_kinds(" tsne, pca,tsne") == ("tsne", "pca")
    with pytest.raises(UsageError, match="Did you mean 'tsne'"):
        choose_kinds("t-sne")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_kinds("all") == ("pca", "tsne")
    with pytest.raises(UsageError, match=r"tlfeat\[maps\]"):
        choose_kinds("umap")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_kinds("all") == ("pca", "tsne", "umap")
