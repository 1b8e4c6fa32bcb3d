"""What the tests of `tsia` and `irka` share: the textbook iteration, gradients by differences, and interpolation."""

from __future__ import annotations

import numpy as np

import lqo_mor as lqo
from lqo_mor.matrix_equations.lyapunov import solve_lyapunov
from lqo_mor.matrix_equations.stein import solve_stein


def as_dense(sys) -> lqo.LQOSystem:
    """The same single system with dense matrices, its quadratic output, too."""
    sys = lqo.to_dense(sys) if isinstance(sys, lqo.DiagonalLQOSystem) else sys
    M = sys.M.to_dense() if isinstance(sys.M, lqo.QuadraticOutput) else sys.M
    return lqo.LQOSystem(sys.A, sys.B, sys.C, sys.D, np.zeros((sys.n_outputs, sys.order, sys.order)) if M is None else M, sys.dt)


def plain_poles(sys, start, steps: int) -> list[np.ndarray]:
    """The poles after every step of the two-sided iteration as the literature writes it, without any safeguard."""
    full, small = as_dense(sys), as_dense(start)
    A, B, C, M = small.A, small.B, small.C, small.M
    solve, poles = solve_lyapunov if full.is_continuous else solve_stein, []
    for _ in range(steps):
        X = solve(full.A, A, full.B @ B.T)
        Y = solve(full.A.T, A.T, full.C.T @ C + 2 * np.sum(full.M @ X @ M, axis=0))
        V = np.linalg.qr(X)[0]
        W = Y @ np.linalg.inv(V.T @ Y)
        A, B, C, M = W.T @ full.A @ V, W.T @ full.B, full.C @ V, V.T @ full.M @ V
        poles.append(np.sort_complex(np.linalg.eigvals(A)))
    return poles


def relative_gradient(sys, reduced) -> float:
    """Largest ``‖∂f/∂Z‖ ‖Z‖ / ‖Σ‖²`` over the matrices `Z` of the reduced system, by central differences of the error `f`."""
    full, small = as_dense(sys), as_dense(reduced)
    parts, largest = {name: getattr(small, name) for name in "ABCM"}, 0.0
    for name, matrix in parts.items():
        step = 1e-6 * np.abs(matrix).max(initial=0.0)
        if not step:
            continue
        gradient = np.zeros_like(matrix)
        for index in np.ndindex(matrix.shape):
            if name == "M" and index[-1] < index[-2]:
                gradient[index] = gradient[(*index[:-2], index[-1], index[-2])]
                continue
            change = np.zeros_like(matrix)
            change[index] += step / 2
            change[(*index[:-2], index[-1], index[-2]) if name == "M" else index] += step / 2
            ends = [
                lqo.h2_error(full, lqo.LQOSystem(**{**parts, name: matrix + sign * change}, D=full.D, dt=full.dt)) ** 2
                for sign in (1, -1)
            ]
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        largest = max(largest, np.linalg.norm(gradient) * np.linalg.norm(matrix))
    return largest / lqo.h2_norm(full) ** 2


def interpolation_defect(sys, reduced) -> float:
    """Largest relative defect of ``H b``, ``cᵀ H`` and ``cᵀ H' b`` at the mirror images of the reduced poles; linear systems."""
    full = as_dense(sys)
    modal = reduced if isinstance(reduced, lqo.DiagonalLQOSystem) else lqo.to_diagonal(reduced)
    small, largest = as_dense(modal), 0.0
    for mu, b, c in zip(modal.poles, modal.B, modal.C.T, strict=True):
        point = -mu if full.is_continuous else 1 / mu
        H, dH = transfer(full, point)
        H_r, dH_r = transfer(small, point)
        for value, other in ((H @ b, H_r @ b), (c @ H, c @ H_r), (c @ dH @ b, c @ dH_r @ b)):
            largest = max(largest, np.linalg.norm(value - other) / np.linalg.norm(value))
    return largest


def transfer(sys, s: complex) -> tuple[np.ndarray, np.ndarray]:
    """``C (s − A)⁻¹ B`` and its derivative."""
    states = np.linalg.solve(s * np.eye(sys.order) - sys.A, sys.B)
    return sys.C @ states, -sys.C @ np.linalg.solve(s * np.eye(sys.order) - sys.A, states)
