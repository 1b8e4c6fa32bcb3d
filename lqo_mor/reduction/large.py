"""Reduction of large sparse systems: balancing by low-rank Gramians to an intermediate dense one, reduced and refined in turn.

The refinement is the two-sided iteration on the large system. In coordinates with ``E = I``, that is with ``E⁻¹A`` and
``E⁻¹B``, it is that of `two_sided.iteration`. Its two equations are multiplied by `E` here, and the dual one is solved for
``E⁻ᵀ Y``, so that both are sparse: ``A X + E X A_rᵀ + B B_rᵀ = 0`` and
``Aᵀ Y + Eᵀ Y A_r + CᵀC_r + 2 Σ M_i X M_{r,i} = 0`` (discrete: `sparse_sylvester`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import splu

from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.low_rank_gramians import (
    LowRankGramian,
    check_gramian,
    check_large,
    low_rank_controllability,
    low_rank_observability,
)
from lqo_mor.analysis.low_rank_norms import error_and_digits, proper_power
from lqo_mor.analysis.norm import HorizonNorm
from lqo_mor.errors import InvalidInputError, OrderError
from lqo_mor.matrix_equations.low_rank import ordering
from lqo_mor.matrix_equations.sparse_sylvester import sylvester_solver
from lqo_mor.reduction.reduce import reduce
from lqo_mor.reduction.refit import warn_of_repair
from lqo_mor.reduction.result import Reduction, Status
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
_METHODS = ("optimal", "balanced", "tsia", "irka", "projected_gradient")
_STATIONARY = ("optimal", "tsia", "irka")  # those that end at a stationary point
_CONSTRAINTS = {"margin", "ridge"}  # options of "optimal" that a stationary point need not meet
_MOST_STEPS = 50  # on the large system, unless max_iterations says otherwise
# Options of `reduce` that the error, which is that of the large system, would not follow.
_OF_DENSE = {"slots", "orders", "max_error", "horizon", "spectrum"}


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
        Of the large system, for errors by `low_rank_h2_error`.
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


def low_rank_balancing(
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
        Tolerance of `low_rank_controllability`, which decides to how many digits errors are known.
    observability_tol : float, default 1e-10
        Tolerance of `low_rank_observability`, which decides about the projections only; its factor has the most columns and
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
        As `low_rank_controllability`.

    References
    ----------
    Benner, Goyal, Pontes Duff, IEEE Trans. Autom. Control 67 (2022), for quadratic outputs; Penzl, "Algorithms for model
    reduction of large dynamical systems", Linear Algebra Appl. 415 (2006), for low-rank factors.

    Examples
    --------
    >>> from lqo_mor import heat_equation_2d, low_rank_balancing
    >>> balancing = low_rank_balancing(heat_equation_2d(20))
    >>> balancing.system.order < 30, balancing.relative_error < 1e-7
    (True, True)
    """
    done = _stages(progress, 3)
    P = low_rank_controllability(sys, controllability_tol)
    done()
    Q = low_rank_observability(sys, P, observability_tol)
    done()
    reached = mass_times(sys, P.factor)
    U, hsv, Yt = scipy.linalg.svd(Q.factor.T @ reached, full_matrices=False)
    if not hsv[0] > _ROUNDING * np.linalg.norm(Q.factor) * np.linalg.norm(reached):
        raise InvalidInputError("the system has no transfer from input to output: its Hankel singular values are all zero")
    rank = min(np.count_nonzero(hsv > _NEGLIGIBLE * hsv[0]), _MOST_STATES)
    root = np.sqrt(hsv[:rank])
    V, W = P.factor @ (Yt[:rank].T / root), Q.factor @ (U[:, :rank] / root)
    M = quadratic_forms(sys.M, V) if isinstance(sys.M, tuple) else projected(sys.M, V)
    system = LQOSystem(W.T @ (sys.A @ V), W.T @ sys.B, sys.C @ V, sys.D, M, sys.dt)
    error, relative, _ = error_and_digits(sys, system, P)
    done()
    return LowRankBalancing(system, hsv, P, (P.residual, Q.residual), error, relative)


def reduce_large(
    sys: SparseLQOSystem,
    order: int,
    *,
    method: str = "optimal",
    balancing: LowRankBalancing | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reduction:
    """Reduce a large sparse linear-quadratic-output system.

    The system is balanced to an intermediate dense one (`low_rank_balancing`), which `reduce` reduces. For "balanced" this is
    the square-root balanced truncation of the large system itself. "optimal", "tsia" and "irka" go on from there by the
    two-sided iteration on the large system (`tsia`), whose steps solve

    ``A X + E X A_rᵀ + B B_rᵀ = 0`` and ``Aᵀ Y + Eᵀ Y A_r + CᵀC_r + 2 Σ_i M_i X M_{r,i} = 0``

    (discrete: ``A X A_rᵀ − E X + … = 0``, ``Aᵀ Y A_r − Eᵀ Y + … = 0``) by one sparse factorisation of ``A + λ E`` per real
    pole or complex pair. With `Status.CONVERGED` their result satisfies the first-order conditions of h²-optimality for the large
    system, whatever the error of the intermediate one. The better one of the reductions before and after is returned. Every
    error is that to the large system, by `low_rank_h2_error`.

    Parameters
    ----------
    sys : SparseLQOSystem
        Asymptotically stable.
    order : int
        Number of states of the reduced system, below that of the intermediate one.
    method : {"optimal", "balanced", "tsia", "irka", "projected_gradient"}, default "optimal"
        As for `reduce`; modal methods are left out, since the modes of the intermediate system are not those of the large one.
    balancing : LowRankBalancing, optional
        Of `sys`, to share the work among several reductions; made with the default tolerances if not given.
    progress : callable, optional
        Called as ``progress(done, total)`` with the stages: `P`, `Q`, projection, reduction.
    **options
        Further parameters of the method, for instance ``start=`` of an iterative one. ``max_iterations=`` holds for the
        intermediate system and again for the large one, where the default is 50. With `margin` or `ridge`, which
        stationary points need not meet, "optimal" is optimal for the intermediate system only.

    Returns
    -------
    Reduction
        `error`, `relative_error`, `digits`, `hsv` and `bound` are those of the large system; `start_error` is that of the start
        on the intermediate one. `iterations` and `history` are those on the intermediate system and then those on the large one,
        whose squared error ends the history. `status` is that of the last ones, with `Status.START_KEPT` where they found
        nothing better than the reduction of the intermediate system.

    Warns
    -----
    StabilityWarning
        As `reduce`.

    Raises
    ------
    OrderError
        If the order is not a positive integer below that of the intermediate system.
    InvalidInputError
        If `sys` is no SparseLQOSystem, `balancing` is of another one, the method or an option is unknown, or the option is
        one of `reduce` that is not offered here: `slots`, `orders`, `max_error`, `horizon`, `spectrum`.
    MissingDependencyError, UnstableSystemError, SingularEquationError, ConvergenceError
        As `low_rank_controllability`.

    References
    ----------
    Gosea, Antoulas, "A two-sided iterative framework for model reduction of linear systems with quadratic output", CDC 2019;
    Benner, Köhler, Saak, "Sparse-dense Sylvester equations in H2-model order reduction", MPI Magdeburg preprint 11-11 (2011).

    Examples
    --------
    >>> from lqo_mor import heat_equation_2d, reduce_large
    >>> red = reduce_large(heat_equation_2d(20), order=4)
    >>> red.system
    LQOSystem(order=4, inputs=1, outputs=2, quadratic=dense, dt=0.0)
    >>> red.relative_error < 0.003
    True
    """
    check_large(sys)
    if balancing is not None and not isinstance(balancing, LowRankBalancing):
        raise InvalidInputError(f"balancing must be a LowRankBalancing, by low_rank_balancing, got {type(balancing).__name__}")
    if not _OF_DENSE.isdisjoint(options):
        raise InvalidInputError(
            f"{', '.join(sorted(_OF_DENSE & options.keys()))}: a large system is reduced to one given order, over an infinite "
            "horizon and for white inputs; for anything else reduce low_rank_balancing(sys).system"
        )
    if method not in _METHODS:
        raise InvalidInputError(f"unknown method {method!r} for a large system; known are {', '.join(_METHODS)}")
    done = _stages(progress, 4)
    if balancing is None:
        balancing = low_rank_balancing(sys, progress=None if progress is None else lambda *_: done())
    else:
        check_gramian(sys, balancing.controllability)
    small = balancing.system
    if isinstance(order, (int, np.integer)) and order >= small.order:
        raise OrderError(
            f"order {order} is not below {small.order}, the order of the intermediate system: the Hankel singular values beyond "
            f"are negligible, or more than {_MOST_STATES}; balancing.system is that system"
        )
    red = reduce(small, order, method=method, **options)
    error, relative, digits = error_and_digits(sys, as_dense(red.system), balancing.controllability)
    bound = None if red.bound is None else 2 * float(np.sum(balancing.hsv[int(red.system.order) :]))
    red = replace(red, error=error, relative_error=relative, digits=digits, hsv=balancing.hsv, bound=bound)
    if method in _STATIONARY and _CONSTRAINTS.isdisjoint(options):
        red = refined(sys, red, balancing.controllability, options.get("max_iterations", _MOST_STEPS))
    done()
    return red


def _stages(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function that reports the next stage."""
    count = iter(range(1, total + 1))

    def done() -> None:
        stage = next(count)
        if progress is not None:
            progress(stage, total)

    return done


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
    coordinates = balancing(*gramian_factors(rom, HorizonNorm(sys.is_continuous)))
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
