"""Low-rank Gramians, norms, errors and reduction of sparse systems against dense computations with SciPy."""

import subprocess
import sys as system

import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.sparse

import lqo_mor as lqo
from lqo_mor.errors import (
    ConvergenceError,
    DimensionError,
    InvalidInputError,
    OrderError,
    SingularEquationError,
    SymmetrisedWarning,
    UnstableSystemError,
)
from lqo_mor.matrix_equations import low_rank
from lqo_mor.systems.examples import heat_equation_2d
from lqo_mor.systems.sparse import SparseLQOSystem
from tests.conftest import SHARED_DATA

pytest.importorskip("pymor")


def dense_forms(sys) -> np.ndarray:
    """The quadratic outputs as dense matrices, (p, n, n)."""
    if isinstance(sys.M, lqo.QuadraticOutput):
        return sys.M.to_dense()
    none = np.zeros((sys.order, sys.order))
    return np.stack([none if sys.M is None or sys.M[i] is None else sys.M[i].toarray() for i in range(sys.n_outputs)])


def dense(sys) -> lqo.LQOSystem:
    """The same system with ``E`` divided out."""
    E = np.eye(sys.order) if sys.E is None else sys.E.toarray()
    return lqo.LQOSystem(
        scipy.linalg.solve(E, sys.A.toarray()), scipy.linalg.solve(E, sys.B), sys.C, sys.D, dense_forms(sys), sys.dt
    )


def gramians_by_scipy(sys):
    """`P` and `Q` of the pencil by SciPy's dense solvers: ``Q`` of ``Aᵀ Q E + Eᵀ Q A + … = 0`` is ``E⁻ᵀ Q' E⁻¹``."""
    E = np.eye(sys.order) if sys.E is None else sys.E.toarray()
    A, B = scipy.linalg.solve(E, sys.A.toarray()), scipy.linalg.solve(E, sys.B)
    P = _lyapunov(A, B @ B.T, sys.is_continuous)
    constant = sys.C.T @ sys.C + sum(Mi @ P @ Mi for Mi in dense_forms(sys))
    plain = _lyapunov(A.T, constant, sys.is_continuous)
    return P, scipy.linalg.solve(E.T, scipy.linalg.solve(E.T, plain).T)


def _lyapunov(A, constant, continuous):
    if continuous:
        return scipy.linalg.solve_continuous_lyapunov(A, -constant)
    return scipy.linalg.solve_discrete_lyapunov(A, constant)


def convection(dt=0.0, factors=False, n=150) -> SparseLQOSystem:
    """Not symmetric, complex poles, a mass matrix, two inputs, three outputs; by implicit Euler if discrete."""
    rng = np.random.default_rng(3)
    A = scipy.sparse.diags_array([1.5, -2.2, 0.6], offsets=[-1, 0, 1], shape=(n, n), format="csc")
    A = A + scipy.sparse.csc_array(([0.7, -0.7], ([0, n - 1], [n - 1, 0])), shape=(n, n))
    E = scipy.sparse.diags_array([0.15, 1.0, 0.1], offsets=[-1, 0, 1], shape=(n, n), format="csc")
    C = np.zeros((3, n))
    C[0, -1] = C[1, n // 2] = 1.0
    if factors:
        U, V = rng.standard_normal((2, 2, n)) / n
        M = lqo.QuadraticOutput(U, V, rng.standard_normal((3, 2)))
    else:
        M = [None, 0.1 * E.T @ E, scipy.sparse.diags_array(np.linspace(-1, 1, n))]
    B = scipy.sparse.csc_array(([1.0, 2.0], ([3, 40], [0, 1])), shape=(n, 2))
    if dt:
        return SparseLQOSystem(E, dt * B, C, np.ones((3, 2)), M, E - dt * A, dt)
    return SparseLQOSystem(A, B, C, M=M, E=E)


SYSTEMS = {
    "heat": lambda: heat_equation_2d(20, inputs=2),
    "convection": convection,
    "factors": lambda: convection(factors=True),
    "discrete": lambda: convection(dt=0.5),
}


@pytest.fixture(scope="module", params=SYSTEMS)
def large(request):
    sys = SYSTEMS[request.param]()
    return sys, dense(sys), lqo.balance(sys, 1e-13, 1e-12)


def test_gramians(large):
    sys, _, balancing = large
    P, Q = gramians_by_scipy(sys)
    Z = balancing.controllability.factor
    S = lqo.observability_gramian(sys, controllability=balancing.controllability, tol=1e-12).factor
    np.testing.assert_allclose(Z @ Z.T, P, rtol=0, atol=1e-11 * np.abs(P).max())
    np.testing.assert_allclose(S @ S.T, Q, rtol=0, atol=1e-11 * np.abs(Q).max())


def test_residuals_are_those_of_the_equations(large):
    sys, _, _ = large
    A, E = sys.A.toarray(), np.eye(sys.order) if sys.E is None else sys.E.toarray()
    for tol in (1e-3, 1e-12):
        found = lqo.controllability_gramian(sys, tol=tol)
        P = found.factor @ found.factor.T
        step = A @ P @ E.T + E @ P @ A.T if sys.is_continuous else A @ P @ A.T - E @ P @ E.T
        scale = np.linalg.norm(sys.B, 2) ** 2
        true = np.linalg.norm(step + sys.B @ sys.B.T, 2) / scale
        assert found.residual == pytest.approx(true, rel=0.2, abs=1e-14 * np.linalg.norm(A, 2) * np.linalg.norm(P, 2) / scale)
        assert true < 2 * tol


def test_hankel_values_and_norm(large):
    sys, full, balancing = large
    P, Q = gramians_by_scipy(sys)
    E = np.eye(sys.order) if sys.E is None else sys.E.toarray()
    wanted = np.sqrt(np.maximum(np.sort(np.linalg.eigvals(P @ E.T @ Q @ E).real)[::-1], 0.0))
    large_ones = wanted > 1e-3 * wanted[0]  # the plain formula is good to the root of the unit roundoff
    np.testing.assert_allclose(balancing.hsv[: large_ones.sum()], wanted[large_ones], rtol=1e-8)
    accurate = lqo.hankel_singular_values(full)[: balancing.hsv.size]
    np.testing.assert_allclose(balancing.hsv, accurate, rtol=0, atol=3e-9 * wanted[0])
    proper = np.trace(sys.C @ P @ sys.C.T) + sum(np.trace(Mi @ P @ Mi @ P) for Mi in dense_forms(sys))
    norm = np.sqrt(proper + np.linalg.norm(sys.D) ** 2)
    assert lqo.h2_norm(sys, controllability=balancing.controllability) == pytest.approx(norm, rel=1e-11)


def test_the_intermediate_system_stands_for_the_large_one(large):
    _, full, balancing = large
    assert balancing.system.order < full.order / 2
    assert balancing.relative_error < 1e-8
    assert lqo.h2_norm(balancing.system) == pytest.approx(lqo.h2_norm(full), rel=1e-10)
    assert lqo.h2_error(full, balancing.system, relative=True) < 1e-8
    diagonal = lqo.controllability_gramian(balancing.system)
    np.testing.assert_allclose(diagonal, np.diag(balancing.hsv[: len(diagonal)]), rtol=0, atol=1e-8 * balancing.hsv[0])


def test_the_error_keeps_its_digits_where_the_difference_of_norms_cancels(large):
    sys, full, balancing = large
    for order, rtol in ((2, 1e-7), (6, 1e-7), (14, 1e-3)):
        red = lqo.reduce(sys, order, method="balanced", balancing=balancing)
        wanted = lqo.h2_error(full, red.system, relative=True)
        assert red.relative_error == pytest.approx(wanted, rel=rtol)
        assert abs(red.relative_error / wanted - 1) < 10.0**-red.digits
        assert lqo.h2_error(sys, red.system, controllability=balancing.controllability) == red.error


def test_the_error_of_a_system_with_foreign_poles(large):
    sys, full, balancing = large
    A = np.array([[-0.01, 50.0], [-50.0, -0.01]]) if sys.is_continuous else 0.99 * np.array([[0.0, 1.0], [-1.0, 0.0]])
    rom = lqo.LQOSystem(A, np.eye(2), np.ones((sys.n_outputs, 2)), sys.D, dt=sys.dt)
    assert lqo.h2_error(sys, rom, controllability=balancing.controllability) == pytest.approx(lqo.h2_error(full, rom), rel=1e-10)


@pytest.mark.parametrize("method", ["balanced", "tsia"])
def test_reduction_agrees_with_the_dense_one(large, method):
    sys, full, balancing = large
    ours, wanted = lqo.reduce(sys, 4, method=method, balancing=balancing), lqo.reduce(full, 4, method=method)
    assert ours.relative_error == pytest.approx(wanted.relative_error, rel=1e-5)
    assert ours.method == method
    assert type(ours) is lqo.Reduction


def test_optimal_is_not_worse_than_balanced():
    sys = heat_equation_2d(10)
    balancing = lqo.balance(sys)
    optimal, balanced = (lqo.reduce(sys, 3, method=method, balancing=balancing) for method in ("optimal", "balanced"))
    assert optimal.error < balanced.error
    assert optimal.error == pytest.approx(lqo.reduce(dense(sys), 3).error, rel=1e-3)


def test_rail():
    path = SHARED_DATA / "slicot" / "rail_1357.mat"
    if not path.is_file():
        pytest.skip("the rail is not there: no folder shared/data/slicot beside the repository")
    A, B, C, E = (scipy.io.loadmat(path)[name] for name in "ABCE")
    sys = SparseLQOSystem(A, B, C, E=E)
    balancing = lqo.balance(sys)
    assert max(balancing.residuals) < 1e-9
    values, modes = scipy.linalg.eigh(A.toarray(), E.toarray())  # both symmetric: Gramians in modal coordinates
    b, c = modes.T @ B.toarray(), C @ modes
    squared = np.sum(c * (c @ (-(b @ b.T) / (values[:, np.newaxis] + values)))).item()
    assert lqo.h2_norm(sys, controllability=balancing.controllability) == pytest.approx(np.sqrt(squared), rel=1e-11)
    red = lqo.reduce(sys, 20, method="balanced", balancing=balancing)
    rom = red.system
    X = -np.linalg.solve(values[:, np.newaxis, np.newaxis] * np.eye(20) + rom.A, (b @ rom.B.T)[:, :, np.newaxis])[:, :, 0]
    difference = squared - 2 * np.sum(c * (rom.C @ X.T)) + lqo.h2_norm(rom) ** 2
    assert red.relative_error == pytest.approx(np.sqrt(difference / squared), rel=1e-9)
    assert red.bound == pytest.approx(2 * balancing.hsv[20:].sum())


def test_heat_equation():
    fine, coarse = heat_equation_2d(60, 50), heat_equation_2d(30, 25)
    assert fine.order == 3000
    assert abs(fine.A - fine.A.T).max() == 0
    modes = np.outer(np.sin(np.pi * np.arange(1, 61) / 61), np.sin(np.pi * np.arange(1, 51) / 51)).ravel()
    np.testing.assert_allclose(fine.A @ modes, -2 * np.pi**2 * modes, rtol=1e-3)  # the slowest mode of the square
    assert fine.C[0] @ modes == pytest.approx(4 / np.pi**2, rel=1e-3)
    assert modes @ (fine.M[1] @ modes) == pytest.approx(0.25, rel=1e-3)
    assert lqo.h2_norm(fine) == pytest.approx(lqo.h2_norm(coarse), rel=0.2)
    with pytest.raises(InvalidInputError, match="no point of the 1 by 1 grid"):
        heat_equation_2d(1)
    with pytest.raises(InvalidInputError, match="inputs must be 1 or 2"):
        heat_equation_2d(20, inputs=3)


def diagonal(values):
    return scipy.sparse.diags_array(np.asarray(values, float), format="csc")


def test_unstable_and_singular_systems_are_refused(monkeypatch):
    poles, B = -np.arange(1.0, 201.0), np.ones((200, 1))
    for bad in (0.5, 0.0):
        with pytest.raises(UnstableSystemError, match="not asymptotically stable"):
            lqo.controllability_gramian(SparseLQOSystem(diagonal([bad, *poles[1:]]), B, B.T))
    with pytest.raises(UnstableSystemError, match="is one"):
        lqo.controllability_gramian(SparseLQOSystem(diagonal([1.01, *1 / poles[1:]]), B, B.T, dt=1.0))
    with pytest.raises(SingularEquationError, match="E is singular"):
        lqo.controllability_gramian(SparseLQOSystem(diagonal(poles), B, B.T, E=diagonal([0.0, *np.ones(199)])))
    with pytest.raises(UnstableSystemError, match="10000"):  # far from the smallest
        lqo.controllability_gramian(SparseLQOSystem(diagonal([1e4, *poles[1:]]), B, B.T))
    monkeypatch.setattr(low_rank, "_LIGHT_STEPS", 200)
    with pytest.raises(ConvergenceError, match=r"did not converge in 200 steps.*to_dense"):
        lqo.controllability_gramian(undamped())


def undamped() -> SparseLQOSystem:
    """Poles next to the imaginary axis: no Gramian of low rank."""
    blocks = [[[-1e-4 * w, w], [-w, -1e-4 * w]] for w in np.linspace(1.0, 100.0, 60)]
    return SparseLQOSystem(scipy.sparse.block_diag(blocks), np.ones((120, 1)), np.ones((1, 120)))


@pytest.mark.parametrize("pole", [70.0, 1e4, 30 + 20j])
@pytest.mark.parametrize("mass", [False, True])
def test_an_unstable_pole_that_the_input_hardly_excites_is_found(pole, mass):
    """Its share of the residual is below the tolerance, so that the iteration converges: the norm would be wrong silently."""
    poles, B = -np.arange(1.0, 201.0), np.ones((200, 1))
    A, B[:2] = diagonal(poles).tolil(), 1e-8
    A[:2, :2] = [[np.real(pole), np.imag(pole)], [-np.imag(pole), np.real(pole)]] if np.imag(pole) else [[pole, 0], [0, -2]]
    E = scipy.sparse.diags_array([1e-3, 4e-3, 1e-3], offsets=[-1, 0, 1], shape=(200, 200)) if mass else None
    A = A if E is None else E @ A.tocsc()
    with pytest.raises(UnstableSystemError, match=f"discrete time, {pole.real:g}[+-]"):
        lqo.controllability_gramian(SparseLQOSystem(A, B if E is None else E @ B, B.T, E=E))


def test_bad_input_is_named():
    A, B = diagonal([-1.0, -2.0, -3.0]), np.ones((3, 1))
    cases = [
        (InvalidInputError, "A must be a sparse array", (-np.eye(3), B, B.T)),
        (InvalidInputError, "A must be real", (1j * A, B, B.T)),
        (InvalidInputError, "A has 1 entries that are not finite", (diagonal([np.nan, -1.0, -1.0]), B, B.T)),
        (DimensionError, "B has shape", (A, np.ones((2, 1)), B.T)),
        (DimensionError, "C is missing", (A, B)),
        (DimensionError, "D has shape", (A, B, B.T, np.ones((2, 1)))),
        (DimensionError, "M has 2 matrices for 1 outputs", (A, B, B.T, None, [None, A])),
        (DimensionError, r"M\[0\] has shape", (A, B, B.T, None, diagonal([1.0]))),
        (DimensionError, "E has shape", (A, B, B.T, None, None, diagonal([1.0]))),
        (InvalidInputError, "M must be a list of sparse arrays", (A, B, B.T, None, np.eye(3))),
        (InvalidInputError, "M must be a list of sparse arrays", (A, B, B.T, None, 3)),
        (InvalidInputError, "dt must be", (A, B, B.T, None, None, None, -1)),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            SparseLQOSystem(*arguments)
    with pytest.warns(SymmetrisedWarning, match=r"M\[0\] is not symmetric"):
        sys = SparseLQOSystem(A, B, M=scipy.sparse.csc_array(np.triu(np.ones((3, 3)))))
    np.testing.assert_array_equal(sys.M[0].toarray(), 0.5 * (np.ones((3, 3)) + np.eye(3)))
    with pytest.raises(InvalidInputError, match="expected a SparseLQOSystem"):
        lqo.balance(dense(sys))
    with pytest.raises(InvalidInputError, match="tol must be"):
        lqo.controllability_gramian(sys, tol=2.0)
    with pytest.raises(InvalidInputError, match="B is zero"):
        lqo.controllability_gramian(SparseLQOSystem(A, 0 * B, B.T))
    with pytest.raises(InvalidInputError, match="C and M are zero"):
        lqo.balance(SparseLQOSystem(A, B, 0 * B.T))
    for method in ("modal", "hippo"):
        with pytest.raises(InvalidInputError, match=rf"method '{method}' goes by the poles.*; use lqo.balance\(sys\).system"):
            lqo.reduce(sys, 1, method=method)
    with pytest.raises(OrderError, match="the order of the intermediate system"):
        lqo.reduce(sys, 3)
    with pytest.raises(DimensionError, match="the Gramian is of a system of order 3"):
        lqo.h2_norm(heat_equation_2d(10), controllability=lqo.controllability_gramian(sys))
    with pytest.raises(InvalidInputError, match="expected a LowRankGramian"):
        lqo.observability_gramian(sys, controllability=np.ones((3, 1)))
    with pytest.raises(InvalidInputError, match="balancing must be a LowRankBalancing"):
        lqo.reduce(sys, 1, balancing=lqo.controllability_gramian(sys))
    with pytest.raises(DimensionError, match="differ in n_outputs"):
        lqo.h2_error(sys, lqo.LQOSystem([[-1.0]], [[1.0]], np.ones((2, 1)), dt=0))


def test_gramians_of_another_system_are_refused():
    sys = heat_equation_2d(12)
    other = SparseLQOSystem(sys.A * 1.001, sys.B, sys.C, M=sys.M)
    balancing = lqo.balance(other)
    for call in (
        lambda: lqo.h2_norm(sys, controllability=balancing.controllability),
        lambda: lqo.h2_error(sys, balancing.system, controllability=balancing.controllability),
        lambda: lqo.observability_gramian(sys, controllability=balancing.controllability),
        lambda: lqo.reduce(sys, 2, balancing=balancing),
    ):
        with pytest.raises(InvalidInputError, match="the Gramian is of another system"):
            call()


def test_indefinite_outputs_stay_symmetric_without_a_warning():
    A = scipy.sparse.diags_array([1.0, -2.5, 1.0], offsets=[-1, 0, 1], shape=(50, 50))
    B, slope = np.ones((50, 1)), scipy.sparse.diags_array(np.linspace(-1, 1, 50))
    M = lqo.balance(SparseLQOSystem(A, B, B.T, M=[slope])).system.M  # warnings of ours are errors in the tests
    np.testing.assert_array_equal(M, M.transpose(0, 2, 1))
    with pytest.raises(InvalidInputError, match="no transfer"):  # odd states are seen, even ones reached: all is rounding
        lqo.balance(SparseLQOSystem(A, B, M=[slope]))


def test_a_feedthrough_makes_continuous_norms_infinite_and_cancels_in_errors():
    A, B = diagonal([-1.0, -2.0, -3.0]), np.ones((3, 1))
    sys, plain = SparseLQOSystem(A, B, B.T, [[1.0]]), SparseLQOSystem(A, B, B.T)
    rom = lqo.LQOSystem([[-1.5]], [[1.0]], [[2.5]], [[1.0]], dt=0)
    assert lqo.h2_norm(sys) == np.inf
    assert lqo.h2_error(plain, rom) == np.inf
    assert lqo.h2_error(sys, rom) == pytest.approx(lqo.h2_error(dense(sys), rom), rel=1e-10)


def test_progress_tells_the_stages():
    seen, sys = [], heat_equation_2d(12)
    lqo.reduce(sys, 3, method="balanced", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_is_printed_or_logged(capfd, monkeypatch):
    monkeypatch.setattr(low_rank, "_LIGHT_STEPS", 200)
    lqo.balance(heat_equation_2d(12), 1e-10)
    with pytest.raises(ConvergenceError):
        lqo.controllability_gramian(undamped())
    assert capfd.readouterr() == ("", "")


def test_without_pymor_the_extra_is_named():
    code = (
        "import sys; sys.modules['pymor'] = None\n"
        "import lqo_mor as lqo\n"
        "try: lqo.h2_norm(lqo.examples.heat_equation_2d(10))\n"
        "except ImportError as err: print(err)"
    )
    done = subprocess.run([system.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install 'lqo-mor[pymor]'" in done.stdout
