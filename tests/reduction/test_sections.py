"""Sections: all-pass factors, parameters, pairings of their poles, and where the search for them begins."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.matrix_equations.pairing import pairing
from lqo_mor.matrix_equations.pairing_jets import _pairing_derivatives
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.sections.data import search_data
from lqo_mor.reduction.sections.kernel_data import CODE, FEATURES, LAM, OUTPUTS, PARAMETERS, REAL_POLES, B
from lqo_mor.reduction.sections.layout import layout_of, poles_of
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL, _factor, _parameters_of, _size
from lqo_mor.reduction.sections.starting_poles import N_ANGLES, N_DECAYS, _balanced_poles, _candidates, _sections_of
from tests.brute import derivative
from tests.reduction.section_checks import LEAST, closed, constants, parameters, poles, system

TIMES = pytest.mark.parametrize("continuous", [False, True])
KINDS = pytest.mark.parametrize("kind", [FREE, PAIR, REAL])
FAR = 20.0  # bound of a parameter that binds nothing here


def places(rng, continuous, kind):
    """Sections and full poles: moderate ones, slow ones, and free ones whose two poles meet."""
    for _ in range(20):
        yield parameters(rng, continuous, [kind])
    if kind == FREE and continuous:
        yield np.array([np.log(2.0), 0.0])  # (s + 1)²
    elif kind == FREE:
        yield np.array([4.0, 5.0])
        yield np.arctanh([2 * 0.6 / (1 + 0.36), 0.36])  # (z − 0.6)²


def full_pole(rng, continuous):
    z = complex(-rng.uniform(0.01, 1), rng.uniform(0, 3))
    return z if continuous else np.exp(z)


def all_pass(continuous, mu, lam):
    return np.prod((lam - mu) / (lam + mu) if continuous else (lam - mu) / (1 - mu * lam))


@TIMES
@KINDS
def test_factor_of_a_section_is_the_product_over_its_poles(kind, continuous, rng):
    for x in places(rng, continuous, kind):
        lam = full_pole(rng, continuous)
        wanted = all_pass(continuous, closed(poles(continuous, [kind], x)), lam)
        got = _factor(continuous, kind, constants(continuous, kind, x), lam)[0]
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-13)


@TIMES
@KINDS
def test_factor_has_modulus_one_on_the_stability_boundary(kind, continuous, rng):
    for x in places(rng, continuous, kind):
        t = rng.uniform(0.1, 3)
        lam = complex(0, t) if continuous else np.exp(1j * t)
        assert abs(_factor(continuous, kind, constants(continuous, kind, x), lam)[0]) == pytest.approx(1, rel=1e-9)


@TIMES
@KINDS
def test_derivatives_of_the_factor(kind, continuous, rng):
    for x in places(rng, continuous, kind):
        lam, r = full_pole(rng, continuous), _size(kind)
        _, *first, d11, d12, d22 = _factor(continuous, kind, constants(continuous, kind, x), lam)

        def value(y, d, part, lam=lam):
            return getattr(_factor(continuous, kind, constants(continuous, kind, y), lam)[d], part)

        second = np.array([[d11, d12], [d12, d22]])
        for part in ("real", "imag"):
            scale = 1e-7 * np.abs([*first, d11, d12, d22]).max()
            np.testing.assert_allclose(
                getattr(np.array(first), part)[:r], derivative(lambda y, p=part, f=value: f(y, 0, p), x), atol=scale, rtol=1e-6
            )
            for i in range(r):
                wanted = derivative(lambda y, i=i, p=part, f=value: f(y, 1 + i, p), x)
                np.testing.assert_allclose(getattr(second, part)[i, :r], wanted, atol=scale, rtol=1e-6)


@TIMES
@KINDS
def test_parameters_of_the_poles_of_a_section_are_its_own(kind, continuous, rng):
    for _ in range(20):
        x = parameters(rng, continuous, [kind])
        mu = poles(continuous, [kind], x)
        nu = mu[1] if mu.size == 2 else mu[0].conj()
        again = _parameters_of(continuous, kind, mu[0], nu, LEAST, FAR)
        np.testing.assert_allclose(again[: _size(kind)], x, rtol=1e-7, atol=1e-9)


@TIMES
@pytest.mark.parametrize("margin", [1e-12, 1e-3])
def test_whatever_the_parameters_poles_keep_the_margin(continuous, margin, rng):
    for order, slots in ((5, None), (None, 3)):
        size = layout_of(Budget(order, slots), continuous, margin)
        wild = np.concatenate([30 * rng.standard_normal((50, size.n_parameters)), np.full((1, size.n_parameters), 100.0)])
        bounded = wild if slots else np.clip(wild, -size.limit, size.limit)
        mu, used = poles_of(size, np.tile(size.kinds, (51, 1)), bounded)
        assert np.max(mu[used].real if continuous else np.abs(mu[used]) - 1) <= -margin * (1 - 1e-3)


@TIMES
@pytest.mark.parametrize("order", [3, 4, 5])
def test_sections_hold_the_poles_that_they_are_made_of(continuous, order):
    mu = np.array([-0.2 + 3j, -0.5, -1.5, -4.0][: order - 1])
    mu = closed(mu if continuous else np.exp(mu))
    size = layout_of(Budget(order), continuous, 1e-9)
    kinds, x = size.kinds.copy(), np.zeros(order)
    assert _sections_of(continuous, mu, kinds, size.least, size.limit, x) == kinds.size
    got, used = poles_of(size, kinds[np.newaxis], x[np.newaxis])
    np.testing.assert_allclose(closed(got[0, used[0]]), mu, rtol=1e-9)


@TIMES
def test_of_a_budget_in_slots_each_real_pole_takes_one(continuous):
    mu = np.array([-0.2 + 3j, -0.2 - 3j, -0.5, -1.5])
    mu = mu if continuous else np.exp(mu)
    size = layout_of(Budget(slots=3), continuous, 1e-9)
    kinds, x = size.kinds.copy(), np.zeros(6)
    assert _sections_of(continuous, mu, kinds, size.least, size.limit, x) == 3
    assert list(kinds) == [PAIR, REAL, REAL]
    got, used = poles_of(size, kinds[np.newaxis], x[np.newaxis])
    np.testing.assert_allclose(closed(got[0, used[0]]), np.sort_complex(mu), rtol=1e-8)


def gaps(rng, largest):
    """Distances from a removable singularity, from none to beyond where the closed form takes over."""
    return np.r_[0.0, np.logspace(-12, 0, 12)] * largest * np.exp(2j * np.pi * rng.random(13))


@pytest.mark.parametrize("L", [1, 2, 7, 400])
def test_discrete_pairing_near_its_removable_singularity_is_the_sum(L, rng):
    norm, k = pairing(False, L), np.arange(L)
    for gap in gaps(rng, 3.0 / L):
        lam, mu = np.exp(-0.3j), np.exp(0.3j + gap)
        terms = np.exp(k * (np.log(lam) + np.log(mu)))
        wanted = [np.sum(k**d * terms) for d in range(3)]
        got = _pairing_derivatives(norm.code, np.array(norm.parameters), lam, mu, (lam * mu) ** L)
        for value, reference, power in zip(got, wanted, (1, 2, 3), strict=True):
            assert value == pytest.approx(reference, rel=1e-10, abs=1e-12 * L**power)


@pytest.mark.parametrize("T", [0.3, 2.0, 500.0])
def test_continuous_pairing_near_its_removable_singularity_is_the_integral(T, rng):
    norm = pairing(True, T)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, w = 0.5 * T * (nodes + 1), 0.5 * T * weights
    for gap in gaps(rng, 3.0 / T):
        lam, mu = -0.2 + 1j, 0.2 - 1j + gap
        wanted = [np.sum(w * t**d * np.exp((lam + mu) * t)) for d in range(3)]
        got = _pairing_derivatives(norm.code, np.array(norm.parameters), lam, mu, np.exp((lam + mu) * T))
        for value, reference, power in zip(got, wanted, (1, 2, 3), strict=True):
            assert value == pytest.approx(reference, rel=1e-9, abs=1e-12 * T**power)


@TIMES
def test_pairing_over_all_time_is_the_sum_over_all_time(continuous, rng):
    norm = pairing(continuous)
    for _ in range(10):
        lam, mu = (-rng.uniform(0.05, 1) + 1j * rng.uniform(-3, 3) for _ in range(2))
        if continuous:
            wanted = [-1 / (lam + mu), 1 / (lam + mu) ** 2, -2 / (lam + mu) ** 3]
        else:
            k, lam, mu = np.arange(800), np.exp(lam), np.exp(mu)
            wanted = [np.sum(k**d * (lam * mu) ** k) for d in range(3)]
        np.testing.assert_allclose(_pairing_derivatives(norm.code, np.array(()), lam, mu, 0j), wanted, rtol=1e-10)


def balanced_poles(sys, horizon, order):
    data = search_data(sys, norm_of(sys, horizon), 0.0)
    lam, inputs, real, outputs = data[LAM], data[B], data[REAL_POLES], data[OUTPUTS]
    poles = _balanced_poles(data[CODE], data[PARAMETERS], lam, data[FEATURES], inputs, outputs, real, order)
    return np.sort_complex(poles[poles.imag >= 0]), poles.size


@pytest.mark.parametrize(("continuous", "horizon"), [(False, None), (False, 30), (True, None), (True, 19.0)])
@pytest.mark.parametrize(("pairs", "reals", "p"), [(4, 2, 1), (4, 2, 3), (0, 7, 2)])
@pytest.mark.parametrize("order", [2, 3, 5])
def test_compiled_balanced_poles_are_those_of_balanced_truncation(continuous, horizon, pairs, reals, p, order):
    sys = system(continuous, pairs=pairs, reals=reals, p=p, seed=3)
    red = lqo.balanced_truncation(sys, order, horizon=horizon)
    got, count = balanced_poles(sys, horizon, order)
    assert count == red.system.order
    # a step of subspace iteration is enough for a start
    np.testing.assert_allclose(got, np.sort_complex(red.system.poles), rtol=1e-4, atol=1e-5 * np.abs(got).max())


@pytest.mark.filterwarnings("ignore::lqo_mor.errors.StabilityWarning")
@TIMES
def test_compiled_balanced_poles_are_reflected_where_truncation_is_unstable(continuous):
    repaired = 0
    for seed in range(40):
        sys, horizon = system(continuous, pairs=3, reals=0, p=1, seed=seed), 3 + seed % 3
        red = lqo.balanced_truncation(sys, 3, horizon=horizon)
        repaired += red.repaired
        np.testing.assert_allclose(balanced_poles(sys, horizon, 3)[0], np.sort_complex(red.system.poles), rtol=1e-5)
    assert repaired  # or this tests nothing


@TIMES
@pytest.mark.parametrize("kind", [FREE, PAIR])
@pytest.mark.parametrize(("pairs", "reals"), [(5, 2), (0, 4), (1, 0)])
def test_all_candidates_are_stable(continuous, kind, pairs, reals):
    sys = system(continuous, pairs=pairs, reals=reals)
    size = layout_of(Budget(3), continuous, LEAST)
    sections, single = np.empty((sys.n_slots + N_DECAYS * (N_ANGLES + 2), 2)), np.empty((N_DECAYS, 2))
    _candidates(continuous, kind, np.array(sys.poles), size.least, size.limit, sections, single)
    assert np.all(np.isfinite(sections))
    assert np.all(np.isfinite(single))
    for own, rows in ((kind, sections), (REAL, single[:, :1])):
        mu = np.concatenate([poles(continuous, [own], x) for x in rows])
        assert np.max(mu.real if continuous else np.abs(mu) - 1) < 0
