"""Claims about diagonal systems: one large Gramian against the floor of memory, and a batch of small ones."""

from __future__ import annotations

import mmap

import numba
import numpy as np

from lqo_mor.bench.timing import Row, Tell, compare, measure
from lqo_mor.matrix_equations.pairing import pairing, solve_diagonal
from lqo_mor.matrix_equations.residuals import relative_residual

CHANNELS, STATES, REDUCED = 512, 64, 16
_CHUNK = 32  # channels whose intermediate results stay in the cache


def _poles(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0.5, 0.999, shape) * np.exp(1j * rng.uniform(0.01, 3, shape))


def _residual(lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray, X: np.ndarray) -> float:
    Q = B @ np.swapaxes(B_r, -1, -2)
    rest = lam[..., :, np.newaxis] * X * mu[..., np.newaxis, :] - X + Q
    return relative_residual(rest, float(np.abs(lam).max() * np.abs(mu).max()) + 1.0, X, Q)


def diagonal(quick: bool, progress: Tell, n: int = 1024) -> list[Row]:
    """One discrete Gramian, against the time of writing as many complex numbers, and against NumPy."""
    progress(f"n = {n}")
    rng = np.random.default_rng(0)
    lam, B, norm = _poles(rng, n), rng.standard_normal((n, 1)) + 1j * rng.standard_normal((n, 1)), pairing(False)

    def filled(out: np.ndarray) -> tuple[np.ndarray]:
        out.fill(1.0)
        return (out,)  # freed outside the clock, as the others' results are

    def plain() -> np.ndarray:
        X = np.multiply.outer(lam, lam)
        np.subtract(1, X, out=X)
        return np.divide(B @ B.T, X, out=X)

    timings = measure(
        {
            "ours": lambda: solve_diagonal(norm, lam, B, lam, B),
            "writing n² numbers": lambda: filled(np.empty((n, n), complex)),
            "the same, to new pages": lambda: filled(np.frombuffer(mmap.mmap(-1, 16 * n * n), complex)),
            "NumPy": plain,
        }
    )

    def accuracy(X: np.ndarray | tuple[np.ndarray]) -> float | None:
        return None if isinstance(X, tuple) else _residual(lam, B, lam, B, X)

    return compare("diagonal", n, "one input", timings, accuracy, targets={"writing n² numbers": 0.5})


def diagonal_batch(quick: bool, progress: Tell, channels: int = CHANNELS) -> list[Row]:
    """Cross Gramians of a batch of channels, against NumPy, and with one thread against two."""
    progress(f"{channels} channels of {STATES} states and {REDUCED} reduced ones")
    rng, norm = np.random.default_rng(0), pairing(False)
    lam, mu = _poles(rng, channels, STATES), _poles(rng, channels, REDUCED)
    B = rng.standard_normal((channels, STATES, 1)) + 0j
    B_r = rng.standard_normal((channels, REDUCED, 1)) + 0j
    available: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when Numba is imported

    def ours(threads: int) -> np.ndarray:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            return solve_diagonal(norm, lam, B, mu, B_r)
        finally:
            numba.set_num_threads(before)

    competitors = {
        "ours": lambda: ours(min(2, available)),
        "NumPy, loop over channels": lambda: _loop(lam, B, mu, B_r),
        "NumPy, vectorised": lambda: _vectorised(lam, B, mu, B_r),
        "NumPy, vectorised by chunks": lambda: _chunked(lam, B, mu, B_r),
    }
    targets, absent = {"NumPy, loop over channels": 20.0}, {}
    if available > 1:
        competitors["ours, 1 thread"] = lambda: ours(1)
        targets["ours, 1 thread"] = 1.7
    else:
        absent["ours, 1 thread"] = "there is only one thread"
    timings = measure(competitors, compiled=("ours", "ours, 1 thread"))
    vectorised = [name for name in competitors if "vectorised" in name]
    targets[min(vectorised, key=lambda name: timings[name].seconds or np.inf)] = 3.0
    case = f"{channels} channels, {min(2, available)} threads"
    return compare("diagonal_batch", STATES, case, timings, lambda X: _residual(lam, B, mu, B_r, X), None, absent, targets)


def _loop(lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> np.ndarray:
    X = np.empty((lam.shape[0], lam.shape[1], mu.shape[1]), complex)
    for k in range(lam.shape[0]):
        X[k] = (B[k] @ B_r[k].T) / (1 - np.multiply.outer(lam[k], mu[k]))
    return X


def _vectorised(lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> np.ndarray:
    X = lam[:, :, np.newaxis] * mu[:, np.newaxis, :]
    np.subtract(1, X, out=X)
    return np.divide(B * np.swapaxes(B_r, -1, -2), X, out=X)


def _chunked(lam: np.ndarray, B: np.ndarray, mu: np.ndarray, B_r: np.ndarray) -> np.ndarray:
    X = np.empty((lam.shape[0], lam.shape[1], mu.shape[1]), complex)
    products = np.empty((_CHUNK, *X.shape[1:]), complex)
    for first in range(0, lam.shape[0], _CHUNK):
        part = slice(first, first + _CHUNK)
        out = X[part]
        product = products[: out.shape[0]]
        np.multiply(lam[part, :, np.newaxis], mu[part, np.newaxis, :], out=out)
        np.subtract(1, out, out=out)
        np.multiply(B[part], np.swapaxes(B_r[part], -1, -2), out=product)
        np.divide(product, out, out=out)
    return X
