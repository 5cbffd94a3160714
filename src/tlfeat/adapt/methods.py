"""One literal table of the methods that are tried, and how each is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.adapt.domain_maps import Coral, DomainMap, DomainStandardiser, LinearTransport, SubspaceAlignment
from tlfeat.adapt.priors import bias_corrected, em_priors, with_offsets
from tlfeat.adapt.task import Stacked, Task
from tlfeat.errors import UsageError, nearest
from tlfeat.evaluate.split import Split
from tlfeat.heads.fit import Fit, fit_head, predict_probabilities, refit
from tlfeat.heads.table import Head, find_head
from tlfeat.records import SplitInfo
from tlfeat.types import Floats, Labels, OnProgress, Probabilities, Rows, RowSource, silent

#: Below this `evenness` of what "share" names, "equal" is not taken: it would force classes upon images of others.
EVEN = 0.94

#: Rounds of self-training: in round r the surest r quarters take part.
N_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Method:
    """One way to adapt.

    Attributes
    ----------
    name : str
    map : callable, optional
        Makes the `DomainMap`; None leaves rows as they are.
    quota : str
        How images of the target join the training: "" not at all, "equal" as many of each class, "share" the same share
        of what each class is predicted to have.
    has_priors : bool
        Whether probabilities are corrected for the target's mix of classes.
    is_choosable : bool
        Whether circular validation may choose it. What matches covariances may not: wrong names come back right.
    what : str
        In a few words.
    source : str
    n_labelled : int
        Labelled images of the target a class that it trains on; 0 of all that adapts.
    """

    name: str
    map: Callable[[], DomainMap] | None = None
    quota: str = ""
    has_priors: bool = False
    is_choosable: bool = True
    what: str = ""
    source: str = ""
    n_labelled: int = 0


_CBST = "class-balanced self-training: Zou, Yu, Kumar and Wang 2018, ECCV"

METHODS: tuple[Method, ...] = (
    Method("none", what="the head of the sources as it is"),
    Method("standardise", DomainStandardiser, what="each domain by its own means and deviations", source="Li 2016"),
    Method(
        "coral",
        Coral,
        is_choosable=False,
        what="and the sources get the target's covariance",
        source="Sun, Feng and Saenko 2016",
    ),
    Method(
        "linear-ot",
        LinearTransport,
        is_choosable=False,
        what="the same by optimal transport",
        source="Flamary, Lounici and Ferrari 2019",
    ),
    Method(
        "subspace",
        SubspaceAlignment,
        is_choosable=False,
        what="principal components turned to those of the target",
        source="Fernando et al. 2013",
    ),
    Method(
        "prior", has_priors=True, what="corrected for the target's mix of classes by EM", source="Saerens et al. 2002"
    ),
    Method("self", quota="equal", what="trained on its own surest answers, as many of each class", source=_CBST),
    Method(
        "standardise+self",
        DomainStandardiser,
        "equal",
        what="on standardised rows trained on its own surest answers, as many of each class",
        source=_CBST,
    ),
    Method(
        "standardise+self-share",
        DomainStandardiser,
        "share",
        what="the same, with the same share of what is named as each class",
        source=_CBST,
    ),
)


def find_methods(names: str) -> list[Method]:
    """Return the methods of a comma-separated list, in the order of the table; "all" takes all.

    `none` is always among them: it is what the others are compared with.
    """
    known = {method.name: method for method in METHODS}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name != "all" and name not in known:
            raise UsageError(f"No method '{name}'. {nearest(name, list(known), of='methods')}")
    if not asked:
        raise UsageError(f"--methods wants names such as all, or {', '.join(known)}.")
    return [method for method in METHODS if method.name in ("none", *asked) or "all" in asked]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A fitted method.

    Attributes
    ----------
    method : Method
    head : sklearn.pipeline.Pipeline
        Takes rows of the target's layer as they are.
    fit : Fit
        Of the head on the mapped rows of the source; its parameters serve all later fits.
    certainty : array of shape (n_adapt,)
        Probability of the class named for each image of the target, by the head that had not trained on them.
    priors : array of shape (n_classes,), optional
        The target's estimated mix of classes.
    named : array of shape (n_classes,)
        The share of each class among the names that the head gives to the target's images.
    domain_map : DomainMap, optional
    mapped_head : sklearn.pipeline.Pipeline
        Takes mapped rows, of any of the domains.
    """

    method: Method
    head: Any
    fit: Fit
    certainty: Floats
    priors: Floats | None
    named: Floats
    domain_map: DomainMap | None
    mapped_head: Any

    def probabilities(self, task: Task, rows: RowSource, domains: npt.NDArray[np.str_]) -> Probabilities:
        """Return probabilities of all classes of the task for rows of any of its domains.

        Parameters
        ----------
        task : Task
        rows : RowSource of shape (n_images, width)
        domains : array of str, shape (n_images,)
        """
        mapped = rows if self.domain_map is None else self.domain_map.mapped(task.mapped_by_row(rows), domains)
        return probabilities_of(self.mapped_head, mapped, task.classes)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """What the methods of one map share: the mapped rows of both sides, and the head of the source on them."""

    domain_map: DomainMap | None
    source: RowSource
    target: RowSource
    fit: Fit
    head: Any


class Fitter:
    """Fits the methods of one task; what several of them share is fitted once.

    Attributes
    ----------
    fits : dict of map to Fit
        The heads of the source, whose rows and parameters are taken wherever a head is fitted again.
    """

    def __init__(self, task: Task, head: str | Head = "logreg", fits: dict[Any, Fit] | None = None) -> None:
        """With the `fits` of another task of the same rows nothing is searched."""
        self.task, self.head = task, find_head(head) if isinstance(head, str) else head
        self.fits: dict[Any, Fit] = dict(fits or {})
        self._mapped: dict[Any, _Mapped] = {}

    def fit(self, method: Method, on_progress: OnProgress = silent) -> Adapted:
        """Fit a method.

        Raises
        ------
        DataError
            It cannot be fitted on these rows; the reason is one line.
        """
        mapped = self._of_map(method.map, on_progress)
        head, priors = mapped.head, None
        certainty = self._probabilities(head, mapped.target).max(axis=1)
        if method.has_priors:
            head, priors = self._with_priors(mapped)
        if method.quota:
            nothing = np.empty(0, dtype=np.int64)
            known = self._known(mapped, nothing, nothing)
            head = self._self_trained(mapped, method.quota, head, known, np.arange(len(known.new)))
        pipeline = _pipeline(self._steps(mapped.domain_map), head)
        answers = self._probabilities(head, mapped.target).argmax(axis=1)
        named = np.bincount(answers, minlength=len(self.task.classes)) / len(answers)
        return Adapted(method, pipeline, mapped.fit, certainty, priors, named, mapped.domain_map, head)

    def _of_map(self, make: Callable[[], DomainMap] | None, on_progress: OnProgress) -> _Mapped:
        if make in self._mapped:
            return self._mapped[make]
        task, domain_map = self.task, make() if make else None
        source, target = task.source, task.target
        if domain_map is not None:
            source, target = task.mapped_by_row(source), task.mapped_by_row(target)
            domain_map.fit(Stacked(source, target), domains=task.all_domains, target=task.target_name)
            source, target = domain_map.mapped(source, task.domains), domain_map.mapped(target)
        if make in self.fits:
            fit = self.fits[make]
            head = refit(self.head, source, *_present(task.labels, task.classes), fit, seed=task.seed)
        else:
            at = np.arange(len(task.labels))
            entry = self._entry(is_mapped=domain_map is not None)
            fit = fit_head(entry, source, _as_split(task), at, seed=task.seed, on_progress=on_progress)
            self.fits[make], head = fit, fit.head
        self._mapped[make] = _Mapped(domain_map, source, target, fit, head)
        return self._mapped[make]

    def _entry(self, *, is_mapped: bool) -> Head:
        """The head; rows that were mapped are scaled already, and only their common deviation is looked at."""
        family = self.head.quick
        if not is_mapped or "row_choices" not in {field.name for field in fields(family)}:  # type: ignore[arg-type]
            return self.head
        return replace(self.head, quick=replace(family, row_choices=("raw",)), rows="raw")  # type: ignore[type-var]

    def _steps(self, domain_map: DomainMap | None) -> list[tuple[str, Any]]:
        """What is done to rows of the target before the head, as transformers of scikit-learn."""
        if domain_map is None:
            return []
        from sklearn.preprocessing import FunctionTransformer, Normalizer

        root, unit = FunctionTransformer(np.cbrt if self.task.is_signed else np.sqrt), Normalizer()
        for step in (root, unit):
            step.n_features_in_ = self.task.source.shape[1]
        return [("adapt_root", root), ("adapt_unit", unit), *domain_map.target_steps()]

    def _probabilities(self, head: Any, rows: RowSource) -> Probabilities:
        return probabilities_of(head, rows, self.task.classes)

    def _with_priors(self, mapped: _Mapped) -> tuple[Any, Floats]:
        """Return the head with the target's shares of classes in place of the source's, and these shares."""
        labels, head, held_out = self.task.labels, mapped.head, mapped.fit.held_out
        counts = np.bincount(labels, minlength=len(self.task.classes)).astype(np.float64)
        at = [self.task.classes.index(str(name)) for name in head.classes_]
        factor, offsets = 1.0, np.zeros(len(at))
        if held_out is not None and len(held_out) == len(labels):
            held = np.isfinite(held_out[:, 0])
            factor, offsets = bias_corrected(held_out[held], np.searchsorted(at, labels[held]))
        source = counts[at] / counts.sum()
        priors = em_priors(predict_probabilities(with_offsets(head, factor, offsets), mapped.target), source)
        corrected = with_offsets(head, factor, offsets + np.log(np.maximum(priors, 1e-6) / source))
        every = np.zeros(len(self.task.classes))
        every[at] = priors
        return corrected, every

    def source_head(self) -> Any:
        """Return the head of the source as it is."""
        return self._of_map(None, silent).head

    def fit_with_labels(self, method: Method, at: Labels, labels: Labels) -> Any:
        """Fit a method where some of the target's images have labels after all.

        These count as much as all of the source together; where the method trains itself, they stay what they are.

        Parameters
        ----------
        method : Method
        at : int array of shape (n_labelled,)
            Rows of the task's target.
        labels : int array of shape (n_labelled,)

        Returns
        -------
        sklearn.pipeline.Pipeline
        """
        mapped = self._of_map(method.map, silent)
        known = self._known(mapped, at, labels)
        names = _present(known.labels, self.task.classes)
        head = refit(self.head, known.rows, *names, mapped.fit, seed=self.task.seed, image_weights=known.weights)
        if method.quota:
            head = self._self_trained(mapped, method.quota, head, known, np.setdiff1d(np.arange(len(known.new)), at))
        return _pipeline(self._steps(mapped.domain_map), head)

    def _known(self, mapped: _Mapped, at: Labels, labels: Labels) -> _Known:
        """Read the rows of the source and of the target, `at` of which are labelled."""
        n = len(self.task.labels)
        source, new = mapped.source[slice(0, n)], mapped.target[slice(0, mapped.target.shape[0])]
        weights = np.concatenate([np.ones(n), np.full(len(at), n / max(len(at), 1))]).astype(np.float32)
        return _Known(np.concatenate([source, new[at]]), np.concatenate([self.task.labels, labels]), weights, new)

    def _self_trained(self, mapped: _Mapped, quota: str, head: Any, known: _Known, free: Labels) -> Any:
        """Train on what is known and on the surest answers to the `free` images of the target; each round takes more.

        All of them together count as much as the source.
        """
        task, new = self.task, known.new[free]
        each = np.float32(len(task.labels) / max(len(new), 1))
        for r in range(N_ROUNDS):
            at, named = surest(self._probabilities(head, new), (r + 1) / N_ROUNDS, quota)
            rows = np.concatenate([known.rows, new[at]])
            weights = np.concatenate([known.weights, np.full(len(at), each)])
            labels, names = _present(np.concatenate([known.labels, named]), task.classes)
            head = refit(self.head, rows, labels, names, mapped.fit, seed=task.seed, image_weights=weights)
        return head


@dataclass(frozen=True, slots=True)
class _Known:
    """Mapped rows with a label, what each counts, and all mapped rows of the target."""

    rows: Rows
    labels: Labels
    weights: Rows
    new: Rows


def probabilities_of(head: Any, rows: RowSource, classes: Sequence[str]) -> Probabilities:
    """Return probabilities of all classes, of shape (n_images, n_classes); 0 for those that the head does not know."""
    found = np.zeros((rows.shape[0], len(classes)))
    found[:, [classes.index(str(name)) for name in head.classes_]] = predict_probabilities(head, rows)
    return found


def evenness(shares: Floats) -> float:
    """Return the entropy of shares of classes, over its largest possible value: 1 where all are equal."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum() / np.log(len(shares)))


def surest(probabilities: Probabilities, share: float, quota: str) -> tuple[Labels, Labels]:
    """Return which images take part in self-training, and the classes that they are taken for.

    Parameters
    ----------
    probabilities : array of shape (n_images, n_classes)
    share : float
        Of the images, 0 to 1.
    quota : str
        "equal": of each class at most its part of so many; "share": of each class that share of the images that are
        predicted to be of it.
    """
    named = probabilities.argmax(axis=1)
    n, n_classes = probabilities.shape
    taken = []
    for label in range(n_classes):
        own = np.flatnonzero(named == label)
        own = own[np.argsort(-probabilities[own, label], kind="stable")]
        wanted = share * (n / n_classes if quota == "equal" else len(own))
        taken.append(own[: int(np.ceil(wanted))])
    at = np.sort(np.concatenate(taken)).astype(np.int64)
    return at, named[at].astype(np.int64)


def _pipeline(steps: list[tuple[str, Any]], head: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([*steps, *head.steps])


def _present(labels: Labels, classes: list[str]) -> tuple[Labels, list[str]]:
    """Return labels that count the classes that are there, and their names."""
    present = np.unique(labels)
    return np.searchsorted(present, labels).astype(np.int64), [classes[i] for i in present]


def _as_split(task: Task) -> Split:
    """Return the source as a split of training images, for folds."""
    n = len(task.labels)
    names = [str(i) for i in range(n)]
    info = SplitInfo(digest="", origin="seeded", seed=task.seed, n_train=n, n_val=0, n_test=0)
    return Split(task.classes, names, names, task.labels, task.groups, ["train"] * n, info)
