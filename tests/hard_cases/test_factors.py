"""Gramian factors ``R Rᴴ`` against Gramians in extended precision, and their small singular values."""

import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, LQOSystem, QuadraticOutput
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor
from lqo_mor.matrix_equations.pairing import diagonal_gramian_factor, pairing
from lqo_mor.matrix_equations.stein import stein_factor
from tests import cases, extended
from tests.hard_cases.test_dense_equations import STABLE, constant

DIAGONAL = {
    "real poles": np.exp(-np.linspace(0.2, 1.5, 12)),
    "pairs": np.array([0.98, 0.9, 0.8, 0.7, 0.5]) * np.exp(1j * np.array([0.2, 0.5, 1, 1.7, 2.8])),
    "near the boundary": np.array([1 - 1e-14, (1 - 1e-10) * np.exp(1j), 1 - 1e-3, 0.5]),
    "clustered": 0.7 + 1e-4 * np.arange(6),
    "clustered pairs": 0.8 * np.exp(1j * (1 + 1e-5 * np.arange(4))),
    "zero": np.array([0.0, 0.3, 0.5j]),
}


def product(R):
    R = extended.exact(R)
    return R @ R.conj().T


@pytest.mark.parametrize("terms", [None, 1, 37])
@pytest.mark.parametrize("name", ["Grcar complex", "Kahan complex", "Jordan block", "companion", "nilpotent", "zero eigenvalues"])
def test_stein_factor(name, terms):
    A = STABLE[name]
    B = constant(A, 2)
    R = stein_factor(A, B, terms)
    assert R.shape[1] <= A.shape[0]
    wanted = extended.stein(*(extended.exact(F) for F in (A, A)), extended.exact(B) @ extended.exact(B).conj().T, terms)
    assert _distance(R, wanted) < (1e-10 if name == "companion" else 1e-13)


@pytest.mark.parametrize("duration", [None, 1e-8, 5.0])
@pytest.mark.parametrize("name", ["Grcar complex", "Kahan complex", "Jordan block", "companion", "nilpotent", "zero eigenvalues"])
def test_lyapunov_factor(name, duration):
    A = STABLE[name] - np.eye(STABLE[name].shape[0])
    B = constant(A, 2)
    R = lyapunov_factor(A, B, duration)
    assert R.shape[1] <= A.shape[0]
    wanted = extended.lyapunov(*(extended.exact(F) for F in (A, A)), extended.exact(B) @ extended.exact(B).conj().T, duration)
    assert _distance(R, wanted) < (1e-9 if name == "companion" else 1e-13)


@extended.extended
def _distance(R, wanted) -> float:
    return float(extended.size(product(R) - wanted) / extended.size(wanted))


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("horizon", [None, 1, 1000])
@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_factor_and_its_small_singular_values(name, horizon, continuous):
    """Eigenvalues of `P` down to 1e-28 of the largest come out of the factor with relative accuracy."""
    poles = DIAGONAL[name].astype(complex)
    if continuous:
        poles = np.log(np.where(poles == 0, 1e-3, poles))
    sys = DiagonalLQOSystem(poles, np.ones((poles.size, 1)), np.ones((1, poles.size)), dt=0 if continuous else 1)
    R = diagonal_gramian_factor(pairing(continuous, horizon), sys.poles, sys.B)
    P, _ = extended.gramians(sys, horizon)
    assert _distance(R, P) < 1e-14
    if horizon == 1 and not continuous:
        assert R.shape[1] == 1  # one sample, one input: P has rank one
        return
    wanted = extended.eigenvalues(P)
    kept = wanted > 1e-28 * wanted[0]
    columns = np.linalg.norm(R, axis=0)
    scaled = np.zeros(wanted.size)
    scaled[: R.shape[1]] = _graded(R) ** 2
    assert columns[-1] < columns[0] or columns.size == 1
    # the factorisation works in 32 digits of the largest eigenvalue
    assert np.all(np.abs(scaled - wanted)[kept] < 1e-12 * wanted[kept] + 3e-32 * wanted[0])


def _graded(R):
    """Singular values by one-sided Jacobi rotations, which keep those of graded columns."""
    G = R.copy()
    for _ in range(30):
        rotated = False
        for i in range(G.shape[1] - 1):
            for j in range(i + 1, G.shape[1]):
                a, b, c = G[:, i] @ G[:, i], G[:, j] @ G[:, j], G[:, i] @ G[:, j]
                if abs(c) <= 1e-15 * np.sqrt(a * b):
                    continue
                rotated = True
                zeta = (b - a) / (2 * c)
                t = np.copysign(1.0, zeta) / (abs(zeta) + np.hypot(1.0, zeta))
                cos = 1 / np.hypot(1.0, t)
                G[:, i], G[:, j] = cos * G[:, i] - cos * t * G[:, j], cos * t * G[:, i] + cos * G[:, j]
        if not rotated:
            break
    return np.sort(np.linalg.norm(G, axis=0))[::-1]


@pytest.mark.parametrize("scale", [1e-6, 1e-12])
def test_dense_factor_keeps_small_directions_that_a_gramian_loses(scale):
    """A decoupled weak state has the variance ``scale²`` relative to the strong one, below the rounding of `P`."""
    A, B = np.diag([0.5, -0.7]), np.diag([1.0, scale])
    found = np.linalg.svd(stein_factor(A, B), compute_uv=False) ** 2
    assert found == pytest.approx([1 / 0.75, scale**2 / 0.51], rel=1e-13)
    found = np.linalg.svd(lyapunov_factor(A - np.eye(2), B), compute_uv=False) ** 2
    assert found == pytest.approx([1.0, scale**2 / 3.4], rel=1e-13)


@pytest.mark.parametrize("horizon", [None, 3])
@pytest.mark.parametrize("name", ["dense complex discrete mimo factored", "dense complex continuous mimo quadratic",
                                  "diagonal discrete mimo factored", "diagonal continuous mimo factored"])  # fmt: skip
def test_both_factors_of_a_system_with_a_quadratic_output(name, horizon):
    sys = cases.get(name)
    R, S = gramian_factors(sys, norm_of(sys, horizon))
    P, Q = extended.gramians(sys, horizon)
    assert _distance(R, P) < 1e-12
    assert _distance(S, Q) < 1e-12


def test_one_state_of_a_complex_system_by_hand():
    # P = |b|²/(1−|λ|²) = 12; M enters as |w|² P
    sys = LQOSystem([[0.5j]], [[3j]], [[1 + 1j]], None, QuadraticOutput([[1.0]], [[1.0]], [[2j]]), dt=1.0)
    R, S = gramian_factors(sys, norm_of(sys))
    assert abs(R[0, 0]) ** 2 == pytest.approx(12, rel=1e-15)
    assert abs(S[0, 0]) ** 2 == pytest.approx((2 + 4 * 12) / 0.75, rel=1e-14)
