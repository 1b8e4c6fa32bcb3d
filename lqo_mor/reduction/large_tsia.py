"""The two-sided iteration on a large sparse system itself, from a reduction of its intermediate system.

In coordinates with ``E = I``, that is with ``E⁻¹A`` and ``E⁻¹B``, the iteration is that of `two_sided.iteration`. Its two
equations are multiplied by `E` here, and the dual one is solved for ``E⁻ᵀ Y``, so that both are sparse:
``A X + E X A_rᵀ + B B_rᵀ = 0`` and ``Aᵀ Y + Eᵀ Y A_r + CᵀC_r + 2 Σ M_i X M_{r,i} = 0`` (discrete: `sparse_sylvester`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu

from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.low_rank_gramians import LowRankGramian
from lqo_mor.analysis.low_rank_norms import error_and_digits, proper_power
from lqo_mor.matrix_equations.low_rank import ordering
from lqo_mor.matrix_equations.sparse_sylvester import sylvester_solver
from lqo_mor.reduction.result import Reduction, Status
from lqo_mor.reduction.stabilise import warn_of_repair
from lqo_mor.reduction.two_sided.full_system import FullSystem, balancing
from lqo_mor.reduction.two_sided.iteration import Iterate, two_sided
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem

_TOLERANCE = 1e-8  # relative change of the poles and of the squared error, as that of `tsia`
_SLACK = 1e-3  # an error larger by less than this, in digits that are not certain, does not count as larger


@dataclass(frozen=True, eq=False)
class SparseForms:
    """Sparse symmetric matrices `M_i` that are multiplied like an array of shape (p, n, n)."""

    matrices: tuple[scipy.sparse.csc_array | None, ...]
    __array_ufunc__ = None  # arrays leave the product to `__rmatmul__`

    def __matmul__(self, X: np.ndarray) -> np.ndarray:
        """``M_i X``, (p, n, r)."""
        return np.stack([np.zeros_like(X) if Mi is None else Mi @ X for Mi in self.matrices])

    def __rmatmul__(self, Xt: np.ndarray) -> np.ndarray:
        """``Xᵀ M_i``, (p, r, n)."""
        return (self @ Xt.T).transpose(0, 2, 1)


def refined(sys: SparseLQOSystem, red: Reduction, controllability: LowRankGramian, max_iterations: int) -> Reduction:
    """Go on from a reduction by the two-sided iteration on the large system.

    Parameters
    ----------
    sys : SparseLQOSystem
        Asymptotically stable.
    red : Reduction
        The start, with its error to `sys`.
    controllability : LowRankGramian
        Of `sys`.
    max_iterations : int
        Most steps. Each takes a sparse factorisation per real pole and one per complex pair.

    Returns
    -------
    Reduction
        Steps and `history` are appended to those of `red`. With `Status.START_KEPT` it is `red`, because the iteration found
        nothing better, or because a state of `red` is not reached or not seen.

    Warns
    -----
    StabilityWarning
        If the result is an iterate whose poles were reflected.
    """
    rom, kept = as_dense(red.system), replace(red, status=Status.START_KEPT)
    coordinates = balancing(*gramian_factors(rom))
    if coordinates is None:
        return kept
    T, inverse = coordinates
    full = _full_system(sys, controllability)
    best, path, status = two_sided(full, inverse @ rom.A @ T, inverse @ rom.B, max_iterations, _TOLERANCE)
    if best is None:
        return kept
    system = _reduced(sys, best)
    error, relative, digits = error_and_digits(sys, system, controllability)
    if not error <= red.error * (1 + min(_SLACK, 10.0 ** -int(red.digits))):
        return kept
    steps = path.size - 1
    if best.repaired:
        warn_of_repair(True)
    history = error**2 + path - path[-1]  # the path itself is a difference of squared norms
    return replace(
        red,
        system=system,
        error=error,
        relative_error=relative,
        digits=digits,
        status=status,
        iterations=int(red.iterations) + steps,
        history=history if red.history is None else np.concatenate([red.history, history[1:]]),
        repaired=best.repaired if steps else red.repaired,
    )


def _full_system(sys: SparseLQOSystem, controllability: LowRankGramian) -> FullSystem:
    """The large system as the two-sided iteration sees it, in coordinates with ``E = I``."""
    E = scipy.sparse.eye_array(sys.order, format="csc") if sys.E is None else sys.E
    factorised = None if sys.E is None else splu(sys.E, permc_spec=ordering(sys.E))
    sylvester = sylvester_solver(sys.A, E) if sys.is_continuous else sylvester_solver(-E, sys.A)

    def divided(X: np.ndarray) -> np.ndarray:
        return X if factorised is None else cast(np.ndarray, factorised.solve(X))

    def solve(Q: np.ndarray, A_r: np.ndarray, adjoint: bool = False) -> np.ndarray:
        return cast(np.ndarray, E.T @ sylvester(Q, A_r, True) if adjoint else sylvester(E @ Q, A_r))

    B = divided(sys.B)
    return FullSystem(
        apply=lambda V, _: divided(sys.A @ V),
        B=B,
        C=sys.C,
        M=cast(Any, SparseForms(sys.M)) if isinstance(sys.M, tuple) else sys.M,  # only multiplied, like an array
        solve=solve,
        squared_norm=proper_power(sys, controllability.factor),
        continuous=sys.is_continuous,
        horizon=None,
        slots=None,
        limit=0.0 if sys.is_continuous else 1.0,
        products=lambda _, B_r: (B_r @ B_r.T, B @ B_r.T),
    )


def _reduced(sys: SparseLQOSystem, best: Iterate) -> LQOSystem:
    """The system of an iterate, its quadratic outputs symmetric to the last bit."""
    M = best.M
    if M is not None and not isinstance(M, QuadraticOutput):
        M = 0.5 * (M + M.transpose(0, 2, 1))
    return LQOSystem(best.A, best.B, best.C, sys.D, M, sys.dt)
