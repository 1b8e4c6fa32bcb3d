"""Poles close to each other with residues that cancel: every number is right to the digits claimed, or comes with a warning."""

import warnings

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.differences import error_and_digits
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import AccuracyWarning

exact = pytest.importorskip("tests.exact")

SIX_DIGITS = 1e-6


def cluster(rng, continuous, most=-2):
    """Two to four poles near each other, and residues that make a derivative of the kernel of them."""
    size, distance = int(rng.integers(2, 5)), 10 ** rng.uniform(-14, most)
    decay, angle = 10 ** rng.uniform(-3, 0), rng.choice([0, rng.uniform(0.05, 3)])
    centre = -decay + 1j * angle
    centre = centre if continuous else rng.choice([-1, 1]) * np.exp(centre.real) if angle == 0 else np.exp(centre)
    steps = np.arange(size) + rng.uniform(-0.3, 0.3, size)
    steps = steps if angle == 0 else steps * np.exp(1j * rng.uniform(0, 6))
    poles = centre + distance * min(decay, 1) * (steps - steps.mean()) / size
    poles = np.where(angle == 0, poles.real, poles)
    gaps = poles[:, np.newaxis] - poles + np.eye(size)
    return poles, 1 / np.prod(np.where(gaps == 0, distance, gaps), axis=1)


def near_equal(rng, distances=-2):
    """A system with one or two clusters and some other modes, linear or quadratic, and a horizon for it."""
    continuous = bool(rng.integers(2))
    parts = [cluster(rng, continuous, distances) for _ in range(int(rng.integers(1, 3)))]
    others = int(rng.integers(0, 4))
    decay, angle = 10 ** rng.uniform(-2, 0, others), rng.choice([0, 1], others) * rng.uniform(0.1, 3, others)
    rest = -decay + 1j * angle if continuous else np.exp(-decay + 1j * angle)
    poles = np.concatenate([*(part[0] for part in parts), rest])
    residues = np.concatenate([*(part[1] for part in parts), np.ones(others)])
    real, (m, p, c) = poles.imag == 0, rng.integers(1, 4, 3)

    def rows(count, weight):
        z = rng.standard_normal((count, 1)) + 0.1 * rng.choice([0, 1]) * rng.standard_normal((count, poles.size))
        z = z * weight * np.where(real, 1, np.exp(1j * rng.uniform(0, 0.5)))
        return np.where(real, z.real, z)

    share = rng.choice([0.0, 0.5, 1.0])
    B = rows(m, np.abs(residues) ** share + 0j).T
    weight = residues * np.abs(residues) ** -share
    M = None
    if rng.integers(2):
        M = lqo.QuadraticOutput(rows(c, weight), rows(c, rng.choice([weight, np.ones(poles.size)])), rng.standard_normal((p, c)))
    system = lqo.DiagonalLQOSystem(poles, B, rows(p, weight), None, M, dt=0 if continuous else True)
    if rng.integers(2):
        return system, None
    return system, float(10 ** rng.uniform(-1, 3)) if continuous else int(10 ** rng.uniform(0, 3.5))


def reduced(rng, sys):
    """A system to compare with: a part of it left out, or everything moved a little."""
    kind, size = rng.integers(3), 10 ** rng.uniform(-12, 0)

    def moved(X):
        return X * (1 + size * rng.standard_normal(X.shape))

    keep = np.arange(sys.n_slots) if kind else np.sort(rng.permutation(sys.n_slots)[: rng.integers(1, sys.n_slots)])
    poles = sys.poles * (1 - size * rng.uniform(0, 0.1)) if kind == 1 and not sys.is_continuous else sys.poles
    M = None if sys.M is None else lqo.QuadraticOutput(moved(sys.M.U)[:, keep], sys.M.V[:, keep], sys.M.W)
    return lqo.DiagonalLQOSystem(poles[keep], moved(sys.B)[keep], moved(sys.C)[:, keep], None, M, dt=sys.dt)


def said(function, *args, **options):
    """The value, and whether a warning came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = function(*args, **options)
    assert len(caught) <= 1 and all(issubclass(one.category, AccuracyWarning) for one in caught)
    return value, bool(caught)


def check(seed, number, distances=-2):
    """The norm and an error of one system; how many of both came without a warning."""
    rng = np.random.default_rng([seed, number])
    sys, horizon = near_equal(rng, distances)
    rom = reduced(rng, sys)
    norm, warned = said(lqo.h2_norm, sys, horizon)
    wanted = exact.norm(sys, horizon)
    assert warned or abs(norm - wanted) <= SIX_DIGITS * wanted, (number, norm, wanted)
    wanted_error = exact.error(sys, rom, horizon)
    error, warned_of_error = said(lqo.h2_error, sys, rom, horizon)
    close = abs(error - wanted_error) <= max(SIX_DIGITS * wanted_error, 1e-13 * wanted)
    assert warned_of_error or close, (number, error, wanted_error)
    found, _, digits = error_and_digits(sys, rom, norm_of(sys, horizon))
    allowed = (10.0**-digits + 1e-15) * wanted_error
    assert digits == 0 or abs(found - wanted_error) <= allowed, (number, found, wanted_error, digits)
    inner, warned_of_inner = said(lqo.h2_inner, sys, rom, horizon)
    wanted_inner = exact.inner(sys, rom, horizon)
    size = wanted * exact.norm(rom, horizon)
    assert warned_of_inner or abs(inner - wanted_inner) <= max(SIX_DIGITS * abs(wanted_inner), 1e-13 * size), (number, inner)
    return not warned, not warned_of_error


@pytest.mark.parametrize("part", range(4))
def test_near_equal_poles(part):
    certain = [check(20261201, number) for number in range(10 * part, 10 * (part + 1))]
    assert np.mean(certain) > 0.5  # a warning for everything would say nothing


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_near_equal_poles(part):
    for number in range(1000 + 25 * part, 1000 + 25 * (part + 1)):
        check(20261201, number)


def test_two_poles_with_opposite_residues():
    """The kernel is nearly ``k λ^(k−1)``: its norm by hand, in 60 digits, is 1.721326."""
    for distance, digits in ((1e-4, 12), (1e-6, 12), (1e-8, 12)):
        sys = lqo.DiagonalLQOSystem([0.5, 0.5 + distance], np.ones((2, 1)), [[-1 / distance, 1 / distance]], dt=True)
        wanted = exact.norm(sys)
        assert abs(lqo.h2_norm(sys) / wanted - 1) < 10.0**-digits
        assert abs(wanted - 1.7213) < 1e-3


def test_the_error_of_a_mode_beside_two_that_cancel():
    sys = lqo.DiagonalLQOSystem([0.9, 0.5, 0.5 + 1e-8], np.ones((3, 1)), [[1.0, -1e8, 1e8]], dt=True)
    red = lqo.reduce(sys, 1, method="modal")
    wanted = exact.error(sys, red.system)
    assert abs(red.error - wanted) <= 10.0**-red.digits * wanted
    assert red.digits >= 6
