"""Fitted objects of scikit-learn, made from what the fast search found.

``fit`` of a clone on the same rows finds the same coefficients (tests/heads/test_pipelines.py says how near). Only
`discriminant_analysis` lacks a learned attribute: ``covariance_``, which is as large as the rows and predicts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tlfeat.evaluate.calibration import softmax
from tlfeat.heads.columns import Columns
from tlfeat.heads.distances import squared_distances
from tlfeat.heads.family import Problem, Setting, against_the_rest
from tlfeat.types import Floats, Labels, Rows

#: LinearSVC penalises its intercept, divided by this many deviations of a column; at 100 by next to nothing.
_INTERCEPT_SCALING = 100.0

#: For those who fit a clone: until then it has converged.
_MAX_ITER = 10_000

Step = tuple[str, Any]


def _fitted(estimator: Any, **learned: Any) -> Any:
    for name, value in learned.items():
        setattr(estimator, name, value)
    return estimator


def steps_of(setting: Setting, problem: Problem, columns: Columns) -> list[Step]:
    """Return the transformers that take rows as the setting says, fitted."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

    mapping, n = setting.mapping(problem), len(problem.labels)
    width = {"n_features_in_": setting.columns[1] - setting.columns[0]}
    steps: list[Step] = []
    if "root" in mapping:
        function = np.cbrt if mapping.startswith("signed") else np.sqrt
        steps.append(("root", _fitted(FunctionTransformer(function, feature_names_out="one-to-one"), **width)))
    if mapping.endswith("l2"):
        steps.append(("unit", _fitted(Normalizer(), **width)))
    if columns.rotation is not None and columns.variances is not None:
        n_components = columns.rotation.shape[1]
        variances = columns.variances * columns.scale[0] ** 2 * n / (n - 1)
        total = float(width["n_features_in_"] * columns.scale[0] ** 2 * n / (n - 1))
        whitener = PCA(n_components, whiten=True, svd_solver="covariance_eigh")
        learned: dict[str, Any] = {
            "components_": (columns.rotation * np.sqrt(columns.variances)).T.astype(np.float32),
            "explained_variance_": variances,
            "explained_variance_ratio_": variances / total,
            "singular_values_": np.sqrt(variances * (n - 1)),
            "mean_": columns.shift,
            "n_components_": n_components,
            "n_samples_": n,
            "noise_variance_": (total - variances.sum()) / max(width["n_features_in_"] - n_components, 1),
        }
        return [*steps, ("whiten", _fitted(whitener, **learned, **width))]
    if setting.scaling == "each":
        moments = {"mean_": columns.shift, "scale_": columns.scale, "var_": columns.scale**2}
        return [*steps, ("standardise", _fitted(StandardScaler(), n_samples_seen_=n, **moments, **width))]
    centring = _fitted(StandardScaler(with_std=False), mean_=columns.shift, scale_=None, var_=None, n_samples_seen_=n)
    return [*steps, ("centre", _fitted(centring, **width))]


def unit_of(setting: Setting, columns: Columns) -> float:
    """Return the deviation of a column after `steps_of` that `Columns` bring to 1."""
    return float(columns.scale[0]) if setting.scaling == "common" else 1.0


def rounded(value: float) -> float:
    """Return a parameter as it is shown: with three digits."""
    return float(f"{value:.3g}")


def _weights_of(setting: Setting) -> str | None:
    return "balanced" if setting.is_balanced else None


def linear_classifier(
    kind: str, value: float, problem: Problem, setting: Setting, coef: Rows, intercept: Floats, unit: float
) -> Any:
    """Return a fitted linear classifier.

    Parameters
    ----------
    kind : str
        The loss, one of `losses.LOSSES`.
    value : float
        C or alpha.
    coef : array of shape (width, n_classes), or (width, 1) for two classes
        For the columns after `steps_of`.
    intercept : array of shape (n_classes,), or (1,)
    unit : float
        See `unit_of`.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.svm import LinearSVC

    weights, seed = _weights_of(setting), problem.seed
    learned = {
        "classes_": problem.classes,
        "coef_": np.ascontiguousarray(coef.T),
        "intercept_": intercept,
        "n_features_in_": len(coef),
    }
    if kind == "logistic":
        estimator = LogisticRegression(C=value, class_weight=weights, tol=1e-6 * unit, max_iter=_MAX_ITER)
        return _fitted(estimator, n_iter_=np.ones(1, np.int32), **learned)
    if kind == "squared hinge":
        machine = LinearSVC(
            C=value,
            class_weight=weights,
            dual=False,
            intercept_scaling=_INTERCEPT_SCALING * unit,
            tol=1e-6,
            max_iter=_MAX_ITER,
            random_state=seed,
        )
        return _fitted(machine, n_iter_=1, **learned)
    from sklearn.preprocessing import LabelBinarizer

    binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(problem.classes)
    if coef.shape[1] == 1:  # scikit-learn gives the one column of two classes as an array of one dimension
        learned["coef_"] = coef[:, 0]
    ridge = RidgeClassifier(alpha=value, class_weight=weights)
    return _fitted(ridge, _label_binarizer=binarizer, n_iter_=None, solver_="cholesky", **learned)


def discriminant_analysis(
    shrinkage: float, problem: Problem, setting: Setting, means: Floats, priors: Floats, coef: Rows, intercept: Floats
) -> Any:
    """Return a fitted ``LinearDiscriminantAnalysis``.

    Parameters
    ----------
    means : array of shape (n_classes, width)
    priors : array of shape (n_classes,)
    coef, intercept : arrays
        As of `linear_classifier`.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    estimator = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=shrinkage, priors=priors if setting.is_balanced else None
    )
    return _fitted(
        estimator,
        classes_=problem.classes,
        priors_=priors,
        means_=means,
        coef_=np.ascontiguousarray(coef.T),
        intercept_=intercept,
        n_features_in_=len(coef),
    )


def support_vector_machine(
    c: float, gamma: float, problem: Problem, setting: Setting, machine: Any, rows: Rows, unit: float
) -> Any:
    """Return a fitted ``SVC(kernel="rbf")`` from one that libsvm fitted on the kernel matrix of the same rows.

    Parameters
    ----------
    machine : SVC
        Whose dual coefficients hold for this one.
    rows : array of shape (n_images, width)
        Of deviation 1, which is `unit` after `steps_of`.
    """
    from sklearn.svm import SVC

    estimator = SVC(C=c, gamma=gamma, class_weight=_weights_of(setting), random_state=problem.seed)
    vectors = rows[machine.support_].astype(np.float64) * unit
    copied = ("support_", "dual_coef_", "intercept_", "_n_support", "_dual_coef_", "_intercept_", "_probA", "_probB")
    return _fitted(
        estimator,
        classes_=problem.classes,
        class_weight_=problem.class_weights if setting.is_balanced else np.ones(problem.n_classes),
        support_vectors_=vectors,
        shape_fit_=rows.shape,
        n_features_in_=rows.shape[1],
        fit_status_=0,
        n_iter_=machine.n_iter_,
        _effective_probability=False,
        _gamma=gamma,
        _num_iter=machine.n_iter_,
        _sparse=False,
        **{name: getattr(machine, name) for name in copied},
    )


def nearest_neighbours(n_neighbors: int, weights: str, rows: Rows, labels: Labels, problem: Problem) -> Any:
    """Return a fitted ``KNeighborsClassifier(metric="cosine")``."""
    from sklearn.neighbors import KNeighborsClassifier

    estimator = KNeighborsClassifier(n_neighbors, weights=weights, metric="cosine", algorithm="brute")
    return estimator.fit(rows, problem.classes[labels])


def calibrated(classifier: Any, temperature: float) -> Any:
    """Return the classifier with probabilities by one temperature, as ``CalibratedClassifierCV`` gives them.

    Scores of one column a class, or the logarithms of shares of votes, are divided by the temperature before the
    softmax: Guo et al. 2017, "On calibration of modern neural networks", ICML, section 4.2. ``ensemble=False`` says how
    it was found: by the scores of held-out images, for one classifier that is fitted on all.
    """
    from sklearn.base import clone
    from sklearn.calibration import CalibratedClassifierCV, _CalibratedClassifier, _TemperatureScaling

    # one score s for two classes becomes -s/2 and s/2 here (`family.class_scores`), and -s and s there
    is_one_score = len(classifier.classes_) == 2 and hasattr(classifier, "decision_function")
    scaling = _fitted(_TemperatureScaling(), beta_=(0.5 if is_one_score else 1.0) / temperature)
    pair = _CalibratedClassifier(classifier, [scaling], classes=classifier.classes_, method="temperature")
    estimator = CalibratedClassifierCV(clone(classifier), method="temperature", cv=5, ensemble=False)
    return _fitted(estimator, classes_=classifier.classes_, calibrated_classifiers_=[pair])


def classifier_of(head: Any) -> tuple[Any, float]:
    """Return the classifier at the end of a fitted pipeline, and the temperature of its probabilities.

    The temperature is for scikit-learn's logits: (-s, s) for one score s.
    """
    last = head.steps[-1][1] if hasattr(head, "steps") else head
    pairs = getattr(last, "calibrated_classifiers_", None)
    if pairs is None:
        return last, 1.0
    return pairs[0].estimator, 1 / float(pairs[0].calibrators[0].beta_)


def probabilities_of(head: Any, x: Rows) -> Floats:
    """Return probabilities (n_images, n_classes), as ``head.predict_proba(x)``.

    libsvm multiplies its support vectors one by one; a matrix product has the same scores in a tenth of the time.
    """
    from sklearn.svm import SVC

    classifier, divisor = classifier_of(head)
    if not isinstance(classifier, SVC) or classifier.kernel != "rbf" or divisor == 1.0:
        with np.errstate(invalid="ignore"):  # scikit-learn says what it cannot take
            return np.asarray(head.predict_proba(x), dtype=np.float64)
    taken = head[:-1].transform(x).astype(np.float64)
    kernel = np.exp(-classifier._gamma * squared_distances(taken, classifier.support_vectors_))
    scores = against_the_rest(kernel @ dual_of_pairs(classifier).T + classifier.intercept_, len(classifier.classes_))
    # `class_scores` halve the one score of two classes
    return softmax(scores, divisor / 2 if scores.shape[1] == 2 else divisor)


def dual_of_pairs(machine: Any) -> Floats:
    """Return the dual coefficients of each pair of classes, (n_pairs, n_support), of a fitted ``SVC``.

    libsvm keeps (n_classes - 1, n_support).
    """
    n_support, k = machine.n_support_, len(machine.classes_)
    ends = np.concatenate([[0], np.cumsum(n_support)])
    rows = []
    for i in range(k):
        for j in range(i + 1, k):
            row = np.zeros(ends[-1])
            row[ends[i] : ends[i + 1]] = machine.dual_coef_[j - 1, ends[i] : ends[i + 1]]
            row[ends[j] : ends[j + 1]] = machine.dual_coef_[i, ends[j] : ends[j + 1]]
            rows.append(row)
    return np.array(rows)


#: No layer has more columns.
_MAX_WIDTH = 1 << 24


def check_pipeline(head: Any) -> None:
    """Raise ValueError unless a head from a stranger's file is a classifier whose parts fit together.

    It answers for a row of zeros. Before, the arrays that libsvm would read without a look at their sizes are checked.
    """
    width = head.n_features_in_
    if not 0 < width <= _MAX_WIDTH:
        raise ValueError(f"a head of {width} columns")
    for machine in _machines_in(head):
        n, k = len(machine.support_vectors_), len(machine.classes_)
        n_pairs = k * (k - 1) // 2
        shapes = {
            "support_": (n,),
            "support_vectors_": (n, machine.n_features_in_),
            "_n_support": (k,),
            "_dual_coef_": (k - 1, n),
            "dual_coef_": (k - 1, n),
            "_intercept_": (n_pairs,),
            "intercept_": (n_pairs,),
        }
        wrong = [name for name, shape in shapes.items() if getattr(machine, name).shape != shape]
        counts = machine._n_support
        if wrong or counts.min() < 0 or counts.sum() != n or {machine._probA.size, machine._probB.size} != {0}:
            raise ValueError(f"a support vector machine of other sizes: {', '.join(wrong) or 'counts'}")
    found = head.predict_proba(np.zeros((1, width), np.float32))
    if found.shape != (1, len(head.classes_)) or not np.isfinite(found).all():
        raise ValueError("its probabilities are none")


def _machines_in(part: Any) -> Iterator[Any]:
    """Find what libsvm computes, inside pipelines and calibrated classifiers."""
    from sklearn.svm._base import BaseLibSVM

    if isinstance(part, BaseLibSVM):
        yield part
    elif hasattr(part, "calibrated_classifiers_"):  # its own estimator is not fitted
        for pair in part.calibrated_classifiers_:
            yield from _machines_in(pair.estimator)
    else:
        inner = [part.estimator] if hasattr(part, "estimator") else []
        for one in inner + [step for _, step in getattr(part, "steps", [])]:
            yield from _machines_in(one)
