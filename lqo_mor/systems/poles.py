"""Sets of poles: closed under conjugation, inside the stability boundary, reflected at it."""

from __future__ import annotations

import numpy as np

MARGIN = 1e-12  # closest approach of a repaired pole to the stability boundary, relative to its modulus


def closed(poles: np.ndarray) -> np.ndarray:
    """Poles in half storage closed under conjugation."""
    return np.concatenate([poles, poles[poles.imag != 0].conj()])


def clamped(poles: np.ndarray, continuous: bool, margin: float) -> np.ndarray:
    """Poles no closer to the stability boundary than `margin`."""
    if continuous:
        return np.minimum(poles.real, -margin) + 1j * poles.imag
    modulus = np.abs(poles)
    return np.where(modulus > 1 - margin, poles * ((1 - margin) / np.maximum(modulus, 0.5)), poles)


def reflect(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """Poles with the unstable ones mirrored at the stability boundary, ``1/conj(μ)`` or ``−conj(μ)``; theory, eq. (7.8)."""
    if continuous:
        least = MARGIN * np.where(poles == 0, 1.0, np.abs(poles))
        return np.where(poles.real < 0, poles, -np.maximum(np.abs(poles.real), least) + 1j * poles.imag)
    modulus = np.abs(poles)
    inside = np.minimum(1 / np.maximum(modulus, 0.5), 1 - MARGIN)
    return np.where(modulus < 1, poles, poles / np.maximum(modulus, 0.5) * inside)


def unstable(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """Mask of the poles that are not asymptotically stable."""
    return ~(poles.real < 0) if continuous else ~(np.abs(poles) < 1)
