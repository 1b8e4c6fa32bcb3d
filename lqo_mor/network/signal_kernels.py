"""Numba kernels of the forward pass, each followed by its NumPy twin, which the tests compare it with.

No validation here; arrays are C-contiguous float64 or complex128.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from scipy.special import erf, expit

from lqo_mor.compiling import njit

_TINY = 1e-280  # below this a decaying response no longer counts, and subnormal numbers are slow


@njit(cache=True, error_model="numpy", parallel=True)
def impulse_responses(poles, residues, out):
    """Write ``Re Σ_s residues[h, q, s] poles[h, s]^k`` to `out` (h, q, steps); theory, eq. (1.4)."""
    for h in prange(poles.shape[0]):
        out[h] = 0.0
        for s in range(poles.shape[1]):
            pole = poles[h, s]
            for q in range(residues.shape[1]):
                z = residues[h, q, s]
                for k in range(out.shape[2]):
                    if abs(z.real) + abs(z.imag) < _TINY:
                        break
                    out[h, q, k] += z.real
                    z *= pole


def impulse_responses_numpy(poles, residues, out):
    """As `impulse_responses`."""
    powers = poles[:, :, np.newaxis] ** np.arange(out.shape[2])
    out[...] = (residues @ powers).real


@njit(cache=True, error_model="numpy", parallel=True)
def scan(poles, states):
    """Turn forcings into states in place, ``x[k] = pole x[k-1] + f[k]``; theory, eq. (1.4).

    `states` (2 s, batch, steps) holds the real parts of the `s` slots, then their imaginary parts.
    """
    n, batch = poles.shape[0], states.shape[1]
    for job in prange(n * batch):
        slot, example = job // batch, job % batch
        re, im = poles[slot].real, poles[slot].imag
        x, y = 0.0, 0.0
        for k in range(states.shape[2]):
            x, y = re * x - im * y + states[slot, example, k], re * y + im * x + states[n + slot, example, k]
            states[slot, example, k] = x
            states[n + slot, example, k] = y


def scan_numpy(poles, states):
    """As `scan`."""
    n = poles.size
    x = np.zeros((n, states.shape[1]), dtype=complex)
    for k in range(states.shape[2]):
        x = poles[:, np.newaxis] * x + states[:n, :, k] + 1j * states[n:, :, k]
        states[:n, :, k], states[n:, :, k] = x.real, x.imag


@njit(cache=True, error_model="numpy", parallel=True)
def gelu(x):
    """``x Φ(x)`` in place, `Φ` the normal distribution function; `x` is (rows, columns)."""
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] *= 0.5 * (1.0 + math.erf(x[i, j] * math.sqrt(0.5)))


def gelu_numpy(x):
    """As `gelu`."""
    x *= 0.5 * (1.0 + erf(x * math.sqrt(0.5)))


@njit(cache=True, error_model="numpy", parallel=True)
def glu(x):
    """``a ∘ sigmoid(b)`` of the halves of `x` (2 rows, columns), written over `a`."""
    rows = x.shape[0] // 2
    for i in prange(rows):
        for j in range(x.shape[1]):
            x[i, j] /= 1.0 + np.exp(-x[rows + i, j])


def glu_numpy(x):
    """As `glu`."""
    rows = x.shape[0] // 2
    x[:rows] *= expit(x[rows:])
