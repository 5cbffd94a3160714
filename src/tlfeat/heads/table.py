"""One literal table of heads. No TensorFlow anywhere here.

Held-out images choose the preprocessing of the rows and the parameters (``search``); test images choose nothing. How
each kind of head is fitted stands in ``linear``, ``discriminant``, ``kernel`` and ``neighbours``.

Tree ensembles are left out on purpose: on pooled embeddings of cats and dogs a random forest of 300 trees took 31 s,
search included, where logistic regression took 0.6 s for the same accuracy (96.8 %, one run), and its compiled trees
cannot be loaded safely from a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlfeat.errors import UsageError, nearest
from tlfeat.heads.any_estimator import any_estimator, is_dotted, short_name
from tlfeat.heads.columns import MAX_COVARIANCE
from tlfeat.heads.discriminant import Discriminant
from tlfeat.heads.family import Family, Values
from tlfeat.heads.few_labels import Spreading
from tlfeat.heads.kernel import Kernel
from tlfeat.heads.learner import C
from tlfeat.heads.linear import Penalised
from tlfeat.heads.neighbours import Neighbours
from tlfeat.types import Rows

#: 45 values from 1e-6 to 1e5, as in the evaluation of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, appendix B).
C_PATH = tuple(float(f"{c:.3g}") for c in np.logspace(-6, 5, 45))

ALPHA_PATH = tuple(float(f"{a:.3g}") for a in np.logspace(7, -1, 33))


#: How much a search tries.
EFFORTS = ("quick", "thorough")

#: Of the quick and of the thorough search; one stands in the settings of every fit. It goes up when a fit of today
#: would not be the fit of yesterday: other ways to take rows, other values that are tried, another default, another
#: loss. Then no Result of before is reused.
SEARCH_VERSION, THOROUGH_VERSION = 4, 3

#: What a quick search does to rows: on the sets of benchmarks/search.py no other way is clearly better.
_QUICK = ("standardised", "root-l2")

#: Images on which a quick search compares these ways.
_FEW = 1_000


@dataclass(frozen=True, slots=True)
class Head:
    """One entry of the table.

    Attributes
    ----------
    name : str
        As in ``--model``.
    quick, thorough : Family
        How it is fitted, and what its two searches try.
    rows : str
        The preprocessing where no search is possible: one of `family.ROW_CHOICES`.
    default : mapping of parameter to value
        Used where no search is possible.
    when : str
        When to use it.
    source : str
        Where the method comes from.
    n_copies : float
        Memory it needs beside the rows, in sizes of the rows; 0 can read them from the file a block at a time.
    max_width : int
        Columns beyond which it is refused, with the head to take instead.
    is_calibrated : bool
        Whether its own loss is the log loss, so that its scores need no temperature.
    """

    name: str
    quick: Family
    thorough: Family
    rows: str
    default: Values
    when: str
    source: str
    n_copies: float = 0.0
    max_width: int = 1_000_000
    is_calibrated: bool = False

    @property
    def step(self) -> str:
        """Its name in a pipeline of scikit-learn."""
        return short_name(self.name).replace("-", "_").lower()

    def family(self, effort: str) -> Family:
        """Return how it is searched and fitted with an effort of `EFFORTS`."""
        return self.quick if effort == "quick" else self.thorough


HEADS: tuple[Head, ...] = (
    Head(
        "logreg",
        Penalised("logistic", "C", C_PATH[8::2], _QUICK, max_rows=10_000, patience=1, coarse_rows=_FEW),
        Penalised("logistic", "C", C_PATH),
        "standardised",
        {"C": 0.01},
        "the first to try: calibrated probabilities, seconds for 50,000 images",
        "linear probe: Alain and Bengio 2016, arXiv:1610.01644",
        is_calibrated=True,
    ),
    Head(
        "svm",
        Kernel((1.0, 10.0, 100.0), (0.25, 1.0), _QUICK, max_rows=2_000, coarse_rows=_FEW),
        Kernel((1.0, 10.0, 100.0), (0.25, 1.0, 4.0)),
        "standardised",
        {"C": 10.0, "gamma": 1.0},
        "a few thousand images with curved class borders; slow beyond 20,000",
        "Cortes and Vapnik 1995; RBF kernel",
        n_copies=6,  # libsvm's float64 rows, its own copy of them, support vectors
    ),
    Head(
        "linear-svm",
        Penalised("squared hinge", "C", C_PATH[4:34:2], _QUICK, max_rows=10_000, patience=1, coarse_rows=_FEW),
        Penalised("squared hinge", "C", C_PATH[:36]),
        "standardised",
        {"C": 0.001},
        "as fast as logreg; looks only at images near the border",
        "Cortes and Vapnik 1995; squared hinge, each class against the rest",
    ),
    Head(
        "knn",
        Neighbours((1, 5, 10, 20, 100), max_rows=10_000, coarse_rows=2_000),
        Neighbours((1, 5, 10, 20, 100, 200)),
        "raw",
        {"n_neighbors": 10, "weights": "distance"},
        "nothing to fit; shows which known pictures a new one resembles",
        "votes by distance: Dudani 1976, IEEE Transactions SMC 6(4)",
        n_copies=5,  # the rows of length 1, and the neighbours of all of them during the search
    ),
    Head(
        "ridge",
        Penalised("squared", "alpha", ALPHA_PATH[8::2], _QUICK, max_rows=10_000, patience=1, coarse_rows=_FEW),
        Penalised("squared", "alpha", ALPHA_PATH),
        "standardised",
        {"alpha": 1000.0},
        "least squares: the fastest to fit on many images",
        "Rifkin, Yeo and Poggio 2003, regularised least-squares classification",
    ),
    Head(
        "lda",
        Discriminant((0.02, 0.1, 0.2, 0.4, 0.7), ("root",), max_rows=10_000, coarse_rows=_FEW),
        Discriminant((0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)),
        "standardised",
        {"shrinkage": 0.1},
        "few images a class; one pass over the rows",
        "Fisher 1936; shrinkage as in Friedman 1989",
        max_width=MAX_COVARIANCE,
    ),
)


#: The head that needs rows without a label beside those with one; `spread_head` makes it.
SPREAD = "spread"


def spread_head(unlabelled: Rows) -> Head:
    """Return the head that spreads few labels to rows (n_unlabelled, width) without one."""
    family = Spreading(unlabelled)
    return Head(
        SPREAD,
        family,
        family,
        "l2",
        {"C": C},
        "a few labels a class, and many images without one",
        "label spreading: Zhou et al. 2003; for embeddings: Iscen et al. 2019, arXiv:1904.04717",
        n_copies=4,
        is_calibrated=True,  # of a few labels, all of which are right, a temperature would be near 0
    )


def check_effort(effort: str) -> None:
    """Raise `UsageError` unless there is such a search."""
    if effort not in EFFORTS:
        raise UsageError(f"No search '{effort}'. {nearest(effort, EFFORTS, of='searches')}")


def search_settings(effort: str = "quick", *, is_searched: bool = True) -> dict[str, Any]:
    """Return what the settings of a fit say about its search; before 0.2 the thorough one was the only one."""
    if is_searched and effort == "quick":
        return {"search": SEARCH_VERSION, "effort": effort}
    return {"search": THOROUGH_VERSION}


def check_head(
    name: str,
    parameters: Values | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    has_unlabelled: bool = False,
) -> None:
    """Raise `UsageError` unless there is a head that takes all this; "spread" is one, and takes unlabelled images."""
    if name != SPREAD or parameters or grid:
        find_head(name, parameters, grid)
    if has_unlabelled and name != SPREAD:
        raise UsageError(f"--unlabelled is for --model {SPREAD}: {name} learns from images with a label alone.")


def find_head(name: str, parameters: Values | None = None, grid: Mapping[str, Sequence[Any]] | None = None) -> Head:
    """Return the table's entry, or one for any classifier that is named ``package.module:Class``.

    Parameters
    ----------
    name : str
    parameters : mapping of parameter to value, optional
        Of such a classifier.
    grid : mapping of parameter to values, optional
        Of such a classifier; every combination is compared.

    Raises
    ------
    UsageError
        No such head, which suggests the nearest name; or parameters for one of the table, whose search sets them.
    """
    if is_dotted(name):
        family = any_estimator(name, parameters, grid)
        return Head(
            name, family, family, "standardised", family.combinations[0], "where you know why", name, n_copies=3
        )
    if parameters or grid:  # of "spread", too, which is none of the table's
        raise UsageError(
            f"--param and --grid are for a class, as --model sklearn.svm:SVC; the search of {name} sets its own."
        )
    for head in HEADS:
        if head.name == name:
            return head
    if name == SPREAD:
        raise UsageError(f"{SPREAD} learns from images without a label: only fit-sklearn and label fit it.")
    names = [head.name for head in HEADS]
    raise UsageError(
        f"No head '{name}'. {nearest(name, names, of='heads')} Any other classifier is named by its class, as "
        f"sklearn.ensemble:HistGradientBoostingClassifier."
    )
