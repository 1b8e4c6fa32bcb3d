"""References in extended precision (mpmath): Gramians, norms, errors and Hankel singular values from their definitions.

Matrices are NumPy arrays of mpmath numbers. Floating-point inputs are taken as the exact numbers they are, so nothing
here depends on how well a problem is conditioned.
"""

from __future__ import annotations

import mpmath
import numpy as np

from lqo_mor import DiagonalLQOSystem, QuadraticOutput

DIGITS = 90
extended = mpmath.workdps(DIGITS)


def exact(array) -> np.ndarray:
    """The same numbers in extended precision."""
    array = np.asarray(array)
    out = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        z = complex(array[index])
        out[index] = mpmath.mpc(z.real, z.imag) if np.iscomplexobj(array) else mpmath.mpf(z.real)
    return out


@extended
def size(array) -> mpmath.mpf:
    """Frobenius norm."""
    return mpmath.sqrt(sum((abs(z) ** 2 for z in np.ravel(array)), mpmath.mpf(0)))


@extended
def relative_error(got, wanted) -> float:
    """``‖got − wanted‖ / ‖wanted‖`` of numbers or arrays, `got` in double precision."""
    wanted = np.asarray(wanted, object)
    return float(size(exact(got) - wanted) / size(wanted))


@extended
def to_float(array) -> np.ndarray:
    """Rounded to double precision."""
    array = np.asarray(array, object)
    return np.array([complex(z) for z in array.ravel()]).reshape(array.shape)


def adjoint(X):
    return X.conj().T


# Equations


@extended
def stein(A, B, Q, terms=None) -> np.ndarray:
    """The solution of ``A X Bᴴ − X + Q = 0``, or the sum of the first terms of ``Σ A^k Q (Bᴴ)^k``."""
    if terms is None:
        system = np.eye(Q.size) - np.kron(to_float(A), to_float(B).conj())
        return _refine(system, lambda X: A @ X @ adjoint(B) - X + Q, Q)
    X, F, G = Q, A, adjoint(B)
    for digit in bin(terms)[3:]:
        X, F, G = X + F @ X @ G, F @ F, G @ G
        if digit == "1":
            X, F, G = Q + A @ X @ adjoint(B), F @ A, G @ adjoint(B)
    return X


@extended
def lyapunov(A, B, Q, duration=None) -> np.ndarray:
    """The solution of ``A X + X Bᴴ + Q = 0``, or ``∫₀^T e^{At} Q e^{Bᴴt} dt``."""
    if duration is None:
        left = np.kron(to_float(A), np.eye(B.shape[0])) + np.kron(np.eye(A.shape[0]), to_float(B).conj())
        return _refine(-left, lambda X: A @ X + X @ adjoint(B) + Q, Q)
    T, scale = mpmath.mpf(float(duration)), size(A) + size(B)
    doublings = max(0, int(mpmath.ceil(mpmath.log(T * scale, 2))) + 3) if scale else 0
    step = T / 2**doublings
    term, X = Q * step, Q * step
    F, G = _identity(A.shape[0]), _identity(B.shape[0])
    f, g, same = F, G, np.array_equal(A, B)
    for j in range(1, 52):  # 8^-52 / 52! < 1e-90
        term = (A @ term + term @ adjoint(B)) * (step / (j + 1))
        f = A @ f * (step / j)
        g = adjoint(f) if same else adjoint(B) @ g * (step / j)
        X, F, G = X + term, F + f, G + g
    for _ in range(doublings):
        X, F = X + F @ X @ G, F @ F
        G = adjoint(F) if same else G @ G
    return X


def _refine(system, residual, Q):
    """Solve by refinement: residuals in extended precision, corrections by a linear system in double precision."""
    X, scale, small = Q * 0, size(Q), mpmath.mpf(10) ** (-DIGITS // 2)
    for _ in range(100):
        rest = residual(X)
        if size(rest) <= small * scale:
            return X
        shrink = mpmath.mpf(2) ** int(mpmath.log(size(rest), 2))
        X = X + exact(np.linalg.solve(system, to_float(rest / shrink).ravel()).reshape(Q.shape)) * shrink
    raise AssertionError("the reference did not converge: the equation is too badly conditioned for refinement")


def _identity(n):
    return exact(np.eye(n))


# Systems


@extended
def matrices(sys):
    """``A, B, C, M`` of a system; for a diagonal one the closed set of poles, `A` their vector."""
    if isinstance(sys, DiagonalLQOSystem):
        pair = ~sys.is_real_pole

        def close(Z):
            return exact(np.concatenate([Z, Z[..., pair].conj()], axis=-1))

        A, B, C, q = close(sys.poles), close(sys.B.T).T, close(sys.C), sys.M
        M = [] if q is None else _quadratic(close(q.U), close(q.V), exact(q.W))
        return A, B, C, M
    M = sys.M
    if M is None:
        M = []
    elif isinstance(M, QuadraticOutput):
        M = _quadratic(exact(M.U), exact(M.V), exact(M.W))
    else:
        M = [exact(Mi) for Mi in M]
    return exact(sys.A), exact(sys.B), exact(sys.C), M


def _quadratic(U, V, W):
    out = []
    for w in W:
        half = U.T @ (w[:, np.newaxis] * V) / 2
        out.append(half + half.T)
    return out


def _solve(A, B, Q, continuous, horizon):
    """``Σ A^k Q (Bᴴ)^k``, its integral in continuous time, entry by entry where both are diagonal."""
    if A.ndim == 1 and B.ndim == 1:
        X = np.empty(Q.shape, object)
        for i, j in np.ndindex(Q.shape):
            X[i, j] = Q[i, j] * pairing(A[i], B[j].conjugate(), continuous, horizon)
        return X
    A, B = (np.diag(F) + exact(np.zeros((F.size, F.size))) if F.ndim == 1 else F for F in (A, B))
    if continuous:
        return lyapunov(A, B, Q, horizon)
    return stein(A, B, Q, None if horizon is None else int(horizon))


@extended
def pairing(lam, mu, continuous, horizon):
    """``Σ_{k<L} (λμ)^k`` or ``∫₀^T e^{(λ+μ)t} dt``."""
    if continuous:
        s = lam + mu
        if horizon is None:
            return -1 / s
        T = mpmath.mpf(float(horizon))
        return T if s == 0 else (mpmath.exp(s * T) - 1) / s
    z = lam * mu
    if horizon is None:
        return 1 / (1 - z)
    return mpmath.mpf(horizon) if z == 1 else (1 - z ** int(horizon)) / (1 - z)


@extended
def gramians(sys, horizon=None):
    """Both Gramians; of a diagonal system in its real coordinates."""
    A, B, C, M = matrices(sys)
    P = _solve(A, A, B @ adjoint(B), sys.is_continuous, horizon)
    Q = adjoint(C) @ C
    for Mi in M:
        Q = Q + adjoint(Mi) @ P.conj() @ Mi
    A = A.conj() if A.ndim == 1 else adjoint(A)
    Q = _solve(A, A, Q, sys.is_continuous, horizon)
    if isinstance(sys, DiagonalLQOSystem):
        T = _real_coordinates(sys.is_real_pole)
        P, Q = _real(T @ P @ adjoint(T)), _real(T @ Q @ adjoint(T))
    return P, Q


def _real(X):
    out = np.empty(X.shape, object)
    for index in np.ndindex(X.shape):
        out[index] = mpmath.re(X[index])
    return out


def _real_coordinates(real):
    """The unitary map from the closed set to ``√2 Re x`` (``x`` at a real pole), then ``√2 Im x``."""
    s, pairs = real.size, np.flatnonzero(~real)
    T, half = exact(np.zeros((s + pairs.size,) * 2, complex)), mpmath.sqrt(mpmath.mpf(1) / 2)
    for i in np.flatnonzero(real):
        T[i, i] = mpmath.mpc(1)
    for k, i in enumerate(pairs):
        T[i, i] = T[i, s + k] = mpmath.mpc(half)
        T[s + k, i], T[s + k, s + k] = mpmath.mpc(0, -half), mpmath.mpc(0, half)
    return T


@extended
def inner(sys, other, horizon=None):
    A, B, C, M = matrices(sys)
    A_r, B_r, C_r, M_r = matrices(other)
    X = _solve(A, A_r, B @ adjoint(B_r), sys.is_continuous, horizon)
    total = np.sum((C @ X) * C_r.conj())
    for Mi, Mri in zip(M, M_r, strict=False):
        total += np.sum((Mi @ X) * (X @ Mri.conj()))
    return total + np.sum(exact(sys.D) * exact(other.D).conj())


@extended
def norm(sys, horizon=None):
    return mpmath.sqrt(mpmath.re(inner(sys, sys, horizon)))


@extended
def error(sys, rom, horizon=None):
    """The norm of the difference by the three-term formula; half of the digits may cancel."""
    cross = mpmath.re(inner(sys, rom, horizon))
    return mpmath.sqrt(mpmath.re(inner(sys, sys, horizon)) - 2 * cross + mpmath.re(inner(rom, rom, horizon)))


@extended
def hankel_singular_values(sys, horizon=None) -> np.ndarray:
    """Roots of the eigenvalues of the product of the real Gramians, by those of ``Lᵀ Q L`` with ``P = L Lᵀ``."""
    P, Q = gramians(sys, horizon)
    factor = mpmath.cholesky(mpmath.matrix(P.tolist()))
    values = mpmath.eigsy(factor.T * mpmath.matrix(Q.tolist()) * factor, eigvals_only=True)
    return np.sort([float(mpmath.sqrt(abs(value))) for value in values])[::-1]


@extended
def eigenvalues(P) -> np.ndarray:
    """Eigenvalues of a real positive matrix, in decreasing order."""
    return np.sort([float(value) for value in mpmath.eigsy(mpmath.matrix(P.tolist()), eigvals_only=True)])[::-1]
