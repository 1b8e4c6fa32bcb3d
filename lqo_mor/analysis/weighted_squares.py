"""The power of the output of diagonal systems for an input with a spectrum, accurate where its terms cancel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from lqo_mor.analysis.error_systems import joined, squared_by_factor
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.rounding import EPS, UNITS, Size, cancels, noise_of, noise_of_inner, size_of
from lqo_mor.analysis.rows import pair_weights
from lqo_mor.analysis.weighted import (
    Weighted,
    inner_of_weighted,
    output_covariance,
    output_mean,
    spectrum_of,
    state_covariance,
    weigh,
    weigh_both,
)
from lqo_mor.matrix_equations.pairing import pairing
from lqo_mor.systems.convert import member
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.system import System

_UNITS = 4.0


@dataclass(frozen=True)
class Power:
    """The power of the output of a diagonal system in working precision, and what rounding may do to it."""

    squared: np.ndarray  # (...), without the mean
    mean: np.ndarray  # (..., p)
    size: Size  # of the terms of `squared`
    direct: np.ndarray  # (...), the noise of the moments with the feedthrough
    mean_noise: np.ndarray  # (...), that of the mean

    @property
    def total(self) -> np.ndarray:
        """The power with that of the mean."""
        return self.squared + np.sum(self.mean**2, axis=-1)


def power_of(a: Weighted, delay: int) -> Power:
    """The `Power` of a weighted diagonal system."""
    P = state_covariance(a, a)
    squared = np.asarray(output_covariance(a, a, P, delay)).real
    return Power(squared, output_mean(a, P), *_sizes(a))


def _sizes(a: Weighted) -> tuple[Size, np.ndarray, np.ndarray]:
    """The size of the terms of a power, and the noise of the moments with the feedthrough and of the mean."""
    sys = cast(DiagonalLQOSystem, a.sys)
    weights = pair_weights(sys)
    largest, power = _bounds(a)
    size = size_of(sys, pairing(False), power=power)
    D = np.sum(sys.D**2, axis=(-1, -2))
    seen = np.sum(_row_sizes(sys.C, weights, largest**2), axis=-1)
    direct, mean_noise = 2 * np.sqrt(D * seen) + D * np.sum(np.abs(a.start), axis=(-1, -2)), np.zeros(())
    if sys.M is not None:
        size = 2 * size  # of a Gaussian output the quadratic part counts twice
        products = np.sqrt(_row_sizes(sys.M.U, weights, power) * _row_sizes(sys.M.V, weights, power))
        mean_noise = np.linalg.norm(np.abs(sys.M.W) @ products[..., np.newaxis], axis=(-1, -2))
    return size, UNITS * EPS * direct, UNITS * EPS * mean_noise


def _row_sizes(rows: np.ndarray, weights: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The sums ``4 Σ |w z|² states`` for rows (..., q, s): (..., q)."""
    return (np.abs(rows) ** 2 @ (4 * weights**2 * states)[..., np.newaxis])[..., 0]


def _bounds(a: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (..., s) of ``|E[x uᵀ]|`` of the slots, as large as its terms, and of their power; theory, eq. (9.1)."""
    sys = cast(DiagonalLQOSystem, a.sys)
    inputs, decay = np.linalg.norm(sys.B, axis=-1), 1 - np.abs(sys.poles)
    variance = np.trace(a.start, axis1=-2, axis2=-1)[..., np.newaxis]
    largest = inputs * np.minimum(variance / decay, a.lags[..., np.newaxis])
    return largest, 2 * inputs * largest / (decay * (2 - decay))


def weighted_square(sys: DiagonalLQOSystem, norm: Norm, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """The power of the output of a diagonal system, and its noise."""
    power = power_of(weigh(sys, spectrum_of(norm)), delay)
    noise = noise_of(power.squared, power.size) + power.direct + _noise_of_mean(power.mean, power.mean_noise)
    return _completed(power.total, noise, lambda index: member(sys, index), norm, delay)


def weighted_difference(
    sys: DiagonalLQOSystem, rom: DiagonalLQOSystem, norm: Norm, delay: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The power of the difference of the outputs of two diagonal systems and its noise, and those of `sys`."""
    a, b = (weigh(one, spectrum_of(norm)) for one in (sys, rom))
    full, reduced = power_of(a, delay), power_of(b, delay)
    cross = np.asarray(output_covariance(a, b, state_covariance(a, b), delay)).real
    squared, mean = full.squared - 2 * cross + reduced.squared, full.mean - reduced.mean
    noise = noise_of(squared, full.size + reduced.size) + (np.sqrt(full.direct) + np.sqrt(reduced.direct)) ** 2
    noise = noise + _noise_of_mean(mean, full.mean_noise + reduced.mean_noise)
    total = squared + np.sum(mean**2, axis=-1)

    def difference(index: tuple[int, ...]) -> System:
        return joined(member(sys, index), member(rom, index))

    own_noise = noise_of(full.squared, full.size) + full.direct + _noise_of_mean(full.mean, full.mean_noise)
    own = _completed(full.total, own_noise, lambda index: member(sys, index), norm, delay)
    return _completed(total, noise, difference, norm, delay), own


def _noise_of_mean(mean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The noise of the squared norm of a mean."""
    return noise * (2 * np.sqrt(np.sum(mean**2, axis=-1)) + noise)


def _completed(
    squared: np.ndarray, noise: np.ndarray, system: Callable[[tuple[int, ...]], System], norm: Norm, delay: int
) -> tuple[np.ndarray, np.ndarray]:
    """A power and its noise, computed anew by a factor of the covariance where terms cancel."""
    lost = cancels(squared, noise)
    if lost:
        squared, noise = np.array(squared), np.array(noise)
        for index in lost:
            squared[index], noise[index] = _by_factor(system(index), norm.channel(index), delay)
    return squared, noise


def _by_factor(sys: System, norm: Norm, delay: int) -> tuple[float, float]:
    squared, noise = squared_by_factor(sys, norm, delay)
    return squared, noise * (2 * np.sqrt(squared) + noise)


def weighted_diagonal_inner(
    sys: DiagonalLQOSystem, other: DiagonalLQOSystem, norm: Norm, delay: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``E[y'ᵀ y]`` of the outputs of two diagonal systems, its noise, and the product of their norms where terms cancel."""
    a, b = weigh_both(sys, other, spectrum_of(norm))
    value = np.asarray(inner_of_weighted(a, b, delay)).real
    (size, direct, mean), (other_size, other_direct, other_mean) = _sizes(a), _sizes(b)
    noise = noise_of_inner(size, other_size) + np.sqrt(direct * other_direct) + mean * other_mean / (UNITS * EPS)
    norms = np.zeros(np.shape(value))
    lost = cancels(np.abs(value), noise)
    if lost:
        value, noise = np.array(value), np.array(noise)
        for index in lost:
            one, two, own = member(sys, index), member(other, index), norm.channel(index)
            x, y = (squared_by_factor(system, own, delay)[0] for system in (one, two))
            scale = 2.0 ** np.round(0.5 * np.log2(x / y)) if x > 0 and y > 0 else 1.0  # exact
            plus, minus = (_by_factor(joined(one, two, sign * scale), own, delay) for sign in (1.0, -1.0))
            value[index], noise[index] = (plus[0] - minus[0]) / (4 * scale), (plus[1] + minus[1]) / (4 * scale)
            norms[index] = np.sqrt(x * y)
    return value, noise, norms
