"""The search for optimal poles: Newton steps, realisations, and what `variable_projection` promises of its result."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.reduction.sections.newton import _newton
from lqo_mor.reduction.sections.orthonormal import input_normal, realise
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL
from lqo_mor.systems.convert import to_dense
from tests.reduction.section_checks import LEAST, closed, form, jet, parameters, system

TIMES = pytest.mark.parametrize("continuous", [False, True])
RANKS = pytest.mark.parametrize("c", [0, 2])
POLES = {
    "apart": [-0.3 + 1j, -0.1 + 2j, -0.7],
    "double real": [-0.3, -0.3, -0.3],
    "double pair": [-0.3 + 1j, -0.3 + 1j, -0.5],
    "high Q": [-1e-6 + 1j, -1e-5 + 2.9j, -1e-7],
    "high Q and double": [-1e-5 + 1j, -1e-5 + 1j, -2.0 + 1e-9j],
}
SETS = pytest.mark.parametrize("mu", POLES.values(), ids=[name.replace(" ", "-") for name in POLES])


def in_time(mu, continuous):
    mu = np.array(mu, complex)
    return mu if continuous else np.exp(mu)


@TIMES
@SETS
def test_input_normal_form_has_the_poles_and_the_identity_as_gramian(continuous, mu):
    mu = in_time(mu, continuous)
    A, B = input_normal(mu, continuous)
    sums = A + A.T + B @ B.T if continuous else A @ A.T - np.eye(A.shape[0]) + B @ B.T
    np.testing.assert_allclose(sums, 0, atol=1e-10)  # the Gramian equation for the identity
    wanted = np.poly(closed(mu)).real
    np.testing.assert_allclose(np.poly(A), wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@TIMES
@RANKS
@SETS
def test_realisations_have_the_best_outputs(continuous, c, mu):
    sys, mu = system(continuous, c), in_time(mu, continuous)
    data, kinds = form(sys), [PAIR if z.imag else REAL for z in mu]
    x = []
    for z in mu:
        decay = -z.real if continuous else -np.log(np.abs(z))
        real = np.log(decay) if continuous else np.arctanh(z.real)
        x += [np.log(decay - LEAST), z.imag if continuous else np.angle(z)] if z.imag else [real]
    wanted = jet(data, kinds, np.array(x))[0]
    dense = to_dense(sys)
    for reduced in (realise(sys, mu, norm_of(sys)), realise(dense, mu, norm_of(dense))):
        assert lqo.h2_error(dense, reduced) ** 2 == pytest.approx(wanted, rel=1e-6)


FORMS = [(False, None, 0, True), (True, None, 0, True), (False, 50, 0, False), (True, 10.0, 0, False)]
FORMS += [(False, None, 2, True), (True, None, 2, True)]


@pytest.mark.parametrize(("continuous", "horizon", "c", "inner"), FORMS)
def test_newton_steps_end_where_the_gradient_vanishes(continuous, horizon, c, inner, rng):
    data, kinds = form(system(continuous, c), horizon, 0.0, inner), (FREE, REAL)
    for _ in range(5):
        x, history = parameters(rng, continuous, kinds), np.empty(201)
        value, status, steps = _newton(data, np.array(kinds), x, LEAST, 15.0, 200, 1e-6, history)
        assert np.all(np.diff(history[: steps + 1]) < 0)
        assert status == 0
        assert np.abs(jet(data, kinds, x)[1]).max() <= 1e-6 * value
        assert np.linalg.eigvalsh(jet(data, kinds, x)[2])[0] > -1e-6 * value


@pytest.mark.parametrize(("continuous", "horizon", "c", "inner"), [row for row in FORMS if not row[2]])
def test_newton_steps_converge_quadratically(continuous, horizon, c, inner, rng):
    data, kinds = form(system(continuous, c), horizon, 0.0, inner), np.array((FREE, REAL))
    best, history = parameters(rng, continuous, kinds), np.empty(201)
    _newton(data, kinds, best, LEAST, 15.0, 200, 1e-12, history)
    direction = rng.standard_normal(3)
    distances = []
    for size in (1e-2, 1e-3):  # a tenth of the distance leaves a hundredth
        x = best + size * direction
        _, gradient, hessian = jet(data, kinds, x)
        distances.append(np.linalg.norm(x - np.linalg.solve(hessian, gradient) - best))
    assert distances[1] < 0.02 * distances[0]
    x = best + 1e-2 * direction
    assert _newton(data, kinds, x, LEAST, 15.0, 4, 1e-9, history)[1] == 0


@TIMES
def test_newton_steps_leave_a_place_where_poles_meet(continuous):
    kinds, history = np.array([FREE]), np.empty(201)
    for seed in range(20):
        data = form(system(continuous, seed=seed), 20.0 if continuous else 60, 1e-13, inner=False)
        x = np.array([np.log(1.0), np.log(0.25)] if continuous else np.arctanh([2 * 0.6 / 1.36, 0.36]))
        assert _newton(data, kinds, x, LEAST, 15.0, 200, 1e-6, history)[1] == 0


def transfer(sys, z):
    """``H`` and ``H'`` of a diagonal system with one output at `z`."""
    residues, out = np.where(sys.is_real_pole, 0.5, 1.0) * sys.C[0] * sys.B[:, 0], np.zeros(2, complex)
    for lam, c in ((sys.poles, residues), (sys.poles.conj(), residues.conj())):
        out += [np.sum(c / (z - lam)), -np.sum(c / (z - lam) ** 2)]
    return out


@TIMES
@pytest.mark.parametrize("order", [1, 4, 5])
def test_the_optimum_interpolates_twice_at_its_mirrored_poles(continuous, order):
    """Meier, Luenberger: ``H`` and ``H'`` of both systems agree at ``1/μ``, in continuous time at ``−μ``."""
    sys = system(continuous, p=1, seed=1)
    red = lqo.variable_projection(sys, order, tolerance=1e-11)
    assert red.relative_error > 1e-3
    for mu in red.system.poles:
        z = -mu if continuous else 1 / mu
        np.testing.assert_allclose(transfer(red.system, z), transfer(sys, z), rtol=1e-7)


@TIMES
@pytest.mark.parametrize("order", [3, 5, 6])
def test_real_poles_of_two_sections_that_meet_part_as_a_pair(continuous, order):
    """Or residues grow and cancel, and the error of the result is not the one that was found."""
    for seed in range(20):
        sys = system(continuous, seed=seed, pairs=4, reals=5, p=1)
        begun = system(continuous, seed=100 + seed, pairs=order // 2, reals=order % 2, p=1)
        red = lqo.variable_projection(sys, order, start=begun)
        assert red.error == pytest.approx(np.sqrt(red.history[-1]), rel=1e-5)


@pytest.mark.parametrize("order", [5, 8])
def test_the_default_is_as_good_as_the_best_of_many_restarts(order, rng):
    layer, good = lqo.examples.s4d(16, 10, kind="legs", dt_min=1e-2, dt_max=0.3, seed=order), 0
    for channel in range(10):
        sys, starts = layer[channel], []
        for _ in range(20):
            mu = rng.choice(sys.poles[sys.poles.imag != 0], order // 2, replace=False)
            mu = np.abs(mu) ** rng.uniform(0.3, 3, mu.size) * np.exp(1j * np.angle(mu) * rng.uniform(0.8, 1.2, mu.size))
            mu = np.append(mu, rng.uniform(0.5, 0.99, order % 2))
            starts.append(lqo.DiagonalLQOSystem(mu, np.ones((mu.size, 1)), np.ones((1, mu.size)), dt=1.0))
        best = lqo.variable_projection(sys, order, start=starts).error
        good += lqo.variable_projection(sys, order).error <= 1.01 * best
    assert good >= 9


@TIMES
@pytest.mark.parametrize(("horizon", "c"), [(None, 0), (None, 2), (25, 0)])
def test_more_states_are_never_worse(continuous, c, horizon):
    for seed in range(3):
        sys = system(continuous, c, seed=seed, pairs=4, reals=3)
        errors = [lqo.variable_projection(sys, order, horizon=horizon).error for order in range(1, 11)]
        assert np.all(np.diff(errors) <= 1e-9 * errors[0])


@pytest.mark.filterwarnings("ignore::lqo_mor.errors.StabilityWarning")  # an exact start over a short horizon is kept
@TIMES
def test_every_result_is_stable(continuous, rng):
    for seed in range(100):
        pairs, reals = rng.integers(1, 5), rng.integers(0, 4)
        sys = system(continuous, seed=seed, pairs=pairs, reals=reals, p=1 + seed % 2)
        order = int(rng.integers(1, sys.order))
        red = lqo.variable_projection(sys, order, horizon=(None, 3, 40)[seed % 3])
        assert red.system.order <= order
        assert np.max(red.system.poles.real if continuous else np.abs(red.system.poles) - 1) < 0
        assert red.error <= red.start_error


@TIMES
@pytest.mark.parametrize("horizon", [None, 25])
def test_a_smaller_start_is_filled_up_and_never_worse(continuous, horizon):
    for seed in range(4):
        sys = system(continuous, seed=seed)
        for order, smaller in ((5, 2), (4, 3), (6, 1)):
            start = lqo.balanced_truncation(sys, smaller)
            red = lqo.variable_projection(sys, order, start=start, horizon=horizon)
            assert red.system.order == order
            assert red.error < red.start_error
            assert red.start_error == pytest.approx(lqo.h2_error(sys, start.system, horizon), rel=1e-9)


@TIMES
@pytest.mark.parametrize("horizon", [None, 25])
@pytest.mark.parametrize("budget", [{"order": 3}, {"slots": 2}])
@pytest.mark.parametrize("batch", [(), (1,)])
def test_poles_keep_the_margin(continuous, horizon, budget, batch):
    lam = np.array([-1e-3 + 0.5j, -1e-4, -0.3 + 1.5j])
    lam, shape = lam if continuous else np.where(lam.imag == 0, np.exp(lam.real), np.exp(lam)), (*batch, 3, 1)
    rows = np.broadcast_to([[1.0, 0.3, 0.1]], (*batch, 1, 3))
    sys = lqo.DiagonalLQOSystem(np.broadcast_to(lam, (*batch, 3)), np.ones(shape), rows, dt=0 if continuous else 1.0)

    def reach(margin):
        mu = lqo.variable_projection(sys, horizon=horizon, margin=margin, **budget).system.poles
        return np.max(mu.real if continuous else np.abs(mu) - 1)

    assert reach(0.02) <= -0.02 * (1 - 1e-9)
    assert reach(1e-12) > -0.02  # without that margin they are closer


def test_exchanges_never_make_it_worse_and_sometimes_better():
    gains = []
    for seed in range(24):
        continuous, horizon = seed % 2 == 0, (None, 25)[seed // 2 % 2]
        sys = system(continuous, seed=seed, pairs=9, reals=2, p=1)
        begun = system(continuous, seed=100 + seed, pairs=2, reals=1, p=1)
        none, six = (lqo.variable_projection(sys, 5, start=begun, horizon=horizon, exchanges=k).error for k in (0, 6))
        gains.append(none / six)
    assert min(gains) >= 1 - 1e-9
    assert max(gains) > 1.01
