"""The pairing against 50-digit arithmetic where the closed forms cancel, ``λμ`` near 1 and ``λ + μ`` near 0."""

import mpmath
import numpy as np
import pytest

from lqo_mor.matrix_equations.pairing import pairing

EPS = np.finfo(float).eps
DISTANCES = [1e-1, 1e-3, 1e-5, 1e-8, 1e-11, 1e-14]


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(60):
        yield


def exact(z):
    return mpmath.mpc(float(z.real), float(z.imag))


def evaluate(norm, lam, mu):
    g, dg = norm.outer_with_derivative(np.array([lam], complex), np.array([mu], complex))
    return complex(g[0, 0]), complex(dg[0, 0])


def distance(got, wanted):
    return float(abs(exact(got) - wanted))


def near_one(delta):
    """Pole pairs whose product is about ``1 − δ``: conjugate ones, real ones, and ones off the real axis."""
    root = np.sqrt(1 - delta)
    turn = np.exp(1j * delta)  # λμ = (1 − δ) e^{iδ}
    return [
        (root * np.exp(2.3j), root * np.exp(-2.3j)),
        (complex(root), complex(root)),
        (complex(-root), complex(-root)),
        (root * np.exp(0.7j), root * np.exp(-0.7j) * turn),
        (0.5 * np.exp(1j), (1 - delta) / 0.5 * np.exp(-1j)),
    ]


@pytest.mark.parametrize("delta", DISTANCES)
def test_discrete_infinite(delta):
    for lam, mu in near_one(delta):
        g, dg = evaluate(pairing(False), lam, mu)
        d = 1 - exact(lam) * exact(mu)
        assert distance(g, 1 / d) < 8 * EPS * abs(1 / d)
        assert distance(dg, exact(lam) / d**2) < 16 * EPS * abs(exact(lam) / d**2)


@pytest.mark.parametrize("samples", [1, 2, 10, 1024, 10**6])
@pytest.mark.parametrize("delta", DISTANCES)
def test_discrete_finite(delta, samples):
    for lam, mu in near_one(delta)[:4]:
        g, dg = evaluate(pairing(False, samples), lam, mu)
        x, y = exact(lam), exact(mu)
        z, L = x * y, samples
        wanted = (1 - z**L) / (1 - z)
        slope = x * (wanted - L * z ** (L - 1)) / (1 - z)
        # A power λ^L in double precision has the relative error L |log λ| ε, whatever the method: λ itself is only
        # known to ε. It enters g divided by |1 − z|, but by no more than 2L, since the series takes over there.
        gain = min(1 / abs(1 - z), 2 * L)
        power = abs(z) ** L * (1 + L * (abs(mpmath.log(x)) + abs(mpmath.log(y))))
        assert distance(g, wanted) <= 8 * EPS * (abs(wanted) + gain * power)
        # The derivative divides a difference of terms of size |g| and L |z|^(L-1) by 1 − z once more.
        assert distance(dg, slope) <= 16 * EPS * (abs(slope) + gain * (abs(wanted) + (L + gain) * power))


def test_discrete_finite_real_poles_are_accurate_to_rounding():
    # Without an angle the power costs L |log λ| ε, which is small near 1: the relative error is of a few ε.
    for delta in DISTANCES[1:]:
        for samples in (1, 10, 1024, 10**6):
            lam = np.sqrt(1 - delta)
            g, _ = evaluate(pairing(False, samples), lam, lam)
            z = exact(lam) ** 2
            wanted = (1 - z**samples) / (1 - z)
            assert distance(g, wanted) < 30 * EPS * abs(wanted), (delta, samples)


@pytest.mark.parametrize("delta", [*DISTANCES, 0.0])
def test_series_and_closed_form_meet(delta):
    """Samples on both sides of the switch give the same sums: ``g_{L+1} − g_L = (λμ)^L``."""
    root = np.sqrt(1 - delta)
    lam, mu = root * np.exp(0.3j), root * np.exp(-0.3j)
    z = complex(exact(lam) * exact(mu))
    switch = max(1, int(0.5 / delta)) if delta else 100
    for samples in {max(1, switch - 1), switch, switch + 1} if switch < 10**6 else {1000}:
        small, large = (evaluate(pairing(False, n), lam, mu)[0] for n in (samples, samples + 1))
        assert abs(large - small - z**samples) < 20 * EPS * samples * (1 + samples * 0.6)


@pytest.mark.parametrize("duration", [None, 1e-3, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("delta", DISTANCES)
def test_continuous(delta, duration):
    pairs = [
        (-delta / 2 + 3j, -delta / 2 - 3j),
        (complex(-delta), complex(-delta / 3)),
        (-1.0 + 2j, 1.0 - delta - 2j + 1j * delta),
        (-0.7 + 0.1j, -delta + 0.2j),
    ]
    for lam, mu in pairs:
        g, dg = evaluate(pairing(True, duration), lam, mu)
        s = exact(lam) + exact(mu)
        if duration is None:
            assert distance(g, -1 / s) < 8 * EPS * abs(1 / s)
            assert distance(dg, 1 / s**2) < 16 * EPS * abs(1 / s**2)
            continue
        T = mpmath.mpf(duration)
        wanted = (mpmath.exp(s * T) - 1) / s
        slope = (T * mpmath.exp(s * T) - wanted) / s
        gain = min(1 / abs(s), 2 * T)  # as in discrete time, with e^{λT} in place of λ^L
        power = abs(mpmath.exp(s * T)) * (1 + T * (abs(lam) + abs(mu)))
        assert distance(g, wanted) <= 8 * EPS * (abs(wanted) + gain * (power + 1))
        assert distance(dg, slope) <= 16 * EPS * (abs(slope) + gain * (abs(wanted) + (T + gain) * (power + 1)))


@pytest.mark.parametrize(("samples", "wanted"), [(1, 1), (5, 5), (1024, 1024), (10**6, 10**6)])
def test_product_of_exactly_one_gives_the_number_of_samples(samples, wanted):
    for lam, mu in [(1.0, 1.0), (-1.0, -1.0), (2.0, 0.5), (1j, -1j)]:
        g, dg = evaluate(pairing(False, samples), lam, mu)
        assert g == pytest.approx(wanted, rel=1e-15)
        assert dg == pytest.approx(lam * samples * (samples - 1) / 2, rel=1e-14)


def test_sum_of_exactly_zero_gives_the_duration():
    g, dg = evaluate(pairing(True, 3.0), -1 + 2j, 1 - 2j)
    assert g == pytest.approx(3.0, rel=1e-15)
    assert dg == pytest.approx(4.5, rel=1e-15)


def test_zero_poles():
    assert evaluate(pairing(False, 7), 0.0, 0.9) == (1.0, 0.0)
    g, dg = evaluate(pairing(False, 7), 0.9, 0.0)
    assert (g, dg) == (1.0, 0.9)
    assert evaluate(pairing(False, 1), 0.0, 0.0) == (1.0, 0.0)
