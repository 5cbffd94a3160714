"""The frozen dataclasses that get saved, to and from JSON.

Every record is a plain dataclass of plain values, so that ``to_json`` needs no schema beside the class and a
file written today is read by name tomorrow: unknown keys are ignored, missing ones take the default.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, NotRequired, Self, TypedDict, get_args, get_type_hints

from tlfeat import notebook
from tlfeat.documents import misfit
from tlfeat.errors import DataError

_RECORDED_MODULES = ("tensorflow", "keras", "sklearn", "numpy", "h5py", "PIL", "skops")

#: The humble baselines, which a backbone has to beat: a head on raw pixels, and one on counts of words.
PIXELS_BASELINE, WORDS_BASELINE = "pixels+logreg", "tfidf+logreg"

#: What their rows are called, in place of a layer.
BASELINE_LAYERS = frozenset({"pixels", "tfidf"})


def is_baseline(candidate: str) -> bool:
    """Whether a candidate is a humble baseline, of which nobody wants to know that it only guesses."""
    return candidate.partition("+")[0] in BASELINE_LAYERS and "+" in candidate


#: Between the layers of a head that takes several; no layer's name holds it.
_SIDE_BY_SIDE = "+"


def side_by_side(layers: Sequence[str]) -> str:
    """Return the name of several layers whose rows stand side by side."""
    return _SIDE_BY_SIDE.join(layers)


def layers_of(text: str) -> list[str]:
    """Return the layers in a name that `side_by_side` made; none for ""."""
    return text.split(_SIDE_BY_SIDE) if text else []


_Interval = tuple[float, float]


_Class = TypedDict(  # a key is a word of Python
    "_Class",
    {
        "class": str,
        "precision": float,
        "recall": float,
        "f1": float,
        "n": int,
        "precision_ci95": NotRequired[_Interval | None],
        "recall_ci95": NotRequired[_Interval | None],
    },
)


class _Bin(TypedDict):
    n: int
    probability: float
    right: float
    right_ci95: _Interval


class _Answered(TypedDict):
    asked: float
    answered: float
    accuracy: float | None


class _Refused(TypedDict):
    n: int
    refused: float


class _LeakedImage(TypedDict):
    test: str
    learned: str
    kind: str
    similarity: float | None


#: What is in fields that are annotated as any JSON, as far as it is read.
_INSIDE: dict[str, Any] = {
    "per_class": list[_Class],
    "table": list[_Bin],
    "coverage": list[_Answered],
    "reference": dict[str, _Refused],
}


@functools.cache
def _expected(cls: Any) -> dict[str, Any]:
    """Return field to the type of its JSON; a nested record is checked when it is built."""
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    found = {field.name: _INSIDE.get(field.name, hints[field.name]) for field in fields}
    return {name: _as_json(kind) for name, kind in found.items()} | (
        {"images": list[_LeakedImage]} if cls is Leaks else {}
    )


def _as_json(kind: Any) -> Any:
    """Return a type with `Any` object for every nested record, and None beside it where the field allows that."""
    if isinstance(kind, type) and not get_args(kind) and issubclass(kind, Record):
        return dict[str, Any]
    records = [one for one in get_args(kind) if isinstance(one, type) and not get_args(one) and issubclass(one, Record)]
    return dict[str, Any] | None if records else kind


def _misfit(cls: type[Record], values: object) -> str:
    if not isinstance(values, Mapping):
        return f"a JSON object is expected, received {type(values).__name__}"
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, kind in _expected(cls).items():  # type: ignore[arg-type]  # a class is hashable
        if name in values:
            if wrong := misfit(values[name], kind, name):
                return wrong
        elif fields[name].default is fields[name].default_factory is dataclasses.MISSING:
            return f"{name} is missing"
    return ""


@dataclass(frozen=True, slots=True)
class Record:
    """A saved value: ``to_dict`` and ``from_dict`` are inverse to each other."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers, ready for ``json.dumps``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the record from what ``to_dict`` gave; unknown keys are ignored.

        Raises
        ------
        DataError
            A value is not of the type that the field has, or a field is missing: somebody else may have written it.
        """
        if wrong := _misfit(cls, values):
            raise DataError(f"{cls.__name__}: {wrong}.")
        nested: dict[str, type[Record]] = {
            "timing": Timing,
            "score": Score,
            "environment": Environment,
            "split": SplitInfo,
            "calibration": Calibration,
            "leaks": Leaks,
            "shift": Shift,
        }
        known = {f.name for f in dataclasses.fields(cls)}
        chosen = {}
        for name, value in values.items():
            if name in known:
                is_nested = name in nested and isinstance(value, Mapping)
                chosen[name] = nested[name].from_dict(value) if is_nested else value
        return cls(**chosen)


@dataclass(frozen=True, slots=True)
class Environment(Record):
    """What a number was measured with; recorded beside it, never part of a fingerprint."""

    tlfeat: str = ""
    python: str = ""
    machine: str = ""
    n_cpus: int = 0
    packages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def current(cls) -> Environment:
        """Describe this process; versions come from package metadata, so nothing heavy is imported."""
        return cls(
            tlfeat=distribution_version("tlfeat"),
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}",
            n_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            packages={name: distribution_version(name) for name in _RECORDED_MODULES},
        )


@functools.cache
def distribution_version(module: str) -> str:
    """Return the installed version of the distribution that provides `module`, or "" where there is none.

    ``metadata.version("tensorflow")`` fails where `tensorflow-cpu` is installed, and `sklearn` and `PIL` are
    not distributions at all, so a failing name goes through the map from modules to distributions.
    """
    known = {"sklearn": "scikit-learn", "PIL": "pillow"}
    try:
        return metadata.version(known.get(module, module))
    except metadata.PackageNotFoundError:
        providers = metadata.packages_distributions().get(module, [])
        return metadata.version(providers[0]) if providers else ""


@dataclass(frozen=True, slots=True)
class Timing(Record):
    """Wall seconds of one candidate; None is "not measured", never "no time"."""

    extract_s: float | None = None  # all images of the cache (or up to the cut), summed over runs
    extract_s_per_image: float | None = None  # decode to append, building the network left out
    decode_s: float | None = None  # Keras, of older versions: all images, once before the first epoch
    leaks_s: float | None = None  # looking for leaks; next to nothing for all but the first of several candidates
    search_s: float | None = None  # choosing hyper-parameters by cross-validation
    fit_s: float | None = None  # the final fit (for Keras: all epochs, validation and decoding included)
    reject_s: float | None = None  # statistics and thresholds for `predict --reject`
    predict_s_per_image: float | None = None  # rows (heads) or pixels (Keras) to probabilities


@dataclass(frozen=True, slots=True)
class SplitInfo(Record):
    """Which images were used for what; `digest` is equal exactly if every image has the same role and group."""

    digest: str
    origin: str  # "given" by folders or a table, or "seeded"
    seed: int
    n_train: int
    n_val: int
    n_test: int
    test_fraction: float | None = None
    test_split: str | None = None  # as asked for; None takes "test", else "val"

    def identity(self) -> dict[str, Any]:
        """Return what names of files are made from: what an earlier version did not have changes none of its names."""
        values = self.to_dict()
        if self.test_split is None:
            del values["test_split"]
        return values


@dataclass(frozen=True, slots=True)
class Calibration(Record):
    """How well the probability of the named class agrees with how often it is right; see ``calibration``."""

    ece: float  # expected calibration error: a share, 0 to 1
    ece_expected: float  # what probabilities that are exactly right would get on as many images, on average
    ece_upper: float  # and in 95 of 100 cases at most
    brier: float  # sum over classes, 0 to 2
    log_loss: float  # nats
    table: list[dict[str, Any]]  # a bin: n, mean probability, share that is right, its 95 % interval


@dataclass(frozen=True, slots=True)
class Score(Record):
    """Scores on the test images that are no leaks, each computed in ``evaluate`` and nowhere else."""

    accuracy: float
    ci95: tuple[float, float]  # 95 % interval of the accuracy, groups allowed for
    balanced_accuracy: float
    macro_f1: float
    confusion: list[list[int]]  # rows: true class, columns: predicted class
    per_class: list[dict[str, Any]] = field(default_factory=list)
    balanced_accuracy_ci95: tuple[float, float] | None = None  # None here and below: written by an older version
    macro_f1_ci95: tuple[float, float] | None = None
    calibration: Calibration | None = None

    @property
    def n_images(self) -> int:
        """How many test images were scored."""
        return sum(map(sum, self.confusion))


@dataclass(frozen=True, slots=True)
class Leaks(Record):
    """Test images that show a picture of the training images: what the score leaves out.

    Where every test image is one, all are scored: `n_test` is 0.
    """

    images: list[dict[str, Any]]  # each: test (path), learned (path), kind, similarity
    n_test: int  # the other test images
    accuracy: float | None  # on those, as in the score; None where there are none
    ci95: tuple[float, float] | None
    accuracy_with: float | None = None  # on all test images; None: of an older version, whose score was that
    ci95_with: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)  # what was not looked for


@dataclass(frozen=True, slots=True)
class Shift(Record):
    """Held-out training images against test images of a given split; see ``heads.shift``."""

    auc: float  # how well a head tells test from training rows: 0.5 not at all, 1 always
    held_out: float  # accuracy on training images, each by a head that had not seen it
    difference: float  # held-out less test accuracy
    difference_ci95: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Result(Record):
    """One candidate, fitted and tested: everything that ``compare`` and ``report`` need."""

    candidate: str  # "svm", "pixels+logreg", "keras-frozen", ...
    kind: str  # "head" or "keras"
    backbone: str
    layer: str  # of a head, see `side_by_side`; "" for Keras
    settings: dict[str, Any]  # what was asked for; its digest decides whether a Result is reused
    chosen: dict[str, Any]  # what the search or the early stopping chose
    fingerprint: dict[str, Any]
    classes: list[str]
    split: SplitInfo
    score: Score
    timing: Timing
    environment: Environment
    model_bytes: int  # what `predict` loads on top of the backbone (heads) or altogether (Keras)
    test_keys: list[str]  # content key of each test image, in the order of the lists below
    test_paths: list[str]
    true: list[int]
    predicted: list[int]
    certainty: list[float]  # probability of the predicted class
    held_out_accuracy: float | None = None  # of training images, each by a head that had not seen it
    coverage: list[dict[str, Any]] = field(default_factory=list)  # see ``reject.Coverage``; empty without a rejector
    reference: dict[str, Any] = field(default_factory=dict)  # kind of reference images: n, share refused; may be empty
    history: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    leaks: Leaks | None = None  # None: not looked for, as in results of older versions
    shift: Shift | None = None  # of a head on a given split, where images could be held out
    model: str = ""  # folder of the saved model, relative to the working folder where it lies below it
    by_domain: list[dict[str, Any]] = field(default_factory=list)  # domain, n, accuracy, ci95; empty without domains
    format_version: int = 1

    def __repr__(self) -> str:
        return notebook.result_text(self)

    def _repr_html_(self) -> str:
        return notebook.result_html(self)

    def frame(self) -> Any:
        """Return a pandas DataFrame of one line a test image, leaks included: path, true, predicted, probability."""
        return notebook.result_frame(self)

    def plot(self, ax: Any = None) -> Any:
        """Draw the confusion matrix with matplotlib, on `ax` where one is given; return the axes."""
        return notebook.plot_confusion(self, ax)


def record(result: Result) -> dict[str, Any]:
    """Return what scripts want of one Result, flat."""
    return {
        "model": result.candidate,
        "kind": result.kind,
        "backbone": result.backbone,
        "layer": result.layer,
        "accuracy": result.score.accuracy,
        "ci95": list(result.score.ci95),
        "balanced_accuracy": result.score.balanced_accuracy,
        "macro_f1": result.score.macro_f1,
        "balanced_accuracy_ci95": _list(result.score.balanced_accuracy_ci95),
        "macro_f1_ci95": _list(result.score.macro_f1_ci95),
        "per_class": result.score.per_class,
        "calibration": result.score.calibration and result.score.calibration.to_dict(),
        "n_train": result.split.n_train,
        "n_val": result.split.n_val,
        "n_test": result.split.n_test,
        "n_scored": result.score.n_images,
        "coverage": result.coverage,
        "reference": result.reference,
        "extract_s": result.timing.extract_s,
        "decode_s": result.timing.decode_s,
        "leaks_s": result.timing.leaks_s,
        "search_s": result.timing.search_s,
        "fit_s": result.timing.fit_s,
        "reject_s": result.timing.reject_s,
        "predict_s_per_image": result.timing.predict_s_per_image,
        "model_bytes": result.model_bytes,
        "chosen": result.chosen,
        "classes": result.classes,
        "confusion": result.score.confusion,
        "split": result.split.digest,
        "seed": result.split.seed,
        "path": result.model,
        "notes": result.notes,
        "n_leaks": len(result.leaks.images) if result.leaks else 0,
        "accuracy_with_leaks": result.leaks.accuracy_with if result.leaks else None,
        "leaks": result.leaks.to_dict() if result.leaks else {},
        "shift": result.shift and result.shift.to_dict(),
        "by_domain": result.by_domain,
    }


def _list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
