"""Proven slopes of the maps of single tokens: activations, gates, normalisations, and what follows a system in a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from lqo_mor.bounds.gains import ROUND, spectral, times, times_each
from lqo_mor.network.blocks import Block
from lqo_mor.network.signals import activate, activation_slope

# Stationary points of the slope, ±x: gelu'' = φ(x)(2 - x²); for the tanh form the only root of its second derivative.
_TURN = {"gelu": np.sqrt(2.0), "gelu_tanh": 1.4185040087908284}


def slope_range(name: str, x: ArrayLike, delta: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest slope of the chords of an activation from `x` to any point within `delta`.

    They are those of the derivative on the interval; that of a GELU has one minimum, at ``-turn``, and one maximum, at
    ``turn``, and approaches 0 and 1 outside. Points and radii `delta` broadcast; a radius may be infinite.
    """
    x, delta = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(delta, dtype=np.float64))
    left, right = x - delta, x + delta
    if name == "identity":
        return np.ones(x.shape), np.ones(x.shape)
    if name == "relu":
        return np.where(left > 0, 1.0, 0.0), np.where(right < 0, 0.0, 1.0)
    turn = _TURN[name]
    ends = activation_slope(name, left), activation_slope(name, right)
    low, high = np.minimum(*ends), np.maximum(*ends)
    low = np.where((left <= -turn) & (right >= -turn), activation_slope(name, -turn), low)
    high = np.where((left <= turn) & (right >= turn), activation_slope(name, turn), high)
    return low - 1e-12, high + 1e-12


def largest_slope(name: str) -> float:
    """Lipschitz constant of an activation on the real line: 1.1290 for both forms of the GELU."""
    return float(slope_range(name, 0.0, np.inf)[1])


def gate_range(b: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest slope of the chords of the sigmoid from `b` to any point within `delta`; at most 1/4."""
    size = np.abs(b)

    def at(x: np.ndarray) -> np.ndarray:
        return expit(x) * expit(-x)

    return at(size + delta), at(np.maximum(size - delta, 0.0))


def chord(ratio: ArrayLike) -> np.ndarray:
    """The factor `c` of ``‖n(x) - n(y)‖ ≤ c ‖x - y‖ / ρ(x)``, if ``‖x - y‖ ≤ ratio √d ρ(x)``; theory, eq. (10.7).

    For ``n(x) = (x - mean x) / ρ(x)`` with ``ρ² = var + eps`` only the variance of *one* of the two tokens enters: with
    ``X = ((x - mean x) / √d, √eps)``, of norm ρ(x), ``n(x) / √d`` is part of the unit vector ``X / |X|``. A point Y within
    ``r < |X|`` of X is seen at an angle of at most ``arcsin(r / |X|)``, so the chord of the two unit vectors is at most
    ``2 sin(arcsin(r / |X|) / 2)``; in general it is at most 2 and, by Dunkl and Williams, ``c ≤ 2``.

    A `ratio` is at least 0 and may be infinite; the result is between 1 and 2.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    return np.where(ratio < 1, 1 / np.cos(0.5 * np.arcsin(np.minimum(ratio, 1.0))), 2.0)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """The map after the system, ``y ↦ gate(mixing(activation(y)))``, as matrices; `gate` is None without a gate."""

    activation: str
    value: np.ndarray
    value_bias: np.ndarray
    gate: np.ndarray | None
    gate_bias: np.ndarray | None

    @classmethod
    def of(cls, block: Block, features: int) -> TokenMap:
        """The map of a block whose system has so many outputs."""
        weight = np.eye(features) if block.mixing is None else block.mixing.weight
        bias = None if block.mixing is None else block.mixing.bias
        bias = np.zeros(len(weight)) if bias is None else bias
        if block.gate is None:
            return cls(block.activation, weight, bias, None, None)
        half = len(weight) // 2
        return cls(block.activation, weight[:half], bias[:half], weight[half:], bias[half:])

    def peaks(self, y: np.ndarray) -> np.ndarray:
        """Bounds on the values that the gate multiplies, for outputs of the system of at most `y`: no activation is larger."""
        return times(np.abs(self.value), y) + np.abs(self.value_bias)

    def gain(self, peaks: np.ndarray) -> float:
        """Lipschitz constant in the 2-norm if the values that the gate multiplies are at most `peaks`; theory, eq. (10.5)."""
        steepest = largest_slope(self.activation)
        if self.gate is None:
            return steepest * spectral(self.value)
        if not np.all(np.isfinite(peaks)):
            return np.inf
        slopes = 0.25 * peaks
        apart = spectral(self.value) + spectral(slopes[:, np.newaxis] * self.gate)
        total = np.sqrt(1 + slopes)[:, np.newaxis]  # (α + t β)² ≤ (1 + t)(α² + t β²)
        stacked = np.concatenate([total * self.value, total * np.sqrt(slopes)[:, np.newaxis] * self.gate])
        return steepest * min(apart, spectral(stacked))

    def change(self, old: TokenMap, peaks: np.ndarray, sizes: np.ndarray, steps: int) -> np.ndarray:
        """A bound on what this map gives differently from the old one at the same tokens, over all steps.

        ``aσ(b) - a₀σ(b₀) = σ(b)(a - a₀) + a₀(σ(b) - σ(b₀))``, and the same with the maps swapped; no activation is larger than
        its argument.

        `old` has the same shapes; `peaks` and `sizes` (features,) bound the largest values and the ℓ2 norms of the outputs of
        the system. Returns (3,): ℓ2 norm, largest 2-norm of a token, and the mean of these norms.
        """
        values = np.minimum(self.peaks(peaks), old.peaks(peaks))

        def size(y: np.ndarray, one: float) -> float:
            found = times(np.abs(self.value - old.value), y) + one * np.abs(self.value_bias - old.value_bias)
            if self.gate is not None and old.gate is not None:
                bias, old_bias = (cast(np.ndarray, part.gate_bias) for part in (self, old))
                gates = times(np.abs(self.gate - old.gate), y) + one * np.abs(bias - old_bias)
                found = found + times_each(values, np.minimum(0.25 * gates, one))
            return float(np.linalg.norm(found)) * ROUND

        token = size(peaks, 1.0)
        total = min(size(sizes, np.sqrt(steps)), np.sqrt(steps) * token)
        return np.array([total, token, total / np.sqrt(steps)])

    def largest(self, y: np.ndarray) -> np.ndarray:
        """The largest values that the gate multiplies, (batch, values), of signals `y` (features, batch, steps)."""
        values = self.value @ activate(self.activation, np.array(y)).reshape(len(y), -1) + self.value_bias[:, np.newaxis]
        return np.max(np.abs(values.reshape(-1, *y.shape[1:])), axis=2).T

    def steepest(
        self, y: np.ndarray, weight: np.ndarray, peak: np.ndarray, near: float, scales: dict[str, np.ndarray], centred: bool
    ) -> dict[str, float]:
        """Bounds on `weight` (tokens,) times the norms of the secants ``J̄ diag(scale)`` at tokens `y` (tokens, features).

        For each of the `scales` the largest over the tokens, "..._most", and their root mean square, "..._rms". With `centred`
        the mean over the outputs is left out.
        """
        radius, chunk = np.zeros_like(self.value), max(1, 2**21 // self.value.size)
        best, squares = dict.fromkeys(scales, 0.0), dict.fromkeys(scales, 0.0)
        for start in range(0, len(y), chunk):
            J, around = self.jacobians(y[start : start + chunk], peak, near)
            J, around = (part * weight[start : start + chunk, np.newaxis, np.newaxis] for part in (J, around))
            np.maximum(radius, np.max(around, axis=0), out=radius)
            if centred:
                J = J - J.mean(axis=1, keepdims=True)
            for name, scale in scales.items():
                scaled = J * scale
                gram = scaled.swapaxes(1, 2) @ scaled
                norms = np.linalg.norm(gram @ gram, axis=(1, 2)) ** 0.25  # Schatten 8-norm; theory, eq. (10.6)
                squares[name] += float(np.sum(norms**2))
                for i in np.argsort(-norms):
                    if norms[i] <= best[name]:
                        break
                    best[name] = max(best[name], float(np.linalg.norm(scaled[i], 2)))
        found = {}
        for name, scale in scales.items():
            extra = spectral(radius * scale)
            found[f"{name}_most"] = best[name] * ROUND + extra
            found[f"{name}_rms"] = np.sqrt(squares[name] / len(y)) * ROUND + extra
        return found

    def jacobians(self, y: np.ndarray, peak: np.ndarray, token: float) -> tuple[np.ndarray, np.ndarray]:
        """Matrices `J` that enclose every secant of the map from the tokens `y` to points close by; theory, eq. (10.6).

        ``f(ŷ) - f(y) = J̄ (ŷ - y)`` with ``|J̄ - J| ≤ radius`` elementwise, for all ŷ with ``|ŷ_h - y_h| ≤ peak_h`` and
        ``‖ŷ - y‖ ≤ token``. With the gate, ``âσ(b̂) - aσ(b) = σ(b̂)(â - a) + a(σ(b̂) - σ(b))``.

        `y` (tokens, features) are outputs of the system; `peak` (features,) and `token` may be infinite. `J` and `radius` are
        (tokens, outputs, features).
        """
        low, high = slope_range(self.activation, y, peak)
        g, rg = 0.5 * (high + low), 0.5 * (high - low)
        if self.gate is None:
            return self.value * g[:, np.newaxis], np.abs(self.value) * rg[:, np.newaxis]
        active = activate(self.activation, np.array(y))
        a, b = active @ self.value.T + self.value_bias, active @ self.gate.T + self.gate_bias
        steepest = largest_slope(self.activation)
        reach = np.minimum(times(np.abs(self.gate), steepest * peak), steepest * token * np.linalg.norm(self.gate, axis=1))
        s_low, s_high = expit(b - reach), expit(b + reach)
        t_low, t_high = gate_range(b, reach)
        s, rs = 0.5 * (s_high + s_low), 0.5 * (s_high - s_low)
        t, rt = 0.5 * (t_high + t_low) * a, 0.5 * (t_high - t_low) * np.abs(a)
        X = s[:, :, np.newaxis] * self.value + t[:, :, np.newaxis] * self.gate
        rX = rs[:, :, np.newaxis] * np.abs(self.value) + rt[:, :, np.newaxis] * np.abs(self.gate)
        g, rg = g[:, np.newaxis], rg[:, np.newaxis]
        return X * g, np.abs(X) * rg + rX * (np.abs(g) + rg)
