"""L-BFGS: minimise a smooth function of coefficients and intercepts.

Nocedal and Wright 2006, "Numerical Optimization": algorithm 7.5 with the two-loop recursion of algorithm 7.4; steps
meet the condition of sufficient decrease (3.6a). `Lbfgs` is a state machine that asks for f and its gradient at one
point a round, so that many minimisations share one pass over the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tlfeat.types import Floats, Rows

#: Pairs (s, y) that are kept: m of algorithm 7.5.
_MEMORY = 10

#: c1 of (3.6a).
_SUFFICIENT_DECREASE = 1e-4

#: float32 sums are right to about 1e-7 of f: a rise by less than this share of f is none.
_ROUNDING = 1e-6

#: A step is shortened to a tenth at most, and to a half at least.
_SHORTEST, _LONGEST = 0.1, 0.5

#: Below this step, and below this s'y, there is nothing but rounding.
_SMALLEST_STEP, _SMALLEST_CURVATURE = 1e-4, 1e-12


@dataclass(frozen=True, slots=True)
class Vector:
    """A point, a direction or a gradient.

    Attributes
    ----------
    coef : float32 array of shape (width, k)
    intercept : float64 array of shape (k,)
    """

    coef: Rows
    intercept: Floats

    def plus(self, factor: float, other: Vector) -> Vector:
        """Return ``self + factor * other``."""
        return Vector(self.coef + np.float32(factor) * other.coef, self.intercept + factor * other.intercept)

    def dot(self, other: Vector) -> float:
        """Return the inner product."""
        return float(np.vdot(self.coef, other.coef)) + float(self.intercept @ other.intercept)


@dataclass(frozen=True, slots=True)
class Effort:
    """How far a function is minimised.

    Attributes
    ----------
    tolerance : float
        Until the quadratic model promises less than this share of f (or of 0.01).
    max_evaluations : int
        Then the best point so far is taken.
    """

    tolerance: float
    max_evaluations: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """What one step told about the curvature.

    Attributes
    ----------
    s, y : Vector
        The step, and the change of the gradient.
    sy : float
        Their inner product s'y, which is 1 / rho.
    """

    s: Vector
    y: Vector
    sy: float


#: Multiplies with the inverse of a first guess of the Hessian, H0 of algorithm 7.4.
InverseHessian = Callable[[Vector], Vector]


@dataclass(slots=True)
class Lbfgs:
    """One minimisation on its way.

    Attributes
    ----------
    x : Vector
        The best point so far.
    f : float
    gradient : Vector
    direction : Vector or None
        The search direction p; None before the first evaluation at `x`.
    slope : float
        The derivative of f along `direction`.
    step : float
        The step length alpha.
    pairs : list of _Pair
        The last `_MEMORY` pairs, the latest at the end.
    n_evaluations : int
    """

    x: Vector
    f: float = np.inf
    gradient: Vector = field(default_factory=lambda: Vector(np.empty(0, np.float32), np.empty(0)))
    direction: Vector | None = None
    slope: float = 0.0
    step: float = 1.0
    pairs: list[_Pair] = field(default_factory=list)
    n_evaluations: int = 0

    def trial(self) -> Vector:
        """Return the point at which f and its gradient are wanted next."""
        return self.x if self.direction is None else self.x.plus(self.step, self.direction)

    def evaluated(self, trial: Vector, f: float, gradient: Vector) -> bool:
        """Move to the trial point if f decreased enough (3.6a), else shorten the step; whether it moved."""
        self.n_evaluations += 1
        if self.direction is not None:
            if not f <= self.f + _SUFFICIENT_DECREASE * self.step * self.slope + _ROUNDING * abs(self.f):
                self._shorten_step(f)
                return False
            s, y = trial.plus(-1, self.x), gradient.plus(-1, self.gradient)
            if (sy := s.dot(y)) > _SMALLEST_CURVATURE:
                self.pairs = [*self.pairs[1 - _MEMORY :], _Pair(s, y, sy)]
        self.x, self.f, self.gradient, self.direction = trial, f, gradient, None
        return True

    def _shorten_step(self, f: float) -> None:
        """Take the minimum of the parabola through f, the slope here and f at the trial point (3.58)."""
        rise = f - self.f - self.slope * self.step
        lowest = -self.slope * self.step**2 / (2 * rise) if np.isfinite(rise) else 0.0
        self.step = min(max(lowest, _SHORTEST * self.step), _LONGEST * self.step)

    def is_solved(self, inverse_hessian: InverseHessian, effort: Effort) -> bool:
        """Choose the next direction; True if no step along it is worth an evaluation."""
        if self.direction is not None:  # the step was too long and is shorter now
            return self.step < _SMALLEST_STEP or self.n_evaluations >= effort.max_evaluations
        self._choose_direction(inverse_hessian)
        if self.slope >= 0 and self.pairs:  # not a descent direction: forget the curvature
            self.pairs = []
            self._choose_direction(inverse_hessian)
        self.step = 1.0
        promised = -0.5 * self.slope  # by the quadratic model
        return promised <= effort.tolerance * max(self.f, 0.01) or self.n_evaluations >= effort.max_evaluations

    def _choose_direction(self, inverse_hessian: InverseHessian) -> None:
        r = self._two_loop(inverse_hessian)
        self.direction = Vector(-r.coef, -r.intercept)
        self.slope = self.direction.dot(self.gradient)

    def _two_loop(self, inverse_hessian: InverseHessian) -> Vector:
        """Return the inverse Hessian times the gradient, by algorithm 7.4."""
        q = self.gradient
        alphas = []
        for pair in reversed(self.pairs):
            alpha = pair.s.dot(q) / pair.sy
            q = q.plus(-alpha, pair.y)
            alphas.append(alpha)
        r = inverse_hessian(q)
        if self.pairs:
            y, sy = self.pairs[-1].y, self.pairs[-1].sy
            gamma = sy / y.dot(inverse_hessian(y))  # (7.20), with H0 for the identity
            r = Vector(r.coef * np.float32(gamma), r.intercept * gamma)
        for pair, alpha in zip(self.pairs, reversed(alphas), strict=True):
            beta = pair.y.dot(r) / pair.sy
            r = r.plus(alpha - beta, pair.s)
        return r

    def add_penalty(self, penalty: float) -> None:
        """Add ``penalty / 2 * |coef|^2`` to f; its value, gradient and curvature follow without an evaluation."""
        self.f += 0.5 * penalty * float(np.vdot(self.x.coef, self.x.coef))
        self.gradient = _with_coef(self.gradient, penalty, self.x)
        pairs = [
            _Pair(p.s, _with_coef(p.y, penalty, p.s), p.sy + penalty * float(np.vdot(p.s.coef, p.s.coef)))
            for p in self.pairs
        ]
        self.pairs = [pair for pair in pairs if pair.sy > _SMALLEST_CURVATURE]
        self.direction, self.n_evaluations = None, 0


def _with_coef(a: Vector, factor: float, b: Vector) -> Vector:
    """Add the coefficients of b, not its intercepts: these are not penalised."""
    return Vector(a.coef + np.float32(factor) * b.coef, a.intercept)
