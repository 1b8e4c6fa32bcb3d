"""Reduction of large sparse systems: balancing by low-rank Gramians to an intermediate dense one, reduced and refined in turn.

`balance` makes the intermediate system, `on_intermediate` runs a reduction of it, `measured` takes its errors to the large
system, and `refined` goes on from it. This refinement is the two-sided iteration on the large system. In coordinates with
``E = I``, that is with ``E⁻¹A`` and ``E⁻¹B``, it is that of `two_sided.iteration`. Its two equations are multiplied by `E` here,
and the dual one is solved for ``E⁻ᵀ Y``, so that both are sparse: ``A X + E X A_rᵀ + B B_rᵀ = 0`` and
``Aᵀ Y + Eᵀ Y A_r + CᵀC_r + 2 Σ M_i X M_{r,i} = 0`` (discrete: `sparse_sylvester`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu

from lqo_mor.analysis.door import norm_of
from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.low_rank_gramians import (
    LowRankGramian,
    check_gramian,
    hankel_svd,
    solve_controllability,
    solve_observability,
)
from lqo_mor.analysis.low_rank_norms import proper_power, sparse_error_and_digits
from lqo_mor.analysis.norm import HorizonNorm, Norm
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.matrix_equations.low_rank import ordering
from lqo_mor.matrix_equations.sparse_sylvester import sylvester_solver
from lqo_mor.reduction.budget import Budget
from lqo_mor.reduction.refit import warn_of_repair
from lqo_mor.reduction.result import Method, Reduction, Status
from lqo_mor.reduction.two_sided.full_system import FullSystem, balancing
from lqo_mor.reduction.two_sided.iteration import Iterate, two_sided
from lqo_mor.systems.convert import as_dense
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput, projected
from lqo_mor.systems.sparse import SparseLQOSystem, mass_times, quadratic_forms
from lqo_mor.types import Progress

_TOLERANCE = 1e-8  # relative change of the poles and of the squared error, as that of `tsia`
_SLACK = 1e-3  # an error larger by less than this, in digits that are not certain, does not count as larger
_NEGLIGIBLE = 1e-10  # Hankel singular values below this part of the largest are not kept in the intermediate system
_MOST_STATES = 300
_ROUNDING = 100 * np.finfo(float).eps  # of the product of the factors, for their sizes
_CONSTRAINTS = {"margin", "ridge"}  # options of "optimal" that a stationary point need not meet
_MOST_STEPS = 50  # on the large system, unless max_iterations says otherwise
_STAGES = 3  # of balancing: `P`, `Q`, projection

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class LowRankBalancing:
    """A large system balanced to a dense one of moderate order, from which every reduced system is made.

    Attributes
    ----------
    system : LQOSystem
        The intermediate system, balanced; it stands for the large one in every function of lqo-mor.
    hsv : (k,) ndarray
        Hankel singular values of the large system, as many as the factors have columns.
    controllability : LowRankGramian
        Of the large system, for its norms and errors.
    residuals : tuple of float
        Relative residuals of the equations for `P` and `Q`.
    error, relative_error : float
        h² error of the intermediate system.
    """

    system: LQOSystem
    hsv: np.ndarray
    controllability: LowRankGramian
    residuals: tuple[float, float]
    error: float
    relative_error: float

    def __repr__(self) -> str:
        return (
            f"LowRankBalancing(order={self.controllability.factor.shape[0]}, intermediate={self.system.order}, "
            f"relative_error={self.relative_error:.1e})"
        )


def balance(
    sys: SparseLQOSystem,
    controllability_tol: float = 1e-12,
    observability_tol: float = 1e-10,
    *,
    progress: Progress | None = None,
) -> LowRankBalancing:
    """Balance a large sparse system to a dense one of moderate order, nearly without error.

    With ``P ≈ Z Zᵀ``, ``Q ≈ S Sᵀ`` and ``Sᵀ E Z = U Σ Yᵀ``, the projections ``V = Z Y₁ Σ₁^{-1/2}`` and ``W = S U₁ Σ₁^{-1/2}``
    satisfy ``Wᵀ E V = I`` and give ``WᵀAV``, ``WᵀB``, ``CV`` and ``VᵀM_iV``. Kept are Hankel singular values above 1e-10 of the
    largest, 300 at most.

    Parameters
    ----------
    sys : SparseLQOSystem
        Asymptotically stable.
    controllability_tol : float, default 1e-12
        Tolerance of `controllability_gramian`, which decides to how many digits errors are known.
    observability_tol : float, default 1e-10
        Tolerance of `observability_gramian`, which decides about the projections only; its factor has the most columns and
        needs the most memory.
    progress : callable, optional
        Called as ``progress(done, total)`` with the stages: `P`, `Q`, projection.

    Returns
    -------
    LowRankBalancing

    Raises
    ------
    MissingDependencyError
        Without pyMOR.
    InvalidInputError
        If `sys` is no SparseLQOSystem, or has no transfer from input to output.
    UnstableSystemError, SingularEquationError, ConvergenceError
        As `controllability_gramian`.

    References
    ----------
    Benner, Goyal, Pontes Duff, IEEE Trans. Autom. Control 67 (2022), for quadratic outputs; Penzl, "Algorithms for model
    reduction of large dynamical systems", Linear Algebra Appl. 415 (2006), for low-rank factors.

    Examples
    --------
    >>> import lqo_mor as lqo
    >>> balancing = lqo.balance(lqo.examples.heat_equation_2d(20))
    >>> balancing.system.order < 30, balancing.relative_error < 1e-7
    (True, True)
    """
    if not isinstance(sys, SparseLQOSystem):
        raise InvalidInputError(f"expected a SparseLQOSystem, got {type(sys).__name__}")
    tell = progress or (lambda done, total: None)
    P = solve_controllability(sys, controllability_tol)
    tell(1, _STAGES)
    Q = solve_observability(sys, P, observability_tol)
    tell(2, _STAGES)
    U, hsv, Yt = hankel_svd(sys, P, Q)
    if not hsv[0] > _ROUNDING * np.linalg.norm(Q.factor) * np.linalg.norm(mass_times(sys, P.factor)):
        raise InvalidInputError("the system has no transfer from input to output: its Hankel singular values are all zero")
    rank = min(np.count_nonzero(hsv > _NEGLIGIBLE * hsv[0]), _MOST_STATES)
    root = np.sqrt(hsv[:rank])
    V, W = P.factor @ (Yt[:rank].T / root), Q.factor @ (U[:, :rank] / root)
    M = quadratic_forms(sys.M, V) if isinstance(sys.M, tuple) else projected(sys.M, V)
    system = LQOSystem(W.T @ (sys.A @ V), W.T @ sys.B, sys.C @ V, sys.D, M, sys.dt)
    error, relative, _ = sparse_error_and_digits(sys, system, P)
    tell(_STAGES, _STAGES)
    return LowRankBalancing(system, hsv, P, (P.residual, Q.residual), error, relative)


def on_intermediate(
    sys: SparseLQOSystem,
    balancing: LowRankBalancing | None,
    run: Callable[[LowRankBalancing, Norm, Progress], Result],
    progress: Progress | None,
    steps: int = 1,
) -> Result:
    """What ``run(balancing, norm, progress)`` makes of the intermediate system, in its norm and in `steps` steps.

    The system is balanced here if no `balancing` is given; the stages of that count in `progress`, too. Raises `OrderError` as
    `run`, with a word on the order of the intermediate system, and `InvalidInputError` if `balancing` is none, or of another one.
    """
    begun, tell = 0, progress or (lambda done, total: None)
    if balancing is None:
        begun, balancing = _STAGES, balance(sys, progress=lambda done, _: tell(done, _STAGES + steps))
    elif isinstance(balancing, LowRankBalancing):
        check_gramian(sys, balancing.controllability)
    else:
        raise InvalidInputError(f"balancing must be a LowRankBalancing, by lqo.balance, got {type(balancing).__name__}")
    try:
        return run(balancing, norm_of(balancing.system), lambda done, total: tell(begun + done, begun + total))
    except OrderError as err:
        raise OrderError(
            f"{err}; here {balancing.system.order} is the order of the intermediate system, lqo.balance(sys).system, which "
            f"leaves out negligible Hankel singular values and those after the first {_MOST_STATES}"
        ) from None


def lifted(method: Method, sys: SparseLQOSystem, balancing: LowRankBalancing) -> Method:
    """A method that reduces the intermediate system, with its errors to the large one, and refined there if it is stationary."""

    def solve(small: LQOSystem, budget: Budget, norm: Norm, **options: Any) -> Reduction:
        red = measured(sys, balancing, method.solve(small, budget, norm, **options))
        if method.stationary and _CONSTRAINTS.isdisjoint(options):
            return refined(sys, red, balancing.controllability, options.get("max_iterations", _MOST_STEPS))
        return red

    return replace(method, solve=solve)


def measured(sys: SparseLQOSystem, balancing: LowRankBalancing, red: Reduction) -> Reduction:
    """A reduction of the intermediate system with errors, Hankel singular values and bound of the large one."""
    error, relative, digits = sparse_error_and_digits(sys, red.system, balancing.controllability)
    bound = None if red.bound is None else 2 * float(np.sum(balancing.hsv[int(red.system.order) :]))
    return replace(red, error=error, relative_error=relative, digits=digits, hsv=balancing.hsv, bound=bound)


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
    """Go on from a reduction, with its error to `sys`, by the two-sided iteration on the large system.

    Each step takes a sparse factorisation per real pole and one per complex pair; steps and `history` are appended to those of
    `red`. With `Status.START_KEPT` the result is `red`, because the iteration found nothing better, or because a state of `red`
    is not reached or not seen. A `StabilityWarning` says that it is an iterate whose poles were reflected.
    """
    rom, kept = as_dense(red.system), replace(red, status=Status.START_KEPT)
    coordinates = balancing(*gramian_factors(rom, HorizonNorm(sys.is_continuous)))
    if coordinates is None:
        return kept
    T, inverse = coordinates
    full = _full_system(sys, controllability)
    best, path, status = two_sided(full, inverse @ rom.A @ T, inverse @ rom.B, max_iterations, _TOLERANCE)
    if best is None:
        return kept
    system = _reduced(sys, best)
    error, relative, digits = sparse_error_and_digits(sys, system, controllability)
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
        norm=HorizonNorm(sys.is_continuous),
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
