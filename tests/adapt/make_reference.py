"""Write tests/adapt/maps_reference.npz: rows of three domains as skada, POT and scikit-learn map them.

Needs an environment of its own, as ``import skada`` switches scikit-learn's metadata routing on for the whole process
(tried: skada 0.6.0, POT 0.9.7, scikit-learn 1.9.1, NumPy 2.4.6, SciPy 1.17.1)::

    python tests/adapt/make_reference.py

All methods get rows standardised for each domain, in float64, as the maps of tlfeat do first. Then skada's CORAL and
subspace alignment, and POT's linear transport, are the same methods. Where the covariance is shrunk by the rule of
Ledoit and Wolf, skada first standardises the columns once more: the same at full width, where they are standardised
already, and another matrix within a few directions. There the reference is made of scikit-learn's covariances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ot
import skada
import sklearn
from sklearn.covariance import empirical_covariance, ledoit_wolf, ledoit_wolf_shrinkage, shrunk_covariance
from sklearn.preprocessing import StandardScaler

WIDTH = 12

N_ROWS = {"film": 60, "phone": 100, "scan": 80}

TARGET = "scan"

SHRINKAGE = 0.3


def made_rows() -> tuple[Any, Any]:
    """Return rows, float32, whose domains differ in mean and covariance, in mixed order; and their domains."""
    rng = np.random.default_rng(16)
    domains = rng.permutation([name for name, n in N_ROWS.items() for _ in range(n)])
    rows = np.empty((len(domains), WIDTH), np.float32)
    for name in N_ROWS:
        mixing = rng.normal(size=(WIDTH, WIDTH)) * np.linspace(0.4, 2.5, WIDTH)
        inside = domains == name
        rows[inside] = rng.normal(size=(inside.sum(), WIDTH)) @ mixing + 4 * rng.normal(size=WIDTH)
    return rows, domains


def standardised(rows: Any, domains: Any) -> Any:
    """Return rows with mean 0 and deviation 1 in each domain, float64."""
    found = np.empty(rows.shape)
    for name in N_ROWS:
        found[domains == name] = StandardScaler().fit_transform(rows[domains == name].astype(np.float64))
    return found


def main() -> None:
    """Write the file."""
    rows, domains = made_rows()
    x, is_target = standardised(rows, domains), domains == TARGET
    sample_domain = np.where(is_target, -1, 1)
    source, target = x[~is_target], x[is_target]
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :4]
    found = {}
    found["ledoit_wolf"] = np.array([ledoit_wolf_shrinkage(side) for side in (source, target)])
    found["ledoit_wolf_4"] = np.array([ledoit_wolf_shrinkage(side @ axes) for side in (source, target)])

    def coral(of: Any, reg: Any) -> Any:
        return skada.CORALAdapter(reg=reg).fit_transform(of, sample_domain=sample_domain)

    def transported(of: Any, covariance_of: Any) -> Any:
        sides = [covariance_of(side) for side in (of[~is_target], of[is_target])]
        nothing = np.zeros(of.shape[1])
        matrix, _ = ot.gaussian.bures_wasserstein_mapping(nothing, nothing, *sides)
        return np.where(is_target[:, None], of, of @ matrix)

    def within(of: Any) -> Any:
        """Put mapped coordinates along the four axes in the place of those of the rows."""
        return x + (of - x @ axes) @ axes.T

    found["coral_auto"] = coral(x, "auto")
    found["coral_stated"] = coral(x, SHRINKAGE)
    found["coral_4"] = within(coral(x @ axes, SHRINKAGE))
    empirical = ot.da.LinearTransport(reg=0).fit(Xs=source, Xt=target)
    found["transport_0"] = np.where(is_target[:, None], x, empirical.transform(Xs=x))
    found["transport_auto"] = transported(x, lambda side: ledoit_wolf(side)[0])
    shrunk = transported(x @ axes, lambda side: shrunk_covariance(empirical_covariance(side), SHRINKAGE))
    found["transport_4"] = within(shrunk)
    found["transport_auto_4"] = within(transported(x @ axes, lambda side: ledoit_wolf(side)[0]))
    aligned = skada.SubspaceAlignmentAdapter(n_components=5, random_state=0)
    found["subspace_5"] = aligned.fit_transform(x, sample_domain=sample_domain)
    mapped = {name: value[::4] for name, value in found.items() if value.shape[0] == len(rows)}
    versions = f"skada {skada.__version__}, POT {ot.__version__}, scikit-learn {sklearn.__version__}"
    given = {"rows": rows, "domains": domains, "versions": versions}
    np.savez_compressed(Path(__file__).with_name("maps_reference.npz"), **found | mapped | given)


if __name__ == "__main__":
    main()
