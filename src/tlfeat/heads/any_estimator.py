"""Any classifier with scikit-learn's methods as a head: a class of an installed package, as ``package.module:Class``.

It gets standardised rows in float32, the folds of every other head, and its own parameters.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from tlfeat.errors import DataError, TlfeatError, UsageError, nearest
from tlfeat.heads.columns import columns_by_fold
from tlfeat.heads.family import (
    SMALLEST_SHARE,
    Fitted,
    HeldOut,
    Problem,
    Setting,
    Values,
    class_scores,
    held_out_from_scores,
    of_all_classes,
)
from tlfeat.heads.pipelines import steps_of
from tlfeat.types import Floats, Rows

#: What stands between the module and the class in a name.
SEPARATOR = ":"


def short_name(name: str) -> str:
    """Return the class of a head that is named by it; other names stay."""
    return name.rpartition(SEPARATOR)[2]


def is_dotted(name: str) -> bool:
    """Return whether a head is named by its class."""
    return SEPARATOR in name


@dataclass(frozen=True, slots=True)
class AnyEstimator:
    """A classifier of any package; fitted anew for every value on every fold.

    Attributes
    ----------
    name : str
    fixed : mapping of parameter to value
        The same in every fit.
    combinations : sequence of mappings
        What the search compares.
    """

    name: str
    fixed: Values = field(default_factory=dict)
    combinations: Sequence[Values] = ({},)
    row_choices: tuple[str, ...] = ("standardised",)
    max_rows: int = 10_000
    coarse_rows: int = 1_000
    weighs_classes: bool = False

    def make(self, values: Values, seed: int = 0) -> Any:
        """Return the unfitted classifier."""
        made = class_of(self.name)
        given = {**self.fixed, **values}
        if "random_state" in _parameters_of(made):
            given.setdefault("random_state", seed)
        try:
            return made(**given)
        except Exception as error:  # the class is anybody's
            raise UsageError(f"{self.name} cannot be made: {_in_a_line(error)}") from error

    def grid(self, n_learned: int) -> Sequence[Values]:
        return self.combinations

    def coarse(self, grid: Sequence[Values]) -> Sequence[Values]:
        return grid[:1]

    def explore(self, problem: Problem, setting: Setting, values: Sequence[Values], criterion_weights: Rows) -> HeldOut:
        view = setting.view(problem)
        columns, _ = columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
        scores = np.full((len(values), len(problem.labels), problem.n_classes), np.nan)
        rows = view[slice(0, len(problem.labels))]
        for fold in range(problem.n_folds):
            held, learned = np.flatnonzero(problem.fold_of == fold), np.flatnonzero(problem.fold_of != fold)
            known, asked = columns[fold].scaled(rows[learned]), columns[fold].scaled(rows[held])
            for i, value in enumerate(values):
                with self._said_in_a_line():
                    classifier = self.make(value, problem.seed).fit(known, problem.labels[learned])
                    found = scores_of(classifier, asked)
                scores[i, held] = of_all_classes(found, classifier.classes_.astype(np.int64), problem.n_classes)
                problem.on_fit()
        return held_out_from_scores(problem, values, lambda i: scores[i], criterion_weights)

    def fit(self, problem: Problem, setting: Setting, start: Any = None) -> Fitted:
        view = setting.view(problem)
        _, columns = columns_by_fold(view, problem.fold_of, problem.n_folds, setting.scaling)
        rows = columns.all_scaled(view)
        with self._said_in_a_line() as said:
            classifier = self.make(setting.values, problem.seed).fit(rows, problem.labels)
        notes = [f"{self.name}: {text}" for text in dict.fromkeys(said)]
        return Fitted(steps_of(setting, problem, columns), classifier, {**self.fixed, **setting.values}, notes)

    @contextmanager
    def _said_in_a_line(self) -> Iterator[list[str]]:
        """Collect warnings, use every core, and make one line of whatever fails."""
        from joblib import cpu_count
        from threadpoolctl import threadpool_limits

        said: list[str] = []
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=cpu_count()):
            warnings.simplefilter("always")
            try:
                yield said
            except (TlfeatError, MemoryError):
                raise
            except Exception as error:  # the class is anybody's
                raise DataError(f"{self.name} could not be fitted: {_in_a_line(error)}") from error
        said += [_in_a_line(warning.message) for warning in caught]


def scores_of(classifier: Any, rows: Rows) -> Floats:
    """Return one score a class, (n_images, n_classes): decision values, or the logarithms of probabilities."""
    if hasattr(classifier, "decision_function"):
        found = np.asarray(classifier.decision_function(rows), dtype=np.float64)
        return class_scores(found[:, None] if found.ndim == 1 else found)
    logs: Floats = np.log(np.asarray(classifier.predict_proba(rows), dtype=np.float64) + SMALLEST_SHARE)
    return logs


def class_of(name: str) -> Any:
    """Import the class that ``package.module:Class`` names.

    Raises
    ------
    UsageError
        The package is not installed, or has no such class.
    """
    module_name, _, class_name = name.partition(SEPARATOR)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if not f"{module_name}.".startswith(f"{missing}."):
            raise UsageError(f"{module_name} cannot be imported: it needs {missing}.") from error
        install = "" if "." in missing else f" If it is a package that is not installed: pip install {missing}"
        raise UsageError(f"There is no module {missing} for --model {name}.{install}") from error
    except Exception as error:  # whatever its import runs
        raise UsageError(f"{module_name} cannot be imported: {_in_a_line(error)}") from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and _can_be_a_head(value)]
        likely = f" {nearest(class_name, classes, of='classes')}" if classes else ""
        raise UsageError(f"{module_name} has no class '{class_name}'.{likely}")
    return found


def _in_a_line(error: object) -> str:
    """Return the kind of an error or warning and the first line of its text."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}"


def _parameters_of(made: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(made).parameters)


def _can_be_a_head(made: Any) -> bool:
    return hasattr(made, "fit") and (hasattr(made, "predict_proba") or hasattr(made, "decision_function"))


def any_estimator(
    name: str, fixed: Values | None = None, grid: Mapping[str, Sequence[Any]] | None = None
) -> AnyEstimator:
    """Return the family of a class, its parameters checked against the signature of the class.

    Parameters
    ----------
    name : str
        ``package.module:Class``.
    fixed : mapping of parameter to value, optional
    grid : mapping of parameter to values, optional
        Every combination is compared.

    Raises
    ------
    UsageError
        No such class, a parameter that it does not have, or no classifier.
    """
    made, fixed, grid = class_of(name), dict(fixed or {}), dict(grid or {})
    known = _parameters_of(made)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    for parameter in (*fixed, *grid):
        if parameter not in known and not takes_any:
            likely = nearest(parameter, list(known), of="parameters")
            raise UsageError(f"{name} has no parameter '{parameter}'. {likely}")
    if twice := sorted(set(fixed) & set(grid)):
        raise UsageError(f"{twice[0]} is given by --param and by --grid: name it once.")
    if empty := [parameter for parameter, values in grid.items() if not values]:
        raise UsageError(f"--grid {empty[0]} names no value.")
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    family = AnyEstimator(name, fixed, combinations)
    classifier = family.make(combinations[0])
    if not _can_be_a_head(classifier):
        raise UsageError(
            f"{name} is no classifier that tlfeat can take: it needs fit, and predict_proba or decision_function."
        )
    return family
