"""Fits that tlfeat saved before `heads.table.SEARCH_VERSION` are found again under the name they had then.

That was commit 2503b30 and before (0.1.0): the `repr` of a head's family stood in its settings as "grid", and the
digest of the settings is in the name of a folder or trial. The same search is version 1 today.
"""

from __future__ import annotations

from typing import Any

_NO_LIMIT = 4611686018427387904

_WAYS = "('standardised', 'raw', 'l2', 'root', 'root-l2', 'whitened')"

_FROM_1E6_TO_562 = (
    "1e-06, 1.78e-06, 3.16e-06, 5.62e-06, 1e-05, 1.78e-05, 3.16e-05, 5.62e-05, 0.0001, 0.000178, 0.000316, 0.000562, "
    "0.001, 0.00178, 0.00316, 0.00562, 0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.178, 0.316, 0.562, 1.0, 1.78, 3.16, 5.62, "
    "10.0, 17.8, 31.6, 56.2, 100.0, 178.0, 316.0, 562.0"
)

_FROM_1E3_TO_1E5 = "1000.0, 1780.0, 3160.0, 5620.0, 10000.0, 17800.0, 31600.0, 56200.0, 100000.0"

_FROM_1E7_TO_01 = (
    "10000000.0, 5620000.0, 3160000.0, 1780000.0, 1000000.0, 562000.0, 316000.0, 178000.0, 100000.0, 56200.0, "
    "31600.0, 17800.0, 10000.0, 5620.0, 3160.0, 1780.0, 1000.0, 562.0, 316.0, 178.0, 100.0, 56.2, 31.6, 17.8, 10.0, "
    "5.62, 3.16, 1.78, 1.0, 0.562, 0.316, 0.178, 0.1"
)

#: What the `repr` of each family was. Never changed: a head that joins the table later was not saved so.
GRIDS = {
    "logreg": (
        f"Penalised(loss='logistic', parameter='C', path=({_FROM_1E6_TO_562}, {_FROM_1E3_TO_1E5}), "
        f"row_choices={_WAYS}, max_rows={_NO_LIMIT})"
    ),
    "svm": (
        "Kernel(cs=(1.0, 10.0, 100.0), gammas=(0.25, 1.0, 4.0), "
        "row_choices=('standardised', 'raw', 'root', 'root-l2'), max_rows=4000)"
    ),
    "linear-svm": (
        f"Penalised(loss='squared hinge', parameter='C', path=({_FROM_1E6_TO_562}), "
        f"row_choices={_WAYS}, max_rows={_NO_LIMIT})"
    ),
    "knn": (
        "Neighbours(ks=(1, 5, 10, 20, 100, 200), sharpnesses=(0.07, 0.02, 0.2), row_choices=('raw', 'root'), "
        "max_rows=50000)"
    ),
    "ridge": (
        f"Penalised(loss='squared', parameter='alpha', path=({_FROM_1E7_TO_01}), "
        f"row_choices={_WAYS}, max_rows={_NO_LIMIT})"
    ),
    "lda": (
        "Discriminant(shrinkages=(0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0), "
        f"row_choices=('standardised', 'root'), max_rows={_NO_LIMIT})"
    ),
}


def earlier_settings(candidate: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings under which 0.1.0 saved the fit that these ask for; None where it saved none such."""
    grid = GRIDS.get(candidate.removeprefix("pixels+"))
    if grid is None or settings.get("search") != 1:
        return None
    return {**{name: value for name, value in settings.items() if name != "search"}, "grid": grid}
