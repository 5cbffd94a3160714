"""Whether a batch is of the domain that a head was adapted to, and the file of that domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_domains import domain_rows
from tlfeat.errors import ModelError
from tlfeat.heads.domain_check import FILE_NAME, DomainRows, domain_sentence, load_domain, save_domain


def known() -> DomainRows:
    return DomainRows("scan", *domain_rows(200, domain=2))


def test_a_batch_of_the_same_domain_is_not_told_apart_and_one_of_another_is() -> None:
    same, other = known().apart(*domain_rows(90, domain=2)), known().apart(*domain_rows(90, domain=1))
    assert same is not None and other is not None
    assert same < 0.75 and other > 0.95
    assert domain_sentence("scan", same, 90) == ""
    said = domain_sentence("scan", other, 90)
    assert said.startswith("DOMAIN: these 90 images are told from those of scan, to which the model was adapted (AUC ")


def test_a_batch_of_one_class_is_compared_with_that_class_alone() -> None:
    rows, labels = domain_rows(240, domain=2, seed=3)
    at = labels == 1
    found = known().apart(rows[at], labels[at])
    assert found is not None and found < 0.75
    whole = DomainRows("scan", known().rows, np.zeros(200, np.int64)).apart(rows[at], np.zeros(at.sum(), np.int64))
    assert whole is not None and whole > found + 0.15  # what it would say if classes were not looked at


def test_fewer_than_twenty_images_are_not_judged() -> None:
    rows, labels = domain_rows(60, domain=1, shares=(1, 0, 0))
    assert known().apart(rows[:19], labels[:19]) is None
    assert known().apart(rows[:20], labels[:20]) is not None
    assert known().apart(rows, np.full(60, 7)) is None  # of no class that is known


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    save_domain(known(), tmp_path)
    found = load_domain(tmp_path, 12, 3)
    assert found is not None and found.name == "scan"
    np.testing.assert_array_equal(found.rows, known().rows)
    np.testing.assert_array_equal(found.named, known().named)
    (tmp_path / FILE_NAME).unlink()
    assert load_domain(tmp_path, 12, 3) is None


@pytest.mark.parametrize(
    "fault", ["cut", "width", "classes", "negative", "nan", "float64", "lengths", "too many", "missing", "pickle"]
)
def test_a_damaged_file_or_one_of_another_head_is_one_clear_error(fault: str, tmp_path: Path) -> None:
    rows, named = domain_rows(30, domain=2)
    arrays = {"name": np.array("scan"), "rows": rows, "named": named}
    if fault == "nan":
        rows[4, 3] = np.nan
    changed = {
        "negative": {"named": named - 1},
        "float64": {"rows": rows.astype(np.float64)},
        "lengths": {"named": named[1:]},
        "too many": {"rows": np.tile(rows, (17, 1)), "named": np.tile(named, 17)},
        "pickle": {"rows": np.array([{}, None], dtype=object)},
    }
    arrays |= changed.get(fault, {})
    if fault == "missing":
        del arrays["named"]
    file = tmp_path / FILE_NAME
    np.savez(file, **arrays)  # type: ignore[arg-type]
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"domain\.npz is damaged: ") as raised:
        load_domain(tmp_path, 13 if fault == "width" else 12, 2 if fault == "classes" else 3)
    assert "\n" not in str(raised.value)
