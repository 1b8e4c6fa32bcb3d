"""What the definitions say, computed without any solver of the package: kernels, their sums, and derivatives."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lqo_mor import DiagonalLQOSystem, LQOSystem, QuadraticOutput


def closed(sys):
    """``A, B, C, M`` of one system over a set of states closed under conjugation (complex, not real coordinates)."""
    if isinstance(sys, LQOSystem):
        M = sys.M
        if M is None:
            M = np.zeros((sys.n_outputs, sys.order, sys.order))
        elif isinstance(M, QuadraticOutput):
            M = _symmetric(M.U, M.V, M.W)
        return sys.A, sys.B, sys.C, M
    assert isinstance(sys, DiagonalLQOSystem)
    assert not sys.batch
    pair = sys.poles.imag != 0
    A = np.diag(np.concatenate([sys.poles, sys.poles[pair].conj()]))
    B = np.concatenate([sys.B, sys.B[pair].conj()])

    def rows(Z):
        return np.concatenate([Z, Z[:, pair].conj()], axis=1)

    q = sys.M
    M = np.zeros((sys.n_outputs, *A.shape)) if q is None else _symmetric(rows(q.U), rows(q.V), q.W)
    return A, B, rows(sys.C), M


def _symmetric(U, V, W):
    out = np.zeros((W.shape[0], U.shape[1], U.shape[1]), complex)
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            out[i] += 0.5 * W[i, j] * (np.outer(U[j], V[j]) + np.outer(V[j], U[j]))
    return out


def states(sys, horizon):
    """``A^k B`` for all k below `horizon`, (steps, n, m); in continuous time ``√w e^{At} B`` at quadrature nodes."""
    A, B, _, _ = closed(sys)
    if not sys.is_continuous:
        out = [B + 0j]
        for _ in range(int(horizon) - 1):
            out.append(A @ out[-1])
        return np.stack(out)
    panels = max(1, int(np.ceil(2 * horizon)))
    nodes, weights = np.polynomial.legendre.leggauss(14)
    step, out, start = horizon / panels, [], B + 0j
    flows = [scipy.linalg.expm(A * step * (t + 1) / 2) for t in nodes]
    whole = scipy.linalg.expm(A * step)
    for _ in range(panels):
        out += [np.sqrt(step * w / 2) * flow @ start for flow, w in zip(flows, weights, strict=True)]
        start = whole @ start
    return np.stack(out)


def kernels(sys, horizon):
    """``h₁[k]`` (steps, p, m) and ``h₂[i, k, l]`` (p, steps, steps, m, m), over `horizon`."""
    _, _, C, M = closed(sys)
    X = states(sys, horizon)
    return C @ X, np.einsum("kax,iab,lby->iklxy", X, M, X, optimize=True)


def inner(sys, other, horizon):
    """The inner product of two discrete or continuous systems, summed over their kernels."""
    h1, h2 = kernels(sys, horizon)
    g1, g2 = kernels(other, horizon)
    return np.sum(h1 * g1.conj()) + np.sum(h2 * g2.conj()) + np.sum(sys.D * other.D.conj())


def error(sys, rom, horizon):
    """The norm of the difference of the kernels of two systems."""
    h1, h2 = kernels(sys, horizon)
    g1, g2 = kernels(rom, horizon)
    return np.sqrt(np.sum(np.abs(h1 - g1) ** 2) + np.sum(np.abs(h2 - g2) ** 2) + np.sum(np.abs(sys.D - rom.D) ** 2))


def derivative(function, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of a real function of a real array, of fourth order."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        values = []
        for k in (-2, -1, 1, 2):
            moved = x.copy()
            moved[index] += k * step
            values.append(function(moved))
        out[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return out


def complex_derivative(function, z: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """``∂f/∂Re + i ∂f/∂Im`` of a real function of a complex array."""
    real = derivative(lambda x: function(x + 1j * z.imag), z.real.copy(), step)
    return real + 1j * derivative(lambda y: function(z.real + 1j * y), z.imag.copy(), step)
