"""Repair of unstable reduced systems: reflect the poles, refit the outputs."""

from __future__ import annotations

import numpy as np

from lqo_mor.errors import StabilityWarning, warn
from lqo_mor.reduction.budget import choose
from lqo_mor.reduction.refit import fit_outputs
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.types import System

MARGIN = 1e-12  # closest approach of a repaired pole to the stability boundary, relative to its modulus


def reflect(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """Poles with the unstable ones mirrored at the stability boundary, ``1/conj(μ)`` or ``−conj(μ)``."""
    if continuous:
        least = MARGIN * np.where(poles == 0, 1.0, np.abs(poles))
        return np.where(poles.real < 0, poles, -np.maximum(np.abs(poles.real), least) + 1j * poles.imag)
    modulus = np.abs(poles)
    inside = np.minimum(1 / np.maximum(modulus, 0.5), 1 - MARGIN)
    return np.where(modulus < 1, poles, poles / np.maximum(modulus, 0.5) * inside)


def unstable(poles: np.ndarray, continuous: bool) -> np.ndarray:
    """Mask of the poles that are not asymptotically stable."""
    return ~(poles.real < 0) if continuous else ~(np.abs(poles) < 1)


def stabilise(sys: System, reduced: DiagonalLQOSystem, horizon: float | None) -> tuple[DiagonalLQOSystem, np.ndarray]:
    """A stable version of a reduced system, and which members of its batch were repaired.

    Unstable poles are reflected at the stability boundary and the outputs refitted in closed form.

    Parameters
    ----------
    sys : LQOSystem or DiagonalLQOSystem
        The full system.
    reduced : DiagonalLQOSystem
        The reduced one, with the same batch.
    horizon : float or None
        Horizon of the refit; None for infinite.

    Returns
    -------
    system : DiagonalLQOSystem
    repaired : (...) ndarray of bool

    Warns
    -----
    StabilityWarning
        If anything was repaired.
    """
    repaired = np.any(unstable(reduced.poles, reduced.is_continuous), axis=-1)
    if not np.any(repaired):
        return reduced, repaired
    warn_of_repair(repaired)
    fitted = fit_outputs(sys, reflect(reduced.poles, reduced.is_continuous), reduced.B, horizon)
    return choose(repaired, fitted, reduced), repaired


def warn_of_repair(repaired: bool | np.ndarray) -> None:
    """Issue the `StabilityWarning` that says how many reduced systems were repaired."""
    what = (
        "the reduced system was"
        if np.size(repaired) == 1
        else f"{np.count_nonzero(repaired)} of {np.size(repaired)} reduced systems were"
    )
    warn(f"{what} unstable; the unstable poles were reflected and the outputs refitted", StabilityWarning)
