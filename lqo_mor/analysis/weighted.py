"""State and output covariances for an input with a given spectrum (discrete time, infinite horizon).

With ``R_j = E[u_{t+j} u_tᵀ]`` the state ``x_{t+1} = A x_t + B u_t`` has the covariance ``P`` that solves

    A P Aᴴ − P + B Fᴴ + F Bᴴ = 0,   F = Σ_{j≥0} A^j B R_jᵀ − ½ B R_0.

That is a Gramian with the inputs ``[B, F]`` on one side and ``[F, B]`` on the other, so the solvers of the plain norm do all
the work; for white input of unit power ``F = ½ B``. With diagonal `A` the rows of ``F`` are ``b Φ(λ)ᵀ − ½ b R_0`` for the
series ``Φ(λ) = Σ_j λ^j R_j``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.linalg

from lqo_mor.analysis.norm import HorizonNorm, Norm, check_stable, finite
from lqo_mor.analysis.rows import Covariance, output_products, pair_weights, row_products
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.compiling import njit
from lqo_mor.errors import AccuracyWarning, DimensionError, InvalidInputError, warn
from lqo_mor.matrix_equations.pairing import diagonal_gramian_factor, pairing, solve_both
from lqo_mor.matrix_equations.stein import solve_stein, stein_factor
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.system import System

_EPS = np.finfo(float).eps
_NEGATIVE = 1e-6  # part of a covariance that may be negative, from rounding, without a word


@dataclass(frozen=True, eq=False)
class Weighted:
    """A system and what the spectrum of its input makes of its input matrix."""

    sys: System
    start: np.ndarray  # (..., m, m), ``R_0``
    F: np.ndarray  # (..., n, m), see the head of this module; one row per slot for a diagonal system
    # (..., n, m) each: ``E[x_t u_tᵀ]`` where the state includes `u_t` (delay 0), and where it does not yet (delay 1)
    seen: tuple[np.ndarray, np.ndarray]
    lags: np.ndarray  # (...), ``Σ_j ‖R_j‖``, which bounds what `F` is summed up from


@dataclass(frozen=True, eq=False)
class SpectrumNorm(HorizonNorm):
    """The root of the power of the output for a stationary input with a spectrum, in discrete time.

    Sums over poles and state matrices are those of white input over all time, which a factor of the observability Gramian needs;
    the input matrices make the difference (`weigh`, `weighted_factor`).
    """

    @classmethod
    def asked(cls, continuous: bool, horizon: Any, spectrum: Any) -> SpectrumNorm | None:
        """The norm of an `InputSpectrum`."""
        if not isinstance(spectrum, InputSpectrum):
            return None
        if finite(horizon) is not None:
            raise InvalidInputError(
                f"a norm weighted by a spectrum is over the infinite horizon; leave out horizon (got {horizon!r})"
            )
        return cls(continuous, None, spectrum)

    def check(self, sys: System) -> None:
        """Raise unless the system is discrete and stable, with the inputs of the spectrum."""
        spectrum = spectrum_of(self)
        if sys.is_continuous:
            raise InvalidInputError("a spectrum is that of a discrete-time input, but this system is continuous (dt = 0)")
        if spectrum.n_inputs != sys.n_inputs:
            raise DimensionError(f"the spectrum is that of {spectrum.n_inputs} inputs, but the system has {sys.n_inputs}")
        batch = getattr(sys, "batch", ())
        if spectrum.batch not in ((), batch):
            raise DimensionError(f"the spectrum has the batch {spectrum.batch}, expected none or that of the system, {batch}")
        check_stable(sys)

    def channel(self, index: Any) -> SpectrumNorm:
        """With the spectrum of the channels."""
        spectrum = spectrum_of(self)
        return SpectrumNorm(False, None, spectrum[index]) if spectrum.batch else self

    def __str__(self) -> str:
        return "weighted by the spectrum of the input"


def spectrum_of(norm: Norm) -> InputSpectrum:
    """The spectrum of a norm that has one."""
    return cast(InputSpectrum, norm.spectrum)


def weigh(sys: System, spectrum: InputSpectrum) -> Weighted:
    """The system with its input weighted by `spectrum`; one pass over the lags; theory, eq. (9.1)."""
    R, start = spectrum.covariances, spectrum.covariances[..., 0, :, :]
    if isinstance(sys, DiagonalLQOSystem):
        count, s, m = int(np.prod(sys.batch)), sys.n_slots, sys.n_inputs
        # copies, since kernels would be compiled once more for read-only arrays
        lam, B, R = np.array(sys.poles.reshape(count, s)), np.array(sys.B.reshape(count, s, m)), np.array(R)
        ahead: np.ndarray = np.empty((count, s, m), complex)
        _ahead(R.reshape(-1, *R.shape[-3:]), lam, B, ahead)
        ahead, R = ahead.reshape(sys.B.shape), spectrum.covariances
        later = sys.poles[..., np.newaxis] * ahead
    else:
        ahead = np.zeros(sys.B.shape, np.result_type(sys.A, sys.B))
        for Rj in R[:0:-1]:
            ahead = sys.A @ ahead + sys.B @ Rj.T
        later = sys.A @ ahead
    own = sys.B @ start
    return Weighted(sys, start, later + 0.5 * own, (later + own, ahead), np.sum(np.linalg.norm(R, axis=(-1, -2)), axis=-1))


@njit(cache=True, error_model="numpy")
def _ahead(R: np.ndarray, lam: np.ndarray, B: np.ndarray, out: np.ndarray) -> None:
    """``Σ_{j≥0} λ^j b R_{j+1}ᵀ`` for every slot, (h, s, m), by Horner's rule; `R` (h or 1, lags, m, m); theory, eq. (9.1).

    Real and imaginary parts are apart, so that the loop over the slots is made of vector instructions.
    """
    count, s, m = out.shape
    re, im, sums = np.empty(s), np.empty(s), np.empty((2 * m, s))
    rows = np.empty((2 * m, s))
    for h in range(count):
        own = h if R.shape[0] > 1 else 0
        for i in range(s):
            re[i], im[i] = lam[h, i].real, lam[h, i].imag
            for c in range(m):
                rows[2 * c, i], rows[2 * c + 1, i] = B[h, i, c].real, B[h, i, c].imag
        sums[:] = 0.0
        for j in range(R.shape[1] - 1, 0, -1):
            for a in range(m):
                for i in range(s):
                    x, y = sums[2 * a, i], sums[2 * a + 1, i]
                    sums[2 * a, i], sums[2 * a + 1, i] = x * re[i] - y * im[i], x * im[i] + y * re[i]
                for c in range(m):
                    value = R[own, j, a, c]
                    for i in range(s):
                        sums[2 * a, i] += value * rows[2 * c, i]
                        sums[2 * a + 1, i] += value * rows[2 * c + 1, i]
        for a in range(m):
            for i in range(s):
                out[h, i, a] = complex(sums[2 * a, i], sums[2 * a + 1, i])


def _ahead_numpy(R: np.ndarray, lam: np.ndarray, B: np.ndarray) -> np.ndarray:
    """NumPy twin of `_ahead`."""
    out = np.zeros(B.shape, complex)
    for j in range(R.shape[1] - 1, 0, -1):
        out = lam[..., np.newaxis] * out + B @ np.swapaxes(R[:, j], -1, -2)
    return out


def state_covariance(a: Weighted, b: Weighted) -> Covariance:
    """``E[x x'ᴴ]`` of the states of two systems with the same input, (n, r); theory, eq. (9.1), (9.2).

    Of two diagonal systems ``E[x x'ᵀ]`` and ``E[x x'ᴴ]`` between their slots, a pair of arrays (..., s, t).
    """
    if isinstance(a.sys, LQOSystem) or isinstance(b.sys, LQOSystem):
        return solve_stein(as_dense(a.sys).A, as_dense(b.sys).A, a.sys.B @ b.F.conj().T + a.F @ b.sys.B.conj().T)
    left, right = np.concatenate([a.sys.B, a.F], axis=-1), np.concatenate([b.F, b.sys.B], axis=-1)
    return solve_both(pairing(False), a.sys.poles, left, b.sys.poles, right)


def output_covariance(a: Weighted, b: Weighted, X: Covariance, delay: int) -> np.ndarray:
    """``Σ_i (E[y_i y'_iᴴ] − E[y_i] E[y'_i]ᴴ)`` of two systems, without the means, from their `state_covariance`.

    The linear part and its mixed moments with the feedthrough are ``tr(C X C'ᴴ)`` and so on; a Gaussian input makes the
    quadratic part ``2 Σ tr(M_i X M_i'ᴴ Xᵀ)``, and moments of odd order vanish; theory, eq. (9.4).
    """
    cross = _through(a, delay) * b.sys.D.conj() + a.sys.D * _through(b, delay).conj() + (a.sys.D @ a.start) * b.sys.D.conj()
    total = np.sum(cross, axis=(-1, -2))
    linear, quadratic = output_products(a.sys, b.sys, X)
    return total + linear + 2 * quadratic


def _through(a: Weighted, delay: int) -> np.ndarray:
    """``C E[x_t u_tᵀ]``, (..., p, m)."""
    if isinstance(a.sys, DiagonalLQOSystem):
        return 2 * ((a.sys.C * pair_weights(a.sys)[..., np.newaxis, :]) @ a.seen[delay]).real
    return a.sys.C @ a.seen[delay]


def output_mean(a: Weighted, P: Covariance) -> np.ndarray:
    """The mean ``E[xᵀ M_i x]`` of every output, (..., p), from the `state_covariance` of the system; theory, eq. (9.4)."""
    if isinstance(a.sys, DiagonalLQOSystem):
        q = a.sys.M
        if q is None:
            return np.zeros((*a.sys.batch, a.sys.n_outputs))
        weights = pair_weights(a.sys)[..., np.newaxis, :]
        plain, hermitian = P
        S = row_products(weights * q.U, plain, hermitian, weights * q.V)
        return (q.W @ np.diagonal(S, axis1=-2, axis2=-1)[..., np.newaxis])[..., 0]
    M = a.sys.M
    if M is None:
        return np.zeros(a.sys.n_outputs)
    if not a.sys.is_real:  # E[x xᵀ], without a conjugate
        P = solve_stein(a.sys.A, a.sys.A.conj(), a.sys.B @ a.F.T + a.F @ a.sys.B.T)
    if isinstance(M, QuadraticOutput):
        return M.W @ np.sum((M.U @ P) * M.V, axis=-1)
    return np.sum(M * P, axis=(-1, -2))


def weighted_inner(sys: System, other: System, spectrum: InputSpectrum, delay: int = 1) -> np.ndarray:
    """``E[y'ᴴ y]`` for the outputs of two systems with the same stationary (Gaussian) input."""
    return inner_of_weighted(*weigh_both(sys, other, spectrum), delay)


def inner_of_weighted(a: Weighted, b: Weighted, delay: int) -> np.ndarray:
    """The `weighted_inner` product of two systems, which have been weighted."""
    X = state_covariance(a, b)
    total = output_covariance(a, b, X, delay)
    if a.sys.M is None or b.sys.M is None:
        return total
    first = output_mean(a, X if a is b else state_covariance(a, a))
    second = first if a is b else output_mean(b, state_covariance(b, b))
    return total + np.sum(first * second.conj(), axis=-1)


def weigh_both(sys: System, other: System, spectrum: InputSpectrum) -> tuple[Weighted, Weighted]:
    """Both systems weighted, of one kind: dense where one of them is."""
    if other is sys:
        a = weigh(sys, spectrum)
        return a, a
    if isinstance(sys, LQOSystem) or isinstance(other, LQOSystem):
        sys, other = as_dense(sys), as_dense(other)
    return weigh(sys, spectrum), weigh(other, spectrum)


def weighted_factor(a: Weighted) -> np.ndarray:
    """A factor `R` of the state covariance ``P = R Rᴴ`` of one system, in its (for a diagonal one real) coordinates.

    `P` is half the difference of the Gramians with the inputs ``B + F`` and ``B − F``, each of whose factors is known as well
    as that of a plain Gramian. A QR decomposition of both together, ``[R₊, R₋]ᴴ = Q T``, leaves ``Qᴴ diag(I, −I) Q`` to be
    factored, and the grading of `T` keeps the digits of what is small in `P`; theory, eq. (9.3).
    """
    B, F = a.sys.B, a.F
    norms = [np.linalg.norm(part, axis=0) for part in (B, F)]
    used = (norms[0] > 0) & (norms[1] > 0)
    if not np.any(used):
        return np.zeros((a.sys.order, 0))
    scale = np.sqrt(norms[1][used] / norms[0][used])  # of one size, so that the difference of both loses least
    B, F = B[:, used] * scale, F[:, used] / scale
    if isinstance(a.sys, DiagonalLQOSystem):
        plus, minus = (diagonal_gramian_factor(pairing(False), a.sys.poles, part) for part in (B + F, B - F))
    else:
        squares: list[np.ndarray] = []
        plus, minus = (stein_factor(a.sys.A, part, squares=squares) for part in (B + F, B - F))
    if not np.any(minus):
        return plus / np.sqrt(2.0)
    both, signs = np.hstack([plus, minus]) / np.sqrt(2.0), np.repeat([1.0, -1.0], [plus.shape[1], minus.shape[1]])
    order = np.argsort(-np.linalg.norm(both, axis=0))  # large rows first keep small ones accurate (Cox, Higham 1998)
    Q, T, pivots = scipy.linalg.qr(both[:, order].conj().T, mode="economic", pivoting=True, check_finite=False)
    scale = np.abs(np.diag(T))
    rank = np.count_nonzero(scale > _EPS * scale[0])
    Q, T, scale = Q[:, :rank], T[:rank], scale[:rank]
    L, negative = _graded_cholesky((Q.conj().T * signs[order]) @ Q, scale)
    if negative > _NEGATIVE:
        warn(
            "the spectrum of the input is negative at some frequencies (covariances that were cut off?), and so is the part "
            f"{negative:.1e} of the covariance of the state, which has been left out",
            AccuracyWarning,
        )
    out = np.empty((a.sys.order, L.shape[1]), T.dtype)
    out[pivots] = (T / scale[:, np.newaxis]).conj().T @ L
    return out


def _graded_cholesky(H: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """A factor `L` of ``diag(scale) H diag(scale) = L Lᴴ``, and the share of the negative part left out; theory, eq. (9.3).

    By complete pivoting, so that what is small for its `scale` cannot disturb what is large. A pivot within rounding of zero,
    relative to its own scale, is one: its root would not be within rounding.
    """
    K = H * scale[:, np.newaxis] * scale
    left, L, k = np.diag(K).real.copy(), np.zeros(K.shape, K.dtype, order="F"), 0
    floor, total = 2 * scale.size * _EPS * scale**2, np.sum(np.abs(left))
    taken = np.zeros(scale.size, bool)
    while np.any(left > floor):
        i = int(np.argmax(np.where(left > floor, left, 0.0)))
        column = (K[:, i] - L[:, :k] @ L[i, :k].conj()) / np.sqrt(left[i])
        column[taken], taken[i] = 0.0, True
        left = np.where(taken, 0.0, left - np.abs(column) ** 2)
        L[:, k], k = column, k + 1
    return L[:, :k], float(-np.sum(left[left < 0]) / total) if total else 0.0
