"""Random systems of every kind that real plants come as, and what must hold for each: ``python -m tests.random_systems``.

A system is made from a seed and a number, so that a failure can be repeated alone. References are exact (`tests.exact`).
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.linalg

import lqo_mor as lqo
from lqo_mor.errors import LQOError, LQOWarning
from tests import exact

SIX_DIGITS = 1e-6  # what a number without a warning has at least
METHODS = ("optimal", "balanced", "tsia", "modal", "irka", "projected_gradient")
KINDS = ("random", "non-normal", "defective", "companion", "clustered", "boundary", "stiff", "lightly damped")


def make(seed: int, number: int, largest: int = 200) -> tuple[str, lqo.LQOSystem | lqo.DiagonalLQOSystem, float | None]:
    """The kind, the system and the horizon with a number."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    n = int(np.exp(rng.uniform(0, np.log(largest + 1))))
    continuous, m, p = bool(rng.integers(2)), *rng.integers(1, 4, 2)
    horizon = None if rng.integers(2) else float(10 ** rng.uniform(-1, 3)) if continuous else int(10 ** rng.uniform(0, 3.5))
    poles = _poles(rng, kind, n, continuous)
    diagonal = kind not in ("non-normal", "defective", "companion") and bool(rng.integers(2))
    if diagonal:
        system = _diagonal(rng, poles, int(m), int(p), continuous)
    else:
        system = _dense(rng, kind, poles, int(m), int(p), continuous)
    return kind, system, horizon


def _poles(rng: np.random.Generator, kind: str, n: int, continuous: bool) -> np.ndarray:
    """Poles by their decay rates and frequencies per sample or second, complex ones for pairs."""
    decay = 10 ** rng.uniform(-3, 0.5, n)
    if kind == "boundary":
        decay = 10 ** rng.uniform(-12, 0, n)
    elif kind == "stiff":
        decay = 10 ** rng.uniform(-6, 6 if continuous else 1, n)
    elif kind == "clustered":
        decay = decay[rng.integers(0, max(1, n // 3), n)] * (1 + 10 ** rng.uniform(-14, -2) * rng.standard_normal(n))
    elif kind in ("defective", "companion", "non-normal"):
        decay = np.full(n, 10 ** rng.uniform(-1.5, 0.3)) * (1 + (kind == "companion") * rng.uniform(0, 1, n))
    angle = np.where(rng.random(n) < 0.5, 0, rng.uniform(0, np.pi, n))
    if kind == "lightly damped":
        angle = rng.uniform(0.01, 3, n)
        decay = angle * 10 ** rng.uniform(-4, -1)
    elif kind in ("defective", "companion", "non-normal"):
        angle = np.zeros(n)
    poles = -np.abs(decay) + 1j * angle
    if continuous:
        return poles
    return np.where(angle == 0, np.exp(poles.real) * rng.choice([-1, 1], n), np.exp(poles))


def _diagonal(rng: np.random.Generator, poles: np.ndarray, m: int, p: int, continuous: bool) -> lqo.DiagonalLQOSystem:
    n, real = poles.size, poles.imag == 0

    def gains(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * np.where(real, 0, rng.standard_normal(shape))

    rank = int(rng.integers(0, 3))
    M = lqo.QuadraticOutput(gains(rank, n), gains(rank, n), rng.standard_normal((p, rank))) if rank else None
    size = 10.0 ** rng.integers(-8, 9)
    return lqo.DiagonalLQOSystem(poles, gains(m, n).T * size, gains(p, n), M=M, dt=0 if continuous else True)


def _dense(rng: np.random.Generator, kind: str, poles: np.ndarray, m: int, p: int, continuous: bool) -> lqo.LQOSystem:
    poles = poles[: max(1, poles.size)]
    A = scipy.linalg.block_diag(*(x.real if x.imag == 0 else [[x.real, x.imag], [-x.imag, x.real]] for x in poles))
    n = A.shape[0]
    if kind == "non-normal":
        A = A + np.diag(rng.uniform(0.1, 1.5) * np.ones(n - 1), 1) if n > 1 else A
        A = A if n < 12 else A * 0.3 if not continuous else A
    elif kind == "defective":
        A = np.diag(np.full(n, poles[0].real)) + (np.eye(n, k=1) * abs(poles[0].real) * 10 ** rng.uniform(-3, 0) if n > 1 else 0)
    elif kind == "companion":
        n = min(n, 12)
        A = scipy.linalg.companion(np.poly(poles[:n].real)) if n > 1 else A[:1, :1]
    way = int(rng.integers(3))
    if way == 0:
        T = scipy.linalg.qr(rng.standard_normal((n, n)))[0]
        A = T @ A @ T.T
    elif way == 1:
        T = np.eye(n) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
        A = np.linalg.solve(T, A @ T)
    if rng.random() < 0.25:
        scales = 10.0 ** rng.integers(-6, 7, n)
        A = scales[:, np.newaxis] * A / scales
    else:
        scales = np.ones(n)
    B, C = scales[:, np.newaxis] * rng.standard_normal((n, m)), rng.standard_normal((p, n)) / scales
    M = rng.standard_normal((p, n, n)) / scales / scales[:, np.newaxis] if rng.random() < 0.5 else None
    if M is not None:
        M = (M + M.transpose(0, 2, 1)) / 2
    return lqo.LQOSystem(A, B * 10.0 ** rng.integers(-8, 9), C, M=M, dt=0 if continuous else True)


def failures(seed: int, number: int, largest: int = 200) -> Iterator[tuple[str, str]]:
    """What is wrong with a system: the kind of failure and a line that tells it."""
    kind, sys_, horizon = make(seed, number, largest)
    what = f"{number} {kind} {type(sys_).__name__}({sys_.order}) {'continuous' if sys_.is_continuous else 'discrete'} L={horizon}"
    rng = np.random.default_rng([seed, number, 1])
    value, told = _quiet(partial(lqo.h2_norm, sys_, horizon))
    if isinstance(value, Exception):
        if not isinstance(value, LQOError):
            yield "crash", f"{what}: h2_norm {value!r}"
        return
    wanted = exact.norm(sys_, horizon)
    if not told and not abs(value - wanted) <= SIX_DIGITS * wanted:
        yield "wrong norm, no warning", f"{what}: {_off(value, wanted)}"
    if sys_.order < 2:
        return
    order = int(rng.integers(1, min(sys_.order, 12)))
    errors = {}
    for method in METHODS if sys_.order <= 12 else rng.permutation(METHODS[:4])[:2]:
        red, told = _quiet(partial(lqo.reduce, sys_, order, method=method, horizon=horizon))
        name = f"{what} {method} to {order}"
        if isinstance(red, Exception):
            if not isinstance(red, LQOError):
                yield "crash", f"{name}: {red!r}"
            continue
        errors[method] = red.error
        wanted_error = exact.error(sys_, red.system, horizon)
        allowed = 10.0 ** -max(0, red.digits - 1) * wanted_error + 1e-14 * wanted
        if red.digits and not abs(red.error - wanted_error) <= allowed:
            yield "wrong error", f"{name}: {_off(red.error, wanted_error)} with {red.digits} digits, {told}"
        if wanted_error > wanted * (1 + SIX_DIGITS):
            yield "relative error above 1", f"{name}: {wanted_error / wanted:.4g}"
    for method in ("balanced", "tsia", "modal"):
        if "optimal" in errors and method in errors and errors["optimal"] > errors[method] * (1 + SIX_DIGITS) + 1e-10 * wanted:
            yield "optimal is not the best", f"{what} to {order}: {errors['optimal']:.6g}, {method} {errors[method]:.6g}"


def _off(value: float, wanted: float) -> str:
    return f"{value:.6g}, off by {abs(value / wanted - 1) if wanted else np.inf:.1e}"


def _quiet(run) -> tuple[object, list[str]]:
    """A result or an exception, and which of our warnings came; a warning of another package counts as a crash."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            result = run()
        except Exception as error:  # the kind of error is what is looked for
            result = error
    foreign = [w for w in seen if not issubclass(w.category, LQOWarning)]
    if foreign and not isinstance(result, Exception):
        result = RuntimeError(f"leaked {foreign[0].category.__name__}: {foreign[0].message}")
    return result, [w.category.__name__ for w in seen]


def main() -> int:
    """Check many systems, and list the failures by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")))
    parser.add_argument("--largest", type=int, default=200)
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    for number in range(args.first, args.first + args.systems):
        for kind, line in failures(args.seed, number, args.largest):
            counts[kind] += 1
            print(f"{kind}: {line}", flush=True)
    print(f"{args.systems} systems of seed {args.seed}: {dict(counts) or 'no failure'}")
    return bool(counts)


if __name__ == "__main__":
    sys.exit(main())
