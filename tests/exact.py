"""References in interval arithmetic (FLINT) for systems of any size: norms and errors whose digits are proven.

Floating-point inputs are taken as the exact numbers they are. `tests.extended` has more quantities, for small systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from lqo_mor import DiagonalLQOSystem, LQOSystem, QuadraticOutput

flint = pytest.importorskip("flint")

_FIRST_BITS, _MOST_BITS = 256, 8192
_DIGITS = 1e-20  # relative radius that a result must have; the precision is raised until it does
_MOST_DOUBLINGS = 200


class Undecided(Exception):
    """The radius of a result is too large: more bits are needed."""


@dataclass(frozen=True)
class Matrices:
    """A real system, exactly."""

    A: object
    B: object
    C: object
    D: object
    M: list
    continuous: bool


def norm(sys, horizon=None) -> float:
    """The h² norm, rounded to double precision."""
    return _decided(lambda: _root(_inner(_exactly(sys), None, horizon) + _squares(_exactly(sys).D)))


def error(sys, rom, horizon=None) -> float:
    """The h² norm of the difference, rounded to double precision."""

    def run():
        a, b = _exactly(sys), _exactly(rom)
        return _root(_inner(a, None, horizon) - 2 * _inner(a, b, horizon) + _inner(b, None, horizon) + _squares(a.D - b.D))

    return _decided(run)


def inner(sys, other, horizon=None) -> float:
    """The h² inner product of the strictly proper parts, rounded to double precision."""

    def run():
        a, b = _exactly(sys), _exactly(other)
        value = _inner(a, b, horizon)
        if value.rad() ** 2 > _DIGITS**2 * abs(_inner(a, None, horizon) * _inner(b, None, horizon)).mid():
            raise Undecided
        return float(value.mid())

    return _decided(run)


def gramian(sys) -> np.ndarray:
    """The controllability Gramian of a dense system over the infinite horizon, rounded to double precision."""

    def run():
        P = _gramian(_exactly(sys), None, None)
        if any(entry.rad() > _DIGITS * _size(P) for entry in P.entries()):
            raise Undecided
        return np.array([float(entry.mid()) for entry in P.entries()]).reshape(P.nrows(), -1)

    return _decided(run)


def _decided(run: Callable) -> float:
    """A number, with as many bits as it takes."""
    before, bits = flint.ctx.prec, _FIRST_BITS
    try:
        while bits <= _MOST_BITS:
            flint.ctx.prec = bits
            try:
                return run()
            except (Undecided, ZeroDivisionError):
                bits *= 2
        raise AssertionError(f"{_MOST_BITS} bits are not enough for a reference")
    finally:
        flint.ctx.prec = before


def _root(squared) -> float:
    """The root of a square that is known to be positive, or that may be zero next to nothing."""
    if abs(squared) < flint.arb(2) ** (-_FIRST_BITS * 4):
        return 0.0
    if not (squared > 0 and squared.rad() < _DIGITS * squared.mid()):
        raise Undecided
    return float(squared.sqrt())


def _matrix(array) -> object:
    array = np.atleast_2d(array)
    return flint.arb_mat(*array.shape, [float(x) for x in array.ravel()])


def _exactly(sys: LQOSystem | DiagonalLQOSystem) -> Matrices:
    """The system in real coordinates: of a complex slot `Re x` and `Im x`, which needs no rounding."""
    q = sys.M
    if isinstance(sys, DiagonalLQOSystem):
        real, n = sys.is_real_pole, sys.poles.size
        first = np.cumsum([0, *np.where(real, 1, 2)])
        A, B = np.zeros((first[-1], first[-1])), np.zeros((first[-1], sys.n_inputs))

        def rows(Z):
            out = np.zeros((Z.shape[0], first[-1]))
            for k in range(n):
                out[:, first[k]] = Z[:, k].real if real[k] else 2 * Z[:, k].real
                if not real[k]:
                    out[:, first[k] + 1] = -2 * Z[:, k].imag
            return out

        for k, pole in enumerate(sys.poles):
            i = first[k]
            A[i, i], B[i] = pole.real, sys.B[k].real
            if not real[k]:
                A[i + 1, i + 1], A[i, i + 1], A[i + 1, i], B[i + 1] = pole.real, -pole.imag, pole.imag, sys.B[k].imag
        C = rows(sys.C)
        factors = None if q is None else (rows(q.U), rows(q.V), q.W)
    else:
        A, B, C = sys.A, sys.B, sys.C
        factors = (q.U, q.V, q.W) if isinstance(q, QuadraticOutput) else None
    if factors is not None:
        U, V = _matrix(factors[0]), _matrix(factors[1])
        halves = [U.transpose() * _diagonal(w) * V for w in factors[2]]
        M = [(half + half.transpose()) * (flint.arb(1) / 2) for half in halves]
    else:
        M = [] if q is None else [_matrix((Mi + Mi.T) / 2) for Mi in q]
    return Matrices(_matrix(A), _matrix(B), _matrix(C), _matrix(sys.D), M, sys.is_continuous)


def _diagonal(values) -> object:
    return _matrix(np.diag(values))


def _inner(a: Matrices, b: Matrices | None, horizon: float | None):
    """The inner product of the strictly proper parts; of `a` with itself if `b` is None."""
    X = _gramian(a, b, horizon)
    b = a if b is None else b
    total = (a.C * X * b.C.transpose()).trace() if a.C.nrows() == b.C.nrows() else None
    for Mi, Ni in zip(a.M, b.M, strict=False):  # one without a quadratic output has no products with it
        total += (Mi * X * Ni * X.transpose()).trace()
    return total


def _gramian(a: Matrices, b: Matrices | None, horizon: float | None):
    """The cross Gramian ``Σ A^k B B'ᵀ (A'ᵀ)^k``, or its integral, over the horizon."""
    same = b is None
    b = a if b is None else b
    Q, F = a.B * b.B.transpose(), a.A
    G = F if same else b.A
    if not a.continuous:
        return _sum(F, G, Q, same, None if horizon is None else int(horizon))
    if horizon is None:  # Cayley: (A − I)⁻¹ (A + I) with inputs √2 (A − I)⁻¹ B
        left, F = _cayley(F)
        right, G = (left, F) if same else _cayley(G)
        return _sum(F, G, left.solve(right.solve(Q.transpose()).transpose()) * 2, same, None)
    size = float(horizon) * max(float(_size(Y)) * Y.nrows() for Y in (F, G))
    doublings = max(0, int(np.ceil(np.log2(size))) + 4) if size else 0
    step = flint.arb(float(horizon)) / flint.arb(2) ** doublings
    term, small = Q * step, flint.arb(2) ** (-flint.ctx.prec)
    X, j = term, 1
    while j < 20 or not _size(term) <= small * _size(X):
        j += 1
        term = (F * term + term * G.transpose()) * (step / j)
        X = X + term
        if j > flint.ctx.prec:
            break
    F = (F * step).exp()
    G = F if same else (G * step).exp()
    for _ in range(doublings):
        X = X + F * X * G.transpose()
        F = F * F
        G = F if same else G * G
    return X


def _cayley(A):
    identity = flint.arb_mat(A.nrows(), A.nrows(), [int(i % (A.nrows() + 1) == 0) for i in range(A.nrows() ** 2)])
    left = A - identity
    return left, left.solve(A + identity)


def _sum(F, G, Q, same: bool, terms: int | None):
    """Doubling: all terms, or the first ones by the binary digits of their number."""
    if terms is None:
        X = Q
        for _ in range(_MOST_DOUBLINGS):
            step = F * X * G.transpose()
            X = X + step
            if _size(step) <= flint.arb(2) ** (-flint.ctx.prec // 2) * _size(X):
                return X
            F = F * F
            G = F if same else G * G
        raise Undecided
    X, A, B = Q, F, G
    for digit in bin(terms)[3:]:
        X = X + F * X * G.transpose()
        F = F * F
        G = F if same else G * G
        if digit == "1":
            X = Q + A * X * B.transpose()
            F = F * A
            G = F if same else G * B
    return X


def _size(X) -> object:
    """An upper bound of the largest entry."""
    largest = 0
    for entry in X.entries():
        largest = max(largest, abs(entry).upper())
    return flint.arb(largest) if not isinstance(largest, flint.arb) else largest


def _squares(D):
    total = flint.arb(0)
    for entry in D.entries():
        total += entry * entry
    return total
