"""What rounding leaves of the squared norm of a diagonal system, whose terms may cancel; theory, eq. (3.9) to (3.11).

The rounding errors of the terms of a norm are independent of each other, so that together they are about as large as the root
of the sum of their squares: not more than a sum over the modes, of what each of them gives to the outputs by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lqo_mor.analysis.rows import stack_rows
from lqo_mor.compiling import njit
from lqo_mor.errors import AccuracyWarning, warn
from lqo_mor.matrix_equations.pairing import Pairing
from lqo_mor.matrix_equations.pairing_kernels import CONTINUOUS, CONTINUOUS_FINITE, DISCRETE, DISCRETE_FINITE
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import FloatOrBatch

EPS = np.finfo(float).eps
UNITS = 4.0  # by how many units roundoff of its size a term is off
TWICE = 16.0 * 2.0**-104  # the same in twice the working precision
_WORKS = 1e-8  # relative noise of a square above which it is computed in twice the working precision
NEGLIGIBLE = 1e-13  # noise relative to the norms of the systems that is no loss
SIX_DIGITS = 1e-6  # fewer come with a warning
CANCELLING = "large terms cancel in it, as the residues of poles close to each other do"
_SHOWN = 8  # channels that a warning lists


@dataclass(frozen=True)
class Size:
    """How large the terms of a squared norm are; arrays of the batch shape, or numbers."""

    terms: np.ndarray  # the root of the sum over single modes of what each gives to the squared norm
    ends: np.ndarray  # the same of what one unit roundoff in every ``λ^L`` (``e^{λT}``) changes, in units roundoff
    steps: np.ndarray  # the largest number of units roundoff by which one of these features may be off

    def __rmul__(self, factor: float) -> Size:
        """That of the system whose outputs are multiplied by `factor`."""
        return Size(abs(factor) * self.terms, abs(factor) * self.ends, self.steps)

    def __add__(self, other: Size) -> Size:
        """That of the sum or the difference of two systems."""
        return Size(self.terms + other.terms, self.ends + other.ends, np.maximum(self.steps, other.steps))


def size_of(sys: DiagonalLQOSystem, pairing: Pairing, S: np.ndarray | None = None, power: np.ndarray | None = None) -> Size:
    """The `Size` of the squared norm of a diagonal system.

    `S` is the covariance of its rows, without which a bound of that is taken, and `power` (..., s) the ``E|x|²`` of its slots for
    an input or a pairing that the kernel does not know.
    """
    (s, m), p, rows = sys.B.shape[-2:], sys.n_outputs, stack_rows(sys.C, sys.M)
    if power is None and pairing.code is None:
        power = np.diagonal(pairing.outer(sys.poles, sys.poles.conj()), axis1=-2, axis2=-1).real
        power = power * np.sum(np.abs(sys.B) ** 2, axis=-1)
    # copies, since kernels would be compiled once more for read-only arrays
    poles, B, rows = sys.poles.reshape(-1, s).copy(), sys.B.reshape(-1, s, m).copy(), rows.reshape(-1, rows.shape[-2], s).copy()
    count = poles.shape[0]
    W = np.zeros((count, p, 0)) if sys.M is None else sys.M.W.reshape(count, p, -1).copy()
    found = np.zeros((count, 0)) if S is None else np.diagonal(S, axis1=-2, axis2=-1).reshape(count, -1).copy()
    power = np.zeros((count, 0)) if power is None else np.broadcast_to(power, sys.poles.shape).reshape(count, s).copy()
    out = np.zeros((3, count))
    _sizes(-1 if pairing.code is None else pairing.code, np.array(pairing.parameters), poles, B, rows, W, found, power, out)
    return Size(*out.reshape(3, *sys.batch))


@njit(cache=True, error_model="numpy")
def _state(code: int, parameters: np.ndarray, z: complex) -> tuple[float, float]:
    """About ``E|x|²`` of a mode with unit input, and by how many units roundoff its feature is off, as far as that counts.

    A mode that has died out over the horizon has no end that could be off. Theory, eq. (3.9).
    """
    size = np.sqrt(z.real**2 + z.imag**2)
    decay = (1 - size) * (1 + size) if code <= DISCRETE_FINITE else -2 * z.real
    if code in (DISCRETE, CONTINUOUS):
        return 1 / decay, 0.0
    length = parameters[0]
    if code == DISCRETE_FINITE:  # |log λ| without a logarithm
        turn = np.pi / 2 * np.sqrt((z.real - size) ** 2 + z.imag**2) / size if size else 0.0
        steps = length * (abs(decay) + turn)
    else:
        steps = length * size
    x = length * decay
    if x < -1e-3:
        return np.expm1(-x if code == CONTINUOUS_FINITE else 2 * length * np.log(size)) / -decay, steps
    return length / (1 + x), steps * min(1.0, 2 / np.sqrt(1 + x * (1 + 0.5 * x)))


@njit(cache=True, error_model="numpy")
def _sizes(
    code: int,
    parameters: np.ndarray,
    poles: np.ndarray,
    B: np.ndarray,
    rows: np.ndarray,
    W: np.ndarray,
    found: np.ndarray,
    power: np.ndarray,
    out: np.ndarray,
) -> None:
    """The `Size` of every channel: what independent changes of the states make of the outputs."""
    count, s = poles.shape
    q, (p, c) = rows.shape[1], W.shape[1:]
    states, moved, sums = np.empty(s), np.empty(s), np.empty((3, q))
    for h in range(count):
        for i in range(s):
            states[i], off = 0.0, 0.0
            if power.shape[1]:
                states[i] = power[h, i]
            else:
                for k in range(B.shape[2]):
                    states[i] += B[h, i, k].real ** 2 + B[h, i, k].imag ** 2
                if states[i] != 0.0:
                    unit, off = _state(code, parameters, poles[h, i])
                    states[i] *= unit
            out[2, h] = max(out[2, h], off)
            states[i] *= 1.0 if poles[h, i].imag == 0 else 4.0
            moved[i] = states[i] * off * off
        for a in range(q):
            x, y = 0.0, 0.0
            for i in range(s):
                square = rows[h, a, i].real ** 2 + rows[h, a, i].imag ** 2
                x, y = x + square * states[i], y + square * moved[i]
            value = max(found[h, a], 0.0) + 4 * 2.0**-52 * x if found.shape[1] else s * x
            sums[0, a], sums[1, a], sums[2, a] = np.sqrt(x), np.sqrt(y), np.sqrt(value)
        for side in range(2):
            total = 0.0
            for a in range(p):
                total += sums[side, a] ** 2
                mixed = 0.0
                for k in range(c):
                    u, v = p + k, p + c + k
                    mixed += abs(W[h, a, k]) * (sums[side, u] * sums[2, v] + sums[2, u] * sums[side, v])
                total += mixed**2
            out[side, h] = np.sqrt(total)


def noise_of(squared: np.ndarray, size: Size) -> np.ndarray:
    """An estimate of the rounding error of a squared norm in working precision, by the size of its terms."""
    ends = 2 * EPS * size.ends
    terms = UNITS * EPS * (size.terms * size.terms + abs(squared))
    return terms + ends * (2 * np.sqrt(abs(squared)) + ends)


def noise_of_inner(size: Size, other: Size) -> np.ndarray:
    """The same of the inner product of two systems, by the sizes of their terms."""
    ends = [2 * EPS * one.ends for one in (size, other)]
    return UNITS * EPS * size.terms * other.terms + ends[0] * other.terms + ends[1] * size.terms + ends[0] * ends[1]


def accurate_noise(size: Size) -> np.ndarray:
    """The same of a squared norm in twice the working precision."""
    return TWICE * (1 + size.steps) * size.terms**2


def cancels(squared: np.ndarray, noise: np.ndarray) -> list[tuple[int, ...]]:
    """The indices of the squared norms of which too few digits are left for working precision."""
    if np.all(noise <= _WORKS * squared):
        return []
    return list(map(tuple, np.argwhere(~(noise <= _WORKS * squared) & (noise != 0))))  # also where the noise overflows


def root_noise(squared: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The noise of the root of a square."""
    squared = np.maximum(squared, 0.0)
    total = np.sqrt(squared + noise) + np.sqrt(squared)
    return np.divide(noise, total, out=np.zeros(np.shape(total)), where=total != 0)


def warn_of_noise(
    what: str, value: FloatOrBatch, noise: np.ndarray | float, negligible: np.ndarray | float = 0.0, why: str = CANCELLING
) -> None:
    """An `AccuracyWarning` where fewer than six digits of a value are certain, unless the noise is negligible."""
    value, noise = np.abs(value), np.asarray(noise)
    if np.all(noise <= SIX_DIGITS * value):
        return
    lost = ~(noise <= np.maximum(SIX_DIGITS * value, negligible))
    if not np.any(lost):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.nan_to_num(np.floor(np.min(-np.log10(noise[lost] / value[lost]))), nan=0.0)
    where = ""
    if lost.ndim:
        channels = [str(index[0] if len(index) == 1 else index) for index in map(tuple, np.argwhere(lost).tolist())]
        more = ", …" if len(channels) > _SHOWN else ""
        where = f" in {len(channels)} of {lost.size} channels ({', '.join(channels[:_SHOWN])}{more})"
    left = f"about {digits:.0f} digits" if digits > 0 else "no digit"
    warn(f"{what} is certain to {left} only{where}: {why}", AccuracyWarning)
