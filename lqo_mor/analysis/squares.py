"""Inner products and squared norms for white input, accurate where the terms of diagonal systems cancel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np

from lqo_mor.analysis.error_systems import joined, squared_by_factor
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rounding import EPS, Size, accurate_noise, cancels, noise_of, noise_of_inner, size_of
from lqo_mor.analysis.rows import (
    linear_product,
    output_products,
    pair_weights,
    quadratic_inner,
    row_products,
    split,
    stack_rows,
)
from lqo_mor.matrix_equations.pairing import accurate_square, row_covariance, solve_both
from lqo_mor.systems.convert import as_dense, member
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System

_MOST_ROWS = 64  # of outputs, up to which twice the working precision is faster than a factor of the Gramian


def strictly_proper_inner(sys: System, other: System, norm: Norm) -> np.ndarray:
    """The inner product without the feedthrough."""
    if isinstance(sys, DiagonalLQOSystem) and isinstance(other, DiagonalLQOSystem):
        linear, quadratic = output_products(sys, other, solve_both(norm.pairing, sys.poles, sys.B, other.poles, other.B))
        return linear + quadratic
    a = as_dense(sys)
    b = a if other is sys else as_dense(other)
    linear, quadratic = output_products(a, b, norm.solve(a.A, b.A, a.B @ b.B.conj().T))
    return linear + quadratic


def markov(sys: System) -> np.ndarray:
    """The first Markov parameter ``C B``, (..., p, m); theory, eq. (1.3)."""
    if isinstance(sys, DiagonalLQOSystem):
        return 2 * ((sys.C * pair_weights(sys)[..., np.newaxis, :]) @ sys.B).real
    return sys.C @ sys.B


def proper_square(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, Size]:
    """The squared norm of a diagonal system without the feedthrough, in working precision, and the size of its terms."""
    plain, hermitian = solve_both(norm.pairing, sys.poles, sys.B, sys.poles, sys.B)
    rows = pair_weights(sys)[..., np.newaxis, :] * stack_rows(sys.C, sys.M)
    if sys.M is None:
        return linear_product(rows, plain, hermitian, rows), size_of(sys, norm.pairing)
    S, W = row_products(rows, plain, hermitian, rows), sys.M.W
    linear, uu, uv, vu, vv = split(S, *W.shape[-2:], *W.shape[-2:])
    squared = np.trace(linear, axis1=-2, axis2=-1) + quadratic_inner(uu, uv, vu, vv, W, W)
    return squared, size_of(sys, norm.pairing, S)


def diagonal_square(sys: DiagonalLQOSystem, norm: Norm, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """The squared norm of a diagonal system, in continuous time without its feedthrough, and its noise."""
    squared, size = proper_square(sys, norm)
    return _completed(squared, size, sys.D, lambda: markov(sys), lambda index: member(sys, index), norm, delay)


def diagonal_difference(
    sys: DiagonalLQOSystem, rom: DiagonalLQOSystem, norm: Norm, delay: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The squared error between two diagonal systems and its noise, and the squared norm of `sys` and that of it.

    As ``‖Σ‖² − 2⟨Σ, Σ_r⟩ + ‖Σ_r‖²``, and where that cancels as the squared norm of the error system; theory, eq. (3.7), (3.8).
    """
    (full, size), (reduced, other_size) = proper_square(sys, norm), proper_square(rom, norm)
    squared = full - 2 * strictly_proper_inner(sys, rom, norm) + reduced

    def first() -> np.ndarray:
        return markov(sys) - markov(rom)

    def difference(index: tuple[int, ...]) -> System:
        return joined(member(sys, index), member(rom, index))

    square, noise = _completed(squared, size + other_size, sys.D - rom.D, first, difference, norm, delay)
    error = square, np.where(_same(sys, rom), 0.0, noise)
    return error, _completed(full, size, sys.D, lambda: markov(sys), lambda index: member(sys, index), norm, delay)


def _same(sys: DiagonalLQOSystem, rom: DiagonalLQOSystem) -> np.ndarray:
    """Which systems of two batches are equal number by number: their error is zero, without noise."""
    pairs = [(getattr(sys, name), getattr(rom, name), 1 if name == "poles" else 2) for name in ("poles", "B", "C", "D")]
    if sys.M is not None and rom.M is not None:
        pairs += [(getattr(sys.M, name), getattr(rom.M, name), 2) for name in ("U", "V", "W")]
    if (sys.M is None) != (rom.M is None) or any(a.shape != b.shape for a, b, _ in pairs):
        return np.zeros(sys.batch, bool)
    return np.all([np.all(a == b, axis=tuple(range(-axes, 0))) for a, b, axes in pairs], axis=0)


def _completed(
    squared: np.ndarray,
    size: Size,
    D: np.ndarray,
    first: Callable[[], np.ndarray],
    system: Callable[[tuple[int, ...]], System],
    norm: Norm,
    delay: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A squared norm with its feedthrough `D`, and its noise, from that of the strictly proper part in working precision.

    `first` gives the first Markov parameters, and `system` the diagonal system at an index of the batch: where terms cancel its
    squared norm is computed anew.
    """
    noise = noise_of(squared, size)
    if not norm.continuous and np.any(D):
        direct = np.sum(D**2, axis=(-1, -2))
        squared, noise = squared + direct, noise + EPS * direct
        if delay == 0:  # C B moves to the lag of D
            squared = squared + 2 * np.sum(D * first(), axis=(-1, -2))
            noise = noise + 8 * EPS * np.sqrt(direct) * size.terms
    lost = cancels(squared, noise)
    if lost:
        squared, noise = np.array(squared), np.array(noise)
        for index in lost:
            high, low, noise[index] = _accurate_square(system(index), norm.channel(index), delay)
            squared[index], noise[index] = high + low, noise[index] + EPS * abs(high)
    return squared, noise


def _accurate_square(sys: System, norm: Norm, delay: int) -> tuple[float, float, float]:
    """The squared norm of one diagonal system in twice the working precision, as a sum of two numbers, and its noise.

    Where there are too many rows for that or the pairing is not compiled, by a factor of the Gramian.
    """
    sys = cast(DiagonalLQOSystem, sys)
    D, rows = np.zeros_like(sys.D) if norm.continuous else sys.D, stack_rows(sys.C, sys.M)
    if not norm.compiled or rows.shape[0] > _MOST_ROWS:
        squared, noise = squared_by_factor(sys, norm, delay)
        direct = float(np.sum(D**2) + (0.0 if delay else 2 * np.sum(D * markov(sys))))
        moved = 8 * EPS * float(np.linalg.norm(D) * size_of(sys, norm.pairing).terms)
        return squared + direct, 0.0, noise * (2 * np.sqrt(squared) + noise) + moved
    W = np.zeros((sys.n_outputs, 0)) if sys.M is None else sys.M.W
    S = row_covariance(norm.pairing, sys.poles, sys.B, rows)
    high, low = accurate_square(S, W, sys.B, sys.C, D, sys.is_real_pole, delay == 0)
    return high, low, float(accurate_noise(size_of(sys, norm.pairing, S[0])))


def feedthrough_inner(sys: System, other: System, delay: int) -> np.ndarray:
    """What the feedthrough adds to an inner product."""
    feedthrough = np.sum(sys.D * other.D.conj(), axis=(-1, -2))
    if sys.is_continuous and np.any(sys.D) and np.any(other.D):
        return np.where(feedthrough == 0, feedthrough, np.copysign(np.inf, feedthrough.real))
    if delay == 0 and not sys.is_continuous:  # C B moves to the lag of D
        feedthrough = feedthrough + np.sum(sys.D * markov(other).conj() + markov(sys) * other.D.conj(), axis=(-1, -2))
    return feedthrough


def diagonal_inner(
    sys: DiagonalLQOSystem, other: DiagonalLQOSystem, norm: Norm, delay: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inner product of two diagonal systems, its noise, and the product of their norms where terms cancel.

    In continuous time the noise and the norms are those of the strictly proper parts.
    """
    sizes = size_of(sys, norm.pairing), size_of(other, norm.pairing)
    value = strictly_proper_inner(sys, other, norm) + feedthrough_inner(sys, other, delay)
    noise, norms = noise_of_inner(*sizes), np.zeros(np.shape(value))
    if not norm.continuous:
        direct = [np.sum(one.D**2, axis=(-1, -2)) for one in (sys, other)]
        noise = noise + EPS * np.sqrt(direct[0] * direct[1])
        noise = noise + 8 * EPS * (1 - delay) * (np.sqrt(direct[0]) * sizes[1].terms + sizes[0].terms * np.sqrt(direct[1]))
    lost = cancels(np.abs(value), noise)
    if lost:
        value, noise = np.array(value), np.array(noise)
        for index in lost:
            found = _accurate_inner(member(sys, index), member(other, index), norm.channel(index), delay)
            value[index], noise[index], norms[index] = found
    return value, noise, norms


def _accurate_inner(sys: System, other: System, norm: Norm, delay: int) -> tuple[float, float, float]:
    """The inner product of two systems, ``(‖Σ + Σ'‖² − ‖Σ − Σ'‖²) / 4`` with both scaled to one norm, as `diagonal_inner`."""
    first, second = (_accurate_square(one, norm, delay)[0] for one in (sys, other))
    scale = 2.0 ** np.round(0.5 * np.log2(first / second)) if first > 0 and second > 0 else 1.0  # exact
    plus, minus = (_accurate_square(joined(sys, other, sign * scale), norm, delay) for sign in (1.0, -1.0))
    value = math.fsum([plus[0], -minus[0], plus[1], -minus[1]]) / (4 * scale)
    return value, (plus[2] + minus[2]) / (4 * scale), math.sqrt(max(first, 0.0)) * math.sqrt(max(second, 0.0))
