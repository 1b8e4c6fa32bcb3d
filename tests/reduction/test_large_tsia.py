"""The stationary points of `reduce` are those of the sparse system, however coarse the intermediate one is."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

import lqo_mor as lqo
from lqo_mor.errors import StabilityWarning
from lqo_mor.reduction import large
from lqo_mor.reduction.result import Status
from lqo_mor.systems.examples import heat_equation_2d
from lqo_mor.systems.sparse import SparseLQOSystem
from tests.reduction.test_large import convection, dense

pytest.importorskip("pymor")

SYSTEMS = {
    "heat": lambda: heat_equation_2d(12, inputs=2),
    "convection": convection,
    "factors": lambda: convection(factors=True),
    "discrete": lambda: convection(dt=0.5),
    "linear": lambda: SparseLQOSystem(convection().A, convection().B, convection().C, np.ones((3, 2)), E=convection().E),
    "purely quadratic": lambda: SparseLQOSystem(convection().A, convection().B, M=convection().M, E=convection().E),
}


def forms(sys):
    if sys.M is None:
        return np.zeros((sys.n_outputs, sys.order, sys.order))
    return sys.M.to_dense() if isinstance(sys.M, lqo.QuadraticOutput) else sys.M


def solved(A, A_r, Q, continuous):
    """``A X + X A_rᵀ + Q = 0`` or ``A X A_rᵀ − X + Q = 0``, by SciPy."""
    if continuous:
        return scipy.linalg.solve_sylvester(A, A_r.T, -Q)
    T, U = scipy.linalg.schur(A_r.T, output="complex")  # A X' T − X' + Q U = 0, column by column
    X, QU = np.zeros(Q.shape, complex), Q @ U
    for k in range(len(T)):
        X[:, k] = np.linalg.solve(np.eye(len(A)) - T[k, k] * A, QU[:, k] + A @ (X[:, :k] @ T[:k, k]))
    return (X @ U.conj().T).real


def relative_gradient(full, rom):
    """The largest gradient of the squared error by `A_r`, `B_r`, `C_r` and `M_r`, relative to the terms it is the difference of.

    The first-order (Wilson) conditions: ``Q_r P_r = Yᵀ X`` (discrete: ``Q_r A_r P_r = Yᵀ A X``), ``Q_r B_r = Yᵀ B``,
    ``C_r P_r = C X`` and ``P_r M_r P_r = Xᵀ M X``.
    """
    where, M, M_r = full.is_continuous, forms(full), forms(rom)
    P, X = solved(rom.A, rom.A, rom.B @ rom.B.T, where), solved(full.A, rom.A, full.B @ rom.B.T, where)
    own = rom.C.T @ rom.C + 2 * np.sum(M_r @ P @ M_r, axis=0)
    Q, Y = (
        solved(rom.A.T, rom.A.T, own, where),
        solved(full.A.T, rom.A.T, full.C.T @ rom.C + 2 * np.sum(M @ X @ M_r, axis=0), where),
    )
    moved, moved_r = (X, P) if where else (full.A @ X, rom.A @ P)
    pairs = [(Q @ moved_r, Y.T @ moved), (Q @ rom.B, Y.T @ full.B), (rom.C @ P, full.C @ X), (P @ M_r @ P, X.T @ M @ X)]
    return max(np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs if np.any(a))


@pytest.fixture(params=SYSTEMS)
def coarse(request, monkeypatch):
    """A large system with an intermediate one of few states, and the reduction that this alone gives."""
    sys = SYSTEMS[request.param]()
    monkeypatch.setattr(large, "_NEGLIGIBLE", 1e-4 if request.param == "heat" else 1e-2)
    return sys, lqo.balance(sys)


def test_a_coarse_intermediate_system_gives_the_stationary_point_of_the_large_one(coarse):
    sys, balancing = coarse
    full, before = dense(sys), lqo.reduce(balancing.system, 4, method="tsia")
    red = lqo.reduce(sys, 4, method="tsia", balancing=balancing)
    assert balancing.relative_error > 1e-5
    assert relative_gradient(full, before.system) > 1e-6
    assert relative_gradient(full, red.system) < 1e-5 * relative_gradient(full, before.system)
    assert red.status is Status.CONVERGED
    assert red.method == "tsia"
    wanted = lqo.reduce(full, 4, method="tsia")
    assert red.error == pytest.approx(wanted.error, rel=1e-7)
    assert red.error == pytest.approx(lqo.h2_error(full, red.system), rel=1e-7)
    assert red.error < lqo.h2_error(full, before.system)
    poles = [np.sort_complex(np.linalg.eigvals(system.A)) for system in (red.system, wanted.system)]
    np.testing.assert_allclose(*poles, rtol=1e-6)


def test_steps_and_history_of_both_systems_are_told(coarse):
    sys, balancing = coarse
    before = lqo.reduce(balancing.system, 4, method="tsia")
    red = lqo.reduce(sys, 4, method="tsia", balancing=balancing)
    assert red.iterations > before.iterations
    assert red.history.shape == (red.iterations + 1,)
    np.testing.assert_array_equal(red.history[: before.iterations + 1], before.history)
    assert red.history[-1] == pytest.approx(red.error**2, rel=1e-12)
    assert red.start_error == before.start_error


@pytest.mark.parametrize("method", ["optimal", "irka"])
def test_other_methods_end_at_a_stationary_point_of_the_large_system(method, monkeypatch):
    monkeypatch.setattr(large, "_NEGLIGIBLE", 1e-4)
    sys = heat_equation_2d(12, inputs=2)
    balancing, full = lqo.balance(sys), dense(sys)
    before = lqo.reduce(balancing.system, 3, method=method)
    red = lqo.reduce(sys, 3, method=method, balancing=balancing)
    assert relative_gradient(full, red.system) < 1e-3 * relative_gradient(full, before.system)
    assert red.method == method


def test_constraints_of_the_optimum_are_kept(monkeypatch):
    sys = heat_equation_2d(12)
    balancing = lqo.balance(sys)
    monkeypatch.setattr(large, "refined", lambda *_: pytest.fail("a step without the constraints"))
    for options in (
        {"ridge": 1e-6},
        {"margin": 1e-3},
        {"method": "balanced"},
        {"method": "projected_gradient", "max_iterations": 5},
    ):
        lqo.reduce(sys, 2, balancing=balancing, **options)


@pytest.fixture
def reduced(monkeypatch):
    """A small large system and its reduction with an error to it, not yet refined."""
    monkeypatch.setattr(large, "_NEGLIGIBLE", 1e-4)
    sys = heat_equation_2d(12, inputs=2)
    balancing = lqo.balance(sys)
    with monkeypatch.context() as context:
        context.setattr(large, "refined", lambda sys, red, *_: red)
        red = lqo.reduce(sys, 3, method="tsia", balancing=balancing)
    return sys, red, balancing.controllability


def test_what_is_not_better_is_not_returned(reduced, monkeypatch):
    sys, red, P = reduced
    better = large.refined(sys, red, P, 50)
    assert better.error < red.error
    measured = large.sparse_error_and_digits
    monkeypatch.setattr(large, "sparse_error_and_digits", lambda *args: (1.01 * red.error, *measured(*args)[1:]))
    kept = large.refined(sys, red, P, 50)
    assert kept.system is red.system
    assert (kept.error, kept.iterations, kept.status) == (red.error, red.iterations, Status.START_KEPT)


def test_a_start_with_a_state_that_is_not_reached_is_kept(reduced):
    sys, red, P = reduced
    A, B = scipy.linalg.block_diag(red.system.A, -1.0), np.pad(red.system.B, ((0, 1), (0, 0)))
    C, M = np.pad(red.system.C, ((0, 0), (0, 1))), np.pad(red.system.M, ((0, 0), (0, 1), (0, 1)))
    deficient = lqo.LQOSystem(A, B, C, red.system.D, M, 0.0)
    kept = large.refined(sys, replace(red, system=deficient), P, 50)
    assert kept.system is deficient
    assert kept.status is Status.START_KEPT


def test_no_step_and_few_steps(reduced):
    sys, red, P = reduced
    none, one, all_of_them = (large.refined(sys, red, P, steps) for steps in (0, 1, 50))
    assert none.status is one.status is Status.MAX_ITERATIONS
    assert none.iterations == red.iterations
    assert one.iterations == red.iterations + 1
    assert red.error >= none.error > one.error >= all_of_them.error  # with no step the outputs are the best for the large system


def test_a_repaired_result_is_told(reduced, monkeypatch):
    sys, red, P = reduced
    run = large.two_sided

    def repaired(*args):
        best, path, status = run(*args)
        return replace(best, repaired=True), path, status

    monkeypatch.setattr(large, "two_sided", repaired)
    with pytest.warns(StabilityWarning, match="the reduced system was unstable"):
        assert large.refined(sys, red, P, 50).repaired
    assert not red.repaired
