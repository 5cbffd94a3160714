"""One literal table of heads; fit, search, save and load them. No TensorFlow anywhere here.

Every head is a scikit-learn Pipeline: standardised rows, then the classifier. The search is small and chosen by
cross-validation on training and validation images; test images choose nothing.

Tree ensembles are left out on purpose: on pooled embeddings of cats and dogs a random forest of 300 trees took 31 s,
search included, where logistic regression took 0.6 s for the same accuracy (96.8 %, one run), and its compiled trees
cannot be loaded safely from a stranger.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.encoder import Rows
from tlfeat.errors import DataError, ModelError, UsageError, nearest
from tlfeat.evaluate import Labels, Split, folds

N_FOLDS = 5

#: Up to this many values in the training rows, one BLAS thread is faster and steadier than all cores.
_SMALL_PROBLEM = 4_000_000


@dataclass(frozen=True, slots=True)
class Head:
    """One entry of the table.

    Attributes
    ----------
    name : str
        As in ``--model``.
    make : callable
        Gives the unfitted classifier for (seed).
    grid : mapping of parameter to values
        The search space; the first value of each is the default, used where no search is possible.
    when : str
        When to use it.
    source : str
        Where the method comes from.
    is_calibrated : bool
        Whether the classifier has no probabilities of its own and gets sigmoid-calibrated ones.
    max_width : int
        Columns beyond which it is refused, with the head to take instead.
    """

    name: str
    make: Callable[[int], Any]
    grid: Mapping[str, tuple[Any, ...]]
    when: str
    source: str
    is_calibrated: bool = False
    max_width: int = 1_000_000


def _logreg(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000, random_state=seed)


def _linear_svm(seed: int) -> Any:
    from sklearn.svm import SVC

    # SVC's dual solver ends in seconds where LinearSVC's can run for minutes on rows with more columns than images
    return SVC(kernel="linear", random_state=seed)


def _svm(seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(kernel="rbf", random_state=seed)


def _knn(seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(weights="distance", metric="cosine")


def _ridge(seed: int) -> Any:
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(random_state=seed)


def _lda(seed: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


HEADS: tuple[Head, ...] = (
    Head(
        "logreg",
        _logreg,
        {"C": (0.01, 0.0001, 0.001, 0.1, 1.0)},
        "the first to try: calibrated probabilities, seconds for 50,000 images",
        "linear probe: Alain and Bengio 2016, arXiv:1610.01644",
    ),
    Head(
        "svm",
        _svm,
        {"C": (10.0, 1.0, 100.0), "gamma": ("scale", 0.0001)},
        "a few thousand images with curved class borders; slow beyond 20,000",
        "Cortes and Vapnik 1995; RBF kernel; probabilities by Platt 1999",
        is_calibrated=True,
    ),
    Head(
        "linear-svm",
        _linear_svm,
        {"C": (0.001, 0.0001, 0.01, 0.1)},
        "few images and many columns",
        "Cortes and Vapnik 1995; probabilities by Platt 1999",
        is_calibrated=True,
    ),
    Head(
        "knn",
        _knn,
        {"n_neighbors": (10, 1, 5, 20)},
        "nothing to fit; shows which known pictures a new one resembles",
        "weighted cosine k-NN: Wu et al. 2018, arXiv:1805.01978, section 3.4",
    ),
    Head(
        "ridge",
        _ridge,
        {"alpha": (1000.0, 10.0, 100.0, 10000.0)},
        "one linear solve: the fastest head on many images",
        "Rifkin, Yeo and Poggio 2003, regularised least-squares classification",
        is_calibrated=True,
    ),
    Head(
        "lda",
        _lda,
        {},
        "few images a class; nothing to tune",
        "Fisher 1936; shrinkage by Ledoit and Wolf 2004",
        max_width=4096,  # its covariance takes width x width x 8 bytes: 134 MB here, 1.2 GB at 12,288 columns
    ),
)


def find_head(name: str) -> Head:
    """Return the table's entry; a `UsageError` suggests the nearest name."""
    for head in HEADS:
        if head.name == name:
            return head
    names = [head.name for head in HEADS]
    raise UsageError(f"No head '{name}'. {nearest(name, names, of='heads')}")


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A fitted pipeline with what the search chose and how long each part took (wall seconds).

    `held_out` are the probabilities of shape (n_images, n_classes) that each image got from a head that had not seen
    it (cross-validation with the chosen parameters), None where a class has one image only.
    """

    pipeline: Any
    chosen: dict[str, Any]
    search_s: float
    fit_s: float
    notes: list[str]
    held_out: npt.NDArray[np.float64] | None = None


def fit_head(
    name: str, rows: Rows, split: Split, positions: Labels, *, seed: int = 0, is_searched: bool = True
) -> FittedHead:
    """Choose hyper-parameters by cross-validation, then fit on all given images.

    Parameters
    ----------
    name : str
        A head of the table.
    rows : float32 array of shape (n_images, width)
        The rows of ``positions`` only; stays float32 up to the solver. Not modified.
    split : Split
    positions : int array of shape (n_images,)
        Training and validation images within the split; groups stay in one fold.
    seed : int, default=0
    is_searched : bool, default=True
        False takes the table's default parameters.

    Raises
    ------
    DataError
        The rows hold values that are not finite, or more columns than the head can take.
    """
    from sklearn.model_selection import GridSearchCV

    head = find_head(name)
    if not np.isfinite(rows).all():
        raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
    if rows.shape[1] > head.max_width:
        raise DataError(
            f"{name} takes at most {head.max_width:,} columns (its memory grows with their square), received "
            f"{rows.shape[1]:,}. Take ridge or logreg, or a pooled layer."
        )
    labels = split.labels[positions]
    cv = folds(split, positions, n_folds=N_FOLDS, seed=seed)
    notes = []
    chosen = {parameter: values[0] for parameter, values in head.grid.items()}
    if not cv:
        notes.append("a class has one training image: no search, no calibration, default parameters")
    search_s = 0.0
    with _threads_for(rows), _quiet():
        if cv and is_searched and head.grid:
            smallest_fold = min(len(train) for train, _ in cv)
            grid = {p: _fitting(p, values, smallest_fold) for p, values in head.grid.items()}
            started_s = time.perf_counter()
            search = GridSearchCV(
                _pipeline(head.make(seed)),
                {f"head__{p}": values for p, values in grid.items()},
                scoring=_criterion(labels),
                cv=cv,
                refit=False,
            ).fit(rows, labels)
            search_s = time.perf_counter() - started_s
            chosen = {p.removeprefix("head__"): value for p, value in search.best_params_.items()}
            chosen["cv_score"] = float(search.best_score_)
        parameters = {p: value for p, value in chosen.items() if p in head.grid}
        if "n_neighbors" in parameters:
            parameters["n_neighbors"] = chosen["n_neighbors"] = min(parameters["n_neighbors"], len(labels))
        estimator = _pipeline(head.make(seed).set_params(**parameters))
        if head.is_calibrated and cv:
            estimator = _calibrated(estimator, cv)
        started_s = time.perf_counter()
        estimator.fit(rows, labels)
        fit_s = time.perf_counter() - started_s
        held_out = _held_out(estimator, rows, labels, cv) if cv else None
    if name == "lda":
        del estimator["head"].covariance_  # 13 MB at 1,280 columns, and no prediction needs it
    return FittedHead(estimator, chosen, search_s, fit_s, notes, held_out)


def _pipeline(classifier: Any) -> Any:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("scale", StandardScaler()), ("head", classifier)])


def _calibrated(estimator: Any, cv: list[tuple[Labels, Labels]]) -> Any:
    """One classifier on all images, its sigmoid fitted on out-of-fold scores (SVC(probability=True) is deprecated)."""
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(estimator, method="sigmoid", ensemble=False, cv=cv)


def _held_out(estimator: Any, rows: Rows, labels: Labels, cv: list[tuple[Labels, Labels]]) -> npt.NDArray[np.float64]:
    from sklearn.base import clone
    from sklearn.calibration import CalibratedClassifierCV

    found = np.zeros((len(rows), len(np.unique(labels))))
    plain = estimator.estimator if isinstance(estimator, CalibratedClassifierCV) else estimator
    for learn_at, held_at in cv:
        fold = clone(plain)
        if plain is not estimator:
            fold = CalibratedClassifierCV(fold, method="sigmoid", ensemble=False, cv=2)
        found[held_at] = fold.fit(rows[learn_at], labels[learn_at]).predict_proba(rows[held_at])
    return found


def _criterion(labels: Labels) -> str:
    """Balanced accuracy where the largest class is more than 1.5 times the smallest, else accuracy."""
    counts = np.unique_counts(labels).counts
    return "balanced_accuracy" if counts.max() > 1.5 * counts.min() else "accuracy"


def _fitting(parameter: str, values: tuple[Any, ...], n_images: int) -> list[Any]:
    if parameter != "n_neighbors":
        return list(values)
    return [k for k in values if k <= n_images] or [1]


def predict_probabilities(pipeline: Any, rows: Rows) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes); rows sum to 1.

    A head without any (an uncalibrated SVM or ridge, when a class had one image) answers 1 for its choice.

    Raises
    ------
    ModelError
        The head was fitted on rows of another width.
    """
    width = getattr(pipeline, "n_features_in_", rows.shape[1])
    if width != rows.shape[1]:
        raise ModelError(
            f"The head was fitted on {width} columns, received {rows.shape[1]}: another layer or backbone."
        )
    with _threads_for(rows), _quiet():
        if hasattr(pipeline, "predict_proba"):
            return np.asarray(pipeline.predict_proba(rows), dtype=np.float64)
        predicted = np.asarray(pipeline.predict(rows))
    n_classes = len(pipeline.classes_)
    return np.eye(n_classes)[np.searchsorted(pipeline.classes_, predicted)]


@contextmanager
def _threads_for(rows: Rows) -> Iterator[None]:
    """Limit BLAS to one thread on small problems: at 2,000 rows the same fit is 2 to 4 times faster."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1 if rows.size <= _SMALL_PROBLEM else None):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings that the user cannot act on: no convergence at the far end of the grid, constant columns."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message=".*ill-conditioned.*")
        warnings.filterwarnings("ignore", message=".*Variables are collinear.*")
        warnings.filterwarnings("ignore", message="Only one sample available.*")  # a class of one: said in the notes
        yield


# --- save and load ------------------------------------------------------------------------------------------

#: Types beyond skops' own list that heads of the table are made of; nothing in them runs a caller's code.
_TRUSTED = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
)


FORMATS = ("skops", "joblib")


def check_format(file_format: str) -> None:
    """Raise `UsageError` unless heads can be saved as `file_format`."""
    if file_format not in FORMATS:
        raise UsageError(f"No format '{file_format}'. {nearest(file_format, FORMATS, of='formats')}")


def save_head(pipeline: Any, folder: Path, *, file_format: str = "skops") -> Path:
    """Write the fitted head as ``head.skops`` or ``head.joblib`` into `folder` and return the file."""
    check_format(file_format)
    if file_format == "joblib":
        import joblib

        path = folder / "head.joblib"
        joblib.dump(pipeline, path, compress=3)
        return path
    import skops.io

    path = folder / "head.skops"
    skops.io.dump(pipeline, path)
    return path


def load_head(folder: Path, *, is_trusted: bool = False) -> Any:
    """Load a head from its folder; a ``head.skops`` of a stranger runs no code of theirs.

    Parameters
    ----------
    folder : Path
    is_trusted : bool, default=False
        Also load ``head.joblib``, which can run any code that its maker put in.

    Raises
    ------
    ModelError
        No head there, damaged, types outside the trusted list, or a joblib file without trust.
    """
    skops_file, joblib_file = folder / "head.skops", folder / "head.joblib"
    if skops_file.exists():
        import skops.io

        try:
            untrusted = sorted(set(skops.io.get_untrusted_types(file=skops_file)) - set(_TRUSTED))
            if untrusted:
                raise ModelError(
                    f"{skops_file} holds types that no head of tlfeat has: {', '.join(untrusted)}. It was not "
                    f"loaded and none of its code ran."
                )
            return skops.io.load(skops_file, trusted=list(_TRUSTED))
        except ModelError:
            raise
        except Exception as error:  # a damaged archive fails anywhere: zipfile, json, numpy, skops
            raise ModelError(f"{skops_file} is damaged: {type(error).__name__}: {error}") from error
    if joblib_file.exists():
        if not is_trusted:
            raise ModelError(
                f"{joblib_file} is a pickle and can run code when loaded. If you made it yourself, add --trust."
            )
        import joblib

        try:
            return joblib.load(joblib_file)
        except Exception as error:  # a damaged pickle fails anywhere
            raise ModelError(f"{joblib_file} is damaged: {type(error).__name__}: {error}") from error
    raise ModelError(f"There is no head in {folder}.")
