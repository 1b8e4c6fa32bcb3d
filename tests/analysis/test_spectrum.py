import dataclasses

import numpy as np
import pytest
import scipy.signal

import lqo_mor as lqo
from lqo_mor.analysis import weighted
from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import HorizonNorm
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import SpectrumNorm
from lqo_mor.errors import AccuracyWarning, DimensionError, InvalidInputError, UnstableSystemError
from tests import brute
from tests.cases import CASES, dense, diagonal, get, parametrize, select, singles

REGULAR = select(hard=False, continuous=False)
STEPS = 400  # of a sum that stands for an infinite one: 0.9^800 is below rounding
ROTATION = 0.9 * np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])


def coloured(m, seed=0, lags=9, batch=(), sequences=3):
    """A spectrum with correlations between its inputs that do not commute, of short memory."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((*batch, sequences, lags, m))
    return InputSpectrum.from_data(u + 0.8 * np.roll(u, 1, axis=-1) + np.cumsum(u, axis=-2))


def covariance(spectrum, j):
    """``E[u_{t+j} u_tᵀ]`` for any lag."""
    R = spectrum.covariances
    return np.zeros(R.shape[1:]) if abs(j) >= len(R) else R[j] if j >= 0 else R[-j].T


def moments(sys, spectrum, delay, other=None, steps=STEPS):
    """``E[x x'ᴴ]``, ``E[x x'ᵀ]`` and ``E[x uᵀ]`` over the closed set of states, by double sums over kernels and lags."""
    X, Y = brute.states(sys, steps), brute.states(sys if other is None else other, steps)
    hermitian, plain = 0, 0
    for j in range(1 - spectrum.lags, spectrum.lags):  # u_{t-k} and u_{t-l} with l = k + j
        left, right = X[max(0, -j) : steps - max(0, j)], Y[max(0, j) : steps - max(0, -j)]
        hermitian = hermitian + np.einsum("kax,xy,kby->ab", left, covariance(spectrum, j), right.conj(), optimize=True)
        plain = plain + np.einsum("kax,xy,kby->ab", left, covariance(spectrum, j), right, optimize=True)
    seen = sum(X[k] @ covariance(spectrum, k + delay).T for k in range(spectrum.lags))
    return hermitian, plain, seen


def brute_inner(sys, other, spectrum, delay):
    """``E[y'ᴴ y]`` for a Gaussian input, from the moments and Isserlis' formula."""
    _, plain, seen = moments(sys, spectrum, delay)
    _, other_plain, other_seen = moments(other, spectrum, delay)
    X = moments(sys, spectrum, delay, other)[0]
    (_, _, C, M), (_, _, C2, M2) = brute.closed(sys), brute.closed(other)
    R0 = spectrum.covariances[0]
    total = np.trace(C @ X @ C2.conj().T) + np.trace(sys.D @ R0 @ other.D.conj().T)
    total += np.trace(C @ seen @ other.D.conj().T) + np.trace(sys.D @ (C2 @ other_seen).conj().T)
    for Mi, Ni in zip(M, M2, strict=True):
        total += np.sum(Mi * plain) * np.sum(Ni * other_plain).conj()
        total += 2 * np.einsum("ab,cd,ac,bd->", Mi, Ni.conj(), X, X, optimize=True)
    return total


def to_real(sys):
    return lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys


# the spectrum itself


def test_estimate_is_the_biased_one_averaged_over_sequences(rng):
    u = rng.standard_normal((4, 15, 2)) + 0.5  # the mean stays
    spectrum = InputSpectrum.from_data(u)
    for j in range(15):
        wanted = sum(v[j:].T @ v[: 15 - j] for v in u) / (4 * 15)
        np.testing.assert_allclose(spectrum.covariances[j], wanted, atol=1e-14)
    np.testing.assert_allclose(InputSpectrum.from_data(u[0]).covariances, InputSpectrum.from_data(u[:1]).covariances)
    batch = InputSpectrum.from_data(np.moveaxis(u, -1, 0)[..., np.newaxis])
    assert batch.batch == (2,)
    np.testing.assert_allclose(batch.covariances[:, :, 0, 0].T, np.diagonal(spectrum.covariances, axis1=1, axis2=2), atol=1e-14)


@pytest.mark.parametrize("lags", [1, 4, 30])
def test_fewer_lags_are_tapered_and_stay_positive(lags, rng):
    u = rng.standard_normal((2, 25, 2))
    full, cut = InputSpectrum.from_data(u), InputSpectrum.from_data(u, lags)
    kept = min(lags, 25)
    assert cut.lags == kept
    window = np.ones(25) if lags >= 25 else 1 - np.arange(kept) / kept
    np.testing.assert_allclose(cut.covariances, full.covariances[:kept] * window[:, np.newaxis, np.newaxis], atol=1e-14)
    for spectrum in (full, cut):
        values = np.linalg.eigvalsh(spectrum.density(np.linspace(-np.pi, np.pi, 300)))
        assert values.min() > -1e-13 * values.max()


def test_many_sequences_are_taken_in_parts(rng, monkeypatch):
    u = rng.standard_normal((7, 20, 2))
    whole = InputSpectrum.from_data(u)
    monkeypatch.setattr("lqo_mor.analysis.spectrum._BLOCK", 100)
    np.testing.assert_allclose(InputSpectrum.from_data(u).covariances, whole.covariances, atol=1e-15)
    np.testing.assert_allclose(InputSpectrum(whole.covariances).density(np.ones(9)), whole.density(np.ones(9)))


def test_density_of_an_autoregression_is_that_of_its_filter():
    Phi, W = np.array([0.7 * ROTATION, [[0.1, 0.0], [0.2, -0.1]]]), np.array([[1.0, 0.3], [0.3, 2.0]])
    spectrum = InputSpectrum.from_autoregression(Phi, W)
    omega = np.linspace(-np.pi, np.pi, 257)[:-1]
    for value, w in zip(spectrum.density(omega), omega, strict=True):
        T = np.linalg.inv(np.eye(2) - Phi[0] * np.exp(-1j * w) - Phi[1] * np.exp(-2j * w))
        np.testing.assert_allclose(value, T @ W @ T.conj().T, atol=1e-13 * np.abs(value).max() + 1e-13)
    np.testing.assert_allclose(spectrum.density(omega).mean(axis=0), spectrum.covariances[0], atol=1e-13)
    assert spectrum.density(omega.reshape(2, -1)).shape == (2, 128, 2, 2)


def test_autoregression_of_first_order_and_its_lags():
    spectrum = InputSpectrum.from_autoregression([0.5], 0.75, lags=5)
    np.testing.assert_allclose(spectrum.covariances[:, 0, 0], 0.5 ** np.arange(5), rtol=1e-14)
    assert 0.5 ** (InputSpectrum.from_autoregression([0.5]).lags - 1) < 1e-15
    one = InputSpectrum.from_autoregression([0.3, 0.2, 0.1], lags=1)
    np.testing.assert_allclose(one.covariances, InputSpectrum.from_autoregression([0.3, 0.2, 0.1]).covariances[:1])


def test_white_and_mixed():
    white = InputSpectrum.white(2, 3.0)
    np.testing.assert_array_equal(white.covariances, 3 * np.eye(2)[np.newaxis])
    spectrum = coloured(2)
    mixed = spectrum.mixed(0.25).covariances
    np.testing.assert_allclose(mixed[0], 1.25 * spectrum.covariances[0])
    np.testing.assert_array_equal(mixed[1:], spectrum.covariances[1:])


def test_it_is_frozen_and_says_what_it_is():
    spectrum = coloured(2)
    with pytest.raises(ValueError, match="read-only"):
        spectrum.covariances[0] = 0
    assert repr(InputSpectrum([2.0, 1.0])) == "InputSpectrum(inputs=1, lags=2, power=2)"
    batch = InputSpectrum(np.array([[2.0, 1.0], [1.0, 0.0]])[..., np.newaxis, np.newaxis])
    assert repr(batch) == "InputSpectrum(batch=(2,), inputs=1, lags=2, power=1..2)"
    np.testing.assert_array_equal(batch[0].covariances[:, 0, 0], [2.0, 1.0])
    assert SpectrumNorm(False, None, batch).channel((1,)).spectrum.batch == ()
    for norm in (SpectrumNorm(False, None, spectrum), HorizonNorm(False)):
        assert norm.channel((1,)) is norm


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: InputSpectrum(np.ones((3, 2))), DimensionError, r"covariances has shape \(3, 2\)"),
        (lambda: InputSpectrum(np.ones((3, 2, 1))), DimensionError, r"expected \(\.\.\., lags, m, m\)"),
        (lambda: InputSpectrum([np.nan]), InvalidInputError, "not finite"),
        (lambda: InputSpectrum([1j]), InvalidInputError, "must be real"),
        (lambda: InputSpectrum([[[1.0, 0.5], [0.0, 1.0]]]), InvalidInputError, "not symmetric"),
        (lambda: InputSpectrum([[[1.0, 2.0], [2.0, 1.0]]]), InvalidInputError, "not positive semidefinite.*is -1"),
        (lambda: InputSpectrum([1.0, 0.5, -1.5]), InvalidInputError, "R_2 is larger than R_0 allows"),
        (lambda: InputSpectrum.from_data(np.ones(5)), DimensionError, r"u has shape \(5,\), expected \(steps, m\)"),
        (lambda: InputSpectrum.from_data([[np.inf]]), InvalidInputError, "u has 1 entries that are not finite"),
        (lambda: InputSpectrum.from_data(np.ones((5, 1)), 0), InvalidInputError, "lags must be a positive integer, got 0"),
        (lambda: InputSpectrum.from_autoregression([1.0]), UnstableSystemError, "modulus 1"),
        (lambda: InputSpectrum.from_autoregression(np.ones((1, 2, 3))), DimensionError, r"\(q, m, m\)"),
        (lambda: InputSpectrum.from_autoregression([0.5], np.eye(2)), DimensionError, r"noise has shape \(2, 2\)"),
        (lambda: InputSpectrum.from_autoregression([0.5], -1.0), InvalidInputError, "not positive semidefinite"),
        (lambda: InputSpectrum.from_autoregression([1 - 1e-6]), InvalidInputError, "more than 100000 samples"),
        (lambda: InputSpectrum.white(0), InvalidInputError, "n_inputs must be a positive integer"),
        (lambda: InputSpectrum.white(1, -1.0), InvalidInputError, "power must be"),
        (lambda: InputSpectrum.white(1).mixed(np.nan), InvalidInputError, "fraction must be"),
    ],
)
def test_what_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Gramians and norms


@parametrize(REGULAR)
def test_gramian_is_the_sum_over_kernels_and_lags(sys):
    spectrum = coloured(sys.n_inputs)
    got = lqo.controllability_gramian(sys, spectrum=spectrum)
    for P, one in zip(got.reshape(-1, *got.shape[-2:]), singles(sys), strict=True):
        wanted = moments(to_real(one), spectrum, 1)[0]
        np.testing.assert_allclose(P, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@parametrize(REGULAR)
@pytest.mark.parametrize("delay", [0, 1])
def test_norm_is_the_sum_over_kernels_and_lags(sys, delay):
    spectrum = coloured(sys.n_inputs, 1)
    wanted = [np.sqrt(brute_inner(one, one, spectrum, delay).real) for one in singles(sys)]
    got = lqo.h2_norm(sys, delay=delay, spectrum=spectrum)
    assert np.shape(got) == getattr(sys, "batch", ())
    np.testing.assert_allclose(np.ravel(got), wanted, rtol=1e-12)


PAIRS = [
    ("dense discrete feedthrough", dense(902, n=3, m=2, p=2, M=1, feedthrough=True, dt=True)),
    ("diagonal discrete feedthrough", diagonal(906, pairs=1, m=2, p=2, c=1, feedthrough=True, dt=True)),
    ("diagonal discrete feedthrough", dense(904, n=4, m=2, p=2, M="dense", feedthrough=True, dt=True)),
    ("diagonal discrete siso factored", diagonal(905, pairs=1, reals=1, c=1, feedthrough=True)),
    ("diagonal discrete siso factored", diagonal(907, pairs=2)),
    ("dense complex discrete siso factored", dense(909, n=3, M=2, feedthrough=True, is_complex=True)),
    ("dense complex discrete mimo quadratic", dense(910, n=3, m=2, p=3, M="dense", feedthrough=True)),
]


@pytest.mark.parametrize(("name", "other"), PAIRS)
@pytest.mark.parametrize("delay", [0, 1])
def test_inner_product_and_error(name, other, delay):
    sys, spectrum = get(name), coloured(other.n_inputs, 2)
    wanted = brute_inner(sys, other, spectrum, delay)
    norms = [lqo.h2_norm(one, delay=delay, spectrum=spectrum) for one in (sys, other)]
    assert abs(lqo.h2_inner(sys, other, delay=delay, spectrum=spectrum) - wanted) < 1e-12 * norms[0] * norms[1]
    error = np.sqrt(norms[0] ** 2 - 2 * wanted.real + norms[1] ** 2)
    assert lqo.h2_error(sys, other, delay=delay, spectrum=spectrum) == pytest.approx(error, rel=1e-11)
    relative = lqo.h2_error(sys, other, relative=True, delay=delay, spectrum=spectrum)
    assert relative == pytest.approx(error / norms[0], rel=1e-11)


@parametrize(select(hard=False, continuous=False, linear=True))
@pytest.mark.parametrize("delay", [0, 1])
def test_white_input_of_unit_power_gives_the_plain_norm(sys, delay):
    white = InputSpectrum.white(sys.n_inputs)
    np.testing.assert_allclose(lqo.h2_norm(sys, delay=delay, spectrum=white), lqo.h2_norm(sys, delay=delay), rtol=1e-13)


@parametrize(REGULAR)
def test_white_input_gives_the_plain_gramians(sys):
    white = InputSpectrum.white(sys.n_inputs)
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P = gramian(sys)
        np.testing.assert_allclose(gramian(sys, spectrum=white), P, rtol=0, atol=1e-13 * np.abs(P).max())
    values = lqo.hankel_singular_values(sys)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys, spectrum=white), values, rtol=1e-9, atol=1e-14 * values.max())


@parametrize(select(diagonal=True, batch=False, continuous=False, hard=False))
def test_diagonal_equals_dense(sys):
    spectrum, full = coloured(sys.n_inputs, 3, lags=60), lqo.to_dense(sys)
    for gramian in (lqo.controllability_gramian, lqo.observability_gramian):
        P = gramian(full, spectrum=spectrum)
        np.testing.assert_allclose(gramian(sys, spectrum=spectrum), P, rtol=0, atol=1e-12 * np.abs(P).max())
    assert lqo.h2_norm(sys, delay=0, spectrum=spectrum) == pytest.approx(lqo.h2_norm(full, delay=0, spectrum=spectrum), rel=1e-12)
    values = lqo.hankel_singular_values(full, spectrum=spectrum)
    np.testing.assert_allclose(lqo.hankel_singular_values(sys, spectrum=spectrum), values, rtol=1e-9, atol=1e-13 * values[0])


@parametrize(select(diagonal=True, batch=True, continuous=False))
def test_every_channel_has_its_own_spectrum(sys):
    spectrum = coloured(sys.n_inputs, 4, batch=sys.batch)
    smaller = dataclasses.replace(sys, C=1.5 * sys.C)
    norms, errors = lqo.h2_norm(sys, spectrum=spectrum), lqo.h2_error(sys, smaller, spectrum=spectrum, relative=True)
    P, values = lqo.controllability_gramian(sys, spectrum=spectrum), lqo.hankel_singular_values(sys, spectrum=spectrum)
    assert norms.shape == errors.shape == sys.batch
    for i in np.ndindex(sys.batch):
        assert norms[i] == pytest.approx(lqo.h2_norm(sys[i], spectrum=spectrum[i]), rel=1e-13)
        assert errors[i] == pytest.approx(lqo.h2_error(sys[i], smaller[i], spectrum=spectrum[i], relative=True), rel=1e-11)
        np.testing.assert_allclose(P[i], lqo.controllability_gramian(sys[i], spectrum=spectrum[i]), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(values[i], lqo.hankel_singular_values(sys[i], spectrum=spectrum[i]), rtol=1e-12)


@pytest.mark.parametrize("name", ["diagonal pole close to 1", "diagonal pole at zero", "diagonal cluster", "dense nilpotent"])
def test_hard_systems(name):
    sys, spectrum = get(name), InputSpectrum([2.0, 1.2, 0.5])
    poles = sys.poles if isinstance(sys, lqo.DiagonalLQOSystem) else np.diag(sys.A)
    norm = lqo.h2_norm(sys, spectrum=spectrum)
    # the plain system in front of which a filter makes the spectrum: u = g ∗ w with the autocovariances of g
    g = np.roots([0.5, 1.2, 2.0, 1.2, 0.5])
    zeros = np.poly(g[np.abs(g) < 1]).real
    zeros *= np.sqrt(2.0 / np.sum(zeros**2))
    np.testing.assert_allclose(np.convolve(zeros, zeros[::-1])[2:], [2.0, 1.2, 0.5], atol=1e-13)
    full = to_real(sys)
    n = full.order
    A = np.block([[full.A, full.B * zeros[1], full.B * zeros[2]], [np.zeros((1, n + 2))], [np.zeros((1, n)), 1, 0]])
    joined = lqo.LQOSystem(A, np.vstack([full.B * zeros[0], [[1.0]], [[0.0]]]), np.hstack([full.C, np.zeros((1, 2))]), dt=1.0)
    assert norm == pytest.approx(lqo.h2_norm(joined), rel=1e-7 if np.abs(poles).max() > 0.999 else 1e-12)


def test_kernel_and_its_twin():
    sys = diagonal(3, batch=(4,), pairs=2, reals=1, m=2)
    for spectrum in (coloured(2, 5), coloured(2, 5, batch=(4,))):
        R, B = np.array(spectrum.covariances).reshape(-1, spectrum.lags, 2, 2), np.array(sys.B)
        out = np.empty_like(B)
        weighted._ahead(R, np.array(sys.poles), B, out)
        np.testing.assert_allclose(out, weighted._ahead_numpy(R, sys.poles, B), rtol=1e-13, atol=1e-13)


# against signals


@pytest.mark.parametrize("delay", [0, 1])
@parametrize(select(hard=False, continuous=False, linear=True, real=True))
def test_energy_of_the_response_to_sequences_is_exact(sys, delay, rng):
    u = np.cumsum(rng.standard_normal((2, 30, sys.n_inputs)), axis=1) + 1
    sys = dataclasses.replace(sys, D=rng.standard_normal(sys.D.shape))
    energy = 0
    for v in u:
        y = lqo.simulate(sys, np.concatenate([v, np.zeros((350, sys.n_inputs))]), delay=delay)
        energy = energy + np.sum(y**2, axis=(-1, -2))
    norm = lqo.h2_norm(sys, delay=delay, spectrum=InputSpectrum.from_data(u))
    np.testing.assert_allclose(2 * 30 * norm**2, energy, rtol=1e-11)


def test_energy_of_a_difference_is_exact(rng):
    sys, rom = diagonal(8, pairs=4, feedthrough=True), diagonal(9, pairs=2, feedthrough=True)
    u = rng.standard_normal((40, 1))
    padded = np.concatenate([u, np.zeros((350, 1))])
    for delay in (0, 1):
        energy = np.sum((lqo.simulate(sys, padded, delay=delay) - lqo.simulate(rom, padded, delay=delay)) ** 2)
        error = lqo.h2_error(sys, rom, delay=delay, spectrum=InputSpectrum.from_data(u))
        assert 40 * error**2 == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("name", ["dense discrete feedthrough", "diagonal discrete feedthrough"])
def test_power_of_simulated_outputs(name, delay):
    sys, rng = get(name), np.random.default_rng(5)
    Phi, W = 0.8 * ROTATION, np.array([[1.0, 0.4], [0.4, 0.5]])
    w = rng.standard_normal((20, 40_000, 2)) @ np.linalg.cholesky(W).T
    u = np.empty_like(w)
    state = np.zeros((20, 2))
    for k in range(w.shape[1]):
        state = state @ Phi.T + w[:, k]
        u[:, k] = state
    spectrum = InputSpectrum.from_autoregression(Phi[np.newaxis], W)
    y = lqo.simulate(sys, u, delay=delay)[:, 200:]
    linear = dataclasses.replace(sys, M=None)
    z = lqo.simulate(linear, u, delay=delay)[:, 200:]
    assert np.mean(np.sum(z**2, axis=-1)) == pytest.approx(lqo.h2_norm(linear, delay=delay, spectrum=spectrum) ** 2, rel=0.01)
    assert np.mean(np.sum(y**2, axis=-1)) == pytest.approx(lqo.h2_norm(sys, delay=delay, spectrum=spectrum) ** 2, rel=0.03)


def test_quadratic_power_by_exact_moments():
    """Of two states by Gauss-Hermite quadrature, which is exact for polynomials of degree four."""
    sys = dense(33, n=2, p=2, M="dense")
    spectrum = InputSpectrum.from_autoregression([0.6, -0.3])
    root = np.linalg.cholesky(lqo.controllability_gramian(sys, spectrum=spectrum))
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    x = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1) @ root.T
    y = x @ sys.C.T + np.einsum("...a,iab,...b->...i", x, sys.M, x)
    power = np.sum(np.outer(weights, weights) * np.sum(y**2, axis=-1)) / (2 * np.pi)
    assert lqo.h2_norm(sys, spectrum=spectrum) ** 2 == pytest.approx(power, rel=1e-13)


def test_an_estimate_from_data_approaches_the_process():
    u = scipy.signal.lfilter([1.0], [1.0, -0.8], np.random.default_rng(0).standard_normal((10, 20_000, 1)), axis=1)
    exact, found = InputSpectrum.from_autoregression([0.8]), InputSpectrum.from_data(u, lags=400)
    for seed in range(3):
        sys = diagonal(seed)
        assert lqo.h2_norm(sys, spectrum=found) == pytest.approx(lqo.h2_norm(sys, spectrum=exact), rel=0.02)


# factors and small errors


@parametrize(select(batch=False, continuous=False))
def test_factors_of_both_gramians(sys):
    spectrum = coloured(sys.n_inputs, 6)
    R, S = gramian_factors(sys, norm_of(sys, None, spectrum))
    P, Q = lqo.controllability_gramian(sys, spectrum=spectrum), lqo.observability_gramian(sys, spectrum=spectrum)
    np.testing.assert_allclose(R @ R.conj().T, P, rtol=0, atol=1e-12 * np.abs(P).max())
    np.testing.assert_allclose(S @ S.conj().T, Q, rtol=0, atol=1e-12 * np.abs(Q).max())
    assert R.shape[1] <= sys.order


def test_inputs_that_are_multiples_of_one_another():
    sys, spectrum = diagonal(12, pairs=3, m=2), coloured(1, 7)
    both = InputSpectrum(spectrum.covariances * np.outer([1.0, 2.0], [1.0, 2.0]))
    one = dataclasses.replace(sys, B=sys.B @ [[1.0], [2.0]], D=sys.D @ [[1.0], [2.0]])
    for form in (lambda s: s, lqo.to_dense):
        values = lqo.hankel_singular_values(form(one), spectrum=spectrum)
        np.testing.assert_allclose(
            lqo.hankel_singular_values(form(sys), spectrum=both), values, rtol=1e-8, atol=1e-10 * values[0]
        )


def test_a_silent_input_does_not_matter():
    sys, R = diagonal(13, m=2), np.zeros((3, 2, 2))
    R[:, 0, 0] = [1.0, 0.5, 0.2]
    one = dataclasses.replace(sys, B=sys.B[:, :1], D=sys.D[:, :1])
    np.testing.assert_allclose(
        lqo.hankel_singular_values(sys, spectrum=InputSpectrum(R)),
        lqo.hankel_singular_values(one, spectrum=InputSpectrum(R[:, :1, :1])),
        rtol=1e-12,
    )
    assert lqo.h2_norm(sys, spectrum=InputSpectrum(0 * R)) == 0
    assert not np.any(lqo.hankel_singular_values(sys, spectrum=InputSpectrum(0 * R)))


@pytest.mark.parametrize("form", ["diagonal", "dense"])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize(("size", "digits"), [(1e-3, 1e-8), (1e-6, 1e-6), (1e-9, 1e-4), (1e-12, 2e-2)])
def test_small_errors_keep_digits(form, delay, size, digits, rng):
    sys = diagonal(3, pairs=4, p=2, m=2, c=2, feedthrough=True)
    moved = dataclasses.replace(
        sys, C=sys.C * (1 + size * rng.standard_normal(sys.C.shape)), D=sys.D * (1 + size * rng.standard_normal(sys.D.shape))
    )
    difference = dataclasses.replace(sys, C=moved.C - sys.C, D=moved.D - sys.D, M=None)  # exact
    spectrum = InputSpectrum.from_autoregression([ROTATION])
    exact = lqo.h2_norm(difference, delay=delay, spectrum=spectrum)
    pair = (lqo.to_dense(sys), lqo.to_dense(moved)) if form == "dense" else (sys, moved)
    assert lqo.h2_error(*pair, delay=delay, spectrum=spectrum) == pytest.approx(exact, rel=digits)


@pytest.mark.parametrize("form", ["diagonal", "dense", "matrices"])
def test_small_errors_of_quadratic_outputs_keep_digits(form, rng):
    sys = diagonal(4, pairs=3, p=2, c=2)
    q = sys.M
    W = q.W * (1 + 1e-9 * rng.standard_normal(q.W.shape))
    moved = dataclasses.replace(sys, M=lqo.QuadraticOutput(q.U, q.V, W))
    spectrum = coloured(1, 8)
    exact = lqo.h2_norm(dataclasses.replace(sys, C=0 * sys.C, M=lqo.QuadraticOutput(q.U, q.V, W - q.W)), spectrum=spectrum)
    pair = [sys, moved]
    if form != "diagonal":
        pair = [lqo.to_dense(one) for one in pair]
    if form == "matrices":
        pair = [dataclasses.replace(one, M=one.M.to_dense()) for one in pair]
    assert lqo.h2_error(*pair, spectrum=spectrum) == pytest.approx(exact, rel=1e-4)


@parametrize(REGULAR)
def test_error_to_itself_is_zero(sys):
    spectrum = coloured(sys.n_inputs, 9)
    norm = np.asarray(lqo.h2_norm(sys, spectrum=spectrum))
    assert np.all(np.asarray(lqo.h2_error(sys, sys, spectrum=spectrum)) <= 1e-13 * norm)


def test_a_spectrum_that_is_negative_somewhere_is_said():
    cut = InputSpectrum(InputSpectrum.from_autoregression([1.8, -0.9]).covariances[:12])
    assert cut.density(np.linspace(0, np.pi, 200)).real.min() < 0
    with pytest.warns(AccuracyWarning, match="negative at some frequencies"):
        lqo.hankel_singular_values(diagonal(1, pairs=8), spectrum=cut)


# what does not fit


@pytest.mark.parametrize(
    ("sys", "spectrum", "options", "error", "words"),
    [
        (dense(0), np.ones(3), {}, InvalidInputError, "spectrum must be an InputSpectrum, got ndarray"),
        (dense(0), InputSpectrum.white(1), {"horizon": 5}, InvalidInputError, "over the infinite horizon; leave out horizon"),
        (dense(0, continuous=True), InputSpectrum.white(1), {}, InvalidInputError, "this system is continuous"),
        (dense(0, m=2), InputSpectrum.white(1), {}, DimensionError, "that of 1 inputs, but the system has 2"),
        (dense(0), coloured(1, batch=(2,)), {}, DimensionError, r"the batch \(2,\), expected none or that of the system, \(\)"),
        (diagonal(0, batch=(3,)), coloured(1, batch=(2,)), {}, DimensionError, r"the batch \(2,\)"),
        (lqo.LQOSystem([[1.0]], [[1.0]], [[1.0]], dt=1.0), InputSpectrum.white(1), {}, UnstableSystemError, "spectral radius"),
    ],
)
def test_systems_and_spectra_that_do_not_fit(sys, spectrum, options, error, words):
    functions = (lqo.controllability_gramian, lqo.observability_gramian, lqo.hankel_singular_values, lqo.h2_norm)
    for function in functions:
        with pytest.raises(error, match=words):
            function(sys, spectrum=spectrum, **options)
    for function in (lqo.h2_inner, lqo.h2_error):
        with pytest.raises(error, match=words):
            function(sys, sys, spectrum=spectrum, **options)


def test_infinity_is_the_infinite_horizon():
    spectrum = coloured(1)
    assert lqo.h2_norm(dense(0), np.inf, spectrum=spectrum) == lqo.h2_norm(dense(0), spectrum=spectrum)


def test_continuous_systems_of_the_table_are_refused():
    for case in CASES:
        if case.continuous:
            with pytest.raises(InvalidInputError, match="continuous"):
                lqo.h2_norm(case.sys, spectrum=InputSpectrum.white(case.sys.n_inputs))
