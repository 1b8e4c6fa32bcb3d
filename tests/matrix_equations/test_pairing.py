import numpy as np
import pytest

from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations import pairing_kernels
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.pairing import pairing, real_form, solve_diagonal
from lqo_mor.matrix_equations.residuals import lyapunov_residual, stein_residual
from lqo_mor.matrix_equations.stein import solve_stein
from tests.brute import complex_derivative
from tests.cases import normal, poles

HORIZONS = [(False, None), (False, 1), (False, 2), (False, 37), (True, None), (True, 0.4), (True, 6.0)]
NORMS = pytest.mark.parametrize(("continuous", "horizon"), HORIZONS)


@NORMS
def test_kernel_agrees_with_its_numpy_twin(rng, continuous, horizon):
    norm = pairing(continuous, horizon)
    lam, mu = poles(rng, (3,), 3, 2, continuous), poles(rng, (3,), 2, 1, continuous)
    got = norm.outer_with_derivative(lam, mu)
    wanted = pairing_kernels._outer_numpy(norm.code, norm.parameters, lam, mu)
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == (3, 5, 3)
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(norm.outer(lam, mu), got[0])


def test_serial_and_parallel_kernels_are_the_same(rng):
    lam, mu = poles(rng, (4,), 3, 1, False), poles(rng, (4,), 2, 1, False)
    results = []
    for kernel in (pairing_kernels._outer_batch, pairing_kernels._outer_batch_parallel):
        out = np.empty((2, 4, 4, 3), complex)
        kernel(pairing_kernels.DISCRETE_FINITE, np.array([9.0]), lam, mu, out[0], out[1])
        results.append(out)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("horizon", [1, 2, 5, 30])
def test_discrete_pairing_is_the_sum_of_powers(rng, horizon):
    lam, mu = np.array([0.9, 0.5 + 0.6j, 0.0, 1.0, 1.02]), np.array([1.0, -0.7j, 0.0, -1.0])
    k = np.arange(horizon)
    wanted = np.sum((lam[:, np.newaxis, np.newaxis] ** k) * (mu[:, np.newaxis] ** k), axis=-1)
    np.testing.assert_allclose(pairing(False, horizon).outer(lam, mu), wanted, rtol=1e-13, atol=1e-13)


def test_continuous_pairing_is_the_integral(rng):
    lam, mu, T = np.array([-0.5, 1j, 0.0, 0.2]), np.array([0.5, -1j, -2 + 3j]), 2.0
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, w = T * (nodes + 1) / 2, T * weights / 2
    wanted = np.sum(w * np.exp((lam[:, np.newaxis] + mu)[..., np.newaxis] * t), axis=-1)
    np.testing.assert_allclose(pairing(True, T).outer(lam, mu), wanted, rtol=1e-12)


@NORMS
def test_derivative_is_the_slope(rng, continuous, horizon):
    norm = pairing(continuous, horizon)
    lam, mu = poles(rng, (), 2, 1, continuous), poles(rng, (), 2, 0, continuous)
    _, slope = norm.outer_with_derivative(lam, mu)
    for i in range(lam.size):
        for j in range(mu.size):

            def part(z, turn, i=i):
                return (turn * norm.outer(lam[i : i + 1], z)[0, 0]).real

            # An analytic g has ∂ Re g/∂Re + i ∂ Re g/∂Im = conj(g').
            at = mu[j : j + 1]
            np.testing.assert_allclose(complex_derivative(lambda z: part(z, 1.0), at, 1e-4), slope[i, j].conj(), 1e-8, 1e-10)
            np.testing.assert_allclose(
                complex_derivative(lambda z: part(z, -1j), at, 1e-4), (-1j * slope[i, j]).conj(), 1e-8, 1e-10
            )


@NORMS
def test_elementwise_solution_equals_the_dense_one(rng, continuous, horizon):
    lam, mu = poles(rng, (), 3, 1, continuous), poles(rng, (), 2, 2, continuous)
    B, B_r = normal(rng, (4, 2), True), normal(rng, (4, 2), True)
    X = solve_diagonal(pairing(continuous, horizon), lam, B, mu, B_r)
    A, A_r, Q = np.diag(lam), np.diag(mu.conj()), B @ B_r.T
    wanted = (solve_lyapunov if continuous else solve_stein)(A, A_r, Q, horizon)
    np.testing.assert_allclose(X, wanted, rtol=1e-11, atol=1e-13)
    if horizon is None:
        assert (lyapunov_residual if continuous else stein_residual)(A, A_r, Q, X) < 1e-15


def test_batches_broadcast(rng):
    norm = pairing(False)
    lam, mu = poles(rng, (2, 3), 2, 0, False), poles(rng, (3,), 1, 1, False)
    g = norm.outer(lam, mu)
    assert g.shape == (2, 3, 2, 2)
    np.testing.assert_allclose(g[1, 2], norm.outer(lam[1, 2], mu[2]), rtol=1e-15)


def test_large_batches_take_the_parallel_path_to_the_same_result(rng, monkeypatch):
    lam = poles(rng, (3,), 2, 1, False)
    serial = pairing(False, 8).outer(lam, lam)
    monkeypatch.setattr("lqo_mor.matrix_equations.pairing._WORTH_THREADS", 1)
    np.testing.assert_array_equal(pairing(False, 8).outer(lam, lam), serial)


@NORMS
def test_features(rng, continuous, horizon):
    lam = poles(rng, (2,), 2, 1, continuous)
    norm, features = pairing(continuous, horizon), np.empty(lam.size, complex)
    pairing_kernels._features(norm.code, np.array(norm.parameters), lam.ravel(), features, np.empty_like(features))
    wanted = 0 * lam if horizon is None else np.exp(lam * horizon) if continuous else lam**horizon
    np.testing.assert_allclose(features.reshape(lam.shape), wanted, rtol=1e-12)


def test_inputs_are_not_modified(rng):
    lam, B = poles(rng, (), 3, 0, False), normal(rng, (3, 2), True)
    copies = lam.copy(), B.copy()
    solve_diagonal(pairing(False, 12), lam, B, lam, B)
    np.testing.assert_array_equal(lam, copies[0])
    np.testing.assert_array_equal(B, copies[1])


@pytest.mark.parametrize("horizon", [0, -1, 2.5, np.nan, -np.inf, "1", True, [3], 1j])
def test_wrong_discrete_horizons_raise(horizon):
    with pytest.raises(InvalidInputError, match=r"positive integer number of samples, or None .*; got"):
        pairing(False, horizon)


@pytest.mark.parametrize("horizon", [0, -0.5, np.nan, "1", False])
def test_wrong_continuous_horizons_raise(horizon):
    with pytest.raises(InvalidInputError, match="positive number of seconds"):
        pairing(True, horizon)


@pytest.mark.parametrize("horizon", [3, 3.0, np.int64(3), np.float64(3.0)])
def test_integers_in_any_dress_are_horizons(horizon):
    assert pairing(False, horizon).parameters == (3.0,)


@pytest.mark.parametrize("continuous", [False, True])
def test_infinity_is_the_infinite_horizon(continuous):
    assert pairing(continuous, np.inf) == pairing(continuous) == pairing(continuous, None)


def test_real_form_is_the_covariance_of_real_coordinates(rng):
    real_left, real_right = np.array([True, False, False, True]), np.array([False, True, False])
    x, y = normal(rng, (4, 50), True), normal(rng, (3, 50), True)
    x[real_left], y[real_right] = x[real_left].real, y[real_right].real

    def coordinates(z, real):
        return np.concatenate([np.where(real, 1, np.sqrt(2))[:, np.newaxis] * z.real, np.sqrt(2) * z.imag[~real]])

    wanted = coordinates(x, real_left) @ coordinates(y, real_right).T
    np.testing.assert_allclose(real_form(x @ y.T, x @ y.conj().T, real_left, real_right), wanted, rtol=1e-12, atol=1e-12)


def test_real_form_of_a_mixed_batch_pads_with_zeros(rng):
    real = np.array([[True, False], [False, False]])
    x = normal(rng, (2, 2, 5), True)
    x[0, 0] = x[0, 0].real
    P = real_form(x @ np.swapaxes(x, 1, 2), x @ np.swapaxes(x, 1, 2).conj(), real, real)
    assert P.shape == (2, 4, 4)
    assert not P[0, 2].any()
    assert not P[0, :, 2].any()
    single = real_form(x[0] @ x[0].T, x[0] @ x[0].T.conj(), real[0], real[0])
    np.testing.assert_allclose(P[0][np.ix_([0, 1, 3], [0, 1, 3])], single, rtol=1e-14)
