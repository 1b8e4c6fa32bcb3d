"""Proven gains of systems over a finite number of steps.

Gains are of three kinds, for a kernel `K` of `steps` lags: from ℓ2 to ℓ2, from ℓ2 to the largest value (the h2 norm, by
Cauchy and Schwarz), and from the largest value to the largest value (the sum of absolute values).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike
from scipy.linalg import toeplitz

from lqo_mor.network.signals import impulse_responses
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_EXACT = 128  # horizon up to which the gain of a channel is the norm of its Toeplitz matrix
ROUND = 1 + 1e-10  # rounding of computed norms


def times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Product of nonnegative arrays in which nothing times infinity is infinity: a bound that is not known."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(matrix @ vector, nan=np.inf, posinf=np.inf)


def times_each(a: ArrayLike, b: ArrayLike) -> Any:
    """Elementwise product of bounds; zero is exact and infinity is not known, so their product is zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(np.multiply(a, b), nan=0.0, posinf=np.inf)


def spectral(matrix: np.ndarray) -> float:
    """Largest singular value."""
    return float(np.linalg.norm(matrix, 2)) * ROUND if matrix.size else 0.0


def kernels(ssm: DiagonalLQOSystem, steps: int) -> list[np.ndarray]:
    """Impulse responses of the rows `C`, `U` and `V`, of a batch (width, rows, steps), of a system (rows, inputs, steps)."""
    K, p, axis = impulse_responses(ssm, steps), ssm.n_outputs, 1 if ssm.batch else 0
    return np.split(K, [p, (p + K.shape[axis]) // 2], axis=axis)


def _spectra(K: np.ndarray) -> tuple[np.ndarray, float]:
    """Frequency responses (..., frequencies) on a grid, and the factor by which they may be larger between its points.

    ``|uᴴ K(ω) v|`` is the modulus of a polynomial of degree ``m = steps - 1`` in ``exp(iω)``; with half of its phase taken
    off, its real part is of exponential type ``m / 2``. Such a function with the largest value M at ω₀ is at least
    ``M cos(m (ω - ω₀) / 2)`` near by (Duffin and Schaeffer 1938), and with N points on the circle one is within ``π / N``:
    theory, eq. (10.2).
    """
    steps = K.shape[-1]
    points = scipy.fft.next_fast_len(4 * steps, real=True)
    return scipy.fft.rfft(K, points, axis=-1), ROUND / np.cos(0.5 * np.pi * (steps - 1) / points)


def channel_gains(K: np.ndarray) -> np.ndarray:
    """Proven gains from ℓ2 to ℓ2 of kernels (..., steps) with one input and one output, over their steps; theory, eq. (10.1)."""
    steps = K.shape[-1]
    gains = np.sum(np.abs(K), axis=-1)
    for index in np.ndindex(gains.shape):
        if steps <= _EXACT:
            other = spectral(toeplitz(K[index], np.zeros(steps)))
        else:
            spectrum, factor = _spectra(K[index])
            other = factor * np.max(np.abs(spectrum))
        gains[index] = min(gains[index], other)
    return gains


def matrix_gain(K: np.ndarray) -> float:
    """Proven gain from ℓ2 to ℓ2 of a kernel (outputs, inputs, steps): the H∞ norm of its lags; theory, eq. (10.1)."""
    spectrum, factor = _spectra(K)
    return factor * float(np.max(np.linalg.norm(np.moveaxis(spectrum, -1, 0), 2, axis=(1, 2))))


def row_gains(K: np.ndarray) -> np.ndarray:
    """Proven gains from ℓ2 to ℓ2 of every row of a kernel (rows, inputs, steps); theory, eq. (10.1)."""
    spectrum, factor = _spectra(K)
    return factor * np.sqrt(np.max(np.sum(np.abs(spectrum) ** 2, axis=1), axis=-1))


class SystemGains:
    """Gains of a system ``K v + W ((U v) ∘ (V v))`` over a number of steps, for changes ``scale ∘ ε`` of its input `v`."""

    def __init__(self, ssm: DiagonalLQOSystem, parts: Sequence[np.ndarray], scale: np.ndarray) -> None:
        q, p = ssm.M, ssm.n_outputs
        self.W = np.abs(np.zeros((*ssm.batch, p, 0)) if q is None else q.W)
        self.batch = bool(ssm.batch)
        if self.batch:
            self.gains = [channel_gains(part) * scale[:, np.newaxis] for part in parts]
            parts = [part[..., np.newaxis, :] for part in parts]
        scaled = [part * (scale[:, np.newaxis, np.newaxis, np.newaxis] if self.batch else scale[:, np.newaxis]) for part in parts]
        lags = np.moveaxis(scaled[0], -1, 0)
        if self.batch:
            spectral_norms = np.max(np.abs(lags), axis=(1, 2, 3))
        else:
            self.gains = [matrix_gain(scaled[0]), row_gains(scaled[1]), row_gains(scaled[2])]
            spectral_norms = np.linalg.norm(lags, 2, axis=(1, 2))
        # from ℓ2, and from the largest 2-norm of a token, to the largest value of every row; from token to token
        self.h2 = [np.sqrt(np.sum(part**2, axis=(-1, -2))) for part in scaled]
        self.l1 = [np.sum(np.sqrt(np.sum(part**2, axis=-2)), axis=-1) for part in scaled]
        self.token = float(np.sum(spectral_norms)) * ROUND

    def products(self, left: np.ndarray, right: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``|W| (left ∘ v + right ∘ u)``, for factors and what changes the factors."""
        return times(self.W, (times_each(left, v) + times_each(right, u))[..., np.newaxis])[..., 0]

    def gain(self, *factors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Gains from ℓ2 to ℓ2 of each output, or for each of all together, the least over bounds on the factors of the products.

        ``p̂q̂ - pq = p(q̂ - q) + q̂(p̂ - p)``: the left factor is that of one run, and the right one that of the other; theory,
        eq. (10.4).
        """
        K, U, V = self.gains
        changes = [self.products(left, right, U, V) for left, right in factors]
        if self.batch:
            return (K + np.minimum.reduce(changes)).ravel()
        return np.full(len(self.W), K + min(np.linalg.norm(change) for change in changes))

    def respond(
        self, total: float, token: float, left: np.ndarray, right: np.ndarray, reach: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Gains for a change ε of that ℓ2 norm and largest token, and the largest change of each output and of a token.

        `left` and `right` bound the factors of the products before the change, the pair `reach` for all inputs there are.
        """
        k, u, v = (np.minimum(times_each(h2, total), times_each(l1, token)) for h2, l1 in zip(self.h2, self.l1, strict=True))
        pairs = (left, np.minimum(right + v, reach[1])), (np.minimum(left + u, reach[0]), right)
        products = np.minimum(*(self.products(a, b, u, v) for a, b in pairs))
        near = times_each(self.token, token) + float(np.linalg.norm(products))
        return self.gain(*pairs), (k + products).ravel(), float(near)
