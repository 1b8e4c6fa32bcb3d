import re

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.errors import InvalidInputError, UnstableSystemError
from lqo_mor.matrix_equations.residuals import lyapunov_residual, stein_residual
from tests.brute import closed, states
from tests.cases import CASES, get, parametrize, select, singles

EPS = np.finfo(float).eps


def real_coordinates(sys):
    """A single system with dense matrices, in the coordinates that Gramians are given in."""
    return lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys


def brute_gramians(sys, horizon):
    dense = real_coordinates(sys)
    A, _, C, M = closed(dense)
    X = states(dense, horizon)
    P = np.einsum("kax,kbx->ab", X, X.conj())
    K = C.conj().T @ C + sum(Mi.conj().T @ P.conj() @ Mi for Mi in M)
    factor = np.linalg.cholesky(K + 1e-300 * np.eye(len(K))) if np.linalg.matrix_rank(K) == len(K) else None
    if factor is None:
        values, vectors = np.linalg.eigh(K)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    dual = lqo.LQOSystem(A.conj().T, factor, np.ones((1, len(K))), dt=dense.dt)
    Y = states(dual, horizon)
    return P, np.einsum("kax,kbx->ab", Y, Y.conj())


@parametrize([case for case in CASES if not case.batch])
@pytest.mark.parametrize("horizon", [1, 2, 11])
def test_finite_gramians_are_sums_over_the_horizon(sys, horizon):
    P, Q = brute_gramians(sys, horizon)
    np.testing.assert_allclose(lqo.controllability_gramian(sys, horizon), P, rtol=0, atol=1e-12 * np.linalg.norm(P))
    np.testing.assert_allclose(lqo.observability_gramian(sys, horizon), Q, rtol=0, atol=1e-12 * np.linalg.norm(Q))


@parametrize([case for case in CASES if not case.batch])
def test_infinite_gramians_solve_their_equations(sys):
    P, Q = lqo.controllability_gramian(sys), lqo.observability_gramian(sys)
    dense = real_coordinates(sys)
    A, B, C, M = closed(dense)
    K = C.conj().T @ C + sum(Mi.conj().T @ P.conj() @ Mi for Mi in M)
    residual = lyapunov_residual if sys.is_continuous else stein_residual
    assert residual(A, A, B @ B.conj().T, P) < 100 * EPS
    assert residual(A.conj().T, A.conj().T, K, Q) < 100 * EPS


@parametrize([case for case in CASES if not case.batch])
@pytest.mark.parametrize("horizon", [None, 5])
def test_gramians_are_hermitian_and_semidefinite(sys, horizon):
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P = gramian(sys, horizon)
        np.testing.assert_allclose(P, P.conj().T, rtol=1e-14, atol=1e-14 * np.abs(P).max())
        assert np.linalg.eigvalsh(P).min() > -1e-14 * len(P) * np.linalg.norm(P)
        assert np.iscomplexobj(P) == (isinstance(sys, lqo.LQOSystem) and not sys.is_real)


@parametrize(select(diagonal=True, batch=False))
@pytest.mark.parametrize("horizon", [None, 6])
def test_diagonal_equals_dense(sys, horizon):
    dense = lqo.to_dense(sys)
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P, wanted = gramian(sys, horizon), gramian(dense, horizon)
        worst = 1e-7 if any(sys is get(f"diagonal {name}") for name in ("pole close to 1", "slow continuous")) else 1e-12
        np.testing.assert_allclose(P, wanted, rtol=0, atol=worst * np.linalg.norm(wanted))


@parametrize([case for case in CASES if not case.batch and not case.hard])
def test_a_long_horizon_tends_to_the_infinite_one(sys):
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P = gramian(sys)
        np.testing.assert_allclose(gramian(sys, 250), P, rtol=0, atol=1e-11 * np.linalg.norm(P))
        np.testing.assert_array_equal(gramian(sys, np.inf), P)
        assert np.linalg.norm(gramian(sys, 1) - P) > 1e-3 * np.linalg.norm(P)


@parametrize(select(batch=True))
@pytest.mark.parametrize("horizon", [None, 9])
def test_a_batch_is_its_members(sys, horizon):
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P = gramian(sys, horizon)
        for index in np.ndindex(sys.batch):
            np.testing.assert_allclose(P[index], gramian(sys[index], horizon), rtol=1e-12, atol=1e-13)
    values = lqo.hankel_singular_values(sys, horizon)
    for index in np.ndindex(sys.batch):
        np.testing.assert_allclose(values[index], lqo.hankel_singular_values(sys[index], horizon), rtol=1e-8)


def test_a_batch_with_different_orders():
    batch = lqo.DiagonalLQOSystem([[0.5, 0.3j], [0.2j, 0.4j]], np.ones((2, 2, 1)), np.ones((2, 1, 2)), dt=1.0)
    P = lqo.controllability_gramian(batch)
    assert P.shape == (2, 4, 4)
    np.testing.assert_allclose(P[0][np.ix_([0, 1, 3], [0, 1, 3])], lqo.controllability_gramian(batch[0]), rtol=1e-13)
    assert not P[0, 2].any()
    values = lqo.hankel_singular_values(batch)
    np.testing.assert_allclose(values[0, :3], lqo.hankel_singular_values(batch[0]))
    assert values[0, 3] == 0


@parametrize([case for case in CASES if not case.batch])
@pytest.mark.parametrize("horizon", [None, 4])
def test_factors(sys, horizon):
    R, S = gramian_factors(sys, norm_of(sys, horizon))
    P, Q = lqo.controllability_gramian(sys, horizon), lqo.observability_gramian(sys, horizon)
    worst = 1e-7 if any(sys is case.sys for case in CASES if "close" in case.name or "slow" in case.name) else 1e-12
    np.testing.assert_allclose(R @ R.conj().T, P, rtol=0, atol=worst * np.linalg.norm(P))
    np.testing.assert_allclose(S @ S.conj().T, Q, rtol=0, atol=worst * np.linalg.norm(Q))
    assert R.shape[1] <= len(P)
    assert S.shape[1] <= len(Q)


@parametrize([case for case in CASES if not case.batch and not case.hard])
@pytest.mark.parametrize("horizon", [None, 4])
def test_hankel_singular_values_are_roots_of_the_spectrum_of_the_product(sys, horizon):
    values = lqo.hankel_singular_values(sys, horizon)
    P, Q = lqo.controllability_gramian(sys, horizon), lqo.observability_gramian(sys, horizon)
    assert values.shape == (sys.order,)
    assert np.all(np.diff(values) <= 0)
    wanted = np.sort(np.sqrt(np.maximum(np.linalg.eigvals(P @ Q).real, 0)))[::-1]
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-6 * wanted[0])  # the product squares the rounding
    large = wanted > 1e-2 * wanted[0]
    np.testing.assert_allclose(values[large], wanted[large], rtol=1e-9)


def test_hankel_singular_values_of_a_known_system():
    # Two decoupled states: σ = b c / (1 − a²).
    sys = lqo.LQOSystem(np.diag([0.6, -0.8]), np.diag([1.0, 2.0]), np.diag([3.0, 1e-7]), dt=1.0)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys), [3 / 0.64, 2e-7 / 0.36], rtol=1e-12)


UNSTABLE = [
    (lqo.LQOSystem([[1.5, 0.0], [0.0, 0.2]], [[1.0], [1.0]], [[1.0, 1.0]], dt=1.0), "spectral radius", "1.5"),
    (lqo.LQOSystem([[1.0]], [[1.0]], [[1.0]], dt=1.0), "spectral radius", "1"),
    (lqo.LQOSystem([[0.25]], [[1.0]], [[1.0]], dt=0), "spectral abscissa", "0.25"),
    (lqo.DiagonalLQOSystem([1.25j], [[1.0]], [[1.0]], dt=1.0), "spectral radius", "1.25"),
    (lqo.DiagonalLQOSystem([2j], [[1.0]], [[1.0]], dt=0), "spectral abscissa", "0"),
]


@pytest.mark.parametrize(("sys", "what", "value"), UNSTABLE)
@pytest.mark.parametrize(
    "function", [lqo.controllability_gramian, lqo.observability_gramian, lqo.hankel_singular_values, lqo.h2_norm]
)
def test_unstable_systems_need_a_finite_horizon(function, sys, what, value):
    with pytest.raises(UnstableSystemError, match=rf"{what} .* is {re.escape(value)}, .* finite horizon"):
        function(sys)
    assert np.all(np.isfinite(function(sys, 3)))


def test_the_unstable_channel_is_named():
    batch = lqo.DiagonalLQOSystem([[[0.5], [0.2]], [[0.1], [-1.75]]], np.ones((2, 2, 1, 1)), np.ones((2, 2, 1, 1)), dt=1.0)
    with pytest.raises(UnstableSystemError, match=r"1\.75 in channel \(1, 1\)"):
        lqo.controllability_gramian(batch)


@pytest.mark.parametrize("horizon", [0, -3, 2.5, np.nan, True, "10", 1j])
@pytest.mark.parametrize(
    "function", [lqo.controllability_gramian, lqo.observability_gramian, lqo.hankel_singular_values, lqo.h2_norm]
)
def test_wrong_horizons(function, horizon):
    for name in ("dense discrete siso linear", "diagonal discrete batch siso linear"):
        with pytest.raises(InvalidInputError, match="horizon must be a positive integer number of samples"):
            function(get(name), horizon)


@pytest.mark.parametrize("thing", [None, np.eye(2), "system", lqo.LQOSystem])
def test_what_is_no_system(thing):
    with pytest.raises(InvalidInputError, match="expected an LQOSystem or a DiagonalLQOSystem, got"):
        lqo.controllability_gramian(thing)


@parametrize(select(batch=True))
def test_members_are_what_singles_yields(sys):
    assert len(singles(sys)) == np.prod(sys.batch)
