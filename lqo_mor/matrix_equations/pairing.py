"""Closed-form elementwise solves for diagonal state matrices.

Everything about a norm of diagonal systems is in one scalar function of two poles, the *pairing*
``g(λ, μ) = ⟨λ^k, μ^k⟩``: Gramians, cross Gramians, norms, gradients and reducers are written once for all
pairings (theory, eq. (1.5): sums over sets of poles closed under conjugation, with the plain transpose).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.linalg
from numba import get_num_threads

from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations import double_double, pairing_kernels

_LONGEST = 2**53  # samples; more cannot be counted in double precision
_PIVOT_FLOOR = 1e-30  # the arithmetic of the factorisation holds 32 digits
_WORTH_THREADS = 100_000  # entries; about a millisecond of work


@dataclass(frozen=True)
class Pairing:
    """The scalar function ``g(λ, μ)`` of two poles that stands for a norm; make one with `pairing`."""

    code: int | None  # which function, see `lqo_mor.matrix_equations.pairing_kernels`; None for one that is not compiled
    parameters: tuple[float, ...] = ()  # samples `L` or seconds `T` of a finite horizon; empty otherwise
    # ``function(λ, μ)`` gives `g` and ``∂g/∂μ`` of arrays of poles, where it is not compiled
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def compiled_code(self) -> int:
        """The code for compiled kernels; ask only where there is one."""
        return cast(int, self.code)

    def outer(self, lam: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """The matrix ``g(λ_i, μ_j)``, shape (..., n, r), of pole sets (..., n) and (..., r)."""
        return self.outer_with_derivative(lam, mu)[0]

    def outer_with_derivative(self, lam: np.ndarray, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The matrices ``g(λ_i, μ_j)`` and ``∂g/∂μ (λ_i, μ_j)``, both of shape (..., n, r)."""
        if self.function is not None:
            return self.function(lam[..., :, np.newaxis], mu[..., np.newaxis, :])
        batch = np.broadcast_shapes(lam.shape[:-1], mu.shape[:-1])
        shape = (*batch, lam.shape[-1], mu.shape[-1])
        lam, mu = _flat(lam, batch, 1), _flat(mu, batch, 1)
        g = np.empty((lam.shape[0], lam.shape[1], mu.shape[1]), complex)
        dg = np.empty_like(g)
        kernel = (
            pairing_kernels._outer_batch_parallel
            if lam.shape[0] > 1 and g.size > _WORTH_THREADS
            else pairing_kernels._outer_batch
        )
        kernel(self.code, np.array(self.parameters), lam, mu, g, dg)
        return g.reshape(shape), dg.reshape(shape)


def pairing(continuous: bool, horizon: float | None = None) -> Pairing:
    """The pairing of the (finite-horizon) h² norm.

    The horizon is a number of samples (discrete, a positive integer) or seconds (continuous), None or infinity for the infinite
    one; any other value raises `InvalidInputError`.
    """
    if horizon is None or horizon == np.inf:
        return Pairing(pairing_kernels.CONTINUOUS if continuous else pairing_kernels.DISCRETE)
    check_horizon(continuous, horizon)
    return Pairing(pairing_kernels.CONTINUOUS_FINITE if continuous else pairing_kernels.DISCRETE_FINITE, (float(horizon),))


def check_horizon(continuous: bool, horizon: float) -> None:
    """Raise `InvalidInputError` unless `horizon` is a positive finite number, an integer in discrete time."""
    number = isinstance(horizon, (int, float, np.integer, np.floating)) and not isinstance(horizon, bool)
    longest = np.finfo(float).max if continuous else _LONGEST
    if not number or not 0 < horizon <= longest or (not continuous and horizon != int(horizon)):
        wanted = "a positive number of seconds" if continuous else "a positive integer number of samples"
        raise InvalidInputError(f"horizon must be {wanted}, or None for the infinite horizon; got {horizon!r}")


def solve_diagonal(norm: Pairing, lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> np.ndarray:
    """Cross Gramian of two diagonal systems, ``X_ij = (b_i · b_rj) g(λ_i, μ_j)``, with the plain transpose; theory, eq. (3.1).

    In discrete time over the infinite horizon it solves ``diag(λ) X diag(μ) − X + B B_rᵀ = 0`` (solvable
    if no ``λ_i μ_j = 1``), in continuous time ``diag(λ) X + X diag(μ) + B B_rᵀ = 0`` (no ``λ_i + μ_j = 0``).

    Poles `lam` (..., n) and `mu` (..., r), input rows `B` (..., n, m) and `B_r` (..., r, m); `X` is (..., n, r).
    """
    if norm.code is None:
        return (B @ np.swapaxes(B_r, -1, -2)) * norm.outer(lam, mu)
    batch, arrays = _flat_systems(lam, B, mu, B_r)
    return _solve_flat(norm, *arrays).reshape(*batch, lam.shape[-1], mu.shape[-1])


def solve_both(norm: Pairing, lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`solve_diagonal` for the right system as it is and with its conjugate: ``Σ x_k x_kᵀ`` and ``Σ x_k x_kᴴ`` between slots."""
    if norm.code is None:
        return tuple(solve_diagonal(norm, lam, B, *right) for right in ((mu, B_r), (mu.conj(), B_r.conj())))  # type: ignore[return-value]
    batch, (lam, B, mu, B_r) = _flat_systems(lam, B, mu, B_r)
    shape = (*batch, lam.shape[-1], mu.shape[-1])
    plain = _solve_flat(norm, lam, B, mu, B_r).reshape(shape)
    return plain, _solve_flat(norm, lam, B, mu.conj(), B_r.conj()).reshape(shape)


def _flat_systems(
    lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray
) -> tuple[tuple[int, ...], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The common batch of two systems, and their poles and input rows with it flattened to one axis."""
    batch = lam.shape[:-1]
    if mu.shape[:-1] != batch:
        batch = np.broadcast_shapes(batch, mu.shape[:-1])
    return batch, (_flat(lam, batch, 1), _flat(B, batch, 2), _flat(mu, batch, 1), _flat(B_r, batch, 2))


def _solve_flat(norm: Pairing, lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> np.ndarray:
    """`solve_diagonal` for one axis of channels."""
    (count, n), r = lam.shape, mu.shape[-1]
    out, parameters = np.empty((count, n, 2 * r)), np.array(norm.parameters)
    if out.size < 2 * _WORTH_THREADS:
        pairing_kernels._cross(norm.code, parameters, lam, B, mu, B_r, out, 0, count)
    elif count == 1:
        pairing_kernels._cross_rows(norm.code, parameters, lam, B, mu, B_r, out, min(n, get_num_threads()))
    else:
        pairing_kernels._cross_channels(norm.code, parameters, lam, B, mu, B_r, out, min(count, get_num_threads()))
    return out.view(complex)


def _flat(array: np.ndarray, batch: tuple[int, ...], axes: int) -> np.ndarray:
    """A complex array broadcast to the batch, its batch axes joined to one; a copy, since read-only ones compile anew."""
    size = array.shape[array.ndim - axes :]
    if array.shape[: array.ndim - axes] != batch:
        array = np.broadcast_to(array, (*batch, *size))
    return np.array(array.reshape(math.prod(batch), *size), complex, order="C")


def real_form(plain: np.ndarray, hermitian: np.ndarray, real_left: np.ndarray, real_right: np.ndarray) -> np.ndarray:
    """A (cross) Gramian of half storage in real coordinates; theory, eq. (1.6).

    `plain` and `hermitian` (..., s, t) are ``Σ x_k x_kᵀ`` and ``Σ x_k x_kᴴ`` between the slots of the two systems, `real_left`
    (..., s) and `real_right` (..., t) say which slots hold a real pole. The result (..., n, r) is in the coordinates ``√2 Re x``
    (`x` at a real pole), then ``√2 Im x`` of the slots with a non-real pole. Where the channels of a batch differ in which slots
    are real, the row and the column of an imaginary part that a channel does not have are zero.
    """
    scale_left = np.where(real_left, np.sqrt(0.5), 1.0)[..., :, np.newaxis]
    scale_right = np.where(real_right, np.sqrt(0.5), 1.0)[..., np.newaxis, :]
    has_left, has_right = ~real_left[..., :, np.newaxis], ~real_right[..., np.newaxis, :]
    keep_left = np.any(~real_left, axis=tuple(range(real_left.ndim - 1)))
    keep_right = np.any(~real_right, axis=tuple(range(real_right.ndim - 1)))
    total, difference = hermitian + plain, hermitian - plain
    re_re = total.real * scale_left * scale_right
    re_im = -(difference.imag * scale_left * has_right)[..., :, keep_right]
    im_re = (total.imag * has_left * scale_right)[..., keep_left, :]
    im_im = (difference.real * has_left * has_right)[..., keep_left, :][..., :, keep_right]
    return np.concatenate([np.concatenate([re_re, re_im], axis=-1), np.concatenate([im_re, im_im], axis=-1)], axis=-2)


def diagonal_gramian_factor(norm: Pairing, poles: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A factor `R` of the Gramian ``P = R Rᵀ`` of one diagonal system, accurate column by column; theory, eq. (4.8).

    Formed and factored in twice the working precision, with complete pivoting, so that the columns, which become
    smaller and smaller, all have nearly full relative accuracy; parts of `P` below 1e-30 of its largest pivot are
    left out.

    Poles (s,) in half storage and input rows `B` (s, m); `R` (n, rank) is in the real coordinates of `real_form`.
    """
    real = poles.imag == 0
    if norm.code is None:
        hermitian = solve_diagonal(norm, poles, B, poles.conj(), B.conj())
        return _pivoted_cholesky(real_form(solve_diagonal(norm, poles, B, poles, B), hermitian, real, real))
    n = int(np.sum(2 - real))
    high, low, pivots = np.zeros((n, n)), np.zeros((n, n)), np.empty(n, np.int64)
    double_double.gramian(norm.code, np.array(norm.parameters), poles.astype(complex), B.astype(complex), real, high, low)
    rank = double_double.cholesky(high, low, _PIVOT_FLOOR, pivots)
    R = np.zeros((n, rank))
    R[pivots] = np.tril(high)[:, :rank]
    return R


def row_covariance(norm: Pairing, poles: np.ndarray, B: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``Z P Zᵀ`` (q, q) of one diagonal system in twice the working precision, as a sum of two matrices; theory, eq. (1.5).

    Poles (s,) and output rows (q, s) in half storage, input rows `B` (s, m), for pairings that are compiled.
    """
    high, low = np.empty((2, rows.shape[0], rows.shape[0]))
    # copies, since kernels would be compiled once more for read-only arrays
    poles, B, rows = (np.array(array, complex, order="C") for array in (poles, B, rows))
    double_double.row_covariance(norm.compiled_code, np.array(norm.parameters), poles, B, poles.imag == 0, rows, high, low)
    return high, low


def accurate_square(
    S: tuple[np.ndarray, np.ndarray], W: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, real: np.ndarray, early: bool
) -> tuple[float, float]:
    """The squared norm of one diagonal system in twice the working precision, as a sum of two numbers; theory, eq. (3.2), (3.3).

    From the `row_covariance` of its rows ``[C; U; V]`` and the mixing matrix `W` (p, c); with the feedthrough `D`, and `early` if
    the output reads the updated state.
    """
    total, rest = double_double.squared_norm(*S, np.array(W, float))
    B, C = np.array(B, complex), np.array(C, complex)
    return double_double.with_feedthrough(total, rest, B, C, np.array(D, float), np.array(real), early)


def _pivoted_cholesky(P: np.ndarray) -> np.ndarray:
    """A factor of a Gramian in working precision, for pairings that are not compiled."""
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(0.5 * (P + P.T), lower=1)
    R = np.zeros((P.shape[0], rank))
    R[pivots - 1] = np.tril(factor)[:, :rank]
    return R
