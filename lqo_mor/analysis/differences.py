"""The h² norm of the difference of two systems, with an account of the digits that rounding leaves."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.conditioning import WHY, moved, noise_of_rounding, plain_dense_square, risky, turned
from lqo_mor.analysis.door import balanced_units, check_delay, check_keywords, prepared
from lqo_mor.analysis.error_systems import joined, squared_by_factor
from lqo_mor.analysis.low_rank_gramians import LowRankGramian, given_or_solved
from lqo_mor.analysis.low_rank_norms import sparse_error_and_digits
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import check_other, scalar
from lqo_mor.analysis.rounding import CANCELLING, EPS, NEGLIGIBLE, root_noise, warn_of_noise
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.analysis.squares import diagonal_difference, diagonal_square, markov, strictly_proper_inner
from lqo_mor.analysis.weighted import output_covariance, output_mean, spectrum_of, state_covariance, weigh_both
from lqo_mor.analysis.weighted_squares import weighted_difference, weighted_square
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.sparse import SparseLQOSystem
from lqo_mor.systems.system import AnySystem, System
from lqo_mor.types import FloatOrBatch

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
    error, noise, squared_norm, noise_of_norm = _error_and_noise(full, balanced_units(rom)[0], norm, delay)
    size, why = np.sqrt(np.maximum(squared_norm, 0.0)), CANCELLING
    if isinstance(full, LQOSystem) and norm.white and risky(full, norm.solve(full.A, full.A, full.B @ full.B.conj().T)):
        near, why = (moved(full), moved(rom)), WHY
        noise = noise + noise_of_rounding(error, lambda: _error_and_noise(*near, norm, delay)[0])
    warn_of_noise("the h2 error", error, noise, NEGLIGIBLE * size, why)
    if relative:
        warn_of_noise("the h2 norm of the full system", size, noise_of_norm)
        return _divided(error, squared_norm)
    return error


def error_of(sys: System, rom: System, norm: Norm, delay: int = 1, relative: bool = False) -> FloatOrBatch:
    """The `h2_error` in a norm that exists for both systems."""
    absolute, _, squared_norm, _ = _error_and_noise(sys, rom, norm, delay)
    return _divided(absolute, squared_norm) if relative else absolute


def error_and_digits(sys: System, rom: System, norm: Norm, delay: int = 1) -> tuple[FloatOrBatch, FloatOrBatch, int | np.ndarray]:
    """`h2_error`, absolute and relative, and an estimate of how many decimal digits rounding has left of both (0 to 15).

    The Gramian of a dense matrix next to the stability boundary, or far from normal, is itself good to fewer digits
    than the arithmetic. How many is seen from the error of the same two systems with their state matrices moved by
    one unit roundoff, in other coordinates, which takes as long as the error itself.
    """
    error, noise, squared_norm, noise_of_norm = (np.asarray(part) for part in _error_and_noise(sys, rom, norm, delay))
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(sys, LQOSystem) or isinstance(rom, LQOSystem):
            near = turned(moved(sys)), turned(moved(rom))
            noise = noise + noise_of_rounding(error, lambda: _error_and_noise(*near, norm, delay)[0])
        size = np.sqrt(np.maximum(squared_norm, 0.0))
        noise = np.where(noise == 0, 0.0, noise / error) + np.where(noise_of_norm == 0, 0.0, noise_of_norm / size)
        digits = -np.log10(np.maximum(np.nan_to_num(noise, nan=np.inf), EPS))
    return scalar(error), _divided(error, squared_norm), scalar(np.clip(np.floor(digits), 0, 15).astype(int))


def _error_and_noise(sys: System, rom: System, norm: Norm, delay: int) -> tuple[FloatOrBatch, np.ndarray, np.ndarray, np.ndarray]:
    """`h2_error` and its rounding error if Gramians of dense systems are good to rounding; theory, eq. (3.7).

    And the squared norm of `sys`, in continuous time without its feedthrough, and the rounding error of its root.
    """
    if isinstance(sys, DiagonalLQOSystem) and isinstance(rom, DiagonalLQOSystem):
        (squared, noise), (full, noise_of_full) = (diagonal_difference if norm.white else weighted_difference)(
            sys, rom, norm, delay
        )
        if sys.is_continuous:
            squared = squared + np.where(np.any(sys.D != rom.D, axis=(-1, -2)), np.inf, 0.0)
        return _root(squared), root_noise(squared, noise), full, root_noise(full, noise_of_full)
    squared, noise, full, lost = (_dense_difference if norm.white else _weighted_dense_difference)(sys, rom, norm, delay)
    return _root(squared), noise, full, np.asarray(np.sqrt(lost))


def _dense_difference(sys: System, rom: System, norm: Norm, delay: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The squared error for white input, the noise of its root, and the squared norm of `sys`, where one of both is dense.

    And what of that norm is noise where all of it may be.
    """
    (full, size, lost), (reduced, own_size, _) = (plain_dense_square(as_dense(one), norm) for one in (sys, rom))
    cross = np.asarray(strictly_proper_inner(sys, rom, norm)).real
    squared, noise = _three_terms(sys, rom, norm, delay, (full, cross, reduced), (np.sqrt(size) + np.sqrt(own_size)) ** 2)
    change = sys.D - rom.D
    if sys.is_continuous:
        squared = squared + np.where(np.any(change != 0, axis=(-1, -2)), np.inf, 0.0)
    else:
        squared = squared + np.sum(np.abs(change) ** 2, axis=(-1, -2))
        if delay == 0 and np.any(change):  # C B moves to the lag of D
            squared = squared + 2 * np.sum(change.conj() * (markov(sys) - markov(rom)), axis=(-1, -2)).real
    return squared, noise, _with_feedthrough(sys, full, delay), lost


def _weighted_dense_difference(
    sys: System, rom: System, norm: Norm, delay: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The same for an input with a spectrum: the covariance of the error, in three terms or by a factor, and its mean."""
    a, b = weigh_both(sys, rom, spectrum_of(norm))
    P, X, Q = state_covariance(a, a), state_covariance(a, b), state_covariance(b, b)
    full, reduced = (np.asarray(output_covariance(c, c, Y, delay)).real for c, Y in ((a, P), (b, Q)))
    means = output_mean(a, P), output_mean(b, Q)
    cross = np.asarray(output_covariance(a, b, X, delay)).real
    squared, noise = _three_terms(a.sys, b.sys, norm, delay, (full, cross, reduced), full + reduced)
    squared = squared + np.sum(np.abs(means[0] - means[1]) ** 2, axis=-1)
    noise = noise + EPS * np.sqrt(np.sum((np.abs(means[0]) + np.abs(means[1])) ** 2, axis=-1))
    return squared, noise, full + np.sum(np.abs(means[0]) ** 2, axis=-1), 0.0


def _three_terms(
    sys: System, rom: System, norm: Norm, delay: int, terms: tuple[np.ndarray, np.ndarray, np.ndarray], size: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``‖Σ‖² − 2⟨Σ, Σ_r⟩ + ‖Σ_r‖²`` of these terms, by a factor where they cancel, and the noise of its root.

    `size` is the sum of what the terms are summed up from.
    """
    full, cross, reduced = terms
    squared, noise = full - 2 * cross + reduced, np.asarray(EPS * size)  # good to a few units roundoff
    if squared < _CANCELS * size:
        squared, noise = map(np.asarray, squared_by_factor(joined(sys, rom), norm, delay))
        return squared, noise
    return squared, noise / np.sqrt(np.maximum(np.maximum(squared, noise), np.finfo(float).tiny))


def _root(squared: np.ndarray) -> FloatOrBatch:
    return scalar(np.sqrt(np.maximum(squared, 0.0)))


def relative_to(sys: System, error: FloatOrBatch, norm: Norm, delay: int = 1) -> FloatOrBatch:
    """An h² error divided by the norm of `sys`; in continuous time by that of its strictly proper part."""
    if isinstance(sys, DiagonalLQOSystem):
        return _divided(error, (diagonal_square if norm.white else weighted_square)(sys, norm, delay)[0])
    return _divided(error, _with_feedthrough(sys, np.asarray(strictly_proper_inner(sys, sys, norm)).real, delay))


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
