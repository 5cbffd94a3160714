"""Maps to a target domain: equal to other libraries', to what they promise, at any number of threads."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from tlfeat import Coral, DomainStandardiser, LinearTransport, PooledStandardiser, SubspaceAlignment
from tlfeat.adapt.domain_maps import DomainMap
from tlfeat.adapt.moments import columns_by_domain, moments_of, principal_axes
from tlfeat.errors import DataError, TlfeatError, UsageError
from tlfeat.heads.blocks import steady_threads
from tlfeat.types import Floats, Rows

#: Of `make_reference.py`; mapped rows are every fourth.
REFERENCE = dict(np.load(Path(__file__).with_name("maps_reference.npz")))

MAPS = [PooledStandardiser(), DomainStandardiser(), Coral(7), LinearTransport(7), SubspaceAlignment(7)]

every_map = pytest.mark.parametrize("untrained", MAPS, ids=lambda each: type(each).__name__)


@dataclass
class Blocks:
    """Rows that are given a block at a time, as from a file."""

    rows: Rows
    readers: set[int] = field(default_factory=set)  # threads that a block was read in

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, block: slice, /) -> Rows:
        assert block.stop - block.start <= 1024
        self.readers.add(threading.get_ident())
        return self.rows[block].copy()


def made(n: int = 300, width: int = 20, seed: int = 3) -> tuple[Rows, Any]:
    """Return rows of `film`, `phone` and `scan`, which differ in mean and covariance, and their domains."""
    rng = np.random.default_rng(seed)
    domains = rng.choice(["film", "phone", "scan"], n, p=[0.3, 0.5, 0.2])
    rows = rng.normal(size=(n, width))
    for name in ("film", "phone", "scan"):
        inside = domains == name
        rows[inside] = rows[inside] @ rng.normal(size=(width, width)) + rng.normal(size=width)
    return rows.astype(np.float32), domains


def covariance_along(axes: Floats, rows: Rows, shrinkage: float = 0.0) -> Floats:
    found = np.cov(rows.astype(np.float64) @ axes.T, rowvar=False, bias=True)
    return np.asarray((1 - shrinkage) * found + shrinkage * np.trace(found) / len(found) * np.eye(len(found)))


@pytest.mark.parametrize(
    ("name", "untrained"),
    [
        ("coral_auto", Coral(12)),
        ("coral_stated", Coral(12, 0.3)),
        ("coral_4", Coral(4, 0.3)),
        ("transport_0", LinearTransport(12, 0.0)),
        ("transport_auto", LinearTransport(12)),
        ("transport_4", LinearTransport(4, 0.3)),
        ("transport_auto_4", LinearTransport(4)),
        ("subspace_5", SubspaceAlignment(5)),
    ],
)
def test_a_map_equals_that_of_skada_or_pot_to_1e_6(name: str, untrained: DomainMap) -> None:
    rows, domains, expected = REFERENCE["rows"], REFERENCE["domains"], REFERENCE[name]
    found = clone(untrained).fit_transform(rows, domains=domains, target="scan")[::4].astype(np.float64)
    if name == "subspace_5":  # an axis may point either way: what a classifier sees are the inner products
        found, expected = found @ found.T, expected @ expected.T
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "n"), [("ledoit_wolf", 12), ("ledoit_wolf_4", 4)])
def test_covariances_are_shrunk_as_scikit_learn_s_ledoit_wolf(name: str, n: int) -> None:
    rows, domains = REFERENCE["rows"], REFERENCE["domains"]
    fitted = Coral(n).fit(rows, domains=domains, target="scan")
    standard = DomainStandardiser().fit_transform(rows, domains=domains, target="scan")
    for side, expected in zip((domains != "scan", domains == "scan"), REFERENCE[name], strict=True):
        moments = moments_of(standard, side, fitted.components_)
        stated, found = moments.covariance(expected), moments.covariance(None)
        assert np.abs(found - stated).max() <= 1e-6 * np.abs(stated).max()
        assert np.abs(found - moments.covariance(expected + 0.01)).max() > 1e-4


@pytest.mark.parametrize("method", [Coral, LinearTransport])
def test_source_rows_get_the_target_s_covariance_and_nothing_else_changes(method: Callable[..., DomainMap]) -> None:
    rows, domains = made()
    standard = DomainStandardiser().fit_transform(rows, domains=domains, target="phone")
    fitted = method(n_components=6, shrinkage=0.0).fit(rows, domains=domains, target="phone")
    mapped, is_target = fitted.transform(rows, domains), domains == "phone"
    axes = fitted.components_  # type: ignore[attr-defined]
    assert axes @ axes.T == pytest.approx(np.eye(6), abs=1e-12)
    wanted = covariance_along(axes, standard[is_target])
    assert np.abs(covariance_along(axes, standard[~is_target]) - wanted).max() > 0.3
    assert covariance_along(axes, mapped[~is_target]) == pytest.approx(wanted, abs=1e-5)
    assert mapped[is_target].tobytes() == standard[is_target].tobytes()
    outside = np.eye(rows.shape[1]) - axes.T @ axes
    assert mapped @ outside == pytest.approx(standard @ outside, abs=1e-5)


def test_linear_transport_moves_rows_less_than_coral() -> None:
    rows, domains = made()
    standard = DomainStandardiser().fit_transform(rows, domains=domains, target="phone")
    coral, transport = (
        np.square(m.fit_transform(rows, domains=domains, target="phone") - standard).sum()
        for m in (Coral(20, 0.0), LinearTransport(20, 0.0))
    )
    assert transport < 0.95 * coral


def test_columns_are_standardised_by_domain_or_by_all_sources() -> None:
    rows, domains = made()
    own = DomainStandardiser().fit_transform(rows, domains=domains, target="film")
    for name in ("film", "phone", "scan"):
        assert own[domains == name].mean(axis=0) == pytest.approx(np.zeros(20), abs=1e-5)
        assert own[domains == name].std(axis=0) == pytest.approx(np.ones(20), abs=1e-5)
    pooled = PooledStandardiser().fit_transform(rows, domains=domains, target="film")
    sources = rows[domains != "film"].astype(np.float64)
    expected = (rows - sources.mean(axis=0)) / sources.std(axis=0)
    assert pooled == pytest.approx(expected, abs=1e-5)


def test_a_domain_far_away_costs_no_digits() -> None:
    """Sums of squares around a mean of all domains, in float32, were 3e-5 off here."""
    rows, domains = made()
    rows[domains == "scan"] += 2**8  # exact but for the last digits of float32
    means, variances = columns_by_domain(rows, np.unique(domains, return_inverse=True)[1], 3)[1:]
    inside = rows[domains == "scan"].astype(np.float64)
    assert means[2] == pytest.approx(inside.mean(axis=0), rel=1e-12)
    assert variances[2] == pytest.approx(inside.var(axis=0), rel=1e-9)
    found = DomainStandardiser().fit_transform(rows, domains=domains, target="film")[domains == "scan"]
    assert found.mean(axis=0, dtype=np.float64) == pytest.approx(np.zeros(20), abs=1e-7)


def test_a_column_that_is_constant_in_a_domain_has_no_variance() -> None:
    """Its sum of squares is not always that of its mean, to the last digit."""
    rng = np.random.default_rng(5)
    numbers = rng.integers(0, 3, 777)
    rows = (rng.normal(size=(3, 50)) * 10.0 ** rng.integers(-4, 5, 50)).astype(np.float32)[numbers]
    rows[:, 7] += np.float32(1e-4) * rng.normal(size=777).astype(np.float32) * rows[:, 7]
    assert np.flatnonzero(columns_by_domain(rows, numbers, 3)[2].any(axis=0)).tolist() == [7]


def test_directions_are_the_principal_components_of_all_rows_that_are_taken() -> None:
    rows, domains = made(2500)
    taken = domains != "film"
    found = principal_axes(rows, taken, 3)
    inside = rows[taken].astype(np.float64)
    values, vectors = np.linalg.eigh(inside.T @ inside)
    assert np.abs(np.diag(found @ vectors[:, :-4:-1])) == pytest.approx(np.ones(3), abs=1e-8)
    assert np.square(inside @ found.T).sum(axis=0) == pytest.approx(values[:-4:-1], rel=1e-6)


@every_map
def test_blocks_and_arrays_give_the_same_digits_at_1_and_4_threads(
    untrained: DomainMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, domains = made(3000)
    found = []
    for given, n_threads in ((rows, 1), (rows, 4), (Blocks(rows), 1), (Blocks(rows), 4)):
        monkeypatch.setattr("joblib.cpu_count", lambda n=n_threads: n)
        found.append(clone(untrained).fit_transform(given, domains=domains, target="scan").tobytes())
    assert len(set(found)) == 1


def test_blocks_are_read_in_steady_threads_those_of_the_caller_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, domains = made(5000, width=4)
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    given, mapped, inside = Blocks(rows), Blocks(rows), Blocks(rows)
    fitted = Coral(2).fit(given, domains=domains, target="scan")
    fitted.transform(mapped, domains)
    with steady_threads(1):
        DomainStandardiser().fit(inside, domains=domains, target="scan").transform(inside, domains)
    assert given.readers - {threading.get_ident()} and threading.get_ident() not in mapped.readers
    assert len(inside.readers - {threading.get_ident()}) == 1


def test_moments_of_two_shards_add_up() -> None:
    rows, domains = made(2500)
    axes = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 4)))[0].T
    taken = domains != "film"
    whole = moments_of(rows, taken, axes)
    added = moments_of(rows[:1100], taken[:1100], axes) + moments_of(rows[1100:], taken[1100:], axes)
    inside = rows[taken].astype(np.float64) @ axes.T
    for each in (whole, added):
        assert each.n == taken.sum()
        assert each.mean == pytest.approx(inside.mean(axis=0), rel=1e-9)
        assert each.covariance(0.0) == pytest.approx(np.cov(inside, rowvar=False, bias=True), rel=1e-9)
        assert each.fourth == pytest.approx((np.square(inside).sum(axis=1) ** 2).sum(), rel=1e-9)


@every_map
def test_the_steps_for_the_target_do_to_its_rows_what_transform_does(untrained: DomainMap) -> None:
    rows, domains = made()
    fitted = clone(untrained).fit(rows, domains=domains, target="scan")
    x = rows[domains == "scan"]
    stepped = Pipeline(fitted.target_steps()).transform(x)
    assert stepped == pytest.approx(fitted.transform(x), abs=2e-6)
    assert fitted.transform(x).tobytes() == fitted.transform(x, "scan").tobytes()
    assert np.abs(fitted.transform(x, "film")[:, :5] - stepped[:, :5]).max() > 0.1 or type(fitted) is PooledStandardiser


@every_map
def test_a_map_is_cloned_pickled_and_set_as_scikit_learn_s_are(untrained: DomainMap) -> None:
    rows, domains = made()
    changed = clone(untrained).set_params(**{name: 3 for name in untrained.get_params() if name == "n_components"})
    assert not hasattr(changed, "domains_")
    assert changed.get_params().get("n_components", 3) == 3
    fitted = changed.fit(rows, domains=domains, target="scan")
    loaded = pickle.loads(pickle.dumps(fitted))
    found = loaded.transform(rows, domains)
    assert found.tobytes() == fitted.transform(rows, domains).tobytes()
    frame = loaded.set_output(transform="pandas").transform(rows, domains)
    assert frame.shape == (300, loaded.n_columns_) == found.shape
    assert frame.columns[2] == f"{type(untrained).__name__.lower()}2"
    with pytest.raises(NotFittedError):
        clone(fitted).transform(rows)


def test_a_fitted_map_stands_before_a_classifier_in_a_pipeline() -> None:
    """``fit_transform`` brings each row from its own domain, not as if it were the target's."""
    rows, domains = made()
    labels = rows[:, 0] > 0
    steps = [("map", Coral(5)), ("head", LogisticRegression())]
    pipeline = Pipeline(steps).fit(rows, labels, map__domains=domains, map__target="film")
    by_hand = LogisticRegression().fit(pipeline["map"].transform(rows, domains), labels)
    assert pipeline["head"].coef_ == pytest.approx(by_hand.coef_, rel=1e-6)


@pytest.mark.parametrize("kind", ["list", "float64", "frame"])
def test_rows_come_as_any_table_of_numbers(kind: str) -> None:
    import pandas as pd

    rows, domains = made(60, width=3)
    given = {"list": rows.tolist(), "float64": rows.astype(np.float64), "frame": pd.DataFrame(rows)}[kind]
    found = Coral(2).fit_transform(given, domains=pd.Series(domains), target="phone")
    assert found.tobytes() == Coral(2).fit_transform(rows, domains=list(domains), target="phone").tobytes()


def test_domains_may_be_numbers() -> None:
    rows, domains = made(60)
    numbers = np.unique(domains, return_inverse=True)[1]
    found = DomainStandardiser().fit_transform(rows, domains=numbers, target=1)  # type: ignore[arg-type]
    assert found.tobytes() == DomainStandardiser().fit_transform(rows, domains=domains, target="phone").tobytes()


@every_map
def test_few_target_rows_and_constant_columns_leave_numbers(untrained: DomainMap) -> None:
    """5 rows of 64 columns, two of them constant: in one domain, and in all."""
    rows, _ = made(60, width=64)
    domains = np.array(["scan"] * 5 + ["film"] * 30 + ["phone"] * 25)
    rows[:, 8], rows[domains == "scan", 9] = 1 / 3, -1e6 / 3
    fitted = clone(untrained).fit(rows, domains=domains, target="scan")
    found = fitted.transform(rows, domains)
    assert fitted.n_columns_ == found.shape[1] == (4 if type(untrained) is SubspaceAlignment else 64)
    assert np.isfinite(found).all()
    if type(untrained) is DomainStandardiser:
        assert np.abs(found[:, 8]).max() == np.abs(found[:5, 9]).max() == 0
        assert fitted.scale_[fitted.domains_.index("scan"), [8, 9]].tolist() == [1, 1]


def of_rows(change: Callable[[Rows], Any]) -> Callable[[], object]:
    """Return what fits a map on changed rows of two domains."""
    rows, domains = made(40)
    domains[domains == "phone"] = "film"
    return lambda: Coral(3).fit(change(rows.copy()), domains=domains, target="scan")


def of_domains(domains: Any, target: str = "scan", untrained: DomainMap = MAPS[1]) -> Callable[[], object]:
    return lambda: clone(untrained).fit(made(40)[0], domains=domains, target=target)


def transformed(rows: Any, domains: Any = None) -> Callable[[], object]:
    given, known = made(40)
    return lambda: Coral(3).fit(given, domains=known, target="scan").transform(rows, domains)


def with_one(value: float) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[17, 3] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        pytest.param(
            of_domains(["a", "b"] * 20), UsageError, "No rows of the target 'scan'. Domains: a, b.", id="target"
        ),
        pytest.param(of_domains(["scan"] * 40), UsageError, "one domain only (scan)", id="one domain"),
        pytest.param(of_domains(["scan"] * 39 + ["b"]), DataError, "Domain 'b' has one row", id="one source row"),
        pytest.param(of_domains(["b"] * 39 + ["scan"]), DataError, "Domain 'scan' has one row", id="one target row"),
        pytest.param(of_domains(["a", "b"]), UsageError, "each of 40 rows is needed, received shape (2,)", id="short"),
        pytest.param(of_rows(lambda x: x[:0]), UsageError, "each of 0 rows", id="no rows"),
        pytest.param(of_rows(lambda x: x[0]), UsageError, "two dimensions, received shape (20,)", id="one dimension"),
        pytest.param(of_rows(csr_array), UsageError, "sparse", id="sparse"),
        pytest.param(of_rows(lambda x: x.astype(str)[:, :1] + "a"), UsageError, "numbers", id="words"),
        pytest.param(of_rows(with_one(np.nan)), DataError, "NaN or infinity", id="nan"),
        pytest.param(of_rows(with_one(-np.inf)), DataError, "NaN or infinity", id="infinity"),
        pytest.param(of_rows(lambda x: x.astype(np.float64) * 1e39), DataError, "NaN or infinity", id="float64"),
        pytest.param(of_rows(lambda x: np.ones((40, 4097), np.float32)), DataError, "4,097 columns", id="wide"),
        pytest.param(transformed(made(5, 8)[0]), UsageError, "fitted on 20 columns, received 8", id="width"),
        pytest.param(transformed(made(5)[0], "tape"), UsageError, "'tape'. Known: film, phone, scan", id="unknown"),
        pytest.param(transformed(made(3)[0], ["film", "scan"]), UsageError, "each of 3 rows", id="short at transform"),
        pytest.param(transformed(with_one(np.nan)(made(30)[0])), DataError, "NaN or infinity", id="nan at transform"),
        pytest.param(of_domains(made(40)[1], untrained=Coral(0)), UsageError, "component", id="n_components"),
        pytest.param(
            of_domains(made(40)[1], untrained=Coral(3, 1.5)), UsageError, "shrinkage is 0 to 1", id="shrinkage"
        ),
        pytest.param(of_domains(made(40)[1], untrained=SubspaceAlignment(-1)), UsageError, "component", id="subspace"),
    ],
)
def test_bad_input_gets_one_clear_line(act: Callable[[], object], error: type[TlfeatError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as raised:
        act()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 160


def test_no_row_and_one_row_are_transformed() -> None:
    rows, domains = made()
    fitted = LinearTransport(4).fit(rows, domains=domains, target="scan")
    assert fitted.transform(rows[:0]).shape == (0, 20)
    assert fitted.transform(rows[7:8], "film") == pytest.approx(
        fitted.transform(rows, np.full(300, "film"))[7:8], abs=1e-6
    )
