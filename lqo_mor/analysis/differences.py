"""The h² norm of the difference of two systems, with an account of the digits that rounding leaves."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lqo_mor.analysis.door import balanced_units, check_delay, check_keywords, prepared
from lqo_mor.analysis.gramians import state_factor
from lqo_mor.analysis.low_rank_gramians import LowRankGramian, given_or_solved
from lqo_mor.analysis.low_rank_norms import sparse_error_and_digits
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import check_other, markov, scalar, strictly_proper_inner
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.weighted import output_covariance, output_mean, spectrum_of, state_covariance, weigh_both
from lqo_mor.errors import LQOError
from lqo_mor.systems.convert import as_dense, member, real_rows
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System
from lqo_mor.types import FloatOrBatch

_EPS = np.finfo(float).eps
_CANCELS = 1e-7  # squared relative error below which the three-term difference has lost too many digits


def h2_error(
    sys: AnySystem,
    rom: System,
    horizon: float | None = None,
    *,
    relative: bool = False,
    delay: int = 1,
    spectrum: InputSpectrum | None = None,
    controllability: LowRankGramian | None = None,
) -> FloatOrBatch:
    """The h² norm of the difference of two systems.

    Parameters
    ----------
    sys, rom : LQOSystem or DiagonalLQOSystem
        With equal numbers of inputs and outputs, both discrete or both continuous, and equal batches. `sys` may be a
        SparseLQOSystem.
    horizon
        As for `h2_norm`.
    relative : bool, default False
        Divide by the norm of `sys`; in continuous time, where a feedthrough makes it infinite, by that of its
        strictly proper part.
    delay, spectrum, controllability
        As for `h2_norm`; with a `spectrum` the error is the root of the expected power of the difference of the outputs.

    Returns
    -------
    float or (...) ndarray
        An array of the batch shape for a batch.

    Raises
    ------
    DimensionError
        If inputs, outputs or batches differ.
    UnstableSystemError
        If the horizon is infinite and a system is not asymptotically stable.
    InvalidInputError
        If a keyword is given that the kind of system does not have, as for `h2_norm`.

    Notes
    -----
    ``‖Σ − Σ_r‖² = ‖Σ‖² − 2⟨Σ, Σ_r⟩ + ‖Σ_r‖²`` cancels for small errors. Where the relative error falls below
    about 3e-4, the error system is built and its norm computed from a factor `R` of its Gramian,
    ``‖C_e R‖² + Σ_i ‖Rᵀ M_{e,i} R‖²``, which keeps correct digits down to a relative error of about 1e-13;
    `Reduction.digits` says how many. With ``delay=0`` and a feedthrough that differs, what moves from one to the
    other is known to 1e-8 of its size only. With a `spectrum` the feedthrough is part of the error system, and `R` a factor
    of the covariance of its state; the digits hold as long as the error for white input is not much larger.

    The error to a sparse system is taken from a factor of the Gramian of the error system, too; it is correct for relative
    errors down to about 1e-8.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> sys = lqo.LQOSystem([[0.6, 0.0], [0.0, 0.0]], [[0.8], [1.0]], [[1.0, 1e-9]], dt=1.0)
    >>> rom = lqo.LQOSystem([[0.6]], [[0.8]], [[1.0]], dt=1.0)
    >>> round(lqo.h2_error(sys, rom), 15)
    1e-09
    """
    check_keywords(sys, horizon, spectrum, delay=delay, controllability=controllability)
    if isinstance(sys, SparseLQOSystem):
        absolute, divided, _ = sparse_error_and_digits(sys, rom, given_or_solved(sys, controllability))
        return divided if relative else absolute
    full, norm = prepared(sys, horizon, spectrum)
    check_other(norm, full, rom)
    check_delay(delay)
    return error_of(full, balanced_units(rom)[0], norm, delay, relative)


def error_of(sys: System, rom: System, norm: Norm, delay: int = 1, relative: bool = False) -> FloatOrBatch:
    """The `h2_error` in a norm that exists for both systems."""
    absolute, _, squared_norm = _error_and_noise(sys, rom, norm, delay)
    return _divided(absolute, squared_norm) if relative else absolute


def error_and_digits(sys: System, rom: System, norm: Norm, delay: int = 1) -> tuple[FloatOrBatch, FloatOrBatch, int | np.ndarray]:
    """`h2_error`, absolute and relative, and an estimate of how many decimal digits rounding has left (0 to 15).

    The Gramian of a dense matrix next to the stability boundary, or far from normal, is itself good to fewer digits
    than the arithmetic. How many is seen from the error of the same two systems with their state matrices moved by
    one unit roundoff, which takes as long as the error itself.
    """
    error, noise, squared_norm = (np.asarray(part) for part in _error_and_noise(sys, rom, norm, delay))
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(sys, LQOSystem) or isinstance(rom, LQOSystem):
            try:
                moved = _error_and_noise(_moved(sys), _moved(rom), norm, delay)[0]
            except LQOError:  # no longer stable
                moved = np.inf
            noise = noise + 4 * np.abs(error - moved)
        digits = np.nan_to_num(np.log10(error / np.maximum(noise, _EPS * error)), nan=15.0, posinf=15.0, neginf=0.0)
    return scalar(error), _divided(error, squared_norm), scalar(np.clip(np.floor(digits), 0, 15).astype(int))


def _moved(sys: System) -> LQOSystem:
    """The dense system with every entry of its state matrix moved by one unit roundoff, equal shapes alike."""
    dense = as_dense(sys)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], dense.A.shape)
    return LQOSystem(dense.A * (1 + _EPS * signs), dense.B, dense.C, dense.D, dense.M, dense.dt)


def _error_and_noise(sys: System, rom: System, norm: Norm, delay: int) -> tuple[FloatOrBatch, np.ndarray, np.ndarray]:
    """`h2_error`, its rounding error if Gramians are good to rounding, and the squared norm of `sys`; theory, eq. (3.7)."""
    if not norm.white:
        return _weighted_error_and_noise(sys, rom, norm, delay)
    full = np.asarray(strictly_proper_inner(sys, sys, norm)).real
    reduced = np.asarray(strictly_proper_inner(rom, rom, norm)).real
    cross = np.asarray(strictly_proper_inner(sys, rom, norm)).real
    squared, noise = _three_terms(sys, rom, norm, delay, (full, cross, reduced))
    change = sys.D - rom.D
    if sys.is_continuous:
        squared = squared + np.where(np.any(change != 0, axis=(-1, -2)), np.inf, 0.0)
    else:
        squared = squared + np.sum(np.abs(change) ** 2, axis=(-1, -2))
        if delay == 0 and np.any(change):  # C B moves to the lag of D
            squared = squared + 2 * np.sum(change.conj() * (markov(sys) - markov(rom)), axis=(-1, -2)).real
    return scalar(np.sqrt(np.maximum(squared, 0.0))), noise, _with_feedthrough(sys, full, delay)


def _weighted_error_and_noise(sys: System, rom: System, norm: Norm, delay: int) -> tuple[FloatOrBatch, np.ndarray, np.ndarray]:
    """The same for an input with a spectrum: the covariance of the error, in three terms or by a factor, and its mean."""
    a, b = weigh_both(sys, rom, spectrum_of(norm))
    P, X, Q = state_covariance(a, a), state_covariance(a, b), state_covariance(b, b)
    full, reduced = (np.asarray(output_covariance(c, c, Y, delay)).real for c, Y in ((a, P), (b, Q)))
    means = output_mean(a, P), output_mean(b, Q)
    cross = np.asarray(output_covariance(a, b, X, delay)).real
    squared, noise = _three_terms(a.sys, b.sys, norm, delay, (full, cross, reduced))
    squared = squared + np.sum(np.abs(means[0] - means[1]) ** 2, axis=-1)
    noise = noise + _EPS * np.sqrt(np.sum((np.abs(means[0]) + np.abs(means[1])) ** 2, axis=-1))
    return scalar(np.sqrt(np.maximum(squared, 0.0))), noise, full + np.sum(np.abs(means[0]) ** 2, axis=-1)


def _three_terms(
    sys: System, rom: System, norm: Norm, delay: int, terms: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """``‖Σ‖² − 2⟨Σ, Σ_r⟩ + ‖Σ_r‖²`` of these terms, by a factor where they cancel, and the noise of its root."""
    full, cross, reduced = terms
    squared, noise = np.array(full - 2 * cross + reduced), np.array(_EPS * (full + reduced))  # each good to a few units roundoff
    noise = np.array(noise / np.sqrt(np.maximum(np.maximum(squared, noise), np.finfo(float).tiny)))
    for index in map(tuple, np.argwhere(squared < _CANCELS * (full + reduced))):
        one, other = member(sys, index), member(rom, index)
        squared[index], noise[index] = _squared_error_by_factor(one, other, norm.channel(index), delay)
    return squared, noise


def relative_to(sys: System, error: FloatOrBatch, norm: Norm, delay: int = 1) -> FloatOrBatch:
    """An h² error divided by the norm of `sys`; in continuous time by that of its strictly proper part."""
    squared_norm = np.asarray(strictly_proper_inner(sys, sys, norm)).real
    return _divided(error, _with_feedthrough(sys, squared_norm, delay))


def _with_feedthrough(sys: System, squared_norm: np.ndarray, delay: int) -> np.ndarray:
    """The squared norm of `sys`, in discrete time with its feedthrough, from that of its strictly proper part."""
    if not sys.is_continuous:
        squared_norm = squared_norm + np.sum(np.abs(sys.D) ** 2, axis=(-1, -2))
        if delay == 0:
            squared_norm = squared_norm + 2 * np.sum(sys.D.conj() * markov(sys), axis=(-1, -2)).real
    return squared_norm


def _divided(error: FloatOrBatch, squared_norm: np.ndarray) -> FloatOrBatch:
    """An error divided by a norm; infinite where only the norm is zero."""
    norm, error = np.sqrt(np.maximum(squared_norm, 0.0)), np.asarray(error)
    return scalar(np.divide(error, norm, out=np.where(error > 0, np.inf, 0.0), where=norm > 0))


def _squared_error_by_factor(sys: System, rom: System, norm: Norm, delay: int) -> tuple[float, float]:
    """The squared norm of one error system from a factor of its Gramian, and the noise of the norm; theory, eq. (3.8).

    Without a spectrum that of the strictly proper part; with one the power without the mean.
    """
    change = sys.D - rom.D if not norm.white and np.any(sys.D != rom.D) else np.zeros((sys.n_outputs, 0))
    extra = change.shape[1]  # the input becomes a state where a feedthrough reads it
    if isinstance(sys, DiagonalLQOSystem) and isinstance(rom, DiagonalLQOSystem) and not (extra and delay == 1):
        joined = DiagonalLQOSystem(
            np.concatenate([sys.poles, rom.poles, np.zeros(extra)]),
            np.concatenate([sys.B, rom.B, np.eye(sys.n_inputs)[:extra]]),
            np.hstack([sys.C, -rom.C, change]),
            dt=sys.dt,
        )
        R = state_factor(joined, norm)
        real = joined.is_real_pole
        C = real_rows(joined.C, real)
        M = _difference(sys, rom, extra)
        if isinstance(M, QuadraticOutput):
            M = QuadraticOutput(real_rows(M.U, real), real_rows(M.V, real), M.W)
    else:
        a, b = as_dense(sys), as_dense(rom)
        C, M = np.hstack([a.C, -b.C, change]), _difference(a, b, extra)
        A, B = scipy.linalg.block_diag(a.A, b.A, np.zeros((extra, extra))), np.vstack([a.B, b.B, np.eye(a.n_inputs)[:extra]])
        if extra and delay == 1:  # the state sees the input one step after the feedthrough
            A = A.astype(np.result_type(A, B))
            A[:-extra, -extra:], B[:-extra] = B[:-extra], 0.0
        R = state_factor(LQOSystem(A, B, C, dt=a.dt), norm)
    weight = 1.0 if norm.white else 2.0
    squared, size = np.linalg.norm(C @ R) ** 2, np.linalg.norm(np.abs(C) @ np.abs(R)) ** 2
    if isinstance(M, QuadraticOutput):
        left, right = M.U @ R, M.V @ R
        for w in M.W:
            half = left.T @ (w[:, np.newaxis] * right)
            squared += weight * np.linalg.norm(0.5 * (half + half.T)) ** 2
            size += weight * np.linalg.norm(np.abs(left).T @ np.abs(w[:, np.newaxis] * right)) ** 2
    elif M is not None:
        squared += weight * sum(np.linalg.norm(R.T @ Mi @ R) ** 2 for Mi in M)
        size += weight * sum(np.linalg.norm(np.abs(R).T @ np.abs(Mi) @ np.abs(R)) ** 2 for Mi in M)
    if isinstance(sys, DiagonalLQOSystem) and not norm.compiled:  # a factor of working precision, not of twice that
        return float(squared), float(_EPS * size / np.sqrt(max(squared, _EPS**2 * size)))
    return float(squared), float(_EPS * np.sqrt(size))


def _difference(sys: System, rom: System, extra: int) -> np.ndarray | QuadraticOutput | None:
    """The quadratic output of the error system, on the states or slots of both and `extra` more that it does not read."""
    if sys.M is None and rom.M is None:
        return None
    M, M_r = (_no_products(s) if s.M is None else s.M for s in (sys, rom))
    if isinstance(M, QuadraticOutput) and isinstance(M_r, QuadraticOutput):
        none = np.zeros((0, extra))
        U, V = scipy.linalg.block_diag(M.U, M_r.U, none), scipy.linalg.block_diag(M.V, M_r.V, none)
        return QuadraticOutput(U, V, np.hstack([M.W, -M_r.W]))
    M, M_r = (one.to_dense() if isinstance(one, QuadraticOutput) else one for one in (M, M_r))
    none = np.zeros((extra, extra))
    return np.stack([scipy.linalg.block_diag(Mi, -Mri, none) for Mi, Mri in zip(M, M_r, strict=True)])


def _no_products(sys: System) -> QuadraticOutput:
    none = np.zeros((0, sys.B.shape[-2]))
    return QuadraticOutput(none, none, np.zeros((sys.n_outputs, 0)))
