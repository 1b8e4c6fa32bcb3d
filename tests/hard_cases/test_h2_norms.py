"""h² norms and inner products of hard systems against extended precision or a value known by hand."""

import mpmath
import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, LQOSystem, QuadraticOutput, controllability_gramian, h2_inner, h2_norm, to_dense
from tests import cases, extended

EPS = np.finfo(float).eps


def diagonal(poles, m=1, p=1, c=0, continuous=False, seed=0, linear=True):
    rng = np.random.default_rng(seed)
    poles = np.asarray(poles, complex)
    real = poles.imag == 0

    def rows(count):
        a, b = rng.standard_normal((2, count, poles.size))
        return np.where(real, a, a + 1j * b)

    q = QuadraticOutput(rows(c), rows(c), rng.standard_normal((p, c))) if c else None  # indefinite
    return DiagonalLQOSystem(poles, rows(m).T, rows(p) if linear else 0 * rows(p), None, q, dt=0 if continuous else 1)


def check(sys, horizon, tolerance):
    assert extended.relative_error(h2_norm(sys, horizon), extended.norm(sys, horizon)) < tolerance


DISCRETE = {
    "pole at 1 - 1e-10": [1 - 1e-10, 0.5, 0.9 * np.exp(1j)],
    "pole at 1 - 1e-14": [1 - 1e-14, 0.5, 0.9 * np.exp(1j)],
    "pole at -1 + 1e-12": [-1 + 1e-12, 0.5],
    "pair at 1 - 1e-10": [(1 - 1e-10) * np.exp(0.3j), 0.2],
    "pair at 1 - 1e-14": [(1 - 1e-14) * np.exp(2j), 0.2],
    "repeated": [0.8, 0.8, 0.6 * np.exp(1j), 0.6 * np.exp(1j)],
    "conjugate pair stored twice": [0.6 * np.exp(1j), 0.6 * np.exp(-1j)],
    "clustered": [0.8, 0.8 + 1e-9, 0.8 + 1e-13, 0.8 + 1e-12j],
    "zero": [0.0, 0.0, 0.5, 1e-300],
}
CONTINUOUS = {
    "lightly damped": [-1e-6 + 3j, -1e-6 + 3.001j, -1e-6 + 100j],
    "very lightly damped": [-1e-12 + 1j, -2.0],
    "stiff": [-1e-3, -1.0, -1e3, -1e6],
    "stiff pairs": [-1e-3 + 1e6j, -1e6 + 1e-3j, -1.0],
    "repeated": [-0.5, -0.5, -0.5 + 2j, -0.5 + 2j],
    "slow": [-1e-14, -1e-10],
}
KINDS = {
    "siso": {},
    "mimo": {"m": 2, "p": 3},
    "quadratic": {"m": 3, "p": 2, "c": 3},
    "purely quadratic": {"c": 2, "linear": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poles", DISCRETE)
def test_discrete(poles, kind):
    check(diagonal(DISCRETE[poles], **KINDS[kind]), None, 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poles", CONTINUOUS)
def test_continuous(poles, kind):
    check(diagonal(CONTINUOUS[poles], continuous=True, **KINDS[kind]), None, 1e-13)


@pytest.mark.parametrize("samples", [1, 2, 1000, 10**6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poles", DISCRETE)
def test_discrete_finite_horizon(poles, kind, samples):
    # a power z^L costs L |log z| ε where z has an angle, until it has decayed
    # (and one sample of a purely quadratic output is a hundredth of its terms)
    tolerance = 3e-13 + EPS * samples * (1 if "pair at" in poles else 0)
    check(diagonal(DISCRETE[poles], **KINDS[kind]), samples, tolerance)


@pytest.mark.parametrize("poles", [[1.0], [1.0, -1.0], [np.exp(0.7j)], [1 + 1e-15, 0.5], [1.02, 0.5], [2.0, 0.3 + 1.2j]])
@pytest.mark.parametrize("samples", [1, 2, 64, 1000])
def test_unstable_with_a_finite_horizon(poles, samples):
    samples = samples if np.max(np.abs(poles)) < 1.2 else min(samples, 64)  # the norm overflows
    for kind in KINDS.values():
        check(diagonal(poles, **kind), samples, 1e-13 + 4 * EPS * samples)


@pytest.mark.parametrize("duration", [1e-8, 1.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poles", CONTINUOUS)
def test_continuous_finite_horizon(poles, kind, duration):
    sys = diagonal(CONTINUOUS[poles], continuous=True, **KINDS[kind])
    # e^{λT} costs |λT| ε, until it has decayed
    live = np.max(np.abs(sys.poles * duration) * np.exp(sys.poles.real * duration))
    check(sys, duration, 1e-12 + 4 * EPS * live)


@pytest.mark.parametrize("poles", [[0.0], [1j], [0.5, -0.5], [0.3 + 2j, 0.0]])
def test_continuous_unstable_with_a_finite_horizon(poles):
    for duration in (1e-8, 1.0, 30.0):
        for kind in KINDS.values():
            check(diagonal(poles, continuous=True, **kind), duration, 1e-12)


@pytest.mark.parametrize("sys", [c.sys for c in cases.CASES if not c.batch], ids=[c.name for c in cases.CASES if not c.batch])
def test_every_case(sys):
    if sys.is_continuous and np.any(sys.D):
        pytest.skip("the norm is infinite")
    hard = {"dense pole close to 1": 1e-8, "dense non-normal continuous": 1e-9, "dense non-normal": 1e-9}
    name = next(c.name for c in cases.CASES if c.sys is sys)
    for horizon in (None, 3):
        check(sys, horizon, hard.get(name, 1e-12))


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("horizon", [None, 5])
def test_inner_products_between_systems_that_almost_resonate(continuous, horizon):
    """``λ μ`` of two different systems close to 1 (``λ + μ`` close to 0), dense systems with them."""
    a = [-1e-9 + 2j, -0.3] if continuous else [(1 - 1e-9) * np.exp(0.5j), 0.7]
    b = [-1e-8 + 2j, -1e-7] if continuous else [(1 - 1e-8) * np.exp(0.5j), 1 - 1e-7]
    for kind in KINDS.values():
        sys, other = diagonal(a, continuous=continuous, **kind), diagonal(b, continuous=continuous, seed=1, **kind)
        wanted = extended.inner(sys, other, horizon)
        assert extended.relative_error(h2_inner(sys, other, horizon), wanted) < 1e-12
        if horizon is not None:
            assert extended.relative_error(h2_inner(to_dense(sys), other, horizon), wanted) < 1e-12


@pytest.mark.filterwarnings("ignore:.*ill-conditioned:lqo_mor.errors.AccuracyWarning")
def test_dense_pole_at_1_minus_1e_10():
    """A dense matrix is known to ε only, and its Gramian therefore to about ``ε / 1e-10``."""
    V = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    for distance in (1e-6, 1e-8, 1e-10):
        A = V @ np.diag([1 - distance, 0.5, -0.2]) @ V.T
        check(LQOSystem(A, np.ones((3, 1)), np.ones((1, 3)), dt=1.0), None, 100 * EPS / distance)


@pytest.mark.filterwarnings("ignore:.*ill-conditioned:lqo_mor.errors.AccuracyWarning")
@pytest.mark.parametrize("horizon", [None, 1, 2, 1000, 10**6])
def test_one_state_by_hand(horizon):
    """``y = c x + w x²``: ``‖Σ‖² = c² b² g + w² b⁴ g²`` with ``g = Σ_{k<L} λ^{2k}``."""
    b, c, w = 0.5, 3.0, -2.0
    for lam in (0.5, 1 - 2.0**-20, 1 - 2.0**-33):
        with mpmath.workdps(60):
            z = mpmath.mpf(lam) ** 2
            g = float(1 / (1 - z) if horizon is None else (1 - z**horizon) / (1 - z))
        wanted = np.sqrt(c**2 * b**2 * g + w**2 * b**4 * g**2)
        sys = DiagonalLQOSystem([lam], [[b]], [[c]], None, QuadraticOutput([[1.0]], [[1.0]], [[w]]), dt=1.0)
        assert h2_norm(sys, horizon) == pytest.approx(wanted, rel=1e-14)
        dense = h2_norm(LQOSystem([[lam]], [[b]], [[c]], None, [[[w]]], dt=1.0), horizon)
        assert dense == pytest.approx(wanted, rel=1e-14 if lam == 0.5 else 10 * EPS / (1 - lam))


@pytest.mark.parametrize(
    "sys", [cases.get("diagonal discrete mimo factored"), cases.get("dense complex continuous mimo quadratic")]
)
def test_infinity_is_none(sys):
    assert h2_norm(sys, np.inf) == h2_norm(sys)
    assert np.array_equal(controllability_gramian(sys, np.inf), controllability_gramian(sys))


@pytest.mark.parametrize(
    "name", ["dense discrete mimo quadratic", "dense complex discrete siso factored", "diagonal discrete mimo factored"]
)
def test_one_sample_and_many(name):
    sys = cases.get(name)
    P = controllability_gramian(sys, 1)
    B = to_dense(sys).B if isinstance(sys, DiagonalLQOSystem) else sys.B
    assert np.allclose(P, B @ B.conj().T, rtol=1e-14, atol=1e-15)
    assert h2_norm(sys, 10**6) == pytest.approx(h2_norm(sys), rel=1e-13)


@pytest.mark.parametrize("name", ["dense continuous mimo quadratic", "diagonal continuous mimo factored"])
def test_tiny_and_huge_durations(name):
    sys = cases.get(name)
    B = to_dense(sys).B if isinstance(sys, DiagonalLQOSystem) else sys.B
    assert np.allclose(controllability_gramian(sys, 1e-8), 1e-8 * B @ B.T, rtol=1e-6, atol=1e-14)
    assert h2_norm(sys, 1e6) == pytest.approx(h2_norm(sys), rel=1e-13)
    check(sys, 1e-8, 1e-13)
