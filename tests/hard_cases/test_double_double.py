"""The arithmetic in twice the working precision against mpmath: about 32 digits of every operation."""

import mpmath
import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem
from lqo_mor.matrix_equations import double_double as dd
from lqo_mor.matrix_equations import pairing_kernels
from tests import extended

UNIT = 2.0**-104
CODES = {
    "discrete": (pairing_kernels.DISCRETE, ()),
    "discrete finite": (pairing_kernels.DISCRETE_FINITE, (100.0,)),
    "continuous": (pairing_kernels.CONTINUOUS, ()),
    "continuous finite": (pairing_kernels.CONTINUOUS_FINITE, (7.0,)),
}


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(extended.DIGITS):
        yield


def value(high, low):
    return mpmath.mpf(float(high)) + mpmath.mpf(float(low))


def number(x):
    return mpmath.mpc(value(x[0], x[1]), value(x[2], x[3]))


def random(rng, spread=8):
    """A double-double of random size, sign and low part."""
    high = rng.choice([-1, 1]) * 10.0 ** rng.uniform(-spread, spread)
    return high, high * 2.0**-53 * rng.uniform(-0.99, 0.99)


def close(got, wanted, units=16):
    return abs(got - wanted) <= units * UNIT * abs(wanted)


def test_real_operations(rng):
    for _ in range(300):
        x, y = random(rng), random(rng)
        a, b = value(*x), value(*y)
        assert close(value(*dd._multiply(*x, *y)), a * b)
        assert close(value(*dd._divide(*x, *y)), a / b)
        assert abs(value(*dd._add(*x, *y)) - (a + b)) <= 4 * UNIT * (abs(a) + abs(b))


def test_a_sum_that_cancels_keeps_the_low_parts():
    high, low = dd._add(1.0, 2.0**-60, -1.0, 2.0**-70)
    assert value(high, low) == mpmath.mpf(2) ** -60 + mpmath.mpf(2) ** -70


def test_complex_operations(rng):
    for _ in range(100):
        x, y = (*random(rng, 1), *random(rng, 1)), (*random(rng, 1), *random(rng, 1))
        a, b = number(x), number(y)
        assert close(number(dd._c_add(x, y)), a + b, 1000)
        assert close(number(dd._c_multiply(x, y)), a * b)
        assert close(number(dd._c_divide(x, y)), a / b, 64)
        assert close(number(dd._c_scale(x, 0.3)), a * mpmath.mpf(0.3))


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 10**6])
def test_power(count):
    for z in (0.9 + 0.1j, (1 - 1e-9) * np.exp(2j), -0.5 + 0j, 1.0 + 0j):
        wanted = mpmath.mpc(z) ** count
        got = number(dd._c_power(z, count))
        assert abs(got - wanted) <= 16 * count * UNIT * abs(wanted) + mpmath.mpf(10) ** -290


@pytest.mark.parametrize("time", [1e-8, 0.1, 1.0, 300.0, 1e6])
def test_exponential(time):
    for z in (-0.5 + 2j, -1e-6 + 1e-3j, -1.0 + 0j, 0.1j, 0j):
        wanted = mpmath.exp(mpmath.mpc(z) * mpmath.mpf(time))
        got = number(dd._c_exp(z, time))
        assert abs(got - wanted) <= 64 * UNIT * (1 + abs(z) * time) * abs(wanted) + mpmath.mpf(10) ** -290


@pytest.mark.parametrize("kind", CODES)
def test_gramian(kind):
    """Every entry in the real coordinates, also next to the boundary, as far as `1 − λμ` holds digits."""
    code, parameters = CODES[kind]
    continuous = code >= pairing_kernels.CONTINUOUS
    poles = np.array([1 - 1e-12, 0.5, 0.9 * np.exp(1j), (1 - 1e-9) * np.exp(1.3j), 0.9 * np.exp(1.0001j)])
    poles = np.log(poles) if continuous else poles
    poles[:2] = poles[:2].real
    rng = np.random.default_rng(2)
    real = poles.imag == 0
    B = np.where(real[:, np.newaxis], rng.standard_normal((5, 2)), rng.standard_normal((5, 2)) + 1j * rng.standard_normal((5, 2)))
    n = int(np.sum(2 - real))
    high, low = np.zeros((n, n)), np.zeros((n, n))
    dd.gramian(code, np.array(parameters), poles, B, real, high, low)
    sys = DiagonalLQOSystem(poles, B, np.ones((1, 5)), dt=0 if continuous else 1)
    wanted, _ = extended.gramians(sys, parameters[0] if parameters else None)
    # 1 − λμ has an absolute error of 1e-32, λ + μ a relative one
    bound = mpmath.mpf(10) ** -26 if continuous else mpmath.mpf(10) ** -31 / 1e-9
    for i, j in np.ndindex(n, n):
        scale = mpmath.sqrt(wanted[i, i] * wanted[j, j])
        assert abs(value(high[i, j], low[i, j]) - wanted[i, j]) < bound * scale
        assert high[i, j] == high[j, i]


def hilbert(n):
    """High and low parts of the Hilbert matrix, which is positive definite and extremely ill conditioned."""
    exact = np.array([[mpmath.mpf(1) / (i + j + 1) for j in range(n)] for i in range(n)], object)
    high = exact.astype(float)
    return high, (exact - extended.exact(high)).astype(float)


def test_cholesky_with_complete_pivoting():
    n = 10
    high, low = hilbert(n)
    exact = np.array([[value(high[i, j], low[i, j]) for j in range(n)] for i in range(n)], object)
    pivots = np.empty(n, np.int64)
    assert dd.cholesky(high, low, 1e-30, pivots) == n
    assert sorted(pivots) == list(range(n))
    L = np.array([[value(high[i, j], low[i, j]) if j <= i else mpmath.mpf(0) for j in range(n)] for i in range(n)], object)
    permuted = exact[np.ix_(pivots, pivots)]
    assert extended.size(L @ L.T - permuted) < mpmath.mpf(10) ** -30
    diagonal = np.diag(L).astype(float)
    assert np.all(np.diff(diagonal) <= 0)
    assert diagonal[-1] < 1e-6  # beyond the reach of double precision are its squares
    reference = mpmath.cholesky(mpmath.matrix(permuted.tolist()))
    for i in range(n):
        assert abs(L[i, i] / reference[i, i] - 1) < 1e-15


def test_cholesky_stops_at_the_rank():
    x = np.arange(1.0, 6.0)
    high = np.outer(x, x) + np.outer(x**2, x**2)
    low, pivots = np.zeros((5, 5)), np.empty(5, np.int64)
    assert dd.cholesky(high, low, 1e-25, pivots) == 2
    assert dd.cholesky(np.zeros((3, 3)), np.zeros((3, 3)), 1e-30, np.empty(3, np.int64)) == 0


def test_pairing_of_two_poles(rng):
    for kind, (code, parameters) in CODES.items():
        continuous = code >= pairing_kernels.CONTINUOUS
        for _ in range(20):
            lam, mu = (0.95 * np.exp(-rng.uniform(0, 2) + 1j * rng.uniform(-3, 3)) for _ in range(2))
            lam, mu = (np.log(lam), np.log(mu)) if continuous else (lam, mu)
            features = [_feature(code, parameters, z) for z in (lam, mu)]
            got = number(dd._pair(code, np.array(parameters), lam, features[0], mu, features[1]))
            wanted = extended.pairing(mpmath.mpc(lam), mpmath.mpc(mu), continuous, parameters[0] if parameters else None)
            assert abs(got - wanted) < mpmath.mpf(10) ** -27 * abs(wanted), kind


def _feature(code, parameters, z):
    if code == pairing_kernels.DISCRETE_FINITE:
        return dd._c_power(z, int(parameters[0]))
    return dd._c_exp(z, parameters[0]) if code == pairing_kernels.CONTINUOUS_FINITE else (0.0, 0.0, 0.0, 0.0)
