"""Hankel singular values of diagonal systems against extended precision, down to 1e-14 of the largest."""

import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, QuadraticOutput, controllability_gramian, hankel_singular_values, observability_gramian
from tests import extended

WANTED = 1e-6  # what is asked for
EXPECTED = 1e-11  # what the arithmetic should give, wherever the outputs are generic
FLOOR = 1e-14


def _cluster(distance):
    """Three to four poles around each of a real and a complex point."""
    near = 1 + distance * np.array([-1, 0, 1, 2])
    return np.concatenate([0.7 * near, [0.3], 0.9 * np.exp(1j * near[1:3])])


POLES = {
    "real": np.array([0.99, 0.95, 0.9, 0.7, 0.5, 0.2, 0.05, -0.3, -0.6, -0.9]),
    "positive real": np.exp(-np.geomspace(0.1, 3, 10)),
    "pairs": np.array([0.98, 0.9, 0.8, 0.7, 0.5]) * np.exp(1j * np.array([0.2, 0.5, 1, 1.7, 2.8])),
    "low frequency pairs": np.exp(-0.01 * np.arange(1, 6) + 0.003j * np.arange(1, 6) ** 2),
    "mixed": np.array([0.999, 0.9, 0.8 * np.exp(1j), 0.95 * np.exp(0.1j), 0.5 * np.exp(2j), -0.4]),
    "cluster 1e-3": _cluster(1e-3),
    "cluster 1e-6": _cluster(1e-6),
}
# inputs, outputs, quadratic products, finite horizon or not
KINDS = {
    "siso": (1, 1, 0, False),
    "siso finite": (1, 1, 0, True),
    "siso quadratic": (1, 1, 2, False),
    "mimo finite": (2, 3, 0, True),
    "mimo quadratic": (3, 2, 3, False),
    "many outputs": (1, 4, 5, False),
    "mimo quadratic finite": (2, 2, 3, True),
}


def system(poles, m=1, p=1, c=0, continuous=False, seed=1):
    """Random rows at the given discrete poles, or at their logarithms (negative poles moved to slow and fast ones)."""
    rng = np.random.default_rng(seed)
    poles = np.asarray(poles, complex)
    if continuous:
        negative = (poles.imag == 0) & (poles.real < 0)
        poles = np.where(negative, 30 * poles.real, np.log(np.where(negative, 1, poles)))
    real = poles.imag == 0

    def rows(count):
        a, b = rng.standard_normal((2, count, poles.size))
        return np.where(real, a, a + 1j * b)

    q = QuadraticOutput(rows(c), rows(c), rng.standard_normal((p, c))) if c else None
    return DiagonalLQOSystem(poles, rows(m).T, rows(p), None, q, dt=0 if continuous else 1)


def deviation(values, reference):
    kept = reference > FLOOR * reference[0]
    assert np.count_nonzero(kept) >= 5
    return np.max(np.abs(values[kept] / reference[kept] - 1))


def naive(sys, horizon):
    """What the definition gives in double precision."""
    P, Q = controllability_gramian(sys, horizon), observability_gramian(sys, horizon)
    with np.errstate(invalid="ignore"):
        return np.sort(np.sqrt(np.linalg.eigvals(P @ Q).real))[::-1]


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poles", POLES)
def test_all_values_have_relative_accuracy(poles, kind, continuous):
    m, p, c, is_finite = KINDS[kind]
    sys = system(POLES[poles], m, p, c, continuous)
    horizon = 20 if is_finite else None
    reference = extended.hankel_singular_values(sys, horizon)
    found = deviation(hankel_singular_values(sys, horizon), reference)
    assert found < WANTED
    if c == 0 or poles != "cluster 1e-6":  # rows seen by the square of a cluster are nearly parallel, and rounded
        assert found < EXPECTED


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("poles", ["positive real", "cluster 1e-3", "cluster 1e-6"])
def test_the_definition_in_double_precision_fails_there(poles, continuous):
    sys = system(POLES[poles], continuous=continuous)
    reference = extended.hankel_singular_values(sys)
    assert reference[reference > FLOOR * reference[0]][-1] < 1e-8 * reference[0]
    assert not deviation(naive(sys, None), reference) < WANTED  # NaN counts as a failure
    assert deviation(hankel_singular_values(sys), reference) < EXPECTED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_quadratic_output_parallel_to_the_linear_one(continuous, seed):
    """``y = z + z²`` with ``z = c x``: what the square adds is parallel to `c`, and must stay so to more than 16 digits.

    Many inputs make `P` well conditioned, so that the small values are those of the observability factor alone.
    """
    sys = system(np.exp(-np.linspace(1, 2, 10)), m=10, continuous=continuous, seed=seed)
    sys = DiagonalLQOSystem(sys.poles, sys.B, sys.C, None, QuadraticOutput(sys.C, sys.C, [[1.0]]), dt=sys.dt)
    reference = extended.hankel_singular_values(sys)
    assert reference[-1] < 1e-10 * reference[0]
    assert deviation(hankel_singular_values(sys), reference) < WANTED


@pytest.mark.xfail(strict=True, reason="4e-6: the rows that the square adds to the linear ones are rounded to double precision")
def test_quadratic_output_parallel_to_the_linear_one_with_more_poles():
    sys = system(np.exp(-np.linspace(1, 2, 12)), m=12, seed=2)
    sys = DiagonalLQOSystem(sys.poles, sys.B, sys.C, None, QuadraticOutput(sys.C, sys.C, [[1.0]]), dt=1.0)
    assert deviation(hankel_singular_values(sys), extended.hankel_singular_values(sys)) < WANTED


@pytest.mark.parametrize("scale", [1e-4, 1e-8, 1e-12])
def test_products_of_very_different_size(scale):
    sys = system(POLES["real"], m=2, p=2, c=3)
    q = sys.M
    graded = QuadraticOutput(q.U, q.V, q.W * np.array([1.0, scale, scale**2]))
    sys = DiagonalLQOSystem(sys.poles, sys.B, sys.C * scale, None, graded, dt=1.0)
    reference = extended.hankel_singular_values(sys)
    assert deviation(hankel_singular_values(sys), reference) < WANTED


def test_values_of_a_purely_quadratic_system():
    sys = system(POLES["mixed"], p=2, c=2)
    sys = DiagonalLQOSystem(sys.poles, sys.B, 0 * sys.C, None, sys.M, dt=1.0)
    reference = extended.hankel_singular_values(sys)
    assert deviation(hankel_singular_values(sys), reference) < EXPECTED


def test_a_single_state_by_hand():
    # P = b²/(1−λ²), Q = (c² + w² u⁴ P)/(1−λ²) with M = w u²
    lam, b, c, u, w = 0.5, 3.0, 2.0, 1.5, -0.25
    sys = DiagonalLQOSystem([lam], [[b]], [[c]], None, QuadraticOutput([[u]], [[u]], [[w]]), dt=1.0)
    P = b**2 / (1 - lam**2)
    assert hankel_singular_values(sys) == pytest.approx(np.sqrt(P * (c**2 + (w * u**2) ** 2 * P) / (1 - lam**2)), rel=1e-14)
