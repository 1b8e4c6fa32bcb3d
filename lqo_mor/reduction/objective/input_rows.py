"""The input rows of a reduced diagonal model and what its Gramian makes of them, for white input and for one with a spectrum.

The Gramians of half storage are ``P_ij = (b_i · f_j + f_i · b_j) g(μ_i, μ_j)``, and with conjugates on the right, where
``f = b G(μ)ᵀ`` with ``G(μ) = Σ_{j≥0} R_j μ^j − ½ R_0`` (theory, eq. (9.2)). White input has ``f = ½ b``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Part: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights of a Gramian, its pairings and their derivatives, (s, s)


@dataclass(frozen=True)
class WhiteInputs:
    """Input rows `B` (s, m) that read white noise of unit power."""

    B: np.ndarray

    @classmethod
    def at(cls, mu: np.ndarray, B: np.ndarray) -> WhiteInputs:
        """The rows `B`, whatever the poles."""
        return cls(B)

    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """What stands beside the pairing in the Gramian, and in the one with conjugates on the right, (s, s) both."""
        return self.B @ self.B.T, self.B @ self.B.conj().T

    def gradients(self, gamma: np.ndarray, delta: np.ndarray, plain: Part, hermitian: Part) -> tuple[np.ndarray, np.ndarray]:
        """``γ`` (s,) and ``δ`` (s, m) plus those of ``Σ α_ij P_ij + β_ij H_ij`` for both Gramians and symmetric weights.

        `plain` holds `α`, ``g(μ_i, μ_j)`` and its derivatives by ``μ_i``, `hermitian` the same for `β` and ``g(μ_i, conj μ_j)``.
        """
        products, conjugates = self.products()
        (alpha, g, dg), (beta, h, dh) = plain, hermitian
        gamma = gamma + 2 * np.sum(alpha * products * dg + beta * conjugates * dh, axis=1)
        return gamma, delta + 2 * (alpha * g) @ self.B + 2 * (beta * h) @ self.B.conj()


class Series:
    """``G(μ) = Σ_{j≥0} R_j μ^j − ½ R_0`` of autocovariances (lags, m, m), and the inputs that it makes of rows at poles."""

    def __init__(self, covariances: np.ndarray) -> None:
        lags, m, _ = covariances.shape
        self.m, self.numbers, self.flat = m, np.arange(1.0, lags), covariances.reshape(lags, m * m).copy()
        self.flat[0] *= 0.5

    def at(self, mu: np.ndarray, B: np.ndarray) -> ColouredInputs:
        """The rows `B` (s, m) at the poles `mu` (s,)."""
        s, powers = mu.size, np.ones((2, mu.size, self.flat.shape[0]), complex)
        powers[0, :, 1:] = mu[:, np.newaxis]
        np.cumprod(powers[0], axis=1, out=powers[0])
        powers[1, :, 0], powers[1, :, 1:] = 0.0, self.numbers * powers[0, :, :-1]
        parts = np.concatenate([powers.real, powers.imag]).reshape(4 * s, -1) @ self.flat  # real, twice as fast as complex
        gains, slopes = (parts[: 2 * s] + 1j * parts[2 * s :]).reshape(2, s, self.m, self.m)
        return ColouredInputs(B, (gains @ B[..., np.newaxis])[..., 0], (slopes @ B[..., np.newaxis])[..., 0], gains)


@dataclass(frozen=True)
class ColouredInputs:
    """Input rows `B` (s, m) that read an input with a spectrum.

    `F` (s, m) are their ``f``, `slopes` (s, m) the derivatives of those by the pole, and `gains` (s, m, m) by the row.
    """

    B: np.ndarray
    F: np.ndarray
    slopes: np.ndarray
    gains: np.ndarray

    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """As for `WhiteInputs`."""
        mixed, conjugates = self.B @ self.F.T, self.B @ self.F.conj().T
        return mixed + mixed.T, conjugates + conjugates.conj().T

    def gradients(self, gamma: np.ndarray, delta: np.ndarray, plain: Part, hermitian: Part) -> tuple[np.ndarray, np.ndarray]:
        """As for `WhiteInputs`."""
        products, conjugates = self.products()
        for (weights, g, dg), own, B, F in (
            (plain, products, self.B, self.F),
            (hermitian, conjugates, self.B.conj(), self.F.conj()),
        ):
            seen = weights * g
            gamma = gamma + 2 * np.sum(weights * own * dg + seen * (self.slopes @ B.T), axis=1)
            delta = delta + 2 * (seen @ F + self.through(seen @ B))
        return gamma, delta

    def through(self, left: np.ndarray) -> np.ndarray:
        """``l_j G(μ_j)`` for the rows `l` of `left` (s, m)."""
        return (left[:, np.newaxis] @ self.gains)[:, 0]
