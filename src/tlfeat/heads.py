"""One literal table of heads; fit, search, save and load them. No TensorFlow anywhere here.

A head takes the rows in the way, and with the parameters, that images held out speak for (``search``); test images
choose nothing. How each kind of head is fitted stands in ``linear_heads``, ``neighbour_heads`` and ``kernel_heads``.

Tree ensembles are left out on purpose: on pooled embeddings of cats and dogs a random forest of 300 trees took 31 s,
search included, where logistic regression took 0.6 s for the same accuracy (96.8 %, one run), and its compiled trees
cannot be loaded safely from a stranger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.blocks import blocks_of, in_threads, steady_threads
from tlfeat.errors import DataError, ModelError, UsageError, nearest
from tlfeat.evaluate.calibration import best_temperature, softmax
from tlfeat.evaluate.split import Split, folds
from tlfeat.kernel_heads import Kernel
from tlfeat.linear import MAX_COVARIANCE
from tlfeat.linear_heads import Discriminant, Penalised
from tlfeat.neighbour_heads import Neighbours
from tlfeat.search import Family, Found, Problem, Setting, Values, hold_out, search
from tlfeat.types import Floats, Labels, RowSource

N_FOLDS = 5

#: 45 values from 1e-6 to 1e5, as in the evaluation of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, appendix B).
C_PATH = tuple(float(f"{c:.3g}") for c in np.logspace(-6, 5, 45))


@dataclass(frozen=True, slots=True)
class Head:
    """One entry of the table.

    Attributes
    ----------
    name : str
        As in ``--model``.
    family : Family
        How it is explored and fitted.
    rows : str
        How the rows are taken where no search is possible: one of `search.ROW_CHOICES`.
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
    """

    name: str
    family: Family
    rows: str
    default: Values
    when: str
    source: str
    n_copies: float = 0.0
    max_width: int = 1_000_000


HEADS: tuple[Head, ...] = (
    Head(
        "logreg",
        Penalised("logistic", "C", C_PATH),
        "standardised",
        {"C": 0.01},
        "the first to try: calibrated probabilities, seconds for 50,000 images",
        "linear probe: Alain and Bengio 2016, arXiv:1610.01644",
    ),
    Head(
        "svm",
        Kernel((1.0, 10.0, 100.0), (0.25, 1.0, 4.0)),
        "standardised",
        {"C": 10.0, "gamma": 1.0},
        "a few thousand images with curved class borders; slow beyond 20,000",
        "Cortes and Vapnik 1995; RBF kernel",
        n_copies=6,  # libsvm's float64 rows, its own copy of them, support vectors
    ),
    Head(
        "linear-svm",
        Penalised("squared hinge", "C", C_PATH[:36]),
        "standardised",
        {"C": 0.001},
        "as fast as logreg; looks only at images near the border",
        "Cortes and Vapnik 1995; squared hinge, each class against the rest",
    ),
    Head(
        "knn",
        Neighbours((1, 5, 10, 20, 100, 200), (0.07, 0.02, 0.2)),
        "raw",
        {"k": 10, "T": 0.07},
        "nothing to fit; shows which known pictures a new one resembles",
        "weighted cosine k-NN: Wu et al. 2018, arXiv:1805.01978, section 3.4",
        n_copies=5,  # the rows of length 1, and the neighbours of all of them during the search
    ),
    Head(
        "ridge",
        Penalised("squared", "alpha", tuple(float(f"{a:.3g}") for a in np.logspace(7, -1, 33))),
        "standardised",
        {"alpha": 1000.0},
        "least squares: the fastest to fit on many images",
        "Rifkin, Yeo and Poggio 2003, regularised least-squares classification",
    ),
    Head(
        "lda",
        Discriminant((0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)),
        "standardised",
        {"shrinkage": 0.1},
        "few images a class; one pass over the rows",
        "Fisher 1936; shrinkage as in Friedman 1989",
        max_width=MAX_COVARIANCE,
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
    """A fitted head with what the search chose and how long each part took (wall seconds).

    Attributes
    ----------
    pipeline : search.Head
        Takes rows of the chosen layer or layers; gives scores, probabilities and labels.
    layers : list of str
        The layers whose rows, side by side, it takes.
    columns : (int, int)
        Where they stand in the rows that were given.
    held_out : array of shape (n_images, n_classes), optional
        The probabilities that each image got from a head that had not seen it; NaN for images that were in no fold.
        None where a class has one image only.
    """

    pipeline: Any
    layers: list[str]
    columns: tuple[int, int]
    chosen: dict[str, Any]
    search_s: float
    fit_s: float
    notes: list[str]
    held_out: Floats | None = None


def fit_head(
    name: str,
    rows: RowSource,
    split: Split,
    positions: Labels,
    *,
    layers: Mapping[str, int] | None = None,
    seed: int = 0,
    is_searched: bool = True,
    n_threads: int | None = None,
) -> FittedHead:
    """Choose rows and parameters on images held out, then fit on all given images.

    Parameters
    ----------
    name : str
        A head of the table.
    rows : float32 array, or another RowSource, of shape (n_images, width)
        The rows of ``positions`` only. Not modified and, but for svm and knn, not copied.
    split : Split
    positions : int array of shape (n_images,)
        Training and validation images within the split; groups stay in one fold.
    layers : mapping of str to int, optional
        Layers whose rows stand side by side, with their widths. Each alone and all together are choices of the search.
    seed : int, default=0
    is_searched : bool, default=True
        False takes the table's default rows and parameters.
    n_threads : int, optional
        One a core by default. The result is the same to the last digit.

    Raises
    ------
    DataError
        The rows hold values that are not finite, or more columns than the head can take.
    """
    head = find_head(name)
    n, width = rows.shape
    layers = dict(layers or {"": width})
    if width > head.max_width:
        raise DataError(
            f"{name} takes at most {head.max_width:,} columns (its memory grows with their square), received "
            f"{width:,}. Take ridge or logreg, or a pooled layer."
        )
    labels = split.labels[positions]
    present = np.unique(labels)
    fold_of = np.full(n, -1, dtype=np.int64)
    order = np.argsort(positions)  # whatever order the rows come in, an image is in the same fold
    for fold, (_, held) in enumerate(folds(split, positions[order], n_folds=N_FOLDS, seed=seed)):
        fold_of[order[held]] = fold
    problem = Problem(rows, np.searchsorted(present, labels), len(present), fold_of, seed)
    notes = []
    found: Found | None = None
    with steady_threads(n_threads):
        if not all(in_threads(lambda block: bool(np.isfinite(rows[block]).all()), blocks_of(n))):
            raise DataError("The rows hold NaN or infinity: run tlfeat cache verify.")
        ends = np.cumsum(list(layers.values())).tolist()
        every = [(end - n_columns, end) for end, n_columns in zip(ends, layers.values(), strict=True)]
        if len(every) > 1:
            every.append((0, width))
        setting = Setting(head.rows, every[-1], is_balanced=problem.is_uneven, values=head.default)
        started_s = time.perf_counter()
        if not problem.n_folds:
            notes.append("a class has one training image: no search, no calibration, default parameters")
        elif is_searched:
            found = search(problem, head.family, every)
            setting = found.setting
        else:
            found = hold_out(problem, head.family, setting, [head.default])
        search_s = time.perf_counter() - started_s if found else 0.0
        started_s = time.perf_counter()
        fitted: Any = head.family.fit(problem, setting, found.start if found else None)
        fit_s = time.perf_counter() - started_s
    chosen = {**setting.values, "rows": setting.rows}
    if problem.is_uneven:
        chosen["classes"] = "weighed equally" if setting.is_balanced else "as they are"
    held_out = None
    if found is not None:
        held = np.isfinite(found.scores[:, 0])
        if name != "logreg":  # its loss is the one that calibrates
            fitted.temperature = best_temperature(found.scores[held], problem.labels[held])
        held_out = softmax(found.scores, fitted.temperature)
        chosen["cv_score"] = found.criterion
        if held.sum() < (problem.fold_of >= 0).sum():
            notes.append(f"parameters were chosen on {held.sum():,} of {n:,} images: {name} is slow on more")
    taken = [layer for layer, columns in zip(layers, every, strict=False) if setting.columns in (columns, (0, width))]
    if len(every) > 1:
        chosen["layer"] = "+".join(taken)
    fitted.classes_ = present
    return FittedHead(fitted, taken, setting.columns, chosen, search_s, fit_s, notes, held_out)


def predict_probabilities(pipeline: Any, rows: RowSource) -> Floats:
    """Return probabilities of shape (n_images, n_classes); rows sum to 1.

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
    with steady_threads():
        return np.asarray(pipeline.predict_proba(rows), dtype=np.float64)


# --- save and load ------------------------------------------------------------------------------------------

#: What heads are made of beyond skops' own list; nothing in them runs a caller's code.
_TRUSTED = (
    "tlfeat.linear_heads.LinearHead",
    "tlfeat.neighbour_heads.NeighbourHead",
    "tlfeat.kernel_heads.KernelHead",
    "sklearn.calibration._CalibratedClassifier",  # in pipelines that earlier versions saved
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
            loaded = skops.io.load(skops_file, trusted=list(_TRUSTED))
            if hasattr(loaded, "check"):  # what earlier versions saved are pipelines of scikit-learn
                loaded.check()
            return loaded
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
