"""The solver alone, on functions whose minimum is known."""

from __future__ import annotations

import numpy as np
import pytest

from tlfeat.heads.lbfgs import Effort, Lbfgs, Vector
from tlfeat.types import Floats

WIDTH = 12


def quadratic(seed: int = 0, scale: float = 1.0) -> tuple[Floats, Floats]:
    """Return A, of condition 100, and b: half x'Ax less b'x is lowest where Ax = b. The last entry is the intercept."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(0, 1, (WIDTH + 1, WIDTH + 1)))[0]
    return scale * (turn * np.logspace(-1, 1, WIDTH + 1)) @ turn.T, rng.normal(0, 1, WIDTH + 1)


def flat(v: Vector) -> Floats:
    return np.concatenate([v.coef[:, 0].astype(np.float64), v.intercept])


def vector(x: Floats) -> Vector:
    return Vector(x[:-1, None].astype(np.float32), x[-1:])


def solve(solver: Lbfgs, a: Floats, b: Floats, effort: Effort) -> int:
    """Minimise and return the number of evaluations."""
    while True:
        trial = solver.trial()
        x = flat(trial)
        solver.evaluated(trial, float(0.5 * x @ a @ x - b @ x + 5), vector(a @ x - b))
        if solver.is_solved(lambda v: v, effort):
            return solver.n_evaluations


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["first steps fit", "first steps too long"])
def test_the_minimum_of_a_quadratic_is_found_in_few_evaluations(scale: float) -> None:
    a, b = quadratic(scale=scale)
    solver = Lbfgs(vector(np.full(WIDTH + 1, 0.5)))
    n_evaluations = solve(solver, a, b, Effort(1e-8, 500))
    np.testing.assert_allclose(flat(solver.x), np.linalg.solve(a, b), atol=0.02 / scale)
    assert n_evaluations < 60


def test_after_a_penalty_is_added_the_solver_goes_on_to_the_minimum_with_it() -> None:
    a, b = quadratic()
    solver = Lbfgs(vector(np.zeros(WIDTH + 1)))
    solve(solver, a, b, Effort(1e-8, 500))
    damped = a + 0.7 * np.diag([1.0] * WIDTH + [0.0])  # the intercept is not penalised
    x = flat(solver.x)
    solver.add_penalty(0.7)
    assert solver.f == pytest.approx(0.5 * x @ damped @ x - b @ x + 5, abs=1e-5)
    np.testing.assert_allclose(flat(solver.gradient), damped @ x - b, atol=1e-4)
    for pair in solver.pairs:
        np.testing.assert_allclose(flat(pair.y), damped @ flat(pair.s), atol=1e-4)
        assert pair.sy == pytest.approx(pair.s.dot(pair.y), rel=1e-3)
    solve(solver, damped, b, Effort(1e-8, 500))
    np.testing.assert_allclose(flat(solver.x), np.linalg.solve(damped, b), atol=0.02)


def test_it_stops_at_the_best_point_when_evaluations_run_out() -> None:
    a, b = quadratic(scale=30)
    solver = Lbfgs(vector(np.ones(WIDTH + 1)))
    assert solve(solver, a, b, Effort(0, 9)) == 9
    x = flat(solver.x)
    assert solver.f == pytest.approx(0.5 * x @ a @ x - b @ x + 5, rel=1e-5)
    assert solver.f < 0.5 * np.ones(WIDTH + 1) @ a @ np.ones(WIDTH + 1) - b.sum() + 5
