"""The two forms of the squared error as a function of sections: values, derivatives, sections added and taken away."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.reduction.sections.allpass_error import _factors, _gramian, _without_each
from lqo_mor.reduction.sections.candidates import _additions, _candidate_parts, _removals
from lqo_mor.reduction.sections.sections import FREE, PAIR, REAL, _size
from tests.brute import derivative
from tests.reduction.section_checks import LAYOUTS, LEAST, best_error, form, jet, parameters, poles, system

TIMES = pytest.mark.parametrize("continuous", [False, True])
KINDS = pytest.mark.parametrize("kinds", LAYOUTS)
RIDGES = pytest.mark.parametrize("ridge", [0.0, 1e-3])
WHERE = pytest.mark.parametrize(
    ("continuous", "horizon"), [(False, None), (False, 40), (False, 3000), (True, None), (True, 7.0), (True, 300.0)]
)


def slopes(data, kinds, x):
    return derivative(lambda y: jet(data, kinds, y)[0], x, step=3e-4)


def bends(data, kinds, x):
    return np.array([derivative(lambda y, i=i: jet(data, kinds, y)[1][i], x, step=3e-4) for i in range(x.size)])


@TIMES
@KINDS
@pytest.mark.parametrize("c", [0, 3])
def test_inner_form_is_the_squared_error_of_the_best_outputs(continuous, kinds, c, rng):
    sys = system(continuous, c)
    data = form(sys)
    for _ in range(5):
        x = parameters(rng, continuous, kinds)
        assert jet(data, kinds, x)[0] == pytest.approx(best_error(sys, poles(continuous, kinds, x)), rel=1e-9)


@TIMES
def test_inner_form_keeps_its_digits_where_the_error_is_small(continuous):
    sys = system(continuous, pairs=2, reals=1)
    inside = form(lqo.DiagonalLQOSystem(sys.poles, sys.B, sys.C * [1, 1e-9, 1], None, None, dt=sys.dt))
    alone = form(lqo.DiagonalLQOSystem(sys.poles[1:2], sys.B[1:2], 1e-9 * sys.C[:, 1:2], None, None, dt=sys.dt))
    mu = sys.poles[[0, 2]]
    x = np.array([np.log(-mu[0].real - LEAST) if continuous else np.log(-np.log(np.abs(mu[0])) - LEAST), 0.0, 0.0])
    x[1] = mu[0].imag if continuous else np.angle(mu[0])
    x[2] = np.log(-mu[1].real) if continuous else np.arctanh(mu[1].real)
    # Both other modes are matched: what is left is the error of the small one.
    assert jet(inside, (PAIR, REAL), x)[0] == pytest.approx(jet(alone, (PAIR, REAL), x)[0], rel=1e-5)


@TIMES
@KINDS
def test_derivatives_of_the_inner_form(continuous, kinds, rng):
    data = form(system(continuous))
    x = parameters(rng, continuous, kinds)
    _, gradient, hessian = jet(data, kinds, x)
    np.testing.assert_allclose(gradient, slopes(data, kinds, x), rtol=0, atol=1e-8 * np.abs(gradient).max())
    np.testing.assert_allclose(hessian, bends(data, kinds, x), rtol=0, atol=1e-7 * np.abs(hessian).max())


def left_out(sys, data, kinds, x):
    """The part ``2 Σ tr(M_i ∂P M_i ∂P)`` of the second derivative of ``E₂`` that the Hessian goes without."""
    real, rows, plain, hermitian = data[4], data[6], data[8], data[9]
    c = rows.shape[0] // 2
    M = np.einsum("ij,ja,jb->iab", sys.M.W, rows[:c], rows[c:])
    M = 0.5 * (M + M.transpose(0, 2, 1))

    def gramian(y):
        s, n = len(kinds), sys.n_slots
        parts = [np.empty((s, n), complex) for _ in range(6)]
        tau, P = np.empty(n, complex), np.empty((rows.shape[1], rows.shape[1]))
        _factors((sys.is_continuous, data[2]), np.array(kinds), y, LEAST, *parts)
        _without_each(parts[0], data[3], tau, np.empty((s, n), complex))
        _gramian(real, plain, hermitian, tau, P)
        return P

    step = 1e-5 * np.eye(x.size)
    dP = np.array([(gramian(x + h) - gramian(x - h)) / 2e-5 for h in step])
    return 2 * np.einsum("iab,jbc,icd,kda->jk", M, dP, M, dP, optimize=True)


@TIMES
@KINDS
def test_derivatives_of_the_inner_form_with_a_quadratic_output(continuous, kinds, rng):
    sys = system(continuous, c=3)
    data, x = form(sys), parameters(rng, continuous, kinds)
    _, gradient, hessian = jet(data, kinds, x)
    np.testing.assert_allclose(gradient, slopes(data, kinds, x), rtol=0, atol=1e-8 * np.abs(gradient).max())
    missing = left_out(sys, data, kinds, x)
    assert np.abs(missing).max() > 1e-5 * np.abs(hessian).max()
    np.testing.assert_allclose(hessian - missing, bends(data, kinds, x), rtol=0, atol=1e-7 * np.abs(hessian).max())


@WHERE
@RIDGES
@KINDS
def test_projection_form_is_the_squared_error_of_the_best_outputs(continuous, horizon, ridge, kinds, rng):
    sys = system(continuous)
    data = form(sys, horizon, ridge, inner=False)
    for _ in range(3):
        x = parameters(rng, continuous, kinds)
        wanted = best_error(sys, poles(continuous, kinds, x), horizon, ridge)
        assert jet(data, kinds, x)[0] == pytest.approx(wanted, rel=1e-8)


@WHERE
@RIDGES
@KINDS
def test_derivatives_of_the_projection_form(continuous, horizon, ridge, kinds, rng):
    data = form(system(continuous), horizon, ridge, inner=False)
    x = parameters(rng, continuous, kinds)
    _, gradient, hessian = jet(data, kinds, x)
    np.testing.assert_allclose(gradient, slopes(data, kinds, x), rtol=0, atol=1e-7 * np.abs(gradient).max())
    np.testing.assert_allclose(hessian, bends(data, kinds, x), rtol=0, atol=1e-6 * np.abs(hessian).max())


@TIMES
@KINDS
def test_both_forms_agree_to_the_second_derivative(continuous, kinds, rng):
    sys, x = system(continuous), parameters(rng, continuous, kinds)
    inner, projection = jet(form(sys), kinds, x), jet(form(sys, inner=False), kinds, x)
    for a, b in zip(inner, projection, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-8 * np.abs(a).max())


@TIMES
def test_forms_agree_where_the_poles_of_a_section_meet(continuous):
    """There residues grow and cancel: the projection form moves the poles apart, the inner form has nothing to invert."""
    sys = system(continuous)
    x = np.array([np.log(2.0), 0.0] if continuous else np.arctanh([2 * 0.6 / 1.36, 0.36]))
    value, gradient, _ = jet(form(sys, inner=False), (FREE,), x)
    wanted = jet(form(sys), (FREE,), x)
    assert value == pytest.approx(wanted[0], rel=1e-4)
    np.testing.assert_allclose(gradient, wanted[1], rtol=0, atol=1e-2 * np.abs(wanted[1]).max())


FORMS = [(continuous, None, 0.0, True) for continuous in (False, True)]
FORMS += [(False, horizon, ridge, False) for horizon in (None, 40) for ridge in (0.0, 1e-2)]
FORMS += [(True, horizon, ridge, False) for horizon in (None, 7.0) for ridge in (0.0, 1e-2)]
EVERY = pytest.mark.parametrize(("continuous", "horizon", "ridge", "inner"), FORMS)


@EVERY
@pytest.mark.parametrize("kind", [FREE, PAIR, REAL])
@pytest.mark.parametrize("kinds", [(), *LAYOUTS])
def test_a_score_is_the_error_with_that_section_added(continuous, horizon, ridge, inner, kind, kinds, rng):
    sys = system(continuous)
    data, x = form(sys, horizon, ridge, inner), parameters(rng, continuous, kinds) if kinds else np.zeros(0)
    candidates = np.array([np.resize(parameters(rng, continuous, [kind]), 2) for _ in range(8)])
    parts = _candidate_parts(data, kind, candidates, LEAST)
    scores = _additions(data, np.array(kinds, int), x, LEAST, parts)
    before = 0.0 if inner else jet(data, kinds, x)[0] if kinds else data[12]
    wanted = [jet(data, (*kinds, kind), np.r_[x, y[: _size(kind)]])[0] for y in candidates]
    np.testing.assert_allclose(before + scores, wanted, rtol=1e-7)


@EVERY
@KINDS
def test_a_section_is_missed_by_what_the_error_is_without_it(continuous, horizon, ridge, inner, kinds, rng):
    data, x = form(system(continuous), horizon, ridge, inner), parameters(rng, continuous, kinds)
    edges = np.cumsum([0, *map(_size, kinds)])
    wanted = [
        jet(data, kinds[:p] + kinds[p + 1 :], np.delete(x, np.arange(edges[p], edges[p + 1])))[0] for p in range(len(kinds))
    ]
    missed = _removals(data, np.array(kinds), x, LEAST)
    np.testing.assert_allclose(missed + (0.0 if inner else jet(data, kinds, x)[0]), wanted, rtol=1e-7)


@TIMES
def test_scores_with_a_quadratic_output_bound_the_error_within_a_factor_of_two(continuous, rng):
    sys, kinds = system(continuous, c=3), (FREE, REAL)
    data, x = form(sys), parameters(rng, continuous, kinds)
    candidates = np.array([parameters(rng, continuous, [PAIR]) for _ in range(8)])
    scores = _additions(data, np.array(kinds), x, LEAST, _candidate_parts(data, PAIR, candidates, LEAST))
    errors = np.array([jet(data, (*kinds, PAIR), np.r_[x, y])[0] for y in candidates])
    assert np.all(errors <= scores)
    assert np.all(scores <= 2 * errors)


@TIMES
def test_a_candidate_that_is_there_already_adds_nothing(continuous, rng):
    data, x = form(system(continuous), inner=False), parameters(rng, continuous, (PAIR, REAL))
    for kind, same in ((PAIR, x[:2]), (REAL, x[[2, 2]])):
        parts = _candidate_parts(data, kind, same[np.newaxis], LEAST)
        assert _additions(data, np.array((PAIR, REAL)), x, LEAST, parts)[0] == pytest.approx(0, abs=1e-6 * data[12])
