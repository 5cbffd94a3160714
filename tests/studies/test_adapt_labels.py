"""What adapting is worth in labels: nested draws, and counts between those that were tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from made_domains import domain_table, write_cache
from tlfeat.adapt.methods import Fitter, Method, find_methods
from tlfeat.cache.store import open_cache
from tlfeat.errors import UsageError
from tlfeat.evaluate.domain_split import DomainSplit, Unlabelled, make_domain_split
from tlfeat.evaluate.intervals import mean_interval
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.models.adapted_rows import Prepared, prepare
from tlfeat.report.adaptation import _worth
from tlfeat.studies import adapt_labels
from tlfeat.studies.adapt_labels import Labelled, label_some, parse_labels, worth_in_labels


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DomainSplit, Prepared]:
    rows, table = domain_table(70)
    path = write_cache(tmp_path_factory.mktemp("made") / "c.h5", rows, table)
    with open_cache(path) as cache:
        found = make_domain_split(cache.table, ["film", "phone"], "scan", seed=3)
        return found, prepare(cache, found, ["pooled"], LeakedImages([], []))


def label(made: tuple[DomainSplit, Prepared], **options: Any) -> list[Labelled]:
    found, prepared = made
    fitter = Fitter(prepared.task, "ridge")
    return label_some(found, prepared, fitter, find_methods("standardise")[1], **options)


def test_draws_are_nested_seeded_and_of_every_class(
    made: tuple[DomainSplit, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, prepared = made
    seen: list[tuple[list[int], list[int]]] = []

    def watched(self: Fitter, method: Method, at: Any, labels: Any) -> Any:
        seen.append((at.tolist(), labels.tolist()))
        return self.source_head()

    monkeypatch.setattr(Fitter, "fit_with_labels", watched)
    monkeypatch.setattr(adapt_labels, "_alone", lambda *_: Fitter(prepared.task, "ridge").source_head())
    lines = label(made, counts=[2, 4], n_draws=3)
    hidden = found.adapt.hidden[prepared.adapt_at]
    assert [line.count for line in lines] == [2, 4] and len(seen) == 6
    for (few, named), (many, _) in zip(seen[::2], seen[1::2], strict=True):
        assert np.bincount(named).tolist() == [2, 2, 2] and set(few) < set(many)
        assert named == hidden[few].tolist()
    assert len({tuple(at) for at, _ in seen}) == 6  # other images in each draw
    first = list(seen)
    label(made, counts=[2, 4], n_draws=3)
    assert seen[6:] == first


def test_labels_bring_accuracy_and_more_of_them_more(made: tuple[DomainSplit, Prepared]) -> None:
    one, other = label(made, counts=[1, 8], n_draws=2)
    assert (one.n_labels, other.n_labels) == (3, 24)
    assert len(one.target_only) == len(one.both) == 2
    assert np.mean(other.target_only) > np.mean(one.target_only) + 0.05
    assert np.mean(one.both) > np.mean(one.target_only)
    record = other.to_record()
    assert record["target_only"] == pytest.approx(np.mean(other.target_only)) and record["n_draws"] == 2
    assert record["both_ci95"] == list(mean_interval(other.both))


def test_a_count_beyond_the_largest_class_is_left_out_and_a_smaller_class_gives_all_it_has(
    made: tuple[DomainSplit, Prepared],
) -> None:
    found, _ = made
    sizes = np.bincount(found.adapt.hidden)
    counts = [int(sizes.max()), int(sizes.max()) + 1]
    (line,) = label(made, counts=counts, n_draws=1)
    assert line.n_labels == sizes.sum() < 3 * sizes.max()


@pytest.mark.parametrize("n_classes", [0, 1])
def test_without_labels_of_two_classes_there_is_nothing(made: tuple[DomainSplit, Prepared], n_classes: int) -> None:
    found, prepared = made
    hidden = np.where(found.adapt.hidden < n_classes, found.adapt.hidden, -1)
    adapted: Unlabelled = replace(found.adapt, hidden=hidden)
    assert label((replace(found, adapt=adapted), prepared), counts=[1, 2]) == []
    assert worth_in_labels([], 0.9) is None


def lines_of(*means: float) -> list[Labelled]:
    return [Labelled(n, 3.0 * n, [m - 0.1, m + 0.1], [m, m]) for n, m in zip((1, 4, 16), means, strict=True)]


def test_the_worth_lies_between_counts_on_a_straight_line_in_their_logarithm() -> None:
    lines = lines_of(0.4, 0.6, 0.8)
    assert worth_in_labels(lines, 0.5) == pytest.approx(2)
    assert worth_in_labels(lines, 0.75) == pytest.approx(4 * 4**0.75)
    assert worth_in_labels(lines, 0.6) == pytest.approx(4)
    assert worth_in_labels(lines, 0.8) == pytest.approx(16)
    assert worth_in_labels(lines, 0.39) == worth_in_labels(lines, 0.4) == 0.0
    assert worth_in_labels(lines, 0.81) == float("inf")
    assert worth_in_labels(lines_of(0.4, 0.3, 0.8), 0.55) == pytest.approx(8)  # a dip is passed over


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (0.3, "Without a label, 30.0 % is what fewer than 1 label a class of scan alone would give."),
        (0.5, "what about 2 labels a class of scan alone would give."),
        (0.9, "what more than 16 labels a class of scan alone would give."),
    ],
)
def test_the_worth_is_said_with_what_labels_would_bring(accuracy: float, said: str) -> None:
    class Found:
        labelled = lines_of(0.4, 0.6, 0.8)
        target, chosen = "scan", 0

        class Line:
            pass

    found: Any = Found()
    line: Any = Found.Line()
    line.accuracy, found.lines = accuracy, [line]
    told = _worth(found)
    assert said in told[0]
    assert told[2].startswith("Or label 4 a class of scan: 60.0 % (") and "60.0 % (60.0 to 60.0) with the" in told[2]
    found.labelled = []
    assert _worth(found) == []


def test_numbers_of_labels_are_sorted_and_each_once() -> None:
    assert parse_labels(" 20,5,5 ,1") == [1, 5, 20]
    assert parse_labels("none") == []


@pytest.mark.parametrize("text", ["", "0", "5,-1", "five", "none,5", "1.5"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--labels wants numbers of images a class such as 1,5,20, or none; received"):
        parse_labels(text)
