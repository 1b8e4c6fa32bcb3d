import dataclasses

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.errors import DimensionError, InvalidInputError, OrderError
from lqo_mor.reduction.balanced import balance, truncate
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.square_root import project, projections
from tests.cases import dense, diagonal, get, parametrize, select

BAND = InputSpectrum.from_autoregression([2 * 0.97 * np.cos(0.5), -(0.97**2)])  # a resonance at the frequency 0.5
DISCRETE = select(hard=False, real=True, continuous=False)


def coloured(m, batch=()):
    u = np.random.default_rng(1).standard_normal((*batch, 3, 12, m))
    return InputSpectrum.from_data(u + np.cumsum(u, axis=-2))


@parametrize([case for case in DISCRETE if not case.batch])
def test_the_transformation_makes_the_weighted_gramian_and_the_other_diagonal(sys):
    spectrum = coloured(sys.n_inputs)
    full = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    V, W, values = projections(*gramian_factors(sys, norm_of(sys, None, spectrum)), full.order)
    np.testing.assert_allclose(W.T @ V, np.eye(V.shape[1]), atol=1e-6)
    P, Q = (gramian(full, spectrum=spectrum) for gramian in (lqo.controllability_gramian, lqo.observability_gramian))
    np.testing.assert_allclose(W.T @ P @ W, np.diag(values), atol=1e-9 * values[0])
    np.testing.assert_allclose(V.T @ Q @ V, np.diag(values), atol=1e-9 * values[0])
    moved = project(full, V, W)  # the same system in other coordinates
    np.testing.assert_allclose(
        lqo.controllability_gramian(moved, spectrum=spectrum), np.diag(values), rtol=0, atol=1e-7 * values[0]
    )
    np.testing.assert_allclose(values, lqo.hankel_singular_values(sys, spectrum=spectrum)[: values.size], rtol=1e-10)


@parametrize(DISCRETE)
def test_the_result_is_stable_and_its_errors_are_the_weighted_ones(sys):
    spectrum = coloured(sys.n_inputs, getattr(sys, "batch", ()))
    red = lqo.balanced_truncation(sys, 3, spectrum=spectrum)
    poles = red.system.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.linalg.eigvals(red.system.A)
    assert np.abs(poles).max() < 1
    assert type(red.system) is type(sys)
    np.testing.assert_array_equal(red.error, lqo.h2_error(sys, red.system, spectrum=spectrum))
    np.testing.assert_array_equal(red.relative_error, lqo.h2_error(sys, red.system, relative=True, spectrum=spectrum))
    values = lqo.hankel_singular_values(sys, spectrum=spectrum)[..., : red.hsv.shape[-1]]
    np.testing.assert_allclose(red.hsv, values, rtol=1e-8, atol=1e-12 * values.max())
    assert red.bound is None
    assert red.horizon is None
    assert np.shape(red.status) == np.shape(red.error) == getattr(sys, "batch", ())
    assert np.all(np.asarray(red.digits) >= 8)
    assert str(red).startswith("Reduction by balanced to")


@parametrize([case for case in DISCRETE if case.linear and not case.batch])
def test_white_input_gives_the_plain_truncation(sys):
    a, b = lqo.balanced_truncation(sys, 3, spectrum=InputSpectrum.white(sys.n_inputs)), lqo.balanced_truncation(sys, 3)
    assert a.error == pytest.approx(b.error, rel=1e-9)
    np.testing.assert_allclose(a.hsv, b.hsv, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("form", ["diagonal", "dense"])
@pytest.mark.parametrize("order", [4, 6, 8])
def test_a_narrow_band_pays_where_the_input_is(form, order):
    gains, losses = [], []
    for seed in range(6):
        sys = diagonal(seed, pairs=10)
        sys = lqo.to_dense(sys) if form == "dense" else sys
        weighted, plain = lqo.balanced_truncation(sys, order, spectrum=BAND), lqo.balanced_truncation(sys, order)
        gains.append(lqo.h2_error(sys, plain.system, spectrum=BAND) / weighted.error)
        losses.append(lqo.h2_error(sys, weighted.system) / plain.error)
    assert np.median(gains) > 1.5
    assert np.median(losses) > 1
    assert min(gains) > 0.9  # truncation is not optimal


def test_diagonal_equals_dense():
    sys = diagonal(21, pairs=5, reals=1, c=2, p=2, m=2)
    for order in (3, 6):
        a = lqo.balanced_truncation(sys, order, spectrum=coloured(2))
        b = lqo.balanced_truncation(lqo.to_dense(sys), order, spectrum=coloured(2))
        assert a.error == pytest.approx(b.error, rel=1e-8)


def test_channels_with_spectra_of_their_own_and_one_without_input():
    sys = diagonal(22, pairs=4, batch=(3,))
    R = coloured(1, (3,)).covariances.copy()
    R[1] = 0
    spectrum, seen = InputSpectrum(R), []
    red = lqo.balanced_truncation(sys, 4, spectrum=spectrum, progress=lambda done, total: seen.append((done, total)))
    for i in (0, 2):
        assert red.error[i] == pytest.approx(lqo.balanced_truncation(sys[i], 4, spectrum=spectrum[i]).error, rel=1e-9)
    assert red.error[1] == 0
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_slots_are_a_budget_here_too():
    sys = diagonal(23, pairs=4, reals=2)
    red = lqo.balanced_truncation(sys, slots=2, spectrum=BAND)
    assert red.system.n_slots <= 2


def test_several_orders_from_one_pair_ofprojections():
    sys = diagonal(24, pairs=6)
    balanced = balance(sys, norm_of(sys, None, BAND))
    for order in (2, 5):
        red = truncate(sys, balanced, Budget(order), norm_of(sys, None, BAND))
        assert red.error == pytest.approx(lqo.balanced_truncation(sys, order, spectrum=BAND).error, rel=1e-12)


def test_feedthrough_is_kept_and_does_not_count():
    sys = get("diagonal discrete feedthrough")
    spectrum = coloured(2)
    a = lqo.balanced_truncation(sys, 3, spectrum=spectrum)
    b = lqo.balanced_truncation(dataclasses.replace(sys, D=None), 3, spectrum=spectrum)
    assert a.error == pytest.approx(b.error, rel=1e-9)
    np.testing.assert_array_equal(a.system.D, sys.D)


def test_reduce_passes_the_spectrum_on():
    sys = dense(25)
    red = lqo.reduce(sys, 3, method="balanced", spectrum=BAND)
    assert red.error == lqo.balanced_truncation(sys, 3, spectrum=BAND).error


@pytest.mark.parametrize("budget", [{"orders": [3]}, {"max_error": 0.2}])
def test_reduce_passes_the_spectrum_on_for_several_orders_and_for_a_tolerance(budget):
    sys = dense(25)
    red = lqo.reduce(sys, method="balanced", spectrum=BAND, **budget)
    red = red.reductions["balanced"][0] if "orders" in budget else red
    assert red.error == lqo.balanced_truncation(sys, red.system.order, spectrum=BAND).error


def test_what_is_refused():
    with pytest.raises(InvalidInputError, match="leave out horizon"):
        lqo.balanced_truncation(dense(0), 2, horizon=5, spectrum=BAND)
    with pytest.raises(InvalidInputError, match="continuous"):
        lqo.balanced_truncation(dense(0, continuous=True), 2, spectrum=BAND)
    with pytest.raises(DimensionError, match="that of 1 inputs"):
        lqo.balanced_truncation(dense(0, m=2), 2, spectrum=BAND)
    with pytest.raises(OrderError):
        lqo.balanced_truncation(dense(0), 6, spectrum=BAND)
    with pytest.raises(InvalidInputError, match="no transfer"):
        lqo.balanced_truncation(dense(0), 2, spectrum=InputSpectrum.white(1, 0.0))
