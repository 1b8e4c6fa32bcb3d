"""The h² norm of a large system, and of its difference to a small one, from a low-rank Gramian."""

from __future__ import annotations

import numpy as np

from lqo_mor.analysis.low_rank_gramians import LowRankGramian
from lqo_mor.analysis.norm import check_comparable, check_stable
from lqo_mor.errors import InvalidInputError
from lqo_mor.matrix_equations.low_rank import follow_shifts
from lqo_mor.matrix_equations.lyapunov import lyapunov_factor
from lqo_mor.matrix_equations.stein import stein_factor
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, projected
from lqo_mor.systems.sparse import SparseLQOSystem, quadratic_forms
from lqo_mor.systems.system import System, check_kind

_EPS = np.finfo(float).eps
_ROUNDING = 100.0  # units roundoff that the solved columns are good to, relative to the norm
_TAIL = 2  # last shifts of the iteration, whose share stands for what further ones would add
_FOREIGN = 100.0  # a rest of the small system above this multiple of the large residual is not a rest of both


def sparse_norm(sys: SparseLQOSystem, controllability: LowRankGramian) -> float:
    """The `h2_norm` of a sparse system, ``‖C Z‖_F² + Σ_i ‖Zᵀ M_i Z‖_F² + ‖D‖_F²``."""
    if sys.is_continuous and np.any(sys.D):
        return np.inf
    return float(np.sqrt(proper_power(sys, controllability.factor) + np.linalg.norm(sys.D) ** 2))


def sparse_error_and_digits(sys: SparseLQOSystem, rom: System, controllability: LowRankGramian) -> tuple[float, float, int]:
    """The `h2_error` of a small system to a sparse one, absolute and relative, and how many decimal digits are certain (0 to 15).

    No equation of size n is solved beyond that for `P`: the ADI iteration that gave its factor `Z` is repeated with the same
    shifts for the small system, which gives `Z_r`, and ``[Z; Z_r]`` is a factor of the Gramian of the error system, as if the
    iteration had been run for both in one. The norm is taken from it, without the difference of large numbers in
    ``‖Σ‖² − 2⟨Σ, Σ_r⟩ + ‖Σ_r‖²``, and is correct for relative errors down to about 1e-8.

    The iteration leaves a residual ``W Wᵀ`` of the large equation and ``W_r W_rᵀ`` of the small one. A small system close to the
    large one has nearly the same rest, whose shares in the error cancel; both are left out, and the result is a lower bound. A
    `W_r` with a share in the power of the small system of more than a hundred times the relative residual of the large
    equation belongs to a pole that the shifts do not know; its part of the Gramian is then solved densely and added.

    What the end of the iteration leaves out of the digits is estimated by the share of its last steps, what rounding takes by
    the size of the terms that cancel.
    """
    check_kind(rom)
    check_comparable(sys, rom)
    rom = as_dense(rom)
    if not rom.is_real:
        raise InvalidInputError("a sparse system is real, but the other system has complex matrices")
    check_stable(rom)
    Z, shifts = controllability.factor, controllability.shifts
    Z_r, R_r = _small_factors(rom, shifts)
    k, last = Z.shape[1], sys.n_inputs * int(np.sum(np.where(shifts[-_TAIL:].imag == 0, 1, 2)))
    rows, forms = _outputs(sys, Z)
    rows_r, forms_r = _outputs(rom, np.hstack([Z_r, R_r]))
    rows_e, forms_e = rows - rows_r[:, :k], forms - forms_r[:, :k, :k]
    power, squared = _power(rows, forms), _power(rows_e, forms_e)
    noise = squared - _power(rows_e[:, :-last], forms_e[:, :-last, :-last]) + _ROUNDING * _EPS * np.sqrt(power * squared)
    rest = _power(rows_r[:, k:], forms_r[:, k:, k:]) + 2 * float(np.linalg.norm(forms_r[:, k:, :k])) ** 2
    if rest > _FOREIGN * controllability.residual * _power(rows_r, forms_r):
        squared += rest
    if sys.is_continuous:
        squared = np.inf if np.any(sys.D != rom.D) else squared
    else:
        squared, power = squared + float(np.linalg.norm(sys.D - rom.D)) ** 2, power + float(np.linalg.norm(sys.D)) ** 2
    digits = 15 if noise == 0 else int(np.clip(np.floor(np.log10(max(2 * squared / noise, 1.0))), 0, 15))
    relative = np.sqrt(squared / power) if power else np.inf if squared else 0.0
    return float(np.sqrt(squared)), float(relative), digits


def _small_factors(rom: LQOSystem, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``Z_r`` by the given shifts, and a factor of what is missing from the Gramian of the small system."""
    unit = np.eye(rom.order)
    if rom.is_continuous:
        Z_r, W = follow_shifts(rom.A, unit, rom.B, shifts)
        return Z_r, lyapunov_factor(rom.A, W)
    Z_r, W = follow_shifts(rom.A - unit, rom.A + unit, np.sqrt(2.0) * rom.B, shifts)
    return Z_r, stein_factor(rom.A, W / np.sqrt(2.0))


def proper_power(sys: SparseLQOSystem, Z: np.ndarray) -> float:
    """The squared h² norm without the feedthrough, from a factor `Z` of the controllability Gramian."""
    return _power(*_outputs(sys, Z))


def _outputs(sys: SparseLQOSystem | LQOSystem, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``C R`` and ``Rᵀ M_i R``, (p, k) and (p, k, k)."""
    if isinstance(sys.M, QuadraticOutput):
        forms = projected(sys.M, R).to_dense()
    elif sys.M is None:
        forms = np.zeros((sys.n_outputs, R.shape[1], R.shape[1]))
    else:
        forms = quadratic_forms(sys.M, R) if isinstance(sys.M, tuple) else projected(sys.M, R)
    return sys.C @ R, forms


def _power(rows: np.ndarray, forms: np.ndarray) -> float:
    """``‖C R‖² + Σ_i ‖Rᵀ M_i R‖²``."""
    return float(np.linalg.norm(rows) ** 2 + np.linalg.norm(forms) ** 2)
