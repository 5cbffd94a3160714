"""The many fits at once give what one fit after the other gives, and the search chooses what holds."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.calibration import best_temperature, softmax
from tlfeat.evaluate.split import Split, make_split
from tlfeat.heads import blocks, search
from tlfeat.heads import linear as linear_heads
from tlfeat.heads import table as heads
from tlfeat.heads.blocks import MAPPINGS, View, add_up, steady_threads
from tlfeat.heads.columns import MAX_COVARIANCE, Columns, columns_of, sums_by_group
from tlfeat.heads.discriminant import Discriminant
from tlfeat.heads.family import Fitted, HeldOut, Problem, Setting, class_scores
from tlfeat.heads.fit import fit_head, predict_probabilities
from tlfeat.heads.kernel import Kernel
from tlfeat.heads.lbfgs import Effort
from tlfeat.heads.linear import Penalised
from tlfeat.heads.losses import LOSSES
from tlfeat.heads.neighbours import vote
from tlfeat.heads.penalty_paths import Metric, PenaltyPath, Solution, fit_paths
from tlfeat.heads.table import HEADS
from tlfeat.images.image_set import ImageSet, ImageTable, content_key
from tlfeat.types import Floats, Labels, Rows

NAMES = [head.name for head in HEADS]


def problem_of(n: int = 300, width: int = 20, n_classes: int = 3, seed: int = 0, n_folds: int = 5) -> Problem:
    """Overlapping classes in correlated columns of unequal size."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, n_classes, n))
    labels[:n_classes] = np.arange(n_classes)
    rows = rng.normal(0, 1, (n, width)) + rng.normal(0, 0.7, (n_classes, width))[labels]
    rows = (rows @ rng.normal(0, 1, (width, width)) * rng.uniform(0.1, 5, width) + 3).astype(np.float32)
    fold_of = rng.integers(0, n_folds, n) if n_folds else np.full(n, -1)
    return Problem(rows, labels, n_classes, fold_of, seed)


def split_of(rows: Rows, labels: list[str], splits: list[str] | None = None, groups: list[str] | None = None) -> Split:
    n = len(rows)
    keys = [content_key(row.tobytes()) for row in rows]
    images = ImageSet(
        Path("/d"), Path("/d"), [str(i) for i in range(n)], labels, splits or [""] * n, groups or [""] * n
    )
    return make_split(ImageTable(images, keys, ["ok"] * n, [""] * n, [1] * n, [1] * n))


def in_order(rows: Rows, split: Split, positions: Labels) -> Rows:
    by_key = {content_key(row.tobytes()): row for row in rows}
    return np.stack([by_key[split.keys[i]] for i in positions])


def whole(rows: str = "standardised", width: int = 20, *, is_balanced: bool = False, **values: Any) -> Setting:
    return Setting(rows, (0, width), is_balanced, values)


# --- other ways to the same solution -----------------------------------------------------------------------


def scores_of(fitted: Fitted, rows: Rows) -> Floats:
    """One score a class of a fitted classifier, as `family.class_scores`."""
    for _, step in fitted.steps:
        rows = step.transform(rows)
    scores = fitted.classifier.decision_function(rows)
    return class_scores(scores[:, None] if scores.ndim == 1 else scores)


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_normal_equations_have_the_solution_of_the_path(
    n_classes: int, is_balanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(n_classes=n_classes, width=60)
    family = Penalised("squared", "alpha", (20.0,))
    setting = whole("root", width=60, alpha=20.0, is_balanced=is_balanced)
    one = family.fit(problem, setting)
    monkeypatch.setattr(linear_heads, "_FINAL", Effort(1e-9, 2000))
    monkeypatch.setattr(linear_heads, "MAX_COVARIANCE", 1)
    other = family.fit(problem, setting)
    assert one.classifier.coef_.tobytes() != other.classifier.coef_.tobytes()
    np.testing.assert_allclose(scores_of(one, problem.rows), scores_of(other, problem.rows), atol=5e-4)


@pytest.mark.parametrize("is_installed", [False, True])
def test_beyond_its_limit_the_kernel_machine_is_the_same(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_installed:
        pytest.importorskip("sklearnex", reason="scikit-learn-intelex is not installed (it never has to be)")
    else:
        monkeypatch.setitem(sys.modules, "sklearnex", None)
    problem = problem_of()
    setting = whole(C=10.0, gamma=1.0)
    small = Kernel((10.0,), (1.0,)).fit(problem, setting)
    large = Kernel((10.0,), (1.0,), max_rows=10).fit(problem, setting)
    assert type(large.classifier) is type(small.classifier)
    np.testing.assert_allclose(scores_of(large, problem.rows), scores_of(small, problem.rows), atol=1e-3)


def test_votes_by_hand() -> None:
    similar = np.array([[0.9, 0.8, 0.2], [1.0, 0.9, 0.9]], np.float32)
    labels = np.array([[1, 0, 1], [0, 1, 1]])
    shares = np.exp(vote(similar, labels, 2, 3, "distance"))
    near, far = 1 / 0.1 + 1 / 0.8, 1 / 0.2
    np.testing.assert_allclose(shares[0], [far / (near + far), near / (near + far)], rtol=1e-5)
    np.testing.assert_allclose(shares[1], [1, 0], atol=1e-11)  # what is at no distance votes alone
    np.testing.assert_allclose(np.exp(vote(similar, labels, 2, 3, "uniform"))[0], [1 / 3, 2 / 3], rtol=1e-5)
    assert vote(similar, labels, 2, 1, "uniform")[0].argmax() == 1


# --- many fits at once --------------------------------------------------------------------------------------


def paths(problem: Problem, loss: str, penalties: list[float], metric: Metric | None = None) -> list[Solution]:
    view = View(problem.rows, (0, problem.rows.shape[1]))
    origin, n, sums, squares = sums_by_group(view, np.zeros(len(problem.labels), np.int64), 1)
    columns = columns_of(origin, n[0], sums[0], squares[0], "each")
    fits = [
        PenaltyPath(np.where(problem.fold_of == f, 0, 1).astype(np.float32), columns, penalties)
        for f in range(problem.n_folds)
    ]
    found: list[Solution] = []
    fit_paths(
        view,
        problem.labels,
        problem.n_classes,
        LOSSES[loss],
        fits,
        metric,
        effort=Effort(1e-9, 2000),
        fold_of=problem.fold_of,
        on_solution=lambda solution: found.append(solution) is None,
    )
    return found


@pytest.mark.parametrize("loss", ["logistic", "squared hinge", "squared"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_penalty_on_the_way_has_the_solution_that_it_has_alone(loss: str, n_classes: int) -> None:
    problem = problem_of(n_classes=n_classes, n_folds=3)
    penalties = [1.0, 0.1, 0.01]
    together = {(s.path, s.penalty): s for s in paths(problem, loss, penalties)}
    assert set(together) == {(f, i) for f in range(3) for i in range(3)}
    for i, penalty in enumerate(penalties):
        for alone in paths(problem, loss, [penalty]):
            np.testing.assert_allclose(together[alone.path, i].scores, alone.scores, atol=1e-3)


def test_a_metric_changes_the_way_and_not_the_solution() -> None:
    problem = problem_of(n=600)
    rng = np.random.default_rng(0)
    vectors, values = np.linalg.qr(rng.normal(0, 1, (20, 20)))[0], rng.uniform(0.1, 3, 20)
    other = Metric(vectors.astype(np.float32), values.astype(np.float32), 0.0)
    for plain, turned in zip(
        paths(problem, "logistic", [0.01]), paths(problem, "logistic", [0.01], other), strict=True
    ):
        same = turned if turned.path == plain.path else None
        if same is not None:
            np.testing.assert_allclose(plain.scores, same.scores, atol=1e-3)


def test_a_metric_is_taken_for_many_rows_and_saves_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlfeat.heads import penalty_paths

    problem = problem_of(n=4000, width=40)
    rng = np.random.default_rng(0)
    # columns that say nearly the same, as those of embeddings do
    problem.rows[:] = (problem.rows * np.logspace(0, -2, 40) @ rng.normal(0, 1, (40, 40))).astype(np.float32)
    view = View(problem.rows, (0, 40))
    origin, n, sums, squares = sums_by_group(view, np.zeros(4000, np.int64), 1)
    columns = columns_of(origin, n[0], sums[0], squares[0], "each")
    metric = Metric.of(view, columns)
    assert metric is not None
    assert Metric.of(View(problem.rows[:100], (0, 40)), columns) is not None  # real rows need it most where few
    n_passes, evaluate = [0], penalty_paths._evaluate

    def counted(*arguments: Any) -> Any:
        n_passes[0] += 1
        return evaluate(*arguments)

    monkeypatch.setattr(penalty_paths, "_evaluate", counted)
    taken = []
    for chosen in (None, metric):
        n_passes[0] = 0
        paths(problem, "logistic", [1e-4], chosen)
        taken.append(n_passes[0])
    assert taken[1] < 0.7 * taken[0]


def test_held_out_scores_are_those_of_the_fit_that_did_not_see_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_heads, "_SEARCH", Effort(1e-9, 2000))
    problem = problem_of()
    family = Penalised("logistic", "C", (0.01, 1.0))
    explored = family.explore(problem, whole(), family.grid(1), np.ones(300, np.float32))
    scores = explored.scores(1)
    for fold in range(5):
        learned = problem.fold_of != fold
        part = Problem(problem.rows[learned], problem.labels[learned], 3, np.full(learned.sum(), -1), 0)
        expected = scores_of(family.fit(part, whole(C=1.0)), problem.rows[~learned])
        np.testing.assert_allclose(softmax(scores[~learned]), softmax(expected), atol=5e-3)
    assert np.array_equal(explored.right[1], scores.argmax(axis=1) == problem.labels)


def test_shrinkages_are_compared_with_the_balance_that_the_fit_will_have() -> None:
    problem = problem_of(n=400)
    problem = problem.part(np.flatnonzero((problem.labels > 0) | (np.arange(400) % 4 == 0)))
    family, weights = Discriminant((0.2, 0.6)), np.ones(len(problem.labels), np.float32)
    plain, balanced = (
        family.explore(problem, whole(is_balanced=is_balanced), family.grid(1), weights).scores(1)
        for is_balanced in (False, True)
    )
    for fold in range(5):
        part = problem.part(np.flatnonzero(problem.fold_of != fold))
        part = replace(part, fold_of=np.full(len(part.labels), -1))
        fitted = family.fit(part, whole(is_balanced=True, shrinkage=0.6))
        held = problem.fold_of == fold
        # scaled and weighed by what the fold has: as good as by all
        np.testing.assert_allclose(softmax(balanced[held]), softmax(scores_of(fitted, problem.rows[held])), atol=0.06)
    assert np.abs(softmax(balanced) - softmax(plain)).max() > 0.2


def test_columns_of_large_mean_and_constant_columns_are_scaled_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (5000, 4)).astype(np.float32)
    x[:, 1] = x[:, 1] * 3 + 1000
    x[:, 2] = 7
    x[:, 3] *= 1e-3
    origin, n, sums, squares = sums_by_group(View(x, (0, 4)), np.arange(5000) % 3, 3)
    columns = columns_of(origin, n.sum(), sums.sum(axis=0), squares.sum(axis=0), "each")
    np.testing.assert_allclose(columns.shift, x.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(columns.scale[[0, 1, 3]], x.std(axis=0, dtype=np.float64)[[0, 1, 3]], rtol=1e-3)
    assert columns.scale[2] == 1


def test_coefficients_for_columns_as_they_are_give_the_same_scores() -> None:
    rng = np.random.default_rng(0)
    x, coef = rng.normal(2, 3, (9, 5)).astype(np.float32), rng.normal(0, 1, (4, 2)).astype(np.float32)
    columns = Columns(rng.normal(0, 1, 5), rng.uniform(1, 2, 5), rng.normal(0, 1, (5, 4)).astype(np.float32))
    mapped = columns.scaled(x) @ columns.rotation
    back, intercept = columns.to_rows(coef, np.array([1.0, -1.0]))
    np.testing.assert_allclose(x @ back + intercept, mapped @ coef + [1, -1], rtol=1e-4, atol=1e-4)


# --- reproducible -------------------------------------------------------------------------------------------


@pytest.mark.sample("logreg", "svm", "knn")
@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_the_same_to_the_last_digit_at_any_number_of_threads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # four blocks of rows, so that there is something to share out and an order to sum in
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 128)
    problem = problem_of(n=600, width=24)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    rows = in_order(problem.rows, split, at)
    one, *others = [fit_head(name, rows, split, at, n_threads=n) for n in (1, 2, 5)]
    for other in others:
        assert other.chosen == one.chosen
        assert other.held_out is not None and one.held_out is not None
        assert other.held_out.tobytes() == one.held_out.tobytes()
        assert predict_probabilities(other.head, rows).tobytes() == predict_probabilities(one.head, rows).tobytes()


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x = np.random.default_rng(0).normal(0, 1, 50_000).astype(np.float32)

    def total(n_threads: int) -> Any:
        with steady_threads(n_threads):
            return add_up(
                50_000, lambda blocks: [np.sum([x[b].sum() for b in blocks], keepdims=True, dtype=np.float32)]
            )

    assert total(1)[0].tobytes() == total(2)[0].tobytes() == total(7)[0].tobytes()
    assert total(1)[0][0] == pytest.approx(x.sum(), rel=1e-3)


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.sample("logreg")
@pytest.mark.parametrize("name", ["logreg", "lda"])  # linear-svm and ridge are the code of logreg
def test_a_head_takes_less_memory_than_its_rows_again(name: str) -> None:
    """With the rows themselves that is less than 2.5 times the rows."""
    problem = problem_of(n=30_000, width=100, n_classes=2)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    rows = in_order(problem.rows, split, at)
    fit_head(name, rows[:600], split, at[:600])  # what is imported late is not counted
    tracemalloc.start()
    fit_head(name, rows, split, at)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * rows.nbytes


class BlocksOnly:
    """Rows that can only be read a block at a time, and count the largest."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.largest = rows, 0

    @property
    def shape(self) -> tuple[int, int]:
        return self._rows.shape[0], self._rows.shape[1]

    def __getitem__(self, block: slice, /) -> Rows:
        found = self._rows[block].copy()
        self.largest = max(self.largest, len(found))
        return found


@pytest.mark.parametrize("name", ["logreg", "linear-svm", "ridge", "lda"])
def test_rows_read_block_by_block_give_the_same_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 128)
    problem = problem_of(n=600, width=24)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    rows = in_order(problem.rows, split, at)
    stored = BlocksOnly(rows)
    one, other = fit_head(name, rows, split, at), fit_head(name, stored, split, at)
    assert other.chosen == one.chosen
    assert stored.largest <= 128
    assert predict_probabilities(other.head, rows).tobytes() == predict_probabilities(one.head, rows).tobytes()


# --- what is chosen -----------------------------------------------------------------------------------------


def test_the_layer_that_tells_the_classes_apart_is_chosen_and_several_where_each_knows_a_part() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    noise = rng.normal(0, 1, (400, 10)).astype(np.float32)
    one, other = noise[:, :5].copy(), noise[:, 5:].copy()
    one[:, 0] += 6 * (labels % 2)
    other[:, 0] += 6 * (labels // 2)
    nothing = rng.normal(0, 1, (400, 5)).astype(np.float32)

    def chosen(*parts: Rows) -> list[str]:
        rows = np.concatenate(parts, axis=1)
        split = split_of(rows, [f"c{i}" for i in labels])
        at = split.where("train", "val")
        names = {f"layer{i}": 5 for i in range(len(parts))}
        fitted = fit_head("logreg", in_order(rows, split, at), split, at, layers=names)
        assert fitted.head.n_features_in_ == 5 * len(fitted.layers)
        return fitted.layers

    assert chosen(one, other) == ["layer0", "layer1"]
    both = np.concatenate([one[:, :1], other[:, :1], nothing[:, :3]], axis=1)
    assert chosen(nothing, both)[-1] == "layer1"


def test_uneven_classes_are_judged_by_balanced_accuracy_and_may_be_weighed() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(600) % 15 == 0).astype(int)
    rows = (rng.normal(0, 1, (600, 5)) + 1.0 * labels[:, None]).astype(np.float32)
    split = split_of(rows, [f"c{i}" for i in labels])
    at, test_at = split.where("train", "val"), split.where("test")
    fitted = fit_head("logreg", in_order(rows, split, at), split, at)
    assert fitted.chosen["classes"] == "weighed equally"
    found = predict_probabilities(fitted.head, in_order(rows, split, test_at)).argmax(axis=1)
    assert np.mean(found[split.labels[test_at] == 1]) > 0.6  # an unweighted one finds hardly any
    held = fitted.held_out
    assert held is not None
    right = held.argmax(axis=1) == split.labels[at]
    balanced = np.mean([right[split.labels[at] == c].mean() for c in (0, 1)])
    assert fitted.chosen["cv_score"] == pytest.approx(balanced, abs=1e-6)


def test_given_validation_images_choose_and_are_learned_from_afterwards() -> None:
    problem = problem_of(n=300, n_classes=2)
    roles = ["train", "train", "val", "test"] * 75
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels], roles)
    at = split.where("train", "val")
    fitted = fit_head("logreg", in_order(problem.rows, split, at), split, at)
    assert fitted.held_out is not None
    held = np.isfinite(fitted.held_out[:, 0])
    assert [split.roles[i] for i in at[held]] == ["val"] * 75
    is_right = fitted.held_out[held].argmax(axis=1) == split.labels[at[held]]
    assert fitted.chosen["cv_score"] == pytest.approx(is_right.mean(), abs=1e-6)
    only_train = split.where("train")
    without = fit_head("logreg", in_order(problem.rows, split, only_train), split, only_train)
    assert without.head[-1].coef_.tobytes() != fitted.head[-1].coef_.tobytes()


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    """Rows of a group are all but equal and its label is a coin's: who sees one half of a group knows the other."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = rng.integers(0, 2, 60)[groups]
    rows = (rng.normal(0, 1, (60, 30))[groups] + rng.normal(0, 0.01, (300, 30))).astype(np.float32)
    names = [f"c{i}" for i in labels]
    grouped, blind = split_of(rows, names, groups=[f"g{i}" for i in groups]), split_of(rows, names)
    scores = []
    for split in (grouped, blind):
        at = split.where("train", "val")
        scores.append(fit_head("knn", in_order(rows, split, at), split, at).chosen["cv_score"])
    assert scores[0] < 0.7 < 0.95 < scores[1]


def test_the_loss_decides_among_settings_that_accuracy_cannot_tell_apart() -> None:
    weights = np.ones(1000, np.float32)
    right = np.zeros((3, 1000), bool)
    right[0, :901], right[1, :900], right[2, :700] = True, True, True
    trials = search._Trials(weights)
    values = [{"C": 1.0}, {"C": 2.0}, {"C": 3.0}]
    trials.add(whole(), HeldOut(values, right, np.array([0.5, 0.3, 0.1]), lambda i: np.empty(0)))
    best, criterion = trials.best()
    assert trials.entries[best][0].values == {"C": 2.0}
    assert criterion == pytest.approx(0.9)


def test_penalties_so_strong_that_nothing_moves_do_not_end_the_path() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    rows = (rng.normal(0, 0.1, (40, 3)) + labels[:, None]).astype(np.float32)
    split = split_of(rows, [f"c{i}" for i in labels])
    at = split.where("train", "val")
    fitted = fit_head("logreg", in_order(rows, split, at), split, at)
    assert fitted.chosen["cv_score"] == 1


def test_the_whole_grid_is_walked_where_nothing_gets_worse() -> None:
    assert len(heads.C_PATH) == 45
    assert heads.C_PATH[0] == 1e-6
    assert heads.C_PATH[-1] == 1e5


def test_a_temperature_brings_scores_to_the_lowest_log_loss_and_changes_no_prediction() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    assert best_temperature(5 * logits, labels) == pytest.approx(5, rel=0.1)
    assert np.array_equal(softmax(logits, 5).argmax(axis=1), logits.argmax(axis=1))


def test_a_part_of_the_images_has_every_class_and_fold_in_proportion() -> None:
    problem = problem_of(n=2000)
    part = problem.part(problem.subset(500))
    assert len(part.labels) == 500
    for fold in range(5):
        for label in range(3):
            whole_share = np.mean((problem.labels == label) & (problem.fold_of == fold))
            assert np.mean((part.labels == label) & (part.fold_of == fold)) == pytest.approx(whole_share, abs=0.003)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_mapping_leaves_the_rows_alone_and_takes_zeros(mapping: str) -> None:
    rows = np.array([[0, 0, 0], [1, -8 if "signed" in mapping else 4, 0]], np.float32)
    before = rows.copy()
    found = View(rows, (0, 3), mapping)[slice(0, 2)]
    assert np.array_equal(rows, before)
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], [0, 0, 0])
    if mapping.endswith("l2"):
        assert np.sum(found[1] ** 2) == pytest.approx(1, rel=1e-6)
    if mapping == "root":
        assert np.allclose(found[1], [1, 2, 0])
    if mapping == "signed root":
        assert np.allclose(found[1], [1, -2, 0])


@pytest.mark.sample("logreg")
@pytest.mark.parametrize("name", ["logreg", "linear-svm", "ridge", "knn", "svm"])
def test_thousands_of_columns_and_few_images_take_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No covariance of 12,288 columns is decomposed: that took minutes on the built-in example."""
    sizes: list[int] = []
    decompose = np.linalg.eigh

    def watched(matrix: Any) -> Any:
        sizes.append(len(matrix))
        return decompose(matrix)

    monkeypatch.setattr(np.linalg, "eigh", watched)
    problem = problem_of(n=60, width=5000)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    fitted = fit_head(name, in_order(problem.rows, split, at), split, at)
    assert fitted.chosen["rows"] != "whitened"
    assert max(sizes, default=0) <= MAX_COVARIANCE


# --- two searches -------------------------------------------------------------------------------------------


def test_a_quick_search_tries_a_quarter_of_what_a_thorough_one_tries_and_says_how_far_it_is() -> None:
    problem = problem_of(n=200, n_classes=2)
    problem = problem.part(np.flatnonzero((problem.labels > 0) | (np.arange(200) % 4 == 0)))  # uneven
    n_fits, seen = {}, []
    for effort in ("quick", "thorough"):
        calls: list[tuple[int, int]] = []
        entry = heads.find_head("logreg")
        found = search.search(
            problem,
            entry.family(effort),
            [(0, 20)],
            (False, True) if effort == "thorough" else (True,),
            lambda done, total, calls=calls: calls.append((done, total)),
        )
        assert found.setting.rows in entry.family(effort).row_choices
        n_fits[effort] = calls[-1][1]
        seen = calls
        done = [one for one, _ in calls]
        assert done == sorted(done)
        assert calls[-1][0] == calls[-1][1] > len(set(done)) / 2 > 5
        assert {total for _, total in calls} == {calls[-1][1]}
    assert len(seen) > 50
    assert 0 < n_fits["quick"] < n_fits["thorough"] / 4


def test_a_search_with_another_effort_is_refused() -> None:
    problem = problem_of()
    split = split_of(problem.rows, ["a", "b", "c"] * 100)
    with pytest.raises(UsageError, match="No search 'quik'"):
        fit_head("ridge", problem.rows, split, np.arange(300), effort="quik")


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_says_how_far_it_is(name: str) -> None:
    problem = problem_of(n=120)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    calls: list[tuple[str, int, int]] = []
    fit_head(name, in_order(problem.rows, split, at), split, at, on_progress=lambda *call: calls.append(call))
    assert {what for what, _, _ in calls} == {f"fitting {name}"}
    assert len({done for _, done, _ in calls}) > 5
    assert calls[-1][1] == calls[-1][2]


def test_the_metric_finds_the_directions_that_vary_most_and_the_mean_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 1, (900, 300)) * np.r_[np.full(3, 30.0), np.full(297, 0.5)]).astype(np.float32)
    view = View(rows, (0, 300))
    origin, n, sums, squares = sums_by_group(view, np.zeros(900, np.int64), 1)
    columns = columns_of(origin, n[0], sums[0], squares[0], "common")
    metric = Metric.of(view, columns)
    assert metric is not None
    moments = columns.scaled(rows).T @ columns.scaled(rows) / 900
    np.testing.assert_allclose(np.sort(metric.values)[-3:], np.linalg.eigvalsh(moments)[-3:], rtol=1e-3)
    coef = rng.normal(0, 1, (300, 2)).astype(np.float32)
    solved = metric.solve(coef, 0.7, 0.2)
    back = 0.7 * moments @ solved + 0.2 * solved
    assert np.linalg.norm(back - coef) < 0.05 * np.linalg.norm(coef)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_by_every_head(name: str, value: float) -> None:
    problem = problem_of()
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    rows = in_order(problem.rows, split, at)
    rows[7, 3] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_head(name, rows, split, at)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_a_fold_lacks_does_no_harm(name: str) -> None:
    """All images of one class but one are a single group: some fold learns without the group."""
    problem = problem_of(n=200, n_classes=3)
    labels = problem.labels
    groups = [f"rare{i % 2}" if label == 2 else f"own{i}" for i, label in enumerate(labels)]
    split = split_of(problem.rows, [f"c{i}" for i in labels], groups=groups)
    at = split.where("train", "val")
    fitted = fit_head(name, in_order(problem.rows, split, at), split, at)
    found = predict_probabilities(fitted.head, problem.rows)
    assert found.shape == (200, 3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_fewer_images_than_folds_are_enough(name: str) -> None:
    problem = problem_of(n=40, n_classes=2)
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    first, second = (split.where("train", "val")[split.labels[split.where("train", "val")] == c][:2] for c in (0, 1))
    at = np.sort(np.concatenate([first, second]))
    fitted = fit_head(name, in_order(problem.rows, split, at), split, at)
    assert np.isfinite(predict_probabilities(fitted.head, problem.rows)).all()


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_are_numbers_keep_their_names(name: str) -> None:
    problem = problem_of(n=90)
    split = split_of(problem.rows, [str(10**i) for i in problem.labels])
    assert split.classes == ["1", "10", "100"]
    at = split.where("train", "val")
    fitted = fit_head(name, in_order(problem.rows, split, at), split, at, is_searched=False)
    assert fitted.head.classes_.tolist() == ["1", "10", "100"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_all_the_same_give_an_answer(name: str) -> None:
    rows = np.ones((60, 5), np.float32)
    rows[:, 0] += np.arange(60) * 1e-9  # equal in float32
    split = split_of(np.arange(60, dtype=np.float32)[:, None], [f"c{i % 2}" for i in range(60)])
    at = split.where("train", "val")
    fitted = fit_head(name, rows[: len(at)], split, at)
    assert np.isfinite(predict_probabilities(fitted.head, rows)).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_row_can_be_predicted_and_none_too(name: str) -> None:
    problem = problem_of()
    split = split_of(problem.rows, [f"c{i}" for i in problem.labels])
    at = split.where("train", "val")
    fitted = fit_head(name, in_order(problem.rows, split, at), split, at, is_searched=False)
    assert predict_probabilities(fitted.head, problem.rows[:1]).shape == (1, 3)
    assert predict_probabilities(fitted.head, problem.rows[:0]).shape == (0, 3)
