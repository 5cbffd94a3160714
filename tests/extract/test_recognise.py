"""Whether a path table has changed since the last run."""

from __future__ import annotations

import pytest

from made_data import make_table
from tlfeat.extract.recognise import differ


@pytest.mark.parametrize("column", ["labels", "splits", "groups", "domains"])
def test_another_value_in_any_column_is_a_difference(column: str) -> None:
    table, other = make_table(["cat", "dog"]), make_table(["cat", "dog"])
    assert not differ(table, other)
    getattr(other.images, column)[1] = "val"
    assert differ(table, other) and differ(other, table)
