"""Predictions as text for other programs."""

from __future__ import annotations

import csv
import io

from tlfeat.models.predict import Prediction, to_csv


def test_no_cell_of_predictions_is_a_formula_to_a_spreadsheet() -> None:
    top = [("@SUM(1)", 0.75), ("-1", 0.25)]
    text = to_csv([Prediction("=1+1.png", "@SUM(1)", 0.75, top), Prediction("\tx.png", error="-broken")])
    one, other = csv.DictReader(io.StringIO(text))
    assert (one["path"], one["label"], one["probability"]) == ("'=1+1.png", "'@SUM(1)", "0.750000")
    assert (one["label_2"], one["probability_2"]) == ("-1", "0.250000")  # a number is none
    assert (other["path"], other["error"]) == ("'\tx.png", "'-broken")
