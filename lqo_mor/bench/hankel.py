"""The claim about small Hankel singular values of diagonal systems, against extended precision (mpmath)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lqo_mor.analysis.gramians import controllability_gramian, hankel_singular_values, observability_gramian
from lqo_mor.bench.timing import Row, Tell, compare, measure
from lqo_mor.systems.diagonal import DiagonalLQOSystem

SMALLEST, ACCURACY = 1e-14, 1e-6  # of the largest value; wanted relative error
_DIGITS = 100  # the Gramians need twice the 50 digits that the values shall have


def hankel_values(quick: bool, progress: Tell, slots: int = 10) -> list[Row]:
    """Largest relative error of the values down to 1e-14 of the largest."""
    rows = []
    for continuous in (False, True):
        case = "continuous" if continuous else "discrete"
        progress(f"n = {2 * slots}, {case}")
        rng = np.random.default_rng(3)
        poles = rng.uniform(0.3, 0.95, slots) * np.exp(1j * rng.uniform(0.05, 1.5, slots))
        B, C = rng.standard_normal((2, slots)) + 1j * rng.standard_normal((2, slots))
        sys = DiagonalLQOSystem(np.log(poles) if continuous else poles, B[:, None], C[None], dt=0 if continuous else 1.0)
        timings = measure(
            {
                "ours": partial(hankel_singular_values, sys),
                "√eig(PQ)": partial(by_eigenvalues, sys),
                "Cholesky + SVD": partial(by_cholesky, sys),
            }
        )
        try:
            exact = extended_values(sys)
        except ImportError:
            rows += compare("hankel_values", 2 * slots, case, timings, absent={"50 digits": "mpmath: not installed"})
            continue
        count = int(np.sum(exact >= SMALLEST * exact[0]))
        case = f"{case}, {count} values"
        found = compare("hankel_values", 2 * slots, case, timings, partial(largest_error, exact=exact))
        rows += [replace(row, reached=row.accuracy is not None and row.accuracy <= ACCURACY) for row in found]
    return rows


def largest_error(values: np.ndarray, exact: np.ndarray) -> float:
    """Largest relative error of the values that are not below 1e-14 of the largest; NaN if one of them is."""
    count = int(np.sum(exact >= SMALLEST * exact[0]))
    return float(np.max(np.abs(values[:count] - exact[:count]) / exact[:count]))


def by_eigenvalues(sys: DiagonalLQOSystem) -> np.ndarray:
    """The textbook formula: square roots of the eigenvalues of ``P Q``."""
    with np.errstate(invalid="ignore"):
        values = np.sqrt(np.linalg.eigvals(controllability_gramian(sys) @ observability_gramian(sys)).real)
    return -np.sort(-values)  # NaN last


def by_cholesky(sys: DiagonalLQOSystem) -> np.ndarray:
    """Singular values of the product of Cholesky factors of computed Gramians."""
    R, S = np.linalg.cholesky(controllability_gramian(sys)), np.linalg.cholesky(observability_gramian(sys))
    return np.linalg.svd(S.T @ R, compute_uv=False)


def extended_values(sys: DiagonalLQOSystem) -> np.ndarray:
    """The Hankel singular values of a linear diagonal system over the infinite horizon, by mpmath.

    Both Gramians are formed from the conjugate pairs in closed form, and the values are the square roots of the
    eigenvalues of ``Lᴴ Q L`` with ``P = L Lᴴ``.
    """
    import mpmath as mp

    def number(z: complex) -> Any:
        return mp.mpc(float(z.real), float(z.imag))

    real = sys.is_real_pole

    def both(array: np.ndarray) -> list[Any]:
        return [number(z) for z in array] + [mp.conj(number(z)) for z, r in zip(array, real, strict=True) if not r]

    with mp.workdps(_DIGITS):
        poles, B, C = both(sys.poles), [both(b) for b in sys.B.T], [both(c) for c in sys.C]

        def gramian(lam: list[Any], columns: list[list[Any]]) -> Any:
            out = mp.matrix(len(lam), len(lam))
            for i, x in enumerate(lam):
                for j, y in enumerate(lam):
                    weight = sum((b[i] * mp.conj(b[j]) for b in columns), mp.mpf(0))
                    out[i, j] = weight / (-(x + mp.conj(y)) if sys.is_continuous else 1 - x * mp.conj(y))
            return out

        P, Q = gramian(poles, B), gramian([mp.conj(z) for z in poles], [[mp.conj(c) for c in row] for row in C])
        L = mp.cholesky(P)
        squares = mp.eighe(L.H * Q * L, eigvals_only=True)
        return np.array(sorted((float(mp.sqrt(abs(value))) for value in squares), reverse=True))
