import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.analysis.door import norm_of
from lqo_mor.errors import StabilityWarning
from lqo_mor.reduction.refit import fit_outputs, stabilise
from lqo_mor.systems.poles import reflect, unstable
from tests.cases import diagonal, get

FULL = get("diagonal discrete siso linear")


def test_discrete_poles_are_mirrored_at_the_circle():
    poles = np.array([0.5, 2.0, -1.25, 3j, 1.1 * np.exp(1j), 0.0, 1.0, np.exp(2j)])
    got = reflect(poles, False)
    np.testing.assert_allclose(got[:6], [0.5, 0.5, -0.8, 1j / 3, np.exp(1j) / 1.1, 0.0], rtol=1e-11)
    np.testing.assert_allclose(got[6:], poles[6:], rtol=1e-11)
    assert np.all(np.abs(got) < 1)
    assert not np.any(unstable(got, False))


def test_continuous_poles_are_mirrored_at_the_axis():
    poles = np.array([-0.5, 2.0, 1 + 3j, 2j, -1e-9 + 1j])
    got = reflect(poles, True)
    np.testing.assert_allclose(got, [-0.5, -2.0, -1 + 3j, 2j, -1e-9 + 1j], rtol=1e-11)
    assert np.all(got.real < 0)
    np.testing.assert_array_equal(got.imag, poles.imag)


def test_a_pole_at_the_origin_of_continuous_time_becomes_stable():
    assert np.all(reflect(np.array([0.0 + 0j]), True).real < 0)


def test_the_boundary_counts_as_unstable():
    np.testing.assert_array_equal(unstable(np.array([1.0, 0.999, -1.0, 1j]), False), [True, False, True, True])
    np.testing.assert_array_equal(unstable(np.array([0.0, -1e-300, 1j]), True), [True, False, True])


def test_stable_systems_pass_untouched():
    rom = diagonal(3, pairs=1)
    system, repaired = stabilise(FULL, rom, norm_of(FULL))
    assert system is rom
    assert not repaired


def test_repair_reflects_and_refits():
    rom = lqo.DiagonalLQOSystem([1.25 * np.exp(0.7j), 0.4], [[1.0], [1.0]], [[1.0, 1.0]], dt=1.0)
    with pytest.warns(StabilityWarning, match="the reduced system was unstable"):
        system, repaired = stabilise(FULL, rom, norm_of(FULL))
    assert repaired
    np.testing.assert_allclose(system.poles, [0.8 * np.exp(0.7j), 0.4])
    assert lqo.h2_error(FULL, system) == pytest.approx(
        lqo.h2_error(FULL, fit_outputs(FULL, system.poles, rom.B, norm_of(FULL))), rel=1e-12
    )
    assert lqo.h2_error(FULL, system) <= lqo.h2_norm(FULL)


@pytest.mark.parametrize(
    "name", ["diagonal discrete siso factored", "diagonal discrete mimo factored", "dense continuous mimo quadratic"]
)
def test_fitted_outputs_are_optimal(name, rng):
    sys = get(name)
    rom = diagonal(4, pairs=1, reals=1, m=sys.n_inputs, continuous=sys.is_continuous)
    fitted = fit_outputs(sys, rom.poles, rom.B, norm_of(sys))
    error = lqo.h2_error(sys, fitted)
    assert error < lqo.h2_norm(sys)
    q, real = fitted.M, fitted.is_real_pole
    for _ in range(20):
        step = [1e-3 * (rng.standard_normal(Z.shape) + 1j * rng.standard_normal(Z.shape) * ~real) for Z in (fitted.C, q.U, q.V)]
        C, U, V = (Z + dZ for Z, dZ in zip((fitted.C, q.U, q.V), step, strict=True))
        other = lqo.DiagonalLQOSystem(fitted.poles, fitted.B, C, fitted.D, lqo.QuadraticOutput(U, V, q.W), dt=fitted.dt)
        assert lqo.h2_error(sys, other) >= error * (1 - 1e-12)


@pytest.mark.parametrize("name", ["diagonal discrete batch siso linear", "diagonal continuous batch siso factored"])
def test_fitted_outputs_of_a_batch(name):
    sys = get(name)
    rom = diagonal(5, pairs=1, reals=1, batch=sys.batch, continuous=sys.is_continuous)
    fitted = fit_outputs(sys, rom.poles, rom.B, norm_of(sys, 5))
    for index in np.ndindex(sys.batch):
        single = fit_outputs(sys[index], rom.poles[index], rom.B[index], norm_of(sys, 5))
        np.testing.assert_allclose(fitted.C[index], single.C, rtol=1e-9, atol=1e-11)
    # A slot without input is padding: it changes nothing.
    B = rom.B.copy()
    B[..., 1, :] = 0
    padded = fit_outputs(sys, rom.poles, B, norm_of(sys, 5))
    short = fit_outputs(sys, rom.poles[..., :1], rom.B[..., :1, :], norm_of(sys, 5))
    np.testing.assert_allclose(lqo.h2_error(sys, padded, 5), lqo.h2_error(sys, short, 5), rtol=1e-10)
