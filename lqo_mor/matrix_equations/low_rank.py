"""Low-rank solutions of large Lyapunov equations by pyMOR's ADI iteration, and the same iteration for a small system.

All of it is for one pencil ``(A, E)`` in continuous time, ``A P Eᵀ + E P Aᵀ + F Fᵀ = 0``: theory, eq. (4.10) and (4.11). A
discrete equation has this form, too: with ``A_c = A − E`` and ``E_c = A + E``,

``A P Aᵀ − E P Eᵀ + F Fᵀ = 0``  is  ``A_c P E_cᵀ + E_c P A_cᵀ + 2 F Fᵀ = 0``,

as sparse as before, with the eigenvalues ``(λ − 1) / (λ + 1)``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, splu

from lqo_mor.errors import ConvergenceError, MissingDependencyError, SingularEquationError, UnstableSystemError

_MOST_STEPS = 500  # of the iteration where memory for more is dear; a real shift takes one, a complex pair two
_LIGHT_STEPS = 4000  # where it is not: lightly damped modes take a pair of shifts each
_MOST_NUMBERS = 2**27  # of a factor, 1 GiB
_SUBSPACE = 6  # columns of the factor, at least a step of them, whose Ritz values are the next shifts
_POWER_STEPS = 12  # for the norm of a residual
_DENSE = 100  # order up to which eigenvalues are computed densely; ARPACK needs more than a few
_DIVERGED = (
    "the low-rank ADI iteration did not converge in {} steps: the system is unstable, though no unstable pole was found, or so "
    "lightly damped that its Gramian has no low rank, or E is singular to working precision{}"
)
_DENSE_WAY = "; of up to 4096 states lqo_mor.to_dense makes a dense system, whose solvers need no low rank"
_GRID = 14  # real and imaginary shifts each, around which poles are looked for after the iteration has failed
_UNSTABLE = "the system is not asymptotically stable: among the eigenvalues of (A, E), or of (A - E, A + E) in discrete time, {}"


def solve_low_rank(
    A: scipy.sparse.csc_array, E: scipy.sparse.csc_array | None, F: np.ndarray, tol: float, transposed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A factor `Z` of the solution ``P ≈ Z Zᵀ`` of ``A P Eᵀ + E P Aᵀ + F Fᵀ = 0``, and the shifts that made it.

    `A`, `E` (n, n), None for the identity, and `F` (n, k); `transposed` solves ``Aᵀ P E + Eᵀ P A + F Fᵀ = 0`` instead. `tol` is
    the largest residual in the spectral norm, relative to ``‖F Fᵀ‖``. `Z` is (n, steps k), and the complex shifts (s,) come in
    the order of their use; one that is not real stands for a pair and takes two steps. Raises `MissingDependencyError` without
    pyMOR and `ConvergenceError` if the iteration does not converge.
    """
    try:
        from pymor.bindings.scipy import ScipySpSolveSolver
        from pymor.core.exceptions import AccuracyError, InversionError
        from pymor.core.logger import log_levels
        from pymor.solvers.matrix_equations.adi import ADILyapunovSolver
        from pymor.solvers.matrix_equations.equations import LyapunovEquation
    except ImportError as err:
        raise MissingDependencyError("pymor", "pymor", "a low-rank Gramian of a large system") from err

    rounds: list[np.ndarray] = []

    class RecordingADI(ADILyapunovSolver):  # type: ignore[misc]  # pyMOR has no types
        """pyMOR's iteration with its projection shifts, which are kept."""

        def projection_shifts_init(self, A: Any, E: Any, B: Any) -> np.ndarray:
            shifts = super().projection_shifts_init(A, E, B)
            rounds.append(shifts[shifts.imag >= 0])
            return rounds[-1]

        def projection_shifts(self, A: Any, E: Any, V: Any, Z: Any, prev_shifts: Any) -> np.ndarray:
            rounds.append(super().projection_shifts(A, E, V, Z, prev_shifts))
            return rounds[-1]

    columns = F.shape[1]  # of a step
    most = int(min(_LIGHT_STEPS, max(_MOST_STEPS, _MOST_NUMBERS / (A.shape[0] * columns))))
    solver = RecordingADI(
        adi_tol=tol,
        adi_maxiter=most,
        adi_shifts="projection_shifts",
        shifted_system_solver=ScipySpSolveSolver(permc_spec=ordering(A)),
        projection_shifts_subspace_columns=max(1, _SUBSPACE // columns),
    )
    equation = LyapunovEquation.from_matrices(A, E, F.T if transposed else F, trans=transposed)
    try:
        with log_levels({f"{RecordingADI.__module__}.RecordingADI": "CRITICAL", "pymor": "ERROR"}), np.errstate(all="ignore"):
            Z = equation.solve_lr(solver).to_numpy()
    except (AccuracyError, InversionError, RuntimeError, ValueError) as err:  # no stable shift, a singular matrix, overflow
        check_around(A, E)
        raise ConvergenceError(f"{_DIVERGED.format(most, _DENSE_WAY)} ({err})") from err
    if Z.shape[1] >= most * columns or not residual_norm(A, E, F, Z, transposed) <= np.sqrt(tol):
        check_around(A, E)
        raise ConvergenceError(_DIVERGED.format(most, _DENSE_WAY))
    shifts = np.concatenate(rounds).astype(complex)
    steps = np.cumsum(np.where(shifts.imag == 0, 1, 2))
    return Z, shifts[: np.searchsorted(steps, Z.shape[1] // columns) + 1]


def residual_norm(
    A: scipy.sparse.csc_array, E: scipy.sparse.csc_array | None, F: np.ndarray, Z: np.ndarray, transposed: bool = False
) -> float:
    """``‖A P Eᵀ + E P Aᵀ + F Fᵀ‖ / ‖F Fᵀ‖`` for ``P = Z Zᵀ`` in the spectral norm, to about 10 %.

    By power steps on the residual itself, which only multiplies vectors: independent of how `Z` was found, with the rounding
    of its three terms as the floor.
    """
    A, E = (A.T, E if E is None else E.T) if transposed else (A, E)
    images = A @ Z, Z if E is None else E @ Z

    def apply(x: np.ndarray) -> np.ndarray:
        return images[0] @ (images[1].T @ x) + images[1] @ (images[0].T @ x) + F @ (F.T @ x)

    x, norm = np.random.default_rng(0).standard_normal((F.shape[0],)), 0.0
    for _ in range(_POWER_STEPS):
        with np.errstate(all="ignore"):
            x = apply(x / np.linalg.norm(x))
            norm = float(np.linalg.norm(x))
        if not np.isfinite(norm):
            return np.inf
        if norm == 0:
            break
    return float(norm / np.linalg.norm(F, 2) ** 2)


def follow_shifts(A: np.ndarray, E: np.ndarray, F: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same iteration with given shifts for a small dense pencil: its factor `Z`, and `W` with the residual ``W Wᵀ``.

    A large pencil and a small one with the same shifts have ``[Z; Z_r]`` as the factor of both in one.
    """
    W, blocks = F.copy(), []
    for shift in shifts:
        if shift.imag == 0:
            alpha = shift.real
            V = scipy.linalg.solve(A + alpha * E, W)
            W = W - 2 * alpha * (E @ V)
            blocks.append(np.sqrt(-2 * alpha) * V)
        else:
            V = scipy.linalg.solve(A + shift * E, W)
            ratio, step = shift.real / shift.imag, -4 * shift.real
            combined = V.real + ratio * V.imag
            W = W + step * (E @ combined)
            blocks += [np.sqrt(step) * combined, np.sqrt(step * (ratio**2 + 1)) * V.imag]
    return np.hstack(blocks), W


def check_stable(A: scipy.sparse.csc_array, E: scipy.sparse.csc_array | None) -> None:
    """Raise where a cheap test sees that the pencil is unstable or singular.

    The test is of the six smallest eigenvalues and of those that a few steps find in the right half-plane. An unstable
    eigenvalue may pass; with one the iteration does not converge, unless the input hardly excites it.

    Raises `SingularEquationError` if `E` is singular, and `UnstableSystemError` if an eigenvalue that is found is not in the
    open left half-plane.
    """
    if E is not None:
        try:
            splu(E, permc_spec=ordering(E))
        except RuntimeError as err:
            raise SingularEquationError(
                "E is singular, or in discrete time A + E, because of a pole at -1; differential-algebraic systems are not "
                "supported, eliminate their algebraic equations first"
            ) from err
    try:
        solve = splu(A, permc_spec=ordering(A)).solve
    except RuntimeError as err:
        raise UnstableSystemError(_UNSTABLE.format("zero is one (in discrete time: one is a pole)")) from err
    n = A.shape[0]
    inverse = LinearOperator((n, n), lambda x: solve(x if E is None else E @ x), dtype=float)
    if n <= _DENSE:
        values = np.linalg.eigvals(inverse @ np.eye(n))
    else:
        try:
            values = eigs(inverse, k=6, v0=np.random.default_rng(0).standard_normal(n), return_eigenvectors=False)
        except ArpackNoConvergence as err:
            values = err.eigenvalues
    if np.any(values.real >= 0):
        raise UnstableSystemError(_UNSTABLE.format(f"{1 / values[np.argmax(values.real)]:.6g} is one"))
    if n > _DENSE and values.size:
        found = _right_half_plane(A, E, float(1 / np.max(np.abs(values))))
        if found.size:
            raise UnstableSystemError(_UNSTABLE.format(f"{found[0]:.6g} is one"))


def check_around(A: scipy.sparse.csc_array, E: scipy.sparse.csc_array | None) -> None:
    """Raise `UnstableSystemError` if one of the poles next to some shifts on both axes is not in the open left half-plane."""
    n, mass = A.shape[0], scipy.sparse.eye_array(A.shape[0], format="csc") if E is None else E
    if n <= _DENSE:
        return  # which `check_stable` has seen
    largest = abs(A).sum(axis=0).max() / abs(mass).max()
    sizes = 1.1 * largest * np.logspace(-8, 0, _GRID)
    start, matrix = np.random.default_rng(0).standard_normal(n) + 0j, A.astype(complex)  # of a real one other poles are near
    for shift in (*(1j * sizes), *sizes):
        with contextlib.suppress(RuntimeError):  # a shift that is a pole
            try:
                values = eigs(matrix, k=4, M=E, sigma=shift, v0=start, maxiter=20, tol=1e-8, return_eigenvectors=False)
            except ArpackNoConvergence as err:
                values = err.eigenvalues
            found = values[values.real > 1e-9 * np.abs(values)]
            if found.size:
                raise UnstableSystemError(_UNSTABLE.format(f"{found[0]:.6g} is one"))


def _right_half_plane(A: scipy.sparse.csc_array, E: scipy.sparse.csc_array | None, smallest: float) -> np.ndarray:
    """Eigenvalues of positive real part that a few steps of Arnoldi's method find, given the `smallest` modulus of all.

    By the Cayley transform ``(A − σE)⁻¹ (A + σE)``, which maps the left half-plane into the unit circle and the right one out of
    it: there those of modulus near σ, the middle of the spectrum, stand out.
    """
    n = A.shape[0]
    shift = np.sqrt(smallest * abs(A).max() / (1.0 if E is None else abs(E).max()))
    mass = shift * (scipy.sparse.eye_array(n, format="csc") if E is None else E)
    try:
        solve = splu(A - mass, permc_spec=ordering(A)).solve
    except RuntimeError:
        return np.array([shift])
    right = A + mass
    cayley = LinearOperator((n, n), lambda x: solve(right @ x), dtype=float)
    try:
        start = np.random.default_rng(0).standard_normal((n,))
        values = eigs(cayley, k=2, v0=start, maxiter=2, tol=1e-10, return_eigenvectors=False)
    except ArpackNoConvergence as err:
        values = err.eigenvalues
    values = values[np.abs(values) > 1 + 1e-6]
    return shift * (values + 1) / (values - 1)


def ordering(A: scipy.sparse.csc_array) -> str:
    """The fill-reducing ordering of a sparse factorisation: by the pattern of ``A + Aᵀ`` where `A` has it."""
    pattern = abs(A) != 0
    return "MMD_AT_PLUS_A" if (pattern != pattern.T).nnz == 0 else "COLAMD"
