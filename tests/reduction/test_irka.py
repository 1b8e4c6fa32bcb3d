"""LQO-IRKA: the fixed points of the two-sided iteration by shifted solves, and where it does not apply."""

import json
import warnings

import numpy as np
import pytest
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.stein import solve_stein
from lqo_mor.reduction.result import Status
from lqo_mor.reduction.two_sided import iteration
from lqo_mor.reduction.two_sided.full_system import full_system
from lqo_mor.reduction.two_sided.irka import _schur_solver, _shifted_solver
from tests.cases import dense, diagonal, get, parametrize, select
from tests.reduction.test_every_method import REAL, accuracy_warnings_allowed, check, smallest
from tests.reduction.test_references import load
from tests.reduction.two_sided_checks import as_dense, interpolation_defect, relative_gradient

SINGLE = select(real=True, batch=False, hard=False)
LINEAR = [case for case in SINGLE if case.linear and "siso linear" not in case.name]


def half(sys) -> int:
    return max(1, smallest(sys) // 2)


@parametrize(REAL[::3])
def test_results_are_stable_and_no_worse_than_the_start(sys):
    with accuracy_warnings_allowed(sys):
        red = lqo.irka(sys, half(sys))
        start = lqo.balanced_truncation(sys, half(sys))
    check(red, sys, half(sys), None)
    assert np.all(red.error <= start.error)


@parametrize(SINGLE[::3])
def test_the_fixed_points_are_those_of_the_two_sided_iteration(sys):
    a, b = lqo.irka(sys, half(sys)), lqo.tsia(sys, half(sys))
    assert a.status is b.status is Status.CONVERGED
    assert a.error == pytest.approx(b.error, rel=1e-8)
    A, B = (np.linalg.eigvals(as_dense(red.system).A) for red in (a, b))
    assert iteration.pole_change(A, B, sys.is_continuous) < 1e-5


@parametrize(LINEAR)
def test_a_converged_result_interpolates_at_the_mirror_images_of_its_poles(sys):
    red = lqo.irka(sys, half(sys), tolerance=1e-10)
    assert interpolation_defect(sys, red.system) < 1e-6
    assert interpolation_defect(sys, lqo.balanced_truncation(sys, half(sys)).system) > 1e-6  # which the start fails


@pytest.mark.parametrize("name", ["dense discrete mimo quadratic", "diagonal continuous mimo factored"])
def test_a_converged_result_satisfies_the_first_order_conditions(name):
    sys = get(name)
    red = lqo.irka(sys, 2, start="modal")
    assert red.status is Status.CONVERGED
    assert relative_gradient(sys, red.system) < 1e-6


@pytest.mark.parametrize("name", ["dense {} mimo quadratic", "diagonal {} mimo factored"])
@pytest.mark.parametrize("time", ["discrete", "continuous"])
def test_one_step_projects_on_the_shifted_solves(name, time):
    """The formulas of the docstring, with complex matrices and one linear system per pole."""
    sys = get(name.format(time))
    start = as_dense(diagonal(35, pairs=1, reals=1, m=sys.n_inputs, continuous=sys.is_continuous))
    full = full_system(sys, norm_of(sys), None, _shifted_solver(sys, norm_of(sys)), np.zeros(3))
    now = iteration.evaluate(full, start.A, start.B)
    step = iteration.direction(full, now).step
    d = as_dense(sys)
    M_r = now.M.to_dense() if isinstance(now.M, lqo.QuadraticOutput) else now.M
    mu, T = np.linalg.eig(start.A)
    b, c, m = np.linalg.solve(T, start.B), now.C @ T, T.T @ M_r @ T
    identity = np.eye(d.order)

    def shifted(A, mu):
        return -mu * identity - A if sys.is_continuous else identity - mu * A

    V = np.stack([np.linalg.solve(shifted(d.A, z), d.B @ row) for z, row in zip(mu, b, strict=True)], axis=1)
    right = d.C.T @ c + 2 * np.sum(d.M @ V @ m, axis=0)
    W = np.stack([np.linalg.solve(shifted(d.A.T, z), column) for z, column in zip(mu, right.T, strict=True)], axis=1)
    wanted = scipy.linalg.eigvals(W.T @ d.A @ V, W.T @ V)
    found = np.linalg.eigvals(start.A + step[:, :3])
    assert iteration.pole_change(found, wanted, sys.is_continuous) < 1e-8


@pytest.mark.parametrize("continuous", [False, True])
def test_shifted_solves_give_the_cross_gramians(continuous):
    sys = get("dense non-normal continuous" if continuous else "dense non-normal")
    rng, solve = np.random.default_rng(2), solve_lyapunov if continuous else solve_stein
    Q, small = rng.standard_normal((5, 3)), dense(7, n=3, continuous=continuous).A
    poles, T = np.linalg.eig(small)
    for adjoint in (False, True):
        wanted = solve(sys.A.T, small.T, Q) if adjoint else solve(sys.A, small, Q)
        for found in (_schur_solver(sys)(Q, poles, T, adjoint), _shifted_solver(sys, norm_of(sys))(Q, small, adjoint)):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_modes_that_cost_digits_are_corrected():
    """Nearly defective: the eigenvectors of the reduced matrix have condition 1e7, the solution keeps its digits."""
    sys = dense(8, n=12)
    small = np.array([[0.5, 1.0], [1e-14, 0.5]])
    assert np.linalg.cond(np.linalg.eig(small)[1]) > 1e6
    Q = np.random.default_rng(3).standard_normal((12, 2))
    wanted = solve_stein(sys.A, small, Q)
    np.testing.assert_allclose(_shifted_solver(sys, norm_of(sys))(Q, small), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("order", [30])
def test_the_best_published_error_is_reached(order, lqo_data):
    best = json.loads((lqo_data / "reference.json").read_text())["advdiff200"]["best"][str(order)]["rel_err"]
    assert lqo.irka(load(lqo_data, "advdiff200"), order).relative_error <= (1 + 1e-6) * best


def test_finite_horizons_are_refused():
    for name in ("diagonal discrete siso linear", "dense continuous mimo quadratic"):
        with pytest.raises(InvalidInputError, match="irka is for the infinite horizon; tsia takes a finite one, here 7"):
            lqo.irka(get(name), 2, horizon=7)
        assert lqo.irka(get(name), 2, horizon=np.inf).horizon is None


def test_a_start_that_is_not_diagonalisable_is_refused():
    start = lqo.LQOSystem([[0.5, 1.0], [0.0, 0.5]], [[0.0], [1.0]], [[1.0, 0.0]], dt=1.0)
    with pytest.raises(InvalidInputError, match=r"the start is not diagonalisable .* use method .tsia."):
        lqo.irka(dense(3, n=8), 2, start=start)


def test_a_deficient_start_is_refused():
    twin = lqo.DiagonalLQOSystem([0.5, 0.5, 0.2], np.ones((3, 1)), np.ones((1, 3)), dt=1.0)
    with pytest.raises(InvalidInputError, match="the start is deficient"):
        lqo.irka(get("diagonal discrete siso linear"), 3, start=twin)


def test_a_batch_is_reduced_like_its_members():
    sys = get("diagonal continuous batch mimo factored")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        red = lqo.irka(sys, 4)
    for index in np.ndindex(sys.batch):
        single = lqo.irka(sys[index], 4)
        assert red.error[index] == pytest.approx(single.error, rel=1e-8)
        assert red.iterations[index] == single.iterations
